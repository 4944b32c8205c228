// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Which numbers make a region, and how it is divided: against the text of the specification in
//! 128-bit arithmetic.

mod common;

use common::{demo, sections, Writer};
use ivshmem_protocol::capability::VendorCapability;
use ivshmem_protocol::layout::{Geometry, Layout, LayoutError, Section};
use proptest::prelude::*;

/// Everything that is wrong with `geometry`.
///
/// "Shared Memory Region Layout": the state table cannot be of size 0, it holds the states of all
/// peers, all sizes are multiples of a mappable page. "Maximum Peers Register": 2 at least.
/// "ID Register": IDs count from 0. Our own limits: 4096 peers, a region within 2^63 - 1 bytes.
fn faults(geometry: &Geometry) -> Vec<LayoutError> {
    let mut faults = Vec::new();
    let Geometry { id, max_peers, .. } = *geometry;
    if (id, max_peers) == (0xffff_ffff, 0xffff_ffff) {
        faults.push(LayoutError::NotThere);
    }
    if !(2..=4096).contains(&max_peers) {
        faults.push(LayoutError::MaxPeers(max_peers));
        // How many sections there are is not known.
        return faults;
    }
    if (0..max_peers).all(|peer| peer != id) {
        faults.push(LayoutError::Id { id, max_peers });
    }
    let mut start = 0;
    for (writer, size) in sections(geometry) {
        let field = match writer {
            Writer::Nobody => "state table size",
            Writer::Everybody => "R/W section size",
            Writer::Peer(_) => "output section size",
        };
        if writer == Writer::Nobody && (0..max_peers).any(|peer| i128::from(peer) * 4 + 4 > size) {
            faults.push(LayoutError::StateTableSmall {
                size: size as u32,
                max_peers,
            });
        }
        if size & 0xfff != 0 {
            faults.push(LayoutError::Misaligned {
                field,
                value: size as u64,
            });
        }
        start += size;
    }
    if start >= 1 << 63 {
        faults.push(LayoutError::TooLarge {
            rw_size: geometry.rw_size,
            output_size: geometry.output_size,
        });
    }
    faults
}

/// Numbers of peers and IDs: the edges, and what is common.
fn count() -> impl Strategy<Value = u32> {
    prop_oneof![
        8 => 0_u32..12,
        4 => 4090_u32..4100,
        1 => 0_u32..0x1_0010,
        1 => Just(u32::MAX),
        1 => any::<u32>(),
    ]
}

fn state_table_size() -> impl Strategy<Value = u32> {
    prop_oneof![
        4 => (0_u32..6).prop_map(|pages| pages * 0x1000),
        2 => 0_u32..0x5000,
        1 => any::<u32>().prop_map(|size| size & !0xfff),
        1 => any::<u32>(),
    ]
}

/// Sizes of sections: pages, near pages, and what overflows when added or multiplied.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => (0_u64..20).prop_map(|pages| pages * 0x1000),
        2 => (0_u32..64, -2_i64..=2)
            .prop_map(|(bit, pages)| (1_u64 << bit).wrapping_add((pages * 0x1000) as u64) & !0xfff),
        2 => (1_u64..5000, 0_u64..3)
            .prop_map(|(parts, pages)| (((1 << 63) / parts) & !0xfff).wrapping_sub(pages * 0x1000)),
        1 => (0_u32..64, -2_i64..=2).prop_map(|(bit, off)| (1_u64 << bit).wrapping_add(off as u64)),
        1 => any::<u64>(),
    ]
}

fn geometry() -> impl Strategy<Value = Geometry> {
    (count(), count(), state_table_size(), size(), size()).prop_map(
        |(id, max_peers, state_table_size, rw_size, output_size)| Geometry {
            // Half of them are one of the peers.
            id: if id % 2 == 0 && max_peers != 0 {
                id % max_peers
            } else {
                id
            },
            max_peers,
            state_table_size,
            rw_size,
            output_size,
        },
    )
}

