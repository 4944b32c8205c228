// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ways to send messages to the other guest and to receive its own.

use super::ring::Ring;
use super::Failure;
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Device, Error, Result};
use std::path::Path;

/// How the session with the other guest is going.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Messages that the other guest has confirmed.
    pub(crate) confirmed: u64,
    /// Both ends are there.
    pub(crate) is_up: bool,
}

/// A session with the other guest. Sending and receiving may be done by two threads at once.
pub(crate) trait Transport: Send + Sync {
    /// The largest message in bytes.
    fn largest(&self) -> usize;

    /// Returns when the other end is there.
    fn wait_up(&self) -> Result<()>;

    /// Sends one message, when there is room.
    fn send(&self, message: &[u8]) -> Result<()>;

    /// Receives one message, when there is one: its length. None when the other end has closed.
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>>;

    /// Tells the other end that messages up to `number` have been dealt with.
    fn acknowledge(&self, number: u64) -> Result<()>;

    /// Returns when messages up to `number` have been confirmed.
    fn wait_confirmed(&self, number: u64) -> Result<()>;

    /// How it is going, also after its end.
    fn progress(&self) -> Result<Progress>;
}

/// When a message that has been received is confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Confirm {
    /// When it has been read.
    WhenRead,
    /// When the application says so.
    WhenTold,
}

/// A session of the kind `name` with the only other peer of the link.
pub(crate) fn connect(
    name: &str,
    node: &Path,
    confirm: Confirm,
) -> std::result::Result<Box<dyn Transport>, Failure> {
    let device = Device::open(node)?;
    let peer = 1 - device.info().id;
    Ok(match name {
        "channel" => Box::new(Kernel::connect(&device, peer, confirm)?),
        "ring" => Box::new(Ring::connect(node, peer, confirm)?),
        _ => return Err(format!("there is no transport `{name}`").into()),
    })
}

/// The driver's channels.
struct Kernel {
    channel: Channel,
    largest: usize,
}

impl Kernel {
    fn connect(device: &Device, peer: u32, confirm: Confirm) -> Result<Self> {
        let options = ConnectOptions::new().explicit_ack(confirm == Confirm::WhenTold);
        let channel = device.connect(peer, options)?;
        let largest = channel.status()?.max_message as usize;
        Ok(Self { channel, largest })
    }
}

/// `call` until no signal interrupts it.
fn retry<T>(mut call: impl FnMut() -> Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(Error::Interrupted) => {}
            other => return other,
        }
    }
}

impl Transport for Kernel {
    fn largest(&self) -> usize {
        self.largest
    }

    fn wait_up(&self) -> Result<()> {
        let ready = retry(|| self.channel.wait_writable(Deadline::NEVER))?;
        if ready.writable {
            return Ok(());
        }
        // It has ended: why, any call says.
        self.channel.next_size().and(Err(Error::Closed))
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        self.channel.send_fully(message)
    }

    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        retry(|| self.channel.receive(buffer))
    }

    fn acknowledge(&self, number: u64) -> Result<()> {
        self.channel.acknowledge(number)
    }

    fn wait_confirmed(&self, number: u64) -> Result<()> {
        retry(|| self.channel.wait_confirmed(number, Deadline::NEVER)).map(|_| ())
    }

    fn progress(&self) -> Result<Progress> {
        let status = self.channel.status()?;
        Ok(Progress {
            confirmed: status.confirmed,
            is_up: status.link == ChannelLink::Up,
        })
    }
}
