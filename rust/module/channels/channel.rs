// SPDX-License-Identifier: GPL-2.0

//! One channel: its session, who may use it when, and waiting for it.
//!
//! The session is behind a spin lock, which is held for the few accesses of one step of the protocol. While bytes
//! of a message are copied nobody holds it: a [`Turn`] for each direction sees to it that there is one reader
//! and one writer at a time, which others can wait for and be interrupted.

use super::section_of;
use crate::{
    abi::{
        anon::Patience,
        eventfd::EventFd,
        memory::SharedMemory,
        random, trace,
        wait::{
            new_wait_queue,
            Deadline,
            WaitQueue, //
        },
    },
    counters::CountedFile,
    link::{
        Inside,
        Link, //
    },
    protocol::channel::{
        layout::Ring,
        session::{
            self,
            Ended,
            Session, //
        },
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        new_spinlock_irq,
        Arc,
        SpinLockIrq, //
    },
};

/// What a program wants of a channel.
#[derive(Clone, Copy)]
pub(crate) struct Options {
    /// A message is confirmed when the program says so, not when it has been read.
    pub(crate) explicit_ack: bool,
}

/// A session, and what its waiters have in common.
pub(super) struct State {
    pub(super) session: Session,
    /// Bytes that the last message that found no room wants, 0 if none has since one was sent.
    pub(super) refused: u32,
    /// Up to which number of confirmations the peer has last been asked to tell.
    pub(super) asked: u64,
    /// Who wants to be told of confirmations.
    pub(super) eventfd: Option<EventFd>,
    /// How many of them it has been told of, whoever has found them.
    told_confirmed: u64,
    /// How it was when programs and the log were last told.
    told: session::Link,
}

/// What became of a call that wants more than the lock allows.
pub(super) struct Outcome<R> {
    /// Its result.
    pub(super) value: R,
    /// The peer is to be rung.
    pub(super) ring: bool,
}

impl<R> Outcome<R> {
    pub(super) fn new(value: R, ring: bool) -> Self {
        Self { value, ring }
    }
}

/// An open channel.
#[pin_data]
pub(crate) struct Channel {
    pub(super) link: Arc<Link>,
    peer: u16,
    /// On which vector the peer is to ring us, if on any.
    vector: Option<u16>,
    pub(super) options: Options,
    #[pin]
    pub(super) state: SpinLockIrq<State>,
    #[pin]
    pub(super) queue: WaitQueue,
    pub(super) reading: Turn,
    pub(super) writing: Turn,
    pub(super) counted: CountedFile,
}

impl Channel {
    /// Starts a session with `peer`.
    pub(super) fn start(
        link: &Arc<Link>,
        peer: u16,
        ring: Ring,
        options: Options,
        counted: CountedFile,
    ) -> Result<Arc<Self>> {
        let own_id = link.layout().id();
        let own = section_of(link, own_id)?;
        let vector = vector_for(link, peer);
        let config = session::Config {
            own,
            peer: section_of(link, peer)?,
            own_id,
            peer_id: peer,
            ring,
            vector,
            entropy: random::u32(),
        };
        let session = {
            let inside = link.enter()?;
            let memory = inside.memory()?;
            Session::start(&*memory, &config).map_err(|_| EOPNOTSUPP)?
        };
        trace::channel_open(link.identity.number, peer.into(), counted.id().0);
        let state = State {
            told: session.link(),
            session,
            refused: 0,
            asked: 0,
            eventfd: None,
            told_confirmed: 0,
        };
        Arc::pin_init(
            try_pin_init!(Self {
                link: link.clone(),
                peer,
                vector,
                options,
                state <- new_spinlock_irq!(state, "ivshmem_channel"),
                queue <- new_wait_queue!("ivshmem_channel"),
                reading: Turn::new(),
                writing: Turn::new(),
                counted,
            }),
            GFP_KERNEL,
        )
    }

    /// The peer at the other end.
    pub(super) fn peer(&self) -> u16 {
        self.peer
    }

    /// On which vector it rings us, if it does.
    pub(super) fn vector(&self) -> Option<u16> {
        self.vector
    }

