# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Runs test layers, some at once. Sourced by scripts/test, which has a function layer_NAME for each.
#
# A layer is a process group of its own, so that Ctrl-C, passed on, reaches all of it.

# Guests wait for some of their time: one more than there are CPUs.
TEST_JOBS=${TEST_JOBS:-$(($(nproc) < 98 ? $(nproc) + 1 : 99))}
[[ $TEST_JOBS =~ ^[1-9][0-9]?$ ]] || {
	echo "ivshmem: TEST_JOBS=$TEST_JOBS: how many layers run at once must be a number from 1 to 99." >&2
	exit 2
}

declare -A RUNNING=() # process -> layer
FAILED_LAYERS=0

# run_layers LAYER...: `build` first and alone; ends with 1 if one failed.
run_layers() {
	local queue=("$@") layer left form=named
	set -m
	trap 'stop_layers INT 130' INT
	trap 'stop_layers TERM 143' TERM
	trap 'stop_layers HUP 129' HUP
	if [ "${queue[0]}" = build ]; then
		start_layer build plain
		wait_layer
		queue=("${queue[@]:1}")
	fi
	[ ${#queue[@]} -gt 1 ] && [ "$TEST_JOBS" -gt 1 ] || form=plain
	while [ ${#queue[@]} -gt 0 ] || [ ${#RUNNING[@]} -gt 0 ]; do
		left=()
		for layer in "${queue[@]}"; do
			if ready "$layer"; then start_layer "$layer" "$form"; else left+=("$layer"); fi
		done
		queue=("${left[@]}")
		wait_layer
	done
	[ "$FAILED_LAYERS" = 0 ]
}

# ready LAYER: whether it may start now: there is a place, and its kernel is not just being built.
ready() {
	[ ${#RUNNING[@]} -lt "$TEST_JOBS" ] || return
	case $1 in guest-debug | fuzz | soak) [[ " ${RUNNING[*]} " != *" build-debug "* ]] ;; esac
}

# start_layer LAYER plain|named: in the background; named: its lines have its name in front.
start_layer() {
	local layer=$1
	if [ "$2" = plain ]; then
		(one_layer "$layer") </dev/null &
	else
		(one_layer "$layer" </dev/null 2>&1 | (trap '' INT TERM HUP && exec sed -u "s/^/$layer | /")) &
	fi
	RUNNING[$!]=$layer
}

# one_layer LAYER: the layer with its time.
one_layer() {
	local start=$SECONDS status=0 times
	# The longest layer does not wait for others. Who waits for the debug kernel is served when the tests that run beside have what they need.
	case $1 in
	guest-debug) ;;
	build-debug) renice -n 8 -p "$BASHPID" >/dev/null ;;
	*) renice -n 3 -p "$BASHPID" >/dev/null ;;
	esac
	echo "=== $1 ==="
	("layer_$1") || status=1
	# Those of children that have ended, in ticks of 10 ms, are the fields 16 and 17.
	read -r -a times <"/proc/$BASHPID/stat"
	echo "=== $1: $((SECONDS - start)) s, CPU $(((times[15] + times[16]) / 100)) s ==="
	return "$status"
}

# wait_layer: until one ends.
wait_layer() {
	local process status=0
	wait -n -p process "${!RUNNING[@]}" || status=$?
	[ "$status" = 0 ] || FAILED_LAYERS=$((FAILED_LAYERS + 1))
	unset "RUNNING[$process]"
}

# stop_layers SIGNAL STATUS: passes a signal on, and ends when all have ended.
stop_layers() {
	local process
	trap '' INT TERM HUP
	for process in "${!RUNNING[@]}"; do
		kill "-$1" -- "-$process" 2>/dev/null
	done
	wait "${!RUNNING[@]}"
	echo "ivshmem: interrupted: no count, as not all layers ran." >&2
	exit "$2"
}
