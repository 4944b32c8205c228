# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# What all scripts of this folder share: where the cache is, how they speak, how a long step is run,
# how two runs keep out of each other's way, and how a failure becomes one sentence.
#
# Sourced, never executed. Callers set nothing; they get CACHE, CHECKOUT, SCRIPTS and the functions below.
#
# Rules that keep the cache trustworthy:
#   * a result is used only if its mark (a file written last, or the name it is renamed to) is there;
#   * whoever makes a result holds its lock; what is unfinished and unlocked belongs to a dead run and is removed;
#   * a long step runs in namespaces of its own that die with this process, mounts included.

set -euo pipefail
umask 022
export LC_ALL=C.UTF-8

SCRIPTS=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck disable=SC2034 # used by the scripts that source this file
CHECKOUT=$(dirname "$SCRIPTS")
CACHE=${IVSHMEM_CACHE:-${HOME:-/root}/.cache/ivshmem}

# say WORDS...: one line of progress. Standard output stays free for results.
say() { printf '%s\n' "ivshmem: $*" >&2; }

# die WORDS...: one sentence that says what is wrong and what to do, then the end.
die() {
	say "$*"
	exit 1
}

# open_cache: makes the cache folder and its fixed subfolders.
open_cache() {
	mkdir -p "$CACHE" 2>/dev/null && [ -w "$CACHE" ] ||
		die "the cache folder $CACHE cannot be written: set IVSHMEM_CACHE to a folder of yours."
	CACHE=$(cd "$CACHE" && pwd)
	mkdir -p "$CACHE"/{apt,debs,lock,log,toolbox,kernel,linux-source,cargo} 2>/dev/null ||
		die "$(words_disk_full)"
}

# --- failures in words ------------------------------------------------------------------------------------

free_mib() { df -Pk "$CACHE" | awk 'NR == 2 { print int($4 / 1024) }'; }

words_disk_full() {
	printf '%s' "the disk of $CACHE is full ($(free_mib) MiB free): free some space or set IVSHMEM_CACHE to a folder" \
		"on another disk, then run the same command again, it continues."
}

# need_space MIB WORDS: refuses before a step that the disk cannot hold.
need_space() {
	local have
	have=$(free_mib)
	[ "${IVSHMEM_SKIP_SPACE_CHECK:-}" = 1 ] || [ "$have" -ge "$1" ] ||
		die "$2 needs $1 MiB of free disk space in $CACHE, which has $have MiB: free some space or set" \
			"IVSHMEM_CACHE to a folder on another disk, then run the same command again."
}

# explain LOG: the likely cause of a failed step as one sentence; nothing if its log tells none.
explain() {
	if grep -q '^refused: ' "$1"; then
		sed -n 's/^refused: //p' "$1" | tail -n 1
	elif grep -qE 'No space left on device|Disk quota exceeded|n.t have enough free space' "$1"; then
		words_disk_full
	elif grep -qiE 'NO_PUBKEY|is not signed|BADSIG|EXPKEYSIG|Hash Sum mismatch|invalid signature' "$1"; then
		printf '%s' "a download does not have the archive's signature or checksum: run the same command again in some" \
			" minutes, and if it stays so check the archive and proxy in apt's configuration."
	elif grep -qE "404 +Not Found" "$1"; then
		printf '%s' "the archive no longer has a package that its index named: run the same command again, it looks for" \
			" newer ones."
	elif grep -qE 'Could not (resolve|connect)|Unable to connect|Temporary failure|Connection (refused|failed|timed out|reset)|Network is unreachable|Failed to fetch|Some index files failed|timed out|Certificate verification failed' "$1"; then
		printf '%s' "the package archive cannot be reached ($(archive_hosts)): check the network, the proxy and apt's" \
			" configuration, then run the same command again, it continues."
	fi
}

# fail LOG WORDS: the end of a failed step: the sentence, the last lines of its log, where the whole is.
fail() {
	local cause
	cause=$(explain "$1")
	sed 's/^/  | /' <(tail -n 12 "$1") >&2
	say "$2 failed: ${cause:-see the last lines above; after changing what is wrong run the same command again.} (whole log: $1)"
	exit 1
}

# --- running a step ---------------------------------------------------------------------------------------

CHILD='' # the process that a signal has to end
PULSE='' # the process that shows progress meanwhile

