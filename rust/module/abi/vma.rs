// SPDX-License-Identifier: GPL-2.0

//! Mappings of shared memory into programs.
//!
//! A mapping is made empty. Its pages come with the faults, as long as the device is there;
//! [`Mappings::zap`] takes them away again, and faults after that get SIGBUS. Filling it at once
//! would race with that: a mapping cannot be found by others before `mmap` has returned.

use super::{
    fops::Operations,
    memory::Frame,
    stubs, //
};
use core::ptr::NonNull;
use kernel::{
    bindings,
    mm::virt::{
        VmaNew,
        VmaRef, //
    },
    page::PAGE_SHIFT,
    prelude::*,
    sync::{
        new_mutex,
        Arc,
        ArcBorrow,
        Mutex, //
    },
    types::ForeignOwnable, //
};

/// A mapping that a program asks for.
pub(crate) struct NewMapping<'a> {
    vma: &'a VmaNew,
}

impl<'a> NewMapping<'a> {
    pub(super) fn new(vma: &'a VmaNew) -> Self {
        Self { vma }
    }

    /// Offset of its first byte in the file.
    ///
    /// The kernel has checked that offset and length together fit 64 bits.
    pub(crate) fn offset(&self) -> u64 {
        // SAFETY: The mapping is being made, so nobody else changes it.
        let pages = unsafe { (*self.vma.as_ptr()).vm_pgoff };
        (pages as u64) << PAGE_SHIFT
    }

    /// Its length in bytes, not 0.
    pub(crate) fn len(&self) -> u64 {
        (self.vma.end() - self.vma.start()) as u64
    }

    /// Whether it was asked for with `MAP_SHARED`.
    pub(crate) fn is_shared(&self) -> bool {
        // `VM_SHARED` is not set where the file is open for reading only.
        self.vma.flags() & bindings::VM_MAYSHARE != 0
    }

    /// Whether the program wants to write through it.
    pub(crate) fn is_writable(&self) -> bool {
        self.vma.writable()
    }

    /// Whether the program wants to execute from it.
    pub(crate) fn is_executable(&self) -> bool {
        self.vma.executable()
    }

    /// Accepts it. What is not writable now can never become so, and nothing executable.
    ///
    /// # Errors
    ///
    /// `EINVAL` if it is executable.
    pub(super) fn accept<T: Operations>(self) -> Result {
        self.vma.try_clear_mayexec()?;
        if !self.is_writable() {
            self.vma.try_clear_maywrite()?;
        }
        // SAFETY: The mapping is being made, and the operations live as long as the module, which
        // the open file keeps loaded.
        unsafe { stubs::ivshmem_vma_set_pfnmap(self.vma.as_ptr(), &VmOperations::<T>::OPERATIONS) };
        Ok(())
    }
}

/// Page of a mapping that a program has touched.
pub(crate) struct Fault {
    raw: NonNull<bindings::vm_fault>,
}

/// What became of a fault.
pub(crate) struct FaultResult(bindings::vm_fault_t);

impl FaultResult {
    /// The program gets SIGBUS.
    pub(crate) const SIGBUS: Self = Self(bindings::vm_fault_reason_VM_FAULT_SIGBUS);

    /// Whether the page is in the mapping now.
    pub(crate) fn is_mapped(&self) -> bool {
        self.0 == bindings::vm_fault_reason_VM_FAULT_NOPAGE
    }
}

impl Fault {
    /// Offset of the page in the file.
    pub(crate) fn offset(&self) -> u64 {
        // SAFETY: The fault is being handled, which keeps it valid. That the shift does not
        // overflow was checked when the mapping was made.
        let page = unsafe { self.raw.as_ref().__bindgen_anon_1.pgoff };
        (page as u64) << PAGE_SHIFT
    }

    /// Whether the program may write through the mapping.
    pub(crate) fn is_writable(&self) -> bool {
        // SAFETY: The fault is being handled, which keeps its mapping valid.
        let vma = unsafe { VmaRef::from_raw(self.raw.as_ref().__bindgen_anon_1.vma) };
        vma.flags() & bindings::VM_WRITE != 0
    }

    /// Shows the program `frame` in that page.
    ///
    /// The caller makes sure that the frame is not taken away meanwhile. May sleep.
    pub(crate) fn insert(self, frame: Frame) -> FaultResult {
        // SAFETY: The fault is being handled, which keeps it and its mapping valid. The mapping
        // is one of page frames (`NewMapping::accept`), shared, and the address is within it.
        FaultResult(unsafe {
            let at = &self.raw.as_ref().__bindgen_anon_1;
            bindings::vmf_insert_pfn(at.vma, at.address, frame.0)
        })
    }
}

struct VmOperations<T>(core::marker::PhantomData<T>);

