// SPDX-License-Identifier: MIT OR Apache-2.0
//! What channels are measured against: TCP over virtio-net and a virtio-serial port, both of which end
//! at the other guest. They carry bytes; messages of a size that both ends know take one call each.

use super::log::port;
use super::transport::{Progress, Transport};
use super::Failure;
use crate::system::{patient, wait_until};
use ivshmem::{Errno, Error, Result};
use rustix::event::{poll, PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Name of the virtio-serial port.
const PORT_NAME: &str = "ivshmem.bench";
/// Drivers of virtio-net, in the order of loading; not there if the kernel has them built in.
const DRIVERS: [&str; 3] = ["failover", "net_failover", "virtio_net"];
/// The network interface.
const INTERFACE: &str = "eth0";
/// The other guest's TCP port.
const TCP_PORT: u16 = 4106;
/// A wait for the other guest, before patience.
const LIMIT: Duration = Duration::from_secs(120);

/// Something that carries bytes.
pub(super) trait Bytes: Send + Sync {
    /// Writes some bytes.
    fn put(&self, bytes: &[u8]) -> io::Result<usize>;
    /// Reads some bytes, or none at the end.
    fn get(&self, bytes: &mut [u8]) -> io::Result<usize>;
}

impl Bytes for TcpStream {
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut this = self;
        Write::write(&mut this, bytes)
    }

    fn get(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut this = self;
        Read::read(&mut this, bytes)
    }
}

impl Bytes for File {
    fn put(&self, bytes: &[u8]) -> io::Result<usize> {
        let mut this = self;
        Write::write(&mut this, bytes)
    }

    fn get(&self, bytes: &mut [u8]) -> io::Result<usize> {
        let mut this = self;
        Read::read(&mut this, bytes)
    }
}

/// Messages of a known size over bytes.
pub(super) struct Stream<B>(B);

fn failed(what: &'static str, error: &io::Error) -> Error {
    let errno = Errno::from_raw_os_error(error.raw_os_error().unwrap_or(0));
    Error::Call { what, errno }
}

impl<B: Bytes> Transport for Stream<B> {
    fn largest(&self) -> usize {
        usize::MAX
    }

    fn wait_up(&self) -> Result<()> {
        Ok(())
    }

    fn send(&self, message: &[u8]) -> Result<()> {
        let mut rest = message;
        while !rest.is_empty() {
            let done = self
                .0
                .put(rest)
                .map_err(|error| failed("sending", &error))?;
            rest = &rest[done..];
        }
        Ok(())
    }

    /// Fills `buffer`: both ends know how long messages are.
    fn receive(&self, buffer: &mut [u8]) -> Result<Option<usize>> {
        let mut filled = 0;
        while filled < buffer.len() {
            let got = self.0.get(&mut buffer[filled..]);
            filled += match got.map_err(|error| failed("receiving", &error))? {
                0 => return Ok(None),
                length => length,
            };
        }
        Ok(Some(filled))
    }

    fn acknowledge(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn wait_confirmed(&self, _: u64) -> Result<()> {
        Ok(())
    }

    fn progress(&self) -> Result<Progress> {
        Ok(Progress {
            confirmed: 0,
            is_up: true,
        })
    }
}

/// Loads drivers, and gives this guest its address.
pub(super) fn set_up_network(id: u32) -> std::result::Result<(), Failure> {
    for name in DRIVERS {
        let path = format!("/{name}.ko");
        if Path::new(&path).exists() {
            let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
            rustix::system::finit_module(&file, c"", 0)?;
        }
    }
    let interface = format!("/sys/class/net/{INTERFACE}");
    if !wait_until(patient(LIMIT), || Path::new(&interface).exists()) {
        return Err(format!("there is no network interface {INTERFACE}").into());
    }
    let status = Command::new("/bin/busybox")
        .args(["ifconfig", INTERFACE, &address(id).to_string(), "up"])
        .status()?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("ifconfig ended with {status}").into())
    }
}

fn address(id: u32) -> Ipv4Addr {
    Ipv4Addr::new(10, 0, 0, 1 + id as u8)
}

/// A TCP connection to the other guest; the one with ID 1 is called.
pub(super) fn tcp(id: u32) -> std::result::Result<Stream<TcpStream>, Failure> {
    let stream = if id == 1 {
        TcpListener::bind((address(1), TCP_PORT))?.accept()?.0
    } else {
        let mut connected = Err(io::Error::other("never tried"));
        wait_until(patient(LIMIT), || {
            connected = TcpStream::connect((address(1), TCP_PORT));
            connected.is_ok()
        });
        connected?
    };
    // Each message is sent at once, as on a channel.
    stream.set_nodelay(true)?;
    Ok(Stream(stream))
}

/// The virtio-serial port to the other guest.
pub(super) fn serial() -> std::result::Result<Stream<File>, Failure> {
    let file = File::options()
        .read(true)
        .write(true)
        .open(port(PORT_NAME)?)?;
    // The two QEMUs meet some time.
    let there = wait_until(patient(LIMIT), || {
        let mut fds = [PollFd::new(&file, PollFlags::OUT)];
        let zero = rustix::event::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        let ready = poll(&mut fds, Some(&zero));
        ready.is_ok() && !fds[0].revents().contains(PollFlags::HUP)
    });
    if there {
        Ok(Stream(file))
    } else {
        Err("the virtio-serial port leads nowhere".into())
    }
}
