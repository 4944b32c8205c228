// SPDX-License-Identifier: MIT OR Apache-2.0
//! `poll` of a channel: which bits, in which state.

use super::{
    becomes, bits, comes, connect_far, connect_near, ends, fill, largest, patterned, up, Ends, Env,
    Test,
};
use crate::system;
use ivshmem::{ChannelLink, ConnectOptions};
use rustix::event::{epoll, PollFlags, Timespec};

pub(in super::super) const TESTS: &[Test] = &[
    Test::two_peers("waiting for the peer: no bit; EPOLLOUT is link-up", link_up),
    Test::two_peers("EPOLLIN as long as there is a message", readable),
    Test::two_peers("poll consumes nothing", consumes_nothing),
    Test::two_peers(
        "a full ring: a large message was refused, and EPOLLOUT waits for room for it",
        room_for_refused,
    ),
    Test::two_peers(
        "a full ring: EPOLLOUT comes back when half of it is free",
        half_a_ring,
    ),
    Test::two_peers(
        "the peer closes: EPOLLRDHUP at once, EPOLLIN until the end was read",
        closed,
    ),
    Test::two_peers("reset: EPOLLHUP and EPOLLERR", reset),
    Test::two_peers("the device goes: EPOLLHUP and EPOLLERR", gone),
    Test::two_peers(
        "an epoll instance is woken by each message, edge-triggered too",
        edges,
    ),
];

const END: PollFlags = PollFlags::HUP.union(PollFlags::ERR);

fn link_up(env: &Env) {
    let near = connect_near(env, ConnectOptions::new());
    assert_eq!(bits(&near), PollFlags::empty());
    let far = connect_far(env, ConnectOptions::new());
    assert_eq!(comes(&near, PollFlags::OUT), PollFlags::OUT);
    assert_eq!(comes(&far, PollFlags::OUT), PollFlags::OUT);
}

fn readable(env: &Env) {
    let Ends { near, far } = ends(env);
    for _ in 0..3 {
        near.send(b"one").expect("send");
        near.send(b"two").expect("send");
        let both = PollFlags::IN | PollFlags::OUT;
        assert_eq!(comes(&far, PollFlags::IN), both);
        far.receive_message().expect("receive");
        assert_eq!(bits(&far), both, "the second message");
        far.receive_message().expect("receive");
        assert_eq!(bits(&far), PollFlags::OUT);
    }
}

fn consumes_nothing(env: &Env) {
    let Ends { near, far } = ends(env);
    near.send(b"one").expect("send");
    comes(&far, PollFlags::IN);
    for _ in 0..100 {
        assert!(bits(&far).contains(PollFlags::IN));
    }
    assert_eq!(far.status().expect("status").received, 0);
    assert_eq!(far.receive_message(), Ok(Some(b"one".to_vec())));
}

fn half_a_ring(env: &Env) {
    let Ends { near, far } = ends(env);
    let ring = largest(&near) + 8;
    let count = fill(&near, 100);
    assert_eq!(bits(&near), PollFlags::empty(), "{count} messages");
    assert!(bits(&far).contains(PollFlags::IN));
    let mut free = ring - 112 * count as usize;
    while bits(&near).is_empty() {
        assert!(free < ring / 2 + 112, "{free} of {ring} bytes are free");
        far.receive_message().expect("receive").expect("one");
        free += 112;
    }
    assert!(free >= ring / 2 - 8, "{free} of {ring} bytes are free");
    assert_eq!(bits(&near), PollFlags::OUT);
    near.set_nonblocking(true).expect("fcntl");
    near.send(&patterned(0, ring / 2 - 16))
        .expect("there is room");
}

fn room_for_refused(env: &Env) {
    let Ends { near, far } = ends(env);
    let largest = largest(&near);
    let mut left = fill(&near, 100);
    // What was refused last is one as large as the ring.
    near.set_nonblocking(true).expect("fcntl");
    near.send(&patterned(1, largest)).expect_err("no room");
    while left > 0 {
        assert_eq!(bits(&near), PollFlags::empty(), "{left} are left");
        far.receive_message().expect("receive");
        left -= 1;
    }
    assert_eq!(comes(&near, PollFlags::OUT), PollFlags::OUT);
    near.send(&patterned(1, largest)).expect("there is room");
}

fn closed(env: &Env) {
    let Ends { near, far } = ends(env);
    near.send(b"last").expect("send");
    drop(near);
    let got = comes(&far, PollFlags::RDHUP);
    assert!(got.contains(PollFlags::IN | PollFlags::RDHUP), "{got:?}");
    assert!(!got.intersects(END), "it is no error: {got:?}");
    assert_eq!(far.receive_message(), Ok(Some(b"last".to_vec())));
    assert!(bits(&far).contains(PollFlags::IN), "the end");
    assert_eq!(far.receive_message(), Ok(None));
    let ready = far.ready().expect("poll");
    assert!(ready.peer_closed && ready.readable && !ready.ended);
}

fn reset(env: &Env) {
    let Ends { near, far } = ends(env);
    far.send(b"not read").expect("send");
    drop(far);
    let far = connect_far(env, ConnectOptions::new());
    let got = comes(&near, PollFlags::empty());
    assert!(got.contains(END), "{got:?}");
    assert_eq!(near.status().expect("status").link, ChannelLink::Reset);
    // The new session waits for a new one at the other end.
    assert_eq!(bits(&far), PollFlags::empty());
    drop(near);
    let near = connect_near(env, ConnectOptions::new());
    up(&near);
    up(&far);
}

fn gone(env: &Env) {
    let Ends { near, far: _far } = ends(env);
    system::unbind(&env.expected().bdf()).expect("unbind");
    let got = comes(&near, PollFlags::empty());
    assert!(got.contains(END), "{got:?}");
    becomes(&near, ChannelLink::Gone);
}

fn edges(env: &Env) {
    let Ends { near, far } = ends(env);
    let set = epoll::create(epoll::CreateFlags::CLOEXEC).expect("epoll");
    let flags = epoll::EventFlags::IN | epoll::EventFlags::ET;
    epoll::add(&set, &far, epoll::EventData::new_u64(7), flags).expect("add");
    let limit = Timespec::try_from(super::soon()).expect("a limit");
    for number in 1..=50 {
        near.send(&patterned(number, 20)).expect("send");
        let mut room = [epoll::Event {
            flags: epoll::EventFlags::empty(),
            data: epoll::EventData::new_u64(0),
        }; 2];
        let count = epoll::wait(&set, &mut room[..], Some(&limit)).expect("epoll");
        assert_eq!((count, room[0].data.u64()), (1, 7), "message {number}");
        far.set_nonblocking(true).expect("fcntl");
        assert_eq!(far.receive_message(), Ok(Some(patterned(number, 20))));
        // The end of what there is arms the next edge.
        far.receive_message().expect_err("nothing more");
    }
}
