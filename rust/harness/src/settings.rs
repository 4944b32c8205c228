// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where everything is, and how patient to be.

use crate::kernel::Kernel;
use crate::machine::Machine;
use anyhow::{bail, Context, Result};
use clap::Args;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The time limit of a wait for one condition, before patience.
const LIMIT: Duration = Duration::from_secs(600);

/// Options of all commands that run guests.
#[derive(Debug, Clone, Args)]
pub(crate) struct Settings {
    /// Description of the kernel to boot: kernel.env in the folder that `scripts/kernel path NAME` prints
    #[arg(long, env = "IVSHMEM_KERNEL_ENV", value_name = "FILE", global = true)]
    pub(crate) kernel_env: Option<PathBuf>,

    /// The module [default: BUILD/module/RELEASE/ivshmem.ko]
    #[arg(long, env = "IVSHMEM_MODULE", value_name = "FILE", global = true)]
    module: Option<PathBuf>,

    /// Folder with ivshmem-device, ivshmem-guest and ivshmem-demo; those for arm64 are beside it, in
    /// ../../aarch64-unknown-linux-gnu/release [default: where this program is]
    #[arg(long, env = "IVSHMEM_PROGRAMS", value_name = "DIR", global = true)]
    programs: Option<PathBuf>,

    /// The bare-metal inmate [default: BUILD/inmate/ivshmem-inmate.elf]
    #[arg(long, env = "IVSHMEM_INMATE", value_name = "FILE", global = true)]
    inmate: Option<PathBuf>,

    /// The plugin for QEMU that counts instructions [default: BUILD/profiler/ivshmem-profiler.so]
    #[arg(long, env = "IVSHMEM_PROFILER", value_name = "FILE", global = true)]
    profiler: Option<PathBuf>,

    /// Folder for all output; results go to BUILD/results, consoles to BUILD/run/KERNEL
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

impl Settings {
    /// Longest wait for one condition.
    pub(crate) fn limit(&self) -> Duration {
        LIMIT * self.patience
    }

    /// Longest time for `count` steps that may take `each`, before patience; on top of the wait for the first.
    pub(crate) fn limit_of(&self, each: Duration, count: u64) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.limit() + (each * self.patience).saturating_mul(count)
    }

    /// Reads kernel.env.
    pub(crate) fn kernel(&self) -> Result<Kernel> {
        match &self.kernel_env {
            Some(path) => Kernel::read(path),
            None => bail!(
                "no kernel is named: give --kernel-env FILE, which is kernel.env in the folder that \
                 `scripts/kernel path NAME` prints, or use `scripts/with-kernels NAME COMMAND...`"
            ),
        }
    }

    /// The QEMU that emulates `machine`.
    pub(crate) fn qemu(&self, machine: Machine) -> &str {
        match machine {
            Machine::Pc | Machine::ExpressPc => &self.qemu,
            Machine::Virt => &self.qemu_arm64,
        }
    }

    /// The module built for `kernel`.
    pub(crate) fn module(&self, kernel: &Kernel) -> PathBuf {
        self.module.clone().unwrap_or_else(|| {
            let folder = self.build.join("module").join(&kernel.release);
            folder.join("ivshmem.ko")
        })
    }

    /// One of our own programs, for this machine.
    pub(crate) fn program(&self, name: &str) -> Result<PathBuf> {
        existing(self.programs_folder()?.join(name), "make user")
    }

    /// One of our own programs, for guests with `kernel`: in the folder that cargo has for them.
    pub(crate) fn guest_program(&self, kernel: &Kernel, name: &str) -> Result<PathBuf> {
        let own = self.programs_folder()?;
        let folder = match kernel.machine {
            Machine::Pc | Machine::ExpressPc => own,
            other => own.join("../..").join(other.target()).join("release"),
        };
        existing(folder.join(name), "make user")
    }

    fn programs_folder(&self) -> Result<PathBuf> {
        if let Some(folder) = &self.programs {
            return Ok(folder.clone());
        }
        let own = std::env::current_exe().context("cannot tell where this program is")?;
        Ok(own.parent().unwrap_or(Path::new(".")).into())
    }

    /// The bare-metal inmate.
    pub(crate) fn inmate(&self) -> Result<PathBuf> {
        let default = || self.build.join("inmate/ivshmem-inmate.elf");
        existing(self.inmate.clone().unwrap_or_else(default), "make inmate")
    }

    /// The plugin for QEMU that counts instructions.
    pub(crate) fn profiler(&self) -> Result<PathBuf> {
        let default = || self.build.join("profiler/ivshmem-profiler.so");
        let plugin = self.profiler.clone().unwrap_or_else(default);
        existing(plugin, "make bench PROFILE=1")
    }

    /// The folder for results, made if it is not there.
    pub(crate) fn results(&self) -> Result<PathBuf> {
        made(self.build.join("results"))
    }

    /// The folder for consoles and statistics of the run called `name`, empty. Each kernel has its own,
    /// so that runs of several kernels do not disturb each other.
    pub(crate) fn run_folder(&self, name: &str) -> Result<PathBuf> {
        let kernel = self.kernel()?.flavour.name();
        let path = self.build.join("run").join(kernel).join(name);
        if path.exists() {
            fs::remove_dir_all(&path)
                .with_context(|| format!("cannot empty {}", path.display()))?;
        }
        made(path)
    }
}

/// `path`, if it is there; `target` makes it.
fn existing(path: PathBuf, target: &str) -> Result<PathBuf> {
    if !path.exists() {
        bail!("{} is missing: build it first (`{target}`)", path.display());
    }
    Ok(path)
}

fn made(path: PathBuf) -> Result<PathBuf> {
    fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
