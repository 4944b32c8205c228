// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sessions: link-up, orderly end, restart, and what is left of an ended one.

use super::{
    becomes, bits, comes, connect_far, connect_near, content, ends, soon, state_of, up,
    while_waiting, Ends, Env, Test, FSYNC, IOCTL, READ, WRITE,
};
use crate::raw::{self, Unresolved};
use crate::system::POLL_CALLS;
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Error};
use rustix::event::PollFlags;
use rustix::io::Errno;

pub(in super::super) const TESTS: &[Test] = &[
    Test::two_peers("connect does not wait, in either order", either_order),
    Test::two_peers("before link-up, write waits for it", write_before),
    Test::two_peers("before link-up, read waits for it", read_before),
    // bad input: reading and writing with O_NONBLOCK before the peer is there => `EAGAIN`
    Test::two_peers("before link-up, O_NONBLOCK is EAGAIN", nonblocking_before),
    Test::two_peers(
        "an orderly close: the peer reads what was sent, then 0, again and again",
        drain,
    ),
    Test::two_peers(
        "a program writes where a closed channel was: its peer sees a reset, and takes nothing of that for messages",
        written_over,
    )
    .of_whole_pages(),
    // bad input: writing to a peer that has closed => `EPIPE`, and no signal
    Test::two_peers(
        "writing to a peer that has closed is EPIPE, and no SIGPIPE",
        broken_pipe,
    ),
    Test::two_peers("a reader that waits is woken by the peer's close", close_wakes),
    // bad input: any call on a channel whose peer has restarted => `ECONNRESET` for good; STATUS works
    Test::two_peers(
        "after the peer's restart every call is ECONNRESET for good, and status still tells what was confirmed",
        restarted,
    ),
    // bad input: connecting again while a descriptor of the ended session is open => a new session; calls on the old one and its close do nothing to it
    Test::two_peers(
        "a session that has ended does not block the next: its descriptor says so for good, and closing it changes nothing",
        displaced,
    ),
    Test::two_peers(
        "a writer of an ended session that comes back with half a message writes nothing into the next",
        displaced_writer,
    ),
    Test::two_peers(
        "the peer's restart wakes who waits: read, write, fsync, wait, poll",
        restart_wakes,
    ),
    Test::two_peers(
        "no message of an old session is delivered in a new one",
        no_old_messages,
    ),
    Test::two_peers("sessions one after the other, each with its own numbers", many),
    Test::two_peers(
        "restarts at both ends in any order come to one session",
        both_restart,
    ),
    Test::two_peers(
        "a channel publishes our state while it is open, and 0 with the last close",
        publishes,
    ),
    Test::two_peers(
        "several channels of one device: each goes its own way",
        several,
    ),
];

fn either_order(env: &Env) {
    for far_first in [false, true, false] {
        let (near, far);
        if far_first {
            far = connect_far(env, ConnectOptions::new());
            near = connect_near(env, ConnectOptions::new());
        } else {
            near = connect_near(env, ConnectOptions::new());
            let status = near.status().expect("status");
            assert_eq!(status.link, ChannelLink::Waiting);
            assert!(status.max_message > 0, "known before");
            far = connect_far(env, ConnectOptions::new());
        }
        up(&near);
        up(&far);
        near.send(b"up").expect("send");
        assert_eq!(far.receive_message(), Ok(Some(b"up".to_vec())));
    }
}

fn write_before(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    let (got, far) = while_waiting(
        WRITE,
        || near.send(b"early"),
        || connect_far(env, ConnectOptions::new()),
    );
    assert_eq!(got, Ok(()));
    assert_eq!(far.receive_message(), Ok(Some(b"early".to_vec())));
}

fn read_before(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    let mut buffer = [0; 100];
    let (got, _far) = while_waiting(
        READ,
        || near.receive(&mut buffer),
        || {
            let far = connect_far(env, ConnectOptions::new());
            far.send(b"early").expect("send");
            far
        },
    );
    assert_eq!((got, &buffer[..5]), (Ok(Some(5)), &b"early"[..]));
}

