// SPDX-License-Identifier: MIT OR Apache-2.0
//! Publishing a state, and who owns it.

use super::{drain, soon, wait, Env, Test};
use crate::helpers;
use crate::system;
use ivshmem::{Device, Error, EventKind, StateFlags};
use std::os::fd::AsFd;

pub(super) const TESTS: &[Test] = &[
    Test::new("a published state is in the state table", published),
    Test::two_peers(
        "a published state is seen by the other peer, with an event",
        other_sees,
    ),
    Test::two_peers(
        "publishing the same value again interrupts nobody",
        same_again,
    ),
    // bad input: publishing while another file owns the state => `EBUSY`
    Test::new(
        "another file's attempt is EBUSY, also with the same value",
        busy,
    ),
    // bad input: publishing after another file has taken over => `EBUSY`
    Test::new(
        "take over: the new owner publishes, the old one gets EBUSY",
        take_over,
    ),
    Test::new("a state returns to 0 when its file is closed", closed),
    Test::new(
        "a state with the keep flag stays when its file is closed",
        kept,
    ),
    Test::new("the keep flag counts as given last", keep_last),
    Test::new(
        "closing a file that does not own the state leaves it alone",
        others_close,
    ),
    Test::new(
        "the state returns to 0 when the process is killed by SIGKILL",
        killed,
    ),
    Test::new("dup: only the last close gives the state back", dup),
    Test::new(
        "fork: the state stays until the child's copy is closed too",
        fork,
    ),
    Test::new("a state of 0 is owned too", zero_is_owned),
    Test::new("all 32 bits of a state arrive", all_bits),
    Test::new("one's own state is no event", own_is_no_event),
];

fn own(env: &Env) -> u32 {
    env.expected().peer
}

fn publish(device: &Device, value: u32) {
    device
        .set_state(value, StateFlags::default())
        .expect("publish");
}

/// A file that only looks.
fn watcher(env: &Env) -> Device {
    Device::options()
        .read_only(true)
        .open(env.node())
        .expect("open")
}

/// Waits until the own state is `value`.
fn becomes(env: &Env, value: u32) -> bool {
    let watcher = watcher(env);
    system::wait_until(soon(), || watcher.state(own(env)) == Ok(value))
}

fn published(env: &Env) {
    let device = env.open();
    assert_eq!(device.state(own(env)), Ok(0), "a fresh device");
    publish(&device, 7);
    assert_eq!(device.state(own(env)), Ok(7));
    let word = u64::from(own(env)) * 4;
    assert_eq!(device.read_word(word), Ok(7), "through the file");
}

fn other_sees(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    for (old, new) in [(0, 7), (7, 9), (9, 0)] {
        publish(&device, new);
        let state = wait(&other).into_iter().find_map(|event| match event.kind {
            EventKind::State {
                peer,
                old,
                new,
                changes,
            } => Some((peer, old, new, changes)),
            _ => None,
        });
        assert_eq!(state, Some((own(env), old, new, 1)));
        assert_eq!(other.state(own(env)), Ok(new));
        super::drain(&other);
    }
}

fn same_again(env: &Env) {
    let (device, other) = (env.open(), env.open_other());
    publish(&device, 7);
    assert!(wait(&other)
        .iter()
        .any(|event| matches!(event.kind, EventKind::State { .. })));
    drain(&other);
    publish(&device, 7);
    // A doorbell on another vector comes after what the state would have caused.
    let vector = env.vectors() - 1;
    device
        .ring(env.other_expected().peer, vector)
        .expect("ring");
    let events = wait(&other);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(super::doorbells(&events[0], vector), 1, "{events:?}");
}

fn busy(env: &Env) {
    let (first, second) = (env.open(), env.open());
    publish(&first, 7);
    for value in [8, 7, 0] {
        let got = second.set_state(value, StateFlags::default());
        assert_eq!(got, Err(Error::StateOwned), "value {value}");
        let got = second.set_state(value, StateFlags::default().keep());
        assert_eq!(got, Err(Error::StateOwned), "value {value}");
    }
    assert_eq!(first.state(own(env)), Ok(7));
    drop(first);
    publish(&second, 8);
    assert_eq!(second.state(own(env)), Ok(8));
}

