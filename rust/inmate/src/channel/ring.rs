// SPDX-License-Identifier: MIT OR Apache-2.0
//! Arithmetic of rings (R1 to R3, W1).

use core::ops::Range;

/// A ring in an output section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ring {
    /// Offset in the section.
    pub begin: u64,
    /// Size in bytes.
    pub size: u32,
}

impl Ring {
    /// B2: what a block says, if it can be, with rings inside of `section`.
    pub fn checked(begin: u32, size: u32, section: Range<u64>) -> Option<Self> {
        let end = u64::from(begin) + u64::from(size);
        let right = begin % 64 == 0
            && size % 8 == 0
            && (64..1 << 30).contains(&size)
            && u64::from(begin) >= section.start
            && end <= section.end;
        right.then_some(Self {
            begin: begin.into(),
            size,
        })
    }

    /// Whether `value` is a position.
    pub fn is_position(&self, value: u32) -> bool {
        value < 2 * self.size && value % 8 == 0
    }

    /// Offset in the section of what `position` means.
    pub fn at(&self, position: u32) -> u64 {
        self.begin + u64::from(position % self.size)
    }

    /// How far `to` is in front of `from`.
    pub fn distance(&self, from: u32, to: u32) -> u32 {
        (to + 2 * self.size - from) % (2 * self.size)
    }

    /// `bytes` behind `position`; at most the size of the ring.
    pub fn add(&self, position: u32, bytes: u32) -> u32 {
        (position + bytes) % (2 * self.size)
    }

    /// Size of the record for a message of `length` bytes, if that can be.
    pub fn record(&self, length: u32) -> Option<u32> {
        (1..=self.size - 8)
            .contains(&length)
            .then(|| (length + 15) / 8 * 8)
    }

    /// W1.
    pub fn moved_past(&self, event: u32, before: u32, now: u32) -> bool {
        self.is_position(event)
            && self.distance(8, self.distance(event, now)) < self.distance(before, now)
    }

    /// W2: what `consumed` has to move past so that `wanted` bytes are free. With
    /// c there, `written` - c is used, and the size less that is free: c has to
    /// be `wanted` less the size in front of `written`.
    pub fn room_event(&self, written: u32, wanted: u32) -> u32 {
        let enough = self.distance(self.size, self.add(written, wanted));
        self.distance(8, enough)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RING: Ring = Ring {
        begin: 192,
        size: 64,
    };

    #[test]
    fn rings_are_checked() {
        let section = 192..4096;
        let ring = |begin, size| Ring::checked(begin, size, section.clone());
        assert_eq!(ring(192, 64), Some(RING));
        assert!(ring(192, 3904).is_some());
        for (begin, size) in [
            (128, 64),
            (200, 64),
            (192, 56),
            (192, 68),
            (192, 3912),
            (0xffff_ffc0, 64),
            (192, 1 << 30),
        ] {
            assert_eq!(ring(begin, size), None, "{begin} {size}");
        }
    }

    #[test]
    fn positions_go_twice_around() {
        assert!(RING.is_position(120));
        assert!(!RING.is_position(128));
        assert!(!RING.is_position(4));
        assert_eq!((RING.at(120), RING.at(64)), (192 + 56, 192));
        assert_eq!(RING.add(120, 64), 56);
        assert_eq!((RING.distance(120, 56), RING.distance(8, 8)), (64, 0));
    }

    #[test]
    fn records_are_multiples_of_eight() {
        let sizes = [1, 8, 9, 56].map(|length| RING.record(length));
        assert_eq!(sizes, [Some(16), Some(16), Some(24), Some(64)]);
        assert_eq!((RING.record(0), RING.record(57)), (None, None));
        assert_eq!(RING.record(u32::MAX), None);
    }

    /// W1 in words: some position after `before`, up to and with `now`, is the
    /// first behind the event.
    #[test]
    fn an_index_moves_past_an_event_once() {
        for before in (0..128).step_by(8) {
            for step in (0..=64).step_by(8) {
                let now = RING.add(before, step);
                for event in (0..128).step_by(8) {
                    let passed = (8..=step)
                        .step_by(8)
                        .any(|way| RING.add(before, way) == RING.add(event, 8));
                    assert_eq!(RING.moved_past(event, before, now), passed);
                }
                assert!(!RING.moved_past(u32::MAX, before, now));
            }
        }
    }

    #[test]
    fn room_comes_when_enough_was_read() {
        for written in (0..128).step_by(8) {
            // Full: `consumed` is a whole ring behind.
            let consumed = RING.add(written, 64);
            for wanted in (8..=64).step_by(8) {
                let event = RING.room_event(written, wanted);
                for read in (8..=64).step_by(8) {
                    let rings = RING.moved_past(event, consumed, RING.add(consumed, read));
                    assert_eq!(rings, read >= wanted, "{written} {wanted} {read}");
                }
            }
        }
    }
}
