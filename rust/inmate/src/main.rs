// SPDX-License-Identifier: MIT OR Apache-2.0
//! The bare-metal inmate: boots through PVH, finds its IVSHMEM device, and runs
//! the classic demo of the library half of this crate on it.
//!
//! From bottom to top:
//! * `arch`: the processor and the board; `arch/boot.s` is the entry.
//! * `mmio`: accesses to mapped physical memory, the only way to the device.
//! * `serial`, `exit`, `pvh`, `pci_ports`: console, the way out, what the boot
//!   loader says, configuration space.
//! * `placement`, `ivshmem`: the device; `events`: what the program sleeps for.
//!
//! `unsafe` is confined to `arch` and `mmio`. One processor, one thread; an
//! interrupt handler does no more than to count.

#![no_std]
#![no_main]
#![deny(unsafe_code)]

mod arch;
mod events;
mod exit;
mod ivshmem;
mod mmio;
mod pci_ports;
mod placement;
mod pvh;
mod serial;

use core::fmt;
use core::fmt::Write;
use core::panic::PanicInfo;

use ivshmem_inmate::channel_echo::ChannelEcho;
use ivshmem_inmate::demo::Demo;
use ivshmem_inmate::error::Error;
use ivshmem_inmate::options::{Mode, Options};
use ivshmem_inmate::timer::Plan;

use crate::arch::{descriptors, lapic, pic};
use crate::events::TimerAndDoorbells;
use crate::ivshmem::Device;
use crate::serial::Console;

/// Called by `arch::boot` in 64-bit mode, interrupts off, with the physical
/// address of the PVH start info.
fn start(start_info: u32) -> ! {
    Console::init();
    descriptors::init();
    pic::silence();

    let boot = match pvh::BootInfo::read(start_info.into()) {
        Ok(boot) => boot,
        Err(error) => fail(format_args!("{error}")),
    };
    let Ok(line) = boot.command_line() else {
        fail(format_args!("{}", Error::CommandLine));
    };
    let options = match Options::parse(line) {
        Ok(options) => options,
        Err(error) => fail(format_args!("{error}")),
    };
    match run(&boot, &options) {
        Ok(()) => exit::success(),
        Err(error) => fail(format_args!("{error}")),
    }
}

fn run(boot: &pvh::BootInfo, options: &Options) -> Result<(), Error> {
    let mut console = Console;
    lapic::init()?;
    let plan = Plan::new(options.period_ms, lapic::counts_per_ms()?)?;

    let mut device = Device::open(options.protocol, boot.ram())?;
    write!(console, "{device}")?;
    let mut events = TimerAndDoorbells::new(device.connected_vectors(), &plan, options.timeout_s);
    lapic::start_timer(plan.initial_count);
    let result = match options.mode {
        Mode::Demo => Demo::new(&mut device, &mut console, options)
            .and_then(|demo| demo.run(&mut events).map(drop)),
        Mode::ChannelEcho => ChannelEcho::new(&mut device, &mut console, options)
            .and_then(|echo| echo.run(&mut events).map(drop)),
    };
    lapic::stop_timer();
    if result != Err(Error::DeviceGone) {
        device.close();
    }
    result
}

/// Prints one line and leaves with the failure status.
fn fail(reason: fmt::Arguments<'_>) -> ! {
    exit::begin_failure();
    // The console is a serial port without flow control: it cannot fail.
    let _ = writeln!(Console, "IVSHMEM: error: {reason}");
    exit::failure()
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    match info.location() {
        Some(place) => fail(format_args!("panic at {place}: {}", info.message())),
        None => fail(format_args!("panic: {}", info.message())),
    }
}
