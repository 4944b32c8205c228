// SPDX-License-Identifier: MIT OR Apache-2.0
//! A channel with the bare-metal inmate, which has the protocol from its document alone. The harness runs it as
//! peer 1 beside this guest.

use super::{connect, converse, MESSAGES};
use crate::suites::{Env, Test};
use ivshmem::ConnectOptions;

pub(in crate::suites) const TESTS: &[Test] = &[Test::new(
    "channel peers: the bare-metal inmate sends back messages of all sizes, session after session",
    echo,
)];

/// Sessions, after which the inmate ends (`rounds=`).
const SESSIONS: u32 = ivshmem_guest::INMATE_SESSIONS;

fn echo(env: &Env) {
    for session in 1..=SESSIONS {
        let channel = connect(env, 1, ConnectOptions::new());
        converse(&channel, session, MESSAGES / 2);
    }
}
