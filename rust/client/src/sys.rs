// SPDX-License-Identifier: MIT OR Apache-2.0
//! The system calls that need `unsafe`, and access to mapped shared memory.
//!
//! Nothing else in the crate is allowed to use `unsafe`. Everything here is a thin, safe function
//! or type: it owns the argument that makes its call sound and decides nothing else. Used by
//! [`device`](crate::device), [`mapping`](crate::mapping) and [`channel`](crate::channel).
#![allow(unsafe_code)]

use crate::uapi;
use rustix::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use rustix::io;
use rustix::ioctl::{ioctl, Getter, Ioctl, IoctlOutput, Opcode, Setter, Updater};
use rustix::mm::{mmap, munmap, MapFlags, ProtFlags};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU32;

/// `IVSHMEM_IOC_INFO`.
pub(crate) fn info(fd: BorrowedFd<'_>) -> io::Result<uapi::ivshmem_info> {
    // SAFETY: the number's direction and size are those of `ivshmem_info`, which is made of
    // integers only, so every bit pattern that the kernel stores is a valid value.
    unsafe {
        ioctl(
            fd,
            Getter::<{ uapi::IVSHMEM_IOC_INFO }, uapi::ivshmem_info>::new(),
        )
    }
}

/// `IVSHMEM_IOC_GET_STATE`.
pub(crate) fn get_state(fd: BorrowedFd<'_>, state: &mut uapi::ivshmem_state) -> io::Result<()> {
    // SAFETY: reads and writes one `ivshmem_state` (integers only) at the pointer that it gets.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::IVSHMEM_IOC_GET_STATE }, _>::new(state),
        )
    }
}

/// `IVSHMEM_IOC_SET_STATE`.
pub(crate) fn set_state(fd: BorrowedFd<'_>, state: uapi::ivshmem_state) -> io::Result<()> {
    // SAFETY: only reads one `ivshmem_state` at the pointer that it gets.
    unsafe { ioctl(fd, Setter::<{ uapi::IVSHMEM_IOC_SET_STATE }, _>::new(state)) }
}

/// `IVSHMEM_IOC_DOORBELL`.
pub(crate) fn doorbell(fd: BorrowedFd<'_>, doorbell: uapi::ivshmem_doorbell) -> io::Result<()> {
    // SAFETY: only reads one `ivshmem_doorbell` at the pointer that it gets.
    unsafe {
        ioctl(
            fd,
            Setter::<{ uapi::IVSHMEM_IOC_DOORBELL }, _>::new(doorbell),
        )
    }
}

/// `IVSHMEM_IOC_EVENTS`: stores records at the beginning of `records`, returns how many.
pub(crate) fn events(
    fd: BorrowedFd<'_>,
    records: &mut [uapi::ivshmem_event],
    deadline: u64,
) -> io::Result<usize> {
    let mut call = uapi::ivshmem_events {
        records: records.as_mut_ptr() as u64,
        capacity: u32::try_from(records.len()).unwrap_or(u32::MAX),
        record_size: size_of::<uapi::ivshmem_event>() as u32,
        deadline,
        ..Default::default()
    };
    // SAFETY: besides the structure itself, the kernel writes at most `capacity` records of
    // `record_size` bytes at `records`, which is the slice that we hold exclusively. Records are
    // made of integers only.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::IVSHMEM_IOC_EVENTS }, _>::new(&mut call),
        )?;
    }
    Ok((call.count as usize).min(records.len()))
}

/// `IVSHMEM_IOC_SUBSCRIBE`.
pub(crate) fn subscribe(fd: BorrowedFd<'_>, request: uapi::ivshmem_subscribe) -> io::Result<()> {
    // SAFETY: only reads one `ivshmem_subscribe` at the pointer that it gets.
    unsafe {
        ioctl(
            fd,
            Setter::<{ uapi::IVSHMEM_IOC_SUBSCRIBE }, _>::new(request),
        )
    }
}

/// `IVSHMEM_IOC_EVENTFD`. The kernel takes a reference of its own to the eventfd.
pub(crate) fn eventfd(
    fd: BorrowedFd<'_>,
    kind: u32,
    index: u32,
    eventfd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let request = uapi::ivshmem_eventfd {
        kind,
        index,
        fd: eventfd.map_or(-1, |fd| fd.as_raw_fd()),
        flags: 0,
    };
    // SAFETY: only reads one `ivshmem_eventfd` at the pointer that it gets.
    unsafe { ioctl(fd, Setter::<{ uapi::IVSHMEM_IOC_EVENTFD }, _>::new(request)) }
}

/// `IVSHMEM_IOC_CONNECT`, whose return value is a new descriptor.
struct Connect(uapi::ivshmem_connect);

