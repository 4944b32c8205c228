// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the period of the demo becomes ticks of the local APIC's timer.

use crate::error::Error;

/// Longest time between two ticks, in milliseconds. Shared memory is looked at
/// on each tick at least, so a state change whose interrupt was lost is noticed
/// this late.
const LONGEST_TICK_MS: u64 = 100;

/// A setting of the periodic timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Counts of the timer between two ticks.
    pub initial_count: u32,
    /// Ticks in one period, at least 1.
    pub ticks_per_period: u64,
    period_ms: u64,
}

impl Plan {
    /// Plans for a timer that makes `counts_per_ms` counts in a millisecond.
    ///
    /// # Errors
    /// [`Error::Period`] if the timer is too fast or too slow for that.
    pub fn new(period_ms: u32, counts_per_ms: u32) -> Result<Self, Error> {
        let error = Error::Period { period_ms };
        let ms = u64::from(period_ms);
        let ticks_per_period = ms.div_ceil(LONGEST_TICK_MS).max(1);
        let count = ms * u64::from(counts_per_ms) / ticks_per_period;
        let initial_count = u32::try_from(count).map_err(|_| error)?;
        if initial_count == 0 {
            return Err(error);
        }
        Ok(Self {
            initial_count,
            ticks_per_period,
            period_ms: ms,
        })
    }

    /// Number of ticks in `seconds`, rounded up.
    pub fn ticks_in(&self, seconds: u32) -> u64 {
        (u64::from(seconds) * 1000 * self.ticks_per_period).div_ceil(self.period_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tick_is_short_and_divides_the_period() {
        let plan = Plan::new(1000, 62_500).unwrap();
        assert_eq!((plan.initial_count, plan.ticks_per_period), (6_250_000, 10));
        assert_eq!(plan.ticks_in(3), 30);
        let plan = Plan::new(5, 62_500).unwrap();
        assert_eq!((plan.initial_count, plan.ticks_per_period), (312_500, 1));
        assert_eq!(plan.ticks_in(1), 200);
        let plan = Plan::new(250, 1000).unwrap();
        assert_eq!((plan.initial_count, plan.ticks_per_period), (83_333, 3));
        assert_eq!(plan.ticks_in(1), 12);
    }

    #[test]
    fn refuses_what_the_timer_cannot_do() {
        assert_eq!(Plan::new(1, 0), Err(Error::Period { period_ms: 1 }));
        assert_eq!(Plan::new(0, 1000), Err(Error::Period { period_ms: 0 }));
        assert_eq!(
            Plan::new(100, u32::MAX),
            Err(Error::Period { period_ms: 100 })
        );
    }
}
