// SPDX-License-Identifier: MIT OR Apache-2.0
//! The device goes, or the machine sleeps, with channels open.

use super::{
    becomes, bits, connect_near, content, ends, ends_with, patterned, soon, while_waiting, Ends,
    Env, Test, FSYNC, IOCTL, READ, WRITE,
};
use crate::raw::Unresolved;
use crate::suites::faults::Faulty;
use crate::suites::peers::{self, Soft};
use crate::suites::power;
use crate::system::{self, POLL_CALLS};
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Error};
use ivshmem_messages::Checker;
use rustix::event::{eventfd, EventfdFlags, PollFlags};
use rustix::io::Errno;
use std::os::fd::AsFd;

pub(in super::super) const TESTS: &[Test] = &[
    // bad input: any call on a channel whose device has gone => `ENODEV` for good; STATUS works
    Test::two_peers(
        "unbind with a channel open: every call is ENODEV, and status works",
        calls,
    ),
    // bad input: waiting on a channel when the device goes => `ENODEV`
    Test::two_peers(
        "unbind wakes who waits on a channel: read, write, fsync, wait, poll",
        wakes,
    ),
    Test::two_peers(
        "unbind: the other end sees its session end, and a new one begins after rebind",
        other_end,
    ),
    // bad input: a channel's buffer that never comes, and the device goes => removal does not wait
    Test::two_peers("unbind does not wait for a channel's buffers", unresolved),
    // bad input: `rmmod` while a channel is open => `EAGAIN` (in use)
    Test::two_peers(
        "rmmod is refused while a channel is open, dead or alive, and clean afterwards",
        module,
    ),
    Test::two_peers(
        "unbind and rebind many times with channels open",
        many_times,
    ),
];

/// Sleep with channels open.
pub(in super::super) const POWER: &[Test] = &[
    Test::two_peers(
        "suspend and resume: sessions live on, messages continue",
        sleep_and_go_on,
    ),
    Test::two_peers(
        "suspend and resume: who waits on a channel goes on waiting",
        sleep_while_waiting,
    ),
    Test::two_peers(
        "suspend and resume: a peer that stays awake sends on, and all of it arrives once and in order",
        peer_stays_awake,
    ),
    Test::two_peers(
        "suspend and resume: what no doorbell has told is found when the machine wakes",
        found_at_wake,
    ),
    Test::two_peers(
        "CPUs go offline and come back while messages flow: none is lost, nobody sleeps for ever",
        cpus_come_and_go,
    ),
];

fn unbind(env: &Env) {
    system::unbind(&env.expected().bdf()).expect("unbind");
}

/// Every call of `channel` is ENODEV.
fn is_dead(channel: &Channel) {
    for _ in 0..2 {
        assert_eq!(channel.send(b"dead"), Err(Error::Gone));
        assert_eq!(channel.receive(&mut [0; 100]), Err(Error::Gone));
        assert_eq!(channel.next_size(), Err(Error::Gone));
        assert_eq!(channel.flush(), Err(Error::Gone));
        let got = channel.wait_confirmed(0, Deadline::NEVER);
        assert_eq!(got, Err(Error::Gone));
        let end = PollFlags::HUP | PollFlags::ERR;
        assert!(bits(channel).contains(end));
    }
    becomes(channel, ChannelLink::Gone);
}

fn calls(env: &Env) {
    let explicit = ConnectOptions::new().explicit_ack(true);
    let Ends { near, far } = ends_with(env, explicit, ConnectOptions::new());
    for number in 1..=3 {
        near.send(&content(number)).expect("send");
        far.send(&content(number)).expect("send");
    }
    far.receive_message().expect("receive");
    near.wait_confirmed(1, Deadline::after(soon()))
        .expect("one");
    near.receive_message().expect("receive");
    unbind(env);
    is_dead(&near);
    assert_eq!(near.acknowledge(1), Err(Error::Gone));
    let status = near.status().expect("status");
    assert_eq!((status.sent, status.confirmed), (3, 1));
    assert_eq!((status.received, status.acknowledged), (1, 0));
    system::ensure_ready(&env.plan).expect("bind again");
    is_dead(&near);
}

