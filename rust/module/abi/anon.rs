// SPDX-License-Identifier: GPL-2.0

//! Files that have no name: a descriptor is all there is of them. They are streams, without a position.

use super::{
    fops::OpenMode,
    stubs,
    wait::{
        Deadline,
        PollTable, //
    },
};
use core::{
    marker::PhantomData,
    ptr::NonNull, //
};
use kernel::{
    bindings,
    error::{
        from_err_ptr,
        from_result, //
    },
    fs::{
        file::{
            flags::O_CLOEXEC,
            flags::O_NONBLOCK,
            FileDescriptorReservation, //
        },
        File,
        Kiocb, //
    },
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    module::this_module,
    prelude::*,
    seq_file::SeqFile,
    sync::{
        aref::ARef,
        Arc,
        ArcBorrow, //
    },
    types::ForeignOwnable, //
};

/// What a call may do until it can be carried out.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Wait.
    Wait,
    /// Not wait for events. It may wait for memory of the program.
    Nonblocking,
    /// Not wait at all.
    NoWait,
}

impl Patience {
    /// Until when it may wait for events.
    pub(crate) fn deadline(self) -> Deadline {
        match self {
            Self::Wait => Deadline::Never,
            Self::Nonblocking | Self::NoWait => Deadline::Now,
        }
    }
}

