// SPDX-License-Identifier: GPL-2.0

//! Driver for IVSHMEM v2 devices (PCI 110a:4106): shared memory and doorbells between the cells of
//! a partitioning hypervisor, as `/dev/ivshmemN`.
//!
//! | file | what it owns |
//! | --- | --- |
//! | `driver.rs` | which devices are bound; bringing one up and taking it down |
//! | `registers.rs` | the registers of a device |
//! | `link.rs` | our end of a link: all that files share, and who may touch the device when |
//! | `int_ctrl.rs` | whether the device may interrupt us: storms |
//! | `events.rs` | what has happened on a link, and what a file has seen of it |
//! | `eventfds.rs` | which eventfds are counted up at which events |
//! | `state.rs` | which file owns our state |
//! | `channels.rs` | messages whose arrival the sender knows |
//! | `attributes.rs` | what stands in sysfs |
//! | `counters.rs` | what is counted, and debugfs |
//! | `pingpong.rs` | doorbells that interrupt handlers answer, to be measured |
//! | `fdinfo.rs` | what /proc says of an open file |
//! | `file.rs` | an open `/dev/ivshmemN` |
//! | `region.rs` | reading and writing the shared memory |
//! | `ioctl.rs` | the ioctls |
//! | `protocol.rs` | IVSHMEM v2 and channels themselves, in the files of `rust/protocol` |
//! | `abi/` | what the `kernel` crate lacks: all `unsafe` is there |
//!
//! Data moves one way: device -> events -> file -> user; user -> checks -> link -> device.
//! Documentation/architecture.md draws it.

use kernel::{
    driver::Registration,
    pci,
    prelude::*,
    InPlaceModule, //
};

mod abi;
mod attributes;
mod channels;
mod counters;
mod driver;
mod eventfds;
mod events;
mod fdinfo;
mod file;
mod int_ctrl;
mod ioctl;
mod link;
mod pingpong;
// Public, as its files are in the crate that user space builds of them.
pub mod protocol;
mod region;
mod registers;
mod state;

/// The module while it is loaded.
#[pin_data]
struct IvshmemModule {
    // Dropped in this order: no device is bound any more when the class goes.
    #[pin]
    _driver: Registration<pci::Adapter<abi::binding::Adapter<driver::IvshmemDriver>>>,
    _cpus: abi::cpu::Registration<driver::IvshmemDriver>,
    _class: abi::chrdev::Registration,
    _debugfs: abi::debugfs::Registration,
}

impl InPlaceModule for IvshmemModule {
    fn init(module: &'static kernel::ThisModule) -> impl PinInit<Self, Error> {
        pin_init::pin_init_scope(move || {
            // Before the driver: devices are bound while it registers.
            let class = abi::chrdev::Registration::new::<file::OpenFile>()?;
            Ok(try_pin_init!(Self {
                _cpus: abi::cpu::Registration::new()?,
                _class: class,
                _debugfs: abi::debugfs::Registration::new(c"ivshmem"),
                _driver <- Registration::new(<LocalModule as kernel::ModuleMetadata>::NAME, module),
            }))
        })
    }
}

module! {
    type: IvshmemModule,
    name: "ivshmem",
    authors: ["The ivshmem authors"],
    description: "IVSHMEM v2: shared memory and doorbells between cells",
    license: "GPL",
    params: {
        throttle: u32 {
            default: 100_000,
            description: "Most interrupts per second and device; 0 = no limit",
        },
    },
}
