// SPDX-License-Identifier: GPL-2.0

//! An open `/dev/ivshmemN`. See include/uapi/linux/ivshmem.h for what it does.

use crate::{
    abi::{
        fops::{
            poll,
            OpenMode,
            Operations, //
        },
        power::Power,
        sysfs::Groups,
        trace,
        vma::{
            Fault,
            FaultResult,
            Mappings,
            NewMapping, //
        },
        wait::PollTable,
    },
    attributes,
    counters::CountedFile,
    events::Cursor,
    fdinfo,
    ioctl,
    link::Link,
    protocol::v2::layout::Refused,
    region, //
};
use kernel::{
    fs::File,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    page::PAGE_SIZE,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// Tells open files and channels apart, also from those that have been closed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FileId(pub(crate) u64);

impl FileId {
    /// One that no other file has had.
    pub(crate) fn next() -> Self {
        static LAST: Atomic<u64> = Atomic::new(0);
        Self(LAST.fetch_add(1, Relaxed))
    }
}

/// An open file.
#[pin_data]
pub(crate) struct OpenFile {
    /// Our end of the link.
    pub(crate) link: Arc<Link>,
    /// Which of its files this is.
    pub(crate) id: FileId,
    /// What it has seen of the link's events.
    #[pin]
    pub(crate) cursor: Cursor,
    _counted: CountedFile,
}

impl Operations for OpenFile {
    type Device = Link;

    fn open(link: &Arc<Link>) -> Result<Arc<Self>> {
        if link.is_gone() {
            return Err(ENODEV);
        }
        let cursor = link.events.cursor()?;
        let id = FileId::next();
        Arc::pin_init(
            try_pin_init!(Self {
                link: link.clone(),
                id,
                cursor <- cursor,
                _counted: CountedFile::new(link, *id),
            }),
            GFP_KERNEL,
        )
    }

    fn attributes() -> Groups<Self> {
        attributes::groups()
    }

    fn fdinfo(&self, file: &File, to: &SeqFile) {
        fdinfo::show(self, file, to);
    }

    fn release(&self) {
        self.link.events.eventfds.release(self.id);
        self.link.state.release(&self.link, self.id);
    }

    fn mappings(link: &Link) -> &Mappings {
        &link.mappings
    }

    fn device(&self) -> &Link {
        &self.link
    }

    fn read(&self, position: &mut i64, to: &mut IovIterDest<'_>) -> Result<usize> {
        region::read(&self.link, position, to)
    }

    fn write(&self, position: &mut i64, from: &mut IovIterSource<'_>) -> Result<usize> {
        region::write(&self.link, position, from)
    }

    fn size(&self) -> Result<u64> {
        if self.link.is_gone() {
            return Err(ENODEV);
        }
        Ok(self.link.layout().region_size())
    }

    fn poll(&self, file: &File, table: &PollTable) -> u32 {
        // Register first: what happens after the look below wakes again.
        self.link.events.register(file, table);
        let untold = self.cursor.untold(&self.link.events);
        let bit = |set: bool, bits: u32| if set { bits } else { 0 };
        bit(untold.doorbells, poll::IN)
            | bit(untold.states, poll::PRI)
            | bit(file.is_writable(), poll::OUT)
            | bit(self.link.is_gone(), poll::GONE)
    }

    fn ioctl(&self, file: &File, command: u32, argument: usize) -> Result<isize> {
        ioctl::dispatch(self, file, command, argument)
    }

    fn mmap(&self, mapping: &NewMapping<'_>) -> Result {
        if self.link.is_gone() {
            return Err(ENODEV);
        }
        if !mapping.is_shared() {
            return Err(EINVAL);
        }
        if mapping.is_executable() {
            return Err(EPERM);
        }
        if !self.link.is_page_aligned() {
            return Err(ENXIO);
        }
        let start = mapping.offset();
        let range = start..start.checked_add(mapping.len()).ok_or(ENXIO)?;
        self.link
            .layout()
            .map(range, mapping.is_writable(), PAGE_SIZE as u64)
            .map_err(|refused| match refused {
                Refused::ReadOnly => EACCES,
                Refused::Beyond | Refused::NotMappable => ENXIO,
            })?;
        if self.is_of_channels(start, mapping.is_writable()) {
            self.link.channels.admit_mapping(&self.link)?;
        }
        Ok(())
    }

    fn mapping_changed(&self, offset: u64, writable: bool, more: bool) {
        if self.is_of_channels(offset, writable) {
            self.link.channels.count_mapping(more);
        }
    }

    fn fault(&self, fault: Fault) -> FaultResult {
        let (offset, writable) = (fault.offset(), fault.is_writable());
        let result = self.insert(fault);
        let device = self.link.identity.number;
        trace::fault(device, offset, writable, result.is_mapped());
        result
    }
}

impl Power for OpenFile {
    fn sleep(link: &Link) {
        link.sleep();
    }

    fn wake(link: &Link) {
        link.wake();
    }

    fn shutdown(link: &Link) {
        link.kill();
        link.quiesce();
    }
}

impl OpenFile {
    /// Whether a mapping that begins at `offset` lets a program write to what channels own. One that is writable is
    /// within one section.
    fn is_of_channels(&self, offset: u64, writable: bool) -> bool {
        writable && self.link.layout().output().contains(offset)
    }

    /// Puts the page that `fault` is about into the mapping.
    fn insert(&self, fault: Fault) -> FaultResult {
        let layout = self.link.layout();
        let offset = fault.offset();
        let page = offset..offset.saturating_add(PAGE_SIZE as u64);
        // Rights were looked at when the mapping was made. On Jailhouse a store to the wrong page
        // stops the cell, so they are looked at once more.
        if layout
            .map(page, fault.is_writable(), PAGE_SIZE as u64)
            .is_err()
        {
            return FaultResult::SIGBUS;
        }
        // Inside until the page is in: a device that goes then finds and removes it.
        let Ok(inside) = self.link.enter() else {
            return FaultResult::SIGBUS;
        };
        let frame = inside.memory().ok().and_then(|memory| memory.frame(offset));
        match frame {
            Some(frame) => fault.insert(frame),
            None => FaultResult::SIGBUS,
        }
    }
}
