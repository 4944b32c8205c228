// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who may have a channel: arguments, rights, and raw use of the device beside it; buffers that are wrong.

use super::{
    call, connect_near, content, ends, largest, patterned, soon, while_waiting, Ends, Env, Test,
    READ, WRITE,
};
use crate::raw::{self, BadPointer, Unresolved};
use crate::suites::open_file;
use crate::system;
use ivshmem::uapi::{self, ivshmem_connect};
use ivshmem::{ConnectOptions, Deadline, Device, Error, StateFlags};
use rustix::io::Errno;

pub(in super::super) const TESTS: &[Test] = &[
    // bad input: connecting to a peer that the link does not have, to oneself, or to another port than 0 => `ENXIO`
    Test::two_peers(
        "connect to no peer, to oneself, to another port is ENXIO",
        no_such,
    ),
    // bad input: connecting with an unknown flag or a reserved field that is not zero => `EINVAL`
    Test::two_peers("connect with unknown flags is EINVAL", unknown_flags),
    // bad input: connecting through a file that is not open for reading and writing => `EBADF`
    Test::two_peers("connect needs a file open for reading and writing", rights),
    // bad input: connecting a channel that is open => `EBUSY`, through whatever file
    Test::two_peers("a channel has one owner: the second is EBUSY", one_owner),
    // bad input: connecting while a file owns the state => `EBUSY`
    Test::two_peers("connect is EBUSY while a file owns the state", state_owner),
    // bad input: connecting while a writable mapping exists => `EBUSY`
    Test::two_peers("connect is EBUSY while a writable mapping exists", mapped).of_whole_pages(),
    // bad input: raw writes, writable mappings and publishing a state while a channel is open => `EBUSY`
    Test::two_peers(
        "raw writes, writable mappings and states are EBUSY while a channel is open",
        excluded,
    )
    .of_whole_pages(),
    // bad input: `pwrite` from the read/write section into one's own output section while a channel is open => as many bytes as lie before it
    Test::two_peers(
        "a raw write before the output section is cut short there while a channel is open",
        cut_short,
    )
    .only_if(|plan| plan.devices.len() >= 2 && plan.devices[0].peer == 0),
    Test::two_peers("looking and ringing go on while a channel is open", allowed).of_whole_pages(),
    // bad input: calls of the device on a channel, and of channels on a device => `ENOTTY`
    Test::two_peers(
        "calls of the device on a channel are ENOTTY, and the reverse",
        other_calls,
    ),
    // bad input: a structure of a channel's call that is smaller, or larger with a tail => `EINVAL`, `E2BIG`
    Test::two_peers(
        "structures of channels' calls may grow: sizes and tails",
        sizes,
    ),
    // bad input: a buffer for a message that is no memory, or ends in none => `EFAULT`; the message stays, or is not sent
    Test::two_peers(
        "a bad buffer is EFAULT: nothing is sent, and a message stays",
        bad_buffers,
    ),
    // bad input: a buffer whose pages do not come (userfaultfd) => the call waits for them, nobody else does
    Test::two_peers(
        "a buffer that comes late: write and read wait for it, other threads do not",
        late_buffers,
    ),
];

/// Connects with any arguments; only for those that are refused.
fn refused(device: &Device, request: ivshmem_connect) -> Errno {
    let (got, _) = call(device, uapi::IVSHMEM_IOC_CONNECT, request);
    got.expect_err("refused")
}

fn no_such(env: &Env) {
    let device = env.open();
    let peers = device.info().max_peers;
    for peer in [device.info().id, peers, peers + 1, 1 << 16, u32::MAX] {
        let got = device.connect(peer, ConnectOptions::new()).map(drop);
        let wanted = Error::NoSuchChannel {
            peer,
            port: 0,
            id: device.info().id,
            max_peers: peers,
        };
        assert_eq!(got, Err(wanted), "peer {peer}");
    }
    for port in [1, 2, 0xffff, u32::MAX] {
        let peer = env.other_expected().peer;
        let got = device.connect(peer, ConnectOptions::new().port(port));
        let errno = got.map(drop).map_err(|error| error.errno());
        assert_eq!(errno, Err(Some(Errno::NXIO)), "port {port}");
    }
    assert_eq!(
        device.state(device.info().id),
        Ok(0),
        "nothing is published"
    );
}

