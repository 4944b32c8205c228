// SPDX-License-Identifier: MIT OR Apache-2.0
//! Files from cell to cell: confirmed means stored.
//!
//! `ivshmem-send-file receive FOLDER` in one cell, `ivshmem-send-file send FILE` in the other. The
//! receiver acknowledges explicitly, and only what it has written and synced, so what the sender
//! knows to be confirmed survives the receiver's death. When an end dies, the other waits for its
//! next session; the transfer goes on with what is stored. The last message is confirmed when the
//! checksum is right and the file has its name.

mod message;
mod receiver;
mod sender;

use clap::{Parser, Subcommand};
use ivshmem::Device;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Files from cell to cell: confirmed means stored
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The device file
    #[arg(short, long, default_value = "/dev/ivshmem0")]
    device: PathBuf,

    /// The peer at the other end [default: the next one]
    #[arg(short, long)]
    peer: Option<u32>,

    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Send a file, and end when it is stored at the other end
    Send {
        /// The file
        file: PathBuf,
    },
    /// Store files that come
    Receive {
        /// Where to
        folder: PathBuf,

        /// End after the first one
        #[arg(long)]
        once: bool,
    },
}

/// What ends a transfer for good.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Channel(#[from] ivshmem::Error),
    #[error("{}: {error}", path.display())]
    File {
        path: PathBuf,
        error: std::io::Error,
    },
    #[error("{} has no name that could be sent", path.display())]
    NoName { path: PathBuf },
    #[error("the receiver refuses: {0}")]
    Refused(String),
    #[error("the sender does not keep to the rules: {0}")]
    BadSender(&'static str),
    #[error("the receiver does not keep to the rules")]
    BadReceiver,
    #[error("{sessions} sessions one after the other have stored nothing more; the last ended because: {last}")]
    NoProgress { sessions: u32, last: ivshmem::Error },
}

impl Failure {
    /// Says which file it is about.
    fn of(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        |error| Self::File {
            path: path.into(),
            error,
        }
    }

    /// Whether only this session has ended: the peer has closed, died or restarted.
    fn ends_the_session_only(&self) -> bool {
        use ivshmem::Error::{Closed, Reset};
        matches!(self, Self::Channel(Closed | Reset { .. }))
    }
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ivshmem-send-file: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let device = Device::open(&options.device)?;
    let info = device.info();
    let peer = options.peer.unwrap_or((info.id + 1) % info.max_peers);
    match &options.role {
        Role::Send { file } => sender::send(&device, peer, file),
        Role::Receive { folder, once } => receiver::receive(&device, peer, folder, *once),
    }
}
