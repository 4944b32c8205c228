// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests with answers and timeouts, between two cells.
//!
//! `ivshmem-request serve` in one cell, `ivshmem-request ask uptime` in the other. A request carries
//! a number that its answer repeats, so an answer that comes after its client has given up is not
//! taken for that of the next request. Requests that may have been carried out are asked again:
//! those of this server can be.

mod message;

use clap::{Parser, Subcommand};
use ivshmem::{Channel, ConnectOptions, Deadline, Device, Error};
use message::{Answer, Request};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Requests with answers and timeouts, between two cells
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
    /// Answer requests until killed
    Serve,
    /// Make a request and print the answer
    Ask {
        /// `uptime`, `load`, or `echo` with a text
        #[arg(required = true)]
        words: Vec<String>,

        /// Wait so many milliseconds for an answer
        #[arg(short, long, default_value_t = 5000)]
        timeout: u64,

        /// Ask so often
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        tries: u32,
    },
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Device(#[from] Error),
    #[error("peer {peer} has not answered within {milliseconds} ms, {tries} times: {reason}")]
    NoAnswer {
        peer: u32,
        milliseconds: u64,
        tries: u32,
        reason: String,
    },
    #[error("peer {peer} refuses: {reason}")]
    Refused { peer: u32, reason: String },
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ivshmem-request: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let device = Device::open(&options.device)?;
    let info = device.info();
    let peer = options.peer.unwrap_or((info.id + 1) % info.max_peers);
    match &options.role {
        Role::Serve => serve(&device, peer),
        Role::Ask {
            words,
            timeout,
            tries,
        } => {
            let client = Client {
                device: &device,
                peer,
                timeout: *timeout,
                tries: *tries,
            };
            let answer = client.ask(&words.join(" "))?;
            println!("{answer}");
            Ok(())
        }
    }
}

/// Answers the requests of one client after the other.
fn serve(device: &Device, peer: u32) -> Result<(), Failure> {
    loop {
        let channel = device.connect(peer, ConnectOptions::new())?;
        match serve_one(&channel) {
            // The client has finished, died or restarted: on to the next.
            Ok(()) | Err(Error::Closed | Error::Reset { .. } | Error::Broken { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

fn serve_one(channel: &Channel) -> Result<(), Error> {
    while let Some(message) = channel.receive_message()? {
        // What is no request has no number to answer to.
        if let Some(request) = Request::parse(&message) {
            let answer = Answer {
                number: request.number,
                result: answer(&request.text),
            };
            channel.send_fully(&answer.bytes())?;
        }
    }
    Ok(())
}

/// What the server knows.
fn answer(request: &str) -> Result<String, String> {
    let read = |path: &str| {
        let text = std::fs::read_to_string(path);
        text.map_err(|error| format!("{path}: {error}"))
    };
    match request.split_once(' ').unwrap_or((request, "")) {
        ("uptime", "") => Ok(read("/proc/uptime")?.trim_end().into()),
        ("load", "") => Ok(read("/proc/loadavg")?.trim_end().into()),
        ("echo", text) => Ok(text.into()),
        (other, _) => Err(format!("nobody here knows `{other}`")),
    }
}

/// Who asks.
struct Client<'a> {
    device: &'a Device,
    peer: u32,
    timeout: u64,
    tries: u32,
}

impl Client<'_> {
    /// Asks until there is an answer, in a new session where the last one ended.
    fn ask(&self, text: &str) -> Result<String, Failure> {
        // The deadline holds for sending too.
        let options = ConnectOptions::new().nonblocking(true);
        let mut reason = String::new();
        let mut channel = None;
        for number in 1..=self.tries {
            let request = Request {
                number,
                text: text.into(),
            };
            let open = match channel.take() {
                Some(open) => open,
                None => self.device.connect(self.peer, options)?,
            };
            match self.ask_once(&open, &request) {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(reason)) => {
                    let peer = self.peer;
                    return Err(Failure::Refused { peer, reason });
                }
                // The session is as good as before.
                Err(error @ Error::TimedOut) => {
                    reason = self.explain(&open, &error);
                    channel = Some(open);
                }
                Err(error @ (Error::Closed | Error::Reset { .. })) => reason = error.to_string(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(Failure::NoAnswer {
            peer: self.peer,
            milliseconds: self.timeout,
            tries: self.tries,
            reason,
        })
    }

    /// Sends a request, and waits for its answer. Other answers are late ones of earlier requests.
    fn ask_once(
        &self,
        channel: &Channel,
        request: &Request,
    ) -> ivshmem::Result<Result<String, String>> {
        let deadline = Deadline::after(Duration::from_millis(self.timeout));
        loop {
            channel.wait_writable(deadline)?;
            match channel.send(&request.bytes()) {
                Err(Error::WouldBlock) => {}
                other => break other?,
            }
        }
        loop {
            channel.wait_readable(deadline)?;
            let message = match channel.receive_message() {
                Err(Error::WouldBlock) => continue,
                other => other?.ok_or(Error::Closed)?,
            };
            match Answer::parse(&message) {
                Some(answer) if answer.number == request.number => return Ok(answer.result),
                _ => {}
            }
        }
    }

    /// Whether nobody is there, or somebody who does not answer.
    fn explain(&self, channel: &Channel, error: &Error) -> String {
        match channel.status() {
            Ok(status) if status.sent == 0 => "nobody is there".into(),
            Ok(status) if status.confirmed < status.sent => "it has not read the request".into(),
            _ => error.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_answers_or_says_why_not() {
        assert_eq!(answer("echo a  b"), Ok("a  b".into()));
        assert_eq!(answer("echo"), Ok(String::new()));
        assert!(answer("uptime").expect("procfs").contains('.'));
        assert!(answer("uptime now").is_err());
        assert!(answer("dance").expect_err("unknown").contains("dance"));
    }
}
