// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Positions in a ring (rules R1, R3, W1).

/// Positions are divisible by this, in bytes.
pub const ALIGNMENT: u32 = 8;

/// Size of a record's header in bytes (rule R2).
pub const RECORD_HEADER: u32 = 8;

/// The event that a session begins with; not a position, so no position moves past it (rule W1).
pub const NO_EVENT: u32 = u32::MAX;

/// Smallest and largest size of a ring in bytes (field `ring_size`).
pub const RING_SIZES: core::ops::Range<u32> = 64..1 << 30;

/// The size of a ring, checked: a multiple of [`ALIGNMENT`] in [`RING_SIZES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RingSize(u32);

impl RingSize {
    /// `size` in bytes, if a ring may have that.
    #[must_use]
    pub fn new(size: u32) -> Option<Self> {
        (RING_SIZES.contains(&size) && size % ALIGNMENT == 0).then_some(Self(size))
    }

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        self.0
    }

    /// The largest message that fits, in bytes.
    #[must_use]
    pub const fn largest_message(self) -> u32 {
        self.0 - RECORD_HEADER
    }

    /// What a message of `length` bytes takes of the ring, from 1 to [`Self::largest_message`].
    #[must_use]
    pub fn record(self, length: u32) -> Option<u32> {
        if length == 0 || length > self.largest_message() {
            return None;
        }
        // At most the size of the ring, which is divisible by the alignment.
        Some((length + RECORD_HEADER).next_multiple_of(ALIGNMENT))
    }

    /// `value` as a position, if it is one (rule R1).
    #[must_use]
    pub const fn position(self, value: u32) -> Option<Position> {
        if value < 2 * self.0 && value % ALIGNMENT == 0 {
            Some(Position(value))
        } else {
            None
        }
    }

    /// `value` mod twice the size; it is less than four times the size.
    const fn wrap(self, value: u32) -> u32 {
        let modulus = 2 * self.0;
        if value < modulus {
            value
        } else {
            value - modulus
        }
    }

    /// How far `to` is ahead of `from`, in bytes, less than twice the size.
    #[must_use]
    pub const fn distance(self, from: Position, to: Position) -> u32 {
        self.wrap(to.0 + 2 * self.0 - from.0)
    }

    /// The position `bytes` ahead of `from`; `bytes` are at most the size.
    #[must_use]
    pub const fn advance(self, from: Position, bytes: u32) -> Position {
        Position(self.wrap(from.0 + bytes))
    }

    /// Which byte of the ring `position` means.
    #[must_use]
    pub const fn byte(self, position: Position) -> u32 {
        if position.0 < self.0 {
            position.0
        } else {
            position.0 - self.0
        }
    }

    /// Whether an index that went from `before` to `now` has moved past `event` (rule W1).
    #[must_use]
    pub fn moved_past(self, event: u32, before: Position, now: Position) -> bool {
        let Some(event) = self.position(event) else {
            return false;
        };
        let beyond = self.wrap(self.distance(event, now) + 2 * self.0 - ALIGNMENT);
        beyond < self.distance(before, now)
    }
}

/// A position, divisible by [`ALIGNMENT`] and less than twice the size of its ring.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Position(u32);

impl Position {
    /// Where every session begins.
    pub const START: Self = Self(0);

    /// As it stands in a block.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }
}

/// Whether a count that went from `before` to `now`, mod 2^32, has moved past `event` (rule W1).
///
/// No event stands for "none" here: each is a number that the count takes. [`NO_EVENT`] is the farthest from the 0
/// that a session begins with.
#[must_use]
pub const fn count_moved_past(event: u32, before: u32, now: u32) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}
