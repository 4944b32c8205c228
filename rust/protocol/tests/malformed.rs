// SPDX-License-Identifier: GPL-2.0 OR MIT

//! 100,000 malformed capabilities: each is refused with its reason, which is true, or accepted with a
//! layout that passes every check. Same numbers on each run.
//!
//! IVSHMEM_MALFORMED=n does n of each sort, IVSHMEM_SEED=s others.

mod common;

use common::{parse, sections, walk, Config, Seeded, ARM64, X86};
use ivshmem_protocol::capability::{CapabilityError, VendorCapability};
use ivshmem_protocol::layout::{Geometry, Layout, LayoutError, Place};
use std::collections::BTreeMap;

/// What a driver sees of a device.
struct Device {
    config: Config,
    id: u32,
    max_peers: u32,
    bar_size: u64,
}

#[derive(Debug, PartialEq)]
enum Refusal {
    Capability(CapabilityError),
    Layout(LayoutError),
}

/// What a driver does with it.
fn probe(device: &Device) -> Result<(VendorCapability, Layout, Place), Refusal> {
    let capability = VendorCapability::read(&device.config.0).map_err(Refusal::Capability)?;
    let geometry = Geometry::new(device.id, device.max_peers, &capability);
    let layout = Layout::new(&geometry).map_err(Refusal::Layout)?;
    let place =
        Place::find(&layout, device.bar_size, capability.base_address).map_err(Refusal::Layout)?;
    Ok((capability, layout, place))
}

/// A good device, with a few things broken.
fn device(seed: &mut Seeded) -> Device {
    let offset = 0x40 + seed.below(37) as u8 * 4;
    let with_address = seed.below(2) == 0;
    let length = if with_address { 0x20 } else { 0x18 };
    let sizes = (0x1000, seed.below(32) * 0x1000, seed.below(9) * 0x1000);
    let mut device = Device {
        config: Config::with_capability(offset, length, sizes, 0x7faf_0000),
        id: 0,
        max_peers: 2 + seed.below(11) as u32,
        bar_size: if with_address { 0 } else { 0x10_0000 },
    };
    device.id = seed.below(u64::from(device.max_peers)) as u32;
    for _ in 0..=seed.below(3) {
        break_one(&mut device, usize::from(offset), seed);
    }
    device
}

fn break_one(device: &mut Device, offset: usize, seed: &mut Seeded) {
    let number = seed.next();
    let size = match seed.below(4) {
        0 => number,
        1 => (1 << (number % 64)) & !0xfff,
        2 => number & 0xfff,
        _ => number & !0xfff,
    };
    let config = &mut device.config;
    match seed.below(14) {
        0 => config.set(0x06, &[number as u8]),
        1 => config.set(0x34, &[number as u8]),
        2 => config.set(offset, &[number as u8]),
        3 => {
            // Another capability before it, or a loop.
            let other = 0x40 + seed.below(48) as usize * 4;
            let next = seed.pick(&[offset as u8, other as u8, 0, number as u8]);
            config.set(0x34, &[other as u8]);
            config.set(other, &[0x11, next]);
        }
        4 => config.set(offset + 2, &[number as u8]),
        5 => config.set(
            offset + 2,
            &[seed.pick(&[0x00, 0x17, 0x18, 0x1f, 0x20, 0x21, 0xff])],
        ),
        6 => config.set(offset + 4, &(size as u32).to_le_bytes()),
        7 => config.set(offset + 8, &size.to_le_bytes()),
        8 => config.set(offset + 16, &size.to_le_bytes()),
        9 => config.set(offset + 24, &size.to_le_bytes()),
        10 => device.id = seed.pick(&[1, 11, 12, 4095, 65535, 65536, u32::MAX, number as u32]),
        11 => {
            device.max_peers = seed.pick(&[
                0,
                1,
                2,
                1024,
                1025,
                4096,
                4097,
                65536,
                u32::MAX,
                number as u32,
            ]);
        }
        12 => device.bar_size = seed.pick(&[0, 1, 0x1000, 0x10000, 1 << 40]),
        _ => {
            for _ in 0..8 {
                config.0[seed.below(256) as usize] = seed.next() as u8;
            }
        }
    }
}

