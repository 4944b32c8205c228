// SPDX-License-Identifier: GPL-2.0

//! Reading and writing the shared memory as a file.
//!
//! Bytes go through a small buffer on the stack: the device must not be kept from going while a copy
//! to or from a program waits for a page, so nobody is inside then. A signal ends a transfer after any
//! piece: memory whose every access traps is slow.

use crate::{
    link::Link,
    protocol::v2::layout::Refused, //
};
use kernel::{
    current,
    iov::{
        IovIterDest,
        IovIterSource, //
    },
    prelude::*, //
};

/// Size of the buffer.
const CHUNK: usize = 512;

/// Size of the next piece of a transfer that has come to `offset` and wants `left` bytes more: up to a
/// boundary of 8 bytes, so that aligned words of a long transfer stay whole.
fn piece(offset: usize, left: usize) -> usize {
    left.min(CHUNK - offset % 8)
}

/// Reads from `position` on, and moves it on.
///
/// # Errors
///
/// `EFAULT` if nothing could be stored, `ENODEV`.
pub(crate) fn read(link: &Link, position: &mut i64, to: &mut IovIterDest<'_>) -> Result<usize> {
    let start = u64::try_from(*position)?;
    let length = link.layout().read(start, to.len() as u64) as usize;
    if length == 0 {
        return if link.is_gone() { Err(ENODEV) } else { Ok(0) };
    }
    let mut buffer = [0; CHUNK];
    let mut done = 0;
    while done < length {
        let chunk = &mut buffer[..piece(start as usize + done, length - done)];
        let fetched = link
            .enter()
            .and_then(|inside| inside.copy_out(start as usize + done, chunk));
        match fetched {
            Ok(()) => {}
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        let copied = to.copy_to_iter(chunk);
        done += copied;
        if copied < chunk.len() || current!().signal_pending() {
            break;
        }
    }
    finish(position, done, length)
}

/// Writes from `position` on as far as we may, and moves it on.
///
/// # Errors
///
/// `EACCES` or `ENOSPC` if we may not write the first byte, `EBUSY` if channels own it, `EFAULT` if nothing
/// could be fetched, `ENODEV`.
pub(crate) fn write(
    link: &Link,
    position: &mut i64,
    from: &mut IovIterSource<'_>,
) -> Result<usize> {
    if link.is_gone() {
        return Err(ENODEV);
    }
    if from.is_empty() {
        return Ok(0);
    }
    let start = u64::try_from(*position)?;
    let length = match link.layout().write(start, from.len() as u64) {
        Ok(length) => length as usize,
        Err(Refused::Beyond) => return Err(ENOSPC),
        Err(_) => return Err(EACCES),
    };
    // What channels may own follows the R/W section without a gap for peer 0: no piece has bytes of both.
    let border = link.layout().output().offset as usize;
    let mut buffer = [0; CHUNK];
    let mut done = 0;
    while done < length {
        let at = start as usize + done;
        let left = if at < border {
            (length - done).min(border - at)
        } else {
            length - done
        };
        let wanted = piece(at, left);
        let copied = from.copy_from_iter(&mut buffer[..wanted]);
        let stored = link.enter().and_then(|inside| {
            link.channels.admit_write(&inside, at as u64)?;
            inside.memory()?.copy_in(at, &buffer[..copied])
        });
        match stored {
            Ok(()) => done += copied,
            Err(error) if done == 0 => return Err(error),
            Err(_) => break,
        }
        if copied < wanted || current!().signal_pending() {
            break;
        }
    }
    finish(position, done, length)
}

/// Moves `position` on by what was done of what was wanted.
fn finish(position: &mut i64, done: usize, wanted: usize) -> Result<usize> {
    if done == 0 && wanted != 0 {
        return Err(EFAULT);
    }
    *position += i64::try_from(done)?;
    Ok(done)
}
