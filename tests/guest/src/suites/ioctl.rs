// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of all ioctls: numbers, sizes, reserved fields, pointers, rights.

use super::{drain, open_file, Env, Test};
use crate::raw::{self, bytes_of, bytes_of_mut, BadPointer};
use ivshmem::uapi::{
    self, ivshmem_doorbell, ivshmem_eventfd, ivshmem_events, ivshmem_info, ivshmem_state,
    ivshmem_subscribe,
};
use ivshmem::{ConnectOptions, Error, StateFlags};
use rustix::io::Errno;
use std::fs::File;

pub(super) const TESTS: &[Test] = &[
    // bad input: an unknown number => `ENOTTY`
    Test::new("an unknown number is ENOTTY", unknown_numbers),
    // bad input: a known number with another direction or magic => `ENOTTY`
    Test::new(
        "a known number with another direction or magic is ENOTTY",
        other_directions,
    ),
    // bad input: calls of channels on the device file => `ENOTTY`
    Test::new("calls of channels are ENOTTY", calls_of_channels),
    // bad input: connecting on a link without output sections => `EOPNOTSUPP`; peers see no state of us
    Test::new(
        "connect without output sections is EOPNOTSUPP, and our state stays",
        no_room_for_channels,
    )
    .only_if(|plan| plan.devices[0].output_size == 0),
    // bad input: a structure larger than the driver's, with a zero tail => accepted
    Test::new("a larger structure with a zero tail is accepted", zero_tail),
    // bad input: a structure larger than the driver's, with another tail => `E2BIG`
    Test::new(
        "a larger structure with a non-zero tail is E2BIG",
        non_zero_tail,
    ),
    Test::new(
        "a larger structure is filled with zeroes on the way out",
        filled_up,
    ),
    // bad input: a structure smaller than its first version => `EINVAL`, nothing is stored
    Test::new(
        "a structure smaller than its first version is EINVAL",
        too_small,
    ),
    // bad input: a reserved field that is not zero => `EINVAL`
    Test::new(
        "a reserved field that is not zero is EINVAL",
        reserved_fields,
    ),
    // bad input: an unknown flag, each of 32 => `EINVAL`
    Test::new("every unknown flag is EINVAL", unknown_flags),
    // bad input: a pointer that is no memory, or memory that cannot be written => `EFAULT`
    Test::new("a bad pointer is EFAULT", bad_pointers),
    // bad input: a peer or vector that the link does not have => `ENXIO`
    Test::new("peer or vector out of range is ENXIO", out_of_range),
    // bad input: publishing another peer's state => `ENXIO`
    Test::new(
        "publishing the state of another peer is ENXIO",
        foreign_state,
    ),
    // bad input: publishing or ringing through a file open for reading only => `EBADF`
    Test::new(
        "what changes something is EBADF on a file open for reading only",
        read_only_file,
    ),
    // bad input: the same through a file opened with access mode 3 => `EBADF`
    Test::new(
        "what changes something is EBADF on a file opened for ioctls only (access mode 3)",
        ioctl_only_file,
    ),
    // bad input: fetching into an array of 0 records, or of records of a size that cannot be => `EINVAL`
    Test::new(
        "capacity 0 and record sizes that cannot be are EINVAL",
        bad_event_requests,
    ),
    // bad input: a place for events that is no memory => `EFAULT`, and the events are still there
    Test::new(
        "a place for records that is no memory is EFAULT, and nothing is lost",
        bad_records,
    ),
    // bad input: all of these => no state has changed, nobody was rung
    Test::new(
        "refused calls have changed nothing and rung nobody",
        no_effect,
    ),
];

/// The number of a call with another size of its structure.
fn sized(call: u32, size: usize) -> u32 {
    (call & !(0x3fff << 16)) | ((size as u32) << 16)
}

fn open(env: &Env) -> File {
    open_file(env.node(), true, true, 0)
}

