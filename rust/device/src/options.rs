// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command line. The comments of the fields are the help text.

use crate::command::Command;
use crate::fault::Fault;
use crate::fault::FaultParseError;
use crate::fault::FaultSpec;
use crate::inmate::InmateSpec;
use crate::spec::LinkOptions;
use crate::spec::Protection;
use crate::spec::Shape;
use clap::error::ErrorKind;
use clap::CommandFactory;
use clap::Parser;
use ivshmem_protocol::config::Protocol;
use ivshmem_protocol::layout::SECTION_ALIGN;
use std::path::Path;
use std::path::PathBuf;
use thiserror::Error;

/// A device model of IVSHMEM version 2 for stock QEMU
///
/// One process is one link. It listens at DIR/peerK.sock for each peer K, where QEMU (10.1 or later)
/// connects with
///
///   -device '{"driver":"vfio-user-pci","x-msg-timeout":600000,
///             "socket":{"type":"unix","path":"DIR/peerK.sock"}}'
///
/// and prints the line "listening" when all sockets accept. SIGTERM and SIGINT end it, SIGUSR1 makes
/// it write the statistics and go on. RUST_LOG=debug makes it tell what clients do.
#[derive(Debug, Parser)]
#[command(
    name = "ivshmem-device",
    version,
    verbatim_doc_comment,
    override_usage = "ivshmem-device --socket-dir <DIR> [OPTIONS]\n       ivshmem-device --fault help",
    after_long_help = faults()
)]
pub struct Options {
    /// Directory for the sockets, made if it does not exist; only `--fault help` does without
    #[arg(long, value_name = "DIR")]
    pub socket_dir: Option<PathBuf>,

    /// Number of peers, 2..=4096; their IDs are 0..N
    #[arg(long, value_name = "N", default_value = "2", value_parser = clap::value_parser!(u16).range(2..=4096))]
    pub peers: u16,

    /// Size of the state table in bytes: a multiple of 4096, as hexadecimal with 0x, with K, M or G
    #[arg(long, value_name = "SIZE", default_value = "0x1000", value_parser = state_size)]
    pub state_size: u32,

    /// Size of the read/write section, or 0
    #[arg(long, value_name = "SIZE", default_value = "0x9000", value_parser = section_size)]
    pub rw_size: u64,

    /// Size of each peer's output section, or 0
    #[arg(long, value_name = "SIZE", default_value = "0x2000", value_parser = section_size)]
    pub output_size: u64,

    /// Number of MSI-X vectors, 0..=2048; 0 makes a device with INTx
    #[arg(long, value_name = "N", default_value = "4", value_parser = clap::value_parser!(u16).range(0..=2048))]
    pub vectors: u16,

    /// Protocol in the class code, 0..=0xffff
    #[arg(long, value_name = "TYPE", default_value = "0x0000", value_parser = protocol)]
    pub protocol: Protocol,

    /// Where guests find the memory
    #[arg(long, value_enum, default_value = "jailhouse")]
    pub shape: Shape,

    /// What happens when a guest stores where it must not
    #[arg(long, value_enum, default_value = "trap")]
    pub protection: Protection,

    /// File for the statistics, written at the start, on SIGUSR1 and at the end
    #[arg(long, value_name = "FILE")]
    pub stats: Option<PathBuf>,

    /// A peer inside this process: demo (default), quiet, echo, or channel-echo, channel-source,
    /// channel-sink, channel-attacker with settings such as `,to=0`; may be repeated
    #[arg(long, value_name = "PEER[:BEHAVIOUR]")]
    pub inmate: Vec<InmateSpec>,

    /// Something to go wrong at a peer's device (default peer 0); `help` lists; may be repeated
    #[arg(long, value_name = "NAME[@PEER]", value_parser = fault)]
    pub fault: Vec<FaultArgument>,

    /// Socket on which commands are taken while the link runs, one line each; the line `help` lists
    #[arg(long, value_name = "SOCKET")]
    pub control: Option<PathBuf>,

    /// A command to carry out at the start, as if it came on the control socket; may be repeated
    #[arg(long, value_name = "COMMAND")]
    pub command: Vec<String>,
}

impl Options {
    /// Whether a list of the faults was asked for instead of a link.
    #[must_use]
    pub fn wants_fault_list(&self) -> bool {
        self.fault.contains(&FaultArgument::Help)
    }

    /// Where the sockets are to be.
    ///
    /// # Errors
    ///
    /// As the command line's other errors, if it does not say so.
    pub fn socket_dir(&self) -> Result<&Path, clap::Error> {
        self.socket_dir.as_deref().ok_or_else(|| {
            let sentence = "--socket-dir is missing: name a directory for the sockets";
            Self::command().error(ErrorKind::MissingRequiredArgument, sentence)
        })
    }

