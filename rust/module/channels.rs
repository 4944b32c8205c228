// SPDX-License-Identifier: GPL-2.0

//! The channels of a link: which are open, who is to look after them, and what excludes them.
//!
//! While a channel is open the driver owns our state and our output section: no program may write there. One
//! that has mapped it for writing, or owns the state, keeps channels from being opened. [`Channels::claims`] is
//! where that is decided; no call that is inside of the device takes the mutex, as those who have it may wait until
//! all that are inside have left.
//!
//! | file | what |
//! | --- | --- |
//! | `channel.rs` | one channel: its session, and waiting for it |
//! | `transfer.rs` | reading and writing messages |
//! | `confirmation.rs` | waiting for confirmations, acknowledging |
//! | `calls.rs` | the file operations and ioctls of a descriptor |
//! | `show.rs` | what /proc and debugfs say of it |
//!
//! Locks: claims, then the list, then a channel's session; the last two are spin locks, which interrupt
//! handlers take too.

use crate::{
    abi::memory::SharedMemory,
    counters::CountedFile,
    file::FileId,
    link::{
        Inside,
        Link, //
    },
    protocol::channel::{
        layout::{
            Ring,
            Section, //
        },
        session, //
    },
};
use kernel::{
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        new_mutex,
        new_spinlock_irq,
        Arc,
        Mutex,
        SpinLockIrq, //
    },
};

mod calls;
mod channel;
mod confirmation;
mod show;
mod transfer;

pub(crate) use channel::{
    Channel,
    Options, //
};

/// Who uses our output section.
struct Claims {
    /// Channels that are open.
    channels: u32,
    /// Mappings of it through which programs may write.
    writable_mappings: u32,
}

/// The channels of a link.
#[pin_data]
pub(crate) struct Channels {
    #[pin]
    claims: Mutex<Claims>,
    /// Programs may not write to our output section.
    claimed: Atomic<bool>,
    /// Since channels last had it, something else may have been written there.
    trampled: Atomic<bool>,
    #[pin]
    open: SpinLockIrq<KVec<Arc<Channel>>>,
}

impl Channels {
    /// None.
    pub(crate) fn new() -> impl PinInit<Self> {
        let claims = Claims {
            channels: 0,
            writable_mappings: 0,
        };
        pin_init!(Self {
            claims <- new_mutex!(claims, "ivshmem_claims"),
            claimed: Atomic::new(false),
            trampled: Atomic::new(true),
            open <- new_spinlock_irq!(KVec::new(), "ivshmem_channels"),
        })
    }

    /// How many are open.
    pub(crate) fn count(&self) -> u32 {
        self.claims.lock().channels
    }

    /// Opens a channel. One whose session has ended is displaced: it stays as it is, and is nobody's concern any more.
    ///
    /// # Errors
    ///
    /// `EBUSY` if it is open already and its session has not ended, or if a program uses our output section or our
    /// state; `ENODEV`; `EOPNOTSUPP` if the sections are too small.
    pub(crate) fn connect(link: &Arc<Link>, peer: u16, options: Options) -> Result<Arc<Channel>> {
        let channels = &link.channels;
        let mut claims = channels.claims.lock();
        if link.is_gone() {
            return Err(ENODEV);
        }
        let displaced = channels.find(peer);
        if displaced
            .as_ref()
            .is_some_and(|channel| !channel.has_ended())
        {
            return Err(EBUSY);
        }
        // Before anything is claimed: nobody sees a state of one who cannot have channels.
        let ring = ring_for(link, peer).ok_or(EOPNOTSUPP)?;
        if claims.channels == 0 {
            channels.claim(link, &claims)?;
        }
        if let Some(displaced) = &displaced {
            // Before there is a new session: closing this one then touches nothing of it.
            displaced.give_up();
            // Nor does a writer that was in the middle of a message: it has left, and does not come back.
            link.wait_for_those_inside();
        }
        match channels.start(link, peer, ring, options) {
            Ok(channel) => {
                if displaced.is_none() {
                    claims.channels += 1;
                }
                Ok(channel)
            }
            Err(error) => {
                if claims.channels == 0 {
                    channels.disclaim(link);
                }
                Err(error)
            }
        }
    }

    /// Takes state and output section for channels.
    fn claim(&self, link: &Link, claims: &Claims) -> Result {
        if claims.writable_mappings > 0 {
            return Err(EBUSY);
        }
        link.state.claim(link)?;
        self.claimed.store(true, Relaxed);
        // Who has found it unclaimed has written by then.
        link.wait_for_those_inside();
        if self.trampled.xchg(false, Full) {
            let written = link
                .enter()
                .and_then(|inside| Ok(session::claim(&*inside.memory()?, own_section(link)?)));
            if !matches!(written, Ok(Ok(()))) {
                self.trampled.store(true, Relaxed);
                self.disclaim(link);
                return Err(ENODEV);
            }
        }
        Ok(())
    }

    /// Gives them back.
    fn disclaim(&self, link: &Link) {
        self.claimed.store(false, Relaxed);
        link.state.disclaim(link);
    }

