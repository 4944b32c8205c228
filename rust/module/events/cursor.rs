// SPDX-License-Identifier: GPL-2.0

//! What a file has seen of a link's events: its cursor, and what it is subscribed to.

use super::{
    filled,
    Events,
    Peer,
    Table,
    Vector, //
};
use crate::abi::{
    uapi::{
        ivshmem_event,
        IVSHMEM_EVENT_DOORBELL,
        IVSHMEM_EVENT_MAY_HAVE_LOST,
        IVSHMEM_EVENT_STATE, //
    },
    wait::Deadline, //
};
use kernel::{
    alloc::KVVec,
    prelude::*,
    sync::{
        new_mutex,
        Mutex, //
    },
};

/// Takes an event; says whether it wants more.
type Tell<'a> = &'a mut dyn FnMut(ivshmem_event) -> bool;

/// What a file has been told of a vector.
#[derive(Clone, Copy)]
pub(super) struct SeenVector {
    count: u64,
    /// The last blind time that it has been told of.
    lost: u64,
    /// The file is subscribed to it.
    pub(super) wanted: bool,
}

/// What a file has been told of a peer.
#[derive(Clone, Copy)]
pub(super) struct SeenPeer {
    state: u32,
    changes: u64,
    /// The file is subscribed to it.
    pub(super) wanted: bool,
}

/// Which events a subscription is about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// Interrupts on a vector, or on all.
    Vector(Option<u16>),
    /// Changes of a peer's state, or of all.
    Peer(Option<u16>),
}

/// What a file has been told.
pub(super) struct Seen {
    pub(super) vectors: KVVec<SeenVector>,
    pub(super) peers: KVVec<SeenPeer>,
    /// Generation of the table at which nothing was left to tell.
    generation: u64,
    /// How often something was told.
    fetches: u64,
    /// Where to look first, so that a busy vector does not hide the others.
    next_vector: usize,
    /// Likewise for peers.
    next_peer: usize,
    /// State changes go first, but not again after they have left no room for anything else.
    doorbells_first: bool,
}

impl Seen {
    fn catch_up(&mut self, table: &Table) {
        for (seen, vector) in self.vectors.iter_mut().zip(&table.vectors) {
            seen.count = vector.count;
            seen.lost = table.lost;
        }
        for (seen, peer) in self.peers.iter_mut().zip(&table.peers) {
            seen.state = peer.state;
            seen.changes = peer.changes;
        }
        self.generation = table.generation;
    }

    /// Begins or ends a subscription. What happened while there was none is not told later.
    fn subscribe(&mut self, table: &Table, subject: Subject, wanted: bool) {
        let selects =
            |which: Option<u16>, index| which.is_none_or(|which| usize::from(which) == index);
        let mut changed = false;
        match subject {
            Subject::Vector(which) => {
                let vectors = self.vectors.iter_mut().zip(&table.vectors);
                for (_, (seen, vector)) in vectors.enumerate().filter(|(i, _)| selects(which, *i)) {
                    if seen.wanted != wanted {
                        seen.count = vector.count;
                        seen.lost = table.lost;
                        seen.wanted = wanted;
                        changed = true;
                    }
                }
            }
            Subject::Peer(which) => {
                let peers = self.peers.iter_mut().zip(&table.peers);
                for (_, (seen, peer)) in peers.enumerate().filter(|(i, _)| selects(which, *i)) {
                    if seen.wanted != wanted {
                        seen.state = peer.state;
                        seen.changes = peer.changes;
                        seen.wanted = wanted;
                        changed = true;
                    }
                }
            }
        }
        // What another thread has fetched meanwhile is counted from before.
        self.fetches += u64::from(changed);
    }

    /// Calls `tell` for changes of state not yet told. Whether it wants more.
    fn states(&self, table: &Table, tell: Tell<'_>) -> bool {
        for index in rotated(table.peers.len(), self.next_peer) {
            if let (Some(peer), Some(seen)) = (table.peers.get(index), self.peers.get(index)) {
                let news = seen.wanted && peer.changes != seen.changes;
                if news && !tell(state_event(index, peer, seen)) {
                    return false;
                }
            }
        }
        true
    }

