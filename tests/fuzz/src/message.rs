// SPDX-License-Identifier: MIT OR Apache-2.0
//! What messages say, so that each that arrives can be told from one that was never sent; and who knows which
//! were sent: a ledger that all processes share.
//!
//! A message from memory that other operations change at any time may be anything. Such have a length of
//! [`UNKNOWN`] modulo 4, and all others are known to the last byte.
//!
//! These are not the messages of `rust/messages`, which a receiver knows in advance: here any call may fail and
//! any process be killed, so a message has to say by which operation it was sent.

use crate::sys::Shared;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Longest message that is made and looked at. Rings of the links under test have less room.
pub(crate) const LONGEST: usize = 4096;
/// Remainder by 4 of the length of a message that may be anything.
pub(crate) const UNKNOWN: u64 = 3;
/// Bytes before the random part. A shorter message is a function of its length.
const HEAD: usize = 32;

/// Who has sent a message to whom, and which one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mark {
    pub(crate) from: u32,
    pub(crate) to: u32,
    /// The sender's thread, among those of all processes.
    pub(crate) thread: u32,
    /// Number of the thread's operation.
    pub(crate) number: u64,
}

/// Makes the message of `mark` that fills `message`, which has [`LONGEST`] bytes at most.
pub(crate) fn write(mark: Mark, message: &mut [u8]) {
    let length = message.len();
    if length < HEAD {
        for (at, byte) in message.iter_mut().enumerate() {
            *byte = short(length, at);
        }
        return;
    }
    message[8..12].copy_from_slice(&mark.from.to_le_bytes());
    message[12..16].copy_from_slice(&mark.to.to_le_bytes());
    message[16..20].copy_from_slice(&mark.thread.to_le_bytes());
    message[20..24].copy_from_slice(&(length as u32).to_le_bytes());
    message[24..32].copy_from_slice(&mark.number.to_le_bytes());
    let mut word =
        ((mark.number << 8) | u64::from(mark.thread)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    for bytes in message[HEAD..].chunks_mut(8) {
        word = word.rotate_left(23).wrapping_mul(0xbf58_476d_1ce4_e5b9) ^ 0x5555;
        bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
    }
    let sum = sum(&message[8..]);
    message[..8].copy_from_slice(&sum.to_le_bytes());
}

/// Looks at a message that has arrived. [`None`]: it is too short to have a mark, and right.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn read(message: &[u8]) -> Result<Option<Mark>, &'static str> {
    let length = message.len();
    if length < HEAD {
        let right = message
            .iter()
            .enumerate()
            .all(|(at, &byte)| byte == short(length, at));
        return right
            .then_some(None)
            .ok_or("a short message with wrong bytes");
    }
    let half = |at: usize| {
        u32::from_le_bytes([
            message[at],
            message[at + 1],
            message[at + 2],
            message[at + 3],
        ])
    };
    let long = |at: usize| u64::from(half(at)) | (u64::from(half(at + 4)) << 32);
    if long(0) != sum(&message[8..]) {
        return Err("a message with wrong bytes");
    }
    if half(20) as usize != length {
        return Err("a message of another length");
    }
    Ok(Some(Mark {
        from: half(8),
        to: half(12),
        thread: half(16),
        number: long(24),
    }))
}

/// Byte `at` of a short message of `length` bytes.
fn short(length: usize, at: usize) -> u8 {
    (length * 31 + at * 7 + 0x41) as u8
}

/// FNV-1a, eight bytes at a time: against what goes wrong, not against somebody who wants it to.
fn sum(bytes: &[u8]) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325u64 ^ bytes.len() as u64;
    for part in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..part.len()].copy_from_slice(part);
        sum = (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3);
        sum ^= sum >> 29;
    }
    sum
}

/// What is known of a message. A process that is killed while it sends one leaves it at that.
const NEVER: u64 = 0;
const SENDING: u64 = 1;
const REFUSED: u64 = 2;
const ARRIVED: u64 = 3;

