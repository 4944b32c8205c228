#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# usage: mutants.sh check              whether every patch of tests/mutants/ applies to the module as it is
#        mutants.sh kernels [NAME...]  which kernels all mutants (or those) are for
#        mutants.sh run [NAME...]      makes each of them that is for this kernel, and runs the guest suites that are to catch it
#
# `check` and `run` are for the toolbox, with a kernel (scripts/with-kernels). A mutant is a module with one mistake, with lines about it in the patch's head:
#   Mutant: WORDS     what it is
#   Suites: NAME...   what `ivshmem-harness test-guest --suite` is to run
#   Kernel: NAME      which kernel can tell, if that is not the stock kernel
#   Result: WORDS     part of the name of the result that has to fail, if that is none of a test of these suites
# It is caught if such a result fails. If all of them pass, a test is missing. Whatever else goes wrong decides nothing: a mutant that
# does not build, a guest that does not start, other results that fail. Both are failures. Results: build/results/mutants-KERNEL.tap.
set -uo pipefail
. scripts/lib/tap.sh
# shellcheck source=/dev/null
[ -z "${IVSHMEM_KERNEL_ENV:-}" ] || . "$IVSHMEM_KERNEL_ENV"

HARNESS=build/cargo/x86_64-unknown-linux-gnu/release/ivshmem-harness

# header PATCH NAME: a line of a patch's own head.
header() { sed -n "s/^$2: //p;/^diff /q" "$1"; }

# kernel_of PATCH: the kernel that can tell.
kernel_of() {
	local name
	name=$(header "$1" Kernel)
	echo "${name:-stock}"
}

# patches [NAME...]: sets PATCHES to all, or to those; ends the script if there is no such mutant.
patches() {
	local name
	[ $# -gt 0 ] || { PATCHES=(tests/mutants/*.patch); return; }
	PATCHES=()
	for name; do
		[ -e "tests/mutants/$name.patch" ] || {
			echo "there is no mutant '$name': see tests/mutants/" >&2
			exit 2
		}
		PATCHES+=("tests/mutants/$name.patch")
	done
}

# deciding PATCH: reads names of results; those that decide about the mutant.
deciding() {
	local words
	words=$(header "$1" Result)
	# shellcheck disable=SC2046 # several suites
	[ -n "$words" ] || words=$(printf ': %s: \n' $(header "$1" Suites))
	grep -F -e "$words"
}

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
	local patch=$1 name place words failed caught status=0
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
		"$HARNESS" test-guest $(printf -- '--suite %s ' $(header "$patch" Suites)) >>"$place/log" 2>&1 || status=$?
	failed=$(sed -n 's/^not ok [0-9]* - //p' "$place"/results/*.tap)
	caught=$(deciding "$patch" <<<"$failed" | head -n 8)
	if [ -n "$caught" ]; then
		tap_ok "$words"
		awk '{ print "by: " $0 }' <<<"$caught" | tap_note
		return
	fi
	if [ "$status" = 0 ]; then
		tap_not_ok "$words"
	else
		tap_not_ok "$words (not decided: the run failed, and not at what is to fail)"
	fi
	tail -n 20 "$place/log" | tap_note
}

case ${1:-} in
check) check ;;
kernels)
	shift
	patches "$@"
	for patch in "${PATCHES[@]}"; do kernel_of "$patch"; done | sort -ru
	;;
run)
	shift
	patches "$@"
	tap_begin "mutants-$KERNEL_NAME"
	for patch in "${PATCHES[@]}"; do
		[ "$(kernel_of "$patch")" != "$KERNEL_NAME" ] || run_one "$patch"
	done
	tap_end
	;;
*)
	echo "usage: mutants.sh check | kernels [NAME...] | run [NAME...]" >&2
	exit 2
	;;
esac
