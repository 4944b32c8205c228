// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults that never stop: peers that ring as fast as they can, whose state or contents change all
//! the time, and a device that does anything.
//!
//! Each runs on a thread of its own and goes through the link's lock for every step, with short
//! pauses in which others get at the link. What is random is so by a seed: the same seed gives the
//! same sequence of steps, though not at the same times. Started and stopped by
//! [`control`](crate::control).

use crate::link::SharedLink;
use crate::trouble::nasty;
use fastrand::Rng;
use ivshmem_protocol::layout::Section;
use std::fmt;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

/// Between bursts of a storm. The system makes it some 60 us.
const STORM_PAUSE: Duration = Duration::from_micros(1);

/// Doorbells of a storm between two pauses.
const STORM_BURST: u32 = 8;

/// Between two steps of what is random.
const PAUSE: Duration = Duration::from_micros(50);

/// Words that are overwritten in one step.
const WORDS_PER_STEP: u32 = 16;

/// Something that goes on until it is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turmoil {
    /// A peer rings another as fast as it can.
    Storm {
        /// Who rings.
        from: u16,
        /// Who is rung.
        to: u16,
        /// On which vector.
        vector: u16,
    },
    /// The state of a peer changes all the time, each time published as by its device.
    Garbage {
        /// Whose state.
        peer: u16,
        /// Of the random numbers.
        seed: u64,
    },
    /// The whole state table changes all the time, the rest behind the last peer's entry included,
    /// and peers are interrupted now and then.
    GarbageTable {
        /// Of the random numbers.
        seed: u64,
    },
    /// A peer overwrites its output section and the R/W section all the time.
    Scribble {
        /// Who writes.
        peer: u16,
        /// Of the random numbers.
        seed: u64,
    },
    /// A device changes all of the memory that its peer can see, and interrupts when it likes.
    Hostile {
        /// Whose device.
        peer: u16,
        /// Of the random numbers.
        seed: u64,
    },
}

impl fmt::Display for Turmoil {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Storm { from, to, vector } => write!(f, "storm@{from}->{to}:{vector}"),
            Self::Garbage { peer, seed } => write!(f, "garbage={seed}@{peer}"),
            Self::GarbageTable { seed } => write!(f, "garbage-table={seed}"),
            Self::Scribble { peer, seed } => write!(f, "scribble={seed}@{peer}"),
            Self::Hostile { peer, seed } => write!(f, "turmoil={seed}@{peer}"),
        }
    }
}

/// A turmoil at work; dropped, it ends.
#[derive(Debug)]
pub struct Running {
    /// What it does.
    pub turmoil: Turmoil,
    stop: Arc<AtomicBool>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// Starts it. Peers and vectors have to be those of the link.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot have a thread.
    pub fn start(link: &SharedLink, turmoil: Turmoil) -> io::Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let (link, stopped) = (link.clone(), stop.clone());
        let thread = thread::Builder::new()
            .name("turmoil".into())
            .spawn(move || {
                // Here, as it changes the link, which is to stay as it was without a thread.
                let mut step = step(&link, turmoil);
                while !stopped.load(Ordering::Relaxed) {
                    thread::sleep(step(&link));
                }
            })?;
        Ok(Self {
            turmoil,
            stop,
            thread: Some(thread),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // A step does not panic, and if it did, it would be over too.
            let _ = thread.join();
        }
    }
}

/// One step of a turmoil; says how long to pause then.
type Step = Box<dyn FnMut(&SharedLink) -> Duration + Send>;

fn step(link: &SharedLink, turmoil: Turmoil) -> Step {
    match turmoil {
        Turmoil::Storm { from, to, vector } => Box::new(move |link| {
            for _ in 0..STORM_BURST {
                link.lock().storm(from, to, vector);
            }
            STORM_PAUSE
        }),
        Turmoil::Garbage { peer, seed } => {
            let mut rng = Rng::with_seed(seed);
            Box::new(move |link| {
                link.lock().publish_garbage(peer, nasty(&mut rng));
                PAUSE
            })
        }
        Turmoil::GarbageTable { seed } => garbage_table(link, seed),
        Turmoil::Scribble { peer, seed } => scribble(link, peer, seed),
        Turmoil::Hostile { peer, seed } => hostile(link, peer, seed),
    }
}

fn garbage_table(link: &SharedLink, seed: u64) -> Step {
    let mut rng = Rng::with_seed(seed);
    let (words, peers) = {
        let mut link = link.lock();
        link.spoil_memory();
        (link.table_words().count(), link.spec().peers())
    };
    Box::new(move |link| {
        let mut link = link.lock();
        for _ in 0..WORDS_PER_STEP {
            // The entries of peers are few, and what a driver looks at.
            let entries = if rng.bool() { peers.len() } else { words };
            link.scribble(0, 4 * rng.usize(..entries), nasty(&mut rng));
        }
        if rng.u8(..4) == 0 {
            link.interrupt_from_nowhere(rng.u16(peers.clone()), 0);
        }
        PAUSE
    })
}

fn scribble(link: &SharedLink, peer: u16, seed: u64) -> Step {
    let mut rng = Rng::with_seed(seed);
    let sections = {
        let mut link = link.lock();
        link.spoil_outputs_of(peer);
        link.sections_of(peer)
    };
    Box::new(move |link| {
        let mut link = link.lock();
        for section in &sections {
            for _ in 0..WORDS_PER_STEP {
                link.scribble(peer, word_in(section, &mut rng), nasty(&mut rng));
            }
        }
        PAUSE
    })
}

fn hostile(link: &SharedLink, peer: u16, seed: u64) -> Step {
    let mut rng = Rng::with_seed(seed);
    let (region, vectors) = {
        let mut link = link.lock();
        link.spoil_memory();
        let size = link.spec().layout(peer).region_size();
        (Section { offset: 0, size }, link.spec().doorbell_vectors())
    };
    let table = link.lock().spec().layout(peer).state_table();
    Box::new(move |link| {
        let mut link = link.lock();
        for _ in 0..WORDS_PER_STEP {
            let section = if rng.bool() { &table } else { &region };
            link.scribble(peer, word_in(section, &mut rng), nasty(&mut rng));
        }
        for _ in 0..rng.u8(..4) {
            link.interrupt_from_nowhere(peer, rng.u16(..vectors));
        }
        PAUSE
    })
}

/// A random word of `section`.
fn word_in(section: &Section, rng: &mut Rng) -> usize {
    (section.offset + 4 * rng.u64(..section.size / 4)) as usize
}
