#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# Builds the inmate to build/inmate/ivshmem-inmate.elf of the checkout. To be run
# in the toolbox; needs Debian's rustc, cargo and gcc, no network.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
target=x86_64-unknown-linux-gnu
# Apart from the other programs: this workspace has a lock file and profiles of
# its own.
output=${CARGO_TARGET_DIR:-$root/build/cargo}/inmate

cd "$here"
cargo build --release --locked --offline --target "$target" --target-dir "$output"

# A whole file or none, also for somebody who boots the last one just now.
mkdir -p "$root/build/inmate"
temporary=$root/build/inmate/.ivshmem-inmate.elf.$$
trap 'rm -f "$temporary"' EXIT
cp "$output/$target/release/ivshmem-inmate" "$temporary"
mv "$temporary" "$root/build/inmate/ivshmem-inmate.elf"
