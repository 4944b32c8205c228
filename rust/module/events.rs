// SPDX-License-Identifier: GPL-2.0

//! What has happened on a link, and what a file has seen of it.
//!
//! There is no queue. [`Events`] keeps a count for each vector, and for each peer its state and a
//! count of changes: constant memory, however much a peer rings. Each open file has a [`Cursor`]
//! with the counts that it has been told; the difference is what it has not seen. So no file takes
//! anything from another, and nothing overflows.
//!
//! An interrupt is a hint. Edges merge, and on vector 0 nothing tells a doorbell from a change of
//! state: so an interrupt there is counted, and the state table compared with what it said before.
//!
//! Locks: a cursor's mutex, then the table's spin lock, which interrupt handlers take too.

use crate::{
    abi::{
        memory::SharedMemory,
        trace,
        uapi::{
            ivshmem_event,
            IVSHMEM_EVENT_DOORBELL,
            IVSHMEM_EVENT_STATE, //
        },
        wait::{
            self,
            new_wait_queue,
            Deadline,
            PollTable,
            WaitQueue, //
        },
    },
    eventfds::{
        EventFds,
        Trigger, //
    },
    link::Identity,
    protocol::v2::{
        layout::Layout,
        state_table::StateTable, //
    },
};
use kernel::{
    alloc::{
        Flags,
        KVVec, //
    },
    fs::File,
    prelude::*,
    sync::{
        new_mutex,
        new_spinlock_irq,
        Mutex,
        SpinLockIrq, //
    },
};

pub(crate) mod inspect;

/// What has happened on one vector since the device was bound.
#[derive(Clone, Copy)]
struct Vector {
    /// Interrupts taken.
    count: u64,
    /// When the last of them was.
    time: i64,
}

/// What has been seen of one peer since the device was bound.
#[derive(Clone, Copy)]
struct Peer {
    /// State when the table was last looked at.
    state: u32,
    /// How often that was another one than before.
    changes: u64,
    /// When it last was.
    time: i64,
}

/// All that has happened.
struct Table {
    /// The N of ivshmemN.
    device: u32,
    vectors: KVVec<Vector>,
    peers: KVVec<Peer>,
    /// Grows whenever something happens.
    generation: u64,
}

impl Table {
    /// Compares the state table with what it said before. Our own entry is not news. Says how many
    /// states have changed.
    fn scan(&mut self, layout: &Layout, memory: &SharedMemory, now: i64) -> usize {
        let Ok(table) = StateTable::new(memory, layout) else {
            return 0;
        };
        let mut changed = 0;
        for (id, peer) in (0u16..).zip(self.peers.iter_mut()) {
            if id == layout.id() {
                continue;
            }
            match table.get(id) {
                Some(state) if state != peer.state => {
                    trace::state_change(self.device, id.into(), peer.state, state);
                    *peer = Peer {
                        state,
                        changes: peer.changes + 1,
                        time: now,
                    };
                    self.generation += 1;
                    changed += 1;
                }
                _ => {}
            }
        }
        changed
    }
}

/// What has happened on a link, and who waits for more.
#[pin_data]
pub(crate) struct Events {
    layout: Layout,
    #[pin]
    table: SpinLockIrq<Table>,
    #[pin]
    queue: WaitQueue,
    /// Who wants to be told by eventfd.
    #[pin]
    pub(crate) eventfds: EventFds,
}

impl Events {
    /// Nothing has happened yet; states are as the table has them now.
    pub(crate) fn new(
        identity: &Identity,
        memory: &SharedMemory,
    ) -> Result<impl PinInit<Self, Error>> {
        let layout = identity.layout;
        let vectors = identity.vectors_wanted();
        let mut table = Table {
            device: identity.number,
            vectors: filled(vectors, Vector { count: 0, time: 0 })?,
            peers: filled(
                layout.max_peers(),
                Peer {
                    state: 0,
                    changes: 0,
                    time: 0,
                },
            )?,
            generation: 0,
        };
        table.scan(&layout, memory, wait::now());
        Ok(try_pin_init!(Self {
            layout,
            table <- new_spinlock_irq!(table, "ivshmem_events"),
            queue <- new_wait_queue!("ivshmem_events"),
            eventfds <- EventFds::new(),
        }))
    }

