# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Third-party crates, compiled: kept in the cache, so that a new checkout compiles only what is ours. Sourced by scripts/toolbox.
#
# In the toolbox every checkout and every cache have the same paths, so what cargo has made for one is fresh for all. A store is all of
# one set of crates and compilers, with whatever options they have been compiled. It only saves time: whoever cannot read or write it
# goes on without.

# crates_store: sets STORE to where the crates of this checkout, as it is now, are kept.
crates_store() {
	local key
	key=$(cat "$CHECKOUT/Cargo.lock" "$CHECKOUT/rust/inmate/Cargo.lock" "$ROOT/.packages" | sha256sum)
	STORE=$CACHE/crates/${key:0:16}
}

# crates_in DIR: names of the third-party crates that cargo has made in DIR, each with its options' hash, sorted.
crates_in() { find "$1" -path '*/.fingerprint/*' -prune ! -name '*ivshmem*' -printf '%P\n' 2>/dev/null | sort; }

# borrow_crates: begins a checkout that has compiled nothing yet with what others have.
borrow_crates() {
	local target=$CHECKOUT/build/cargo use
	[ ! -e "$target" ] || return 0
	crates_store
	[ -e "$STORE" ] || return 0
	exec {use}>"$CACHE/lock/crates" || return 0
	flock "$use"
	# Two runs of one checkout may begin at once.
	if [ -e "$STORE" ] && [ ! -e "$target" ]; then
		remove "$target.new"
		mkdir -p "$CHECKOUT/build"
		if cp -a --reflink=auto "$STORE" "$target.new" 2>/dev/null; then mv -T "$target.new" "$target"; else remove "$target.new"; fi
		touch "$STORE"
	fi
	exec {use}>&-
}

# keep_crates: for other checkouts, what this one has compiled, unless they have all of it already.
keep_crates() {
	local target=$CHECKOUT/build/cargo use busy file
	[ -d "$target" ] || return 0
	crates_store
	[ -n "$(comm -23 <(crates_in "$target") <(crates_in "$STORE"))" ] || return 0
	exec {use}>"$CACHE/lock/crates" || return 0
	flock "$use"
	# Whoever compiles holds cargo's own locks, and what is half-written; it comes here afterwards.
	while IFS= read -r -d '' file; do
		exec {busy}<"$file"
		flock --shared --nonblock "$busy" || return 0
	done < <(find "$target" -name .cargo-lock -print0)
	remove "$CACHE"/crates/*.new "$CACHE"/crates/*.old
	mkdir -p "$STORE.new"
	if (cd "$target" && third_party | tar --format=posix --null -T - -cf - | tar -C "$STORE.new" -xpf -) 2>/dev/null; then
		[ ! -e "$STORE" ] || mv -T "$STORE" "$STORE.old"
		mv -T "$STORE.new" "$STORE"
	fi
	remove "$STORE.new" "$STORE.old"
}

# third_party: the files of the current folder, cargo's, that are not ours, each with a NUL behind it. Programs that it has linked there are.
third_party() {
	find . \( -name '*ivshmem*' -o -name incremental -o -name doc -o -name tmp \) -prune -o \
		-type f ! \( -path '*/deps/*' ! -name '*.rlib' ! -name '*.rmeta' ! -name '*.so' ! -name '*.d' \) -print0
}
