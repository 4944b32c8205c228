// SPDX-License-Identifier: GPL-2.0

//! Which eventfds are to be counted up at which events.
//!
//! Interrupt handlers walk the list, so it is behind a spin lock of its own, which is held for as long as
//! the walk takes: as many steps as programs have attached eventfds to what has happened, of which there are
//! [`EVENTFDS_MAX`] in all. Memory is had, and eventfds are let go, without it.

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

/// Most eventfds that a device takes. The header says so.
const EVENTFDS_MAX: usize = 1024;

/// Events that an eventfd is attached to. In the order of the list: interrupts go before states.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Trigger {
    /// Interrupts on a vector.
    Vector(u16),
    /// Interrupts on any vector.
    AnyVector,
    /// Changes of any peer's state.
    State,
}

struct Attached {
    file: FileId,
    trigger: Trigger,
    eventfd: EventFd,
}

/// The first place in `list`, which is sorted by triggers, behind those before `trigger`.
fn place_of(list: &[Attached], trigger: Trigger) -> usize {
    list.partition_point(|attached| attached.trigger < trigger)
}

/// Counts up those of `list` that are attached to `trigger`.
fn signal_in(list: &[Attached], trigger: Trigger) {
    let from = &list[place_of(list, trigger)..];
    for attached in from.iter().take_while(|it| it.trigger == trigger) {
        attached.eventfd.signal();
    }
}

/// The eventfds of all files of a device.
#[pin_data]
pub(crate) struct EventFds {
    /// Sorted by triggers, then by files, so that an event has to look at none of another.
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
        let list = self.list.lock();
        signal_in(&list, happened);
        if matches!(happened, Trigger::Vector(_)) {
            signal_in(&list, Trigger::AnyVector);
        }
    }

    /// Interrupts may have been lost, on whatever vector. Likewise.
    pub(crate) fn signal_vectors(&self) {
        let list = self.list.lock();
        for attached in &list[..place_of(&list, Trigger::State)] {
            attached.eventfd.signal();
        }
    }

    /// The device is gone: wakes everybody a last time, to find that out.
    pub(crate) fn signal_all(&self) {
        for attached in self.list.lock().iter() {
            attached.eventfd.signal();
        }
    }

    /// Has `eventfd` counted up for `file` at `trigger` from now on, instead of the one before.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if it is one more than [`EVENTFDS_MAX`].
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
                let place =
                    match list.binary_search_by_key(&(trigger, file), |it| (it.trigger, it.file)) {
                        Ok(same) => {
                            break Some(core::mem::replace(
                                &mut list[same].eventfd,
                                attached.eventfd,
                            ))
                        }
                        Err(place) => place,
                    };
                if list.len() >= EVENTFDS_MAX {
                    return Err(ENOSPC);
                }
                if list.len() == list.capacity() && list.len() < room.capacity() {
                    for other in list.drain_all() {
                        room.push_within_capacity(other)?;
                    }
                    core::mem::swap(&mut *list, &mut room);
                }
                if list.len() < list.capacity() {
                    list.insert_within_capacity(place, attached)?;
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
        list.remove(index).ok()
    }
}