    fn start(
        &self,
        link: &Arc<Link>,
        peer: u16,
        ring: Ring,
        options: Options,
    ) -> Result<Arc<Channel>> {
        let counted = CountedFile::new(link, FileId::next());
        // First: once the session has started, the peer may come up with it.
        let mut room = KVec::with_capacity(self.count_in_list() + 1, GFP_KERNEL)?;
        let channel = Channel::start(link, peer, ring, options, counted)?;
        {
            // Under the claims' mutex nobody else changes the list; memory cannot be had under a spin lock.
            let mut open = self.open.lock();
            for other in open.iter().filter(|other| other.peer() != peer) {
                let _ = room.push_within_capacity(other.clone());
            }
            let _ = room.push_within_capacity(channel.clone());
            core::mem::swap(&mut *open, &mut room);
        }
        // The peer may have looked at us before we were in the list.
        channel.look();
        Ok(channel)
    }

    fn count_in_list(&self) -> usize {
        self.open.lock().len()
    }

    fn find(&self, peer: u16) -> Option<Arc<Channel>> {
        let open = self.open.lock();
        open.iter().find(|channel| channel.peer() == peer).cloned()
    }

    /// `channel` has been closed. If another one has displaced it, that one is left alone.
    pub(crate) fn remove(&self, link: &Link, channel: &Channel) {
        let mut claims = self.claims.lock();
        let removed = {
            let mut open = self.open.lock();
            let index = open
                .iter()
                .position(|other| core::ptr::eq(&**other, channel));
            index.and_then(|index| open.remove(index).ok())
        };
        if removed.is_some() {
            claims.channels -= 1;
            if claims.channels == 0 {
                self.disclaim(link);
            }
        }
    }

    /// An interrupt on `vector`: something may have happened to those that it is for. From any context, only
    /// while the device is bound.
    pub(crate) fn interrupt(&self, link: &Link, vector: u16, memory: &SharedMemory) {
        for channel in self.open.lock().iter() {
            if channel.vector() == Some(vector) {
                channel.notice(link, memory, false);
            }
        }
    }

    /// Something may have happened to any of them, and states may have changed. Likewise.
    pub(crate) fn rescan(&self, link: &Link, memory: &SharedMemory) {
        for channel in self.open.lock().iter() {
            channel.notice(link, memory, true);
        }
    }

    /// The device is gone.
    pub(crate) fn wake_all(&self) {
        for channel in self.open.lock().iter() {
            channel.wake();
        }
    }

    /// The device goes. Nobody may be inside.
    pub(crate) fn retire(&self, link: &Link, memory: &SharedMemory) {
        // An interrupt handler that still runs finds none, and starts nothing anew behind our back.
        let open = core::mem::replace(&mut *self.open.lock(), KVec::new());
        self.end(link, memory);
        for channel in &open {
            channel.announce_end(link);
        }
    }

    /// Our end of all of them is gone for good: peers find no session any more. Nobody may be inside.
    fn end(&self, link: &Link, memory: &SharedMemory) {
        if self.trampled.load(Relaxed) {
            return;
        }
        if let Ok(section) = own_section(link) {
            // Fails only for a section outside of the region, of which there is none.
            let _ = session::end_all(memory, section);
        }
    }

    /// Something else than channels is about to write to our output section. A peer that has not yet read all that
    /// a channel has left there must not take the rest for messages (rule E3).
    fn trample(&self, link: &Link, memory: &SharedMemory) {
        self.end(link, memory);
        self.trampled.store(true, Relaxed);
    }

    /// A program is about to write within one section, at `offset` of the region.
    ///
    /// # Errors
    ///
    /// `EBUSY` if channels own it.
    pub(crate) fn admit_write(&self, inside: &Inside<'_>, offset: u64) -> Result {
        if !inside.layout().output().contains(offset) {
            return Ok(());
        }
        if self.claimed.load(Relaxed) {
            return Err(EBUSY);
        }
        self.trample(inside.link(), &*inside.memory()?);
        Ok(())
    }

    /// A program maps our output section for writing.
    ///
    /// # Errors
    ///
    /// `EBUSY` if channels own it; `ENODEV`.
    pub(crate) fn admit_mapping(&self, link: &Link) -> Result {
        let mut claims = self.claims.lock();
        if claims.channels > 0 {
            return Err(EBUSY);
        }
        let inside = link.enter()?;
        self.trample(link, &*inside.memory()?);
        claims.writable_mappings += 1;
        Ok(())
    }

    /// There is another one of such a mapping, or one less.
    pub(crate) fn count_mapping(&self, more: bool) {
        let mut claims = self.claims.lock();
        if more {
            claims.writable_mappings += 1;
        } else {
            claims.writable_mappings -= 1;
        }
    }
}

/// Our output section.
fn own_section(link: &Link) -> Result<Section> {
    section_of(link, link.layout().id())
}

/// Our ring for `peer`; [`None`] if the sections are too small for channels, or there are none.
fn ring_for(link: &Link, peer: u16) -> Option<Ring> {
    own_section(link).ok()?.share(link.layout().id(), peer)
}

/// The output section of `peer`. What is beyond 4 GiB of it channels do not use.
fn section_of(link: &Link, peer: u16) -> Result<Section> {
    let layout = link.layout();
    let section = layout.output_of(peer).ok_or(ENXIO)?;
    Ok(Section {
        offset: usize::try_from(section.offset)?,
        size: u32::try_from(section.size).unwrap_or(u32::MAX),
        max_peers: layout.max_peers(),
    })
}