    /// An interrupt on `vector`. From hard interrupt context.
    pub(crate) fn interrupt(&self, vector: u16, memory: &SharedMemory) {
        let now = wait::now();
        let changed = {
            let mut table = self.table.lock();
            if let Some(entry) = table.vectors.get_mut(usize::from(vector)) {
                entry.count += 1;
                entry.time = now;
                table.generation += 1;
            }
            if vector == 0 {
                table.scan(&self.layout, memory, now)
            } else {
                0
            }
        };
        self.queue.wake_all();
        self.eventfds.signal(Trigger::Vector(vector));
        self.tell_states(changed);
    }

    /// Looks for changes of state that no interrupt has told of.
    pub(crate) fn rescan(&self, memory: &SharedMemory) {
        let changed = self.table.lock().scan(&self.layout, memory, wait::now());
        self.queue.wake_all();
        self.tell_states(changed);
    }

    /// Tells eventfds of `changed` changes of state.
    fn tell_states(&self, changed: usize) {
        for _ in 0..changed {
            self.eventfds.signal(Trigger::State);
        }
    }

    /// Wakes all that wait, to look at something else than events.
    pub(crate) fn wake_all(&self) {
        self.queue.wake_all();
        self.eventfds.signal_all();
    }

    /// Has `file` woken by events from now on.
    pub(crate) fn register(&self, file: &File, table: &PollTable) {
        self.queue.register(file, table);
    }

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

/// Takes an event; says whether it wants more.
type Tell<'a> = &'a mut dyn FnMut(ivshmem_event) -> bool;

/// What a file has been told of a vector.
#[derive(Clone, Copy)]
struct SeenVector {
    count: u64,
    /// The file is subscribed to it.
    wanted: bool,
}

/// What a file has been told of a peer.
#[derive(Clone, Copy)]
struct SeenPeer {
    state: u32,
    changes: u64,
    /// The file is subscribed to it.
    wanted: bool,
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
struct Seen {
    vectors: KVVec<SeenVector>,
    peers: KVVec<SeenPeer>,
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
        match subject {
            Subject::Vector(which) => {
                let vectors = self.vectors.iter_mut().zip(&table.vectors);
                for (_, (seen, vector)) in vectors.enumerate().filter(|(i, _)| selects(which, *i)) {
                    if !seen.wanted {
                        seen.count = vector.count;
                    }
                    seen.wanted = wanted;
                }
            }
            Subject::Peer(which) => {
                let peers = self.peers.iter_mut().zip(&table.peers);
                for (_, (seen, peer)) in peers.enumerate().filter(|(i, _)| selects(which, *i)) {
                    if !seen.wanted {
                        seen.state = peer.state;
                        seen.changes = peer.changes;
                    }
                    seen.wanted = wanted;
                }
            }
        }
        // What another thread has fetched meanwhile is counted from before.
        self.fetches += 1;
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
                let news = seen.wanted && vector.count != seen.count;
                if news && !tell(doorbell_event(index, vector, seen.count)) {
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

    /// Marks `event` as told.
    fn told(&mut self, event: &ivshmem_event) {
        let index = event.index as usize;
        match event.kind {
            IVSHMEM_EVENT_DOORBELL => {
                if let Some(seen) = self.vectors.get_mut(index) {
                    seen.count += event.count;
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
    /// Generation of the table, if these are all.
    complete: Option<u64>,
}

/// What a file has seen of a link's events.
#[pin_data]
pub(crate) struct Cursor {
    #[pin]
    seen: Mutex<Seen>,
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
        let (complete, generation) = {
            let table = events.table.lock();
            let complete = seen.untold(&table, &mut |event| {
                found.len() < count && found.push_within_capacity(event).is_ok()
            });
            (complete, table.generation)
        };
        Ok(Some(Fetched {
            events: found,
            fetches: seen.fetches,
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
            seen.told(event);
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

fn doorbell_event(index: usize, vector: &Vector, seen: u64) -> ivshmem_event {
    ivshmem_event {
        kind: IVSHMEM_EVENT_DOORBELL,
        // A device has at most 2048 vectors.
        index: index as u32,
        count: vector.count - seen,
        time: vector.time as u64,
        ..Default::default()
    }
}

/// All indices below `length`, from `start` on and around.
fn rotated(length: usize, start: usize) -> impl Iterator<Item = usize> {
    let start = start.min(length);
    Iterator::chain(start..length, 0..start)
}

/// `length` copies of `value`.
fn filled<T: Clone>(length: u16, value: T) -> Result<KVVec<T>> {
    const FLAGS: Flags = GFP_KERNEL;
    Ok(KVVec::from_elem(value, length.into(), FLAGS)?)
}
