// SPDX-License-Identifier: GPL-2.0

//! The module's directory in debugfs, and one with files in it for each device.
//!
//! `kernel::debugfs` has no place for a directory that all devices of a driver share, and its files keep a
//! directory from going while somebody copies out of them: whose memory never comes would keep the device from
//! going, too. So a file here is written down when it is opened, and what is read of it later is that text, which
//! belongs to the open file.

use core::{
    marker::PhantomData,
    ptr::null_mut, //
};
use kernel::{
    bindings,
    error::from_result,
    fmt,
    module::this_module,
    prelude::*,
    str::CString,
    sync::{
        global_lock,
        Arc, //
    },
    types::ForeignOwnable,
    uaccess::{
        UserPtr,
        UserSlice,
        UserSliceReader, //
    },
};

/// A directory. May be an error pointer, as everywhere in debugfs: then nothing is in it.
struct Dentry(*mut bindings::dentry);

// SAFETY: debugfs has its own locks.
unsafe impl Send for Dentry {}

impl Dentry {
    /// Makes it in `parent`, or at the top.
    fn new(name: &CStr, parent: Option<&Self>) -> Self {
        let parent = parent.map_or(null_mut(), |parent| parent.0);
        // SAFETY: The name is copied, and `parent` is a directory of debugfs, an error or null.
        Self(unsafe { bindings::debugfs_create_dir(name.as_char_ptr(), parent) })
    }
}

impl Drop for Dentry {
    fn drop(&mut self) {
        // SAFETY: `new` has made it, or failed to, and nobody else removes it.
        unsafe { bindings::debugfs_remove(self.0) };
    }
}

global_lock! {
    // SAFETY: `Registration::new` initialises it, and nobody else uses it without one.
    unsafe(uninit) static ROOT: Mutex<Option<Dentry>> = None;
}

/// /sys/kernel/debug/ivshmem.
pub(crate) struct Registration(());

impl Registration {
    /// Makes the directory. The module does this once, before any device is bound, and keeps it
    /// until none is.
    pub(crate) fn new(name: &CStr) -> Self {
        // SAFETY: Called once.
        unsafe { ROOT.init() };
        *ROOT.lock() = Some(Dentry::new(name, None));
        Self(())
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        *ROOT.lock() = None;
    }
}

/// A file that shows something of a `T`.
pub(crate) struct Entry<T: 'static> {
    /// Its name.
    pub(crate) name: &'static CStr,
    /// Writes what it shows, when it is opened. That may sleep, so it holds no spin lock.
    pub(crate) show: fn(&T, &mut fmt::Formatter<'_>) -> fmt::Result,
    /// Does what is written to it, if anything can be.
    pub(crate) write: Option<fn(&T, &mut UserSliceReader) -> Result>,
}

/// What a file is made of.
struct Node<T: 'static> {
    entry: &'static Entry<T>,
    shared: Arc<T>,
}

/// The directory of a device. Dropping it waits for nobody who reads or writes.
pub(super) struct Directory<T: 'static> {
    // Dropped in this order: files, then what they are made of.
    _dentry: Dentry,
    _nodes: KVec<Node<T>>,
}

impl<T: Send + Sync + 'static> Directory<T> {
    /// Makes it, with a file for each of `entries`. Only for a bound device.
    ///
    /// # Errors
    ///
    /// `ENOMEM`. What debugfs has against it is no error, as everywhere.
    pub(super) fn new(
        name: fmt::Arguments<'_>,
        entries: &'static [Entry<T>],
        shared: &Arc<T>,
    ) -> Result<Self> {
        let name = CString::try_from_fmt(name)?;
        let mut nodes = KVec::with_capacity(entries.len(), GFP_KERNEL)?;
        for entry in entries {
            let shared = shared.clone();
            nodes.push(Node { entry, shared }, GFP_KERNEL)?;
        }
        let dentry = Dentry::new(&name, ROOT.lock().as_ref());
        for node in &nodes {
            let mode = if node.entry.write.is_some() {
                0o644
            } else {
                0o444
            };
            // SAFETY: The name is copied. The node stays where it is, as nothing is added to `nodes` any more, until the
            // file has been removed; that waits for `open`, which alone uses it. The table lives as long as the module.
            unsafe {
                bindings::debugfs_create_file_unsafe(
                    node.entry.name.as_char_ptr(),
                    mode,
                    dentry.0,
                    core::ptr::from_ref(node).cast_mut().cast(),
                    &Table::<T>::TABLE,
                )
            };
        }
        Ok(Self {
            _dentry: dentry,
            _nodes: nodes,
        })
    }
}

