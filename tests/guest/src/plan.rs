// SPDX-License-Identifier: MIT OR Apache-2.0
//! The plan of a guest: what it is to run, and which devices it must find.
//!
//! It travels as words of the kernel command line, `ivshmem.KEY=VALUE`, so that it can also be
//! typed by hand. [`Plan::words`] and [`Plan::parse`] are each other's inverse.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// What a guest is to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The job: `suites`, `demo`, `doorbells`, `shell`, ...
    pub run: String,
    /// Arguments of the job.
    pub arguments: Vec<String>,
    /// Devices that the guest has.
    pub devices: Vec<DevicePlan>,
    /// Factor for all time limits.
    pub patience: u32,
}

/// How a device reaches its shared memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Shape {
    /// The capability carries the address, as on Jailhouse.
    #[default]
    Jailhouse,
    /// BAR 2 is the memory.
    Bar2,
}

/// Whether the device model can see forbidden stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protection {
    /// Each access to a foreign part is seen.
    #[default]
    Trap,
    /// All of the region is mapped; canaries tell afterwards.
    Mapped,
}

/// One device of a guest, as the options of the device model make it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DevicePlan {
    /// PCI slot on bus 0.
    pub slot: u8,
    /// Which link: devices of one guest with the same number share their memory.
    pub link: u32,
    /// Peer ID.
    pub peer: u32,
    /// Peers that the link has room for.
    pub peers: u32,
    /// Vectors of each peer.
    pub vectors: u32,
    /// Size of the state table in bytes.
    pub state_size: u64,
    /// Size of the read/write section in bytes.
    pub rw_size: u64,
    /// Size of each output section in bytes.
    pub output_size: u64,
    /// Protocol of the class code.
    pub protocol: u16,
    /// Shape of the device.
    pub shape: Shape,
    /// Protection of the memory.
    pub protection: Protection,
    /// A soft inmate on the same link.
    pub inmate: Option<SoftInmate>,
    /// The capability is malformed in this way; the driver must refuse the device.
    pub fault: Option<String>,
}

/// A peer inside the device model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SoftInmate {
    /// Its peer ID.
    pub peer: u32,
    /// What it does, by the device model's names: `echo`, `demo`, ...
    pub behaviour: String,
}

impl SoftInmate {
    /// An inmate that answers doorbells.
    #[must_use]
    pub fn echo(peer: u32) -> Self {
        Self {
            peer,
            behaviour: "echo".into(),
        }
    }
}

impl fmt::Display for SoftInmate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.peer, self.behaviour)
    }
}

impl FromStr for SoftInmate {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let (peer, behaviour) = text.split_once(':').ok_or_else(|| bad("inmate", text))?;
        Ok(Self {
            peer: number("inmate", peer)? as u32,
            behaviour: behaviour.into(),
        })
    }
}

impl Default for DevicePlan {
    fn default() -> Self {
        Self {
            slot: 5,
            link: 0,
            peer: 0,
            peers: 2,
            vectors: 4,
            state_size: 0x1000,
            rw_size: 0x9000,
            output_size: 0x2000,
            protocol: 0,
            shape: Shape::Jailhouse,
            protection: Protection::Trap,
            inmate: None,
            fault: None,
        }
    }
}

impl DevicePlan {
    /// Its PCI address in the guest.
    #[must_use]
    pub fn bdf(&self) -> String {
        format!("0000:00:{:02x}.0", self.slot)
    }

    /// Where the output section of `peer` begins.
    #[must_use]
    pub fn output_offset(&self, peer: u32) -> u64 {
        self.state_size + self.rw_size + u64::from(peer) * self.output_size
    }

    /// Size of the whole region.
    #[must_use]
    pub fn region_size(&self) -> u64 {
        self.output_offset(self.peers)
    }
}

/// Why a command line is no plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// A word has no meaning.
    #[error("`{0}` on the kernel command line means nothing here")]
    UnknownKey(String),
    /// A value does not fit its key.
    #[error("`{value}` is not a value of `{key}`")]
    BadValue {
        /// The key.
        key: String,
        /// What it was given.
        value: String,
    },
}

impl Plan {
    /// The words for the kernel command line.
    #[must_use]
    pub fn words(&self) -> String {
        let mut words = format!("ivshmem.run={}", self.run);
        if !self.arguments.is_empty() {
            words += &format!(" ivshmem.arguments={}", self.arguments.join(","));
        }
        if self.patience > 1 {
            words += &format!(" ivshmem.patience={}", self.patience);
        }
        for device in &self.devices {
            words += &format!(" ivshmem.device={device}");
        }
        words
    }

    /// A time limit with the plan's patience; one that says nothing about it is as patient as it need be on an
    /// idle machine.
    #[must_use]
    pub fn patient(&self, limit: Duration) -> Duration {
        limit * self.patience.max(1)
    }

    /// Reads the plan from a kernel command line; words that are not ours are left alone.
    ///
    /// # Errors
    ///
    /// [`PlanError`] names the word.
    pub fn parse(command_line: &str) -> Result<Self, PlanError> {
        let mut plan = Self {
            patience: 1,
            ..Self::default()
        };
        let ours = command_line
            .split_whitespace()
            .filter_map(|word| word.strip_prefix("ivshmem."));
        for word in ours {
            let (key, value) = word
                .split_once('=')
                .ok_or_else(|| PlanError::UnknownKey(word.into()))?;
            match key {
                "run" => plan.run = value.into(),
                "arguments" => plan.arguments = value.split(',').map(Into::into).collect(),
                "patience" => plan.patience = number(key, value)? as u32,
                "device" => plan.devices.push(value.parse()?),
                _ => return Err(PlanError::UnknownKey(key.into())),
            }
        }
        Ok(plan)
    }
}

