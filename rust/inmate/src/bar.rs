// SPDX-License-Identifier: MIT OR Apache-2.0
//! Base address registers: reading, sizing, and placing them where no firmware
//! has done so (under Jailhouse an inmate finds them all zero).

use crate::error::Error;
use crate::pci::ConfigSpace;
use crate::range::Range;
use crate::spec::header;

/// Number of base address registers of a function.
const REGISTERS: usize = 6;
const IO: u32 = 1;
const TYPE_MASK: u32 = 6;
const TYPE_64: u32 = 4;
const FLAGS: u32 = 0xf;

/// Where BARs go that nobody has placed: below the interrupt controllers and
/// the firmware, above what RAM an inmate of this kind can have.
const LOW_WINDOW: (u64, u64) = (0xe000_0000, 0xfec0_0000);
/// The same for 64-bit BARs that do not fit there.
const HIGH_WINDOW: (u64, u64) = (0x8_0000_0000, 0x10_0000_0000);

/// One implemented memory BAR.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bar {
    start: u64,
    size: u64,
    wide: bool,
}

/// The memory BARs of a function, by number. An I/O BAR counts as missing.
#[derive(Clone, Debug)]
pub struct Bars([Option<Bar>; REGISTERS]);

impl Bars {
    /// Reads and sizes all BARs. Memory decoding must be off meanwhile, because
    /// sizing moves them.
    ///
    /// # Errors
    /// [`Error::BarPlace`] for a 64-bit BAR in the last register.
    pub fn read(space: &mut impl ConfigSpace) -> Result<Self, Error> {
        let mut bars = [None; REGISTERS];
        let mut number = 0;
        while number < REGISTERS {
            let low = space.read32(register(number));
            let wide = low & IO == 0 && low & TYPE_MASK == TYPE_64;
            if wide && number + 1 == REGISTERS {
                return Err(Error::BarPlace {
                    bar: number as u8,
                    start: low.into(),
                    size: 0,
                });
            }
            if low & IO == 0 {
                bars[number] = size(space, number, wide);
            }
            number += if wide { 2 } else { 1 };
        }
        Ok(Self(bars))
    }

    /// Places every BAR that has no address yet, away from the `occupied`
    /// ranges.
    ///
    /// # Errors
    /// [`Error::NoRoomForBar`].
    pub fn place(&mut self, space: &mut impl ConfigSpace, occupied: &[Range]) -> Result<(), Error> {
        for number in 0..REGISTERS {
            let Some(bar) = self.0[number].filter(|bar| bar.start == 0) else {
                continue;
            };
            let start = self
                .free_place(&bar, LOW_WINDOW, occupied)
                .or_else(|| {
                    self.free_place(&bar, HIGH_WINDOW, occupied)
                        .filter(|_| bar.wide)
                })
                .ok_or(Error::NoRoomForBar {
                    bar: number as u8,
                    size: bar.size,
                })?;
            space.write32(register(number), start as u32);
            if bar.wide {
                space.write32(register(number + 1), (start >> 32) as u32);
            }
            self.0[number] = Some(Bar { start, ..bar });
        }
        Ok(())
    }

    /// Whether a BAR still has no address.
    pub fn any_unplaced(&self) -> bool {
        self.0.iter().flatten().any(|bar| bar.start == 0)
    }

    /// Whether memory BAR `number` exists.
    pub fn has(&self, number: u8) -> bool {
        self.0.get(usize::from(number)).is_some_and(Option::is_some)
    }

    /// The addresses of memory BAR `number`, which must have at least `needed`
    /// bytes.
    ///
    /// # Errors
    /// [`Error::NotMemoryBar`], [`Error::BarTooSmall`], or [`Error::BarPlace`] if
    /// it has no possible address.
    pub fn range(&self, number: u8, needed: u64) -> Result<Range, Error> {
        let bar = self
            .0
            .get(usize::from(number))
            .copied()
            .flatten()
            .ok_or(Error::NotMemoryBar { bar: number })?;
        let Bar { start, size, .. } = bar;
        if size < needed {
            return Err(Error::BarTooSmall {
                bar: number,
                size,
                needed,
            });
        }
        bar.place().ok_or(Error::BarPlace {
            bar: number,
            start,
            size,
        })
    }

    /// The addresses of all BARs that have one.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + '_ {
        self.0.iter().flatten().filter_map(Bar::place)
    }

    fn free_place(&self, bar: &Bar, window: (u64, u64), occupied: &[Range]) -> Option<u64> {
        let mut start = window.0.checked_next_multiple_of(bar.size)?;
        loop {
            let candidate = Range::new(start, bar.size).filter(|range| range.end() <= window.1)?;
            let obstacle = occupied
                .iter()
                .copied()
                .chain(self.ranges())
                .find(|range| range.overlaps(&candidate));
            match obstacle {
                None => return Some(start),
                Some(range) => start = range.end().checked_next_multiple_of(bar.size)?,
            }
        }
    }
}

impl Bar {
    fn place(&self) -> Option<Range> {
        Range::new(self.start, self.size).filter(|range| range.start() != 0)
    }
}

fn register(number: usize) -> u8 {
    header::BAR0 + 4 * number as u8
}

