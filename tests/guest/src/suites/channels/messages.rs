// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages: borders, order, sizes, and what a channel's descriptor is.

use super::{
    comes, content, ends, ends_with, fill, largest, patterned, while_waiting, Ends, Env, Test,
    READ, WRITE,
};
use crate::raw;
use ivshmem::{Channel, ConnectOptions, Error};
use rustix::event::PollFlags;
use rustix::fs::OFlags;
use rustix::io::{Errno, FdFlags};
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

pub(in super::super) const TESTS: &[Test] = &[
    Test::two_peers(
        "one write is one message, one read is one message, both ways",
        one_each,
    ),
    Test::two_peers(
        "messages of every length, and of the largest, go around the ring unchanged",
        lengths,
    ),
    Test::two_peers(
        "messages in both directions at once keep their borders and their order",
        both_ways,
    ),
    // bad input: reading a message into a buffer that is too small => `EMSGSIZE`; the message stays, FIONREAD tells its size
    Test::two_peers(
        "a buffer that is too small is EMSGSIZE, and the message stays",
        small_buffer,
    ),
    Test::two_peers(
        "FIONREAD tells the size of the next message, 0 if there is none",
        next_size,
    ),
    // bad input: writing 0 bytes to a channel => `EINVAL`
    Test::two_peers("a message of no bytes is EINVAL", empty),
    // bad input: writing more than the largest message => `EMSGSIZE`, nothing is sent
    Test::two_peers(
        "a message larger than the largest is EMSGSIZE, and nothing is sent",
        too_large,
    ),
    Test::two_peers(
        "readv and writev: one message, whatever its parts",
        vectors,
    ),
    // bad input: reading without a message, or writing without room, with O_NONBLOCK => `EAGAIN`
    Test::two_peers(
        "O_NONBLOCK: EAGAIN without a message and without room, by connect and by fcntl",
        nonblocking,
    ),
    Test::two_peers("read waits for a message", read_waits),
    Test::two_peers("write waits for room", write_waits),
    // bad input: `lseek`, `pread`, `pwrite` on a channel => `ESPIPE`; `mmap`, `ftruncate` => refused
    Test::two_peers(
        "a channel has no position: lseek, pread and pwrite are ESPIPE",
        no_position,
    ),
    Test::two_peers(
        "the descriptor is close-on-exec, for reading and writing, and lives without the device's file",
        descriptor,
    ),
];

/// Sends and receives one message.
fn exchange(from: &Channel, to: &Channel, message: &[u8]) {
    from.send(message).expect("send");
    let got = to.receive_message().expect("receive");
    assert_eq!(got.as_deref(), Some(message), "{} bytes", message.len());
}

fn one_each(env: &Env) {
    let Ends { near, far } = ends(env);
    for (from, to) in [(&near, &far), (&far, &near)] {
        let messages: Vec<_> = (1..=10).map(content).collect();
        for message in &messages {
            assert_eq!(rustix::io::write(from, message), Ok(message.len()));
        }
        let mut buffer = vec![0xee; 4096];
        for message in &messages {
            assert_eq!(rustix::io::read(to, &mut buffer), Ok(message.len()));
            assert_eq!(&buffer[..message.len()], message);
        }
    }
}

fn lengths(env: &Env) {
    let Ends { near, far } = ends(env);
    let largest = largest(&near);
    let short = 1..=300;
    let some = (301..largest).step_by(97);
    let last = largest.saturating_sub(9)..=largest;
    for length in short.chain(some).chain(last) {
        exchange(&near, &far, &patterned(length as u64, length));
    }
    // Small ones behind the largest, so that records begin everywhere.
    for number in 0..60 {
        exchange(&far, &near, &patterned(number, largest - number as usize));
        exchange(&far, &near, &patterned(number, 1 + number as usize));
    }
}

