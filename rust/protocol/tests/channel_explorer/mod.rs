// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Explores all that two ends of a channel can do: every order of their accesses to the memory, with crashes between
//! any two of them. The ends call the core of the protocol ([`end`]); a call can stop at each access ([`replay`]).

pub(crate) mod end;
pub(crate) mod replay;

use crate::channel_ends::Counted;
use end::{Doing, End};
use ivshmem_protocol::channel::layout::Section;
use ivshmem_protocol::channel::session::{claim, Session};
use replay::Replay;
use std::collections::hash_map::DefaultHasher;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};

/// A header, two blocks and a ring of 64 bytes.
pub(crate) const SECTION: usize = 256;

pub(crate) fn section(end: usize) -> Section {
    Section {
        offset: end * SECTION,
        size: SECTION as u32,
        max_peers: 2,
    }
}

/// What is wrong with the ends, to see that the exploration notices.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nothing.
    None,
    /// They go to sleep without looking again.
    Sleepy,
    /// A receiver does not see that the peer's epoch and echo have changed.
    Blind,
    /// A session starts without making the epoch 0 first.
    KeepsEpoch,
    /// An epoch is chosen without regard to the last one.
    Forgets,
    /// They do not ask to be rung for confirmations.
    Unasked,
}

/// What happens to one that crashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crash {
    /// It starts again: the process was killed.
    Again,
    /// The hypervisor notices and resets its state; it starts again.
    Reset,
    /// Likewise, and it never starts again.
    Gone,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Scenario {
    /// How many messages each end sends in a session.
    pub(crate) messages: [u64; 2],
    /// Their length.
    pub(crate) length: u32,
    /// How many of them may be unconfirmed.
    pub(crate) unconfirmed: u64,
    /// How often each may crash.
    pub(crate) crashes: [u8; 2],
    pub(crate) crash: Crash,
    /// Whether an end closes when all that it has sent is confirmed.
    pub(crate) closes: [bool; 2],
    /// Whether each start claims the section; the memory is full of garbage then.
    pub(crate) claims: bool,
    pub(crate) fault: Fault,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            messages: [1, 1],
            length: 4,
            unconfirmed: u64::MAX,
            crashes: [0, 0],
            crash: Crash::Again,
            closes: [false; 2],
            claims: false,
            fault: Fault::None,
        }
    }
}

/// All there is at one moment.
#[derive(Clone, PartialEq, Eq, Hash)]
struct State {
    words: Vec<u32>,
    ends: [End; 2],
    /// Whether the state table says that an end is there.
    present: [bool; 2],
}

/// How much was explored.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Explored {
    /// Different states.
    pub(crate) states: usize,
    /// Of these, those in which nothing more happens.
    pub(crate) finals: usize,
}

impl State {
    fn new(scenario: &Scenario) -> Self {
        let memory = Counted::new(2 * SECTION);
        if scenario.claims {
            // Each start claims its section: until then the blocks look as if somebody were there.
            (0..2 * SECTION / 4).for_each(|word| memory.set(word * 4, word as u32 % 7));
        }
        let blocks = memory.words.borrow().clone();
        let mut words = blocks.clone();
        for end in 0..2 {
            claim(&memory, section(end)).expect("it is there");
            let header = section(end).offset / 4..section(end).offset / 4 + 16;
            words[header.clone()].copy_from_slice(&memory.words.borrow()[header]);
        }
        Self {
            words,
            ends: scenario.crashes.map(End::new),
            present: [true; 2],
        }
    }

    /// What happens if it is the turn of an end: it rings, wakes up, or makes one access that the other may see.
    fn turn(&self, number: usize, scenario: &Scenario) -> Option<Self> {
        let mut next = self.clone();
        let end = &mut next.ends[number];
        match end.doing {
            _ if end.to_ring => {
                end.to_ring = false;
                next.ends[1 - number].bell = true;
            }
            Doing::Sleep if end.bell => {
                end.bell = false;
                end.doing = Doing::Look;
            }
            Doing::Sleep | Doing::Done | Doing::Gone => return None,
            Doing::Start if !self.present[number] => {
                next.present[number] = true;
                next.ends[1 - number].bell = true;
            }
            Doing::Table => {
                end.doing = match self.present[1 - number] {
                    true => Doing::Receive,
                    false => Doing::Absent,
                };
            }
            _ => next.work(number, scenario),
        }
        Some(next)
    }

