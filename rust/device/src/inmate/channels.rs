// SPDX-License-Identifier: MIT OR Apache-2.0

//! A soft inmate that speaks the channel protocol, as Documentation/channel-protocol.md has it: an
//! echo, a source or a sink, with one end for each peer.

use super::end::Crashed;
use super::end::End;
use super::view;
use super::view::StoresLeft;
use super::view::View;
use super::Cell;
use super::Inmate;
use super::Role;
use super::Settings;
use crate::statistics::SessionEnd;
use ivshmem_protocol::channel::session;
use std::time::Duration;

/// A conforming peer.
pub(super) struct Channels {
    role: Role,
    settings: Settings,
    ends: Vec<End>,
    stores_left: StoresLeft,
    has_crashed: bool,
    is_busy: bool,
}

impl Channels {
    pub(super) fn new(role: Role, settings: Settings) -> Self {
        Self {
            role,
            settings,
            ends: Vec::new(),
            stores_left: StoresLeft::default(),
            has_crashed: false,
            is_busy: false,
        }
    }

    /// Does something with all ends, unless that is where the cell crashes.
    fn with(
        &mut self,
        cell: &Cell,
        act: impl Fn(&mut End, &View<'_>) -> Result<bool, Crashed>,
    ) -> bool {
        let view = View::new(cell, &self.stores_left);
        let mut more = false;
        for end in &mut self.ends {
            match act(end, &view) {
                Ok(busy) => more |= busy,
                Err(Crashed) => self.has_crashed = true,
            }
        }
        more && !self.has_crashed
    }

    fn work(&mut self, cell: &Cell) {
        self.is_busy = self.with(cell, |end, view| end.work(cell, view));
    }
}

impl Inmate for Channels {
    fn start(&mut self, cell: &Cell) {
        self.stores_left.set(None);
        self.has_crashed = false;
        // After a crash, what was is history.
        for end in &mut self.ends {
            end.end(cell, SessionEnd::Crashed);
        }
        if self.ends.is_empty() {
            let peers = cell.others();
            let wanted = peers.filter(|&peer| self.settings.to.is_none_or(|to| to == peer));
            let end = |peer| End::new(cell, peer, self.role, self.settings);
            self.ends = wanted.map(end).collect();
        }
        let Some(section) = view::section(cell, cell.id()) else {
            return;
        };
        // It can only fail where the memory has no such section.
        let _ = session::claim(&View::new(cell, &self.stores_left), section);
        cell.set_state(u32::from(cell.id()) + 1);
        self.with(cell, |end, view| end.begin(cell, view).map(|()| false));
        self.work(cell);
    }

    fn interrupt(&mut self, cell: &Cell, _vector: u16) {
        self.work(cell);
    }

    fn period(&self) -> Option<Duration> {
        if self.is_busy {
            return Some(Duration::ZERO);
        }
        let polls = Some(self.settings.poll).filter(|poll| !poll.is_zero());
        self.ends.iter().filter_map(End::sleep).chain(polls).min()
    }

    fn tick(&mut self, cell: &Cell) {
        self.work(cell);
    }

    fn merges_interrupts(&self) -> bool {
        true
    }

    fn crash_after(&mut self, stores: u32) {
        self.stores_left.set(Some(stores));
    }

    fn has_crashed(&self) -> bool {
        self.has_crashed
    }

    fn reconnect(&mut self, cell: &Cell) {
        self.with(cell, |end, view| end.reconnect(cell, view).map(|()| false));
        self.work(cell);
    }
}