/// Text that grows.
struct Text(KVVec<u8>);

impl fmt::Write for Text {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let added = self.0.extend_from_slice(text.as_bytes(), GFP_KERNEL);
        added.map_err(|_| fmt::Error)
    }
}

/// What an entry shows of a `T`.
struct Shown<'a, T: 'static>(&'a Node<T>);

impl<T> core::fmt::Display for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (self.0.entry.show)(&self.0.shared, f)
    }
}

/// An open file.
struct Opened<T: 'static> {
    entry: &'static Entry<T>,
    shared: Arc<T>,
    text: KVVec<u8>,
}

impl<T> Opened<T> {
    fn new(node: &Node<T>) -> Result<KBox<Self>> {
        let mut text = Text(KVVec::new());
        // Fails for want of memory only.
        core::fmt::Write::write_fmt(&mut text, core::format_args!("{}", Shown(node)))
            .map_err(|_| ENOMEM)?;
        let opened = Self {
            entry: node.entry,
            shared: node.shared.clone(),
            text: text.0,
        };
        Ok(KBox::new(opened, GFP_KERNEL)?)
    }
}

/// The operations of a file as the kernel wants them.
struct Table<T>(PhantomData<T>);

impl<T: Send + Sync + 'static> Table<T> {
    const TABLE: bindings::file_operations = bindings::file_operations {
        owner: this_module::<crate::LocalModule>().as_ptr(),
        open: Some(Self::open),
        release: Some(Self::release),
        llseek: Some(bindings::default_llseek),
        read: Some(Self::read),
        write: Some(Self::write),
        ..pin_init::zeroed()
    };

    /// # Safety
    ///
    /// Called by debugfs with a file that [`Directory::new`] has made and that is not removed meanwhile.
    unsafe extern "C" fn open(inode: *mut bindings::inode, raw: *mut bindings::file) -> c_int {
        from_result(|| {
            // SAFETY: `Directory::new` has put it there, and keeps it as the caller says.
            let node = unsafe { &*(*inode).i_private.cast::<Node<T>>() };
            let opened = Opened::new(node)?;
            // SAFETY: The file is being opened: nobody else uses it yet.
            unsafe { (*raw).private_data = opened.into_foreign() };
            Ok(0)
        })
    }

    /// # Safety
    ///
    /// Called by the kernel once for each successful [`Self::open`].
    unsafe extern "C" fn release(_inode: *mut bindings::inode, raw: *mut bindings::file) -> c_int {
        // SAFETY: `open` has put it there, and nobody uses it any more.
        drop(unsafe { KBox::<Opened<T>>::from_foreign((*raw).private_data) });
        0
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file, memory of the program, and a position of its own.
    unsafe extern "C" fn read(
        raw: *mut bindings::file,
        to: *mut c_char,
        length: usize,
        position: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: `open` has put it there, and nothing changes it before `release`.
        let opened = unsafe { &*(*raw).private_data.cast::<Opened<T>>() };
        let text = &opened.text;
        // SAFETY: `to` and `position` are as the caller says, and the text is valid for its length.
        unsafe {
            bindings::simple_read_from_buffer(
                to.cast(),
                length,
                position,
                text.as_ptr().cast(),
                text.len(),
            )
        }
    }

    /// # Safety
    ///
    /// Called by the kernel with an open file and memory of the program.
    unsafe extern "C" fn write(
        raw: *mut bindings::file,
        from: *const c_char,
        length: usize,
        _position: *mut bindings::loff_t,
    ) -> isize {
        // SAFETY: As above.
        let opened = unsafe { &*(*raw).private_data.cast::<Opened<T>>() };
        from_result(|| {
            let write = opened.entry.write.ok_or(EINVAL)?;
            let from = UserPtr::from_ptr(from.cast_mut().cast());
            write(&opened.shared, &mut UserSlice::new(from, length).reader())?;
            Ok(isize::try_from(length)?)
        })
    }
}
