// SPDX-License-Identifier: MIT OR Apache-2.0
//! The root cell's half of the classic ivshmem demo.
//!
//! Two peers have a conversation: the inmate rings us on its timer, we look into its output
//! section, print the text that we find there, and ring back; on our doorbell the inmate writes
//! its text again. It is the shortest complete program for the crate `ivshmem`: a state that says
//! "I am here", a wait in `poll`, events, a look at the shared memory, a doorbell.
//!
//! Counters go where the classic demo puts them: the number of interrupts into our word of the
//! read/write section, ten times that into the first word of our output section.

mod message;

use clap::Parser;
use ivshmem::{Deadline, Device, EventBuffer, EventKind, Info, StateFlags};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use std::path::PathBuf;
use std::process::ExitCode;

/// The root cell's half of the classic ivshmem demo
#[derive(Debug, Parser)]
#[command(version)]
struct Options {
    /// The device file
    #[arg(short, long, default_value = "/dev/ivshmem0")]
    device: PathBuf,

    /// The peer to talk to [default: the next one]
    #[arg(short, long, value_name = "PEER")]
    target: Option<u32>,

    /// End after so many messages
    #[arg(short, long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,

    /// Give up when nothing happens for so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60,
        value_parser = clap::value_parser!(u32).range(1..=86400))]
    timeout: u32,
}

/// Why the conversation ended too early.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Device(#[from] ivshmem::Error),
    #[error("poll failed: {0}")]
    Poll(#[from] rustix::io::Errno),
    #[error("peer {0} has left (its state is 0): it was shut down, reset or killed")]
    PeerLeft(u32),
    #[error("nothing from peer {target} for {seconds} s: is its cell running?")]
    Silence { target: u32, seconds: u32 },
    #[error("the link has no room for texts: its output sections are empty")]
    NoOutputSections,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match Demo::open(&options).and_then(|mut demo| demo.run()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("ivshmem-demo: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// The conversation with one peer.
struct Demo {
    device: Device,
    info: Info,
    target: u32,
    /// The vector that we ring: as in the classic demo, our ID + 1 if there are so many.
    vector: u32,
    rounds: u32,
    timeout: u32,
    interrupts: u32,
}

impl Demo {
    fn open(options: &Options) -> Result<Self, Failure> {
        let device = Device::open(&options.device)?;
        let info = *device.info();
        let target = options.target.unwrap_or((info.id + 1) % info.max_peers);
        if info.output_of(target)?.size == 0 {
            return Err(Failure::NoOutputSections);
        }
        let vector = if info.id + 1 < info.vectors {
            info.id + 1
        } else {
            0
        };
        Ok(Self {
            device,
            info,
            target,
            vector,
            rounds: options.rounds,
            timeout: options.timeout,
            interrupts: 0,
        })
    }

    /// All of the conversation. On the way out, however it ends, closing the file sets our state
    /// to 0, which tells the peer that we have left.
    fn run(&mut self) -> Result<(), Failure> {
        println!("ID = {}", self.info.id);
        println!("Maximum peers = {}", self.info.max_peers);
        self.count(0)?;
        self.dump()?;

        self.device
            .set_state(self.info.id + 1, StateFlags::default())?;
        let mut was_there = self.device.state(self.target)? != 0;
        if !was_there {
            println!("Waiting for peer {}", self.target);
        }
        let mut received = 0;
        while received < self.rounds {
            let rang = self.wait(&mut was_there)?;
            if rang && self.receive()? {
                received += 1;
            }
            if was_there {
                println!("Sending interrupt {} to peer {}", self.vector, self.target);
                self.device.ring(self.target, self.vector)?;
            }
        }
        self.device.set_state(0, StateFlags::default())?;
        println!("Done after {received} messages");
        Ok(())
    }

    /// Waits for events. Returns whether the peer rang; notices when it comes or leaves.
    fn wait(&self, was_there: &mut bool) -> Result<bool, Failure> {
        let mut fds = [PollFd::new(&self.device, PollFlags::IN | PollFlags::PRI)];
        let limit = Timespec {
            tv_sec: self.timeout.into(),
            tv_nsec: 0,
        };
        if poll(&mut fds, Some(&limit))? == 0 {
            return Err(Failure::Silence {
                target: self.target,
                seconds: self.timeout,
            });
        }
        let (mut rang, mut state_changed) = (false, false);
        let mut buffer = EventBuffer::new(16);
        for event in self.device.events(&mut buffer, Deadline::NOW)? {
            match event.kind {
                EventKind::State { peer, new, .. } => {
                    state_changed = true;
                    println!("Peer {peer} has state {new} now");
                    if peer == self.target {
                        if new == 0 && *was_there {
                            return Err(Failure::PeerLeft(peer));
                        }
                        *was_there = new != 0;
                    }
                }
                // A change of a state is an interrupt on vector 0 too.
                EventKind::Doorbell { vector: 0, .. } if state_changed => {}
                EventKind::Doorbell { vector, count } => {
                    println!("Interrupt on vector {vector} ({count} times)");
                    rang = true;
                }
                _ => {}
            }
        }
        Ok(rang)
    }

    /// Looks at what the peer wrote. Returns whether there is a message.
    fn receive(&mut self) -> Result<bool, Failure> {
        self.interrupts = self.interrupts.wrapping_add(1);
        self.count(self.interrupts)?;
        self.dump()?;
        let section = self.info.output_of(self.target)?;
        let mut bytes = [0; message::LONGEST];
        let length = section.size.min(bytes.len() as u64) as usize;
        let length = self.device.read_at(&mut bytes[..length], section.offset)?;
        let Some(text) = message::text(&bytes[..length]) else {
            return Ok(false);
        };
        println!("Received message from Inmate: {text}");
        Ok(true)
    }

    /// Writes the counters that the classic demo shows to the other side.
    fn count(&self, interrupts: u32) -> Result<(), Failure> {
        if self.info.rw.size > 0 {
            self.device
                .write_word(self.rw_word(self.info.id), interrupts)?;
        }
        let tenfold = interrupts.wrapping_mul(10);
        Ok(self.device.write_word(self.info.output.offset, tenfold)?)
    }

    /// Prints the words of all peers, as the classic demo does.
    fn dump(&self) -> Result<(), Failure> {
        for peer in 0..self.info.max_peers {
            println!("state[{peer}] = {}", self.device.state(peer)?);
        }
        if self.info.rw.size > 0 {
            for peer in 0..self.info.max_peers {
                let word = self.device.read_word(self.rw_word(peer))?;
                println!("rw[{peer}] = {word}");
            }
        }
        for peer in 0..self.info.max_peers {
            let offset = self.info.output_of(peer)?.offset;
            let word = self.device.read_word(offset)?;
            println!("in@0x{:04x} = {word}", offset - self.info.outputs.offset);
        }
        Ok(())
    }

    /// Where the word of `peer` in the read/write section is.
    fn rw_word(&self, peer: u32) -> u64 {
        self.info.rw.offset + 4 * u64::from(peer)
    }
}
