// SPDX-License-Identifier: MIT OR Apache-2.0
//! One end of a channel in several threads and processes.

use super::by_hand::{self, ByHand};
use super::{
    becomes, comes, connect_far, connect_near, content, ends, patterned, soon, up, while_waiting,
    Delays, Ends, Env, Test, FSYNC, IOCTL, READ, WRITE,
};
use crate::raw::Unresolved;
use crate::suites::sharing::{receive, Meeting};
use crate::{helpers, raw};
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Device, Error};
use rustix::event::{epoll, PollFlags, Timespec};
use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(in super::super) const TESTS: &[Test] = &[
    // bad input: an unprivileged process that was given a channel => it can use it, and open nothing itself
    Test::two_peers(
        "SCM_RIGHTS: an unprivileged process can use a channel that it was given",
        unprivileged,
    ),
    Test::two_peers(
        "fork: both processes have the same end, and the last one closes it",
        forked,
    ),
    Test::two_peers(
        "several threads write and read at once: each message goes to one of them, whole",
        threads,
    ),
    Test::two_peers(
        "close while another thread reads: it gets its message, then the end is closed",
        closed_under_a_reader,
    ),
    // bad input: a call on a nonblocking channel while another thread is in the middle of a message => `EAGAIN`, and a wake-up when that is over, also for edge-triggered epoll
    Test::two_peers(
        "EAGAIN because another thread is in the middle of a message: epoll tells when it is not any more, edge-triggered too",
        refused_turn,
    ),
    Test::two_peers(
        "an end that one thread finds wakes the others",
        found_by_one,
    ),
    // bad input: a signal while a channel's call waits => `EINTR`
    Test::two_peers(
        "a signal interrupts read, write, fsync and wait",
        interrupted,
    ),
    Test::two_peers(
        "with SA_RESTART, read, write, fsync and wait go on after signals",
        restarted,
    ),
];

fn unprivileged(env: &Env) {
    let meeting = Meeting::new();
    let node = env.node().to_str().expect("a plain name").to_string();
    let peer = env.other_expected().peer.to_string();
    let helper = helpers::start("give-channel", &[&node, &peer, meeting.path()]);
    let stream = meeting.accept();
    let helper = helper.ready();
    assert_eq!(helper.wait().code(), Some(0));
    let far = connect_far(env, ConnectOptions::new());
    raw::in_child(|| {
        raw::become_nobody();
        Device::open(&node).expect_err("nobody may open the device");
        let channel = Channel::try_from(receive(&stream)).expect("a channel");
        up(&channel);
        channel.send(b"from nobody").expect("send");
        assert_eq!(far.receive_message(), Ok(Some(b"from nobody".to_vec())));
        channel.flush().expect("fsync");
        far.send(b"to nobody").expect("send");
        assert_eq!(channel.receive_message(), Ok(Some(b"to nobody".to_vec())));
        let status = channel.status().expect("status");
        assert_eq!((status.sent, status.received), (1, 1));
    });
    // The child has ended, the helper too: its end is closed.
    becomes(&far, ChannelLink::Closing);
}

fn forked(env: &Env) {
    let Ends { near, far } = ends(env);
    raw::in_child(|| near.send(b"from the child").expect("send"));
    near.send(b"from the parent").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"from the child".to_vec())));
    assert_eq!(far.receive_message(), Ok(Some(b"from the parent".to_vec())));
    assert_eq!(near.status().expect("status").sent, 2, "of both");
    assert_eq!(far.status().expect("status").link, ChannelLink::Up);
    raw::in_child(|| {
        near.set_nonblocking(true).expect("fcntl");
    });
    assert_eq!(near.receive_message(), Err(Error::WouldBlock), "shared");
}

fn threads(env: &Env) {
    const WRITERS: u64 = 4;
    const EACH: u64 = 300;
    let Ends { near, far } = ends(env);
    let seen = Mutex::new(BTreeSet::new());
    let read = || {
        let mut last = [0; WRITERS as usize];
        while let Some(message) = far.receive_message().expect("receive") {
            let number = u64::from_le_bytes(message[..8].try_into().expect("a number"));
            assert!(message[8..] == content(number), "message {number} is torn");
            let (writer, index) = (number / EACH, number % EACH + 1);
            // What one reader gets of one writer is in that writer's order.
            assert!(index > last[writer as usize], "out of order");
            last[writer as usize] = index;
            assert!(seen.lock().expect("no panic").insert(number), "twice");
        }
    };
    let write = |near: &Channel, writer: u64| {
        for number in writer * EACH..(writer + 1) * EACH {
            let message = [&number.to_le_bytes()[..], &content(number)].concat();
            near.send(&message).expect("send");
        }
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..3).map(|_| scope.spawn(read)).collect();
        std::thread::scope(|scope| {
            for writer in 0..WRITERS {
                let near = &near;
                scope.spawn(move || write(near, writer));
            }
        });
        near.flush().expect("all is confirmed");
        drop(near);
        for reader in readers {
            reader.join().expect("every reader sees the end");
        }
    });
    let seen = seen.into_inner().expect("no panic");
    assert_eq!(seen.len() as u64, WRITERS * EACH);
}

fn closed_under_a_reader(env: &Env) {
    use std::os::fd::{AsFd, AsRawFd};
    let Ends { near, far } = ends(env);
    let number = far.as_fd().as_raw_fd();
    let path = format!("/proc/self/fd/{number}");
    let far = OwnedFd::from(far);
    let mut buffer = [0; 100];
    let (got, ()) = while_waiting(
        READ,
        || raw::read_number(number, &mut buffer),
        || {
            assert_eq!(raw::close(far), Ok(0));
            assert!(!std::fs::exists(&path).expect("proc"), "it is closed");
            assert_eq!(near.status().expect("status").link, ChannelLink::Up);
            near.send(b"still there").expect("send");
        },
    );
    assert_eq!((got, &buffer[..11]), (Ok(11), &b"still there"[..]));
    // Its return was the last use.
    comes(&near, PollFlags::RDHUP);
    becomes(&near, ChannelLink::Closing);
}