/// A stream behind a descriptor.
pub(crate) trait Stream: Send + Sync + Sized + 'static {
    /// What /proc/PID/fd says of it.
    const NAME: &'static CStr;

    /// The last descriptor has been closed, or there never was one.
    fn release(&self);

    /// Reads.
    fn read(&self, patience: Patience, to: &mut IovIterDest<'_>) -> Result<usize>;

    /// Writes.
    fn write(&self, patience: Patience, from: &mut IovIterSource<'_>) -> Result<usize>;

    /// Registers for wake-ups, then says what is there. Consumes nothing.
    fn poll(&self, file: &File, table: &PollTable) -> u32;

    /// An ioctl with number `command` and argument `argument`.
    fn ioctl(&self, file: &File, command: u32, argument: usize) -> Result<isize>;

    /// Waits until everything written has arrived.
    fn sync(&self) -> Result;

    /// Writes what is worth knowing of it, for /proc/PID/fdinfo.
    fn fdinfo(&self, to: &SeqFile);
}

/// A descriptor of this process that is not visible yet: dropped, it is free again.
pub(crate) struct Descriptor(FileDescriptorReservation);

impl Descriptor {
    /// Takes the lowest free one, close-on-exec.
    ///
    /// # Errors
    ///
    /// `EMFILE` if the process may have no more.
    pub(crate) fn reserve() -> Result<Self> {
        Ok(Self(FileDescriptorReservation::get_unused_fd_flags(
            O_CLOEXEC,
        )?))
    }

    /// Opens `stream` as that descriptor, which is the result. If that fails, the stream is released.
    ///
    /// # Errors
    ///
    /// `ENFILE`, `ENOMEM`.
    pub(crate) fn open<T: Stream>(self, stream: Arc<T>, nonblocking: bool) -> Result<isize> {
        let file = match file_of(stream.clone(), nonblocking) {
            Ok(file) => file,
            Err(error) => {
                stream.release();
                return Err(error);
            }
        };
        let number = self.0.reserved_fd();
        self.0.fd_install(file);
        Ok(isize::try_from(number)?)
    }
}

/// A file for `stream`, which it releases.
fn file_of<T: Stream>(stream: Arc<T>, nonblocking: bool) -> Result<ARef<File>> {
    let private = stream.into_foreign();
    // SAFETY: The table lives as long as the module, which the file keeps loaded; its callbacks want an
    // `Arc<T>` as private data.
    let file = from_err_ptr(unsafe {
        stubs::ivshmem_anon_file(T::NAME.as_char_ptr(), &Table::<T>::TABLE, private)
    });
    let file = match file {
        Ok(file) => file,
        Err(error) => {
            // SAFETY: No file has got it.
            drop(unsafe { Arc::<T>::from_foreign(private) });
            return Err(error);
        }
    };
    // SAFETY: The file is ours alone until it is installed; `stream_open` does not look at the inode.
    unsafe {
        bindings::stream_open(core::ptr::null_mut(), file);
        stubs::ivshmem_file_set_nowait(file);
        if nonblocking {
            (*file).f_flags |= O_NONBLOCK;
        }
    }
    let file = NonNull::new(file.cast::<File>()).ok_or(ENFILE)?;
    // SAFETY: The reference is ours, and the file has no position that anybody could use.
    Ok(unsafe { ARef::from_raw(file) })
}

/// The operations of `T` as the kernel wants them.
struct Table<T>(PhantomData<T>);

impl<T: Stream> Table<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<crate::LocalModule>().as_ptr(),
        release: Some(Self::release),
        read_iter: Some(Self::read_iter),
        write_iter: Some(Self::write_iter),
        poll: Some(Self::poll),
        unlocked_ioctl: Some(Self::ioctl),
        compat_ioctl: bindings::compat_ptr_ioctl,
        fsync: Some(Self::fsync),
        show_fdinfo: Some(Self::show_fdinfo),
        ..pin_init::zeroed()
    };

    /// What is behind `file`.
    ///
    /// # Safety
    ///
    /// `file` must be open with this table, and stay so for `'a`.
    unsafe fn of<'a>(file: *mut bindings::file) -> ArcBorrow<'a, T> {
        // SAFETY: `file_of` has put an `Arc<T>` there, and nothing changes it before `release`.
        unsafe { Arc::borrow((*file).private_data) }
    }

    /// `file` for the duration of a callback.
    ///
    /// # Safety
    ///
    /// `file` must be open, and stay so for `'a`.
    unsafe fn file<'a>(file: *mut bindings::file) -> &'a File {
        // SAFETY: By the function's contract. It has no position.
        unsafe { File::from_raw_file(file) }
    }

    /// What `request` may do.
    ///
    /// # Safety
    ///
    /// `request` must be one for an open file.
    unsafe fn patience(request: *mut bindings::kiocb) -> Patience {
        // SAFETY: By the function's contract.
        let (nowait, file) = unsafe {
            (
                stubs::ivshmem_kiocb_is_nowait(request),
                Self::file((*request).ki_filp),
            )
        };
        if nowait {
            Patience::NoWait
        } else if file.is_nonblocking() {
            Patience::Nonblocking
        } else {
            Patience::Wait
        }
    }

    /// # Safety
    ///
    /// Called by the kernel once for each file of [`file_of`].
    unsafe extern "C" fn release(_inode: *mut bindings::inode, raw: *mut bindings::file) -> c_int {
        // SAFETY: `file_of` has put it there, and nobody borrows it any more.
        let stream = unsafe { Arc::<T>::from_foreign((*raw).private_data) };
        stream.release();
        0
    }

    /// # Safety
    ///
    /// Called by the kernel with a request for an open file.
    unsafe extern "C" fn read_iter(
        raw: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As the caller says; the private data is an `Arc<T>`.
        let (request, patience) = unsafe { (Kiocb::<Arc<T>>::from_raw(raw), Self::patience(raw)) };
        // SAFETY: As the caller says; the iterator of a read is a destination.
        let iter = unsafe { IovIterDest::from_raw(iter) };
        from_result(|| Ok(isize::try_from(request.file().read(patience, iter)?)?))
    }

    /// # Safety
    ///
    /// Called by the kernel with a request for an open file.
    unsafe extern "C" fn write_iter(
        raw: *mut bindings::kiocb,
        iter: *mut bindings::iov_iter,
    ) -> isize {
        // SAFETY: As the caller says; the private data is an `Arc<T>`.
        let (request, patience) = unsafe { (Kiocb::<Arc<T>>::from_raw(raw), Self::patience(raw)) };
        // SAFETY: As the caller says; the iterator of a write is a source.
        let iter = unsafe { IovIterSource::from_raw(iter) };
        from_result(|| Ok(isize::try_from(request.file().write(patience, iter)?)?))
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file and a table that is valid for the call.
    unsafe extern "C" fn poll(
        raw: *mut bindings::file,
        table: *mut bindings::poll_table_struct,
    ) -> bindings::__poll_t {
        // SAFETY: As the caller says.
        let (stream, file) = unsafe { (Self::of(raw), Self::file(raw)) };
        // SAFETY: As the caller says.
        stream.poll(file, &unsafe { PollTable::from_raw(table) })
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
        let (stream, file) = unsafe { (Self::of(raw), Self::file(raw)) };
        from_result(|| stream.ioctl(file, command, argument))
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file.
    unsafe extern "C" fn fsync(
        raw: *mut bindings::file,
        _start: bindings::loff_t,
        _end: bindings::loff_t,
        _data_only: c_int,
    ) -> c_int {
        // SAFETY: As the caller says.
        let stream = unsafe { Self::of(raw) };
        from_result(|| stream.sync().map(|()| 0))
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file, and a sequence file that is its own for the call.
    unsafe extern "C" fn show_fdinfo(seq: *mut bindings::seq_file, raw: *mut bindings::file) {
        // SAFETY: As the caller says.
        let stream = unsafe { Self::of(raw) };
        // SAFETY: As the caller says.
        stream.fdinfo(unsafe { SeqFile::from_raw(seq) });
    }
}
