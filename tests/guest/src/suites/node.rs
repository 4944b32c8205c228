// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device file and what stands in sysfs beside it.

use super::{Env, Test};
use crate::system;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::Path;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "/dev/ivshmemN is a character device of root with mode 0600",
        mode,
    ),
    Test::new("its number in /dev is the one in sysfs", number),
    Test::new("the class device's parent is the PCI device", parent),
    Test::new(
        "numbers begin with 0 and the lowest free one is taken",
        lowest_free,
    ),
    Test::new(
        "the file appears when the driver is bound and goes when it is unbound",
        appears,
    ),
    // bad input: another file than one of the driver's given to the library => `ENOTTY` or `ENOENT`, in words
    Test::new(
        "other files than the ioctls' device say ENOTTY or ENOENT in the library's words",
        not_ours,
    ),
];

fn name(node: &Path) -> String {
    node.file_name()
        .expect("a name")
        .to_string_lossy()
        .into_owned()
}

fn mode(env: &Env) {
    let data = fs::metadata(env.node()).expect("metadata");
    assert!(data.file_type().is_char_device());
    assert_eq!(data.permissions().mode() & 0o7777, 0o600);
    assert_eq!((data.uid(), data.gid()), (0, 0));
}

fn number(env: &Env) {
    let path = Path::new(system::CLASS).join(name(env.node())).join("dev");
    let text = fs::read_to_string(path).expect("sysfs");
    let data = fs::metadata(env.node()).expect("metadata");
    let (major, minor) = (libc::major(data.rdev()), libc::minor(data.rdev()));
    assert_eq!(text.trim(), format!("{major}:{minor}"));
}

fn parent(env: &Env) {
    let device = Path::new(system::CLASS)
        .join(name(env.node()))
        .join("device");
    let target = fs::canonicalize(device).expect("a link");
    assert!(
        target.ends_with(env.expected().bdf()),
        "{}",
        target.display()
    );
    let driver = fs::canonicalize(target.join("driver")).expect("bound");
    assert!(driver.ends_with(system::NAME), "{}", driver.display());
}

/// Unbinds all good devices.
fn unbind_all(env: &Env) -> Vec<String> {
    let good = env
        .plan
        .devices
        .iter()
        .filter(|device| device.fault.is_none());
    let all: Vec<String> = good.map(|device| device.bdf()).collect();
    for bdf in all.iter().filter(|bdf| system::is_bound(bdf)) {
        system::unbind(bdf).expect("unbind");
    }
    all
}

fn bound_as(bdf: &str) -> String {
    system::bind(bdf).expect("bind");
    name(&system::node(bdf).expect("a device file"))
}

fn lowest_free(env: &Env) {
    let all = unbind_all(env);
    // In another order than that of the slots.
    for (index, bdf) in all.iter().rev().enumerate() {
        assert_eq!(bound_as(bdf), format!("ivshmem{index}"));
    }
    for _ in 0..2 {
        for (index, bdf) in all.iter().rev().enumerate() {
            system::unbind(bdf).expect("unbind");
            assert_eq!(
                bound_as(bdf),
                format!("ivshmem{index}"),
                "the one that was freed"
            );
        }
    }
    unbind_all(env);
    for (index, bdf) in all.iter().enumerate() {
        assert_eq!(bound_as(bdf), format!("ivshmem{index}"));
    }
}

fn appears(env: &Env) {
    let bdf = env.expected().bdf();
    system::unbind(&bdf).expect("unbind");
    assert_eq!(system::node(&bdf), None);
    let gone = || !env.node().exists();
    assert!(
        system::wait_until(super::soon(), gone),
        "{} is still there",
        env.node().display()
    );
    system::bind(&bdf).expect("bind");
    let there = || system::node(&bdf).is_some_and(|node| node.exists());
    assert!(system::wait_until(super::soon(), there), "no device file");
}

fn not_ours(_: &Env) {
    let error = ivshmem::Device::open("/dev/null").expect_err("not a device");
    assert!(
        matches!(error, ivshmem::Error::NotADevice { .. }),
        "{error}"
    );
    let error = ivshmem::Device::open("/dev/ivshmem255").expect_err("no such device");
    assert!(
        error.to_string().contains("is the module loaded"),
        "{error}"
    );
}