    /// Calls `tell` for interrupts not yet told. Whether it wants more.
    fn doorbells(&self, table: &Table, tell: Tell<'_>) -> bool {
        for index in rotated(table.vectors.len(), self.next_vector) {
            if let (Some(vector), Some(seen)) = (table.vectors.get(index), self.vectors.get(index))
            {
                let news = vector.count != seen.count || table.lost != seen.lost;
                if seen.wanted && news && !tell(doorbell_event(index, vector, seen, table.lost)) {
                    return false;
                }
            }
        }
        true
    }

    /// Calls `tell` for everything not yet told. Whether it wants more.
    fn untold(&self, table: &Table, tell: Tell<'_>) -> bool {
        if self.generation == table.generation {
            true
        } else if self.doorbells_first {
            self.doorbells(table, tell) && self.states(table, tell)
        } else {
            self.states(table, tell) && self.doorbells(table, tell)
        }
    }

    /// Marks `event` as told, and the blind times up to `lost` if it spoke of any.
    fn told(&mut self, event: &ivshmem_event, lost: u64) {
        let index = event.index as usize;
        match event.kind {
            IVSHMEM_EVENT_DOORBELL => {
                if let Some(seen) = self.vectors.get_mut(index) {
                    seen.count += event.count;
                    seen.lost = lost;
                }
                self.next_vector = index + 1;
            }
            _ => {
                if let Some(seen) = self.peers.get_mut(index) {
                    seen.state = event.new_state;
                    seen.changes += event.changes;
                }
                self.next_peer = index + 1;
            }
        }
    }
}

/// Which kinds of events a file has not been told of.
#[derive(Clone, Copy, Default)]
pub(crate) struct Untold {
    /// Interrupts on a vector.
    pub(crate) doorbells: bool,
    /// Changes of a peer's state.
    pub(crate) states: bool,
}

/// Events that a file is about to be told of: [`Cursor::fetch`], then [`Cursor::commit`].
pub(crate) struct Fetched {
    /// The events, at least one.
    pub(crate) events: KVVec<ivshmem_event>,
    fetches: u64,
    /// Blind times that the table knew of.
    lost: u64,
    /// Generation of the table, if these are all.
    complete: Option<u64>,
}

/// What a file has seen of a link's events.
#[pin_data]
pub(crate) struct Cursor {
    #[pin]
    pub(super) seen: Mutex<Seen>,
}

impl Cursor {
    /// What there is to be fetched.
    pub(crate) fn untold(&self, events: &Events) -> Untold {
        let seen = self.seen.lock();
        let table = events.table.lock();
        if seen.generation == table.generation {
            return Untold::default();
        }
        Untold {
            doorbells: !seen.doorbells(&table, &mut |_| false),
            states: !seen.states(&table, &mut |_| false),
        }
    }

    /// Begins (`wanted`) or ends a subscription.
    pub(crate) fn subscribe(&self, events: &Events, subject: Subject, wanted: bool) {
        let mut seen = self.seen.lock();
        seen.subscribe(&events.table.lock(), subject, wanted);
    }

    /// Whether the file is subscribed to the state of any other peer: our own is no news.
    pub(crate) fn wants_states(&self, events: &Events) -> bool {
        let own = usize::from(events.layout.id());
        let seen = self.seen.lock();
        let mut peers = seen.peers.iter().enumerate();
        peers.any(|(id, peer)| id != own && peer.wanted)
    }

    /// Waits until there is something to be fetched, or until `gone` says that there never will be.
    ///
    /// # Errors
    ///
    /// As [`WaitQueue::wait_until`]; `ENODEV` if `gone`.
    pub(crate) fn wait(
        &self,
        events: &Events,
        deadline: Deadline,
        gone: impl Fn() -> bool,
    ) -> Result {
        // The condition must not sleep, so it looks at numbers only: whether the table has moved
        // on since this file was told everything.
        let told = self.seen.lock().generation;
        events.queue.wait_until(deadline, || {
            if gone() {
                return Some(Err(ENODEV));
            }
            (events.table.lock().generation != told).then_some(Ok(()))
        })?
    }