/// Whether the reason is true, by the device alone.
fn is_true(refusal: &Refusal, device: &Device) -> bool {
    let why = match *refusal {
        Refusal::Capability(why) => return is_true_of_config(why, &device.config.0),
        Refusal::Layout(why) => why,
    };
    // The capability was read, and its fields are held against the bytes by another test.
    let capability = VendorCapability::read(&device.config.0).unwrap();
    let geometry = Geometry::new(device.id, device.max_peers, &capability);
    let region = || -> i128 { sections(&geometry).iter().map(|s| s.1).sum() };
    match why {
        LayoutError::NotThere => device.id == !0 && device.max_peers == !0,
        LayoutError::MaxPeers(n) => n == device.max_peers && !(2..=4096).contains(&n),
        LayoutError::Id { id, max_peers } => {
            id >= max_peers && (id, max_peers) == (device.id, device.max_peers)
        }
        LayoutError::StateTableSmall { size, max_peers } => {
            size == capability.state_table_size && u64::from(size) < 4 * u64::from(max_peers)
        }
        LayoutError::Misaligned { field, value } => {
            let of_field = match field {
                "state table size" => capability.state_table_size.into(),
                "R/W section size" => capability.rw_size,
                "output section size" => capability.output_size,
                "base address" => capability.base_address.unwrap(),
                _ => return false,
            };
            value == of_field && value % 4096 != 0
        }
        LayoutError::TooLarge { .. } => region() > i128::from(i64::MAX),
        LayoutError::BeyondBar { region: size, bar } => {
            i128::from(size) == region() && bar == device.bar_size && bar < size
        }
        LayoutError::NoAddress => device.bar_size == 0 && capability.base_address.unwrap_or(0) == 0,
        LayoutError::AddressOverflow { address, .. } => {
            i128::from(address) + region() > i128::from(u64::MAX)
        }
    }
}

fn is_true_of_config(why: CapabilityError, config: &[u8; 256]) -> bool {
    let place = walk(config, 0x09);
    match why {
        CapabilityError::NotFound(why) => place == Err(why),
        CapabilityError::Short { length } => {
            length < 0x18 && place.is_ok_and(|at| config[usize::from(at) + 2] == length)
        }
        CapabilityError::Beyond { offset, length } => {
            place == Ok(offset)
                && config[usize::from(offset) + 2] == length
                && usize::from(offset) + usize::from(length) > 256
        }
    }
}

/// Everything that users of an accepted device rely on.
fn assert_sound(device: &Device, capability: &VendorCapability, layout: &Layout, place: Place) {
    assert_eq!(walk(&device.config.0, 0x09), Ok(capability.offset));
    let geometry = Geometry::new(device.id, device.max_peers, capability);
    let list = sections(&geometry);
    let region: i128 = list.iter().map(|s| s.1).sum();
    assert_eq!(i128::from(layout.region_size()), region);
    assert!(region <= i128::from(i64::MAX));
    assert!(list.iter().all(|s| s.1 % 4096 == 0));
    assert!((2..=4096).contains(&device.max_peers) && device.id < device.max_peers);
    assert!(layout.state_table().size >= 4 * u64::from(device.max_peers));
    let last = layout.output_of(layout.max_peers() - 1).unwrap();
    assert_eq!(i128::from(last.end()), region);
    match place {
        Place::Bar => assert!(region <= i128::from(device.bar_size)),
        Place::Address(address) => {
            assert_eq!(capability.base_address, Some(address));
            assert_eq!(device.bar_size, 0);
            assert!(address != 0 && address % 4096 == 0);
            assert!(i128::from(address) + region < 1 << 64);
        }
    }
    for offset in [0, 3, layout.state_table().size - 1] {
        assert!(layout.write(offset, 1).is_err());
    }
    if layout.output().size != 0 {
        let output = layout.output();
        assert_eq!(layout.write(output.end() - 1, 8), Ok(1));
        assert!(layout.map(output.offset..output.end(), true, 4096).is_ok());
    }
}

