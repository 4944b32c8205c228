// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures of the kernel that grow if something is left behind.

use crate::system;
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::Path;
use std::time::Duration;

/// The leak detector's file, on kernels that have it.
const KMEMLEAK: &str = "/sys/kernel/debug/kmemleak";
/// It speaks only of what is older than this.
const LEAK_AGE: Duration = Duration::from_secs(6);
/// Growth of a cache that says nothing: the kernel itself caches inodes, names and pages.
const NOISE: u64 = 400;

/// Caches whose objects stay after a mapping of the kernel's has gone: it keeps its address ("unpurged" in
/// /proc/vmallocinfo) and the gaps beside it until there are so many that a flush of all processors is worth it.
/// The mappings in use are counted instead; and what kmemleak describes has caches of its own.
const OF_MAPPINGS: &[&str] = &["vmap_area", "kmemleak_object", "kmemleak_scan_area"];

/// Figures while no program has a device open.
pub(crate) struct Figures {
    /// Lines that must be equal in number: what, and how many.
    exact: BTreeMap<&'static str, u64>,
    /// Objects of each slab cache in use.
    slabs: BTreeMap<String, u64>,
    /// What the leak detector has found.
    leaks: Vec<String>,
}

impl Figures {
    /// Takes them now.
    pub(crate) fn take() -> io::Result<Self> {
        let leaks = leaks()?;
        let debug = Path::new("/sys/kernel/debug");
        let exact = [
            (
                "lines of /proc/interrupts for the driver",
                lines("/proc/interrupts", system::NAME)?,
            ),
            (
                "mappings of devices in /proc/vmallocinfo",
                lines("/proc/vmallocinfo", "phys=")?,
            ),
            (
                "mappings of the module in /proc/vmallocinfo",
                lines("/proc/vmallocinfo", system::NAME)?,
            ),
            (
                "regions of the driver in /proc/iomem",
                lines("/proc/iomem", system::NAME)?,
            ),
            (
                "references of the module",
                number("/sys/module/ivshmem/refcnt")?,
            ),
            ("devices of the class", entries(Path::new(system::CLASS))?),
            ("folders in debugfs", entries(&debug.join(system::NAME))?),
            ("PCI devices", entries(Path::new("/sys/bus/pci/devices"))?),
        ];
        Ok(Self {
            exact: exact.into(),
            slabs: slabs()?,
            leaks,
        })
    }

    /// What has grown from these figures to `after`, `cycles` cycles later: name of a test and reasons.
    pub(crate) fn compare(&self, after: &Self, cycles: u64) -> Vec<(&'static str, Vec<String>)> {
        let exact = self.exact.iter().filter_map(|(what, before)| {
            let now = after.exact.get(what).copied().unwrap_or_default();
            (now != *before).then(|| format!("{what}: {before} before, {now} after"))
        });
        // A single object left behind in each cycle would be more.
        let allowed = cycles / 4 + NOISE;
        let slabs = after.slabs.iter().filter_map(|(name, now)| {
            let before = self.slabs.get(name).copied().unwrap_or_default();
            (*now > before + allowed)
                .then(|| format!("{name}: {before} objects before, {now} after"))
        });
        vec![
            ("no leak: kmemleak finds nothing", after.leaks.clone()),
            (
                "no leak: interrupts, mappings, references and devices are as many as before",
                exact.collect(),
            ),
            (
                "no leak: object counts of all caches are steady",
                slabs.collect(),
            ),
        ]
    }
}

/// What the leak detector finds, in two scans; nothing on a kernel without it.
fn leaks() -> io::Result<Vec<String>> {
    if !Path::new(KMEMLEAK).exists() {
        return Ok(Vec::new());
    }
    for _ in 0..2 {
        // It speaks of nothing younger: this is no wait for something to happen.
        std::thread::sleep(LEAK_AGE);
        fs::write(KMEMLEAK, "scan")?;
    }
    let found = fs::read_to_string(KMEMLEAK)?;
    Ok(found.lines().take(60).map(Into::into).collect())
}

fn lines(path: &str, text: &str) -> io::Result<u64> {
    let content = fs::read_to_string(path)?;
    Ok(content.lines().filter(|line| line.contains(text)).count() as u64)
}

fn number(path: &str) -> io::Result<u64> {
    fs::read_to_string(path)?
        .trim()
        .parse()
        .map_err(io::Error::other)
}

fn entries(path: &Path) -> io::Result<u64> {
    Ok(fs::read_dir(path)?.count() as u64)
}

/// Objects in use of each cache, after what is kept back has been let go: caches of the allocator,
/// and the address checker's quarantine.
fn slabs() -> io::Result<BTreeMap<String, u64>> {
    fs::write("/proc/sys/vm/drop_caches", "3")?;
    for cache in fs::read_dir("/sys/kernel/slab")?.flatten() {
        // Some cannot be shrunk.
        let _ = fs::write(cache.path().join("shrink"), "1");
    }
    let table = fs::read_to_string("/proc/slabinfo")?;
    let rows = table.lines().skip(2).filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.to_string(), words.next()?.parse().ok()?))
    });
    let mut slabs: BTreeMap<String, u64> = rows.collect();
    let known = lines("/proc/vmallocinfo", "0x")?;
    let unpurged = lines("/proc/vmallocinfo", "unpurged")?;
    for name in OF_MAPPINGS {
        slabs.remove(*name);
    }
    slabs.insert("mappings in /proc/vmallocinfo".into(), known - unpurged);
    Ok(slabs)
}
