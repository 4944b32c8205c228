// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the harness tells a guest, shared by both.
//!
//! The harness (`rust/harness`) puts a [`Plan`](plan::Plan) on the kernel command line; the
//! program of this crate, which is the guest's first process, reads it there.
#![deny(unsafe_code)]

pub mod plan;
