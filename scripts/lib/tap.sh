# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Writes the results of a test layer as TAP 13 to build/results/LAYER.tap while it runs, and shows each on standard output.
# Sourced by the layers that are shell: tests/setup/run, scripts/lib/test-*.sh, scripts/test.
#
# The plan is written by tap_end, so a report of a layer that broke off has none, which counts as a failure.

TAP_COUNT=0
TAP_FAILED=0

# tap_begin LAYER: starts the report; the current folder is the checkout.
tap_begin() {
	mkdir -p build/results
	TAP_FILE=$PWD/build/results/$1.tap
	echo "TAP version 13" >"$TAP_FILE"
}

tap_line() { printf '%s\n' "$*" | tee -a "$TAP_FILE"; }

# `#` would begin a directive.
tap_ok() { tap_line "ok $((TAP_COUNT += 1)) - ${*//#/No.}"; }

tap_not_ok() {
	TAP_FAILED=$((TAP_FAILED + 1))
	tap_line "not ok $((TAP_COUNT += 1)) - ${*//#/No.}"
}

# tap_note: comments on the result before, from standard input.
tap_note() { sed 's/^/# /' | tee -a "$TAP_FILE"; }

# tap_clock: sets CLOCK for tap_took: seconds, and the CPU time of children that have ended, in ticks of 10 ms.
tap_clock() {
	local fields
	read -r -a fields <"/proc/$BASHPID/stat"
	CLOCK=("$SECONDS" $((fields[15] + fields[16])))
}

# tap_took SECONDS TICKS: how long the result before took since that CLOCK, into the report only.
tap_took() {
	tap_clock
	echo "# took $((CLOCK[0] - $1)) s, CPU $(((CLOCK[1] - $2) / 100)) s" >>"$TAP_FILE"
}

# tap_test WORDS CMD...: one result: whether CMD ends with 0. The end of what it said explains a failure.
tap_test() {
	local words=$1 log status=0 start
	shift
	tap_clock
	start=("${CLOCK[@]}")
	log=$(mktemp)
	("$@") >"$log" 2>&1 </dev/null || status=$?
	if [ "$status" = 0 ]; then
		tap_ok "$words"
	else
		tap_not_ok "$words"
		{ echo "status $status"; tail -n 40 "$log"; } | tap_note
	fi
	tap_took "${start[@]}"
	rm -f "$log"
	return "$status"
}

# tap_cargo WORDS CMD...: one result for each test that the cargo command runs, plus one for the command as a whole.
tap_cargo() {
	local words=$1 log results status=0 verdict name start
	shift
	tap_clock
	start=("${CLOCK[@]}")
	log=$(mktemp)
	results=$(mktemp)
	# The single results follow in TAP.
	"$@" </dev/null 2>&1 | tee "$log" | { grep -vE '^test .* \.\.\. ok$' || true; }
	status=${PIPESTATUS[0]}
	awk -f scripts/lib/cargo-test.awk "$log" >"$results" || status=1
	while read -r verdict name; do
		case $verdict in
		ok) tap_ok "$name" ;;
		FAILED) tap_not_ok "$name" ;;
		ignored) tap_line "ok $((TAP_COUNT += 1)) - $name # SKIP ignored" ;;
		esac
	done <"$results"
	if [ "$status" = 0 ]; then
		tap_ok "$words"
	else
		tap_not_ok "$words (status $status)"
		tail -n 60 "$log" | tap_note
	fi
	tap_took "${start[@]}"
	rm -f "$log" "$results"
}

# tap_end: the plan; ends the layer with 1 if a test failed.
tap_end() {
	tap_line "1..$TAP_COUNT"
	[ "$TAP_FAILED" = 0 ]
	exit
}
