// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The register region, BAR 0 (specification: "Register Region").
//!
//! All registers are 32 bits wide, little endian, and accessed at their own width only. Offsets
//! without a register read 0 and ignore writes.

/// Own peer ID. Read-only, constant.
pub const ID: usize = 0x00;

/// Number of peers that the link has room for, this one included. Read-only, constant, 2 or more,
/// equal for all peers.
pub const MAX_PEERS: usize = 0x04;

/// Interrupt control, see [`INT_CTRL_ENABLE`]. Read/write, 0 after reset.
pub const INT_CTRL: usize = 0x08;

/// Doorbell, see [`doorbell`]. Write-only.
pub const DOORBELL: usize = 0x0c;

/// Own state, copied into the own entry of the state table. Read/write, 0 after reset. A write
/// that changes the value interrupts all other peers on vector 0.
pub const STATE: usize = 0x10;

/// Number of bytes from the start of BAR 0 that hold registers.
pub const SIZE: usize = 0x14;

/// Smallest size of BAR 0, in bytes. Larger ones exist where pages are larger.
pub const BAR_SIZE: usize = 0x1000;

/// Bit in [`INT_CTRL`]: the device may interrupt this peer. While it is 0, doorbells and state
/// changes are dropped, not kept. In one-shot mode the device clears it with each interrupt.
pub const INT_CTRL_ENABLE: u32 = 1 << 0;

/// What to write to [`DOORBELL`] to interrupt `peer` on `vector`.
///
/// The device ignores peers and vectors that do not exist.
#[must_use]
pub const fn doorbell(peer: u16, vector: u16) -> u32 {
    ((peer as u32) << 16) | vector as u32
}

/// Splits a value written to [`DOORBELL`] into peer and vector.
#[must_use]
pub const fn doorbell_target(value: u32) -> (u16, u16) {
    ((value >> 16) as u16, value as u16)
}

/// What every register reads once the device has gone (surprise removal). As an ID or a number of
/// peers it is never valid.
pub const ALL_ONES: u32 = u32::MAX;
