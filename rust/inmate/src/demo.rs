// SPDX-License-Identifier: MIT OR Apache-2.0
//! The classic demo, in the version that says "Hi!": publish a state, ring the
//! target once in a period, and answer each interrupt with a text in the own
//! output section. `main.rs` runs it on the hardware.

use core::fmt::Write;

use crate::error::Error;
use crate::layout::Layout;
use crate::link::{Event, Events, Link};
use crate::options::Options;

/// The dump shows so many peers at most, which is all that Jailhouse allows.
const DUMPED_PEERS: u32 = 12;

/// Why the demo came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The target's state was non-zero and is zero again.
    TargetLeft,
    /// The number of doorbells asked for has been sent.
    RoundsDone,
}

/// A run of the demo.
pub struct Demo<'a, L: Link, W: Write> {
    link: &'a mut L,
    console: &'a mut W,
    options: &'a Options,
    vector: u32,
    target_present: bool,
    /// Doorbells rung at all, and while the target was there.
    sent: u32,
    rounds: u32,
    /// Interrupts taken on all vectors.
    received: u32,
}

impl<'a, L: Link, W: Write> Demo<'a, L, W> {
    /// Checks the options against what the link has.
    ///
    /// # Errors
    /// Target or vector out of range, or an output section too small.
    pub fn new(link: &'a mut L, console: &'a mut W, options: &'a Options) -> Result<Self, Error> {
        let Options {
            target, greeting, ..
        } = options;
        let layout = *link.layout();
        if *target >= layout.max_peers() {
            return Err(Error::Target {
                target: *target,
                max_peers: layout.max_peers(),
            });
        }
        let vectors = link.vectors();
        let vector = options
            .vector
            .unwrap_or(classic_vector(layout.id(), vectors));
        if vector >= vectors {
            return Err(Error::Vector { vector, vectors });
        }
        // write_output stores whole words.
        let needed = greeting.message().len().next_multiple_of(4);
        if (needed as u64) > layout.output_size() {
            return Err(Error::OutputSection {
                needed,
                size: layout.output_size(),
            });
        }
        Ok(Self {
            link,
            console,
            options,
            vector,
            target_present: false,
            sent: 0,
            rounds: 0,
            received: 0,
        })
    }

    /// Runs until the target has left or the rounds are done, then takes the
    /// own state back and prints the counts.
    ///
    /// # Errors
    /// [`Error::Timeout`], or a console that fails: the own state is taken back
    /// then too. [`Error::DeviceGone`]: there is nothing left to touch.
    pub fn run(mut self, events: &mut impl Events) -> Result<Ending, Error> {
        let ending = self.start().and_then(|()| self.converse(events));
        if ending != Err(Error::DeviceGone) {
            self.link.set_state(0);
            self.link.enable_interrupts(false);
        }
        let ending = ending?;
        match ending {
            Ending::TargetLeft => {
                write!(self.console, "IVSHMEM: peer {} left", self.options.target)?
            }
            Ending::RoundsDone => write!(self.console, "IVSHMEM: {} rounds done", self.rounds)?,
        }
        writeln!(
            self.console,
            ", sent {} interrupts, got {}",
            self.sent, self.received
        )?;
        Ok(ending)
    }

    /// Clears what an earlier incarnation may have left before the peers learn
    /// that this one is here.
    fn start(&mut self) -> Result<(), Error> {
        let id = self.link.layout().id();
        self.link.set_rw(id, 0);
        self.link.write_output(&[0; 4]);
        self.link.enable_interrupts(true);
        self.link.set_state(id + 1);
        self.dump()
    }

    fn converse(&mut self, events: &mut impl Events) -> Result<Ending, Error> {
        loop {
            if self.target_left() {
                return Ok(Ending::TargetLeft);
            }
            match events.wait() {
                Event::Interrupt { vector, count, new } => self.answer(vector, count, new)?,
                Event::Period => self.ring()?,
                Event::Tick => {}
                Event::Timeout => {
                    return Err(Error::Timeout {
                        seconds: self.options.timeout_s,
                    })
                }
            }
            if self.options.rounds != 0 && self.rounds >= self.options.rounds {
                return Ok(Ending::RoundsDone);
            }
        }
    }

    /// Looks at the target's state. A state table entry is the only word that
    /// tells; an interrupt for it can be lost or merged with others.
    fn target_left(&mut self) -> bool {
        let there = self.link.state(self.options.target) != 0;
        let left = self.target_present && !there;
        self.target_present = there;
        left
    }

    fn ring(&mut self) -> Result<(), Error> {
        if !self.link.present() {
            return Err(Error::DeviceGone);
        }
        let target = self.options.target;
        writeln!(
            self.console,
            "IVSHMEM: sending IRQ {} to peer {target}",
            self.vector
        )?;
        self.link.ring(target, self.vector);
        self.sent = self.sent.wrapping_add(1);
        if self.target_present {
            self.rounds += 1;
        }
        Ok(())
    }

