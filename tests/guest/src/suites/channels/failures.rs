// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is known after a failure: the rows of the table in Documentation/channels.md, with processes that
//! die by SIGKILL at the far end, or at the near one.

use super::{
    becomes, connect_far, connect_near, content, ends_with, soon, up, while_waiting, Ends, Env,
    Test,
};
use crate::helpers::{self, Helper};
use crate::suites::faults::Faulty;
use crate::system;
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Error};

pub(in super::super) const TESTS: &[Test] = &[
    Test::two_peers(
        "the sender dies: what it had sent arrives, then the end",
        sender_dies,
    ),
    Test::two_peers(
        "the receiver dies before it reads: nothing is confirmed",
        dies_before_read,
    ),
    Test::two_peers(
        "the receiver dies after reading, by default: confirmed means read, and no more",
        dies_after_read,
    ),
    Test::two_peers(
        "the receiver dies after reading and before acknowledging: not confirmed, so sent again",
        dies_before_ack,
    ),
    Test::two_peers(
        "the receiver dies after acknowledging: confirmed",
        dies_after_ack,
    ),
    Test::two_peers(
        "lost doorbells: messages, room and confirmations are found nevertheless",
        lost_doorbells,
    )
    .only_if(|plan| plan.devices.len() >= 2 && super::super::interrupts(plan)),
];

/// A process with the far end that carries out `script`.
pub(super) fn far_process(env: &Env, mode: &str, script: &str) -> Helper {
    let node = env.other_node().to_str().expect("a plain name").to_string();
    let peer = env.expected().peer.to_string();
    helpers::start("channel", &[&node, &peer, mode, script])
}

/// Sends `count` messages and waits until the process has done its part.
fn send_to(helper: Helper, near: &Channel, count: u64) -> Helper {
    for number in 1..=count {
        near.send(&content(number)).expect("send");
    }
    helper.ready()
}

/// How many messages are known to have been confirmed when all is over.
fn known(near: &Channel, sent: u64) -> u64 {
    // The end is known: waiting ends with it.
    becomes(near, ChannelLink::Closing);
    let got = near.wait_confirmed(sent, Deadline::after(soon()));
    let status = near.status().expect("status");
    assert_eq!(status.sent, sent);
    let complete = status.confirmed == sent;
    let wanted = if complete {
        Ok(sent)
    } else {
        Err(Error::Closed)
    };
    assert_eq!(got, wanted);
    status.confirmed
}

fn sender_dies(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    let helper = far_process(env, "default", "s5").ready();
    helper.kill();
    becomes(&near, ChannelLink::Closing);
    for number in 1..=5 {
        assert_eq!(near.receive_message(), Ok(Some(content(number))));
    }
    assert_eq!(near.receive_message(), Ok(None));
}

fn dies_before_read(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    let helper = send_to(far_process(env, "default", ""), &near, 3);
    helper.kill();
    assert_eq!(known(&near, 3), 0);
}

fn dies_after_read(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    let helper = send_to(far_process(env, "default", "r2"), &near, 3);
    helper.kill();
    assert_eq!(known(&near, 3), 2);
}

fn dies_before_ack(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    let helper = send_to(far_process(env, "explicit", "r3,a1"), &near, 3);
    helper.kill();
    let confirmed = known(&near, 3);
    assert_eq!(confirmed, 1, "three were read, one was dealt with");
    // What is not confirmed is sent again in the next session.
    drop(near);
    let explicit = ConnectOptions::new().explicit_ack(true);
    let Ends { near, far } = ends_with(env, ConnectOptions::new(), explicit);
    for number in confirmed + 1..=3 {
        near.send(&content(number)).expect("send");
        assert_eq!(far.receive_message(), Ok(Some(content(number))));
    }
    far.acknowledge(2).expect("acknowledge");
    near.flush().expect("all is confirmed");
}

fn dies_after_ack(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    let helper = send_to(far_process(env, "explicit", "r3,a3"), &near, 3);
    helper.kill();
    assert_eq!(known(&near, 3), 3);
    drop(near);
    let near = connect_near(env, ConnectOptions::new());
    let far = connect_far(env, ConnectOptions::new());
    up(&near);
    assert_eq!(far.next_size(), Ok(None), "nothing is left over");
}

fn lost_doorbells(env: &Env) {
    let ends = || ends_with(env, ConnectOptions::new(), ConnectOptions::new());
    let Ends { near, far } = ends();
    let lose = |peer: u32| Faulty::begin(env, &format!("lose {peer} 1"));
    let (own, other) = (env.expected().peer, env.other_expected().peer);
    for number in 1..=3 {
        // The one that tells of the message, then the one that tells of its confirmation.
        let (got, ()) = while_waiting(
            super::READ,
            || far.receive(&mut [0; 1000]),
            || {
                let faulty = lose(other);
                near.send(&content(number)).expect("send");
                assert!(
                    system::wait_until(soon(), || env.model("status").is_empty()),
                    "nobody rang"
                );
                faulty.end();
            },
        );
        assert_eq!(got, Ok(Some(content(number).len())));
        near.send(&content(number)).expect("send");
        let (got, ()) = while_waiting(
            super::FSYNC,
            || near.flush(),
            || {
                let faulty = lose(own);
                far.receive_message().expect("receive");
                assert!(
                    system::wait_until(soon(), || env.model("status").is_empty()),
                    "nobody rang"
                );
                faulty.end();
            },
        );
        assert_eq!(got, Ok(()));
    }
}