/// Calls that take a structure, with a request that would be carried out.
fn good_requests(env: &Env) -> Vec<(u32, Vec<u8>)> {
    let own = env.expected().peer;
    let state = ivshmem_state {
        peer: own,
        ..Default::default()
    };
    let doorbell = ivshmem_doorbell {
        peer: own,
        ..Default::default()
    };
    vec![
        (uapi::IVSHMEM_IOC_GET_STATE, bytes_of(&state).to_vec()),
        (uapi::IVSHMEM_IOC_SET_STATE, bytes_of(&state).to_vec()),
        (uapi::IVSHMEM_IOC_DOORBELL, bytes_of(&doorbell).to_vec()),
        (
            uapi::IVSHMEM_IOC_EVENTS,
            bytes_of(&events_request()).to_vec(),
        ),
        (
            uapi::IVSHMEM_IOC_SUBSCRIBE,
            bytes_of(&subscribe_request()).to_vec(),
        ),
        (
            uapi::IVSHMEM_IOC_EVENTFD,
            bytes_of(&eventfd_request()).to_vec(),
        ),
    ]
}

/// A request to be told of everything, as every file is.
fn subscribe_request() -> ivshmem_subscribe {
    ivshmem_subscribe {
        kind: uapi::IVSHMEM_EVENT_DOORBELL,
        index: uapi::IVSHMEM_INDEX_ALL,
        ..Default::default()
    }
}

/// A request to take an eventfd off that is not there.
fn eventfd_request() -> ivshmem_eventfd {
    ivshmem_eventfd {
        kind: uapi::IVSHMEM_EVENT_DOORBELL,
        index: uapi::IVSHMEM_INDEX_ALL,
        fd: -1,
        flags: 0,
    }
}

/// A request for events that stores nothing, as there are none.
fn events_request() -> ivshmem_events {
    ivshmem_events {
        records: 0,
        capacity: 1,
        record_size: 48,
        deadline: u64::from(uapi::IVSHMEM_DEADLINE_NOW),
        ..Default::default()
    }
}

/// What the kernel says to a good request: events there are none.
fn good_answer(call: u32) -> raw::Outcome {
    if call & 0xff == uapi::IVSHMEM_IOC_EVENTS & 0xff {
        Err(Errno::AGAIN)
    } else {
        Ok(0)
    }
}

fn unknown_numbers(env: &Env) {
    let file = open(env);
    let mut bytes = [0; 0x3fff];
    let magic = uapi::IVSHMEM_IOC_MAGIC << 8;
    for number in (0x08..0x40).chain(0x44..=0xff) {
        for direction in 0..4 {
            for size in [0, 16, 40] {
                let call = (direction << 30) | (size << 16) | magic | number;
                let got = raw::ioctl(&file, call, &mut bytes);
                assert_eq!(got, Err(Errno::NOTTY), "number {call:#x}");
            }
        }
    }
    for call in [0, 0xff, u32::MAX, magic, 0x1234_5678] {
        assert_eq!(
            raw::ioctl(&file, call, &mut bytes),
            Err(Errno::NOTTY),
            "number {call:#x}"
        );
    }
}

fn other_directions(env: &Env) {
    let file = open(env);
    let mut bytes = [0; 256];
    for (call, _) in good_requests(env) {
        for direction in 0..4 {
            let other = (call & 0x3fff_ffff) | (direction << 30);
            if other != call {
                let got = raw::ioctl(&file, other, &mut bytes);
                assert_eq!(got, Err(Errno::NOTTY), "number {other:#x}");
            }
        }
        let other = (call & !0xff00) | 0xea00;
        assert_eq!(
            raw::ioctl(&file, other, &mut bytes),
            Err(Errno::NOTTY),
            "magic"
        );
    }
}

fn no_room_for_channels(env: &Env) {
    let device = env.open();
    let own = device.info().id;
    let peer = (0..device.info().max_peers)
        .find(|&peer| peer != own)
        .expect("another");
    device
        .set_state(7, StateFlags::default().keep())
        .expect("publish");
    drop(device);
    let device = env.open();
    let refused = device.connect(peer, ConnectOptions::new()).map(drop);
    assert_eq!(refused, Err(Error::NoRoomForChannels));
    assert_eq!(device.state(own), Ok(7), "nothing was claimed");
    device.set_state(0, StateFlags::default()).expect("publish");
}

