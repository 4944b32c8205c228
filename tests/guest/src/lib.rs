// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the harness tells a guest, shared by both.
//!
//! The harness (`rust/harness`) puts a [`Plan`](plan::Plan) on the kernel command line; the
//! program of this crate, which is the guest's first process, reads it there.
#![deny(unsafe_code)]

pub mod plan;

/// Sessions that a guest has with the bare-metal inmate beside it, which ends after as many.
pub const INMATE_SESSIONS: u32 = 5;

/// Begins the line of the kernel's log that tells which test runs from there on.
pub const TEST_MARK: &str = "ivshmem-guest: test ";
