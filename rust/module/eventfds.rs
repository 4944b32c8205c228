// SPDX-License-Identifier: GPL-2.0

//! Which eventfds are to be counted up at which events.
//!
//! Interrupt handlers walk the list, so it is behind a spin lock of its own, which is held for as long as
//! the walk takes: as many steps as programs have attached eventfds. Memory is had, and eventfds are let
//! go, without it.

use crate::{
    abi::eventfd::EventFd,
    file::FileId, //
};
use kernel::{
    prelude::*,
    sync::{
        new_spinlock_irq,
        SpinLockIrq, //
    },
};

/// Events that an eventfd is attached to.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Trigger {
    /// Interrupts on a vector.
    Vector(u16),
    /// Interrupts on any vector.
    AnyVector,
    /// Changes of any peer's state.
    State,
}

impl Trigger {
    /// Whether an event of the kind `happened` triggers it.
    fn matches(self, happened: Self) -> bool {
        self == happened || (self == Self::AnyVector && matches!(happened, Self::Vector(_)))
    }
}

struct Attached {
    file: FileId,
    trigger: Trigger,
    eventfd: EventFd,
}

/// The eventfds of all files of a device.
#[pin_data]
pub(crate) struct EventFds {
    #[pin]
    list: SpinLockIrq<KVec<Attached>>,
}

impl EventFds {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            list <- new_spinlock_irq!(KVec::new(), "ivshmem_eventfds"),
        })
    }

    /// Something has happened. From any context.
    pub(crate) fn signal(&self, happened: Trigger) {
        for attached in self.list.lock().iter() {
            if attached.trigger.matches(happened) {
                attached.eventfd.signal();
            }
        }
    }

    /// The device is gone: wakes everybody a last time, to find that out.
    pub(crate) fn signal_all(&self) {
        for attached in self.list.lock().iter() {
            attached.eventfd.signal();
        }
    }

    /// Has `eventfd` counted up for `file` at `trigger` from now on, instead of the one before.
    pub(crate) fn attach(&self, file: FileId, trigger: Trigger, eventfd: EventFd) -> Result {
        let attached = Attached {
            file,
            trigger,
            eventfd,
        };
        // Room for one more, made without the lock: others may be faster, so look again.
        let mut room = KVec::new();
        let old = loop {
            let wanted = {
                let mut list = self.list.lock();
                if let Some(same) = list
                    .iter_mut()
                    .find(|other| other.file == file && other.trigger == trigger)
                {
                    break Some(core::mem::replace(&mut same.eventfd, attached.eventfd));
                }
                if list.len() < list.capacity() {
                    list.push_within_capacity(attached)?;
                    break None;
                }
                if list.len() < room.capacity() {
                    move_all(&mut list, &mut room)?;
                    core::mem::swap(&mut *list, &mut room);
                    list.push_within_capacity(attached)?;
                    break None;
                }
                list.len() + 1
            };
            room = KVec::with_capacity(wanted.next_power_of_two(), GFP_KERNEL_ACCOUNT)?;
        };
        // Let go, and freed, here: without the lock.
        drop(old);
        Ok(())
    }

    /// Takes the eventfd of `file` at `trigger` off, if there is one.
    pub(crate) fn detach(&self, file: FileId, trigger: Trigger) {
        drop(self.take(|attached| attached.file == file && attached.trigger == trigger));
    }

    /// Takes all eventfds of `file` off: it is being closed.
    pub(crate) fn release(&self, file: FileId) {
        while let Some(attached) = self.take(|attached| attached.file == file) {
            drop(attached);
        }
    }

    /// Takes the first one that `is_it` off the list.
    fn take(&self, is_it: impl Fn(&Attached) -> bool) -> Option<Attached> {
        let mut list = self.list.lock();
        let index = list.iter().position(is_it)?;
        // The order does not matter.
        let last = list.len() - 1;
        list.swap(index, last);
        list.pop()
    }
}

/// Moves everything from `from` to `to`, which has room for it.
fn move_all(from: &mut KVec<Attached>, to: &mut KVec<Attached>) -> Result {
    while let Some(attached) = from.pop() {
        to.push_within_capacity(attached)?;
    }
    Ok(())
}
