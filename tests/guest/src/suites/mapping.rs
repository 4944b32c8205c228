// SPDX-License-Identifier: MIT OR Apache-2.0
//! `mmap`: who may map what, and what a mapping shows.

use super::{open_file, sections, Env, Test};
use crate::helpers;
use crate::raw;
use libc::{MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE};
use rustix::io::Errno;
use std::fs::File;
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;

pub(super) const TESTS: &[Test] = &[
    // bad input: `mmap` with each protection, of each section, in each open mode => what the header says: `EACCES` for `PROT_WRITE` without the right, `EPERM` for `PROT_EXEC`
    Test::new(
        "every section with every protection in every open mode",
        matrix,
    ),
    // bad input: `mmap` with `MAP_PRIVATE` => `EINVAL`
    Test::new("MAP_PRIVATE is EINVAL", private),
    // bad input: a writable mapping of the whole region => `EACCES`
    Test::new(
        "the whole region can be mapped for reading, not for writing",
        whole,
    )
    .of_whole_pages(),
    // bad input: a writable mapping across the border of a section => `EACCES`
    Test::new(
        "a mapping that is writable lies within one section of this peer",
        one_section,
    )
    .of_whole_pages(),
    // bad input: `mmap` of a range that is not in the region => `ENXIO`; `EINVAL` inside a page, or without a length
    Test::new("offset and length out of range are refused", out_of_range),
    // bad input: `mprotect` of a read-only mapping to writable or executable => `EACCES`
    Test::new(
        "mprotect cannot make a read-only mapping writable or executable",
        no_upgrade,
    )
    .of_whole_pages(),
    Test::new(
        "mprotect can take the right to write away and give it back",
        downgrade,
    )
    .of_whole_pages(),
    // bad input: `mremap` to a larger size => `EFAULT`
    Test::new("mremap cannot grow a mapping", no_growth).of_whole_pages(),
    Test::new(
        "a mapping shows what pread shows, and stores through it arrive",
        contents,
    )
    .of_whole_pages(),
    Test::two_peers(
        "stores through a mapping are seen by the other peer",
        other_peer,
    )
    .of_whole_pages(),
    // bad input: a store to a read-only mapping => SIGSEGV, nothing changes
    Test::new(
        "a store to a read-only mapping kills the program and changes nothing",
        store_dies,
    )
    .of_whole_pages(),
    Test::new(
        "a mapping outlives the descriptor and a child inherits it",
        outlives,
    )
    .of_whole_pages(),
    Test::new(
        "a section that is not whole pages: info says so, mmap refuses, read and write reach it",
        partial_pages,
    )
    .of_partial_pages(),
    Test::new("MAP_POPULATE brings all pages in", populate).of_whole_pages(),
];

/// A way to open the file.
struct Mode {
    name: &'static str,
    file: File,
    readable: bool,
    writable: bool,
}

fn modes(env: &Env) -> Vec<Mode> {
    let mode = |name, readable, writable| Mode {
        name,
        file: open_file(env.node(), readable, writable, 0),
        readable,
        writable,
    };
    vec![
        mode("O_RDWR", true, true),
        mode("O_RDONLY", true, false),
        mode("O_WRONLY", false, true),
    ]
}

