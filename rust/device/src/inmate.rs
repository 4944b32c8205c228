// SPDX-License-Identifier: MIT OR Apache-2.0

//! Soft inmates: peers that live inside the model, so that a guest has somebody to talk to without
//! a second QEMU.
//!
//! A soft inmate has no way of its own to the link: it writes the same registers as a guest, and
//! stores to the memory only where its section layout allows it. Each runs on one thread that
//! sleeps until it is interrupted. What it does is an [`Inmate`]; [`Cell`] is what it has.

use crate::lines::IrqRequest;
use crate::lines::Signal;
use crate::link::SharedLink;
use crate::link::Space;
use crate::region::Region;
use crate::statistics::PeerKind;
use clap::ValueEnum;
use ivshmem_protocol::config;
use ivshmem_protocol::layout::Layout;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::registers;
use ivshmem_protocol::state_table;
use std::fmt;
use std::io;
use std::str::FromStr;
use std::sync::mpsc;
use std::sync::mpsc::RecvTimeoutError;
use std::sync::Arc;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use thiserror::Error;

/// What the demo inmate says.
pub const GREETING: &[u8] = b"Hi!\n\0";

/// How often the demo inmate rings the root cell.
const DEMO_PERIOD: Duration = Duration::from_secs(1);

/// How much of the root cell's output section the echo inmate copies, in bytes.
pub const ECHO_SIZE: usize = 64;

/// MSI-X control, upper byte: enable.
const MSIX_ENABLE: [u8; 1] = [0x80];

/// What a soft inmate does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Behaviour {
    /// The classic demo: on each interrupt counts in its R/W word and greets in its output section;
    /// rings peer 0 once a second, on vector ID+1 if there is one, else 0
    Demo,
    /// As `demo`, but never rings
    Quiet,
    /// Rung on a vector, copies the first 64 bytes of peer 0's output section to its own and rings
    /// all others that have a state on the same vector
    Echo,
}

/// A soft inmate as asked for on the command line: `PEER` or `PEER:BEHAVIOUR`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InmateSpec {
    /// Peer ID.
    pub peer: u16,
    /// What it does.
    pub behaviour: Behaviour,
}

/// Why a text describes no soft inmate.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum InmateParseError {
    /// It does not begin with a number.
    #[error("{0:?} is not a peer ID: write PEER or PEER:BEHAVIOUR")]
    Peer(String),
    /// There is no such behaviour.
    #[error("there is no behaviour {0:?}: use demo, quiet or echo")]
    Behaviour(String),
}

impl FromStr for InmateSpec {
    type Err = InmateParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (peer, behaviour) = text.split_once(':').unwrap_or((text, "demo"));
        Ok(Self {
            peer: peer
                .parse()
                .map_err(|_| InmateParseError::Peer(peer.into()))?,
            behaviour: <Behaviour as ValueEnum>::from_str(behaviour, false)
                .map_err(|_| InmateParseError::Behaviour(behaviour.into()))?,
        })
    }
}

/// What a soft inmate does with its cell.
pub trait Inmate: Send {
    /// Called once, with interrupts enabled and the state still 0.
    fn start(&mut self, cell: &Cell);

    /// Called for each interrupt.
    fn interrupt(&mut self, cell: &Cell, vector: u16);

    /// How often [`tick`](Self::tick) is to be called, if at all.
    fn period(&self) -> Option<Duration> {
        None
    }

    /// Called once per period.
    fn tick(&mut self, _cell: &Cell) {}
}

impl Behaviour {
    fn inmate(self) -> Box<dyn Inmate> {
        let demo = |rings| Box::new(Demo { count: 0, rings });
        match self {
            Self::Demo => demo(true),
            Self::Quiet => demo(false),
            Self::Echo => Box::new(Echo { states: Vec::new() }),
        }
    }
}

/// A soft inmate's view of the link.
pub struct Cell {
    link: SharedLink,
    region: Arc<Region>,
    layout: Layout,
    vectors: u16,
}

impl fmt::Debug for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cell")
            .field("layout", &self.layout)
            .finish_non_exhaustive()
    }
}

