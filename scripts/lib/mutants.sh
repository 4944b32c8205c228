#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# usage: mutants.sh check          whether every patch of tests/mutants/ applies to the module as it is
#        mutants.sh run [NAME...]  makes each mutant (or those) and runs the guest suites that are to catch it
#
# In the toolbox with a kernel (scripts/with-kernels). A mutant is a module with one mistake. It is caught if it does not build, or if
# a test of its suites fails; one that is not caught means that a test is missing. Results: build/results/mutants.tap.
set -uo pipefail
. scripts/lib/tap.sh
# shellcheck source=/dev/null
. "$IVSHMEM_KERNEL_ENV"

HARNESS=build/cargo/x86_64-unknown-linux-gnu/release/ivshmem-harness

# header PATCH NAME: a line of a patch's own head.
header() { sed -n "s/^$2: //p;/^diff /q" "$1"; }

# plant PATCH TREE: what the module is built of, with the mistake.
plant() {
	local patch=$PWD/$1 tree=$2
	rm -rf "$tree"
	mkdir -p "$tree/rust"
	cp -r Kbuild include "$tree" && cp -r rust/module rust/protocol "$tree/rust" &&
		(cd "$tree" && busybox patch -p 1 -i "$patch") && ! find "$tree" -name '*.rej' | grep .
}

check() {
	local patch tree status=0
	tree=$(mktemp -d)
	for patch in tests/mutants/*.patch; do
		[ -n "$(header "$patch" Mutant)" ] && [ -n "$(header "$patch" Suites)" ] || {
			echo "$patch does not say what it is: it needs the lines 'Mutant: WORDS' and 'Suites: NAME...'"
			status=1
		}
		plant "$patch" "$tree/it" || { echo "$patch does not apply: the code has changed, so bring it up to date"; status=1; }
	done
	rm -rf "$tree"
	return "$status"
}

# run_one PATCH: one result.
run_one() {
	local patch=$1 name place words caught
	name=$(basename "$patch" .patch)
	place=build/mutants/$name
	words="caught: $(header "$patch" Mutant)"
	rm -rf "$place"
	mkdir -p "$place"
	plant "$patch" "$place/tree" >"$place/log" 2>&1 || { tap_not_ok "$words (the patch does not apply)"; return; }
	if ! make -C "$KDIR" M="$PWD/$place/tree" MO="$PWD/$place/module" modules >>"$place/log" 2>&1; then
		tap_not_ok "$words (it does not build, so no test was asked)"
		tail -n 20 "$place/log" | tap_note
		return
	fi
	# shellcheck disable=SC2046 # several suites
	IVSHMEM_BUILD=$place IVSHMEM_MODULE=$place/module/ivshmem.ko IVSHMEM_INMATE=build/inmate/ivshmem-inmate.elf \
		"$HARNESS" test-guest $(printf -- '--suite %s ' $(header "$patch" Suites)) >>"$place/log" 2>&1
	caught=$(sed -n 's/^not ok [0-9]* - //p' "$place"/results/*.tap | head -n 8)
	if [ -n "$caught" ]; then
		tap_ok "$words"
		printf '%s\n' "$caught" | sed 's/^/by: /' | tap_note
	else
		tap_not_ok "$words"
		tail -n 20 "$place/log" | tap_note
	fi
}

case ${1:-} in
check) check ;;
run)
	shift
	names=("$@")
	[ $# -gt 0 ] || mapfile -t names < <(basename -s .patch -a tests/mutants/*.patch)
	tap_begin mutants
	for name in "${names[@]}"; do
		[ -e "tests/mutants/$name.patch" ] || {
			echo "there is no mutant '$name': see tests/mutants/" >&2
			exit 2
		}
		run_one "tests/mutants/$name.patch"
	done
	tap_end
	;;
*)
	echo "usage: mutants.sh check | run [NAME...]" >&2
	exit 2
	;;
esac
