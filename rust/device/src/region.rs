// SPDX-License-Identifier: MIT OR Apache-2.0

//! The link's memory: one memfd, mapped here and handed to every QEMU.
//!
//! Every access of the model to it is a load, store or compare-exchange of one 32-bit word. Called
//! by the link (state table, trapped accesses) and by soft inmates.

use crate::mapping::Mapping;
use ivshmem_protocol::memory::LoadOrder;
use ivshmem_protocol::memory::Memory;
use ivshmem_protocol::memory::OutOfBounds;
use ivshmem_protocol::memory::StoreOrder;
use rustix::fs::MemfdFlags;
use rustix::fs::SealFlags;
use rustix::io;
use std::os::fd::AsFd;
use std::os::fd::BorrowedFd;
use std::os::fd::OwnedFd;
use std::sync::atomic::AtomicU32;
use std::sync::atomic::Ordering;

const WORD: usize = size_of::<u32>();

/// Shared memory of a fixed size, zero at the start.
#[derive(Debug)]
pub struct Region {
    file: OwnedFd,
    mapping: Mapping,
}

impl Region {
    /// Memory of `size` bytes, which is divisible by the page size. Pages cost nothing until they
    /// are written.
    ///
    /// # Errors
    ///
    /// What the system says if it cannot have a file or a mapping of that size.
    pub fn new(size: usize) -> io::Result<Self> {
        let file =
            rustix::fs::memfd_create("ivshmem", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        rustix::fs::ftruncate(&file, size as u64)?;
        // A client that shortens the file would kill whoever touches the missing page.
        rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let mapping = Mapping::new(&file, size)?;
        Ok(Self { file, mapping })
    }

    /// The file, for clients to map.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    fn word(&self, offset: usize) -> Result<&AtomicU32, OutOfBounds> {
        if offset % WORD != 0 {
            return Err(OutOfBounds { offset });
        }
        self.mapping
            .words()
            .get(offset / WORD)
            .ok_or(OutOfBounds { offset })
    }

    /// Splits the bytes from `offset` on, `len` of them, at the borders of words: offset of the
    /// word, first byte in it, and the range of the caller's bytes.
    fn pieces(offset: usize, len: usize) -> impl Iterator<Item = (usize, usize, usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            if done == len {
                return None;
            }
            let at = offset + done;
            let first = at % WORD;
            let count = (WORD - first).min(len - done);
            let piece = (at - first, first, done, done + count);
            done += count;
            Some(piece)
        })
    }

    /// Copies the bytes at `offset` to `data`, word by word.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if they are not all within the memory.
    pub fn read(&self, offset: usize, data: &mut [u8]) -> Result<(), OutOfBounds> {
        for (word, first, from, to) in Self::pieces(offset, data.len()) {
            let bytes = self.load(word, LoadOrder::Acquire)?.to_ne_bytes();
            data[from..to].copy_from_slice(&bytes[first..first + to - from]);
        }
        Ok(())
    }

    /// Copies `data` to the bytes at `offset`, word by word. The neighbours in a word that is not
    /// written whole keep what others store there meanwhile.
    ///
    /// # Errors
    ///
    /// [`OutOfBounds`] if they are not all within the memory; then the first of them may have been
    /// written.
    pub fn write(&self, offset: usize, data: &[u8]) -> Result<(), OutOfBounds> {
        for (word, first, from, to) in Self::pieces(offset, data.len()) {
            let change = |old: u32| {
                let mut bytes = old.to_ne_bytes();
                bytes[first..first + to - from].copy_from_slice(&data[from..to]);
                u32::from_ne_bytes(bytes)
            };
            let atomic = self.word(word)?;
            if to - from == WORD {
                atomic.store(change(0), Ordering::Release);
            } else {
                // The closure always gives a value, so this cannot fail.
                let _ = atomic
                    .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| Some(change(old)));
            }
        }
        Ok(())
    }
}

impl Memory for Region {
    fn size(&self) -> usize {
        self.mapping.words().len() * WORD
    }

    fn load(&self, offset: usize, order: LoadOrder) -> Result<u32, OutOfBounds> {
        Ok(self.word(offset)?.load(match order {
            LoadOrder::Relaxed => Ordering::Relaxed,
            LoadOrder::Acquire => Ordering::Acquire,
        }))
    }

    fn store(&self, offset: usize, value: u32, order: StoreOrder) -> Result<(), OutOfBounds> {
        self.word(offset)?.store(
            value,
            match order {
                StoreOrder::Relaxed => Ordering::Relaxed,
                StoreOrder::Release => Ordering::Release,
            },
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: usize = 0x1000;

    #[test]
    fn is_zero_at_the_start_and_has_the_size_asked_for() {
        let region = Region::new(SIZE).unwrap();
        assert_eq!(region.size(), SIZE);
        let mut data = vec![0xff; SIZE];
        region.read(0, &mut data).unwrap();
        assert!(data.iter().all(|&b| b == 0));
    }

    #[test]
    fn cannot_be_shortened_by_whoever_has_the_file() {
        let region = Region::new(SIZE).unwrap();
        assert_eq!(
            rustix::fs::ftruncate(region.file(), 0),
            Err(io::Errno::PERM)
        );
    }

    #[test]
    fn refuses_what_is_not_within() {
        let region = Region::new(SIZE).unwrap();
        assert!(region.read(SIZE - 2, &mut [0; 4]).is_err());
        assert!(region.write(SIZE, &[1]).is_err());
        assert!(region.load(2, LoadOrder::Relaxed).is_err());
    }

    proptest! {
        #[test]
        fn behaves_like_an_array_of_bytes(
            writes in prop::collection::vec((0..SIZE, prop::collection::vec(any::<u8>(), 0..20)), 0..40)
        ) {
            let region = Region::new(SIZE).unwrap();
            let mut model = vec![0; SIZE];
            for (offset, data) in writes {
                let data = &data[..data.len().min(SIZE - offset)];
                region.write(offset, data).unwrap();
                model[offset..offset + data.len()].copy_from_slice(data);
            }
            let mut all = vec![0; SIZE];
            region.read(0, &mut all).unwrap();
            prop_assert_eq!(all, model);
        }
    }
}
