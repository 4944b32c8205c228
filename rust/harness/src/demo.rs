// SPDX-License-Identifier: MIT OR Apache-2.0
//! `demo`: a root cell on the stock kernel and a bare-metal inmate have the classic conversation.
//!
//! Also used by the tests of what happens when one of the parties dies in the middle.

use crate::boot::{guest_spec, initramfs, judge, Links, NO_KMEMLEAK};
use crate::kernel::Kernel;
use crate::process::wait_for;
use crate::progress::Step;
use crate::qemu::{Guest, GuestEnd, GuestSpec};
use crate::scan::RECEIVED;
use crate::settings::Settings;
use crate::tap::Verdict;
use anyhow::{bail, Context, Result};
use clap::Args;
use ivshmem_device::statistics::Peer;
use ivshmem_guest::plan::{DevicePlan, Plan, Protection};
use std::path::PathBuf;
use std::time::Duration;

/// QEMU's exit status when the inmate ends well, see Documentation/inmate.md.
pub(crate) const INMATE_SUCCESS: i32 = 33;
/// In front of the root cell's console.
const ROOT_PREFIX: &str = "root cell | ";
/// In front of the inmate's.
const INMATE_PREFIX: &str = "inmate    | ";
/// In front of what the root cell's program tells its user when it fails.
const COMPLAINT: &str = "ivshmem-demo: ";
/// How many messages come before somebody dies.
const BEFORE_DEATH: u32 = 3;
/// How long a round may take beside the inmate's period, before patience: both cells print dozens of lines.
const ROUND: Duration = Duration::from_millis(100);
/// Most seconds that the programs of both cells take for a limit.
pub(crate) const LONGEST: u64 = 86_400;

/// What is said, and how often.
#[derive(Debug, Clone, Args)]
pub(crate) struct Conversation {
    /// The text that the inmate says
    #[arg(long, value_name = "TEXT", default_value = "Hi!", value_parser = greeting)]
    pub(crate) greeting: String,

    /// End after so many messages
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) rounds: u32,

    /// Milliseconds between two doorbells of the inmate
    #[arg(long, value_name = "MS", default_value_t = 1000,
        value_parser = clap::value_parser!(u32).range(1..=60_000))]
    pub(crate) period: u32,
}

/// Who dies in the middle of a conversation, in tests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    Inmate,
    RootCell,
    DeviceModel,
}

/// How long a conversation may take.
#[derive(Debug, PartialEq, Eq)]
struct Limits {
    /// Seconds of silence after which the root cell's program gives up.
    silence: u64,
    /// Seconds after which the inmate does; 0 is never.
    inmate: u64,
    /// After which both are killed.
    guests: Duration,
}

impl Limits {
    /// One in which somebody dies ends soon after that, and a test of a silent peer should not wait for a minute.
    fn of(settings: &Settings, conversation: &Conversation, victim: Option<Victim>) -> Self {
        let patience = settings.patience;
        let (rounds, silence) = match victim {
            Some(_) => (conversation.rounds.min(BEFORE_DEATH), 15),
            None => (conversation.rounds, 60),
        };
        let period = Duration::from_millis(conversation.period.into());
        let talk = (period + ROUND) * rounds * patience;
        let silence = (Duration::from_secs(silence) + period) * patience;
        let inmate = (Duration::from_secs(120) * patience + talk).as_secs();
        Self {
            silence: silence.as_secs().min(LONGEST),
            inmate: if inmate > LONGEST { 0 } else { inmate },
            guests: settings.limit() + talk,
        }
    }
}

/// How a conversation went.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// Whatever was not as it should be, in words for the user.
    pub(crate) reasons: Vec<String>,
    /// How the root cell's guest ended.
    pub(crate) root: GuestEnd,
    /// How the inmate's ended.
    pub(crate) inmate: GuestEnd,
}

/// A text that can be shown: not empty, at most 200 bytes, no control characters.
fn greeting(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > 200 || text.chars().any(char::is_control) {
        return Err("a text of 1 to 200 bytes without control characters is wanted".into());
    }
    Ok(text.into())
}

