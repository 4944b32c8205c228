// SPDX-License-Identifier: GPL-2.0

//! What exists while a driver is bound to a device, and the order in which it goes.
//!
//! The driver core owns a [`Binding`] for each bound device and drops it when the device is unbound,
//! for whatever reason. A driver fills it in its probe through a reference and never has it in its
//! hands: so nothing in it can be leaked, and the callbacks that it registers cannot outlive the
//! device or the module.

use super::{
    chrdev::{
        Node,
        Number, //
    },
    cpu::CpuWatch,
    debugfs::{
        Directory,
        Entry, //
    },
    fops::Operations,
    irq::{
        Granted,
        Interrupts, //
    },
    pci::{
        BarClaim,
        Enabled, //
    },
    timer::Timer,
    work::Work, //
};
use core::{
    marker::PhantomData,
    time::Duration, //
};
use kernel::{
    device::{
        Bound,
        Core, //
    },
    fmt,
    pci,
    prelude::*,
    sync::Arc, //
};

/// A driver for a PCI device with a node in /dev.
pub(crate) trait Driver: Sized + 'static {
    /// What survives the binding: open files hold references to it.
    type Shared: Send + Sync + 'static;

    /// An open file of the node.
    type File: Operations<Device = Self::Shared>;

    /// Which devices.
    const ID_TABLE: pci::IdTable<()>;

    /// Binds `device`. On an error all of `binding` is undone.
    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        binding: &mut Binding<'bound, Self>,
    ) -> Result;

    /// An interrupt on `vector`. Called in hard interrupt context. A result wants
    /// [`Self::tick`] called after that time, not when it would have been.
    fn interrupt(shared: &Self::Shared, vector: u16) -> Option<Duration>;

    /// The timer. Called in hard interrupt context. True wants [`Self::look`] called soon.
    fn tick(shared: &Self::Shared) -> bool;

    /// What the timer cannot do itself. Called in process context.
    fn look(shared: &Self::Shared, device: &pci::Device<Bound>);

    /// A CPU has gone offline, and interrupts have been moved from it. Called in process context.
    fn cpu_offline(shared: &Self::Shared);

    /// When [`Self::tick`] is to be called next; never again if this says nothing. From any
    /// context.
    fn next_tick(shared: &Self::Shared) -> Option<Duration>;

    /// The device goes, or probe has failed after [`Binding::share`]: called first, once, while
    /// everything still works.
    fn unbind(shared: &Self::Shared, device: &pci::Device<Bound>);
}

/// What exists while a driver is bound to a device.
pub(crate) struct Binding<'bound, T: Driver> {
    // Dropped in this order, after `drop`: users before what they use.
    inspection: Option<Directory<T::Shared>>,
    node: Option<Node<T::File>>,
    cpus: Option<CpuWatch<T>>,
    interrupts: Option<Interrupts<'bound, T>>,
    timer: Option<Arc<Timer<T>>>,
    claim: Option<BarClaim<'bound>>,
    enabled: Option<Enabled<'bound>>,
    shared: Option<Arc<T::Shared>>,
    device: &'bound pci::Device<Bound>,
}

impl<'bound, T: Driver> Binding<'bound, T> {
    /// Switches the device's memory on.
    pub(crate) fn enable(&mut self, device: &'bound pci::Device<Core<'_>>) -> Result {
        self.enabled = Some(Enabled::new(device)?);
        Ok(())
    }

    /// Has [`Driver::unbind`] called for `shared` when the binding ends, for whatever reason, and
    /// makes its timer, which does not run yet.
    pub(crate) fn share(&mut self, shared: &Arc<T::Shared>) -> Result {
        // SAFETY: A binding is dropped before its device is unbound, and the timer, which shares the
        // work, with it.
        let work = unsafe { Work::new(self.device, shared.clone()) }?;
        self.timer = Some(Timer::new(shared.clone(), work)?);
        self.shared = Some(shared.clone());
        Ok(())
    }

    /// Has [`Driver::tick`] called after [`Driver::next_tick`], and [`Driver::cpu_offline`].
    pub(crate) fn start_watching(&mut self) -> Result {
        if let Some(shared) = &self.shared {
            self.cpus = Some(CpuWatch::new(shared.clone())?);
        }

        if let (Some(timer), Some(shared)) = (&self.timer, &self.shared) {
            if let Some(delay) = T::next_tick(shared) {
                timer.arm(delay);
            }
        }
        Ok(())
    }

    /// Claims a BAR.
    pub(crate) fn claim(&mut self, bar: u8) -> Result {
        self.claim = Some(BarClaim::new(self.device, bar)?);
        Ok(())
    }

    /// Has [`Driver::interrupt`] called from now on: for up to `wanted` MSI-X vectors, or for the
    /// INTx line. Says what it has got.
    pub(crate) fn request_interrupts(
        &mut self,
        wanted: u16,
        number: &Number,
        shared: &Arc<T::Shared>,
    ) -> Result<Granted> {
        let timer = self.timer.as_ref().ok_or(EINVAL)?;
        let (interrupts, granted) =
            Interrupts::request(self.device, wanted, number.get(), shared, timer)?;
        self.interrupts = Some(interrupts);
        Ok(granted)
    }

    /// Makes a directory for the device in debugfs, with these files. They go before anything else does. Not being
    /// able to is no error, as everywhere in debugfs.
    pub(crate) fn inspect(
        &mut self,
        name: fmt::Arguments<'_>,
        entries: &'static [Entry<T::Shared>],
        shared: &Arc<T::Shared>,
    ) {
        self.inspection = Directory::new(name, entries, shared).ok();
    }

    /// Makes the node, which user space can open from now on.
    pub(crate) fn publish(&mut self, number: Number, shared: Arc<T::Shared>) -> Result {
        self.node = Some(Node::new(self.device.as_ref(), number, shared)?);
        Ok(())
    }
}

impl<T: Driver> Drop for Binding<'_, T> {
    fn drop(&mut self) {
        if let Some(shared) = &self.shared {
            T::unbind(shared, self.device);
        }
    }
}

/// Makes a [`Driver`] a driver of the `kernel` crate.
pub(crate) struct Adapter<T>(PhantomData<T>);

impl<T: Driver> pci::Driver for Adapter<T> {
    type IdInfo = ();
    type Data<'bound> = Binding<'bound, T>;

    const ID_TABLE: pci::IdTable<Self::IdInfo> = T::ID_TABLE;

    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        _info: Option<&'bound Self::IdInfo>,
    ) -> impl PinInit<Self::Data<'bound>, Error> + 'bound {
        let mut binding = Binding {
            inspection: None,
            node: None,
            cpus: None,
            interrupts: None,
            timer: None,
            claim: None,
            enabled: None,
            shared: None,
            device,
        };
        T::probe(device, &mut binding).map(|()| binding)
    }
}
