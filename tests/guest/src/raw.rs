// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls as no library would make them: wrong pointers, wrong sizes, wrong rights.
//!
//! The only module of this program with `unsafe`. Each function is safe to call: memory that the
//! kernel may write is a slice that the caller lends, or an address that is no memory of ours.
#![allow(unsafe_code)]

#[cfg(target_arch = "x86_64")]
mod call32;
mod channel;
mod perf;
mod uring;
mod userfault;

use rustix::io::Errno;
use std::ffi::c_void;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::ptr::null_mut;

#[cfg(target_arch = "x86_64")]
pub(crate) use call32::Call32;
pub(crate) use channel::{close, die_of_sigpipe, read_bad, read_number, write_bad};
pub(crate) use perf::{perf_counter, Sampler};
pub(crate) use uring::Ring;
pub(crate) use userfault::Unresolved;

/// The result of a raw call.
pub(crate) type Outcome = Result<usize, Errno>;

/// Addresses that lead to no memory that the kernel could use for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadPointer {
    Null,
    /// In the lowest page, not null.
    Low,
    /// In the kernel's half.
    Kernel,
    /// No canonical address at all.
    NonCanonical,
    /// The last bytes of the address space: adding a length overflows.
    Top,
}

impl BadPointer {
    pub(crate) const ALL: [Self; 5] = [
        Self::Null,
        Self::Low,
        Self::Kernel,
        Self::NonCanonical,
        Self::Top,
    ];

    fn address(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Low => 0x10,
            Self::Kernel => 0xffff_8880_0000_1000,
            Self::NonCanonical => 0x8000_0000_0000_0000,
            Self::Top => usize::MAX - 7,
        }
    }
}

fn outcome(result: isize) -> Outcome {
    if result >= 0 {
        return Ok(result as usize);
    }
    let number = std::io::Error::last_os_error().raw_os_error();
    Err(Errno::from_raw_os_error(number.unwrap_or(0)))
}

/// The size of the structure that an ioctl's number tells.
pub(crate) fn size_of_call(number: u32) -> usize {
    ((number >> 16) & 0x3fff) as usize
}

/// An ioctl whose argument is `bytes`, of which the kernel may use as much as `number` says.
pub(crate) fn ioctl(fd: impl AsFd, number: u32, bytes: &mut [u8]) -> Outcome {
    let size = size_of_call(number);
    assert!(bytes.len() >= size, "the number says {size} bytes");
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel's conventions let a driver reach `size` bytes, all in `bytes`.
    outcome(unsafe { libc::ioctl(fd, number as _, bytes.as_mut_ptr()) } as isize)
}

/// An ioctl with an argument that leads nowhere.
pub(crate) fn ioctl_bad(fd: impl AsFd, number: u32, pointer: BadPointer) -> Outcome {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the address is no memory of ours.
    outcome(unsafe { libc::ioctl(fd, number as _, pointer.address()) } as isize)
}

/// pread into an address that leads nowhere.
pub(crate) fn pread_bad(fd: impl AsFd, pointer: BadPointer, length: usize, offset: i64) -> Outcome {
    let (fd, address) = (fd.as_fd().as_raw_fd(), pointer.address() as *mut c_void);
    // SAFETY: the address is no memory of ours.
    outcome(unsafe { libc::pread(fd, address, length, offset) })
}

/// pwrite from an address that leads nowhere.
pub(crate) fn pwrite_bad(
    fd: impl AsFd,
    pointer: BadPointer,
    length: usize,
    offset: i64,
) -> Outcome {
    let (fd, address) = (fd.as_fd().as_raw_fd(), pointer.address() as *const c_void);
    // SAFETY: the address is no memory of ours.
    outcome(unsafe { libc::pwrite(fd, address, length, offset) })
}

/// pread with a signed offset, as the kernel takes it.
pub(crate) fn pread(fd: impl AsFd, bytes: &mut [u8], offset: i64) -> Outcome {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel writes at most the slice.
    outcome(unsafe { libc::pread(fd, bytes.as_mut_ptr().cast(), bytes.len(), offset) })
}

/// pwrite with a signed offset, as the kernel takes it.
pub(crate) fn pwrite(fd: impl AsFd, bytes: &[u8], offset: i64) -> Outcome {
    let fd = fd.as_fd().as_raw_fd();
    // SAFETY: the kernel reads at most the slice.
    outcome(unsafe { libc::pwrite(fd, bytes.as_ptr().cast(), bytes.len(), offset) })
}