fn unknown_flags(env: &Env) {
    let device = env.open();
    let peer = env.other_expected().peer;
    let known = uapi::IVSHMEM_CONNECT_EXPLICIT_ACK | uapi::IVSHMEM_CONNECT_NONBLOCK;
    for bit in (0..32)
        .map(|bit| 1_u32 << bit)
        .filter(|bit| bit & known == 0)
    {
        let request = ivshmem_connect {
            peer,
            flags: bit | known,
            ..Default::default()
        };
        assert_eq!(refused(&device, request), Errno::INVAL, "{bit:#x}");
    }
    let request = ivshmem_connect {
        peer,
        reserved: 1,
        ..Default::default()
    };
    assert_eq!(refused(&device, request), Errno::INVAL);
}

fn rights(env: &Env) {
    let peer = env.other_expected().peer;
    let request = ivshmem_connect {
        peer,
        ..Default::default()
    };
    for (read, write) in [(true, false), (false, true)] {
        let file = open_file(env.node(), read, write, 0);
        let (got, _) = call(&file, uapi::IVSHMEM_IOC_CONNECT, request);
        assert_eq!(got, Err(Errno::BADF), "read {read}, write {write}");
    }
    let device = Device::options().read_only(true).open(env.node());
    let got = device.expect("open").connect(peer, ConnectOptions::new());
    assert!(matches!(got, Err(Error::ReadOnly { .. })), "{got:?}");
}

fn one_owner(env: &Env) {
    let (device, second) = (env.open(), env.open());
    let peer = env.other_expected().peer;
    let channel = device.connect(peer, ConnectOptions::new()).expect("first");
    for device in [&device, &second] {
        let got = device.connect(peer, ConnectOptions::new()).map(drop);
        assert_eq!(got, Err(Error::Busy { peer, port: 0 }));
    }
    drop(device);
    let got = second.connect(peer, ConnectOptions::new()).map(drop);
    assert_eq!(
        got,
        Err(Error::Busy { peer, port: 0 }),
        "its file is closed"
    );
    drop(channel);
    second.connect(peer, ConnectOptions::new()).expect("free");
}

fn state_owner(env: &Env) {
    let (device, owner) = (env.open(), env.open());
    let (own, peer) = (env.expected().peer, env.other_expected().peer);
    owner.set_state(5, StateFlags::default()).expect("publish");
    for device in [&device, &owner] {
        let got = device.connect(peer, ConnectOptions::new()).map(drop);
        assert_eq!(got, Err(Error::Busy { peer, port: 0 }));
    }
    assert_eq!(owner.state(own), Ok(5), "it stays");
    drop(owner);
    let channel = device.connect(peer, ConnectOptions::new()).expect("free");
    drop(channel);
    assert_eq!(device.state(own), Ok(0));
    device.set_state(6, StateFlags::default()).expect("publish");
}

fn mapped(env: &Env) {
    let (device, mapper) = (env.open(), env.open());
    let peer = env.other_expected().peer;
    let info = *device.info();
    let map = mapper.map_mut(info.output).expect("map");
    let got = device.connect(peer, ConnectOptions::new()).map(drop);
    assert_eq!(got, Err(Error::Busy { peer, port: 0 }));
    drop(mapper);
    let got = device.connect(peer, ConnectOptions::new()).map(drop);
    assert_eq!(
        got,
        Err(Error::Busy { peer, port: 0 }),
        "its file is closed"
    );
    drop(map);
    let looking = device.map(info.output).expect("map");
    let channel = device.connect(peer, ConnectOptions::new()).expect("free");
    drop((channel, looking));
    drop(device.map_mut(info.output).expect("free again"));
}

fn excluded(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let channel = connect_near(env, ConnectOptions::new());
    let busy = Err(Some(Errno::BUSY));
    let errno = |error: Error| error.errno();
    for length in [1, 4, 8, 4096] {
        let got = device.write_at(&vec![1; length], info.output.offset);
        assert_eq!(got.map(drop).map_err(errno), busy, "{length} bytes");
    }
    let got = device.map_mut(info.output).map(drop);
    assert_eq!(got.map_err(errno), busy);
    for flags in [
        StateFlags::default(),
        StateFlags::default().keep(),
        StateFlags::default().take_over(),
    ] {
        for value in [0, 1, 7] {
            let got = device.set_state(value, flags);
            assert_eq!(got.map_err(errno), busy, "state {value}, {flags:?}");
        }
    }
    // What is refused in any case keeps its reason.
    let got = device.write_at(&[1; 4], info.state_table.offset);
    assert!(matches!(got, Err(Error::NotWritable { .. })), "{got:?}");
    drop(channel);
    device
        .write_at(&[1; 4096], info.output.offset)
        .expect("free");
    device.set_state(7, StateFlags::default()).expect("free");
    drop(device.map_mut(info.output).expect("free"));
}

