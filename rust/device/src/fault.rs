// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults on demand: the one home of everything that the model does wrong because it was told to.
//!
//! A device asks its faults at three points: when its configuration space has been built, when
//! a register is read, and when the address of the memory is shown. What a fault does is here and
//! nowhere else.

use crate::config_space::SIZE as CONFIG_SIZE;
use crate::config_space::VENDOR_CAPABILITY;
use crate::register::Register;
use crate::spec::LinkSpec;
use crate::spec::Shape;
use clap::ValueEnum;
use ivshmem_protocol::capability;
use ivshmem_protocol::config;
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// Something that a device does wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Fault {
    /// The list of capabilities has no vendor capability
    NoCapability,
    /// The vendor capability's length is 10h: no room for the sizes
    ShortCapability,
    /// The list of capabilities has a loop and no vendor capability in it (stock QEMU follows it
    /// for ever; for other clients)
    CapabilityLoop,
    /// The state table's size is 0
    ZeroStateTable,
    /// The state table's size is a page more than it is, less 4 bytes: not divisible by 4096
    MisalignedStateTable,
    /// The R/W section's size is 8 bytes more than a multiple of 4096
    MisalignedRw,
    /// The output sections' size is 8 bytes more than a multiple of 4096
    MisalignedOutput,
    /// The R/W section's size is 2^64 - 4096
    OverflowingRw,
    /// The output sections' size is 2^63: that of all peers together overflows
    OverflowingOutput,
    /// The R/W section is so large that the region ends behind BAR 2
    BeyondBar,
    /// The address of the memory is 0, as if nobody had filled it in
    NoAddress,
    /// The address of the memory is 800h more than it is
    MisalignedAddress,
    /// The address of the memory is the last page of the 64-bit address space
    OverflowingAddress,
    /// The address of the memory is that of the device's own registers
    AddressOfRegisters,
    /// Register ID says the number of peers
    IdOutOfRange,
    /// Register Maximum Peers says 0
    NoPeers,
    /// Register Maximum Peers says 1
    OnePeer,
    /// Register Maximum Peers says 1000000
    ManyPeers,
    /// All registers read all-ones, as those of a device that is gone
    DeadRegisters,
}

impl Fault {
    /// The shape that has what this fault changes, if not both have.
    #[must_use]
    pub fn needs_shape(self) -> Option<Shape> {
        match self {
            Self::BeyondBar => Some(Shape::Bar2),
            Self::NoAddress
            | Self::MisalignedAddress
            | Self::OverflowingAddress
            | Self::AddressOfRegisters => Some(Shape::Jailhouse),
            _ => None,
        }
    }

    /// Changes a freshly built configuration space.
    pub(crate) fn malform_config(self, bytes: &mut [u8; CONFIG_SIZE], spec: &LinkSpec) {
        let options = spec.options();
        let mut set = |field: u8, value: &[u8]| {
            let at = usize::from(VENDOR_CAPABILITY + field);
            bytes[at..at + value.len()].copy_from_slice(value);
        };
        match self {
            Self::NoCapability => {
                let next = bytes[usize::from(VENDOR_CAPABILITY) + 1];
                bytes[usize::from(config::CAPABILITY_POINTER)] = next;
                if next == 0 {
                    bytes[usize::from(config::STATUS)] &= !(config::STATUS_CAPABILITIES as u8);
                }
            }
            Self::ShortCapability => set(capability::LENGTH, &[0x10]),
            Self::CapabilityLoop => {
                // A capability ID that no driver looks for, next pointer on itself.
                set(0, &[0x00, VENDOR_CAPABILITY]);
            }
            Self::ZeroStateTable => set(capability::STATE_TABLE_SIZE, &[0; 4]),
            Self::MisalignedStateTable => {
                let size = options.state_size.wrapping_add(0xffc);
                set(capability::STATE_TABLE_SIZE, &size.to_le_bytes());
            }
            Self::MisalignedRw => {
                set(
                    capability::RW_SIZE,
                    &options.rw_size.wrapping_add(8).to_le_bytes(),
                );
            }
            Self::MisalignedOutput => {
                let size = options.output_size.wrapping_add(8);
                set(capability::OUTPUT_SIZE, &size.to_le_bytes());
            }
            Self::OverflowingRw => {
                set(capability::RW_SIZE, &(u64::MAX - 0xfff).to_le_bytes());
            }
            Self::OverflowingOutput => {
                set(capability::OUTPUT_SIZE, &(1_u64 << 63).to_le_bytes());
            }
            Self::BeyondBar => {
                set(capability::RW_SIZE, &spec.memory_bar_size().to_le_bytes());
            }
            Self::NoAddress
            | Self::MisalignedAddress
            | Self::OverflowingAddress
            | Self::AddressOfRegisters
            | Self::IdOutOfRange
            | Self::NoPeers
            | Self::OnePeer
            | Self::ManyPeers
            | Self::DeadRegisters => {}
        }
    }

    /// What `register` reads instead of its value, if this fault changes it.
    pub(crate) fn register(self, register: Register, spec: &LinkSpec) -> Option<u32> {
        match (self, register) {
            (Self::IdOutOfRange, Register::Id) => Some(spec.options().max_peers.into()),
            (Self::NoPeers, Register::MaxPeers) => Some(0),
            (Self::OnePeer, Register::MaxPeers) => Some(1),
            (Self::ManyPeers, Register::MaxPeers) => Some(1_000_000),
            (Self::DeadRegisters, _) => Some(u32::MAX),
            _ => None,
        }
    }

    /// The address of the memory that the capability shows, of a device with these addresses of memory and registers.
    pub(crate) fn address(self, address: u64, registers: u64) -> u64 {
        match self {
            Self::NoAddress => 0,
            Self::MisalignedAddress => address.wrapping_add(0x800),
            Self::OverflowingAddress => u64::MAX - 0xfff,
            Self::AddressOfRegisters => registers,
            _ => address,
        }
    }

    /// All faults as `name: what it does` lines, for people.
    #[must_use]
    pub fn list() -> String {
        let mut text = String::new();
        for fault in Self::value_variants() {
            if let Some(value) = fault.to_possible_value() {
                let help = value
                    .get_help()
                    .map(ToString::to_string)
                    .unwrap_or_default();
                text += &format!("  {:<24}{help}\n", value.get_name());
            }
        }
        text
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_possible_value() {
            Some(value) => f.write_str(value.get_name()),
            None => write!(f, "{self:?}"),
        }
    }
}

/// A fault and the peer whose device has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultSpec {
    /// What goes wrong.
    pub fault: Fault,
    /// At whose device.
    pub peer: u16,
}

/// Why a text names no fault.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FaultParseError {
    /// There is no fault of that name.
    #[error("there is no fault {0:?}: `--fault help` lists them")]
    Unknown(String),
    /// What follows `@` is not a peer ID.
    #[error("{0:?} is not a peer ID: write NAME@PEER with a number below --peers")]
    Peer(String),
}

impl FromStr for FaultSpec {
    type Err = FaultParseError;

    /// `NAME` for peer 0, or `NAME@PEER`.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (name, peer) = text.split_once('@').unwrap_or((text, "0"));
        Ok(Self {
            fault: <Fault as ValueEnum>::from_str(name, false)
                .map_err(|_| FaultParseError::Unknown(name.into()))?,
            peer: peer
                .parse()
                .map_err(|_| FaultParseError::Peer(peer.into()))?,
        })
    }
}

impl fmt::Display for FaultSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.fault, self.peer)
    }
}