impl Cell {
    fn new(link: SharedLink, peer: u16) -> Self {
        let (region, layout, vectors) = {
            let link = link.lock();
            let spec = link.spec();
            let vectors = spec.options().vectors;
            (link.region().clone(), spec.layout(peer), vectors)
        };
        Self {
            link,
            region,
            layout,
            vectors,
        }
    }

    /// Own peer ID.
    #[must_use]
    pub fn id(&self) -> u16 {
        self.layout.id()
    }

    /// All other peer IDs.
    pub fn others(&self) -> impl Iterator<Item = u16> {
        let id = self.id();
        (0..self.layout.max_peers()).filter(move |&peer| peer != id)
    }

    /// Number of MSI-X vectors, 0 for INTx.
    #[must_use]
    pub fn vectors(&self) -> u16 {
        self.vectors
    }

    fn write(&self, space: Space, offset: u64, data: &[u8]) {
        self.link.lock().write(self.id(), space, offset, data);
    }

    fn write_register(&self, register: usize, value: u32) {
        self.write(Space::Registers, register as u64, &value.to_le_bytes());
    }

    /// Rings `peer` on `vector`.
    pub fn ring(&self, peer: u16, vector: u16) {
        self.write_register(registers::DOORBELL, registers::doorbell(peer, vector));
    }

    /// Publishes the own state.
    pub fn set_state(&self, state: u32) {
        self.write_register(registers::STATE, state);
    }

    /// What the state table says of `peer`.
    #[must_use]
    pub fn state(&self, peer: u16) -> u32 {
        let offset = state_table::entry_offset(peer);
        self.region
            .load(offset, LoadOrder::Acquire)
            .unwrap_or(state_table::ABSENT)
    }

    /// Stores `data` at `offset` of the region as far as it is allowed.
    fn store(&self, offset: u64, data: &[u8]) {
        if let Ok(count) = self.layout.write(offset, data.len() as u64) {
            // Cannot fail: the layout said that it is there.
            let _ = self.region.write(offset as usize, &data[..count as usize]);
        }
    }

    /// Stores `value` in the own word of the R/W section, if it has one.
    pub fn set_rw_word(&self, value: u32) {
        let offset = self.layout.rw().offset + 4 * u64::from(self.id());
        if self.layout.rw().contains(offset) {
            self.store(offset, &value.to_ne_bytes());
        }
    }

    /// Stores `data` at the start of the own output section, if there is one.
    pub fn set_output(&self, data: &[u8]) {
        let section = self.layout.output();
        let size = data.len().min(section.size as usize);
        self.store(section.offset, &data[..size]);
    }

    /// Copies the start of `peer`'s output section to `data`; zeros where there is none.
    pub fn output_of(&self, peer: u16, data: &mut [u8]) {
        data.fill(0);
        if let Some(section) = self.layout.output_of(peer) {
            let size = data.len().min(section.size as usize);
            // Cannot fail: the section is within the region.
            let _ = self.region.read(section.offset as usize, &mut data[..size]);
        }
    }

    /// What a driver does at the start: interrupts on, state still 0.
    fn bring_up(&self, events: &mpsc::Sender<Event>) {
        self.link.lock().attach(self.id(), PeerKind::Inmate);
        let command = config::COMMAND_MEMORY | config::COMMAND_MASTER;
        self.write(
            Space::Config,
            config::COMMAND.into(),
            &command.to_le_bytes(),
        );
        let signal = |vector| {
            let events = events.clone();
            Some(Box::new(Ring { vector, events }) as Box<dyn Signal>)
        };
        let request = if self.vectors == 0 {
            IrqRequest::SetIntx(signal(0))
        } else {
            let enable = u64::from(crate::config_space::MSIX_CAPABILITY) + 3;
            self.write(Space::Config, enable, &MSIX_ENABLE);
            IrqRequest::SetVectors {
                first: 0,
                signals: (0..self.vectors).map(signal).collect(),
            }
        };
        self.link.lock().irq_request(self.id(), request);
        self.write_register(registers::INT_CTRL, registers::INT_CTRL_ENABLE);
    }

    /// The end of an interrupt.
    fn end_of_interrupt(&self) {
        if self.vectors == 0 {
            let mut link = self.link.lock();
            link.irq_request(self.id(), IrqRequest::UnmaskIntx);
        }
    }
}