fn nonblocking_before(env: &Env) {
    let near = connect_near(env, ConnectOptions::new().nonblocking(true));
    assert_eq!(near.send(b"early"), Err(Error::WouldBlock));
    let got = near.receive(&mut [0; 100]);
    assert_eq!(got, Err(Error::WouldBlock));
    assert_eq!(near.next_size(), Ok(None));
    assert_eq!(near.wait_confirmed(0, Deadline::NOW), Ok(0));
    assert_eq!(near.status().expect("status").sent, 0);
}

fn drain(env: &Env) {
    let Ends { near, far } = ends(env);
    for number in 1..=10 {
        near.send(&content(number)).expect("send");
    }
    drop(near);
    becomes(&far, ChannelLink::Closing);
    for number in 1..=10 {
        assert_eq!(far.receive_message(), Ok(Some(content(number))));
    }
    for _ in 0..3 {
        assert_eq!(far.receive_message(), Ok(None));
        assert_eq!(rustix::io::read(&far, &mut [0; 8]), Ok(0));
    }
    assert_eq!(far.next_size(), Ok(None));
    assert_eq!(far.status().expect("status").link, ChannelLink::Closing);
}

fn written_over(env: &Env) {
    for mapped in [false, true] {
        let Ends { near, far } = ends(env);
        for number in 1..=2 {
            near.send(&content(number)).expect("send");
        }
        drop(near);
        becomes(&far, ChannelLink::Closing);
        assert_eq!(far.receive_message(), Ok(Some(content(1))));
        let device = env.open();
        let output = device.info().output;
        if mapped {
            drop(device.map_mut(output).expect("map"));
        } else {
            // Behind the blocks, in the rings.
            let at = output.offset + output.size / 2;
            device.write_at(&[0x55; 64], at).expect("write");
        }
        becomes(&far, ChannelLink::Reset);
        let got = far.receive_message();
        assert!(matches!(got, Err(Error::Reset { .. })), "{got:?}");
    }
}

fn broken_pipe(env: &Env) {
    let Ends { near, far } = ends(env);
    drop(near);
    becomes(&far, ChannelLink::Closing);
    raw::in_child(|| {
        raw::die_of_sigpipe();
        for _ in 0..2 {
            assert_eq!(far.send(b"too late"), Err(Error::Closed));
        }
    });
    far.set_nonblocking(true).expect("fcntl");
    assert_eq!(far.send(b"too late"), Err(Error::Closed));
    assert_eq!(far.status().expect("status").sent, 0);
}

fn close_wakes(env: &Env) {
    let Ends { near, far } = ends(env);
    let (got, ()) = while_waiting(READ, || far.receive(&mut [0; 8]), || drop(near));
    assert_eq!(got, Ok(None));
}

/// Closes the far end and connects it again before the near one has looked.
fn restart(env: &Env, far: Channel) -> Channel {
    drop(far);
    connect_far(env, ConnectOptions::new())
}

fn restarted(env: &Env) {
    let Ends { near, far } = ends(env);
    for number in 1..=5 {
        near.send(&content(number)).expect("send");
    }
    far.receive_message().expect("receive");
    far.receive_message().expect("receive");
    near.wait_confirmed(2, Deadline::after(soon()))
        .expect("two");
    far.send(b"not read").expect("send");
    let far = restart(env, far);
    becomes(&near, ChannelLink::Reset);
    let (sent, confirmed) = (5, 2);
    let reset = Error::Reset { sent, confirmed };
    for _ in 0..2 {
        assert_eq!(near.send(b"again"), Err(reset.clone()));
        assert_eq!(near.receive(&mut [0; 100]), Err(reset.clone()));
        assert_eq!(near.next_size(), Err(reset.clone()));
        assert_eq!(near.flush(), Err(reset.clone()));
        for deadline in [Deadline::NOW, Deadline::NEVER] {
            assert_eq!(near.wait_confirmed(3, deadline), Err(reset.clone()));
        }
        near.set_nonblocking(true).expect("fcntl");
        assert_eq!(near.send(b"again"), Err(reset.clone()));
        near.set_nonblocking(false).expect("fcntl");
    }
    // Also once the peer has gone altogether.
    drop(far);
    assert_eq!(near.receive(&mut [0; 100]), Err(reset));
    let status = near.status().expect("status");
    assert_eq!(status.link, ChannelLink::Reset);
    assert_eq!((status.sent, status.confirmed), (5, 2));
    assert_eq!((status.received, status.acknowledged), (0, 0));
}

