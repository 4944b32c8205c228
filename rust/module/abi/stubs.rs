// SPDX-License-Identifier: GPL-2.0

//! Mirror of `stubs.h`. The linker does not compare signatures: keep the two equal.

use kernel::{
    bindings,
    ffi::{
        c_char,
        c_void, //
    },
};

// The types are those of the bindings, which have C's layout although not all of them look so.
// SAFETY: These are the signatures of `stubs.h`. What is safe has no preconditions.
#[expect(improper_ctypes)]
unsafe extern "C" {
    /// Marks a new mapping as one of page frames without `struct page`, with `ops`.
    pub(super) fn ivshmem_vma_set_pfnmap(
        vma: *mut bindings::vm_area_struct,
        ops: *const bindings::vm_operations_struct,
    );

    /// Says that reads and writes of `file` do not wait, and that io_uring may call them directly.
    pub(super) fn ivshmem_file_set_nowait(file: *mut bindings::file);

    /// Whether `file` is open for reading.
    pub(super) fn ivshmem_file_is_readable(file: *const bindings::file) -> bool;

    /// Whether `file` is open for writing.
    pub(super) fn ivshmem_file_is_writable(file: *const bindings::file) -> bool;

    /// The character device of an inode.
    pub(super) fn ivshmem_inode_cdev(inode: *const bindings::inode) -> *mut bindings::cdev;

    /// A file that is in no file system, for reading and writing, or an error pointer.
    pub(super) fn ivshmem_anon_file(
        name: *const c_char,
        fops: *const bindings::file_operations,
        private: *mut c_void,
    ) -> *mut bindings::file;

    /// Whether a request must not wait.
    pub(super) fn ivshmem_kiocb_is_nowait(kiocb: *const bindings::kiocb) -> bool;

    /// From now on copies from and to this program stop at a page that is not there.
    pub(super) safe fn ivshmem_pagefault_disable();

    /// Ends that. Calls nest.
    pub(super) safe fn ivshmem_pagefault_enable();

    /// A full barrier, against CPUs of other machines as well.
    pub(super) safe fn ivshmem_virt_mb();

    /// Likewise between loads.
    pub(super) safe fn ivshmem_virt_rmb();

    /// Likewise between stores.
    pub(super) safe fn ivshmem_virt_wmb();
}
