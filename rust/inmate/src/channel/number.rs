// SPDX-License-Identifier: MIT OR Apache-2.0
//! The numbers of Documentation/channel-protocol.md, typed from its tables.

/// Value of `magic`.
pub const MAGIC: u32 = 0x4843_5649;
/// Value of `version`.
pub const VERSION: u32 = 1;
/// First value of the events.
pub const NO_EVENT: u32 = 0xffff_ffff;

/// Offsets of the section's header.
pub mod header {
    /// `magic`
    pub const MAGIC: u64 = 0;
    /// `version`
    pub const VERSION: u64 = 4;
    /// `max_peers`
    pub const MAX_PEERS: u64 = 8;
    /// `ports`
    pub const PORTS: u64 = 12;
    /// From here to the first block all is 0.
    pub const RESERVED: u64 = 16;
}

/// Offsets in a block.
pub mod block {
    /// `epoch`
    pub const EPOCH: u64 = 0;
    /// `echo`
    pub const ECHO: u64 = 4;
    /// `features`
    pub const FEATURES: u64 = 8;
    /// `accepted`
    pub const ACCEPTED: u64 = 12;
    /// `vector`
    pub const VECTOR: u64 = 16;
    /// `ring_offset`
    pub const RING_OFFSET: u64 = 20;
    /// `ring_size`
    pub const RING_SIZE: u64 = 24;
    /// `fin`
    pub const FIN: u64 = 28;
    /// `written`
    pub const WRITTEN: u64 = 32;
    /// `consumed`
    pub const CONSUMED: u64 = 36;
    /// `confirmed`
    pub const CONFIRMED: u64 = 40;
    /// `data_event`
    pub const DATA_EVENT: u64 = 44;
    /// `room_event`
    pub const ROOM_EVENT: u64 = 48;
    /// `confirm_event`
    pub const CONFIRM_EVENT: u64 = 52;
    /// `last_epoch`
    pub const LAST_EPOCH: u64 = 56;
    /// 0
    pub const RESERVED: u64 = 60;
}

/// W1 for `confirmed`.
pub fn moved_past(event: u32, before: u32, now: u32) -> bool {
    now.wrapping_sub(event).wrapping_sub(1) < now.wrapping_sub(before)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_count_moves_past_an_event_once() {
        for start in [0, 5, u32::MAX - 2] {
            let count = |n: u32| start.wrapping_add(n);
            assert!(!moved_past(count(2), count(0), count(2)));
            assert!(moved_past(count(2), count(0), count(3)));
            assert!(moved_past(count(2), count(2), count(3)));
            assert!(!moved_past(count(2), count(3), count(9)));
        }
    }
}