    fn work(&mut self, number: usize, scenario: &Scenario) {
        let mut spent = false;
        loop {
            let before = &self.ends[number];
            let mut end = before.clone();
            let log = std::mem::take(&mut end.log);
            let receives = end.doing == Doing::Receive;
            let session = before.session.as_ref().filter(|_| receives);
            let memory = Replay::new(number, log, &mut self.words, scenario, session);
            memory.spent.set(spent);
            end.act(number, &self.ends[1 - number], scenario, &memory);
            spent = memory.spent.get();
            let (stopped, log) = (memory.stopped.get(), memory.log.into_inner());
            if stopped {
                self.ends[number].log = log;
                return;
            }
            let pauses = matches!(
                end.doing,
                Doing::Sleep | Doing::Done | Doing::Table | Doing::Start
            );
            let stays = pauses || end.to_ring;
            self.ends[number] = end;
            if stays {
                return;
            }
        }
    }

    /// An end crashes here, with what it has stored and not a bit more.
    fn crash(&self, number: usize, scenario: &Scenario) -> Option<Self> {
        let end = &self.ends[number];
        let idle = end.lives.is_empty() && end.log.is_empty();
        if end.crashes_left == 0 || idle || matches!(end.doing, Doing::Done | Doing::Gone) {
            return None;
        }
        let mut next = self.clone();
        let end = &mut next.ends[number];
        *end = End {
            crashes_left: end.crashes_left - 1,
            lives: std::mem::take(&mut end.lives),
            ..End::new(0)
        };
        if scenario.crash == Crash::Gone {
            end.doing = Doing::Gone;
        }
        if scenario.crash != Crash::Again {
            next.present[number] = false;
            next.ends[1 - number].bell = true;
        }
        Some(next)
    }

    /// Property 5: when nothing more happens, everything has happened.
    fn judge(&self, scenario: &Scenario) {
        for number in 0..2 {
            let (end, other) = (&self.ends[number], &self.ends[1 - number]);
            let Some(session) = end.session.as_ref().filter(|_| end.doing == Doing::Sleep) else {
                continue;
            };
            if matches!(other.doing, Doing::Done | Doing::Gone) {
                assert!(!session.is_up(), "end {number} is up with nobody");
                continue;
            }
            let epoch = other.session.as_ref().map(Session::epoch);
            let with = session.is_up().then(|| session.peer_epoch());
            assert_eq!(
                with, epoch,
                "end {number} sleeps, up with another or not at all"
            );
            let [own, others] = [scenario.messages[number], scenario.messages[1 - number]];
            assert_eq!(
                session.sent(),
                (own, own),
                "end {number} sleeps with work to do"
            );
            assert_eq!(
                session.received(),
                (others, others),
                "end {number} sleeps with work to do"
            );
        }
        // Who closes early gets no more.
        if scenario.crashes == [0, 0] && scenario.closes != [true, true] {
            let delivered = |end: usize| {
                self.ends[end]
                    .lives
                    .iter()
                    .map(|life| life.delivered)
                    .sum::<u64>()
            };
            assert_eq!([delivered(1), delivered(0)], scenario.messages);
        }
    }

    /// Two hashes of all of it: two of 10 million states share both with a probability of 10^-24.
    fn fingerprint(&self) -> (u64, u64) {
        let mut first = DefaultHasher::new();
        self.hash(&mut first);
        let mut second = first.clone();
        1u8.hash(&mut second);
        (first.finish(), second.finish())
    }
}

/// Goes through all states that the ends can get into.
///
/// # Panics
///
/// If a property does not hold.
pub(crate) fn explore(scenario: &Scenario) -> Explored {
    let start = State::new(scenario);
    let mut seen = HashSet::from([start.fingerprint()]);
    let mut open = vec![start];
    let mut finals = 0;
    while let Some(state) = open.pop() {
        let turns = [0, 1].map(|end| state.turn(end, scenario));
        if turns.iter().all(Option::is_none) {
            state.judge(scenario);
            finals += 1;
        }
        let crashes = [0, 1].map(|end| state.crash(end, scenario));
        for next in turns.into_iter().chain(crashes).flatten() {
            if seen.insert(next.fingerprint()) {
                open.push(next);
            }
        }
    }
    Explored {
        states: seen.len(),
        finals,
    }
}
