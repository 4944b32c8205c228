// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ranges of physical addresses that cannot overflow. Everything that the
//! device says about places becomes a [`Range`] before it is used.

/// A range of physical addresses, at least one byte long; its end is at most
/// `u64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    start: u64,
    size: u64,
}

impl Range {
    /// The `size` bytes from `start` on; `None` if they are none or overflow.
    pub const fn new(start: u64, size: u64) -> Option<Self> {
        if size == 0 || start.checked_add(size).is_none() {
            return None;
        }
        Some(Self { start, size })
    }

    /// First address.
    pub const fn start(&self) -> u64 {
        self.start
    }

    /// Length in bytes.
    pub const fn size(&self) -> u64 {
        self.size
    }

    /// First address behind the range.
    pub const fn end(&self) -> u64 {
        self.start + self.size
    }

    /// Whether the two have an address in common.
    pub const fn overlaps(&self, other: &Self) -> bool {
        self.start < other.end() && other.start < self.end()
    }

    /// Whether all of `other` lies inside.
    pub const fn contains(&self, other: &Self) -> bool {
        self.start <= other.start && other.end() <= self.end()
    }

    /// The `size` bytes from `offset` on inside this range; `None` if they are
    /// not all inside.
    pub const fn slice(&self, offset: u64, size: u64) -> Option<Self> {
        let Some(end) = offset.checked_add(size) else {
            return None;
        };
        if end > self.size {
            return None;
        }
        Self::new(self.start + offset, size)
    }

    /// The smallest range of whole units of `unit` bytes (a power of two) that
    /// contains this one; `None` if that overflows.
    pub fn expand(&self, unit: u64) -> Option<Self> {
        let start = self.start & !(unit - 1);
        let end = self.end().checked_next_multiple_of(unit)?;
        Self::new(start, end - start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(start: u64, size: u64) -> Range {
        Range::new(start, size).unwrap()
    }

    #[test]
    fn refuses_nothing_and_overflow() {
        assert_eq!(Range::new(1, 0), None);
        assert_eq!(Range::new(u64::MAX, 1), None);
        assert_eq!(range(u64::MAX - 1, 1).end(), u64::MAX);
    }

    #[test]
    fn touching_ranges_do_not_overlap() {
        assert!(!range(0, 4).overlaps(&range(4, 4)));
        assert!(range(0, 5).overlaps(&range(4, 4)));
        assert!(range(0, 16).contains(&range(4, 12)));
        assert!(!range(0, 16).contains(&range(4, 13)));
    }

    #[test]
    fn slices_stay_inside() {
        let outer = range(0x1000, 0x100);
        assert_eq!(outer.slice(0xf0, 0x10), Some(range(0x10f0, 0x10)));
        assert_eq!(outer.slice(0xf0, 0x11), None);
        assert_eq!(outer.slice(u64::MAX, 2), None);
        assert_eq!(outer.slice(0, 0), None);
    }

    #[test]
    fn expands_to_pages() {
        assert_eq!(range(0x1234, 1).expand(0x1000), Some(range(0x1000, 0x1000)));
        assert_eq!(range(0x1fff, 2).expand(0x1000), Some(range(0x1000, 0x2000)));
        assert_eq!(range(u64::MAX - 1, 1).expand(0x1000), None);
    }
}