    /// A step of the protocol.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub(super) fn step<R>(
        &self,
        act: impl FnOnce(&mut State, &SharedMemory) -> Outcome<R>,
    ) -> Result<R> {
        let inside = self.link.enter()?;
        let memory = inside.memory()?;
        Ok(self.step_inside(&inside, &memory, act))
    }

    /// A step of the protocol for somebody who is inside of the device.
    pub(super) fn step_inside<R>(
        &self,
        inside: &Inside<'_>,
        memory: &SharedMemory,
        act: impl FnOnce(&mut State, &SharedMemory) -> Outcome<R>,
    ) -> R {
        let (outcome, vector) = {
            let mut state = self.state.lock();
            let outcome = act(&mut state, memory);
            self.tell(&mut state);
            (outcome, state.session.peer_vector())
        };
        if outcome.ring {
            self.ring(inside.link(), vector);
        }
        outcome.value
    }

    /// Rings the peer, if there is such a vector (rule W4).
    fn ring(&self, link: &Link, vector: Option<u16>) {
        if let Some(vector) = vector.filter(|&vector| vector < link.identity.vectors) {
            link.ring_bound(self.peer, vector);
        }
    }

    /// Something may have happened: the interrupt handler's part. `states`: the state table is to be looked at.
    pub(super) fn notice(&self, link: &Link, memory: &SharedMemory, states: bool) {
        let (ring, vector) = {
            let mut state = self.state.lock();
            if state.session.is_up() {
                // First: one that has gone away may be back soon, and what it had confirmed no more there.
                let _ = state.session.confirmations(memory);
            }
            if states && link.is_absent(memory, self.peer) {
                let _ = state.session.peer_is_absent(memory);
            }
            let ring = state.session.look(memory).unwrap_or(false);
            let ring = state.await_for_eventfd(memory) | ring;
            self.tell(&mut state);
            (ring, state.session.peer_vector())
        };
        if ring {
            self.ring(link, vector);
        }
        self.queue.wake_all();
    }

    /// Looks at the peer.
    pub(super) fn look(&self) {
        // A device that is gone is found by whoever calls next.
        let _ = self
            .step(|state, memory| Outcome::new((), state.session.look(memory).unwrap_or(false)));
    }

    /// Takes notice of how far the peer has come, and of how the link is now.
    fn tell(&self, state: &mut State) {
        let (_, confirmed) = state.session.sent();
        if confirmed > state.told_confirmed {
            state.told_confirmed = confirmed;
            if let Some(eventfd) = &state.eventfd {
                eventfd.signal();
            }
        }
        let now = state.session.link();
        if now == state.told {
            return;
        }
        state.told = now;
        let counters = &self.link.counters;
        match now {
            session::Link::Up => counters.channels_up.increment(),
            session::Link::Ended(Ended::Reset) => counters.channels_reset.increment(),
            session::Link::Ended(Ended::Broken) => counters.channels_broken.increment(),
            _ => {}
        }
        if let (session::Link::Ended(_), Some(eventfd)) = (now, &state.eventfd) {
            eventfd.signal();
        }
        trace::channel_link(
            self.link.identity.number,
            self.peer.into(),
            self.counted.id().0,
            super::calls::link_number(now),
        );
    }

    /// Wakes all that wait.
    pub(super) fn wake(&self) {
        if let Some(eventfd) = &self.state.lock().eventfd {
            eventfd.signal();
        }
        self.queue.wake_all();
    }

    /// Waits until `step` says that there is something.
    ///
    /// # Errors
    ///
    /// `ENODEV`, and those of [`WaitQueue::wait_until`].
    pub(super) fn wait(
        &self,
        deadline: Deadline,
        mut step: impl FnMut(&mut State, &SharedMemory) -> Outcome<bool>,
    ) -> Result {
        let mut looks = 0u32;
        let ready = || {
            looks = looks.saturating_add(1);
            match self.step(&mut step) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            }
        };
        let result = self.queue.wait_until(deadline, ready)?;
        // The first look is before it sleeps.
        if looks > 1 {
            self.link.counters.wakeups.increment();
        }
        result
    }

    /// Closes it in good order.
    pub(super) fn close(&self) {
        let closed = self.step(|state, memory| {
            // Fails only for a section outside of the region, of which there is none.
            let ring = state.session.close(memory).unwrap_or(false);
            Outcome::new((), ring)
        });
        // Without the device there is nobody to tell.
        let _ = closed;
        let eventfd = self.state.lock().eventfd.take();
        drop(eventfd);
        self.link.channels.remove(&self.link, self);
    }
}

/// On which vector `peer` is to ring us: each has its own, as far as there are enough.
fn vector_for(link: &Link, peer: u16) -> Option<u16> {
    match link.granted()?.vectors {
        0 => None,
        1 => Some(0),
        vectors => Some(1 + peer % (vectors - 1)),
    }
}

/// Whose turn it is to move messages in one direction.
pub(super) struct Turn {
    taken: Atomic<bool>,
    /// How many wait for it.
    waiting: Atomic<u32>,
}

impl Turn {
    fn new() -> Self {
        Self {
            taken: Atomic::new(false),
            waiting: Atomic::new(0),
        }
    }

    fn try_take(&self) -> bool {
        !self.taken.xchg(true, Full)
    }

    /// Waits for the turn, until the result is dropped.
    ///
    /// # Errors
    ///
    /// `ENODEV`, and those of [`WaitQueue::wait_until`].
    pub(super) fn take<'a>(
        &'a self,
        channel: &'a Channel,
        patience: Patience,
    ) -> Result<TurnGuard<'a>> {
        if !self.try_take() {
            self.waiting.fetch_add(1, Full);
            let taken = channel.queue.wait_until(patience.deadline(), || {
                if channel.link.is_gone() {
                    return Some(Err(ENODEV));
                }
                self.try_take().then_some(Ok(()))
            });
            self.waiting.fetch_sub(1, Relaxed);
            taken??;
        }
        Ok(TurnGuard {
            turn: self,
            channel,
        })
    }
}

/// Somebody's turn.
pub(super) struct TurnGuard<'a> {
    turn: &'a Turn,
    channel: &'a Channel,
}

impl Drop for TurnGuard<'_> {
    fn drop(&mut self) {
        // Who waits says so, then tries once more; here it is the other way round.
        self.turn.taken.xchg(false, Full);
        if self.turn.waiting.load(Relaxed) > 0 {
            self.channel.queue.wake_all();
        }
    }
}
