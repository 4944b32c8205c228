// SPDX-License-Identifier: MIT OR Apache-2.0

//! Faults that come and go while a link runs, each as one step. What repeats them is
//! [`turmoil`](crate::turmoil), and who asks for them [`control`](crate::control).
//!
//! Peers and vectors are those of the link: who calls has checked them.

use super::Link;
use crate::trouble::Trouble;
use ivshmem_protocol::layout::Section;
use ivshmem_protocol::registers;
use ivshmem_protocol::state_table;
use std::time::Duration;

impl Link {
    fn trouble(&mut self, peer: u16) -> &mut Trouble {
        &mut self.device(peer).trouble
    }

    /// The next `count` interrupts for `peer` that could be delivered are lost.
    pub fn lose_interrupts(&mut self, peer: u16, count: u32) {
        self.trouble(peer).lose_next = count;
    }

    /// Each `n`-th interrupt for `peer` that could be delivered is lost; none if that is 0.
    pub fn lose_every(&mut self, peer: u16, n: u32) {
        self.trouble(peer).lose_every(n);
    }

    /// The device of `peer` answers after so much time; the transport waits.
    pub fn slow_down(&mut self, peer: u16, delay: Duration) {
        self.trouble(peer).delay = delay;
    }

    /// How long an access to the device of `peer` takes, counted if it takes time.
    pub(crate) fn delay(&mut self, peer: u16) -> Duration {
        let device = self.device(peer);
        let delay = device.trouble.delay;
        if !delay.is_zero() {
            device.statistics.faults.slow_accesses += 1;
        }
        delay
    }

    /// The device of `peer` is gone without a word: registers and configuration space read
    /// all-ones, writes have no effect, and nothing interrupts any more. Its state stays as it is.
    /// With `memory`, the state table is all-ones too, for every peer.
    pub fn vanish(&mut self, peer: u16, memory: bool) {
        self.trouble(peer).is_gone = true;
        if memory {
            self.memory_is_spoiled = true;
            for word in self.table_words() {
                self.store(word, u32::MAX);
            }
        }
    }

    /// If the device of `peer` is gone, there is one again: a new one with the addresses of the old, that
    /// no driver has touched yet, with state 0. Spoiled memory stays so until
    /// [`put_memory_right`](Self::put_memory_right).
    pub fn come_back(&mut self, peer: u16) {
        if self.is_gone(peer) {
            self.device(peer).come_back();
            self.write_state(peer, state_table::ABSENT);
        }
    }

    /// Whether the device of `peer` is gone.
    #[must_use]
    pub fn is_gone(&self, peer: u16) -> bool {
        self.devices[usize::from(peer)].trouble.is_gone
    }

    /// Whether somebody is `peer`, there already or about to come.
    #[must_use]
    pub fn is_taken(&self, peer: u16) -> bool {
        let device = &self.devices[usize::from(peer)];
        device.taken || device.present
    }

    /// Whether the device of `peer` is wrong in a way that only a client can meet.
    #[must_use]
    pub fn is_wrong_for_clients(&self, peer: u16) -> bool {
        self.devices[usize::from(peer)].trouble.is_for_clients()
    }

    /// `peer` dies: for others as if its process had ended. To the client itself the device is gone,
    /// as with [`vanish`](Self::vanish).
    pub fn die(&mut self, peer: u16) {
        self.trouble(peer).is_gone = true;
        self.write_state(peer, state_table::ABSENT);
    }

    /// The device of `peer` answers nonsense from now on, by `seed`.
    pub fn become_hostile(&mut self, peer: u16, seed: u64) {
        self.device(peer).become_hostile(seed);
        self.memory_is_spoiled = true;
    }

    /// Nothing goes wrong at the devices any more, and memory that no peer may write is put right.
    pub fn calm_down(&mut self) {
        for peer in self.spec.peers() {
            self.come_back(peer);
        }
        for device in &mut self.devices {
            device.trouble.lose_next = 0;
            device.trouble.lose_every(0);
            device.trouble.delay = Duration::ZERO;
            if device.trouble.hostile().is_some() {
                device.become_friendly();
            }
        }
        self.put_memory_right();
    }

    /// Puts memory right that a fault has spoiled, and interrupts all, as their states are others
    /// again.
    pub fn put_memory_right(&mut self) {
        if !std::mem::take(&mut self.memory_is_spoiled) {
            return;
        }
        self.restore_states();
        self.restore(self.table_tail(), 0);
        self.restore(self.unused_outputs(), 0);
        for device in self.devices.iter_mut().filter(|device| device.present) {
            device.interrupt(0);
        }
    }

    /// What goes wrong at the devices, as `WHAT@PEER`.
    #[must_use]
    pub fn troubles(&self) -> Vec<String> {
        let mut words = Vec::new();
        for device in &self.devices {
            for trouble in device.trouble.describe() {
                words.push(format!("{trouble}@{}", device.statistics.id));
            }
        }
        words
    }

    /// `from` rings `to` on `vector`, whatever it is doing itself.
    pub(crate) fn storm(&mut self, from: u16, to: u16, vector: u16) {
        self.device(from).statistics.faults.storm_doorbells += 1;
        self.ring(from, registers::doorbell(to, vector));
    }

    /// `peer` publishes `state`, whatever it is doing itself.
    pub(crate) fn publish_garbage(&mut self, peer: u16, state: u32) {
        self.device(peer).statistics.faults.garbage_states += 1;
        self.write_state(peer, state);
    }

    /// An interrupt for `peer` that nobody has asked for.
    pub(crate) fn interrupt_from_nowhere(&mut self, peer: u16, vector: u16) {
        let device = self.device(peer);
        device.statistics.faults.hostile_interrupts += 1;
        device.interrupt(vector);
    }

    /// The sections that `peer` may write: its own output section and the R/W section, as far as
    /// there are such.
    pub(crate) fn sections_of(&self, peer: u16) -> Vec<Section> {
        let layout = self.spec.layout(peer);
        let sections = [layout.output(), layout.rw()];
        sections.into_iter().filter(|it| it.size > 0).collect()
    }

    /// From now on a fault writes where nobody may.
    pub(crate) fn spoil_memory(&mut self) {
        self.memory_is_spoiled = true;
    }

    /// The same, if `peer` never was there: then nobody may write to its output section.
    pub(crate) fn spoil_outputs_of(&mut self, peer: u16) {
        if self.device(peer).statistics.attaches == 0 {
            self.spoil_memory();
        }
    }

    /// Overwrites the word at `offset` in the name of `peer`.
    pub(crate) fn scribble(&mut self, peer: u16, offset: usize, value: u32) {
        self.device(peer).statistics.faults.scribbled_words += 1;
        self.store(offset, value);
    }

    /// All words of the state table, those that belong to no peer included.
    pub(crate) fn table_words(&self) -> impl Iterator<Item = usize> {
        super::words(0..self.spec.layout(0).state_table().end())
    }
}
