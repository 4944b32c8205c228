// SPDX-License-Identifier: GPL-2.0 OR MIT

//! What several tests need: configuration spaces to take apart, and geometries to try. Numbers are
//! written out here; the crate's own constants would agree with themselves even if wrong.

// Each test file is a crate of its own and uses a part of this.
#![allow(dead_code)]

use ivshmem_protocol::config::FindError;
use ivshmem_protocol::layout::Geometry;
use std::collections::BTreeSet;

/// A configuration space that can be edited.
#[derive(Clone)]
pub(crate) struct Config(pub(crate) [u8; 256]);

impl Config {
    /// A header with a list of capabilities that begins at 40h, and nothing else.
    pub(crate) fn empty() -> Self {
        let mut config = Self([0; 256]);
        config.set(0x00, &[0x0a, 0x11, 0x06, 0x41]);
        config.set(0x06, &[0x10, 0x00]);
        config.set(0x34, &[0x40]);
        config
    }

    /// One with a vendor capability at `offset`, the only one of the list.
    pub(crate) fn with_capability(
        offset: u8,
        length: u8,
        sizes: (u32, u64, u64),
        address: u64,
    ) -> Self {
        let mut config = Self::empty();
        let at = usize::from(offset);
        config.set(0x34, &[offset]);
        config.set(at, &[0x09, 0x00, length, 0x00]);
        config.set(at + 0x04, &sizes.0.to_le_bytes());
        config.set(at + 0x08, &sizes.1.to_le_bytes());
        config.set(at + 0x10, &sizes.2.to_le_bytes());
        if length >= 0x20 {
            config.set(at + 0x18, &address.to_le_bytes());
        }
        config
    }

    pub(crate) fn set(&mut self, offset: usize, bytes: &[u8]) {
        // What would lie beyond the end is cut off: tests put capabilities there on purpose.
        for (to, from) in self.0.iter_mut().skip(offset).zip(bytes) {
            *to = *from;
        }
    }
}

/// Where the walk ends, by the text of the PCI specification: follow the pointers, remember where
/// it has been.
pub(crate) fn walk(space: &[u8; 256], id: u8) -> Result<u8, FindError> {
    if space[0x06] & 0x10 == 0 {
        return Err(FindError::Missing { id });
    }
    let mut seen = BTreeSet::new();
    let mut pointer = space[0x34];
    loop {
        if pointer == 0 {
            return Err(FindError::Missing { id });
        }
        if pointer < 0x40 || pointer & 3 != 0 {
            return Err(FindError::BadPointer { pointer });
        }
        if !seen.insert(pointer) {
            return Err(FindError::Endless);
        }
        if space[usize::from(pointer)] == id {
            return Ok(pointer);
        }
        pointer = space[usize::from(pointer) + 1];
    }
}

/// The numbers of the classic demo link, seen by peer `id`.
pub(crate) fn demo(id: u32) -> Geometry {
    Geometry {
        id,
        max_peers: 3,
        state_table_size: 0x1000,
        rw_size: 0x9000,
        output_size: 0x2000,
    }
}

/// Who may write a byte of the region, in the words of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// State table: read-only for all peers.
    Nobody,
    /// Read/write section.
    Everybody,
    /// Output section of this peer.
    Peer(u32),
}

/// The region as a list of its sections from the bottom to the top: who writes there, and how
/// many bytes. Slow and obvious; 128 bits, so that no number of a device overflows.
pub(crate) fn sections(geometry: &Geometry) -> Vec<(Writer, i128)> {
    let mut list = vec![
        (Writer::Nobody, i128::from(geometry.state_table_size)),
        (Writer::Everybody, i128::from(geometry.rw_size)),
    ];
    for peer in 0..geometry.max_peers {
        list.push((Writer::Peer(peer), i128::from(geometry.output_size)));
    }
    list
}

/// Configuration space of the first link in a root cell, as Jailhouse (git e57d1eff, "v0.12") presented it before
/// a driver was bound: arm64, 0001:00:00.0, as printed by `lspci -xxx`.
pub(crate) const ARM64: &str = "
00: 0a 11 06 41 00 00 10 00 00 00 00 ff 00 00 00 00
10: 00 00 10 0b 00 00 00 00 00 00 00 00 00 00 00 00
20: 00 00 00 00 00 00 00 00 00 00 00 00 0a 11 06 41
30: 00 00 00 00 40 00 00 00 00 00 00 00 00 01 00 00
40: 09 00 20 00 00 10 00 00 00 90 00 00 00 00 00 00
50: 00 20 00 00 00 00 00 00 00 00 af 7f 00 00 00 00
60: 11 00 00 00 01 00 00 00 01 01 00 00 00 00 00 00
70: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
";

/// Likewise x86-64, 0000:00:0e.0.
pub(crate) const X86: &str = "
00: 0a 11 06 41 00 00 10 00 00 00 00 ff 00 00 00 00
10: 00 00 00 40 00 10 00 40 00 00 00 00 00 00 00 00
20: 00 00 00 00 00 00 00 00 00 00 00 00 0a 11 06 41
30: 00 00 00 00 40 00 00 00 00 00 00 00 00 00 00 00
40: 09 60 20 00 00 10 00 00 00 90 00 00 00 00 00 00
50: 00 20 00 00 00 00 00 00 00 00 0f 3f 00 00 00 00
60: 11 00 0f 00 01 00 00 00 01 01 00 00 00 00 00 00
70: 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00 00
";

/// A dump as bytes. What Jailhouse does not have, from 80h up, reads ff.
pub(crate) fn parse(dump: &str) -> [u8; 256] {
    let mut bytes = [0xff; 256];
    let mut at = 0;
    for line in dump.lines().filter(|line| !line.is_empty()) {
        let (offset, row) = line.split_once(": ").unwrap();
        assert_eq!(usize::from_str_radix(offset, 16), Ok(at));
        for byte in row.split(' ') {
            bytes[at] = u8::from_str_radix(byte, 16).unwrap();
            at += 1;
        }
    }
    assert_eq!(at, 0x80);
    bytes
}

/// Numbers that look random and are the same on each run.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        // SplitMix64.
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// One of `0 .. bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}
