// SPDX-License-Identifier: MIT OR Apache-2.0
//! `demo`: a root cell on the stock kernel and a bare-metal inmate have the classic conversation.
//!
//! Also used by the tests of what happens when one of the parties dies in the middle.

use crate::boot::{guest_spec, initramfs, judge, Links, NO_KMEMLEAK};
use crate::kernel::Kernel;
use crate::process::wait_for;
use crate::progress::Step;
use crate::qemu::{Guest, GuestEnd, GuestSpec};
use crate::settings::Settings;
use crate::tap::Verdict;
use anyhow::{bail, Context, Result};
use clap::Args;
use ivshmem_guest::plan::{DevicePlan, Plan};
use std::path::PathBuf;

/// QEMU's exit status when the inmate ends well, see Documentation/inmate.md.
pub(crate) const INMATE_SUCCESS: i32 = 33;
/// In front of the root cell's console.
const ROOT_PREFIX: &str = "root cell | ";
/// In front of the inmate's.
const INMATE_PREFIX: &str = "inmate    | ";
/// What the root cell prints in front of each message.
const RECEIVED: &str = "Received message from Inmate: ";

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
    let stage = Stage::set(settings, "demo")?;
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
    links: Links,
}

/// One of the two peers; the third of the link stays absent, as in the classic demo.
fn peer(id: u32) -> DevicePlan {
    DevicePlan {
        peer: id,
        peers: 3,
        ..DevicePlan::default()
    }
}

impl<'a> Stage<'a> {
    /// Starts the link. `name` is for files.
    pub(crate) fn set(settings: &'a Settings, name: &str) -> Result<Self> {
        let kernel = settings.kernel()?;
        let folder = settings.run_folder(name)?;
        initramfs(settings, &kernel)?.write(&folder.join("initramfs"))?;
        Ok(Self {
            settings,
            links: Links::start(settings, &folder, &[peer(0), peer(1)])?,
            kernel,
            folder,
        })
    }

    /// Runs a conversation. After 3 messages the victim dies, if there is one.
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
            wait_for_messages(self.settings, &mut root, 3)?;
            match victim {
                Victim::Inmate => inmate.kill()?,
                Victim::RootCell => root.kill()?,
                Victim::DeviceModel => {
                    wait_for_quiet(self.settings, &inmate)?;
                    self.links.kill()?;
                }
            }
        }
        let root = root.finish()?;
        let inmate = inmate.finish()?;
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
        // A test of a silent peer should not wait for a minute.
        let timeout = if victim.is_some() { 15 } else { 60 } * self.settings.patience;
        let plan = Plan {
            run: "demo".into(),
            arguments: vec![
                "--target=1".into(),
                format!("--rounds={}", conversation.rounds),
                format!("--timeout={timeout}"),
            ],
            devices: vec![peer(0)],
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
        let timeout = 120 * self.settings.patience;
        let spec = GuestSpec {
            name: format!("{name}-inmate"),
            kernel: self.settings.inmate()?,
            words: format!(
                "greeting={} target=0 period={} timeout={timeout}",
                quoted(&conversation.greeting),
                conversation.period
            ),
            devices: self.links.sockets(&[peer(1)]),
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

/// Waits until the inmate has answered the third doorbell, to the last line of its dump. From then on
/// nobody touches the device until its next period: QEMU 11.1 aborts or hangs if the device model dies
/// with a request in its hands, and that is not what we test.
fn wait_for_quiet(settings: &Settings, inmate: &Guest) -> Result<()> {
    let quiet = wait_for(settings.limit(), || {
        let lines = inmate.console.lines();
        let third = lines
            .iter()
            .position(|line| line.contains("got interrupt 1 (#3)"));
        let dumped = third.is_some_and(|third| {
            lines[third..]
                .iter()
                .any(|line| line.starts_with("in@0x4000"))
        });
        Ok(dumped.then_some(()))
    })?;
    quiet.context("the inmate did not answer the third doorbell")
}

/// How many messages with the right text the root cell printed.
pub(crate) fn count_messages(root: &[String], conversation: &Conversation) -> usize {
    let line = format!("{RECEIVED}{}", conversation.greeting);
    root.iter().filter(|text| text.trim_end() == line).count()
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
    // Words to the user, from the program itself.
    let complaint = root_end
        .console
        .iter()
        .find_map(|line| line.split_once("ivshmem-demo: "));
    if let Some((_, complaint)) = complaint {
        reasons.push(format!("the root cell says: {complaint}"));
    }
    for result in judge("root cell", root_end) {
        if result.verdict != Verdict::Passed {
            reasons.push(format!("{}: {}", result.name, result.notes.join("; ")));
        }
    }
    if inmate_end.status.code() != Some(INMATE_SUCCESS) {
        let last = inmate_end.console.last().map_or("", String::as_str);
        let status = inmate_end.status;
        reasons.push(format!(
            "the inmate's QEMU ended with {status}; its last words: {last}"
        ));
    }
    reasons
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

    #[test]
    fn messages_are_counted_exactly() {
        let conversation = Conversation {
            greeting: "Hi!".into(),
            rounds: 1,
            period: 1,
        };
        let lines = [
            "Received message from Inmate: Hi!",
            "Received message from Inmate: Hi!!",
            "Received message from Inmate: ",
        ];
        let lines: Vec<String> = lines.map(Into::into).into();
        assert_eq!(count_messages(&lines, &conversation), 1);
    }
}
