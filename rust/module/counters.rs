// SPDX-License-Identifier: GPL-2.0

//! Counters, and the directory of a device in debugfs that shows them.
//!
//! /sys/kernel/debug/ivshmem/ivshmemN is there while the device is bound. A file says what the driver has
//! seen until it was opened; that touches neither the device nor the shared memory. Counters go up only,
//! but for the number of open files, and begin with 0 when a device is bound. What each means is in
//! Documentation/observing.md.

use crate::{
    abi::{
        debugfs::Entry,
        trace, //
    },
    events::inspect::Tally,
    file::FileId,
    link::Link,
    pingpong, //
};
use kernel::{
    fmt,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
};

/// Something that is counted. From any context.
pub(crate) struct Counter(Atomic<u64>);

impl Counter {
    const fn new() -> Self {
        Self(Atomic::new(0))
    }

    /// It has happened once more.
    pub(crate) fn increment(&self) {
        self.0.fetch_add(1, Relaxed);
    }

    /// One less of it is there.
    fn decrement(&self) {
        self.0.fetch_sub(1, Relaxed);
    }

    /// How often it has happened.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// What is counted for a link, besides its events.
pub(crate) struct Counters {
    /// Doorbells that programs here have rung.
    pub(crate) doorbells_rung: Counter,
    /// Calls that waited and were woken by an event.
    pub(crate) wakeups: Counter,
    /// Times the device was silenced because it interrupted too often.
    pub(crate) throttles: Counter,
    /// Times the machine has slept.
    pub(crate) sleeps: Counter,
    /// Times a channel's link has come up.
    pub(crate) channels_up: Counter,
    /// Channels that ended because the peer restarted or went.
    pub(crate) channels_reset: Counter,
    /// Channels that ended because the peer broke the protocol.
    pub(crate) channels_broken: Counter,
    /// Messages sent through channels.
    pub(crate) messages_sent: Counter,
    /// Messages received through channels.
    pub(crate) messages_received: Counter,
    /// Files and channels that are open.
    files_open: Counter,
}

impl Counters {
    /// Nothing has happened yet.
    pub(crate) const fn new() -> Self {
        Self {
            doorbells_rung: Counter::new(),
            wakeups: Counter::new(),
            throttles: Counter::new(),
            sleeps: Counter::new(),
            channels_up: Counter::new(),
            channels_reset: Counter::new(),
            channels_broken: Counter::new(),
            messages_sent: Counter::new(),
            messages_received: Counter::new(),
            files_open: Counter::new(),
        }
    }

    /// How many files and channels are open.
    pub(crate) fn files_open(&self) -> u64 {
        self.files_open.get()
    }
}

/// Counts a file or a channel as open while it exists.
pub(crate) struct CountedFile {
    link: Arc<Link>,
    id: FileId,
}

impl CountedFile {
    /// `id` is being opened.
    pub(crate) fn new(link: &Arc<Link>, id: FileId) -> Self {
        link.counters.files_open.increment();
        trace::open(link.identity.number, id.0);
        Self {
            link: link.clone(),
            id,
        }
    }

    /// Which it is.
    pub(crate) fn id(&self) -> FileId {
        self.id
    }
}

impl Drop for CountedFile {
    fn drop(&mut self) {
        trace::release(self.link.identity.number, self.id.0);
        self.link.counters.files_open.decrement();
    }
}

/// A file that shows a counter.
macro_rules! counter {
    ($name:literal, $field:ident) => {
        Entry {
            name: $name,
            show: |link, f| number(&link.counters.$field, f),
            write: None,
        }
    };
}

/// A file that shows something else.
const fn table(
    name: &'static CStr,
    show: fn(&Link, &mut fmt::Formatter<'_>) -> fmt::Result,
) -> Entry<Link> {
    Entry {
        name,
        show,
        write: None,
    }
}

/// The files in the directory of a device.
pub(crate) static FILES: &[Entry<Link>] = &[
    counter!(c"doorbells_rung", doorbells_rung),
    counter!(c"wakeups", wakeups),
    counter!(c"throttles", throttles),
    counter!(c"sleeps", sleeps),
    counter!(c"channels_up", channels_up),
    counter!(c"channels_reset", channels_reset),
    counter!(c"channels_broken", channels_broken),
    counter!(c"messages_sent", messages_sent),
    counter!(c"messages_received", messages_received),
    counter!(c"files_open", files_open),
    table(c"may_have_lost", |link, f| {
        writeln!(f, "{}", link.events.times_lost())
    }),
    table(c"vectors", vectors),
    table(c"peers", peers),
    table(c"channels", |link, f| link.channels.show(f)),
    Entry {
        name: c"pingpong",
        show: pingpong::show,
        write: Some(pingpong::write),
    },
];

fn number(counter: &Counter, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "{}", counter.get())
}

/// A line for each vector. The lock is taken for each line only: interrupts wait for it.
fn vectors(link: &Link, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "vector interrupts last_ns")?;
    for vector in 0..link.identity.vectors_wanted() {
        if let Some(Tally { count, time }) = link.events.vector(vector) {
            writeln!(f, "{vector} {count} {time}")?;
        }
    }
    Ok(())
}

/// Likewise for each other peer.
fn peers(link: &Link, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    writeln!(f, "peer state changes last_ns")?;
    let own = link.layout().id();
    for peer in (0..link.layout().max_peers()).filter(|&peer| peer != own) {
        if let Some((state, Tally { count, time })) = link.events.peer(peer) {
            writeln!(f, "{peer} {state} {count} {time}")?;
        }
    }
    Ok(())
}
