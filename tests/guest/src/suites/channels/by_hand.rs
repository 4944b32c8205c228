// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer made by hand: the other device of the link, used raw, with numbers from the protocol's text.
//!
//! Nothing here comes from `rust/protocol`, so that a wrong constant there does not agree with itself.

use super::{soon, Env};
use crate::system;
use ivshmem::{Channel, Device, Info, StateFlags};

/// Offsets in a block.
pub(super) const EPOCH: u64 = 0;
pub(super) const ECHO: u64 = 4;
pub(super) const FEATURES: u64 = 8;
pub(super) const ACCEPTED: u64 = 12;
pub(super) const VECTOR: u64 = 16;
pub(super) const RING_OFFSET: u64 = 20;
pub(super) const RING_SIZE: u64 = 24;
pub(super) const FIN: u64 = 28;
pub(super) const WRITTEN: u64 = 32;
pub(super) const CONSUMED: u64 = 36;
pub(super) const CONFIRMED: u64 = 40;
pub(super) const DATA_EVENT: u64 = 44;
pub(super) const ROOM_EVENT: u64 = 48;
pub(super) const CONFIRM_EVENT: u64 = 52;

/// No event, and no vector.
pub(super) const NONE: u32 = u32::MAX;

/// Size of our ring, in bytes.
pub(super) const RING: u32 = 256;

/// The peer.
pub(super) struct ByHand {
    device: Device,
    info: Info,
    /// The driver's end.
    peer: u32,
}

impl ByHand {
    /// Says that it is there, and has no session yet.
    pub(super) fn new(env: &Env) -> Self {
        let device = env.open_other();
        let info = *device.info();
        device.set_state(1, StateFlags::default()).expect("state");
        Self {
            device,
            info,
            peer: env.expected().peer,
        }
    }

    /// The device, for events.
    pub(super) fn device(&self) -> &Device {
        &self.device
    }

    /// Where the block for the driver's end is, in our section.
    fn block(&self) -> u64 {
        self.info.output.offset + 64 + 64 * u64::from(self.peer)
    }

    /// Where our ring begins, in our section.
    pub(super) fn ring_offset(&self) -> u32 {
        64 + 64 * self.info.max_peers
    }

    /// Writes a word at an offset of our section.
    pub(super) fn put_word(&self, offset: u64, value: u32) {
        let offset = self.info.output.offset + offset;
        self.device.write_word(offset, value).expect("write");
    }

    /// Writes a field of our block.
    pub(super) fn put(&self, field: u64, value: u32) {
        self.device
            .write_word(self.block() + field, value)
            .expect("write");
    }

    /// Reads a field of the driver's block for us.
    pub(super) fn get(&self, field: u64) -> u32 {
        let block = 64 + 64 * u64::from(self.info.id);
        self.read(block + field)
    }

    /// Reads a word at an offset of the driver's section.
    pub(super) fn read(&self, offset: u64) -> u32 {
        let section = self.info.output_of(self.peer).expect("a section");
        self.device
            .read_word(section.offset + offset)
            .expect("read")
    }

    /// Rings the driver's end where it wants to be rung.
    pub(super) fn ring(&self) {
        let vector = self.get(VECTOR);
        if vector != NONE {
            self.device.ring(self.peer, vector).expect("ring");
        }
    }

    /// Writes the header of our section.
    pub(super) fn header(&self) {
        let words = [0x4843_5649, 1, self.info.max_peers, 1];
        for (index, word) in (0..).zip(words) {
            self.put_word(4 * index, word);
        }
    }

    /// Starts a session (rule S1) that it calls `epoch`, with a ring as given.
    pub(super) fn start_with(&self, epoch: u32, ring_offset: u32, ring_size: u32) {
        self.put(EPOCH, 0);
        self.header();
        for field in [ECHO, FEATURES, ACCEPTED, FIN, WRITTEN, CONSUMED, CONFIRMED] {
            self.put(field, 0);
        }
        for field in [VECTOR, DATA_EVENT, ROOM_EVENT, CONFIRM_EVENT] {
            self.put(field, NONE);
        }
        self.put(RING_OFFSET, ring_offset);
        self.put(RING_SIZE, ring_size);
        self.put(EPOCH, epoch);
        self.ring();
    }

    /// Starts a session with the usual ring.
    pub(super) fn start(&self, epoch: u32) {
        self.start_with(epoch, self.ring_offset(), RING);
    }

    /// Echoes the driver's epoch (rule S3), and waits until it has echoed ours, `epoch`.
    pub(super) fn answer(&self, epoch: u32) {
        let there = || self.get(EPOCH) != 0 && self.read(0) == 0x4843_5649;
        assert!(
            system::wait_until(soon(), there),
            "no session of the driver"
        );
        self.put(ECHO, self.get(EPOCH));
        self.ring();
        let echoed = || self.get(ECHO) == epoch;
        assert!(
            system::wait_until(soon(), echoed),
            "our session is not seen"
        );
    }

    /// Starts a session and brings it up with `channel`.
    pub(super) fn up(&self, epoch: u32, channel: &Channel) {
        self.start(epoch);
        self.answer(epoch);
        super::up(channel);
    }

    /// Writes a record's header and bytes into our ring at `position`, which must not wrap.
    pub(super) fn record(&self, position: u32, words: [u32; 2], message: &[u8]) {
        let at = u64::from(self.ring_offset() + position % RING);
        self.put_word(at, words[0]);
        self.put_word(at + 4, words[1]);
        let place = self.info.output.offset + at + 8;
        if !message.is_empty() {
            let done = self.device.write_at(message, place).expect("write");
            assert_eq!(done, message.len());
        }
    }

    /// Publishes a position, and rings.
    pub(super) fn publish(&self, field: u64, position: u32) {
        self.put(field, position);
        self.ring();
    }

    /// Bytes of the driver's ring from `position` on, which must not wrap.
    pub(super) fn peek(&self, position: u32, length: usize) -> Vec<u8> {
        let section = self.info.output_of(self.peer).expect("a section");
        let at = section.offset + u64::from(self.get(RING_OFFSET) + position);
        let mut bytes = vec![0; length];
        let got = self.device.read_at(&mut bytes, at).expect("read");
        assert_eq!(got, length);
        bytes
    }

    /// Leaves as a cell does that is reset: the hypervisor takes its state back.
    pub(super) fn vanish(&self) {
        self.device
            .set_state(0, StateFlags::default())
            .expect("state");
    }
}
