// SPDX-License-Identifier: MIT OR Apache-2.0

//! Which register an access to BAR 0 means, with the quirks of Jailhouse: it looks at the offset
//! and never at the width.

use ivshmem_protocol::registers;

/// A register of BAR 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Register {
    /// Own peer ID.
    Id,
    /// Number of peers.
    MaxPeers,
    /// Interrupt control.
    IntCtrl,
    /// Doorbell.
    Doorbell,
    /// Own state.
    State,
}

impl Register {
    /// The register at `offset`; [`None`] if the offset is not that of one. An offset within a
    /// register is not its register.
    #[must_use]
    pub fn at(offset: u64) -> Option<Self> {
        match usize::try_from(offset).ok()? {
            registers::ID => Some(Self::Id),
            registers::MAX_PEERS => Some(Self::MaxPeers),
            registers::INT_CTRL => Some(Self::IntCtrl),
            registers::DOORBELL => Some(Self::Doorbell),
            registers::STATE => Some(Self::State),
            _ => None,
        }
    }
}

/// What a write of `data`, of any width, means for a register: bytes that are not written are 0,
/// bytes behind the fourth are lost.
#[must_use]
pub fn value_of(data: &[u8]) -> u32 {
    let mut bytes = [0; 4];
    let len = data.len().min(4);
    bytes[..len].copy_from_slice(&data[..len]);
    u32::from_le_bytes(bytes)
}

/// What a read of any width gives: the register's low bytes, then zeros.
pub fn fill(value: u32, data: &mut [u8]) {
    let bytes = value.to_le_bytes();
    let len = data.len().min(4);
    data.fill(0);
    data[..len].copy_from_slice(&bytes[..len]);
}
