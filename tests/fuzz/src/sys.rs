// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls, as no library would make them, without any cost besides.
//!
//! The only file of this crate with `unsafe`. No Rust value lives in the memory that the kernel or
//! an operation may change: [`Arena`] and [`Own`] are raw pages, an [`Address`] leads into them or
//! nowhere, and what is there is copied in and out. Descriptors are numbers, and are never in the
//! hands of something that would close them.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::fs::File;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::{null_mut, NonNull};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// What a call returned: 0 or more, or the negative of an error's number.
pub(crate) type Raw = i64;

/// Size of a page in an arena.
pub(crate) const PAGE: usize = 4096;
/// Bytes of an arena.
pub(crate) const ARENA: usize = 256 * PAGE;
/// Bytes behind arena and own memory that are never mapped, more than any transfer.
const GUARD: usize = 1 << 20;
/// Bytes of a thread's own memory.
pub(crate) const OWN: usize = 128 * 1024;

/// Address of memory that no Rust value lives in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Address(usize);

impl Address {
    /// Places that are no memory of a program.
    pub(crate) const NOWHERE: [Self; 5] = [
        Self(0),
        Self(0x10),
        Self(0xffff_8880_0000_1000),
        Self(0x8000_0000_0000_0000),
        Self(usize::MAX - 7),
    ];

    /// As a number for a structure.
    pub(crate) fn bits(self) -> u64 {
        self.0 as u64
    }
}

/// Something that can be an argument of a system call.
trait Word {
    fn word(self) -> libc::c_long;
}

macro_rules! words {
    ($($type:ty),*) => {$(
        impl Word for $type {
            fn word(self) -> libc::c_long {
                self as libc::c_long
            }
        }
    )*};
}
words!(i32, u32, i64, u64, usize);

impl Word for Address {
    fn word(self) -> libc::c_long {
        self.0 as libc::c_long
    }
}

impl Word for &CStr {
    fn word(self) -> libc::c_long {
        self.as_ptr() as libc::c_long
    }
}

fn raw(result: libc::c_long) -> Raw {
    if result >= 0 {
        return result;
    }
    -Raw::from(
        std::io::Error::last_os_error()
            .raw_os_error()
            .unwrap_or(libc::EIO),
    )
}

macro_rules! calls {
    ($($name:ident($($argument:ident: $type:ty),*) = $number:ident;)*) => {$(
        pub(crate) fn $name($($argument: $type),*) -> Raw {
            // SAFETY: the kernel changes memory behind an `Address` only, where no Rust value lives.
            raw(unsafe { libc::syscall(libc::$number $(, $argument.word())*) })
        }
    )*};
}

calls! {
    openat(folder: i32, path: &CStr, flags: i32, mode: u32) = SYS_openat;
    close(fd: i32) = SYS_close;
    dup3(from: i32, to: i32, flags: i32) = SYS_dup3;
    read(fd: i32, to: Address, length: u64) = SYS_read;
    write(fd: i32, from: Address, length: u64) = SYS_write;
    pread(fd: i32, to: Address, length: u64, offset: i64) = SYS_pread64;
    pwrite(fd: i32, from: Address, length: u64, offset: i64) = SYS_pwrite64;
    readv(fd: i32, vector: Address, count: u32) = SYS_readv;
    writev(fd: i32, vector: Address, count: u32) = SYS_writev;
    preadv2(fd: i32, vector: Address, count: u32, low: i64, high: i64, flags: i32) = SYS_preadv2;
    pwritev2(fd: i32, vector: Address, count: u32, low: i64, high: i64, flags: i32) = SYS_pwritev2;
    lseek(fd: i32, offset: i64, whence: i32) = SYS_lseek;
    ppoll(fds: Address, count: u32, time: Address, mask: u64, size: u64) = SYS_ppoll;
    pselect6(limit: i32, read: Address, write: Address, except: Address, time: Address, mask: u64) = SYS_pselect6;
    epoll_create1(flags: i32) = SYS_epoll_create1;
    epoll_ctl(epoll: i32, change: i32, fd: i32, event: Address) = SYS_epoll_ctl;
    epoll_pwait(epoll: i32, events: Address, room: i32, milliseconds: i32, mask: u64, size: u64) = SYS_epoll_pwait;
    eventfd2(count: u32, flags: i32) = SYS_eventfd2;
    ioctl(fd: i32, number: u32, argument: Address) = SYS_ioctl;
    fcntl(fd: i32, command: i32, argument: i32) = SYS_fcntl;
    fsync(fd: i32) = SYS_fsync;
    fdatasync(fd: i32) = SYS_fdatasync;
    syncfs(fd: i32) = SYS_syncfs;
    splice(from: i32, from_offset: Address, to: i32, to_offset: Address, length: u64, flags: u32) = SYS_splice;
    sendfile(to: i32, from: i32, offset: Address, length: u64) = SYS_sendfile;
    fstat(fd: i32, to: Address) = SYS_fstat;
    ftruncate(fd: i32, length: i64) = SYS_ftruncate;
    fallocate(fd: i32, mode: i32, offset: i64, length: i64) = SYS_fallocate;
    fadvise(fd: i32, offset: i64, length: i64, advice: i32) = SYS_fadvise64;
    readahead(fd: i32, offset: i64, length: u64) = SYS_readahead;
    flock(fd: i32, how: i32) = SYS_flock;
    getdents64(fd: i32, to: Address, length: u64) = SYS_getdents64;
    copy_file_range(from: i32, at: u64, to: i32, to_at: u64, length: u64, flags: u32) = SYS_copy_file_range;
    pipe2(fds: Address, flags: i32) = SYS_pipe2;
    socket(family: i32, kind: i32, protocol: i32) = SYS_socket;
    bind(fd: i32, address: Address, length: u32) = SYS_bind;
    sendmsg(fd: i32, message: Address, flags: i32) = SYS_sendmsg;
    recvmsg(fd: i32, message: Address, flags: i32) = SYS_recvmsg;
    tgkill(process: i32, thread: i32, signal: i32) = SYS_tgkill;
    gettid() = SYS_gettid;
    map_anywhere(at: u64, length: u64, rights: i32, flags: i32, fd: i32, offset: u64) = SYS_mmap;
}

