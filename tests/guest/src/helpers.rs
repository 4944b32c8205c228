// SPDX-License-Identifier: MIT OR Apache-2.0
//! Small programs that tests start as separate processes.

/// Runs the helper called `name`.
pub(crate) fn run(name: &str, arguments: &[&str]) {
    panic!("no helper `{name}` with {arguments:?}");
}
