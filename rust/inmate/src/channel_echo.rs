// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mode=channel-echo`: one channel with the target, in which each message is
//! sent back; one session after the other.

use core::fmt::Write;

use crate::channel::{claim, smallest_section, End, Session, Step};
use crate::error::Error;
use crate::link::{Event, Events, Link};
use crate::options::Options;

/// Messages that are sent back before the time is looked at again.
const BATCH: u32 = 256;

/// A run of the echo.
pub struct ChannelEcho<'a, L: Link, W: Write> {
    link: &'a mut L,
    console: &'a mut W,
    options: &'a Options,
    session: Session,
    /// On which vector the target rings.
    vector: u32,
    was_up: bool,
    /// Messages sent back, and those that could not be, in this session.
    echoed: u64,
    dropped: u64,
    /// Sessions that were up and are over.
    rounds: u32,
}

impl<'a, L: Link, W: Write> ChannelEcho<'a, L, W> {
    /// Checks the options against what the link has, and starts the first
    /// session: interrupts on, section claimed, state published (S7).
    ///
    /// # Errors
    /// Target out of range or the own ID, or an output section without room for
    /// a channel.
    pub fn new(link: &'a mut L, console: &'a mut W, options: &'a Options) -> Result<Self, Error> {
        let layout = *link.layout();
        let (target, max_peers) = (options.target, layout.max_peers());
        if target >= max_peers || target == layout.id() {
            return Err(Error::Target { target, max_peers });
        }
        let needed = smallest_section(max_peers);
        if needed > layout.output_size() {
            return Err(Error::OutputSection {
                needed: needed as usize,
                size: layout.output_size(),
            });
        }
        // Vector 0 has the state changes.
        let vector = u32::from(link.vectors() > 1);
        claim(link);
        link.enable_interrupts(true);
        link.set_state(layout.id() + 1);
        // Its answer comes behind the write: nobody sees a session of one who has no state (rule S7).
        if !link.present() {
            return Err(Error::DeviceGone);
        }
        let session = Session::start(link, target, vector);
        Ok(Self {
            link,
            console,
            options,
            session,
            vector,
            was_up: false,
            echoed: 0,
            dropped: 0,
            rounds: 0,
        })
    }

    /// Runs until so many sessions are over as `rounds=` says, then takes the
    /// own state back. Gives the number of sessions.
    ///
    /// # Errors
    /// [`Error::Timeout`], or a console that fails: the own state is taken back
    /// then too. [`Error::DeviceGone`]: there is nothing left to touch.
    pub fn run(mut self, events: &mut impl Events) -> Result<u32, Error> {
        let result = self.serve(events);
        if result != Err(Error::DeviceGone) {
            self.link.set_state(0);
            self.link.enable_interrupts(false);
        }
        result?;
        writeln!(self.console, "IVSHMEM: {} rounds done", self.rounds)?;
        Ok(self.rounds)
    }

    fn serve(&mut self, events: &mut impl Events) -> Result<(), Error> {
        loop {
            let mut busy = self.work()?;
            while busy && !self.is_done() {
                busy = self.work()?;
            }
            if self.is_done() {
                return Ok(());
            }
            match events.wait() {
                Event::Timeout => {
                    return Err(Error::Timeout {
                        seconds: self.options.timeout_s,
                    })
                }
                Event::Period if !self.link.present() => return Err(Error::DeviceGone),
                // A tick as well: a doorbell may have been lost (W6).
                _ => {}
            }
        }
    }

    fn is_done(&self) -> bool {
        self.options.rounds != 0 && self.rounds >= self.options.rounds
    }

    /// Does what there is to do, or some of it; `true` if there may be more.
    ///
    /// # Errors
    /// [`Error::Console`].
    pub fn work(&mut self) -> Result<bool, Error> {
        if !self.session.is_up() {
            if let Err(end) = self.session.look(self.link) {
                return self.end(end).map(|()| false);
            }
        }
        if self.session.is_up() && !self.was_up {
            self.was_up = true;
            let target = self.options.target;
            writeln!(self.console, "IVSHMEM: channel to peer {target} is up")?;
        }
        for _ in 0..BATCH {
            match self.session.step(self.link) {
                Ok(Step::Echoed) => self.echoed += 1,
                Ok(Step::Dropped) => self.dropped += 1,
                Ok(Step::Nothing) => return Ok(false),
                Err(end) => return self.end(end).map(|()| false),
            }
        }
        Ok(true)
    }

    /// The session is over; the next begins, and looks whether the peer has
    /// begun one already.
    fn end(&mut self, end: End) -> Result<(), Error> {
        self.session.close(self.link, end);
        if self.was_up {
            self.rounds += 1;
            writeln!(
                self.console,
                "IVSHMEM: session {} with peer {} is over: {}; echoed {}, dropped {}",
                self.rounds,
                self.options.target,
                end.words(),
                self.echoed,
                self.dropped
            )?;
        }
        (self.was_up, self.echoed, self.dropped) = (false, 0, 0);
        self.session = Session::start(self.link, self.options.target, self.vector);
        // What it may find wrong now it finds wrong at the next doorbell.
        let _ = self.session.look(self.link);
        Ok(())
    }
}