/// A new descriptor that a call has returned, as one that is closed when it is dropped.
pub(crate) fn owned(fd: Raw) -> std::io::Result<OwnedFd> {
    if fd < 0 {
        return Err(std::io::Error::from_raw_os_error(-fd as i32));
    }
    // SAFETY: a new descriptor, ours alone.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Reserves raw pages.
fn reserve(length: usize, rights: i32) -> std::io::Result<NonNull<u8>> {
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory, at no fixed place.
    let base = unsafe { libc::mmap(null_mut(), length + GUARD, libc::PROT_NONE, flags, -1, 0) };
    if base == libc::MAP_FAILED {
        return Err(std::io::Error::last_os_error());
    }
    // SAFETY: inside the memory just made.
    if unsafe { libc::mprotect(base, length, rights) } != 0 {
        return Err(std::io::Error::last_os_error());
    }
    NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("memory at 0"))
}

/// Memory of a thread that is always there, behind it memory that never is.
#[derive(Debug)]
pub(crate) struct Own(NonNull<u8>);

// SAFETY: raw pages belong to no thread.
unsafe impl Send for Own {}

impl Drop for Own {
    fn drop(&mut self) {
        // SAFETY: our pages and what is reserved behind them; nobody else has their address.
        unsafe { libc::munmap(self.0.as_ptr().cast(), OWN + GUARD) };
    }
}

impl Own {
    pub(crate) fn new() -> std::io::Result<Self> {
        reserve(OWN, libc::PROT_READ | libc::PROT_WRITE).map(Self)
    }

    /// Address of byte `at`.
    pub(crate) fn address(&self, at: usize) -> Address {
        assert!(at <= OWN);
        Address(self.0.as_ptr() as usize + at)
    }

    /// Copies `bytes` to `at`.
    pub(crate) fn put(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= OWN);
        // SAFETY: inside our pages, which stay, and in which no Rust value lives.
        unsafe {
            self.0
                .as_ptr()
                .add(at)
                .copy_from_nonoverlapping(bytes.as_ptr(), bytes.len())
        };
    }

    /// Fills `length` bytes from `at` on.
    pub(crate) fn fill(&self, at: usize, length: usize, byte: u8) {
        assert!(at + length <= OWN);
        // SAFETY: as above.
        unsafe { self.0.as_ptr().add(at).write_bytes(byte, length) };
    }

    /// Copies from `at`.
    pub(crate) fn get<const N: usize>(&self, at: usize) -> [u8; N] {
        assert!(at + N <= OWN);
        let mut bytes = [0; N];
        // SAFETY: as above.
        unsafe {
            bytes
                .as_mut_ptr()
                .copy_from_nonoverlapping(self.0.as_ptr().add(at), N)
        };
        bytes
    }
}

/// Where the arena of this process begins, for the signal handler; 0 before there is one.
static ARENA_AT: AtomicUsize = AtomicUsize::new(0);
/// SIGBUS and SIGSEGV that loads and stores in the arena have raised.
static SIGNALS: [AtomicU64; 2] = [AtomicU64::new(0), AtomicU64::new(0)];

