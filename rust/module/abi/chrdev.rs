// SPDX-License-Identifier: GPL-2.0

//! The device class, its numbers, and nodes in /dev.
//!
//! A [`Node`] is what user space opens. The structure behind it lives as long as anybody has it
//! open; the number and the name are free again as soon as the node is dropped.

use super::{
    fops::{
        Operations,
        Table, //
    },
    power::{
        Callbacks,
        Power, //
    },
    stubs, //
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    container_of,
    device,
    error::to_result,
    module::this_module,
    prelude::*,
    sync::{
        atomic::{
            Atomic,
            Full,
            Relaxed, //
        },
        Arc, //
    },
    types::Opaque, //
};

/// Most devices at a time.
pub(crate) const DEVICES_MAX: u32 = 256;

const NAME: &CStr = c"ivshmem";

/// A C structure in a `static`, registered by [`Registration`] and otherwise not touched.
struct Global<T>(Opaque<T>);

// SAFETY: Only the kernel, which has its own locks, and [`Registration`] use it.
unsafe impl<T> Sync for Global<T> {}

static CLASS: Global<bindings::class> = Global(Opaque::new(bindings::class {
    name: kernel::str::as_char_ptr_in_const_context(NAME),
    ..pin_init::zeroed()
}));

/// First device number of the region.
static FIRST: Atomic<u32> = Atomic::new(0);

const WORDS: usize = (DEVICES_MAX / u64::BITS) as usize;

/// Which numbers are taken, a bit each.
static TAKEN: [Atomic<u64>; WORDS] = [const { Atomic::new(0) }; WORDS];

/// The class /sys/class/ivshmem and its device numbers.
pub(crate) struct Registration(());

impl Registration {
    /// Registers them, for nodes of `T` only. The module does this once, before any device is bound, and
    /// keeps it until none is.
    pub(crate) fn new<T: Power>() -> Result<Self> {
        let mut first = 0;
        // SAFETY: `first` is valid for the call, the name lives forever.
        to_result(unsafe {
            bindings::alloc_chrdev_region(&mut first, 0, DEVICES_MAX, NAME.as_char_ptr())
        })?;
        // SAFETY: `CLASS` lives as long as the module, and is registered once; nobody knows it before.
        let result = unsafe {
            let class = CLASS.0.get();
            (*class).pm = &Callbacks::<T>::TABLE;
            (*class).shutdown_pre = Some(Callbacks::<T>::shutdown);
            to_result(bindings::class_register(class))
        };
        if let Err(error) = result {
            // SAFETY: The region has just been allocated.
            unsafe { bindings::unregister_chrdev_region(first, DEVICES_MAX) };
            return Err(error);
        }
        FIRST.store(first, Relaxed);
        Ok(Self(()))
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: Both were registered by `new`; the drivers that make nodes are gone.
        unsafe {
            bindings::class_unregister(CLASS.0.get());
            bindings::unregister_chrdev_region(FIRST.load(Relaxed), DEVICES_MAX);
        }
    }
}

/// The N of ivshmemN: the lowest that is free. Free again when dropped.
pub(crate) struct Number(u32);

impl Number {
    /// Takes the lowest free number.
    ///
    /// # Errors
    ///
    /// `ENOSPC` if there are [`DEVICES_MAX`] devices.
    pub(crate) fn take() -> Result<Self> {
        for (index, word) in (0u32..).zip(&TAKEN) {
            let mut taken = word.load(Relaxed);
            while taken != u64::MAX {
                let bit = taken.trailing_ones();
                match word.cmpxchg(taken, taken | (1 << bit), Full) {
                    Ok(_) => return Ok(Self(index * u64::BITS + bit)),
                    Err(now) => taken = now,
                }
            }
        }
        Err(ENOSPC)
    }

    /// The number.
    pub(crate) fn get(&self) -> u32 {
        self.0
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        let word = &TAKEN[(self.0 / u64::BITS) as usize];
        let bit = 1 << (self.0 % u64::BITS);
        let mut taken = word.load(Relaxed);
        while let Err(now) = word.cmpxchg(taken, taken & !bit, Full) {
            taken = now;
        }
    }
}

/// What the kernel knows of a node. Freed by the last reference to `device`, of which `cdev`
/// holds one.
#[repr(C)]
struct Inner<T: Operations> {
    device: Opaque<bindings::device>,
    cdev: Opaque<bindings::cdev>,
    shared: Arc<T::Device>,
}

