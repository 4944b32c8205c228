#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The steps that turn a kernel's source and the distribution's packages of the same version into a tree against which Rust
# modules for exactly that kernel are built. Called by scripts/kernel, inside the toolbox or on the user's own machine.
#
#   kernel-tree.sh compilers CONFIG                           are the compilers here those of CONFIG?
#   kernel-tree.sh unpack-source DEB NAME SOURCE              unpacks the package linux-source-X.Y to the folder SOURCE
#   kernel-tree.sh configure SOURCE BUILD PACKAGE RELEASE     makes BUILD/.config and compares it
#   kernel-tree.sh prepare SOURCE BUILD PACKAGE RELEASE       builds headers, bindings, Rust crates; adds Module.symvers
#   kernel-tree.sh check BUILD PACKAGE IMAGE                  does the result fit the kernel? IMAGE has its BTF
#   kernel-tree.sh unpack-image VMLINUZ VMLINUX               the image without compression (VMLINUX may equal VMLINUZ)
#
# PACKAGE is a folder with `config` and `Module.symvers` of the header package. What does not fit ends with status 3 and a line
# "refused: ...", one sentence that names what was found and what is supported.
set -euo pipefail
export LC_ALL=C.UTF-8
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source-path=SCRIPTDIR source=supported-kernels.sh
. "$here/supported-kernels.sh"

refuse() {
	echo "refused: $*"
	exit 3
}

# option CONFIG NAME: the value of an option, without quotes.
option() { sed -nE "s/^CONFIG_$2=\"?([^\"]*)\"?\$/\\1/p" "$1"; }

# tools CONFIG: sets MAKE_ARGS for the architecture and C compiler that CONFIG names.
tools() {
	local cc arch
	cc=$(option "$1" CC_VERSION_TEXT)
	cc=${cc%% *}
	arch=$(sed -nE 's/^# Linux\/([a-z0-9_]+) .*/\1/p' "$1" | head -n 1)
	MAKE_ARGS=("ARCH=${arch/x86_64/x86}" "CC=$cc" "CROSS_COMPILE=${cc%gcc-*}")
}

# compare_tool CONFIG OPTION FOUND WORDS: refuses if a tool is not the one that built the kernel.
compare_tool() {
	local built
	built=$(option "$1" "$2")
	[ "$built" = "$3" ] || refuse "the kernel was built by $4 '$built', here is '${3:-none}': only the very same one" \
		"reproduces its Rust metadata."
}

compilers() {
	local config=$1 text gcc
	[ "$(option "$config" RUST)" = y ] ||
		refuse "this kernel is built without CONFIG_RUST: Rust modules need a kernel that has it, Debian's since 7.2."
	compare_tool "$config" RUSTC_VERSION_TEXT "$(rustc --version 2>/dev/null)" "the Rust compiler"
	compare_tool "$config" BINDGEN_VERSION_TEXT "$(bindgen --version 2>/dev/null)" "the tool"
	text=$(option "$config" CC_VERSION_TEXT)
	gcc=$("${text%% *}" --version 2>/dev/null | head -n 1) || true
	compare_tool "$config" CC_VERSION_TEXT "$gcc" "the C compiler"
}

unpack_source() {
	dpkg-deb --fsys-tarfile "$1" | tar -xO "./usr/src/$2.tar.xz" | tar -xJ --strip-components=1 -C "$3"
	[ -e "$3/Makefile" ]
}

configure() {
	local source=$1 build=$2 package=$3 release=$4 version different
	version=$(make -s -C "$source" kernelversion)
	[ "${release%%[+-]*}" = "$version" ] || refuse "the source is of Linux $version, the kernel is $release: they must be the same."
	tools "$package/config"
	mkdir -p "$build"
	cp "$package/config" "$build/.config"
	make -C "$source" O="$build" "${MAKE_ARGS[@]}" LOCALVERSION="${release#"$version"}" olddefconfig
	different=$(
		diff <(settings "$package/config") <(settings "$build/.config") | sed -nE 's/^[<>] //p' |
			grep -vE "^CONFIG_($HARMLESS_OPTIONS)[= ]" || true
	)
	[ -z "$different" ] || refuse "the configuration is not the kernel's, these options change with the tools here:" \
		"$(echo "$different" | sed 's/[= ].*//' | sort -u | paste -sd ' ')."
}

# settings CONFIG: one comparable line for each option.
settings() { sed -nE 's/^# (CONFIG_[A-Za-z0-9_]+) is not set$/\1 n/p; s/^(CONFIG_[A-Za-z0-9_]+)=/\1 /p' "$1" | sort; }

