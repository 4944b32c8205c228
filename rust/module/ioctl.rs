// SPDX-License-Identifier: GPL-2.0

//! The ioctls of an open file. See include/uapi/linux/ivshmem.h for what each does and says.
//!
//! A call is told by its number without the size: structures may grow, and the size says what the
//! program knows of them. Each is copied in once; what is used is the copy, after every flag and
//! reserved field in it has been looked at.

use crate::{
    abi::{
        anon::Descriptor,
        eventfd::EventFd,
        fops::OpenMode,
        irq,
        uapi::{
            self,
            ivshmem_connect,
            ivshmem_doorbell,
            ivshmem_event,
            ivshmem_eventfd,
            ivshmem_events,
            ivshmem_info,
            ivshmem_section,
            ivshmem_state,
            ivshmem_subscribe,
            Argument,
            Structure, //
        },
        wait::Deadline,
    },
    channels::{
        Channels,
        Options, //
    },
    eventfds::Trigger,
    events::{
        Fetched,
        Subject, //
    },
    file::OpenFile,
    link::Link,
    protocol::{
        channel,
        v2::layout::Section, //
    },
    state, //
};
use kernel::{
    current,
    fs::File,
    ioctl::_IOC_SIZE,
    prelude::*,
    sync::Arc, //
};

/// An ioctl's number without the size of its structure.
pub(crate) const fn call(command: u32) -> u32 {
    command & !(kernel::uapi::_IOC_SIZEMASK << kernel::uapi::_IOC_SIZESHIFT)
}

const INFO: u32 = call(uapi::IVSHMEM_IOC_INFO);
const GET_STATE: u32 = call(uapi::IVSHMEM_IOC_GET_STATE);
const SET_STATE: u32 = call(uapi::IVSHMEM_IOC_SET_STATE);
const DOORBELL: u32 = call(uapi::IVSHMEM_IOC_DOORBELL);
const EVENTS: u32 = call(uapi::IVSHMEM_IOC_EVENTS);
const SUBSCRIBE: u32 = call(uapi::IVSHMEM_IOC_SUBSCRIBE);
const EVENTFD: u32 = call(uapi::IVSHMEM_IOC_EVENTFD);
const CONNECT: u32 = call(uapi::IVSHMEM_IOC_CONNECT);

/// Does what `command` says to `open`.
pub(crate) fn dispatch(
    open: &OpenFile,
    file: &File,
    command: u32,
    argument: usize,
) -> Result<isize> {
    let argument = Argument::new(argument, _IOC_SIZE(command));
    match call(command) {
        INFO => info(&open.link, argument),
        GET_STATE => get_state(&open.link, argument),
        SET_STATE => set_state(open, file, argument),
        DOORBELL => doorbell(&open.link, file, argument),
        EVENTS => events(open, file, argument),
        SUBSCRIBE => subscribe(open, argument),
        EVENTFD => eventfd(open, argument),
        CONNECT => return connect(&open.link, file, argument),
        _ => return Err(ENOTTY),
    }?;
    Ok(0)
}

fn info(link: &Link, argument: Argument) -> Result {
    alive(link)?;
    let (identity, layout) = (&link.identity, link.layout());
    let granted = link.granted().ok_or(ENODEV)?;
    argument.write(&ivshmem_info {
        abi_version: uapi::IVSHMEM_ABI_VERSION,
        id: layout.id().into(),
        max_peers: layout.max_peers().into(),
        vectors: identity.vectors.into(),
        vectors_enabled: granted.vectors.into(),
        interrupt_mode: match granted.mode {
            irq::Mode::MsiX => uapi::IVSHMEM_INTERRUPT_MSIX,
            irq::Mode::Intx => uapi::IVSHMEM_INTERRUPT_INTX,
            irq::Mode::Polling => uapi::IVSHMEM_INTERRUPT_POLLING,
        },
        protocol: identity.protocol.0.into(),
        reserved: 0,
        region_size: layout.region_size(),
        state_table: section(link, &layout.state_table(), false),
        rw: section(link, &layout.rw(), true),
        outputs: ivshmem_section {
            // All of them can be mapped if one can.
            flags: section(link, &layout.output(), false).flags,
            ..section(link, &layout.outputs(), false)
        },
        output: section(link, &layout.output(), true),
    })
}