/// A node in /dev.
///
/// # Invariants
///
/// `inner` is a registered node, of which this holds a reference.
pub(super) struct Node<T: Operations> {
    inner: *mut Inner<T>,
    // After `drop` has unregistered the node.
    _number: Number,
    _p: PhantomData<Inner<T>>,
}

// SAFETY: A node belongs to no thread, and what it shares is `Send` and `Sync`.
unsafe impl<T: Operations> Send for Node<T> {}

impl<T: Operations> Node<T> {
    /// Makes /dev/ivshmemN for `shared`, below `parent`.
    ///
    /// It can be opened before this returns.
    pub(super) fn new(
        parent: &device::Device,
        number: Number,
        shared: Arc<T::Device>,
    ) -> Result<Self> {
        let inner = KBox::into_raw(KBox::new(
            Inner::<T> {
                device: Opaque::zeroed(),
                cdev: Opaque::zeroed(),
                shared,
            },
            GFP_KERNEL,
        )?);
        // SAFETY: `inner` is ours alone, and its two structures are zeroed, as wanted. From
        // `device_initialize` on it is freed by `release` only.
        let (device, cdev) = unsafe { ((*inner).device.get(), (*inner).cdev.get()) };
        // SAFETY: As above. `parent` lives longer, the class is registered, the name is formatted
        // from a number.
        let result = unsafe {
            bindings::device_initialize(device);
            (*device).parent = core::ptr::from_ref(parent).cast_mut().cast();
            (*device).class = CLASS.0.get();
            (*device).devt = FIRST.load(Relaxed) + number.get();
            (*device).groups = T::attributes().as_ptr();
            (*device).release = Some(Self::release);
            bindings::cdev_init(cdev, &Table::<T>::TABLE);
            (*cdev).owner = this_module::<crate::LocalModule>().as_ptr();
            to_result(bindings::dev_set_name(
                device,
                c"ivshmem%u".as_char_ptr(),
                number.get(),
            ))
            .and_then(|()| to_result(bindings::cdev_device_add(cdev, device)))
        };
        if let Err(error) = result {
            // SAFETY: The reference of `device_initialize`.
            unsafe { bindings::put_device(device) };
            return Err(error);
        }
        Ok(Self {
            inner,
            _number: number,
            _p: PhantomData,
        })
    }

    /// # Safety
    ///
    /// Called by the kernel once, for the device of an [`Inner`] that nobody refers to any more.
    unsafe extern "C" fn release(device: *mut bindings::device) {
        // SAFETY: `device` is the field of an `Inner` that came from a `KBox`.
        drop(unsafe {
            KBox::from_raw(container_of!(Opaque::cast_from(device), Inner<T>, device).cast_mut())
        });
    }
}

impl<T: Operations> Drop for Node<T> {
    fn drop(&mut self) {
        // SAFETY: By the invariant the node is registered, and the reference is ours. Files that
        // are open hold their own through `cdev`.
        unsafe {
            let (device, cdev) = ((*self.inner).device.get(), (*self.inner).cdev.get());
            bindings::cdev_device_del(cdev, device);
            bindings::put_device(device);
        }
    }
}

/// What the node behind an inode shares.
///
/// # Safety
///
/// `inode` must be that of a node of `T` which is being opened.
pub(super) unsafe fn device_of<T: Operations>(inode: *mut bindings::inode) -> Arc<T::Device> {
    // SAFETY: The inode is one of a character device, whose `i_cdev` `chrdev_open` has set and
    // holds a reference of.
    let inner = unsafe {
        let cdev = stubs::ivshmem_inode_cdev(inode);
        &*container_of!(Opaque::cast_from(cdev), Inner<T>, cdev)
    };
    inner.shared.clone()
}

/// What the node with the device `device` shares.
///
/// # Safety
///
/// `device` must be that of a node of `T`, which is there for `'a`.
pub(super) unsafe fn shared_by<'a, T: Operations>(device: *mut bindings::device) -> &'a T::Device {
    // SAFETY: `device` is the field of an `Inner`, as the caller says.
    let inner = unsafe { &*container_of!(Opaque::cast_from(device), Inner<T>, device) };
    &inner.shared
}