    fn answer(&mut self, vector: u32, count: u32, new: u32) -> Result<(), Error> {
        self.received = self.received.wrapping_add(new);
        let id = self.link.layout().id();
        self.link.set_rw(id, self.received);
        self.link.write_output(self.options.greeting.message());
        writeln!(self.console, "IVSHMEM: got interrupt {vector} (#{count})")?;
        self.dump()
    }

    /// Prints the first words of all sections, signed as the classic demo does.
    fn dump(&mut self) -> Result<(), Error> {
        let layout: Layout = *self.link.layout();
        let peers = layout.max_peers().min(DUMPED_PEERS);
        for peer in 0..peers {
            writeln!(
                self.console,
                "state[{peer}] = {}",
                self.link.state(peer) as i32
            )?;
        }
        for peer in 0..peers {
            if let Some(word) = self.link.rw(peer) {
                writeln!(self.console, "rw[{peer}] = {}", word as i32)?;
            }
        }
        for peer in 0..peers {
            if let Some(word) = self.link.output(peer) {
                let offset = u64::from(peer) * layout.output_size();
                writeln!(self.console, "in@{offset:#06x} = {}", word as i32)?;
            }
        }
        Ok(())
    }
}

/// The vector on which the classic demo of peer `id` rings: ID + 1, so that the
/// target knows who it was, unless there are too few vectors for that.
fn classic_vector(id: u32, vectors: u32) -> u32 {
    (id + 1) % vectors
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capability::VendorCapability;
    use std::collections::VecDeque;

    /// A link whose other peers are played by the test.
    struct FakeLink {
        layout: Layout,
        vectors: u32,
        present: bool,
        state: Vec<u32>,
        rw: Vec<u32>,
        outputs: Vec<Vec<u8>>,
        /// All that the device was told, in order.
        log: Vec<String>,
    }

    impl FakeLink {
        fn new(id: u32, max_peers: u32, rw_size: u64) -> Self {
            let vendor = VendorCapability {
                offset: 0x40,
                state_table_size: 0x1000,
                rw_section_size: rw_size,
                output_section_size: 0x2000,
                base_address: None,
            };
            Self {
                layout: Layout::new(&vendor, id, max_peers).unwrap(),
                vectors: 4,
                present: true,
                state: vec![0; max_peers as usize],
                rw: vec![7; rw_size as usize / 4],
                outputs: vec![vec![0xff; 0x2000]; max_peers as usize],
                log: Vec::new(),
            }
        }
    }

    impl Link for FakeLink {
        fn layout(&self) -> &Layout {
            &self.layout
        }
        fn present(&self) -> bool {
            self.present
        }
        fn vectors(&self) -> u32 {
            self.vectors
        }
        fn enable_interrupts(&mut self, enable: bool) {
            self.log.push(format!("enable {enable}"));
        }
        fn set_state(&mut self, state: u32) {
            self.state[self.layout.id() as usize] = state;
            self.log.push(format!("state {state}"));
        }
        fn state(&self, peer: u32) -> u32 {
            self.state[peer as usize]
        }
        fn rw(&self, index: u32) -> Option<u32> {
            self.rw.get(index as usize).copied()
        }
        fn set_rw(&mut self, index: u32, value: u32) {
            if let Some(word) = self.rw.get_mut(index as usize) {
                *word = value;
            }
        }
        fn output(&self, peer: u32) -> Option<u32> {
            let word = self.outputs[peer as usize][..4].try_into().unwrap();
            Some(u32::from_le_bytes(word))
        }
        fn write_output(&mut self, bytes: &[u8]) {
            let own = &mut self.outputs[self.layout.id() as usize];
            own[..bytes.len().next_multiple_of(4)].fill(0);
            own[..bytes.len()].copy_from_slice(bytes);
        }
        fn output_word(&self, peer: u32, offset: u64) -> u32 {
            let word = &self.outputs[peer as usize][offset as usize..][..4];
            u32::from_le_bytes(word.try_into().unwrap())
        }
        fn set_output_word(&mut self, offset: u64, value: u32) {
            let own = &mut self.outputs[self.layout.id() as usize];
            own[offset as usize..][..4].copy_from_slice(&value.to_le_bytes());
        }
        fn barrier(&self) {}
        fn ring(&mut self, target: u32, vector: u32) {
            self.log.push(format!("ring {target} {vector}"));
        }
    }

    /// Plays events to the end; the link is out of reach meanwhile, so the
    /// states that a test wants come from the events of [`Script`].
    struct Script(VecDeque<Event>);

    impl Events for Script {
        fn wait(&mut self) -> Event {
            self.0
                .pop_front()
                .expect("the demo waits for more than the test has")
        }
    }

    fn run(link: &mut FakeLink, line: &str, events: &[Event]) -> (Result<Ending, Error>, String) {
        let options = Options::parse(line).unwrap();
        let mut console = String::new();
        let ending = Demo::new(link, &mut console, &options)
            .and_then(|demo| demo.run(&mut Script(events.iter().copied().collect())));
        (ending, console)
    }

    #[test]
    fn converses_like_the_classic_demo() {
        let mut link = FakeLink::new(1, 3, 0x9000);
        link.state[0] = 1;
        let interrupt = Event::Interrupt {
            vector: 0,
            count: 1,
            new: 1,
        };
        let (ending, console) = run(
            &mut link,
            "rounds=1",
            &[interrupt, Event::Tick, Event::Period],
        );
        assert_eq!(ending, Ok(Ending::RoundsDone));
        assert_eq!(
            link.log,
            [
                "enable true",
                "state 2",
                "ring 0 2",
                "state 0",
                "enable false"
            ]
        );
        assert_eq!(&link.outputs[1][..6], b"Hi!\n\0\0");
        assert_eq!(link.rw[..3], [7, 1, 7]);
        assert_eq!(
            console,
            "state[0] = 1\nstate[1] = 2\nstate[2] = 0\n\
             rw[0] = 7\nrw[1] = 0\nrw[2] = 7\n\
             in@0x0000 = -1\nin@0x2000 = 0\nin@0x4000 = -1\n\
             IVSHMEM: got interrupt 0 (#1)\n\
             state[0] = 1\nstate[1] = 2\nstate[2] = 0\n\
             rw[0] = 7\nrw[1] = 1\nrw[2] = 7\n\
             in@0x0000 = -1\nin@0x2000 = 169961800\nin@0x4000 = -1\n\
             IVSHMEM: sending IRQ 2 to peer 0\n\
             IVSHMEM: 1 rounds done, sent 1 interrupts, got 1\n"
        );
    }

    #[test]
    fn merged_interrupts_all_count() {
        let mut link = FakeLink::new(1, 2, 0x1000);
        link.state[0] = 1;
        let interrupt = Event::Interrupt {
            vector: 3,
            count: 9,
            new: 5,
        };
        let (_, console) = run(&mut link, "rounds=1", &[interrupt, Event::Period]);
        assert!(console.contains("got interrupt 3 (#9)\n"));
        assert_eq!(link.rw[1], 5);
    }

    #[test]
    fn works_without_rw_section() {
        let mut link = FakeLink::new(0, 2, 0);
        link.state[1] = 1;
        let interrupt = Event::Interrupt {
            vector: 0,
            count: 1,
            new: 1,
        };
        let (ending, console) = run(&mut link, "target=1 rounds=1", &[interrupt, Event::Period]);
        assert_eq!(ending, Ok(Ending::RoundsDone));
        assert!(!console.contains("rw["));
    }

    #[test]
    fn doorbells_before_the_target_comes_are_no_rounds() {
        let mut link = FakeLink::new(1, 2, 0);
        let (ending, console) = run(
            &mut link,
            "rounds=1 timeout=1",
            &[Event::Period, Event::Period, Event::Timeout],
        );
        assert_eq!(ending, Err(Error::Timeout { seconds: 1 }));
        assert_eq!(console.matches("sending IRQ 2 to peer 0").count(), 2);
        assert_eq!(link.log.last().unwrap(), "enable false");
    }

    #[test]
    fn notices_that_the_device_is_gone() {
        let mut link = FakeLink::new(1, 2, 0);
        link.present = false;
        let (ending, console) = run(&mut link, "", &[Event::Period]);
        assert_eq!(ending, Err(Error::DeviceGone));
        assert!(!console.contains("sending"));
        assert_eq!(link.log, ["enable true", "state 2"]);
    }

    #[test]
    fn ends_when_the_target_leaves() {
        let mut link = FakeLink::new(1, 2, 0);
        let options = Options::default();
        let mut console = String::new();
        let mut demo = Demo::new(&mut link, &mut console, &options).unwrap();
        assert!(!demo.target_left());
        demo.link.state[0] = 1;
        assert!(!demo.target_left());
        assert!(!demo.target_left());
        demo.link.state[0] = 0;
        assert!(demo.target_left());
        assert!(!demo.target_left());
    }

    #[test]
    fn chooses_vectors_as_the_classic_demo() {
        assert_eq!(classic_vector(1, 16), 2);
        assert_eq!(classic_vector(3, 4), 0);
        assert_eq!(classic_vector(1, 1), 0);
    }

    #[test]
    fn checks_options_against_the_link() {
        let check = |line: &str| {
            let (ending, _) = run(&mut FakeLink::new(1, 2, 0), line, &[]);
            ending.unwrap_err()
        };
        assert_eq!(
            check("target=2"),
            Error::Target {
                target: 2,
                max_peers: 2
            }
        );
        assert_eq!(
            check("vector=4"),
            Error::Vector {
                vector: 4,
                vectors: 4
            }
        );

        let mut link = FakeLink::new(1, 2, 0);
        let vendor = VendorCapability {
            offset: 0x40,
            state_table_size: 0x1000,
            rw_section_size: 0,
            output_section_size: 0,
            base_address: None,
        };
        link.layout = Layout::new(&vendor, 1, 2).unwrap();
        let (ending, _) = run(&mut link, "", &[]);
        assert_eq!(ending, Err(Error::OutputSection { needed: 8, size: 0 }));
    }
}
