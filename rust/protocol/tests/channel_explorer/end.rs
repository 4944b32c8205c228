// SPDX-License-Identifier: GPL-2.0 OR MIT

//! An end as a driver has it: it starts, looks when it is rung, sends what it has, receives what comes, waits when
//! there is nothing to do, and connects again after a reset.

use super::replay::Replay;
use super::{section, Fault, Scenario};
use ivshmem_protocol::channel::session::{claim, Config, Ended, Session};
use ivshmem_protocol::channel::transfer::{Next, SendError};
use ivshmem_protocol::memory::{LoadOrder, Memory, StoreOrder};

/// What an end does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Doing {
    Start,
    Look,
    /// Looks at the state table.
    Table,
    /// Has seen there that the peer is gone.
    Absent,
    Receive,
    Confirm,
    Send,
    AwaitRoom,
    AwaitConfirmation,
    AwaitData,
    /// Until it is rung.
    Sleep,
    Close,
    /// It has closed, for good.
    Done,
    /// Its cell is gone, for good.
    Gone,
}

/// What is known of a session besides what it knows itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Life {
    pub(crate) epoch: u32,
    /// The peer's epoch that it came up with.
    pub(crate) with: u32,
    pub(crate) delivered: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct End {
    pub(crate) doing: Doing,
    pub(crate) session: Option<Session>,
    /// See [`Replay`].
    pub(crate) log: Vec<u32>,
    /// It is rung.
    pub(crate) bell: bool,
    /// It has to ring before it goes on.
    pub(crate) to_ring: bool,
    pub(crate) crashes_left: u8,
    pub(crate) lives: Vec<Life>,
    /// It has received everything that a peer sent that has closed.
    pub(crate) drained: bool,
}

impl End {
    pub(crate) fn new(crashes: u8) -> Self {
        Self {
            doing: Doing::Start,
            session: None,
            log: Vec::new(),
            bell: false,
            to_ring: false,
            crashes_left: crashes,
            lives: Vec::new(),
            drained: false,
        }
    }

    /// What it does next, on `memory`, which may stop it. `other` is the peer as the test knows it.
    pub(crate) fn act(
        &mut self,
        number: usize,
        other: &Self,
        scenario: &Scenario,
        memory: &Replay<'_>,
    ) {
        if self.doing == Doing::Start {
            self.start(number, scenario, memory);
            return;
        }
        let Some(mut session) = self.session.take() else {
            return;
        };
        let result = self.call(number, &mut session, other, scenario, memory);
        if memory.stopped.get() {
            return;
        }
        if session.is_up() {
            let life = self.lives.last_mut().expect("it lives");
            life.with = session.peer_epoch();
        }
        match result {
            Ok(next) => self.doing = next,
            Err(Ended::Reset) => self.doing = Doing::Close,
            Err(why) => panic!("end {number} ends as {why:?}"),
        }
        self.session = Some(session);
    }

    fn start(&mut self, number: usize, scenario: &Scenario, memory: &Replay<'_>) {
        if scenario.claims && claim(memory, section(number)).is_err() {
            return;
        }
        let (own_id, peer_id) = (number as u16, 1 - number as u16);
        let config = Config {
            own: section(number),
            peer: section(1 - number),
            own_id,
            peer_id,
            ring: section(number).share(own_id, peer_id).expect("a ring"),
            vector: Some(0),
            entropy: 0,
        };
        let Ok(mut session) = Session::start(memory, &config) else {
            return;
        };
        session.limit_unconfirmed(scenario.unconfirmed);
        let again = self.lives.iter().any(|life| life.epoch == session.epoch());
        assert!(!again, "epoch {} is used again", session.epoch());
        self.lives.push(Life {
            epoch: session.epoch(),
            ..Life::default()
        });
        self.session = Some(session);
        self.drained = false;
        self.doing = Doing::Look;
    }