fn both_ways(env: &Env) {
    const COUNT: u64 = 500;
    let Ends { near, far } = ends(env);
    let send = |channel: &Channel| {
        for number in 1..=COUNT {
            channel.send(&content(number)).expect("send");
        }
    };
    let receive = |channel: &Channel| {
        for number in 1..=COUNT {
            let message = channel.receive_message().expect("receive");
            assert!(message == Some(content(number)), "number {number}");
        }
    };
    std::thread::scope(|scope| {
        for channel in [&near, &far] {
            scope.spawn(move || send(channel));
            scope.spawn(move || receive(channel));
        }
    });
    for channel in [&near, &far] {
        channel.flush().expect("all is confirmed");
        let status = channel.status().expect("status");
        assert_eq!((status.sent, status.confirmed), (COUNT, COUNT));
        assert_eq!((status.received, status.acknowledged), (COUNT, COUNT));
    }
}

fn small_buffer(env: &Env) {
    let Ends { near, far } = ends(env);
    let message = patterned(1, 100);
    near.send(&message).expect("send");
    near.send(b"next").expect("send");
    let mut buffer = [0xee; 99];
    for length in [1, 50, 99] {
        comes(&far, PollFlags::IN);
        let got = far.receive(&mut buffer[..length]);
        assert_eq!(got, Err(Error::BufferTooSmall { size: 100 }));
    }
    assert_eq!(buffer, [0xee; 99], "nothing was stored");
    assert_eq!(far.status().expect("status").received, 0);
    assert_eq!(far.receive_message(), Ok(Some(message)));
    assert_eq!(far.receive_message(), Ok(Some(b"next".to_vec())));
}

fn next_size(env: &Env) {
    let Ends { near, far } = ends(env);
    assert_eq!(rustix::io::ioctl_fionread(&far), Ok(0));
    for size in [77, 1, 300] {
        near.send(&patterned(size, size as usize)).expect("send");
    }
    comes(&far, PollFlags::IN);
    for size in [77, 1, 300] {
        assert_eq!(rustix::io::ioctl_fionread(&far), Ok(size));
        assert_eq!(
            rustix::io::ioctl_fionread(&far),
            Ok(size),
            "it takes nothing"
        );
        far.receive_message().expect("receive");
    }
    assert_eq!(far.next_size(), Ok(None));
}

fn empty(env: &Env) {
    let Ends { near, far } = ends(env);
    assert_eq!(rustix::io::write(&near, &[]), Err(Errno::INVAL));
    assert_eq!(near.send(&[]), Err(Error::Empty));
    assert_eq!(near.status().expect("status").sent, 0);
    exchange(&near, &far, b"still at work");
}

fn too_large(env: &Env) {
    let Ends { near, far } = ends(env);
    let largest = largest(&near);
    let message = vec![1; largest + 1_000_000];
    for length in [largest + 1, largest + 8, largest * 2, message.len()] {
        let got = near.send(&message[..length]);
        let max = largest as u32;
        assert_eq!(got, Err(Error::TooLarge { length, max }));
    }
    assert_eq!(near.status().expect("status").sent, 0);
    exchange(&near, &far, &message[..largest]);
    // Also where there is nothing to wait for but room.
    near.set_nonblocking(true).expect("fcntl");
    let got = near.send(&message[..largest + 1]);
    assert!(matches!(got, Err(Error::TooLarge { .. })), "{got:?}");
}

fn vectors(env: &Env) {
    let Ends { near, far } = ends(env);
    let message = patterned(5, 333);
    let parts: Vec<_> = [0..1, 1..1, 1..8, 8..200, 200..200, 200..333]
        .into_iter()
        .map(|range| IoSlice::new(&message[range]))
        .collect();
    near.send_vectored(&parts).expect("send");
    near.send(b"behind").expect("send");
    let (mut first, mut none, mut second, mut rest) = ([0; 7], [0; 0], [0; 300], [0xee; 100]);
    let got = far.receive_vectored(&mut [
        IoSliceMut::new(&mut first),
        IoSliceMut::new(&mut none),
        IoSliceMut::new(&mut second),
        IoSliceMut::new(&mut rest),
    ]);
    assert_eq!(got, Ok(Some(333)));
    let all = [&first[..], &second[..], &rest[..26]].concat();
    assert!(all == message);
    assert_eq!(rest[26..], [0xee; 74], "nothing behind the message");
    let got = far.receive_vectored(&mut [IoSliceMut::new(&mut first[..3])]);
    assert_eq!(got, Err(Error::BufferTooSmall { size: 6 }));
    assert_eq!(far.receive_message(), Ok(Some(b"behind".to_vec())));
}

