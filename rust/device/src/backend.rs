// SPDX-License-Identifier: MIT OR Apache-2.0

//! One peer's device as a vfio-user server: regions and interrupts in the terms of VFIO, and
//! requests handed to the link.
//!
//! Called by the crate `vfio_user` on the thread of the peer's socket. It never gives that crate an
//! error: the crate would answer with error number 0, which confuses QEMU. So what a client asks
//! for wrongly reads 0 or has no effect.

use crate::config_space;
use crate::lines::EventFd;
use crate::lines::IrqRequest;
use crate::lines::Signal;
use crate::link::SharedLink;
use crate::link::Space;
use crate::spec::LinkSpec;
use crate::statistics::PeerKind;
use ivshmem_protocol::layout::Section;
use std::fs::File;
use std::io;
use std::os::fd::RawFd;
use std::thread;
use vfio_bindings::bindings::vfio::vfio_region_info;
use vfio_bindings::bindings::vfio::vfio_region_sparse_mmap_area;
use vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_AUTOMASKED;
use vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_EVENTFD;
use vfio_bindings::bindings::vfio::VFIO_IRQ_INFO_MASKABLE;
use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_MASK;
use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_TRIGGER;
use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_ACTION_UNMASK;
use vfio_bindings::bindings::vfio::VFIO_IRQ_SET_DATA_EVENTFD;
use vfio_bindings::bindings::vfio::VFIO_PCI_BAR0_REGION_INDEX;
use vfio_bindings::bindings::vfio::VFIO_PCI_BAR1_REGION_INDEX;
use vfio_bindings::bindings::vfio::VFIO_PCI_CONFIG_REGION_INDEX;
use vfio_bindings::bindings::vfio::VFIO_PCI_INTX_IRQ_INDEX;
use vfio_bindings::bindings::vfio::VFIO_PCI_MSIX_IRQ_INDEX;
use vfio_bindings::bindings::vfio::VFIO_PCI_NUM_IRQS;
use vfio_bindings::bindings::vfio::VFIO_PCI_NUM_REGIONS;
use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_MMAP;
use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_READ;
use vfio_bindings::bindings::vfio::VFIO_REGION_INFO_FLAG_WRITE;
use vfio_user::DmaMapFlags;
use vfio_user::DmaUnmapFlags;
use vfio_user::IrqInfo;
use vfio_user::ServerBackend;
use vfio_user::ServerRegion;
use vfio_user::SparseArea;

/// The regions of `peer`'s device, in the order of their indices. The memory is that of `file`.
pub(crate) fn regions(spec: &LinkSpec, peer: u16, file: RawFd) -> Vec<ServerRegion> {
    let mut sizes = [0; VFIO_PCI_NUM_REGIONS as usize];
    sizes[..6].copy_from_slice(&spec.bar_sizes());
    sizes[VFIO_PCI_CONFIG_REGION_INDEX as usize] = config_space::SIZE as u64;
    let region = |(index, size): (u32, u64)| ServerRegion {
        region_info: vfio_region_info {
            argsz: size_of::<vfio_region_info>() as u32,
            flags: match size {
                0 => 0,
                _ => VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
            },
            index,
            size,
            ..Default::default()
        },
        sparse_areas: Vec::new(),
        mmap_fd: None,
    };
    let mut regions: Vec<_> = (0..).zip(sizes).map(region).collect();

    let areas = spec.mappable(peer);
    if !areas.is_empty() {
        let memory = &mut regions[usize::from(spec.memory_bar())];
        memory.region_info.flags |= VFIO_REGION_INFO_FLAG_MMAP;
        memory.mmap_fd = Some(file);
        let sparse = |area: Section| SparseArea {
            area: vfio_region_sparse_mmap_area {
                offset: area.offset,
                size: area.size,
            },
        };
        memory.sparse_areas = areas.into_iter().map(sparse).collect();
    }
    regions
}

/// The interrupts of a device, in the order of their indices.
pub(crate) fn irqs(spec: &LinkSpec) -> Vec<IrqInfo> {
    let irq = |index| {
        let (flags, count) = match (index, spec.options().vectors) {
            (VFIO_PCI_INTX_IRQ_INDEX, 0) => (
                VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_MASKABLE | VFIO_IRQ_INFO_AUTOMASKED,
                1,
            ),
            // Not "no resize": QEMU would take all vectors down for each one that it adds.
            (VFIO_PCI_MSIX_IRQ_INDEX, vectors) if vectors != 0 => {
                (VFIO_IRQ_INFO_EVENTFD, vectors.into())
            }
            _ => (0, 0),
        };
        IrqInfo {
            index,
            flags,
            count,
        }
    };
    (0..VFIO_PCI_NUM_IRQS).map(irq).collect()
}

/// What the client of one peer's socket talks to.
#[derive(Debug)]
pub(crate) struct Backend {
    link: SharedLink,
    peer: u16,
    memory_bar: u32,
    attached: bool,
}

impl Backend {
    pub(crate) fn new(link: SharedLink, peer: u16) -> Self {
        let memory_bar = link.lock().spec().memory_bar().into();
        Self {
            link,
            peer,
            memory_bar,
            attached: false,
        }
    }