/// Runs the demo and shows both consoles. Whether it went well.
pub(crate) fn run(settings: &Settings, conversation: &Conversation) -> Result<bool> {
    let kernel = settings.kernel()?;
    println!("kernel: {}", kernel.title());
    println!(
        "image:  {}, sha256 {}",
        kernel.image.display(),
        kernel.image_checksum()?
    );
    println!("module: {}", settings.module(&kernel).display());
    let stage = Stage::set(settings, "demo", Protection::Trap)?;
    let mut outcome = stage.converse("demo", conversation, None, true)?;
    outcome.reasons.extend(stage.finish()?);
    for reason in &outcome.reasons {
        println!("demo failed: {reason}");
    }
    let count = count_messages(&outcome.root.console, conversation);
    println!("demo: {count} messages received by the root cell");
    Ok(outcome.reasons.is_empty())
}

/// A link for two cells, on which conversations take place one after the other.
#[derive(Debug)]
pub(crate) struct Stage<'a> {
    settings: &'a Settings,
    kernel: Kernel,
    folder: PathBuf,
    /// The two peers; the third of the link stays absent, as in the classic demo.
    peers: [DevicePlan; 2],
    links: Links,
}

impl<'a> Stage<'a> {
    /// Starts the link. `name` is for files.
    pub(crate) fn set(settings: &'a Settings, name: &str, protection: Protection) -> Result<Self> {
        let peers = [0, 1].map(|peer| DevicePlan {
            peer,
            peers: 3,
            protection,
            ..DevicePlan::default()
        });
        let kernel = settings.kernel()?;
        let folder = settings.run_folder(name)?;
        initramfs(settings, &kernel)?.write(&folder.join("initramfs"))?;
        Ok(Self {
            settings,
            links: Links::start(settings, &folder, &peers)?,
            kernel,
            folder,
            peers,
        })
    }

    /// Runs a conversation. After some messages the victim dies, if there is one.
    pub(crate) fn converse(
        &self,
        name: &str,
        conversation: &Conversation,
        victim: Option<Victim>,
        show: bool,
    ) -> Result<Outcome> {
        let step = Step::begin(format!("conversation \"{name}\""), show);
        let mut root = self.start_root(name, conversation, victim, show)?;
        let mut inmate = self.start_inmate(name, conversation, victim, show)?;
        if let Some(victim) = victim {
            wait_for_messages(self.settings, &mut root, BEFORE_DEATH as usize)?;
            match victim {
                Victim::Inmate => inmate.kill()?,
                Victim::RootCell => root.kill()?,
                Victim::DeviceModel => {
                    self.wait_for_quiet(&inmate)?;
                    self.links.kill()?;
                }
            }
        }
        let limit = Limits::of(self.settings, conversation, victim).guests;
        root.wait(limit)?;
        inmate.wait(limit)?;
        let (root, inmate) = (root.finish()?, inmate.finish()?);
        let reasons = verdict(conversation, &root, &inmate);
        step.end(if reasons.is_empty() {
            "complete"
        } else {
            "broken off"
        });
        Ok(Outcome {
            reasons,
            root,
            inmate,
        })
    }

    /// Ends the link, and says what the device model saw that must not be.
    pub(crate) fn finish(self) -> Result<Vec<String>> {
        Ok(self.links.finish()?.forbidden)
    }

    fn start_root(
        &self,
        name: &str,
        conversation: &Conversation,
        victim: Option<Victim>,
        show: bool,
    ) -> Result<Guest> {
        let timeout = Limits::of(self.settings, conversation, victim).silence;
        let plan = Plan {
            run: "demo".into(),
            arguments: vec![
                "--target=1".into(),
                format!("--rounds={}", conversation.rounds),
                format!("--timeout={timeout}"),
            ],
            devices: vec![self.peers[0].clone()],
            patience: self.settings.patience,
        };
        let archive = self.folder.join("initramfs");
        let file = format!("{name}-root");
        let mut spec = guest_spec(&file, &self.kernel, &archive, &plan, &self.links);
        // It is looked for in conversations that end well.
        if victim.is_some() {
            spec.words = format!("{NO_KMEMLEAK} {}", spec.words);
        }
        spec.prefix = show.then(|| ROOT_PREFIX.into());
        spec.device_timeout = self.device_timeout(victim);
        Guest::start(self.settings, &self.folder, &spec)
    }

