// SPDX-License-Identifier: MIT OR Apache-2.0

//! The command `ivshmem-device`: starts the model and serves until a signal ends it.

use clap::Parser;
use ivshmem_device::fault::Fault;
use ivshmem_device::options::Options;
use ivshmem_device::server::Model;
use ivshmem_device::server::StartError;
use ivshmem_device::spec::LinkSpec;
use ivshmem_device::spec::SpecError;
use ivshmem_device::statistics::Statistics;
use rustix::process::getrlimit;
use rustix::process::setrlimit;
use rustix::process::Resource;
use rustix::process::Rlimit;
use signal_hook::consts::SIGINT;
use signal_hook::consts::SIGTERM;
use signal_hook::consts::SIGUSR1;
use signal_hook::iterator::Signals;
use std::fs;
use std::io;
use std::io::Write;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;
use thiserror::Error;

/// Why the command failed.
#[derive(Debug, Error)]
enum Error {
    #[error(transparent)]
    Spec(#[from] SpecError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error("cannot watch for signals: {0}")]
    Signals(io::Error),
    #[error("cannot write the statistics to {path:?} ({source}): choose another --stats")]
    Statistics { path: PathBuf, source: io::Error },
    #[error("cannot write to standard output: {0}")]
    Output(io::Error),
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::builder()
                .with_default_directive(tracing::Level::WARN.into())
                .from_env_lossy(),
        )
        .with_writer(io::stderr)
        .init();
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ivshmem-device: {error}");
            match error {
                Error::Spec(_)
                | Error::Start(
                    StartError::InmatePeer { .. }
                    | StartError::InmateTwice(_)
                    | StartError::InmateUnfit(_)
                    | StartError::Command { .. },
                ) => ExitCode::from(2),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

fn run(options: &Options) -> Result<(), Error> {
    if options.wants_fault_list() {
        return print(&Fault::list());
    }
    let socket_dir = options.socket_dir().unwrap_or_else(|error| error.exit());
    let spec = LinkSpec::new(options.link())?;
    allow_many_files();
    // Before "listening" is said: who reads that may send a signal at once.
    let mut signals = Signals::new([SIGTERM, SIGINT, SIGUSR1]).map_err(Error::Signals)?;
    let mut model = Model::start(spec, socket_dir, &options.inmate)?;
    for line in &options.command {
        let done = model.control().run(line);
        let line = line.clone();
        done.map_err(|source| StartError::Command { line, source })?;
    }
    if let Some(path) = &options.control {
        model.listen_for_commands(path)?;
    }
    let report = |last| match &options.stats {
        None => Ok(()),
        Some(path) => write(path, &model.link().lock().snapshot(last)),
    };
    // A path that cannot be written is to be known now, not after the test.
    report(false)?;
    print("listening\n")?;
    for signal in signals.forever() {
        match signal {
            SIGUSR1 => {
                if let Err(error) = report(false) {
                    tracing::error!(%error);
                }
            }
            _ => break,
        }
    }
    report(true)
}

/// Each peer has two sockets, and an eventfd per vector: more than shells allow by default.
fn allow_many_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::debug!(%error, "limit of open files not raised");
    }
}

fn print(text: &str) -> Result<(), Error> {
    let mut output = io::stdout().lock();
    let written = output.write_all(text.as_bytes());
    written.and_then(|()| output.flush()).map_err(Error::Output)
}

/// Replaces the file at `path` as a whole, so that a reader never sees half of it.
fn write(path: &Path, statistics: &Statistics) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut json = serde_json::to_string_pretty(statistics).map_err(|error| Error::Statistics {
        path: path.into(),
        source: error.into(),
    })?;
    json.push('\n');
    fs::write(&new, json)
        .and_then(|()| fs::rename(&new, path))
        .map_err(|source| Error::Statistics {
            path: path.into(),
            source,
        })
}
