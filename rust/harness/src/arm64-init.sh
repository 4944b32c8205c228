#!/bin/busybox sh
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# First process of the arm64 guest: loads and unloads the module, reports in TAP on the console. Started by arm64.rs.
b=/bin/busybox
$b mount -t proc proc /proc
$b mount -t sysfs sysfs /sys

# is NAME FOUND WANTED
is() {
	if [ "$2" = "$3" ]; then
		echo "ok - $1"
	else
		echo "not ok - $1"
		echo "# found '$2', not '$3'"
	fi
}

is "the kernel is Debian's arm64 kernel that the module was built for" \
	"$($b uname -m) $($b uname -r)" "aarch64 $($b cat /release)"
$b insmod /ivshmem.ko
is "the module loads" "$?" 0
is "the module's taint is only out-of-tree and unsigned" "$($b cat /sys/module/ivshmem/taint)" OE
is "the driver is registered" "$($b ls /sys/bus/pci/drivers | $b grep -c '^ivshmem$')" 1
$b rmmod ivshmem
is "the module unloads" "$?" 0
is "nothing of it is left" "$($b grep -c '^ivshmem' /proc/modules)" 0
echo 1..6
$b poweroff -f
