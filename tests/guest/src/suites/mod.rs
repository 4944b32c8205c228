// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests that run inside a guest, one file per subject.
//!
//! A test is a function that panics where the driver does not do what the header says. It runs
//! in a process of its own, after all devices of the plan have been found bound. The first device
//! of the plan is the one under test; the second, where there is one, another peer of its link.

mod info;
mod module;

use crate::system;
use ivshmem::Device;
use ivshmem_guest::plan::{DevicePlan, Plan};
use std::path::PathBuf;

/// One test.
pub(crate) struct Test {
    /// What it shows, as a sentence without a full stop.
    pub(crate) name: &'static str,
    /// The test itself.
    pub(crate) run: fn(&Env),
    /// Whether the devices of a plan have what the test needs.
    pub(crate) fits: fn(&Plan) -> bool,
}

impl Test {
    /// A test that fits every plan with one good device.
    const fn new(name: &'static str, run: fn(&Env)) -> Self {
        Self {
            name,
            run,
            fits: |plan| good_devices(plan) >= 1,
        }
    }

    /// A test that needs something special.
    const fn only_if(mut self, fits: fn(&Plan) -> bool) -> Self {
        self.fits = fits;
        self
    }
}

/// All suites.
pub(crate) const ALL: &[(&str, &[Test])] = &[("info", info::TESTS), ("module", module::TESTS)];

/// The tests of a suite.
pub(crate) fn find(suite: &str) -> Option<&'static [Test]> {
    let found = ALL.iter().find(|(name, _)| *name == suite)?;
    Some(found.1)
}

fn good_devices(plan: &Plan) -> usize {
    plan.devices
        .iter()
        .filter(|device| device.fault.is_none())
        .count()
}

/// What a test works with.
pub(crate) struct Env {
    /// The plan of this guest.
    pub(crate) plan: Plan,
    /// The device files of the good devices, in the plan's order.
    nodes: Vec<(DevicePlan, PathBuf)>,
}

impl Env {
    pub(crate) fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let plan = system::plan()?;
        let good = plan.devices.iter().filter(|device| device.fault.is_none());
        let nodes = good
            .map(|device| {
                let node = system::node(&device.bdf());
                let node = node.ok_or_else(|| format!("{} has no device file", device.bdf()))?;
                Ok((device.clone(), node))
            })
            .collect::<Result<_, String>>()?;
        Ok(Self { plan, nodes })
    }

    /// What the device under test must be.
    pub(crate) fn expected(&self) -> &DevicePlan {
        &self.nodes[0].0
    }

    /// The file of the device under test.
    pub(crate) fn node(&self) -> &PathBuf {
        &self.nodes[0].1
    }

    /// Opens the device under test.
    pub(crate) fn open(&self) -> Device {
        Device::open(self.node()).expect("open the device")
    }

    /// Another peer of the same link.
    pub(crate) fn other_expected(&self) -> &DevicePlan {
        &self.nodes[1].0
    }

    /// Opens the other peer.
    pub(crate) fn open_other(&self) -> Device {
        Device::open(&self.nodes[1].1).expect("open the other peer's device")
    }
}