fn matrix(env: &Env) {
    let device = env.open();
    let page = rustix::param::page_size() as u64;
    let protections = [
        PROT_NONE,
        PROT_READ,
        PROT_WRITE,
        PROT_READ | PROT_WRITE,
        PROT_EXEC,
        PROT_READ | PROT_EXEC,
        PROT_READ | PROT_WRITE | PROT_EXEC,
    ];
    for (name, section) in sections(&device) {
        for mode in modes(env) {
            for protection in protections {
                let wants_write = protection & PROT_WRITE != 0;
                // The kernel wants an offset on a page, a readable file for any mapping, and for a
                // writable one a file open for both, before it asks the driver.
                let expected = if section.offset % page != 0 {
                    Err(Errno::INVAL)
                } else if !mode.readable || wants_write && !mode.writable {
                    Err(Errno::ACCESS)
                } else if protection & PROT_EXEC != 0 {
                    Err(Errno::PERM)
                } else if section.size % page != 0 {
                    Err(Errno::NXIO)
                } else if wants_write && !section.is_writable() {
                    Err(Errno::ACCESS)
                } else {
                    Ok(())
                };
                let (offset, length) = (section.offset as i64, section.size as usize);
                let got = raw::mmap(
                    Some(mode.file.as_fd()),
                    offset,
                    length,
                    protection,
                    MAP_SHARED,
                );
                assert_eq!(
                    got.map(drop),
                    expected,
                    "{name}, protection {protection:#x}, {}",
                    mode.name
                );
            }
        }
    }
}

fn private(env: &Env) {
    let device = env.open();
    for (name, section) in sections(&device) {
        for protection in [PROT_READ, PROT_READ | PROT_WRITE] {
            let (offset, length) = (section.offset as i64, section.size as usize);
            let got = raw::mmap(
                Some(device.as_fd()),
                offset,
                length,
                protection,
                MAP_PRIVATE,
            );
            assert_eq!(got.map(drop), Err(Errno::INVAL), "{name}");
        }
    }
}

fn whole(env: &Env) {
    let device = env.open();
    let size = device.info().region_size as usize;
    let map = |protection| raw::mmap(Some(device.as_fd()), 0, size, protection, MAP_SHARED);
    map(PROT_READ).expect("for reading");
    assert_eq!(map(PROT_READ | PROT_WRITE).map(drop), Err(Errno::ACCESS));
}

fn one_section(env: &Env) {
    let device = env.open();
    let page = rustix::param::page_size() as u64;
    let info = *device.info();
    for (offset, length) in [
        (info.rw.offset - page, 2 * page),
        (info.rw.end() - page, 2 * page),
        (info.output.offset - page, 2 * page),
        (info.output.end() - page, 2 * page),
        (info.rw.offset, info.outputs.end() - info.rw.offset),
    ] {
        if offset + length > info.region_size {
            continue;
        }
        let map = |protection| {
            let (offset, length) = (offset as i64, length as usize);
            raw::mmap(Some(device.as_fd()), offset, length, protection, MAP_SHARED).map(drop)
        };
        assert_eq!(
            map(PROT_READ | PROT_WRITE),
            Err(Errno::ACCESS),
            "at {offset:#x}"
        );
        assert_eq!(map(PROT_READ), Ok(()), "at {offset:#x}");
    }
    // A part of a section is fine.
    let last = (info.rw.end() - page) as i64;
    let rights = PROT_READ | PROT_WRITE;
    raw::mmap(
        Some(device.as_fd()),
        last,
        page as usize,
        rights,
        MAP_SHARED,
    )
    .expect("one page");
}

fn out_of_range(env: &Env) {
    let device = env.open();
    let page = rustix::param::page_size() as i64;
    let size = device.info().region_size as i64;
    let map = |offset: i64, length: i64| {
        let got = raw::mmap(
            Some(device.as_fd()),
            offset,
            length as usize,
            PROT_READ,
            MAP_SHARED,
        );
        got.map(drop)
    };
    assert_eq!(map(size, page), Err(Errno::NXIO), "behind the end");
    assert_eq!(
        map(size - page, 2 * page),
        Err(Errno::NXIO),
        "across the end"
    );
    assert_eq!(
        map(0, size + page),
        Err(Errno::NXIO),
        "larger than the region"
    );
    assert_eq!(map(1 << 40, page), Err(Errno::NXIO), "far behind the end");
    assert_eq!(map(1, page), Err(Errno::INVAL), "inside a page");
    assert_eq!(map(0, 0), Err(Errno::INVAL), "no length");
    let highest = i64::MAX & !(page - 1);
    let overflow = map(highest, page);
    let refused = [Errno::NXIO, Errno::OVERFLOW, Errno::INVAL];
    assert!(
        overflow.is_err_and(|error| refused.contains(&error)),
        "{overflow:?}"
    );
}

