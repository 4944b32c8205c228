// SPDX-License-Identifier: MIT OR Apache-2.0

//! The interrupt lines from a device to its client: one signal per MSI-X vector, or the INTx line.
//!
//! Owns what the client has set up with SET_IRQS. Whether an interrupt may be sent at all is for
//! `Device` to say; here it is sent. INTx is automasked: after each
//! interrupt the line stays masked until the client unmasks it, and what comes meanwhile becomes
//! one further interrupt.
//!
//! QEMU takes any access of the guest to a BAR for the end of an INTx interrupt, also one that has
//! nothing to do with it and comes before a processor has taken the interrupt. Some interrupt
//! controllers then forget it. So one that the guest has not acknowledged is sent again.

use rustix::event::poll;
use rustix::event::PollFd;
use rustix::event::PollFlags;
use rustix::event::Timespec;
use rustix::io::preadv2;
use rustix::io::ReadWriteFlags;
use std::fmt;
use std::fs::File;
use std::io::IoSliceMut;
use std::io::Write;

/// How to wake a client.
pub trait Signal: Send {
    /// Wakes it. Never blocks.
    fn signal(&self);

    /// Whether it has been woken and has not yet seen that. Never blocks.
    fn is_unseen(&self) -> bool {
        false
    }

    /// Takes back what it has not yet seen; false if there is nothing. Never blocks.
    fn take_back(&self) -> bool {
        false
    }
}

/// An eventfd that a client has sent.
#[derive(Debug)]
pub struct EventFd(pub File);

impl Signal for EventFd {
    fn signal(&self) {
        // It fails if the counter is full, and then the client is awake anyway.
        if let Err(error) = (&self.0).write_all(&1_u64.to_ne_bytes()) {
            tracing::debug!(%error, "eventfd not written");
        }
    }

    fn is_unseen(&self) -> bool {
        let mut files = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut files, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }

    fn take_back(&self) -> bool {
        let mut count = [0; 8];
        let mut parts = [IoSliceMut::new(&mut count)];
        // A read of an eventfd of 0 would block without this flag, as the client chooses O_NONBLOCK.
        preadv2(&self.0, &mut parts, u64::MAX, ReadWriteFlags::NOWAIT).is_ok()
    }
}

/// How often an INTx interrupt is sent again to a guest that has not acknowledged any by a read of its own
/// state: that may be a guest that never will. One that has gets it until it acknowledges it, as a processor
/// that the host does not run may let pass any number of accesses of another.
pub const INTX_REPEATS: u32 = 64;

/// What the guest has done with the device since the last INTx interrupt was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Touched {
    /// Nothing.
    #[default]
    No,
    /// Something else than to acknowledge it.
    Yes,
    /// It has acknowledged it.
    Acknowledged,
}

/// What was sent at the end of an INTx interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// Nothing.
    Nothing,
    /// One that had waited.
    Waiting,
    /// The same again, as the guest has not acknowledged it.
    Again,
}

/// What became of an interrupt on the INTx line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Raised {
    /// The client was woken.
    Now,
    /// The client will be woken when it unmasks the line; all until then are one.
    Later,
    /// The client has not set up the line.
    NotSetUp,
}

/// A request of a client, decoded from SET_IRQS.
pub enum IrqRequest {
    /// Signals for vectors from `first` on; [`None`] switches a vector off.
    SetVectors {
        /// The first vector.
        first: u32,
        /// One entry per vector.
        signals: Vec<Option<Box<dyn Signal>>>,
    },
    /// Switch all vectors off.
    ClearVectors,
    /// The signal for INTx; [`None`] switches it off.
    SetIntx(Option<Box<dyn Signal>>),
    /// Mask INTx.
    MaskIntx,
    /// The end of an INTx interrupt.
    UnmaskIntx,
}

