// SPDX-License-Identifier: MIT OR Apache-2.0

//! What goes wrong at one device while it runs, without a thread of its own: lost interrupts, a
//! device that is gone, one that answers slowly, one that answers nonsense.
//!
//! Faults of numbers that a driver refuses at probe are [`fault`](crate::fault)'s; what needs a
//! thread is [`turmoil`](crate::turmoil)'s. Owned by `Device`, which asks at each access and each
//! interrupt; set by [`control`](crate::control) through the link.

use crate::config_space::SIZE as CONFIG_SIZE;
use crate::config_space::VENDOR_CAPABILITY;
use fastrand::Rng;
use ivshmem_protocol::capability;
use std::time::Duration;

/// Values that break arithmetic.
const EXTREMES: [u32; 8] = [
    0,
    1,
    0x7fff_ffff,
    0x8000_0000,
    0xffff,
    0x1_0000,
    u32::MAX - 1,
    u32::MAX,
];

/// A random value that is often an extreme one: 0, all-ones, the largest of a signed type...
pub(crate) fn nasty(rng: &mut Rng) -> u32 {
    match rng.u8(..4) {
        0 => EXTREMES[rng.usize(..EXTREMES.len())],
        1 => rng.u32(..16),
        _ => rng.u32(..),
    }
}

/// What goes wrong at one device.
#[derive(Debug, Default)]
pub(crate) struct Trouble {
    /// So many interrupts are lost from now on.
    pub(crate) lose_next: u32,
    /// Each n-th interrupt is lost; 0 for none.
    lose_every: u32,
    /// Interrupts since the last that was lost for that.
    since_lost: u32,
    /// The device is gone: all reads give all-ones, writes have no effect, and nothing interrupts.
    pub(crate) is_gone: bool,
    /// How long each access to registers and configuration space takes.
    pub(crate) delay: Duration,
    hostile: Option<Hostile>,
}

impl Trouble {
    /// Loses each n-th interrupt from now on; 0 for none.
    pub(crate) fn lose_every(&mut self, n: u32) {
        self.lose_every = n;
        self.since_lost = 0;
    }

    /// Whether the interrupt that is about to be delivered is lost instead.
    pub(crate) fn loses_interrupt(&mut self) -> bool {
        if let Some(left) = self.lose_next.checked_sub(1) {
            self.lose_next = left;
            return true;
        }
        if self.lose_every == 0 {
            return false;
        }
        self.since_lost += 1;
        let lost = self.since_lost >= self.lose_every;
        if lost {
            self.since_lost = 0;
        }
        lost
    }

    /// Answers nonsense from now on, the same for the same seed and the same accesses.
    pub(crate) fn become_hostile(&mut self, seed: u64) {
        self.hostile = Some(Hostile {
            rng: Rng::with_seed(seed),
            address: None,
        });
    }

    /// Answers truly again.
    pub(crate) fn become_friendly(&mut self) {
        self.hostile = None;
    }

    /// The hostile side of the device, if it has one.
    pub(crate) fn hostile(&mut self) -> Option<&mut Hostile> {
        self.hostile.as_mut()
    }

    /// Whether something goes wrong that a soft inmate would not meet, as it has no socket and does
    /// not ask who it is, or that would keep it from coming.
    pub(crate) fn is_for_clients(&self) -> bool {
        self.is_gone || !self.delay.is_zero() || self.hostile.is_some()
    }

    /// What goes wrong, for people; empty if nothing does.
    pub(crate) fn describe(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.lose_next > 0 {
            words.push(format!("lose={}", self.lose_next));
        }
        if self.lose_every > 0 {
            words.push(format!("lose-every={}", self.lose_every));
        }
        if self.is_gone {
            words.push("gone".into());
        }
        if !self.delay.is_zero() {
            words.push(format!("slow={}", self.delay.as_millis()));
        }
        if self.hostile.is_some() {
            words.push("hostile".into());
        }
        words
    }
}