/// lseek with any `whence`.
pub(crate) fn lseek(fd: impl AsFd, offset: i64, whence: i32) -> Outcome {
    // SAFETY: touches no memory.
    outcome(unsafe { libc::lseek(fd.as_fd().as_raw_fd(), offset, whence) } as isize)
}

/// preadv over several slices.
pub(crate) fn preadv(fd: impl AsFd, slices: &mut [&mut [u8]], offset: i64) -> Outcome {
    let vector: Vec<libc::iovec> = slices
        .iter_mut()
        .map(|slice| libc::iovec {
            iov_base: slice.as_mut_ptr().cast(),
            iov_len: slice.len(),
        })
        .collect();
    let (fd, count) = (fd.as_fd().as_raw_fd(), vector.len() as i32);
    // SAFETY: the kernel writes at most the slices, which we hold exclusively.
    outcome(unsafe { libc::preadv(fd, vector.as_ptr(), count, offset) })
}

/// preadv2 with flags (RWF_*).
pub(crate) fn preadv2(fd: impl AsFd, bytes: &mut [u8], offset: i64, flags: i32) -> Outcome {
    let fd = fd.as_fd().as_raw_fd();
    let vector = libc::iovec {
        iov_base: bytes.as_mut_ptr().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel writes at most the slice.
    outcome(unsafe { libc::preadv2(fd, &vector, 1, offset, flags) })
}

/// pwritev2 with flags (RWF_*).
pub(crate) fn pwritev2(fd: impl AsFd, bytes: &[u8], offset: i64, flags: i32) -> Outcome {
    let fd = fd.as_fd().as_raw_fd();
    let vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: the kernel only reads, at most the slice.
    outcome(unsafe { libc::pwritev2(fd, &vector, 1, offset, flags) })
}

/// A mapping, made with any rights.
#[derive(Debug)]
pub(crate) struct Map {
    base: *mut u8,
    length: usize,
}

// SAFETY: it may be used by any thread: all accesses are volatile, or the kernel's.
unsafe impl Send for Map {}
// SAFETY: as above; there are no references into the memory.
unsafe impl Sync for Map {}

/// mmap; `fd` of `None` gives anonymous memory.
pub(crate) fn mmap(
    fd: Option<BorrowedFd<'_>>,
    offset: i64,
    length: usize,
    protection: i32,
    flags: i32,
) -> Result<Map, Errno> {
    mmap_near(null_mut(), fd, offset, length, protection, flags)
}

/// Memory of our own in the lowest part of the address space.
pub(crate) fn mmap_low(length: usize) -> Result<Map, Errno> {
    // No program is linked to here, and the kernel does as it is asked where nothing is.
    let low = 0x4000_0000 as *mut c_void;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let map = mmap_near(low, None, 0, length, rights, libc::MAP_PRIVATE)?;
    assert!(map.address() + (length as u64) < 1 << 32, "{map:?}");
    Ok(map)
}

fn mmap_near(
    near: *mut c_void,
    fd: Option<BorrowedFd<'_>>,
    offset: i64,
    length: usize,
    protection: i32,
    flags: i32,
) -> Result<Map, Errno> {
    assert_eq!(flags & libc::MAP_FIXED, 0, "would replace other memory");
    let (fd, anonymous) = match fd {
        Some(fd) => (fd.as_raw_fd(), 0),
        None => (-1, libc::MAP_ANONYMOUS),
    };
    // SAFETY: not at a fixed address, so nothing existing is replaced.
    let base = unsafe { libc::mmap(near, length, protection, flags | anonymous, fd, offset) };
    if base == libc::MAP_FAILED {
        outcome(-1)?;
    }
    Ok(Map {
        base: base.cast(),
        length,
    })
}

impl Map {
    /// mprotect of the whole mapping.
    pub(crate) fn protect(&self, protection: i32) -> Result<(), Errno> {
        // SAFETY: the range is ours, and nobody holds references into it.
        outcome(unsafe { libc::mprotect(self.base.cast(), self.length, protection) } as isize)?;
        Ok(())
    }

    /// Grows the mapping in place or elsewhere.
    pub(crate) fn grow(self, length: usize) -> Result<Map, Errno> {
        let (base, old) = (self.base, self.length);
        // SAFETY: the range is ours, and nobody holds references into it.
        let new = unsafe { libc::mremap(base.cast(), old, length, libc::MREMAP_MAYMOVE) };
        if new == libc::MAP_FAILED {
            outcome(-1)?;
        }
        std::mem::forget(self);
        Ok(Map {
            base: new.cast(),
            length,
        })
    }

    /// Loads a word. Without the right to read this raises SIGSEGV, which is the test's point.
    pub(crate) fn load(&self, offset: usize) -> u32 {
        assert!(offset % 4 == 0 && offset + 4 <= self.length);
        // SAFETY: inside the mapping and aligned; volatile, as others write it.
        unsafe { self.base.add(offset).cast::<u32>().read_volatile() }
    }

    /// Stores a word. Without the right to write this raises SIGSEGV, which is the test's point.
    pub(crate) fn store(&self, offset: usize, value: u32) {
        assert!(offset % 4 == 0 && offset + 4 <= self.length);
        // SAFETY: inside the mapping and aligned; volatile, as others read it.
        unsafe { self.base.add(offset).cast::<u32>().write_volatile(value) }
    }

    /// Takes the second half away, so that a buffer ends in nothing.
    pub(crate) fn cut_in_half(&mut self) {
        let half = self.length / 2;
        // SAFETY: the range is ours, and nobody holds references into it.
        let done = unsafe { libc::munmap(self.base.add(half).cast(), half) };
        assert_eq!(done, 0);
        self.length = half;
    }

    /// pread with this mapping as buffer and `beyond` bytes behind its end.
    pub(crate) fn pread(&self, fd: impl AsFd, beyond: usize, offset: i64) -> Outcome {
        let (fd, length) = (fd.as_fd().as_raw_fd(), self.length + beyond);
        // SAFETY: the kernel writes into the mapping; what lies behind it was taken away by
        // `cut_in_half`, and this program maps nothing else meanwhile.
        outcome(unsafe { libc::pread(fd, self.base.cast(), length, offset) })
    }

    /// pwrite with this mapping as buffer and `beyond` bytes behind its end.
    pub(crate) fn pwrite(&self, fd: impl AsFd, beyond: usize, offset: i64) -> Outcome {
        let (fd, length) = (fd.as_fd().as_raw_fd(), self.length + beyond);
        // SAFETY: the kernel only reads.
        outcome(unsafe { libc::pwrite(fd, self.base.cast(), length, offset) })
    }

    /// An ioctl with this mapping as argument.
    pub(crate) fn ioctl(&self, fd: impl AsFd, number: u32) -> Outcome {
        let size = size_of_call(number);
        assert!(self.length >= size, "the number says {size} bytes");
        // SAFETY: the kernel reaches at most `size` bytes, all in the mapping.
        outcome(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), number as _, self.base) } as isize)
    }

    /// pread into `length` bytes of it from `at` on.
    pub(crate) fn pread_at(&self, fd: impl AsFd, at: usize, length: usize, offset: u64) -> Outcome {
        let (fd, base) = (fd.as_fd().as_raw_fd(), self.part(at, length));
        // SAFETY: the kernel writes into the mapping, to which there are no references.
        outcome(unsafe { libc::pread(fd, base.cast(), length, offset as i64) })
    }

    /// pwrite from `length` bytes of it from `at` on.
    pub(crate) fn pwrite_at(
        &self,
        fd: impl AsFd,
        at: usize,
        length: usize,
        offset: u64,
    ) -> Outcome {
        let (fd, base) = (fd.as_fd().as_raw_fd(), self.part(at, length));
        // SAFETY: the kernel only reads.
        outcome(unsafe { libc::pwrite(fd, base.cast(), length, offset as i64) })
    }

    /// An ioctl whose argument lies at `at`.
    pub(crate) fn ioctl_at(&self, fd: impl AsFd, number: u32, at: usize) -> Outcome {
        let base = self.part(at, size_of_call(number));
        // SAFETY: the kernel reaches at most `size_of_call` bytes, all in the mapping.
        outcome(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), number as _, base) } as isize)
    }

    /// The address of `length` bytes from `at` on.
    fn part(&self, at: usize, length: usize) -> *mut u8 {
        assert!(at + length <= self.length);
        self.base.wrapping_add(at)
    }

    /// Its address, to be given to the kernel as a place for records.
    pub(crate) fn address(&self) -> u64 {
        self.base as u64
    }
}

