// SPDX-License-Identifier: MIT OR Apache-2.0

//! What the tests with sockets share: a model in this process, waiting for a condition, and stock
//! QEMU without a guest.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod bench;
pub(crate) mod machine;
pub(crate) mod qemu;

use ivshmem_device::inmate::InmateSpec;
use ivshmem_device::server::socket_path;
use ivshmem_device::server::Model;
use ivshmem_device::spec::LinkOptions;
use ivshmem_device::spec::LinkSpec;
use ivshmem_device::statistics::Peer;
use ivshmem_device::statistics::Statistics;
use std::path::PathBuf;
use std::thread;
use std::time::Duration;
use std::time::Instant;
use tempfile::TempDir;

/// How long a condition may take, on a machine that is busy with something else; `IVSHMEM_PATIENCE` times that.
pub(crate) fn limit() -> Duration {
    let patience = std::env::var("IVSHMEM_PATIENCE");
    let patience = patience.map_or(1, |text| text.parse().expect("IVSHMEM_PATIENCE: a number"));
    Duration::from_secs(60) * patience
}

/// Waits until `condition` gives something.
pub(crate) fn wait_for<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit();
    loop {
        if let Some(value) = condition() {
            return value;
        }
        assert!(Instant::now() < end, "gave up waiting for {what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// A model that listens in a directory of its own.
pub(crate) struct Setup {
    pub(crate) model: Model,
    pub(crate) directory: TempDir,
}

impl Setup {
    pub(crate) fn new(options: LinkOptions) -> Self {
        Self::with_inmates(options, &[])
    }

    pub(crate) fn with_inmates(options: LinkOptions, inmates: &[InmateSpec]) -> Self {
        let directory = TempDir::new().expect("a temporary directory");
        let spec = LinkSpec::new(options).expect("good options");
        let model = Model::start(spec, directory.path(), inmates).expect("the model starts");
        Self { model, directory }
    }

    pub(crate) fn socket(&self, peer: u16) -> PathBuf {
        socket_path(self.directory.path(), peer)
    }

    pub(crate) fn statistics(&self) -> Statistics {
        self.model.link().lock().snapshot(false)
    }

    pub(crate) fn peer(&self, peer: u16) -> Peer {
        self.statistics().peers[usize::from(peer)].clone()
    }
}