fn nonblocking(env: &Env) {
    let options = ConnectOptions::new().nonblocking(true);
    let Ends { near, far } = ends_with(env, options, ConnectOptions::new());
    let flags = rustix::fs::fcntl_getfl(&near).expect("fcntl");
    assert!(flags.contains(OFlags::NONBLOCK), "{flags:?}");
    assert_eq!(near.receive_message(), Err(Error::WouldBlock));
    far.set_nonblocking(true).expect("fcntl");
    assert_eq!(far.receive_message(), Err(Error::WouldBlock));
    for length in [1, 64, 500] {
        let count = fill(&near, length);
        assert!(count * (length as u64) < (largest(&near) + 8) as u64);
        for number in 1..=count {
            comes(&far, PollFlags::IN);
            assert_eq!(far.receive_message(), Ok(Some(patterned(number, length))));
        }
        assert_eq!(far.receive_message(), Err(Error::WouldBlock));
        comes(&near, PollFlags::OUT);
    }
}

fn read_waits(env: &Env) {
    const COUNT: u32 = 20;
    let Ends { near, far } = ends(env);
    let mut waited = Duration::ZERO;
    for number in 1..=COUNT.into() {
        let ((got, woken), sent) = while_waiting(
            READ,
            || (far.receive(&mut [0; 1000]), Instant::now()),
            || {
                let now = Instant::now();
                near.send(&content(number)).expect("send");
                now
            },
        );
        assert_eq!(got, Ok(Some(content(number).len())));
        waited += woken.saturating_duration_since(sent);
    }
    // A look once a second finds what nobody was told of; all of them would come from there then.
    assert!(waited < COUNT * Duration::from_millis(300), "{waited:?}");
}

fn write_waits(env: &Env) {
    let Ends { near, far } = ends(env);
    let largest = largest(&near);
    for _ in 0..3 {
        let count = fill(&near, 100);
        let (got, ()) = while_waiting(
            WRITE,
            || near.send(&patterned(99, largest)),
            || {
                for number in 1..=count {
                    assert_eq!(far.receive_message(), Ok(Some(patterned(number, 100))));
                }
            },
        );
        assert_eq!(got, Ok(()));
        assert_eq!(far.receive_message(), Ok(Some(patterned(99, largest))));
    }
}

fn no_position(env: &Env) {
    let Ends { near, far } = ends(env);
    far.send(b"a message").expect("send");
    for whence in [libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END] {
        assert_eq!(raw::lseek(&near, 0, whence), Err(Errno::SPIPE));
    }
    assert_eq!(raw::pread(&near, &mut [0; 100], 0), Err(Errno::SPIPE));
    assert_eq!(raw::pwrite(&near, &[0; 8], 0), Err(Errno::SPIPE));
    let page = rustix::param::page_size();
    let map = raw::mmap(
        Some(near.as_fd()),
        0,
        page,
        libc::PROT_READ,
        libc::MAP_SHARED,
    );
    assert_eq!(map.map(drop), Err(Errno::NODEV));
    assert_eq!(rustix::fs::ftruncate(&near, 0), Err(Errno::INVAL));
    assert_eq!(near.receive_message(), Ok(Some(b"a message".to_vec())));
}

fn descriptor(env: &Env) {
    // `ends` closes the files of the devices.
    let Ends { near, far } = ends(env);
    let flags = rustix::io::fcntl_getfd(&near).expect("fcntl");
    assert_eq!(flags, FdFlags::CLOEXEC);
    let flags = rustix::fs::fcntl_getfl(&near).expect("fcntl");
    assert!(!flags.contains(OFlags::NONBLOCK), "{flags:?}");
    assert_eq!(flags & OFlags::RWMODE, OFlags::RDWR);
    exchange(&near, &far, b"without the device's file");
    let copy = near.as_fd().try_clone_to_owned().expect("dup");
    drop(near);
    let copy = Channel::try_from(copy).expect("a channel");
    exchange(&copy, &far, b"through a copy");
    exchange(&far, &copy, b"and back");
}
