// SPDX-License-Identifier: GPL-2.0

//! Doorbells that interrupt handlers answer, to be measured: no round trip on a link can be quicker.
//!
//! The file `pingpong` of a device in debugfs, which is for root only, takes one line and tells how it stands:
//!
//! | written | meaning |
//! | --- | --- |
//! | `answer PEER VECTOR` | each interrupt on `VECTOR` is answered by ringing `PEER` on `VECTOR` |
//! | `ask PEER VECTOR COUNT` | `COUNT` round trips: `PEER` is rung on `VECTOR`, and again at each interrupt there |
//! | `off` | nothing of this any more, as it is in the beginning |
//!
//! `PEER` is to be at `answer` when another one asks. Two peers at `answer` would ring each other for ever, as
//! fast as the throttle lets them, until one is `off`.

use crate::{
    abi::wait,
    link::Link, //
};
use kernel::{
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        new_spinlock_irq,
        SpinLockIrq, //
    },
    uaccess::UserSliceReader, //
};

/// Most round trips of one `ask`.
const COUNT_MAX: usize = 4096;

/// Longest line that means anything, in bytes.
const LINE_MAX: usize = 64;

/// What the interrupt handler does.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Job {
    /// Nothing.
    Off,
    /// Rings the peer on the vector on which it was interrupted.
    Answer { peer: u16, vector: u16 },
    /// Likewise, and counts down until none is left.
    Ask { peer: u16, vector: u16, left: usize },
}

struct State {
    job: Job,
    /// When the peer was last rung.
    begin: i64,
    /// Nanoseconds of each round trip.
    samples: KVec<u32>,
}

/// What a device does of this.
#[pin_data]
pub(crate) struct PingPong {
    /// Whether there is a job: so that the handler of one who does not want this loses no time.
    is_on: Atomic<bool>,
    #[pin]
    state: SpinLockIrq<State>,
}

impl PingPong {
    /// Off.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            is_on: Atomic::new(false),
            state <- new_spinlock_irq!(
                State {
                    job: Job::Off,
                    begin: 0,
                    samples: KVec::new(),
                },
                "ivshmem_pingpong"
            ),
        })
    }

    /// An interrupt on `vector`: whom to ring there. From hard interrupt context.
    pub(crate) fn interrupt(&self, vector: u16) -> Option<u16> {
        if !self.is_on.load(Relaxed) {
            return None;
        }
        let mut state = self.state.lock();
        match state.job {
            Job::Answer {
                peer,
                vector: wanted,
            } if wanted == vector => Some(peer),
            Job::Ask {
                peer,
                vector: wanted,
                left,
            } if wanted == vector => {
                let now = wait::now();
                let taken = u32::try_from(now - state.begin).unwrap_or(u32::MAX);
                state.begin = now;
                // There is room for all of them.
                let _ = state.samples.push_within_capacity(taken);
                if left <= 1 {
                    state.job = Job::Off;
                    self.is_on.store(false, Relaxed);
                    return None;
                }
                state.job = Job::Ask {
                    peer,
                    vector,
                    left: left - 1,
                };
                Some(peer)
            }
            _ => None,
        }
    }

    fn set(&self, job: Job, samples: KVec<u32>) {
        let mut state = self.state.lock();
        let old = core::mem::replace(&mut state.samples, samples);
        state.job = job;
        state.begin = wait::now();
        self.is_on.store(job != Job::Off, Relaxed);
        drop(state);
        drop(old);
    }
}

/// Does what is written to the file.
///
/// # Errors
///
/// `EINVAL` for what is no such line, `ENXIO` for a peer or a vector that the link does not have, `ENODEV` if the
/// device is gone.
pub(crate) fn write(link: &Link, reader: &mut UserSliceReader) -> Result {
    let mut bytes = [0; LINE_MAX];
    let line = bytes.get_mut(..reader.len()).ok_or(EINVAL)?;
    reader.read_slice(line)?;
    let line = core::str::from_utf8(line).map_err(|_| EINVAL)?;
    let mut words = line.split_ascii_whitespace();
    let word = words.next();
    let mut numbers = [None; 3];
    for number in &mut numbers {
        let word = words.next().map(str::parse::<u16>).transpose();
        *number = word.map_err(|_| EINVAL)?;
    }
    let job = match (word, numbers) {
        (Some("off"), [None, None, None]) => Job::Off,
        (Some("answer"), [Some(peer), Some(vector), None]) => Job::Answer { peer, vector },
        (Some("ask"), [Some(peer), Some(vector), Some(count)]) => Job::Ask {
            peer,
            vector,
            left: usize::from(count),
        },
        _ => return Err(EINVAL),
    };
    if words.next().is_some() {
        return Err(EINVAL);
    }
    start(link, job)
}

/// Checks a job, and lets it begin.
fn start(link: &Link, job: Job) -> Result {
    let mut samples = KVec::new();
    match job {
        Job::Off => {}
        Job::Answer { peer, vector } | Job::Ask { peer, vector, .. } => {
            if peer >= link.layout().max_peers() || vector >= link.identity.vectors_wanted() {
                return Err(ENXIO);
            }
        }
    }
    if let Job::Ask { left, .. } = job {
        if !(1..=COUNT_MAX).contains(&left) {
            return Err(EINVAL);
        }
        samples.reserve(left, GFP_KERNEL)?;
    }
    link.pingpong.set(job, samples);
    match job {
        Job::Ask { peer, vector, .. } => link.ring(peer, vector),
        _ => Ok(()),
    }
}

/// Says how it stands.
pub(crate) fn show(link: &Link, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // The words are written without the lock, as is all that takes long: handlers wait for it, and writing may sleep.
    let (word, samples) = {
        let mut state = link.pingpong.state.lock();
        match state.job {
            Job::Answer { .. } => ("answering\n", KVec::new()),
            Job::Ask { .. } => ("asking\n", KVec::new()),
            Job::Off => ("off\n", core::mem::replace(&mut state.samples, KVec::new())),
        }
    };
    if samples.is_empty() {
        return f.write_str(word);
    }
    let (count, median) = (samples.len(), median(&samples));
    let mut state = link.pingpong.state.lock();
    if state.job == Job::Off && state.samples.is_empty() {
        state.samples = samples;
    }
    drop(state);
    writeln!(f, "{count} round trips, median {median} ns")
}

/// The least of `samples` that more than half of them do not exceed.
fn median(samples: &[u32]) -> u32 {
    let (mut low, mut high) = (0, u32::MAX);
    while low < high {
        let middle = low + (high - low) / 2;
        let below = samples.iter().filter(|&&sample| sample <= middle).count();
        if 2 * below > samples.len() {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}
