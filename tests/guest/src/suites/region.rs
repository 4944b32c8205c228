// SPDX-License-Identifier: MIT OR Apache-2.0
//! `read`, `write`, `pread`, `pwrite`, `lseek`: the region as a file.

use super::{open_file, sections, Env, StopOnDrop, Test};
use crate::raw::{self, BadPointer};
use ivshmem::{Device, Error};
use rustix::io::Errno;
use std::io::{Read, Seek, SeekFrom, Write};
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) const TESTS: &[Test] = &[
    // bad input: `pwrite` at odd offsets, with odd lengths => all of it is written, and no byte beside it
    Test::new(
        "what is written at odd offsets with odd lengths is read again",
        odd_offsets,
    ),
    Test::two_peers("what one peer writes the other reads", other_peer_reads),
    // bad input: `pread` across the borders of sections => the bytes of both
    Test::new(
        "pread across section borders gives the bytes of both",
        read_across_borders,
    ),
    // bad input: `pread` at or beyond the end of the region => 0 bytes
    // bad input: `pread` across the end => the bytes up to the end
    Test::new(
        "pread at and beyond the end is 0, across the end is cut short",
        read_at_the_end,
    ),
    // bad input: a transfer of zero bytes, also at odd offsets => 0, nothing is touched
    Test::new("pread and pwrite with zero length do nothing", zero_length),
    // bad input: a transfer of a huge length => what there is from the offset on
    Test::new(
        "pread and pwrite with huge length transfer what there is",
        huge_length,
    ),
    // bad input: `pwrite` into the state table or another peer's output section => `EACCES`, nothing is written
    Test::new(
        "pwrite into read-only sections is EACCES at every offset tried",
        read_only_sections,
    ),
    // bad input: `pwrite` that begins where this peer may write, and goes on where it may not => as many bytes as it may write
    Test::new(
        "pwrite across section borders is cut short where this peer may not write",
        write_across,
    ),
    // bad input: `pwrite` from one's own output section into the next peer's => as many bytes as are one's own
    Test::two_peers(
        "pwrite of a peer ends where the next peer's section begins",
        write_across_other,
    ),
    // bad input: `pwrite` at or beyond the end of the region => `ENOSPC`
    Test::new("pwrite at and beyond the end is ENOSPC", write_beyond),
    // bad input: `pread` or `pwrite` at a negative offset => `EINVAL`
    Test::new("a negative offset is EINVAL", negative_offset),
    // bad input: a buffer that is no memory: null, low, kernel, non-canonical, at the top => `EFAULT`, nothing is transferred
    Test::new("bad pointers are EFAULT and change nothing", bad_pointers),
    // bad input: a buffer that ends in unmapped memory => what fits; `EFAULT` if that is nothing
    Test::new(
        "a buffer that ends in nothing gives a partial transfer, then EFAULT",
        partly_bad,
    ),
    Test::new("preadv fills several buffers", vectors),
    // bad input: `write` to a file open for reading, `read` from one open for writing => `EBADF`
    Test::new(
        "a file open for reading only cannot be written, and the other way round",
        open_modes,
    ),
    // bad input: `open` with `O_APPEND` => `write` goes to the position as ever
    Test::new("O_APPEND has no effect", append),
    Test::new(
        "read and write move the position, lseek sets it within the region",
        position,
    ),
    // bad input: `lseek` before the beginning or beyond the end of the region => `EINVAL`, the position stays
    Test::new(
        "lseek outside of the region is EINVAL and moves nothing",
        seek_outside,
    ),
    Test::new(
        "aligned transfers of 4 and 8 bytes are single accesses",
        single_accesses,
    ),
];

/// Bytes that tell their place.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|i| ((i + seed) * 7 % 251) as u8).collect()
}

fn read(device: &Device, length: usize, offset: u64) -> Vec<u8> {
    let mut bytes = vec![0; length];
    assert_eq!(device.read_at(&mut bytes, offset).expect("read"), length);
    bytes
}

fn odd_offsets(env: &Env) {
    let device = env.open();
    let info = *device.info();
    for section in [info.rw, info.output] {
        for (offset, length) in [
            (0, 1),
            (1, 1),
            (1, 3),
            (3, 7),
            (5, 8),
            (6, 1025),
            (3071, 2),
            (511, 514),
        ] {
            let at = section.offset + 256 + offset;
            let before = read(&device, length + 2, at - 1);
            let bytes = pattern(length, at as usize);
            assert_eq!(device.write_at(&bytes, at).expect("write"), length);
            assert_eq!(
                read(&device, length, at),
                bytes,
                "offset {at:#x}, {length} bytes"
            );
            let after = read(&device, length + 2, at - 1);
            assert_eq!(before[0], after[0], "the byte before {at:#x} changed");
            assert_eq!(before.last(), after.last(), "the byte behind changed");
        }
    }
}

