// SPDX-License-Identifier: MIT OR Apache-2.0

//! The memory as a soft inmate with channels reaches it: it stores to its own output section only,
//! and may crash at any store.

use super::Cell;
use crate::region::Region;
use ivshmem_protocol::channel::layout::Section;
use ivshmem_protocol::channel::transfer::Pieces;
use ivshmem_protocol::channel::Barriers;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::memory::OutOfBounds;
use ivshmem_protocol::memory::StoreOrder;
use std::cell;
use std::ops::Range;
use std::sync::atomic::fence;
use std::sync::atomic::Ordering;

/// The largest part of a section that is used for channels, in bytes.
const SECTION_MAX: u64 = u32::MAX as u64 & !0xfff;

/// How many more stores happen before the crash, if there is to be one.
pub(super) type StoresLeft = cell::Cell<Option<u32>>;

/// The output section of `peer`, as channels use it; [`None`] if the link has no output sections.
pub(super) fn section(cell: &Cell, peer: u16) -> Option<Section> {
    let section = cell.layout().output_of(peer)?;
    Some(Section {
        offset: usize::try_from(section.offset).ok()?,
        size: section.size.min(SECTION_MAX) as u32,
        max_peers: cell.layout().max_peers(),
    })
}

/// The memory of a cell. When the cell has crashed, stores are refused.
pub(super) struct View<'a> {
    region: &'a Region,
    own: Range<usize>,
    stores_left: &'a StoresLeft,
}

impl<'a> View<'a> {
    pub(super) fn new(cell: &'a Cell, stores_left: &'a StoresLeft) -> Self {
        let output = cell.layout().output();
        Self {
            region: cell.region(),
            own: output.offset as usize..output.end() as usize,
            stores_left,
        }
    }

    /// Whether something may be stored there now.
    fn allow(&self, place: Range<usize>) -> Result<(), OutOfBounds> {
        let refused = OutOfBounds {
            offset: place.start,
        };
        if place.start < self.own.start || place.end > self.own.end {
            return Err(refused);
        }
        match self.stores_left.get() {
            Some(0) => return Err(refused),
            Some(left) => self.stores_left.set(Some(left - 1)),
            None => {}
        }
        Ok(())
    }

    /// Copies the bytes of a message from the ring. Both pieces together have the size of `to`.
    pub(super) fn read(&self, pieces: &Pieces, to: &mut Vec<u8>) -> Result<(), OutOfBounds> {
        let [first, second] = &pieces.0;
        to.clear();
        to.resize(first.len() + second.len(), 0);
        let (head, tail) = to.split_at_mut(first.len());
        self.region.read(first.start, head)?;
        self.region.read(second.start, tail)
    }

    /// Copies the bytes of a message to the ring. Both pieces together have the size of `bytes`.
    pub(super) fn write(&self, pieces: &Pieces, bytes: &[u8]) -> Result<(), OutOfBounds> {
        let [first, second] = &pieces.0;
        let (head, tail) = bytes.split_at(first.len());
        for (place, bytes) in [(first, head), (second, tail)] {
            if !bytes.is_empty() {
                self.allow(place.clone())?;
                self.region.write(place.start, bytes)?;
            }
        }
        Ok(())
    }
}

impl Memory for View<'_> {
    fn size(&self) -> usize {
        self.region.size()
    }

    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
        self.region.load(offset, order)
    }

    fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds> {
        self.allow(offset..offset + 4)?;
        self.region.store(offset, value, order)
    }
}

impl Barriers for View<'_> {
    fn full_barrier(&self) {
        fence(Ordering::SeqCst);
    }

    fn read_barrier(&self) {
        fence(Ordering::Acquire);
    }

    fn write_barrier(&self) {
        fence(Ordering::Release);
    }
}
