// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a message costs, function by function: from the counts of the profiler that both QEMUs have loaded
//! (`rust/profiler`), before and after each step of a run of its own.

use super::profile_table as report;
use super::symbols::{Group, Symbols};
use super::two::{Ended, Pair, Roles};
use crate::progress::Step;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// The profiler of one guest.
#[derive(Debug, Clone)]
pub(crate) struct Profiler {
    /// Where it says what it has counted.
    socket: PathBuf,
    /// What that is kept in, with the step behind.
    file: PathBuf,
}

impl Profiler {
    /// The one at `socket`.
    pub(super) fn new(socket: PathBuf, file: PathBuf) -> Self {
        Self { socket, file }
    }

    /// What QEMU is to be started with.
    pub(super) fn options(plugin: &Path, socket: &Path) -> [String; 2] {
        let (plugin, socket) = (plugin.display(), socket.display());
        ["-plugin".into(), format!("{plugin},socket={socket}")]
    }

    /// Keeps what has been counted so far.
    pub(crate) fn keep(&self, words: &str) -> Result<()> {
        let shown = self.socket.display();
        let mut text = String::new();
        UnixStream::connect(&self.socket)
            .and_then(|mut stream| stream.read_to_string(&mut text))
            .with_context(|| format!("no profile from {shown}"))?;
        let file = kept(&self.file, words);
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))
    }
}

fn kept(file: &Path, words: &str) -> PathBuf {
    file.with_extension(words.replace(' ', "."))
}

/// Instructions, and milliseconds in which a processor was found there.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Cost {
    pub(super) instructions: u64,
    pub(super) samples: u64,
}

/// What has been counted, by address.
fn read(text: &str) -> BTreeMap<u64, Cost> {
    let line = |line: &str| {
        let mut words = line.split(' ');
        let address = u64::from_str_radix(words.next()?, 16).ok()?;
        let cost = Cost {
            instructions: words.next()?.parse().ok()?,
            samples: words.next()?.parse().ok()?,
        };
        Some((address, cost))
    };
    text.lines().filter_map(line).collect()
}

/// What functions have cost.
pub(super) type Functions = BTreeMap<(Group, String), Cost>;

/// What functions have cost between two readings.
fn functions(begin: &str, end: &str, symbols: &Symbols) -> Functions {
    let before = read(begin);
    let mut functions = Functions::new();
    for (address, cost) in read(end) {
        let base = before.get(&address).copied().unwrap_or_default();
        let (name, group) = symbols.find(address);
        let sum = functions.entry((group, name)).or_default();
        sum.instructions += cost.instructions - base.instructions;
        sum.samples += cost.samples - base.samples;
    }
    functions
}

/// A step, as one guest went through it.
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) step: String,
    /// Messages or calls.
    pub(super) count: u64,
    /// Which guest: 0 sends, 1 receives.
    pub(super) guest: usize,
    pub(super) functions: Functions,
}

/// Profiles everything, with streams of `messages` short messages.
pub(super) fn run(settings: &Settings, messages: u64) -> Result<(Vec<TestResult>, Vec<Profile>)> {
    let step = Step::begin(format!("profile: {messages} messages"), settings.verbose);
    let roles = Roles {
        sections: vec![super::bench::SECTIONS[0]],
        peers: true,
        logs: true,
        profiler: Some(settings.profiler()?),
        ..Roles::same("profile", vec![messages.to_string()])
    };
    let pair = Pair::start(settings, &roles)?;
    let folder = pair.folder().to_path_buf();
    let ended = pair.finish("profile")?;
    super::end(step, &ended.results);
    let profiles = if ended.results.iter().any(TestResult::has_failed) {
        Vec::new()
    } else {
        profiles(&ended, &folder)?
    };
    Ok((ended.results, profiles))
}

/// Steps and how many messages they were: the lines `# profile STEP COUNT` of a report.
fn steps(report: &str) -> impl Iterator<Item = (&str, u64)> {
    report.lines().filter_map(|line| {
        let (step, count) = line.strip_prefix("# profile ")?.split_once(' ')?;
        Some((step, count.parse().ok()?))
    })
}

fn profiles(ended: &Ended, folder: &Path) -> Result<Vec<Profile>> {
    let mut profiles = Vec::new();
    for (guest, log) in ended.logs.iter().enumerate() {
        let symbols = Symbols::read(log);
        let file = folder.join(format!("guest{guest}"));
        for (step, count) in steps(&ended.reports[0]) {
            let [begin, end] = ["begin", "end"].map(|word| {
                let file = kept(&file, &format!("{step} {word}"));
                fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))
            });
            profiles.push(Profile {
                step: step.into(),
                count,
                guest,
                functions: functions(&begin?, &end?, &symbols),
            });
        }
    }
    fs::write(folder.join("profile.txt"), report::all(&profiles))?;
    Ok(profiles)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_is_not_counted() {
        let symbols = Symbols::read("ffffffff81000000 T vfs_write\nffffffff81000100 t f\n");
        let begin = "ffffffff81000010 100 7\n";
        let end = "ffffffff81000010 130 9\nffffffff81000020 5 0\n0 3 1\n";
        let functions = functions(begin, end, &symbols);
        let get = |group, name: &str| functions.get(&(group, name.to_string())).copied();
        let cost = |instructions, samples| {
            Some(Cost {
                instructions,
                samples,
            })
        };
        assert_eq!(get(Group::Call, "vfs_write"), cost(35, 2));
        assert_eq!(get(Group::Program, "(programs)"), cost(3, 1));
        assert_eq!(functions.len(), 2);
    }

    #[test]
    fn steps_are_comments_of_the_report() {
        let report = "# profile null 20\nok 1 - x\n# profile x\n# profile channel-64 30\n";
        let found: Vec<_> = steps(report).collect();
        assert_eq!(found, [("null", 20), ("channel-64", 30)]);
    }

    #[test]
    fn each_reading_has_a_file_of_its_own() {
        let file = kept(Path::new("/run/guest0"), "channel-64 begin");
        assert_eq!(file, Path::new("/run/guest0.channel-64.begin"));
    }
}
