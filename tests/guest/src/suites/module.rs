// SPDX-License-Identifier: MIT OR Apache-2.0
//! The module as a whole: taint, loading, unloading, the kernel that it runs on.

use super::{Env, Test};
use crate::system;
use rustix::io::Errno;
use std::fs;
use std::path::Path;

pub(super) const TESTS: &[Test] = &[
    Test::new(
        "the kernel is of the release that the module was built for",
        release,
    ),
    Test::new(
        "the module's taint is only out-of-tree, and unsigned where the kernel looks at signatures",
        taint,
    ),
    // bad input: `rmmod` while a file is open => `EAGAIN` (in use), and the device works on
    Test::new("rmmod is refused while a file is open", unload_refused),
    Test::new(
        "rmmod is clean, and loading again brings the device back",
        reload,
    ),
];

/// What is true of a distribution's kernel only, and not of one that the toolbox has built.
pub(super) const DISTRIBUTION: &[Test] = &[
    Test::new(
        "the kernel says that the distribution has built it",
        debians,
    ),
    Test::new(
        "the module's taint is both out-of-tree and unsigned",
        both_taints,
    ),
];

/// TAINT_OOT_MODULE.
const OUT_OF_TREE: u64 = 1 << 12;
/// TAINT_UNSIGNED_MODULE.
const UNSIGNED: u64 = 1 << 13;

fn read(path: &str) -> String {
    let text = fs::read_to_string(path);
    text.unwrap_or_else(|error| panic!("{path}: {error}"))
        .trim()
        .into()
}

fn release(_: &Env) {
    let running = read("/proc/sys/kernel/osrelease");
    let built_for = read("/etc/kernel-release");
    assert_eq!(running, built_for);
}

fn debians(_: &Env) {
    let version = read("/proc/version");
    assert!(
        version.contains("(debian-kernel@lists.debian.org)"),
        "not a kernel of Debian: {version}"
    );
}

fn tainted_with(letters: &str, bits: u64) {
    assert_eq!(read("/sys/module/ivshmem/taint"), letters);
    let taint: u64 = read("/proc/sys/kernel/tainted").parse().expect("a number");
    assert_eq!(taint, bits);
}

fn taint(_: &Env) {
    // The parameter is there in kernels with CONFIG_MODULE_SIG.
    if Path::new("/sys/module/module/parameters/sig_enforce").exists() {
        tainted_with("OE", OUT_OF_TREE | UNSIGNED);
    } else {
        tainted_with("O", OUT_OF_TREE);
    }
}

fn both_taints(_: &Env) {
    tainted_with("OE", OUT_OF_TREE | UNSIGNED);
}

fn unload_refused(env: &Env) {
    let device = env.open();
    assert_eq!(system::unload_module(), Err(Errno::AGAIN));
    assert!(system::module_is_loaded());
    device.state(0).expect("the device still works");
    drop(device);
}

fn reload(env: &Env) {
    system::unload_module().expect("unload");
    assert!(!system::module_is_loaded());
    assert!(!env.node().exists(), "the device file is still there");
    system::load_module().expect("load again");
    system::ensure_ready(&env.plan).expect("devices are back");
    let again = Env::new().expect("devices are back");
    assert_eq!(again.open().info().id, env.expected().peer);
}
