// SPDX-License-Identifier: GPL-2.0

//! PCI beyond the `kernel` crate: device ids by class, enabling with its undoing, claims on BARs,
//! and config space for the protocol crate.

use crate::protocol::v2::config::{
    ConfigSpace,
    Protocol,
    DEVICE_ID,
    VENDOR_ID, //
};
use kernel::{
    bindings,
    device::{
        Bound,
        Core, //
    },
    error::to_result,
    io::Io,
    pci,
    prelude::*, //
};

/// Table entry for the IVSHMEM devices whose class code is that of `protocol` in the bits of `mask`.
///
/// The crate has no id of vendor, device *and* class.
pub(crate) const fn device_id(protocol: Protocol, mask: u32) -> pci::DeviceId {
    let id = bindings::pci_device_id {
        vendor: VENDOR_ID as u32,
        device: DEVICE_ID as u32,
        subvendor: bindings::PCI_ANY_ID as u32,
        subdevice: bindings::PCI_ANY_ID as u32,
        class: protocol.class_code(),
        class_mask: mask,
        driver_data: 0,
        override_only: 0,
    };
    // SAFETY: `DeviceId` is a transparent wrapper of `pci_device_id` without further invariants.
    unsafe { core::mem::transmute::<bindings::pci_device_id, pci::DeviceId>(id) }
}

/// The C structure of `device`.
pub(super) fn raw(device: &pci::Device<Bound>) -> *mut bindings::pci_dev {
    // `Device` is a transparent wrapper of an `Opaque<pci_dev>`.
    core::ptr::from_ref(device).cast_mut().cast()
}

/// Whether the device answers in config space: all-ones is what PCI reads where there is none.
pub(crate) fn is_present(device: &pci::Device<Bound>) -> bool {
    // SAFETY: The device is valid and bound; reads its vendor.
    unsafe { bindings::pci_device_is_present(raw(device)) }
}

/// A BAR that is memory.
#[derive(Clone, Copy)]
pub(crate) struct MemoryBar {
    /// Its physical address.
    pub(crate) address: u64,
    /// Its size in bytes, not 0.
    pub(crate) size: u64,
}

/// The BAR `bar`; [`None`] if the device has none there, or one of I/O ports.
///
/// The `kernel` crate knows nothing of the kind of a BAR, and its accessors take one of ports for
/// memory.
pub(crate) fn memory_bar(device: &pci::Device<Bound>, bar: u8) -> Option<MemoryBar> {
    // SAFETY: The device is valid, and its resources do not change while it is bound.
    let resource = unsafe { (*raw(device)).resource.get(usize::from(bar))? };
    if resource.flags & bindings::IORESOURCE_MEM as c_ulong == 0 {
        return None;
    }
    // An empty resource is one whose end is before its start.
    let size = resource.end.wrapping_sub(resource.start).wrapping_add(1);
    (size != 0).then_some(MemoryBar {
        address: resource.start,
        size,
    })
}

/// A device whose memory is switched on. Undone when dropped, and the sending of messages too.
pub(super) struct Enabled<'bound>(&'bound pci::Device<Bound>);

impl<'bound> Enabled<'bound> {
    pub(super) fn new<'core>(device: &'bound pci::Device<Core<'core>>) -> Result<Self> {
        device.enable_device_mem()?;
        Ok(Self(device))
    }
}

impl Drop for Enabled<'_> {
    fn drop(&mut self) {
        // SAFETY: The device is bound, and `new` has enabled it.
        unsafe {
            bindings::pci_clear_master(raw(self.0));
            bindings::pci_disable_device(raw(self.0));
        }
    }
}

/// Our claim on a BAR, visible in /proc/iomem. Given back when dropped.
pub(super) struct BarClaim<'bound> {
    device: &'bound pci::Device<Bound>,
    bar: u8,
}

impl<'bound> BarClaim<'bound> {
    /// # Errors
    ///
    /// `EBUSY` if somebody else has it.
    pub(super) fn new(device: &'bound pci::Device<Bound>, bar: u8) -> Result<Self> {
        // SAFETY: The device is valid, the name lives forever.
        to_result(unsafe {
            bindings::pci_request_region(raw(device), bar.into(), c"ivshmem".as_char_ptr())
        })?;
        Ok(Self { device, bar })
    }
}

impl Drop for BarClaim<'_> {
    fn drop(&mut self) {
        // SAFETY: The device is bound, and `new` has requested the region.
        unsafe { bindings::pci_release_region(raw(self.device), self.bar.into()) };
    }
}

/// A device's config space, as the protocol crate reads it.
pub(crate) struct Config<'a>(pub(crate) &'a pci::Device<Bound>);

impl ConfigSpace for Config<'_> {
    fn read(&self, offset: u8) -> u32 {
        // What cannot be read is what PCI reads without a device: all-ones.
        self.0
            .config_space()
            .try_read32(usize::from(offset & !3))
            .unwrap_or(u32::MAX)
    }
}