fn other_peer_reads(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let section = device.info().output;
    let bytes = pattern(section.size as usize, 99);
    assert_eq!(
        device.write_at(&bytes, section.offset).expect("write"),
        bytes.len()
    );
    assert_eq!(read(&other, bytes.len(), section.offset), bytes);
    let section = other.info().rw;
    assert_eq!(
        other
            .write_at(&bytes[..100], section.end() - 100)
            .expect("write"),
        100
    );
    assert_eq!(read(&device, 100, section.end() - 100), bytes[..100]);
}

fn read_across_borders(env: &Env) {
    let device = env.open();
    let info = *device.info();
    device
        .write_at(&pattern(64, 3), info.rw.offset)
        .expect("write");
    device
        .write_at(&pattern(64, 5), info.output.offset)
        .expect("write");
    let whole = read(&device, info.region_size as usize, 0);
    for (name, section) in sections(&device) {
        let part = read(&device, section.size as usize, section.offset);
        assert_eq!(
            whole[section.offset as usize..section.end() as usize],
            part,
            "{name}"
        );
        if section.offset > 0 {
            let border = read(&device, 10, section.offset - 5);
            let at = section.offset as usize - 5;
            assert_eq!(whole[at..at + 10], border, "border before the {name}");
        }
    }
}

fn read_at_the_end(env: &Env) {
    let device = env.open();
    let end = device.info().region_size;
    let mut bytes = [0; 100];
    for offset in [end, end + 1, end + 4096, 1 << 40, i64::MAX as u64 - 4096] {
        assert_eq!(
            device.read_at(&mut bytes, offset),
            Ok(0),
            "offset {offset:#x}"
        );
    }
    for before in [1, 3, 8, 99] {
        assert_eq!(
            device.read_at(&mut bytes, end - before),
            Ok(before as usize)
        );
    }
    assert_eq!(device.read_at(&mut bytes, end - 100), Ok(100));
}

fn zero_length(env: &Env) {
    let device = env.open();
    let info = *device.info();
    for offset in [
        0,
        1,
        info.rw.offset,
        info.output.offset + 5,
        info.region_size,
        1 << 40,
    ] {
        assert_eq!(
            device.read_at(&mut [], offset),
            Ok(0),
            "read at {offset:#x}"
        );
    }
    for section in [info.rw, info.output] {
        assert_eq!(device.write_at(&[], section.offset), Ok(0));
        assert_eq!(device.write_at(&[], section.offset + 7), Ok(0));
    }
}

fn huge_length(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let size = info.region_size as usize;
    let page = rustix::param::page_size();
    // Low, so that a large length does not reach beyond the address space.
    let buffer = raw::mmap_low(size + page).expect("memory");
    // The kernel limits every transfer to 2 GiB less a page, far beyond the region.
    for beyond in [1 << 20, 1 << 31, 1 << 40] {
        assert_eq!(
            buffer.pread(&device, beyond, 0),
            Ok(size),
            "{beyond:#x} bytes more"
        );
    }
    // Beyond the address space: refused before the driver is asked.
    assert_eq!(buffer.pread(&device, 1 << 60, 0), Err(Errno::FAULT));
    assert_eq!(
        buffer.pread(&device, isize::MAX as usize, 0),
        Err(Errno::FAULT)
    );
    let writable = info.region_size.min(info.output.end()) - info.output.offset;
    assert_eq!(
        buffer.pwrite(&device, 1 << 31, info.output.offset as i64),
        Ok(writable as usize)
    );
}

/// Offsets in a section that are worth a try.
fn offsets(begin: u64, end: u64) -> Vec<u64> {
    vec![
        begin,
        begin + 1,
        begin + 4,
        begin + (end - begin) / 2 + 3,
        end - 8,
        end - 1,
    ]
}

fn read_only_sections(env: &Env) {
    let device = env.open();
    let whole = read(&device, device.info().region_size as usize, 0);
    let foreign: Vec<_> = sections(&device)
        .into_iter()
        .filter(|(_, section)| !section.is_writable())
        .collect();
    assert!(foreign.len() >= 2, "{foreign:?}");
    for (name, section) in foreign {
        for offset in offsets(section.offset, section.end()) {
            for length in [1, 2, 4, 8, 5000] {
                assert_eq!(
                    device.write_at(&pattern(length, 1), offset),
                    Err(Error::NotWritable { offset }),
                    "{name}, offset {offset:#x}, {length} bytes"
                );
            }
        }
    }
    assert_eq!(read(&device, whole.len(), 0), whole, "something changed");
}

