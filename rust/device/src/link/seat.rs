// SPDX-License-Identifier: MIT OR Apache-2.0

//! Who is a peer: one at a time, be it the client of its socket or a soft inmate.
//!
//! A seat is taken before a peer is attached and given back when its user has gone, however that came
//! about: by then the peer is detached. So nobody's end can touch the device of who comes next. A soft
//! inmate keeps its seat while it restarts.

use super::SharedLink;

/// The right to be a peer, for as long as this lives. Dropped, the peer has gone.
#[derive(Debug)]
pub struct Seat {
    link: SharedLink,
    peer: u16,
}

impl SharedLink {
    /// Takes the seat of `peer`, unless somebody has it.
    #[must_use]
    pub fn take_seat(&self, peer: u16) -> Option<Seat> {
        let mut link = self.lock();
        if link.is_taken(peer) {
            return None;
        }
        link.device(peer).taken = true;
        Some(Seat {
            link: self.clone(),
            peer,
        })
    }
}

impl Seat {
    /// The link.
    pub(crate) fn link(&self) -> &SharedLink {
        &self.link
    }

    /// Whose seat it is.
    pub(crate) fn peer(&self) -> u16 {
        self.peer
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut link = self.link.lock();
        if link.device(self.peer).present {
            link.detach(self.peer);
        }
        link.device(self.peer).taken = false;
    }
}
