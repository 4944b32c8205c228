// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel that has fewer MSI-X vectors left than the devices offer.
//!
//! The guest has one processor, and devices that together want more vectors than it has.

use super::{count_doorbells, drain, power, Env, Test};
use crate::system;
use ivshmem::{Device, EventKind, InterruptMode, Subject};
use rustix::io::Errno;
use std::fs;

pub(super) const TESTS: &[Test] = &[
    // bad input: more MSI-X vectors than the kernel has left => as many as there are; `vectors_enabled`, sysfs and the log say how many
    Test::new(
        "fewer MSI-X vectors than offered: info, sysfs and the log say so",
        said,
    ),
    Test::new(
        "fewer MSI-X vectors than offered: each of those that are enabled interrupts",
        enabled_ones,
    ),
    // bad input: ringing a peer on a vector that it has not enabled => lost, without an error
    Test::new(
        "fewer MSI-X vectors than offered: a ring on one that is not enabled is lost, not an error",
        other_ones,
    ),
    Test::new(
        "fewer MSI-X vectors than offered: after sleep files are told of those that are enabled, and no others",
        lost_ones,
    ),
    // bad input: subscribing, or attaching an eventfd, to a vector that is not enabled => `ENXIO`
    Test::new(
        "fewer MSI-X vectors than offered: those that are not enabled are ENXIO",
        refused,
    ),
    Test::new(
        "vectors that a device gives back are there for the next that is bound",
        given_back,
    ),
];

/// The devices with fewer vectors than they offer.
fn short_of_vectors(env: &Env) -> Vec<Device> {
    let open = |(_, node): &(_, _)| Device::open(node).expect("open");
    let mut devices: Vec<Device> = env.nodes.iter().map(open).collect();
    devices.retain(|device| device.info().vectors_enabled < device.info().vectors);
    assert!(!devices.is_empty(), "the kernel had enough for all");
    devices
}

fn said(env: &Env) {
    let log = system::kernel_log().expect("kernel log");
    let mut short = 0;
    for (expected, node) in &env.nodes {
        let info = *Device::open(node).expect("open").info();
        assert_eq!(info.vectors, expected.vectors, "{expected}");
        assert_eq!(info.interrupt_mode, InterruptMode::MsiX, "{expected}");
        assert!((1..=info.vectors).contains(&info.vectors_enabled));
        short += usize::from(info.vectors_enabled < info.vectors);
        let name = node.file_name().expect("a name").to_string_lossy();
        let path = format!("{}/{name}/vectors_enabled", system::CLASS);
        let text = fs::read_to_string(&path).expect("sysfs");
        assert_eq!(text.trim(), info.vectors_enabled.to_string());
        let enabled = info.vectors_enabled;
        let words = format!("{enabled} of {} vectors (MSI-X)", info.vectors);
        let device = format!("{}: {name}: ", expected.bdf());
        let said = |line: &String| line.contains(&device) && line.contains(&words);
        assert!(log.iter().any(said), "`{words}` of {name}: {log:#?}");
    }
    assert!(short > 0, "the kernel had enough for all");
}

fn enabled_ones(env: &Env) {
    for device in short_of_vectors(env) {
        for vector in 0..device.info().vectors_enabled {
            device.ring(device.info().id, vector).expect("ring");
            assert_eq!(count_doorbells(&device, vector, 1), 1, "vector {vector}");
        }
    }
}

fn other_ones(env: &Env) {
    for device in short_of_vectors(env) {
        let info = *device.info();
        for vector in info.vectors_enabled..info.vectors {
            device.ring(info.id, vector).expect("no error");
        }
        // What comes after them comes alone.
        let last = info.vectors_enabled - 1;
        device.ring(info.id, last).expect("ring");
        assert_eq!(count_doorbells(&device, last, 1), 1);
        let doorbell = |event: &ivshmem::Event| matches!(event.kind, EventKind::Doorbell { .. });
        assert!(!drain(&device).iter().any(doorbell));
    }
}

fn lost_ones(env: &Env) {
    let devices = short_of_vectors(env);
    devices.iter().for_each(|device| drop(drain(device)));
    power::sleep();
    for device in devices {
        let mut told: Vec<u32> = drain(&device)
            .into_iter()
            .filter(|event| event.may_have_lost)
            .map(|event| match event.kind {
                EventKind::Doorbell { vector, .. } => vector,
                _ => panic!("{event:?}"),
            })
            .collect();
        told.sort_unstable();
        let enabled = device.info().vectors_enabled;
        assert_eq!(told, (0..enabled).collect::<Vec<_>>());
    }
}

fn refused(env: &Env) {
    for device in short_of_vectors(env) {
        let subject = Subject::Vector(device.info().vectors_enabled);
        let got = device.subscribe(subject, true).unwrap_err();
        assert_eq!(got.errno(), Some(Errno::NXIO));
        let got = device.attach_eventfd(subject, None).unwrap_err();
        assert_eq!(got.errno(), Some(Errno::NXIO));
    }
}

fn given_back(env: &Env) {
    let enabled = |env: &Env| -> Vec<u32> {
        let open = |(_, node): &(_, _)| Device::open(node).expect("open");
        let counts = env.nodes.iter().map(open);
        counts.map(|device| device.info().vectors_enabled).collect()
    };
    let before = enabled(env);
    let short = (0..before.len()).find(|&index| before[index] < env.nodes[index].0.vectors);
    let short = short.expect("a device that is short of vectors");
    let rich = (0..before.len()).find(|&index| before[index] == env.nodes[index].0.vectors);
    let rich = rich.expect("a device that has all of them");
    let bdf = |index: usize| env.nodes[index].0.bdf();
    system::unbind(&bdf(short)).expect("unbind");
    system::unbind(&bdf(rich)).expect("unbind");
    system::bind(&bdf(short)).expect("bind");
    system::ensure_ready(&env.plan).expect("bind");
    let after = enabled(&Env::new().expect("all are back"));
    assert!(after[short] > before[short], "{before:?}, then {after:?}");
    // As it was, for the next test.
    system::unload_module().expect("unload");
}
