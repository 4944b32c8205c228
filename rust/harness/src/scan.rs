// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finds what a kernel complains about in a guest's console.

use ivshmem_guest::TEST_MARK;

/// Begins a line of the root cell's program in the demo. The rest is what somebody wanted to say, not the kernel.
pub(crate) const RECEIVED: &str = "Received message from Inmate: ";

/// Texts that no healthy kernel prints, of warnings, oopses, lock and memory checkers, watchdogs.
const COMPLAINTS: &[&str] = &[
    "------------[ cut here ]------------",
    "BUG:",
    "kernel BUG at",
    "Oops",
    "general protection fault",
    "Unable to handle kernel",
    "Internal error",
    "Kernel panic",
    "Call Trace:",
    "Call trace:",
    "KASAN",
    "KCSAN",
    "UBSAN",
    "ODEBUG",
    "DEBUG_LOCKS_WARN_ON",
    "blocked for more than",
    "soft lockup",
    "hard LOCKUP",
    "rcu_sched self-detected stall",
    "rcu_preempt self-detected stall",
    "rcu: INFO:",
    "scheduling while atomic",
    "sleeping function called from invalid context",
    "refcount_t:",
    "list_add corruption",
    "list_del corruption",
    "Bad page state",
    "unreferenced object",
    "kmemleak:",
    "nobody cared",
    "has no release() function",
    "rust_kernel: panicked",
    "rust_panic",
    "unregister_netdevice: waiting",
    "Freeing alive inet",
    "sysfs: cannot create duplicate filename",
    "tried to init an initialized object",
];

/// What a kernel complains about, and which test was running when it first did.
pub(crate) fn complaints_with_test(lines: &[String]) -> Vec<String> {
    let mut found: Vec<String> = complaints(lines).into_iter().map(Into::into).collect();
    let first = found
        .first()
        .and_then(|first| lines.iter().position(|line| line == first));
    if let Some(first) = first {
        let mut before = lines[..first].iter().rev();
        let test = before.find_map(|line| Some(line.split_once(TEST_MARK)?.1));
        found.extend(test.map(|test| format!("first seen during: {test}")));
    }
    found
}

/// Lines of a console in which the kernel complains.
fn complaints(lines: &[String]) -> Vec<&str> {
    lines
        .iter()
        .map(String::as_str)
        .filter(|line| !line.starts_with(RECEIVED))
        .filter(|line| {
            message(line).starts_with("WARNING: ")
                || COMPLAINTS.iter().any(|text| line.contains(text))
        })
        .filter(|line| !is_announcement(line))
        .collect()
}

/// A line without the time in front.
fn message(line: &str) -> &str {
    match line.split_once("] ") {
        Some((time, message)) if time.starts_with('[') => message,
        _ => line,
    }
}

/// Lines in which a checker only says that it is there.
fn is_announcement(line: &str) -> bool {
    line.contains("kmemleak: Kernel memory leak detector initialized")
        || line.contains("KernelAddressSanitizer initialized")
        || line.contains("kmemleak: Automatic memory scanning thread started")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(text: &str) -> Vec<String> {
        let lines: Vec<String> = text.lines().map(Into::into).collect();
        complaints(&lines).into_iter().map(Into::into).collect()
    }

    #[test]
    fn a_healthy_boot_is_silent() {
        let boot = "\
[    0.000000] Linux version 7.3.4+deb13-amd64
[    0.512345] Spectre V2 : WARNING: Unprivileged eBPF is enabled with eIBRS on
[    1.000000] ivshmem: loading out-of-tree module taints kernel.
[    1.000001] ivshmem: module verification failed: signature and/or required key missing - tainting kernel
[    1.000002] ivshmem 0000:00:05.0: probe failed: state table size 0x0
[    1.100000] kmemleak: Kernel memory leak detector initialized (mem pool available: 15748)";
        assert_eq!(find(boot), Vec::<String>::new());
    }

    #[test]
    fn messages_of_people_are_no_complaints() {
        for greeting in ["Oops", "BUG: none", "KASAN"] {
            assert_eq!(find(&format!("{RECEIVED}{greeting}")), Vec::<String>::new());
        }
        assert_eq!(find(&format!("[    3.1] Oops: {RECEIVED}x")).len(), 1);
    }

    #[test]
    fn the_test_is_named() {
        let console = format!(
            "[ 1.0] {TEST_MARK}info: a\n[ 2.0] {TEST_MARK}info: b\n[ 2.1] BUG: x\n\
             [ 3.0] {TEST_MARK}info: c\n[ 3.1] BUG: y"
        );
        let lines: Vec<String> = console.lines().map(Into::into).collect();
        let found = complaints_with_test(&lines);
        assert_eq!(
            found,
            [
                "[ 2.1] BUG: x",
                "[ 3.1] BUG: y",
                "first seen during: info: b"
            ]
        );
    }

    #[test]
    fn each_kind_of_complaint_is_found() {
        for line in [
            "[    3.1] WARNING: CPU: 0 PID: 1 at drivers/pci/pci.c:1 x+0x1/0x2 [ivshmem]",
            "[    3.1] WARNING: drivers/pci/pci.c:1 at x+0x1/0x2, CPU#0: init/1",
            "[    3.1] WARNING: /ivshmem/rust/module/ioctl.rs:69 at x+0x1/0x2 [ivshmem], CPU#1: init/1",
            "WARNING: suspicious RCU usage",
            "[    3.1] ------------[ cut here ]------------",
            "[    3.1] BUG: kernel NULL pointer dereference, address: 0000000000000010",
            "[    3.1] BUG: sleeping function called from invalid context at mm/slab.h:1",
            "[    3.1] Oops: 0000 [#1] PREEMPT SMP PTI",
            "[    3.1] INFO: task init:1 blocked for more than 120 seconds.",
            "[    3.1] BUG: KASAN: slab-use-after-free in x",
            "[    3.1] WARNING: possible circular locking dependency detected",
            "[    3.1] refcount_t: underflow; use-after-free.",
            "[    3.1] Kernel panic - not syncing: Attempted to kill init!",
            "[    3.1] irq 11: nobody cared (try booting with the \"irqpoll\" option)",
            "[    3.1] BUG: scheduling while atomic: init/1/0x00000002",
            "[    3.1] rust_kernel: panicked at rust/module/lib.rs:1:1:",
        ] {
            assert_eq!(find(line), [line], "not found");
        }
    }
}
