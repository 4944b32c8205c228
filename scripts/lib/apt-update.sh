#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# usage: apt-update.sh VIEW KEYRING all|any SUITE...
#
# A step of apt_update (apt.sh): writes VIEW/etc/sources.list with those suites that an archive of VIEW/candidates has, and their
# indexes into the view (APT_CONFIG says where). `all`: every suite must be there; `any`: at least one.
set -euo pipefail
view=$1 keyring=$2 need=$3
shift 3

# update LIST: fetches the indexes of one list of sources, keeping those of others.
update() { apt-get update --error-on=any -o Dir::Etc::sourcelist="$1" -o APT::Get::List-Cleanup=false; }

source_line() { printf 'deb [signed-by=%s] %s %s main\n' "$keyring" "$1" "$2"; }

while read -r archive; do
	echo "trying $archive"
	: >"$view/etc/sources.new"
	missing=0
	for suite; do
		source_line "$archive" "$suite" >"$view/etc/suite.list"
		if update "$view/etc/suite.list" 2>&1 | tee "$view/update.log"; then
			cat "$view/etc/suite.list" >>"$view/etc/sources.new"
			continue
		fi
		missing=$((missing + 1))
		# Only "no such suite" is worth asking this archive for the next one.
		grep -q '404 ' "$view/update.log" && [ "$need" = any ] || break
		echo "$archive has no suite $suite, going on without it"
	done
	if [ -s "$view/etc/sources.new" ] && { [ "$need" = any ] || [ "$missing" = 0 ]; }; then
		mv "$view/etc/sources.new" "$view/etc/sources.list"
		echo "$archive" >"$view/archive"
		exit 0
	fi
done <"$view/candidates"
echo "no archive of apt's configuration has: $*"
exit 1
