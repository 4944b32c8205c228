#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# usage: toolbox-build.sh NEW DEBS VIEW RECIPE
#
# A step of scripts/toolbox: makes the Debian root NEW with mmdebstrap from the packages in DEBS (what should be missing there is
# fetched from the archive of the apt view VIEW, with its settings), and the recipe's folder of the arm64 package ARM64_DEB. Runs in mount and process namespaces of its own.
set -euo pipefail
export NEW=$1 DEBS=$2
view=$3 recipe=$4
archive=$(cat "$view/archive")
export PREFERENCES=$view/etc/preferences
# shellcheck source-path=SCRIPTDIR source=recipe.sh
. "$recipe"

settings=$(mktemp)
trap 'rm -f "$settings"' EXIT
{
	grep '^Acquire::' "$view/apt.conf" || true
	echo 'APT::Install-Recommends "false";'
	echo 'Acquire::Languages "none";'
} >"$settings"

include=$(IFS=,; echo "${RECIPE_PACKAGES[*]}")

# Hard links where the file system has them; mmdebstrap removes them again.
# shellcheck disable=SC2016 # expanded by the hook's shell
seed='mkdir -p "$1/etc/apt/preferences.d" && cp "$PREFERENCES" "$1/etc/apt/preferences.d/backports" && mkdir -p "$1/var/cache/apt/archives" && { cp -l "$DEBS"/*.deb "$1/var/cache/apt/archives/" 2>/dev/null || cp "$DEBS"/*.deb "$1/var/cache/apt/archives/"; }'
# The machine's certificates, for an archive behind https; the package ca-certificates replaces them.
# shellcheck disable=SC2016
certificates='[ ! -s /etc/ssl/certs/ca-certificates.crt ] || { mkdir -p "$1/etc/ssl/certs" && cp /etc/ssl/certs/ca-certificates.crt "$1/etc/ssl/certs/"; }'
# Mount points for what toolbox-enter.sh brings in.
# shellcheck disable=SC2016
places='mkdir -p "$1/ivshmem" "$1/cache" && rm -f "$1/etc/resolv.conf" "$1/etc/hosts" && : >"$1/etc/resolv.conf" && : >"$1/etc/hosts" && mkdir -p "$1/etc/ssl/certs" && touch "$1/etc/ssl/certs/ca-certificates.crt"'

# A root that a power failure spoils has no mark of completeness, so dpkg need not wait for the disk (it halves the time and more);
# nobody reads manuals here.
mmdebstrap --mode=root --variant=apt --architectures=amd64 --include="$include" --aptopt="$settings" \
	--dpkgopt=force-unsafe-io \
	--dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*' \
	--dpkgopt='path-exclude=/usr/share/locale/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
	--dpkgopt='path-include=/usr/share/doc/*/copyright' \
	--skip=essential/unlink --setup-hook="$seed" --setup-hook="$certificates" --customize-hook="$places" \
	"$RECIPE_SUITE" "$NEW" \
	"deb [signed-by=$KEYRING] $archive $RECIPE_SUITE main" \
	"deb [signed-by=$KEYRING] $archive $RECIPE_BACKPORTS main"

if [ -n "${ARM64_DEB:-}" ]; then
	dpkg-deb --fsys-tarfile "$ARM64_DEB" | tar -x -C "$NEW" "./$RECIPE_ARM64_FOLDER"
fi

wrong=$(chroot "$NEW" /bin/sh -c "$RECIPE_CHECK" 2>&1)
if [ -n "$wrong" ]; then
	echo "the new toolbox is not usable: $wrong"
	exit 1
fi
# What is in it, for messages and for the key of what is built with it.
# shellcheck disable=SC2016
chroot "$NEW" dpkg-query -W -f '${Package} ${Version}\n' >"$NEW/.packages"
# The mark must not reach the disk before what it vouches for.
sync -f "$NEW"
date -u +%FT%TZ >"$NEW/.complete"
