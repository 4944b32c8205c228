// SPDX-License-Identifier: MIT OR Apache-2.0
//! The end that stores files.
//!
//! A file that is not complete is called `.NAME.DIGEST.part`; so only the same content is gone on
//! with, whatever has happened in between.

use crate::message::{Digest, Message};
use crate::Failure;
use ivshmem::{Channel, ConnectOptions, Deadline, Device, Error};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// After so many bytes they are synced and acknowledged.
const SYNC_AFTER: u64 = 256 * 1024;

/// How long a sender may take to read why nothing is stored.
const SENDER_PATIENCE: Duration = Duration::from_secs(10);

/// Stores what comes into `folder`.
pub(crate) fn receive(
    device: &Device,
    peer: u32,
    folder: &Path,
    once: bool,
) -> Result<(), Failure> {
    loop {
        let options = ConnectOptions::new().explicit_ack(true);
        let channel = device.connect(peer, options)?;
        let mut session = Session {
            channel: &channel,
            folder,
            received: 0,
        };
        match session.run() {
            Ok(Some(path)) => {
                println!("{} is stored", path.display());
                if once {
                    return Ok(());
                }
            }
            // The sender came and left without a file.
            Ok(None) => {}
            Err(failure) if failure.ends_the_session_only() => {}
            Err(failure) => {
                // The sender learns why; that it may have gone changes nothing.
                let _ = session.refuse(&failure);
                eprintln!("ivshmem-send-file: {failure}");
                if !matches!(failure, Failure::BadSender(_)) {
                    return Err(failure);
                }
            }
        }
    }
}

/// One session with one sender.
struct Session<'a> {
    channel: &'a Channel,
    folder: &'a Path,
    /// Messages received.
    received: u64,
}

impl Session<'_> {
    /// Receives one file; `None` if the sender has closed before it sent one.
    fn run(&mut self) -> Result<Option<PathBuf>, Failure> {
        let Some(message) = self.next()? else {
            return Ok(None);
        };
        let Some(Message::Begin { size, digest, name }) = Message::parse(&message) else {
            return Err(Failure::BadSender("it does not begin with a file"));
        };
        let mut part = Part::open(self.folder, name, digest)?;
        if part.stored > size {
            part.remove()?;
            return Err(Failure::BadSender("there is more of the file than it has"));
        }
        self.channel
            .send_fully(&Message::Have(part.stored).bytes())?;
        self.channel.acknowledge(self.received)?;
        loop {
            let message = self.next()?.ok_or(Error::Closed)?;
            match Message::parse(&message) {
                Some(Message::Data(bytes)) if part.len() + bytes.len() as u64 <= size => {
                    part.write(bytes)?;
                    if part.not_synced >= SYNC_AFTER {
                        part.sync()?;
                        self.channel.acknowledge(self.received)?;
                    }
                }
                Some(Message::End) if part.len() == size => break,
                _ => return Err(Failure::BadSender("more or less than the file")),
            }
        }
        let path = part.finish(self.folder, name, digest)?;
        self.channel.acknowledge(self.received)?;
        // The sender closes when it has seen that.
        while matches!(self.next(), Ok(Some(_))) {}
        Ok(Some(path))
    }

    /// Says why no file is stored, and waits until the sender has read that and closed, for a while.
    fn refuse(&mut self, failure: &Failure) -> Result<(), Failure> {
        let end = Instant::now() + SENDER_PATIENCE;
        self.channel
            .send_fully(&Message::Refuse(&failure.to_string()).bytes())?;
        while let Some(left) = end.checked_duration_since(Instant::now()) {
            self.channel.wait_readable(Deadline::after(left))?;
            // It may be waiting for room, so what it has sent is read.
            if self.next()?.is_none() {
                break;
            }
        }
        Ok(())
    }

    fn next(&mut self) -> Result<Option<Vec<u8>>, Failure> {
        let message = self.channel.receive_message()?;
        self.received += u64::from(message.is_some());
        Ok(message)
    }
}

/// A file that is not complete yet.
struct Part {
    path: PathBuf,
    file: File,
    /// Bytes that were there and synced.
    stored: u64,
    not_synced: u64,
}

impl Part {
    /// Opens what there is of the file, or begins it.
    fn open(folder: &Path, name: &str, digest: Digest) -> Result<Self, Failure> {
        let (digest, _) = digest.split_first_chunk().expect("a digest is longer");
        let digest = u64::from_be_bytes(*digest);
        let path = folder.join(format!(".{name}.{digest:016x}.part"));
        let open = File::options().append(true).create(true).open(&path);
        let file = open.map_err(Failure::of(&path))?;
        let stored = file.metadata().map_err(Failure::of(&path))?.len();
        file.sync_data().map_err(Failure::of(&path))?;
        let not_synced = 0;
        Ok(Self {
            path,
            file,
            stored,
            not_synced,
        })
    }

    fn len(&self) -> u64 {
        self.stored + self.not_synced
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file
            .write_all(bytes)
            .map_err(Failure::of(&self.path))?;
        self.not_synced += bytes.len() as u64;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Failure> {
        self.file.sync_data().map_err(Failure::of(&self.path))?;
        self.stored += std::mem::take(&mut self.not_synced);
        Ok(())
    }

    fn remove(&self) -> Result<(), Failure> {
        fs::remove_file(&self.path).map_err(Failure::of(&self.path))
    }

    /// Gives the file its name if its content is right; that is on the disk then too.
    fn finish(mut self, folder: &Path, name: &str, digest: Digest) -> Result<PathBuf, Failure> {
        self.sync()?;
        let mut hash = Sha256::new();
        let read = File::open(&self.path).and_then(|mut file| io::copy(&mut file, &mut hash));
        read.map_err(Failure::of(&self.path))?;
        if Digest::from(hash.finalize()) != digest {
            self.remove()?;
            return Err(Failure::BadSender("the checksum is wrong"));
        }
        let path = folder.join(name);
        fs::rename(&self.path, &path).map_err(Failure::of(&path))?;
        let folder_file = File::open(folder).map_err(Failure::of(folder))?;
        folder_file.sync_all().map_err(Failure::of(folder))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_is_gone_on_with_and_gets_its_name_only_if_it_is_right() {
        let folder = std::env::temp_dir().join(format!("send-file-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        let digest = Digest::from(Sha256::digest(b"hello world"));
        let mut part = Part::open(&folder, "file", digest).expect("open");
        part.write(b"hello ").expect("write");
        drop(part);
        let mut part = Part::open(&folder, "file", digest).expect("open");
        assert_eq!(part.stored, 6);
        part.write(b"world").expect("write");
        assert_eq!(part.len(), 11);
        let path = part.finish(&folder, "file", digest).expect("complete");
        assert_eq!(fs::read(path).expect("read"), b"hello world");
        let mut part = Part::open(&folder, "file", digest).expect("open");
        assert_eq!(part.stored, 0, "the part has become the file");
        part.write(b"hello World").expect("write");
        let failure = part.finish(&folder, "file", digest).expect_err("wrong");
        assert!(failure.to_string().contains("checksum"), "{failure}");
        assert_eq!(fs::read_dir(&folder).expect("list").count(), 1);
        fs::remove_dir_all(&folder).expect("clean up");
    }
}