impl Drop for Map {
    fn drop(&mut self) {
        // SAFETY: the range is ours, and nobody holds references into it.
        unsafe { libc::munmap(self.base.cast(), self.length) };
    }
}

/// Lets SIGALRM interrupt system calls (no SA_RESTART) or not, and raises it every
/// `milliseconds` from now on.
pub(crate) fn alarm_every(milliseconds: i64, restart: bool) {
    extern "C" fn nothing(_: i32) {}
    let handler: extern "C" fn(i32) = nothing;
    let interval = libc::timeval {
        tv_sec: milliseconds / 1000,
        tv_usec: milliseconds % 1000 * 1000,
    };
    let timer = libc::itimerval {
        it_interval: interval,
        it_value: interval,
    };
    // SAFETY: `sigaction` may be zero; the handler does nothing, which is always allowed in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        action.sa_flags = if restart { libc::SA_RESTART } else { 0 };
        assert_eq!(libc::sigaction(libc::SIGALRM, &action, null_mut()), 0);
        assert_eq!(libc::setitimer(libc::ITIMER_REAL, &timer, null_mut()), 0);
    }
}

/// Takes all privileges from this process for good.
pub(crate) fn become_nobody() {
    let nobody = 65534;
    // SAFETY: touches no memory.
    let done = unsafe {
        libc::setgroups(0, std::ptr::null())
            | libc::setresgid(nobody, nobody, nobody)
            | libc::setresuid(nobody, nobody, nobody)
    };
    assert_eq!(done, 0, "{}", std::io::Error::last_os_error());
}

