// SPDX-License-Identifier: GPL-2.0

//! IVSHMEM v2 itself and the channel protocol: the files of `rust/protocol`, which user space shares, and what makes them at
//! home in a kernel.

#[path = "../protocol/src/channel/mod.rs"]
pub mod channel;
#[path = "../protocol/src/v2/mod.rs"]
pub mod v2;

use kernel::fmt;

/// Makes errors of the protocol printable by the kernel's macros, which have a trait of their own.
macro_rules! printable {
    ($($name:ty),* $(,)?) => {$(
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                core::fmt::Display::fmt(self, f)
            }
        }
    )*};
}

printable!(
    v2::capability::CapabilityError,
    v2::config::Protocol,
    v2::layout::LayoutError,
);
