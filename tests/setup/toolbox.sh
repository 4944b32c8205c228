# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# scripts/toolbox with bad input, with the small recipe (recipe.sh). Sourced by run.

unreachable_archive() {
	run down small down env IVSHMEM_MIRROR="$NOWHERE" scripts/toolbox
	failed && last_said down "archive cannot be reached .*127\.0\.0\.1:9.*run the same command again" || return
	expect "no toolbox" absent "$SCRATCH/down/toolbox/*" || return
	run up small down scripts/toolbox run busybox echo works
	succeeded && expect "a toolbox that works" grep -qx works "$SCRATCH/up.out"
}

no_archive_in_configuration() {
	mkdir -p "$SCRATCH/empty"
	cat >"$SCRATCH/empty.conf" <<-END
		Dir::Etc::sourcelist "$SCRATCH/empty/none.list";
		Dir::Etc::sourceparts "$SCRATCH/empty";
	END
	run noconf small noconf env APT_CONFIG="$SCRATCH/empty.conf" scripts/toolbox
	failed && last_said noconf "names no Debian archive.*IVSHMEM_MIRROR"
}

complete_cache_needs_no_network() {
	run offline small down env IVSHMEM_MIRROR="$NOWHERE" scripts/toolbox run busybox echo works
	succeeded && expect "a toolbox that works" grep -qx works "$SCRATCH/offline.out"
}

wrong_signature() {
	# An archive that answers, but whose key is not known: an empty keyring.
	: >"$SCRATCH/nokeys.gpg"
	run unsigned small unsigned env IVSHMEM_KEYRING="$SCRATCH/nokeys.gpg" scripts/toolbox
	failed && last_said unsigned "archive's signature or checksum.*run the same command again"
}

disk_too_small() {
	mkdir -p "$SCRATCH/tiny"
	mount -t tmpfs -o size=50m tmpfs "$SCRATCH/tiny"
	run tiny small tiny scripts/toolbox
	failed && last_said tiny "needs [0-9]+ MiB of free disk space.*has [0-9]+ MiB.*IVSHMEM_CACHE" || return
	expect "nothing downloaded" absent "$SCRATCH/tiny/debs/*.deb"
}

# The disk becomes full in the middle: at the indexes, at the packages, then at the root; more room, and the next run continues.
disk_full_at() {
	local size=$1 step=$2
	mount -o "remount,size=$size" "$SCRATCH/tiny"
	run "full$size" small tiny env IVSHMEM_SKIP_SPACE_CHECK=1 scripts/toolbox
	failed && last_said "full$size" "$step failed: the disk .* is full .*IVSHMEM_CACHE.*it continues" || return
	expect "no toolbox" absent "$SCRATCH/tiny/toolbox/*/.complete"
}

disk_has_room_again() {
	local deb
	mount -o remount,size=2g "$SCRATCH/tiny"
	# For the next test.
	deb=$(compgen -G "$SCRATCH/tiny/debs/busybox-static_*.deb") && truncate -s 1000 "$deb" || complain "a package to cut short" || return
	run room small tiny scripts/toolbox run busybox echo works
	succeeded && expect "a toolbox that works" grep -qx works "$SCRATCH/room.out"
}

# A package that an interrupted download left short has been fetched again.
short_package_is_not_trusted() {
	local deb
	deb=$(compgen -G "$SCRATCH/tiny/debs/busybox-static_*.deb")
	expect "a whole package" cmp "$deb" "$SCRATCH/down/debs/${deb##*/}"
	umount "$SCRATCH/tiny"
}

# stopped SIGNAL WORDS CONDITION...: a run in the cache `stop` gets SIGNAL when it says WORDS and CONDITION holds; nothing of it may
# stay: no process, no toolbox.
stopped() {
	local signal=$1 words=$2
	shift 2
	start stop env IVSHMEM_CACHE="$SCRATCH/stop" IVSHMEM_RECIPE="$PWD/tests/setup/recipe.sh" scripts/toolbox
	await "it says '$words'" said stop "$words" && await "$*" "$@" || return
	kill "-$signal" "$STARTED"
	finish stop
	[ "$signal" = KILL ] || {
		expect "status 130, not $STATUS" [ "$STATUS" = 130 ] && last_said stop "interrupted.*run the same command again" || return
	}
	await "no process is left" nobody "$SCRATCH/stop" || return
	expect "no toolbox" absent "$SCRATCH/stop/toolbox/*/.complete"
}