fn take_over(env: &Env) {
    let (first, second) = (env.open(), env.open());
    publish(&first, 7);
    second
        .set_state(8, StateFlags::default().take_over())
        .expect("take over");
    let got = first.set_state(9, StateFlags::default());
    assert_eq!(got, Err(Error::StateOwned), "the old owner");
    assert_eq!(second.state(own(env)), Ok(8));
    drop(first);
    assert_eq!(
        second.state(own(env)),
        Ok(8),
        "the old owner has gone, the new one stays"
    );
    drop(second);
    assert!(becomes(env, 0));
}

fn closed(env: &Env) {
    let device = env.open();
    publish(&device, 7);
    drop(device);
    assert_eq!(watcher(env).state(own(env)), Ok(0));
}

fn kept(env: &Env) {
    let device = env.open();
    device
        .set_state(7, StateFlags::default().keep())
        .expect("publish");
    drop(device);
    assert_eq!(watcher(env).state(own(env)), Ok(7));
    // Nobody owns it now.
    let next = env.open();
    publish(&next, 8);
    drop(next);
    assert_eq!(watcher(env).state(own(env)), Ok(0));
}

fn keep_last(env: &Env) {
    let device = env.open();
    device
        .set_state(7, StateFlags::default().keep())
        .expect("publish");
    publish(&device, 7);
    drop(device);
    assert_eq!(watcher(env).state(own(env)), Ok(0));
}

fn others_close(env: &Env) {
    let owner = env.open();
    publish(&owner, 7);
    for _ in 0..3 {
        drop(env.open());
        drop(watcher(env));
    }
    assert_eq!(owner.state(own(env)), Ok(7));
}

fn holder(env: &Env, value: &str) -> helpers::Helper {
    let node = env.node().to_str().expect("a plain name");
    helpers::start("hold-state", &[node, value]).ready()
}

fn killed(env: &Env) {
    let holder = holder(env, "7");
    let device = env.open();
    assert_eq!(device.state(own(env)), Ok(7));
    assert_eq!(
        device.set_state(8, StateFlags::default()),
        Err(Error::StateOwned)
    );
    holder.kill();
    assert!(becomes(env, 0));
    publish(&device, 8);
}

fn dup(env: &Env) {
    let device = env.open();
    publish(&device, 7);
    let copies: Vec<_> = (0..3)
        .map(|_| device.as_fd().try_clone_to_owned().expect("dup"))
        .collect();
    drop(device);
    for copy in copies {
        assert_eq!(watcher(env).state(own(env)), Ok(7));
        drop(copy);
    }
    assert_eq!(watcher(env).state(own(env)), Ok(0));
}

fn fork(env: &Env) {
    let device = env.open();
    publish(&device, 7);
    // Not close-on-exec: the child gets a copy.
    let copy = rustix::io::dup(&device).expect("dup");
    drop(device);
    let child = helpers::start("stay", &[]).ready();
    drop(copy);
    assert_eq!(watcher(env).state(own(env)), Ok(7), "the child has it");
    assert_eq!(child.wait().code(), Some(0));
    assert!(becomes(env, 0));
}

fn zero_is_owned(env: &Env) {
    let (first, second) = (env.open(), env.open());
    publish(&first, 0);
    assert_eq!(
        second.set_state(8, StateFlags::default()),
        Err(Error::StateOwned)
    );
}

fn all_bits(env: &Env) {
    let device = env.open();
    for value in [1, 0x8000_0000, 0xdead_beef, u32::MAX, 0] {
        publish(&device, value);
        assert_eq!(device.state(own(env)), Ok(value));
    }
}

fn own_is_no_event(env: &Env) {
    let (device, second) = (env.open(), env.open());
    publish(&device, 7);
    publish(&device, 8);
    // Ringing oneself comes after what the state would have caused.
    let vector = env.vectors() - 1;
    device.ring(own(env), vector).expect("ring");
    let own = own(env);
    for file in [&device, &second] {
        // Another peer's file, closed by the test before, may still be heard on vector 0.
        let mut rung = 0;
        while rung == 0 {
            for event in wait(file) {
                rung += super::doorbells(&event, vector);
                let is_own = matches!(event.kind, EventKind::State { peer, .. } if peer == own);
                assert!(!is_own, "{event:?}");
            }
        }
    }
}
