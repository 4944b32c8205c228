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
        irq::{
            self,
            Granted, //
        },
        memory::SharedMemory,
        trace,
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
        atomic::{
            Atomic,
            Relaxed, //
        },
        new_spinlock_irq,
        SpinLockIrq, //
    },
};

mod cursor;
pub(crate) mod inspect;

pub(crate) use cursor::{
    Cursor,
    Fetched,
    Subject, //
};

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
    /// Those on which we can be interrupted.
    vectors: KVVec<Vector>,
    peers: KVVec<Peer>,
    /// Times in which the device could not interrupt.
    lost: u64,
    /// Interrupts on vector 0 that have looked at the states; they are counted a little later.
    looks: u64,
    /// Changes of state that no interrupt had told of when they were found, and how many interrupts
    /// had looked by then.
    suspect: Option<u64>,
    /// Grows whenever something happens.
    generation: u64,
}

impl Table {
    /// There was a time in which the device could not interrupt. Whether that means anything: one that never
    /// interrupts loses nothing.
    fn lose(&mut self) -> bool {
        if self.vectors.is_empty() {
            return false;
        }
        trace::may_have_lost(self.device);
        self.lost += 1;
        self.generation += 1;
        true
    }

    /// Compares the state table with what it said before. Our own entry is not news. Says how many
    /// states have changed.
    ///
    /// A table that is no device's says nothing: all of it is all-ones. So that is what `is_void` is asked at
    /// the first state that has become all-ones, and not before: it may cost a load, or an interrupt.
    fn scan(
        &mut self,
        layout: &Layout,
        memory: &SharedMemory,
        mut is_void: impl FnMut(&StateTable<&SharedMemory>) -> bool,
    ) -> usize {
        let Ok(table) = StateTable::new(memory, layout) else {
            return 0;
        };
        let now = wait::now();
        let mut changed = 0;
        for (id, peer) in (0u16..).zip(self.peers.iter_mut()) {
            if id == layout.id() {
                continue;
            }
            match table.get(id) {
                Some(state) if state != peer.state => {
                    if state == ALL_ONES && is_void(&table) {
                        return changed;
                    }
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

/// What reads of memory whose device is gone, and what few use as a state.
const ALL_ONES: u32 = u32::MAX;

/// Our own state.
struct Own {
    /// As we have published it; 0 at first, as the driver makes it.
    published: Atomic<u32>,
    /// A read of it acknowledges an interrupt, and is for the handler.
    is_acknowledgement: Atomic<bool>,
    /// If so: the last handler has read what we have not published.
    denied: Atomic<bool>,
}

impl Own {
    fn new() -> Self {
        Self {
            published: Atomic::new(0),
            is_acknowledgement: Atomic::new(false),
            denied: Atomic::new(false),
        }
    }

    /// Whether `table` has for us what we have not published: all-ones.
    fn is_denied_by(&self, table: &StateTable<&SharedMemory>, layout: &Layout) -> bool {
        table.get(layout.id()) == Some(ALL_ONES) && self.published.load(Relaxed) != ALL_ONES
    }
}

/// What a look at the states has found that no interrupt has told of.
struct Look {
    /// How many have changed.
    changed: usize,
    /// The table is no device's.
    void: bool,
    /// Interrupts may have been lost.
    lost: bool,
}

/// What has happened on a link, and who waits for more.
#[pin_data]
pub(crate) struct Events {
    layout: Layout,
    own: Own,
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
            lost: 0,
            looks: 0,
            suspect: None,
            generation: 0,
        };
        let own = Own::new();
        table.scan(&layout, memory, |states| own.is_denied_by(states, &layout));
        Ok(try_pin_init!(Self {
            layout,
            own,
            table <- new_spinlock_irq!(table, "ivshmem_events"),
            queue <- new_wait_queue!("ivshmem_events"),
            eventfds <- EventFds::new(),
        }))
    }

    /// What the device interrupts on, before it does. Nothing is ever told of other vectors.
    pub(crate) fn start(&self, granted: Granted) {
        self.table.lock().vectors.truncate(granted.vectors.into());
        let is_acknowledgement = granted.mode == irq::Mode::Intx;
        self.own
            .is_acknowledgement
            .store(is_acknowledgement, Relaxed);
    }

    /// Whether a read of our own state means something to QEMU, and is for the handler of interrupts: with
    /// INTx, see [`Self::acknowledge`].
    pub(crate) fn is_acknowledged_by_reading(&self) -> bool {
        self.own.is_acknowledgement.load(Relaxed)
    }

    /// Tells QEMU and our device model that an INTx interrupt has reached its handler: by a read of our own
    /// state, which with INTx nobody else reads but [`Self::look`]. On Jailhouse it is harmless.
    pub(crate) fn acknowledge(&self, memory: &SharedMemory) {
        if let Ok(table) = StateTable::new(memory, &self.layout) {
            let denied = self.own.is_denied_by(&table, &self.layout);
            self.own.denied.store(denied, Relaxed);
        }
    }

    /// An interrupt on vector 0: says how many states have changed. From hard interrupt context.
    ///
    /// [`Self::interrupted`] is to follow.
    pub(crate) fn scan(&self, memory: &SharedMemory) -> usize {
        let mut table = self.table.lock();
        table.looks += 1;
        table.scan(&self.layout, memory, |states| {
            if self.is_acknowledged_by_reading() {
                // It has been read, and a second time would take back what has come since.
                self.own.denied.load(Relaxed)
            } else {
                self.own.is_denied_by(states, &self.layout)
            }
        })
    }

    /// There has been an interrupt on `vector`, at which `changed` states were other ones. Likewise.
    ///
    /// Everything that the handler does with the device comes before: with INTx on QEMU each access takes
    /// back an interrupt that has been raised since, and who is woken by this one must find all that
    /// was said until the last access.
    pub(crate) fn interrupted(&self, vector: u16, changed: usize) {
        {
            let mut table = self.table.lock();
            if let Some(entry) = table.vectors.get_mut(usize::from(vector)) {
                entry.count += 1;
                entry.time = wait::now();
                table.generation += 1;
            }
        }
        self.queue.wake_all();
        self.eventfds.signal(Trigger::Vector(vector));
        self.tell_states(changed);
    }

    /// Looks at the states where no interrupt has told of any.
    ///
    /// With INTx that may take back an interrupt that is on its way, by a look at our own state. That is a rare
    /// thing to do: then it counts as lost.
    fn look(&self, table: &mut Table, memory: &SharedMemory) -> Look {
        let (mut void, mut lost) = (false, false);
        let changed = table.scan(&self.layout, memory, |states| {
            void = self.own.is_denied_by(states, &self.layout);
            lost = self.is_acknowledged_by_reading();
            void
        });
        Look {
            changed,
            void,
            lost: lost && !void && table.lose(),
        }
    }

    /// Tells what a look has found.
    fn tell(&self, look: &Look) {
        if look.changed > 0 || look.lost {
            self.queue.wake_all();
        }
        if look.lost {
            self.eventfds.signal_vectors();
        }
        self.tell_states(look.changed);
    }

    /// Looks for changes of state that no interrupt has told of.
    pub(crate) fn rescan(&self, memory: &SharedMemory) {
        let look = self.look(&mut self.table.lock(), memory);
        self.tell(&look);
    }

    /// Looks for changes of state now and then, and for interrupts that have not come: if no interrupt
    /// follows a change until the next look, it was lost, and others may have been.
    pub(crate) fn watch(&self, memory: &SharedMemory) {
        let look = {
            let mut table = self.table.lock();
            let looks = table.looks;
            let lost = table.suspect == Some(looks) && table.lose();
            let look = self.look(&mut table, memory);
            table.suspect = (look.changed > 0).then_some(looks);
            Look {
                lost: lost || look.lost,
                ..look
            }
        };
        self.tell(&look);
    }

    /// The device could not interrupt for some time: tells every file, and looks what has changed.
    pub(crate) fn lose(&self, memory: &SharedMemory) {
        let look = {
            let mut table = self.table.lock();
            let lost = table.lose();
            let look = self.look(&mut table, memory);
            Look {
                lost: lost || look.lost,
                ..look
            }
        };
        self.tell(&look);
    }

    /// Waits until `vector` has been interrupted on, `deadline` at the latest. Whether it has; [`None`] if a signal came
    /// first.
    pub(crate) fn wait_for(&self, vector: u16, deadline: Deadline) -> Option<bool> {
        let taken = || {
            let table = self.table.lock();
            let vector = table.vectors.get(usize::from(vector))?;
            (vector.count > 0).then_some(())
        };
        match self.queue.wait_until(deadline, taken) {
            Ok(()) => Some(true),
            Err(ETIMEDOUT) => Some(false),
            Err(_) => None,
        }
    }

    /// Publishes our state by `write`, which takes effect at once.
    pub(crate) fn publish(&self, value: u32, write: impl FnOnce() -> Result) -> Result {
        if value == ALL_ONES {
            self.own.published.store(value, Relaxed);
        }
        write()?;
        self.own.published.store(value, Relaxed);
        Ok(())
    }

    /// Our state as last published, without a look at the table.
    pub(crate) fn own_state(&self) -> u32 {
        self.own.published.load(Relaxed)
    }

    /// Whether the state table reads as if the device were gone.
    ///
    /// First looks at somebody else's state, of whom another one is known: to read our own may cost an interrupt.
    pub(crate) fn is_void(&self, memory: &SharedMemory) -> bool {
        let Ok(states) = StateTable::new(memory, &self.layout) else {
            return false;
        };
        let mut table = self.table.lock();
        let witness = (0u16..)
            .zip(&table.peers)
            .find(|(id, peer)| *id != self.layout.id() && peer.state != ALL_ONES);
        let has_changed = witness.map(|(id, _)| states.get(id) == Some(ALL_ONES));
        if !self.is_acknowledged_by_reading() {
            return has_changed.unwrap_or(true) && self.own.is_denied_by(&states, &self.layout);
        }
        if has_changed != Some(true) {
            return false;
        }
        let look = self.look(&mut table, memory);
        drop(table);
        self.tell(&look);
        look.void
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
}

/// `length` copies of `value`.
fn filled<T: Clone>(length: u16, value: T) -> Result<KVVec<T>> {
    const FLAGS: Flags = GFP_KERNEL;
    Ok(KVVec::from_elem(value, length.into(), FLAGS)?)
}
