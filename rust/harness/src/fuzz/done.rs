// SPDX-License-Identifier: MIT OR Apache-2.0
//! What guests say that they have done: lines `# fuzz ...` of their reports, added up.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// What was done.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Done {
    /// Guests that have run.
    pub(crate) guests: u64,
    /// Operations.
    pub(crate) total: u64,
    /// Somebody wanted it to end early.
    pub(crate) was_interrupted: bool,
    /// For each kind of operation, how often it ended with which error; 0 is success.
    kinds: BTreeMap<String, BTreeMap<i32, u64>>,
    /// For each kind of operation, the milliseconds of all of them, in all threads.
    milliseconds: BTreeMap<String, u64>,
    /// Other things that were counted.
    also: BTreeMap<String, u64>,
}

impl Done {
    /// Of one guest, whose report may break off.
    pub(crate) fn of(report: &[String]) -> Self {
        let mut done = Self {
            guests: 1,
            ..Self::default()
        };
        for line in report {
            let Some(words) = line.strip_prefix("# fuzz ") else {
                continue;
            };
            match words.split(' ').collect::<Vec<_>>().as_slice() {
                ["total", number] => done.total = number.parse().unwrap_or(done.total),
                ["also", name @ .., number] => {
                    done.also
                        .insert(name.join(" "), number.parse().unwrap_or_default());
                }
                ["time", name, number] => {
                    done.milliseconds
                        .insert((*name).into(), number.parse().unwrap_or_default());
                }
                ["kind", name, outcomes @ ..] => {
                    let outcomes = outcomes.iter().filter_map(|pair| {
                        let (errno, count) = pair.split_once(':')?;
                        Some((errno.parse().ok()?, count.parse().ok()?))
                    });
                    done.kinds.insert((*name).into(), outcomes.collect());
                }
                _ => {}
            }
        }
        done
    }

    /// Adds what another guest has done.
    pub(crate) fn add(&mut self, other: &Self) {
        self.guests += other.guests;
        self.total += other.total;
        self.was_interrupted |= other.was_interrupted;
        for (name, outcomes) in &other.kinds {
            let own = self.kinds.entry(name.clone()).or_default();
            for (errno, count) in outcomes {
                *own.entry(*errno).or_default() += count;
            }
        }
        for (name, time) in &other.milliseconds {
            *self.milliseconds.entry(name.clone()).or_default() += time;
        }
        for (name, count) in &other.also {
            *self.also.entry(name.clone()).or_default() += count;
        }
    }

    /// Kinds of operations of which none succeeded although many were tried: those would have tested
    /// nothing.
    pub(crate) fn missing(&self) -> Vec<String> {
        const ENOUGH: u64 = 200;
        // The driver does not offer the first, and to sysfs garbage is written. What is to be connected is open already,
        // mostly, by "ch-renew", which has to succeed.
        const NEVER: [&str; 3] = ["splice", "sysfs-write", "ch-connect"];
        if self.total == 0 && !self.was_interrupted {
            return vec!["none was".into()];
        }
        let useless = self.kinds.iter().filter(|(_, outcomes)| {
            outcomes.values().sum::<u64>() > ENOUGH && !outcomes.contains_key(&0)
        });
        let useless = useless.filter(|(name, _)| !NEVER.contains(&name.as_str()));
        useless
            .map(|(name, outcomes)| format!("{name} never succeeded: {outcomes:?}"))
            .chain(self.missing_in_channels())
            .collect()
    }

    /// What of the life of channels did not happen at all although there was time for it.
    fn missing_in_channels(&self) -> Vec<String> {
        // Of how many attempts to send, one at least; the names are the guest's.
        const FATES: [(&str, u64); 5] = [
            ("messages sent", 200),
            ("messages received", 200),
            ("messages between peers of the guest, checked", 500),
            ("ends of sessions read", 4000),
            ("resets told", 4000),
        ];
        let tried = self
            .kinds
            .get("ch-send")
            .map_or(0, |outcomes| outcomes.values().sum::<u64>());
        let missing = FATES.iter().filter(|(name, enough)| {
            tried > *enough && self.also.get(*name).copied().unwrap_or_default() == 0
        });
        missing
            .map(|(name, _)| format!("{tried} times a message was to be sent, but {name}: 0"))
            .collect()
    }

    /// How much of what channels were asked to do was done.
    fn channels(&self) -> Option<String> {
        let outcomes = self
            .kinds
            .iter()
            .filter(|(name, _)| name.starts_with("ch-"));
        let (mut all, mut good) = (0, 0);
        for (_, outcomes) in outcomes {
            all += outcomes.values().sum::<u64>();
            good += outcomes.get(&0).unwrap_or(&0);
        }
        let also = |name: &str| self.also.get(name).copied().unwrap_or_default();
        (all > 0).then(|| {
            format!(
                "channels: {all} operations, {} % of them succeeded; {} messages sent, {} received",
                good * 100 / all,
                also("messages sent"),
                also("messages received"),
            )
        })
    }

