// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel that guests boot, as `kernel.env` describes it: one for each run of the harness.

use crate::machine::Machine;
use anyhow::{bail, Context, Result};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Which kernel it is. Decides what is asserted and which guests make sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Flavour {
    /// Debian's for amd64.
    #[default]
    Stock,
    /// The same source with all checkers, built by the toolbox.
    Debug,
    /// Debian's for arm64.
    Arm64,
    /// Debian's for arm64 with pages of 16 KiB.
    Arm64Pages16k,
}

impl Flavour {
    /// By the name that `kernel.env` has.
    fn find(name: &str) -> Result<Self> {
        Ok(match name {
            "stock" => Self::Stock,
            "debug" => Self::Debug,
            "arm64" => Self::Arm64,
            "arm64-16k" => Self::Arm64Pages16k,
            _ => bail!("KERNEL_NAME={name}: kernels are stock, debug, arm64 and arm64-16k"),
        })
    }

    /// Its name, in files and messages.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Stock => "stock",
            Self::Debug => "debug",
            Self::Arm64 => "arm64",
            Self::Arm64Pages16k => "arm64-16k",
        }
    }

    /// Whether the image is a distribution's.
    pub(crate) fn is_debians(self) -> bool {
        self != Self::Debug
    }

    /// Words of its command line. Each processor keeps a sheaf of objects for each size, and what it has given out
    /// stays listed there for a while: memory that is lost looks as if somebody knew it, and kmemleak says nothing.
    /// Sizes whose objects are checked have no sheaves.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Self::Debug => "slab_debug=F,kmalloc-*",
            _ => "",
        }
    }
}

/// The kernel that guests boot.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// Which it is.
    pub(crate) flavour: Flavour,
    /// What it runs on.
    pub(crate) machine: Machine,
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The image as it was built, for most kernels by the distribution.
    pub(crate) image: PathBuf,
    /// What is booted: the image, decompressed.
    pub(crate) boot: PathBuf,
    /// A static busybox for guests with this kernel.
    pub(crate) busybox: PathBuf,
    /// The distribution's drivers that are not in the image, if `scripts/kernel drivers` got them.
    pub(crate) drivers: PathBuf,
}

impl Kernel {
    /// Reads a kernel.env: lines `NAME=value`, as a shell would.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let shown = path.display();
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
        let values = parse_env(&text);
        let get = |name: &str| {
            let value = values.get(name).cloned();
            value.with_context(|| format!("{shown} has no line {name}="))
        };
        let or = |name: &str, default: &'static str| {
            values.get(name).map_or(default, String::as_str).to_string()
        };
        let machine = Machine::for_kernel(&or("KERNEL_ARCH", "amd64"))?;
        let usual = match machine {
            Machine::Pc | Machine::ExpressPc => "stock",
            Machine::Virt => "arm64",
        };
        Ok(Self {
            flavour: Flavour::find(&or("KERNEL_NAME", usual))?,
            machine,
            release: get("KERNEL_RELEASE")?,
            image: get("VMLINUZ")?.into(),
            boot: get("VMLINUX")?.into(),
            busybox: or("BUSYBOX", "/usr/bin/busybox").into(),
            drivers: path.with_file_name("drivers"),
        })
    }

    /// The kernel in words.
    pub(crate) fn title(&self) -> String {
        let release = &self.release;
        if self.flavour.is_debians() {
            format!("Debian's {release}, unmodified")
        } else {
            format!("the debug kernel {release}")
        }
    }

    /// What would make the booted kernel another one than the distribution's image: none, if it is
    /// that image's content, which is the image itself or one zstd frame inside of it.
    pub(crate) fn differences(&self) -> Result<Vec<String>> {
        let image = fs::read(&self.image)?;
        let booted = fs::read(&self.boot)?;
        if image == booted {
            return Ok(Vec::new());
        }
        let Some(begin) = image.windows(4).position(|bytes| bytes == ZSTD_MAGIC) else {
            return Ok(vec![format!("{} has no zstd frame", self.image.display())]);
        };
        let mut frame = tempfile::tempfile()?;
        frame.write_all(&image[begin..])?;
        frame.rewind()?;
        // The bytes behind the frame make zstd complain, after it has written all of it.
        let output = Command::new("zstd")
            .args(["-dcq"])
            .stdin(frame)
            .stderr(Stdio::null())
            .output()
            .context("cannot run zstd")?;
        if output.stdout == booted {
            return Ok(Vec::new());
        }
        let shown = self.boot.display();
        Ok(vec![format!(
            "{shown} is not the content of {}",
            self.image.display()
        )])
    }

    /// SHA-256 of the image, to be compared with the package's.
    pub(crate) fn image_checksum(&self) -> Result<String> {
        let image = fs::read(&self.image)
            .with_context(|| format!("cannot read {}", self.image.display()))?;
        Ok(format!("{:x}", Sha256::digest(image)))
    }
}

fn parse_env(text: &str) -> HashMap<String, String> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.into(), value.trim_matches(['"', '\'']).into()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Kernel> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.env");
        fs::write(&path, text).unwrap();
        Kernel::read(&path)
    }

    #[test]
    fn kernel_env_is_read_as_the_shell_does() {
        let text = "# made by scripts/kernel\nKERNEL_RELEASE=7.3.4\nKDIR='/k'\nVMLINUZ=\"/z\"\nVMLINUX=/x\n";
        let kernel = read(text).unwrap();
        assert_eq!(kernel.release, "7.3.4");
        assert_eq!(kernel.image, Path::new("/z"));
        assert_eq!(kernel.boot, Path::new("/x"));
        assert_eq!(
            (kernel.flavour, kernel.machine),
            (Flavour::Stock, Machine::Pc)
        );
    }

    #[test]
    fn each_kernel_is_known_by_its_name() {
        for flavour in [
            Flavour::Stock,
            Flavour::Debug,
            Flavour::Arm64,
            Flavour::Arm64Pages16k,
        ] {
            assert_eq!(Flavour::find(flavour.name()).unwrap(), flavour);
        }
        let base = "KERNEL_RELEASE=7.3.4\nVMLINUZ=/z\nVMLINUX=/x\n";
        let kernel = read(&format!("{base}KERNEL_NAME=arm64-16k\nKERNEL_ARCH=arm64\n")).unwrap();
        assert_eq!(
            (kernel.flavour, kernel.machine),
            (Flavour::Arm64Pages16k, Machine::Virt)
        );
        let error = read(&format!("{base}KERNEL_NAME=riscv\n")).unwrap_err();
        assert!(error.to_string().contains("KERNEL_NAME=riscv"), "{error}");
        let error = read(&format!("{base}KERNEL_ARCH=riscv\n")).unwrap_err();
        assert!(error.to_string().contains("KERNEL_ARCH=riscv"), "{error}");
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = read("KERNEL_RELEASE=7.3.4\n").unwrap_err();
        assert!(error.to_string().contains("VMLINUZ"), "{error}");
    }
}