/// `section` as user space sees it.
fn section(link: &Link, section: &Section, writable: bool) -> ivshmem_section {
    let mut flags = 0;
    if section.size != 0 {
        flags |= uapi::IVSHMEM_SECTION_READ;
        if writable {
            flags |= uapi::IVSHMEM_SECTION_WRITE;
        }
        if link.is_mappable(section) {
            flags |= uapi::IVSHMEM_SECTION_MMAP;
        }
    }
    ivshmem_section {
        offset: section.offset,
        size: section.size,
        flags,
        reserved: 0,
    }
}

fn get_state(link: &Link, argument: Argument) -> Result {
    let mut state: ivshmem_state = argument.read()?;
    zero(state.flags | state.reserved)?;
    let peer = link.layout().peer(state.peer).ok_or(ENXIO)?;
    state.value = link.enter()?.state_of(peer)?;
    argument.write(&state)
}

fn set_state(open: &OpenFile, file: &File, argument: Argument) -> Result {
    writable(file)?;
    let state: ivshmem_state = argument.read()?;
    zero(state.flags & !state::FLAGS | state.reserved)?;
    if state.peer != open.link.layout().id().into() {
        return Err(ENXIO);
    }
    open.link
        .state
        .set(&open.link, open.id, state.value, state.flags)
}

fn doorbell(link: &Link, file: &File, argument: Argument) -> Result {
    writable(file)?;
    let doorbell: ivshmem_doorbell = argument.read()?;
    zero(doorbell.flags | doorbell.reserved)?;
    let peer = link.layout().peer(doorbell.peer).ok_or(ENXIO)?;
    let vector = u16::try_from(doorbell.vector)
        .ok()
        .filter(|&vector| vector < link.identity.vectors)
        .ok_or(ENXIO)?;
    link.ring(peer, vector)
}

fn events(open: &OpenFile, file: &File, argument: Argument) -> Result {
    let mut request: ivshmem_events = argument.read()?;
    zero(request.flags)?;
    let record_size = record_size(request.record_size)?;
    if request.capacity == 0 {
        return Err(EINVAL);
    }
    let records = usize::try_from(request.records).map_err(|_| EFAULT)?;
    let deadline = deadline(request.deadline, file);

    let (link, cursor) = (&open.link, &open.cursor);
    let mut waited = false;
    loop {
        alive(link)?;
        match cursor.fetch(&link.events, request.capacity as usize)? {
            Some(fetched) => {
                store(&fetched, records, record_size)?;
                request.count = u32::try_from(fetched.events.len())?;
                argument.write(&request)?;
                if cursor.commit(&fetched) {
                    if waited {
                        link.counters.wakeups.increment();
                    }
                    return Ok(());
                }
                // Another thread was faster: look what is left. It may be so again and again.
                if current!().signal_pending() {
                    return Err(ERESTARTSYS);
                }
            }
            None => {
                let polling = link
                    .granted()
                    .is_some_and(|it| it.mode == irq::Mode::Polling);
                if polling && deadline != Deadline::Now && !cursor.wants_states(&link.events) {
                    // Nothing would ever end the wait.
                    return Err(EOPNOTSUPP);
                }
                if waited && current!().signal_pending() {
                    // What has ended the wait was nothing for this file, and the next may be over at once, too.
                    return Err(ERESTARTSYS);
                }
                cursor.wait(&link.events, deadline, || link.is_gone())?;
                waited = true;
            }
        }
    }
}

fn subscribe(open: &OpenFile, argument: Argument) -> Result {
    let request: ivshmem_subscribe = argument.read()?;
    zero(request.flags & !uapi::IVSHMEM_SUBSCRIBE_OFF | request.reserved)?;
    let all = request.index == uapi::IVSHMEM_INDEX_ALL;
    let subject = match request.kind {
        uapi::IVSHMEM_EVENT_DOORBELL if all => Subject::Vector(None),
        uapi::IVSHMEM_EVENT_DOORBELL => Subject::Vector(Some(vector(&open.link, request.index)?)),
        uapi::IVSHMEM_EVENT_STATE if all => Subject::Peer(None),
        uapi::IVSHMEM_EVENT_STATE => {
            Subject::Peer(Some(open.link.layout().peer(request.index).ok_or(ENXIO)?))
        }
        _ => return Err(EINVAL),
    };
    alive(&open.link)?;
    let wanted = request.flags & uapi::IVSHMEM_SUBSCRIBE_OFF == 0;
    open.cursor.subscribe(&open.link.events, subject, wanted);
    Ok(())
}