/// What became of all messages of a batch.
#[derive(Debug)]
pub(crate) struct Ledger {
    words: Shared,
    /// Number of each thread's first operation.
    first: u64,
    /// Operations of each thread.
    count: u64,
}

/// Makes the file of a ledger for so many threads and operations of each, empty.
///
/// # Errors
///
/// If that fails.
pub fn create_ledger(path: &str, threads: usize, count: u64) -> io::Result<()> {
    File::create(path)?.set_len(threads as u64 * count * 8)
}

impl Ledger {
    /// Uses that file.
    pub(crate) fn open(path: &str, threads: usize, first: u64, count: u64) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        let words = Shared::map(&file, threads * count as usize)?;
        Ok(Self {
            words,
            first,
            count,
        })
    }

    fn word(&self, mark: Mark) -> Option<&AtomicU64> {
        let offset = mark.number.checked_sub(self.first)?;
        let index = (offset < self.count).then(|| u64::from(mark.thread) * self.count + offset)?;
        self.words.words().get(index as usize)
    }

    /// The message is about to be sent.
    pub(crate) fn sending(&self, mark: Mark) {
        if let Some(word) = self.word(mark) {
            word.store(SENDING, Ordering::SeqCst);
        }
    }

    /// Sending it has failed. Whether it has not arrived nevertheless.
    pub(crate) fn refused(&self, mark: Mark) -> bool {
        self.word(mark).is_some_and(|word| {
            let order = Ordering::SeqCst;
            word.compare_exchange(SENDING, REFUSED, order, order)
                .is_ok()
        })
    }

    /// It has arrived.
    ///
    /// # Errors
    ///
    /// What is wrong with that.
    pub(crate) fn arrived(&self, mark: Mark) -> Result<(), &'static str> {
        let before = self
            .word(mark)
            .map_or(NEVER, |word| word.swap(ARRIVED, Ordering::SeqCst));
        match before {
            SENDING => Ok(()),
            NEVER => Err("a message that nobody has sent"),
            REFUSED => Err("a message whose sending had failed"),
            _ => Err("a message for the second time"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MARK: Mark = Mark {
        from: 0,
        to: 1,
        thread: 3,
        number: 70,
    };

    #[test]
    fn what_is_written_is_read_and_a_changed_bit_is_noticed() {
        for length in [1, 7, 31, 32, 33, 40, 41, 1000, LONGEST] {
            let mut message = vec![0; length];
            write(MARK, &mut message);
            let expected = (length >= HEAD).then_some(MARK);
            assert_eq!(read(&message), Ok(expected), "{length}");
            for bit in (0..length * 8).step_by(1 + length / 10) {
                message[bit / 8] ^= 1 << (bit % 8);
                assert!(read(&message).is_err(), "{length}, bit {bit}");
                message[bit / 8] ^= 1 << (bit % 8);
            }
            assert!(read(&message[..length - 1]).is_err() || length == 1);
        }
    }

    #[test]
    fn a_message_arrives_once_if_it_was_sent() {
        let path = std::env::temp_dir().join(format!("ledger-{}", std::process::id()));
        let path = path.to_str().unwrap();
        create_ledger(path, 4, 10).unwrap();
        let ledger = Ledger::open(path, 4, 65, 10).unwrap();
        std::fs::remove_file(path).unwrap();
        assert!(ledger.arrived(MARK).unwrap_err().contains("nobody"));
        ledger.sending(MARK);
        assert_eq!(ledger.arrived(MARK), Ok(()));
        assert!(ledger.arrived(MARK).unwrap_err().contains("second"));
        assert!(!ledger.refused(MARK));
        let other = Mark { number: 74, ..MARK };
        ledger.sending(other);
        assert!(ledger.refused(other));
        assert!(ledger.arrived(other).unwrap_err().contains("failed"));
        for number in [64, 75, u64::MAX] {
            assert!(ledger.arrived(Mark { number, ..MARK }).is_err());
        }
    }
}
