// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults at a moment of the user's choice: commands, and the socket on which they come.
//!
//! A client connects to the socket and writes lines, each a command of [`Command`]; it gets one line
//! for each, `ok` or `ok TEXT`, or `error: SENTENCE`. Several clients may be connected. The same
//! commands can be given on the command line, to be carried out at the start.

use crate::command::Command;
use crate::inmate;
use crate::inmate::InmateSpec;
use crate::inmate::Order;
use crate::link::SharedLink;
use crate::turmoil;
use crate::turmoil::Turmoil;
use std::collections::BTreeMap;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::os::unix::net::UnixListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::thread;
use std::time::Duration;
use thiserror::Error;

/// Longest line of a client, in bytes: much longer than any command.
const LINE_MAX: u64 = 4096;

/// How long to wait after the system has refused a connection.
const ACCEPT_RETRY: Duration = Duration::from_millis(200);

/// Why a command has no effect.
#[derive(Debug, Error)]
pub enum ControlError {
    /// It is no command.
    #[error(transparent)]
    Parse(#[from] crate::command::CommandError),
    /// The link has no such peer.
    #[error("there is no peer {peer}: the link has peers 0 to {last}")]
    NoPeer {
        /// What was asked for.
        peer: u16,
        /// The last that there is.
        last: u16,
    },
    /// The link has no such vector.
    #[error("there is no vector {vector}: the link has vectors 0 to {last}")]
    NoVector {
        /// What was asked for.
        vector: u16,
        /// The last that there is.
        last: u16,
    },
    /// The device of a soft inmate cannot be made wrong.
    #[error("peer {0} is a soft inmate: use a peer that has a socket")]
    IsInmate(u16),
    /// A soft inmate cannot have a device that was made wrong.
    #[error(
        "the device of peer {0} was made wrong, which a soft inmate cannot be: `stop` it before"
    )]
    IsWrong(u16),
    /// There is no memory that a peer could overwrite.
    #[error(
        "the link has neither a read/write section nor output sections: nothing to scribble on"
    )]
    NoSections,
    /// Somebody is there already.
    #[error("peer {0} is there already: use one that is not, or let it `die` before")]
    IsThere(u16),
    /// There is no soft inmate with channels.
    #[error("peer {0} is no soft inmate with channels: use one that is")]
    NoChannels(u16),
    /// The link has no place for a soft inmate.
    #[error(transparent)]
    Unfit(#[from] crate::inmate::Unfit),
    /// The device is not gone.
    #[error("the device of peer {0} is not gone: nothing to bring back")]
    NotGone(u16),
    /// The same is going on already.
    #[error("{0} is going on already: `stop` it before")]
    GoingOn(Turmoil),
    /// The system has no thread for it.
    #[error("no thread for it ({0}): `stop` something before")]
    NoThread(io::Error),
}

impl ControlError {
    fn not_started(error: inmate::NotStarted) -> Self {
        match error {
            inmate::NotStarted::Taken(peer) => Self::IsThere(peer),
            inmate::NotStarted::NoThread(error) => Self::NoThread(error),
        }
    }
}

/// What commands work on.
#[derive(Debug)]
struct Scene {
    link: SharedLink,
    inmates: BTreeMap<u16, (InmateSpec, inmate::Running)>,
    turmoils: Vec<turmoil::Running>,
}

/// Carries out commands, one at a time.
#[derive(Clone, Debug)]
pub struct Control(Arc<Mutex<Scene>>);