# In the cache of the interrupted runs.
two_runs_at_once() {
	local first
	start one env IVSHMEM_CACHE="$SCRATCH/stop" IVSHMEM_RECIPE="$PWD/tests/setup/recipe.sh" scripts/toolbox run busybox echo first
	first=$STARTED
	start two env IVSHMEM_CACHE="$SCRATCH/stop" IVSHMEM_RECIPE="$PWD/tests/setup/recipe.sh" scripts/toolbox run busybox echo second
	finish two
	succeeded || return
	STARTED=$first
	finish one
	succeeded || return
	expect "both ran their command" grep -qx first "$SCRATCH/one.out" && grep -qx second "$SCRATCH/two.out" || return
	expect "one waited" grep -q "another run is making the toolbox; waiting" "$SCRATCH/one.said" "$SCRATCH/two.said" || return
	expect "one toolbox was made" [ "$(cat "$SCRATCH/one.said" "$SCRATCH/two.said" | grep -c ': making the toolbox (')" = 1 ]
}

# What those two have made.
continues_after_interruptions() {
	run resumed small stop env IVSHMEM_MIRROR="$NOWHERE" scripts/toolbox run busybox echo works
	succeeded && expect "a toolbox that works" grep -qx works "$SCRATCH/resumed.out" || return
	expect "no remains of the interrupted runs" absent "$SCRATCH/stop/toolbox/*.new*"
}

not_root() {
	local copy
	# The checkout may be where only root can read.
	copy=$(mktemp -d)
	cp -r scripts "$copy/"
	chmod -R a+rX "$copy"
	run user setpriv --reuid=65534 --regid=65534 --clear-groups env HOME=/nonexistent "$copy/scripts/toolbox"
	rm -rf "$copy"
	failed && last_said user "needs root"
}

cache_not_writable() {
	: >"$SCRATCH/file"
	run nowrite env IVSHMEM_CACHE="$SCRATCH/file/cache" scripts/toolbox
	failed && last_said nowrite "cannot be written.*IVSHMEM_CACHE"
}

status_passes() {
	run status small down scripts/toolbox run sh -c 'exit 42'
	expect "status 42, not $STATUS" [ "$STATUS" = 42 ]
}

root_stays_as_it_was_made() {
	run write small down scripts/toolbox run sh -c 'touch /usr/bin/new'
	expect "a failure" [ "$STATUS" != 0 ] && expect "no file in the root" absent "$SCRATCH/down/toolbox/*/usr/bin/new"
}

# Whatever ends the run ends what it started inside.
ends_with_its_run() {
	local signal=$1
	start inside env IVSHMEM_CACHE="$SCRATCH/down" IVSHMEM_RECIPE="$PWD/tests/setup/recipe.sh" \
		scripts/toolbox run sh -c 'setsid sleep 98765 & echo ready; wait'
	await "it runs" grep -q ready "$SCRATCH/inside.out" || return
	kill "-$signal" "$STARTED"
	finish inside
	await "no process is left" nobody "sleep 98765"
}

# checkout NAME: another checkout, of which only the scripts count here.
checkout() {
	mkdir -p "$SCRATCH/$1"
	cp -r --parents scripts Cargo.lock rust/inmate/Cargo.lock "$SCRATCH/$1/"
}

# What cargo leaves of a third-party crate, of one of ours, and of a test's program.
crates_are_kept() {
	local made
	checkout first
	checkout second
	made=$SCRATCH/first/build/cargo/debug
	mkdir -p "$made/.fingerprint/clap-1" "$made/.fingerprint/ivshmem-1" "$made/deps" "$made/incremental/ivshmem-1"
	touch -d '2001-02-03 04:05:06.789' "$made/deps/libclap-1.rlib"
	touch "$made/.fingerprint/clap-1/lib-clap" "$made/.fingerprint/ivshmem-1/lib-ivshmem" "$made/deps/libivshmem-1.rlib" "$made/deps/a_test-1"
	run keep small down "$SCRATCH/first/scripts/toolbox" keep-crates
	succeeded || return
	run borrow small down "$SCRATCH/second/scripts/toolbox" run true
	succeeded || return
	made=$SCRATCH/second/build/cargo/debug
	expect "the crate" exists "$made/.fingerprint/clap-1/lib-clap" || return
	expect "its time, to the nanosecond" [ "$(stat -c %.Y "$made/deps/libclap-1.rlib")" = "$(stat -c %.Y "$SCRATCH/first/build/cargo/debug/deps/libclap-1.rlib")" ] || return
	expect "nothing that is ours" [ "$(find "$made" -type f | wc -l)" = 2 ]
}

