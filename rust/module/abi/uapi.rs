// SPDX-License-Identifier: GPL-2.0

//! The user-space interface as the C header defines it, and the rules by which its structures grow.

use core::mem::size_of;
use kernel::{
    prelude::*,
    uaccess::{
        UserPtr,
        UserSlice, //
    },
};

/// What the kernel's bindgen makes of `include/uapi/linux/ivshmem.h`.
#[allow(
    dead_code,
    missing_docs,
    non_camel_case_types,
    unreachable_pub,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod generated {
    include!(env!("IVSHMEM_UAPI_RS"));
}
pub(crate) use generated::*;
pub(crate) use kernel::bindings::FIONREAD;

/// A structure of the interface.
///
/// # Safety
///
/// The type must consist of integers only, without padding between or behind them: it is read
/// from and written to user space byte by byte.
pub(crate) unsafe trait Structure: Copy + Default {
    /// Size of the structure in the first version of the interface, in bytes.
    const FIRST_SIZE: usize;

    /// Its bytes.
    fn as_bytes(&self) -> &[u8] {
        // SAFETY: By the trait's contract every byte is initialised.
        unsafe { core::slice::from_raw_parts(core::ptr::from_ref(self).cast(), size_of::<Self>()) }
    }

    /// Its bytes, for filling.
    fn as_bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: By the trait's contract every byte is initialised, and any value is allowed.
        unsafe {
            core::slice::from_raw_parts_mut(core::ptr::from_mut(self).cast(), size_of::<Self>())
        }
    }
}

/// Declares structures, and holds their first version's size and the absence of padding.
macro_rules! structures {
    ($($name:ident = $size:literal { $($field:ident: $type:ty),* $(,)? })*) => {$(
        const _: () = {
            // A field that moves or grows changes what old programs mean.
            assert!(size_of::<$name>() >= $size);
            assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*);
            // Mentions every field by name and type.
            fn _fields(s: &$name) -> ($(&$type,)*) {
                ($(&s.$field,)*)
            }
        };

        // SAFETY: The assertions above show that the fields, all integers or such structures,
        // cover the type.
        unsafe impl Structure for $name {
            const FIRST_SIZE: usize = $size;
        }
    )*};
}

structures! {
    ivshmem_section = 24 { offset: u64, size: u64, flags: u32, reserved: u32 }
    ivshmem_info = 136 {
        abi_version: u32,
        id: u32,
        max_peers: u32,
        vectors: u32,
        vectors_enabled: u32,
        interrupt_mode: u32,
        protocol: u32,
        reserved: u32,
        region_size: u64,
        state_table: ivshmem_section,
        rw: ivshmem_section,
        outputs: ivshmem_section,
        output: ivshmem_section,
    }
    ivshmem_state = 16 { peer: u32, value: u32, flags: u32, reserved: u32 }
    ivshmem_doorbell = 16 { peer: u32, vector: u32, flags: u32, reserved: u32 }
    ivshmem_event = 48 {
        kind: u32,
        index: u32,
        flags: u32,
        old_state: u32,
        new_state: u32,
        reserved: u32,
        count: u64,
        changes: u64,
        time: u64,
    }
    ivshmem_subscribe = 16 { kind: u32, index: u32, flags: u32, reserved: u32 }
    ivshmem_eventfd = 16 { kind: u32, index: u32, fd: i32, flags: u32 }
    ivshmem_connect = 16 { peer: u32, port: u32, flags: u32, reserved: u32 }
    ivshmem_channel_status = 40 {
        link: u32,
        max_message: u32,
        sent: u64,
        confirmed: u64,
        received: u64,
        acknowledged: u64,
    }
    ivshmem_channel_ack = 16 { number: u64, flags: u32, reserved: u32 }
    ivshmem_channel_wait = 32 {
        number: u64,
        deadline: u64,
        confirmed: u64,
        flags: u32,
        reserved: u32,
    }
    ivshmem_channel_eventfd = 8 { fd: i32, flags: u32 }
    ivshmem_events = 32 {
        records: u64,
        capacity: u32,
        count: u32,
        record_size: u32,
        flags: u32,
        deadline: u64,
    }
}

/// The structure that an ioctl's argument points to, in the size that the program knows.
#[derive(Clone, Copy)]
pub(crate) struct Argument {
    address: usize,
    size: usize,
}

impl Argument {
    /// `size` bytes at user address `address`.
    pub(crate) fn new(address: usize, size: usize) -> Self {
        Self { address, size }
    }

    /// Copies the structure in, once.
    ///
    /// A smaller one is completed with zeroes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is smaller than its first version, `E2BIG` if there is something other than zero
    /// behind what this driver knows, `EFAULT`.
    pub(crate) fn read<T: Structure>(self) -> Result<T> {
        if self.size < T::FIRST_SIZE {
            return Err(EINVAL);
        }
        let mut reader = UserSlice::new(UserPtr::from_addr(self.address), self.size).reader();
        let mut value = T::default();
        let known = self.size.min(size_of::<T>());
        reader.read_slice(&mut value.as_bytes_mut()[..known])?;

        let mut tail = [0; 64];
        while !reader.is_empty() {
            let chunk = reader.len().min(tail.len());
            reader.read_slice(&mut tail[..chunk])?;
            if tail[..chunk].iter().any(|&byte| byte != 0) {
                return Err(E2BIG);
            }
        }
        Ok(value)
    }

    /// Copies the structure out, in the size that the program knows; fills a larger one with
    /// zeroes.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the program's is smaller than the first version, `EFAULT`.
    pub(crate) fn write<T: Structure>(self, value: &T) -> Result {
        if self.size < T::FIRST_SIZE {
            return Err(EINVAL);
        }
        write_padded(self.address, self.size, value)
    }
}

/// Copies a number to user address `address`.
///
/// # Errors
///
/// `EFAULT`.
pub(crate) fn write_int(address: usize, value: i32) -> Result {
    UserSlice::new(UserPtr::from_addr(address), size_of::<i32>())
        .writer()
        .write_slice(&value.to_ne_bytes())
}

/// Copies `value` to `size` bytes of user memory at `address`: cut off where that is smaller,
/// filled with zeroes where it is larger.
///
/// # Errors
///
/// `EFAULT`.
pub(crate) fn write_padded<T: Structure>(address: usize, size: usize, value: &T) -> Result {
    let mut writer = UserSlice::new(UserPtr::from_addr(address), size).writer();
    let known = size.min(size_of::<T>());
    writer.write_slice(&value.as_bytes()[..known])?;
    while !writer.is_empty() {
        let chunk = writer.len().min(64);
        writer.write_slice(&[0; 64][..chunk])?;
    }
    Ok(())
}
