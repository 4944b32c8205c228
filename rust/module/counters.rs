// SPDX-License-Identifier: GPL-2.0

//! Counters, and the directory of a device in debugfs that shows them.
//!
//! /sys/kernel/debug/ivshmem/ivshmemN is there while the device is bound. Reading it touches
//! neither the device nor the shared memory: it says what the driver has seen. Counters go up only,
//! but for the number of open files, and begin with 0 when a device is bound. What each means is in
//! Documentation/observing.md.

use crate::{
    abi::trace,
    events::inspect::Tally,
    file::FileId,
    link::Link,
    pingpong, //
};
use kernel::{
    debugfs::ScopedDir,
    fmt,
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

/// Fills the directory of a device.
pub(crate) fn show<'data>(link: &'data Arc<Link>, dir: &ScopedDir<'data, '_>) {
    dir.read_callback_file(c"doorbells_rung", link, &|link: &Arc<Link>, f| {
        number(&link.counters.doorbells_rung, f)
    });
    dir.read_callback_file(c"wakeups", link, &|link: &Arc<Link>, f| {
        number(&link.counters.wakeups, f)
    });
    dir.read_callback_file(c"throttles", link, &|link: &Arc<Link>, f| {
        number(&link.counters.throttles, f)
    });
    dir.read_callback_file(c"sleeps", link, &|link: &Arc<Link>, f| {
        number(&link.counters.sleeps, f)
    });
    dir.read_callback_file(c"channels_up", link, &|link: &Arc<Link>, f| {
        number(&link.counters.channels_up, f)
    });
    dir.read_callback_file(c"channels_reset", link, &|link: &Arc<Link>, f| {
        number(&link.counters.channels_reset, f)
    });
    dir.read_callback_file(c"channels_broken", link, &|link: &Arc<Link>, f| {
        number(&link.counters.channels_broken, f)
    });
    dir.read_callback_file(c"messages_sent", link, &|link: &Arc<Link>, f| {
        number(&link.counters.messages_sent, f)
    });
    dir.read_callback_file(c"messages_received", link, &|link: &Arc<Link>, f| {
        number(&link.counters.messages_received, f)
    });
    dir.read_callback_file(c"channels", link, &|link: &Arc<Link>, f| {
        link.channels.show(f)
    });
    dir.read_write_callback_file(
        c"pingpong",
        link,
        &|link: &Arc<Link>, f| pingpong::show(link, f),
        &|link: &Arc<Link>, reader| pingpong::write(link, reader),
    );
    dir.read_callback_file(c"files_open", link, &|link: &Arc<Link>, f| {
        number(&link.counters.files_open, f)
    });
    dir.read_callback_file(c"may_have_lost", link, &|link: &Arc<Link>, f| {
        writeln!(f, "{}", link.events.times_lost())
    });
    dir.read_callback_file(c"vectors", link, &|link: &Arc<Link>, f| vectors(link, f));
    dir.read_callback_file(c"peers", link, &|link: &Arc<Link>, f| peers(link, f));
}

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
