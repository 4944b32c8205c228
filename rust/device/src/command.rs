// SPDX-License-Identifier: MIT OR Apache-2.0

//! The commands of the control socket: their words, and nothing of what they do, which is
//! [`control`](crate::control)'s.

use crate::inmate::InmateSpec;
use crate::turmoil::Turmoil;
use std::str::FromStr;
use std::time::Duration;
use thiserror::Error;

/// Longest delay of a device that answers slowly, in milliseconds. Stock QEMU gives a link up after
/// 5 s unless told otherwise.
const DELAY_MAX: u64 = 60_000;

/// Something to do, in words: `NAME ARGUMENT...`, separated by blanks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `help`: all commands.
    Help,
    /// `status`: what goes wrong now.
    Status,
    /// `statistics [PEER]`: what was counted so far, of one peer or of all, as one line of JSON. It
    /// looks at the canaries.
    Statistics {
        /// Of whom, if not of all.
        peer: Option<u16>,
    },
    /// `lose PEER COUNT`: the next interrupts for a peer are lost.
    Lose {
        /// Whose.
        peer: u16,
        /// How many; 0 ends it.
        count: u32,
    },
    /// `lose-every PEER N`: each n-th interrupt for a peer is lost.
    LoseEvery {
        /// Whose.
        peer: u16,
        /// Which; 0 ends it.
        n: u32,
    },
    /// `slow PEER MILLISECONDS`: each access to the registers and the configuration space takes so
    /// long.
    Slow {
        /// Whose device.
        peer: u16,
        /// How long; 0 ends it.
        delay: Duration,
    },
    /// `vanish PEER [memory]`: the device is gone without a word.
    Vanish {
        /// Whose device.
        peer: u16,
        /// The state table is all-ones too.
        memory: bool,
    },
    /// `return PEER`: a device that has gone or died is there again.
    Return {
        /// Whose device.
        peer: u16,
    },
    /// `die PEER`: the peer is dead, and its state 0.
    Die {
        /// Who.
        peer: u16,
    },
    /// `inmate PEER[:BEHAVIOUR]`: a soft inmate comes.
    Inmate(InmateSpec),
    /// `restart PEER [STORES]`: the cell of a soft inmate with channels is reset, and starts again.
    Restart {
        /// Who.
        peer: u16,
        /// Instead of which store, the next being 0; at once if [`None`].
        stores: Option<u32>,
    },
    /// `reconnect PEER`: a soft inmate closes its channels and opens them anew.
    Reconnect {
        /// Who.
        peer: u16,
    },
    /// `storm`, `garbage`, `garbage-table`, `scribble`, `hostile`: something goes on until `stop`.
    Start(Turmoil),
    /// `stop`: ends all that goes wrong but deaths of soft inmates.
    Stop,
}

/// Names, arguments and meanings, for people.
const WORDS: &[(&str, &str, &str)] = &[
    ("help", "", "tells the commands"),
    ("status", "", "tells what goes wrong now"),
    (
        "statistics",
        "[PEER]",
        "tells what was counted, as one line of JSON",
    ),
    (
        "lose",
        "PEER COUNT",
        "the next COUNT interrupts for PEER are lost",
    ),
    (
        "lose-every",
        "PEER N",
        "each N-th interrupt for PEER is lost",
    ),
    (
        "slow",
        "PEER MILLISECONDS",
        "each access to the registers and configuration space of PEER takes that long",
    ),
    (
        "vanish",
        "PEER [memory]",
        "the device of PEER is gone: all reads give all-ones, also of the state table with `memory`",
    ),
    ("return", "PEER", "a device that is gone is there again"),
    ("die", "PEER", "PEER is dead, and its state 0"),
    ("inmate", "PEER[:BEHAVIOUR]", "a soft inmate comes"),
    (
        "restart",
        "PEER [STORES]",
        "the cell of a soft inmate with channels is reset and starts again, now or after some stores",
    ),
    (
        "reconnect",
        "PEER",
        "a soft inmate closes its channels and opens them anew",
    ),
    (
        "storm",
        "FROM TO VECTOR",
        "FROM rings TO as fast as it can",
    ),
    (
        "garbage",
        "PEER SEED",
        "the state of PEER changes all the time",
    ),
    (
        "garbage-table",
        "SEED",
        "the whole state table changes all the time",
    ),
    (
        "scribble",
        "PEER SEED",
        "PEER overwrites its output section and the R/W section all the time",
    ),
    (
        "hostile",
        "PEER SEED",
        "the device of PEER answers nonsense, changes the memory and interrupts when it likes",
    ),
    ("stop", "", "ends all of these but the death of a soft inmate"),
];

