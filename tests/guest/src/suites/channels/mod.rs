// SPDX-License-Identifier: MIT OR Apache-2.0
//! Channels, with both ends in one guest: the device under test has the near end, the other peer of its
//! link the far one.

pub(super) mod broken;
pub(super) mod by_hand;
pub(super) mod confirm;
pub(super) mod failures;
pub(super) mod messages;
pub(super) mod nowait;
pub(super) mod poll;
pub(super) mod removal;
pub(super) mod rules;
pub(super) mod seen;
pub(super) mod sessions;
pub(super) mod sharing;

use super::{soon, Env, Test};
use crate::{raw, system};
use ivshmem::{Channel, ChannelLink, ConnectOptions, Deadline, Device};
use rustix::event::{poll as poll_call, PollFd, PollFlags, Timespec};
use std::os::fd::AsFd;
use std::time::Duration;

/// Calls in which a thread waits for a channel.
const READ: &[i64] = &[libc::SYS_read];
const WRITE: &[i64] = &[libc::SYS_write];
const IOCTL: &[i64] = &[libc::SYS_ioctl];
const FSYNC: &[i64] = &[libc::SYS_fsync];

/// Both ends of a channel.
struct Ends {
    near: Channel,
    far: Channel,
}

/// Connects both ends and waits until they are up.
fn ends(env: &Env) -> Ends {
    ends_with(env, ConnectOptions::new(), ConnectOptions::new())
}

/// As [`ends`], with options.
fn ends_with(env: &Env, near: ConnectOptions, far: ConnectOptions) -> Ends {
    let ends = Ends {
        near: connect_near(env, near),
        far: connect_far(env, far),
    };
    up(&ends.near);
    up(&ends.far);
    ends
}

/// Connects the near end only. The device's file is closed again: the channel does not need it.
fn connect_near(env: &Env, options: ConnectOptions) -> Channel {
    let peer = env.other_expected().peer;
    env.open().connect(peer, options).expect("connect")
}

/// Connects the far end only.
fn connect_far(env: &Env, options: ConnectOptions) -> Channel {
    let peer = env.expected().peer;
    env.open_other().connect(peer, options).expect("connect")
}

/// Waits until the session is up.
fn up(channel: &Channel) {
    let ready = channel.wait_writable(Deadline::after(soon())).expect("up");
    assert!(ready.writable, "{ready:?}");
    let status = channel.status().expect("status");
    assert_eq!(status.link, ChannelLink::Up, "{status:?}");
}

/// The content of message `number`: some length, no two alike.
pub(crate) fn content(number: u64) -> Vec<u8> {
    patterned(number, 1 + (number * 37 % 300) as usize)
}

/// A message of `length` bytes that can be told from others.
pub(super) fn patterned(number: u64, length: usize) -> Vec<u8> {
    let mut word = (number + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let byte = |_| {
        word ^= word << 13;
        word ^= word >> 7;
        word ^= word << 17;
        (word >> 24) as u8
    };
    (0..length).map(byte).collect()
}

/// The largest message of a channel.
fn largest(channel: &Channel) -> usize {
    channel.status().expect("status").max_message as usize
}

/// Sends until there is no room for another message of `length` bytes; how many there was room for.
fn fill(channel: &Channel, length: usize) -> u64 {
    channel.set_nonblocking(true).expect("fcntl");
    let mut count = 0;
    let refused = loop {
        match channel.send(&patterned(count + 1, length)) {
            Ok(()) => count += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, ivshmem::Error::WouldBlock);
    channel.set_nonblocking(false).expect("fcntl");
    count
}

/// What `poll` reports now, whatever one asks for.
fn bits(fd: impl AsFd) -> PollFlags {
    let all = PollFlags::IN | PollFlags::OUT | PollFlags::RDHUP | PollFlags::PRI;
    let mut fds = [PollFd::new(&fd, all)];
    poll_call(&mut fds, Some(&Timespec::default())).expect("poll");
    fds[0].revents()
}

/// Waits until `poll` reports one of `wanted`, or an end; all that it reports then.
fn comes(fd: impl AsFd, wanted: PollFlags) -> PollFlags {
    let limit = Timespec::try_from(soon()).expect("a limit");
    let mut fds = [PollFd::new(&fd, wanted)];
    let count = poll_call(&mut fds, Some(&limit)).expect("poll");
    assert_eq!(count, 1, "nothing of {wanted:?}, but {:?}", bits(&fd));
    bits(&fd)
}

/// Has a thread wait in `call`, which is one of the system calls `numbers`; then does `meanwhile`, and gives
/// what the call ends with.
fn while_waiting<T: Send, M>(
    numbers: &[i64],
    call: impl FnOnce() -> T + Send,
    meanwhile: impl FnOnce() -> M,
) -> (T, M) {
    std::thread::scope(|scope| {
        let caller = scope.spawn(call);
        let waits = || caller.is_finished() || system::threads_in(numbers) >= 1;
        assert!(system::wait_until(soon(), waits), "the call does not wait");
        assert!(!caller.is_finished(), "the call did not wait");
        let meant = meanwhile();
        (caller.join().expect("the call returns"), meant)
    })
}

/// Times that something took which has to be told to somebody who waits. The timer of the driver looks once a second
/// and wakes all, so what comes by that alone comes half a second late on average.
#[derive(Default)]
struct Delays(Vec<Duration>);

impl Delays {
    /// Rounds that tell one from the other, also on a machine that is slow at times.
    const ROUNDS: u32 = 8;

    fn add(&mut self, delay: Duration) {
        self.0.push(delay);
    }

    /// They are shorter than the timer would make them.
    fn are_short(&self) {
        let total: Duration = self.0.iter().sum();
        let most = Duration::from_millis(250) * self.0.len() as u32;
        assert!(total < most, "only the timer has told: {:?}", self.0);
    }
}

/// Waits until the session has come to `link`.
fn becomes(channel: &Channel, link: ChannelLink) {
    let is = || channel.status().is_ok_and(|status| status.link == link);
    let became = system::wait_until(soon(), is);
    assert!(became, "{:?} is not {link:?}", channel.status());
}

/// The state that a device publishes, as its link sees it.
fn state_of(device: &Device, peer: u32) -> u32 {
    device.state(peer).expect("state")
}

/// An ioctl with a structure; the structure afterwards.
fn call<T: raw::Plain>(fd: impl AsFd, number: u32, mut value: T) -> (raw::Outcome, T) {
    let outcome = raw::ioctl(fd, number, raw::bytes_of_mut(&mut value));
    (outcome, value)
}