/// Reads the address and the size of memory BAR `number`; `None` if the
/// register is not implemented.
fn size(space: &mut impl ConfigSpace, number: usize, wide: bool) -> Option<Bar> {
    let (low, low_mask) = probe(space, register(number));
    let (high, high_mask) = if wide {
        probe(space, register(number + 1))
    } else {
        (0, u32::MAX)
    };
    let mask = (u64::from(high_mask) << 32) | u64::from(low_mask & !FLAGS);
    if low_mask & !FLAGS == 0 && (!wide || high_mask == 0) {
        return None;
    }
    // A device need not implement all upper bits: the lowest one is the size.
    let size = mask & mask.wrapping_neg();
    Some(Bar {
        start: (u64::from(high) << 32) | u64::from(low & !FLAGS),
        size,
        wide,
    })
}

/// The contents of a register and the bits of it that can be written.
fn probe(space: &mut impl ConfigSpace, register: u8) -> (u32, u32) {
    let value = space.read32(register);
    space.write32(register, u32::MAX);
    let mask = space.read32(register);
    space.write32(register, value);
    (value, mask)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{FakeSpace, JAILHOUSE_X86};

    /// The shape with BAR 2: 1 MiB, 64 bits, prefetchable.
    fn with_bar2(start: u64) -> FakeSpace {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.set32(0x18, start as u32 | 0xc);
        space.set32(0x1c, (start >> 32) as u32);
        space.bar_masks[2] = 0xfff0_0000;
        space.bar_masks[3] = 0xffff_ffff;
        space
    }

    #[test]
    fn sizes_without_leaving_traces() {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        let bars = Bars::read(&mut space).unwrap();
        assert_eq!(
            bars.range(0, 0x1000),
            Ok(Range::new(0x4000_0000, 0x1000).unwrap())
        );
        assert_eq!(
            bars.range(1, 0x1000),
            Ok(Range::new(0x4000_1000, 0x1000).unwrap())
        );
        assert!(!bars.has(2));
        assert_eq!(bars.range(2, 1), Err(Error::NotMemoryBar { bar: 2 }));
        assert_eq!(bars.range(6, 1), Err(Error::NotMemoryBar { bar: 6 }));
        assert_eq!(space.bytes[..128], JAILHOUSE_X86);
    }

    #[test]
    fn reads_a_64_bit_bar() {
        let bars = Bars::read(&mut with_bar2(0xc0_0000_0000)).unwrap();
        assert_eq!(
            bars.range(2, 0x10_0000),
            Ok(Range::new(0xc0_0000_0000, 0x10_0000).unwrap())
        );
        assert_eq!(
            bars.range(2, 0x10_0001),
            Err(Error::BarTooSmall {
                bar: 2,
                size: 0x10_0000,
                needed: 0x10_0001
            })
        );
        assert!(!bars.has(3));
    }

    #[test]
    fn sizes_a_64_bit_bar_of_4_gib() {
        let mut space = with_bar2(0);
        space.bar_masks[2] = 0;
        space.bar_masks[3] = 0x0000_00ff;
        let mut bars = Bars::read(&mut space).unwrap();
        bars.place(&mut space, &[]).unwrap();
        assert_eq!(
            bars.range(2, 1),
            Ok(Range::new(0x8_0000_0000, 1 << 32).unwrap())
        );
    }

    #[test]
    fn an_io_bar_is_no_memory_bar() {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.set32(0x10, 0xc001);
        let bars = Bars::read(&mut space).unwrap();
        assert_eq!(bars.range(0, 0x1000), Err(Error::NotMemoryBar { bar: 0 }));
    }

    #[test]
    fn refuses_a_64_bit_bar_without_second_half() {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.set32(0x24, 4);
        assert!(matches!(
            Bars::read(&mut space),
            Err(Error::BarPlace { bar: 5, .. })
        ));
    }

    #[test]
    fn places_what_has_no_address() {
        let mut space = with_bar2(0);
        space.set32(0x10, 0);
        space.set32(0x14, 0);
        let mut bars = Bars::read(&mut space).unwrap();
        assert!(bars.any_unplaced());
        let occupied = [Range::new(0xe000_0000, 0x800).unwrap()];
        bars.place(&mut space, &occupied).unwrap();
        assert!(!bars.any_unplaced());
        let ranges: Vec<_> = bars.ranges().map(|range| range.start()).collect();
        assert_eq!(ranges, [0xe000_1000, 0xe000_2000, 0xe010_0000]);
        assert_eq!(space.read32(0x10), 0xe000_1000);
        assert_eq!(space.read32(0x18), 0xe010_000c);
        assert_eq!(space.read32(0x1c), 0);
    }

    #[test]
    fn says_when_there_is_no_room() {
        let mut space = FakeSpace::new(&JAILHOUSE_X86);
        space.set32(0x10, 0);
        let mut bars = Bars::read(&mut space).unwrap();
        let occupied = [Range::new(0xe000_0000, 0x2000_0000).unwrap()];
        assert_eq!(
            bars.place(&mut space, &occupied),
            Err(Error::NoRoomForBar {
                bar: 0,
                size: 0x1000
            })
        );
    }
}
