// SPDX-License-Identifier: GPL-2.0

//! Which devices are bound; bringing one up and taking it down.
//!
//! Every number of a device is checked before anything is built on it, and the first that is wrong
//! is named in one line of the log. A device may have been left by anybody in any condition, and
//! cannot be reset: so what a previous owner may have set is set again.

use crate::{
    abi::{
        binding::{
            Binding,
            Driver, //
        },
        chrdev::Number,
        irq::{
            self,
            Granted, //
        },
        memory::{
            self,
            SharedMemory, //
        },
        pci::{
            device_id,
            memory_bar,
            Config, //
        },
    },
    counters,
    file::OpenFile,
    link::{
        Identity,
        Link, //
    },
    protocol::v2::{
        capability::{
            VendorCapability,
            PRIVILEGED_CONTROL, //
        },
        config::{
            self,
            ConfigSpace,
            Protocol, //
        },
        layout::{
            Geometry,
            Layout,
            Place, //
        },
        registers,
    },
    registers::Registers, //
};
use core::time::Duration;
use kernel::{
    device::{
        Bound,
        Core, //
    },
    fmt,
    io::Io,
    pci,
    prelude::*,
    sync::Arc, //
};

/// The driver.
pub(crate) struct IvshmemDriver;

/// Makes the table of class ff0000 (no particular protocol) and, with all their last bytes, the
/// classes ffXX00 for the given XX.
///
/// One entry with the mask ffc000 would match the user-defined protocols too, but modpost makes module
/// aliases of masks of whole bytes only: udev could not load the module for them.
macro_rules! device_table {
    ($($subclass:literal)*) => {
        kernel::pci_device_table!(
            PCI_TABLE,
            (),
            [
                (device_id(Protocol::UNDEFINED, 0xff_ffff), ()),
                $((device_id(Protocol($subclass << 8), 0xff_ff00), ()),)*
            ]
        );
    };
}

// The user-defined protocols, 4000h to 7fffh. The others, virtual Ethernet and virtio, have drivers
// of their own; `driver_override` binds them here.
device_table! {
    0x40 0x41 0x42 0x43 0x44 0x45 0x46 0x47
    0x48 0x49 0x4a 0x4b 0x4c 0x4d 0x4e 0x4f
    0x50 0x51 0x52 0x53 0x54 0x55 0x56 0x57
    0x58 0x59 0x5a 0x5b 0x5c 0x5d 0x5e 0x5f
    0x60 0x61 0x62 0x63 0x64 0x65 0x66 0x67
    0x68 0x69 0x6a 0x6b 0x6c 0x6d 0x6e 0x6f
    0x70 0x71 0x72 0x73 0x74 0x75 0x76 0x77
    0x78 0x79 0x7a 0x7b 0x7c 0x7d 0x7e 0x7f
}

/// Says why a device cannot be used, in one line of the log.
///
/// `ENODEV` is an error of which the driver core makes no second line.
fn refuse(device: &pci::Device, why: impl fmt::Display) -> Error {
    dev_err!(device, "device refused: {why}\n");
    ENODEV
}

/// Likewise where the kernel did not give us what we need.
fn unavailable(device: &pci::Device, what: &str, error: Error) -> Error {
    dev_err!(device, "device not usable: {what}: {error:?}\n");
    ENODEV
}

/// What the driver found out about a device before it touched its memory.
struct Found {
    protocol: Protocol,
    layout: Layout,
    place: Place,
    /// Offset of the privileged control byte in config space.
    control: usize,
}

/// Largest BAR 0 that we map, in bytes. It has one page, of whatever size pages have.
const BAR_REGISTERS_MAX: u64 = 1 << 20;

/// Maps the registers, after a look at what they are in.
fn map_registers(device: &pci::Device<Core<'_>>) -> Result<Registers> {
    let Some(bar) = memory_bar(device, config::BAR_REGISTERS) else {
        return Err(refuse(device, fmt!("BAR 0 is missing, or not memory")));
    };
    if !(registers::SIZE as u64..=BAR_REGISTERS_MAX).contains(&bar.size) {
        return Err(refuse(
            device,
            fmt!(
                "BAR 0 of size {:#x} is not in {:#x}..={BAR_REGISTERS_MAX:#x}",
                bar.size,
                registers::SIZE
            ),
        ));
    }
    Registers::map(device).map_err(|error| unavailable(device, "BAR 0", error))
}

/// Reads and checks all numbers of the device.
fn identify(device: &pci::Device<Core<'_>>, registers: &Registers) -> Result<Found> {
    let config = Config(device);
    // The class code is the upper 24 bits of the dword at 8.
    let protocol = Protocol::from_class_code(config.read(0x08) >> 8).unwrap_or_default();
    let capability = VendorCapability::read(&config).map_err(|why| refuse(device, why))?;
    let (id, max_peers) = registers.identity()?;
    let layout = Layout::new(&Geometry::new(id, max_peers, &capability))
        .map_err(|why| refuse(device, why))?;
    let bar_size = memory_bar(device, config::BAR_MEMORY).map_or(0, |bar| bar.size);
    let place = Place::find(&layout, bar_size, capability.base_address)
        .map_err(|why| refuse(device, why))?;
    Ok(Found {
        protocol,
        layout,
        place,
        control: usize::from(capability.offset + PRIVILEGED_CONTROL),
    })
}

/// Undoes what a previous owner of the device may have set: silent, absent, no one-shot mode.
fn reset(device: &pci::Device<Core<'_>>, registers: &Registers, found: &Found) -> Result {
    registers.set_interrupts(false)?;
    registers.set_state(0)?;
    device
        .config_space()
        .try_write8(0, found.control)
        .map_err(|error| unavailable(device, "privileged control", error))
}

