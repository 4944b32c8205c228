// SPDX-License-Identifier: MIT OR Apache-2.0

//! Soft inmates: peers that live inside the model, so that a guest has somebody to talk to without
//! a second QEMU.
//!
//! A soft inmate has no way of its own to the link: it writes the same registers as a guest, and
//! stores to the memory only where its section layout allows it. Each runs on one thread that
//! sleeps until it is interrupted. What it does is an [`Inmate`]; [`Cell`] is what it has.
//!
//! | module | what |
//! | --- | --- |
//! | `spec` | which inmate, in words |
//! | `cell` | registers and memory |
//! | `raw` | those that use the raw device |
//! | `channels`, `end` | those that speak the channel protocol, and one end of a channel |
//! | `view` | the memory, as the channel protocol reaches it |
//! | `attacker` | one that breaks the channel protocol |

mod attacker;
mod cell;
mod channels;
mod end;
mod raw;
mod spec;
mod view;

pub use cell::Cell;
pub use spec::Behaviour;
pub use spec::InmateParseError;
pub use spec::InmateSpec;
pub use spec::Role;
pub use spec::Settings;
pub use spec::Unfit;

use crate::lines::Signal;
use crate::link::SharedLink;
use std::io;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use thiserror::Error;

/// What the demo inmate says.
pub const GREETING: &[u8] = b"Hi!\n\0";

/// How much of the root cell's output section the echo inmate copies, in bytes.
pub const ECHO_SIZE: usize = 64;

/// What a soft inmate does with its cell.
pub trait Inmate: Send {
    /// Called with interrupts enabled and the state still 0: at the start, and after each restart.
    fn start(&mut self, cell: &Cell);

    /// Called for each interrupt.
    fn interrupt(&mut self, cell: &Cell, vector: u16);

    /// How often [`tick`](Self::tick) is to be called, if at all.
    fn period(&self) -> Option<Duration> {
        None
    }

    /// Called once per period.
    fn tick(&mut self, _cell: &Cell) {}

    /// Whether interrupts on a vector merge until the first of them has been taken.
    fn merges_interrupts(&self) -> bool {
        false
    }

    /// Is to crash at its store number `stores` from now on, the first being 0.
    fn crash_after(&mut self, _stores: u32) {}

    /// Whether it has crashed, and is to be restarted.
    fn has_crashed(&self) -> bool {
        false
    }

    /// Closes its channels in good order and opens them anew.
    fn reconnect(&mut self, _cell: &Cell) {}
}

/// What a soft inmate's thread waits for.
enum Event {
    Interrupt(u16),
    Order(Order),
    Stop,
}

/// What a soft inmate with channels can be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Its cell is reset, and it starts again: now, or instead of its store number so and so.
    Restart(Option<u32>),
    /// It closes its channels and opens them anew.
    Reconnect,
}

/// The end of an interrupt line at a soft inmate.
struct Ring {
    vector: u16,
    /// Whether one that has not been taken yet waits, where they merge.
    waits: Option<Arc<AtomicBool>>,
    events: mpsc::Sender<Event>,
}

impl Signal for Ring {
    fn signal(&self) {
        let merged = |waits: &Arc<AtomicBool>| waits.swap(true, Ordering::AcqRel);
        if !self.waits.as_ref().is_some_and(merged) {
            // It fails only if the inmate has been stopped.
            let _ = self.events.send(Event::Interrupt(self.vector));
        }
    }
}

/// The interrupt lines of a soft inmate.
struct Lines {
    events: mpsc::Sender<Event>,
    /// One for each vector, or for INTx, where interrupts merge.
    waits: Vec<Arc<AtomicBool>>,
}

impl Lines {
    fn line(&self, vector: u16) -> Box<dyn Signal> {
        Box::new(Ring {
            vector,
            waits: self.waits.get(usize::from(vector)).cloned(),
            events: self.events.clone(),
        })
    }

