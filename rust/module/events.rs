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
    /// There was a time in which the device could not interrupt.
    fn lose(&mut self) {
        trace::may_have_lost(self.device);
        self.lost += 1;
        self.generation += 1;
    }

    /// Compares the state table with what it said before. Our own entry is not news. Says how many
    /// states have changed.
    ///
    /// A table that is no device's says nothing: all of it is all-ones, and our own entry would be
    /// that only if we had published it, as `own` tells.
    fn scan(&mut self, layout: &Layout, memory: &SharedMemory, own: &Own, now: i64) -> usize {
        let Ok(table) = StateTable::new(memory, layout) else {
            return 0;
        };
        let mut changed = 0;
        for (id, peer) in (0u16..).zip(self.peers.iter_mut()) {
            if id == layout.id() {
                continue;
            }
            match table.get(id) {
                // Our own entry costs a load, so it is looked at only where it matters.
                Some(ALL_ONES) if own.is_denied_by(&table, layout) => return changed,
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

/// What reads of memory whose device is gone, and what few use as a state.
const ALL_ONES: u32 = u32::MAX;

/// Our own state as we have published it; 0 at first, as the driver makes it.
struct Own(Atomic<u32>);

impl Own {
    /// Whether `table` has for us what we have not published: all-ones.
    fn is_denied_by(&self, table: &StateTable<&SharedMemory>, layout: &Layout) -> bool {
        table.get(layout.id()) == Some(ALL_ONES) && self.0.load(Relaxed) != ALL_ONES
    }
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
        let own = Own(Atomic::new(0));
        table.scan(&layout, memory, &own, wait::now());
        Ok(try_pin_init!(Self {
            layout,
            own,
            table <- new_spinlock_irq!(table, "ivshmem_events"),
            queue <- new_wait_queue!("ivshmem_events"),
            eventfds <- EventFds::new(),
        }))
    }

    /// Tells QEMU and our device model that an INTx interrupt has reached its handler: by a read of our own
    /// state, which with INTx nobody else reads ([`Self::own_state`]). On Jailhouse it is harmless.
    pub(crate) fn acknowledge(&self, memory: &SharedMemory) {
        if let Ok(table) = StateTable::new(memory, &self.layout) {
            table.get(self.layout.id());
        }
    }

    /// An interrupt on vector 0: says how many states have changed. From hard interrupt context.
    ///
    /// [`Self::interrupted`] is to follow.
    pub(crate) fn scan(&self, memory: &SharedMemory) -> usize {
        let mut table = self.table.lock();
        table.looks += 1;
        table.scan(&self.layout, memory, &self.own, wait::now())
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

    /// Looks for changes of state that no interrupt has told of.
    pub(crate) fn rescan(&self, memory: &SharedMemory) {
        let changed = self
            .table
            .lock()
            .scan(&self.layout, memory, &self.own, wait::now());
        self.queue.wake_all();
        self.tell_states(changed);
    }

    /// Looks for changes of state now and then, and for interrupts that have not come: if no interrupt
    /// follows a change until the next look, it was lost, and others may have been.
    pub(crate) fn watch(&self, memory: &SharedMemory) {
        let now = wait::now();
        let (changed, lost) = {
            let mut table = self.table.lock();
            let looks = table.looks;
            let lost = table.suspect == Some(looks);
            if lost {
                table.lose();
            }
            let changed = table.scan(&self.layout, memory, &self.own, now);
            table.suspect = (changed > 0).then_some(looks);
            (changed, lost)
        };
        if changed > 0 || lost {
            self.queue.wake_all();
        }
        self.tell_states(changed);
    }

    /// The device could not interrupt for some time: tells every file, and looks what has changed.
    pub(crate) fn lose(&self, memory: &SharedMemory) {
        self.table.lock().lose();
        self.rescan(memory);
        self.eventfds.signal_all();
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
            self.own.0.store(value, Relaxed);
        }
        write()?;
        self.own.0.store(value, Relaxed);
        Ok(())
    }

    /// Our state as last published, without a look at the table.
    pub(crate) fn own_state(&self) -> u32 {
        self.own.0.load(Relaxed)
    }

    /// Whether the state table reads as if the device were gone.
    ///
    /// Looks at the state of somebody else first, since to read our own is to acknowledge an interrupt.
    pub(crate) fn is_void(&self, memory: &SharedMemory) -> bool {
        let layout = &self.layout;
        let other = u16::from(layout.id() == 0);
        StateTable::new(memory, layout).is_ok_and(|table| {
            matches!(table.get(other), None | Some(ALL_ONES))
                && self.own.is_denied_by(&table, layout)
        })
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
