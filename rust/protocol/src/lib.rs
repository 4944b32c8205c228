// SPDX-License-Identifier: GPL-2.0 OR MIT

//! IVSHMEM version 2 as pure code on `core`: no allocation, no panics, no `unsafe`.
//!
//! This crate is a shell. What it holds is [`v2`], and those very files are also part of the
//! kernel module (which joins them by path), so that the driver, the device model and the
//! user-space library speak of the device with one voice; and [`channel`], messages on top of that. The
//! bare-metal inmate deliberately does not use it: a wrong constant here must not be wrong everywhere.

#![no_std]
#![forbid(unsafe_code)]

pub mod channel;
pub mod v2;

pub use v2::*;