// SAFETY: the kernel only reads one `ivshmem_connect` at the pointer, and returns, when it succeeds, a
// descriptor that it made for this call: nobody else owns it.
unsafe impl Ioctl for Connect {
    type Output = OwnedFd;
    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        uapi::IVSHMEM_IOC_CONNECT
    }

    fn as_ptr(&mut self) -> *mut c_void {
        (&raw mut self.0).cast()
    }

    unsafe fn output_from_ptr(out: IoctlOutput, _: *mut c_void) -> io::Result<OwnedFd> {
        // SAFETY: called with the result of a call that succeeded; see above.
        Ok(unsafe { OwnedFd::from_raw_fd(out) })
    }
}

/// `IVSHMEM_IOC_CONNECT`: the channel's descriptor.
pub(crate) fn connect(fd: BorrowedFd<'_>, request: uapi::ivshmem_connect) -> io::Result<OwnedFd> {
    // SAFETY: see `Connect`.
    unsafe { ioctl(fd, Connect(request)) }
}

/// `IVSHMEM_CHANNEL_IOC_STATUS`.
pub(crate) fn channel_status(fd: BorrowedFd<'_>) -> io::Result<uapi::ivshmem_channel_status> {
    // SAFETY: stores one `ivshmem_channel_status` (integers only).
    unsafe {
        ioctl(
            fd,
            Getter::<{ uapi::IVSHMEM_CHANNEL_IOC_STATUS }, uapi::ivshmem_channel_status>::new(),
        )
    }
}

/// `IVSHMEM_CHANNEL_IOC_ACK`.
pub(crate) fn channel_ack(fd: BorrowedFd<'_>, ack: uapi::ivshmem_channel_ack) -> io::Result<()> {
    // SAFETY: only reads one `ivshmem_channel_ack` at the pointer that it gets.
    unsafe { ioctl(fd, Setter::<{ uapi::IVSHMEM_CHANNEL_IOC_ACK }, _>::new(ack)) }
}

/// `IVSHMEM_CHANNEL_IOC_WAIT`.
pub(crate) fn channel_wait(
    fd: BorrowedFd<'_>,
    wait: &mut uapi::ivshmem_channel_wait,
) -> io::Result<()> {
    // SAFETY: reads and writes one `ivshmem_channel_wait` (integers only) at the pointer that it gets.
    unsafe {
        ioctl(
            fd,
            Updater::<{ uapi::IVSHMEM_CHANNEL_IOC_WAIT }, _>::new(wait),
        )
    }
}

/// `IVSHMEM_CHANNEL_IOC_EVENTFD`. The kernel takes a reference of its own to the eventfd.
pub(crate) fn channel_eventfd(
    fd: BorrowedFd<'_>,
    eventfd: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let request = uapi::ivshmem_channel_eventfd {
        fd: eventfd.map_or(-1, |fd| fd.as_raw_fd()),
        flags: 0,
    };
    // SAFETY: only reads one `ivshmem_channel_eventfd` at the pointer that it gets.
    unsafe {
        ioctl(
            fd,
            Setter::<{ uapi::IVSHMEM_CHANNEL_IOC_EVENTFD }, _>::new(request),
        )
    }
}

/// A shared mapping of a part of the region. Unmapped when dropped.
#[derive(Debug)]
pub(crate) struct Memory {
    base: NonNull<u8>,
    length: usize,
}

