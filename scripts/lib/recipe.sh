# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# What the toolbox is made of. A change of this file makes a new toolbox; nothing else does (but `scripts/toolbox update`).
# Sourced by scripts/toolbox. The tests of the set-up replace it through IVSHMEM_RECIPE by a smaller one.

# The release whose compilers built the target kernels, and where QEMU with vfio-user comes from.
RECIPE_SUITE=trixie
RECIPE_BACKPORTS=trixie-backports

RECIPE_PACKAGES=(
	# building the kernel's metadata and modules
	bc binutils bison cpio dwarves flex gcc gcc-14 kmod libc6-dev libelf-dev libssl-dev make perl python3 xz-utils zstd
	bindgen rust-clippy rust-src rustc rustfmt
	# the same for arm64; and static user space for its guests
	binutils-aarch64-linux-gnu gcc-14-aarch64-linux-gnu libc6-dev-arm64-cross
	# user space; the checks of C++ users of the UAPI header; the debug kernel
	ca-certificates cargo clang g++ lld llvm
	# guests
	busybox-static
	# checks
	shellcheck

	# guests, from backports
	qemu-system-arm qemu-system-x86
)

# Rust's standard library for programs of arm64 guests. It is only data for the compiler, so one folder of the package of that
# architecture is put into the root instead of installing it with all that an arm64 program of it would need. It must be of the
# version that the package of the same name has in the root.
RECIPE_ARM64_PACKAGE=libstd-rust-dev
RECIPE_ARM64_FOLDER=usr/lib/rustlib/aarch64-unknown-linux-gnu

# The source packages that come from backports: the vfio-user client is in QEMU since 10.1.
RECIPE_BACKPORTED=(qemu seabios ipxe)

# recipe_check: run inside a new toolbox; says what is wrong with it, or nothing.
RECIPE_CHECK='
	qemu-system-x86_64 -device help 2>&1 | grep -q vfio-user-pci || echo "its QEMU has no vfio-user-pci (QEMU 10.1 or newer has)"
	for tool in rustc cargo bindgen gcc-14 aarch64-linux-gnu-gcc-14 pahole clang qemu-system-aarch64; do
		$tool --version >/dev/null || echo "$tool does not run"
	done
	echo "fn main() { println!(\"{:?}\", std::thread::spawn(|| 7).join()); }" >/tmp/check.rs
	rustc --target aarch64-unknown-linux-gnu -C linker=aarch64-linux-gnu-gcc-14 -C target-feature=+crt-static -o /tmp/check /tmp/check.rs ||
		echo "it does not make static arm64 programs of Rust"
	rm -f /tmp/check /tmp/check.rs
'

# Free disk space in MiB that making it takes: packages, root, and room for both to lie side by side.
RECIPE_SPACE=4000
RECIPE_TIME="1 to 4 min"
