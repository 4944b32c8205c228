// SPDX-License-Identifier: MIT OR Apache-2.0
//! The committed `src/uapi/generated.rs` is what bindgen makes of the header today.

use std::path::Path;
use std::process::Command;

#[test]
fn generated_rs_matches_the_header() {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let header = crate_dir.join("../../include/uapi/linux/ivshmem.h");
    let output = Command::new("bindgen")
        .arg(&header)
        .args(ivshmem::uapi::BINDGEN_ARGUMENTS)
        .output()
        .expect("bindgen 0.71 is needed: run the tests in the toolbox");
    assert!(
        output.status.success(),
        "bindgen failed: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let fresh = String::from_utf8(output.stdout).expect("bindgen writes UTF-8");
    let path = crate_dir.join("src/uapi/generated.rs");
    if std::env::var_os("IVSHMEM_UPDATE_UAPI").is_some() {
        std::fs::write(&path, &fresh).expect("write generated.rs");
    }
    let committed = std::fs::read_to_string(&path).expect("read generated.rs");
    assert!(
        fresh == committed,
        "{} is not what bindgen makes of the header; run this test with IVSHMEM_UPDATE_UAPI=1",
        path.display()
    );
}

/// bindgen cannot evaluate this one, so it is written by hand.
#[test]
fn deadline_never_is_what_the_header_says() {
    let header = include_str!("../../../include/uapi/linux/ivshmem.h");
    assert!(header.contains("#define IVSHMEM_DEADLINE_NEVER\t\t(~(__u64)0)"));
    assert_eq!(ivshmem::uapi::IVSHMEM_DEADLINE_NEVER, u64::MAX);
    assert_eq!(ivshmem::Deadline::NEVER.as_nanos(), u64::MAX);
}

/// Every call of the header must have arrived: a bindgen without the right option drops them.
#[test]
fn every_ioctl_of_the_header_was_generated() {
    let header = include_str!("../../../include/uapi/linux/ivshmem.h");
    let generated = include_str!("../src/uapi/generated.rs");
    let calls: Vec<_> = header
        .lines()
        .filter_map(|line| line.strip_prefix("#define "))
        .filter_map(|line| line.split_whitespace().next())
        .filter(|name| name.contains("_IOC_"))
        .collect();
    assert!(calls.len() > 8, "found only {calls:?}");
    for call in calls {
        assert!(
            generated.contains(&format!("pub const {call}:")),
            "{call} is missing in generated.rs"
        );
    }
}
