// SPDX-License-Identifier: MIT OR Apache-2.0

//! Channels between soft inmates of one link, without a guest: echo, source and sink, restarts at any
//! store, and an attacker.

mod support;

use fastrand::Rng;
use ivshmem_device::control::Control;
use ivshmem_device::link::Link;
use ivshmem_device::link::SharedLink;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::LinkSpec;
use ivshmem_device::statistics::Channel;
use ivshmem_device::statistics::Peer;
use ivshmem_device::statistics::SessionEnd;
use ivshmem_device::statistics::Traffic;
use std::time::Duration;
use std::time::Instant;
use support::wait_for;

/// A link with soft inmates only.
struct Scene {
    link: SharedLink,
    control: Control,
}

impl Scene {
    fn new(options: LinkOptions, inmates: &[&str]) -> Self {
        let spec = LinkSpec::new(options).expect("good options");
        let link = SharedLink::new(Link::new(spec).expect("memory"));
        let scene = Self {
            control: Control::new(link.clone()),
            link,
        };
        for inmate in inmates {
            scene.run(&format!("inmate {inmate}"));
        }
        scene
    }

    fn run(&self, command: &str) {
        if let Err(error) = self.control.run(command) {
            panic!("{command}: {error}");
        }
    }

    fn peer(&self, peer: u16) -> Peer {
        self.link.lock().snapshot(false).peers[usize::from(peer)].clone()
    }

    /// The end of `own` of its channel with `peer`.
    fn channel(&self, own: u16, peer: u16) -> Channel {
        let channels = self.peer(own).channels;
        let found = channels.into_iter().find(|channel| channel.peer == peer);
        found.unwrap_or_default()
    }

    /// Waits until what `own` counts of its channel with `peer` is as wanted.
    fn wait(&self, what: &str, own: u16, peer: u16, wanted: impl Fn(&Channel) -> bool) -> Channel {
        wait_for(what, || {
            let channel = self.channel(own, peer);
            assert_eq!(channel.total.wrong(), 0, "{:?}", channel.total);
            wanted(&channel).then_some(channel)
        })
    }
}

impl Scene {
    /// Waits until messages arrive at sink 1 from source 0 in the sessions that both have now.
    fn wait_for_messages(&self) -> (Channel, Channel) {
        let goes_on = |it: &Channel, enough: &dyn Fn(&Traffic) -> bool| {
            let now = it.recent.last();
            now.is_some_and(|it| it.end.is_none() && enough(&it.traffic))
        };
        let source = self.wait("confirmations", 0, 1, |it| {
            goes_on(it, &|it| it.confirmed > 0)
        });
        let sink = self.wait("messages", 1, 0, |it| {
            goes_on(it, &|it| it.acknowledged > 20)
        });
        (sink, source)
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.control.stop();
    }
}

fn options(change: impl FnOnce(&mut LinkOptions)) -> LinkOptions {
    let mut options = LinkOptions::default();
    change(&mut options);
    options
}

/// How often something is repeated: `number`, or as many times as IVSHMEM_CHANNEL_FACTOR says.
fn times(number: u32) -> u32 {
    let factor = std::env::var("IVSHMEM_CHANNEL_FACTOR").ok();
    number * factor.map_or(1, |factor| factor.parse::<u32>().expect("a number"))
}

#[test]
fn an_echo_sends_all_messages_back() {
    let count = times(5000);
    for (vectors, output_size, max) in [(4, 0x2000, 0), (1, 0x1000, 100), (0, 0x1000, 0)] {
        let source = format!(
            "0:channel-source,count={count},seed=3,echoed,max={}",
            max.max(24)
        );
        let scene = Scene::new(
            options(|it| (it.vectors, it.output_size) = (vectors, output_size)),
            &["1:channel-echo", &source],
        );
        let channel = scene.wait("all messages to be back", 0, 1, |it| it.closed == 1);
        let total = channel.total;
        let count = u64::from(count);
        assert_eq!((total.sent, total.confirmed), (count, count));
        assert_eq!((total.received, total.acknowledged), (count, count));
        assert_eq!(total.sent_bytes, total.received_bytes);
        let echo = scene.wait("the echo to see the end", 1, 0, |it| it.finished == 1);
        assert_eq!((echo.total.sent, echo.total.received), (count, count));
        assert_eq!((echo.total.dropped, echo.resets + echo.broken), (0, 0));
        assert_eq!(scene.link.lock().snapshot(false).fatal_accesses, 0);
    }
}