    /// The numbers of the link.
    #[must_use]
    pub fn link(&self) -> LinkOptions {
        let spec = |fault: &FaultArgument| match *fault {
            FaultArgument::Help => None,
            FaultArgument::Fault(spec) => Some(spec),
        };
        LinkOptions {
            max_peers: self.peers,
            state_size: self.state_size,
            rw_size: self.rw_size,
            output_size: self.output_size,
            vectors: self.vectors,
            protocol: self.protocol,
            shape: self.shape,
            protection: self.protection,
            faults: self.fault.iter().filter_map(spec).collect(),
        }
    }
}

/// What `--fault` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultArgument {
    /// A list of the faults.
    Help,
    /// A fault.
    Fault(FaultSpec),
}

fn fault(text: &str) -> Result<FaultArgument, FaultParseError> {
    match text {
        "help" => Ok(FaultArgument::Help),
        _ => text.parse().map(FaultArgument::Fault),
    }
}

fn faults() -> String {
    format!("Faults:\n{}\nCommands:\n{}", Fault::list(), Command::list())
}

/// Why a text is no size.
#[derive(Debug, Error, PartialEq, Eq)]
enum SizeError {
    #[error("it is not a number: write bytes such as 0x9000, 36864 or 36K")]
    NotANumber,
    #[error("it is larger than a section can be: use a smaller size")]
    TooLarge,
    #[error("it is not a multiple of 4096: use {0:#x} or {1:#x}")]
    Misaligned(u64, u64),
    #[error("a link needs a state table: use 0x1000 or more")]
    Zero,
}

/// A number of bytes: decimal or hexadecimal with 0x, and perhaps K, M or G.
fn size(text: &str) -> Result<u64, SizeError> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        _ => (text, 0),
    };
    number(digits)
        .ok_or(SizeError::NotANumber)?
        .checked_mul(1 << shift)
        .ok_or(SizeError::TooLarge)
}

fn number(text: &str) -> Option<u64> {
    let parsed = match text.strip_prefix("0x").or(text.strip_prefix("0X")) {
        Some(digits) if !digits.starts_with('+') => u64::from_str_radix(digits, 16),
        _ if text.starts_with('+') => return None,
        _ => text.parse(),
    };
    parsed.ok()
}

fn section_size(text: &str) -> Result<u64, SizeError> {
    let size = size(text)?;
    let below = size - size % SECTION_ALIGN;
    if size != below {
        let above = below
            .checked_add(SECTION_ALIGN)
            .ok_or(SizeError::TooLarge)?;
        return Err(SizeError::Misaligned(below, above));
    }
    Ok(size)
}

fn state_size(text: &str) -> Result<u32, SizeError> {
    match section_size(text)? {
        0 => Err(SizeError::Zero),
        size => u32::try_from(size).map_err(|_| SizeError::TooLarge),
    }
}

fn protocol(text: &str) -> Result<Protocol, &'static str> {
    number(text)
        .and_then(|n| u16::try_from(n).ok())
        .map(Protocol)
        .ok_or("it is not a protocol type: use a number in 0..=0xffff such as 0x4000")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(args: &[&str]) -> Result<Options, String> {
        let command = ["ivshmem-device"];
        Options::try_parse_from(command.iter().chain(args)).map_err(|error| error.to_string())
    }

    #[test]
    fn defaults_are_the_demo_s() {
        let options = parse(&[]).unwrap().link();
        assert_eq!((options.max_peers, options.vectors), (2, 4));
        assert_eq!(options.state_size, 0x1000);
        assert_eq!((options.rw_size, options.output_size), (0x9000, 0x2000));
        assert_eq!(options.protocol, Protocol::UNDEFINED);
        assert_eq!(options.shape, Shape::Jailhouse);
        assert_eq!(options.protection, Protection::Trap);
    }

    #[test]
    fn sizes_are_hexadecimal_decimal_or_with_a_unit() {
        for text in ["0x9000", "36864", "36K", "36k", "0x24K"] {
            assert_eq!(
                parse(&["--rw-size", text]).unwrap().rw_size,
                0x9000,
                "{text}"
            );
        }
        assert_eq!(parse(&["--rw-size", "1M"]).unwrap().rw_size, 1 << 20);
        assert_eq!(parse(&["--rw-size", "0"]).unwrap().rw_size, 0);
    }

    #[test]
    fn faults_and_inmates_name_their_peer() {
        let options = parse(&[
            "--fault",
            "no-capability@1",
            "--fault",
            "one-peer",
            "--inmate",
            "1:echo",
        ])
        .unwrap();
        let faults: Vec<_> = options
            .link()
            .faults
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(faults, ["no-capability@1", "one-peer@0"]);
        assert_eq!(options.inmate[0].peer, 1);
        assert!(!options.wants_fault_list());
        assert!(parse(&["--fault", "help"]).unwrap().wants_fault_list());
    }

    #[test]
    fn every_fault_is_in_the_help() {
        let help = parse(&["--help"]).unwrap_err();
        for line in Fault::list().lines() {
            assert!(help.contains(line.trim()), "{line}");
        }
    }
}