/// The lines of one device.
#[derive(Default)]
pub struct Lines {
    vectors: Vec<Option<Box<dyn Signal>>>,
    intx: Option<Box<dyn Signal>>,
    intx_masked: bool,
    /// The client has masked it, not an interrupt.
    intx_masked_by_client: bool,
    intx_pending: bool,
    intx_touched: Touched,
    intx_repeats: u32,
    /// The guest has acknowledged one as a handler does.
    intx_has_handler: bool,
}

impl fmt::Debug for Lines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let set: Vec<bool> = self.vectors.iter().map(Option::is_some).collect();
        f.debug_struct("Lines")
            .field("vectors", &set)
            .field("intx", &self.intx.is_some())
            .field("intx_masked", &self.intx_masked)
            .field("intx_masked_by_client", &self.intx_masked_by_client)
            .field("intx_pending", &self.intx_pending)
            .field("intx_touched", &self.intx_touched)
            .field("intx_repeats", &self.intx_repeats)
            .field("intx_has_handler", &self.intx_has_handler)
            .finish()
    }
}

impl Lines {
    /// Lines for `vectors` MSI-X vectors, none of them set up.
    #[must_use]
    pub fn new(vectors: u16) -> Self {
        Self {
            vectors: (0..vectors).map(|_| None).collect(),
            ..Self::default()
        }
    }

    /// Forgets all that the client has set up.
    pub fn clear(&mut self) {
        *self = Self::new(self.vectors.len() as u16);
    }

    /// Forgets interrupts that wait, but not what the client has set up.
    pub fn reset(&mut self) {
        self.intx_masked = false;
        self.intx_masked_by_client = false;
        self.intx_pending = false;
        self.intx_has_handler = false;
        self.intx_touched = Touched::Acknowledged;
    }

    /// Nothing is to come after what has come: none waits, and none comes again.
    pub fn forget_intx(&mut self) {
        self.intx_pending = false;
        self.intx_touched = Touched::Acknowledged;
    }

    /// The guest wants no interrupts any more: none waits, none is on its way. One that came late would raise
    /// a line at which perhaps nobody looks at this device.
    pub fn silence(&mut self) {
        self.forget_intx();
        if self.intx.as_ref().is_some_and(|intx| intx.take_back()) {
            // The client will not end what it has never seen.
            self.intx_masked = self.intx_masked_by_client;
        }
    }

    /// The guest has done something with the device, which may end an INTx interrupt.
    pub fn touch(&mut self) {
        if self.intx_touched == Touched::No {
            self.intx_touched = Touched::Yes;
        }
    }

    /// The guest has seen the INTx interrupt, if the client has: else its handler is about an earlier one.
    pub fn acknowledge(&mut self) {
        match &self.intx {
            Some(intx) if intx.is_unseen() => self.touch(),
            _ => self.intx_touched = Touched::Acknowledged,
        }
    }

    /// Likewise, and as its handler always does.
    pub fn handle(&mut self) {
        let is_news = self.intx_touched != Touched::Acknowledged;
        self.acknowledge();
        self.intx_has_handler |= is_news && self.intx_touched == Touched::Acknowledged;
    }

    /// Carries out a request. Vectors that the device does not have are ignored. Returns what was
    /// sent by it.
    pub fn request(&mut self, request: IrqRequest) -> Sent {
        match request {
            IrqRequest::SetVectors { first, signals } => {
                let first = usize::try_from(first).unwrap_or(usize::MAX);
                let vectors = self.vectors.iter_mut().skip(first);
                for (vector, signal) in vectors.zip(signals) {
                    *vector = signal;
                }
            }
            IrqRequest::ClearVectors => self.vectors.iter_mut().for_each(|v| *v = None),
            IrqRequest::SetIntx(signal) => {
                self.reset();
                self.intx = signal;
            }
            IrqRequest::MaskIntx => {
                self.intx_masked = true;
                self.intx_masked_by_client = true;
            }
            IrqRequest::UnmaskIntx => {
                self.intx_masked = false;
                self.intx_masked_by_client = false;
                if std::mem::take(&mut self.intx_pending) {
                    return match self.raise_intx() {
                        Raised::Now => Sent::Waiting,
                        Raised::Later | Raised::NotSetUp => Sent::Nothing,
                    };
                }
                return self.repeat();
            }
        }
        Sent::Nothing
    }

