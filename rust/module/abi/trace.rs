// SPDX-License-Identifier: GPL-2.0

//! Tracepoints, `ivshmem:*` in tracefs. From any context, and nearly free while nobody looks.
//!
//! Mirror of the functions in `trace.h`. The linker does not compare signatures: keep the two
//! equal. `device` is the N of ivshmemN throughout, `file` the number of an open file.

// SAFETY: These are the signatures of `trace.h`. A tracepoint copies its arguments, and may be passed
// in any context.
unsafe extern "C" {
    /// An interrupt has been taken.
    #[link_name = "ivshmem_trace_interrupt"]
    pub(crate) safe fn interrupt(device: u32, vector: u32);

    /// A program is about to ring a doorbell.
    #[link_name = "ivshmem_trace_doorbell"]
    pub(crate) safe fn doorbell(device: u32, peer: u32, vector: u32);

    /// Our state is about to be published.
    #[link_name = "ivshmem_trace_state_set"]
    pub(crate) safe fn state_set(device: u32, state: u32);

    /// The state of another peer was seen to have changed.
    #[link_name = "ivshmem_trace_state_change"]
    pub(crate) safe fn state_change(device: u32, peer: u32, old_state: u32, new_state: u32);

    /// The device has been silenced for a while, as it interrupts too often.
    #[link_name = "ivshmem_trace_throttle"]
    pub(crate) safe fn throttle(device: u32);

    /// The device could not interrupt for some time: files are told that events may have been lost.
    #[link_name = "ivshmem_trace_may_have_lost"]
    pub(crate) safe fn may_have_lost(device: u32);

    /// A file has been opened.
    #[link_name = "ivshmem_trace_open"]
    pub(crate) safe fn open(device: u32, file: u64);

    /// The last descriptor of a file has been closed.
    #[link_name = "ivshmem_trace_release"]
    pub(crate) safe fn release(device: u32, file: u64);

    /// Nobody can touch the device any more.
    #[link_name = "ivshmem_trace_gone"]
    pub(crate) safe fn gone(device: u32);

    /// A channel has been opened; `file` is its number.
    #[link_name = "ivshmem_trace_channel_open"]
    pub(crate) safe fn channel_open(device: u32, peer: u32, file: u64);

    /// A channel's link is another one now: `link` is of `enum ivshmem_channel_link`.
    #[link_name = "ivshmem_trace_channel_link"]
    pub(crate) safe fn channel_link(device: u32, peer: u32, file: u64, link: u32);

    /// A message of `length` bytes has been sent.
    #[link_name = "ivshmem_trace_channel_send"]
    pub(crate) safe fn channel_send(device: u32, peer: u32, number: u64, length: u32);

    /// One has been received.
    #[link_name = "ivshmem_trace_channel_receive"]
    pub(crate) safe fn channel_receive(device: u32, peer: u32, number: u64, length: u32);

    /// A page of a mapping was touched for the first time.
    #[link_name = "ivshmem_trace_fault"]
    pub(crate) safe fn fault(device: u32, offset: u64, writable: bool, mapped: bool);
}