/// A message each way, confirmed.
fn exchange(near: &Channel, far: &Channel, number: u64) {
    for (from, to) in [(near, far), (far, near)] {
        from.send(&content(number)).expect("send");
        assert_eq!(to.receive_message(), Ok(Some(content(number))));
        from.flush().expect("confirmed");
    }
}

fn displaced(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let (own, peer) = (env.expected().peer, env.other_expected().peer);
    let Ends { near: old, mut far } = ends(env);
    old.send(b"lost").expect("send");
    let mut ended = vec![old];
    for number in 1..=3 {
        // As long as it lives nobody else gets it.
        let busy = device.connect(peer, ConnectOptions::new());
        assert_eq!(busy.unwrap_err().errno(), Some(Errno::BUSY));
        far = restart(env, far);
        becomes(ended.last().expect("one"), ChannelLink::Reset);
        let near = connect_near(env, ConnectOptions::new());
        up(&near);
        exchange(&near, &far, number);
        for old in &ended {
            let status = old.status().expect("status");
            assert_eq!(status.link, ChannelLink::Reset);
            let reset = Error::Reset {
                sent: status.sent,
                confirmed: status.confirmed,
            };
            assert_eq!(old.send(b"no"), Err(reset.clone()));
            assert_eq!(old.receive(&mut [0; 8]), Err(reset.clone()));
            assert_eq!(old.flush(), Err(reset));
            assert!(bits(old).contains(PollFlags::HUP));
        }
        exchange(&near, &far, number);
        // All but the last.
        ended.clear();
        exchange(&near, &far, number);
        becomes(&near, ChannelLink::Up);
        ended.push(near);
    }
    assert_ne!(state_of(&other, own), 0, "one is open");
    ended.clear();
    assert_eq!(state_of(&other, own), 0, "none is open");
    // Closed in the other order: the new one first.
    drop(far);
    let Ends { near: old, far } = ends(env);
    let far = restart(env, far);
    becomes(&old, ChannelLink::Reset);
    let near = connect_near(env, ConnectOptions::new());
    up(&near);
    near.send(b"last").expect("send");
    drop(near);
    assert_eq!(state_of(&other, own), 0, "an ended one does not count");
    drop(old);
    assert_eq!(far.receive_message(), Ok(Some(b"last".to_vec())));
    assert_eq!(far.receive_message(), Ok(None));
}

fn displaced_writer(env: &Env) {
    let Ends { near: old, far } = ends(env);
    let memory = Unresolved::new();
    let at = memory.missing() - 32;
    let message = vec![0xab; 200];
    let (got, far) = while_waiting(
        WRITE,
        || memory.map().write_at(&old, at, 64),
        || {
            assert!(memory.somebody_waits(soon()), "not for its page");
            let far = restart(env, far);
            becomes(&old, ChannelLink::Reset);
            let near = connect_near(env, ConnectOptions::new());
            up(&near);
            near.send(&message).expect("send");
            memory.resolve();
            (near, far)
        },
    );
    assert_eq!(got, Err(Errno::CONNRESET));
    let (near, far) = far;
    assert_eq!(far.receive_message(), Ok(Some(message)));
    exchange(&near, &far, 1);
}

fn restart_wakes(env: &Env) {
    let errno = |error: Error| error.errno();
    type Call = fn(&Channel) -> Result<(), Error>;
    let calls: [(&[i64], Call); 5] = [
        (READ, |near| near.receive(&mut [0; 100]).map(drop)),
        (WRITE, |near| loop {
            near.send(&[1; 500])?;
        }),
        (FSYNC, Channel::flush),
        (IOCTL, |near| {
            near.wait_confirmed(1, Deadline::NEVER).map(drop)
        }),
        (POLL_CALLS, |near| {
            let ready = near.wait_readable(Deadline::NEVER)?;
            assert!(ready.ended, "{ready:?}");
            near.receive(&mut [0; 100]).map(drop)
        }),
    ];
    for (numbers, call) in calls {
        let Ends { near, far } = ends(env);
        near.send(b"never read").expect("send");
        let (got, _far) = while_waiting(numbers, || call(&near), || reset_far(env, far));
        assert_eq!(got.map_err(errno), Err(Some(Errno::CONNRESET)));
    }
}

