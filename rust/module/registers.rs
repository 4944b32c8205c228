// SPDX-License-Identifier: GPL-2.0

//! The registers of a device (specification: "Register Region").
//!
//! Each access traps into the hypervisor, so there is exactly one for each thing to be done, and
//! none to receive. Offsets are those of `rust/protocol`: the kernel's `register!` takes literals
//! only, and there is to be one place for them.

use crate::protocol::v2::registers;
use kernel::{
    device::Bound,
    io::Io,
    pci::{
        self,
        DevresBar, //
    },
    prelude::*, //
};

/// BAR 0, as long as the device is bound. Every method says `ENODEV` afterwards.
pub(crate) struct Registers(DevresBar<{ registers::SIZE }>);

impl Registers {
    /// Maps them.
    ///
    /// # Errors
    ///
    /// `EINVAL` if BAR 0 is too small, `EBUSY` if somebody else has it.
    pub(crate) fn map(device: &pci::Device<Bound>) -> Result<Self> {
        let bar = u32::from(crate::protocol::v2::config::BAR_REGISTERS);
        let bar = device.iomap_region_sized::<{ registers::SIZE }>(bar, c"ivshmem")?;
        Ok(Self(bar.into_devres()?))
    }

    /// ID and MAX_PEERS: two reads.
    pub(crate) fn identity(&self) -> Result<(u32, u32)> {
        let bar = self.0.try_access().ok_or(ENODEV)?;
        Ok((bar.read32(registers::ID), bar.read32(registers::MAX_PEERS)))
    }

    /// INT_CTRL: whether the device may interrupt us.
    pub(crate) fn set_interrupts(&self, enable: bool) -> Result {
        let value = if enable {
            registers::INT_CTRL_ENABLE
        } else {
            0
        };
        self.0
            .try_access()
            .ok_or(ENODEV)?
            .write32(value, registers::INT_CTRL);
        Ok(())
    }

    /// DOORBELL: interrupts `peer` on `vector`. All earlier writes to the shared memory are visible
    /// before.
    pub(crate) fn ring(&self, peer: u16, vector: u16) -> Result {
        self.0
            .try_access()
            .ok_or(ENODEV)?
            .write32(registers::doorbell(peer, vector), registers::DOORBELL);
        Ok(())
    }

    /// Waits until the device has taken all writes before: nothing overtakes a read, and QEMU passes writes on when it
    /// comes to them.
    pub(crate) fn settle(&self) -> Result {
        self.0.try_access().ok_or(ENODEV)?.read32(registers::ID);
        Ok(())
    }

    /// STATE: publishes our state. Writes are not atomic on the hypervisor's side: the caller sees
    /// to it that there is one at a time.
    pub(crate) fn set_state(&self, value: u32) -> Result {
        self.0
            .try_access()
            .ok_or(ENODEV)?
            .write32(value, registers::STATE);
        Ok(())
    }
}
