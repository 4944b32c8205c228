// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which soft inmate: `PEER:BEHAVIOUR`, as on the command line and on the control socket.

use super::attacker::Attacker;
use super::channels::Channels;
use super::raw::Demo;
use super::raw::Echo;
use super::Inmate;
use crate::fault::Fault;
use crate::spec::LinkSpec;
use ivshmem_messages::HEADER;
use ivshmem_protocol::channel::layout::Section;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Most milliseconds between two looks of one who polls.
const POLL_MAX: u64 = 60_000;

/// Most messages that a sink leaves unconfirmed, and most messages in a second.
const MANY: u64 = 1_000_000;

/// What a soft inmate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// The classic demo: on each interrupt counts in its R/W word and greets in its output section;
    /// rings peer 0 once a second, on vector ID+1 if there is one, else 0
    Demo,
    /// As `demo`, but never rings
    Quiet,
    /// Rung on a vector, copies the first 64 bytes of peer 0's output section to its own and rings
    /// all others that have a state on the same vector
    Echo,
    /// Has channels.
    Channel(Role, Settings),
}

/// What a soft inmate does with its channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Sends back what it receives.
    Echo,
    /// Sends numbered messages, and checks what it receives.
    Source,
    /// Checks what it receives, and sends nothing.
    Sink,
    /// Brings sessions up and then breaks the rules at random.
    Attacker,
}

/// How a soft inmate does that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// With whom it has channels; [`None`]: with all others.
    pub to: Option<u16>,
    /// Of the random numbers.
    pub seed: u64,
    /// How many messages a session has; 0 for no end.
    pub count: u32,
    /// Messages per second, or steps of an attacker; 0 for as many as possible.
    pub rate: u32,
    /// The largest message, in bytes; 0 for as large as the ring allows.
    pub max: u32,
    /// How many messages are received before they are confirmed.
    pub acknowledge: u32,
    /// A source closes a session not before all messages have come back.
    pub echoed: bool,
    /// It looks so often instead of being rung; zero: it is rung.
    pub poll: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            to: None,
            seed: 1,
            count: 0,
            rate: 0,
            max: 0,
            acknowledge: 1,
            echoed: false,
            poll: Duration::ZERO,
        }
    }
}

/// A soft inmate as asked for on the command line: `PEER` or `PEER:BEHAVIOUR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InmateSpec {
    /// Peer ID.
    pub peer: u16,
    /// What it does.
    pub behaviour: Behaviour,
}

/// Why a text describes no soft inmate.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InmateParseError {
    /// It does not begin with a number.
    #[error("{0:?} is not a peer ID: write PEER or PEER:BEHAVIOUR")]
    Peer(String),
    /// There is no such behaviour.
    #[error(
        "there is no behaviour {0:?}: use demo, quiet or echo, or channel-echo, channel-source, channel-sink or \
         channel-attacker"
    )]
    Behaviour(String),
    /// The behaviour has no such setting.
    #[error("{behaviour} has no setting {name:?}: use {known}")]
    Setting {
        /// The behaviour.
        behaviour: String,
        /// The setting.
        name: String,
        /// What there is.
        known: String,
    },
    /// A setting has a value that it cannot have.
    #[error("{value:?} is not a value of {name}: write a number from {min} to {max}")]
    Value {
        /// The setting.
        name: &'static str,
        /// Its value.
        value: String,
        /// The smallest.
        min: u64,
        /// The largest.
        max: u64,
    },
}

/// Why a link has no place for a soft inmate.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum Unfit {
    /// Its device has a fault. It reads neither registers nor the capability.
    #[error("peer {peer} has the fault {fault}, which a soft inmate does not see: use another peer for one of them")]
    Faulty {
        /// Its peer ID.
        peer: u16,
        /// The first fault of its device.
        fault: Fault,
    },
    /// It is to have a channel with somebody who cannot be.
    #[error("inmate {peer} has no channel to peer {to}: use another peer of the link")]
    To {
        /// Its peer ID.
        peer: u16,
        /// The other end.
        to: u16,
    },
    /// There is no room for rings.
    #[error("output sections of {0:#x} bytes have no room for channels of so many peers: use larger ones")]
    Room(u64),
}

impl InmateSpec {
    /// Whether `link` has what it needs. Whether it has the peer itself is for the caller to say.
    ///
    /// # Errors
    ///
    /// [`Unfit`], which says what to do.
    pub fn check(&self, link: &LinkSpec) -> Result<(), Unfit> {
        let peer = self.peer;
        if let Some(fault) = link.faults(peer).next() {
            return Err(Unfit::Faulty { peer, fault });
        }
        let Behaviour::Channel(_, settings) = self.behaviour else {
            return Ok(());
        };
        let options = link.options();
        if let Some(to) = settings
            .to
            .filter(|&to| to == peer || to >= options.max_peers)
        {
            return Err(Unfit::To { peer, to });
        }
        let section = Section {
            offset: 0,
            size: u32::try_from(options.output_size).unwrap_or(1 << 31),
            max_peers: options.max_peers,
        };
        let ring = section.share(0, 1);
        match ring.filter(|ring| ring.largest_message() as usize >= HEADER) {
            Some(_) => Ok(()),
            None => Err(Unfit::Room(options.output_size)),
        }
    }
}

impl FromStr for InmateSpec {
    type Err = InmateParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (peer, behaviour) = text.split_once(':').unwrap_or((text, "demo"));
        Ok(Self {
            peer: peer
                .parse()
                .map_err(|_| InmateParseError::Peer(peer.into()))?,
            behaviour: behaviour.parse()?,
        })
    }
}

