// SPDX-License-Identifier: MIT OR Apache-2.0
//! What sysfs, debugfs, fdinfo and tracepoints show of channels.

use super::{becomes, connect_far, connect_near, ends_with, soon, system, Ends, Env, Test};
use crate::suites::interrupts;
use crate::suites::tracing::{assert_order, Trace};
use crate::suites::visibility::{counter, fdinfo, table};
use ivshmem::{ChannelLink, ConnectOptions, Deadline};
use std::collections::BTreeMap;
use std::fs;

pub(in super::super) const TESTS: &[Test] = &[
    Test::two_peers(
        "fdinfo of a channel tells its numbers and how it stands",
        numbers,
    ),
    Test::two_peers(
        "fdinfo of a channel tells on which vector the peer rings",
        vector,
    )
    .only_if(interrupts),
    Test::two_peers("fdinfo of a channel that has ended says how", ended),
    Test::two_peers("sysfs and debugfs count and list open channels", listed),
    Test::two_peers("debugfs counts links, ends and messages", counted),
    Test::two_peers("channels and their messages are traced", traced),
];

/// Some messages: two from the near end, of which the far one reads one; one back.
fn talk(Ends { near, far }: &Ends) {
    near.send(b"one").expect("send");
    near.send(b"two!").expect("send");
    far.receive_message().expect("receive");
    near.wait_confirmed(1, Deadline::after(soon()))
        .expect("confirmed");
    far.send(b"three").expect("send");
    near.receive_message().expect("receive");
}

fn explicit_near(env: &Env) -> Ends {
    let explicit = ConnectOptions::new().explicit_ack(true);
    ends_with(env, explicit, ConnectOptions::new())
}

/// Some lines of fdinfo.
fn lines<'a>(info: &'a BTreeMap<String, String>, names: &[&str]) -> Vec<&'a str> {
    names.iter().map(|name| info[*name].as_str()).collect()
}

const COUNTS: [&str; 4] = ["sent", "confirmed", "received", "acknowledged"];

fn numbers(env: &Env) {
    let alone = connect_near(env, ConnectOptions::new());
    let info = fdinfo(&alone);
    assert_eq!(info["link"], "waiting");
    drop(alone);
    let ends = explicit_near(env);
    talk(&ends);
    let info = fdinfo(&ends.near);
    let peer = env.other_expected().peer.to_string();
    assert_eq!(lines(&info, &["peer", "port"]), [&peer, "0"]);
    assert_eq!(lines(&info, &["link", "acknowledge"]), ["up", "explicit"]);
    let largest = ends.near.status().expect("status").max_message;
    assert_eq!(info["max-message"], largest.to_string());
    assert_eq!(lines(&info, &COUNTS), ["2", "1", "1", "0"]);
    ends.near.acknowledge(1).expect("acknowledge");
    assert_eq!(lines(&fdinfo(&ends.near), &COUNTS), ["2", "1", "1", "1"]);
    let info = fdinfo(&ends.far);
    assert_eq!(info["acknowledge"], "by reading");
    assert_eq!(lines(&info, &["sent", "received"]), ["1", "1"]);
    let file = fdinfo(&ends.far)["file"].clone();
    assert_ne!(file, fdinfo(&ends.near)["file"], "they can be told apart");
}

fn vector(env: &Env) {
    let Ends { near, far } = explicit_near(env);
    let vector: u64 = fdinfo(&near)["vector"].parse().expect("a number");
    let taken = || table(env.node(), "vectors")[&vector][0];
    let before = taken();
    std::thread::scope(|scope| {
        scope.spawn(|| while near.receive_message().expect("receive").is_some() {});
        let rung = system::wait_until(soon(), || {
            far.send(b"to one who waits").expect("send");
            taken() > before
        });
        drop(far);
        assert!(rung, "no interrupt on vector {vector}");
    });
}

fn ended(env: &Env) {
    let Ends { near, far } = explicit_near(env);
    drop(far);
    let far = connect_far(env, ConnectOptions::new());
    becomes(&near, ChannelLink::Reset);
    assert_eq!(fdinfo(&near)["link"], "reset");
    system::unbind(&env.other_expected().bdf()).expect("unbind");
    becomes(&far, ChannelLink::Gone);
    assert_eq!(fdinfo(&far)["link"], "gone");
}

/// What debugfs lists of the device under test.
fn list(env: &Env) -> String {
    let node = env.node().file_name().expect("a name").to_string_lossy();
    fs::read_to_string(format!("/sys/kernel/debug/ivshmem/{node}/channels")).expect("debugfs")
}

/// How many channels sysfs says there are.
fn attribute(env: &Env) -> String {
    let node = env.node().file_name().expect("a name").to_string_lossy();
    fs::read_to_string(format!("/sys/class/ivshmem/{node}/channels")).expect("sysfs")
}

fn listed(env: &Env) {
    const HEAD: &str = "peer port link sent confirmed received acknowledged\n";
    assert_eq!((attribute(env).as_str(), list(env).as_str()), ("0\n", HEAD));
    let waiting = env.open().connect(2, ConnectOptions::new());
    let waiting = waiting.expect("connect");
    let ends = explicit_near(env);
    talk(&ends);
    let peer = env.other_expected().peer;
    let both = format!("{HEAD}{peer} 0 up 2 1 1 0\n2 0 waiting 0 0 0 0\n");
    assert_eq!((attribute(env), list(env)), ("2\n".into(), both));
    drop(waiting);
    drop(ends);
    assert_eq!((attribute(env).as_str(), list(env).as_str()), ("0\n", HEAD));
}

fn counted(env: &Env) {
    let names = [
        "channels_up",
        "channels_reset",
        "channels_broken",
        "messages_sent",
        "messages_received",
    ];
    let read = || names.map(|name| counter(env.node(), name));
    let before = read();
    let ends = explicit_near(env);
    talk(&ends);
    let Ends { near, far } = ends;
    drop(far);
    let _far = connect_far(env, ConnectOptions::new());
    becomes(&near, ChannelLink::Reset);
    let after = read();
    let grown: Vec<u64> = (0..5).map(|index| after[index] - before[index]).collect();
    assert_eq!(grown, [1, 1, 0, 2, 1], "of {names:?}");
}

fn traced(env: &Env) {
    let trace = Trace::start();
    let ends = explicit_near(env);
    talk(&ends);
    let file = fdinfo(&ends.near)["file"].clone();
    let peer = env.other_expected().peer;
    let Ends { near, far } = ends;
    drop(far);
    let _far = connect_far(env, ConnectOptions::new());
    becomes(&near, ChannelLink::Reset);
    let link = |link: u32| format!("channel_link: peer={peer} file={file} link={link}");
    let wanted = [
        format!("channel_open: peer={peer} file={file}"),
        link(ivshmem::uapi::IVSHMEM_CHANNEL_UP),
        format!("channel_send: peer={peer} number=1 length=3"),
        format!("channel_send: peer={peer} number=2 length=4"),
        format!("channel_receive: peer={peer} number=1 length=5"),
        link(ivshmem::uapi::IVSHMEM_CHANNEL_RESET),
    ];
    assert_order(&trace.lines(env.node()), &wanted);
}
