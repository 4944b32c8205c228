#!/bin/sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# usage: toolbox-enter.sh ROOT CHECKOUT CACHE SETTINGS CMD...
#
# The first process of a toolbox run, in mount and process namespaces of its own: mounts what the run needs (all of it
# vanishes with the namespace), then runs CMD in ROOT. SETTINGS is a folder made by host-settings.sh.
set -eu
root=$1 checkout=$2 cache=$3 settings=$4
shift 4

# The root itself stays as it was made, whatever runs inside.
mount --bind "$root" "$root"
mount -o remount,bind,ro "$root"
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
for place in tmp run root var/tmp; do
	mount -t tmpfs -o mode=1777 tmpfs "$root/$place"
done
mount --bind "$checkout" "$root/ivshmem"
mount --bind "$cache" "$root/cache"

# The machine's name service, certificates and registry settings.
for file in resolv.conf hosts; do
	[ ! -e "/etc/$file" ] || mount --bind "/etc/$file" "$root/etc/$file"
done
[ ! -s "$settings/certificates" ] || mount --bind "$settings/certificates" "$root/etc/ssl/certs/ca-certificates.crt"
mkdir -p "$root/run/ivshmem"
cp "$settings/environment" "$root/run/ivshmem/environment"
mkdir -p "$cache/cargo"
for file in config.toml credentials.toml; do
	[ -e "$settings/$file" ] || continue
	[ -e "$cache/cargo/$file" ] || : >"$cache/cargo/$file"
	mount --bind "$settings/$file" "$root/cache/cargo/$file"
done

# Not exec: this shell is process 1 and reaps what its children leave behind.
status=0
# shellcheck disable=SC2016 # for the shell inside
chroot "$root" /usr/bin/env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
	CARGO_HOME=/cache/cargo CARGO_TARGET_DIR=/ivshmem/build/cargo IVSHMEM_CACHE=/cache \
	/bin/bash -c '. /run/ivshmem/environment; cd /ivshmem; exec "$@"' bash "$@" || status=$?
exit "$status"