# A disk without room for them costs their saving only.
no_room_for_crates() {
	mkdir -p "$SCRATCH/noroom/toolbox"
	mount --bind "$SCRATCH/down/toolbox" "$SCRATCH/noroom/toolbox"
	mkdir -p "$SCRATCH/noroom/crates"
	mount -t tmpfs -o size=64k tmpfs "$SCRATCH/noroom/crates"
	checkout third
	mkdir -p "$SCRATCH/third/build/cargo/debug/.fingerprint/clap-1" "$SCRATCH/third/build/cargo/debug/deps"
	head -c 200000 /dev/zero >"$SCRATCH/third/build/cargo/debug/deps/libclap-1.rlib"
	run noroom small noroom "$SCRATCH/third/scripts/toolbox" keep-crates
	succeeded && expect "nothing half-kept" absent "$SCRATCH/noroom/crates/*"
}

unknown_command() {
	run unknown scripts/toolbox frobnicate
	failed && last_said unknown "unknown command 'frobnicate'"
}

toolbox_tests() {
	# bad input: an archive that cannot be reached => one sentence that says what and what to do; run again with network it continues
	tap_test "unreachable archive: one sentence, and a run with network continues" unreachable_archive
	# bad input: no archive in apt's configuration => one sentence
	tap_test "no archive in apt's configuration: one sentence" no_archive_in_configuration
	tap_test "no network: a complete cache needs none" complete_cache_needs_no_network
	# bad input: an archive without the right signature => refused
	tap_test "an archive without the right signature is refused" wrong_signature
	# bad input: a disk that is too small => refused before anything is downloaded
	tap_test "disk full: refused before anything is downloaded (small tmpfs)" disk_too_small
	# bad input: a disk that becomes full while indexes are fetched => one sentence
	tap_test "disk full while indexes are fetched: one sentence" disk_full_at 60m "looking up the toolbox's packages"
	# bad input: ... while packages are downloaded => one sentence
	tap_test "disk full while packages are downloaded: one sentence" disk_full_at 160m "downloading the toolbox's packages"
	# bad input: ... while the toolbox is made => one sentence
	tap_test "disk full while the toolbox is made: one sentence" disk_full_at 230m "making the toolbox"
	# bad input: the same command with more room => it continues
	tap_test "disk full: with more room the same command continues" disk_has_room_again
	# bad input: a package that an interrupted download left short => not trusted
	tap_test "a package that an interrupted download left short is not trusted" short_package_is_not_trusted
	# bad input: Ctrl-C while package indexes are fetched => nothing is left that could be taken for whole
	tap_test "Ctrl-C at the package indexes leaves nothing" stopped INT "looking up the toolbox's packages"
	# bad input: Ctrl-C while packages are downloaded => the same
	tap_test "Ctrl-C at the download leaves nothing" stopped INT "downloading the toolbox's packages"
	# bad input: Ctrl-C while the toolbox is made => the same
	tap_test "Ctrl-C early in making the root leaves nothing" stopped INT "making the toolbox" exists "$SCRATCH/stop/toolbox/*.new/etc"
	tap_test "Ctrl-C late in making the root leaves nothing" stopped INT "making the toolbox" exists "$SCRATCH/stop/toolbox/*.new/var/lib/dpkg/info/apt.list"
	# bad input: SIGKILL while the toolbox is made => no process is left
	tap_test "SIGKILL while the root is made leaves no process" stopped KILL "making the toolbox" exists "$SCRATCH/stop/toolbox/*.new/usr/bin/dpkg"
	# bad input: two runs at once => one makes it, the other waits
	tap_test "two runs at once, in what Ctrl-C has left: one makes it, the other waits" two_runs_at_once
	# bad input: the same command after Ctrl-C at several points => it continues
	tap_test "after Ctrl-C at several points the same command continues" continues_after_interruptions
	# bad input: not being root => one sentence
	tap_test "without root: one sentence" not_root
	# bad input: a cache that cannot be written => one sentence
	tap_test "a cache that cannot be written: one sentence" cache_not_writable
	tap_test "crates that one checkout has compiled are there for the next, ours are not" crates_are_kept
	# bad input: a disk without room for compiled crates => they are not kept, nothing fails
	tap_test "disk full while compiled crates are kept: they are not, nothing fails" no_room_for_crates
	# bad input: an unknown command => one sentence
	tap_test "an unknown command: one sentence" unknown_command
	tap_test "the status of a command in the toolbox is that of the run" status_passes
	tap_test "the toolbox is read-only for what runs in it" root_stays_as_it_was_made
	tap_test "SIGINT to a run ends what it started inside" ends_with_its_run INT
	tap_test "SIGTERM to a run ends what it started inside" ends_with_its_run TERM
	tap_test "SIGKILL to a run ends what it started inside" ends_with_its_run KILL
}
