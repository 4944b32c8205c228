// SPDX-License-Identifier: MIT OR Apache-2.0
//! `demo`: a root cell on the stock kernel and a bare-metal inmate have the classic conversation.
//!
//! Also used by the tests of what happens when one of the parties dies in the middle.

use crate::boot::{guest_spec, initramfs, judge, Links};
use crate::process::wait_for;
use crate::progress::Step;
use crate::qemu::{Guest, GuestEnd, GuestSpec};
use crate::settings::Settings;
use crate::tap::Verdict;
use anyhow::{bail, Result};
use clap::Args;
use ivshmem_guest::plan::{DevicePlan, Plan};

/// QEMU's exit status when the inmate ends well, see Documentation/inmate.md.
const INMATE_SUCCESS: i32 = 33;
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
    /// Whatever was not as it should be.
    pub(crate) reasons: Vec<String>,
    /// The root cell's console.
    pub(crate) root: Vec<String>,
    /// The root cell's program ended with status 0.
    pub(crate) root_succeeded: bool,
    /// QEMU's exit status of the inmate.
    pub(crate) inmate_status: Option<i32>,
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
    println!("kernel: Debian's {}, unmodified", kernel.release);
    println!(
        "image:  {}, sha256 {}",
        kernel.image.display(),
        kernel.image_checksum()?
    );
    println!("module: {}", settings.module(&kernel).display());
    let outcome = talk(settings, "demo", conversation, None, true)?;
    for reason in &outcome.reasons {
        println!("demo failed: {reason}");
    }
    let count = count_messages(&outcome.root, conversation);
    println!("demo: {count} messages received by the root cell");
    Ok(outcome.reasons.is_empty())
}

/// Runs a conversation. After 3 messages the victim dies, if there is one.
pub(crate) fn talk(
    settings: &Settings,
    name: &str,
    conversation: &Conversation,
    victim: Option<Victim>,
    show: bool,
) -> Result<Outcome> {
    let kernel = settings.kernel()?;
    let folder = settings.run_folder(name)?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?.write(&archive)?;
    let peer = |peer| DevicePlan {
        peer,
        peers: 3,
        ..DevicePlan::default()
    };
    let plan = Plan {
        run: "demo".into(),
        arguments: arguments(conversation, settings, victim),
        devices: vec![peer(0)],
        patience: settings.patience,
    };
    let mut links = Links::start(settings, &folder, &[peer(0), peer(1)])?;

    let mut root_spec = guest_spec("root", &kernel, &archive, &plan, &links);
    root_spec.prefix = show.then(|| ROOT_PREFIX.into());
    let inmate_spec = GuestSpec {
        name: "inmate".into(),
        kernel: settings.inmate()?,
        words: format!(
            "greeting={} target=0 period={}",
            quoted(&conversation.greeting),
            conversation.period
        ),
        devices: links.sockets(&[peer(1)]),
        prefix: show.then(|| INMATE_PREFIX.into()),
        ..GuestSpec::default()
    };
    let step = Step::begin(format!("conversation \"{name}\""), show);
    let mut root = Guest::start(settings, &folder, &root_spec)?;
    let mut inmate = Guest::start(settings, &folder, &inmate_spec)?;
    if let Some(victim) = victim {
        wait_for_messages(settings, &mut root, 3)?;
        match victim {
            Victim::Inmate => inmate.kill()?,
            Victim::RootCell => root.kill()?,
            Victim::DeviceModel => links.get(0).kill()?,
        }
    }
    let root_end = root.finish()?;
    if victim == Some(Victim::DeviceModel) {
        // The inmate cannot hear that the root cell has left.
        inmate.kill()?;
    }
    let inmate_end = inmate.finish()?;
    let mut reasons = verdict(conversation, &root_end, &inmate_end);
    match victim {
        Some(Victim::DeviceModel) => drop(links),
        _ => reasons.extend(links.finish()?),
    }
    step.end(if reasons.is_empty() {
        "well"
    } else {
        "ended early"
    });
    Ok(Outcome {
        root_succeeded: root_end.report.contains("\nok 1 - "),
        inmate_status: inmate_end.status.code(),
        reasons,
        root: root_end.console,
    })
}

/// The arguments of the root cell's program.
fn arguments(
    conversation: &Conversation,
    settings: &Settings,
    victim: Option<Victim>,
) -> Vec<String> {
    // A test of a silent peer should not wait for a minute.
    let timeout = if victim.is_some() { 20 } else { 60 } * settings.patience;
    vec![
        format!("--target=1"),
        format!("--rounds={}", conversation.rounds),
        format!("--timeout={timeout}"),
    ]
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