/// A device of a real Jailhouse, with a few bytes of its configuration space changed.
fn mutated(seed: &mut Seeded) -> Device {
    let mut device = Device {
        config: Config(parse(seed.pick(&[ARM64, X86]))),
        id: seed.below(3) as u32,
        max_peers: 3,
        bar_size: 0,
    };
    for _ in 0..=seed.below(5) {
        // Status and capability pointer, the capability, or anything.
        let at = match seed.below(8) {
            0 => seed.pick(&[0x06, 0x34]),
            1 => seed.below(256) as usize,
            _ => 0x40 + seed.below(0x28) as usize,
        };
        let byte = &mut device.config.0[at];
        *byte = match seed.below(4) {
            0 => *byte ^ (1 << seed.below(8)),
            1 => byte.wrapping_add(seed.pick(&[1, 255])),
            2 => seed.pick(&[0, 0xff, 0x7f, 0x80]),
            _ => seed.next() as u8,
        };
    }
    device
}

/// A number from the environment.
fn number(name: &str, usual: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().expect("a number"),
        Err(_) => usual,
    }
}

/// Looks at as many devices as are wanted: how often each outcome came.
fn look(device: fn(&mut Seeded) -> Device) -> BTreeMap<String, u32> {
    let mut seed = Seeded(number("IVSHMEM_SEED", 0x110a_4106));
    let mut outcomes = BTreeMap::<String, u32>::new();
    for round in 0..number("IVSHMEM_MALFORMED", 100_000) {
        let device = device(&mut seed);
        let outcome = match probe(&device) {
            Ok((capability, layout, place)) => {
                assert_sound(&device, &capability, &layout, place);
                format!("{place:?}")
            }
            Err(refusal) => {
                assert!(is_true(&refusal, &device), "{round}: {refusal:?}");
                format!("{refusal:?}")
            }
        };
        // The name without its values: up to the first that is a field.
        let end = outcome.find([' ', ')', '{']).unwrap_or(outcome.len());
        let name = outcome[..end].trim_end_matches(|c: char| c == '(' || c.is_ascii_digit());
        *outcomes.entry(name.to_owned()).or_default() += 1;
    }
    outcomes
}

#[test]
fn each_mutation_of_jailhouse_s_own_is_refused_for_a_reason_or_sound() {
    let outcomes = look(mutated);
    for name in [
        "Address",
        "Capability(NotFound(Missing",
        "Capability(Short",
        "Capability(Beyond",
        "Layout(Misaligned",
        "Layout(TooLarge",
        "Layout(NoAddress",
    ] {
        assert!(outcomes.contains_key(name), "no {name} in {outcomes:?}");
    }
}

#[test]
fn each_is_refused_for_a_reason_or_sound() {
    let outcomes = look(device);
    // The test has seen everything that there is.
    for name in [
        "Bar",
        "Address",
        "Capability(NotFound(Missing",
        "Capability(NotFound(BadPointer",
        "Capability(NotFound(Endless",
        "Capability(Short",
        "Capability(Beyond",
        "Layout(NotThere",
        "Layout(MaxPeers",
        "Layout(Id",
        "Layout(StateTableSmall",
        "Layout(Misaligned",
        "Layout(TooLarge",
        "Layout(BeyondBar",
        "Layout(NoAddress",
        "Layout(AddressOverflow",
    ] {
        assert!(outcomes.contains_key(name), "no {name} in {outcomes:?}");
    }
    assert_eq!(outcomes.len(), 16, "{outcomes:?}");
}
