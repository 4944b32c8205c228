// SPDX-License-Identifier: MIT OR Apache-2.0

//! Messages to test channels with: numbered, checksummed, of seeded random sizes and contents.
//!
//! A [`Stream`] is all messages of one session, in order; both ends can make them, so that the
//! receiver's [`Checker`] knows each byte that has to come, and can tell what went wrong if another
//! does. Used by the soft inmate of the device model and by programs in guests.
//!
//! A message of [`HEADER`] bytes or more begins with six little-endian numbers: CRC-32 of all that
//! follows it, number of the message, number of the session, largest size (32 bits each), seed (64
//! bits). A shorter one is random bytes only. The first message of a stream is never shorter: from it
//! the receiver learns which stream it is.
//!
//! Two programs have messages of their own, as they know other things of a session. In the soak of
//! channels (`tests/guest/src/channels/message.rs`) a session is named by the time at which it began,
//! and no seed outlives a guest that is reset. In fuzzing (`tests/fuzz/src/message.rs`) nobody knows
//! which message comes next, as calls fail and processes are killed: a message names its sender's
//! operation, and a ledger tells whether that was done.

use fastrand::Rng;

/// Bytes in front of a message's random part.
pub const HEADER: usize = 24;

/// Which messages: the same values give the same messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Of the random numbers.
    pub seed: u64,
    /// Number of the sender's session: each one of a sender has another, and later ones larger.
    pub session: u32,
    /// The largest message in bytes, [`HEADER`] at least.
    pub max: u32,
}

impl Stream {
    /// Writes message `number`, counted from 0, to `to`, whatever that held.
    pub fn message(&self, number: u32, to: &mut Vec<u8>) {
        let mut rng = Rng::with_seed(self.seed);
        // Neighbours are to be as different as strangers.
        let mut rng =
            Rng::with_seed(rng.u64(..) ^ (u64::from(self.session) << 32) ^ u64::from(number));
        let size = self.size(number, &mut rng);
        to.clear();
        to.resize(size, 0);
        if size < HEADER {
            return rng.fill(to);
        }
        to[4..8].copy_from_slice(&number.to_le_bytes());
        to[8..12].copy_from_slice(&self.session.to_le_bytes());
        to[12..16].copy_from_slice(&self.max.to_le_bytes());
        to[16..24].copy_from_slice(&self.seed.to_le_bytes());
        rng.fill(&mut to[HEADER..]);
        let sum = crc32fast::hash(&to[4..]);
        to[..4].copy_from_slice(&sum.to_le_bytes());
    }

    /// Half of the messages are small: most of what goes wrong does so at small ones.
    fn size(&self, number: u32, rng: &mut Rng) -> usize {
        let most = if rng.bool() {
            self.max
        } else {
            self.max.min(64)
        };
        let size = rng.u32(1..=most.max(1)) as usize;
        if number == 0 {
            size.max(HEADER)
        } else {
            size
        }
    }
}

/// What the first bytes of a message say.
#[derive(Clone, Copy, Debug)]
struct Head {
    number: u32,
    stream: Stream,
}

impl Head {
    /// If it has one, and its checksum is right.
    fn of(message: &[u8]) -> Option<Self> {
        let word = |at: usize| {
            Some(u32::from_le_bytes(
                message.get(at..at + 4)?.try_into().ok()?,
            ))
        };
        let (low, high) = (word(16)?, word(20)?);
        let head = Self {
            number: word(4)?,
            stream: Stream {
                seed: u64::from(low) | (u64::from(high) << 32),
                session: word(8)?,
                max: word(12)?,
            },
        };
        (word(0)? == crc32fast::hash(&message[4..])).then_some(head)
    }
}

/// What is wrong with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Its bytes are not as they were sent.
    Corrupted,
    /// It is a later one: those between were lost.
    Lost,
    /// It was there before, or has been overtaken.
    Repeated,
    /// It belongs to another session.
    Stale,
}

/// Checks the messages that arrive, session by session.
#[derive(Clone, Debug, Default)]
pub struct Checker {
    stream: Option<Stream>,
    /// Of an earlier session: it must not come again.
    last: Option<Stream>,
    next: u32,
    expected: Vec<u8>,
}

