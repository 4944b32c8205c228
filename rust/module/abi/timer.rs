// SPDX-License-Identifier: GPL-2.0

//! A driver's timer: calls the driver again and again, and can be hurried from an interrupt.
//!
//! `kernel::time::hrtimer` ties a timer to one handle, so nobody else can make it come sooner.

use super::{
    binding::Driver,
    work::Work, //
};
use core::time::Duration;
use kernel::{
    bindings,
    container_of,
    prelude::*,
    sync::Arc,
    types::Opaque, //
};

/// Calls [`Driver::tick`] until it is dropped; that waits for a call that runs.
#[pin_data(PinnedDrop)]
pub(super) struct Timer<T: Driver> {
    #[pin]
    raw: Opaque<bindings::hrtimer>,
    shared: Arc<T::Shared>,
    work: Arc<Work<T>>,
}

// SAFETY: A timer carries its own lock and belongs to no thread, and what it shares is `Send`.
unsafe impl<T: Driver> Send for Timer<T> {}

// SAFETY: As above, and what it shares is `Sync`.
unsafe impl<T: Driver> Sync for Timer<T> {}

impl<T: Driver> Timer<T> {
    /// A timer that does not run yet.
    pub(super) fn new(shared: Arc<T::Shared>, work: Arc<Work<T>>) -> Result<Arc<Self>> {
        Arc::pin_init(
            try_pin_init!(Self {
                // SAFETY: `slot` is valid for writes, and stays where it is until `drop`.
                raw <- Opaque::ffi_init(|slot| unsafe {
                    bindings::hrtimer_setup(
                        slot,
                        Some(Self::fire),
                        bindings::CLOCK_MONOTONIC as bindings::clockid_t,
                        bindings::hrtimer_mode_HRTIMER_MODE_REL,
                    )
                }),
                shared,
                work,
            }),
            GFP_KERNEL,
        )
    }

    /// Has it fire after `delay`, instead of when it would have. From any context.
    pub(super) fn arm(&self, delay: Duration) {
        // A delay that does not fit is one that never ends.
        let delay = i64::try_from(delay.as_nanos()).unwrap_or(i64::MAX);
        // SAFETY: `new` has set it up.
        unsafe {
            bindings::hrtimer_start_range_ns(
                self.raw.get(),
                delay,
                0,
                bindings::hrtimer_mode_HRTIMER_MODE_REL,
            )
        };
    }

    /// # Safety
    ///
    /// Called by the kernel with the `raw` of a timer, in hard interrupt context.
    unsafe extern "C" fn fire(raw: *mut bindings::hrtimer) -> bindings::hrtimer_restart {
        // SAFETY: `raw` is the field of a `Timer`, which `drop` keeps until this has returned.
        let timer = unsafe { &*container_of!(Opaque::cast_from(raw), Self, raw) };
        if T::tick(&timer.shared) {
            timer.work.schedule();
        }
        // An interrupt may want it sooner while this runs: its wish must not be overwritten.
        let mut armed = None;
        loop {
            let delay = T::next_tick(&timer.shared);
            if delay == armed {
                return bindings::hrtimer_restart::HRTIMER_NORESTART;
            }
            if let Some(delay) = delay {
                timer.arm(delay);
            }
            armed = delay;
        }
    }
}

#[pinned_drop]
impl<T: Driver> PinnedDrop for Timer<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `new` has set it up. Waits for `fire`, also if that arms it again.
        unsafe { bindings::hrtimer_cancel(self.raw.get()) };
    }
}