/// Holds a layout against the list of its sections.
fn check(layout: &Layout, geometry: &Geometry) -> Result<(), TestCaseError> {
    let end = |s: Section| i128::from(s.offset) + i128::from(s.size);
    let mut start = 0;
    for (writer, size) in sections(geometry) {
        let section = match writer {
            Writer::Nobody => layout.state_table(),
            Writer::Everybody => layout.rw(),
            Writer::Peer(peer) => layout.output_of(peer as u16).unwrap(),
        };
        prop_assert_eq!(i128::from(section.offset), start);
        prop_assert_eq!(i128::from(section.size), size);
        prop_assert_eq!(i128::from(section.end()), end(section));
        if writer == Writer::Peer(0) {
            prop_assert_eq!(layout.outputs().offset, section.offset);
        }
        if writer == Writer::Peer(geometry.id) {
            prop_assert_eq!(layout.output(), section);
        }
        start += size;
    }
    // The next section begins where one ends, so they are disjoint, ordered, and without a gap.
    prop_assert_eq!(i128::from(layout.region_size()), start);
    prop_assert_eq!(end(layout.outputs()), start);
    prop_assert!(i64::try_from(layout.region_size()).is_ok());
    prop_assert_eq!(u32::from(layout.id()), geometry.id);
    prop_assert_eq!(u32::from(layout.max_peers()), geometry.max_peers);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4096))]

    #[test]
    fn new_accepts_what_the_text_allows(geometry in geometry()) {
        let faults = faults(&geometry);
        match Layout::new(&geometry) {
            Ok(layout) => {
                prop_assert_eq!(faults, []);
                check(&layout, &geometry)?;
            }
            // The one that is named is the first that is wrong.
            Err(why) => prop_assert_eq!(faults.first(), Some(&why)),
        }
    }

    #[test]
    fn peers_of_the_link_and_no_others(max_peers in 2_u32..=4096, peer in count()) {
        let geometry = Geometry { max_peers, state_table_size: 0x4000, ..demo(1) };
        let layout = Layout::new(&geometry).unwrap();
        for peer in [peer, max_peers - 1, max_peers, max_peers + 0x1_0000] {
            let there = (0..max_peers).find(|p| *p == peer);
            prop_assert_eq!(layout.peer(peer).map(u32::from), there);
            if let Ok(peer) = u16::try_from(peer) {
                prop_assert_eq!(layout.output_of(peer).is_some(), there.is_some());
            }
        }
    }

    #[test]
    fn a_section_contains_its_bytes(offset: u64, size: u64, byte: u64) {
        let section = Section { offset, size };
        let (begin, size) = (i128::from(offset), i128::from(size));
        // 2^64 - 1 is the last offset: a section that would reach beyond ends there.
        let end = (begin + size).min(i128::from(u64::MAX));
        prop_assert_eq!(i128::from(section.end()), end);
        for byte in [byte, offset, section.end(), section.end().wrapping_sub(1)] {
            let inside = (begin..end).contains(&i128::from(byte));
            prop_assert_eq!(section.contains(byte), inside);
        }
    }

    #[test]
    fn mappable_is_whole_pages(offset in 0_u64..64, size in 0_u64..64, shift in 0_u32..8) {
        let page = 1 << shift;
        let whole = size > 0 && (offset..offset + size)
            .step_by(page as usize)
            .all(|start| start / page * page == start && start + page <= offset + size);
        prop_assert_eq!(Section { offset, size }.is_mappable(page), whole);
    }
}

