// SPDX-License-Identifier: MIT OR Apache-2.0
//! `soak-channels`: two Linux guests that exchange messages on a channel, of which each must arrive
//! once, whole and in order; and `bench`: how fast they are.
//!
//! | file | what |
//! | --- | --- |
//! | `two` | two guests |
//! | `schedule`, `oracle` | when one of them is restarted; what must be true of their logs then |
//! | `cost` | register accesses |
//! | `bench`, `table`, `plot` | how fast, as ratios in one run; the document and its picture |
//! | `profile`, `profile_table`, `symbols` | what costs how many instructions of that |
//! | `peers` | what channels are compared with: network and serial port between the guests |

mod bench;
mod cost;
mod oracle;
mod peers;
mod plot;
mod profile;
mod profile_table;
mod schedule;
mod symbols;
mod table;
mod two;

use crate::progress::Step;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::Result;
use clap::Args;
use schedule::Kind;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use two::{Pair, Roles};

pub(crate) use bench::{run as bench, Bench};
pub(crate) use profile::Profiler;
pub(crate) use schedule::Schedule;

/// How long a restart may take, before patience: a guest boots.
const RESTART: Duration = Duration::from_secs(60);
/// How long a thousand messages each way may take, before patience.
const THOUSAND: Duration = Duration::from_secs(20);

/// How the messages go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Transport {
    /// By the driver's channels
    Channel,
    /// By the same protocol in user space, over a mapping
    Ring,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Channel => "channel",
            Self::Ring => "ring",
        })
    }
}

/// How much to do.
#[derive(Debug, Clone, Args)]
pub(crate) struct Amount {
    /// Messages in each direction
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    messages: u64,

    /// How often one side is restarted: process killed, driver unbound, guest reset
    #[arg(long, value_name = "M", default_value_t = 8,
        value_parser = clap::value_parser!(u64).range(0..=1_000_000))]
    restarts: u64,

    /// What the messages are, and when restarts happen, follows from this number
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,

    /// How the messages go
    #[arg(long, value_enum, default_value_t = Transport::Channel)]
    transport: Transport,
}

/// Does all that `amount` says.
pub(crate) fn run(settings: &Settings, amount: &Amount) -> Result<Vec<TestResult>> {
    let mut results = exchange(settings, amount)?;
    if amount.restarts > 0 {
        results.extend(restarts(settings, amount)?);
    }
    if amount.transport == Transport::Channel {
        results.extend(cost::run(settings, amount.messages)?);
    }
    Ok(results)
}

fn end(step: Step, results: &[TestResult]) {
    let failed = results.iter().filter(|it| it.has_failed()).count();
    let passed = results.len() - failed;
    step.end(&format!("{passed} passed, {failed} failed"));
}

/// Messages in both directions at once.
fn exchange(settings: &Settings, amount: &Amount) -> Result<Vec<TestResult>> {
    let name = format!("exchange over a {}", amount.transport);
    let step = Step::begin(
        format!("{name}: {} messages each way", amount.messages),
        settings.verbose,
    );
    let arguments = vec![
        amount.transport.to_string(),
        amount.messages.to_string(),
        amount.seed.to_string(),
    ];
    let roles = Roles {
        steps: (THOUSAND, amount.messages / 1000),
        ..Roles::same("exchange", arguments)
    };
    let results = Pair::start(settings, &roles)?.finish(&name)?.results;
    end(step, &results);
    Ok(results)
}

/// Messages in both directions at once, while one side is restarted again and again.
fn restarts(settings: &Settings, amount: &Amount) -> Result<Vec<TestResult>> {
    let schedule = Arc::new(Schedule::new(amount.seed, amount.restarts));
    let [kills, early, unbinds, resets] =
        [Kind::Kill, Kind::EarlyKill, Kind::Unbind, Kind::Reset].map(|kind| schedule.count(kind));
    let text = format!(
        "restarts: {} killed processes, {unbinds} unbound drivers, {resets} reset guests",
        kills + early
    );
    let step = Step::begin(text, settings.verbose);
    let roles = Roles {
        runs: ["stay", "restart"],
        logs: true,
        steps: (RESTART, amount.restarts),
        schedule: Some(Arc::clone(&schedule)),
        ..Roles::same("restarts", vec![amount.transport.to_string()])
    };
    let mut ended = Pair::start(settings, &roles)?.finish("restarts")?;
    let [stays, restarts] = &ended.logs;
    let judged = oracle::judge(stays, restarts, kills + unbinds + resets, early);
    ended.results.extend(judged);
    let mut reasons = Vec::new();
    if schedule.done() != amount.restarts {
        reasons.push(format!("{} were made", schedule.done()));
    }
    let name = format!("{} restarts: all were made", amount.restarts);
    ended.results.push(TestResult::from_reasons(name, reasons));
    end(step, &ended.results);
    Ok(ended.results)
}