// SAFETY: the mapping belongs to the process and not to a thread, and is reached by volatile and
// atomic accesses only.
unsafe impl Send for Memory {}
// SAFETY: as above.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `length` bytes of the device file from `offset` on.
    pub(crate) fn map(
        fd: BorrowedFd<'_>,
        offset: u64,
        length: usize,
        writable: bool,
    ) -> io::Result<Self> {
        let mut protection = ProtFlags::READ;
        protection.set(ProtFlags::WRITE, writable);
        // SAFETY: no address is asked for, so no existing mapping is touched.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                length,
                protection,
                MapFlags::SHARED,
                fd,
                offset,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or(io::Errno::NOMEM)?;
        Ok(Self { base, length })
    }

    /// Length in bytes.
    pub(crate) fn length(&self) -> usize {
        self.length
    }

    /// Address of `size` bytes at `offset`, if they lie in the mapping.
    fn at(&self, offset: usize, size: usize) -> Option<NonNull<u8>> {
        let end = offset.checked_add(size)?;
        // SAFETY: `offset` is inside the mapping or just behind it.
        (end <= self.length).then(|| unsafe { self.base.add(offset) })
    }

    /// The word at `offset`, if it is aligned and inside. On a mapping that is not writable only
    /// loads are allowed: the callers see to that.
    pub(crate) fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let word = self.at(offset, 4)?.cast::<u32>();
        if !word.is_aligned() {
            return None;
        }
        // SAFETY: aligned, inside the mapping, and alive as long as `self`. The memory is shared
        // with other peers, whose accesses are like those of another thread's atomics. Nobody
        // accesses it but by atomics and volatile bytes.
        Some(unsafe { AtomicU32::from_ptr(word.as_ptr()) })
    }

    /// Copies from `offset` on into `bytes`; `None` if the range is not inside.
    pub(crate) fn read(&self, offset: usize, bytes: &mut [u8]) -> Option<()> {
        let source = self.at(offset, bytes.len())?.as_ptr().cast_const();
        let (head, words) = aligned(source, bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let is_word = (head..head + words).contains(&at);
            // SAFETY: `at` checked the whole range, and `aligned` says where whole words are. Volatile, as
            // a peer may change it meanwhile.
            at += unsafe {
                if is_word {
                    let word = source.add(at).cast::<u64>().read_volatile();
                    bytes[at..at + WORD].copy_from_slice(&word.to_ne_bytes());
                    WORD
                } else {
                    bytes[at] = source.add(at).read_volatile();
                    1
                }
            };
        }
        Some(())
    }

    /// Copies `bytes` to `offset` on; `None` if the range is not inside. The mapping must be
    /// writable: the callers see to that.
    pub(crate) fn write(&self, offset: usize, bytes: &[u8]) -> Option<()> {
        let target = self.at(offset, bytes.len())?.as_ptr();
        let (head, words) = aligned(target, bytes.len());
        let mut at = 0;
        while at < bytes.len() {
            let is_word = (head..head + words).contains(&at);
            // SAFETY: `at` checked the whole range, and `aligned` says where whole words are. Volatile, as
            // a peer may read it meanwhile.
            at += unsafe {
                if is_word {
                    let mut word = [0; WORD];
                    word.copy_from_slice(&bytes[at..at + WORD]);
                    target
                        .add(at)
                        .cast::<u64>()
                        .write_volatile(u64::from_ne_bytes(word));
                    WORD
                } else {
                    target.add(at).write_volatile(bytes[at]);
                    1
                }
            };
        }
        Some(())
    }
}

/// Bytes that are copied at once where they are aligned.
const WORD: usize = size_of::<u64>();

/// How many of `length` bytes from `at` on lie before the first whole word, and how many bytes the
/// words take after that.
fn aligned<T>(at: *const T, length: usize) -> (usize, usize) {
    let head = (at as usize).wrapping_neg() % WORD;
    (head, length.saturating_sub(head) / WORD * WORD)
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: exactly what `map` got, and nothing borrowed from `self` is alive. An error
        // would mean that the range is not ours, and there is nothing that we could do.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.length) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fd::AsFd;
    use std::io::Write;
    use std::sync::atomic::Ordering;

    fn page() -> (std::fs::File, Memory) {
        let fd = rustix::fs::memfd_create("page", rustix::fs::MemfdFlags::CLOEXEC).expect("memfd");
        let mut file = std::fs::File::from(fd);
        file.write_all(&[7; 4096]).expect("fill");
        let memory = Memory::map(file.as_fd(), 0, 4096, true).expect("map");
        (file, memory)
    }

    #[test]
    fn ranges_are_checked() {
        let (_file, memory) = page();
        assert!(memory.word(4092).is_some());
        assert!(memory.word(4093).is_none(), "unaligned");
        assert!(memory.word(4096).is_none(), "behind the end");
        assert!(memory.word(usize::MAX - 3).is_none(), "overflow");
        assert!(memory.read(4090, &mut [0; 6]).is_some());
        assert!(memory.read(4091, &mut [0; 6]).is_none());
        assert!(memory.write(usize::MAX, &[0; 2]).is_none());
        assert!(memory.read(4096, &mut []).is_some(), "nothing, at the end");
    }

    #[test]
    fn copies_of_any_place_and_length_are_exact() {
        let (_file, memory) = page();
        let bytes: Vec<u8> = (1..=40).collect();
        for offset in 0..16 {
            for length in 0..40 {
                memory.write(0, &[7; 64]).expect("fill");
                memory.write(offset, &bytes[..length]).expect("write");
                let mut expected = [7; 64];
                expected[offset..offset + length].copy_from_slice(&bytes[..length]);
                let mut all = [0; 64];
                memory.read(0, &mut all).expect("read");
                assert_eq!(all, expected, "{length} bytes at {offset}");
                let mut part = vec![0; length];
                memory.read(offset, &mut part).expect("read");
                assert_eq!(part, bytes[..length], "{length} bytes at {offset}");
            }
        }
    }

    #[test]
    fn bytes_and_words_are_the_same_memory() {
        let (_file, memory) = page();
        memory
            .write(8, &0x1234_5678_u32.to_ne_bytes())
            .expect("write");
        let word = memory.word(8).expect("word");
        assert_eq!(word.load(Ordering::Relaxed), 0x1234_5678);
        word.store(9, Ordering::Relaxed);
        let mut bytes = [0; 5];
        memory.read(8, &mut bytes).expect("read");
        assert_eq!(bytes[..4], 9_u32.to_ne_bytes());
        assert_eq!(bytes[4], 7);
    }
}
