# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Helpers of the set-up tests: scratch caches, runs whose words and status are kept, waiting for a condition, expectations.
# A test is a function that ends with 0 if it passed; tap_test runs it and shows what it said otherwise.

SCRATCH=$PWD/build/setup
# Longest wait for one condition, in tenths of a second.
LIMIT=$((3000 * ${IVSHMEM_PATIENCE:-1}))
# An address where nothing answers.
# shellcheck disable=SC2034 # used by the tests
NOWHERE=http://127.0.0.1:9/debian

# prepare_scratch: an empty scratch folder, on the disk of the checkout.
prepare_scratch() {
	rm -rf --one-file-system "$SCRATCH"
	mkdir -p "$SCRATCH"
}

remove_scratch() {
	awk -v below="$SCRATCH/" 'index($5, below) == 1 { print $5 }' /proc/self/mountinfo | sort -r | xargs -r umount
	rm -rf --one-file-system "$SCRATCH"
}

# small CACHE CMD...: CMD with a cache of its own and the small recipe.
small() {
	local cache=$SCRATCH/$1
	shift
	IVSHMEM_CACHE=$cache IVSHMEM_RECIPE=$PWD/tests/setup/recipe.sh "$@"
}

# run NAME CMD...: runs CMD; its words are in $SCRATCH/NAME.said, its output in NAME.out, its status in STATUS.
run() {
	local name=$1
	shift
	STATUS=0
	"$@" >"$SCRATCH/$name.out" 2>"$SCRATCH/$name.said" </dev/null || STATUS=$?
	cat "$SCRATCH/$name.said"
}

# start NAME CMD...: the same in the background, as if from a terminal (SIGINT counts); its process is STARTED.
start() {
	local name=$1
	shift
	: >"$SCRATCH/$name.said"
	env --default-signal=INT,QUIT "$@" >"$SCRATCH/$name.out" 2>"$SCRATCH/$name.said" </dev/null &
	STARTED=$!
}

# finish NAME: waits for the end of what was started; its status in STATUS.
finish() {
	STATUS=0
	wait "$STARTED" || STATUS=$?
	cat "$SCRATCH/$1.said"
}

# await WORDS CMD...: waits until CMD succeeds.
await() {
	local words=$1 i nap
	shift
	exec {nap}<> <(:)
	for ((i = 0; i < LIMIT; i++)); do
		"$@" && break
		read -r -t 0.1 -u "$nap" || true
	done
	exec {nap}>&-
	[ "$i" -lt "$LIMIT" ] || complain "it never came to this: $words"
}

complain() {
	echo "expected otherwise: $*"
	return 1
}

# expect WORDS CMD...: complains with WORDS unless CMD succeeds.
expect() {
	local words=$1
	shift
	"$@" || complain "$words"
}

said() { grep -qE -- "$2" "$SCRATCH/$1.said"; }

# last_said NAME REGEX: the last line, the one that says what is wrong and what to do.
last_said() { tail -n 1 "$SCRATCH/$1.said" | grep -qE -- "^ivshmem: .*$2" || complain "the last line says: $2"; }

failed() { [ "$STATUS" -ne 0 ] && [ "$STATUS" -lt 126 ] || complain "a plain failure, not status $STATUS"; }

succeeded() { [ "$STATUS" = 0 ] || complain "success, not status $STATUS"; }

exists() { compgen -G "$1" >/dev/null; }

absent() { ! exists "$1"; }

# nobody PATH: no process has PATH in its command line or a mount below it but ourselves.
nobody() {
	local path=$1 process
	for process in /proc/[0-9]*; do
		[ "$process" != "/proc/$$" ] && [ "$process" != "/proc/$BASHPID" ] || continue
		# A process may end while we look.
		! tr '\0' ' ' 2>/dev/null <"$process/cmdline" | grep -qF "$path" || return 1
	done
}

complete() { exists "$SCRATCH/$1/toolbox/*/.complete"; }
