// SPDX-License-Identifier: GPL-2.0

//! Which file owns our state.
//!
//! The state tells peers that somebody is there. So it belongs to the file that published it and goes
//! with it, also when the program dies; and no other file changes it by accident. While the machine
//! sleeps nobody is there, and peers see 0. Channels own it as long as one of them is open.

use crate::{
    abi::{
        trace,
        uapi::{
            IVSHMEM_STATE_KEEP,
            IVSHMEM_STATE_TAKE_OVER, //
        },
    },
    file::FileId,
    link::Link, //
};
use kernel::{
    prelude::*,
    sync::{
        new_mutex,
        Mutex, //
    },
};

/// Flags that [`OwnState::set`] knows.
pub(crate) const FLAGS: u32 = IVSHMEM_STATE_TAKE_OVER | IVSHMEM_STATE_KEEP;

enum Owner {
    File {
        file: FileId,
        /// The value stays when the file is closed.
        keep: bool,
    },
    /// Channels are open.
    Channels,
}

/// What peers see while channels are open: somebody is here.
const CHANNELS: u32 = 1;

/// Who owns our state, as a file sees it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ownership {
    /// No file does.
    Nobody,
    /// Another file does.
    Another,
    /// The channels do that are open.
    Channels,
    /// This file does.
    Own {
        /// The value stays when the file is closed.
        keep: bool,
    },
}

struct Published {
    /// What peers see while the machine is awake.
    value: u32,
    owner: Option<Owner>,
}

/// Our state and who owns it. The lock also serialises writes of the register.
#[pin_data]
pub(crate) struct OwnState {
    #[pin]
    published: Mutex<Published>,
}

impl OwnState {
    /// Nobody does, and it is 0.
    pub(crate) fn new() -> impl PinInit<Self> {
        let published = Published {
            value: 0,
            owner: None,
        };
        pin_init!(Self {
            published <- new_mutex!(published, "ivshmem_state"),
        })
    }

    /// Publishes `value` for `file`, which owns the state from now on.
    ///
    /// # Errors
    ///
    /// `EBUSY` if another file does, unless `flags` say to take it over; `ENODEV`.
    pub(crate) fn set(&self, link: &Link, file: FileId, value: u32, flags: u32) -> Result {
        // A dead file is dead, whoever owned the state when the device went.
        if link.is_gone() {
            return Err(ENODEV);
        }
        let mut published = self.published.lock();
        let take_over = flags & IVSHMEM_STATE_TAKE_OVER != 0;
        match published.owner {
            Some(Owner::Channels) => return Err(EBUSY),
            Some(Owner::File { file: owner, .. }) if owner != file && !take_over => {
                return Err(EBUSY)
            }
            _ => {}
        }
        publish(link, value)?;
        *published = Published {
            value,
            owner: Some(Owner::File {
                file,
                keep: flags & IVSHMEM_STATE_KEEP != 0,
            }),
        };
        Ok(())
    }

    /// Who owns the state, as `file` sees it.
    pub(crate) fn ownership(&self, file: FileId) -> Ownership {
        match &self.published.lock().owner {
            None => Ownership::Nobody,
            Some(Owner::Channels) => Ownership::Channels,
            &Some(Owner::File { file: owner, keep }) if owner == file => Ownership::Own { keep },
            Some(Owner::File { .. }) => Ownership::Another,
        }
    }

    /// `file` is closed: if it owns the state, nobody does any more, and it returns to 0 unless
    /// it is to be kept.
    pub(crate) fn release(&self, link: &Link, file: FileId) {
        let mut published = self.published.lock();
        let keep = match published.owner {
            Some(Owner::File { file: owner, keep }) if owner == file => keep,
            _ => return,
        };
        if !keep {
            // Without the device there is nobody to tell.
            let _ = publish(link, 0);
            published.value = 0;
        }
        published.owner = None;
    }

    /// Takes it for channels: peers see that somebody is here.
    ///
    /// # Errors
    ///
    /// `EBUSY` if a file owns it; `ENODEV`.
    pub(crate) fn claim(&self, link: &Link) -> Result {
        let mut published = self.published.lock();
        if published.owner.is_some() {
            return Err(EBUSY);
        }
        publish(link, CHANNELS)?;
        // A peer that sees a session before our state would take us for gone (rule S7).
        link.enter()?.registers().settle()?;
        *published = Published {
            value: CHANNELS,
            owner: Some(Owner::Channels),
        };
        Ok(())
    }

    /// No channel is open any more: it returns to 0.
    pub(crate) fn disclaim(&self, link: &Link) {
        let mut published = self.published.lock();
        // Without the device there is nobody to tell.
        let _ = publish(link, 0);
        *published = Published {
            value: 0,
            owner: None,
        };
    }

    /// The machine sleeps: peers are told that nobody is here. Sessions of channels go on afterwards, so for their
    /// peers we stay.
    pub(crate) fn sleep(&self, link: &Link) {
        let published = self.published.lock();
        let channels = matches!(published.owner, Some(Owner::Channels));
        if published.value != 0 && !channels {
            // Without the device there is nobody to tell.
            let _ = publish(link, 0);
        }
    }

    /// It is awake again: peers see what they saw before. The device may have forgotten it.
    pub(crate) fn wake(&self, link: &Link) {
        let published = self.published.lock();
        // Likewise.
        let _ = publish(link, published.value);
    }
}

/// Writes the register.
fn publish(link: &Link, value: u32) -> Result {
    let inside = link.enter()?;
    trace::state_set(link.identity.number, value);
    link.events
        .publish(value, || inside.registers().set_state(value))
}
