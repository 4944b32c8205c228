#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds the plugin to build/profiler/ivshmem-profiler.so of the checkout. To be run in the toolbox. QEMU loads
# it, so it uses QEMU's C library and must not bring its own, as our programs do.
set -eu

root=$(cd "$(dirname "$0")/../.." && pwd)
output=${CARGO_TARGET_DIR:-$root/build/cargo}/profiler
target=x86_64-unknown-linux-gnu

cd "$root"
RUSTFLAGS='-C target-feature=-crt-static' cargo rustc --quiet --release --locked -p ivshmem-profiler --lib \
	--crate-type cdylib --target "$target" --target-dir "$output"

# A whole file or none, also for somebody who uses the last one just now.
mkdir -p "$root/build/profiler"
temporary=$root/build/profiler/.ivshmem-profiler.so.$$
trap 'rm -f "$temporary"' EXIT
cp "$output/$target/release/libivshmem_profiler.so" "$temporary"
mv "$temporary" "$root/build/profiler/ivshmem-profiler.so"