/// The first peer's output section follows the read/write section without a gap.
fn cut_short(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let border = info.output.offset;
    assert_eq!(border, info.rw.offset + info.rw.size);
    let read = |length: usize| {
        let mut bytes = vec![0; length];
        let from = border - length as u64;
        device.read_at(&mut bytes, from).expect("read");
        bytes
    };
    let cases = [(100, 200), (1, 8), (8, 9), (513, 4096), (1500, 2000)];
    let channel = connect_near(env, ConnectOptions::new());
    for (fill, (before, length)) in (1..).zip(cases) {
        let got = device.write_at(&vec![fill; length], border - before as u64);
        assert_eq!(got, Ok(before), "{length} bytes, {before} of them before");
        assert_eq!(read(before), vec![fill; before]);
        let magic = u32::from_le_bytes(*b"IVCH");
        assert_eq!(device.read_word(border), Ok(magic), "the channel's");
    }
    drop(channel);
    for (before, length) in cases {
        let got = device.write_at(&vec![7; length], border - before as u64);
        assert_eq!(got, Ok(length), "free");
    }
}

fn allowed(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let Ends { near, far } = ends(env);
    let map = device.map(info.outputs).expect("a mapping for reading");
    let magic = u32::from_le_bytes(*b"IVCH");
    let own = (info.output.offset - info.outputs.offset) as usize;
    let word = map.word(own).expect("a word");
    assert_eq!(word.load(std::sync::atomic::Ordering::Relaxed), magic);
    assert_eq!(device.read_word(info.output.offset), Ok(magic));
    device.ring(env.other_expected().peer, 0).expect("ring");
    assert!(device.state(env.other_expected().peer).is_ok());
    near.send(b"undisturbed").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"undisturbed".to_vec())));
}

fn other_calls(env: &Env) {
    let Ends { near, far: _far } = ends(env);
    let device = env.open();
    let mut room = [0; 256];
    for number in [
        uapi::IVSHMEM_IOC_INFO,
        uapi::IVSHMEM_IOC_GET_STATE,
        uapi::IVSHMEM_IOC_SET_STATE,
        uapi::IVSHMEM_IOC_DOORBELL,
        uapi::IVSHMEM_IOC_EVENTS,
        uapi::IVSHMEM_IOC_SUBSCRIBE,
        uapi::IVSHMEM_IOC_EVENTFD,
        uapi::IVSHMEM_IOC_CONNECT,
        0,
        uapi::IVSHMEM_CHANNEL_IOC_EVENTFD + 1,
    ] {
        let got = raw::ioctl(&near, number, &mut room);
        assert_eq!(got, Err(Errno::NOTTY), "number {number:#x}");
    }
    for number in CALLS {
        let got = raw::ioctl(&device, *number, &mut room);
        assert_eq!(got, Err(Errno::NOTTY), "number {number:#x}");
    }
}

/// The calls of a channel.
const CALLS: &[u32] = &[
    uapi::IVSHMEM_CHANNEL_IOC_STATUS,
    uapi::IVSHMEM_CHANNEL_IOC_ACK,
    uapi::IVSHMEM_CHANNEL_IOC_WAIT,
    uapi::IVSHMEM_CHANNEL_IOC_EVENTFD,
];

