// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machines that QEMU emulates: which program, which processor, where console and report are.
//!
//! Everything that depends on the architecture of a guest is here, and used by `qemu.rs` and
//! `kernel.rs`. Devices sit on PCI bus 0 of all machines, in the slots of the plan, and their INTx
//! pins are swizzled alike: two devices whose slots differ by a multiple of 4 share a line.

use anyhow::{bail, Result};

/// Kinds of machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Machine {
    /// x86-64 PC. The bare-metal inmate is always one.
    #[default]
    Pc,
    /// The same with PCI Express, for guests that use interrupt lines: a PC's firmware tells them by a loop in its
    /// tables, and with all checkers that takes seconds each time a device is bound.
    ExpressPc,
    /// arm64 without a counterpart in hardware, with GICv3 and its ITS for MSI-X.
    Virt,
}

impl Machine {
    /// The machine for a kernel of this Debian architecture.
    ///
    /// # Errors
    ///
    /// Any but amd64 and arm64.
    pub(crate) fn for_kernel(architecture: &str) -> Result<Self> {
        match architecture {
            "amd64" => Ok(Self::Pc),
            "arm64" => Ok(Self::Virt),
            _ => bail!("KERNEL_ARCH={architecture}: guests are amd64 or arm64"),
        }
    }

    /// The same machine for a guest that uses interrupt lines.
    pub(crate) fn with_lines(self) -> Self {
        match self {
            Self::Pc => Self::ExpressPc,
            other => other,
        }
    }

    /// QEMU's options for the machine itself. Linux on TCG is fastest with these processors; the one
    /// for arm64 is also one that knows pages of 16 KiB. A PC's ACPI tables have methods for each slot that
    /// something can be plugged into, which is not done here: without them the debug kernel boots in half
    /// the time.
    pub(crate) fn options(self) -> &'static [&'static str] {
        match self {
            Self::Pc => &[
                "-M",
                "pc",
                "-global",
                "PIIX4_PM.acpi-pci-hotplug-with-bridge-support=off",
                "-global",
                "PIIX4_PM.acpi-root-pci-hotplug=off",
            ],
            Self::ExpressPc => &[
                "-M",
                "q35",
                "-global",
                "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",
            ],
            Self::Virt => &["-M", "virt,gic-version=3", "-cpu", "cortex-a76"],
        }
    }

    /// Words of the kernel's command line: the console, on the first serial port, and what keeps
    /// timekeeping calm on a busy machine. The report goes over the second port, whose name the guest's
    /// first process knows (`tests/guest/src/report.rs`).
    pub(crate) fn kernel_words(self) -> &'static str {
        match self {
            Self::Pc | Self::ExpressPc => "console=ttyS0 tsc=reliable no_timer_check",
            Self::Virt => "console=ttyAMA0",
        }
    }

    /// Name of the folder, in cargo's output, of programs for this machine.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::Pc | Self::ExpressPc => "x86_64-unknown-linux-gnu",
            Self::Virt => "aarch64-unknown-linux-gnu",
        }
    }
}
