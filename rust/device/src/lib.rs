// SPDX-License-Identifier: MIT OR Apache-2.0

//! A device model of IVSHMEM version 2: gives stock QEMU the device over vfio-user.
//!
//! One process is one link: it has the memory, and one socket for each peer. Jailhouse's behaviour
//! is the reference, quirks included. `Documentation/device-model.md` is for users.
//!
//! | module | what it owns |
//! | --- | --- |
//! | [`spec`] | the numbers of a link, checked, and what follows from them |
//! | [`config_space`] | configuration space of a device, byte by byte |
//! | [`register`] | which register an access means |
//! | `device` | one peer's device: registers, interrupt conditions |
//! | [`lines`] | interrupt lines to a client: eventfds, INTx with its end of interrupt |
//! | [`link`] | all devices, the memory, doorbells, states, canaries |
//! | [`region`], `mapping` | the memory; the only `unsafe` is in the latter |
//! | [`fault`], `trouble` | what goes wrong on demand: numbers, and answers and interrupts |
//! | [`statistics`] | what was counted, as the JSON has it |
//! | `backend`, [`server`] | vfio-user, sockets, threads |
//! | [`inmate`], [`turmoil`] | peers inside the process, and those that never rest |
//! | [`control`], [`command`] | what users want to go wrong, and when |
//! | [`options`] | the command line |
//!
//! All but the last four rows are free of sockets and threads, and tested so.

#![deny(unsafe_code)]

mod backend;
pub mod command;
pub mod config_space;
pub mod control;
mod device;
pub mod fault;
pub mod inmate;
pub mod lines;
pub mod link;
mod mapping;
pub mod options;
pub mod region;
pub mod register;
pub mod server;
pub mod spec;
pub mod statistics;
mod trouble;
pub mod turmoil;