#[test]
fn edges_of_the_peers() {
    let new = |id, max_peers, state_table_size| {
        Layout::new(&Geometry {
            id,
            max_peers,
            state_table_size,
            ..demo(0)
        })
        .map(|_| ())
    };
    let small = |size, max_peers| Err(LayoutError::StateTableSmall { size, max_peers });
    assert_eq!(new(0, 0, 0x4000), Err(LayoutError::MaxPeers(0)));
    assert_eq!(new(0, 1, 0x4000), Err(LayoutError::MaxPeers(1)));
    assert_eq!(new(1, 2, 0x4000), Ok(()));
    assert_eq!(new(4095, 4096, 0x4000), Ok(()));
    assert_eq!(new(0, 4097, 0x5000), Err(LayoutError::MaxPeers(4097)));
    assert_eq!(new(0, 65536, 0x40000), Err(LayoutError::MaxPeers(65536)));
    let id = |id, max_peers| Err(LayoutError::Id { id, max_peers });
    assert_eq!(new(2, 2, 0x1000), id(2, 2));
    assert_eq!(new(0x1_0001, 3, 0x1000), id(0x1_0001, 3));
    assert_eq!(new(u32::MAX, 3, 0x1000), id(u32::MAX, 3));
    assert_eq!(new(u32::MAX, u32::MAX, 0x1000), Err(LayoutError::NotThere));
    assert_eq!(
        new(0, u32::MAX, 0x1000),
        Err(LayoutError::MaxPeers(u32::MAX))
    );
    assert_eq!(new(0, 2, 0), small(0, 2));
    assert_eq!(new(0, 1024, 0x1000), Ok(()));
    assert_eq!(new(0, 1025, 0x1000), small(0x1000, 1025));
    assert_eq!(new(0, 1025, 0x2000), Ok(()));
    assert_eq!(new(0, 4096, 0x3000), small(0x3000, 4096));
}

#[test]
fn edges_of_the_sizes() {
    let new = |state_table_size, rw_size, output_size| {
        Layout::new(&Geometry {
            state_table_size,
            rw_size,
            output_size,
            ..demo(0)
        })
        .map(|layout| layout.region_size())
    };
    let misaligned = |field, value| Err(LayoutError::Misaligned { field, value });
    assert_eq!(new(0x1000, 0, 0), Ok(0x1000));
    assert_eq!(new(0x1800, 0, 0), misaligned("state table size", 0x1800));
    assert_eq!(new(0x1000, 1, 0), misaligned("R/W section size", 1));
    assert_eq!(
        new(0x1000, 0, 0x2800),
        misaligned("output section size", 0x2800)
    );
    assert_eq!(new(0xffff_f000, 0, 0), Ok(0xffff_f000));

    let large = |rw_size, output_size| {
        Err(LayoutError::TooLarge {
            rw_size,
            output_size,
        })
    };
    // The last page that fits, in each of the sums.
    let most: u64 = (1 << 63) - 0x1000;
    assert_eq!(new(0x1000, most - 0x1000, 0), Ok(most));
    assert_eq!(new(0x1000, most, 0), large(most, 0));
    assert_eq!(new(0x1000, !0xfff, 0), large(!0xfff, 0));
    let third: u64 = 0x2aaa_aaaa_aaaa_a000;
    assert_eq!(new(0x1000, 0, third), Ok(3 * third + 0x1000));
    assert_eq!(new(0x1000, 0x1000, third), large(0x1000, third));
    // Three of these are 0x1000 in 64 bits, and so are the sums below.
    let wraps: u64 = 0xaaaa_aaaa_aaaa_b000;
    assert_eq!(wraps.wrapping_mul(3), 0x1000);
    assert_eq!(new(0x1000, 0, wraps), large(0, wraps));
    let rest = (3 * 0x5000_0000_0000_0000_u64).wrapping_neg();
    assert_eq!(
        new(0x1000, rest, 0x5000_0000_0000_0000),
        large(rest, 0x5000_0000_0000_0000)
    );
}

#[test]
fn geometry_takes_each_number_from_its_place() {
    let capability = VendorCapability {
        offset: 0x40,
        state_table_size: 1,
        rw_size: 2,
        output_size: 3,
        base_address: Some(4),
    };
    assert_eq!(
        Geometry::new(5, 6, &capability),
        Geometry {
            id: 5,
            max_peers: 6,
            state_table_size: 1,
            rw_size: 2,
            output_size: 3,
        }
    );
}

#[test]
fn no_page_size_divides_by_zero() {
    let section = Section {
        offset: 0x1000,
        size: 0x1000,
    };
    assert!(!section.is_mappable(0));
}
