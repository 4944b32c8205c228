// SPDX-License-Identifier: MIT OR Apache-2.0

//! Soft inmates that use the raw device: the classic demo, and an echo of doorbells.

use super::Cell;
use super::Inmate;
use super::ECHO_SIZE;
use super::GREETING;
use ivshmem_protocol::state_table;
use std::time::Duration;

/// How often the demo inmate rings the root cell.
const DEMO_PERIOD: Duration = Duration::from_secs(1);

/// [`Behaviour::Demo`](super::Behaviour) and `Quiet`.
pub(super) struct Demo {
    pub(super) count: u32,
    pub(super) rings: bool,
}

impl Inmate for Demo {
    fn start(&mut self, cell: &Cell) {
        cell.set_rw_word(0);
        cell.set_state(u32::from(cell.id()) + 1);
    }

    fn interrupt(&mut self, cell: &Cell, _vector: u16) {
        self.count = self.count.wrapping_add(1);
        cell.set_output(GREETING);
        cell.set_rw_word(self.count);
    }

    fn period(&self) -> Option<Duration> {
        self.rings.then_some(DEMO_PERIOD)
    }

    fn tick(&mut self, cell: &Cell) {
        let own = cell.id() + 1;
        cell.ring(0, if own < cell.vectors() { own } else { 0 });
    }
}

/// [`Behaviour::Echo`](super::Behaviour).
#[derive(Default)]
pub(super) struct Echo {
    states: Vec<u32>,
}

impl Echo {
    /// Whether any state differs from when this was last asked: then an interrupt on vector 0 was a
    /// state change, not a doorbell.
    fn states_changed(&mut self, cell: &Cell) -> bool {
        let states: Vec<_> = cell.others().map(|peer| cell.state(peer)).collect();
        let changed = states != self.states;
        self.states = states;
        changed
    }
}

impl Inmate for Echo {
    fn start(&mut self, cell: &Cell) {
        self.states_changed(cell);
        cell.set_state(u32::from(cell.id()) + 1);
    }

    fn interrupt(&mut self, cell: &Cell, vector: u16) {
        if vector == 0 && self.states_changed(cell) {
            return;
        }
        let mut text = [0; ECHO_SIZE];
        cell.output_of(0, &mut text);
        cell.set_output(&text);
        for peer in cell.others() {
            if cell.state(peer) != state_table::ABSENT {
                cell.ring(peer, vector);
            }
        }
    }
}
