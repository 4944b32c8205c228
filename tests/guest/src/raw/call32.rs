// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls as a 32-bit program makes them.
//!
//! An x86-64 program can enter the kernel by its 32-bit door; on arm64 only a program in 32-bit mode
//! can, and Debian's kernel with pages of 16 KiB has no such door at all.

use super::{mmap_low, size_of_call, Map, Outcome};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// The kernel's entry for 32-bit programs, with a page of memory that they could address: its first
/// half for a structure, its second for what the structure points to.
pub(crate) struct Call32 {
    page: Map,
}

/// Where the second half begins.
const HALF: usize = 2048;

impl Call32 {
    pub(crate) fn new() -> Self {
        let page = mmap_low(2 * HALF).expect("memory below 4 GiB");
        Self { page }
    }

    /// Address of the second half.
    pub(crate) fn address(&self) -> u64 {
        self.page.address() + HALF as u64
    }

    /// Copies into the second half.
    pub(crate) fn copy_in(&self, bytes: &[u8]) {
        self.copy(HALF, bytes);
    }

    /// Copies from the beginning of the second half.
    pub(crate) fn copy_out(&self, bytes: &mut [u8]) {
        self.copy_back(HALF, bytes);
    }

    /// An ioctl whose argument is a copy of `bytes`.
    pub(crate) fn ioctl(&self, fd: impl AsFd, number: u32, bytes: &mut [u8]) -> Outcome {
        assert!(bytes.len() >= size_of_call(number));
        self.copy(0, bytes);
        let argument = self.page.address() as u32;
        let got = self.call(54, [fd.as_fd().as_raw_fd() as u32, number, argument, 0, 0]);
        self.copy_back(0, bytes);
        got
    }

    /// An ioctl likewise, which returns a new descriptor.
    pub(crate) fn opening_ioctl(
        &self,
        fd: impl AsFd,
        number: u32,
        bytes: &mut [u8],
    ) -> Result<OwnedFd, Errno> {
        let new = self.ioctl(fd, number, bytes)?;
        // SAFETY: The kernel has made it for this call, so it is nobody else's.
        Ok(unsafe { OwnedFd::from_raw_fd(new as i32) })
    }

    /// read into the second half.
    pub(crate) fn read(&self, fd: impl AsFd, length: u32) -> Outcome {
        self.transfer(3, fd, length, 0)
    }

    /// write from the second half.
    pub(crate) fn write(&self, fd: impl AsFd, length: u32) -> Outcome {
        self.transfer(4, fd, length, 0)
    }

    /// pread into the second half.
    pub(crate) fn pread(&self, fd: impl AsFd, length: u32, offset: u32) -> Outcome {
        self.transfer(180, fd, length, offset)
    }

    /// pwrite from the second half.
    pub(crate) fn pwrite(&self, fd: impl AsFd, length: u32, offset: u32) -> Outcome {
        self.transfer(181, fd, length, offset)
    }

    fn transfer(&self, number: u32, fd: impl AsFd, length: u32, offset: u32) -> Outcome {
        assert!(length as usize <= HALF);
        let fd = fd.as_fd().as_raw_fd() as u32;
        self.call(number, [fd, self.address() as u32, length, offset, 0])
    }

    fn copy(&self, at: usize, bytes: &[u8]) {
        assert!(bytes.len() <= HALF);
        // SAFETY: inside the page, which nobody else uses.
        unsafe {
            self.page
                .base
                .add(at)
                .copy_from(bytes.as_ptr(), bytes.len())
        };
    }

    fn copy_back(&self, at: usize, bytes: &mut [u8]) {
        assert!(bytes.len() <= HALF);
        // SAFETY: inside the page, which nobody else uses.
        unsafe {
            self.page
                .base
                .add(at)
                .copy_to(bytes.as_mut_ptr(), bytes.len())
        };
    }

    /// A system call by number of the 32-bit table.
    fn call(&self, number: u32, arguments: [u32; 5]) -> Outcome {
        let mut result = i64::from(number);
        // SAFETY: the calls made here reach memory of the page only. `int 0x80` keeps all registers
        // but the result and r8 to r11; rbx cannot be named, so it is swapped.
        unsafe {
            std::arch::asm!(
                "xchg {first:r}, rbx",
                "int 0x80",
                "xchg {first:r}, rbx",
                first = inout(reg) u64::from(arguments[0]) => _,
                inout("rax") result,
                in("rcx") u64::from(arguments[1]),
                in("rdx") u64::from(arguments[2]),
                in("rsi") u64::from(arguments[3]),
                in("rdi") u64::from(arguments[4]),
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        match result as i32 {
            error @ -4095..=-1 => Err(Errno::from_raw_os_error(-error)),
            done => Ok(done as usize),
        }
    }
}
