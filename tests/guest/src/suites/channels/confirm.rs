// SPDX-License-Identifier: MIT OR Apache-2.0
//! To know that messages arrived: confirmation, acknowledgement, and who is told how.

use super::failures::far_process;
use super::{
    becomes, call, connect_far, connect_near, content, ends, ends_with, soon, up, while_waiting,
    Ends, Env, Test, FSYNC, IOCTL,
};
use ivshmem::uapi::{
    self, ivshmem_channel_ack, ivshmem_channel_eventfd, ivshmem_channel_status,
    ivshmem_channel_wait,
};
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Error};
use rustix::event::{eventfd, EventfdFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

pub(in super::super) const TESTS: &[Test] = &[
    Test::two_peers(
        "a message is confirmed when the peer has read it",
        by_reading,
    ),
    Test::two_peers(
        "what was confirmed is known after the peer's restart, also if nobody has asked before",
        known_after_a_restart,
    ),
    Test::two_peers("fsync waits until all is confirmed", flush),
    Test::two_peers(
        "fsync of what nobody has sent returns at once",
        flush_nothing,
    ),
    // bad input: waiting for the confirmation of a message that was not sent => `EINVAL`
    Test::two_peers(
        "waiting for a confirmation: at once, until a deadline, without limit",
        wait,
    ),
    // bad input: waiting for a confirmation that does not come => `EAGAIN`, or `ETIMEDOUT` not before the deadline; the number of confirmed messages is stored too
    Test::two_peers(
        "a wait that fails tells how many were confirmed",
        wait_tells,
    ),
    Test::two_peers(
        "explicit acknowledgement: reading confirms nothing, acknowledging does",
        explicit,
    ),
    // bad input: acknowledging what was not read, or on a channel that is not for it => `EINVAL`
    Test::two_peers(
        "acknowledging what was not read, or without the flag, is EINVAL",
        wrong_acks,
    ),
    Test::two_peers(
        "each end chooses for itself how it acknowledges",
        each_for_itself,
    ),
    Test::two_peers("an eventfd counts confirmations", counted),
    Test::two_peers(
        "an eventfd is told of the end of a session",
        told_of_the_end,
    ),
    Test::two_peers(
        "an eventfd is told once that the peer has closed, or that its process has died, also one that comes later",
        told_of_a_close,
    ),
    // bad input: another descriptor than an eventfd for confirmations => `EINVAL`; none => `EBADF`
    Test::two_peers(
        "another descriptor than an eventfd is EBADF or EINVAL",
        no_eventfd,
    ),
    Test::two_peers("status counts both directions", status),
    // bad input: a confirmation that can no longer come, as the peer has closed => `EPIPE`
    Test::two_peers(
        "the peer closes without reading: waiting for a confirmation is EPIPE",
        closed,
    ),
];

/// Sends messages with the numbers from 1 on.
fn send(channel: &Channel, count: u64) {
    for number in 1..=count {
        channel.send(&content(number)).expect("send");
    }
}

/// Receives as many.
fn receive(channel: &Channel, count: u64) {
    for _ in 0..count {
        channel.receive_message().expect("receive").expect("one");
    }
}

/// Sent and confirmed.
fn confirmed(channel: &Channel) -> (u64, u64) {
    let status = channel.status().expect("status");
    (status.sent, status.confirmed)
}

fn known_after_a_restart(env: &Env) {
    let Ends { near, far } = ends(env);
    send(&near, 2);
    receive(&far, 2);
    send(&near, 1);
    drop(far);
    let _far = connect_far(env, ConnectOptions::new());
    becomes(&near, ChannelLink::Reset);
    assert_eq!(confirmed(&near), (3, 2));
}

fn by_reading(env: &Env) {
    let Ends { near, far } = ends(env);
    send(&near, 3);
    assert_eq!(confirmed(&near), (3, 0));
    for number in 1..=3 {
        receive(&far, 1);
        let got = near.wait_confirmed(number, Deadline::after(soon()));
        assert_eq!(got, Ok(number));
        assert_eq!(confirmed(&near), (3, number));
        if number < 3 {
            let more = near.wait_confirmed(number + 1, Deadline::NOW);
            assert_eq!(more, Err(Error::WouldBlock));
        }
    }
}

fn flush(env: &Env) {
    let Ends { near, far } = ends(env);
    for nonblocking in [false, true] {
        near.set_nonblocking(nonblocking).expect("fcntl");
        send(&near, 5);
        let (got, ()) = while_waiting(FSYNC, || near.flush(), || receive(&far, 5));
        assert_eq!(got, Ok(()));
        let (sent, confirmed) = confirmed(&near);
        assert_eq!(sent, confirmed);
        near.flush().expect("again");
        rustix::fs::fdatasync(&near).expect("as fsync");
    }
}

fn flush_nothing(env: &Env) {
    let Ends { near, far } = ends(env);
    near.flush().expect("nothing to wait for");
    receive_one_from(&near, &far);
    far.flush().expect("it has sent nothing");
}

fn receive_one_from(near: &Channel, far: &Channel) {
    send(near, 1);
    receive(far, 1);
    near.flush().expect("confirmed");
}

fn wait(env: &Env) {
    let Ends { near, far } = ends(env);
    assert_eq!(near.wait_confirmed(0, Deadline::NOW), Ok(0));
    send(&near, 4);
    assert_eq!(near.wait_confirmed(0, Deadline::NOW), Ok(0));
    assert_eq!(
        near.wait_confirmed(1, Deadline::NOW),
        Err(Error::WouldBlock)
    );
    let begin = Instant::now();
    let limit = Duration::from_millis(50);
    let got = near.wait_confirmed(1, Deadline::after(limit));
    assert_eq!(got, Err(Error::TimedOut));
    assert!(begin.elapsed() >= limit, "before the deadline");
    for deadline in [Deadline::after(soon()), Deadline::NEVER] {
        let begin = Instant::now();
        let number = confirmed(&near).1 + 2;
        let (got, ()) = while_waiting(
            IOCTL,
            || near.wait_confirmed(number, deadline),
            || receive(&far, 2),
        );
        assert_eq!(got, Ok(number));
        assert!(begin.elapsed() < soon(), "nothing woke it but the deadline");
    }
    for number in [5, 1 << 32, u64::MAX] {
        let got = near.wait_confirmed(number, Deadline::NEVER);
        assert_eq!(got, Err(Error::NotSent { number }));
    }
    send(&near, 2);
    near.set_nonblocking(true).expect("fcntl");
    let got = near.wait_confirmed(6, Deadline::NEVER);
    assert_eq!(got, Err(Error::WouldBlock), "O_NONBLOCK");
}

fn wait_tells(env: &Env) {
    let Ends { near, far } = ends(env);
    send(&near, 3);
    receive(&far, 2);
    near.wait_confirmed(2, Deadline::after(soon()))
        .expect("two");
    let number = uapi::IVSHMEM_CHANNEL_IOC_WAIT;
    for (deadline, errno) in [
        (Deadline::NOW, Errno::AGAIN),
        (Deadline::after(Duration::from_millis(20)), Errno::TIMEDOUT),
    ] {
        let request = ivshmem_channel_wait {
            number: 3,
            deadline: deadline.as_nanos(),
            confirmed: 99,
            ..Default::default()
        };
        let (got, request) = call(&near, number, request);
        assert_eq!((got, request.confirmed), (Err(errno), 2));
    }
    for (flags, reserved) in [(1, 0), (1 << 31, 0), (0, 1)] {
        let request = ivshmem_channel_wait {
            flags,
            reserved,
            ..Default::default()
        };
        assert_eq!(call(&near, number, request).0, Err(Errno::INVAL));
    }
}

fn explicit(env: &Env) {
    let options = ConnectOptions::new().explicit_ack(true);
    let Ends { near, far } = ends_with(env, ConnectOptions::new(), options);
    send(&near, 5);
    receive(&far, 4);
    let status = far.status().expect("status");
    assert_eq!((status.received, status.acknowledged), (4, 0));
    let got = near.wait_confirmed(1, Deadline::after(Duration::from_millis(50)));
    assert_eq!(got, Err(Error::TimedOut), "read, and not acknowledged");
    for (number, expected) in [(1, 1), (3, 3), (2, 3), (0, 3), (3, 3), (4, 4)] {
        far.acknowledge(number).expect("acknowledge");
        assert_eq!(far.status().expect("status").acknowledged, expected);
        let got = near.wait_confirmed(expected, Deadline::after(soon()));
        assert_eq!(got, Ok(expected));
    }
    let (got, ()) = while_waiting(
        FSYNC,
        || near.flush(),
        || {
            receive(&far, 1);
            far.acknowledge(5).expect("acknowledge");
        },
    );
    assert_eq!(got, Ok(()));
}

fn wrong_acks(env: &Env) {
    let options = ConnectOptions::new().explicit_ack(true);
    let Ends { near, far } = ends_with(env, ConnectOptions::new(), options);
    send(&near, 3);
    receive(&far, 2);
    for number in [3, 4, 1 << 32, (1 << 32) + 1, 1 << 63, u64::MAX] {
        let got = far.acknowledge(number);
        assert_eq!(got, Err(Error::NotReceived { number }));
    }
    let number = uapi::IVSHMEM_CHANNEL_IOC_ACK;
    for (flags, reserved) in [(1, 0), (1 << 31, 0), (0, 1)] {
        let request = ivshmem_channel_ack {
            number: 1,
            flags,
            reserved,
        };
        assert_eq!(call(&far, number, request).0, Err(Errno::INVAL));
    }
    assert_eq!(far.status().expect("status").acknowledged, 0);
    assert_eq!(
        near.wait_confirmed(1, Deadline::NOW),
        Err(Error::WouldBlock)
    );
    // The other end is not for it.
    far.send(b"one").expect("send");
    near.receive_message().expect("receive");
    for number in [0, 1, 2] {
        let got = near.acknowledge(number);
        assert_eq!(got, Err(Error::NotReceived { number }));
    }
}

fn each_for_itself(env: &Env) {
    let options = ConnectOptions::new().explicit_ack(true);
    let Ends { near, far } = ends_with(env, options, ConnectOptions::new());
    receive_one_from(&near, &far);
    send(&far, 1);
    receive(&near, 1);
    assert_eq!(far.wait_confirmed(1, Deadline::NOW), Err(Error::WouldBlock));
    near.acknowledge(1).expect("acknowledge");
    assert_eq!(far.wait_confirmed(1, Deadline::after(soon())), Ok(1));
}

/// An eventfd that is attached.
fn attached(channel: &Channel) -> OwnedFd {
    let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd");
    channel.set_eventfd(Some(fd.as_fd())).expect("attach");
    fd
}

/// Waits until an eventfd has been counted up, and takes the count.
fn taken(fd: &OwnedFd) -> u64 {
    super::comes(fd, rustix::event::PollFlags::IN);
    let mut count = [0; 8];
    rustix::io::read(fd, &mut count).expect("a count");
    u64::from_ne_bytes(count)
}

/// Whether an eventfd has not been counted up.
fn is_quiet(fd: &OwnedFd) -> bool {
    rustix::io::read(fd, &mut [0; 8]) == Err(Errno::AGAIN)
}

fn counted(env: &Env) {
    let Ends { near, far } = ends(env);
    let fd = attached(&near);
    for number in 1..=20 {
        near.send(&content(number)).expect("send");
        assert!(is_quiet(&fd), "message {number} is only sent");
        receive(&far, 1);
        assert!(taken(&fd) >= 1);
        assert_eq!(near.wait_confirmed(number, Deadline::NOW), Ok(number));
    }
    // Another one in its place, and none.
    let second = attached(&near);
    receive_one_from(&near, &far);
    assert!(taken(&second) >= 1);
    assert!(is_quiet(&fd), "it was taken off");
    near.set_eventfd(None).expect("detach");
    receive_one_from(&near, &far);
    assert!(is_quiet(&second), "it was taken off");
}

fn told_of_the_end(env: &Env) {
    let Ends { near, far } = ends(env);
    let fd = attached(&near);
    drop(far);
    let far = super::connect_far(env, ConnectOptions::new());
    assert!(taken(&fd) >= 1);
    becomes(&near, ChannelLink::Reset);
    drop((near, far));
    let Ends { near, far: _far } = ends(env);
    let fd = attached(&near);
    crate::system::unbind(&env.expected().bdf()).expect("unbind");
    assert!(taken(&fd) >= 1);
    becomes(&near, ChannelLink::Gone);
}

fn told_of_a_close(env: &Env) {
    let closed = |near: &Channel, fd: &OwnedFd| {
        assert_eq!(taken(fd), 1);
        becomes(near, ChannelLink::Closing);
        assert_eq!(confirmed(near), (1, 0));
        assert!(is_quiet(fd), "it has been told");
        // One that comes when all is over.
        let late = attached(near);
        assert_eq!(taken(&late), 1);
        assert!(is_quiet(fd) && is_quiet(&late), "it has been told");
    };
    let Ends { near, far } = ends(env);
    let fd = attached(&near);
    send(&near, 1);
    assert!(is_quiet(&fd), "it is only sent");
    drop(far);
    closed(&near, &fd);
    drop(near);
    let near = connect_near(env, ConnectOptions::new());
    let helper = far_process(env, "default", "").ready();
    up(&near);
    let fd = attached(&near);
    send(&near, 1);
    assert!(is_quiet(&fd), "it is only sent");
    helper.kill();
    closed(&near, &fd);
    // What is confirmed before the end is told, too.
    drop(near);
    let Ends { near, far } = ends(env);
    let fd = attached(&near);
    send(&near, 1);
    receive(&far, 1);
    assert_eq!(taken(&fd), 1);
    drop(far);
    assert_eq!(taken(&fd), 1);
    assert_eq!(near.flush(), Ok(()), "all was confirmed");
}

fn no_eventfd(env: &Env) {
    let Ends { near, far } = ends(env);
    let number = uapi::IVSHMEM_CHANNEL_IOC_EVENTFD;
    let attach = |fd, flags| call(&near, number, ivshmem_channel_eventfd { fd, flags }).0;
    assert_eq!(attach(9999, 0), Err(Errno::BADF));
    assert_eq!(attach(-2, 0), Err(Errno::BADF));
    assert_eq!(attach(near.as_fd().as_raw_fd(), 0), Err(Errno::INVAL));
    let fd = attached(&near);
    for flags in [1, 1 << 31] {
        assert_eq!(attach(fd.as_raw_fd(), flags), Err(Errno::INVAL));
        assert_eq!(attach(-1, flags), Err(Errno::INVAL));
    }
    receive_one_from(&near, &far);
    assert!(taken(&fd) >= 1, "refusals have changed nothing");
}

fn status(env: &Env) {
    let Ends { near, far } = ends(env);
    let number = uapi::IVSHMEM_CHANNEL_IOC_STATUS;
    let read = |channel: &Channel| call(channel, number, ivshmem_channel_status::default()).1;
    let first = read(&near);
    assert_eq!(first.link, uapi::IVSHMEM_CHANNEL_UP);
    let section = env.expected().output_size;
    assert!(u64::from(first.max_message) < section && first.max_message >= 56);
    send(&near, 7);
    send(&far, 2);
    receive(&far, 3);
    receive(&near, 2);
    near.wait_confirmed(3, Deadline::after(soon()))
        .expect("three");
    far.wait_confirmed(2, Deadline::after(soon())).expect("two");
    let (near, far) = (read(&near), read(&far));
    let numbers = |s: &ivshmem_channel_status| (s.sent, s.confirmed, s.received, s.acknowledged);
    assert_eq!(numbers(&near), (7, 3, 2, 2));
    assert_eq!(numbers(&far), (2, 2, 3, 3));
}

fn closed(env: &Env) {
    let Ends { near, far } = ends(env);
    send(&near, 3);
    receive(&far, 1);
    near.wait_confirmed(1, Deadline::after(soon()))
        .expect("one");
    let (got, ()) = while_waiting(FSYNC, || near.flush(), || drop(far));
    assert_eq!(got, Err(Error::Closed));
    assert_eq!(near.flush(), Err(Error::Closed));
    for deadline in [Deadline::NOW, Deadline::NEVER] {
        assert_eq!(near.wait_confirmed(3, deadline), Err(Error::Closed));
        assert_eq!(near.wait_confirmed(1, deadline), Ok(1), "that one was");
    }
    assert_eq!(confirmed(&near), (3, 1));
}