fn calls_of_channels(env: &Env) {
    let file = open(env);
    let mut bytes = [0; 256];
    for call in [
        uapi::IVSHMEM_CHANNEL_IOC_STATUS,
        uapi::IVSHMEM_CHANNEL_IOC_ACK,
        uapi::IVSHMEM_CHANNEL_IOC_WAIT,
        uapi::IVSHMEM_CHANNEL_IOC_EVENTFD,
    ] {
        assert_eq!(
            raw::ioctl(&file, call, &mut bytes),
            Err(Errno::NOTTY),
            "number {call:#x}"
        );
    }
}

fn zero_tail(env: &Env) {
    for (call, request) in good_requests(env) {
        for extra in [1, 4, 8, 100, 4096, 0x3fff - request.len()] {
            let witness = env.open();
            let mut larger = request.clone();
            larger.resize(request.len() + extra, 0);
            let got = raw::ioctl(&witness, sized(call, larger.len()), &mut larger);
            let wanted = good_answer(call);
            assert_eq!(got, wanted, "number {call:#x}, {extra} bytes more");
            if call == uapi::IVSHMEM_IOC_DOORBELL {
                // Or it would be an event for the next file.
                assert_eq!(super::count_doorbells(&witness, 0, 1), 1);
            }
        }
    }
}

fn non_zero_tail(env: &Env) {
    let file = open(env);
    for (call, request) in good_requests(env) {
        for (extra, at) in [(1, 0), (8, 0), (8, 7), (100, 50), (4096, 4095)] {
            let mut larger = request.clone();
            larger.resize(request.len() + extra, 0);
            larger[request.len() + at] = 1;
            let got = raw::ioctl(&file, sized(call, larger.len()), &mut larger);
            assert_eq!(
                got,
                Err(Errno::TOOBIG),
                "number {call:#x}, {extra} bytes more"
            );
        }
    }
}

fn filled_up(env: &Env) {
    let file = open(env);
    let size = size_of::<ivshmem_info>();
    let mut bytes = vec![0xaa; size + 64];
    let call = sized(uapi::IVSHMEM_IOC_INFO, size + 40);
    assert_eq!(raw::ioctl(&file, call, &mut bytes), Ok(0));
    assert_eq!(bytes[size..size + 40], [0; 40], "the tail");
    assert_eq!(bytes[size + 40..], [0xaa; 24], "behind the tail");
    let mut info = ivshmem_info::default();
    bytes_of_mut(&mut info).copy_from_slice(&bytes[..size]);
    assert_eq!(info.max_peers, env.expected().peers);
}

fn too_small(env: &Env) {
    let file = open(env);
    let calls = good_requests(env).into_iter().map(|(call, _)| call);
    for call in calls.chain([uapi::IVSHMEM_IOC_INFO]) {
        let size = raw::size_of_call(call);
        for smaller in [0, 1, 4, size / 2, size - 4, size - 1] {
            let mut bytes = vec![0; size];
            let got = raw::ioctl(&file, sized(call, smaller), &mut bytes);
            assert_eq!(
                got,
                Err(Errno::INVAL),
                "number {call:#x} with {smaller} bytes"
            );
            assert_eq!(bytes, vec![0; size], "something was stored");
        }
    }
}

fn reserved_fields(env: &Env) {
    let file = open(env);
    let own = env.expected().peer;
    for reserved in [1, 0x8000_0000, u32::MAX] {
        let mut state = ivshmem_state {
            peer: own,
            reserved,
            ..Default::default()
        };
        for call in [uapi::IVSHMEM_IOC_GET_STATE, uapi::IVSHMEM_IOC_SET_STATE] {
            let got = raw::ioctl(&file, call, bytes_of_mut(&mut state));
            assert_eq!(got, Err(Errno::INVAL), "number {call:#x}");
        }
        let mut doorbell = ivshmem_doorbell {
            peer: own,
            reserved,
            ..Default::default()
        };
        let got = raw::ioctl(
            &file,
            uapi::IVSHMEM_IOC_DOORBELL,
            bytes_of_mut(&mut doorbell),
        );
        assert_eq!(got, Err(Errno::INVAL));
    }
}

