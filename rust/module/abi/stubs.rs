// SPDX-License-Identifier: GPL-2.0

//! Mirror of `stubs.h`. The linker does not compare signatures: keep the two equal.

use kernel::bindings;

// The types are those of the bindings, which have C's layout although not all of them look so.
#[expect(improper_ctypes)]
extern "C" {
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
}
