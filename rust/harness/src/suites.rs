// SPDX-License-Identifier: MIT OR Apache-2.0
//! `guest`: boots one guest after the other and runs the test suites in them.

use crate::boot::{guest_spec, initramfs, judge, part, Links, NO_KMEMLEAK};
use crate::kernel::Kernel;
use crate::machine::Machine;
use crate::progress::Step;
use crate::qemu::Guest;
use crate::settings::Settings;
use crate::tap::TestResult;
use anyhow::Result;
use ivshmem_guest::plan::{DevicePlan, Plan, Protection, Shape, SoftInmate};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

/// All suites that a guest with good devices runs.
const COMMON: &[&str] = &[
    "info",
    "region",
    "mapping",
    "ioctl",
    "state",
    "events",
    "sharing",
    "subscription",
    "poll",
    "nowait",
    "buffers",
    "compat",
    "node",
    "visibility",
    "tracing",
    "module",
    "distribution",
    "storm",
    "power",
    "hotplug",
    "removal",
    "load",
];

/// Those of them that do not see how memory and registers lie.
const BLIND_TO_SHAPE: &[&str] = &["tracing", "distribution", "storm", "hotplug"];

/// Those that do not need all sections.
const CORE: &[&str] = &["info", "ioctl", "state", "events", "poll"];

/// Channels, all that there is to show of them.
const CHANNELS: &[&str] = &[
    "channel-messages",
    "channel-poll",
    "channel-nowait",
    "channel-confirm",
    "channel-sessions",
    "channel-rules",
    "channel-sharing",
    "channel-broken",
    "channel-failures",
    "channel-seen",
    "channel-removal",
    "channel-power",
    "samples",
];

/// Those that depend on how interrupts come and memory is reached.
const CHANNELS_CORE: &[&str] = &[
    "channel-messages",
    "channel-poll",
    "channel-confirm",
    "channel-sessions",
    "channel-broken",
];

/// Those of a guest without messages, with a line.
const INTX: &[&str] = &["intx", "power", "hotplug", "visibility", "tracing", "load"];

/// Those of a guest without interrupts.
const POLLING: &[&str] = &[
    "polling",
    "power",
    "hotplug",
    "visibility",
    "tracing",
    "load",
];

/// Channels with peers that are not Linux.
const PEERS: &[&str] = &["channel-peers", "channel-attack"];

/// What goes wrong while a device model runs.
const MODEL_FAULTS: &[&str] = &["faults", "vanish", "storms"];

/// What is malformed, by the device model's names. `capability-loop` is missing: stock QEMU follows
/// such a loop for ever itself.
const FAULTS: &[&str] = &[
    "no-capability",
    "short-capability",
    "zero-state-table",
    "misaligned-state-table",
    "misaligned-rw",
    "misaligned-output",
    "overflowing-rw",
    "overflowing-output",
    "no-address",
    "misaligned-address",
    "overflowing-address",
    "address-of-registers",
    "id-out-of-range",
    "no-peers",
    "one-peer",
    "many-peers",
    "dead-registers",
];

/// As [`FAULTS`], for the shape with BAR 2.
const BAR2_FAULTS: &[&str] = &["beyond-bar"];

/// How long a suite may take, before patience.
const SUITE: Duration = Duration::from_secs(60);

/// Which suites make sense on a kernel. What a kernel cannot have is not part of its run.
fn makes_sense(suite: &str, kernel: &Kernel) -> bool {
    match suite {
        // A 64-bit program has no way to the 32-bit calls of an arm64 kernel.
        "compat" => kernel.machine == Machine::Pc,
        // An interrupt controller of arm64 has more than devices could use up.
        "vectors" => kernel.machine == Machine::Pc,
        "distribution" => kernel.flavour.is_debians(),
        _ => true,
    }
}

/// A guest to boot.
#[derive(Debug)]
struct Boot {
    name: &'static str,
    suites: Vec<&'static str>,
    devices: Vec<DevicePlan>,
    /// Further words of the kernel's command line.
    words: String,
    /// Interrupts come on lines.
    lines: bool,
}

