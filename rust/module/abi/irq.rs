// SPDX-License-Identifier: GPL-2.0

//! Interrupt vectors of a device, each with a handler and a name of its own in /proc/interrupts.
//!
//! `kernel::irq::Registration` has one static name for all, and no way to keep the kernel's
//! balancer from moving a vector; a device that drops what comes while a vector is masked loses
//! doorbells with each move.

use super::{
    binding::Driver,
    pci, //
};
use kernel::{
    bindings,
    device::Bound,
    error::to_result,
    irq::IrqRequest,
    pci::{
        IrqType,
        IrqTypes,
        IrqVectorRegistration, //
    },
    prelude::*,
    str::CString,
    sync::Arc, //
};

/// How the device interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Message-signalled, a message for each vector.
    MsiX,
    /// One line for everything, perhaps shared with other devices.
    Intx,
}

/// Vectors that the kernel has given us.
pub(crate) struct Vectors<'bound> {
    registration: IrqVectorRegistration<'bound>,
    mode: Mode,
}

impl<'bound> Vectors<'bound> {
    /// Takes as many MSI-X vectors as the device offers, or as many of them as there are; the INTx
    /// line if there are none.
    ///
    /// # Errors
    ///
    /// What the kernel says if the device has neither.
    pub(super) fn take(device: &'bound kernel::pci::Device<Bound>, offered: u16) -> Result<Self> {
        // The kernel gives up where it cannot have all that it is asked for, so ask for less.
        let mut count = u32::from(offered);
        while count > 0 {
            let types = IrqTypes::default().with(IrqType::MsiX);
            if let Ok(registration) = device.alloc_irq_vectors(1, count, types) {
                return Ok(Self {
                    registration,
                    mode: Mode::MsiX,
                });
            }
            count /= 2;
        }
        let types = IrqTypes::default().with(IrqType::Intx);
        Ok(Self {
            registration: device.alloc_irq_vectors(1, 1, types)?,
            mode: Mode::Intx,
        })
    }

    /// How many there are, at least 1.
    pub(crate) fn count(&self) -> u16 {
        // An MSI-X table has at most 2048 entries.
        self.registration.len().min(u16::MAX.into()) as u16
    }

    /// What they are.
    pub(crate) fn mode(&self) -> Mode {
        self.mode
    }
}

/// What a handler gets to see.
struct Cookie<T: Driver> {
    shared: Arc<T::Shared>,
    vector: u16,
}

/// A requested interrupt.
///
/// # Invariants
///
/// `irq` is requested with `cookie` as its argument and `name` as its name.
struct Line<T: Driver> {
    irq: u32,
    cookie: KBox<Cookie<T>>,
    _name: CString,
}

impl<T: Driver> Line<T> {
    fn request(irq: u32, flags: u32, cookie: Cookie<T>, name: CString) -> Result<Self> {
        let cookie = KBox::new(cookie, GFP_KERNEL)?;
        // SAFETY: Cookie and name stay where they are until `drop` has freed the interrupt.
        to_result(unsafe {
            bindings::request_threaded_irq(
                irq,
                Some(Self::handle),
                None,
                flags as c_ulong,
                name.as_char_ptr(),
                core::ptr::from_ref(&*cookie).cast_mut().cast(),
            )
        })?;
        Ok(Self {
            irq,
            cookie,
            _name: name,
        })
    }

    /// # Safety
    ///
    /// Called by the kernel with the cookie of a requested interrupt.
    unsafe extern "C" fn handle(_irq: c_int, cookie: *mut c_void) -> bindings::irqreturn_t {
        // SAFETY: `drop` waits for handlers before it lets the cookie go.
        let cookie = unsafe { &*cookie.cast::<Cookie<T>>() };
        T::interrupt(&cookie.shared, cookie.vector);
        // A shared INTx line has no status that could tell whose interrupt this was, and on
        // Jailhouse it is an edge that every device on the line has to look at. Saying "not mine"
        // for each neighbour's would have the kernel switch the line off.
        bindings::irqreturn_t(bindings::irqreturn::IRQ_HANDLED.0)
    }
}

impl<T: Driver> Drop for Line<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant it is requested with this cookie. Waits for running handlers.
        unsafe {
            bindings::free_irq(
                self.irq,
                core::ptr::from_ref(&*self.cookie).cast_mut().cast(),
            )
        };
    }
}

/// Vectors with handlers. Dropping it waits for those that run.
pub(super) struct Interrupts<'bound, T: Driver> {
    // Dropped first: a vector must not be given back while it has a handler.
    _lines: KVec<Line<T>>,
    _vectors: Vectors<'bound>,
}

impl<'bound, T: Driver> Interrupts<'bound, T> {
    /// Has [`Driver::interrupt`] called for each of `vectors`, as `ivshmemN-V` with N = `number`.
    pub(super) fn new(
        vectors: Vectors<'bound>,
        number: u32,
        shared: &Arc<T::Shared>,
    ) -> Result<Self> {
        let flags = match vectors.mode {
            Mode::MsiX => bindings::IRQF_NOBALANCING,
            Mode::Intx => bindings::IRQF_SHARED,
        };
        let mut lines = KVec::with_capacity(vectors.count().into(), GFP_KERNEL)?;
        for vector in 0..vectors.count() {
            let request: IrqRequest<'_> = vectors.registration.index(vector.into())?.into();
            let name = CString::try_from_fmt(fmt!("ivshmem{number}-{vector}"))?;
            let cookie = Cookie {
                shared: shared.clone(),
                vector,
            };
            lines.push(
                Line::request(request.irq(), flags, cookie, name)?,
                GFP_KERNEL,
            )?;
        }
        Ok(Self {
            _lines: lines,
            _vectors: vectors,
        })
    }
}

/// Number of MSI-X vectors that `device` offers, 0 if it has none.
pub(crate) fn offered(device: &kernel::pci::Device<Bound>) -> u16 {
    // SAFETY: The device is valid; only reads its capability.
    let count = unsafe { bindings::pci_msix_vec_count(pci::raw(device)) };
    u16::try_from(count).unwrap_or(0)
}