fn write_across(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let bytes = pattern(info.region_size as usize, 17);
    // Peer 0's own output section follows the read/write section.
    let end_of_rw = if info.output.offset == info.rw.end() {
        info.output.end()
    } else {
        info.rw.end()
    };
    for (section, end) in [(info.rw, end_of_rw), (info.output, info.output.end())] {
        let behind = read(&device, (info.region_size - end) as usize, end);
        for offset in offsets(section.offset, section.end()) {
            let possible = (end - offset) as usize;
            assert_eq!(
                device.write_at(&bytes, offset),
                Ok(possible.min(bytes.len()))
            );
            assert_eq!(read(&device, possible, offset), bytes[..possible]);
        }
        assert_eq!(
            read(&device, behind.len(), end),
            behind,
            "bytes behind changed"
        );
    }
}

fn write_across_other(env: &Env) {
    let other = env.open_other();
    let info = *other.info();
    assert_ne!(
        info.output.offset,
        info.rw.end(),
        "the plan has peer 1 second"
    );
    let bytes = pattern(info.region_size as usize, 23);
    let foreign = read(&other, 64, info.rw.end());
    assert_eq!(other.write_at(&bytes, info.rw.end() - 3), Ok(3));
    assert_eq!(
        other.write_at(&bytes, info.rw.offset),
        Ok(info.rw.size as usize)
    );
    assert_eq!(
        read(&other, 64, info.rw.end()),
        foreign,
        "a foreign section changed"
    );
    assert_eq!(other.write_at(&bytes, info.output.end() - 5), Ok(5));
}

fn write_beyond(env: &Env) {
    let device = env.open();
    let end = device.info().region_size;
    for offset in [end, end + 1, end + 4096, 1 << 40, 1 << 62] {
        for length in [1, 4, 4096] {
            let error = device
                .write_at(&pattern(length, 0), offset)
                .expect_err("beyond the end");
            assert_eq!(error.errno(), Some(Errno::NOSPC), "offset {offset:#x}");
        }
    }
}

fn negative_offset(env: &Env) {
    let file = open_file(env.node(), true, true, 0);
    for offset in [-1, -4096, i64::MIN] {
        assert_eq!(raw::pread(&file, &mut [0; 8], offset), Err(Errno::INVAL));
        assert_eq!(raw::pwrite(&file, &[0; 8], offset), Err(Errno::INVAL));
    }
}

fn bad_pointers(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let before = read(&device, info.region_size as usize, 0);
    for pointer in BadPointer::ALL {
        for length in [1, 4, 8, 4096, 20000] {
            for offset in [0, info.rw.offset, info.output.offset + 1] {
                let got = raw::pread_bad(&device, pointer, length, offset as i64);
                assert_eq!(got, Err(Errno::FAULT), "{pointer:?}, {length} bytes");
            }
            for offset in [info.rw.offset, info.output.offset + 1] {
                let got = raw::pwrite_bad(&device, pointer, length, offset as i64);
                assert_eq!(got, Err(Errno::FAULT), "{pointer:?}, {length} bytes");
            }
        }
    }
    assert_eq!(read(&device, before.len(), 0), before, "something changed");
}

fn partly_bad(env: &Env) {
    let device = env.open();
    let offset = device.info().rw.offset as i64;
    let page = rustix::param::page_size();
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let mut buffer = raw::mmap(None, 0, 2 * page, rights, libc::MAP_PRIVATE).expect("memory");
    buffer.store(0, 0x0102_0304);
    buffer.cut_in_half();
    let written = buffer.pwrite(&device, 100, offset).expect("what there is");
    assert!((1..=page).contains(&written), "{written}");
    let got = buffer.pread(&device, 100, offset).expect("what fits");
    assert!((1..=page).contains(&got), "{got}");
    assert_eq!(buffer.load(0), 0x0102_0304);
    // Nothing fits: the first byte is bad already.
    let none = raw::pread_bad(&device, BadPointer::Low, 100, offset);
    assert_eq!(none, Err(Errno::FAULT));
}

fn vectors(env: &Env) {
    let device = env.open();
    let at = device.info().rw.offset;
    let bytes = pattern(60, 31);
    device.write_at(&bytes, at).expect("write");
    let (mut a, mut b, mut c) = ([0; 1], [0; 10], [0; 49]);
    let got = raw::preadv(&device, &mut [&mut a, &mut [], &mut b, &mut c], at as i64);
    assert_eq!(got, Ok(60));
    assert_eq!([&a[..], &b[..], &c[..]].concat(), bytes);
}

