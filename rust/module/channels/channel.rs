// SPDX-License-Identifier: GPL-2.0

//! One channel: its session, who may use it when, and waiting for it.
//!
//! The session is behind a spin lock, which is held for the few accesses of one step of the protocol. While bytes
//! of a message are copied nobody holds it: a [`Turn`] for each direction sees to it that there is one reader
//! and one writer at a time, which others can wait for and be interrupted.

use super::{
    section_of,
    transfer::failure, //
};
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
    protocol::{
        channel::{
            layout::{
                vector_for,
                Ring, //
            },
            session::{
                self,
                Ended,
                Session, //
            },
        },
        v2::{
            memory::{
                LoadOrder,
                Memory, //
            },
            state_table::{
                entry_offset,
                ABSENT, //
            },
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
    /// Where the peer's entry in the state table is.
    entry: usize,
    /// Bytes that the last message that found no room wants, 0 if none has since one was sent.
    pub(super) refused: u32,
    /// Up to which number of confirmations the peer has last been asked to tell.
    pub(super) asked: u64,
    /// Who wants to be told of confirmations.
    pub(super) eventfd: Option<EventFd>,
    /// It has been told that the peer has closed its end.
    pub(super) told_finished: bool,
    /// How many of them it has been told of, whoever has found them.
    told_confirmed: u64,
    /// How it was when programs and the log were last told.
    told: session::Link,
}

impl State {
    /// Looks how the peer is (rules S3 to S5). Whether it is to be rung; whether the session has ended is in the
    /// session.
    pub(super) fn look(&mut self, memory: &SharedMemory) -> bool {
        let was_up = self.session.is_up();
        let ring = self.session.look(memory).unwrap_or(false);
        if !was_up {
            // It may have gone since it saw us, and what told of that found nobody up.
            self.look_at_state(memory);
        }
        ring
    }

    /// Looks whether the peer is still there (rule S7). Behind a look, so that one that has just come up is seen, too.
    fn look_at_state(&mut self, memory: &SharedMemory) {
        if self.session.is_up() && memory.load(self.entry, LoadOrder::Acquire) == Ok(ABSENT) {
            let _ = self.session.peer_is_absent(memory);
        }
    }
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
        let vectors = link.granted().map_or(0, |granted| granted.vectors);
        let vector = vector_for(own_id, peer, vectors);
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
            entry: entry_offset(peer),
            refused: 0,
            asked: 0,
            eventfd: None,
            told_finished: false,
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
        let (outcome, vector, changed) = {
            let mut state = self.state.lock();
            let outcome = act(&mut state, memory);
            let changed = self.tell(&mut state);
            (outcome, state.session.peer_vector(), changed)
        };
        if outcome.ring {
            self.ring(inside.link(), vector);
        }
        if changed {
            // Nobody may ring for what this call has found.
            self.queue.wake_all();
        }
        outcome.value
    }

    /// Rings the peer, if there is such a vector (rule W4).
    fn ring(&self, link: &Link, vector: Option<u16>) {
        if let Some(vector) = vector.filter(|&vector| vector < link.identity.vectors) {
            link.ring_bound(self.peer, vector);
        }
    }

    /// Our section is no channel's any more: rings the peer (rule E3).
    pub(super) fn announce_end(&self, link: &Link) {
        let vector = self.state.lock().session.peer_vector();
        self.ring(link, vector);
    }

    /// Something may have happened: the interrupt handler's part. `states`: the state table is to be looked at.
    pub(super) fn notice(&self, link: &Link, memory: &SharedMemory, states: bool) {
        let (ring, vector) = {
            let mut state = self.state.lock();
            if state.session.is_up() {
                // First: one that has gone away may be back soon, and what it had confirmed no more there.
                let _ = state.session.confirmations(memory);
            }
            let ring = state.look(memory);
            if states {
                state.look_at_state(memory);
            }
            state.serve_eventfd(memory);
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
        let _ = self.step(|state, memory| Outcome::new((), state.look(memory)));
    }

    /// Takes notice of how far the peer has come, and of how the link is now. Whether that has changed.
    fn tell(&self, state: &mut State) -> bool {
        let (_, confirmed) = state.session.sent();
        if confirmed > state.told_confirmed {
            state.told_confirmed = confirmed;
            if let Some(eventfd) = &state.eventfd {
                eventfd.signal();
            }
        }
        let now = state.session.link();
        if now == state.told {
            return false;
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
        true
    }

    /// Whether there is any use in going on, as of the last look.
    ///
    /// # Errors
    ///
    /// `ENODEV` if the device is gone; `ECONNRESET`, `EPROTO` if the session has ended.
    pub(super) fn unless_ended(&self) -> Result {
        if self.link.is_gone() {
            return Err(ENODEV);
        }
        match self.state.lock().session.link() {
            session::Link::Ended(why) => Err(failure(why)),
            _ => Ok(()),
        }
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
        step: impl FnMut(&mut State, &SharedMemory) -> Outcome<bool>,
    ) -> Result {
        self.count_wakeups(step, |ready| self.queue.wait_until(deadline, ready))
    }

    /// The same, without limit, for one who has just looked in vain.
    ///
    /// # Errors
    ///
    /// `ENODEV`, and those of [`WaitQueue::queue_until`].
    pub(super) fn wait_having_looked(
        &self,
        step: impl FnMut(&mut State, &SharedMemory) -> Outcome<bool>,
    ) -> Result {
        self.count_wakeups(step, |ready| self.queue.queue_until(Deadline::Never, ready))
    }

    /// Waits by `wait`, and counts if that has slept.
    fn count_wakeups(
        &self,
        mut step: impl FnMut(&mut State, &SharedMemory) -> Outcome<bool>,
        wait: impl FnOnce(&mut dyn FnMut() -> Option<Result>) -> Result<Result>,
    ) -> Result {
        let mut looks = 0u32;
        let result = wait(&mut || {
            looks = looks.saturating_add(1);
            match self.step(&mut step) {
                Ok(true) => Some(Ok(())),
                Ok(false) => None,
                Err(error) => Some(Err(error)),
            }
        })?;
        // The first look is before it sleeps.
        if looks > 1 {
            self.link.counters.wakeups.increment();
        }
        result
    }

    /// Whether its session has ended, as of now. If so, that is for good.
    pub(super) fn has_ended(&self) -> bool {
        self.look();
        matches!(self.state.lock().session.link(), session::Link::Ended(_))
    }

    /// Gives the session up: in good order, or, if it has ended, for another one (rules E1, E4). Again has no effect.
    pub(super) fn give_up(&self) {
        let given_up = self.step(|state, memory| {
            // Fails only for a section outside of the region, of which there is none.
            let ring = state.session.close(memory).unwrap_or(false);
            Outcome::new((), ring)
        });
        // Without the device there is nobody to tell.
        let _ = given_up;
    }

    /// The descriptor has been closed.
    pub(super) fn close(&self) {
        self.give_up();
        let eventfd = self.state.lock().eventfd.take();
        drop(eventfd);
        self.link.channels.remove(&self.link, self);
    }
}

/// Whose turn it is to move messages in one direction.
pub(super) struct Turn {
    taken: Atomic<bool>,
    /// Somebody has not got it, who waits for it, or polls.
    wanted: Atomic<bool>,
}

impl Turn {
    fn new() -> Self {
        Self {
            taken: Atomic::new(false),
            wanted: Atomic::new(false),
        }
    }

    /// Takes the turn; if it is somebody's, all are woken when it is given back.
    fn try_take(&self) -> bool {
        if !self.taken.xchg(true, Full) {
            return true;
        }
        // Says so, then tries once more: who gives it back does it the other way round, so one sees the other.
        self.wanted.xchg(true, Full);
        !self.taken.xchg(true, Full)
    }

    /// Waits for the turn, until the result is dropped.
    ///
    /// # Errors
    ///
    /// Those of [`Channel::unless_ended`] and of [`WaitQueue::wait_until`].
    pub(super) fn take<'a>(
        &'a self,
        channel: &'a Channel,
        patience: Patience,
    ) -> Result<TurnGuard<'a>> {
        channel.queue.wait_until(patience.deadline(), || {
            if self.try_take() {
                return Some(Ok(()));
            }
            // Whoever has the turn may have it for long.
            channel.unless_ended().err().map(Err)
        })??;
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
        self.turn.taken.xchg(false, Full);
        if self.turn.wanted.load(Relaxed) {
            // Before they are woken: who does not get it then says so again.
            self.turn.wanted.xchg(false, Full);
            self.channel.queue.wake_all();
        }
    }
}