    /// An interrupt has been taken: the next is another one.
    fn taken(&self, vector: u16) {
        if let Some(waits) = self.waits.get(usize::from(vector)) {
            waits.store(false, Ordering::Release);
        }
    }
}

/// Why a soft inmate did not start; then nothing was changed.
#[derive(Debug, Error)]
pub enum NotStarted {
    /// Somebody is that peer.
    #[error("somebody is peer {0} already")]
    Taken(u16),
    /// The system has no thread for it.
    #[error("no thread for it ({0})")]
    NoThread(io::Error),
}

/// A soft inmate at work; dropped, it stops, and its peer has gone.
#[derive(Debug)]
pub struct Running {
    events: mpsc::Sender<Event>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// Starts a soft inmate. When this returns, its state is published.
    ///
    /// # Errors
    ///
    /// [`NotStarted`], which says why.
    pub fn start(link: &SharedLink, spec: InmateSpec) -> Result<Self, NotStarted> {
        Self::start_with(link, spec.peer, spec.behaviour.inmate())
    }

    /// Starts a soft inmate with a behaviour of the caller's.
    ///
    /// # Errors
    ///
    /// [`NotStarted`], which says why.
    pub fn start_with(
        link: &SharedLink,
        peer: u16,
        mut inmate: Box<dyn Inmate>,
    ) -> Result<Self, NotStarted> {
        let seat = link.take_seat(peer).ok_or(NotStarted::Taken(peer))?;
        let (events, receiver) = mpsc::channel();
        let cell = Cell::new(seat);
        let merging = if inmate.merges_interrupts() {
            cell.vectors().max(1)
        } else {
            0
        };
        let lines = Lines {
            events: events.clone(),
            waits: (0..merging).map(|_| Arc::default()).collect(),
        };
        let (started, has_started) = mpsc::channel();
        // All that others can see happens on the thread: without one there is nothing to undo.
        let thread = thread::Builder::new()
            .name(format!("inmate {peer}"))
            .spawn(move || {
                cell.bring_up(&lines);
                inmate.start(&cell);
                // It fails only if nobody waits any more.
                let _ = started.send(());
                run(&cell, inmate.as_mut(), &lines, &receiver);
            })
            .map_err(NotStarted::NoThread)?;
        // It fails only if the inmate has panicked: then it is one that has ended.
        let _ = has_started.recv();
        Ok(Self {
            events,
            thread: Some(thread),
        })
    }

    /// Tells it to do something soon. One that has no channels restarts at once whatever the store.
    pub fn tell(&self, order: Order) {
        // It fails only if the thread has ended.
        let _ = self.events.send(Event::Order(order));
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails only if the thread has ended already.
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(cell: &Cell, inmate: &mut dyn Inmate, lines: &Lines, events: &mpsc::Receiver<Event>) {
    let mut next = inmate.period().map(|period| Instant::now() + period);
    loop {
        let event = match next {
            Some(next) => events.recv_timeout(next.saturating_duration_since(Instant::now())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let mut restarts = false;
        match event {
            Ok(Event::Interrupt(vector)) => {
                lines.taken(vector);
                inmate.interrupt(cell, vector);
                cell.end_of_interrupt();
            }
            Err(RecvTimeoutError::Timeout) => {
                inmate.tick(cell);
                next = None;
            }
            Ok(Event::Order(Order::Restart(Some(stores)))) => inmate.crash_after(stores),
            Ok(Event::Order(Order::Restart(None))) => restarts = true,
            Ok(Event::Order(Order::Reconnect)) => inmate.reconnect(cell),
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
        if restarts || inmate.has_crashed() {
            cell.go();
            cell.bring_up(lines);
            inmate.start(cell);
        }
        // The period may have become another one: what is due sooner counts.
        let soon = inmate.period().map(|period| Instant::now() + period);
        next = next
            .into_iter()
            .chain(soon)
            .min()
            .filter(|_| soon.is_some());
    }
}
