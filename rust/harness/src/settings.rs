// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where everything is, and how patient to be.

use anyhow::{bail, Context, Result};
use clap::Args;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::fs;
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// The time limit of a wait for one condition, before patience.
const LIMIT: Duration = Duration::from_secs(600);

/// Options of all commands that run guests.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Description of the kernel to boot: the file kernel.env that `scripts/kernel env` prints
    #[arg(long, env = "IVSHMEM_KERNEL_ENV", value_name = "FILE", global = true)]
    pub(crate) kernel_env: Option<PathBuf>,

    /// The same for arm64; needed for what runs on arm64 only
    #[arg(
        long,
        env = "IVSHMEM_KERNEL_ENV_ARM64",
        value_name = "FILE",
        global = true
    )]
    pub(crate) kernel_env_arm64: Option<PathBuf>,

    /// The module [default: BUILD/module/RELEASE/ivshmem.ko]
    #[arg(long, env = "IVSHMEM_MODULE", value_name = "FILE", global = true)]
    module: Option<PathBuf>,

    /// Folder with ivshmem-device, ivshmem-guest and ivshmem-demo [default: where this program is]
    #[arg(long, env = "IVSHMEM_PROGRAMS", value_name = "DIR", global = true)]
    programs: Option<PathBuf>,

    /// The bare-metal inmate [default: BUILD/inmate/ivshmem-inmate.elf]
    #[arg(long, env = "IVSHMEM_INMATE", value_name = "FILE", global = true)]
    inmate: Option<PathBuf>,

    /// Folder for all output; results go to BUILD/results, consoles to BUILD/run
    #[arg(
        long,
        env = "IVSHMEM_BUILD",
        value_name = "DIR",
        default_value = "build",
        global = true
    )]
    pub(crate) build: PathBuf,

    /// QEMU, 10.1 or newer
    #[arg(
        long,
        env = "QEMU",
        value_name = "PROGRAM",
        default_value = "qemu-system-x86_64",
        global = true
    )]
    pub(crate) qemu: String,

    /// QEMU for arm64
    #[arg(
        long,
        env = "QEMU_ARM64",
        value_name = "PROGRAM",
        default_value = "qemu-system-aarch64",
        global = true
    )]
    pub(crate) qemu_arm64: String,

    /// Factor for all time limits, for slow or busy machines
    #[arg(long, env = "IVSHMEM_PATIENCE", value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=1000), global = true)]
    pub(crate) patience: u32,

    /// Show the consoles of all guests
    #[arg(long, short, global = true)]
    pub(crate) verbose: bool,
}

/// The kernel that guests boot.
#[derive(Debug, Clone)]
pub(crate) struct Kernel {
    /// As `uname -r` says it.
    pub(crate) release: String,
    /// The distribution's image.
    pub(crate) image: PathBuf,
    /// What is booted: the image, decompressed.
    pub(crate) boot: PathBuf,
    /// A static busybox for guests with this kernel.
    pub(crate) busybox: PathBuf,
}

impl Settings {
    /// Longest wait for one condition.
    pub(crate) fn limit(&self) -> Duration {
        LIMIT * self.patience
    }

    /// Reads kernel.env.
    pub(crate) fn kernel(&self) -> Result<Kernel> {
        kernel(self.kernel_env.as_deref(), "--kernel-env", "amd64")
    }

    /// Reads kernel.env of arm64.
    pub(crate) fn kernel_arm64(&self) -> Result<Kernel> {
        kernel(
            self.kernel_env_arm64.as_deref(),
            "--kernel-env-arm64",
            "arm64",
        )
    }

    /// The module built for `kernel`.
    pub(crate) fn module(&self, kernel: &Kernel) -> PathBuf {
        self.module
            .clone()
            .unwrap_or_else(|| self.module_in_build(kernel))
    }

    /// The module that `make modules` built for `kernel`.
    pub(crate) fn module_in_build(&self, kernel: &Kernel) -> PathBuf {
        let folder = self.build.join("module").join(&kernel.release);
        folder.join("ivshmem.ko")
    }

    /// One of our own programs.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        let folder = match &self.programs {
            Some(folder) => folder.clone(),
            None => {
                let own = std::env::current_exe().context("cannot tell where this program is")?;
                own.parent().unwrap_or(Path::new(".")).into()
            }
        };
        let path = folder.join(name);
        if !path.exists() {
            bail!("{} is missing: build it first (`make`)", path.display());
        }
        Ok(path)
    }

    /// The bare-metal inmate.
    pub(crate) fn inmate(&self) -> Result<PathBuf> {
        let default = || self.build.join("inmate/ivshmem-inmate.elf");
        let path = self.inmate.clone().unwrap_or_else(default);
        if !path.exists() {
            bail!(
                "{} is missing: build it first (`make inmate`)",
                path.display()
            );
        }
        Ok(path)
    }

    /// The folder for results, made if it is not there.
    pub(crate) fn results(&self) -> Result<PathBuf> {
        made(self.build.join("results"))
    }

    /// The folder for consoles and statistics of the run called `name`, empty.
    pub(crate) fn run_folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.build.join("run").join(name);
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot empty {}", path.display()))?;
        }
        made(path)
    }
}

fn kernel(path: Option<&Path>, option: &str, architecture: &str) -> Result<Kernel> {
    let Some(path) = path else {
        bail!(
            "no kernel is named: give {option} FILE (inside the toolbox, \
             /cache/kernel/RELEASE/kernel.env; `scripts/kernel env {architecture}` prints it)"
        );
    };
    Kernel::read(path)
}

fn made(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
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
        Ok(Self {
            release: get("KERNEL_RELEASE")?,
            image: get("VMLINUZ")?.into(),
            boot: get("VMLINUX")?.into(),
            busybox: values
                .get("BUSYBOX")
                .map_or("/usr/bin/busybox", String::as_str)
                .into(),
        })
    }

    /// What would make the booted kernel another one than the distribution's image: none, if it is
    /// that image's content, which is one zstd frame inside of it.
    pub(crate) fn differences(&self) -> Result<Vec<String>> {
        let image = fs::read(&self.image)?;
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
        let booted = fs::read(&self.boot)?;
        if output.stdout == booted {
            return Ok(Vec::new());
        }
        let shown = self.boot.display();
        Ok(vec![format!(
            "{shown} is not the content of {}",
            self.image.display()
        )])
    }

    /// SHA-256 of the distribution's image, to be compared with the package's.
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

    #[test]
    fn kernel_env_is_read_as_the_shell_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.env");
        let text = "# made by scripts/kernel\nKERNEL_RELEASE=7.3.4\nKDIR='/k'\nVMLINUZ=\"/z\"\nVMLINUX=/x\n";
        fs::write(&path, text).unwrap();
        let kernel = Kernel::read(&path).unwrap();
        assert_eq!(kernel.release, "7.3.4");
        assert_eq!(kernel.image, Path::new("/z"));
        assert_eq!(kernel.boot, Path::new("/x"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("kernel.env");
        fs::write(&path, "KERNEL_RELEASE=7.3.4\n").unwrap();
        let error = Kernel::read(&path).unwrap_err();
        assert!(error.to_string().contains("VMLINUZ"), "{error}");
    }
}