fn unknown_flags(env: &Env) {
    let file = open(env);
    let own = env.expected().peer;
    let known = uapi::IVSHMEM_STATE_TAKE_OVER | uapi::IVSHMEM_STATE_KEEP;
    for flags in (0..32).map(|bit| 1 << bit) {
        let mut state = ivshmem_state {
            peer: own,
            flags,
            ..Default::default()
        };
        let got = raw::ioctl(&file, uapi::IVSHMEM_IOC_GET_STATE, bytes_of_mut(&mut state));
        assert_eq!(got, Err(Errno::INVAL), "get state, flags {flags:#x}");
        if flags & known == 0 {
            let got = raw::ioctl(&file, uapi::IVSHMEM_IOC_SET_STATE, bytes_of_mut(&mut state));
            assert_eq!(got, Err(Errno::INVAL), "set state, flags {flags:#x}");
        }
        let mut doorbell = ivshmem_doorbell {
            peer: own,
            flags,
            ..Default::default()
        };
        let got = raw::ioctl(
            &file,
            uapi::IVSHMEM_IOC_DOORBELL,
            bytes_of_mut(&mut doorbell),
        );
        assert_eq!(got, Err(Errno::INVAL), "doorbell, flags {flags:#x}");
        let mut events = ivshmem_events {
            flags,
            ..events_request()
        };
        let got = raw::ioctl(&file, uapi::IVSHMEM_IOC_EVENTS, bytes_of_mut(&mut events));
        assert_eq!(got, Err(Errno::INVAL), "events, flags {flags:#x}");
        let mut eventfd = ivshmem_eventfd {
            flags,
            ..eventfd_request()
        };
        let got = raw::ioctl(&file, uapi::IVSHMEM_IOC_EVENTFD, bytes_of_mut(&mut eventfd));
        assert_eq!(got, Err(Errno::INVAL), "eventfd, flags {flags:#x}");
        if flags != uapi::IVSHMEM_SUBSCRIBE_OFF {
            let mut subscribe = ivshmem_subscribe {
                flags,
                ..subscribe_request()
            };
            let bytes = bytes_of_mut(&mut subscribe);
            let got = raw::ioctl(&file, uapi::IVSHMEM_IOC_SUBSCRIBE, bytes);
            assert_eq!(got, Err(Errno::INVAL), "subscribe, flags {flags:#x}");
        }
    }
}

fn bad_pointers(env: &Env) {
    let file = open(env);
    let calls = good_requests(env).into_iter().map(|(call, _)| call);
    for call in calls.chain([uapi::IVSHMEM_IOC_INFO]) {
        for pointer in BadPointer::ALL {
            let got = raw::ioctl_bad(&file, call, pointer);
            assert_eq!(got, Err(Errno::FAULT), "number {call:#x}, {pointer:?}");
        }
        // Memory that can be read and not written: for calls that answer.
        let page = rustix::param::page_size();
        let answers = call >> 31 == 1;
        if answers && call != uapi::IVSHMEM_IOC_EVENTS {
            let rights = libc::PROT_READ;
            let map = raw::mmap(None, 0, page, rights, libc::MAP_PRIVATE).expect("memory");
            assert_eq!(
                map.ioctl(&file, call),
                Err(Errno::FAULT),
                "number {call:#x}"
            );
        }
    }
}

fn out_of_range(env: &Env) {
    let file = open(env);
    let expected = env.expected();
    for peer in [
        expected.peers,
        expected.peers + 1,
        0xffff,
        0x1_0000,
        u32::MAX,
    ] {
        let mut state = ivshmem_state {
            peer,
            ..Default::default()
        };
        for call in [uapi::IVSHMEM_IOC_GET_STATE, uapi::IVSHMEM_IOC_SET_STATE] {
            let got = raw::ioctl(&file, call, bytes_of_mut(&mut state));
            assert_eq!(got, Err(Errno::NXIO), "peer {peer}");
        }
        let mut doorbell = ivshmem_doorbell {
            peer,
            ..Default::default()
        };
        let got = raw::ioctl(
            &file,
            uapi::IVSHMEM_IOC_DOORBELL,
            bytes_of_mut(&mut doorbell),
        );
        assert_eq!(got, Err(Errno::NXIO), "peer {peer}");
    }
    for vector in [
        expected.vectors,
        expected.vectors + 1,
        0xffff,
        0x1_0000,
        u32::MAX,
    ] {
        let mut doorbell = ivshmem_doorbell {
            peer: expected.peer,
            vector,
            ..Default::default()
        };
        let got = raw::ioctl(
            &file,
            uapi::IVSHMEM_IOC_DOORBELL,
            bytes_of_mut(&mut doorbell),
        );
        assert_eq!(got, Err(Errno::NXIO), "vector {vector}");
    }
}

