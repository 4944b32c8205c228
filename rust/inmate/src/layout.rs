// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the sections of the shared memory lie ("Shared Memory Region Layout"):
//! state table, R/W section, then one output section for each peer.

use crate::capability::VendorCapability;
use crate::error::Error;
use crate::range::Range;
use crate::spec;
use crate::spec::PAGE_SIZE;

/// The checked layout of the shared memory; offsets count from its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    id: u32,
    max_peers: u32,
    state_size: u64,
    rw_size: u64,
    output_size: u64,
    size: u64,
}

impl Layout {
    /// Checks what the device says about itself.
    ///
    /// # Errors
    /// Names the number that cannot be: number of peers, own ID, or the size of
    /// a section.
    pub fn new(vendor: &VendorCapability, id: u32, max_peers: u32) -> Result<Self, Error> {
        if !(spec::MIN_PEERS..=spec::MAX_PEERS).contains(&max_peers) {
            return Err(Error::MaxPeers { max_peers });
        }
        if id >= max_peers {
            return Err(Error::PeerId { id, max_peers });
        }
        let state_size = u64::from(vendor.state_table_size);
        if state_size < 4 * u64::from(max_peers) || state_size % PAGE_SIZE != 0 {
            return Err(Error::StateTableSize {
                size: vendor.state_table_size,
                max_peers,
            });
        }
        let rw_size = whole_pages("R/W", vendor.rw_section_size)?;
        let output_size = whole_pages("output", vendor.output_section_size)?;
        let size = output_size
            .checked_mul(max_peers.into())
            .and_then(|outputs| outputs.checked_add(rw_size))
            .and_then(|sum| sum.checked_add(state_size))
            .ok_or(Error::LayoutOverflow)?;
        Ok(Self {
            id,
            max_peers,
            state_size,
            rw_size,
            output_size,
            size,
        })
    }

    /// Own peer ID, below [`Self::max_peers`].
    pub fn id(&self) -> u32 {
        self.id
    }

    /// Number of peers of the link, including this one.
    pub fn max_peers(&self) -> u32 {
        self.max_peers
    }

    /// Size of all sections together in bytes.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Size of the R/W section in bytes, may be 0.
    pub fn rw_size(&self) -> u64 {
        self.rw_size
    }

    /// Size of one output section in bytes, may be 0.
    pub fn output_size(&self) -> u64 {
        self.output_size
    }

    /// The state table in the shared memory `region`, of which [`Self::size`]
    /// bytes must exist.
    pub fn state_table(&self, region: &Range) -> Option<Range> {
        region.slice(0, self.state_size)
    }

    /// The R/W section; `None` if there is none.
    pub fn rw_section(&self, region: &Range) -> Option<Range> {
        region.slice(self.state_size, self.rw_size)
    }

    /// The output sections of `count` peers from `first` on; `None` if there
    /// are none.
    pub fn output_sections(&self, region: &Range, first: u32, count: u32) -> Option<Range> {
        let end = first
            .checked_add(count)
            .filter(|end| *end <= self.max_peers)?;
        let offset = self.state_size + self.rw_size + self.output_size * u64::from(first);
        region.slice(offset, self.output_size * u64::from(end - first))
    }
}

fn whole_pages(name: &'static str, size: u64) -> Result<u64, Error> {
    if size % PAGE_SIZE != 0 {
        return Err(Error::SectionSize { name, size });
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: VendorCapability = VendorCapability {
        offset: 0x40,
        state_table_size: 0x1000,
        rw_section_size: 0x9000,
        output_section_size: 0x2000,
        base_address: None,
    };

    #[test]
    fn places_the_sections_of_the_demo() {
        let layout = Layout::new(&DEMO, 1, 3).unwrap();
        let region = Range::new(0x3f0f_0000, layout.size()).unwrap();
        assert_eq!(layout.size(), 0x1_0000);
        assert_eq!(layout.state_table(&region), Range::new(0x3f0f_0000, 0x1000));
        assert_eq!(layout.rw_section(&region), Range::new(0x3f0f_1000, 0x9000));
        assert_eq!(
            layout.output_sections(&region, 0, 1),
            Range::new(0x3f0f_a000, 0x2000)
        );
        assert_eq!(
            layout.output_sections(&region, 1, 2),
            Range::new(0x3f0f_c000, 0x4000)
        );
        assert_eq!(layout.output_sections(&region, 2, 2), None);
        assert_eq!(layout.output_sections(&region, 3, 0), None);
    }

    #[test]
    fn empty_sections_are_missing() {
        let vendor = VendorCapability {
            rw_section_size: 0,
            output_section_size: 0,
            ..DEMO
        };
        let layout = Layout::new(&vendor, 0, 2).unwrap();
        let region = Range::new(0x10_0000, layout.size()).unwrap();
        assert_eq!(layout.rw_section(&region), None);
        assert_eq!(layout.output_sections(&region, 0, 1), None);
    }

    #[test]
    fn refuses_impossible_numbers() {
        let check = |vendor, id, max_peers| Layout::new(&vendor, id, max_peers).unwrap_err();
        assert_eq!(check(DEMO, 0, 1), Error::MaxPeers { max_peers: 1 });
        assert_eq!(check(DEMO, 0, 65537), Error::MaxPeers { max_peers: 65537 });
        assert_eq!(
            check(DEMO, 3, 3),
            Error::PeerId {
                id: 3,
                max_peers: 3
            }
        );
        assert_eq!(
            check(DEMO, 0, 1025),
            Error::StateTableSize {
                size: 0x1000,
                max_peers: 1025
            }
        );
        for size in [0, 0x1001] {
            let vendor = VendorCapability {
                state_table_size: size,
                ..DEMO
            };
            assert_eq!(
                check(vendor, 0, 2),
                Error::StateTableSize { size, max_peers: 2 }
            );
        }
        let vendor = VendorCapability {
            rw_section_size: 0x800,
            ..DEMO
        };
        assert_eq!(
            check(vendor, 0, 2),
            Error::SectionSize {
                name: "R/W",
                size: 0x800
            }
        );
        let vendor = VendorCapability {
            output_section_size: 1,
            ..DEMO
        };
        assert_eq!(
            check(vendor, 0, 2),
            Error::SectionSize {
                name: "output",
                size: 1
            }
        );
        for (rw, output) in [(!0xfff, 0x1000), (0, 1 << 63), (0x1000, !0xfff)] {
            let vendor = VendorCapability {
                rw_section_size: rw,
                output_section_size: output,
                ..DEMO
            };
            assert_eq!(check(vendor, 0, 2), Error::LayoutOverflow);
        }
    }
}
