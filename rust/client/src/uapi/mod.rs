// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's interface as bindgen sees it.
//!
//! `generated.rs` comes from `include/uapi/linux/ivshmem.h` by [`BINDGEN_ARGUMENTS`] and carries
//! compile-time checks of every size and offset. The test `uapi_is_current` runs bindgen again
//! and compares. Programs want the safe types at the root of the crate; what is here is for
//! tests of the interface itself.
#![allow(missing_docs, non_camel_case_types)]

#[rustfmt::skip]
mod generated;

pub use generated::*;

/// How `generated.rs` is made: `bindgen HEADER` with these arguments.
pub const BINDGEN_ARGUMENTS: &[&str] = &[
    "--use-core",
    "--rust-target=1.82",
    "--formatter=prettyplease",
    "--disable-header-comment",
    // Without the next one, the ioctl numbers vanish silently: they need the preprocessor.
    "--clang-macro-fallback",
    "--clang-macro-fallback-build-dir=/tmp",
    "--allowlist-item=(ivshmem|IVSHMEM)_.*",
    "--no-prepend-enum-name",
    "--default-enum-style=consts",
    "--with-derive-default",
    "--no-doc-comments",
    "--raw-line=// SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note",
    "--raw-line=// Generated from include/uapi/linux/ivshmem.h; see uapi/mod.rs. Do not edit.",
    "--",
    "-xc",
    "-std=gnu11",
];

/// `IVSHMEM_DEADLINE_NEVER`, which bindgen cannot evaluate.
pub const IVSHMEM_DEADLINE_NEVER: u64 = !0;
