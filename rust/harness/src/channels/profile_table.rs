// SPDX-License-Identifier: MIT OR Apache-2.0
//! A profile for people: the tables of Documentation/measurements.md, and a file with everything.

use super::profile::{Cost, Profile};
use super::symbols::{Group, ALL};
use std::cmp::Reverse;
use std::fmt::Write as _;

/// Steps of which the document has the functions, too.
const SHOWN: [&str; 2] = ["channel-64", "channel-trip"];

/// How many of them.
const FUNCTIONS: usize = 12;

impl Profile {
    /// What all functions of `group` have cost.
    fn sum(&self, group: Group) -> Cost {
        let rows = self.functions.iter().filter(|((of, _), _)| *of == group);
        rows.fold(Cost::default(), |sum, (_, cost)| Cost {
            instructions: sum.instructions + cost.instructions,
            samples: sum.samples + cost.samples,
        })
    }

    /// Milliseconds in which a processor was busy.
    fn busy(&self) -> u64 {
        let groups = ALL.into_iter().filter(|&group| group != Group::Idle);
        groups.map(|group| self.sum(group).samples).sum()
    }

    /// `instructions`, for each message.
    fn each(&self, instructions: u64) -> f64 {
        instructions as f64 / self.count as f64
    }

    /// `samples` of the time in which a processor was busy, in percent.
    fn share(&self, samples: u64) -> f64 {
        100.0 * samples as f64 / self.busy().max(1) as f64
    }

    /// Functions, the one with the most instructions first.
    fn sorted(&self) -> Vec<(&Group, &str, &Cost)> {
        let rows = self.functions.iter();
        let mut rows: Vec<_> = rows
            .map(|((group, name), cost)| (group, name.as_str(), cost))
            .collect();
        rows.sort_by_key(|(_, _, cost)| Reverse(cost.instructions));
        rows
    }
}

fn is_busy(group: Group) -> bool {
    group != Group::Idle
}

/// What the document says.
pub(super) fn markdown(profiles: &[Profile], command: &str, kernel: &str) -> String {
    let groups: Vec<Group> = ALL.into_iter().filter(|&group| is_busy(group)).collect();
    let mut text = format!("`{command}`, on {kernel}, sections of 1 MiB:\n\n| step, guest |");
    for group in &groups {
        text += &format!(" {} |", group.words());
    }
    text += " all |\n| --- |";
    text += &" ---: |".repeat(groups.len() + 1);
    text += "\n";
    for profile in profiles {
        let _ = write!(text, "| {} |", title(profile));
        let mut all = 0;
        for &group in &groups {
            let cost = profile.sum(group);
            all += cost.instructions;
            let (each, share) = (profile.each(cost.instructions), profile.share(cost.samples));
            let _ = write!(text, " {each:.0} ({share:.0}%) |");
        }
        let _ = writeln!(text, " {:.0} |", profile.each(all));
    }
    text += "\nInstructions for each message (for each round trip, for each call), and in parentheses the share of the time in \
             which a processor of the guest was busy.\n";
    for profile in profiles
        .iter()
        .filter(|profile| SHOWN.contains(&profile.step.as_str()))
    {
        let _ = writeln!(
            text,
            "\n| {}: function | for | instructions | time |\n| --- | --- | ---: | ---: |",
            title(profile)
        );
        let busy = profile
            .sorted()
            .into_iter()
            .filter(|(&group, _, _)| is_busy(group));
        for (group, name, cost) in busy.take(FUNCTIONS) {
            let (each, share) = (profile.each(cost.instructions), profile.share(cost.samples));
            let words = group.words();
            let _ = writeln!(text, "| `{name}` | {words} | {each:.0} | {share:.0}% |");
        }
    }
    text
}

/// A step as the document names it.
fn title(profile: &Profile) -> String {
    let who = ["first", "second"].get(profile.guest).unwrap_or(&"other");
    format!("{}, {who}", profile.step)
}

/// Everything, for whoever wants to know more than the document says.
pub(super) fn all(profiles: &[Profile]) -> String {
    let mut text = String::new();
    for profile in profiles {
        let _ = writeln!(text, "== {}: {}", title(profile), profile.count);
        for group in ALL {
            let cost = profile.sum(group);
            let each = profile.each(cost.instructions);
            let _ = writeln!(text, "-- {each:10.1} {:6} {}", cost.samples, group.words());
        }
        for (group, name, cost) in profile.sorted() {
            let each = profile.each(cost.instructions);
            if each >= 0.5 || cost.samples > 0 {
                let words = group.words();
                let _ = writeln!(text, "   {each:10.1} {:6} {words}: {name}", cost.samples);
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn profile() -> Profile {
        let row = |group, name: &str, instructions, samples| {
            (
                (group, name.to_string()),
                Cost {
                    instructions,
                    samples,
                },
            )
        };
        Profile {
            step: "channel-64".into(),
            count: 10,
            guest: 1,
            functions: BTreeMap::from([
                row(Group::Call, "vfs_read", 100, 1),
                row(Group::Module, "take", 300, 3),
                row(Group::Idle, "halt", 5, 90),
            ]),
        }
    }

    #[test]
    fn instructions_are_of_a_message_and_time_of_what_is_busy() {
        let text = markdown(&[profile()], "make bench PROFILE=1", "a kernel");
        let row = "| channel-64, second | 0 (0%) | 10 (25%) | 30 (75%) |";
        assert!(text.contains(row), "{text}");
        assert!(text.contains(" 40 |\n"), "{text}");
        let take = text.find("| `take` | the module | 30 | 75% |");
        assert!(take < text.find("| `vfs_read` | "), "{text}");
        assert!(!text.contains("`halt`"), "{text}");
    }

    #[test]
    fn the_file_has_everything() {
        let text = all(&[profile()]);
        assert!(text.starts_with("== channel-64, second: 10\n"), "{text}");
        assert!(text.contains("90 waiting: halt\n"), "{text}");
    }
}
