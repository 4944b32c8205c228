#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The layer `device`, in the toolbox: the tests of the device model (with its client, with QEMU's qtest).
set -uo pipefail
. scripts/lib/tap.sh
tap_begin device
tap_cargo "cargo test of ivshmem-device" cargo test --locked --no-fail-fast -p ivshmem-device -- --test-threads=2
tap_end
