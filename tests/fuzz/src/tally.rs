// SPDX-License-Identifier: MIT OR Apache-2.0
//! Counts of all processes of a run, in memory that they share: a process that is killed has counted.

use crate::kinds::Kind;
use crate::sys::Shared;
use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

/// Errors that are told apart: numbers below this. 0 stands for success.
pub const ERRNOS: usize = 134;
/// Most threads of all processes together.
pub(crate) const THREADS: usize = 32;
/// Words before the threads'.
const HEAD: usize = 16;
const STOP: usize = 0;
const SIGBUS: usize = 1;
const SIGSEGV: usize = 2;
const WOKEN: usize = 3;
const EXTRA: usize = 4;

/// What else is counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extra {
    /// Messages sent through channels.
    Sent,
    /// Messages received through channels.
    Received,
    /// Of these, messages of which each byte was right, that had been sent, and came once and in order.
    Checked,
    /// The same, from the peer that sends back what it gets.
    Returned,
    /// A read told of the end of a session that the peer had closed.
    Ended,
    /// A call told that the session was reset.
    Reset,
    /// A call told that the peer had broken the protocol.
    Broken,
}

impl Extra {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Sent,
        Self::Received,
        Self::Checked,
        Self::Returned,
        Self::Ended,
        Self::Reset,
        Self::Broken,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "messages sent",
            Self::Received => "messages received",
            Self::Checked => "messages between peers of the guest, checked",
            Self::Returned => "messages echoed by the third peer, checked",
            Self::Ended => "ends of sessions read",
            Self::Reset => "resets told",
            Self::Broken => "broken sessions told",
        }
    }
}

/// The counts.
#[derive(Debug)]
pub struct Tally(Shared);

impl Tally {
    /// Number of words.
    const WORDS: usize = HEAD + THREADS + Kind::ALL.len() * (ERRNOS + 1);

    /// Makes a file for them, all 0.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn create(path: &str) -> io::Result<Self> {
        Ok(Self(Shared::create(path, Self::WORDS)?))
    }

    /// Uses the file that another process made.
    ///
    /// # Errors
    ///
    /// If that fails.
    pub fn open(path: &str) -> io::Result<Self> {
        let file = File::options().read(true).write(true).open(path)?;
        Ok(Self(Shared::map(&file, Self::WORDS)?))
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        &self.0.words()[index]
    }

    fn get(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::Relaxed)
    }

    /// Tells all threads to end.
    pub fn stop(&self) {
        self.word(STOP).store(1, Ordering::Relaxed);
    }

    /// Lets threads run again.
    pub fn go_on(&self) {
        self.word(STOP).store(0, Ordering::Relaxed);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.get(STOP) != 0
    }

    /// Index of the time of all operations of `kind`.
    fn time(kind: Kind) -> usize {
        HEAD + THREADS + Kind::ALL.len() * ERRNOS + kind as usize
    }

    /// An operation has ended, after so many nanoseconds.
    pub(crate) fn count(&self, thread: usize, kind: Kind, result: i64, nanoseconds: u64) {
        let errno = if result < 0 { (-result) as usize } else { 0 };
        let cell = HEAD + THREADS + kind as usize * ERRNOS + errno.min(ERRNOS - 1);
        self.word(cell).fetch_add(1, Ordering::Relaxed);
        self.word(Self::time(kind))
            .fetch_add(nanoseconds, Ordering::Relaxed);
        self.word(HEAD + thread % THREADS)
            .fetch_add(1, Ordering::Relaxed);
    }

    /// Operations of `thread`.
    #[must_use]
    pub fn of_thread(&self, thread: usize) -> u64 {
        self.get(HEAD + thread % THREADS)
    }

    /// Operations of all threads.
    #[must_use]
    pub fn total(&self) -> u64 {
        (0..THREADS).map(|thread| self.of_thread(thread)).sum()
    }

    /// How often an operation of `kind` ended with `errno`.
    #[must_use]
    pub fn outcomes(&self, kind: Kind, errno: usize) -> u64 {
        self.get(HEAD + THREADS + kind as usize * ERRNOS + errno)
    }

    /// Nanoseconds of all operations of `kind`, in all threads.
    #[must_use]
    pub fn nanoseconds(&self, kind: Kind) -> u64 {
        self.get(Self::time(kind))
    }

    pub(crate) fn add_signals(&self, [bus, segv]: [u64; 2]) {
        self.word(SIGBUS).fetch_add(bus, Ordering::Relaxed);
        self.word(SIGSEGV).fetch_add(segv, Ordering::Relaxed);
    }

    /// SIGBUS and SIGSEGV of loads and stores.
    #[must_use]
    pub fn signals(&self) -> [u64; 2] {
        [self.get(SIGBUS), self.get(SIGSEGV)]
    }

    pub(crate) fn add(&self, what: Extra) {
        self.word(EXTRA + what as usize)
            .fetch_add(1, Ordering::Relaxed);
    }

    /// How often something else was counted.
    #[must_use]
    pub fn extra(&self, what: Extra) -> u64 {
        self.get(EXTRA + what as usize)
    }

    pub(crate) fn add_woken(&self) {
        self.word(WOKEN).fetch_add(1, Ordering::Relaxed);
    }

    /// Signals sent to threads that waited.
    #[must_use]
    pub fn woken(&self) -> u64 {
        self.get(WOKEN)
    }
}
