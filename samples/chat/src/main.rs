// SPDX-License-Identifier: MIT OR Apache-2.0
//! Lines of text between two cells.
//!
//! Run it in both. Each line that one types is a message; what the other sends is printed. When the
//! other end restarts, the chat goes on with the next session and says how many lines had arrived.
//! It ends with its input, or when the other end leaves.

use clap::Parser;
use ivshmem::{Channel, ConnectOptions, Deadline, Device, Error};
use rustix::event::{poll, PollFd, PollFlags};
use std::io::{self, Read};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Lines of text between two cells
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The device file
    #[arg(short, long, default_value = "/dev/ivshmem0")]
    device: PathBuf,

    /// The peer to talk to [default: the next one]
    #[arg(short, long)]
    peer: Option<u32>,

    /// At the end, wait so many seconds until the peer has read everything
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    linger: u64,
}

/// Why the chat ended too early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Device(#[from] Error),
    #[error("poll failed: {0}")]
    Poll(#[from] rustix::io::Errno),
    #[error("cannot read the input: {0}")]
    Input(#[from] io::Error),
    #[error("peer {peer} has not read everything: {confirmed} of {sent} lines")]
    Unread {
        peer: u32,
        confirmed: u64,
        sent: u64,
    },
}

fn main() -> ExitCode {
    match chat(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ivshmem-chat: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn chat(options: &Options) -> Result<(), Failure> {
    let device = Device::open(&options.device)?;
    let info = device.info();
    let peer = options.peer.unwrap_or((info.id + 1) % info.max_peers);
    let mut typed = Typed::default();
    loop {
        let channel = device.connect(peer, ConnectOptions::new())?;
        println!("-- waiting for peer {peer}");
        channel.wait_writable(Deadline::NEVER)?;
        println!("-- peer {peer} is there");
        match session(&channel, &mut typed) {
            Ok(End::Input) => return finish(&channel, peer, options.linger),
            Ok(End::Peer) => {
                println!("-- peer {peer} has left");
                return Ok(());
            }
            Err(Failure::Device(Error::Reset { sent, confirmed })) => {
                println!("-- peer {peer} restarted, {confirmed} of {sent} lines had arrived");
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// How a session ended in peace.
enum End {
    /// We have nothing more to say.
    Input,
    /// The peer has closed its end.
    Peer,
}

/// Sends what is typed and prints what comes.
fn session(channel: &Channel, typed: &mut Typed) -> Result<End, Failure> {
    let stdin = io::stdin();
    loop {
        while let Some(line) = typed.next_line() {
            send(channel, &line)?;
        }
        if typed.ended {
            return Ok(End::Input);
        }
        let mut fds = [
            PollFd::new(&stdin, PollFlags::IN),
            PollFd::new(channel, PollFlags::IN),
        ];
        poll(&mut fds, None)?;
        let (input, arrived) = (!fds[0].revents().is_empty(), !fds[1].revents().is_empty());
        if arrived {
            let Some(message) = channel.receive_message()? else {
                return Ok(End::Peer);
            };
            println!("{}", printable(&message));
        }
        if input {
            typed.read(&mut stdin.lock())?;
        }
    }
}

/// Sends one line. One that does not fit is refused in words, and the chat goes on.
fn send(channel: &Channel, line: &[u8]) -> Result<(), Failure> {
    match channel.send_fully(line) {
        Err(error @ Error::TooLarge { .. }) => println!("-- not sent: {error}"),
        // The end is found by whoever reads.
        Err(Error::Empty | Error::Closed) => {}
        other => other?,
    }
    Ok(())
}

/// Waits until the peer has read everything.
fn finish(channel: &Channel, peer: u32, seconds: u64) -> Result<(), Failure> {
    let sent = channel.status()?.sent;
    let deadline = Deadline::after(Duration::from_secs(seconds));
    match channel.wait_confirmed(sent, deadline) {
        Ok(_) => Ok(()),
        Err(Error::TimedOut | Error::Closed | Error::Reset { .. }) => Err(Failure::Unread {
            peer,
            confirmed: channel.status()?.confirmed,
            sent,
        }),
        Err(error) => Err(error.into()),
    }
}

/// The peer's text, made fit for a terminal: it may be anything.
fn printable(message: &[u8]) -> String {
    let text = String::from_utf8_lossy(message);
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

/// What was typed and is not sent yet.
#[derive(Debug, Default)]
struct Typed {
    bytes: Vec<u8>,
    ended: bool,
}

impl Typed {
    /// Takes what there is to read.
    fn read(&mut self, input: &mut impl Read) -> io::Result<()> {
        let mut buffer = [0; 4096];
        let length = input.read(&mut buffer)?;
        self.bytes.extend_from_slice(&buffer[..length]);
        self.ended = length == 0;
        Ok(())
    }

    /// The next line, without its end; at the end of the input also one that has none.
    fn next_line(&mut self) -> Option<Vec<u8>> {
        let Some(end) = self.bytes.iter().position(|&byte| byte == b'\n') else {
            let rest = std::mem::take(&mut self.bytes);
            if self.ended && !rest.is_empty() {
                return Some(rest);
            }
            self.bytes = rest;
            return None;
        };
        let mut line: Vec<u8> = self.bytes.drain(..=end).collect();
        line.pop();
        Some(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_wherever_the_input_is() {
        let mut typed = Typed::default();
        typed.read(&mut &b"one\ntw"[..]).expect("read");
        assert_eq!(typed.next_line().as_deref(), Some(&b"one"[..]));
        assert_eq!(typed.next_line(), None);
        typed.read(&mut &b"o\n\nrest"[..]).expect("read");
        assert_eq!(typed.next_line().as_deref(), Some(&b"two"[..]));
        assert_eq!(typed.next_line().as_deref(), Some(&b""[..]));
        assert_eq!(typed.next_line(), None);
        typed.read(&mut io::empty()).expect("read");
        assert_eq!(typed.next_line().as_deref(), Some(&b"rest"[..]));
        assert_eq!(typed.next_line(), None);
    }

    #[test]
    fn a_terminal_is_safe_from_the_peer() {
        assert_eq!(printable("Grüße".as_bytes()), "Grüße");
        assert!(!printable(b"\x1b[2J\x07\xff").chars().any(char::is_control));
    }
}