prepare() {
	local source=$1 build=$2 package=$3 release=$4 made
	tools "$package/config"
	make -C "$source" O="$build" "${MAKE_ARGS[@]}" LOCALVERSION="${release#"$(make -s -C "$source" kernelversion)"}" -j"$(nproc)" \
		prepare modules_prepare
	made=$(cat "$build/include/config/kernel.release")
	[ "$made" = "$release" ] || refuse "the tree is of release $made, the kernel is $release: modules would not load."
	cp "$package/Module.symvers" "$build/Module.symvers"
	# `make -C BUILD M=...` then needs no further arguments, as with the distribution's header packages. MAKEOVERRIDES reaches
	# the kernel's own sub-makes.
	{
		echo "# Made by ivshmem's scripts/kernel for $release"
		printf 'override %s\n' "${MAKE_ARGS[@]/=/ := }"
		echo "MAKEOVERRIDES += ${MAKE_ARGS[*]}"
		echo "export KBUILD_OUTPUT = $build"
		echo "include $source/Makefile"
	} >"$build/Makefile"
}

check() {
	local build=$1 package=$2 image=$3 built shipped
	built=$(cat "$build"/rust/exports_*_generated.h | sed -nE 's/.*EXPORT_SYMBOL_RUST_GPL\((_R[A-Za-z0-9_]+)\).*/\1/p' | sort -u)
	shipped=$(awk -F '\t' '$2 ~ /^_R/ && $3 == "vmlinux" { print $2 }' "$package/Module.symvers" | sort -u)
	[ -n "$built" ] && [ "$built" = "$shipped" ] || refuse "the rebuilt Rust metadata does not fit the kernel:" \
		"$(echo "$built" | grep -c .) symbols here, $(echo "$shipped" | grep -c .) in its Module.symvers," \
		"$(comm -3 <(echo "$built") <(echo "$shipped") | grep -c .) differ."
	echo "$(echo "$built" | grep -c .) exported Rust symbols are those of the kernel"
	check_layouts "$build" "$image"
}

check_layouts() {
	local build=$1 image=$2 probe name differ=''
	probe=$(mktemp -d)
	# shellcheck disable=SC2064 # now, not later
	trap "rm -rf '$probe'" EXIT
	cp "$here/layout-probe.c" "$probe/probe.c"
	echo 'obj-m := probe.o' >"$probe/Kbuild"
	make -C "$build" M="$probe" probe.o
	pahole --btf_features=default -J "$probe/probe.o" 2>/dev/null
	python3 "$here/btf-extract.py" "$image" "$probe/image.btf" ||
		refuse "the kernel image has no BTF: without it the layout of its structures cannot be checked."
	for name in ${LAYOUTS//,/ }; do
		# With all nested types expanded; names of types and members, offsets and sizes are in the text.
		pahole -F btf -E -C "$name" "$probe/probe.o" >"$probe/ours" 2>/dev/null || true
		pahole -F btf -E -C "$name" "$probe/image.btf" >"$probe/kernels" 2>/dev/null || true
		[ -s "$probe/ours" ] && cmp -s "$probe/ours" "$probe/kernels" || differ+=" $name"
	done
	[ -z "$differ" ] || refuse "the layout of these structures is not the kernel's:$differ (compared with the BTF of its image)."
	echo "the layouts of ${LAYOUTS//,/, } are those of the kernel"
}

# unpack-image: the kernel image holds its real self in one compressed piece; an arm64 Image may be plain.
unpack_image() {
	local from=$1 to=$2
	[ "$(file_magic "$from" 0 2)" = 4d5a ] && [ "$(file_magic "$from" 56 4)" = 41524d64 ] && {
		cp "$from" "$to"
		return
	}
	try_unpack "$from" "$to" '\x28\xb5\x2f\xfd' zstd -dcq && return
	try_unpack "$from" "$to" '\xfd7zXZ\x00' xz -dcq && return
	try_unpack "$from" "$to" '\x1f\x8b\x08' gzip -dcq && return
	refuse "the kernel image $from is compressed in a way that this script does not know (it knows zstd, xz and gzip)."
}

file_magic() { od -An -tx1 -j "$2" -N "$3" "$1" | tr -d ' \n'; }

# try_unpack FROM TO MAGIC CMD...: CMD unpacks what begins at one of the places of MAGIC, if the result is an ELF file.
try_unpack() {
	local from=$1 to=$2 magic=$3 at
	shift 3
	while read -r at; do
		# What follows the compressed piece makes the tools complain; the ELF header decides.
		tail -c "+$((at + 1))" "$from" | "$@" >"$to" 2>/dev/null || true
		[ "$(file_magic "$to" 0 4)" != 7f454c46 ] || return 0
	done < <(LC_ALL=C grep -obUaP "$magic" "$from" | cut -d : -f 1)
	return 1
}

command=$1
shift
case $command in
compilers) compilers "$@" ;;
unpack-source) unpack_source "$@" ;;
configure) configure "$@" ;;
prepare) prepare "$@" ;;
check) check "$@" ;;
unpack-image) unpack_image "$@" ;;
*)
	echo "kernel-tree.sh: unknown command $command"
	exit 2
	;;
esac
