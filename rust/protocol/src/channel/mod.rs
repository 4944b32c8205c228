// SPDX-License-Identifier: GPL-2.0 OR MIT

//! Channels: messages whose arrival the sender knows, over output sections and doorbells.
//!
//! The protocol is Documentation/channel-protocol.md; names of rules (H1, S3, ...) are its. Nothing here
//! allocates, waits, or trusts the peer: each call does a bounded number of accesses to the memory and
//! returns. Whoever calls brings the memory, copies the bytes of messages, rings the peer when told so, and
//! sees to it that there is one call at a time on a [`session::Session`].
//!
//! | module | what |
//! | --- | --- |
//! | [`layout`] | where what stands in a section |
//! | [`position`] | arithmetic of rings |
//! | [`session`] | start, link-up, reset, end |
//! | [`transfer`] | sending, receiving, confirming |
//! | [`wake`] | who has to be woken, and when |

pub mod layout;
pub mod position;
pub mod session;
pub mod transfer;
pub mod wake;

use super::v2::memory::Memory;

/// Memory with the barriers that channels need besides ordered loads and stores.
///
/// They order accesses of this CPU as seen by another one, also if this machine has one CPU only: the peer
/// has another.
pub trait Barriers: Memory {
    /// No access behind it happens before one in front of it.
    fn full_barrier(&self);

    /// Likewise, between loads.
    fn read_barrier(&self);

    /// Likewise, between stores.
    fn write_barrier(&self);
}

impl<M: Barriers + ?Sized> Barriers for &M {
    fn full_barrier(&self) {
        (**self).full_barrier();
    }

    fn read_barrier(&self) {
        (**self).read_barrier();
    }

    fn write_barrier(&self) {
        (**self).write_barrier();
    }
}
