// SPDX-License-Identifier: GPL-2.0

//! The module's directory in debugfs.
//!
//! `kernel::debugfs` has no place for a directory that all devices of a driver share and that goes
//! with the module.

use kernel::{
    debugfs::Dir,
    prelude::*,
    sync::global_lock, //
};

global_lock! {
    // SAFETY: `Registration::new` initialises it, and nobody else uses it without one.
    unsafe(uninit) static ROOT: Mutex<Option<Dir>> = None;
}

/// /sys/kernel/debug/ivshmem.
pub(crate) struct Registration(());

impl Registration {
    /// Makes the directory. The module does this once, before any device is bound, and keeps it
    /// until none is.
    pub(crate) fn new(name: &CStr) -> Self {
        // SAFETY: Called once.
        unsafe { ROOT.init() };
        *ROOT.lock() = Some(Dir::new(name));
        Self(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        *ROOT.lock() = None;
    }
}

/// The directory, as long as there is a [`Registration`]. Only for a bound device.
pub(super) fn root() -> Option<Dir> {
    ROOT.lock().clone()
}
