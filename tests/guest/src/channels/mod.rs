// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a guest does on a channel to another guest: the guests' half of `make soak-channels` and
//! `make bench` (`rust/harness/src/channels`).
//!
//! | file | what |
//! | --- | --- |
//! | `message` | what is sent, and whether that has arrived |
//! | `transport` | how it is sent: a channel, or what channels are compared with |
//! | `ring` | the channel protocol in this program, over a mapping |
//! | `exchange` | many messages in both directions at once |
//! | `restarts`, `session` | many sessions, as one side is restarted again and again |
//! | `cost` | messages whose register accesses are counted |
//! | `bench`, `stream` | how fast messages go; TCP and virtio-serial, to compare with |
//! | `place` | on which processor they are sent and received meanwhile |
//! | `profile` | what costs how much of that |
//! | `log` | what is known of them when a guest is gone |

mod bench;
mod cost;
mod exchange;
mod log;
mod message;
mod place;
mod profile;
mod restarts;
mod ring;
mod session;
mod stream;
mod transport;

pub(crate) use restarts::work;

use crate::report::Report;
use ivshmem_guest::plan::Plan;

/// May come from another thread.
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Carries out a plan that is about channels; false if it is not.
pub(crate) fn run(plan: &Plan, report: &mut Report) -> Result<bool, Box<dyn std::error::Error>> {
    let done = match plan.run.as_str() {
        "exchange" => exchange::run(plan, report),
        "bench" => bench::run(plan, report),
        "profile" => profile::run(plan, report),
        "cost" => cost::run(plan, report),
        "stay" => restarts::stay(plan, report),
        "restart" => restarts::restart(plan, report),
        _ => return Ok(false),
    };
    done.map(|()| true)
        .map_err(|error| -> Box<dyn std::error::Error> { error })
}