    /// For people.
    pub(crate) fn text(&self, time: Duration, with_errors: bool) -> String {
        let seconds = time.as_secs_f64().max(0.001);
        let mut text = format!(
            "{} operations in {} guests, {seconds:.0} s: {:.0} per second, boots included{}",
            self.total,
            self.guests,
            self.total as f64 / seconds,
            if self.was_interrupted {
                "; interrupted"
            } else {
                ""
            }
        );
        if let Some(channels) = self.channels() {
            text += "\n  ";
            text += &channels;
        }
        for (name, outcomes) in &self.kinds {
            // Writing into a string does not fail.
            let count = outcomes.values().sum::<u64>();
            let each = self.milliseconds.get(name).unwrap_or(&0) * 1000 / count.max(1);
            let _ = write!(text, "\n  {name:<14}{count:>9}{each:>7} us each");
            if with_errors {
                for (errno, count) in outcomes {
                    let _ = write!(text, "  {}: {count}", error_name(*errno));
                }
            }
        }
        for (name, count) in &self.also {
            let _ = write!(text, "\n  {name}: {count}");
        }
        text
    }
}

/// Names of the errors that operations are known to end with.
const NAMES: &[(i32, &str)] = &[
    (0, "good"),
    (1, "EPERM"),
    (2, "ENOENT"),
    (4, "EINTR"),
    (5, "EIO"),
    (6, "ENXIO"),
    (7, "E2BIG"),
    (9, "EBADF"),
    (11, "EAGAIN"),
    (12, "ENOMEM"),
    (13, "EACCES"),
    (14, "EFAULT"),
    (16, "EBUSY"),
    (17, "EEXIST"),
    (19, "ENODEV"),
    (20, "ENOTDIR"),
    (22, "EINVAL"),
    (25, "ENOTTY"),
    (28, "ENOSPC"),
    (29, "ESPIPE"),
    (32, "EPIPE"),
    (40, "ELOOP"),
    (71, "EPROTO"),
    (75, "EOVERFLOW"),
    (90, "EMSGSIZE"),
    (95, "EOPNOTSUPP"),
    (104, "ECONNRESET"),
    (110, "ETIMEDOUT"),
    (111, "ECONNREFUSED"),
];

fn error_name(number: i32) -> String {
    let known = NAMES.iter().find(|(value, _)| *value == number);
    known.map_or(format!("error {number}"), |(_, name)| (*name).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(text: &str) -> Vec<String> {
        text.lines().map(Into::into).collect()
    }

    #[test]
    fn counts_are_read_and_added() {
        let first = report("ok 1 - x\n# fuzz total 5\n# fuzz kind read 0:3 14:1\n# fuzz total 9\n# fuzz also unbind/bind 2");
        let mut all = Done::of(&first);
        assert_eq!(all.total, 9);
        all.add(&Done::of(&report(
            "# fuzz total 1\n# fuzz kind read 14:1\n# fuzz kind seek 22:300\n# fuzz kin",
        )));
        assert_eq!((all.total, all.guests), (10, 2));
        assert_eq!(all.kinds["read"], BTreeMap::from([(0, 3), (14, 2)]));
        assert_eq!(all.also["unbind/bind"], 2);
        assert_eq!(all.missing().len(), 1, "{:?}", all.missing());
        let text = all.text(Duration::from_secs(2), true);
        assert!(
            text.contains("5 per second") && text.contains("EFAULT: 2"),
            "{text}"
        );
    }

    #[test]
    fn channels_without_messages_are_a_failure() {
        let of = |messages: u64| {
            let lines = format!(
                "# fuzz total 9000\n# fuzz kind ch-send 0:9 11:900\n# fuzz also messages sent 9\n\
                 # fuzz also messages received 9\n\
                 # fuzz also messages between peers of the guest, checked {messages}"
            );
            Done::of(&report(&lines))
        };
        assert_eq!(of(1).missing(), Vec::<String>::new());
        let missing = of(0).missing();
        assert!(
            missing.len() == 1 && missing[0].contains("checked: 0"),
            "{missing:?}"
        );
        let text = of(1).text(Duration::from_secs(1), false);
        assert!(text.contains("909 operations, 0 % of them"), "{text}");
    }

    #[test]
    fn nothing_done_is_a_failure() {
        assert_eq!(Done::default().missing().len(), 1);
    }
}