    /// Sends the INTx interrupt again that the guest has ended, if it has not acknowledged it.
    fn repeat(&mut self) -> Sent {
        let count = self.intx_repeats.saturating_add(1);
        let is_enough = count > INTX_REPEATS && !self.intx_has_handler;
        if self.intx_touched != Touched::Yes || is_enough {
            return Sent::Nothing;
        }
        match self.raise_intx() {
            Raised::Now => {
                self.intx_repeats = count;
                Sent::Again
            }
            Raised::Later | Raised::NotSetUp => Sent::Nothing,
        }
    }

    /// Sends an interrupt on an MSI-X vector; false if the client has not set it up.
    pub fn raise_vector(&self, vector: u16) -> bool {
        match self.vectors.get(usize::from(vector)) {
            Some(Some(signal)) => {
                signal.signal();
                true
            }
            _ => false,
        }
    }

    /// Sends an interrupt on the INTx line.
    pub fn raise_intx(&mut self) -> Raised {
        let Some(signal) = &self.intx else {
            return Raised::NotSetUp;
        };
        if self.intx_masked {
            self.intx_pending = true;
            return Raised::Later;
        }
        self.intx_masked = true;
        self.intx_touched = Touched::No;
        self.intx_repeats = 0;
        signal.signal();
        Raised::Now
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Read;
    use std::sync::atomic::AtomicU32;
    use std::sync::atomic::Ordering;
    use std::sync::Arc;

    /// A signal that counts.
    #[derive(Clone, Default)]
    pub(crate) struct Counter(Arc<AtomicU32>);

    impl Counter {
        pub(crate) fn get(&self) -> u32 {
            self.0.load(Ordering::Relaxed)
        }

        pub(crate) fn boxed(&self) -> Option<Box<dyn Signal>> {
            Some(Box::new(self.clone()))
        }
    }

    impl Signal for Counter {
        fn signal(&self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn intx() -> (Lines, Counter) {
        let (mut lines, counter) = (Lines::new(0), Counter::default());
        lines.request(IrqRequest::SetIntx(counter.boxed()));
        (lines, counter)
    }

    fn intx_by_eventfd() -> (Lines, File) {
        let eventfd = rustix::event::eventfd(0, rustix::event::EventfdFlags::empty()).unwrap();
        let (file, mut lines) = (File::from(eventfd), Lines::new(0));
        let client = file.try_clone().unwrap();
        lines.request(IrqRequest::SetIntx(Some(Box::new(EventFd(file)))));
        (lines, client)
    }

    /// How often the client was woken.
    fn seen(client: &mut File) -> u64 {
        let mut count = [0; 8];
        client.read_exact(&mut count).unwrap();
        u64::from_ne_bytes(count)
    }

    #[test]
    fn intx_is_masked_by_each_interrupt_until_its_end() {
        let (mut lines, counter) = intx();
        assert_eq!(lines.raise_intx(), Raised::Now);
        assert_eq!(counter.get(), 1);
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
        assert_eq!(lines.raise_intx(), Raised::Now);
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn intx_before_the_end_of_interrupt_is_one_further_interrupt() {
        let (mut lines, counter) = intx();
        assert_eq!(lines.raise_intx(), Raised::Now);
        assert_eq!(lines.raise_intx(), Raised::Later);
        assert_eq!(lines.raise_intx(), Raised::Later);
        assert_eq!(counter.get(), 1);
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Waiting);
        assert_eq!(counter.get(), 2);
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn intx_that_another_access_has_ended_is_sent_again() {
        let (mut lines, counter) = intx();
        lines.raise_intx();
        for _ in 0..INTX_REPEATS {
            lines.touch();
            assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Again);
        }
        assert_eq!(counter.get(), 1 + INTX_REPEATS);
        lines.touch();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
        // And a new one again.
        lines.raise_intx();
        lines.touch();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Again);
        lines.touch();
        lines.acknowledge();
        lines.touch();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
    }

    #[test]
    fn intx_is_sent_again_without_limit_to_a_guest_with_a_handler() {
        let (mut lines, counter) = intx();
        // Nothing is up, so this tells nothing.
        lines.handle();
        assert!(!lines.intx_has_handler);
        lines.raise_intx();
        lines.handle();
        lines.request(IrqRequest::UnmaskIntx);
        lines.raise_intx();
        for _ in 0..10 * INTX_REPEATS {
            lines.touch();
            assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Again);
        }
        lines.handle();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
        assert_eq!(counter.get(), 2 + 10 * INTX_REPEATS);
    }

    #[test]
    fn a_guest_that_wants_no_interrupts_gets_none_that_was_on_its_way() {
        let (mut lines, mut client) = intx_by_eventfd();
        // Nothing to take back does not block.
        lines.silence();
        lines.raise_intx();
        lines.raise_intx();
        lines.silence();
        // The next comes, though the client has ended none.
        assert_eq!(lines.raise_intx(), Raised::Now);
        assert_eq!(seen(&mut client), 1);
        // The client has seen this one, and has to end it.
        lines.silence();
        assert_eq!(lines.raise_intx(), Raised::Later);
        lines.silence();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
    }

    #[test]
    fn intx_that_the_client_has_not_seen_is_not_acknowledged() {
        let (mut lines, mut client) = intx_by_eventfd();
        lines.raise_intx();
        lines.handle();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Again);
        assert_eq!(seen(&mut client), 2);
        lines.handle();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
    }

