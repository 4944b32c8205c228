// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs the guests: the demo, the tests inside guests, and the verdict over all results.
//!
//! ```text
//! main ── settings (paths, patience), kernel (what is booted), machine (what it runs on)
//!  ├── suites, pairs, ...   what is booted and asserted, one file per command
//!  │     └── boot           initramfs, links, the verdict on any guest
//!  │           ├── qemu ──── console, report      a guest
//!  │           ├── link ──── statistics           a device model
//!  │           └── process                        children that do not outlive us
//!  └── tap, summary         results, read and written
//! ```
#![deny(unsafe_code)]

mod bad_input;
mod boot;
mod channels;
mod console;
mod cpio;
mod demo;
mod failures;
mod fuzz;
mod initramfs;
mod kernel;
mod link;
mod machine;
mod pairs;
mod peers;
mod process;
mod progress;
mod qemu;
mod requests;
mod scan;
mod settings;
mod shell;
mod soak;
mod spent;
mod suites;
mod summary;
mod tap;

use anyhow::{Context, Result};
use boot::part;
use clap::{Parser, Subcommand};
use settings::Settings;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tap::TestResult;

/// Runs the guests of ivshmem: demo, tests, and the verdict over all results.
#[derive(Debug, Parser)]
#[command(version)]
struct Cli {
    #[command(flatten)]
    settings: Settings,

    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show the demo: a root cell on the stock kernel and a bare-metal inmate say "Hi!"
    Demo {
        #[command(flatten)]
        conversation: demo::Conversation,
    },
    /// Run all tests that need guests; results go to BUILD/results/guest-KERNEL.tap
    TestGuest {
        /// Run only this part or suite; may be given several times
        #[arg(long = "suite", value_name = "NAME", value_parser = suite_names())]
        suites: Vec<String>,
        /// How often two guests ring each other, in each direction, in lock-step and again freely
        #[arg(long, value_name = "N", default_value_t = 100_000, env = "IVSHMEM_DOORBELLS",
            value_parser = clap::value_parser!(u64).range(1..=u64::from(u32::MAX)))]
        doorbells: u64,
    },
    /// Do random operations on devices in guests, with a reproducible seed; results go to
    /// BUILD/results/fuzz.tap
    Fuzz {
        #[command(flatten)]
        amount: fuzz::Amount,
    },
    /// Unbind and bind a device, and remove and rescan it, under load; results go to
    /// BUILD/results/soak.tap
    Soak {
        /// How often, each way
        #[arg(long, value_name = "N", default_value_t = 20,
            value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        cycles: u64,
    },
    /// Exchange messages between two guests on a channel, then with one side restarted again and again, and
    /// count register accesses; results go to BUILD/results/soak-channels.tap
    SoakChannels {
        #[command(flatten)]
        amount: channels::Amount,
    },
    /// Measure how fast messages are, and write Documentation/measurements.md and .svg, in the working
    /// directory
    Bench {
        #[command(flatten)]
        bench: channels::Bench,
    },
    /// Let a peer attack its channels while others talk; results go to BUILD/results/attack.tap
    Attack {
        /// For how many seconds
        #[arg(long, value_name = "SECONDS", default_value_t = 20,
            value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
        time: u64,
        /// The same seed makes the attacker do the same steps
        #[arg(long, value_name = "S", default_value_t = 1)]
        seed: u64,
    },
    /// Run a shell in a guest with the module loaded
    Shell,
    /// Write Documentation/bad-input.md from the tests that check it, in the working directory
    BadInput,
    /// Print the closing line over all results in a folder; fails if anything failed
    Summary {
        /// The folder with *.tap
        directory: PathBuf,
    },
}

/// Parts of the tests that are no suites inside one guest.
const PARTS: [&str; 3] = ["failures", "doorbells", "channel-inmate"];

/// What `--suite` takes.
fn suite_names() -> clap::builder::PossibleValuesParser {
    suites::names()
        .into_iter()
        .chain(PARTS)
        .collect::<Vec<_>>()
        .into()
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("ivshmem-harness: {error:#}");
            match process::check_interrupted() {
                Ok(()) => ExitCode::FAILURE,
                Err(_) => ExitCode::from(130),
            }
        }
    }
}

/// Whether all is well.
fn run(cli: &Cli) -> Result<bool> {
    process::handle_signals()?;
    let settings = &cli.settings;
    match &cli.command {
        Command::Demo { conversation } => demo::run(settings, conversation),
        Command::TestGuest { suites, doorbells } => test_guest(settings, suites, *doorbells),
        Command::Fuzz { amount } => {
            let is_good = write_results(settings, "fuzz", &fuzz::run(settings, amount)?)?;
            process::check_interrupted()?;
            Ok(is_good)
        }
        Command::Soak { cycles } => write_results(settings, "soak", &soak::run(settings, *cycles)?),
        Command::SoakChannels { amount } => {
            let results = channels::run(settings, amount)?;
            write_results(settings, "soak-channels", &results)
        }
        Command::Bench { bench } => {
            write_results(settings, "bench", &channels::bench(settings, bench)?)
        }
        Command::Attack { time, seed } => {
            write_results(settings, "attack", &peers::attack(settings, *time, *seed)?)
        }
        Command::Shell => shell::run(settings),
        Command::BadInput => {
            bad_input::write(Path::new("."))?;
            Ok(true)
        }
        Command::Summary { directory } => {
            let rows = bad_input::rows(Path::new("."))?;
            let summary = summary::Summary::of_directory(directory, &rows)?;
            println!("{summary}");
            Ok(summary.is_good())
        }
    }
}

/// Runs what `wanted` names, or everything.
fn test_guest(settings: &Settings, wanted: &[String], doorbells: u64) -> Result<bool> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
    let kernel = settings.kernel()?;
    println!(
        "kernel: {}, image with sha256 {}",
        kernel.title(),
        kernel.image_checksum()?
    );
    let mut results = Vec::new();
    if kernel.flavour.is_debians() {
        results.push(TestResult::from_reasons(
            "the booted kernel is the distribution's image, decompressed",
            kernel.differences()?,
        ));
    }
    results.extend(part("suites", suites::run(settings, is_wanted))?);
    if is_wanted("failures") {
        results.extend(part("failures", failures::run(settings))?);
    }
    if is_wanted("doorbells") {
        results.extend(part("doorbells", pairs::run(settings, doorbells))?);
    }
    if is_wanted("channel-inmate") {
        let inmate = peers::with_the_inmate(settings);
        results.extend(part("channel-inmate", inmate)?);
    }
    let layer = format!("guest-{}", kernel.flavour.name());
    write_results(settings, &layer, &results)
}

/// Writes the results of a layer, and prints what failed.
fn write_results(settings: &Settings, layer: &str, results: &[TestResult]) -> Result<bool> {
    let path = settings.results()?.join(format!("{layer}.tap"));
    std::fs::write(&path, tap::render(results))
        .with_context(|| format!("cannot write {}", path.display()))?;
    let failed: Vec<_> = results
        .iter()
        .filter(|result| result.has_failed())
        .collect();
    for result in &failed {
        println!("failed: {}", result.name);
        for note in &result.notes {
            println!("    {note}");
        }
    }
    let count = results.len() - failed.len();
    println!(
        "{layer}: {count} passed, {} failed ({})",
        failed.len(),
        path.display()
    );
    Ok(failed.is_empty())
}