impl Control {
    /// Nothing goes wrong yet.
    #[must_use]
    pub fn new(link: SharedLink) -> Self {
        Self(Arc::new(Mutex::new(Scene {
            link,
            inmates: BTreeMap::new(),
            turmoils: Vec::new(),
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Scene) -> T) -> T {
        // A command that panicked has left a scene from which others can go on.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Starts a soft inmate at a peer of the link where nobody is.
    ///
    /// # Errors
    ///
    /// [`ControlError`], which says what to do; then nothing was changed.
    pub fn start_inmate(&self, spec: InmateSpec) -> Result<(), ControlError> {
        self.with(|scene| scene.start_inmate(spec))
    }

    /// Carries out one command and gives its answer, without line ends; often there is none.
    ///
    /// # Errors
    ///
    /// [`ControlError`], which says what to do; then nothing was changed.
    pub fn run(&self, line: &str) -> Result<String, ControlError> {
        let command = line.parse::<Command>()?;
        self.with(|scene| scene.run(command))
    }

    /// Ends all inmates and all that goes on.
    pub fn stop(&self) {
        self.with(|scene| {
            scene.turmoils.clear();
            scene.inmates.clear();
        });
    }

    /// Serves clients on a thread of its own, as long as the process lives or until the listener is
    /// shut down.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot have a thread.
    pub fn serve(&self, listener: Arc<UnixListener>) -> io::Result<()> {
        let control = self.clone();
        spawn(move || loop {
            match listener.accept() {
                Ok((stream, _)) => {
                    let control = control.clone();
                    if let Err(error) = spawn(move || control.talk(&stream)) {
                        tracing::warn!(%error, "no thread for a control client");
                    }
                }
                // So ends a listener that was shut down.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => break,
                Err(error) => {
                    tracing::warn!(%error, "no control connection accepted");
                    thread::sleep(ACCEPT_RETRY);
                }
            }
        })
    }

    /// Answers the lines of one client until it leaves.
    fn talk(&self, stream: &UnixStream) {
        let mut lines = BufReader::new(stream);
        loop {
            let mut bytes = Vec::new();
            match (&mut lines).take(LINE_MAX).read_until(b'\n', &mut bytes) {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
            let line = String::from_utf8_lossy(&bytes);
            let answer = match self.run(line.trim()) {
                Ok(text) if text.is_empty() => "ok\n".into(),
                Ok(text) => format!("ok {text}\n"),
                Err(error) => format!("error: {error}\n"),
            };
            tracing::debug!(line = line.trim(), answer = answer.trim(), "control");
            let mut stream = stream;
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let builder = thread::Builder::new().name("control".into());
    builder.spawn(work).map(drop)
}

impl Scene {
    fn run(&mut self, command: Command) -> Result<String, ControlError> {
        self.check(&command)?;
        match command {
            Command::Help => return Ok(Command::help()),
            Command::Status => return Ok(self.status()),
            Command::Statistics { peer } => return Ok(self.statistics(peer)),
            Command::Lose { peer, count } => self.link.lock().lose_interrupts(peer, count),
            Command::LoseEvery { peer, n } => self.link.lock().lose_every(peer, n),
            Command::Slow { peer, delay } => self.link.lock().slow_down(peer, delay),
            Command::Vanish { peer, memory } => self.link.lock().vanish(peer, memory),
            Command::Return { peer } => self.come_back(peer),
            Command::Die { peer } => self.die(peer),
            Command::Inmate(spec) => self.start_inmate(spec)?,
            Command::Restart { peer, stores } => self.tell(peer, Order::Restart(stores)),
            Command::Reconnect { peer } => self.tell(peer, Order::Reconnect),
            Command::Start(turmoil) => self.start(turmoil)?,
            Command::Stop => {
                self.turmoils.clear();
                self.link.lock().calm_down();
            }
        }
        Ok(String::new())
    }

    /// Whether the peers and vectors of a command exist and are what it needs.
    fn check(&self, command: &Command) -> Result<(), ControlError> {
        let spec = self.link.lock().spec().clone();
        let last = spec.peers().end - 1;
        for peer in command.peers() {
            if peer > last {
                return Err(ControlError::NoPeer { peer, last });
            }
        }
        match *command {
            Command::Start(Turmoil::Storm { vector, .. }) => {
                let last = spec.doorbell_vectors() - 1;
                if vector > last {
                    return Err(ControlError::NoVector { vector, last });
                }
            }
            Command::Start(Turmoil::Hostile { peer, .. })
            | Command::Vanish { peer, .. }
            | Command::Slow { peer, .. }
                if self.inmates.contains_key(&peer) =>
            {
                return Err(ControlError::IsInmate(peer));
            }
            Command::Start(Turmoil::Scribble { peer, .. })
                if self.link.lock().sections_of(peer).is_empty() =>
            {
                return Err(ControlError::NoSections);
            }
            Command::Restart { peer, .. } | Command::Reconnect { peer } => {
                let inmate = self.inmates.get(&peer);
                if !inmate.is_some_and(|(it, _)| it.behaviour.has_channels()) {
                    return Err(ControlError::NoChannels(peer));
                }
            }
            Command::Return { peer } if !self.link.lock().is_gone(peer) => {
                return Err(ControlError::NotGone(peer));
            }
            _ => {}
        }
        Ok(())
    }

    fn start_inmate(&mut self, spec: InmateSpec) -> Result<(), ControlError> {
        let peer = spec.peer;
        {
            let link = self.link.lock();
            spec.check(link.spec())?;
            if link.is_wrong_for_clients(peer) {
                return Err(ControlError::IsWrong(peer));
            }
        }
        let running =
            inmate::Running::start(&self.link, spec).map_err(ControlError::not_started)?;
        self.inmates.insert(peer, (spec, running));
        Ok(())
    }

    fn tell(&self, peer: u16, order: Order) {
        if let Some((_, inmate)) = self.inmates.get(&peer) {
            inmate.tell(order);
        }
    }

    fn die(&mut self, peer: u16) {
        // A soft inmate really ends.
        if self.inmates.remove(&peer).is_none() {
            self.link.lock().die(peer);
        }
    }

    fn come_back(&mut self, peer: u16) {
        let mut link = self.link.lock();
        link.come_back(peer);
        if self.turmoils.is_empty() {
            link.put_memory_right();
        }
    }

    fn start(&mut self, turmoil: Turmoil) -> Result<(), ControlError> {
        if self.turmoils.iter().any(|it| it.turmoil == turmoil) {
            return Err(ControlError::GoingOn(turmoil));
        }
        let running =
            turmoil::Running::start(&self.link, turmoil).map_err(ControlError::NoThread)?;
        self.turmoils.push(running);
        if let Turmoil::Hostile { peer, seed } = turmoil {
            self.link.lock().become_hostile(peer, seed);
        }
        Ok(())
    }

    fn status(&self) -> String {
        let mut words = self.link.lock().troubles();
        words.extend(self.turmoils.iter().map(|it| it.turmoil.to_string()));
        words.extend(self.inmates.keys().map(|peer| format!("inmate@{peer}")));
        words.join(" ")
    }

    fn statistics(&self, peer: Option<u16>) -> String {
        let snapshot = self.link.lock().snapshot(false);
        let json = match peer {
            None => serde_json::to_string(&snapshot),
            Some(peer) => serde_json::to_string(&snapshot.peers[usize::from(peer)]),
        };
        // Numbers, words and lists of them: nothing that JSON could not say.
        json.unwrap_or_default()
    }
}
