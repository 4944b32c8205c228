// SPDX-License-Identifier: MIT OR Apache-2.0

//! What is counted of the channels of soft inmates.

use serde::Deserialize;
use serde::Serialize;
use std::ops::AddAssign;

/// How many of its last sessions a channel tells of.
pub const RECENT: usize = 32;

/// One end of a channel at a soft inmate.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Channel {
    /// The other end.
    pub peer: u16,
    /// Sessions begun.
    pub sessions: u32,
    /// Sessions that came up.
    pub links: u64,
    /// Sessions that ended because the peer restarted or left.
    pub resets: u64,
    /// Sessions that ended because the peer broke a rule.
    pub broken: u64,
    /// Sessions that the peer closed.
    pub finished: u64,
    /// Sessions that this end closed.
    pub closed: u64,
    /// Sessions that ended with a restart of this cell.
    pub crashed: u64,
    /// What all sessions carried.
    pub total: Traffic,
    /// The last sessions, the one that goes on being the last of them.
    pub recent: Vec<Session>,
}

/// What a session is to its owner.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Session {
    /// Its number, 1 for the first, also of the messages that a source sends in it.
    pub number: u32,
    /// Number of the session that the other end's messages belong to, if it is a source and one was
    /// received.
    pub peer_number: Option<u32>,
    /// Whether it came up.
    pub up: bool,
    /// How it ended, if it has.
    pub end: Option<SessionEnd>,
    /// What it carried.
    pub traffic: Traffic,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SessionEnd {
    /// The peer restarted or left.
    Reset,
    /// The peer broke a rule.
    Broken,
    /// The peer closed it.
    Finished,
    /// This end closed it.
    Closed,
    /// This cell restarted.
    Crashed,
}

/// Messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Sent.
    pub sent: u64,
    /// Of these, confirmed by the peer as far as was seen.
    pub confirmed: u64,
    /// Received.
    pub received: u64,
    /// Of these, confirmed to the peer.
    pub acknowledged: u64,
    /// Bytes sent.
    pub sent_bytes: u64,
    /// Bytes received.
    pub received_bytes: u64,
    /// Received by an echo that could not send them back: too large for its ring, or nobody reads.
    pub dropped: u64,
    /// Received with other bytes than were sent. 0 in a good run, as the next three.
    pub corrupted: u64,
    /// Gaps in the numbers of messages.
    pub lost: u64,
    /// Messages received a second time, or too late.
    pub repeated: u64,
    /// Messages of another session.
    pub stale: u64,
}

impl Traffic {
    /// All that must not be.
    #[must_use]
    pub fn wrong(&self) -> u64 {
        self.corrupted + self.lost + self.repeated + self.stale
    }
}

impl AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.sent += other.sent;
        self.confirmed += other.confirmed;
        self.received += other.received;
        self.acknowledged += other.acknowledged;
        self.sent_bytes += other.sent_bytes;
        self.received_bytes += other.received_bytes;
        self.dropped += other.dropped;
        self.corrupted += other.corrupted;
        self.lost += other.lost;
        self.repeated += other.repeated;
        self.stale += other.stale;
    }
}

impl Channel {
    /// A session has begun, goes on, or has ended: `session` is how it stands now.
    pub(crate) fn update(&mut self, before: &Traffic, session: &Session) {
        self.total = *before;
        self.total += session.traffic;
        match self.recent.last_mut() {
            Some(last) if last.number == session.number => last.clone_from(session),
            _ => self.recent.push(session.clone()),
        }
        if self.recent.len() > RECENT {
            self.recent.remove(0);
        }
    }

    /// Counts the end of a session.
    pub(crate) fn ended(&mut self, end: SessionEnd) {
        *match end {
            SessionEnd::Reset => &mut self.resets,
            SessionEnd::Broken => &mut self.broken,
            SessionEnd::Finished => &mut self.finished,
            SessionEnd::Closed => &mut self.closed,
            SessionEnd::Crashed => &mut self.crashed,
        } += 1;
    }
}

/// What an attacker did.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attack {
    /// Steps, in the order that the seed gives.
    pub steps: u64,
    /// Sessions that it began in good order.
    pub sessions: u64,
    /// Of these, those that came up.
    pub links: u64,
    /// Messages that it sent in good order.
    pub sent: u64,
    /// Messages that it received in good order.
    pub received: u64,
    /// Stores to the header of its section.
    pub header_stores: u64,
    /// Stores to `epoch`, `echo`, `features` or `accepted`.
    pub session_stores: u64,
    /// Stores to `vector`, `ring_offset` or `ring_size`.
    pub geometry_stores: u64,
    /// Stores to `written`, `consumed`, `confirmed` or `fin`.
    pub index_stores: u64,
    /// Stores to the events.
    pub event_stores: u64,
    /// Stores to headers of records, or anything else in its rings.
    pub ring_stores: u64,
    /// States published.
    pub states: u64,
    /// Doorbells rung.
    pub doorbells: u64,
}
