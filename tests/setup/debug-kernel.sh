# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# The names of kernels, the debug kernel and the test layers with bad input. Sourced by run, after kernel.sh.
#
# The scratch cache `debug` borrows toolbox and source from the real one, and knows its stock kernel by the kernel.env alone.

# borrow_for_debug CACHE: makes the scratch cache CACHE, but for the source. The caller has called `borrow`.
borrow_for_debug() {
	local cache=$SCRATCH/$1 folder=${REAL_KERNEL##*/}
	mkdir -p "$cache"/{toolbox,linux-source,"kernel/$folder"}
	mount --bind "$REAL_CACHE/toolbox" "$cache/toolbox"
	mount -o remount,bind,ro "$cache/toolbox"
	cp "$REAL_KERNEL/kernel.env" "$cache/kernel/$folder/"
	echo "$RELEASE" >"$cache/kernel/selected-amd64"
}

# borrow_source: the source for the cache `debug`. A toolbox run does not see what is mounted in its cache, so it is a copy; of links, if
# the real cache is on the same file system.
borrow_source() {
	cp -al "$REAL_CACHE/linux-source/$VERSION" "$SCRATCH/debug/linux-source/" 2>/dev/null ||
		cp -a "$REAL_CACHE/linux-source/$VERSION" "$SCRATCH/debug/linux-source/"
}

# with_options TEXT...: the scratch cache `debug`, these lines as options of the debug kernel.
with_options() {
	printf '%s\n' "$@" >"$SCRATCH/options"
	run options env IVSHMEM_CACHE="$SCRATCH/debug" IVSHMEM_DEBUG_CONFIG="$SCRATCH/options" scripts/kernel build debug
}

# --- names -----------------------------------------------------------------------------------------------------------------

unknown_kernel() {
	local command
	for command in "kernel build" "kernel env" "kernel list" "modules" "with-kernels"; do
		# shellcheck disable=SC2086 # several words
		run name scripts/$command frob true
		failed && last_said name "unknown kernel 'frob': there are stock .*, debug, arm64 and arm64-16k" || return
	done
	run flavour env KERNEL_FLAVOUR=frob scripts/kernel env
	failed && last_said flavour "unknown KERNEL_FLAVOUR 'frob'"
}

# Targets that boot the stock kernel only, and another kernel asked of them; architectures that make does not know or need not be told.
kernel_that_is_not_taken() {
	local target
	for target in demo guest-shell bench mutants; do
		run taken make "$target" KERNEL=debug
		failed && said taken "^ivshmem: make $target always takes the stock kernel: leave KERNEL and ARCH out" || return
	done
	run arch make modules ARCH=riscv
	failed && said arch "ARCH=riscv: this is for x86_64 and arm64" || return
	run arch make -n modules ARCH=x86_64
	succeeded && expect "the stock kernel" grep -q "scripts/modules stock" "$SCRATCH/arch.out" || return
	run arch make -n modules ARCH=arm64
	succeeded && expect "that for arm64" grep -q "scripts/modules arm64" "$SCRATCH/arch.out"
}

# The results of the run that these tests are a part of must stay.
unknown_layer() {
	run layer scripts/test host frob
	failed && last_said layer "unknown layer 'frob': scripts/test knows build, .* and soak" || return
	run guest make test-guest KERNEL=frob
	failed && said guest "^ivshmem: unknown kernel 'frob': there are stock, debug, arm64 and arm64-16k" || return
	run jobs env TEST_JOBS=many scripts/test build
	failed && last_said jobs "TEST_JOBS=many: .*must be a number" || return
	expect "the report of this layer is still there" [ -e build/results/setup.tap ]
}

# --- options that do not come out --------------------------------------------------------------------------------------------

option_that_does_not_exist() {
	with_options CONFIG_64BIT=y CONFIG_NO_SUCH_THING=y
	failed && last_said options "cannot be set so: CONFIG_NO_SUCH_THING=y \(it is not set\)\. " || return
	expect "nothing was built" absent "$SCRATCH/debug/kernel/debug-*/build/rust/*.o"
}

option_with_unmet_dependency() {
	# Software tags need arm64.
	with_options CONFIG_64BIT=y CONFIG_KASAN=y CONFIG_KASAN_SW_TAGS=y CONFIG_PCI=y
	failed && last_said options "cannot be set so:.* CONFIG_KASAN_SW_TAGS=y \(it is not set\)" || return
	! said options "failed: .*CONFIG_(64BIT|PCI)" || complain "only those that cannot be set are named"
}

option_with_another_value() {
	with_options CONFIG_64BIT=y CONFIG_SMP=y CONFIG_NR_CPUS=99999999
	failed && last_said options "cannot be set so: CONFIG_NR_CPUS=99999999 \(it is [0-9]+\)"
}

line_that_is_no_option() {
	with_options CONFIG_64BIT=y "CONFIG PCI=y"
	failed && last_said options "line 2 of the debug kernel's options is neither a comment nor CONFIG_NAME=VALUE: CONFIG PCI=y"
}

options_missing() {
	run nooptions env IVSHMEM_DEBUG_CONFIG="$SCRATCH/none" scripts/kernel build debug
	failed && last_said nooptions "there is no file .*/none with options of the debug kernel"
}

# --- space, interruption -------------------------------------------------------------------------------------------------------

debug_disk_too_small() {
	mkdir -p "$SCRATCH/small"
	mount -t tmpfs -o size=12m tmpfs "$SCRATCH/small"
	borrow_for_debug small
	# The source is that of the cache `debug`: this path leads there from here and from inside the toolbox.
	ln -s "$PWD" "$SCRATCH/ivshmem"
	ln -s "../../ivshmem/build/setup/debug/linux-source/$VERSION" "$SCRATCH/small/linux-source/$VERSION"
	run small env IVSHMEM_CACHE="$SCRATCH/small" scripts/kernel build debug
	failed && last_said small "needs [0-9]+ MiB of free disk space.*has [0-9]+ MiB.*IVSHMEM_CACHE"
}

debug_disk_full() {
	run dfull env IVSHMEM_SKIP_SPACE_CHECK=1 IVSHMEM_CACHE="$SCRATCH/small" scripts/kernel build debug
	failed && last_said dfull "building the debug kernel failed: the disk .* is full .*IVSHMEM_CACHE.*it continues" || return
	expect "no kernel that a later run would trust" absent "$SCRATCH/small/kernel/debug-*/kernel.env"
}

# debug_stopped WORDS CONDITION...: Ctrl-C to a build of the real debug kernel when it says WORDS and CONDITION holds.
debug_stopped() {
	local words=$1
	shift
	start dstop env IVSHMEM_CACHE="$SCRATCH/debug" scripts/kernel build debug
	await "it says '$words'" said dstop "$words" && await "$*" "$@" || return
	kill -INT "$STARTED"
	finish dstop
	expect "status 130, not $STATUS" [ "$STATUS" = 130 ] && last_said dstop "interrupted.*run the same command again" || return
	await "no process is left" nobody "$SCRATCH/debug" || return
	expect "no kernel that a later run would trust" absent "$SCRATCH/debug/kernel/debug-*/kernel.env"
}

in_debug_log() { grep -qE -- "$1" "$SCRATCH/debug/log/kernel-debug.log"; }

# What the first steps of the debug kernel's build have made, told from one that is made again.
first_made() { stat -c '%i %Y' "$SCRATCH"/debug/kernel/debug-*/build/scripts/basic/fixdep; }

interrupted_debug_build_continues() {
	local made
	debug_stopped "building the debug kernel" in_debug_log "^ +RUSTC" || return
	made=$(first_made) || complain "what the first run made" || return
	debug_stopped "building the debug kernel" in_debug_log "^ +(RUSTC|CC) +rust/" || return
	# Not of what depends on the configuration, which make may look at again.
	expect "what is made already is not made again" [ "$made" = "$(first_made)" ]
}

# Nobody else would ever remove it.
unfinished_build_of_other_options_goes() {
	local other=$SCRATCH/debug/kernel/debug-0123456789abcdef
	mkdir -p "$other/build"
	with_options "CONFIG PCI=y"
	expect "no folder of an unfinished build with other options" absent "$other"
}

debug_tests() {
	# bad input: a kernel of unknown name for any of the scripts => one sentence that names the kernels there are
	tap_test "a kernel of unknown name: one sentence from each script" unknown_kernel
	# bad input: another kernel for `make demo`, `guest-shell`, `bench`, `mutants`; an `ARCH` that is none of ours => one sentence, nothing is built
	tap_test "KERNEL= of a target that takes the stock kernel, and an unknown ARCH: one sentence" kernel_that_is_not_taken
	# bad input: a test layer or `KERNEL=` that does not exist => one sentence; no test runs, no result is removed
	tap_test "a test layer of unknown name: one sentence, nothing is run or removed" unknown_layer
	[ -n "${RELEASE:-}" ] || return 0
	borrow_for_debug debug
	tap_test "the kernel's source for these tests is there" borrow_source || return 0
	# bad input: an option of the debug kernel that Linux does not have => named before anything is built
	tap_test "debug kernel: an option that Linux does not have is named" option_that_does_not_exist
	# bad input: an option of the debug kernel whose dependency is not met => named
	tap_test "debug kernel: an option whose dependency is not met is named, and only that" option_with_unmet_dependency
	# bad input: an option of the debug kernel that comes out with another value => named with that value
	tap_test "debug kernel: an option that comes out with another value is named, with that value" option_with_another_value
	# bad input: a line in its options that is none => shown with its number
	tap_test "debug kernel: a line that is no option is shown" line_that_is_no_option
	# bad input: no file of options => one sentence
	tap_test "debug kernel: no file of options: one sentence" options_missing
	# bad input: a disk too small for the debug kernel => refused before anything is built
	tap_test "debug kernel: disk full: refused before anything is built (small tmpfs)" debug_disk_too_small
	# bad input: a disk that becomes full while the debug kernel is built => one sentence; nothing that could be trusted
	tap_test "debug kernel: disk full while it is built: one sentence" debug_disk_full
	# bad input: Ctrl-C while the debug kernel is built => nothing that could be trusted; the next run continues
	tap_test "debug kernel: Ctrl-C while it is built leaves nothing to trust, the next run continues" interrupted_debug_build_continues
	tap_test "debug kernel: an unfinished build of other options is removed" unfinished_build_of_other_options_goes
}