#[test]
fn messages_of_all_sizes_go_both_ways_at_once() {
    let count = times(2000);
    let source = |peer, seed| format!("{peer}:channel-source,count={count},seed={seed},echoed");
    // With `echoed`, each waits for as many messages of the other's.
    let scene = Scene::new(options(|_| {}), &[&source(0, 5), &source(1, 6)]);
    for (own, peer) in [(0, 1), (1, 0)] {
        let wanted = u64::from(count);
        let channel = scene.wait("all messages", own, peer, |it| it.total.received == wanted);
        assert!(channel.total.received_bytes > 1000 * wanted);
    }
    // One closes, and the other then has seen the end or closes too.
    for (own, peer) in [(0, 1), (1, 0)] {
        scene.wait("the end", own, peer, |it| it.closed + it.finished >= 1);
    }
}

/// What goes on at a channel without traffic, and at one with.
#[test]
fn an_idle_link_costs_one_doorbell_a_message() {
    let count = 100;
    let scene = Scene::new(
        options(|_| {}),
        &["1:channel-sink", "0:channel-source,rate=200,max=24"],
    );
    let before = scene.wait("a first message", 1, 0, |it| it.total.received > 2);
    let rung = scene.peer(0).doorbells.sent;
    let channel = scene.wait("some more", 1, 0, |it| {
        it.total.received >= before.total.received + count
    });
    let messages = channel.total.received - before.total.received;
    // The two counts are not of the same moment.
    let doorbells = scene.peer(0).doorbells.sent - rung;
    assert!(doorbells <= messages + 20, "{doorbells} for {messages}");
}

#[test]
fn a_busy_link_costs_few_doorbells() {
    let count = times(20_000);
    let source = format!("0:channel-source,count={count},max=64");
    let scene = Scene::new(
        options(|it| it.output_size = 0x10_0000),
        &["1:channel-sink", &source],
    );
    scene.wait("all messages", 0, 1, |it| it.closed == 1);
    let doorbells = scene.peer(0).doorbells.sent + scene.peer(1).doorbells.sent;
    assert!(doorbells < u64::from(count), "{doorbells}");
}

#[test]
fn one_who_polls_needs_no_doorbell() {
    let scene = Scene::new(
        options(|_| {}),
        &[
            "1:channel-sink,poll=1",
            "0:channel-source,count=500,poll=1,max=300",
        ],
    );
    scene.wait("all messages", 0, 1, |it| it.closed == 1);
    let doorbells = |peer| scene.peer(peer).doorbells.sent;
    assert_eq!((doorbells(0), doorbells(1)), (0, 0));
}

/// What one end counts as confirmed in a session that has ended, the other has acknowledged in the same.
fn assert_confirmed(source: &Channel, sink: &Channel) {
    let ended = source.recent.iter().filter(|it| it.end.is_some());
    for session in ended.filter(|it| it.traffic.confirmed > 0) {
        let of_it = |it: &&ivshmem_device::statistics::Session| {
            it.peer_number == Some(session.number)
                && it.traffic.acknowledged >= session.traffic.confirmed
        };
        assert!(
            sink.recent.iter().any(|it| of_it(&it)),
            "nobody acknowledged {session:?} in {:?}",
            sink.recent
        );
    }
}

