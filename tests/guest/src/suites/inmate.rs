// SPDX-License-Identifier: MIT OR Apache-2.0
//! A conversation with the device model's soft inmate, which shares no code with the driver.
//!
//! In a guest of its own: the inmate cannot always tell a doorbell on vector 0 from a change of state,
//! so it would ring into tests that count exactly.

use super::{count_doorbells, drain, Env, Test};
use ivshmem::StateFlags;

pub(super) const TESTS: &[Test] = &[Test::new(
    "the soft inmate answers on the vector it was rung on, with our bytes",
    echo,
)];

fn echo(env: &Env) {
    let device = env.open();
    let info = *device.info();
    let inmate = env
        .expected()
        .inmate
        .as_ref()
        .expect("the plan has one")
        .peer;
    let theirs = info.output_of(inmate).expect("exists").offset;
    // It rings peers that are there.
    device.set_state(1, StateFlags::default()).expect("publish");
    drain(&device);
    for (round, vector) in (0..20_u8).zip((0..env.vectors()).cycle()) {
        // It copies what peer 0 says.
        let text = [round ^ 0x5a; 64];
        device
            .write_at(&text, info.output_of(0).expect("exists").offset)
            .expect("write");
        device.ring(inmate, vector).expect("ring");
        assert_eq!(count_doorbells(&device, vector, 1), 1, "round {round}");
        let mut answer = [0; 64];
        device.read_at(&mut answer, theirs).expect("read");
        assert_eq!(answer, text, "round {round}");
    }
}