/// Ends the far end's session so that the near end sees a reset and no orderly end: its device goes and comes.
fn reset_far(env: &Env, far: Channel) -> Channel {
    let bdf = env.other_expected().bdf();
    crate::system::unbind(&bdf).expect("unbind");
    crate::system::ensure_ready(&env.plan).expect("bind again");
    drop(far);
    connect_far(&Env::new().expect("all devices"), ConnectOptions::new())
}

fn no_old_messages(env: &Env) {
    for round in 0..10 {
        let Ends { near, far } = ends(env);
        for number in 1..=3 {
            near.send(&content(100 + round * 10 + number))
                .expect("send");
        }
        // Half of the rounds read one of them.
        if round % 2 == 0 {
            far.receive_message().expect("receive");
        }
        let far = restart(env, far);
        becomes(&near, ChannelLink::Reset);
        drop(near);
        let near = connect_near(env, ConnectOptions::new());
        up(&far);
        assert_eq!(far.next_size(), Ok(None), "an old message");
        near.send(b"new").expect("send");
        assert_eq!(far.receive_message(), Ok(Some(b"new".to_vec())));
        assert_eq!(far.status().expect("status").received, 1);
    }
}

fn many(env: &Env) {
    for round in 0..30 {
        let Ends { near, far } = ends(env);
        for number in 1..=round % 5 {
            near.send(&content(number)).expect("send");
        }
        let status = near.status().expect("status");
        assert_eq!((status.sent, status.received), (round % 5, 0));
        drop(near);
        for number in 1..=round % 5 {
            assert_eq!(far.receive_message(), Ok(Some(content(number))));
        }
        assert_eq!(far.receive_message(), Ok(None));
    }
}

fn both_restart(env: &Env) {
    // Nothing waits: an end whose peer's session has ended has nobody to be up with.
    let options = ConnectOptions::new().nonblocking(true);
    let mut near = connect_near(env, options);
    let mut far = connect_far(env, options);
    for round in 0..40_u32 {
        // One of them, the other, or both; with and without something in the ring.
        if round % 4 < 2 {
            // It may not be up, or have ended already.
            let _ = near.send(b"lost");
        }
        if round % 3 != 0 {
            drop(far);
            far = connect_far(env, options);
        }
        if round % 5 != 0 {
            drop(near);
            near = connect_near(env, options);
        }
    }
    // Whatever there was, a new session at each end is up with the other.
    drop((near, far));
    let Ends { near, far } = ends(env);
    near.send(b"at last").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"at last".to_vec())));
}

fn publishes(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    let own = env.expected().peer;
    assert_eq!(state_of(&other, own), 0);
    let near = connect_near(env, ConnectOptions::new());
    assert_ne!(state_of(&other, own), 0, "an open channel");
    let second = device.connect(2, ConnectOptions::new()).expect("connect");
    drop(near);
    assert_ne!(state_of(&other, own), 0, "there is another one");
    drop(second);
    assert_eq!(state_of(&other, own), 0, "the last was closed");
}

fn several(env: &Env) {
    let device = env.open();
    // The third peer of the link never comes.
    let waiting = device.connect(2, ConnectOptions::new()).expect("connect");
    let Ends { near, far } = ends(env);
    near.send(b"one").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"one".to_vec())));
    assert_eq!(waiting.status().expect("status").link, ChannelLink::Waiting);
    drop(far);
    comes(&near, PollFlags::RDHUP);
    let status = waiting.status().expect("status");
    assert_eq!((status.link, status.sent), (ChannelLink::Waiting, 0));
    drop(waiting);
    assert_eq!(near.receive_message(), Ok(None));
}
