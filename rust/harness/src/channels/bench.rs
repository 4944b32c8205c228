// SPDX-License-Identifier: MIT OR Apache-2.0
//! `bench`: how fast channels are, against what they are compared with, between the same two guests in
//! one run.

use super::table::Aim;
use super::two::{Pair, Roles};
use super::{cost, plot, profile_table, table};
use crate::progress::Step;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::{bail, Context, Result};
use clap::Args;
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// Sizes of the output sections of the two links, in bytes.
pub(super) const SECTIONS: [u64; 2] = [0x10_0000, 0x2000];

/// How long a round may take, before patience.
const ROUND: Duration = Duration::from_secs(600);

/// How much to measure, and where to write it.
#[derive(Debug, Clone, Args)]
pub(crate) struct Bench {
    /// How often everything is measured; the medians count
    #[arg(long, value_name = "N", default_value_t = 5,
        value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,

    /// Messages of 64 bytes in a stream; a quarter of that of 4 KiB, a twentieth of round trips
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(u64).range(20..=100_000_000))]
    messages: u64,

    /// Profile instead, with the plugin of rust/profiler: what a message costs how many instructions, function by function
    #[arg(long)]
    profile: bool,

    /// Folder for measurements.md and measurements.svg
    #[arg(long, value_name = "DIR", default_value = "Documentation")]
    output: PathBuf,
}

/// What was measured: of what, in sections of how many bytes (0: none), what kind, for how many bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) way: String,
    pub(super) section: u64,
    pub(super) kind: String,
    pub(super) size: u64,
}

impl Key {
    /// Reads `WAY/SECTION/KIND/SIZE/COUNT/end`: of what, and how many.
    fn with_count(phase: &str) -> Option<(Self, u64)> {
        let parts: Vec<&str> = phase.split('/').collect();
        let [way, section, kind, size, count, "end"] = parts.as_slice() else {
            return None;
        };
        let key = Self {
            way: (*way).into(),
            section: section.parse().ok()?,
            kind: (*kind).into(),
            size: size.parse().ok()?,
        };
        Some((key, count.parse().ok()?))
    }
}

/// The values of all rounds.
#[derive(Debug, Default)]
pub(super) struct Figures {
    values: BTreeMap<Key, Vec<f64>>,
    /// Register accesses, and messages or round trips that they were for.
    accesses: BTreeMap<Key, (u64, u64)>,
}

impl Figures {
    /// Collects the lines `# bench WAY SECTION KIND SIZE VALUE` and `# statistics WAY/SECTION/KIND/SIZE/COUNT/begin JSON` of
    /// a report, the latter with their ends.
    pub(super) fn read(report: &str) -> Self {
        let mut figures = Self::default();
        let mut begun = 0;
        for line in report.lines() {
            if let Some((phase, accesses)) = cost::counts(line) {
                if phase.ends_with("/begin") {
                    begun = accesses;
                } else if let Some((key, count)) = Key::with_count(phase) {
                    let sum = figures.accesses.entry(key).or_default();
                    *sum = (sum.0 + accesses.saturating_sub(begun), sum.1 + count);
                }
            }
            let words: Vec<&str> = line.split(' ').collect();
            let ["#", "bench", way, section, kind, size, value] = words.as_slice() else {
                continue;
            };
            let (Ok(section), Ok(size)) = (section.parse(), size.parse()) else {
                continue;
            };
            let key = Key {
                way: (*way).into(),
                section,
                kind: (*kind).into(),
                size,
            };
            if let Ok(value) = value.parse() {
                figures.values.entry(key).or_default().push(value);
            }
        }
        figures
    }

    /// The median of a figure.
    pub(super) fn get(&self, way: &str, section: u64, kind: &str, size: u64) -> Option<f64> {
        let key = Key {
            way: way.into(),
            section,
            kind: kind.into(),
            size,
        };
        let mut values = self.values.get(&key)?.clone();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied()
    }

    /// Register accesses of both guests for each message or round trip, over all rounds.
    pub(super) fn accesses(&self, way: &str, section: u64, kind: &str, size: u64) -> Option<f64> {
        let key = Key {
            way: way.into(),
            section,
            kind: kind.into(),
            size,
        };
        let (accesses, count) = self.accesses.get(&key)?;
        Some(*accesses as f64 / *count as f64)
    }
}

/// Measures, and writes the document and its picture.
pub(crate) fn run(settings: &Settings, bench: &Bench) -> Result<Vec<TestResult>> {
    if bench.profile {
        return profile(settings, bench);
    }
    let kernel = settings.kernel()?;
    let step = Step::begin(
        format!(
            "bench: {} rounds of {} messages",
            bench.rounds, bench.messages
        ),
        settings.verbose,
    );
    let roles = Roles {
        sections: SECTIONS.into(),
        peers: true,
        steps: (ROUND, bench.rounds.into()),
        ..Roles::same(
            "bench",
            vec![bench.rounds.to_string(), bench.messages.to_string()],
        )
    };
    let ended = Pair::start(settings, &roles)?.finish("bench")?;
    super::end(step, &ended.results);
    if ended.results.iter().any(TestResult::has_failed) {
        return Ok(ended.results);
    }
    let figures = Figures::read(&ended.reports[0]);
    let aims = table::aims(&figures);
    for aim in &aims {
        println!("  {}", aim.sentence());
    }
    write(bench, &figures, &aims, &kernel.title())?;
    Ok(ended.results)
}

