// SPDX-License-Identifier: GPL-2.0

//! Who writes INT_CTRL: whether the device may interrupt us.
//!
//! A peer can ring as fast as it likes. A device is silenced for a while, 10 ms usually, when it interrupts more often
//! than the module parameter `throttle` allows, or when its handlers take three quarters of a processor's time. What
//! comes meanwhile is dropped by the device, so afterwards the state table is looked at, and every file is told that
//! events may have been lost.
//!
//! One device's storm leaves others alone, but for those that share its INTx line: nothing tells who has raised it, so
//! each of them counts, and is silenced, as if it had.
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

/// How long a device is silent at least that interrupts too often, in nanoseconds.
const PAUSE_MIN: u64 = 10_000_000;

/// Over which time interrupts are counted, in nanoseconds.
const WINDOW: i64 = 10_000_000;

/// How many windows a second has.
const WINDOWS_PER_SECOND: u32 = 100;

/// Over how many times the longest handler's time the time of handlers is counted at least.
const HANDLERS: i64 = 10;

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

/// What part of the time handlers take.
#[derive(Default)]
struct Load {
    /// Since when, `CLOCK_MONOTONIC` in nanoseconds.
    since: i64,
    /// How long they took together, in nanoseconds.
    spent: i64,
    /// How long one of them took at most.
    longest: i64,
}

impl Load {
    /// The handler of an interrupt ends, after so many nanoseconds.
    fn add(&mut self, time: i64) {
        self.spent = self.spent.saturating_add(time);
        self.longest = self.longest.max(time);
    }

    /// Whether they took three quarters of a processor's time until `now`; if that is long enough to tell, counts anew.
    ///
    /// The longest does not count: an emulator or hypervisor may have stopped this machine in it.
    fn is_too_much(&mut self, now: i64) -> bool {
        let time = now - self.since;
        if time < WINDOW.max(self.longest.saturating_mul(HANDLERS)) {
            return false;
        }
        let spent = self.spent - self.longest;
        *self = Self {
            since: now,
            ..Self::default()
        };
        spent >= time / 4 * 3
    }
}

struct Gate {
    state: State,
    /// When the window began, `CLOCK_MONOTONIC` in nanoseconds.
    window: i64,
    /// Interrupts since then.
    taken: u32,
    load: Load,
}

impl Gate {
    fn new(state: State) -> Self {
        Self {
            state,
            window: 0,
            taken: 0,
            load: Load::default(),
        }
    }
}

/// Whether the device may interrupt us.
#[pin_data]
pub(crate) struct IntCtrl {
    /// Most interrupts in a window; 0 for no limit of any kind.
    limit: u32,
    /// How long the device is silent that interrupts too often: as long as so many may take.
    pause: Duration,
    #[pin]
    gate: SpinLockIrq<Gate>,
}

impl IntCtrl {
    /// It may not. Later on at most about `limit` times a second, or without limit if that is 0.
    pub(crate) fn new(limit: u32) -> impl PinInit<Self> {
        let in_window = limit.div_ceil(WINDOWS_PER_SECOND);
        let pause = (u64::from(in_window) * 1_000_000_000)
            .checked_div(limit.into())
            .unwrap_or_default();
        pin_init!(Self {
            limit: in_window,
            pause: Duration::from_nanos(pause.max(PAUSE_MIN)),
            gate <- new_spinlock_irq!(Gate::new(State::Closed), "ivshmem_int_ctrl"),
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
            *gate = Gate::new(State::Open);
        }
        let _ = registers.set_interrupts(gate.state == State::Open);
    }

    /// An interrupt has been taken at time `now`. Silences the device if that was one too many (one that is on its way comes
    /// nevertheless); if so, the result is
    /// when [`Self::resume`] is wanted.
    pub(crate) fn take(&self, registers: &Registers, now: i64) -> Option<Duration> {
        if self.limit == 0 {
            return None;
        }
        let mut gate = self.gate.lock();
        if now - gate.window >= WINDOW {
            gate.window = now;
            gate.taken = 0;
        }
        gate.taken = gate.taken.saturating_add(1);
        let too_much = gate.load.is_too_much(now) || gate.taken >= self.limit;
        if gate.state != State::Open || !too_much {
            return None;
        }
        gate.state = State::Paused;
        let _ = registers.set_interrupts(false);
        Some(self.pause)
    }

    /// The handler of an interrupt ends, after so many nanoseconds.
    pub(crate) fn ended(&self, time: i64) {
        self.gate.lock().load.add(time);
    }

    /// For how long the device is silenced, if it is for a while.
    pub(crate) fn pause(&self) -> Option<Duration> {
        (self.gate.lock().state == State::Paused).then_some(self.pause)
    }

    /// Lets a device that was silenced for a while interrupt again. False if it was not.
    pub(crate) fn resume(&self, registers: &Registers) -> bool {
        let mut gate = self.gate.lock();
        if gate.state != State::Paused {
            return false;
        }
        *gate = Gate::new(State::Open);
        let _ = registers.set_interrupts(true);
        true
    }
}