    #[test]
    fn intx_that_waits_is_not_sent_again_besides() {
        let (mut lines, counter) = intx();
        lines.raise_intx();
        lines.raise_intx();
        lines.touch();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Waiting);
        lines.acknowledge();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn intx_masked_by_the_client_waits() {
        let (mut lines, counter) = intx();
        lines.request(IrqRequest::MaskIntx);
        assert_eq!(lines.raise_intx(), Raised::Later);
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Waiting);
        assert_eq!(counter.get(), 1);
    }

    #[test]
    fn reset_forgets_a_waiting_intx_but_keeps_the_line() {
        let (mut lines, counter) = intx();
        lines.raise_intx();
        lines.raise_intx();
        lines.reset();
        assert_eq!(lines.request(IrqRequest::UnmaskIntx), Sent::Nothing);
        assert_eq!(lines.raise_intx(), Raised::Now);
        assert_eq!(counter.get(), 2);
    }

    #[test]
    fn lines_that_are_not_set_up_say_so() {
        let mut lines = Lines::new(2);
        assert_eq!(lines.raise_intx(), Raised::NotSetUp);
        assert!(!lines.raise_vector(0));
        assert!(!lines.raise_vector(2));
    }

    #[test]
    fn vectors_are_set_one_by_one_and_cleared_together() {
        let mut lines = Lines::new(3);
        let counter = Counter::default();
        lines.request(IrqRequest::SetVectors {
            first: 1,
            signals: vec![counter.boxed(), counter.boxed(), counter.boxed()],
        });
        assert!(!lines.raise_vector(0));
        assert!(lines.raise_vector(1));
        assert!(lines.raise_vector(2));
        assert_eq!(counter.get(), 2);
        lines.request(IrqRequest::SetVectors {
            first: 2,
            signals: vec![None],
        });
        assert!(!lines.raise_vector(2));
        lines.request(IrqRequest::SetVectors {
            first: u32::MAX,
            signals: vec![counter.boxed()],
        });
        lines.request(IrqRequest::ClearVectors);
        assert!(!lines.raise_vector(1));
    }
}
