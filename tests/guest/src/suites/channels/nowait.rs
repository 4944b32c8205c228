// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channels with io_uring and `RWF_NOWAIT`, which never wait in a call.

use super::{comes, content, ends, fill, soon, system, Ends, Env, Test};
use crate::raw::{self, Ring};
use crate::suites::nowait::{memory, workers};
use rustix::event::PollFlags;
use rustix::io::Errno;

pub(in super::super) const TESTS: &[Test] = &[
    // bad input: `RWF_NOWAIT` on a channel without a message, or without room => `EAGAIN`
    Test::two_peers(
        "RWF_NOWAIT: EAGAIN without a message and without room, else as without it",
        nowait,
    ),
    Test::two_peers(
        "io_uring: a read ends when a message comes, a write when there is room",
        uring,
    ),
    Test::two_peers(
        "io_uring: a read that waits ends with the peer's close",
        uring_end,
    ),
];

/// The position of a file that has none.
const NONE: i64 = -1;

fn nowait(env: &Env) {
    let Ends { near, far } = ends(env);
    let mut buffer = [0; 1000];
    let got = raw::preadv2(&far, &mut buffer, NONE, libc::RWF_NOWAIT);
    assert_eq!(got, Err(Errno::AGAIN));
    let message = content(1);
    let got = raw::pwritev2(&near, &message, NONE, libc::RWF_NOWAIT);
    assert_eq!(got, Ok(message.len()));
    comes(&far, PollFlags::IN);
    let got = raw::preadv2(&far, &mut buffer, NONE, libc::RWF_NOWAIT);
    assert_eq!(got, Ok(message.len()));
    assert_eq!(buffer[..message.len()], message);
    fill(&near, 500);
    let got = raw::pwritev2(&near, &[1; 500], NONE, libc::RWF_NOWAIT);
    assert_eq!(got, Err(Errno::AGAIN));
}

/// Waits for the end of the request with that number; what it ended with.
fn ended(ring: &mut Ring, number: u64) -> raw::Outcome {
    let mut all = Vec::new();
    let some = || {
        all = ring.ended();
        !all.is_empty()
    };
    assert!(
        system::wait_until(soon(), some),
        "request {number} does not end"
    );
    let [(got, outcome)] = all[..] else {
        panic!("{all:?}");
    };
    assert_eq!(got, number);
    outcome
}

fn uring(env: &Env) {
    let Ends { near, far } = ends(env);
    let mut ring = Ring::new();
    let (from, to) = (memory(512, 0x1234_5678), memory(512, 0));
    let nowhere = u64::MAX;
    for number in 1..=10 {
        ring.read(&far, to, nowhere, number);
        assert_eq!(ring.ended(), [], "there is no message");
        near.send(&content(number)).expect("send");
        assert_eq!(ended(&mut ring, number), Ok(content(number).len()));
    }
    let count = fill(&near, 504);
    ring.write(&near, from, nowhere, 20);
    assert_eq!(ring.ended(), [], "there is no room");
    for _ in 0..count {
        far.receive_message().expect("receive").expect("one");
    }
    assert_eq!(ended(&mut ring, 20), Ok(512));
    ring.read(&far, to, nowhere, 21);
    assert_eq!(ended(&mut ring, 21), Ok(512));
    assert_eq!(to.load(508), from.load(508));
    assert_eq!(workers(), 0, "a request was handed to a worker");
}

fn uring_end(env: &Env) {
    let Ends { near, far } = ends(env);
    let mut ring = Ring::new();
    ring.read(&far, memory(512, 0), u64::MAX, 1);
    assert_eq!(ring.ended(), [], "there is no message");
    drop(near);
    assert_eq!(ended(&mut ring, 1), Ok(0));
}
