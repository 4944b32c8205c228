// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channels with the device model's echo, source and sink.

use super::{connect, converse, receive, receive_all, send_all, stream, Soft, MESSAGES};
use crate::suites::{soon, Env, Test};
use ivshmem::{ConnectOptions, Deadline, Error};
use ivshmem_messages::Checker;
use std::collections::BTreeMap;

pub(in crate::suites) const TESTS: &[Test] = &[
    Test::new(
        "channel peers: a soft inmate sends back messages of all sizes, both ways at once",
        echo,
    ),
    Test::new(
        "channel peers: what a soft inmate sends arrives in order and whole, up to its end",
        source,
    ),
    Test::new(
        "channel peers: a soft inmate has confirmed what we sent when fsync returns",
        sink,
    ),
    Test::new(
        "channel peers: a soft inmate counts as confirmed what was acknowledged, and nothing else",
        explicit,
    ),
    Test::new(
        "channel peers: a peer that polls is served as well",
        polling,
    ),
    // bad input: a channel's peer that restarts between any two of its stores => exactly one ECONNRESET, nothing of the old session in the new one, and every confirmed message was received
    Test::new(
        "channel peers: each restart of the peer, at any of its stores, is one ended session, and what it \
         counts as confirmed was received",
        restarts,
    ),
];

const PEER: u32 = 1;

fn echo(env: &Env) {
    let inmate = Soft::come(env, PEER, "channel-echo,to=0");
    for session in 1..=2 {
        let channel = connect(env, PEER, ConnectOptions::new());
        converse(&channel, session, MESSAGES);
        drop(channel);
        inmate.wait("the end", |it| it["finished"] == session);
    }
    let channel = inmate.channel();
    assert_eq!(
        (&channel["resets"], &channel["broken"]),
        (&0.into(), &0.into())
    );
    assert_eq!(channel["total"]["sent"], 2 * MESSAGES);
}

fn source(env: &Env) {
    let behaviour = format!("channel-source,to=0,seed=3,count={MESSAGES}");
    let inmate = Soft::come(env, PEER, &behaviour);
    let channel = connect(env, PEER, ConnectOptions::new());
    receive_all(&channel, MESSAGES);
    // It closes when all is confirmed.
    assert_eq!(receive(&channel, &mut [0]), Ok(None));
    let counted = inmate.wait("its end", |it| it["closed"] == 1);
    assert_eq!(counted["total"]["confirmed"], MESSAGES);
    assert_eq!(channel.send(b"x"), Err(Error::Closed));
}

fn sink(env: &Env) {
    let inmate = Soft::come(env, PEER, "channel-sink,to=0,acknowledge=16");
    let channel = connect(env, PEER, ConnectOptions::new());
    send_all(&channel, stream(&channel, 1), MESSAGES);
    channel.flush().expect("all is confirmed");
    let status = channel.status().expect("status");
    assert_eq!(status.confirmed, u64::from(MESSAGES));
    let counted = inmate.wait("all messages", |it| it["total"]["received"] == MESSAGES);
    for wrong in ["corrupted", "lost", "repeated", "stale"] {
        assert_eq!(counted["total"][wrong], 0, "{wrong}: {counted}");
    }
}

fn explicit(env: &Env) {
    let inmate = Soft::come(env, PEER, "channel-source,to=0,seed=5,count=20");
    let channel = connect(env, PEER, ConnectOptions::new().explicit_ack(true));
    receive_all(&channel, 20);
    // It waits for the last, and is rung for that one only.
    channel.acknowledge(7).expect("acknowledge");
    let counted = inmate.channel();
    assert_eq!(counted["closed"], 0, "{counted}");
    assert!(
        counted["total"]["confirmed"].as_u64() <= Some(7),
        "{counted}"
    );
    channel.acknowledge(20).expect("acknowledge");
    let counted = inmate.wait("its end", |it| it["closed"] == 1);
    assert_eq!(counted["total"]["confirmed"], 20);
    assert_eq!(receive(&channel, &mut [0]), Ok(None));
}

fn polling(env: &Env) {
    let _inmate = Soft::come(env, PEER, "channel-echo,to=0,poll=2");
    let channel = connect(env, PEER, ConnectOptions::new());
    converse(&channel, 1, MESSAGES / 10);
}

/// Receives until the session ends; how it does. The log has, for each session of the sender, how many messages
/// came.
fn drink(
    env: &Env,
    checker: &mut Checker,
    log: &mut BTreeMap<u32, u32>,
    most: u32,
) -> Option<Error> {
    let channel = connect(env, PEER, ConnectOptions::new());
    checker.begin();
    let mut buffer = vec![0; super::largest(&channel)];
    while checker.count() < most {
        let length = match receive(&channel, &mut buffer) {
            Ok(length) => length.expect("a message: it never closes"),
            Err(error) => {
                // For good.
                assert_eq!(receive(&channel, &mut buffer), Err(error.clone()));
                assert_eq!(channel.send(b"x"), Err(error.clone()));
                return Some(error);
            }
        };
        assert_eq!(checker.check(&buffer[..length]), Ok(()));
        let session = checker.stream().expect("a stream").session;
        log.insert(session, checker.count());
        if checker.count() == 1 {
            env.model(&format!("restart {PEER} {}", 5 + 7 * session % 200));
        }
    }
    None
}

fn restarts(env: &Env) {
    const RESTARTS: u64 = 25;
    let inmate = Soft::come(env, PEER, "channel-source,to=0,seed=6,max=400");
    let before = env.counter("channels_reset");
    let (mut checker, mut log) = (Checker::default(), BTreeMap::new());
    for restart in 0..RESTARTS {
        let end = drink(env, &mut checker, &mut log, u32::MAX);
        let is_reset = matches!(end, Some(Error::Reset { .. }));
        assert!(is_reset, "restart {restart}: {end:?}");
    }
    assert_eq!(env.counter("channels_reset") - before, RESTARTS);
    assert_eq!(inmate.channel()["broken"], 0);
    let recent = inmate.channel()["recent"].take();
    let recent = recent.as_array().expect("sessions").clone();
    let confirmed = |session: &&serde_json::Value| session["traffic"]["confirmed"] != 0;
    for session in recent.iter().filter(confirmed) {
        let number = session["number"].as_u64().expect("a number") as u32;
        let received = u64::from(log.get(&number).copied().unwrap_or(0));
        let counted = session["traffic"]["confirmed"].as_u64();
        assert!(
            counted <= Some(received),
            "{received} received of {session}"
        );
    }
    // Between sessions nobody waits: what is there now is a session like any other.
    let channel = connect(env, PEER, ConnectOptions::new());
    let ready = channel
        .wait_readable(Deadline::after(soon()))
        .expect("poll");
    assert!(ready.readable);
}
