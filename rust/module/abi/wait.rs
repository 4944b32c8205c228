// SPDX-License-Identifier: GPL-2.0

//! A wait queue: waiting for a condition with an absolute deadline, and poll.
//!
//! `kernel::sync::CondVar` counts in jiffies and ties the condition to a lock; user space gives
//! deadlines in nanoseconds, and our conditions look at several places.

use kernel::{
    bindings,
    fs::File,
    prelude::*,
    sync::LockClassKey,
    types::Opaque, //
};

/// Makes a [`WaitQueue`] initialiser with a lock class of its own.
macro_rules! new_wait_queue {
    ($name:literal) => {
        $crate::abi::wait::WaitQueue::new(kernel::c_str!($name), kernel::static_lock_class!())
    };
}
pub(crate) use new_wait_queue;

/// Until when to wait.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deadline {
    /// Not at all.
    Now,
    /// `CLOCK_MONOTONIC` time in nanoseconds.
    At(i64),
    /// Without limit.
    Never,
}

/// `CLOCK_MONOTONIC` time in nanoseconds. From any context.
pub(crate) fn now() -> i64 {
    // SAFETY: Has no preconditions.
    unsafe { bindings::ktime_get() }
}

/// What a poll call brings along to be woken later.
pub(crate) struct PollTable(*mut bindings::poll_table_struct);

impl PollTable {
    /// # Safety
    ///
    /// `table` must be null or valid as long as the value lives.
    pub(super) unsafe fn from_raw(table: *mut bindings::poll_table_struct) -> Self {
        Self(table)
    }

    /// Whether the call asks for any of `bits`.
    pub(crate) fn asks_for(&self, bits: u32) -> bool {
        // SAFETY: Null or valid by the contract of `from_raw`.
        let wanted = unsafe { self.0.as_ref() }.map(|table| table._key);
        wanted.is_none_or(|wanted| wanted & bits != 0)
    }
}

/// A queue of tasks that wait for something to happen to what this is part of.
///
/// Waking and registering may be done from any context, also from hard interrupts. Whoever changes
/// a condition that somebody waits for changes it first and wakes afterwards.
#[pin_data]
pub(crate) struct WaitQueue {
    #[pin]
    head: Opaque<bindings::wait_queue_head>,
}

// SAFETY: A `wait_queue_head` carries its own lock and is made for use from any thread.
unsafe impl Send for WaitQueue {}

// SAFETY: As above.
unsafe impl Sync for WaitQueue {}

impl WaitQueue {
    /// An empty queue; see [`new_wait_queue!`].
    pub(crate) fn new(name: &'static CStr, key: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            // SAFETY: `slot` is valid for writes, and name and key live forever.
            head <- Opaque::ffi_init(|slot| unsafe {
                bindings::__init_waitqueue_head(slot, name.as_char_ptr(), key.as_ptr())
            }),
        })
    }

    /// Wakes all that wait or poll.
    pub(crate) fn wake_all(&self) {
        // SAFETY: `head` is initialised; 0 means all, and no key means every poller.
        unsafe {
            bindings::__wake_up(
                self.head.get(),
                bindings::TASK_NORMAL,
                0,
                core::ptr::null_mut(),
            )
        };
    }

    /// Has the poll call behind `table` woken from now on.
    ///
    /// The queue must live as long as `file` is open: it is part of what the file's private data
    /// keeps alive.
    pub(crate) fn register(&self, file: &File, table: &PollTable) {
        // SAFETY: `table` is null or valid by its own contract, `file` is borrowed. epoll drops its
        // entries before the file is released, and the file keeps the queue alive.
        unsafe { bindings::poll_wait(file.as_ptr(), self.head.get(), table.0) };
    }

    /// Sleeps until `ready` returns something, which is what this returns.
    ///
    /// `ready` is called at least once, may be called often, and must not sleep.
    ///
    /// # Errors
    ///
    /// `EAGAIN` if there is nothing and `deadline` is [`Deadline::Now`], `ETIMEDOUT` at the deadline,
    /// `ERESTARTSYS` on a signal.
    pub(crate) fn wait_until<R>(
        &self,
        deadline: Deadline,
        mut ready: impl FnMut() -> Option<R>,
    ) -> Result<R> {
        if let Some(value) = ready() {
            return Ok(value);
        }
        if deadline == Deadline::Now {
            return Err(EAGAIN);
        }
        self.queue_until(deadline, ready)
    }

    /// Like [`Self::wait_until`], for one who has just looked in vain: queues first.
    ///
    /// # Errors
    ///
    /// `ETIMEDOUT` at the deadline, `ERESTARTSYS` on a signal.
    pub(crate) fn queue_until<R>(
        &self,
        deadline: Deadline,
        mut ready: impl FnMut() -> Option<R>,
    ) -> Result<R> {
        let mut expired = false;
        let entry = Opaque::<bindings::wait_queue_entry>::uninit();
        // SAFETY: `entry` stays where it is until `finish_wait` below has taken it off the queue.
        unsafe { bindings::init_wait(entry.get()) };
        let result = loop {
            // SAFETY: Both are initialised.
            let signal = unsafe {
                bindings::prepare_to_wait_event(
                    self.head.get(),
                    entry.get(),
                    // CAST: Two flags of a few bits.
                    (bindings::TASK_INTERRUPTIBLE | bindings::TASK_FREEZABLE) as c_int,
                )
            };
            // The condition goes first: what has happened is reported even to a task with a
            // signal pending or a deadline that has passed.
            if let Some(value) = ready() {
                break Ok(value);
            }
            if signal != 0 {
                break Err(ERESTARTSYS);
            }
            if expired {
                break Err(ETIMEDOUT);
            }
            expired = sleep_until(deadline);
            // Before it queues again: whoever has woken it may still hold the queue's lock, on another CPU.
            if let Some(value) = ready() {
                break Ok(value);
            }
        };
        // SAFETY: Both are initialised; afterwards nothing refers to `entry` any more.
        unsafe { bindings::finish_wait(self.head.get(), entry.get()) };
        result
    }
}

/// Sleeps in the task state set before; true if the deadline was what ended it.
fn sleep_until(deadline: Deadline) -> bool {
    let mut expires = match deadline {
        Deadline::Now => return true,
        Deadline::At(time) => time,
        Deadline::Never => {
            // SAFETY: May be called by any task that may sleep.
            unsafe { bindings::schedule() };
            return false;
        }
    };
    // SAFETY: `expires` is valid for the duration of the call.
    let result = unsafe {
        bindings::schedule_hrtimeout_range_clock(
            &mut expires,
            0,
            bindings::hrtimer_mode_HRTIMER_MODE_ABS,
            bindings::CLOCK_MONOTONIC as bindings::clockid_t,
        )
    };
    result == 0
}
