// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channels with peers that are not Linux: soft inmates of the device model, of which one attacks, and the
//! bare-metal inmate. They share no code with the driver's users; the attacker shares nothing with anybody.
//!
//! The plan has one device, and room for peers that come when a test says so.

pub(crate) mod attack;
pub(super) mod inmate;
pub(super) mod soft;

use super::{soon, Env};
use ivshmem::{Channel, ConnectOptions, Deadline, Error};
use ivshmem_messages::{Checker, Stream};
use serde_json::Value;
use std::time::{Duration, Instant};

/// Messages of a test, and restarts.
const MESSAGES: u32 = 1000;

/// A soft inmate that came for a test; dropped, also by a failed assertion, it dies.
pub(super) struct Soft<'a> {
    env: &'a Env,
    peer: u32,
    /// What earlier ones at its place have done.
    before: Value,
}

impl<'a> Soft<'a> {
    pub(super) fn come(env: &'a Env, peer: u32, behaviour: &str) -> Self {
        let mut soft = Self {
            env,
            peer,
            before: Value::Null,
        };
        soft.before = soft.total();
        env.model(&format!("inmate {peer}:{behaviour}"));
        soft
    }

    /// What the device model counts of it.
    fn statistics(&self) -> Value {
        let text = self.env.model(&format!("statistics {}", self.peer));
        serde_json::from_str(&text).expect("JSON")
    }

    /// What it counts of its channel with us.
    pub(super) fn channel(&self) -> Value {
        let mut channel = self.total();
        let sessions = self.before["sessions"].as_u64();
        if let Some(recent) = channel["recent"].as_array_mut() {
            recent.retain(|session| session["number"].as_u64() > sessions);
        }
        for (field, before) in self.before.as_object().into_iter().flatten() {
            subtract(&mut channel[field], before);
        }
        for (field, before) in self.before["total"].as_object().into_iter().flatten() {
            subtract(&mut channel["total"][field], before);
        }
        channel
    }

    /// The same with what earlier ones at its place have done; null if there is nothing.
    fn total(&self) -> Value {
        let all = self.statistics()["channels"].take();
        let us = Value::from(self.env.expected().peer);
        let mut all = all.as_array().cloned().unwrap_or_default();
        all.retain(|channel| channel["peer"] == us);
        all.pop().unwrap_or_default()
    }

    /// Waits until that is as wanted.
    fn wait(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + soon();
        loop {
            let channel = self.channel();
            if wanted(&channel) {
                return channel;
            }
            assert!(Instant::now() < end, "{what} does not come: {channel}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Soft<'_> {
    fn drop(&mut self) {
        let done = self.env.try_model(&format!("die {}", self.peer));
        assert!(std::thread::panicking() || done.is_ok(), "{done:?}");
    }
}

fn subtract(value: &mut Value, before: &Value) {
    if let (Some(now), Some(before)) = (value.as_u64(), before.as_u64()) {
        *value = (now - before).into();
    }
}

/// Connects and waits until the session is up.
pub(super) fn connect(env: &Env, peer: u32, options: ConnectOptions) -> Channel {
    let channel = env.open().connect(peer, options).expect("connect");
    let ready = channel.wait_writable(Deadline::after(soon())).expect("up");
    assert!(ready.writable, "{ready:?}");
    channel
}

/// Receives the next message, which comes soon; `None` at the end.
fn receive(channel: &Channel, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
    channel.wait_readable(Deadline::after(soon()))?;
    channel.receive(buffer)
}

/// Sends the first `count` messages of `stream`.
fn send_all(channel: &Channel, stream: Stream, count: u32) {
    let mut message = Vec::new();
    for number in 0..count {
        stream.message(number, &mut message);
        channel.send_fully(&message).expect("send");
    }
}

/// Receives `count` messages of a stream, all right and in order.
fn receive_all(channel: &Channel, count: u32) -> Checker {
    let mut checker = Checker::default();
    let mut buffer = vec![0; largest(channel)];
    while checker.count() < count {
        let length = receive(channel, &mut buffer).expect("a message");
        let length = length.expect("a message, not the end");
        let number = checker.count();
        let checked = checker.check(&buffer[..length]);
        assert_eq!(checked, Ok(()), "message {number} of {length} bytes");
    }
    checker
}

/// The largest message, which is the same at all ends.
fn largest(channel: &Channel) -> usize {
    channel.status().expect("status").max_message as usize
}

/// All messages that this channel can carry.
fn stream(channel: &Channel, session: u32) -> Stream {
    Stream {
        seed: 4711,
        session,
        max: largest(channel) as u32,
    }
}

/// Sends messages of all sizes to an echo and receives them, both at once.
fn converse(channel: &Channel, session: u32, count: u32) {
    std::thread::scope(|scope| {
        scope.spawn(|| send_all(channel, stream(channel, session), count));
        receive_all(channel, count);
    });
    channel.flush().expect("all is confirmed");
    let status = channel.status().expect("status");
    let all = u64::from(count);
    assert_eq!((status.sent, status.confirmed), (all, all));
    assert_eq!((status.received, status.acknowledged), (all, all));
}
