# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
#
# Packages through the machine's own apt, without touching the machine: each *view* is a folder of the cache with its own
# configuration, sources, lists and (empty) package status. Archive, proxies, certificates and logins come from the
# machine's apt configuration, whatever form it has; what other hooks or pins that has does not apply.
#
# Sourced by the scripts after common.sh. All downloads of the project's set-up go through here; apt verifies each of them.
#
# Overrides: IVSHMEM_MIRROR (address of a Debian archive), IVSHMEM_KEYRING (its keys).

KEYRING=${IVSHMEM_KEYRING:-/usr/share/keyrings/debian-archive-keyring.gpg}

# archive_candidates: addresses in apt's configuration that may be Debian's archive, one a line.
archive_candidates() {
	if [ -n "${IVSHMEM_MIRROR:-}" ]; then
		printf '%s\n' "${IVSHMEM_MIRROR%/}"
		return
	fi
	# Asking apt where it would fetch from understands every form of sources file, fetched or not.
	apt-get --print-uris update 2>/dev/null |
		sed -nE "s,^'([^']+)/dists/[^/']+/(In)?Release'.*,\\1,p" |
		grep -vE -- '-security/*$' | awk '!seen[$0]++'
}

# archive_hosts: the same in a form for messages.
archive_hosts() { archive_candidates | sed -E 's,^[^:]+://([^/@]*@)?,,; s,/.*,,' | sort -u | paste -sd ' '; }

need_apt() {
	command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
		die "this needs apt-get and dpkg-deb: use a Debian 12 or 13 machine (or a container or virtual machine of it)."
	[ -e "$KEYRING" ] ||
		die "the archive's keys are not in $KEYRING: install debian-archive-keyring or set IVSHMEM_KEYRING."
	[ -n "$(archive_candidates)" ] ||
		die "apt's configuration names no Debian archive: add one to /etc/apt or set IVSHMEM_MIRROR to its address."
}

# apt_view NAME ARCH: makes the view's folder and configuration; sets APT_VIEW to it.
apt_view() {
	APT_VIEW=$CACHE/apt/$1
	mkdir -p "$APT_VIEW"/{lists/partial,state,cache,etc/{apt.conf,preferences,sources.list}.d} "$CACHE/debs/partial" || die "$(words_disk_full)"
	: >"$APT_VIEW/status" || die "$(words_disk_full)"
	{
		# The machine's connection settings only.
		apt-config dump | grep -E '^Acquire::(http|https|ftp|tor|socks|mirror|ForceIPv|Check-Valid-Until|Check-Date|Max-ValidTime|Min-ValidTime)' || true
		cat <<-END
			Dir::Etc "$APT_VIEW/etc";
			Dir::Etc::main "none";
			Dir::Etc::parts "$APT_VIEW/etc/apt.conf.d";
			Dir::Etc::sourcelist "$APT_VIEW/etc/sources.list";
			Dir::Etc::sourceparts "$APT_VIEW/etc/sources.list.d";
			Dir::Etc::preferences "$APT_VIEW/etc/preferences";
			Dir::Etc::preferencesparts "$APT_VIEW/etc/preferences.d";
			Dir::Etc::netrc "/etc/apt/auth.conf";
			Dir::Etc::netrcparts "/etc/apt/auth.conf.d";
			Dir::State "$APT_VIEW/state";
			Dir::State::status "$APT_VIEW/status";
			Dir::State::lists "$APT_VIEW/lists";
			Dir::Cache "$APT_VIEW/cache";
			Dir::Cache::archives "$CACHE/debs";
			APT::Architecture "$2";
			APT::Architectures { "$2"; };
			APT::Sandbox::User "root";
			APT::Install-Recommends "false";
			APT::Get::Assume-Yes "true";
			APT::Keep-Downloaded-Packages "true";
			Acquire::Languages "none";
			Acquire::Retries "3";
			Acquire::http::Timeout "60";
			Acquire::https::Timeout "60";
			Debug::NoLocking "true";
		END
	} >"$APT_VIEW/apt.conf" || die "$(words_disk_full)"
}

# apt_pin SUITE SOURCE_PACKAGE...: takes what these source packages make from SUITE.
apt_pin() {
	local suite=$1
	shift
	printf 'Package: %s\nPin: release n=%s\nPin-Priority: 900\n' "$(printf 'src:%s ' "$@")" "$suite" \
		>"$APT_VIEW/etc/preferences"
}

# in_view CMD...: runs an apt command in the view.
in_view() { APT_CONFIG=$APT_VIEW/apt.conf "$@"; }

# apt_update WORDS all|any SUITE...: fetches the indexes of the suites into the view, from the first archive of the
# machine's configuration that has them (any: that has at least one of them). The archive's address is then in the
# view's file `archive`.
apt_update() {
	local words=$1
	shift
	archive_candidates >"$APT_VIEW/candidates" || die "$(words_disk_full)"
	step "apt-update-${APT_VIEW##*/}" "$words" "10 s" \
		env APT_CONFIG="$APT_VIEW/apt.conf" "$SCRIPTS/lib/apt-update.sh" "$APT_VIEW" "$KEYRING" "$@"
}