impl<T: Operations> VmOperations<T> {
    const OPERATIONS: bindings::vm_operations_struct = bindings::vm_operations_struct {
        open: Some(Self::open),
        close: Some(Self::close),
        fault: Some(Self::fault),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by the kernel for a mapping that has become two, in this process or by a fork.
    unsafe extern "C" fn open(vma: *mut bindings::vm_area_struct) {
        // SAFETY: As the caller says.
        unsafe { Self::changed(vma, true) };
    }

    /// # Safety
    ///
    /// Called by the kernel for a mapping that goes.
    unsafe extern "C" fn close(vma: *mut bindings::vm_area_struct) {
        // SAFETY: As the caller says.
        unsafe { Self::changed(vma, false) };
    }

    /// # Safety
    ///
    /// `vma` must be a mapping made by [`NewMapping::accept`] of the same `T`, for the duration of the call.
    unsafe fn changed(vma: *mut bindings::vm_area_struct, more: bool) {
        // SAFETY: The mapping keeps its file open, and the file's private data is an `Arc<T>`. Whether it may be
        // written to never changes once it is made.
        let (open, flags, page): (ArcBorrow<'_, T>, _, _) = unsafe {
            (
                Arc::borrow((*(*vma).vm_file).private_data),
                VmaRef::from_raw(vma).flags(),
                (*vma).vm_pgoff,
            )
        };
        let writable = flags & bindings::VM_MAYWRITE != 0;
        open.mapping_changed((page as u64) << PAGE_SHIFT, writable, more);
    }

    /// # Safety
    ///
    /// Called by the kernel for a mapping made by [`NewMapping::accept`] of the same `T`.
    unsafe extern "C" fn fault(fault: *mut bindings::vm_fault) -> bindings::vm_fault_t {
        let Some(raw) = NonNull::new(fault) else {
            return FaultResult::SIGBUS.0;
        };
        // SAFETY: The mapping keeps its file open, and the file's private data is an `Arc<T>`.
        let open: ArcBorrow<'_, T> = unsafe {
            let file = (*raw.as_ref().__bindgen_anon_1.vma).vm_file;
            Arc::borrow((*file).private_data)
        };
        open.fault(Fault { raw }).0
    }
}

/// An address space to which mappings of a file belong.
///
/// # Invariants
///
/// Valid as long as the file that it was taken from is open, or another one of the same inode.
#[derive(PartialEq, Eq)]
pub(super) struct Space(NonNull<bindings::address_space>);

impl Space {
    /// That of `file`; [`None`] never happens for a file that is open.
    ///
    /// # Safety
    ///
    /// `file` must be open, being opened or being released, and the value must not be used after
    /// that.
    pub(super) unsafe fn of(file: *mut bindings::file) -> Option<Self> {
        // SAFETY: By the function's contract; the field is set before `open` is called.
        // INVARIANT: As the caller says.
        NonNull::new(unsafe { (*file).f_mapping }).map(Self)
    }
}

// SAFETY: An `address_space` belongs to no thread.
unsafe impl Send for Space {}

/// The address spaces of all open files of a device, so that their mappings can be found.
///
/// A character device can have several inodes, each with an address space of its own; but there are as many of
/// these as somebody with the right to has made, and not as many as files.
#[pin_data]
pub(crate) struct Mappings {
    /// With the number of files of each.
    #[pin]
    spaces: Mutex<KVec<(Space, usize)>>,
}

impl Mappings {
    /// No files.
    pub(crate) fn new() -> impl PinInit<Self> {
        pin_init!(Self {
            spaces <- new_mutex!(KVec::new(), "ivshmem_mappings"),
        })
    }

    /// Takes notice of a file that is being opened. [`Self::remove`] follows when it is released.
    pub(super) fn add(&self, space: Space) -> Result {
        let mut spaces = self.spaces.lock();
        match spaces.iter_mut().find(|(other, _)| *other == space) {
            Some((_, files)) => *files += 1,
            None => spaces.push((space, 1), GFP_KERNEL)?,
        }
        Ok(())
    }

    /// Forgets a file that is being released: it has no mappings any more.
    pub(super) fn remove(&self, space: &Space) {
        let mut spaces = self.spaces.lock();
        let Some(index) = spaces.iter().position(|(other, _)| other == space) else {
            return;
        };
        let files = &mut spaces[index].1;
        *files -= 1;
        if *files == 0 {
            let _ = spaces.remove(index);
        }
    }

    /// Takes all pages out of all mappings. Waits for nobody.
    ///
    /// The caller has made sure that faults insert no more.
    pub(crate) fn zap(&self) {
        for (space, _) in self.spaces.lock().iter() {
            // SAFETY: By the invariant the address space is valid: a file of it is open, since `remove` would
            // wait for the lock. 0, 0 means all of it.
            unsafe { bindings::unmap_mapping_range(space.0.as_ptr(), 0, 0, 1) };
        }
    }
}
