// SPDX-License-Identifier: MIT OR Apache-2.0
//! The parts of the inmate that touch no hardware: options, what the device's
//! numbers must look like, and the demo itself. Everything here is safe code,
//! runs on the host in unit tests, and reaches the outside through the traits
//! [`pci::ConfigSpace`], [`link::Link`] and [`link::Events`], which the
//! bare-metal program in `main.rs` implements.
//!
//! The inmate is an independent peer: [`spec`] has its own copy of the numbers
//! of the specification and nothing comes from the rest of the repository, so
//! that a wrong constant there does not meet the same wrong constant here.

#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

pub mod bar;
pub mod capability;
pub mod channel;
pub mod channel_echo;
pub mod demo;
pub mod error;
pub mod layout;
pub mod link;
pub mod options;
pub mod pci;
pub mod range;
pub mod spec;
pub mod timer;

#[cfg(test)]
mod testing;
