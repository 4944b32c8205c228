// SPDX-License-Identifier: GPL-2.0

//! What /proc/PID/fdinfo/FD says of an open file. Documentation/observing.md tells what each line means.
//!
//! Looking changes nothing: what the file has not seen stays unseen.

use crate::{
    abi::{
        fops::OpenMode,
        uapi::{
            ivshmem_event,
            IVSHMEM_EVENT_DOORBELL,
            IVSHMEM_EVENT_MAY_HAVE_LOST,
            IVSHMEM_EVENT_STATE, //
        },
    },
    events::inspect::Subscribed,
    file::OpenFile,
    state::Ownership, //
};
use kernel::{
    fs::File,
    seq_file::{
        seq_print,
        SeqFile, //
    },
};

/// Most events that are shown.
const EVENTS_MAX: usize = 256;

/// Writes all lines. What memory cannot be had for is left out.
pub(crate) fn show(open: &OpenFile, file: &File, to: &SeqFile) {
    let (link, state) = (&open.link, open.link.state.ownership(open.id));
    let mode = match (file.is_readable(), file.is_writable()) {
        (true, true) => "read-write",
        (true, false) => "read-only",
        (false, true) => "write-only",
        (false, false) => "none",
    };
    seq_print!(to, "ivshmem-device:\t{}\n", link.identity.number);
    seq_print!(to, "ivshmem-gone:\t{}\n", u8::from(link.is_gone()));
    seq_print!(to, "ivshmem-file:\t{}\n", open.id.0);
    seq_print!(to, "ivshmem-mode:\t{mode}\n");
    let state = match state {
        Ownership::Nobody => "nobody's",
        Ownership::Another => "another file's",
        Ownership::Channels => "the channels'",
        Ownership::Own { keep: false } => "own",
        Ownership::Own { keep: true } => "own, kept",
    };
    seq_print!(to, "ivshmem-state:\t{state}\n");
    if let Ok([vectors, peers]) = open.cursor.subscribed() {
        subscription(to, "vectors", &vectors);
        subscription(to, "peers", &peers);
    }
    if let Ok(fetched) = open.cursor.fetch(&link.events, EVENTS_MAX) {
        let events = fetched.as_ref().map_or(&[][..], |fetched| &fetched.events);
        unseen(to, "doorbells", IVSHMEM_EVENT_DOORBELL, events);
        unseen(to, "states", IVSHMEM_EVENT_STATE, events);
    }
}

/// `all`, or a list like `0-2,5`.
fn subscription(to: &SeqFile, name: &str, subscribed: &Subscribed) {
    seq_print!(to, "ivshmem-subscribed-{name}:\t");
    if subscribed.all {
        seq_print!(to, "all\n");
        return;
    }
    let mut separator = "";
    for range in &subscribed.ranges {
        let (first, last) = (range.start(), range.end());
        seq_print!(to, "{separator}{first}");
        if first != last {
            seq_print!(to, "-{last}");
        }
        separator = ",";
    }
    seq_print!(to, "\n");
}

/// Index and count of each event of a kind that the file has not seen, like `0:12 3:1`; with a `+`
/// behind it where there may have been more.
fn unseen(to: &SeqFile, name: &str, kind: u32, events: &[ivshmem_event]) {
    seq_print!(to, "ivshmem-unseen-{name}:\t");
    let mut separator = "";
    for event in events.iter().filter(|event| event.kind == kind) {
        // One of them is 0.
        let count = event.count + event.changes;
        let lost = event.flags & IVSHMEM_EVENT_MAY_HAVE_LOST != 0;
        let more = if lost { "+" } else { "" };
        seq_print!(to, "{separator}{}:{count}{more}", event.index);
        separator = " ";
    }
    seq_print!(to, "\n");
}
