// SPDX-License-Identifier: MIT OR Apache-2.0

//! A link: all its devices, its memory, and what goes between them.
//!
//! Pure but for the memory: no sockets, no threads. The transport (`backend`) and
//! soft inmates ([`inmate`](crate::inmate)) call it, each access of a guest being one call. There is
//! one lock for the whole link, around this struct ([`SharedLink`]); it is held for the time of one
//! access and nothing is waited for meanwhile. What a guest does never makes a call fail.

use crate::device::Device;
use crate::lines::IrqRequest;
use crate::region::Region;
use crate::register;
use crate::register::Register;
use crate::spec::LinkSpec;
use crate::statistics;
use ivshmem_protocol::layout::Refused;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::memory::StoreOrder;
use ivshmem_protocol::registers;
use ivshmem_protocol::state_table;
use rustix::io;
use std::ops::Range;
use std::sync::atomic::fence;
use std::sync::atomic::Ordering;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;

/// What the words behind the region hold as long as nobody has stored there.
const GUARD: u32 = 0xdead_c0de;

/// How much of a guarded place is looked at, in bytes from its start.
const GUARDED: u64 = 0x1_0000;

const WORD: usize = state_table::ENTRY_SIZE;

mod disturb;
mod seat;

pub use seat::Seat;

/// What a client can access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    /// Configuration space.
    Config,
    /// BAR 0.
    Registers,
    /// BAR 1.
    MsixTable,
    /// The BAR that holds the memory.
    Memory,
}

/// What a client does there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
}

/// A link and all its devices.
#[derive(Debug)]
pub struct Link {
    spec: Arc<LinkSpec>,
    region: Arc<Region>,
    devices: Vec<Device>,
    canaries: statistics::Canaries,
    /// A fault overwrites memory that nobody may: the canaries tell nothing.
    memory_is_spoiled: bool,
    snapshots: u64,
}

impl Link {
    /// A link with nobody on it and the state table zeroed.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot have the memory.
    pub fn new(spec: LinkSpec) -> io::Result<Self> {
        let size = usize::try_from(spec.memory_bar_size()).map_err(|_| io::Errno::NOMEM)?;
        let region = Region::new(size)?;
        let spec = Arc::new(spec);
        let link = Self {
            devices: spec.peers().map(|id| Device::new(&spec, id)).collect(),
            region: Arc::new(region),
            canaries: statistics::Canaries::default(),
            memory_is_spoiled: false,
            snapshots: 0,
            spec,
        };
        for word in link.guard() {
            link.store(word, GUARD);
        }
        Ok(link)
    }

    /// What the link is made of.
    #[must_use]
    pub fn spec(&self) -> &Arc<LinkSpec> {
        &self.spec
    }

    /// The memory.
    #[must_use]
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    fn device(&mut self, peer: u16) -> &mut Device {
        // Callers are made for a peer of the link, and peers do not vanish.
        &mut self.devices[usize::from(peer)]
    }

    /// Somebody is there as `peer`.
    pub fn attach(&mut self, peer: u16, kind: statistics::PeerKind) {
        let device = self.device(peer);
        device.present = true;
        device.statistics.kind = kind;
        device.statistics.attaches += 1;
    }

    /// `peer` has gone, in whatever way: its device is as after power-on, its state is 0, and
    /// the others are told if it was not. What it left in its sections stays.
    pub fn detach(&mut self, peer: u16) {
        let device = self.device(peer);
        device.detach();
        device.statistics.detaches += 1;
        self.write_state(peer, state_table::ABSENT);
    }

    /// What was counted of `peer`, for a soft inmate that counts things of its own.
    pub(crate) fn statistics_of(&mut self, peer: u16) -> &mut statistics::Peer {
        &mut self.device(peer).statistics
    }

    /// Device reset.
    pub fn reset(&mut self, peer: u16) {
        let device = self.device(peer);
        device.reset();
        device.statistics.resets += 1;
        self.write_state(peer, state_table::ABSENT);
    }

    /// SET_IRQS.
    pub fn irq_request(&mut self, peer: u16, request: IrqRequest) {
        self.device(peer).irq_request(request);
    }

