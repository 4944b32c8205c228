// SPDX-License-Identifier: MIT OR Apache-2.0
//! Devices whose numbers cannot be: the driver refuses each with one line in the log, and goes on.
//!
//! The device model malforms one device per fault; all are in one guest, with good ones beside them.

use super::{count_doorbells, Env, Test};
use crate::system;
use ivshmem_guest::plan::DevicePlan;

/// One test per fault: what is wrong, the device model's name for it, and what the log must name:
/// the field, and the value.
macro_rules! faults {
    ($($function:ident $fault:literal $name:literal [$($word:literal),*];)*) => {
        pub(super) const TESTS: &[Test] = &[
            $(Test::new($name, $function).only_if(|plan| has(plan, $fault)),)*
            // bad input: malformed devices beside good ones => the module stays loaded, the good ones work
            Test::new("the module stays loaded, and good devices beside malformed ones work", others)
                .only_if(|plan| plan.devices.iter().any(|device| device.fault.is_some())),
            // bad input: binding a malformed device by hand => refused again
            Test::new("binding a malformed device by hand is refused again, without harm", by_hand)
                .only_if(|plan| plan.devices.iter().any(|device| device.fault.is_some())),
        ];

        $(fn $function(env: &Env) {
            refused(env, $fault, &[$($word),*]);
        })*
    };
}

faults! {
    no_capability "no-capability" "capability missing: one log line names it" ["capability", "0x09"];
    short "short-capability" "capability short: one log line names its length" ["length", "0x10"];
    zero_table "zero-state-table" "zero state table: one log line names the size" ["state table size", "0x0"];
    odd_table "misaligned-state-table" "misaligned state table: one log line names the size" ["state table size", "0x1ffc"];
    odd_rw "misaligned-rw" "misaligned read/write section: one log line names the size" ["R/W section size", "0x9008"];
    odd_output "misaligned-output" "misaligned output section: one log line names the size" ["output section size", "0x2008"];
    huge_rw "overflowing-rw" "overflowing read/write section: one log line names the size" ["R/W section size", "0xfffffffffffff000"];
    huge_output "overflowing-output" "overflowing output sections: one log line names the size" ["output section size", "0x8000000000000000"];
    beyond_bar "beyond-bar" "sections beyond the BAR: one log line names region and BAR" ["region size", "BAR 2"];
    no_address "no-address" "no address and no BAR: one log line names it" ["base address", "missing"];
    odd_address "misaligned-address" "misaligned address: one log line names it" ["base address", "800"];
    high_address "overflowing-address" "overflowing address: one log line names it" ["base address", "0xfffffffffffff000"];
    in_use "address-of-registers" "an address in use, that of the device's own registers: one log line names the region" ["region 0x", "in use"];
    bad_id "id-out-of-range" "ID out of range: one log line names ID and maximum" ["peer ID", "maximum peers"];
    no_peers "no-peers" "no peers at all: one log line names the number" ["maximum peers", " 0 "];
    one_peer "one-peer" "one peer only: one log line names the number" ["maximum peers", " 1 "];
    many_peers "many-peers" "more peers than the documented limit: one log line names the number" ["maximum peers", "1000000"];
    dead "dead-registers" "registers that read all-ones: one log line says that the device does not answer" ["all-ones"];
}

fn has(plan: &ivshmem_guest::plan::Plan, fault: &str) -> bool {
    plan.devices
        .iter()
        .any(|device| device.fault.as_deref() == Some(fault))
}

fn device<'a>(env: &'a Env, fault: &str) -> &'a DevicePlan {
    let mut devices = env.plan.devices.iter();
    let found = devices.find(|device| device.fault.as_deref() == Some(fault));
    found.expect("the plan has it")
}

/// Lines of the log since the mark, if it is there.
fn since_the_mark() -> Option<Vec<String>> {
    let mut log = system::kernel_log().expect("kernel log");
    let begin = log.iter().rposition(|line| line.contains(MARK))?;
    Some(log.split_off(begin))
}

const MARK: &str = "ivshmem-guest: probing again";

/// The device is not bound; the log has exactly one line about it, with all of `words`.
fn refused(env: &Env, fault: &str, words: &[&str]) {
    let bdf = device(env, fault).bdf();
    assert!(!system::is_bound(&bdf), "the driver took it");
    assert_eq!(system::node(&bdf), None);
    // The first test has all devices probed once more, with a mark in front, and the others look at that.
    if since_the_mark().is_none() {
        system::unload_module().expect("unload");
        system::mark_log(&format!("{MARK}\n")).expect("mark");
        system::ensure_ready(&env.plan).expect("load");
        assert!(!system::is_bound(&bdf), "the driver took it");
    }
    let mut lines = since_the_mark().expect("the mark is there");
    lines.retain(|line| line.contains(&format!("ivshmem {bdf}:")));
    assert_eq!(lines.len(), 1, "{lines:#?}");
    for word in words {
        assert!(lines[0].contains(word), "`{word}` is not in: {}", lines[0]);
    }
    assert!(system::module_is_loaded());
}

fn others(env: &Env) {
    assert!(system::module_is_loaded());
    for good in env
        .plan
        .devices
        .iter()
        .filter(|device| device.fault.is_none())
    {
        let node = system::node(&good.bdf()).expect("a device file");
        let device = ivshmem::Device::open(node).expect("open");
        assert_eq!(device.info().id, good.peer);
        device.ring(good.peer, 0).expect("ring");
        assert_eq!(count_doorbells(&device, 0, 1), 1);
    }
}

fn by_hand(env: &Env) {
    for bad in env
        .plan
        .devices
        .iter()
        .filter(|device| device.fault.is_some())
    {
        let bdf = bad.bdf();
        assert!(system::bind(&bdf).is_err(), "{bad}");
        assert!(!system::is_bound(&bdf), "{bad}");
    }
    others(env);
}
