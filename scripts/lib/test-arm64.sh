#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
#
# The layer `arm64`, in the toolbox with the arm64 kernel (scripts/with-kernels) and the module built for it: the cross-built module
# loads and unloads in Debian's stock arm64 kernel. The guest is a busybox that says what it sees on its console.
set -uo pipefail
. scripts/lib/tap.sh
# shellcheck source=/dev/null
. "$IVSHMEM_KERNEL_ENV_ARM64"

# Generous: the emulator may share its processors.
LIMIT=$((600 * ${IVSHMEM_PATIENCE:-1}))
RUN=build/run/arm64
CONSOLE=$RUN/console.log
# Out-of-tree (bit 12) and unsigned (bit 13), nothing else.
TAINT=$((1 << 12 | 1 << 13))

make_initramfs() {
	local root=$RUN/root
	rm -rf "$RUN"
	mkdir -p "$root"/{bin,dev,proc,sys}
	cp "$BUSYBOX" "$root/bin/busybox" && cp "build/module/$KERNEL_RELEASE/ivshmem.ko" "$root/" || return
	cat >"$root/init" <<-'END'
		#!/bin/busybox sh
		b=/bin/busybox
		$b mount -t proc proc /proc
		$b mount -t sysfs sys /sys
		echo "guest: release $($b uname -r)"
		echo "guest: taint-before $($b cat /proc/sys/kernel/tainted)"
		$b insmod /ivshmem.ko; echo "guest: insmod $?"
		echo "guest: driver $($b ls -d /sys/bus/pci/drivers/ivshmem)"
		echo "guest: class $($b ls -d /sys/class/ivshmem)"
		echo "guest: taint $($b cat /proc/sys/kernel/tainted)"
		$b rmmod ivshmem; echo "guest: rmmod $?"
		echo "guest: modules $($b wc -l </proc/modules)"
		$b poweroff -f
	END
	chmod 755 "$root/init"
	(cd "$root" && find . | cpio --quiet -o -H newc | gzip -1) >"$RUN/initramfs.gz"
}

boot() {
	timeout --kill-after=10 "$LIMIT" qemu-system-aarch64 -nodefaults -no-user-config -display none -no-reboot \
		-M virt -cpu cortex-a72 -accel tcg -m 512 -kernel "$VMLINUZ" -initrd "$RUN/initramfs.gz" \
		-append "console=ttyAMA0 panic=-1 mitigations=off" -serial "file:$CONSOLE"
}

# guest NAME VALUE: the guest said so.
guest() { tr -d '\r' <"$CONSOLE" | grep -F "guest: $1" | tail -n 1 | tee /dev/stderr | grep -qxF "guest: $1 $2"; }

quiet_kernel() {
	! grep -nE 'WARNING:|BUG:|Oops|Call trace|Kernel panic|Unable to handle|general protection|lockdep|INFO: task .* blocked' "$CONSOLE"
}

tap_begin arm64
tap_test "the initramfs is made" make_initramfs
if tap_test "Debian's arm64 kernel boots and powers off" boot; then
	tap_test "it is the kernel that the module was built for" guest release "$KERNEL_RELEASE"
	tap_test "the module loads" guest insmod 0
	tap_test "its driver is registered" guest driver /sys/bus/pci/drivers/ivshmem
	tap_test "its class is registered" guest class /sys/class/ivshmem
	tap_test "the kernel was not tainted before" guest taint-before 0
	tap_test "its taint is out-of-tree and unsigned only" guest taint $TAINT
	tap_test "the module unloads" guest rmmod 0
	tap_test "no module stays" guest modules 0
	tap_test "the kernel has nothing to complain about" quiet_kernel
else
	tail -n 20 "$CONSOLE" | tap_note
fi
tap_end