/// What a soft inmate's thread waits for.
enum Event {
    Interrupt(u16),
    Stop,
}

/// The end of an interrupt line at a soft inmate.
struct Ring {
    vector: u16,
    events: mpsc::Sender<Event>,
}

impl Signal for Ring {
    fn signal(&self) {
        // It fails only if the inmate has been stopped.
        let _ = self.events.send(Event::Interrupt(self.vector));
    }
}

/// A soft inmate at work; dropped, it stops, and its peer has gone.
#[derive(Debug)]
pub struct Running {
    events: mpsc::Sender<Event>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Running {
    /// Starts a soft inmate. When this returns, its state is published.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot have a thread.
    pub fn start(link: &SharedLink, spec: InmateSpec) -> io::Result<Self> {
        Self::start_with(link, spec.peer, spec.behaviour.inmate())
    }

    /// Starts a soft inmate with a behaviour of the caller's.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot have a thread.
    pub fn start_with(
        link: &SharedLink,
        peer: u16,
        mut inmate: Box<dyn Inmate>,
    ) -> io::Result<Self> {
        let (events, receiver) = mpsc::channel();
        let cell = Cell::new(link.clone(), peer);
        cell.bring_up(&events);
        inmate.start(&cell);
        let thread = thread::Builder::new()
            .name(format!("inmate {peer}"))
            .spawn(move || run(&cell, inmate.as_mut(), &receiver))?;
        Ok(Self {
            events,
            thread: Some(thread),
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It fails only if the thread has ended already.
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(cell: &Cell, inmate: &mut dyn Inmate, events: &mpsc::Receiver<Event>) {
    let mut next = inmate.period().map(|period| Instant::now() + period);
    loop {
        let event = match next {
            Some(next) => events.recv_timeout(next.saturating_duration_since(Instant::now())),
            None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        match event {
            Ok(Event::Interrupt(vector)) => {
                inmate.interrupt(cell, vector);
                cell.end_of_interrupt();
            }
            Err(RecvTimeoutError::Timeout) => {
                inmate.tick(cell);
                next = inmate.period().map(|period| Instant::now() + period);
            }
            Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    cell.link.lock().detach(cell.id());
}

/// [`Behaviour::Demo`] and [`Behaviour::Quiet`].
struct Demo {
    count: u32,
    rings: bool,
}

impl Inmate for Demo {
    fn start(&mut self, cell: &Cell) {
        cell.set_rw_word(0);
        cell.set_state(u32::from(cell.id()) + 1);
    }

    fn interrupt(&mut self, cell: &Cell, _vector: u16) {
        self.count = self.count.wrapping_add(1);
        cell.set_output(GREETING);
        cell.set_rw_word(self.count);
    }

    fn period(&self) -> Option<Duration> {
        self.rings.then_some(DEMO_PERIOD)
    }

    fn tick(&mut self, cell: &Cell) {
        let own = cell.id() + 1;
        cell.ring(0, if own < cell.vectors() { own } else { 0 });
    }
}

/// [`Behaviour::Echo`].
struct Echo {
    states: Vec<u32>,
}

impl Echo {
    /// Whether any state differs from when this was last asked: then an interrupt on vector 0 was a
    /// state change, not a doorbell.
    fn states_changed(&mut self, cell: &Cell) -> bool {
        let states: Vec<_> = cell.others().map(|peer| cell.state(peer)).collect();
        let changed = states != self.states;
        self.states = states;
        changed
    }
}

impl Inmate for Echo {
    fn start(&mut self, cell: &Cell) {
        self.states_changed(cell);
        cell.set_state(u32::from(cell.id()) + 1);
    }

    fn interrupt(&mut self, cell: &Cell, vector: u16) {
        if vector == 0 && self.states_changed(cell) {
            return;
        }
        let mut text = [0; ECHO_SIZE];
        cell.output_of(0, &mut text);
        cell.set_output(&text);
        for peer in cell.others() {
            if cell.state(peer) != state_table::ABSENT {
                cell.ring(peer, vector);
            }
        }
    }
}
