// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory whose pages do not come until a program says so: userfaultfd(2).

use super::{mmap, outcome, Map};
use linux_raw_sys::general::{uffdio_api, uffdio_range, uffdio_register, uffdio_zeropage};
use linux_raw_sys::general::{UFFDIO_REGISTER_MODE_MISSING, UFFD_EVENT_PAGEFAULT};
use linux_raw_sys::ioctl::{UFFDIO_API, UFFDIO_REGISTER, UFFDIO_ZEROPAGE};
use rustix::event::{poll, PollFd, PollFlags, Timespec};
use rustix::mm::UserfaultfdFlags;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

/// The version of the interface.
const API: u64 = 0xaa;

/// Two pages, of which the second does not come. Whoever touches it, also the kernel for a system
/// call, waits for [`Self::resolve`].
#[derive(Debug)]
pub(crate) struct Unresolved {
    fd: OwnedFd,
    map: Map,
    page: usize,
}

impl Unresolved {
    pub(crate) fn new() -> Self {
        let page = rustix::param::page_size();
        let rights = libc::PROT_READ | libc::PROT_WRITE;
        let map = mmap(None, 0, 2 * page, rights, libc::MAP_PRIVATE).expect("memory");
        map.store(0, 0);
        // SAFETY: what is done with it concerns our own mapping only.
        let fd = unsafe {
            rustix::mm::userfaultfd(UserfaultfdFlags::CLOEXEC | UserfaultfdFlags::NONBLOCK)
        };
        let memory = Self {
            fd: fd.expect("userfaultfd"),
            map,
            page,
        };
        memory.call(
            UFFDIO_API,
            &mut uffdio_api {
                api: API,
                features: 0,
                ioctls: 0,
            },
        );
        memory.call(
            UFFDIO_REGISTER,
            &mut uffdio_register {
                range: memory.range(),
                mode: UFFDIO_REGISTER_MODE_MISSING.into(),
                ioctls: 0,
            },
        );
        memory
    }

    /// The pages. The first is there.
    pub(crate) fn map(&self) -> &Map {
        &self.map
    }

    /// Where the second page begins.
    pub(crate) fn missing(&self) -> usize {
        self.page
    }

    /// Waits until somebody waits for the second page; false if nobody does within `limit`.
    pub(crate) fn somebody_waits(&self, limit: Duration) -> bool {
        let mut fds = [PollFd::new(&self.fd, PollFlags::IN)];
        let limit = Timespec::try_from(limit).expect("a limit");
        if poll(&mut fds, Some(&limit)).expect("poll") == 0 {
            return false;
        }
        // struct uffd_msg: the kind, and much that is not needed here.
        let mut message = [0; 32];
        assert_eq!(rustix::io::read(&self.fd, &mut message), Ok(32));
        u32::from(message[0]) == UFFD_EVENT_PAGEFAULT
    }

    /// Lets the second page come, with zeroes.
    pub(crate) fn resolve(&self) {
        self.call(
            UFFDIO_ZEROPAGE,
            &mut uffdio_zeropage {
                range: self.range(),
                mode: 0,
                zeropage: 0,
            },
        );
    }

    fn range(&self) -> uffdio_range {
        uffdio_range {
            start: self.map.address() + self.page as u64,
            len: self.page as u64,
        }
    }

    fn call<T>(&self, number: u32, argument: &mut T) {
        let fd = self.fd.as_raw_fd();
        // SAFETY: the structure is the one that belongs to the number, and the range in it is ours:
        // memory without references, of which pages come and never go.
        let result = outcome(unsafe { libc::ioctl(fd, number as _, argument as *mut T) } as isize);
        result.expect("an ioctl of userfaultfd");
    }
}