    /// Up to `capacity` events that the file has not been told of; [`None`] if there are none.
    ///
    /// They count as told only after [`Self::commit`].
    pub(crate) fn fetch(&self, events: &Events, capacity: usize) -> Result<Option<Fetched>> {
        let mut seen = self.seen.lock();
        let (count, generation) = {
            let table = events.table.lock();
            let mut count = 0;
            seen.untold(&table, &mut |_| {
                count += 1;
                count < capacity
            });
            (count, table.generation)
        };
        if count == 0 {
            seen.generation = generation;
            return Ok(None);
        }

        // Memory cannot be had under the spin lock. What comes meanwhile is left for the next call.
        let mut found = KVVec::with_capacity(count, GFP_KERNEL)?;
        let (complete, generation, lost) = {
            let table = events.table.lock();
            let complete = seen.untold(&table, &mut |event| {
                found.len() < count && found.push_within_capacity(event).is_ok()
            });
            (complete, table.generation, table.lost)
        };
        Ok(Some(Fetched {
            events: found,
            fetches: seen.fetches,
            lost,
            complete: complete.then_some(generation),
        }))
    }

    /// Marks what was fetched as told. False if another thread has fetched from the same file
    /// meanwhile: then it is void, and has to be fetched again.
    ///
    /// Between fetch and commit the events are copied to user space, which may take for ever: so
    /// no lock is held there.
    pub(crate) fn commit(&self, fetched: &Fetched) -> bool {
        let mut seen = self.seen.lock();
        if seen.fetches != fetched.fetches {
            return false;
        }
        seen.fetches += 1;
        for event in &fetched.events {
            seen.told(event, fetched.lost);
        }
        let all = |kind| fetched.events.iter().all(|event| event.kind == kind);
        seen.doorbells_first = fetched.complete.is_none() && all(IVSHMEM_EVENT_STATE);
        if let Some(generation) = fetched.complete {
            seen.generation = generation;
        }
        true
    }
}

fn state_event(index: usize, peer: &Peer, seen: &SeenPeer) -> ivshmem_event {
    ivshmem_event {
        kind: IVSHMEM_EVENT_STATE,
        // A link has at most `MAX_PEERS_LIMIT` peers.
        index: index as u32,
        old_state: seen.state,
        new_state: peer.state,
        changes: peer.changes - seen.changes,
        time: peer.time as u64,
        ..Default::default()
    }
}

fn doorbell_event(index: usize, vector: &Vector, seen: &SeenVector, lost: u64) -> ivshmem_event {
    ivshmem_event {
        kind: IVSHMEM_EVENT_DOORBELL,
        // A device has at most 2048 vectors.
        index: index as u32,
        flags: if lost == seen.lost {
            0
        } else {
            IVSHMEM_EVENT_MAY_HAVE_LOST
        },
        count: vector.count - seen.count,
        time: vector.time as u64,
        ..Default::default()
    }
}

/// All indices below `length`, from `start` on and around.
fn rotated(length: usize, start: usize) -> impl Iterator<Item = usize> {
    let start = start.min(length);
    Iterator::chain(start..length, 0..start)
}

impl Events {
    /// A cursor that has seen everything up to now.
    pub(crate) fn cursor(&self) -> Result<impl PinInit<Cursor>> {
        let (vectors, peers) = {
            let table = self.table.lock();
            (table.vectors.len(), table.peers.len())
        };
        let mut seen = Seen {
            vectors: filled(
                u16::try_from(vectors)?,
                SeenVector {
                    count: 0,
                    lost: 0,
                    wanted: true,
                },
            )?,
            peers: filled(
                u16::try_from(peers)?,
                SeenPeer {
                    state: 0,
                    changes: 0,
                    wanted: true,
                },
            )?,
            generation: 0,
            fetches: 0,
            next_vector: 0,
            next_peer: 0,
            doorbells_first: false,
        };
        seen.catch_up(&self.table.lock());
        Ok(pin_init!(Cursor {
            seen <- new_mutex!(seen, "ivshmem_cursor"),
        }))
    }
}