/// On the command line, for the comma between the settings of a soft inmate.
const BETWEEN_SETTINGS: &str = "+";

/// Only what differs from the default, as a command line is short.
impl fmt::Display for DevicePlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let usual = Self::default();
        write!(f, "slot={},peer={}", self.slot, self.peer)?;
        let hexadecimal = [
            ("link", self.link.into(), usual.link.into()),
            ("peers", self.peers.into(), usual.peers.into()),
            ("vectors", self.vectors.into(), usual.vectors.into()),
            ("state", self.state_size, usual.state_size),
            ("rw", self.rw_size, usual.rw_size),
            ("output", self.output_size, usual.output_size),
            ("protocol", self.protocol.into(), usual.protocol.into()),
        ];
        for (key, value, _) in hexadecimal
            .iter()
            .filter(|(_, value, usual)| value != usual)
        {
            write!(f, ",{key}={value:#x}")?;
        }
        if self.shape != usual.shape {
            write!(f, ",shape={}", self.shape)?;
        }
        if self.protection != usual.protection {
            write!(f, ",protection={}", self.protection)?;
        }
        if let Some(inmate) = &self.inmate {
            write!(
                f,
                ",inmate={}",
                inmate.to_string().replace(',', BETWEEN_SETTINGS)
            )?;
        }
        if let Some(fault) = &self.fault {
            write!(f, ",fault={fault}")?;
        }
        Ok(())
    }
}

impl FromStr for DevicePlan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut device = Self::default();
        for pair in text.split(',') {
            let (key, value) = pair
                .split_once('=')
                .ok_or_else(|| PlanError::UnknownKey(pair.into()))?;
            let value_of = || number(key, value);
            match key {
                "slot" => device.slot = value_of()? as u8,
                "link" => device.link = value_of()? as u32,
                "peer" => device.peer = value_of()? as u32,
                "peers" => device.peers = value_of()? as u32,
                "vectors" => device.vectors = value_of()? as u32,
                "state" => device.state_size = value_of()?,
                "rw" => device.rw_size = value_of()?,
                "output" => device.output_size = value_of()?,
                "protocol" => device.protocol = value_of()? as u16,
                "shape" => device.shape = value.parse()?,
                "protection" => device.protection = value.parse()?,
                "inmate" => device.inmate = Some(value.replace(BETWEEN_SETTINGS, ",").parse()?),
                "fault" => device.fault = Some(value.into()),
                _ => return Err(PlanError::UnknownKey(key.into())),
            }
        }
        Ok(device)
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Jailhouse => "jailhouse",
            Self::Bar2 => "bar2",
        })
    }
}

impl FromStr for Shape {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        match text {
            "jailhouse" => Ok(Self::Jailhouse),
            "bar2" => Ok(Self::Bar2),
            _ => Err(bad("shape", text)),
        }
    }
}

impl fmt::Display for Protection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Trap => "trap",
            Self::Mapped => "mapped",
        })
    }
}

impl FromStr for Protection {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        match text {
            "trap" => Ok(Self::Trap),
            "mapped" => Ok(Self::Mapped),
            _ => Err(bad("protection", text)),
        }
    }
}

fn bad(key: &str, value: &str) -> PlanError {
    PlanError::BadValue {
        key: key.into(),
        value: value.into(),
    }
}

/// A number, decimal or with 0x.
fn number(key: &str, value: &str) -> Result<u64, PlanError> {
    let parsed = match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => value.parse(),
    };
    parsed.map_err(|_| bad(key, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_survives_the_command_line() {
        let plan = Plan {
            run: "suites".into(),
            arguments: vec!["info".into(), "region".into()],
            patience: 3,
            devices: vec![
                DevicePlan::default(),
                DevicePlan {
                    slot: 31,
                    link: 7,
                    peer: 1,
                    peers: 3,
                    vectors: 16,
                    protocol: 0x4001,
                    shape: Shape::Bar2,
                    protection: Protection::Mapped,
                    inmate: Some(SoftInmate {
                        peer: 2,
                        behaviour: "channel-source,to=0,rate=5".into(),
                    }),
                    fault: Some("cap-short".into()),
                    ..DevicePlan::default()
                },
            ],
        };
        let line = format!("console=ttyS0 quiet {} panic=-1", plan.words());
        assert_eq!(Plan::parse(&line), Ok(plan));
    }

    #[test]
    fn limits_grow_with_patience() {
        let second = Duration::from_secs(1);
        let patience = |line| Plan::parse(line).expect("a plan").patient(second);
        assert_eq!(patience("ivshmem.run=demo"), second);
        assert_eq!(patience("ivshmem.patience=0"), second);
        assert_eq!(patience("ivshmem.patience=5"), second * 5);
    }

    #[test]
    fn wrong_words_are_named() {
        let unknown = Plan::parse("ivshmem.walk=suites").unwrap_err();
        assert_eq!(unknown, PlanError::UnknownKey("walk".into()));
        let value = Plan::parse("ivshmem.device=peer=x").unwrap_err();
        assert_eq!(value, bad("peer", "x"));
    }
}
