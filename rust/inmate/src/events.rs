// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the program sleeps for: doorbells and the timer. The interrupt handlers
//! only count; this file compares the counts with what has been reported.

use ivshmem_inmate::link::{Event, Events};
use ivshmem_inmate::timer::Plan;

use crate::arch::interrupt;
use crate::arch::interrupt::MAX_VECTORS;

/// Events from the device's vectors and from the timer, in this order.
pub(crate) struct TimerAndDoorbells {
    vectors: u32,
    reported: [u32; MAX_VECTORS as usize],
    ticks: u64,
    ticks_per_period: u64,
    next_period: u64,
    last_tick: Option<u64>,
}

impl TimerAndDoorbells {
    /// Events of the first `vectors` vectors and of a timer set as in `plan`;
    /// the time runs out after `timeout_s` seconds unless that is 0.
    pub(crate) fn new(vectors: u32, plan: &Plan, timeout_s: u32) -> Self {
        Self {
            vectors,
            reported: [0; MAX_VECTORS as usize],
            ticks: 0,
            ticks_per_period: plan.ticks_per_period,
            next_period: plan.ticks_per_period,
            last_tick: (timeout_s != 0).then(|| plan.ticks_in(timeout_s)),
        }
    }

    fn take(&mut self) -> Option<Event> {
        let ticks = interrupt::ticks();
        if self.last_tick.is_some_and(|last| ticks >= last) {
            return Some(Event::Timeout);
        }
        // Before the doorbells: a storm of them must not stop the timer.
        if ticks >= self.next_period {
            // After a pause of the whole machine one doorbell, not a burst.
            self.next_period = ticks + self.ticks_per_period;
            self.ticks = ticks;
            return Some(Event::Period);
        }
        if let Some(event) = (0..self.vectors).find_map(|vector| self.take_interrupt(vector)) {
            return Some(event);
        }
        (ticks != self.ticks).then(|| {
            self.ticks = ticks;
            Event::Tick
        })
    }

    fn take_interrupt(&mut self, vector: u32) -> Option<Event> {
        let reported = &mut self.reported[vector as usize];
        let count = interrupt::count(vector);
        let new = count.wrapping_sub(*reported);
        *reported = count;
        (new != 0).then_some(Event::Interrupt { vector, count, new })
    }
}

impl Events for TimerAndDoorbells {
    fn wait(&mut self) -> Event {
        interrupt::sleep_until(|| self.take())
    }
}