fn sizes(env: &Env) {
    let explicit = ConnectOptions::new().explicit_ack(true);
    let Ends { near, far: _far } = super::ends_with(env, explicit, ConnectOptions::new());
    let sized = |number: u32, size: usize| (number & !(0x3fff << 16)) | ((size as u32) << 16);
    for number in CALLS {
        let size = raw::size_of_call(*number);
        // Zeroes are a request that is carried out, but for the eventfd 0, which is none.
        let mut room = vec![0; size + 64];
        if *number == uapi::IVSHMEM_CHANNEL_IOC_EVENTFD {
            room[..4].copy_from_slice(&(-1_i32).to_ne_bytes());
        }
        let got = raw::ioctl(&near, sized(*number, size + 64), &mut room.clone());
        assert_eq!(got, Ok(0), "number {number:#x} with a zero tail");
        let got = raw::ioctl(&near, sized(*number, size - 1), &mut room.clone());
        assert_eq!(got, Err(Errno::INVAL), "number {number:#x}, too small");
        for pointer in BadPointer::ALL {
            let got = raw::ioctl_bad(&near, *number, pointer);
            assert_eq!(got, Err(Errno::FAULT), "number {number:#x}, {pointer:?}");
        }
        if *number == uapi::IVSHMEM_CHANNEL_IOC_STATUS {
            // It only stores: what was in the tail does not matter, and is zero afterwards.
            let mut room = vec![0xff; size + 64];
            let got = raw::ioctl(&near, sized(*number, size + 64), &mut room);
            assert_eq!((got, &room[size..]), (Ok(0), &[0; 64][..]));
            continue;
        }
        *room.last_mut().expect("a tail") = 1;
        let got = raw::ioctl(&near, sized(*number, size + 64), &mut room);
        assert_eq!(got, Err(Errno::TOOBIG), "number {number:#x} with a tail");
    }
}

fn bad_buffers(env: &Env) {
    let Ends { near, far } = ends(env);
    let page = rustix::param::page_size();
    let rights = libc::PROT_READ | libc::PROT_WRITE;
    let mut half = raw::mmap(None, 0, 2 * page, rights, libc::MAP_PRIVATE).expect("memory");
    half.cut_in_half();
    for pointer in BadPointer::ALL {
        assert_eq!(
            raw::write_bad(&near, pointer, 16),
            Err(Errno::FAULT),
            "{pointer:?}"
        );
    }
    // A part of it is there.
    for there in [1, 8, 60] {
        let got = half.write_at(&near, page - there, there + 16);
        assert_eq!(got, Err(Errno::FAULT), "{there} bytes");
    }
    assert_eq!(near.status().expect("status").sent, 0);
    near.send(&content(1)).expect("send");
    super::comes(&far, rustix::event::PollFlags::IN);
    for pointer in BadPointer::ALL {
        assert_eq!(
            raw::read_bad(&far, pointer, 4096),
            Err(Errno::FAULT),
            "{pointer:?}"
        );
    }
    for there in [1, 8] {
        let got = half.read_at(&far, page - there, there + 4096);
        assert_eq!(got, Err(Errno::FAULT), "{there} bytes");
    }
    assert_eq!(far.status().expect("status").received, 0);
    assert_eq!(
        near.wait_confirmed(1, Deadline::NOW),
        Err(Error::WouldBlock)
    );
    assert_eq!(far.receive_message(), Ok(Some(content(1))));
    assert_eq!(near.wait_confirmed(1, Deadline::after(soon())), Ok(1));
    near.send(b"at work").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"at work".to_vec())));
}

fn late_buffers(env: &Env) {
    let Ends { near, far } = ends(env);
    let size = (largest(&near) / 2).min(rustix::param::page_size());
    // Writing from a page that comes late: half of the message is there.
    let memory = Unresolved::new();
    let at = memory.missing() - size / 2;
    let (got, ()) = while_waiting(
        WRITE,
        || memory.map().write_at(&near, at, size),
        || {
            assert!(memory.somebody_waits(soon()), "not for its page");
            assert!(near.status().is_ok(), "the channel can be looked at");
            far.send(b"meanwhile").expect("the other direction works");
            assert_eq!(far.next_size(), Ok(None), "half a message");
            memory.resolve();
        },
    );
    assert_eq!(got, Ok(size));
    assert_eq!(far.receive_message(), Ok(Some(vec![0; size])));
    assert_eq!(near.receive_message(), Ok(Some(b"meanwhile".to_vec())));
    // Reading into one.
    let memory = Unresolved::new();
    let message = patterned(3, size);
    near.send(&message).expect("send");
    let (got, ()) = while_waiting(
        READ,
        || memory.map().read_at(&far, at, size),
        || {
            assert!(memory.somebody_waits(soon()), "not for its page");
            assert!(far.status().is_ok(), "the channel can be looked at");
            far.send(b"meanwhile").expect("the other direction works");
            memory.resolve();
        },
    );
    assert_eq!(got, Ok(size));
    near.flush().expect("confirmed");
    assert_eq!(near.receive_message(), Ok(Some(b"meanwhile".to_vec())));
    assert!(system::wait_until(soon(), || near
        .status()
        .is_ok_and(|s| s.confirmed == 2)));
}