    /// Waits for a moment in which nobody asks the device model of a mapped link: QEMU 11.1 aborts or hangs if that
    /// dies with a request in its hands, or just before one, and this is not what we test. The inmate has answered the
    /// third doorbell, to the last line of its dump, and does nothing until its next period; and the root cell's
    /// driver has just had the look at config space that it has once a second. On a machine that stops for that long
    /// it can still go wrong.
    fn wait_for_quiet(&self, inmate: &Guest) -> Result<()> {
        let limit = self.settings.limit();
        let quiet = wait_for(limit, || {
            let lines = inmate.console.lines();
            let answer = |line: &String| line.contains("got interrupt 1 (#3)");
            let third = lines.iter().position(answer).unwrap_or(lines.len());
            let mut dump = lines[third..].iter();
            Ok(dump.find(|line| line.starts_with("in@0x4000")).map(|_| ()))
        })?;
        quiet.context("the inmate did not answer the third doorbell")?;
        let before = self.looks()?;
        // A driver that does not look fails the test by what it does not see.
        let limit = Duration::from_secs(5) * self.settings.patience;
        wait_for(limit, || Ok((self.looks()? != before).then_some(())))?;
        Ok(())
    }

    /// How often the root cell has read the config space.
    fn looks(&self) -> Result<u64> {
        let peer = self.links.services().model("0 statistics 0")?;
        let peer: Peer = serde_json::from_str(&peer)?;
        Ok(peer.config_reads)
    }

    /// How long QEMU waits for a device model that is going to die.
    fn device_timeout(&self, victim: Option<Victim>) -> Option<u32> {
        (victim == Some(Victim::DeviceModel)).then_some(20_000 * self.settings.patience)
    }

    fn start_inmate(
        &self,
        name: &str,
        conversation: &Conversation,
        victim: Option<Victim>,
        show: bool,
    ) -> Result<Guest> {
        // Should nothing else end it, its own limit does.
        let timeout = Limits::of(self.settings, conversation, victim).inmate;
        let spec = GuestSpec {
            name: format!("{name}-inmate"),
            kernel: self.settings.inmate()?,
            words: format!(
                "greeting={} target=0 period={} timeout={timeout}",
                quoted(&conversation.greeting),
                conversation.period
            ),
            devices: self.links.sockets(&self.peers[1..]),
            device_timeout: self.device_timeout(victim),
            prefix: show.then(|| INMATE_PREFIX.into()),
            ..GuestSpec::default()
        };
        Guest::start(self.settings, &self.folder, &spec)
    }
}

fn wait_for_messages(settings: &Settings, root: &mut Guest, count: usize) -> Result<()> {
    let seen = wait_for(settings.limit(), || {
        if root.console.count(RECEIVED) >= count {
            return Ok(Some(true));
        }
        Ok(root.poll()?.map(|_| false))
    })?;
    match seen {
        Some(true) => Ok(()),
        Some(false) => bail!("the root cell ended before {count} messages"),
        None => bail!("{count} messages did not come in time"),
    }
}

/// How many messages with the right text the root cell printed.
pub(crate) fn count_messages(root: &[String], conversation: &Conversation) -> usize {
    let line = format!("{RECEIVED}{}", conversation.greeting);
    root.iter().filter(|text| **text == line).count()
}