impl Boot {
    /// A guest with these devices that runs `suites`, those that make sense on the kernel.
    fn new(name: &'static str, suites: &'static [&'static str], devices: Vec<DevicePlan>) -> Self {
        Self {
            name,
            suites: suites.to_vec(),
            devices,
            words: String::new(),
            lines: false,
        }
    }

    /// A guest with interrupt lines, and two devices on one of them.
    fn with_lines(name: &'static str, suites: &'static [&'static str]) -> Self {
        let mut boot = Self::new(name, suites, on_one_line());
        boot.lines = true;
        boot
    }

    /// The same without some suites.
    fn without(mut self, suites: &[&str]) -> Self {
        self.suites.retain(|suite| !suites.contains(suite));
        self
    }

    /// The same with further words on the kernel's command line.
    fn words(mut self, words: &str) -> Self {
        self.words = format!("{} {words}", self.words);
        self
    }
}

/// Two peers in one guest, of a link as `common` has it with room for one more that never comes.
fn two_peers(common: &DevicePlan) -> Vec<DevicePlan> {
    let peers = common.peers.max(3);
    let device = |peer: u32| DevicePlan {
        slot: 5 + peer as u8,
        peer,
        peers,
        ..common.clone()
    };
    vec![device(0), device(1)]
}

/// The usual link with sections that are whole pages of every kernel.
fn whole_pages() -> DevicePlan {
    DevicePlan {
        state_size: 0x4000,
        rw_size: 0xc000,
        output_size: 0x4000,
        ..DevicePlan::default()
    }
}

/// A device of a link with room for three peers, which are not in a guest.
pub(crate) fn with_peers() -> DevicePlan {
    DevicePlan {
        peers: 4,
        output_size: 0x4000,
        protection: Protection::Mapped,
        ..DevicePlan::default()
    }
}

/// Two peers in one guest, and a device of another link on which a soft inmate answers.
fn with_a_second_link(common: &DevicePlan) -> Vec<DevicePlan> {
    let mut devices = two_peers(common);
    devices.push(DevicePlan {
        slot: 8,
        link: 1,
        inmate: Some(SoftInmate::echo(1)),
        ..common.clone()
    });
    devices
}

/// Two peers without vectors, in slots that share an interrupt line.
fn on_one_line() -> Vec<DevicePlan> {
    let device = |(slot, peer)| DevicePlan {
        slot,
        peer,
        peers: 3,
        vectors: 0,
        ..DevicePlan::default()
    };
    [(5, 0), (9, 1)].map(device).into()
}

/// Peers that together offer more vectors than one processor of a PC has, which are some 200.
fn short_of_vectors() -> Vec<DevicePlan> {
    let device = |peer: u32| DevicePlan {
        slot: 5 + peer as u8,
        peer,
        peers: 4,
        vectors: 60,
        ..DevicePlan::default()
    };
    (0..4).map(device).collect()
}

/// Links with devices of all faults.
fn all_malformed() -> Vec<DevicePlan> {
    let bar2 = DevicePlan {
        link: 1,
        shape: Shape::Bar2,
        ..DevicePlan::default()
    };
    [
        malformed(&DevicePlan::default(), FAULTS, 4),
        malformed(&bar2, BAR2_FAULTS, 24),
    ]
    .concat()
}

/// A link with one good device and one for each fault, in slots from `slot` on.
fn malformed(common: &DevicePlan, faults: &[&str], slot: u8) -> Vec<DevicePlan> {
    let faults = faults.iter().map(|fault| Some((*fault).to_string()));
    let peers = faults.len() as u32 + 1;
    let device = |(index, fault): (u32, Option<String>)| DevicePlan {
        slot: slot + index as u8,
        peer: index,
        peers: peers.max(2),
        fault,
        ..common.clone()
    };
    (0..)
        .zip(std::iter::once(None).chain(faults))
        .map(device)
        .collect()
}

/// What is booted. One line each where the devices are not special.
fn boots() -> Vec<Boot> {
    let usual = DevicePlan::default;
    vec![
        Boot::new("Jailhouse shape, trapping", COMMON, two_peers(&usual())),
        Boot::new(
            "BAR 2 shape, mapped",
            COMMON,
            two_peers(&DevicePlan {
                shape: Shape::Bar2,
                protection: Protection::Mapped,
                vectors: 16,
                protocol: 0x4001,
                // Whole pages of every kernel.
                state_size: 0x4000,
                rw_size: 0xc000,
                output_size: 0x4000,
                ..usual()
            }),
        )
        .without(BLIND_TO_SHAPE),
        // With larger pages than 4 KiB some sections can be mapped, and others not: these together are
        // whole pages, but none of them is.
        Boot::new(
            "sections of many sizes",
            &["info", "mapping"],
            two_peers(&DevicePlan {
                peers: 4,
                state_size: 0x4000,
                rw_size: 0x4000,
                output_size: 0x2000,
                ..usual()
            }),
        ),
        Boot::new(
            "many peers and vectors, no read/write section",
            CORE,
            two_peers(&DevicePlan {
                peers: 500,
                vectors: 2048,
                rw_size: 0,
                output_size: 0x1000,
                protocol: 0x7fff,
                protection: Protection::Mapped,
                ..usual()
            }),
        ),
        // A single peer: with one vector, nothing tells when all interrupts of others are in.
        Boot::new(
            "one vector, no output sections",
            CORE,
            vec![DevicePlan {
                vectors: 1,
                rw_size: 0x1000,
                output_size: 0,
                shape: Shape::Bar2,
                ..usual()
            }],
        ),
        Boot::new(
            "soft inmate",
            &["inmate"],
            vec![DevicePlan {
                inmate: Some(SoftInmate::echo(1)),
                ..usual()
            }],
        ),
        Boot::new(
            "channels",
            CHANNELS,
            two_peers(&DevicePlan {
                shape: Shape::Bar2,
                protection: Protection::Mapped,
                ..whole_pages()
            }),
        ),
        Boot::new(
            "channels, trapping, one vector",
            CHANNELS_CORE,
            two_peers(&DevicePlan {
                peers: 4,
                vectors: 1,
                ..usual()
            }),
        ),
        Boot::with_lines("channels, INTx", CHANNELS_CORE),
        Boot::new("channels, polling", CHANNELS_CORE, two_peers(&usual())).words("pci=nomsi"),
        Boot::with_lines("INTx, two devices on one line", INTX),
        Boot::new(
            "polling: neither MSI-X nor INTx",
            POLLING,
            two_peers(&usual()),
        )
        .words("pci=nomsi"),
        Boot::new(
            "faults on demand",
            MODEL_FAULTS,
            with_a_second_link(&whole_pages()),
        ),
        Boot::new(
            "faults on demand, BAR 2 shape, mapped",
            MODEL_FAULTS,
            with_a_second_link(&DevicePlan {
                shape: Shape::Bar2,
                protection: Protection::Mapped,
                ..whole_pages()
            }),
        ),
        Boot::new(
            "fewer vectors left than offered",
            &["vectors"],
            short_of_vectors(),
        )
        .words("nr_cpus=1"),
        Boot::new("channels with soft inmates", PEERS, vec![with_peers()]),
        Boot::new(
            "channels with soft inmates, BAR 2 shape, small sections",
            PEERS,
            vec![DevicePlan {
                shape: Shape::Bar2,
                output_size: 0x1000,
                vectors: 2,
                ..with_peers()
            }],
        ),
        Boot::new("malformed devices", &["malformed"], all_malformed()),
    ]
}

/// Names of all suites.
pub(crate) fn names() -> Vec<&'static str> {
    let mut names = Vec::new();
    for name in boots().into_iter().flat_map(|boot| boot.suites) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

/// Runs the suites that are wanted; results of all guests.
pub(crate) fn run(
    settings: &Settings,
    is_wanted: impl Fn(&str) -> bool,
) -> Result<Vec<TestResult>> {
    let kernel = settings.kernel()?;
    let folder = settings.run_folder("guest")?;
    let archive = folder.join("initramfs");
    initramfs(settings, &kernel)?.write(&archive)?;
    let mut results = Vec::new();
    // What kmemleak has watched. It takes half of the debug kernel's time, and half a minute of its own.
    let mut watched = BTreeSet::new();
    for boot in boots() {
        let suites: Vec<String> = boot
            .suites
            .iter()
            .filter(|suite| is_wanted(suite) && makes_sense(suite, &kernel))
            .map(|suite| (*suite).into())
            .collect();
        if suites.is_empty() {
            continue;
        }
        let watches_leaks = suites.iter().any(|suite| !watched.contains(suite));
        if watches_leaks {
            watched.extend(suites.iter().cloned());
        }
        let folder = settings.run_folder(&format!("guest/{}", folder_name(boot.name)))?;
        let words = if watches_leaks { "" } else { NO_KMEMLEAK };
        let boot = boot.words(words);
        let own = run_boot(settings, &kernel, &folder, &archive, &boot, suites);
        results.extend(part(boot.name, own)?);
    }
    Ok(results)
}

fn run_boot(
    settings: &Settings,
    kernel: &Kernel,
    folder: &Path,
    archive: &Path,
    boot: &Boot,
    suites: Vec<String>,
) -> Result<Vec<TestResult>> {
    let step = Step::begin(format!("guest \"{}\"", boot.name), settings.verbose);
    let links = Links::start(settings, folder, &boot.devices)?;
    let limit = settings.limit_of(SUITE, suites.len() as u64);
    let plan = Plan {
        run: "suites".into(),
        arguments: suites,
        devices: boot.devices.clone(),
        patience: settings.patience,
    };
    let mut spec = guest_spec("guest", kernel, archive, &plan, &links);
    spec.words = format!("{} {}", boot.words, spec.words);
    if boot.lines {
        spec.machine = spec.machine.with_lines();
    }
    spec.prefix = settings.verbose.then(|| "guest | ".into());
    let mut guest = Guest::start(settings, folder, &spec)?;
    guest.wait(limit)?;
    let mut results = judge(boot.name, &guest.finish()?);
    results.extend(links.judge(boot.name)?);
    let failed = results.iter().filter(|result| result.has_failed()).count();
    step.end(&format!(
        "{} passed, {failed} failed",
        results.len() - failed
    ));
    Ok(results)
}

/// A name for a folder.
fn folder_name(name: &str) -> String {
    let letters = name.to_lowercase();
    let words = letters.split(|c: char| !c.is_alphanumeric());
    words
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join("-")
}