fn no_upgrade(env: &Env) {
    let (device, reader) = (env.open(), open_file(env.node(), true, false, 0));
    let info = *device.info();
    // Of a file open for both, for a section that may be written: read-only stays read-only.
    for (file, section) in [
        (device.as_fd(), info.state_table),
        (device.as_fd(), info.outputs),
        (reader.as_fd(), info.output),
        (reader.as_fd(), info.rw),
    ] {
        let (offset, length) = (section.offset as i64, section.size as usize);
        let map = raw::mmap(Some(file), offset, length, PROT_READ, MAP_SHARED).expect("map");
        for protection in [
            PROT_WRITE,
            PROT_READ | PROT_WRITE,
            PROT_EXEC,
            PROT_READ | PROT_EXEC,
        ] {
            let got = map.protect(protection);
            assert_eq!(got, Err(Errno::ACCESS), "{section:?} to {protection:#x}");
        }
        map.protect(PROT_NONE).expect("less is fine");
        map.protect(PROT_READ).expect("and back");
    }
    for section in [info.rw, info.output] {
        let (offset, length) = (section.offset as i64, section.size as usize);
        let file = Some(device.as_fd());
        let map = raw::mmap(file, offset, length, PROT_READ, MAP_SHARED).expect("map");
        let got = map.protect(PROT_READ | PROT_WRITE);
        assert_eq!(
            got,
            Err(Errno::ACCESS),
            "a mapping that is not writable never becomes so"
        );
    }
}

fn downgrade(env: &Env) {
    let device = env.open();
    let section = device.info().output;
    let (offset, length) = (section.offset as i64, section.size as usize);
    let rights = PROT_READ | PROT_WRITE;
    let map = raw::mmap(Some(device.as_fd()), offset, length, rights, MAP_SHARED).expect("map");
    map.store(0, 1);
    map.protect(PROT_READ).expect("take away");
    assert_eq!(map.load(0), 1);
    map.protect(rights).expect("give back");
    map.store(0, 2);
    assert_eq!(map.protect(rights | PROT_EXEC), Err(Errno::ACCESS));
    assert_eq!(device.read_word(section.offset), Ok(2));
}

fn no_growth(env: &Env) {
    let device = env.open();
    let page = rustix::param::page_size();
    let section = device.info().rw;
    let offset = section.offset as i64;
    let rights = PROT_READ | PROT_WRITE;
    let map = raw::mmap(Some(device.as_fd()), offset, page, rights, MAP_SHARED).expect("map");
    assert_eq!(map.grow(64 * page).map(drop), Err(Errno::FAULT));
}

fn contents(env: &Env) {
    let device = env.open();
    let info = *device.info();
    for section in [info.rw, info.output] {
        let map = device.map_mut(section).expect("map");
        for offset in (0..map.size()).step_by(1020) {
            let offset = offset / 4 * 4;
            let value = 0x5a00_0000 + offset as u32;
            map.word(offset)
                .expect("inside")
                .store(value, Ordering::Relaxed);
            let read = device.read_word(section.offset + offset as u64);
            assert_eq!(read, Ok(value), "at {offset:#x}");
        }
        device.write_word(section.end() - 4, 77).expect("write");
        let last = map.word(map.size() - 4).expect("inside");
        assert_eq!(last.load(Ordering::Relaxed), 77);
    }
    let table = device.map(info.state_table).expect("map");
    for peer in 0..info.max_peers {
        let word = table.word(peer as usize * 4).expect("inside");
        assert_eq!(
            word.load(Ordering::Relaxed),
            device.state(peer).expect("state")
        );
    }
}

