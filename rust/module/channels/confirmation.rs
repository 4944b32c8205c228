// SPDX-License-Identifier: GPL-2.0

//! Knowing what has arrived: waiting for confirmations, being told of them, and giving them.

use super::{
    channel::{
        Channel,
        Outcome,
        State, //
    },
    transfer::failure, //
};
use crate::{
    abi::{
        eventfd::EventFd,
        memory::SharedMemory,
        wait::Deadline, //
    },
    protocol::channel::session, //
};
use kernel::prelude::*;

/// How often at most confirmations are looked at in one step: more of them are told at the next.
const LOOKS_MAX: u32 = 4;

/// How waiting for a confirmation has ended.
pub(super) enum Answer {
    /// It is there.
    Confirmed,
    /// It will never be.
    Never(Error),
}

impl State {
    /// Whether the peer has confirmed up to `number`, or never will; if it is neither, it is asked to say so when it
    /// has (rule W2).
    ///
    /// There is one word to ask with, so the nearest number that somebody wants is what is asked for; whose
    /// eventfd is counted up wants each, unless this is to be the `last` look.
    fn await_confirmation(
        &mut self,
        memory: &SharedMemory,
        number: u64,
        last: bool,
    ) -> Option<Answer> {
        if let session::Link::Ended(why) = self.session.link() {
            return Some(Answer::Never(failure(why)));
        }
        if self.session.sent().1 >= number {
            return Some(Answer::Confirmed);
        }
        let confirmed = self.session.sent().1;
        let nearest = if self.eventfd.is_some() && !last {
            confirmed + 1
        } else if self.asked > confirmed {
            self.asked.min(number)
        } else {
            number
        };
        self.asked = nearest;
        let asked = self.session.await_confirmation(memory, nearest);
        if self.session.sent().1 >= number {
            return Some(Answer::Confirmed);
        }
        match asked {
            Err(why) => Some(Answer::Never(failure(why))),
            // The peer has closed its end, or the nearest is there and another one is wanted.
            Ok(true) => match self.session.peer_has_finished(memory) {
                Ok(true) => Some(Answer::Never(EPIPE)),
                Ok(false) => {
                    self.asked = 0;
                    None
                }
                Err(why) => Some(Answer::Never(failure(why))),
            },
            Ok(false) => None,
        }
    }

    /// Likewise, until there is nothing left to ask.
    pub(super) fn confirmation(&mut self, memory: &SharedMemory, number: u64) -> Option<Answer> {
        for look in 1..=LOOKS_MAX {
            if let Some(answer) = self.await_confirmation(memory, number, look == LOOKS_MAX) {
                return Some(answer);
            }
            if self.asked != 0 {
                return None;
            }
        }
        None
    }

    /// If there is an eventfd, looks for what it is told of: that the peer has closed its end, and new confirmations,
    /// of which the next is asked for.
    pub(super) fn serve_eventfd(&mut self, memory: &SharedMemory) {
        let Some(eventfd) = self.eventfd.as_ref().filter(|_| self.session.is_up()) else {
            return;
        };
        // First: what is confirmed once it has finished stays. That the session ends is told of elsewhere.
        let Ok(finished) = self.session.peer_has_finished(memory) else {
            return;
        };
        if finished {
            let _ = self.session.confirmations(memory);
            if !core::mem::replace(&mut self.told_finished, true) {
                eventfd.signal();
            }
            return;
        }
        // The two last looks: if the peer confirms as fast as we look, its last one is enough; and one for which
        // there is no message yet cannot be there.
        for look in 0..LOOKS_MAX + 2 {
            let (sent, confirmed) = self.session.sent();
            let next = if look < LOOKS_MAX {
                confirmed + 1
            } else {
                sent.max(confirmed + 1)
            };
            self.asked = next;
            let there = self.session.await_confirmation(memory, next);
            if !there.unwrap_or(false) || self.session.sent().1 < next {
                break;
            }
        }
    }
}

impl Channel {
    /// How many messages have been sent and how many of them confirmed, as far as is known.
    pub(super) fn sent(&self) -> (u64, u64) {
        self.state.lock().session.sent()
    }

    /// Waits until the peer has confirmed up to `number`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if no such message has been sent; `EPIPE`, `ECONNRESET`, `EPROTO`, `ENODEV` if it will never be
    /// confirmed; those of a wait.
    pub(super) fn wait_confirmed(&self, number: u64, deadline: Deadline) -> Result {
        if number > self.sent().0 {
            return Err(EINVAL);
        }
        let mut answer = Ok(());
        self.wait(deadline, |state, memory| {
            let found = state.confirmation(memory, number);
            if let Some(Answer::Never(error)) = found {
                answer = Err(error);
            }
            Outcome::new(found.is_some(), false)
        })?;
        answer
    }

    /// Tells the peer that the program has dealt with all messages up to `number`.
    ///
    /// # Errors
    ///
    /// `EINVAL` if messages are confirmed by reading them, or there is no such one; `ECONNRESET`, `EPROTO`,
    /// `ENODEV`.
    pub(super) fn acknowledge(&self, number: u64) -> Result {
        if !self.options.explicit_ack {
            return Err(EINVAL);
        }
        self.step(|state, memory| {
            // Behind a look, so that what the peer has lost already is not acknowledged.
            let ring = state.look(memory);
            if number > state.session.received().0 {
                return Outcome::new(Err(EINVAL), ring);
            }
            match state.session.confirm(memory, number) {
                Ok(more) => Outcome::new(Ok(()), ring | more),
                Err(why) => Outcome::new(Err(failure(why)), ring),
            }
        })?
    }

    /// Has `eventfd` counted up at confirmations, and at an end, from now on, instead of another one. An end that has
    /// been there before counts.
    ///
    /// # Errors
    ///
    /// `ENODEV`.
    pub(super) fn set_eventfd(&self, eventfd: Option<EventFd>) -> Result {
        let mut eventfd = eventfd;
        self.step(|state, memory| {
            core::mem::swap(&mut state.eventfd, &mut eventfd);
            state.told_finished = false;
            let ended = matches!(state.session.link(), session::Link::Ended(_));
            if let (true, Some(eventfd)) = (ended, &state.eventfd) {
                eventfd.signal();
            }
            state.serve_eventfd(memory);
            Outcome::new((), false)
        })
        // The one before is let go here, without the lock.
    }
}
