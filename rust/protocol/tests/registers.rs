// SPDX-License-Identifier: GPL-2.0 OR MIT

//! The register region, as the tables of the specification print it.

use ivshmem_protocol::registers::{
    doorbell, doorbell_target, BAR_SIZE, DOORBELL, ID, INT_CTRL, INT_CTRL_ENABLE, MAX_PEERS, SIZE,
    STATE,
};
use proptest::prelude::*;

#[test]
fn offsets() {
    assert_eq!(
        [ID, MAX_PEERS, INT_CTRL, DOORBELL, STATE, SIZE],
        [0x00, 0x04, 0x08, 0x0c, 0x10, 0x14]
    );
    assert_eq!(BAR_SIZE, 4096);
    assert_eq!(INT_CTRL_ENABLE, 1);
}

#[test]
fn doorbell_has_the_vector_below_and_the_target_above() {
    assert_eq!(doorbell(0, 0), 0);
    assert_eq!(doorbell(0, 15), 0x0000_000f);
    assert_eq!(doorbell(2, 3), 0x0002_0003);
    assert_eq!(doorbell(0xffff, 0), 0xffff_0000);
}

proptest! {
    #[test]
    fn doorbell_round_trip(peer: u16, vector: u16, value: u32) {
        prop_assert_eq!(doorbell_target(doorbell(peer, vector)), (peer, vector));
        let (peer, vector) = doorbell_target(value);
        prop_assert_eq!(doorbell(peer, vector), value);
    }
}