/// A device that answers nonsense, by its seed.
#[derive(Debug)]
pub(crate) struct Hostile {
    rng: Rng,
    /// What the capability says instead of the address of the memory.
    address: Option<u64>,
}

impl Hostile {
    /// What a register reads instead. Often enough the truth for a driver to come to the next one.
    pub(crate) fn register(&mut self, truth: u32) -> u32 {
        if self.rng.u8(..8) < 5 {
            truth
        } else {
            nasty(&mut self.rng)
        }
    }

    /// The address of the memory that the capability shows.
    pub(crate) fn address(&self, truth: u64) -> u64 {
        self.address.unwrap_or(truth)
    }

    /// Changes a freshly built configuration space: none, one or all of the numbers in the vendor
    /// capability. The list of capabilities stays as it is, as QEMU follows it.
    pub(crate) fn malform_config(&mut self, bytes: &mut [u8; CONFIG_SIZE]) {
        const FIELDS: [(u8, usize); 5] = [
            (capability::LENGTH, 1),
            (capability::PRIVILEGED_CONTROL, 1),
            (capability::STATE_TABLE_SIZE, 4),
            (capability::RW_SIZE, 8),
            (capability::OUTPUT_SIZE, 8),
        ];
        self.address = None;
        let (chosen, all) = match self.rng.u8(..8) {
            0..=3 => return,
            4 => (0, true),
            _ => (self.rng.usize(..=FIELDS.len()), false),
        };
        for (n, (field, size)) in FIELDS.into_iter().enumerate() {
            if all || n == chosen {
                let value = self.size().to_le_bytes();
                let at = usize::from(VENDOR_CAPABILITY + field);
                bytes[at..at + size].copy_from_slice(&value[..size]);
            }
        }
        if all || chosen == FIELDS.len() {
            self.address = Some(self.bad_address());
        }
    }

    /// A size: pages, or anything.
    fn size(&mut self) -> u64 {
        let value = u64::from(nasty(&mut self.rng)) << self.rng.u32(..33);
        match self.rng.u8(..3) {
            0 => u64::from(self.rng.u32(..64)) << 12,
            1 => value & !0xfff,
            _ => value,
        }
    }

    /// An address that is never that of another device: a driver that believes it must not be able
    /// to do harm to what is none of its business, and the machine has devices below 4 GiB.
    fn bad_address(&mut self) -> u64 {
        match self.rng.u8(..4) {
            0 => 0,
            1 => u64::MAX - 0xfff,
            // Ordinary RAM.
            2 => 0x10_0000,
            _ => (1 << 40) | u64::from(self.rng.u32(..)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_interrupts_are_lost_and_no_more() {
        let mut trouble = Trouble {
            lose_next: 2,
            ..Trouble::default()
        };
        let lost: Vec<_> = (0..4).map(|_| trouble.loses_interrupt()).collect();
        assert_eq!(lost, [true, true, false, false]);
    }

    #[test]
    fn each_nth_interrupt_is_lost() {
        let mut trouble = Trouble::default();
        trouble.lose_every(3);
        let lost: Vec<_> = (0..7).map(|_| trouble.loses_interrupt()).collect();
        assert_eq!(lost, [false, false, true, false, false, true, false]);
        trouble.lose_every(0);
        assert!((0..7).all(|_| !trouble.loses_interrupt()));
    }

    #[test]
    fn a_hostile_device_says_the_same_for_the_same_seed() {
        let answers = |seed| {
            let mut trouble = Trouble::default();
            trouble.become_hostile(seed);
            let hostile = trouble.hostile().expect("just made so");
            let mut config = [0; CONFIG_SIZE];
            hostile.malform_config(&mut config);
            let registers: Vec<_> = (0..50).map(|_| hostile.register(7)).collect();
            (config, registers)
        };
        assert_eq!(answers(1), answers(1));
        assert_ne!(answers(1).1, answers(2).1);
        let (_, registers) = answers(1);
        assert!(registers.contains(&7));
        assert!(registers.iter().any(|&value| value != 7));
    }
}