/// Why a line is no command.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum CommandError {
    /// There is nothing in it.
    #[error("an empty command: `help` tells the commands")]
    Empty,
    /// There is no command of that name.
    #[error("there is no command `{0}`: `help` tells the commands")]
    Unknown(String),
    /// Too few or too many arguments.
    #[error("`{name}` takes {} arguments: write `{name} {arguments}`", arguments.split(' ').count())]
    Arguments {
        /// The command.
        name: &'static str,
        /// Its arguments.
        arguments: &'static str,
    },
    /// The command takes no arguments.
    #[error("`{0}` takes no arguments: write `{0}`")]
    NoArguments(&'static str),
    /// An argument is not a number, or one that is too large.
    #[error("`{value}` is not a value of {what}: write a number from 0 to {max}")]
    Number {
        /// Which argument.
        what: &'static str,
        /// What was given.
        value: String,
        /// The largest.
        max: u64,
    },
    /// A word that means nothing there.
    #[error("`{0}` means nothing there: write `memory` or nothing")]
    Word(String),
    /// Not a soft inmate.
    #[error(transparent)]
    Inmate(#[from] crate::inmate::InmateParseError),
}

impl Command {
    /// All commands in one line.
    #[must_use]
    pub fn help() -> String {
        let word = |(name, arguments, meaning): &(&str, &str, &str)| match *arguments {
            "" => format!("{name}: {meaning}"),
            arguments => format!("{name} {arguments}: {meaning}"),
        };
        WORDS.iter().map(word).collect::<Vec<_>>().join("; ")
    }

    /// All commands as lines, for the help of the program.
    #[must_use]
    pub fn list() -> String {
        let line = |(name, arguments, meaning): &(&str, &str, &str)| {
            format!("  {:<26}{meaning}\n", format!("{name} {arguments}"))
        };
        WORDS.iter().map(line).collect()
    }

    /// The peers that it names.
    pub(crate) fn peers(&self) -> Vec<u16> {
        match *self {
            Self::Help | Self::Status | Self::Stop => Vec::new(),
            Self::Statistics { peer } => peer.into_iter().collect(),
            Self::Lose { peer, .. }
            | Self::LoseEvery { peer, .. }
            | Self::Slow { peer, .. }
            | Self::Vanish { peer, .. }
            | Self::Return { peer }
            | Self::Restart { peer, .. }
            | Self::Reconnect { peer }
            | Self::Die { peer } => vec![peer],
            Self::Inmate(spec) => vec![spec.peer],
            Self::Start(turmoil) => match turmoil {
                Turmoil::Storm { from, to, .. } => vec![from, to],
                Turmoil::GarbageTable { .. } => Vec::new(),
                Turmoil::Garbage { peer, .. }
                | Turmoil::Scribble { peer, .. }
                | Turmoil::Hostile { peer, .. } => vec![peer],
            },
        }
    }
}

impl FromStr for Command {
    type Err = CommandError;

    fn from_str(line: &str) -> Result<Self, CommandError> {
        let mut words = line.split_whitespace();
        let given = words.next().ok_or(CommandError::Empty)?;
        let known = WORDS.iter().find(|(name, ..)| *name == given);
        let &(name, usage, _) = known.ok_or_else(|| CommandError::Unknown(given.into()))?;
        let arguments: Vec<_> = words.collect();
        Ok(match (name, arguments.as_slice()) {
            ("help", []) => Self::Help,
            ("status", []) => Self::Status,
            ("statistics", []) => Self::Statistics { peer: None },
            ("statistics", [id]) => Self::Statistics {
                peer: Some(peer(id)?),
            },
            ("lose", [id, count]) => Self::Lose {
                peer: peer(id)?,
                count: number("COUNT", count, u32::MAX.into())? as u32,
            },
            ("lose-every", [id, n]) => Self::LoseEvery {
                peer: peer(id)?,
                n: number("N", n, u32::MAX.into())? as u32,
            },
            ("slow", [id, time]) => Self::Slow {
                peer: peer(id)?,
                delay: Duration::from_millis(number("MILLISECONDS", time, DELAY_MAX)?),
            },
            ("vanish", [id, rest @ ..]) if rest.len() < 2 => Self::Vanish {
                peer: peer(id)?,
                memory: match rest {
                    [] => false,
                    ["memory", ..] => true,
                    [word, ..] => return Err(CommandError::Word((*word).into())),
                },
            },
            ("return", [id]) => Self::Return { peer: peer(id)? },
            ("die", [id]) => Self::Die { peer: peer(id)? },
            ("inmate", [spec]) => Self::Inmate(spec.parse()?),
            ("restart", [id, rest @ ..]) if rest.len() < 2 => Self::Restart {
                peer: peer(id)?,
                stores: match rest {
                    [] => None,
                    [text, ..] => Some(number("STORES", text, u32::MAX.into())? as u32),
                },
            },
            ("reconnect", [id]) => Self::Reconnect { peer: peer(id)? },
            ("stop", []) => Self::Stop,
            (name, arguments) => match turmoil(name, arguments)? {
                Some(turmoil) => Self::Start(turmoil),
                None if usage.is_empty() => return Err(CommandError::NoArguments(name)),
                None => {
                    let arguments = usage;
                    return Err(CommandError::Arguments { name, arguments });
                }
            },
        })
    }
}

/// The turmoil that a command starts, if it starts one with these arguments.
fn turmoil(name: &str, arguments: &[&str]) -> Result<Option<Turmoil>, CommandError> {
    Ok(Some(match (name, arguments) {
        ("storm", [from, to, vector]) => Turmoil::Storm {
            from: peer(from)?,
            to: peer(to)?,
            vector: number("VECTOR", vector, u16::MAX.into())? as u16,
        },
        ("garbage", [id, text]) => Turmoil::Garbage {
            peer: peer(id)?,
            seed: seed(text)?,
        },
        ("garbage-table", [text]) => Turmoil::GarbageTable { seed: seed(text)? },
        ("scribble", [id, text]) => Turmoil::Scribble {
            peer: peer(id)?,
            seed: seed(text)?,
        },
        ("hostile", [id, text]) => Turmoil::Hostile {
            peer: peer(id)?,
            seed: seed(text)?,
        },
        _ => return Ok(None),
    }))
}

fn peer(text: &str) -> Result<u16, CommandError> {
    number("PEER", text, u16::MAX.into()).map(|id| id as u16)
}

fn seed(text: &str) -> Result<u64, CommandError> {
    number("SEED", text, u64::MAX)
}

fn number(what: &'static str, text: &str, max: u64) -> Result<u64, CommandError> {
    let wrong = || CommandError::Number {
        what,
        value: text.into(),
        max,
    };
    // `parse` would take a sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let number = digits.then(|| text.parse().ok()).flatten();
    number.filter(|&number| number <= max).ok_or_else(wrong)
}
