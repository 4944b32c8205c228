// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sections of the region in this process's memory.
//!
//! A peer may change the memory at any moment, so there is no slice of it to be had: words are
//! atomics, and bytes are copied. When the device goes away, an access raises SIGBUS.

use crate::sys::Memory;
use crate::{Error, Result};
use std::ops::Deref;
use std::sync::atomic::{AtomicU32, Ordering};

/// A section, mapped for reading. Made by [`Device::map`](crate::Device::map).
#[derive(Debug)]
pub struct Mapping(pub(crate) Memory);

/// A section, mapped for reading and writing. Made by
/// [`Device::map_mut`](crate::Device::map_mut).
#[derive(Debug)]
pub struct MappingMut(pub(crate) Mapping);

/// A word that can be loaded and not stored.
#[derive(Debug, Clone, Copy)]
pub struct Word<'a>(&'a AtomicU32);

impl Word<'_> {
    /// Loads the word.
    ///
    /// # Panics
    ///
    /// If `order` is [`Ordering::Release`] or [`Ordering::AcqRel`], as the standard library's
    /// atomics do.
    #[must_use]
    pub fn load(&self, order: Ordering) -> u32 {
        self.0.load(order)
    }
}

impl Mapping {
    /// Size in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.0.length()
    }

    /// The word at `offset` bytes from the beginning of the mapping.
    ///
    /// # Errors
    ///
    /// [`Error::OutsideMapping`], also for an offset that is not a multiple of 4.
    pub fn word(&self, offset: usize) -> Result<Word<'_>> {
        let word = self.0.word(offset);
        word.map(Word).ok_or_else(|| self.outside(offset, 4))
    }

    /// Copies `bytes.len()` bytes from `offset` on. Bytes that a peer writes meanwhile are seen
    /// or not, one by one.
    ///
    /// # Errors
    ///
    /// [`Error::OutsideMapping`]; nothing is copied then.
    pub fn read(&self, offset: usize, bytes: &mut [u8]) -> Result<()> {
        let length = bytes.len();
        self.0
            .read(offset, bytes)
            .ok_or_else(|| self.outside(offset, length))
    }

    fn outside(&self, offset: usize, length: usize) -> Error {
        Error::OutsideMapping {
            offset,
            length,
            mapped: self.size(),
        }
    }
}

impl MappingMut {
    /// The word at `offset` bytes from the beginning of the mapping.
    ///
    /// # Errors
    ///
    /// [`Error::OutsideMapping`], also for an offset that is not a multiple of 4.
    pub fn word(&self, offset: usize) -> Result<&AtomicU32> {
        let word = self.0 .0.word(offset);
        word.ok_or_else(|| self.outside(offset, 4))
    }

    /// Copies `bytes` to `offset` on. Peers see them one by one, in any order: publish with an
    /// atomic word, or by ringing.
    ///
    /// # Errors
    ///
    /// [`Error::OutsideMapping`]; nothing is copied then.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<()> {
        let done = self.0 .0.write(offset, bytes);
        done.ok_or_else(|| self.outside(offset, bytes.len()))
    }
}

impl Deref for MappingMut {
    type Target = Mapping;

    fn deref(&self) -> &Mapping {
        &self.0
    }
}