    /// `peer` reads.
    pub fn read(&mut self, peer: u16, space: Space, offset: u64, data: &mut [u8]) {
        let bytes = offset..offset.saturating_add(data.len() as u64);
        self.device(peer).touched(space, Access::Read, &bytes);
        match space {
            Space::Config => self.device(peer).config_read(offset, data),
            Space::Registers => self.device(peer).register_read(offset, data),
            Space::MsixTable => self.device(peer).msix_read(offset, data),
            Space::Memory => self.memory_read(peer, offset, data),
        }
    }

    /// `peer` writes.
    pub fn write(&mut self, peer: u16, space: Space, offset: u64, data: &[u8]) {
        let bytes = offset..offset.saturating_add(data.len() as u64);
        self.device(peer).touched(space, Access::Write, &bytes);
        match space {
            Space::Config => self.device(peer).config_write(offset, data),
            Space::Registers => self.register_write(peer, offset, data),
            Space::MsixTable => self.device(peer).msix_write(offset, data),
            Space::Memory => self.memory_write(peer, offset, data),
        }
    }

    fn register_write(&mut self, peer: u16, offset: u64, data: &[u8]) {
        let device = self.device(peer);
        let register = device.register_written(offset, data.len());
        let value = register::value_of(data);
        match register {
            Some(Register::IntCtrl) => {
                device.enable_interrupts(value & registers::INT_CTRL_ENABLE != 0);
            }
            Some(Register::Doorbell) => self.ring(peer, value),
            Some(Register::State) => self.write_state(peer, value),
            Some(Register::Id | Register::MaxPeers) | None => {}
        }
    }

    fn ring(&mut self, peer: u16, value: u32) {
        let (target, vector) = registers::doorbell_target(value);
        let doorbells = &mut self.devices[usize::from(peer)].statistics.doorbells;
        if vector >= self.spec.doorbell_vectors() {
            doorbells.bad_vector += 1;
        } else if !self.spec.peers().contains(&target) {
            doorbells.bad_peer += 1;
        } else {
            doorbells.sent += 1;
            // What the peer stored before is to be visible before the interrupt.
            fence(Ordering::SeqCst);
            self.device(target).interrupt(vector);
        }
    }

    /// Publishes a state, and interrupts all others that are there if it is a new one.
    fn write_state(&mut self, peer: u16, value: u32) {
        self.check_state_table();
        self.store(state_table::entry_offset(peer), value);
        fence(Ordering::SeqCst);
        let device = self.device(peer);
        if device.state == value {
            return;
        }
        device.state = value;
        device.statistics.state_changes += 1;
        for (id, other) in (0..).zip(&mut self.devices) {
            if id != peer && other.present {
                other.interrupt(0);
            }
        }
    }

    fn memory_read(&mut self, peer: u16, offset: u64, data: &mut [u8]) {
        let readable = self.spec.layout(peer).read(offset, data.len() as u64) as usize;
        let device = self.device(peer);
        let statistics = &mut device.statistics;
        statistics.memory_reads += 1;
        if device.trouble.is_gone {
            statistics.faults.gone_accesses += 1;
            return data.fill(0xff);
        }
        if readable < data.len() {
            statistics.fatal.beyond_region += 1;
        }
        data.fill(0xff);
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        // Cannot fail: the layout said how much of it is there.
        let _ = self.region.read(at, &mut data[..readable]);
    }

    fn memory_write(&mut self, peer: u16, offset: u64, data: &[u8]) {
        let layout = self.spec.layout(peer);
        let region = self.region.clone();
        let device = self.device(peer);
        let statistics = &mut device.statistics;
        statistics.memory_writes += 1;
        if device.trouble.is_gone {
            statistics.faults.gone_accesses += 1;
            return;
        }
        let (mut offset, mut data) = (offset, data);
        while !data.is_empty() {
            match layout.write(offset, data.len() as u64) {
                Ok(count) => {
                    let (now, later) = data.split_at(count as usize);
                    // Cannot fail: the layout said that it is there.
                    let _ = region.write(offset as usize, now);
                    offset += count;
                    data = later;
                }
                Err(refused) => {
                    let fatal = &mut statistics.fatal;
                    *match refused {
                        _ if layout.state_table().contains(offset) => &mut fatal.state_table_stores,
                        Refused::ReadOnly => &mut fatal.foreign_output_stores,
                        _ => &mut fatal.beyond_region,
                    } += 1;
                    return;
                }
            }
        }
    }

    fn store(&self, offset: usize, value: u32) {
        let stored = self.region.store(offset, value, StoreOrder::Release);
        debug_assert!(stored.is_ok(), "the region has no word at {offset:#x}");
    }

