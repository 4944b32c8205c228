// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random numbers that are a pure function of where they are drawn.

/// A stream of random numbers (SplitMix64).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of operation `number` of thread `thread`: other streams do not change it.
    #[must_use]
    pub fn of(seed: u64, thread: u64, number: u64) -> Self {
        Self(mix(seed ^ mix((thread.wrapping_add(1) << 48) ^ number)))
    }

    /// The next number; any value.
    pub fn any(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        mix(self.0)
    }

    /// A number in `0..limit`; `limit` is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.any() % limit
    }

    /// True in one of `n` cases.
    pub fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// One of `values`, which is not empty.
    pub fn pick<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.below(values.len() as u64) as usize]
    }

    /// A number of any magnitude: small ones and ones near powers of 2 are as likely as huge ones.
    pub fn magnitude(&mut self) -> u64 {
        let bits = self.below(65);
        let number = if bits == 0 {
            0
        } else {
            self.any() >> (64 - bits)
        };
        match self.below(4) {
            0 => (1u64 << (bits % 64))
                .wrapping_add(self.below(3))
                .wrapping_sub(1),
            _ => number,
        }
    }
}

fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