fn wakes(env: &Env) {
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
        let env = ready(env);
        let Ends { near, far: _far } = ends(&env);
        near.send(b"never read").expect("send");
        let (got, ()) = while_waiting(numbers, || call(&near), || unbind(&env));
        assert_eq!(got, Err(Error::Gone));
        // Also one that waits for its peer.
        let env = ready(&env);
        let alone = connect_near(&env, ConnectOptions::new());
        // It has sent nothing that could be confirmed.
        if numbers != FSYNC && numbers != IOCTL {
            let (got, ()) = while_waiting(numbers, || call(&alone), || unbind(&env));
            assert_eq!(got, Err(Error::Gone));
        }
    }
}

/// All devices bound, with their names as they are now.
fn ready(env: &Env) -> Env {
    system::ensure_ready(&env.plan).expect("bind again");
    Env::new().expect("all devices")
}

fn other_end(env: &Env) {
    let Ends { near, far } = ends(env);
    near.send(&content(1)).expect("send");
    far.send(&content(1)).expect("send");
    unbind(env);
    becomes(&far, ChannelLink::Reset);
    let errno = |error: Error| error.errno();
    let reset = Err(Some(Errno::CONNRESET));
    assert_eq!(far.send(b"lost").map_err(errno), reset);
    assert_eq!(far.receive(&mut [0; 8]).map(drop).map_err(errno), reset);
    drop(far);
    let env = ready(env);
    let Ends { near: new, far } = ends(&env);
    new.send(b"new").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"new".to_vec())));
    is_dead(&near);
    // Closing the dead one leaves the new one alone.
    drop(near);
    new.send(b"alive").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"alive".to_vec())));
}

fn unresolved(env: &Env) {
    for write in [true, false] {
        let env = ready(env);
        let Ends { near, far } = ends(&env);
        far.send(&patterned(1, 64)).expect("send");
        let memory = Unresolved::new();
        let at = memory.missing() - 32;
        let numbers = if write { WRITE } else { READ };
        let (got, ()) = while_waiting(
            numbers,
            || match write {
                true => memory.map().write_at(&near, at, 64),
                false => memory.map().read_at(&near, at, 64),
            },
            || {
                assert!(memory.somebody_waits(soon()), "not for its page");
                unbind(&env);
                memory.resolve();
            },
        );
        // What was copied out of the ring before is a message; nothing can have been sent.
        let allowed = [Err(Errno::NODEV), Ok(64)];
        assert!(allowed[..2 - usize::from(write)].contains(&got), "{got:?}");
        is_dead(&near);
    }
}

fn module(env: &Env) {
    let Ends { near, far } = ends(env);
    assert_eq!(system::unload_module(), Err(Errno::AGAIN), "alive");
    for device in &env.plan.devices {
        system::unbind(&device.bdf()).expect("unbind");
    }
    assert_eq!(system::unload_module(), Err(Errno::AGAIN), "dead");
    drop(near);
    assert_eq!(system::unload_module(), Err(Errno::AGAIN), "one is left");
    drop(far);
    system::unload_module().expect("unload");
    let env = ready(env);
    let Ends { near, far } = ends(&env);
    near.send(b"again").expect("send");
    assert_eq!(far.receive_message(), Ok(Some(b"again".to_vec())));
}

fn many_times(env: &Env) {
    let mut dead = Vec::new();
    for number in 1..=10 {
        let env = ready(env);
        let Ends { near, far } = ends(&env);
        near.send(&content(number)).expect("send");
        assert_eq!(far.receive_message(), Ok(Some(content(number))));
        unbind(&env);
        becomes(&near, ChannelLink::Gone);
        dead.push(near);
    }
    dead.iter().for_each(is_dead);
}