#[test]
fn restarts_at_any_store_end_one_session_each_and_lose_nothing() {
    let mut rng = Rng::with_seed(11);
    let scene = Scene::new(
        options(|_| {}),
        &[
            "1:channel-sink,acknowledge=7",
            "0:channel-source,seed=9,max=600",
        ],
    );
    scene.wait_for_messages();
    for round in 0..times(200) {
        let victim = rng.u16(..2);
        let other = 1 - victim;
        let (own, peer) = (scene.channel(victim, other), scene.channel(other, victim));
        let stores = rng.u32(..200);
        match rng.u8(..4) {
            0 => scene.run(&format!("restart {victim}")),
            _ => scene.run(&format!("restart {victim} {stores}")),
        }
        scene.wait("the crash", victim, other, |it| it.crashed > own.crashed);
        let after = scene.wait("the other end's reset", other, victim, |it| {
            it.resets > peer.resets
        });
        let (sink, source) = scene.wait_for_messages();
        assert_eq!(
            scene.channel(other, victim).resets,
            peer.resets + 1,
            "round {round}"
        );
        assert_eq!(after.broken + sink.broken + source.broken, 0);
        assert_confirmed(&source, &sink);
    }
    assert_eq!(scene.link.lock().snapshot(false).fatal_accesses, 0);
}

#[test]
fn reconnecting_is_an_end_in_good_order() {
    let scene = Scene::new(
        options(|_| {}),
        &["1:channel-echo", "0:channel-source,seed=2,max=400"],
    );
    for round in 1..=20 {
        scene.wait("messages", 0, 1, |it| {
            let last = it.recent.last();
            last.is_some_and(|it| it.end.is_none() && it.traffic.received > 10)
        });
        scene.run("reconnect 0");
        scene.wait("the close", 0, 1, |it| it.closed == round);
        let echo = scene.wait("the end", 1, 0, |it| it.finished == round);
        assert_eq!((echo.resets, echo.broken, echo.total.wrong()), (0, 0, 0));
    }
    let source = scene.channel(0, 1);
    let ends: Vec<_> = source.recent.iter().filter_map(|it| it.end).collect();
    assert_eq!(ends, [SessionEnd::Closed; 20]);
}

#[test]
fn an_attacker_reaches_nobody_else_s_channel() {
    let scene = Scene::new(
        options(|it| it.max_peers = 3),
        &[
            "1:channel-echo",
            "0:channel-source,seed=4,max=500,echoed",
            "2:channel-attacker,seed=77",
        ],
    );
    let steps = u64::from(times(20_000));
    wait_for("the attack", || {
        let attack = scene.peer(2).attack;
        (attack.steps > steps).then_some(())
    });
    let received = scene.channel(0, 1).total.received;
    let attack = scene.peer(2).attack;
    assert!(attack.links > 10, "it came up: {attack:?}");
    let source = scene.wait("more messages", 0, 1, |it| {
        it.total.received > received + 100
    });
    assert_eq!((source.sessions, source.resets, source.broken), (1, 0, 0));
    let echo = scene.channel(1, 0);
    assert_eq!((echo.sessions, echo.total.wrong()), (1, 0));
    // It was noticed, though.
    let victims = [scene.channel(0, 2), scene.channel(1, 2)];
    assert!(
        victims.iter().all(|it| it.resets > 0 && it.broken > 0),
        "{victims:?}"
    );
    // With the attacker gone, its place is anybody's.
    scene.run("die 2");
    scene.run("inmate 2:channel-source,to=1,count=200,echoed");
    wait_for("an honest successor", || {
        (scene.channel(2, 1).closed == 1).then_some(())
    });
    assert_eq!(scene.link.lock().snapshot(false).fatal_accesses, 0);
}

#[test]
fn an_attacker_keeps_to_its_rate() {
    let begin = Instant::now();
    let scene = Scene::new(options(|_| {}), &["1:channel-attacker,rate=200"]);
    wait_for("the attack", || {
        (scene.peer(1).attack.steps >= 100).then_some(())
    });
    // The first step may come at once.
    assert!(begin.elapsed() >= Duration::from_secs(1) * 99 / 200);
}

#[test]
fn orders_are_for_those_who_have_channels() {
    let scene = Scene::new(options(|it| it.max_peers = 3), &["1:quiet"]);
    for (command, expected) in [
        ("restart 0", "no soft inmate with channels"),
        ("reconnect 1", "no soft inmate with channels"),
        ("restart 7", "there is no peer 7"),
        ("restart 1 x", "not a value of STORES"),
        ("inmate 2:channel-echo,to=2", "no channel to peer 2"),
    ] {
        let error = scene.control.run(command).expect_err(command).to_string();
        assert!(error.contains(expected), "{command}: {error}");
    }
}