/// Waits for an event of `set` until the time is over; whether one came.
fn edge(set: &OwnedFd, limit: Duration) -> bool {
    let limit = Timespec::try_from(limit).expect("a limit");
    let mut room = [epoll::Event {
        flags: epoll::EventFlags::empty(),
        data: epoll::EventData::new_u64(0),
    }; 1];
    epoll::wait(set, &mut room[..], Some(&limit)).expect("epoll") == 1
}

fn refused_turn(env: &Env) {
    const LENGTH: usize = 64;
    let mut delays = Delays::default();
    for round in 0..Delays::ROUNDS {
        let writes = round % 2 == 0;
        let Ends { near, far } = ends(env);
        near.set_nonblocking(true).expect("fcntl");
        let flag = if writes {
            epoll::EventFlags::OUT
        } else {
            far.send(&patterned(1, LENGTH)).expect("send");
            far.send(&patterned(2, LENGTH)).expect("send");
            comes(&near, PollFlags::IN);
            epoll::EventFlags::IN
        };
        let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
        let (data, flags) = (epoll::EventData::new_u64(1), flag | epoll::EventFlags::ET);
        epoll::add(&set, &near, data, flags).expect("add");
        assert!(edge(&set, soon()), "it is ready");
        // The first thread is held in the middle of its message.
        let memory = Unresolved::new();
        let at = memory.missing() - LENGTH / 2;
        let moves = || match writes {
            true => memory.map().write_at(&near, at, LENGTH),
            false => memory.map().read_at(&near, at, LENGTH),
        };
        let also_moves = || match writes {
            true => near.send(&patterned(2, LENGTH)),
            false => near.receive(&mut [0; LENGTH]).map(drop),
        };
        std::thread::scope(|scope| {
            let first = scope.spawn(moves);
            assert!(memory.somebody_waits(soon()), "not for its page");
            assert_eq!(also_moves(), Err(Error::WouldBlock));
            // The timer may look meanwhile.
            while edge(&set, Duration::ZERO) {
                assert_eq!(also_moves(), Err(Error::WouldBlock));
            }
            let begin = Instant::now();
            memory.resolve();
            assert_eq!(first.join().expect("it returns"), Ok(LENGTH));
            loop {
                assert!(edge(&set, soon()), "nobody tells that it is over");
                match also_moves() {
                    Err(Error::WouldBlock) => {}
                    moved => break assert_eq!(moved, Ok(())),
                }
            }
            delays.add(begin.elapsed());
        });
    }
    delays.are_short();
}

fn found_by_one(env: &Env) {
    let mut delays = Delays::default();
    for _ in 0..Delays::ROUNDS {
        let hand = ByHand::new(env);
        let near = connect_near(env, ConnectOptions::new());
        hand.up(0x1111_2222, &near);
        let (got, begin) = while_waiting(
            READ,
            || near.receive(&mut [0; 100]),
            || {
                // Nobody rings for this.
                hand.put(by_hand::EPOCH, 0);
                becomes(&near, ChannelLink::Reset);
                Instant::now()
            },
        );
        delays.add(begin.elapsed());
        assert!(matches!(got, Err(Error::Reset { .. })), "{got:?}");
    }
    delays.are_short();
}

/// Calls that wait on a channel that is up, whose ring is full and whose peer does nothing.
type Call = fn(&Channel) -> Result<(), Error>;
const WAITING_CALLS: [(&[i64], Call); 4] = [
    (READ, |near| near.receive(&mut [0; 100]).map(drop)),
    (WRITE, |near| near.send(&[7; 500])),
    (FSYNC, Channel::flush),
    (IOCTL, |near| {
        near.wait_confirmed(1, Deadline::NEVER).map(drop)
    }),
];

fn interrupted(env: &Env) {
    let Ends { near, far: _far } = ends(env);
    super::fill(&near, 500);
    raw::alarm_every(100, false);
    for (_, call) in WAITING_CALLS {
        assert_eq!(call(&near), Err(Error::Interrupted));
    }
}

fn restarted(env: &Env) {
    let Ends { near, far } = ends(env);
    let count = super::fill(&near, 500);
    raw::alarm_every(20, true);
    let deadline = std::time::Duration::from_millis(300);
    let got = near.wait_confirmed(1, Deadline::after(deadline));
    assert_eq!(got, Err(Error::TimedOut), "over several signals");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Long enough for signals; whoever is late only makes the test weaker.
            std::thread::sleep(std::time::Duration::from_millis(100));
            for number in 1..=count {
                let message = Some(patterned(number, 500));
                assert_eq!(receive_on(&far), message);
            }
            assert_eq!(receive_on(&far), Some(vec![7; 500]));
            std::thread::sleep(std::time::Duration::from_millis(100));
            far.send(b"an answer").expect("send");
        });
        for (_, call) in [WAITING_CALLS[1], WAITING_CALLS[2], WAITING_CALLS[3]] {
            assert_eq!(call(&near), Ok(()));
        }
        assert_eq!(near.receive(&mut [0; 100]), Ok(Some(9)));
    });
}

/// Receives in a thread that signals may go to as well; `poll` is never restarted.
fn receive_on(channel: &Channel) -> Option<Vec<u8>> {
    channel.receive_message().expect("restarted")
}
