// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end that has the file.

use crate::message::{is_name, Digest, Message};
use crate::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use ivshmem::{Channel, ConnectOptions, Deadline, Device, Error};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, SystemTime};

/// After so many sessions one after the other in which nothing more was stored, it gives up.
const SESSIONS_MAX: u32 = 10;

/// How often a sender that waits for confirmations looks whether there is a refusal instead.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

/// A file as it was when it was read through.
struct Source<'a> {
    path: &'a Path,
    name: &'a str,
    size: u64,
    modified: SystemTime,
    digest: Digest,
}

impl<'a> Source<'a> {
    fn read(path: &'a Path, name: &'a str) -> Result<Self, Failure> {
        let read = || {
            let mut file = File::open(path)?;
            // Before: what is changed meanwhile is found later.
            let modified = file.metadata()?.modified()?;
            let mut hash = Sha256::new();
            let size = io::copy(&mut file, &mut hash)?;
            Ok((size, modified, hash.finalize().into()))
        };
        let (size, modified, digest) = read().map_err(Failure::of(path))?;
        Ok(Self {
            path,
            name,
            size,
            modified,
            digest,
        })
    }

    /// Whether it is another file now.
    fn has_changed(&self) -> Result<bool, Failure> {
        let look = || {
            let now = fs::metadata(self.path)?;
            Ok((now.len(), now.modified()?) != (self.size, self.modified))
        };
        look().map_err(Failure::of(self.path))
    }
}

/// How far sessions have come.
#[derive(Default)]
struct Progress {
    /// Most bytes that the receiver had at the start of one.
    stored: u64,
    /// Sessions since then that have ended.
    vain: u32,
}

impl Progress {
    /// A session begins, and the receiver has so much.
    fn has(&mut self, stored: u64) {
        if stored > self.stored {
            *self = Self { stored, vain: 0 };
        }
    }

    /// One has ended.
    ///
    /// # Errors
    ///
    /// It was one too many.
    fn ended(&mut self, last: Error) -> Result<(), Failure> {
        self.vain += 1;
        if self.vain < SESSIONS_MAX {
            return Ok(());
        }
        let sessions = self.vain;
        Err(Failure::NoProgress { sessions, last })
    }
}

/// Sends `path`; returns when the receiver has stored it. Goes on in a new session when one ends.
pub(crate) fn send(device: &Device, peer: u32, path: &Path) -> Result<(), Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| is_name(name));
    let name = name.ok_or_else(|| Failure::NoName { path: path.into() })?;
    let mut source = Source::read(path, name)?;
    let mut progress = Progress::default();
    let bar = bar(source.size, name);
    loop {
        bar.set_message("waiting for the receiver");
        let channel = device.connect(peer, ConnectOptions::new())?;
        match transfer(&channel, &source, &mut progress, &bar) {
            Ok(()) => {
                bar.finish_with_message("stored");
                println!("{name}: {} bytes are stored", source.size);
                return Ok(());
            }
            Err(failure) if failure.ends_the_session_only() => {
                bar.println(format!(
                    "the session has ended, going on with the next: {failure}"
                ));
                if let Failure::Channel(last) = failure {
                    progress.ended(last)?;
                }
            }
            Err(failure) => return Err(failure),
        }
        if source.has_changed()? {
            // What the receiver has of the one before is of no use.
            source = Source::read(path, name)?;
            progress.stored = 0;
            bar.set_length(source.size);
        }
    }
}

/// One session.
fn transfer(
    channel: &Channel,
    source: &Source<'_>,
    progress: &mut Progress,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let &Source {
        path,
        name,
        size,
        digest,
        ..
    } = source;
    let begin = Message::Begin { size, digest, name };
    channel.send_fully(&begin.bytes())?;
    let offset = answer(channel)?;
    if offset > size {
        return Err(Failure::BadReceiver);
    }
    progress.has(offset);
    let mut file = File::open(path).map_err(Failure::of(path))?;
    file.seek(SeekFrom::Start(offset))
        .map_err(Failure::of(path))?;
    bar.set_position(offset);
    bar.reset_eta();
    // Half of the ring: the receiver takes one while we write the next.
    let half = channel.status()?.max_message / 2;
    let mut buffer = vec![0; half.clamp(1, 64 * 1024) as usize];
    loop {
        let length = file.read(&mut buffer).map_err(Failure::of(path))?;
        let message = match length {
            0 => Message::End,
            _ => Message::Data(&buffer[..length]),
        };
        unless_refused(channel)?;
        if let Err(Error::Closed) = channel.send_fully(&message.bytes()) {
            return Err(reason(channel));
        }
        bar.inc(length as u64);
        let status = channel.status()?;
        bar.set_message(format!(
            "{} of {} messages stored",
            status.confirmed, status.sent
        ));
        if length == 0 {
            break;
        }
    }
    // Confirmed is stored.
    let last = channel.status()?.sent;
    loop {
        match channel.wait_confirmed(last, Deadline::after(LOOK_PERIOD)) {
            Err(Error::TimedOut) => unless_refused(channel)?,
            Err(Error::Closed) => return Err(reason(channel)),
            other => return Ok(other.map(drop)?),
        }
    }
}

/// Whether the receiver is content so far: it says nothing.
fn unless_refused(channel: &Channel) -> Result<(), Failure> {
    match channel.next_size()? {
        None => Ok(()),
        Some(_) => Err(reason(channel)),
    }
}

/// How much of the file the receiver has.
fn answer(channel: &Channel) -> Result<u64, Failure> {
    let message = channel.receive_message()?.ok_or(Error::Closed)?;
    match Message::parse(&message) {
        Some(Message::Have(offset)) => Ok(offset),
        Some(Message::Refuse(reason)) => Err(Failure::Refused(reason.into())),
        _ => Err(Failure::BadReceiver),
    }
}

/// Why the receiver has spoken, or closed: because it refuses, or because it died.
fn reason(channel: &Channel) -> Failure {
    match answer(channel) {
        Ok(_) => Failure::BadReceiver,
        Err(failure) => failure,
    }
}

fn bar(size: u64, name: &str) -> ProgressBar {
    let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(size).with_style(style);
    bar.with_prefix(name.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sessions_in_vain_come_to_an_end() {
        let mut progress = Progress::default();
        progress.has(0);
        for _ in 1..SESSIONS_MAX {
            progress.ended(Error::Closed).expect("there may be more");
        }
        let failure = progress.ended(Error::Closed).expect_err("too many");
        assert!(failure.to_string().contains("10 sessions"), "{failure}");
    }

    #[test]
    fn sessions_that_store_something_go_on() {
        let mut progress = Progress::default();
        for session in 0..3 * u64::from(SESSIONS_MAX) {
            // Something more each second time.
            progress.has(session / 2);
            progress.ended(Error::Closed).expect("there may be more");
        }
    }

    #[test]
    fn a_file_that_has_changed_is_another_one() {
        let path = std::env::temp_dir().join(format!("send-file-source-{}", std::process::id()));
        fs::write(&path, b"hello").expect("write");
        let source = Source::read(&path, "name").expect("read");
        assert_eq!(source.size, 5);
        assert!(!source.has_changed().expect("look"));
        fs::write(&path, b"hello again").expect("write");
        assert!(source.has_changed().expect("look"));
        fs::remove_file(&path).expect("clean up");
    }
}
