// SPDX-License-Identifier: GPL-2.0

//! Interrupt vectors of a device, each with a handler and a name of its own in /proc/interrupts.
//!
//! `kernel::irq::Registration` has one static name for all, and no way to keep the kernel's
//! balancer from moving a vector; a device that drops what comes while a vector is masked loses
//! doorbells with each move.

use super::{
    binding::Driver,
    pci,
    timer::Timer, //
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
    /// Not at all: states are looked at now and then, doorbells are not heard.
    Polling,
}

/// What the kernel has given us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    /// How the device interrupts us.
    pub(crate) mode: Mode,
    /// On how many vectors; 0 only with [`Mode::Polling`].
    pub(crate) vectors: u16,
}

/// What a handler gets to see.
struct Cookie<T: Driver> {
    shared: Arc<T::Shared>,
    timer: Arc<Timer<T>>,
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
        if let Some(delay) = T::interrupt(&cookie.shared, cookie.vector) {
            cookie.timer.arm(delay);
        }
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
    lines: KVec<Line<T>>,
    vectors: IrqVectorRegistration<'bound>,
}

impl<'bound, T: Driver> Interrupts<'bound, T> {
    /// Has [`Driver::interrupt`] called for up to `wanted` MSI-X vectors, or as many of them as
    /// there are; for the INTx line if there are none. They are `ivshmemN-V` with N = `number`.
    ///
    /// # Errors
    ///
    /// What the kernel says if the device has neither.
    pub(super) fn request(
        device: &'bound kernel::pci::Device<Bound>,
        wanted: u16,
        number: u32,
        shared: &Arc<T::Shared>,
        timer: &Arc<Timer<T>>,
    ) -> Result<(Self, Granted)> {
        let mut count = wanted;
        while count > 0 {
            // On x86 vectors are only reserved here. A kernel that has not so many left says so
            // when they are requested, so that is where it is seen how many we can have.
            let types = IrqTypes::default().with(IrqType::MsiX);
            let Ok(vectors) = device.alloc_irq_vectors(1, count.into(), types) else {
                count /= 2;
                continue;
            };
            let mut interrupts = Self {
                lines: KVec::with_capacity(vectors.len(), GFP_KERNEL)?,
                vectors,
            };
            let flags = bindings::IRQF_NOBALANCING;
            if interrupts
                .request_lines(flags, number, shared, timer)
                .is_ok()
            {
                return Ok(interrupts.granted(Mode::MsiX));
            }
            // With as many as could be requested it works, unless others take them meanwhile.
            let requested = interrupts.granted(Mode::MsiX).1.vectors;
            count = requested.min(count - 1);
        }
        let types = IrqTypes::default().with(IrqType::Intx);
        let mut interrupts = Self {
            lines: KVec::with_capacity(1, GFP_KERNEL)?,
            vectors: device.alloc_irq_vectors(1, 1, types)?,
        };
        interrupts.request_lines(bindings::IRQF_SHARED, number, shared, timer)?;
        Ok(interrupts.granted(Mode::Intx))
    }

    /// Requests a line for each vector, in their order.
    fn request_lines(
        &mut self,
        flags: u32,
        number: u32,
        shared: &Arc<T::Shared>,
        timer: &Arc<Timer<T>>,
    ) -> Result {
        // CAST: An MSI-X table has at most 2048 entries.
        for vector in 0..self.vectors.len() as u16 {
            let request: IrqRequest<'_> = self.vectors.index(vector.into())?.into();
            let name = CString::try_from_fmt(fmt!("ivshmem{number}-{vector}"))?;
            let cookie = Cookie {
                shared: shared.clone(),
                timer: timer.clone(),
                vector,
            };
            let line = Line::request(request.irq(), flags, cookie, name)?;
            self.lines.push(line, GFP_KERNEL)?;
        }
        Ok(())
    }

    /// Itself, and what it has got.
    fn granted(self, mode: Mode) -> (Self, Granted) {
        // CAST: An MSI-X table has at most 2048 entries.
        let vectors = self.lines.len() as u16;
        (self, Granted { mode, vectors })
    }
}

/// Number of MSI-X vectors that `device` offers, 0 if it has none.
pub(crate) fn offered(device: &kernel::pci::Device<Bound>) -> u16 {
    // SAFETY: The device is valid; only reads its capability.
    let count = unsafe { bindings::pci_msix_vec_count(pci::raw(device)) };
    u16::try_from(count).unwrap_or(0)
}
