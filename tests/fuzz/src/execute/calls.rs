// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ioctls, and a look at what they have stored.

use super::{Executor, DATA, STRUCTURE, WRONG_RESULT};
use crate::op::{with_size, Buffer, Call, Op, Wait};
use crate::sys::{self, Raw};
use ivshmem::uapi;

/// Size of *info* in its first version.
const INFO: usize = 136;
/// Size of an event in its first version.
const EVENT: usize = 48;

/// The deadline of a call that waits so.
pub(super) fn deadline(wait: Wait) -> u64 {
    match wait {
        Wait::Now => u64::from(uapi::IVSHMEM_DEADLINE_NOW),
        Wait::Micros(micros) => sys::now() + u64::from(micros) * 1000,
        Wait::Never => u64::MAX,
        Wait::At(time) => time,
    }
}

impl Executor<'_> {
    /// Puts a structure, and its tail if it is larger than known.
    pub(super) fn structure(&self, known: &[u8], size: u16, tail: u8) {
        let size = usize::from(size);
        self.own.put(STRUCTURE, known);
        if size > known.len() {
            self.own
                .fill(STRUCTURE + known.len(), size - known.len(), 0);
            self.own.put(STRUCTURE + size - 1, &[tail]);
        }
    }

    /// The same for one that is words only.
    pub(super) fn words(&self, words: &[u32], size: u16, tail: u8) {
        let mut known = [0; 16];
        for (bytes, word) in known.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_ne_bytes());
        }
        self.structure(&known[..words.len() * 4], size, tail);
    }

    pub(super) fn ioctl(&self, op: &Op) -> Raw {
        let Op::Ioctl {
            slot,
            call,
            argument,
            size,
            tail,
            words,
        } = *op
        else {
            return WRONG_RESULT;
        };
        self.words(&words, size, tail);
        let result = sys::ioctl(
            slot.fd(),
            call.with_size(size),
            self.address(argument, STRUCTURE),
        );
        if result == 0 && argument == Buffer::Own && call == Call::Info {
            let found: [u8; INFO] = self.own.get(STRUCTURE);
            if found[..] != self.facts.info[slot.device() as usize][..INFO] {
                return WRONG_RESULT;
            }
        }
        result
    }

    pub(super) fn events(&self, op: &Op) -> Raw {
        let Op::Events {
            slot,
            argument,
            size,
            tail,
            records,
            capacity,
            record_size,
            flags,
            wait,
        } = *op
        else {
            return WRONG_RESULT;
        };
        let mut known = [0; 32];
        known[..8].copy_from_slice(&self.address(records, DATA).bits().to_ne_bytes());
        for (index, word) in [capacity, 0, record_size, flags].into_iter().enumerate() {
            known[8 + index * 4..12 + index * 4].copy_from_slice(&word.to_ne_bytes());
        }
        known[24..].copy_from_slice(&deadline(wait).to_ne_bytes());
        self.structure(&known, size, tail);
        let number = with_size(uapi::IVSHMEM_IOC_EVENTS, size);
        let result = sys::ioctl(slot.fd(), number, self.address(argument, STRUCTURE));
        if result == 0 && argument == Buffer::Own {
            let count = u32::from_ne_bytes(self.own.get(STRUCTURE + 12));
            if count == 0 || count > capacity {
                return WRONG_RESULT;
            }
            if records == Buffer::Own && !self.are_events(count, record_size) {
                return WRONG_RESULT;
            }
        }
        result
    }

    /// Whether the records that came are ones of this link.
    fn are_events(&self, count: u32, size: u32) -> bool {
        (0..count as usize).all(|index| {
            let record: [u8; EVENT] = self.own.get(DATA + index * size as usize);
            let word = |at: usize| {
                u32::from_ne_bytes([record[at], record[at + 1], record[at + 2], record[at + 3]])
            };
            let (kind, index, flags) = (word(0), word(4), word(8));
            let (times, changes) = (word(24) | word(28), word(32) | word(36));
            let happened = match kind {
                uapi::IVSHMEM_EVENT_DOORBELL => {
                    let lost = flags & uapi::IVSHMEM_EVENT_MAY_HAVE_LOST != 0;
                    index < self.facts.vectors_enabled && (times != 0 || lost)
                }
                uapi::IVSHMEM_EVENT_STATE => index < self.facts.peers && changes != 0,
                _ => false,
            };
            happened && flags & !uapi::IVSHMEM_EVENT_MAY_HAVE_LOST == 0 && word(20) == 0
        })
    }
}
