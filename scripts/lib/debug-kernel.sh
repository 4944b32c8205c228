# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# The debug kernel in the cache: kernel/debug-KEY/, built from the source of the selected stock kernel by debug-kernel-build.sh with
# the options of debug-kernel.config. Sourced by scripts/kernel, whose functions it uses.
#
# The finished kernel is known by its kernel.env, written last. A folder without one is an interrupted build, and is continued.

# The options; another file for the tests of the set-up.
DEBUG_CONFIG=${IVSHMEM_DEBUG_CONFIG:-$SCRIPTS/lib/debug-kernel.config}

# debug_key VERSION: what a debug kernel depends on: source, options, compilers of the toolbox, and how it is made (raise the number with
# what debug-kernel-build.sh makes).
debug_key() {
	local root
	root=$("$SCRIPTS/toolbox" path) || exit
	{
		echo "layout 1 $1"
		grep -E '^(rustc|rust-src|bindgen|clang-[0-9]+|lld-[0-9]+|llvm-[0-9]+|libclang-common-[0-9]+-dev|libc6-dev|libelf-dev) ' "$root/.packages"
		grep -v '^#' "$DEBUG_CONFIG"
	} | sha256sum | cut -c 1-16
}

# ensure_debug: sets DIR to the debug kernel of the selected stock kernel's source.
ensure_debug() {
	local version
	[ -r "$DEBUG_CONFIG" ] || die "there is no file $DEBUG_CONFIG with options of the debug kernel (IVSHMEM_DEBUG_CONFIG names it)."
	ensure stock
	version=$(value "$DIR/kernel.env" KERNEL_VERSION)
	DIR=$CACHE/kernel/debug-$(debug_key "$version")
	[ ! -e "$DIR/kernel.env" ] || return 0
	lock kernel-debug "the debug kernel"
	[ -e "$DIR/kernel.env" ] || make_debug "$version"
	unlock kernel-debug
}

# make_debug VERSION: everything of the debug kernel in DIR. The caller holds the lock.
make_debug() {
	local version=$1 other here release
	for other in "$CACHE"/kernel/debug-*; do
		# An unfinished build of other options or compilers.
		[ "$other" = "$DIR" ] || [ -e "$other/kernel.env" ] || remove "$other"
	done
	# What a build wrote before the machine went down may not have reached the disk whole.
	here=$(cat /proc/sys/kernel/random/boot_id)
	[ "$(cat "$DIR/boot" 2>/dev/null)" = "$here" ] || remove "$DIR"
	mkdir -p "$DIR" 2>/dev/null && echo "$here" >"$DIR/boot" && cp "$DEBUG_CONFIG" "$DIR/options" || die "$(words_disk_full)"
	[ -e "$CACHE/linux-source/$version" ] || look_up amd64
	source_tree "$version"
	[ -e "$DIR/built" ] || build_debug "$version"
	step kernel-debug "taking from the debug kernel what is needed" "2 s" \
		"${DEBUG_BUILD[@]}" shrink "$(seen "$SOURCE")" "$(seen "$DIR/build")" "$(seen "$DIR/vmlinux")"
	release=$(cat "$DIR/build/include/config/kernel.release")
	sync -f "$DIR"
	rm -f "$DIR/boot" "$DIR/built"
	publish debug "$release" "$version" amd64 "${DIR##*-}" "$DIR"
	say "debug kernel $release: $(du -sm "$DIR" | cut -f 1) MiB in $DIR"
}

build_debug() {
	need_space 1500 "building the debug kernel"
	step kernel-debug "configuring the debug kernel of Linux $1" "10 s" \
		"${DEBUG_BUILD[@]}" configure "$(seen "$SOURCE")" "$(seen "$DIR/build")" "$(seen "$DIR/options")"
	step kernel-debug "building the debug kernel" "15 to 40 min" \
		"${DEBUG_BUILD[@]}" build "$(seen "$SOURCE")" "$(seen "$DIR/build")"
	: >"$DIR/built"
}

DEBUG_BUILD=("$SCRIPTS/toolbox" run /ivshmem/scripts/lib/debug-kernel-build.sh)