/// Profiles, and writes that part of the document.
fn profile(settings: &Settings, bench: &Bench) -> Result<Vec<TestResult>> {
    let (results, profiles) = super::profile::run(settings, bench.messages)?;
    if !profiles.is_empty() {
        let command = format!("make bench PROFILE=1 MESSAGES={}", bench.messages);
        let kernel = settings.kernel()?.title();
        let tables = profile_table::markdown(&profiles, &command, &kernel);
        let path = write_between(bench, &PROFILE, &tables)?;
        println!("  written to {}", path.display());
    }
    Ok(results)
}

/// The lines between which the document is written by the run.
const MARKS: [&str; 2] = [
    "<!-- written by `make bench` from here -->",
    "<!-- to here -->",
];
/// Likewise, by one that profiles.
const PROFILE: [&str; 2] = [
    "<!-- written by `make bench PROFILE=1` from here -->",
    "<!-- profile to here -->",
];

fn write(bench: &Bench, figures: &Figures, aims: &[Aim], kernel: &str) -> Result<()> {
    let command = format!(
        "make bench ROUNDS={} MESSAGES={}",
        bench.rounds, bench.messages
    );
    let tables = table::markdown(figures, aims, &command, kernel)?;
    let path = write_between(bench, &MARKS, &tables)?;
    let shown = path.display();
    let path = path.with_extension("svg");
    fs::write(&path, plot::svg(figures)?)
        .with_context(|| format!("cannot write {}", path.display()))?;
    println!("  written to {shown} and {}", path.display());
    Ok(())
}

/// Replaces what is between the marks in the document, which it returns.
fn write_between(bench: &Bench, marks: &[&str; 2], new: &str) -> Result<PathBuf> {
    let path = bench.output.join("measurements.md");
    let shown = path.display();
    let text = fs::read_to_string(&path).with_context(|| format!("cannot read {shown}"))?;
    let Some(new) = replaced(&text, marks, new) else {
        bail!(
            "{shown} does not have the lines `{}` and `{}`",
            marks[0],
            marks[1]
        );
    };
    fs::write(&path, new).with_context(|| format!("cannot write {shown}"))?;
    Ok(path)
}

/// `text` with what is between the marks replaced.
fn replaced(text: &str, [begin, end]: &[&str; 2], new: &str) -> Option<String> {
    let (head, rest) = text.split_once(begin)?;
    let (_, tail) = rest.split_once(end)?;
    Some(format!("{head}{begin}\n\n{new}\n{end}{tail}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ivshmem_device::statistics::{Peer, Statistics};

    #[test]
    fn medians_come_from_the_report() {
        let report = "# bench tcp 0 stream 64 30\nok 1 - x\n# bench tcp 0 stream 64 10\n\
                      # bench tcp 0 stream 64 20\n# bench tcp 0 stream x 5\n# bench\n";
        let figures = Figures::read(report);
        assert_eq!(figures.get("tcp", 0, "stream", 64), Some(20.0));
        assert_eq!(figures.get("tcp", 0, "stream", 4096), None);
    }

    #[test]
    fn accesses_are_those_of_all_rounds() {
        let line = |phase: &str, doorbells| {
            let mut statistics = Statistics::default();
            let mut peer = Peer::default();
            peer.register_writes.doorbell = doorbells;
            statistics.peers = vec![peer];
            let text = serde_json::to_string(&statistics).unwrap();
            format!("# statistics {phase} {text}\n")
        };
        let report = [
            line("ring/8192/trip/64/100/begin", 7),
            line("ring/8192/trip/64/100/end", 207),
            line("ring/8192/trip/64/100/begin", 300),
            line("ring/8192/trip/64/100/end", 400),
        ];
        let figures = Figures::read(&report.concat());
        assert_eq!(figures.accesses("ring", 8192, "trip", 64), Some(1.5));
        assert_eq!(figures.accesses("ring", 8192, "stream", 64), None);
    }

    #[test]
    fn only_what_is_between_the_marks_is_replaced() {
        let [begin, end] = MARKS;
        let text = format!("head\n{begin}\nold\n{end}\ntail\n");
        let new = replaced(&text, &MARKS, "new\n").unwrap();
        assert_eq!(new, format!("head\n{begin}\n\nnew\n\n{end}\ntail\n"));
        assert_eq!(replaced(&new, &MARKS, "new\n").unwrap(), new);
        assert_eq!(replaced(&new, &PROFILE, "new"), None);
        assert_eq!(replaced("no marks", &MARKS, "new"), None);
    }
}
