// SPDX-License-Identifier: MIT OR Apache-2.0
//! A peer that attacks its channels, seeded, while others talk: theirs go on in order and whole, and its own end
//! one session after the other with an error that the header names.

use super::{connect, converse, receive, Soft};
use crate::suites::{soon, Env, StopOnDrop, Test};
use ivshmem::{Channel, ConnectOptions, Deadline, Device, Error};
use ivshmem_messages::{Checker, Stream};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::Mutex;
use std::time::{Duration, Instant};

pub(in crate::suites) const TESTS: &[Test] = &[
    // bad input: a peer that changes its block, rings, indices and state at random and rings as fast as it can => its own sessions end with ECONNRESET or EPROTO; other channels keep their order and their messages; no report
    Test::new(
        "channel attack: other channels keep their order and their messages, and the attacker's own sessions end",
        short,
    ),
];

/// Who sends back, who attacks, and who sends by itself.
const ECHO: u32 = 1;
const ATTACKER: u32 = 2;
const SOURCE: u32 = 3;

/// How long the short form takes.
const SHORT: Duration = Duration::from_secs(4);

fn short(env: &Env) {
    println!("{}", attack(env, SHORT, 1));
}

/// Lets a seeded attacker do its worst for so long; what came of it, in one line.
pub(crate) fn attack(env: &Env, time: Duration, seed: u64) -> String {
    let echo = Soft::come(env, ECHO, "channel-echo,to=0");
    let source = Soft::come(env, SOURCE, "channel-source,to=0,seed=12,rate=200,max=500");
    let attacker = Soft::come(env, ATTACKER, &format!("channel-attacker,to=0,seed={seed}"));
    let stop = AtomicBool::new(false);
    let ends = Mutex::new(BTreeMap::new());
    let (echoed, drunk) = std::thread::scope(|scope| {
        // So that a failed assertion ends all of them.
        let stopper = StopOnDrop(&stop);
        let echoed = scope.spawn(|| talk(env, &stop));
        let drunk = scope.spawn(|| drink(env, &stop));
        let suffered = scope.spawn(|| suffer(env, seed, &stop, &ends));
        let begin = Instant::now();
        // A slow machine gets more time to see something of it.
        let is_over = || match begin.elapsed() {
            elapsed if elapsed < time => false,
            elapsed => elapsed > time + soon() || was_attacked(&ends),
        };
        while !is_over() && !stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(100));
        }
        drop(stopper);
        let failed = "a thread has failed";
        suffered.join().expect(failed);
        (echoed.join().expect(failed), drunk.join().expect(failed))
    });
    for (who, inmate) in [("echo", &echo), ("source", &source)] {
        let channel = inmate.channel();
        for bad in ["resets", "broken"] {
            assert_eq!(channel[bad], 0, "{who}: {channel}");
        }
    }
    let attack = attacker.statistics()["attack"].take();
    assert!(echoed > 0 && drunk > 0, "{echoed} echoed, {drunk} received");
    assert!(
        was_attacked(&ends),
        "the attack was none: {ends:?}, {attack}"
    );
    let ends = ends.into_inner().expect("no thread has failed");
    drop(attacker);
    // In its place somebody honest is served like anybody.
    let honest = Soft::come(env, ATTACKER, "channel-echo,to=0");
    let channel = connect(env, ATTACKER, ConnectOptions::new());
    converse(&channel, 1, 50);
    drop((channel, honest));
    format!("seed {seed}: {echoed} messages echoed and {drunk} received meanwhile; sessions ended {ends:?}; {attack}")
}

/// Talks to the echo until told to stop; how many messages came back, all of them right and in order.
fn talk(env: &Env, stop: &AtomicBool) -> u32 {
    let _stopper = StopOnDrop(stop);
    let channel = connect(env, ECHO, ConnectOptions::new());
    let stream = Stream {
        seed: 99,
        session: 1,
        max: 1000,
    };
    let sent = AtomicU32::new(0);
    let received = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut message = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let number = sent.load(Ordering::Relaxed);
                stream.message(number, &mut message);
                channel
                    .wait_writable(Deadline::after(soon()))
                    .expect("room");
                channel.send_fully(&message).expect("send");
                sent.store(number + 1, Ordering::Release);
                // Others need the processor, too.
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        let mut checker = Checker::default();
        let mut buffer = vec![0; 1000];
        loop {
            let is_over = stop.load(Ordering::Relaxed);
            if checker.count() == sent.load(Ordering::Acquire) {
                if is_over {
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            let length = receive(&channel, &mut buffer).expect("an echo");
            let length = length.expect("an echo, not the end");
            assert_eq!(checker.check(&buffer[..length]), Ok(()));
        }
        checker.count()
    });
    // What was sent just before the end of the other thread.
    let rest = sent.load(Ordering::Acquire) - received;
    let mut buffer = vec![0; 1000];
    for _ in 0..rest {
        receive(&channel, &mut buffer).expect("an echo");
    }
    channel.flush().expect("all is confirmed");
    received + rest
}