impl Checker {
    /// A new session of the receiver begins.
    pub fn begin(&mut self) {
        self.last = self.stream.take().or(self.last);
        self.next = 0;
    }

    /// Which stream the session has, once its first message was there.
    #[must_use]
    pub fn stream(&self) -> Option<Stream> {
        self.stream
    }

    /// How many messages of the session have been checked, or are known to be lost.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.next
    }

    /// Checks the next message of the session.
    ///
    /// # Errors
    ///
    /// What is wrong with it. The checker goes on behind it.
    pub fn check(&mut self, message: &[u8]) -> Result<(), Wrong> {
        let stream = match self.stream {
            Some(stream) => stream,
            None => self.first(message)?,
        };
        stream.message(self.next, &mut self.expected);
        if message == self.expected {
            self.next += 1;
            return Ok(());
        }
        Err(match Head::of(message) {
            Some(head) if head.stream != stream => Wrong::Stale,
            Some(head) if head.number > self.next => {
                self.next = head.number + 1;
                Wrong::Lost
            }
            Some(head) if head.number < self.next => Wrong::Repeated,
            _ => {
                self.next += 1;
                Wrong::Corrupted
            }
        })
    }

    fn first(&mut self, message: &[u8]) -> Result<Stream, Wrong> {
        let head = Head::of(message).ok_or(Wrong::Corrupted)?;
        let stream = head.stream;
        let is_old = |last: Stream| last.seed == stream.seed && last.session >= stream.session;
        if self.last.is_some_and(is_old) {
            return Err(Wrong::Stale);
        }
        self.stream = Some(stream);
        Ok(stream)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STREAM: Stream = Stream {
        seed: 7,
        session: 3,
        max: 500,
    };

    fn messages(stream: Stream, count: u32) -> Vec<Vec<u8>> {
        let message = |number| {
            let mut bytes = vec![1, 2, 3];
            stream.message(number, &mut bytes);
            bytes
        };
        (0..count).map(message).collect()
    }

    #[test]
    fn sizes_go_from_one_byte_to_the_largest() {
        let sizes: Vec<_> = messages(STREAM, 5000).iter().map(Vec::len).collect();
        assert_eq!(sizes.iter().max(), Some(&500));
        assert_eq!(sizes.iter().min(), Some(&1));
        assert!(sizes[0] >= HEADER);
    }

    #[test]
    fn what_was_sent_is_right_and_another_session_has_other_messages() {
        let mut checker = Checker::default();
        for session in 1..4 {
            checker.begin();
            let stream = Stream { session, ..STREAM };
            for message in messages(stream, 50) {
                assert_eq!(checker.check(&message), Ok(()));
            }
            assert_eq!((checker.stream(), checker.count()), (Some(stream), 50));
        }
        checker.begin();
        assert_eq!(checker.check(&messages(STREAM, 1)[0]), Err(Wrong::Stale));
    }

    #[test]
    fn each_fault_has_its_name() {
        let all: Vec<_> = messages(STREAM, 40);
        let long = |from: usize| (from..).find(|&n| all[n].len() >= HEADER).expect("one");
        let mut checker = Checker::default();
        for message in &all[..5] {
            checker.check(message).expect("right");
        }
        let (a, old) = (long(6), long(0));
        assert_eq!(checker.check(&all[a]), Err(Wrong::Lost));
        assert_eq!(checker.check(&all[a + 1]), Ok(()), "it goes on behind it");
        assert_eq!(checker.check(&all[old]), Err(Wrong::Repeated));
        let other = Stream {
            session: 4,
            ..STREAM
        };
        assert_eq!(checker.check(&messages(other, 1)[0]), Err(Wrong::Stale));
        assert_eq!(checker.check(&all[a + 2]), Ok(()));
    }

    proptest! {
        #[test]
        fn no_changed_message_is_right(number in 0_u32..100, at in any::<prop::sample::Index>(), bit in 0_u8..8) {
            let all = messages(STREAM, number + 1);
            let mut checker = Checker::default();
            for message in &all[..number as usize] {
                prop_assert_eq!(checker.check(message), Ok(()));
            }
            let mut message = all[number as usize].clone();
            let at = at.index(message.len());
            message[at] ^= 1_u8 << bit;
            prop_assert_eq!(checker.check(&message), Err(Wrong::Corrupted));
        }
    }
}
