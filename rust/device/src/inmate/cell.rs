// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a soft inmate has of the link: the registers of its device, and the memory as far as it may.

use super::Lines;
use crate::lines::IrqRequest;
use crate::link::Link;
use crate::link::Seat;
use crate::link::Space;
use crate::region::Region;
use crate::statistics::Peer;
use crate::statistics::PeerKind;
use ivshmem_protocol::config;
use ivshmem_protocol::layout::Layout;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::registers;
use ivshmem_protocol::state_table;
use std::fmt;
use std::sync::Arc;
use std::sync::MutexGuard;

/// MSI-X control, upper byte: enable.
const MSIX_ENABLE: [u8; 1] = [0x80];

/// A soft inmate's view of the link.
pub struct Cell {
    seat: Seat,
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
    pub(super) fn new(seat: Seat) -> Self {
        let (region, layout, vectors) = {
            let link = seat.link().lock();
            let spec = link.spec();
            let vectors = spec.options().vectors;
            (link.region().clone(), spec.layout(seat.peer()), vectors)
        };
        Self {
            seat,
            region,
            layout,
            vectors,
        }
    }

    fn link(&self) -> MutexGuard<'_, Link> {
        self.seat.link().lock()
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
        self.link().write(self.id(), space, offset, data);
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
    pub(super) fn bring_up(&self, lines: &Lines) {
        self.link().attach(self.id(), PeerKind::Inmate);
        let command = config::COMMAND_MEMORY | config::COMMAND_MASTER;
        self.write(
            Space::Config,
            config::COMMAND.into(),
            &command.to_le_bytes(),
        );
        let signal = |vector| Some(lines.line(vector));
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
        self.link().irq_request(self.id(), request);
        self.write_register(registers::INT_CTRL, registers::INT_CTRL_ENABLE);
    }

    /// The end of an interrupt, which INTx wants to be acknowledged.
    pub(super) fn end_of_interrupt(&self) {
        if self.vectors == 0 {
            let mut link = self.link();
            let own_state = state_table::entry_offset(self.id()) as u64;
            link.read(self.id(), Space::Memory, own_state, &mut [0; 4]);
            link.irq_request(self.id(), IrqRequest::UnmaskIntx);
        }
    }

    /// The cell is reset: the device is as after power-on, and the state 0.
    pub(super) fn go(&self) {
        self.link().detach(self.id());
    }

    /// What this peer can see and store.
    pub(super) fn layout(&self) -> &Layout {
        &self.layout
    }

    pub(super) fn region(&self) -> &Region {
        &self.region
    }

    /// Whether `peer` can be rung on `vector`.
    pub(super) fn has_vector(&self, vector: u16) -> bool {
        vector < self.vectors.max(1)
    }

    /// Changes what the statistics tell of this peer.
    pub(super) fn report(&self, change: impl FnOnce(&mut Peer)) {
        change(self.link().statistics_of(self.id()));
    }
}
