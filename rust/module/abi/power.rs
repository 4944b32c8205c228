// SPDX-License-Identifier: GPL-2.0

//! What happens to a node's device when the machine sleeps, wakes and shuts down.
//!
//! The `kernel` crate has no such callbacks for PCI drivers. Those of a device class do as well, and
//! better: the node is a child of the PCI device, so it sleeps and shuts down before, and wakes after
//! it, while the device works and answers.

use super::{
    chrdev,
    fops::Operations, //
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    prelude::*, //
};

/// What a device class does. Called in process context; programs do not run while the machine sleeps.
pub(crate) trait Power: Operations {
    /// The machine goes to sleep, or its memory is about to be saved.
    fn sleep(shared: &Self::Device);

    /// It goes on, perhaps with a device that has lost its power meanwhile.
    fn wake(shared: &Self::Device);

    /// It shuts down, or another kernel takes over. Programs may still run.
    fn shutdown(shared: &Self::Device);
}

/// The callbacks of the class whose nodes are those of `T`.
pub(super) struct Callbacks<T>(PhantomData<T>);

impl<T: Power> Callbacks<T> {
    pub(super) const TABLE: bindings::dev_pm_ops = bindings::dev_pm_ops {
        suspend: Some(Self::sleep),
        resume: Some(Self::wake),
        freeze: Some(Self::sleep),
        thaw: Some(Self::wake),
        poweroff: Some(Self::sleep),
        restore: Some(Self::wake),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the kernel with the device of a node of `T`.
    unsafe extern "C" fn sleep(device: *mut bindings::device) -> c_int {
        // SAFETY: As the kernel promises; the device is there until this returns.
        T::sleep(unsafe { chrdev::shared_by::<T>(device) });
        0
    }

    /// # Safety
    ///
    /// As above.
    unsafe extern "C" fn wake(device: *mut bindings::device) -> c_int {
        // SAFETY: As above.
        T::wake(unsafe { chrdev::shared_by::<T>(device) });
        0
    }

    /// # Safety
    ///
    /// As above.
    pub(super) unsafe extern "C" fn shutdown(device: *mut bindings::device) -> c_int {
        // SAFETY: As above.
        T::shutdown(unsafe { chrdev::shared_by::<T>(device) });
        0
    }
}
