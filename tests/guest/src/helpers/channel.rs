// SPDX-License-Identifier: MIT OR Apache-2.0
//! Helpers that hold one end of a channel, do their part with it, and die or pass it on.

use super::{number, ready, stay};
use crate::suites::content;
use ivshmem::{Channel, ConnectOptions, Device};
use std::os::fd::AsFd;

fn connect(node: &str, peer: &str, explicit: bool) -> Channel {
    let device = Device::open(node).expect("open");
    let options = ConnectOptions::new().explicit_ack(explicit);
    let peer = number(peer) as u32;
    device.connect(peer, options).expect("connect")
}

/// Connects, carries out `script`, says so, and stays. The script is steps with a number, one after the other:
/// `s3` sends 3 messages, `r2` receives 2, `a1` acknowledges all up to 1. Messages are numbered from 1 in each
/// direction and have the content of their number.
pub(super) fn run(node: &str, peer: &str, mode: &str, script: &str) {
    let channel = connect(node, peer, mode == "explicit");
    for step in script.split(',').filter(|step| !step.is_empty()) {
        let count = number(&step[1..]);
        match &step[..1] {
            "s" => (1..=count).for_each(|number| {
                channel.send(&content(number)).expect("send");
            }),
            "r" => (1..=count).for_each(|number| {
                let message = channel.receive_message().expect("receive");
                assert_eq!(message, Some(content(number)));
            }),
            "a" => channel.acknowledge(count).expect("acknowledge"),
            _ => panic!("no step `{step}`"),
        }
    }
    stay();
}

/// Connects, and sends the channel to the socket `path`. Ends.
pub(super) fn give(node: &str, peer: &str, path: &str) {
    use rustix::net::{sendmsg, SendAncillaryBuffer, SendAncillaryMessage, SendFlags};
    let channel = connect(node, peer, false);
    let socket = std::os::unix::net::UnixStream::connect(path).expect("connect");
    let mut space = [std::mem::MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = [channel.as_fd()];
    assert!(control.push(SendAncillaryMessage::ScmRights(&fds)));
    let byte = [std::io::IoSlice::new(b"c")];
    sendmsg(&socket, &byte, &mut control, SendFlags::empty()).expect("sendmsg");
    ready();
}
