// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The device as the specification "IVSHMEM Device Specification, version 2" describes it.
//!
//! | module | section of the specification |
//! | --- | --- |
//! | [`registers`] | Register Region |
//! | [`config`] | Header Registers, Protocols |
//! | [`capability`] | Vendor Specific Capability |
//! | [`layout`] | Shared Memory Region Layout |
//! | [`state_table`] | State Table |
//! | [`memory`] | (how the others reach shared memory) |
//!
//! Nothing here trusts a number that comes from a device, a peer or a caller: what leaves a
//! constructor of this module has been checked, and types keep it that way.

pub mod capability;
pub mod config;
pub mod layout;
pub mod memory;
pub mod registers;
pub mod state_table;
