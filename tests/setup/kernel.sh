# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# scripts/kernel and scripts/modules with bad input: what is refused, and interrupted runs. Sourced by run.
#
# Kernel trees are big, so the scratch cache `kernel` borrows the real cache's toolbox (read-only); what these tests break is
# a copy.

REAL_CACHE=${IVSHMEM_CACHE:-${HOME:-/root}/.cache/ivshmem}

# borrow_real: the same as a result; without it most tests cannot be.
borrow_real() {
	tap_test "the toolbox and the stock kernel of these tests are there" borrow && borrow >/dev/null 2>&1
}

# borrow: the scratch cache with the real toolbox in it, and the facts about the real kernel.
borrow() {
	local real
	scripts/kernel build amd64 || return
	real=$(scripts/kernel path amd64) || return
	REAL_KERNEL=$REAL_CACHE/kernel/${real##*/}
	RELEASE=$(sed -n 's/^KERNEL_RELEASE=//p' "$REAL_KERNEL/kernel.env")
	VERSION=$(sed -n 's/^KERNEL_VERSION=//p' "$REAL_KERNEL/kernel.env")
	mkdir -p "$SCRATCH/kernel/toolbox"
	mount --bind "$REAL_CACHE/toolbox" "$SCRATCH/kernel/toolbox"
	mount -o remount,bind,ro "$SCRATCH/kernel/toolbox"
}

in_kernel_cache() { IVSHMEM_CACHE=$SCRATCH/kernel "$@"; }

# --- what the archive has --------------------------------------------------------------------------------------------

kernel_archive_unreachable() {
	run kdown in_kernel_cache env IVSHMEM_MIRROR="$NOWHERE" scripts/kernel build amd64
	failed && last_said kdown "archive cannot be reached .*127\.0\.0\.1:9.*run the same command again" || return
	expect "no tree" absent "$SCRATCH/kernel/kernel/*/kernel.env"
}

kernel_needs_no_network_twice() {
	run koffline env IVSHMEM_MIRROR="$NOWHERE" scripts/kernel env amd64
	succeeded && expect "the kernel" grep -qx "KERNEL_RELEASE=$RELEASE" "$SCRATCH/koffline.out"
}

no_supported_kernel() {
	run unsupported in_kernel_cache env IVSHMEM_SUPPORTED_SERIES=9.9 scripts/modules amd64
	failed && last_said unsupported "no supported kernel for amd64: found .*7\.3.*, supported is 9\.9" || return
	expect "no source was fetched" absent "$SCRATCH/kernel/linux-source/*" &&
		expect "nothing was built" absent "$SCRATCH/kernel/kernel/*/build"
}

# The series that the module was written for is no longer supported, but its tree is there.
supported_series_moved_on() {
	run moved in_kernel_cache env IVSHMEM_SUPPORTED_SERIES=9.9 scripts/kernel supported "$RELEASE"
	failed && last_said moved "is not supported: .*Linux 9\.9"
}

no_tree_for_module() {
	mkdir -p "$SCRATCH/notree/include/config"
	run notree env KDIR="$SCRATCH/notree" scripts/modules
	failed && last_said notree "is no prepared kernel tree.*kernel-tree" || return
	echo "$RELEASE" >"$SCRATCH/notree/include/config/kernel.release"
	run nometa env KDIR="$SCRATCH/notree" scripts/modules
	failed && last_said nometa "has no Rust metadata.*kernel-tree" || return
	mkdir "$SCRATCH/notree/rust"
	touch "$SCRATCH/notree/rust/libkernel.rmeta"
	echo 6.12.5-amd64 >"$SCRATCH/notree/include/config/kernel.release"
	run oldtree env KDIR="$SCRATCH/notree" scripts/modules
	failed && last_said oldtree "kernel 6\.12\.5-amd64 is not supported"
}

no_rust_compiler() {
	# The small toolbox of the tests has none.
	run norust small down scripts/kernel build amd64
	failed && last_said norust "no supported kernel fits the toolbox: .*built by the Rust compiler 'rustc .*', here is 'none'" || return
	expect "no source was fetched" absent "$SCRATCH/down/linux-source/*"
}

# --- what does not fit -----------------------------------------------------------------------------------------------

# tree NAME COMMAND ARGUMENT...: kernel-tree.sh in the real toolbox; the scratch folder is /ivshmem/build/setup there.
tree() {
	local name=$1
	shift
	run "$name" scripts/toolbox run scripts/lib/kernel-tree.sh "$@"
}

# refused NAME REGEX
refused() {
	expect "status 3, not $STATUS" [ "$STATUS" = 3 ] && grep -qE "^refused: .*$2" "$SCRATCH/$1.out" || {
		tail -n 3 "$SCRATCH/$1.out"
		complain "a refusal: $2"
	}
}

# fresh_package: a copy of what the header package has, to be spoilt.
fresh_package() {
	rm -rf "$SCRATCH/package"
	mkdir "$SCRATCH/package"
	cp "$REAL_KERNEL/package/"{config,Module.symvers} "$SCRATCH/package/"
}

wrong_rustc() {
	fresh_package
	sed -i 's/^CONFIG_RUSTC_VERSION_TEXT=.*/CONFIG_RUSTC_VERSION_TEXT="rustc 1.99.0 (of tomorrow)"/' "$SCRATCH/package/config"
	tree rustc compilers build/setup/package/config
	refused rustc "built by the Rust compiler 'rustc 1\.99\.0 \(of tomorrow\)', here is 'rustc 1\."
}

wrong_gcc() {
	fresh_package
	sed -i 's/^CONFIG_CC_VERSION_TEXT=.*/CONFIG_CC_VERSION_TEXT="x86_64-linux-gnu-gcc-99 (Debian 99.1.0-1) 99.1.0"/' "$SCRATCH/package/config"
	tree gcc compilers build/setup/package/config
	refused gcc "built by the C compiler 'x86_64-linux-gnu-gcc-99 .*', here is 'none'"
}

wrong_bindgen() {
	fresh_package
	sed -i 's/^CONFIG_BINDGEN_VERSION_TEXT=.*/CONFIG_BINDGEN_VERSION_TEXT="bindgen 9.9.9"/' "$SCRATCH/package/config"
	tree bindgen compilers build/setup/package/config
	refused bindgen "built by the tool 'bindgen 9\.9\.9', here is 'bindgen 0"
}

kernel_without_rust() {
	fresh_package
	sed -i 's/^CONFIG_RUST=y/# CONFIG_RUST is not set/' "$SCRATCH/package/config"
	tree norustconfig compilers build/setup/package/config
	refused norustconfig "built without CONFIG_RUST"
}

right_compilers() {
	fresh_package
	tree right compilers build/setup/package/config
	succeeded
}

wrong_source() {
	fresh_package
	tree source configure "/cache/linux-source/$VERSION" build/setup/obj build/setup/package 7.3.99+deb13-amd64
	refused source "source is of Linux [0-9.]+, the kernel is 7\.3\.99\+deb13-amd64"
}

wrong_config() {
	fresh_package
	echo "CONFIG_NO_SUCH_THING=y" >>"$SCRATCH/package/config"
	tree config configure "/cache/linux-source/$VERSION" /ivshmem/build/setup/obj build/setup/package "$RELEASE"
	refused config "configuration is not the kernel's.*: CONFIG_NO_SUCH_THING\."
}

# check NAME [BUILD [IMAGE]]: the check of a finished tree against the spoilt package.
check() { tree "$1" check "${2:-/cache/kernel/${REAL_KERNEL##*/}/build}" build/setup/package "${3:-/cache/kernel/${REAL_KERNEL##*/}/vmlinux}"; }

right_metadata() {
	fresh_package
	check fits
	succeeded && expect "what was compared" grep -q "exported Rust symbols are those of the kernel" "$SCRATCH/fits.out"
}

symbol_missing() {
	fresh_package
	sed -i '0,/\t_R[A-Za-z0-9_]*\tvmlinux\t/{/\t_R[A-Za-z0-9_]*\tvmlinux\t/d}' "$SCRATCH/package/Module.symvers"
	check missing
	refused missing "metadata does not fit the kernel: ([0-9]+) symbols here, [0-9]+ in its Module\.symvers, 1 differ"
}

# The same number of symbols, another crate hash.
symbol_differs() {
	fresh_package
	sed -i '0,/\t_R/s/\t_R/\t_R0/' "$SCRATCH/package/Module.symvers"
	check differs
	refused differs "metadata does not fit the kernel: .*, 2 differ"
}

btf_differs() {
	fresh_package
	# One member of struct device has another name in the image.
	LC_ALL=C sed 's/\x00dma_coherent\x00/\x00dma_coherenz\x00/g; s/\x00dma_range_map\x00/\x00dma_range_maq\x00/g' \
		"$REAL_KERNEL/vmlinux" >"$SCRATCH/vmlinux"
	! cmp -s "$SCRATCH/vmlinux" "$REAL_KERNEL/vmlinux" || complain "a change in the image" || return
	check btf "" build/setup/vmlinux
	refused btf "layout of these structures is not the kernel's: device pci_dev "
}

btf_missing() {
	fresh_package
	head -c 1000000 "$REAL_KERNEL/vmlinux" >"$SCRATCH/vmlinux"
	check nobtf "" build/setup/vmlinux
	refused nobtf "image has no BTF"
}

# A tree of another configuration: same symbols, another struct device.
layout_differs() {
	local build=$SCRATCH/obj
	fresh_package
	rm -rf "$build"
	cp -al "$REAL_KERNEL/build" "$build"
	sed -i "s,^export KBUILD_OUTPUT = .*,export KBUILD_OUTPUT = /ivshmem/build/setup/obj," "$build/Makefile"
	sed -i '/CONFIG_NUMA /d' "$build/include/generated/autoconf.h"
	cmp -s "$REAL_KERNEL/build/include/generated/autoconf.h" "$build/include/generated/autoconf.h" &&
		{ complain "a change of the copy only" || return; }
	check layout /ivshmem/build/setup/obj
	refused layout "layout of these structures is not the kernel's:.* device"
}

# --- interrupted runs ------------------------------------------------------------------------------------------------

# kernel_stopped WORDS CONDITION...: Ctrl-C to a run in the scratch cache when it says WORDS and CONDITION holds.
kernel_stopped() {
	local words=$1
	shift
	start kstop env IVSHMEM_CACHE="$SCRATCH/kernel" scripts/kernel build amd64
	await "it says '$words'" said kstop "$words" && await "$*" "$@" || return
	kill -INT "$STARTED"
	finish kstop
	expect "status 130, not $STATUS" [ "$STATUS" = 130 ] && last_said kstop "interrupted.*run the same command again" || return
	await "no process is left" nobody "$SCRATCH/kernel" || return
	expect "no kernel that a later run would trust" absent "$SCRATCH/kernel/kernel/$RELEASE.*/kernel.env"
}

source_is_whole_or_absent() {
	kernel_stopped "unpacking the kernel source" exists "$SCRATCH/kernel/linux-source/*.new/MAINTAINERS" || return
	expect "no source" absent "$SCRATCH/kernel/linux-source/$VERSION"
}

# The second run has the source already, and goes on to the step at which the first was stopped.
interrupted_run_continues() {
	kernel_stopped "rebuilding the Rust metadata" exists "$SCRATCH/kernel/kernel/$RELEASE.*/build/include/generated/autoconf.h" || return
	expect "the source whole" exists "$SCRATCH/kernel/linux-source/$VERSION/MAINTAINERS" || return
	expect "no remains" absent "$SCRATCH/kernel/linux-source/*.new" || return
	kernel_stopped "rebuilding the Rust metadata" true || return
	! said kstop "unpacking the kernel source" || complain "that the source is not unpacked again"
}

# Another checkout makes its trees in another way, and may be building against this one.
tree_of_another_checkout_stays() {
	local kernels=$SCRATCH/kernel/kernel
	mkdir -p "$kernels/$RELEASE" "$kernels/$RELEASE.0123456789abcdef/build"
	sed 's/^KERNEL_KEY=.*/KERNEL_KEY=0/' "$REAL_KERNEL/kernel.env" >"$kernels/$RELEASE/kernel.env"
	echo "$RELEASE" >"$kernels/selected-amd64"
	kernel_stopped "configuring Linux" true || return
	expect "the other's tree" exists "$kernels/$RELEASE/kernel.env" || return
	expect "no tree that a dead run of another has left" absent "$kernels/$RELEASE.0123456789abcdef"
}

# --- a user's own machine --------------------------------------------------------------------------------------------

# In the toolbox root, which is a Debian 13 with the right packages, as an ordinary user would do it. Like all kernels the tree stays in the
# cache, until it would be made in another way.
own_tree_builds_modules() {
	local kdir key
	key=$(cat scripts/kernel scripts/lib/{kernel-tree.sh,supported-kernels.sh,btf-extract.py,layout-probe.c} "$(scripts/toolbox path)/.packages" | sha256sum)
	key=${key:0:16}
	mkdir -p "$REAL_CACHE/own/$key"
	ln -sfnT /cache/linux-source "$REAL_CACHE/own/$key/linux-source"
	run own scripts/toolbox run env IVSHMEM_CACHE="/cache/own/$key" scripts/kernel tree "$RELEASE"
	succeeded || return
	kdir=$(cat "$SCRATCH/own.out")
	run ownmodule scripts/toolbox run env KDIR="$kdir" MODULE_OUT=build/setup/module scripts/modules
	succeeded && expect "a module for $RELEASE" grep -q "vermagic=$RELEASE SMP" "$SCRATCH/module/ivshmem.ko"
}

# In the cache of this run, where the programs have been built.
crates_are_compiled_once() {
	local second=$SCRATCH/second-checkout
	mkdir -p "$second"
	scripts/user amd64 || return
	scripts/tracked-files | xargs -d '\n' cp --parents -t "$second" || return
	run crates "$second/scripts/toolbox" run cargo build --release --locked --offline -v --target x86_64-unknown-linux-gnu -p clap_builder -p serde_json
	succeeded && expect "crates that are there" grep -q "Fresh serde_json " "$SCRATCH/crates.said" || return
	expect "none is compiled" [ "$(grep -c 'Compiling' "$SCRATCH/crates.said")" = 0 ]
}

kernel_tests() {
	[ -n "${RELEASE:-}" ] || return 0
	# bad input: a kernel from an archive that cannot be reached => one sentence
	tap_test "kernel: unreachable archive: one sentence" kernel_archive_unreachable
	tap_test "kernel: no network: a tree that is there needs none" kernel_needs_no_network_twice
	# bad input: no supported kernel in the archive => refused before anything is built, naming what was found and what is supported
	tap_test "no supported kernel in the archive: refused before anything is built, naming found and supported" no_supported_kernel
	# bad input: a kernel that is no longer supported => refused
	tap_test "a kernel that is no longer supported is refused" supported_series_moved_on
	# bad input: `KDIR` that is no tree, has no Rust metadata, or is of another kernel => one sentence each
	tap_test "KDIR that is no tree, has no metadata, is of an unsupported kernel: one sentence each" no_tree_for_module
	# bad input: no Rust compiler => refused, naming what was found and what is needed
	tap_test "no Rust compiler in the toolbox: refused, naming found and needed" no_rust_compiler
	tap_test "the right compilers are accepted" right_compilers
	# bad input: another rustc than the kernel's => refused, naming both
	tap_test "wrong rustc: refused, naming both" wrong_rustc
	# bad input: another gcc => refused, naming both
	tap_test "wrong gcc: refused, naming both" wrong_gcc
	# bad input: another bindgen => refused, naming both
	tap_test "wrong bindgen: refused, naming both" wrong_bindgen
	# bad input: a kernel without `CONFIG_RUST` => refused
	tap_test "a kernel without CONFIG_RUST is refused" kernel_without_rust
	# bad input: source of another version than the headers => refused
	tap_test "source of another version is refused" wrong_source
	# bad input: metadata made with another configuration => refused, naming the option
	tap_test "metadata does not fit: another .config is refused, naming the option" wrong_config
	tap_test "metadata that fits is accepted" right_metadata
	# bad input: a Rust symbol that the kernel does not have => refused, naming it
	tap_test "metadata does not fit: a Rust symbol missing in Module.symvers" symbol_missing
	# bad input: a Rust symbol with another hash => refused, naming it
	tap_test "metadata does not fit: a Rust symbol with another hash" symbol_differs
	# bad input: a structure that differs in the image => refused, naming it
	tap_test "metadata does not fit: a structure differs in the image's BTF" btf_differs
	# bad input: a structure that differs in the tree => refused, naming it
	tap_test "metadata does not fit: a structure differs in the tree" layout_differs
	# bad input: an image without BTF => refused
	tap_test "an image without BTF is refused" btf_missing
	# bad input: Ctrl-C while the kernel's source is unpacked => no half source is left
	tap_test "Ctrl-C while the source is unpacked leaves no source" source_is_whole_or_absent
	# bad input: Ctrl-C while the metadata is rebuilt => nothing that could be trusted; the next run continues
	tap_test "Ctrl-C while the metadata is rebuilt leaves nothing to trust, the next run continues" interrupted_run_continues
	tap_test "a kernel tree that another checkout has made stays, also for another one's" tree_of_another_checkout_stays
	tap_test "a second checkout compiles no crate again that the first has compiled" crates_are_compiled_once
	tap_test "a Debian 13 machine's own tools: kernel-tree, then modules KDIR=" own_tree_builds_modules
}