fn foreign_state(env: &Env) {
    let file = open(env);
    let own = env.expected().peer;
    for peer in (0..env.expected().peers).filter(|&peer| peer != own) {
        let mut state = ivshmem_state {
            peer,
            value: 5,
            ..Default::default()
        };
        let got = raw::ioctl(&file, uapi::IVSHMEM_IOC_SET_STATE, bytes_of_mut(&mut state));
        assert_eq!(got, Err(Errno::NXIO), "peer {peer}");
    }
}

fn read_only_file(env: &Env) {
    changes_nothing(env, &open_file(env.node(), true, false, 0));
}

/// Access mode 3 of open(2) gives a descriptor for ioctls only: it can neither read nor write.
fn ioctl_only_file(env: &Env) {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::CLOEXEC | OFlags::from_bits_retain(3);
    let file = rustix::fs::open(env.node(), flags, Mode::empty()).expect("open");
    changes_nothing(env, &File::from(file));
}

/// What changes something is refused, what does not is carried out.
fn changes_nothing(env: &Env, file: &File) {
    for (call, mut request) in good_requests(env) {
        let number = call & 0xff;
        let changes = number == uapi::IVSHMEM_IOC_SET_STATE & 0xff
            || number == uapi::IVSHMEM_IOC_DOORBELL & 0xff;
        let wanted = if changes {
            Err(Errno::BADF)
        } else {
            good_answer(call)
        };
        assert_eq!(
            raw::ioctl(file, call, &mut request),
            wanted,
            "number {call:#x}"
        );
    }
    let mut info = ivshmem_info::default();
    assert_eq!(
        raw::ioctl(file, uapi::IVSHMEM_IOC_INFO, bytes_of_mut(&mut info)),
        Ok(0)
    );
}

fn bad_event_requests(env: &Env) {
    let file = open(env);
    let ask = |request: ivshmem_events| {
        let mut request = request;
        raw::ioctl(&file, uapi::IVSHMEM_IOC_EVENTS, bytes_of_mut(&mut request))
    };
    let none = ivshmem_events {
        capacity: 0,
        ..events_request()
    };
    assert_eq!(ask(none), Err(Errno::INVAL), "capacity 0");
    for record_size in [0, 8, 40, 47, 49, 52, 4097, 4104, 1 << 31, u32::MAX] {
        let request = ivshmem_events {
            record_size,
            ..events_request()
        };
        assert_eq!(
            ask(request),
            Err(Errno::INVAL),
            "records of {record_size} bytes"
        );
    }
    for record_size in [48, 56, 4096] {
        let request = ivshmem_events {
            record_size,
            capacity: u32::MAX,
            ..events_request()
        };
        assert_eq!(
            ask(request),
            Err(Errno::AGAIN),
            "records of {record_size} bytes"
        );
    }
}

fn bad_records(env: &Env) {
    let device = env.open();
    let own = env.expected().peer;
    device.ring(own, 0).expect("ring");
    for records in [0, 16, 0xffff_8880_0000_1000, u64::MAX - 47, u64::MAX] {
        let mut request = ivshmem_events {
            records,
            capacity: 4,
            deadline: ivshmem::Deadline::after(super::soon()).as_nanos(),
            ..events_request()
        };
        let got = raw::ioctl(
            &device,
            uapi::IVSHMEM_IOC_EVENTS,
            bytes_of_mut(&mut request),
        );
        assert_eq!(got, Err(Errno::FAULT), "records at {records:#x}");
    }
    assert_eq!(
        super::count_doorbells(&device, 0, 1),
        1,
        "the event is still there"
    );
}

fn no_effect(env: &Env) {
    let watcher = env.open();
    unknown_numbers(env);
    non_zero_tail(env);
    too_small(env);
    reserved_fields(env);
    unknown_flags(env);
    bad_pointers(env);
    out_of_range(env);
    foreign_state(env);
    for peer in 0..env.expected().peers {
        assert_eq!(watcher.state(peer), Ok(0), "peer {peer}");
    }
    assert_eq!(drain(&watcher), [], "somebody was rung");
}