fn other_peer(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let mine = device.map_mut(device.info().output).expect("map");
    let section = other.info().output_of(device.info().id).expect("exists");
    let theirs = other.map(section).expect("map");
    for value in 1..100 {
        mine.word(16)
            .expect("inside")
            .store(value, Ordering::Release);
        assert_eq!(
            theirs.word(16).expect("inside").load(Ordering::Acquire),
            value
        );
    }
    mine.write(101, b"across words").expect("inside");
    let mut bytes = [0; 12];
    theirs.read(101, &mut bytes).expect("inside");
    assert_eq!(&bytes, b"across words");
}

fn store_dies(env: &Env) {
    let device = env.open();
    let info = *device.info();
    for (section, file) in [
        (info.state_table, "rw"),
        (info.outputs, "rw"),
        (info.rw, "ro"),
    ] {
        let before = device.read_word(section.offset).expect("read");
        let node = env.node().to_str().expect("a plain name");
        let offset = section.offset.to_string();
        let end = helpers::start("store", &[node, file, &offset]).wait();
        assert_eq!(end.signal(), Some(libc::SIGSEGV), "{section:?}");
        assert_eq!(device.read_word(section.offset), Ok(before), "{section:?}");
    }
}

fn outlives(env: &Env) {
    let device = env.open();
    let section = device.info().rw;
    let map = device.map_mut(section).expect("map");
    let second = env.open();
    drop(device);
    map.word(0).expect("inside").store(4711, Ordering::Relaxed);
    assert_eq!(second.read_word(section.offset), Ok(4711));
    raw::in_child(|| map.word(0).expect("inside").store(4712, Ordering::Relaxed));
    assert_eq!(map.word(0).expect("inside").load(Ordering::Relaxed), 4712);
}

fn partial_pages(env: &Env) {
    let (device, page) = (env.open(), rustix::param::page_size());
    let size = device.info().region_size as usize;
    let map = |offset: u64, length: usize| {
        let file = Some(device.as_fd());
        raw::mmap(file, offset as i64, length, PROT_READ, MAP_SHARED).map(drop)
    };
    let is_whole = |value: u64| value % page as u64 == 0;
    let mut partial = 0;
    for (name, section) in sections(&device) {
        let whole = is_whole(section.offset) && is_whole(section.size);
        assert_eq!(section.is_mappable(), whole, "{name}");
        if whole {
            continue;
        }
        partial += 1;
        // The pages that it has a part in show it to nobody.
        let first = section.offset / page as u64 * page as u64;
        assert_eq!(map(first, page), Err(Errno::NXIO), "first page of {name}");
        let last = (section.end() - 1) / page as u64 * page as u64;
        assert_eq!(map(last, page), Err(Errno::NXIO), "last page of {name}");
        let library = device.map(section).map(drop);
        assert!(matches!(library, Err(ivshmem::Error::Map { .. })), "{name}");
        let mut byte = [0];
        for offset in [section.offset, section.end() - 1] {
            assert_eq!(device.read_at(&mut byte, offset), Ok(1), "{name}");
        }
        if section.is_writable() {
            assert_eq!(device.write_at(&[0x5a], section.end() - 1), Ok(1));
            assert_eq!(device.read_at(&mut byte, section.end() - 1), Ok(1));
            assert_eq!(byte, [0x5a], "{name}");
        }
    }
    assert!(partial > 0, "all sections are whole pages");
    assert_eq!(map(0, size), Err(Errno::NXIO), "the whole region");
}

fn populate(env: &Env) {
    let device = env.open();
    let size = device.info().region_size as usize;
    let flags = MAP_SHARED | libc::MAP_POPULATE;
    let map = raw::mmap(Some(device.as_fd()), 0, size, PROT_READ, flags).expect("map");
    let last = device.read_word(size as u64 - 4).expect("read");
    assert_eq!(map.load(size - 4), last);
}
