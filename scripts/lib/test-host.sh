#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The layer `host`, in the toolbox with the amd64 kernel (scripts/with-kernels): everything that needs neither device model nor
# guest. build/tracked-files lists the files of the project.
set -uo pipefail
. scripts/lib/tap.sh
# shellcheck source=/dev/null
. "$IVSHMEM_KERNEL_ENV"

MODULE_ROOT=rust/module/ivshmem_main.rs

# word REGEX DIR [FIND_ARGUMENT...]: where Rust code below DIR, without its comments, has a word: "FILE:LINE:TEXT".
word() {
	local regex=$1 dir=$2
	shift 2
	find "$dir" -name '*.rs' "$@" -exec grep -HnE '.' {} + | sed -E 's,^([^:]+:[0-9]+:)(.*[^:"])?//.*,\1\2,' |
		grep -E "^[^:]+:[0-9]+:(.*[^A-Za-z0-9_])?($regex)([^A-Za-z0-9_]|\$)"
}

no_unsafe_in_module() { ! word 'unsafe|bindings' rust/module -not -path 'rust/module/abi/*'; }

no_unsafe_in_protocol() { ! word unsafe rust/protocol/src; }

# Safe user-space crates keep unsafe in one file each, or in one module of several files.
one_unsafe_file_per_crate() {
	local crate found status=0
	for crate in rust/client rust/device rust/harness tests/fuzz tests/guest samples/*; do
		[ -d "$crate" ] || continue
		found=$(word unsafe "$crate" | cut -d : -f 1 | sed 's,/raw/[^/]*$,/raw.rs,' | sort -u)
		[ "$(wc -w <<<"$found")" -le 1 ] || { echo "$crate has several: $found"; status=1; }
	done
	return "$status"
}

module_is_formatted() {
	local config
	config=$(sed -n 's,^include \(.*\)/Makefile$,\1/.rustfmt.toml,p' "$KDIR/Makefile")
	[ -e "$config" ] || { echo "the kernel source has no .rustfmt.toml"; return 1; }
	rustfmt --check --edition 2021 --config-path "$config" "$MODULE_ROOT"
}

module_is_clean() {
	local out=build/module-clippy/$KERNEL_RELEASE log status=0
	# From scratch: warnings come only when a file is compiled.
	rm -rf "$out"
	mkdir -p "$out"
	log=$(make -C "$KDIR" M="$PWD" MO="$PWD/$out" CLIPPY=1 W=e modules 2>&1) || status=$?
	echo "$log"
	[ "$status" = 0 ] && ! grep -qE '(^|: )(warning|error)[:[]' <<<"$log"
}

# header COMPILER...: the UAPI header alone, twice, as a program includes it.
header() {
	printf '#include <linux/ivshmem.h>\n#include <linux/ivshmem.h>\nint main(void) { return 0; }\n' |
		"$@" -Wall -Wextra -pedantic -Werror -Iinclude/uapi -fsyntax-only -
}

files_have_licences() {
	local file missing=0
	while read -r file; do
		case $file in
		LICENSES/* | Cargo.lock | */Cargo.lock) continue ;;
		esac
		[ -f "$file" ] || continue
		[ -e "$file.license" ] || head -n 5 "$file" | grep -q 'SPDX-License-Identifier: ' || { echo "no SPDX line in $file"; missing=1; }
	done <build/tracked-files
	return "$missing"
}

licence_texts_are_there() {
	local id missing=0
	for id in $(xargs -d '\n' grep -hoE '^.{0,12}SPDX-License-Identifier: .*' <build/tracked-files |
		sed -E 's/.*SPDX-License-Identifier: //; s,( \*/| -->).*,,; s/[()]//g; s/ (OR|AND|WITH) /\n/g' | sort -u); do
		[ -e "LICENSES/$id.txt" ] || [ -e "LICENSES/$id" ] || { echo "no text of $id in LICENSES/"; missing=1; }
	done
	return "$missing"
}

scripts_are_clean() {
	grep -E '^(scripts|tests/setup|tests/litmus|\.ci)/' build/tracked-files | while read -r file; do
		case $file in *.sh) echo "$file" ;; *) head -n 1 "$file" | grep -qE '^#!/bin/(ba)?sh' && echo "$file" ;; esac
	done | xargs shellcheck -x
}

inmate_cargo() { (cd rust/inmate && CARGO_TARGET_DIR=$CARGO_TARGET_DIR/inmate cargo "$@"); }

tap_begin host
tap_cargo "cargo test of the workspace" cargo test --locked --no-fail-fast --workspace --exclude ivshmem-device -- --test-threads=2
tap_test "the workspace is formatted (rustfmt)" cargo fmt --all --check
tap_test "the workspace is free of clippy's warnings" cargo clippy --locked --workspace --all-targets -- -D warnings
tap_test "the workspace's documentation is free of warnings" env RUSTDOCFLAGS="-D warnings -A rustdoc::private_intra_doc_links" cargo doc --locked --workspace --no-deps --document-private-items
tap_cargo "cargo test of the inmate" inmate_cargo test --locked --no-fail-fast --lib -- --test-threads=2
tap_test "the inmate is formatted (rustfmt)" inmate_cargo fmt --check
# Its program has no test harness, so --all-targets would not do.
tap_test "the inmate is free of clippy's warnings" inmate_cargo clippy --locked --lib --bins --tests -- -D warnings
tap_test "the module is formatted (the kernel's rustfmt)" module_is_formatted
tap_test "the module is free of warnings with CLIPPY=1" module_is_clean
tap_test "the module has no unsafe and no bindings outside rust/module/abi" no_unsafe_in_module
tap_test "the protocol crate has no unsafe" no_unsafe_in_protocol
tap_test "a user-space crate has unsafe in at most one file" one_unsafe_file_per_crate
tap_test "the UAPI header is clean as C99 (gcc)" header gcc -std=c99 -x c
tap_test "the UAPI header is clean as C99 (clang)" header clang -std=c99 -x c
tap_test "the UAPI header is clean as C++17 (g++)" header g++ -std=c++17 -x c++
tap_test "the UAPI header is clean as C++17 (clang++)" header clang++ -std=c++17 -x c++
tap_test "each file has an SPDX line" files_have_licences
tap_test "each licence named has its text in LICENSES/" licence_texts_are_there
tap_test "the mutants of tests/mutants can be made" scripts/lib/mutants.sh check
tap_test "the scripts are free of shellcheck's warnings" scripts_are_clean
tap_end
