// SPDX-License-Identifier: GPL-2.0

//! Work that a driver's timer cannot do itself, because it must be able to sleep.
//!
//! `kernel::workqueue` has no way to wait for an item that is queued or runs, so one could be left when
//! the device, and the module, go.

use super::binding::Driver;
use kernel::{
    bindings,
    container_of,
    device::Bound,
    pci,
    prelude::*,
    sync::{
        aref::ARef,
        Arc,
        LockClassKey, //
    },
    types::Opaque, //
};

/// Calls [`Driver::look`] in process context when it is wanted, until it is dropped; that waits for a
/// call that runs.
///
/// # Invariants
///
/// `device` is bound as long as this exists.
#[pin_data(PinnedDrop)]
pub(super) struct Work<T: Driver> {
    #[pin]
    raw: Opaque<bindings::work_struct>,
    device: ARef<pci::Device>,
    shared: Arc<T::Shared>,
}

// SAFETY: A work item carries its own lock and belongs to no thread, and what it shares is `Send`.
unsafe impl<T: Driver> Send for Work<T> {}

// SAFETY: As above, and what it shares is `Sync`.
unsafe impl<T: Driver> Sync for Work<T> {}

impl<T: Driver> Work<T> {
    /// Work that is not wanted yet.
    ///
    /// # Safety
    ///
    /// It must be dropped before `device` is unbound.
    pub(super) unsafe fn new(
        device: &pci::Device<Bound>,
        shared: Arc<T::Shared>,
    ) -> Result<Arc<Self>> {
        static KEY: Pin<&LockClassKey> = kernel::static_lock_class!();
        // INVARIANT: As the caller promises.
        Arc::pin_init(
            try_pin_init!(Self {
                // SAFETY: `slot` is valid for writes, and stays where it is until `drop`; name and key
                // live forever.
                raw <- Opaque::ffi_init(|slot| unsafe {
                    bindings::init_work_with_key(
                        slot,
                        Some(Self::run),
                        false,
                        c"ivshmem_look".as_char_ptr(),
                        KEY.as_ptr(),
                    )
                }),
                device: device.into(),
                shared,
            }),
            GFP_KERNEL,
        )
    }

    /// It is wanted. From any context.
    pub(super) fn schedule(&self) {
        // SAFETY: `new` has initialised it, and `drop` waits for it; the queue lives forever.
        unsafe {
            bindings::queue_work_on(
                bindings::wq_misc_consts_WORK_CPU_UNBOUND as c_int,
                bindings::system_dfl_wq,
                self.raw.get(),
            )
        };
    }

    /// # Safety
    ///
    /// Called by the kernel with the `raw` of a work item.
    unsafe extern "C" fn run(raw: *mut bindings::work_struct) {
        // SAFETY: `raw` is the field of a `Work`, which `drop` keeps until this has returned.
        let work = unsafe { &*container_of!(Opaque::cast_from(raw), Self, raw) };
        // SAFETY: By the invariant the device is bound, and the states of a `Device` differ in their
        // type only.
        let device = unsafe {
            &*core::ptr::from_ref::<pci::Device>(&work.device).cast::<pci::Device<Bound>>()
        };
        T::look(&work.shared, device);
    }
}

#[pinned_drop]
impl<T: Driver> PinnedDrop for Work<T> {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: `new` has initialised it. Waits for `run`.
        unsafe { bindings::cancel_work_sync(self.raw.get()) };
    }
}
