// SPDX-License-Identifier: MIT OR Apache-2.0
//! Link options of the bare-metal program. They apply to the binary only, so
//! that the unit tests of the library are ordinary host programs, and they come
//! last, so that they win over what the repository sets for its host programs.

use std::env;
use std::path::Path;

fn main() {
    let directory = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let script = Path::new(&directory).join("inmate.ld");
    println!("cargo:rerun-if-changed=inmate.ld");
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{}", script.display());
    for argument in [
        "-nostdlib",
        "-nostartfiles",
        "-static",
        "-no-pie",
        "-Wl,--gc-sections",
        "-Wl,--build-id=none",
        "-Wl,-z,noexecstack",
        "-Wl,-z,max-page-size=0x1000",
    ] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