/// What was not as it should be.
fn verdict(conversation: &Conversation, root_end: &GuestEnd, inmate_end: &GuestEnd) -> Vec<String> {
    let mut reasons = Vec::new();
    let count = count_messages(&root_end.console, conversation);
    if count != conversation.rounds as usize {
        let wanted = conversation.rounds;
        reasons.push(format!(
            "the root cell got {count} messages instead of {wanted}"
        ));
    }
    if let Some(complaint) = complaint(&root_end.console) {
        reasons.push(format!("the root cell says: {complaint}"));
    }
    for result in judge("root cell", root_end) {
        if result.verdict != Verdict::Passed {
            reasons.push(format!("{}: {}", result.name, result.notes.join("; ")));
        }
    }
    if inmate_end.status.code() != Some(INMATE_SUCCESS) {
        let last = inmate_end.console.last().map_or("", String::as_str);
        reasons.push(format!(
            "the inmate's {}; its last words: {last}",
            inmate_end.how()
        ));
    }
    reasons
}

/// Words to the user, from the root cell's program itself.
fn complaint(console: &[String]) -> Option<&str> {
    let mut own = console.iter().filter(|line| !line.starts_with(RECEIVED));
    own.find_map(|line| Some(line.split_once(COMPLAINT)?.1))
}

/// As the inmate's command line wants it.
fn quoted(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('"', "\\\"");
    format!("\"{escaped}\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greetings_are_checked() {
        assert!(greeting("Hi!").is_ok());
        assert!(greeting("").is_err());
        assert!(greeting("a\nb").is_err());
        assert!(greeting(&"x".repeat(201)).is_err());
    }

    #[test]
    fn greetings_are_quoted_for_the_inmate() {
        assert_eq!(quoted("Hi!"), "\"Hi!\"");
        assert_eq!(quoted(r#"say "\""#), r#""say \"\\\"""#);
    }

    #[derive(clap::Parser)]
    struct Options {
        #[command(flatten)]
        settings: Settings,
        #[command(flatten)]
        conversation: Conversation,
    }

    fn options(words: &str) -> Options {
        clap::Parser::parse_from(format!("demo {words}").split_whitespace())
    }

    fn limits(words: &str, victim: Option<Victim>) -> (u64, u64, u64) {
        let Options {
            settings,
            conversation,
        } = options(words);
        let limits = Limits::of(&settings, &conversation, victim);
        (limits.silence, limits.inmate, limits.guests.as_secs())
    }

    #[test]
    fn limits_leave_room_for_all_rounds() {
        // 10 rounds of 1.1 s.
        assert_eq!(limits("--patience 1", None), (61, 131, 611));
        assert_eq!(limits("--patience 3", None), (183, 393, 1833));
        let slow = "--patience 1 --rounds 1000 --period 60000";
        assert_eq!(limits(slow, None), (120, 60_220, 60_700));
        // Longer than the programs' limits can be.
        let longest = "--patience 1000 --rounds 100000 --period 60000";
        assert_eq!(limits(longest, None), (86_400, 0, 6_010_600_000));
    }

    #[test]
    fn whoever_outlives_a_victim_does_not_wait_for_all_rounds() {
        let endless = "--patience 1 --rounds 100000 --period 1000";
        let victim = Some(Victim::RootCell);
        assert_eq!(limits(endless, victim), (16, 123, 603));
    }

    #[test]
    fn messages_are_no_complaints_of_the_program() {
        let lines = |last: &str| {
            let first = "Received message from Inmate: ivshmem-demo: x";
            [first, last].map(String::from)
        };
        assert_eq!(complaint(&lines("Done after 1 messages")), None);
        let said = lines("ivshmem-demo: peer 1 has left");
        assert_eq!(complaint(&said), Some("peer 1 has left"));
    }

    #[test]
    fn blanks_of_a_message_count() {
        let conversation = Conversation {
            greeting: "Hi ".into(),
            ..options("").conversation
        };
        let lines = ["Hi", "Hi ", "Hi  "].map(|text| format!("{RECEIVED}{text}"));
        assert_eq!(count_messages(&lines, &conversation), 1);
    }

    #[test]
    fn messages_are_counted_exactly() {
        let conversation = options("").conversation;
        let lines = [
            "Received message from Inmate: Hi!",
            "Received message from Inmate: Hi!!",
            "Received message from Inmate: ",
        ];
        let lines: Vec<String> = lines.map(Into::into).into();
        assert_eq!(count_messages(&lines, &conversation), 1);
    }
}
