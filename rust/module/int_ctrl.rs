// SPDX-License-Identifier: GPL-2.0

//! Who writes INT_CTRL: whether the device may interrupt us.
//!
//! A peer can ring as fast as it likes. A device that interrupts more often than the module parameter
//! `throttle` allows is silenced for [`PAUSE`]; what comes meanwhile is dropped by the device, so
//! afterwards the state table is looked at, and every file is told that events may have been lost.
//! One device's storm leaves the others alone.
//!
//! Handlers on several CPUs, the timer, sleep and removal write the register, so it is behind a lock.

use crate::registers::Registers;
use core::time::Duration;
use kernel::{
    prelude::*,
    sync::{
        new_spinlock_irq,
        SpinLockIrq, //
    },
};

/// How long a device is silent that interrupts too often.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// Over which time interrupts are counted, in nanoseconds.
const WINDOW: i64 = 10_000_000;

/// How many windows a second has.
const WINDOWS_PER_SECOND: u32 = 100;

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    /// The device does not interrupt, and must not.
    Closed,
    /// It interrupts.
    Open,
    /// It has interrupted too often, and will be allowed to again.
    Paused,
    /// The machine sleeps.
    Asleep,
}

struct Gate {
    state: State,
    /// When the window began, `CLOCK_MONOTONIC` in nanoseconds.
    window: i64,
    /// Interrupts since then.
    taken: u32,
}

/// Whether the device may interrupt us.
#[pin_data]
pub(crate) struct IntCtrl {
    /// Most interrupts in a window; 0 for no limit.
    limit: u32,
    #[pin]
    gate: SpinLockIrq<Gate>,
}

impl IntCtrl {
    /// It may not. Later on at most about `limit` times a second, or without limit if that is 0.
    pub(crate) fn new(limit: u32) -> impl PinInit<Self> {
        let gate = Gate {
            state: State::Closed,
            window: 0,
            taken: 0,
        };
        pin_init!(Self {
            limit: limit.div_ceil(WINDOWS_PER_SECOND),
            gate <- new_spinlock_irq!(gate, "ivshmem_int_ctrl"),
        })
    }

    /// Lets the device interrupt us.
    pub(crate) fn open(&self, registers: &Registers) -> Result {
        let mut gate = self.gate.lock();
        registers.set_interrupts(true)?;
        gate.state = State::Open;
        Ok(())
    }

    /// Silences the device for good.
    pub(crate) fn close(&self, registers: &Registers) {
        let mut gate = self.gate.lock();
        gate.state = State::Closed;
        // Fails only where there is no register any more.
        let _ = registers.set_interrupts(false);
    }

    /// Silences the device while the machine sleeps.
    pub(crate) fn sleep(&self, registers: &Registers) {
        let mut gate = self.gate.lock();
        if gate.state != State::Closed {
            gate.state = State::Asleep;
        }
        let _ = registers.set_interrupts(false);
    }

    /// Lets a device interrupt again that did before the machine slept. It may have forgotten everything.
    pub(crate) fn wake(&self, registers: &Registers) {
        let mut gate = self.gate.lock();
        if gate.state == State::Asleep {
            gate.state = State::Open;
            gate.taken = 0;
        }
        let _ = registers.set_interrupts(gate.state == State::Open);
    }

    /// An interrupt has been taken at time `now`. Silences the device if that was one too many; true
    /// if so, and [`Self::resume`] is wanted after [`PAUSE`].
    pub(crate) fn take(&self, registers: &Registers, now: i64) -> bool {
        if self.limit == 0 {
            return false;
        }
        let mut gate = self.gate.lock();
        if now - gate.window >= WINDOW {
            gate.window = now;
            gate.taken = 0;
        }
        gate.taken = gate.taken.saturating_add(1);
        if gate.state != State::Open || gate.taken < self.limit {
            return false;
        }
        gate.state = State::Paused;
        let _ = registers.set_interrupts(false);
        true
    }

    /// Whether the device is silenced for a while.
    pub(crate) fn is_paused(&self) -> bool {
        self.gate.lock().state == State::Paused
    }

    /// Lets a device that was silenced for a while interrupt again. False if it was not.
    pub(crate) fn resume(&self, registers: &Registers) -> bool {
        let mut gate = self.gate.lock();
        if gate.state != State::Paused {
            return false;
        }
        gate.state = State::Open;
        gate.taken = 0;
        let _ = registers.set_interrupts(true);
        true
    }
}