/// Bytes of a part of an arena, in which SIGBUS is counted apart.
pub(crate) const PART: usize = 64 * PAGE;
/// SIGBUS in each part.
static BUS_ERRORS: [AtomicU64; ARENA / PART] = [const { AtomicU64::new(0) }; ARENA / PART];

/// How many SIGBUS there were in the part of the arena that byte `at` is in.
pub(crate) fn bus_errors_at(at: usize) -> u64 {
    BUS_ERRORS[at / PART].load(Ordering::Relaxed)
}

/// How many SIGBUS and SIGSEGV there were.
pub(crate) fn signals() -> [u64; 2] {
    [0, 1].map(|index: usize| SIGNALS[index].load(Ordering::Relaxed))
}

/// Memory of the process in which anything may be mapped and unmapped at any time.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arena(usize);

impl Arena {
    /// Makes the arena of this process, with handlers that let a load or store in it go on
    /// whatever is there: one that faults finds ordinary memory when it is repeated.
    pub(crate) fn new() -> std::io::Result<Self> {
        let base = reserve(ARENA, libc::PROT_NONE)?.as_ptr() as usize;
        ARENA_AT.store(base, Ordering::Relaxed);
        let repair: extern "C" fn(i32, *mut libc::siginfo_t, *mut libc::c_void) = repair;
        handle(
            libc::SIGBUS,
            repair as usize,
            libc::SA_SIGINFO | libc::SA_NODEFER,
        );
        handle(
            libc::SIGSEGV,
            repair as usize,
            libc::SA_SIGINFO | libc::SA_NODEFER,
        );
        Ok(Self(base))
    }

    /// Address of byte `at`, which may be up to the end.
    pub(crate) fn address(self, at: usize) -> Address {
        assert!(at <= ARENA);
        Address(self.0 + at)
    }

    fn range(self, at: usize, length: usize) -> usize {
        assert!(at + length <= ARENA);
        self.0 + at
    }

    /// mmap of `length` bytes at `at`, in place of what is there.
    pub(crate) fn map(
        self,
        at: usize,
        length: usize,
        rights: i32,
        flags: i32,
        fd: i32,
        offset: u64,
    ) -> Raw {
        let base = self.range(at, length);
        // SAFETY: replaces memory of the arena only.
        let result = raw(unsafe {
            libc::syscall(
                libc::SYS_mmap,
                base,
                length,
                rights,
                flags | libc::MAP_FIXED,
                fd,
                offset,
            )
        });
        if result < 0 {
            self.reserve_hole(at, length);
        }
        result
    }

    pub(crate) fn unmap(self, at: usize, length: usize) -> Raw {
        // Reserved again, so that nothing else comes to lie there.
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        self.map(at, length, libc::PROT_NONE, flags, -1, 0)
    }

    pub(crate) fn protect(self, at: usize, length: usize, rights: i32) -> Raw {
        let base = self.range(at, length);
        // SAFETY: memory of the arena only.
        raw(unsafe { libc::syscall(libc::SYS_mprotect, base, length, rights) })
    }

    pub(crate) fn remap(self, from: usize, old: usize, to: usize, new: usize) -> Raw {
        let (base, target) = (self.range(from, old), self.range(to, new));
        let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
        // SAFETY: moves memory of the arena within the arena.
        let result = raw(unsafe { libc::syscall(libc::SYS_mremap, base, old, new, flags, target) });
        self.reserve_hole(from, old);
        self.reserve_hole(to, new);
        result
    }

    /// Reserves what a call may have left unmapped of a range. Nothing else maps memory while
    /// operations run, so nothing has come to lie there meanwhile.
    fn reserve_hole(self, at: usize, length: usize) {
        let flags = libc::MAP_PRIVATE
            | libc::MAP_ANONYMOUS
            | libc::MAP_NORESERVE
            | libc::MAP_FIXED_NOREPLACE;
        let (mut base, mut step) = (self.0 + at, length);
        let end = base + length;
        while base < end {
            // SAFETY: replaces nothing.
            let done =
                unsafe { libc::syscall(libc::SYS_mmap, base, step, libc::PROT_NONE, flags, -1, 0) };
            if done < 0 && step > PAGE {
                // Something is there: page by page.
                step = PAGE;
            } else {
                base += step;
            }
        }
    }

    pub(crate) fn advise(self, at: usize, length: usize, advice: i32) -> Raw {
        let base = self.range(at, length);
        // SAFETY: memory of the arena only.
        raw(unsafe { libc::syscall(libc::SYS_madvise, base, length, advice) })
    }

