// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processor and the fixed parts of the board. Everything above calls safe
//! functions of these files; what they need from each other and from the order
//! of calls stands at each of them.
#![allow(unsafe_code)]

pub(crate) mod boot;
pub(crate) mod cpu;
pub(crate) mod descriptors;
pub(crate) mod interrupt;
pub(crate) mod lapic;
mod memory;
pub(crate) mod paging;
pub(crate) mod pic;
mod pit;
pub(crate) mod port;