fn sleep_and_go_on(env: &Env) {
    let Ends { near, far } = ends(env);
    let mut number = 0;
    for _ in 0..3 {
        for (from, to) in [(&near, &far), (&far, &near)] {
            number += 1;
            from.send(&content(number)).expect("send");
            power::sleep();
            assert_eq!(to.receive_message(), Ok(Some(content(number))));
            from.flush().expect("confirmed");
        }
    }
    for channel in [&near, &far] {
        let status = channel.status().expect("status");
        assert_eq!((status.link, status.sent), (ChannelLink::Up, 3));
        assert_eq!((status.confirmed, status.received), (3, 3));
    }
}

fn sleep_while_waiting(env: &Env) {
    let Ends { near, far } = ends(env);
    let mut buffer = [0; 100];
    let (got, ()) = while_waiting(
        READ,
        || loop {
            // A program that is frozen for the time may be told of a signal.
            match far.receive(&mut buffer) {
                Err(Error::Interrupted) => {}
                other => break other,
            }
        },
        || {
            power::sleep();
            near.send(b"good morning").expect("send");
        },
    );
    assert_eq!((got, &buffer[..12]), (Ok(Some(12)), &b"good morning"[..]));
    near.flush().expect("confirmed");
}

/// A peer that is not in this guest.
const AWAKE: u32 = 2;

fn peer_stays_awake(env: &Env) {
    let source = Soft::come(env, AWAKE, "channel-source,to=0,seed=8,rate=200,max=100");
    let channel = peers::connect(env, AWAKE, ConnectOptions::new());
    let mut checker = Checker::default();
    let mut buffer = [0; 100];
    for round in 1..=4 {
        while checker.count() < 50 * round {
            let length = channel.receive(&mut buffer).expect("a message");
            let length = length.expect("a message, not the end");
            assert_eq!(checker.check(&buffer[..length]), Ok(()));
        }
        if round < 4 {
            power::sleep();
        }
    }
    let status = channel.status().expect("status");
    assert_eq!(status.link, ChannelLink::Up);
    let counted = source.channel();
    for bad in ["resets", "broken", "finished"] {
        assert_eq!(counted[bad], 0, "{counted}");
    }
}

fn found_at_wake(env: &Env) {
    let own = env.expected().peer;
    let _sink = Soft::come(env, AWAKE, "channel-sink,to=0");
    let channel = peers::connect(env, AWAKE, ConnectOptions::new());
    let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC).expect("eventfd");
    channel.set_eventfd(Some(fd.as_fd())).expect("attach");
    for number in 1..=6 {
        // The peer has confirmed, and what it rang for that is lost, as all is that is rung to a machine that sleeps.
        let calm = env.model("status");
        let faulty = Faulty::begin(env, &format!("lose {own} 1"));
        channel.send(&content(number)).expect("send");
        let lost = || env.model("status") == calm;
        assert!(system::wait_until(soon(), lost), "nobody rang");
        faulty.end();
        power::sleep();
        let told = rustix::io::read(&fd, &mut [0; 8]);
        assert_eq!(told, Ok(8), "message {number} is not known to be confirmed");
        assert_eq!(channel.wait_confirmed(number, Deadline::NOW), Ok(number));
    }
}

fn cpus_come_and_go(env: &Env) {
    const CYCLES: u32 = 3;
    let Ends { near, far } = ends(env);
    let cpus = power::cpus();
    std::thread::scope(|scope| {
        let switch = scope.spawn(|| {
            for cpu in (0..CYCLES).flat_map(|_| &cpus) {
                power::set_online(cpu, false);
                power::set_online(cpu, true);
            }
        });
        let far = scope.spawn(|| {
            let mut number = 0;
            while let Some(message) = far.receive_message().expect("receive") {
                number += 1;
                assert!(message == content(number), "message {number}");
            }
            number
        });
        let mut number = 0;
        while number < 50 || !switch.is_finished() {
            number += 1;
            near.send(&content(number)).expect("send");
            near.flush().expect("confirmed");
        }
        drop(near);
        assert_eq!(far.join().expect("the far end"), number);
        switch.join().expect("CPUs can be switched");
    });
}