    pub(crate) fn sync(self, at: usize, length: usize, flags: i32) -> Raw {
        let base = self.range(at, length);
        // SAFETY: changes no memory.
        raw(unsafe { libc::syscall(libc::SYS_msync, base, length, flags) })
    }

    /// Loads a word, whatever is there.
    pub(crate) fn load(self, at: usize) -> u32 {
        let pointer = self.range(at & !3, 4) as *const u32;
        // SAFETY: in the arena, where no Rust value lives; the handlers let it go on if nothing is there.
        unsafe { pointer.read_volatile() }
    }

    /// Stores a word, whatever is there.
    pub(crate) fn store(self, at: usize, value: u32) {
        let pointer = self.range(at & !3, 4) as *mut u32;
        // SAFETY: as above.
        unsafe { pointer.write_volatile(value) };
    }
}

/// Puts ordinary memory where a load or store found none.
extern "C" fn repair(signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the kernel hands over the signal's information, which has an address for these two.
    let address = unsafe { (*info).si_addr() } as usize;
    let base = ARENA_AT.load(Ordering::Relaxed);
    if base == 0 || !(base..base + ARENA).contains(&address) {
        // A fault of this program: die of it when the instruction is repeated.
        // SAFETY: allowed in a handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
        return;
    }
    SIGNALS[usize::from(signal == libc::SIGSEGV)].fetch_add(1, Ordering::Relaxed);
    if signal == libc::SIGBUS {
        BUS_ERRORS[(address - base) / PART].fetch_add(1, Ordering::Relaxed);
    }
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a page of the arena; the call itself is allowed in a handler.
    unsafe {
        libc::syscall(
            libc::SYS_mmap,
            address & !(PAGE - 1),
            PAGE,
            rights,
            flags,
            -1,
            0,
        )
    };
}

fn handle(signal: i32, handler: usize, flags: i32) {
    // SAFETY: `sigaction` may be zero, and the handlers do what is allowed in one.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler;
        action.sa_flags = flags;
        assert_eq!(libc::sigaction(signal, &action, null_mut()), 0);
    }
}

/// The signal that ends waits.
pub(crate) const WAKE: i32 = libc::SIGUSR1;

/// Lets [`WAKE`] end a system call, and nothing else.
pub(crate) fn handle_wake() {
    extern "C" fn nothing(_: i32) {}
    let nothing: extern "C" fn(i32) = nothing;
    handle(WAKE, nothing as usize, 0);
}

/// Runs `work` in a forked child, which has this thread only, and waits for its end: its wait status.
///
/// `work` must make system calls only: other threads may hold locks of the library.
pub(crate) fn fork(work: impl FnOnce()) -> Raw {
    // SAFETY: the child makes only system calls, on a copy of this stack, and ends.
    let child = raw(unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) });
    if child < 0 {
        return child;
    }
    if child == 0 {
        work();
        // SAFETY: ends the child.
        unsafe { libc::syscall(libc::SYS_exit_group, 0) };
    }
    let mut status = 0i32;
    loop {
        // SAFETY: stores one integer.
        let waited = raw(unsafe { libc::syscall(libc::SYS_wait4, child, &raw mut status, 0, 0) });
        if waited != -Raw::from(libc::EINTR) {
            return if waited < 0 { waited } else { status.into() };
        }
    }
}

/// Words that processes share.
#[derive(Debug)]
pub(crate) struct Shared {
    base: NonNull<AtomicU64>,
    count: usize,
}

// SAFETY: atomics may be used from everywhere, and the mapping stays.
unsafe impl Send for Shared {}
// SAFETY: as above.
unsafe impl Sync for Shared {}

impl Shared {
    /// Makes the file `path` of `count` words, all 0, and maps it.
    pub(crate) fn create(path: &str, count: usize) -> std::io::Result<Self> {
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.set_len(count as u64 * 8)?;
        Self::map(&file, count)
    }

    /// Maps `count` words of `file`, which must be that long and stay so. Never unmapped.
    pub(crate) fn map(file: &File, count: usize) -> std::io::Result<Self> {
        if file.metadata()?.len() < count as u64 * 8 {
            return Err(std::io::Error::other("the file is too short"));
        }
        let (length, rights) = (count * 8, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: new memory at no fixed place.
        let base = unsafe {
            libc::mmap(
                null_mut(),
                length,
                rights,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                0,
            )
        };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| std::io::Error::other("memory at 0"))?;
        Ok(Self { base, count })
    }

    /// The words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: mapped for ever, aligned, and any bytes are an `AtomicU64`.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.count) }
    }
}

/// Nanoseconds of CLOCK_MONOTONIC.
pub(crate) fn now() -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: stores one structure.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}
