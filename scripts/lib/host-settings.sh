#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# usage: host-settings.sh DIR
#
# Collects in DIR what a toolbox run takes over from the machine:
#   certificates      the bundle of trusted certificates, if the machine has one
#   environment       shell lines that set proxies, cargo's network and registry variables, and the project's own variables
#   config.toml       the sections of cargo's configuration that say where crates come from
#   credentials.toml  link to cargo's logins for private registries (only if there are any)
# Compilers, wrappers and flags of the machine are left out on purpose.
set -euo pipefail
dir=$1

for bundle in "${CARGO_HTTP_CAINFO:-}" "${SSL_CERT_FILE:-}" /etc/ssl/certs/ca-certificates.crt; do
	[ -n "$bundle" ] && [ -s "$bundle" ] || continue
	cat "$bundle" >"$dir/certificates"
	break
done

{
	while IFS='=' read -r -d '' name value; do
		case $name in
		CARGO_HTTP_CAINFO | CARGO_NET_GIT_FETCH_WITH_CLI | IVSHMEM_CACHE | IVSHMEM_HOST_SETTINGS) ;;
		http_proxy | https_proxy | no_proxy | all_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY | ALL_PROXY | \
			CARGO_HTTP_* | CARGO_NET_* | CARGO_REGISTRY_* | CARGO_REGISTRIES_* | CARGO_SOURCE_* | \
			IVSHMEM_* | PROPTEST_* | QEMU | QEMU_ARM64 | RUST_LOG | RUST_BACKTRACE | TERM | COLORTERM | NO_COLOR | CI | V | GREETING | \
			SOURCE_DATE_EPOCH)
			printf 'export %s=%q\n' "$name" "$value"
			;;
		esac
	done < <(env -0)
	echo 'export SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt'
	echo 'export CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt'
} >"$dir/environment"

cargo_home=${CARGO_HOME:-${HOME:-/root}/.cargo}
for config in "$cargo_home/config.toml" "$cargo_home/config"; do
	[ -e "$config" ] || continue
	awk '
		/^[ \t]*\[/ { table = 1; keep = ($0 ~ /^[ \t]*\[+[ \t]*(source|registries|registry|http|net)[].]/) }
		keep || (!table && /^[ \t]*(source|registries|registry|http|net)[ \t]*[.=]/)
	' "$config" >"$dir/config.toml"
	break
done
[ ! -e "$cargo_home/credentials.toml" ] || ln -s "$cargo_home/credentials.toml" "$dir/credentials.toml"
