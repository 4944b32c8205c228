// SPDX-License-Identifier: GPL-2.0

//! Being told when a CPU has gone offline, which moves interrupts to other CPUs.

use super::binding::Driver;
use core::marker::PhantomData;
use kernel::{
    bindings,
    container_of,
    error::to_result,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Relaxed, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// The state of CPU hotplug that [`Registration`] was given.
static STATE: Atomic<i32> = Atomic::new(0);

/// The module's place in CPU hotplug, for devices of the driver `T`.
pub(crate) struct Registration<T>(PhantomData<T>);

impl<T: Driver> Registration<T> {
    /// Takes it. The module does this once, before any device is bound, and keeps it until none is.
    pub(crate) fn new() -> Result<Self> {
        type Callback = unsafe extern "C" fn(c_uint) -> c_int;
        // SAFETY: The kernel calls functions of a state with instances with two arguments, and casts
        // them in the same way.
        let offline: Callback = unsafe {
            core::mem::transmute::<
                unsafe extern "C" fn(c_uint, *mut bindings::hlist_node) -> c_int,
                Callback,
            >(CpuWatch::<T>::offline)
        };
        // In this range functions are called when the CPU has gone, its interrupts with it.
        // SAFETY: The name lives forever, the function until `drop`.
        let state = unsafe {
            bindings::__cpuhp_setup_state(
                bindings::cpuhp_state_CPUHP_BP_PREPARE_DYN,
                c"ivshmem:offline".as_char_ptr(),
                false,
                None,
                Some(offline),
                true,
            )
        };
        to_result(state.min(0))?;
        STATE.store(state, Relaxed);
        Ok(Self(PhantomData))
    }
}

impl<T> Drop for Registration<T> {
    fn drop(&mut self) {
        // SAFETY: `new` has set it up; all instances are gone with the devices.
        unsafe { bindings::__cpuhp_remove_state(STATE.load(Relaxed), false) };
    }
}

/// What the kernel knows of a watch.
#[pin_data]
struct Instance<T: Driver> {
    #[pin]
    node: Opaque<bindings::hlist_node>,
    shared: Arc<T::Shared>,
}

/// Calls [`Driver::cpu_offline`] until it is dropped; that waits for a call that runs.
///
/// # Invariants
///
/// The node of the instance is in the list of [`STATE`].
pub(super) struct CpuWatch<T: Driver>(Pin<KBox<Instance<T>>>);

// SAFETY: An instance belongs to no thread, and what it shares is `Send` and `Sync`.
unsafe impl<T: Driver> Send for CpuWatch<T> {}

impl<T: Driver> CpuWatch<T> {
    /// Watches from now on.
    pub(super) fn new(shared: Arc<T::Shared>) -> Result<Self> {
        let instance = KBox::pin_init(
            pin_init!(Instance {
                node: Opaque::zeroed(),
                shared,
            }),
            GFP_KERNEL,
        )?;
        // SAFETY: A zeroed node is in no list; it stays where it is until `drop` takes it out. The
        // module has set up the state before any device is bound.
        to_result(unsafe {
            bindings::__cpuhp_state_add_instance(STATE.load(Relaxed), instance.node.get(), false)
        })?;
        // INVARIANT: Just added.
        Ok(Self(instance))
    }

    /// # Safety
    ///
    /// Called by the kernel with the node of an instance.
    unsafe extern "C" fn offline(_cpu: c_uint, node: *mut bindings::hlist_node) -> c_int {
        // SAFETY: `node` is the field of an `Instance`, which `drop` keeps until this has returned.
        let instance = unsafe { &*container_of!(Opaque::cast_from(node), Instance<T>, node) };
        T::cpu_offline(&instance.shared);
        0
    }
}

impl<T: Driver> Drop for CpuWatch<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant. Waits for `offline`.
        unsafe {
            bindings::__cpuhp_state_remove_instance(STATE.load(Relaxed), self.0.node.get(), false)
        };
    }
}
