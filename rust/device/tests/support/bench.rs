// SPDX-License-Identifier: MIT OR Apache-2.0

//! A link on the bench: no sockets, no threads; the test makes each access of each guest, and
//! counts the interrupts that arrive.

use ivshmem_device::lines::IrqRequest;
use ivshmem_device::lines::Signal;
use ivshmem_device::link::Link;
use ivshmem_device::link::Space;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::LinkSpec;
use ivshmem_device::statistics::PeerKind;
use ivshmem_device::statistics::Statistics;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;
use std::sync::Arc;

pub(crate) const ID: u64 = 0x00;
pub(crate) const MAX_PEERS: u64 = 0x04;
pub(crate) const INT_CTRL: u64 = 0x08;
pub(crate) const DOORBELL: u64 = 0x0c;
pub(crate) const STATE: u64 = 0x10;

pub(crate) const COMMAND: u64 = 0x04;
pub(crate) const COMMAND_MEMORY: u16 = 1 << 1;
pub(crate) const COMMAND_MASTER: u16 = 1 << 2;
pub(crate) const COMMAND_INTX_DISABLE: u16 = 1 << 10;
pub(crate) const ONE_SHOT: u64 = 0x43;
pub(crate) const MSIX_CONTROL: u64 = 0x62;
pub(crate) const MSIX_ENABLE: u16 = 1 << 15;
pub(crate) const MSIX_FUNCTION_MASK: u16 = 1 << 14;

/// A line that counts.
#[derive(Clone, Default)]
pub(crate) struct Counter(Arc<AtomicU32>);

impl Counter {
    /// How often it was signalled since this was last asked.
    pub(crate) fn take(&self) -> u32 {
        self.0.swap(0, Ordering::Relaxed)
    }

    pub(crate) fn boxed(&self) -> Option<Box<dyn Signal>> {
        Some(Box::new(self.clone()))
    }
}

impl Signal for Counter {
    fn signal(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

/// A link with counters at the ends of its lines.
pub(crate) struct Bench {
    pub(crate) link: Link,
    lines: Vec<Vec<Counter>>,
}

impl Bench {
    /// A link with nobody on it.
    pub(crate) fn empty(options: LinkOptions) -> Self {
        let lines = usize::from(options.vectors.max(1));
        let peers = usize::from(options.max_peers);
        let line = || (0..lines).map(|_| Counter::default()).collect();
        Self {
            link: Link::new(LinkSpec::new(options).expect("good options")).expect("memory"),
            lines: (0..peers).map(|_| line()).collect(),
        }
    }

    /// The link, and the counters of each peer's lines.
    #[allow(dead_code, reason = "for tests that share the link with threads")]
    pub(crate) fn into_parts(self) -> (Link, Vec<Vec<Counter>>) {
        (self.link, self.lines)
    }

    /// A link on which all peers have brought up their device as a driver does.
    pub(crate) fn new(options: LinkOptions) -> Self {
        let mut bench = Self::empty(options);
        for peer in bench.link.spec().peers() {
            bench.come(peer);
        }
        bench
    }

    /// A client comes and brings up its device.
    pub(crate) fn come(&mut self, peer: u16) {
        self.link.attach(peer, PeerKind::Client);
        self.bring_up(peer);
    }

    /// What a driver does at probe.
    pub(crate) fn bring_up(&mut self, peer: u16) {
        self.command(peer, COMMAND_MEMORY | COMMAND_MASTER);
        self.set_lines(peer);
        self.msix(peer, MSIX_ENABLE);
        self.set(peer, INT_CTRL, 1);
    }

    /// Connects the counters.
    pub(crate) fn set_lines(&mut self, peer: u16) {
        match self.link.spec().options().vectors {
            0 => self.set_intx(peer),
            vectors => (0..vectors).for_each(|vector| self.set_line(peer, vector)),
        }
    }

    /// Connects the counter of one vector.
    pub(crate) fn set_line(&mut self, peer: u16, vector: u16) {
        let line = &self.lines[usize::from(peer)].get(usize::from(vector));
        let request = IrqRequest::SetVectors {
            first: vector.into(),
            signals: line.iter().map(|line| line.boxed()).collect(),
        };
        self.link.irq_request(peer, request);
    }

    /// Connects the first counter to the INTx line.
    pub(crate) fn set_intx(&mut self, peer: u16) {
        let signal = self.lines[usize::from(peer)][0].boxed();
        self.link.irq_request(peer, IrqRequest::SetIntx(signal));
    }

    pub(crate) fn command(&mut self, peer: u16, value: u16) {
        self.link
            .write(peer, Space::Config, COMMAND, &value.to_le_bytes());
    }

    pub(crate) fn msix(&mut self, peer: u16, value: u16) {
        self.link
            .write(peer, Space::Config, MSIX_CONTROL, &value.to_le_bytes());
    }

    pub(crate) fn one_shot(&mut self, peer: u16, on: bool) {
        self.link
            .write(peer, Space::Config, ONE_SHOT, &[u8::from(on)]);
    }

    pub(crate) fn get(&mut self, peer: u16, register: u64) -> u32 {
        let mut data = [0; 4];
        self.link.read(peer, Space::Registers, register, &mut data);
        u32::from_le_bytes(data)
    }

    pub(crate) fn set(&mut self, peer: u16, register: u64, value: u32) {
        self.link
            .write(peer, Space::Registers, register, &value.to_le_bytes());
    }

    pub(crate) fn ring(&mut self, from: u16, to: u16, vector: u16) {
        self.set(from, DOORBELL, (u32::from(to) << 16) | u32::from(vector));
    }

    /// Interrupts that arrived at a peer on a vector since this was last asked.
    pub(crate) fn arrived(&self, peer: u16, vector: u16) -> u32 {
        self.lines[usize::from(peer)][usize::from(vector)].take()
    }

    /// The same for all vectors of all peers together.
    pub(crate) fn all_arrived(&self) -> u32 {
        self.lines.iter().flatten().map(Counter::take).sum()
    }

    pub(crate) fn config(&mut self, peer: u16) -> [u8; 256] {
        let mut bytes = [0; 256];
        self.link.read(peer, Space::Config, 0, &mut bytes);
        bytes
    }

    /// A word of the memory, read past the device.
    pub(crate) fn word(&self, offset: usize) -> u32 {
        let mut data = [0; 4];
        self.link.region().read(offset, &mut data).expect("a word");
        u32::from_ne_bytes(data)
    }

    /// A store past the device, as a guest's to memory that is mapped.
    pub(crate) fn poke(&self, offset: usize, value: u32) {
        let stored = self.link.region().write(offset, &value.to_ne_bytes());
        stored.expect("a word");
    }

    pub(crate) fn statistics(&mut self) -> Statistics {
        self.link.snapshot(false)
    }
}
