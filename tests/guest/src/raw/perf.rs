// SPDX-License-Identifier: MIT OR Apache-2.0
//! perf_event_open(2) for tracepoints, as perf uses it.

use super::{mmap, outcome, Map};
use rustix::io::Errno;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

/// Words of `struct perf_event_attr`, first version: type and size, config, period, sample type, ...
const WORDS: usize = 8;
const TYPE_TRACEPOINT: u64 = 2;
const SAMPLE_RAW: u64 = 1 << 10;
const RECORD_SAMPLE: u32 = 9;

/// Where the kernel's and our position stand in the first page of the buffer.
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;

/// Opens an event of this thread on all processors.
fn open(mut attributes: [u64; WORDS]) -> Result<OwnedFd, Errno> {
    let (this_thread, any_processor, no_group, no_flags) = (0, -1, -1, 0);
    // SAFETY: the structure is as long as it says.
    let result = outcome(unsafe {
        libc::syscall(
            libc::SYS_perf_event_open,
            attributes.as_mut_ptr(),
            this_thread,
            any_processor,
            no_group,
            no_flags,
        )
    } as isize)?;
    // SAFETY: a new descriptor, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(result as i32) })
}

fn attributes(tracepoint: u64) -> [u64; WORDS] {
    let size = size_of::<[u64; WORDS]>() as u64;
    let mut attributes = [0; WORDS];
    attributes[0] = TYPE_TRACEPOINT | (size << 32);
    attributes[1] = tracepoint;
    attributes
}

/// Opens a perf counter of a tracepoint, for this thread on all processors.
pub(crate) fn perf_counter(tracepoint: u64) -> Result<OwnedFd, Errno> {
    open(attributes(tracepoint))
}

/// Keeps each hit of a tracepoint by this thread with its fields, as `perf record` does.
pub(crate) struct Sampler {
    _event: OwnedFd,
    buffer: Map,
    page: usize,
}

impl Sampler {
    pub(crate) fn new(tracepoint: u64) -> Result<Self, Errno> {
        let mut attributes = attributes(tracepoint);
        // Each of them, with the raw record.
        attributes[2] = 1;
        attributes[3] = SAMPLE_RAW;
        let event = open(attributes)?;
        let page = rustix::param::page_size();
        // One page for positions, and a power of two of them for data.
        let (length, flags) = (5 * page, libc::MAP_SHARED);
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let buffer = mmap(Some(event.as_fd()), 0, length, rights, flags)?;
        Ok(Self {
            _event: event,
            buffer,
            page,
        })
    }

    /// The raw records since the last call, each as the tracepoint's format describes it, followed by
    /// padding.
    pub(crate) fn records(&self) -> Vec<Vec<u8>> {
        let head = self.buffer.load(DATA_HEAD);
        std::sync::atomic::fence(std::sync::atomic::Ordering::Acquire);
        let mut tail = self.buffer.load(DATA_TAIL);
        let mut records = Vec::new();
        while tail < head {
            // struct perf_event_header: type; misc and size. Then the length of the raw record.
            let (kind, size) = (self.word(tail), self.word(tail + 4) >> 16);
            if kind == RECORD_SAMPLE {
                let length = self.word(tail + 8);
                let words = (0..length / 4).map(|index| self.word(tail + 12 + 4 * index));
                records.push(words.flat_map(u32::to_ne_bytes).collect());
            }
            assert!(size > 0, "a record without a size");
            tail += size;
        }
        self.buffer.store(DATA_TAIL, tail);
        records
    }

    /// The word at `position` of the data, which is a ring.
    fn word(&self, position: u32) -> u32 {
        let data = 4 * self.page;
        self.buffer.load(self.page + position as usize % data)
    }
}