fn open_modes(env: &Env) {
    let at = env.open().info().output.offset as i64;
    let reader = open_file(env.node(), true, false, 0);
    assert_eq!(raw::pwrite(&reader, &[1], at), Err(Errno::BADF));
    assert_eq!(raw::pread(&reader, &mut [0], at), Ok(1));
    let writer = open_file(env.node(), false, true, 0);
    assert_eq!(raw::pread(&writer, &mut [0], at), Err(Errno::BADF));
    assert_eq!(raw::pwrite(&writer, &[1], at), Ok(1));
}

fn append(env: &Env) {
    let info = *env.open().info();
    let mut file = open_file(env.node(), true, true, libc::O_APPEND);
    file.seek(SeekFrom::Start(info.output.offset))
        .expect("seek");
    assert_eq!(file.write(&pattern(10, 41)).expect("write"), 10);
    assert_eq!(
        file.stream_position().expect("position"),
        info.output.offset + 10
    );
    assert_eq!(read(&env.open(), 10, info.output.offset), pattern(10, 41));
}

fn position(env: &Env) {
    let info = *env.open().info();
    let mut file = open_file(env.node(), true, true, 0);
    assert_eq!(file.stream_position().expect("position"), 0);
    let mut bytes = [0; 10];
    file.read_exact(&mut bytes).expect("read");
    assert_eq!(file.stream_position().expect("position"), 10);
    assert_eq!(
        file.seek(SeekFrom::Start(info.rw.offset)).expect("seek"),
        info.rw.offset
    );
    file.write_all(&pattern(33, 51)).expect("write");
    assert_eq!(
        file.seek(SeekFrom::Current(-33)).expect("seek"),
        info.rw.offset
    );
    let mut again = [0; 33];
    file.read_exact(&mut again).expect("read");
    assert_eq!(again[..], pattern(33, 51));
    assert_eq!(file.seek(SeekFrom::End(0)).expect("seek"), info.region_size);
    assert_eq!(file.read(&mut bytes).expect("read"), 0);
    assert_eq!(
        file.seek(SeekFrom::End(-4)).expect("seek"),
        info.region_size - 4
    );
    assert_eq!(file.read(&mut bytes).expect("read"), 4, "cut short");
    assert_eq!(file.stream_position().expect("position"), info.region_size);
    // pread and pwrite leave it alone.
    assert_eq!(raw::pread(&file, &mut bytes, 0), Ok(10));
    assert_eq!(file.stream_position().expect("position"), info.region_size);
}

fn seek_outside(env: &Env) {
    let size = env.open().info().region_size as i64;
    let file = open_file(env.node(), true, true, 0);
    assert_eq!(raw::lseek(&file, 100, libc::SEEK_SET), Ok(100));
    for (offset, whence) in [
        (-1, libc::SEEK_SET),
        (size + 1, libc::SEEK_SET),
        (i64::MAX, libc::SEEK_SET),
        (i64::MIN, libc::SEEK_SET),
        (-101, libc::SEEK_CUR),
        (size, libc::SEEK_CUR),
        (i64::MAX, libc::SEEK_CUR),
        (1, libc::SEEK_END),
        (-size - 1, libc::SEEK_END),
        (i64::MAX, libc::SEEK_END),
        (0, 77),
    ] {
        let got = raw::lseek(&file, offset, whence);
        assert_eq!(got, Err(Errno::INVAL), "offset {offset}, whence {whence}");
        assert_eq!(
            raw::lseek(&file, 0, libc::SEEK_CUR),
            Ok(100),
            "the position moved"
        );
    }
}

fn single_accesses(env: &Env) {
    const ROUNDS: u32 = 20_000;
    let device = env.open();
    let at = device.info().rw.offset + 64;
    device.write_at(&[0; 8], at).expect("write");
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let _end = StopOnDrop(&stop);
        let writer = scope.spawn(|| {
            let mut value = 0_u8;
            while !stop.load(Ordering::Relaxed) {
                value = !value;
                device.write_at(&[value; 8], at).expect("write");
            }
        });
        for _ in 0..ROUNDS {
            let eight = read(&device, 8, at);
            assert!(
                eight.iter().all(|&byte| byte == eight[0]),
                "torn: {eight:x?}"
            );
            let four = read(&device, 4, at + 4);
            assert!(four.iter().all(|&byte| byte == four[0]), "torn: {four:x?}");
            if writer.is_finished() {
                break;
            }
        }
    });
}
