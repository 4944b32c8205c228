#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Style, lints and unit tests of the inmate. To be run in the toolbox. The
# program itself has no test harness, so `--all-targets` would not do.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$root/build/cargo}/inmate
export CARGO_TARGET_DIR

cd "$here"
cargo fmt --check
cargo clippy --locked --offline --lib --bins --tests -- -D warnings
cargo test --locked --offline