/// Maps the shared memory where `found` says that it is.
fn map(
    device: &pci::Device<Core<'_>>,
    binding: &mut Binding<'_, IvshmemDriver>,
    found: &Found,
) -> Result<SharedMemory> {
    let address = match found.place {
        Place::Address(address) => address,
        Place::Bar => {
            binding
                .claim(config::BAR_MEMORY)
                .map_err(|error| unavailable(device, "BAR 2", error))?;
            memory_bar(device, config::BAR_MEMORY)
                .ok_or(ENODEV)?
                .address
        }
    };
    let size = found.layout.region_size();
    let last = memory::last_address();
    if size > memory::SIZE_MAX {
        return Err(refuse(
            device,
            fmt!("region size {size:#x} is more than {:#x}", memory::SIZE_MAX),
        ));
    }
    if address > last || size - 1 > last - address {
        return Err(refuse(
            device,
            fmt!(
                "region {address:#x} of size {size:#x} reaches beyond {last:#x}, the last address \
                 of this machine"
            ),
        ));
    }
    if matches!(found.place, Place::Address(_)) && memory::is_in_use(address, size) {
        return Err(refuse(
            device,
            fmt!("region {address:#x} of size {size:#x} overlaps memory or registers that are in use"),
        ));
    }
    SharedMemory::map(address, size).map_err(|error| match error {
        EBUSY => refuse(
            device,
            fmt!("region {address:#x} of size {size:#x} overlaps this kernel's RAM"),
        ),
        error => unavailable(device, "mapping the region", error),
    })
}

impl Driver for IvshmemDriver {
    type Shared = Link;
    type File = OpenFile;

    const ID_TABLE: pci::IdTable<()> = &PCI_TABLE;

    fn probe<'bound>(
        device: &'bound pci::Device<Core<'_>>,
        binding: &mut Binding<'bound, Self>,
    ) -> Result {
        let id = Config(device).read(0);
        if id != (u32::from(config::DEVICE_ID) << 16) | u32::from(config::VENDOR_ID) {
            // `driver_override` takes anything.
            let (vendor, id) = (id & 0xffff, id >> 16);
            return Err(refuse(
                device,
                fmt!("{vendor:04x}:{id:04x} is not 110a:4106"),
            ));
        }
        binding
            .enable(device)
            .map_err(|error| unavailable(device, "enabling", error))?;
        let registers = map_registers(device)?;
        let found = identify(device, &registers)?;
        let memory = map(device, binding, &found)?;
        reset(device, &registers, &found)?;
        // Message-signalled interrupts are writes of the device.
        device.set_master();

        let number = Number::take().map_err(|error| unavailable(device, "device number", error))?;
        let offered = irq::offered(device);
        let identity = Identity {
            number: number.get(),
            layout: found.layout,
            protocol: found.protocol,
            vectors: offered.max(1),
        };
        let wanted = offered.min(identity.vectors_wanted());
        let link = Arc::pin_init(Link::new(device, identity, registers, memory), GFP_KERNEL)?;
        binding.share(&link)?;
        let granted = binding
            .request_interrupts(wanted, &number, &link)
            .unwrap_or_else(|error| {
                dev_warn!(
                    device,
                    "neither MSI-X nor INTx ({error:?}): polling states, doorbells are not heard\n"
                );
                POLLING
            });
        link.start(granted)?;
        binding
            .start_watching()
            .map_err(|error| unavailable(device, "CPU hotplug", error))?;
        binding.inspect(fmt!("ivshmem{}", number.get()), counters::FILES, &link);
        // Last: programs may open it at once.
        binding
            .publish(number, link.clone())
            .map_err(|error| unavailable(device, "device node", error))?;
        announce(device, &link, granted);
        Ok(())
    }

    fn interrupt(link: &Link, vector: u16) -> Option<Duration> {
        link.interrupt(vector)
    }

    fn tick(link: &Link) -> bool {
        link.tick()
    }

    fn look(link: &Link, device: &pci::Device<Bound>) {
        link.look(device);
    }

    fn cpu_offline(link: &Link) {
        link.cpu_offline();
    }

    fn next_tick(link: &Link) -> Option<Duration> {
        link.next_tick()
    }

    fn unbind(link: &Link, device: &pci::Device<Bound>) {
        link.unbind(device);
    }
}

/// What a device without interrupts gives us.
const POLLING: Granted = Granted {
    mode: irq::Mode::Polling,
    vectors: 0,
};

/// Says what was found, in the log.
fn announce(device: &pci::Device, link: &Link, granted: Granted) {
    let (identity, layout) = (&link.identity, link.layout());
    dev_info!(
        device,
        "ivshmem{}: peer {} of {}, protocol {}, {} of {} vectors ({}), region of {:#x} bytes\n",
        identity.number,
        layout.id(),
        layout.max_peers(),
        identity.protocol,
        granted.vectors,
        identity.vectors,
        match granted.mode {
            irq::Mode::MsiX => "MSI-X",
            irq::Mode::Intx => "INTx",
            irq::Mode::Polling => "polling",
        },
        layout.region_size(),
    );
    match link.self_test() {
        None => {}
        Some(true) => dev_info!(device, "self-test: interrupts arrive\n"),
        Some(false) => dev_warn!(
            device,
            "self-test: interrupts do not arrive: is the interrupt controller of this cell configured \
             for the device?\n"
        ),
    }
}
