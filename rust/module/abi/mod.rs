// SPDX-License-Identifier: GPL-2.0

//! What the `kernel` crate lacks: the only place of the module with `unsafe` and `bindings`.
//!
//! The rest of the module is safe code on top of this, as drivers are on top of the `kernel`
//! crate. Each file is one abstraction that could be proposed for it:
//!
//! | file | what |
//! | --- | --- |
//! | `binding.rs` | what exists while a driver is bound to a device, and its order of teardown |
//! | `pci.rs` | device table by class, enable/disable, capability access, BAR claims |
//! | `irq.rs` | interrupt vectors with a handler and a name for each |
//! | `copy.rs` | copies between shared memory and programs, without a buffer |
//! | `memory.rs` | a mapping of shared memory: single accesses and copies, never a reference |
//! | `anon.rs` | files without a name, for streams |
//! | `chrdev.rs` | device class, numbers, a node in /dev |
//! | `cpu.rs` | CPUs that go offline |
//! | `debugfs.rs` | directories and files in debugfs |
//! | `eventfd.rs` | a program's eventfd |
//! | `fops.rs` | file operations as a trait |
//! | `power.rs` | the machine sleeps, wakes, and shuts down |
//! | `random.rs` | random numbers |
//! | `sysfs.rs` | read-only attributes of a node's device |
//! | `trace.{c,h,rs}` | tracepoints |
//! | `vma.rs` | user mappings that are filled on demand and can be taken away |
//! | `wait.rs` | wait queue with poll and absolute deadlines |
//! | `timer.rs` | a driver's timer, which interrupts can hurry |
//! | `work.rs` | what a driver's timer cannot do itself |
//! | `uapi.rs` | types of the user-space interface, extensible structures |
//! | `stubs.{c,h,rs}` | C inline functions and macros that Rust cannot reach |

pub(crate) mod anon;
pub(crate) mod binding;
pub(crate) mod chrdev;
pub(crate) mod copy;
pub(crate) mod cpu;
pub(crate) mod debugfs;
pub(crate) mod eventfd;
pub(crate) mod fops;
pub(crate) mod irq;
pub(crate) mod memory;
pub(crate) mod pci;
pub(crate) mod power;
pub(crate) mod random;
mod stubs;
pub(crate) mod sysfs;
mod timer;
pub(crate) mod trace;
pub(crate) mod uapi;
pub(crate) mod vma;
pub(crate) mod wait;
mod work;
