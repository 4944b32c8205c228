// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages that two guests exchange: each is a function of its session and its number, so that
//! whoever receives one can tell every bit of it.
//!
//! One that has room for it begins with [`HEADER`] bytes that say what it is, as 8-byte numbers: a
//! checksum of all that follows, its session, its number. The first of a session always has them.
//! Thus one that is wrong tells whether it is damaged, or another one than it should be.
//!
//! These are not the messages of `rust/messages`. There a session has a seed and a 32-bit number that
//! grows from one to the next; here it has neither, but a name of 64 bits, the time at which it began,
//! which two logs that outlive guests and processes are compared by (`rust/harness/src/channels/oracle.rs`).
//! And lengths are distributed otherwise: here of any magnitude up to the largest, there half of them small.

/// Bytes at the beginning of a message that say what it is.
pub(crate) const HEADER: usize = 24;

/// Mixes all bits of `value` (the finalizer of splitmix64).
pub(crate) fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// A different number for each `session` and `number`.
fn seed(session: u64, number: u64) -> u64 {
    mix(session ^ mix(number.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

/// Length of a message, from 1 to `max`: one in 64 is the largest, one in 64 has a single byte, and all
/// others are as likely to be short as long. `max` must have room for a header.
pub(crate) fn length(session: u64, number: u64, max: usize) -> usize {
    let random = seed(session, number);
    if number == 1 {
        return max.min(64);
    }
    match random % 64 {
        0 => max,
        1 => 1,
        _ => {
            let bits = (random >> 8) % u64::from(max.ilog2() + 1);
            let length = (1 << bits) | ((random >> 16) & ((1 << bits) - 1));
            (length as usize).min(max)
        }
    }
}

/// Makes a message of `session`: its bytes at the beginning of `buffer`, and their number.
pub(crate) fn make(session: u64, number: u64, max: usize, buffer: &mut [u8]) -> usize {
    let length = length(session, number, max);
    let message = &mut buffer[..length];
    let mut value = seed(session, number) | 1;
    for chunk in message.chunks_mut(8) {
        // A linear congruential generator: quick, and no two places look alike.
        value = value
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(session);
        chunk.copy_from_slice(&value.to_le_bytes()[..chunk.len()]);
    }
    if length >= HEADER {
        message[8..16].copy_from_slice(&session.to_le_bytes());
        message[16..24].copy_from_slice(&number.to_le_bytes());
        let sum = checksum(&message[8..]);
        message[..8].copy_from_slice(&sum.to_le_bytes());
    }
    length
}

/// FNV-1a over words of 8 bytes, the last one filled up with zeros.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.chunks(8).fold(0xcbf2_9ce4_8422_2325, |sum, chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        (sum ^ u64::from_le_bytes(word)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The session and number that an undamaged message with a header says it has.
pub(crate) fn identity(message: &[u8]) -> Option<(u64, u64)> {
    let number = |at: usize| {
        let bytes = message.get(at..at + 8)?;
        bytes.try_into().ok().map(u64::from_le_bytes)
    };
    (number(0)? == checksum(&message[8..])).then_some((number(8)?, number(16)?))
}

/// Compares what has been received with what one session's messages are.
pub(crate) struct Checker {
    max: usize,
    expected: Vec<u8>,
    session: Option<u64>,
    number: u64,
}

impl Checker {
    /// Expects the first message of a session; of `session`, if that is known before.
    pub(crate) fn new(session: Option<u64>, max: usize) -> Self {
        Self {
            max,
            expected: vec![0; max],
            session,
            number: 0,
        }
    }

    /// The session that the messages belong to.
    pub(crate) fn session(&self) -> Option<u64> {
        self.session
    }

    /// How many messages were right.
    pub(crate) fn count(&self) -> u64 {
        self.number
    }

    /// Whether the next message is `message`.
    ///
    /// # Errors
    ///
    /// What it is instead.
    pub(crate) fn check(&mut self, message: &[u8]) -> Result<(), String> {
        let said = identity(message);
        let number = self.number + 1;
        let session = match (self.session, said) {
            (Some(session), _) => session,
            (None, Some((session, _))) => *self.session.insert(session),
            (None, None) => return Err("the first message is damaged".into()),
        };
        let length = make(session, number, self.max, &mut self.expected);
        if message == &self.expected[..length] {
            self.number = number;
            return Ok(());
        }
        let what = format!("instead of message {number} of session {session:#x}");
        Err(match said {
            Some((other, _)) if other != session => {
                format!("a message of session {other:#x} {what}")
            }
            Some((_, other)) if other > number => format!("message {other} (lost some) {what}"),
            Some((_, other)) => format!("message {other} (once more) {what}"),
            None if message.len() == length => format!("{length} damaged bytes {what}"),
            None => format!("{} other bytes {what} with {length}", message.len()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAX: usize = 1000;

    fn message(session: u64, number: u64) -> Vec<u8> {
        let mut buffer = vec![0; MAX];
        let length = make(session, number, MAX, &mut buffer);
        buffer.truncate(length);
        buffer
    }

    /// The numbers of messages that can say what they are.
    fn with_header(session: u64) -> impl Iterator<Item = u64> {
        (2..).filter(move |&number| length(session, number, MAX) >= HEADER)
    }

    #[test]
    fn lengths_cover_everything() {
        let lengths: Vec<_> = (1..10_000).map(|number| length(7, number, MAX)).collect();
        assert!(lengths.iter().all(|length| (1..=MAX).contains(length)));
        assert!(lengths.contains(&1) && lengths.contains(&MAX));
        let short = lengths.iter().filter(|&&length| length < 32).count();
        assert!((3000..7000).contains(&short), "{short}");
    }

    #[test]
    fn right_ones_pass() {
        let mut checker = Checker::new(None, MAX);
        for number in 1..500 {
            checker.check(&message(9, number)).unwrap();
        }
        assert_eq!((checker.session(), checker.count()), (Some(9), 499));
    }

    #[test]
    fn wrong_ones_are_named() {
        let mut checker = Checker::new(None, MAX);
        checker.check(&message(9, 1)).unwrap();
        let later = with_header(9).nth(3).unwrap();
        for (given, words) in [
            (message(9, later), "lost some"),
            (message(9, 1), "once more"),
            (message(8, with_header(8).next().unwrap()), "session 0x8"),
        ] {
            let error = checker.check(&given).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
        for number in 2..300 {
            let mut damaged = message(9, number);
            damaged[0] ^= 1;
            let error = checker.check(&damaged).unwrap_err();
            assert!(error.contains("damaged"), "{error}");
            checker.check(&message(9, number)).unwrap();
        }
    }
}
