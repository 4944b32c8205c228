// SPDX-License-Identifier: MIT OR Apache-2.0
//! What has been counted, by block.

use crate::Place;
use std::collections::HashMap;
use std::fmt;

/// A block, known by its address. One that is translated again goes on where it was.
#[derive(Debug)]
struct Block<P> {
    address: u64,
    place: P,
    samples: u64,
}

/// All blocks.
#[derive(Debug)]
pub(crate) struct Counts<P> {
    numbers: HashMap<u64, u64>,
    blocks: Vec<Block<P>>,
}

impl<P> Default for Counts<P> {
    fn default() -> Self {
        Self {
            numbers: HashMap::new(),
            blocks: Vec::new(),
        }
    }
}

impl<P: Place> Counts<P> {
    /// The number of the block at `address`, from 1 on, and where its instructions are counted; `new` makes
    /// a place for one that has none.
    pub(crate) fn number(&mut self, address: u64, new: impl FnOnce() -> P) -> (u64, P) {
        let next = self.blocks.len() as u64 + 1;
        let number = *self.numbers.entry(address).or_insert(next);
        if number == next {
            self.blocks.push(Block {
                address,
                place: new(),
                samples: 0,
            });
        }
        (number, self.blocks[number as usize - 1].place)
    }

    /// The processors were found in the blocks with these numbers; 0 is none.
    pub(crate) fn found(&mut self, numbers: &[u64]) {
        for number in numbers {
            let index = number.checked_sub(1).map(|index| index as usize);
            if let Some(block) = index.and_then(|index| self.blocks.get_mut(index)) {
                block.samples += 1;
            }
        }
    }
}

impl<P: Place> fmt::Display for Counts<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.blocks.iter().try_for_each(|block| {
            let (address, samples) = (block.address, block.samples);
            writeln!(f, "{address:x} {} {samples}", block.place.sum())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_translated_again_is_the_same() {
        let mut counts = Counts::default();
        assert_eq!(counts.number(0x10, || 3), (1, 3));
        assert_eq!(counts.number(0x20, || 4), (2, 4));
        assert_eq!(counts.number(0x10, || unreachable!()), (1, 3));
    }

    #[test]
    fn samples_are_of_blocks_that_there_are() {
        let mut counts = Counts::default();
        counts.number(0x10, || 3);
        counts.found(&[0, 1]);
        counts.found(&[2, 1]);
        assert_eq!(counts.to_string(), "10 3 2\n");
    }
}