/// Runs `work` in a forked child and waits for it; panics unless it ends well.
///
/// For programs of one thread only: in a child of several, locks may be held for ever.
pub(crate) fn in_child(work: impl FnOnce()) {
    assert_eq!(status_of_child(work), 0, "the child failed");
}

/// As [`in_child`], for work that is expected to die: the signal that it died of.
pub(crate) fn signal_in_child(work: impl FnOnce()) -> Option<i32> {
    let status = status_of_child(work);
    libc::WIFSIGNALED(status).then(|| libc::WTERMSIG(status))
}

fn status_of_child(work: impl FnOnce()) -> i32 {
    let threads = std::fs::read_dir("/proc/self/task").map_or(0, Iterator::count);
    assert_eq!(threads, 1, "fork with several threads");
    // SAFETY: there is only this thread, so the child is a whole copy of the program.
    match unsafe { libc::fork() } {
        -1 => panic!("fork: {}", std::io::Error::last_os_error()),
        0 => {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
            // SAFETY: ends the child without running what belongs to the parent.
            unsafe { libc::_exit(i32::from(done.is_err())) }
        }
        child => {
            let mut status = 0;
            // SAFETY: waits for our own child, stores one integer.
            let waited = unsafe { libc::waitpid(child, &mut status, 0) };
            assert_eq!(waited, child, "waitpid");
            status
        }
    }
}

/// The bytes of a structure.
pub(crate) fn bytes_of<T: Plain>(value: &T) -> &[u8] {
    // SAFETY: `Plain` types have no padding, so all their bytes are initialised.
    unsafe { std::slice::from_raw_parts((value as *const T).cast(), size_of::<T>()) }
}

/// As [`bytes_of`], to be written into.
pub(crate) fn bytes_of_mut<T: Plain>(value: &mut T) -> &mut [u8] {
    // SAFETY: `Plain` types have no padding and any bytes are a value of them.
    unsafe { std::slice::from_raw_parts_mut((value as *mut T).cast(), size_of::<T>()) }
}

/// Structures of the interface: integers only, no padding.
///
/// # Safety
///
/// All of the type's bytes are integers.
pub(crate) unsafe trait Plain: Default {}

// SAFETY: the header is written so that none of them has padding.
unsafe impl Plain for ivshmem::uapi::ivshmem_info {}
// SAFETY: as above.
unsafe impl Plain for ivshmem::uapi::ivshmem_state {}
// SAFETY: as above.
unsafe impl Plain for ivshmem::uapi::ivshmem_doorbell {}
// SAFETY: as above.
unsafe impl Plain for ivshmem::uapi::ivshmem_subscribe {}
// SAFETY: as above.
unsafe impl Plain for ivshmem::uapi::ivshmem_eventfd {}
// SAFETY: as above.
unsafe impl Plain for ivshmem::uapi::ivshmem_events {}
// SAFETY: as above.
unsafe impl Plain for ivshmem::uapi::ivshmem_event {}