impl FromStr for Behaviour {
    type Err = InmateParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, settings) = text.split_once(',').unwrap_or((text, ""));
        let (role, known): (_, &[&str]) = match name {
            "channel-echo" => (Role::Echo, &["to", "poll"]),
            "channel-source" => (
                Role::Source,
                &["to", "seed", "count", "rate", "max", "echoed", "poll"],
            ),
            "channel-sink" => (Role::Sink, &["to", "acknowledge", "poll"]),
            "channel-attacker" => (Role::Attacker, &["to", "seed", "rate"]),
            "demo" if settings.is_empty() => return Ok(Self::Demo),
            "quiet" if settings.is_empty() => return Ok(Self::Quiet),
            "echo" if settings.is_empty() => return Ok(Self::Echo),
            _ => return Err(InmateParseError::Behaviour(text.into())),
        };
        let mut all = Settings::default();
        for setting in settings.split(',').filter(|setting| !setting.is_empty()) {
            let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
            if !known.contains(&key) || (key == "echoed") == setting.contains('=') {
                let known = known.iter().map(|&name| match name {
                    "echoed" => name.to_owned(),
                    name => format!("{name}=N"),
                });
                return Err(InmateParseError::Setting {
                    behaviour: name.into(),
                    name: setting.into(),
                    known: known.collect::<Vec<_>>().join(", "),
                });
            }
            all.set(key, value)?;
        }
        Ok(Self::Channel(role, all))
    }
}

impl Settings {
    fn set(&mut self, name: &str, value: &str) -> Result<(), InmateParseError> {
        match name {
            "to" => self.to = Some(number("to", value, 0, u16::MAX.into())? as u16),
            "seed" => self.seed = number("seed", value, 0, u64::MAX)?,
            "count" => self.count = number("count", value, 0, u32::MAX.into())? as u32,
            "rate" => self.rate = number("rate", value, 0, MANY)? as u32,
            "max" => self.max = number("max", value, HEADER as u64, 1 << 30)? as u32,
            "acknowledge" => self.acknowledge = number("acknowledge", value, 1, MANY)? as u32,
            "poll" => self.poll = Duration::from_millis(number("poll", value, 1, POLL_MAX)?),
            _ => self.echoed = true,
        }
        Ok(())
    }
}

fn number(name: &'static str, value: &str, min: u64, max: u64) -> Result<u64, InmateParseError> {
    // `parse` would take a sign.
    let digits = value.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| value.parse().ok()).flatten();
    let number = number.filter(|number| (min..=max).contains(number));
    number.ok_or_else(|| InmateParseError::Value {
        name,
        value: value.into(),
        min,
        max,
    })
}

impl Behaviour {
    /// Whether it has channels.
    #[must_use]
    pub fn has_channels(&self) -> bool {
        matches!(self, Self::Channel(..))
    }

    pub(super) fn inmate(self) -> Box<dyn Inmate> {
        let demo = |rings| Box::new(Demo { count: 0, rings });
        match self {
            Self::Demo => demo(true),
            Self::Quiet => demo(false),
            Self::Echo => Box::new(Echo::default()),
            Self::Channel(Role::Attacker, settings) => Box::new(Attacker::new(settings)),
            Self::Channel(role, settings) => Box::new(Channels::new(role, settings)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        let error = text.parse::<InmateSpec>().expect_err(text);
        error.to_string()
    }

    #[test]
    fn settings_are_those_of_the_behaviour() {
        let spec: InmateSpec =
            "2:channel-source,to=1,seed=7,count=100,rate=50,max=24,echoed,poll=3"
                .parse()
                .unwrap();
        let settings = Settings {
            to: Some(1),
            seed: 7,
            count: 100,
            rate: 50,
            max: 24,
            acknowledge: 1,
            echoed: true,
            poll: Duration::from_millis(3),
        };
        let behaviour = Behaviour::Channel(Role::Source, settings);
        assert_eq!(spec, InmateSpec { peer: 2, behaviour });
        for (text, expected) in [
            ("1:channel-sink,seed=1", "use to=N, acknowledge=N, poll=N"),
            ("1:channel-source,echoed=1", "echoed, poll=N"),
            ("1:channel-source,rate", "no setting \"rate\""),
            ("1:channel-source,rate=+1", "from 0 to 1000000"),
            ("1:channel-source,max=23", "from 24 to 1073741824"),
            ("1:channel-sink,acknowledge=0", "from 1 to 1000000"),
            ("1:echo,to=1", "channel-echo"),
            ("1:channel-dance", "channel-attacker"),
        ] {
            let message = refused(text);
            assert!(message.contains(expected), "{text}: {message}");
        }
    }

    #[test]
    fn channels_need_another_peer_and_room() {
        let link = |output_size, max_peers| {
            let options = crate::spec::LinkOptions {
                max_peers,
                output_size,
                ..Default::default()
            };
            LinkSpec::new(options).unwrap()
        };
        let spec = |text: &str| text.parse::<InmateSpec>().unwrap();
        assert_eq!(spec("1:channel-echo").check(&link(0x1000, 2)), Ok(()));
        assert_eq!(spec("1:echo").check(&link(0, 2)), Ok(()));
        let to = |to| Err(Unfit::To { peer: 1, to });
        assert_eq!(spec("1:channel-echo,to=1").check(&link(0x1000, 2)), to(1));
        assert_eq!(spec("1:channel-echo,to=2").check(&link(0x1000, 2)), to(2));
        let room = |size| Err(Unfit::Room(size));
        assert_eq!(spec("1:channel-echo").check(&link(0, 2)), room(0));
        assert_eq!(
            spec("1:channel-echo").check(&link(0x1000, 60)),
            room(0x1000)
        );
    }
}
