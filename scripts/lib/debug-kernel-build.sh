#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The steps that make the debug kernel from a kernel's source, with clang (KASAN and Rust in one kernel need it). Called by
# scripts/lib/debug-kernel.sh inside the toolbox. Each may be interrupted and repeated: it goes on where it was.
#
#   debug-kernel-build.sh configure SOURCE BUILD FRAGMENT   makes BUILD/.config: nothing but what FRAGMENT asks for, and all of that
#   debug-kernel-build.sh build SOURCE BUILD                builds the kernel and what modules are built with
#   debug-kernel-build.sh shrink SOURCE BUILD VMLINUX       puts the bootable image to VMLINUX, leaves in BUILD what module builds need
#
# What does not come out as FRAGMENT asks ends with status 3 and a line "refused: ...".
set -euo pipefail
export LC_ALL=C.UTF-8
MAKE_ARGS=(ARCH=x86 LLVM=1)

refuse() {
	echo "refused: $*"
	exit 3
}

# wanted FRAGMENT: its options, one "NAME VALUE" a line.
wanted() { sed -nE 's/^(CONFIG_[A-Za-z0-9_]+)=(.+)$/\1 \2/p' "$1"; }

# forget_last BUILD: what a run was writing when it was ended may be cut off, kbuild's record of a command included, which says that all is
# well. So those of its last moment are made again.
forget_last() {
	local last
	last=$(find "$1" -name '.*.cmd' -printf '%T@\n' | sort -n | tail -n 1)
	[ -z "$last" ] || find "$1" -name '.*.cmd' -newermt "@$(bc <<<"$last - 2")" -delete
}

configure() {
	local source=$1 build=$2 fragment=$3 strange name value found wrong=''
	strange=$(grep -nvE '^(#.*|CONFIG_[A-Za-z0-9_]+=.+)?$' "$fragment" | head -n 1 || true)
	[ -z "$strange" ] || refuse "line ${strange%%:*} of the debug kernel's options is neither a comment nor CONFIG_NAME=VALUE: ${strange#*:}"
	mkdir -p "$build"
	forget_last "$build"
	KCONFIG_ALLCONFIG=$fragment make -C "$source" O="$build" "${MAKE_ARGS[@]}" allnoconfig
	while read -r name value; do
		# kconfig drops what does not exist or has a dependency that is not met, without a word.
		found=$(sed -n "s/^$name=//p" "$build/.config")
		[ "${found:-n}" = "$value" ] || wrong+=" $name=$value (it is ${found:-not set})"
	done < <(wanted "$fragment")
	[ -z "$wrong" ] || refuse "these options of the debug kernel cannot be set so:$wrong. A dependency is missing or this Linux has no such option."
}

build() {
	local source=$1 build=$2
	make -C "$source" O="$build" "${MAKE_ARGS[@]}" -j"$(nproc)" vmlinux modules_prepare modules
}

shrink() {
	local source=$1 build=$2 vmlinux=$3
	# All sections that are loaded and the note with the PVH entry stay.
	llvm-strip --strip-all -o "$vmlinux.new" "$build/vmlinux"
	mv "$vmlinux.new" "$vmlinux"
	# Host programs and their parts stay; objects, archives and the records of their making are for another build of the kernel.
	find "$build" \( -path "$build/scripts" -o -path "$build/tools" \) -prune -o -type f \
		\( -name '*.o' -o -name '*.a' -o -name '.*.cmd' -o -name 'vmlinux*' -o -name System.map \) -print0 |
		xargs -0r rm -f
	find "$build" -depth -type d -empty -delete
	# `make -C BUILD M=...` then needs no further arguments, as with the distribution's header packages.
	{
		echo "# Made by ivshmem's scripts/kernel for the debug kernel"
		printf 'override %s\n' "${MAKE_ARGS[@]/=/ := }"
		echo "MAKEOVERRIDES += ${MAKE_ARGS[*]}"
		echo "export KBUILD_OUTPUT = $build"
		echo "include $source/Makefile"
	} >"$build/Makefile"
}

command=$1
shift
case $command in
configure) configure "$@" ;;
build) build "$@" ;;
shrink) shrink "$@" ;;
*)
	echo "debug-kernel-build.sh: unknown command $command"
	exit 2
	;;
esac