fn eventfd(open: &OpenFile, argument: Argument) -> Result {
    let request: ivshmem_eventfd = argument.read()?;
    zero(request.flags)?;
    let all = request.index == uapi::IVSHMEM_INDEX_ALL;
    let trigger = match request.kind {
        uapi::IVSHMEM_EVENT_DOORBELL if all => Trigger::AnyVector,
        uapi::IVSHMEM_EVENT_DOORBELL => Trigger::Vector(vector(&open.link, request.index)?),
        uapi::IVSHMEM_EVENT_STATE if all => Trigger::State,
        uapi::IVSHMEM_EVENT_STATE => return Err(ENXIO),
        _ => return Err(EINVAL),
    };
    alive(&open.link)?;
    let eventfds = &open.link.events.eventfds;
    match request.fd {
        -1 => eventfds.detach(open.id, trigger),
        fd => eventfds.attach(open.id, trigger, EventFd::get(fd)?)?,
    }
    // A device that has gone meanwhile has woken everybody already.
    alive(&open.link)
}

/// Opens a channel. Returns its descriptor.
fn connect(link: &Arc<Link>, file: &File, argument: Argument) -> Result<isize> {
    if !file.is_readable() {
        return Err(EBADF);
    }
    writable(file)?;
    let request: ivshmem_connect = argument.read()?;
    let known = uapi::IVSHMEM_CONNECT_EXPLICIT_ACK | uapi::IVSHMEM_CONNECT_NONBLOCK;
    zero(request.flags & !known | request.reserved)?;
    alive(link)?;
    let layout = link.layout();
    let peer = layout.peer(request.peer).ok_or(ENXIO)?;
    if peer == layout.id() || request.port >= channel::layout::PORTS {
        return Err(ENXIO);
    }
    let descriptor = Descriptor::reserve()?;
    let options = Options {
        explicit_ack: request.flags & uapi::IVSHMEM_CONNECT_EXPLICIT_ACK != 0,
    };
    let channel = Channels::connect(link, peer, options)?;
    descriptor.open(channel, request.flags & uapi::IVSHMEM_CONNECT_NONBLOCK != 0)
}

/// One of the vectors on which we can be interrupted.
fn vector(link: &Link, index: u32) -> Result<u16> {
    let vectors = link.granted().ok_or(ENODEV)?.vectors;
    u16::try_from(index)
        .ok()
        .filter(|&vector| vector < vectors)
        .ok_or(ENXIO)
}

/// Checks a program's idea of the size of a record.
fn record_size(size: u32) -> Result<usize> {
    let size = size as usize;
    if !(ivshmem_event::FIRST_SIZE..=4096).contains(&size) || size % 8 != 0 {
        return Err(EINVAL);
    }
    Ok(size)
}

/// Copies events out as records of `record_size` bytes, as far as that is possible.
fn store(fetched: &Fetched, records: usize, record_size: usize) -> Result {
    for (index, event) in fetched.events.iter().enumerate() {
        let address = index
            .checked_mul(record_size)
            .and_then(|offset| records.checked_add(offset))
            .ok_or(EFAULT)?;
        uapi::write_padded(address, record_size, event)?;
    }
    Ok(())
}

/// Until when a call on `file` may wait.
pub(crate) fn deadline(time: u64, file: &File) -> Deadline {
    if time == u64::from(uapi::IVSHMEM_DEADLINE_NOW) || file.is_nonblocking() {
        return Deadline::Now;
    }
    // A time that the clock cannot show never comes.
    i64::try_from(time).map_or(Deadline::Never, Deadline::At)
}

/// The device must still be there. It may go right afterwards.
fn alive(link: &Link) -> Result {
    if link.is_gone() {
        Err(ENODEV)
    } else {
        Ok(())
    }
}

/// Unknown flags and reserved fields must be zero.
pub(crate) fn zero(bits: u32) -> Result {
    if bits == 0 {
        Ok(())
    } else {
        Err(EINVAL)
    }
}

/// What changes something wants a file that is open for writing.
fn writable(file: &File) -> Result {
    if file.is_writable() {
        Ok(())
    } else {
        Err(EBADF)
    }
}