interrupted() {
	trap '' INT TERM HUP
	[ -z "$CHILD" ] || {
		kill -KILL "$CHILD" 2>/dev/null || true
		wait "$CHILD" 2>/dev/null || true
	}
	[ -z "$PULSE" ] || {
		kill "$PULSE" 2>/dev/null || true
		[ ! -t 2 ] || printf '\r\033[K' >&2
	}
	say "interrupted. Nothing half-done will be used; run the same command again, it continues."
	exit "$1"
}
trap 'interrupted 130' INT
trap 'interrupted 143' TERM
trap 'interrupted 129' HUP

# contained CMD...: prints nothing, fills the array CONTAINED with CMD in namespaces that die with this process. Without root there are
# no namespaces: then only the command itself dies.
contained() {
	if [ "$(id -u)" = 0 ]; then
		CONTAINED=(setpriv --pdeathsig KILL unshare --mount --pid --fork --kill-child --mount-proc "$@")
	else
		CONTAINED=(setpriv --pdeathsig KILL "$@")
	fi
}

# last_line LOG: what the step is at.
last_line() { tail -c 300 "$1" 2>/dev/null | tr '\r' '\n' | grep -v '^ *$' | tail -n 1 | tr -cd '[:print:]' | cut -c 1-80; }

# pulse LOG: shows that the step still moves: on a terminal one changing line, elsewhere a line each half minute.
pulse() {
	local parent=$$ start=$SECONDS last='' nap
	drop_locks
	exec {nap}<> <(:) # never readable: `read -t` on it is a sleep without a process that would outlive us
	while kill -0 "$parent" 2>/dev/null; do
		if [ -t 2 ]; then
			read -r -t 0.5 -u "$nap" || true
			last=$(last_line "$1") || true
			printf '\r\033[K  %4d s  %s' $((SECONDS - start)) "$last" >&2
		else
			read -r -t 30 -u "$nap" || true
			last=$(last_line "$1") || true
			say "  ... $((SECONDS - start)) s  $last"
		fi
	done
}

# step NAME WORDS HOW_LONG CMD...: runs the external command CMD as one step: says what it does and about how long
# it takes, keeps its output in the log NAME (V=1 shows it), and ends this script with a clear sentence if it fails.
step() {
	local log=$CACHE/log/$1.log words=$2 start=$SECONDS status=0
	say "$2 (about $3)"
	shift 3
	: 2>/dev/null >"$log" || die "$(words_disk_full)"
	contained "$@"
	if [ "${V:-}" = 1 ]; then
		(drop_locks && exec "${CONTAINED[@]}") </dev/null > >(tee -a "$log" >&2) 2>&1 &
		CHILD=$!
	else
		(drop_locks && exec "${CONTAINED[@]}") </dev/null >>"$log" 2>&1 &
		CHILD=$!
		pulse "$log" &
		PULSE=$!
	fi
	wait "$CHILD" || status=$?
	CHILD=''
	if [ -n "$PULSE" ]; then
		kill "$PULSE" 2>/dev/null || true
		wait "$PULSE" 2>/dev/null || true
		PULSE=''
		[ ! -t 2 ] || printf '\r\033[K' >&2
	fi
	[ "$status" = 0 ] || fail "$log" "$words"
	[ $((SECONDS - start)) -lt 5 ] || say "  done in $((SECONDS - start)) s"
}

# --- two runs at once -------------------------------------------------------------------------------------

# lock NAME WORDS: waits until no other run makes the thing that WORDS names. Held until unlock NAME or the end.
declare -A LOCKS=()
lock() {
	local fd
	exec {fd}>"$CACHE/lock/$1" || die "$(words_disk_full)"
	if ! flock -n "$fd"; then
		say "another run is making $2; waiting until it is done"
		flock "$fd" &
		CHILD=$!
		wait "$CHILD" || die "waiting for the other run failed: run the same command again."
		CHILD=''
	fi
	LOCKS[$1]=$fd
}

# drop_locks: for a background process: the lock ends with this script, not with what it started.
drop_locks() {
	local fd
	for fd in "${LOCKS[@]}"; do
		exec {fd}>&-
	done
}

unlock() {
	local fd=${LOCKS[$1]}
	exec {fd}>&-
	unset "LOCKS[$1]"
}

# remove PATH...: removes results of ours, never what is mounted below them.
remove() { rm -rf --one-file-system -- "$@"; }
