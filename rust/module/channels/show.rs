// SPDX-License-Identifier: GPL-2.0

//! What /proc/PID/fdinfo/FD and debugfs say of channels. Documentation/observing.md tells what each word means.
//!
//! Looking touches neither the device nor the peer.

use super::{
    calls::link_number,
    channel::Channel,
    Channels, //
};
use crate::abi::uapi::{
    self,
    ivshmem_channel_status, //
};
use kernel::{
    fmt,
    seq_file::{
        seq_print,
        SeqFile, //
    },
    sync::Arc, //
};

/// A word for how a link stands.
fn word(link: u32) -> &'static str {
    match link {
        uapi::IVSHMEM_CHANNEL_WAITING => "waiting",
        uapi::IVSHMEM_CHANNEL_UP => "up",
        uapi::IVSHMEM_CHANNEL_RESET => "reset",
        uapi::IVSHMEM_CHANNEL_BROKEN => "broken",
        _ => "gone",
    }
}

impl Channel {
    /// How it stood when it was last looked at.
    fn seen(&self) -> ivshmem_channel_status {
        let state = self.state.lock();
        let link = if self.link.is_gone() {
            uapi::IVSHMEM_CHANNEL_GONE
        } else {
            link_number(state.session.link())
        };
        state.numbers(link)
    }
}

/// All lines of a descriptor.
pub(super) fn fdinfo(channel: &Channel, to: &SeqFile) {
    let seen = channel.seen();
    let acknowledge = if channel.options.explicit_ack {
        "explicit"
    } else {
        "by reading"
    };
    seq_print!(to, "ivshmem-device:\t{}\n", channel.link.identity.number);
    seq_print!(to, "ivshmem-file:\t{}\n", channel.counted.id().0);
    seq_print!(to, "ivshmem-peer:\t{}\n", channel.peer());
    seq_print!(to, "ivshmem-port:\t0\n");
    match channel.vector() {
        Some(vector) => seq_print!(to, "ivshmem-vector:\t{vector}\n"),
        None => seq_print!(to, "ivshmem-vector:\tnone\n"),
    }
    seq_print!(to, "ivshmem-link:\t{}\n", word(seen.link));
    seq_print!(to, "ivshmem-acknowledge:\t{acknowledge}\n");
    seq_print!(to, "ivshmem-max-message:\t{}\n", seen.max_message);
    seq_print!(to, "ivshmem-sent:\t{}\n", seen.sent);
    seq_print!(to, "ivshmem-confirmed:\t{}\n", seen.confirmed);
    seq_print!(to, "ivshmem-received:\t{}\n", seen.received);
    seq_print!(to, "ivshmem-acknowledged:\t{}\n", seen.acknowledged);
}

impl Channels {
    /// A line for each channel that is open.
    pub(crate) fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "peer port link sent confirmed received acknowledged")?;
        let mut last = None;
        // The list may change between two lines: each is the next peer in order.
        while let Some(channel) = self.after(last) {
            let seen = channel.seen();
            writeln!(
                f,
                "{} 0 {} {} {} {} {}",
                channel.peer(),
                word(seen.link),
                seen.sent,
                seen.confirmed,
                seen.received,
                seen.acknowledged,
            )?;
            last = Some(channel.peer());
        }
        Ok(())
    }

    /// The open channel with the lowest peer above `last`.
    fn after(&self, last: Option<u16>) -> Option<Arc<Channel>> {
        let open = self.open.lock();
        let mut found: Option<&Arc<Channel>> = None;
        for channel in open.iter() {
            let beyond = last.is_none_or(|last| channel.peer() > last);
            if beyond && found.is_none_or(|found| channel.peer() < found.peer()) {
                found = Some(channel);
            }
        }
        found.cloned()
    }
}