    /// Sets the words to `expected`, and tells how many of them were not.
    fn restore(&self, words: impl Iterator<Item = usize>, expected: u32) -> u64 {
        let damaged = |&word: &usize| {
            self.region
                .load(word, LoadOrder::Relaxed)
                .is_ok_and(|value| value != expected)
        };
        let repair = |word| self.store(word, expected);
        words.filter(damaged).map(repair).count() as u64
    }

    /// Compares the entries of the state table with what the devices have published.
    fn check_state_table(&mut self) {
        if self.memory_is_spoiled {
            return;
        }
        self.canaries.state_table_words += self.restore_states();
    }

    /// Writes the entries of the state table that are not as published, and tells how many.
    fn restore_states(&self) -> u64 {
        let mut damage = 0;
        for (word, device) in (0..).step_by(WORD).zip(&self.devices) {
            damage += self.restore(std::iter::once(word), device.state);
        }
        damage
    }

    /// Words of the state table that belong to no peer.
    fn table_tail(&self) -> impl Iterator<Item = usize> {
        let entries = (self.devices.len() * WORD) as u64;
        words(entries..self.spec.layout(0).state_table().end())
    }

    /// Words in the output sections of peers that never were there.
    fn unused_outputs(&self) -> impl Iterator<Item = usize> + '_ {
        let layout = self.spec.layout(0);
        let unused = |device: &&Device| device.statistics.attaches == 0;
        let section = move |device: &Device| layout.output_of(device.statistics.id);
        let devices = self.devices.iter().filter(unused).filter_map(section);
        devices.flat_map(|section| words(section.offset..section.end()))
    }

    /// Words behind the region.
    fn guard(&self) -> impl Iterator<Item = usize> {
        let region = self.spec.layout(0).region_size();
        words(region..self.spec.memory_bar_size())
    }

    /// Looks at all places that no peer may have written.
    fn check_canaries(&mut self) {
        self.check_state_table();
        self.canaries.checks += 1;
        if self.memory_is_spoiled {
            return;
        }
        let tail = self.restore(self.table_tail(), 0);
        let guard = self.restore(self.guard(), GUARD);
        let unused = self.restore(self.unused_outputs(), 0);
        self.canaries.state_table_words += tail;
        self.canaries.guard_words += guard;
        self.canaries.unused_output_words += unused;
    }

    /// Looks at the canaries and tells everything that was counted. `last` is for the one at the
    /// end of the process.
    pub fn snapshot(&mut self, last: bool) -> statistics::Statistics {
        self.check_canaries();
        self.snapshots += 1;
        let options = self.spec.options();
        let peer = |device: &Device| statistics::Peer {
            fatal_accesses: device.statistics.fatal.total(),
            left_behind: device.left_behind(),
            ..device.statistics.clone()
        };
        let peers: Vec<_> = self.devices.iter().map(peer).collect();
        let fatal: u64 = peers.iter().map(|peer| peer.fatal_accesses).sum();
        statistics::Statistics {
            format: statistics::FORMAT,
            sequence: self.snapshots,
            last,
            link: statistics::LinkDescription {
                max_peers: options.max_peers,
                vectors: options.vectors,
                protocol: options.protocol.0,
                state_size: options.state_size,
                rw_size: options.rw_size,
                output_size: options.output_size,
                shape: Some(options.shape),
                protection: Some(options.protection),
                faults: options.faults.iter().map(ToString::to_string).collect(),
            },
            fatal_accesses: fatal + self.canaries.damage(),
            canaries: self.canaries.clone(),
            peers,
        }
    }
}

/// Offsets of the words of `place`, as far as it is looked at.
fn words(place: Range<u64>) -> impl Iterator<Item = usize> {
    let end = place.end.min(place.start.saturating_add(GUARDED));
    (place.start as usize..end as usize).step_by(WORD)
}

/// A link as its users share it.
#[derive(Clone, Debug)]
pub struct SharedLink(Arc<Mutex<Link>>);

impl SharedLink {
    /// Makes `link` shareable.
    #[must_use]
    pub fn new(link: Link) -> Self {
        Self(Arc::new(Mutex::new(link)))
    }

    /// The link, for one access. A user that panicked meanwhile has not taken it down: each access
    /// leaves it whole.
    pub fn lock(&self) -> MutexGuard<'_, Link> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