    /// The connection has ended. The peer is detached when its seat is given back.
    pub(crate) fn disconnected(&mut self) {
        if std::mem::take(&mut self.attached) {
            tracing::info!(peer = self.peer, "client gone");
        }
    }

    /// A connection has the peer's seat from its beginning, but counts from its first request on, so
    /// that one that only looks whether somebody listens does not count.
    fn attached(&mut self) {
        if !std::mem::replace(&mut self.attached, true) {
            tracing::info!(peer = self.peer, "client attached");
            self.link.lock().attach(self.peer, PeerKind::Client);
        }
    }

    /// A device that answers slowly does so without keeping others from the link.
    fn answer_slowly(&self, space: Space) {
        if matches!(space, Space::Config | Space::Registers) {
            let delay = self.link.lock().delay(self.peer);
            if !delay.is_zero() {
                thread::sleep(delay);
            }
        }
    }

    fn space(&self, region: u32) -> Option<Space> {
        match region {
            VFIO_PCI_BAR0_REGION_INDEX => Some(Space::Registers),
            VFIO_PCI_BAR1_REGION_INDEX => Some(Space::MsixTable),
            VFIO_PCI_CONFIG_REGION_INDEX => Some(Space::Config),
            bar if bar == self.memory_bar => Some(Space::Memory),
            _ => None,
        }
    }
}

impl ServerBackend for Backend {
    fn region_read(&mut self, region: u32, offset: u64, data: &mut [u8]) -> io::Result<()> {
        self.attached();
        if let Some(space) = self.space(region) {
            self.answer_slowly(space);
            self.link.lock().read(self.peer, space, offset, data);
            tracing::trace!(peer = self.peer, ?space, offset, ?data, "read");
        }
        Ok(())
    }

    fn region_write(&mut self, region: u32, offset: u64, data: &[u8]) -> io::Result<()> {
        self.attached();
        if let Some(space) = self.space(region) {
            tracing::trace!(peer = self.peer, ?space, offset, ?data, "write");
            self.answer_slowly(space);
            self.link.lock().write(self.peer, space, offset, data);
        }
        Ok(())
    }

    fn dma_map(
        &mut self,
        _flags: DmaMapFlags,
        _offset: u64,
        _address: u64,
        _size: u64,
        _fd: Option<File>,
    ) -> io::Result<()> {
        // The device has no DMA.
        Ok(())
    }

    fn dma_unmap(&mut self, _flags: DmaUnmapFlags, _address: u64, _size: u64) -> io::Result<()> {
        Ok(())
    }

    fn reset(&mut self) -> io::Result<()> {
        self.attached();
        tracing::debug!(peer = self.peer, "reset");
        self.link.lock().reset(self.peer);
        Ok(())
    }

    fn set_irqs(
        &mut self,
        index: u32,
        flags: u32,
        start: u32,
        count: u32,
        fds: Vec<File>,
    ) -> io::Result<()> {
        self.attached();
        tracing::debug!(
            peer = self.peer,
            index,
            flags,
            start,
            count,
            fds = fds.len(),
            "irqs"
        );
        match irq_request(index, flags, start, count, fds) {
            Some(request) => self.link.lock().irq_request(self.peer, request),
            None => tracing::warn!(peer = self.peer, index, flags, "interrupt request ignored"),
        }
        Ok(())
    }
}

/// Decodes SET_IRQS; [`None`] for what this device does not have.
fn irq_request(
    index: u32,
    flags: u32,
    start: u32,
    count: u32,
    fds: Vec<File>,
) -> Option<IrqRequest> {
    let by_eventfd = flags & VFIO_IRQ_SET_DATA_EVENTFD != 0;
    let is = |action| flags & action != 0;
    // A vector without a file is switched off: so QEMU begins.
    let signal = |file| Some(Box::new(EventFd(file)) as Box<dyn Signal>);
    let mut signals: Vec<_> = fds.into_iter().map(signal).collect();
    match index {
        VFIO_PCI_MSIX_IRQ_INDEX if is(VFIO_IRQ_SET_ACTION_TRIGGER) && by_eventfd => {
            // What a client claims beyond the last vector is not worth the memory.
            let count = count.min(crate::spec::VECTORS_MAX.into()) as usize;
            signals.resize_with(count, || None);
            let first = start;
            Some(IrqRequest::SetVectors { first, signals })
        }
        VFIO_PCI_MSIX_IRQ_INDEX if is(VFIO_IRQ_SET_ACTION_TRIGGER) && count == 0 => {
            Some(IrqRequest::ClearVectors)
        }
        VFIO_PCI_INTX_IRQ_INDEX if is(VFIO_IRQ_SET_ACTION_TRIGGER) => match (by_eventfd, count) {
            (true, _) => Some(IrqRequest::SetIntx(signals.pop().flatten())),
            (false, 0) => Some(IrqRequest::SetIntx(None)),
            _ => None,
        },
        VFIO_PCI_INTX_IRQ_INDEX if by_eventfd => None,
        VFIO_PCI_INTX_IRQ_INDEX if is(VFIO_IRQ_SET_ACTION_MASK) => Some(IrqRequest::MaskIntx),
        VFIO_PCI_INTX_IRQ_INDEX if is(VFIO_IRQ_SET_ACTION_UNMASK) => Some(IrqRequest::UnmaskIntx),
        _ => None,
    }
}
