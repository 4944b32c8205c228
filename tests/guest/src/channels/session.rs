// SPDX-License-Identifier: MIT OR Apache-2.0
//! One session among many: messages in both directions until it ends, with everything in the log that
//! is to be compared with the other side's afterwards.

use super::log::Log;
use super::message::{make, mix, Checker};
use super::transport::{connect, Confirm, Transport};
use super::Failure;
use ivshmem::Error;
use rustix::time::{clock_gettime, ClockId};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Most messages that are acknowledged together.
const BATCH_MAX: u64 = 16;
/// How many messages are sent between two looks at the confirmations.
const LOOK_EVERY: u64 = 8;

/// Why a session has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// The other end has closed it.
    Closed,
    /// The other end has restarted, or is gone.
    Reset,
    /// The device is gone.
    Gone,
    /// The other end broke the protocol.
    Broken,
    /// We were told to finish.
    Finished,
}

impl Why {
    fn of(error: &Error) -> Option<Self> {
        Some(match error {
            Error::Closed => Self::Closed,
            Error::Reset { .. } => Self::Reset,
            Error::Broken { .. } => Self::Broken,
            Error::Gone => Self::Gone,
            _ => return None,
        })
    }

    fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Reset => "reset",
            Self::Gone => "gone",
            Self::Broken => "broken",
            Self::Finished => "finished",
        }
    }
}

/// What a session needs besides itself.
pub(crate) struct Scene<'a> {
    /// Kind of transport.
    pub(crate) transport: &'a str,
    /// The device file.
    pub(crate) node: &'a Path,
    /// Where everything is kept.
    pub(crate) log: &'a Log,
    /// Set when the session is to be finished in good order.
    pub(crate) finish: &'a AtomicBool,
}

/// Connects, and exchanges messages until the session ends; why it did. Tells `established` once it is
/// sure that the other side has this session too.
pub(crate) fn run(scene: &Scene<'_>, established: impl Fn() + Sync) -> Result<Why, Failure> {
    let transport = connect(scene.transport, scene.node, Confirm::WhenTold)?;
    if let Err(error) = transport.wait_up() {
        // It ended before it was one.
        return Why::of(&error).ok_or_else(|| error.to_string().into());
    }
    let session = Session {
        transport: transport.as_ref(),
        id: identity(),
        scene,
    };
    scene.log.line(&format!("session {:x}", session.id))?;
    let (sent, received) = thread::scope(|scope| {
        let receiver = scope.spawn(|| session.receive());
        let sent = session.send(&established);
        if let Ok(Why::Finished) = sent {
            // The process ends, whatever the receiver is doing, who may add to the log to the last.
            let told = session.tell_confirmed();
            std::process::exit(i32::from(told.is_err()));
        }
        (sent, receiver.join())
    });
    let received = received.map_err(|_| "the receiver panicked")??;
    // Who sends may not have been told more than that nobody will read.
    let why = match sent? {
        Why::Closed => received,
        why => why,
    };
    session.tell_end(why)?;
    Ok(why)
}

/// A number that no other session has: the time, as the clock goes on while a guest restarts.
fn identity() -> u64 {
    let now = clock_gettime(ClockId::Realtime);
    now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
}

struct Session<'a> {
    transport: &'a dyn Transport,
    id: u64,
    scene: &'a Scene<'a>,
}

impl Session<'_> {
    fn tell_end(&self, why: Why) -> Result<(), Failure> {
        self.tell_confirmed()?;
        let line = format!("ended {:x} {}", self.id, why.word());
        self.scene.log.line(&line)
    }

    fn tell_confirmed(&self) -> Result<u64, Failure> {
        let confirmed = self.transport.progress()?.confirmed;
        let line = format!("confirmed {:x} {confirmed}", self.id);
        self.scene.log.line(&line)?;
        Ok(confirmed)
    }

    /// Sends until the session ends, or it is to be finished.
    fn send(&self, established: &(impl Fn() + Sync)) -> Result<Why, Failure> {
        let largest = self.transport.largest();
        let mut buffer = vec![0; largest];
        let mut is_established = false;
        let mut last = None;
        for number in 1.. {
            let length = make(self.id, number, largest, &mut buffer);
            let mut done = self.transport.send(&buffer[..length]);
            // Nothing waits for the rest of a batch but us: that is sent, and nobody wants it confirmed.
            let left = last.map(|last| last - number);
            if left == Some(0) {
                done = done.and_then(|()| self.transport.wait_confirmed(number - BATCH_MAX));
            }
            match done {
                Ok(()) if left == Some(0) => return Ok(Why::Finished),
                Ok(()) => {}
                Err(error) => return Why::of(&error).ok_or_else(|| error.to_string().into()),
            }
            if left.is_none() && self.scene.finish.load(Ordering::Relaxed) {
                last = Some(number + BATCH_MAX);
            }
            if !is_established || number % LOOK_EVERY == 0 {
                let confirmed = self.tell_confirmed()?;
                if confirmed > 0 && !is_established {
                    is_established = true;
                    established();
                }
            }
        }
        Err("no numbers are left".into())
    }

    /// Receives until the session ends. What is acknowledged is in the log before.
    fn receive(&self) -> Result<Why, Failure> {
        let largest = self.transport.largest();
        let mut buffer = vec![0; largest];
        let mut checker = Checker::new(None, largest);
        let mut acknowledged = 0;
        loop {
            let length = match self.transport.receive(&mut buffer) {
                Ok(Some(length)) => length,
                Ok(None) => return Ok(Why::Closed),
                Err(error) => return Why::of(&error).ok_or_else(|| error.to_string().into()),
            };
            if let Err(what) = checker.check(&buffer[..length]) {
                self.scene.log.line(&format!("wrong {what}"))?;
                return Err(what.into());
            }
            let (Some(peer), number) = (checker.session(), checker.count()) else {
                continue;
            };
            if number - acknowledged >= 1 + mix(self.id ^ number) % BATCH_MAX {
                let first = acknowledged + 1;
                let line = format!("got {:x} {peer:x} {first} {number}", self.id);
                self.scene.log.line(&line)?;
                acknowledged = number;
                match self.transport.acknowledge(number) {
                    Ok(()) => {}
                    // The next call says what there is to say.
                    Err(error) if Why::of(&error).is_some() => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
    }
}
