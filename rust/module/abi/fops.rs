// SPDX-License-Identifier: GPL-2.0

//! File operations as a trait. The callbacks here are thin: they borrow what belongs to the file and
//! call one safe method.

use super::{
    chrdev,
    stubs,
    sysfs::Groups,
    vma::{
        Fault,
        FaultResult,
        Mappings,
        NewMapping,
        Space, //
    },
    wait::PollTable, //
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    error::from_result,
    fs::{
        file::flags::O_NONBLOCK,
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    mm::virt::VmaNew,
    module::this_module,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable, //
};

/// How a file is open.
pub(crate) trait OpenMode {
    /// For reading, or reading and writing.
    fn is_readable(&self) -> bool;
    /// For writing, or reading and writing.
    fn is_writable(&self) -> bool;
    /// Its calls do not wait.
    fn is_nonblocking(&self) -> bool;
}

impl OpenMode for File {
    fn is_readable(&self) -> bool {
        // SAFETY: The file is borrowed; its mode is constant.
        unsafe { stubs::ivshmem_file_is_readable(self.as_ptr()) }
    }

    fn is_writable(&self) -> bool {
        // Not by `O_ACCMODE`, which has a fourth value that allows neither.
        // SAFETY: The file is borrowed; its mode is constant.
        unsafe { stubs::ivshmem_file_is_writable(self.as_ptr()) }
    }

    fn is_nonblocking(&self) -> bool {
        self.flags() & O_NONBLOCK != 0
    }
}

/// Poll bits, in the kernel's own numbers.
pub(crate) mod poll {
    use kernel::bindings;

    /// There is something to read.
    pub(crate) const IN: u32 = bindings::POLLIN | bindings::POLLRDNORM;
    /// There is something of priority.
    pub(crate) const PRI: u32 = bindings::POLLPRI;
    /// There is room to write.
    pub(crate) const OUT: u32 = bindings::POLLOUT | bindings::POLLWRNORM;
    /// The other end will send nothing more.
    pub(crate) const RDHUP: u32 = bindings::POLLRDHUP;
    /// The other end has gone.
    pub(crate) const GONE: u32 = bindings::POLLHUP | bindings::POLLERR;
}

/// An open file.
///
/// Reads and writes must not wait for events: the file is marked as one that io_uring may call
/// directly.
pub(crate) trait Operations: Send + Sync + Sized + 'static {
    /// What all files of a device share.
    type Device: Send + Sync + 'static;

    /// Opens a file of `device`.
    fn open(device: &Arc<Self::Device>) -> Result<Arc<Self>>;

    /// What stands in sysfs about a device.
    fn attributes() -> Groups<Self>;

    /// Writes what is worth knowing of the file, for /proc/PID/fdinfo.
    fn fdinfo(&self, file: &File, to: &SeqFile);

    /// The last descriptor of the file has been closed.
    fn release(&self);

    /// The address spaces of all open files of `device`.
    fn mappings(device: &Self::Device) -> &Mappings;

    /// The device that was opened.
    fn device(&self) -> &Self::Device;

    /// Reads at `position` and moves it on. Returns the number of bytes, 0 at the end.
    fn read(&self, position: &mut i64, to: &mut IovIterDest<'_>) -> Result<usize>;

    /// Writes at `position` and moves it on. Returns the number of bytes.
    fn write(&self, position: &mut i64, from: &mut IovIterSource<'_>) -> Result<usize>;

    /// Size of the file, for seeking.
    fn size(&self) -> Result<u64>;

    /// Registers for wake-ups, then says what is there. Consumes nothing.
    fn poll(&self, file: &File, table: &PollTable) -> u32;

    /// An ioctl with number `command` and argument `argument`.
    fn ioctl(&self, file: &File, command: u32, argument: usize) -> Result<isize>;

    /// Whether `mapping` may be made.
    fn mmap(&self, mapping: &NewMapping<'_>) -> Result;

    /// There is another mapping like one that was made, of which this may be a part, or one less.
    fn mapping_changed(&self, offset: u64, writable: bool, more: bool);

    /// A page of a mapping has been touched.
    fn fault(&self, fault: Fault) -> FaultResult;
}

/// The operations of `T` as the kernel wants them.
pub(super) struct Table<T>(PhantomData<T>);

impl<T: Operations> Table<T> {
    pub(super) const TABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<crate::LocalModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: Some(Self::llseek),
        read_iter: Some(Self::read_iter),
        write_iter: Some(Self::write_iter),
        poll: Some(Self::poll),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        mmap: Some(Self::mmap),
        show_fdinfo: Some(Self::show_fdinfo),
        ..pin_init::zeroed()
    };

    /// What [`Self::open`] has put into `file`.
    ///
    /// # Safety
    ///
    /// `file` must be open with this table, and stay so for `'a`.
    unsafe fn of<'a>(file: *mut bindings::file) -> ArcBorrow<'a, T> {
        // SAFETY: `open` has put an `Arc<T>` there, and nothing changes it before `release`.
        unsafe { Arc::borrow((*file).private_data) }
    }

    /// `file` for the duration of a callback.
    ///
    /// # Safety
    ///
    /// `file` must be open, and stay so for `'a`.
    unsafe fn file<'a>(file: *mut bindings::file) -> &'a File {
        // SAFETY: By the function's contract. Only its flags, its mode and its address are used:
        // no position, which another thread might be using without a lock.
        unsafe { File::from_raw_file(file) }
    }

    /// # Safety
    ///
    /// Called by the kernel with the inode of a node of `T`.
    unsafe extern "C" fn open(inode: *mut bindings::inode, raw: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: `chrdev_open` has found our node in the inode, and holds a reference to it.
            let device = unsafe { chrdev::device_of::<T>(inode) };
            // SAFETY: The file is being opened, and `release` removes it from the mappings.
            let space = unsafe { Space::of(raw) }.ok_or(ENODEV)?;

            let open = T::open(&device)?;
            T::mappings(&device).add(space)?;
            // SAFETY: The file is being opened: nobody else uses it yet.
            unsafe {
                (*raw).private_data = open.into_foreign();
                stubs::ivshmem_file_set_nowait(raw);
            }
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the kernel once for each successful [`Self::open`].
    unsafe extern "C" fn release(_inode: *mut bindings::inode, raw: *mut bindings::file) -> c_int {
        // SAFETY: `open` has put it there, and nobody borrows it any more.
        let open = unsafe { Arc::<T>::from_foreign((*raw).private_data) };
        // SAFETY: The file is being released, and the value is not kept.
        if let Some(space) = unsafe { Space::of(raw) } {
            T::mappings(open.device()).remove(&space);
        }
        open.release();
        0
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file.
    unsafe extern "C" fn llseek(
        raw: *mut bindings::file,
        offset: bindings::loff_t,
        whence: c_int,
    ) -> bindings::loff_t {
        // SAFETY: As the caller says.
        let open = unsafe { Self::of(raw) };
        let size = open.size().and_then(|size| Ok(i64::try_from(size)?));
        match size {
            // SAFETY: As the caller says.
            Ok(size) => unsafe { bindings::fixed_size_llseek(raw, offset, whence, size) },
            Err(error) => error.to_errno().into(),
        }
    }

    /// # Safety
    ///
    /// Called by the kernel with a request for an open file.
    unsafe extern "C" fn read_iter(
        raw: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As the caller says; the private data is an `Arc<T>`.
        let mut request = unsafe { Kiocb::<Arc<T>>::from_raw(raw) };
        // SAFETY: As the caller says; the iterator of a read is a destination.
        let iter = unsafe { IovIterDest::from_raw(iter) };
        from_result(|| {
            let done = request.file().read(request.ki_pos_mut(), iter)?;
            Ok(isize::try_from(done)?)
        })
    }

    /// # Safety
    ///
    /// Called by the kernel with a request for an open file.
    unsafe extern "C" fn write_iter(
        raw: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As the caller says; the private data is an `Arc<T>`.
        let mut request = unsafe { Kiocb::<Arc<T>>::from_raw(raw) };
        // SAFETY: As the caller says; the iterator of a write is a source.
        let iter = unsafe { IovIterSource::from_raw(iter) };
        from_result(|| {
            let done = request.file().write(request.ki_pos_mut(), iter)?;
            Ok(isize::try_from(done)?)
        })
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file and a table that is valid for the call.
    unsafe extern "C" fn poll(
        raw: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: As the caller says.
        let (open, file) = unsafe { (Self::of(raw), Self::file(raw)) };
        // SAFETY: As the caller says.
        open.poll(file, &unsafe { PollTable::from_raw(table) })
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file.
    unsafe extern "C" fn ioctl(
        raw: *mut bindings::file,
        command: c_uint,
        argument: c_ulong,
    ) -> c_long {
        // SAFETY: As the caller says.
        let (open, file) = unsafe { (Self::of(raw), Self::file(raw)) };
        from_result(|| open.ioctl(file, command, argument))
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file and a mapping that is being made.
    unsafe extern "C" fn mmap(
        raw: *mut bindings::file,
        vma: *mut bindings::vm_area_struct,
    ) -> c_int {
        // SAFETY: As the caller says.
        let open = unsafe { Self::of(raw) };
        // SAFETY: As the caller says.
        let mapping = NewMapping::new(unsafe { VmaNew::from_raw(vma) });
        from_result(|| {
            open.mmap(&mapping)?;
            mapping.accept::<T>()?;
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file, and a sequence file that is its own for the call.
    unsafe extern "C" fn show_fdinfo(seq: *mut bindings::seq_file, raw: *mut bindings::file) {
        // SAFETY: As the caller says.
        let (open, file) = unsafe { (Self::of(raw), Self::file(raw)) };
        // SAFETY: As the caller says.
        open.fdinfo(file, unsafe { SeqFile::from_raw(seq) });
    }
}
