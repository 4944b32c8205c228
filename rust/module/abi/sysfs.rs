// SPDX-License-Identifier: GPL-2.0

//! Read-only sysfs attributes of a node's device.
//!
//! They are there before the kernel announces the device, so a udev rule can rely on them. The kernel
//! waits for running reads when it removes the device.

use super::{
    chrdev,
    fops::Operations, //
};
use core::marker::PhantomData;
use kernel::{
    bindings,
    error::from_result,
    fmt::{
        self,
        Write, //
    },
    page::PAGE_SIZE,
    prelude::*,
    str::{
        as_char_ptr_in_const_context,
        Formatter, //
    },
    types::Opaque, //
};

/// What an attribute says.
pub(crate) struct Text<'a>(Formatter<'a>);

impl Text<'_> {
    /// Makes `value`, with a newline behind it, what the attribute says.
    pub(crate) fn set(&mut self, value: fmt::Arguments<'_>) -> Result {
        self.0.write_fmt(value)?;
        self.0.write_str("\n")?;
        Ok(())
    }
}

/// Says what a device's attribute is.
pub(crate) type Show<T> = fn(&<T as Operations>::Device, &mut Text<'_>) -> Result;

/// An attribute of a device whose files are `T`.
#[repr(C)]
pub(crate) struct Attribute<T: Operations> {
    // First: the kernel hands out its address.
    raw: Opaque<bindings::device_attribute>,
    show: Show<T>,
}

// SAFETY: Constant but for what lockdep keeps in `raw` with its own locks.
unsafe impl<T: Operations> Sync for Attribute<T> {}

impl<T: Operations> Attribute<T> {
    /// An attribute that everybody may read.
    pub(crate) const fn new(name: &'static CStr, show: Show<T>) -> Self {
        let mut raw: bindings::device_attribute = pin_init::zeroed();
        raw.attr.name = as_char_ptr_in_const_context(name);
        raw.attr.mode = 0o444;
        raw.__bindgen_anon_1.show = Some(Self::show);
        Self {
            raw: Opaque::new(raw),
            show,
        }
    }

    /// # Safety
    ///
    /// Called by the kernel with an attribute that was made by [`Self::new`], of a node of `T`, and
    /// a buffer of a page.
    unsafe extern "C" fn show(
        device: *mut bindings::device,
        attribute: *mut bindings::device_attribute,
        buffer: *mut c_char,
    ) -> isize {
        // SAFETY: `raw` is the first field of an attribute, which is a `static`.
        let attribute = unsafe { &*attribute.cast::<Self>() };
        // SAFETY: As the caller says. The node is there until this returns.
        let shared = unsafe { chrdev::shared_by::<T>(device) };
        // SAFETY: As the caller says. The kernel has filled the buffer with zeroes.
        let buffer = unsafe { core::slice::from_raw_parts_mut(buffer.cast::<u8>(), PAGE_SIZE) };
        let mut text = Text(Formatter::new(buffer));
        from_result(|| {
            (attribute.show)(shared, &mut text)?;
            Ok(isize::try_from(text.0.bytes_written())?)
        })
    }
}

/// `N - 1` addresses for the kernel, and a null behind them.
pub(crate) struct Pointers<P, const N: usize>([*const P; N]);

// SAFETY: Constant; what they point to is `Sync`.
unsafe impl<P: Sync, const N: usize> Sync for Pointers<P, N> {}

impl<P: 'static, const N: usize> Pointers<P, N> {
    /// The addresses of `items`.
    pub(crate) const fn to(items: &[&'static P]) -> Self {
        assert!(items.len() + 1 == N);
        let mut pointers = [core::ptr::null(); N];
        let mut index = 0;
        while index < items.len() {
            pointers[index] = core::ptr::from_ref(items[index]);
            index += 1;
        }
        Self(pointers)
    }
}

/// Attributes that stand together, of a device whose files are `T`.
#[repr(transparent)]
pub(crate) struct Group<T>(Opaque<bindings::attribute_group>, PhantomData<T>);

// SAFETY: Constant.
unsafe impl<T> Sync for Group<T> {}

impl<T: Operations> Group<T> {
    /// A group in the directory `name`, or beside the kernel's own attributes.
    pub(crate) const fn new<const N: usize>(
        name: Option<&'static CStr>,
        attributes: &'static Pointers<Attribute<T>, N>,
    ) -> Self {
        let mut raw: bindings::attribute_group = pin_init::zeroed();
        if let Some(name) = name {
            raw.name = as_char_ptr_in_const_context(name);
        }
        // CAST: An attribute begins with the kernel's.
        raw.__bindgen_anon_2.attrs_const = attributes.0.as_ptr().cast();
        Self(Opaque::new(raw), PhantomData)
    }
}

/// All attributes of a device whose files are `T`; made by [`attribute_groups!`].
pub(crate) struct Groups<T>(*const *const bindings::attribute_group, PhantomData<T>);

impl<T: 'static> Groups<T> {
    /// Those that stand in `groups`.
    pub(crate) const fn new<const N: usize>(groups: &'static Pointers<Group<T>, N>) -> Self {
        // CAST: A group is one of the kernel's.
        Self(groups.0.as_ptr().cast(), PhantomData)
    }

    /// As the kernel wants them, for a `struct device`.
    pub(super) fn as_ptr(&self) -> *mut *const bindings::attribute_group {
        self.0.cast_mut()
    }
}

/// Makes the [`Groups`] of a type: for each group its name (or [`None`]) and, for each of its
/// attributes, name and [`Show`].
macro_rules! attribute_groups {
    (@count $($item:expr),*) => {
        [$($crate::abi::sysfs::attribute_groups!(@unit $item)),*].len()
    };
    (@unit $item:expr) => { () };
    ($type:ty: $($group:expr => { $($name:literal: $show:expr),* $(,)? })*) => {{
        use $crate::abi::sysfs::{
            attribute_groups,
            Attribute,
            Group,
            Groups,
            Pointers, //
        };
        static GROUPS: Pointers<Group<$type>, { attribute_groups!(@count $($group),*) + 1 }> =
            Pointers::to(&[$({
                static ATTRIBUTES: Pointers<
                    Attribute<$type>,
                    { attribute_groups!(@count $($name),*) + 1 },
                > = Pointers::to(&[$({
                    static ATTRIBUTE: Attribute<$type> = Attribute::<$type>::new($name, $show);
                    &ATTRIBUTE
                }),*]);
                static GROUP: Group<$type> = Group::new($group, &ATTRIBUTES);
                &GROUP
            }),*]);
        Groups::new(&GROUPS)
    }};
}
pub(crate) use attribute_groups;