/// Receives from the source until told to stop; how many messages, all of them right and in order.
fn drink(env: &Env, stop: &AtomicBool) -> u32 {
    let _stopper = StopOnDrop(stop);
    let channel = connect(env, SOURCE, ConnectOptions::new());
    let mut checker = Checker::default();
    let mut buffer = vec![0; 500];
    while !stop.load(Ordering::Relaxed) {
        let length = receive(&channel, &mut buffer).expect("a message");
        let length = length.expect("a message, not the end");
        assert_eq!(checker.check(&buffer[..length]), Ok(()));
    }
    checker.count()
}

/// How many sessions with the attacker ended in which way.
type Ends = Mutex<BTreeMap<&'static str, u32>>;

/// Whether sessions ended in both ways in which an attack ends them.
fn was_attacked(ends: &Ends) -> bool {
    let ends = ends.lock().expect("no thread has failed");
    ["reset", "broken"]
        .iter()
        .all(|error| ends.contains_key(error))
}

/// Has session after session with the attacker, and tries everything in each.
fn suffer(env: &Env, seed: u64, stop: &AtomicBool, ends: &Ends) {
    let _stopper = StopOnDrop(stop);
    let device = env.open();
    let mut rng = fastrand::Rng::with_seed(seed);
    while !stop.load(Ordering::Relaxed) {
        let end = session(&device, &mut rng, stop);
        *ends.lock().expect("alone").entry(end).or_insert(0) += 1;
    }
}

/// One session with the attacker: how it ended.
fn session(device: &Device, rng: &mut fastrand::Rng, stop: &AtomicBool) -> &'static str {
    let explicit = rng.bool();
    let options = ConnectOptions::new()
        .explicit_ack(explicit)
        .nonblocking(true);
    let channel = device.connect(ATTACKER, options).expect("connect");
    let steps = rng.u32(1..2000);
    for _ in 0..steps {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match step(&channel, explicit, rng) {
            Ok(()) | Err(Error::WouldBlock | Error::TimedOut) => {}
            // Of a number that has not been received.
            Err(Error::NotReceived { .. }) if explicit => {}
            Err(Error::BufferTooSmall { .. }) => {}
            Err(Error::Closed) => return "closed",
            Err(Error::Reset { sent, confirmed }) => {
                assert!(confirmed <= sent);
                return "reset";
            }
            Err(Error::Broken { sent, confirmed }) => {
                assert!(confirmed <= sent);
                return "broken";
            }
            Err(error) => panic!("no error of a channel: {error:?}"),
        }
    }
    "given up"
}

/// One call, any of them.
fn step(channel: &Channel, explicit: bool, rng: &mut fastrand::Rng) -> Result<(), Error> {
    let soon = |rng: &mut fastrand::Rng| Deadline::after(Duration::from_millis(rng.u64(..20)));
    let status = channel.status().expect("status always works");
    assert!(status.confirmed <= status.sent && status.acknowledged <= status.received);
    let max = status.max_message as usize;
    match rng.u8(..8) {
        0 | 1 => channel.send(&vec![7; rng.usize(1..=600.min(max))]),
        2 | 3 => {
            let mut buffer = vec![0; rng.usize(1..=max)];
            let length = channel.receive(&mut buffer)?;
            length.map(|_| ()).ok_or(Error::Closed)
        }
        4 => channel.wait_readable(soon(rng)).map(|_| ()),
        5 => {
            let size = channel.next_size()?;
            assert!(size.is_none_or(|size| size <= max), "{size:?}");
            Ok(())
        }
        6 if explicit => channel.acknowledge(status.received),
        6 => channel.wait_writable(soon(rng)).map(|_| ()),
        _ => channel.wait_confirmed(status.sent, soon(rng)).map(|_| ()),
    }
}