    fn call(
        &mut self,
        number: usize,
        session: &mut Session,
        other: &Self,
        scenario: &Scenario,
        memory: &Replay<'_>,
    ) -> Result<Doing, Ended> {
        let all = scenario.messages[number];
        let (sent, confirmed) = session.sent();
        match self.doing {
            Doing::Look => {
                self.to_ring = session.look(memory)?;
                Ok(if session.is_up() {
                    Doing::Table
                } else {
                    Doing::Sleep
                })
            }
            Doing::Absent => session.peer_is_absent(memory).map(|()| Doing::Receive),
            Doing::Receive => self.receive(number, session, other, memory),
            Doing::Confirm => {
                self.to_ring = session.confirm(memory, session.received().0)?;
                Ok(Doing::Receive)
            }
            Doing::Send if sent == all => Ok(Doing::AwaitConfirmation),
            Doing::Send => self.send(number, session, scenario, memory),
            Doing::AwaitRoom => {
                let record = session.record(scenario.length).expect("it fits");
                let room = session.await_room(memory, record)?;
                let finished = room && session.peer_has_finished(memory)?;
                Ok(match room && scenario.fault != Fault::Sleepy {
                    true if !finished => Doing::Send,
                    _ => Doing::AwaitData,
                })
            }
            Doing::AwaitConfirmation if confirmed == all && scenario.closes[number] => {
                Ok(Doing::Close)
            }
            Doing::AwaitConfirmation if confirmed == all => Ok(Doing::AwaitData),
            Doing::AwaitConfirmation => {
                // Of those that it has sent, or of those that keep it from sending more.
                let awaited = match sent == all {
                    true => Some(all),
                    false => session.needed_confirmation(),
                };
                if let Some(awaited) = awaited.filter(|_| scenario.fault != Fault::Unasked) {
                    session.await_confirmation(memory, awaited)?;
                }
                let confirmed = session.sent().1;
                self.is_true(confirmed, session, other);
                Ok(match confirmed == all && scenario.closes[number] {
                    true => Doing::Close,
                    false if sent < all && session.needed_confirmation().is_none() => Doing::Send,
                    false => Doing::AwaitData,
                })
            }
            Doing::AwaitData if self.drained => Ok(Doing::Close),
            Doing::AwaitData => {
                let data = session.await_data(memory)? && scenario.fault != Fault::Sleepy;
                Ok(if data { Doing::Receive } else { Doing::Sleep })
            }
            Doing::Close => {
                let orderly = session.look(memory).is_ok();
                if !memory.stopped.get() {
                    self.to_ring = session.close(memory)?;
                }
                Ok(if orderly { Doing::Done } else { Doing::Start })
            }
            Doing::Start | Doing::Table | Doing::Sleep | Doing::Done | Doing::Gone => {
                Ok(self.doing)
            }
        }
    }

    fn send(
        &mut self,
        number: usize,
        session: &mut Session,
        scenario: &Scenario,
        memory: &Replay<'_>,
    ) -> Result<Doing, Ended> {
        let life = self.lives.len();
        match session.reserve(memory, scenario.length) {
            Ok(slot) => {
                let word = content(number, life, session.sent().0);
                memory.store(slot.pieces.0[0].start, word, StoreOrder::Relaxed)?;
                self.to_ring = session.commit(memory, slot)?;
                Ok(Doing::Send)
            }
            Err(SendError::Full) => Ok(Doing::AwaitRoom),
            Err(SendError::Unconfirmed) => Ok(Doing::AwaitConfirmation),
            Err(SendError::Ended(why)) => Err(why),
            Err(SendError::Finished) => Ok(Doing::AwaitData),
            Err(why) => panic!("{why:?}"),
        }
    }

    fn receive(
        &mut self,
        number: usize,
        session: &mut Session,
        other: &Self,
        memory: &Replay<'_>,
    ) -> Result<Doing, Ended> {
        match session.next(memory)? {
            Next::Message(message) => {
                let word = memory.load(message.pieces.0[0].start, LoadOrder::Relaxed)?;
                self.to_ring = session.take(memory, message)?;
                // Properties 1 and 2: it is the next one of the session that this one is up with.
                let life = other
                    .lives
                    .iter()
                    .position(|life| life.epoch == session.peer_epoch());
                let life = life.expect("the peer has had this epoch") + 1;
                let number_of = session.received().0 - 1;
                assert_eq!(
                    word,
                    content(1 - number, life, number_of),
                    "delivered to end {number}"
                );
                self.lives.last_mut().expect("it lives").delivered += 1;
                Ok(Doing::Confirm)
            }
            Next::Nothing => Ok(Doing::Send),
            Next::End => {
                self.drained = true;
                Ok(Doing::Send)
            }
        }
    }

    /// Property 3: what counts as confirmed was delivered to the session that this one is up with.
    fn is_true(&self, confirmed: u64, session: &Session, other: &Self) {
        let delivered = other
            .lives
            .iter()
            .filter(|life| life.epoch == session.peer_epoch());
        let delivered: u64 = delivered.map(|life| life.delivered).sum();
        assert!(
            confirmed <= delivered,
            "{confirmed} confirmed, {delivered} delivered"
        );
    }
}

/// What message `number` of a life says.
fn content(end: usize, life: usize, number: u64) -> u32 {
    ((end as u32 + 1) << 24) | ((life as u32) << 8) | number as u32
}
