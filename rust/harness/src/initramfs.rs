// SPDX-License-Identifier: MIT OR Apache-2.0
//! Composes the initramfs of a guest: our first process, the module, programs.

use crate::cpio::Archive;
use anyhow::{Context, Result};
use std::fs::{self, File};
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What goes into an archive.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    /// Host path, path in the guest, permissions.
    files: Vec<(PathBuf, String, u32)>,
    /// Path in the guest and text.
    texts: Vec<(String, u32, String)>,
}

impl Initramfs {
    /// Adds a file.
    pub(crate) fn file(mut self, host: &Path, guest: &str, mode: u32) -> Self {
        self.files.push((host.into(), guest.into(), mode));
        self
    }

    /// Adds a text.
    pub(crate) fn text(mut self, guest: &str, mode: u32, text: &str) -> Self {
        self.texts.push((guest.into(), mode, text.into()));
        self
    }

    /// Writes the archive, uncompressed: the guest's processor is the slow one.
    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let file =
            File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut archive = Archive::new(BufWriter::new(file));
        for directory in ["bin", "dev", "etc", "proc", "sys", "tmp"] {
            archive.directory(directory)?;
        }
        archive.character_device("dev/console", 5, 1)?;
        for (host, guest, mode) in &self.files {
            archive.file(guest, *mode, &read_stripped(host)?)?;
        }
        for (guest, mode, text) in &self.texts {
            archive.file(guest, *mode, text.as_bytes())?;
        }
        archive.finish()?;
        Ok(())
    }
}

/// Reads a file, without debug information if it is a program of ours: ten times smaller.
fn read_stripped(path: &Path) -> Result<Vec<u8>> {
    let content = fs::read(path)
        .with_context(|| format!("cannot read {}: build it first (`make`)", path.display()))?;
    let is_program = content.starts_with(b"\x7fELF") && path.extension().is_none();
    if !is_program {
        return Ok(content);
    }
    let stripped = tempfile::NamedTempFile::new()?;
    // The one of LLVM knows all architectures.
    let status = Command::new("llvm-strip")
        .arg("--strip-all")
        .arg("-o")
        .arg(stripped.path())
        .arg(path)
        .stderr(Stdio::null())
        .status();
    match status {
        Ok(status) if status.success() => Ok(fs::read(stripped.path())?),
        // Without it the whole file does as well.
        _ => Ok(content),
    }
}
