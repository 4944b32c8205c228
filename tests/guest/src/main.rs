// SPDX-License-Identifier: MIT OR Apache-2.0
//! First process of a guest, and all of its test programs.
//!
//! Started by the kernel as `/init` it does what the plan on the kernel command line says
//! ([`init`]) and powers the guest off. It starts itself again for each test ([`runner`]), so that
//! a test may die, hang or leave files open without harm to the others, and as the helpers that
//! some tests need ([`helpers`]).
//!
//! ```text
//! init ── runner ──> "test SUITE NUMBER" ──> suites/*.rs
//!    │                        └──────────> "helper NAME ..." ──> helpers.rs
//!    └── duties (demo, doorbells or messages between two guests, fuzzing, shell) ──> duties.rs, traffic.rs,
//!                                                                                channels/, fuzz.rs
//! ```
#![deny(unsafe_code)]

mod aftermath;
mod ask;
mod channels;
mod duties;
mod fuzz;
mod helpers;
mod init;
mod raw;
mod report;
mod runner;
mod soak;
mod suites;
mod system;
mod traffic;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = arguments.iter().skip(1).map(String::as_str).collect();
    if std::process::id() == 1 {
        init::run();
    }
    match words.as_slice() {
        ["test", suite, number] => runner::run_one(suite, number),
        ["helper", name, rest @ ..] => helpers::run(name, rest),
        ["fuzz-worker", rest @ ..] => std::process::exit(fuzz::work(rest)),
        ["channel-worker", node, transport] => std::process::exit(channels::work(node, transport)),
        ["soak-worker", node, peer] => std::process::exit(soak::work(node, peer)),
        ["list"] => runner::list(),
        _ => {
            eprintln!(
                "This program is the first process of a test guest; see Documentation/testing.md."
            );
            std::process::exit(2);
        }
    }
}
