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

tainted() { $b cat /proc/sys/kernel/tainted; }

is "the kernel is Debian's arm64 kernel that the module was built for" \
	"$($b uname -m) $($b uname -r)" "aarch64 $($b cat /release)"
is "the kernel is not tainted before" "$(tainted)" 0
$b insmod /ivshmem.ko
is "the module loads" "$?" 0
is "the module's taint is only out-of-tree and unsigned" "$($b cat /sys/module/ivshmem/taint) $(tainted)" "OE $((1 << 12 | 1 << 13))"
is "the driver and the class are registered" "$($b ls -d /sys/bus/pci/drivers/ivshmem /sys/class/ivshmem | $b wc -l)" 2
$b rmmod ivshmem
is "the module unloads" "$?" 0
is "nothing of it is left" "$($b ls -d /sys/module/ivshmem /sys/class/ivshmem 2>/dev/null | $b wc -l)" 0
echo 1..7
$b poweroff -f
