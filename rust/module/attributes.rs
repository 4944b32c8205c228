// SPDX-License-Identifier: GPL-2.0

//! What stands in sysfs about a device: /sys/class/ivshmem/ivshmemN. See
//! Documentation/ABI/testing/sysfs-class-ivshmem, and keep it true.
//!
//! One value per file. No attribute touches a register.

use crate::{
    abi::{
        irq,
        sysfs::{
            attribute_groups,
            Groups,
            Text, //
        },
    },
    file::OpenFile,
    link::Link,
    protocol::v2::layout::Section, //
};
use kernel::prelude::*;

/// All attributes.
pub(crate) fn groups() -> Groups<OpenFile> {
    attribute_groups!(OpenFile:
        None => {
            c"id": |link, text| text.set(fmt!("{}", link.layout().id())),
            c"max_peers": |link, text| text.set(fmt!("{}", link.layout().max_peers())),
            c"protocol": |link, text| text.set(fmt!("{:#06x}", link.identity.protocol.0)),
            c"vectors": |link, text| text.set(fmt!("{}", link.identity.vectors)),
            c"vectors_enabled": vectors_enabled,
            c"interrupt_mode": interrupt_mode,
            c"self_test": self_test,
            c"region_size": |link, text| text.set(fmt!("{:#x}", link.layout().region_size())),
            c"state": state,
            c"channels": |link, text| text.set(fmt!("{}", link.channels.count())),
        }
        Some(c"state_table") => {
            c"offset": |link, text| offset(text, &link.layout().state_table()),
            c"size": |link, text| size(text, &link.layout().state_table()),
            c"mappable": |link, text| mappable(text, link, &link.layout().state_table()),
        }
        Some(c"rw") => {
            c"offset": |link, text| offset(text, &link.layout().rw()),
            c"size": |link, text| size(text, &link.layout().rw()),
            c"mappable": |link, text| mappable(text, link, &link.layout().rw()),
        }
        Some(c"outputs") => {
            c"offset": |link, text| offset(text, &link.layout().outputs()),
            c"size": |link, text| size(text, &link.layout().outputs()),
            c"mappable": |link, text| mappable(text, link, &link.layout().output()),
        }
        Some(c"output") => {
            c"offset": |link, text| offset(text, &link.layout().output()),
            c"size": |link, text| size(text, &link.layout().output()),
            c"mappable": |link, text| mappable(text, link, &link.layout().output()),
        }
    )
}

fn vectors_enabled(link: &Link, text: &mut Text<'_>) -> Result {
    let granted = link.granted().ok_or(ENODEV)?;
    text.set(fmt!("{}", granted.vectors))
}

fn interrupt_mode(link: &Link, text: &mut Text<'_>) -> Result {
    let granted = link.granted().ok_or(ENODEV)?;
    let mode = match granted.mode {
        irq::Mode::MsiX => "msix",
        irq::Mode::Intx => "intx",
        irq::Mode::Polling => "polling",
    };
    text.set(fmt!("{mode}"))
}

fn self_test(link: &Link, text: &mut Text<'_>) -> Result {
    let result = match link.self_test() {
        Some(true) => "passed",
        Some(false) => "failed",
        None => "not done",
    };
    text.set(fmt!("{result}"))
}

/// Our state as the peers see it.
fn state(link: &Link, text: &mut Text<'_>) -> Result {
    let state = link.enter()?.state_of(link.layout().id())?;
    text.set(fmt!("{state}"))
}

fn offset(text: &mut Text<'_>, section: &Section) -> Result {
    text.set(fmt!("{:#x}", section.offset))
}

fn size(text: &mut Text<'_>, section: &Section) -> Result {
    text.set(fmt!("{:#x}", section.size))
}

fn mappable(text: &mut Text<'_>, link: &Link, section: &Section) -> Result {
    let mappable = section.size != 0 && link.is_mappable(section);
    text.set(fmt!("{}", u8::from(mappable)))
}
