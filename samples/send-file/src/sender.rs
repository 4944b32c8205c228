// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end that has the file.

use crate::message::{is_name, Digest, Message};
use crate::Failure;
use indicatif::{ProgressBar, ProgressStyle};
use ivshmem::{Channel, ConnectOptions, Deadline, Device, Error};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Sends `path`; returns when the receiver has stored it. Goes on in a new session when one ends.
pub(crate) fn send(device: &Device, peer: u32, path: &Path) -> Result<(), Failure> {
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.filter(|name| is_name(name));
    let name = name.ok_or_else(|| Failure::NoName { path: path.into() })?;
    let mut file = File::open(path).map_err(Failure::of(path))?;
    let mut hash = Sha256::new();
    let size = io::copy(&mut file, &mut hash).map_err(Failure::of(path))?;
    let digest = hash.finalize().into();
    let bar = progress(size, name);
    loop {
        bar.set_message("waiting for the receiver");
        let channel = device.connect(peer, ConnectOptions::new())?;
        let result = transfer(&channel, path, name, size, digest, &bar);
        match result {
            Ok(()) => {
                bar.finish_with_message("stored");
                println!("{name}: {size} bytes are stored");
                return Ok(());
            }
            Err(failure) if failure.ends_the_session_only() => {
                bar.println(format!(
                    "the session has ended, going on with the next: {failure}"
                ));
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// One session.
fn transfer(
    channel: &Channel,
    path: &Path,
    name: &str,
    size: u64,
    digest: Digest,
    bar: &ProgressBar,
) -> Result<(), Failure> {
    let begin = Message::Begin { size, digest, name };
    channel.send_fully(&begin.bytes())?;
    let offset = answer(channel)?;
    if offset > size {
        return Err(Failure::BadReceiver);
    }
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
    match channel.wait_confirmed(channel.status()?.sent, Deadline::NEVER) {
        Err(Error::Closed) => Err(reason(channel)),
        other => Ok(other.map(drop)?),
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

/// Why the receiver has closed: because it refuses, or because it died.
fn reason(channel: &Channel) -> Failure {
    match answer(channel) {
        Ok(_) => Failure::BadReceiver,
        Err(failure) => failure,
    }
}

fn progress(size: u64, name: &str) -> ProgressBar {
    let template = "{prefix} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {msg}";
    let style = ProgressStyle::with_template(template);
    let style = style.unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::new(size).with_style(style);
    bar.with_prefix(name.to_string())
}
