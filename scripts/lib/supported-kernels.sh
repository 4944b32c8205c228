# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash disable=SC2034
#
# Which kernels the module supports, and where they are looked for. The one place that a new series is added to (the
# in-kernel Rust API changes with each).

# Series X.Y, separated by spaces.
SUPPORTED_SERIES=${IVSHMEM_SUPPORTED_SERIES:-"7.3"}

# Suites of the archive, all of which are looked through.
KERNEL_SUITES=(trixie-backports sid forky experimental trixie)

# Options whose value may differ between the distribution's .config and ours, because they do not change what the kernel's
# headers, bindings or Rust crates become:
#   CC_VERSION_TEXT             the same compiler under another name (its version has options of its own that must be equal)
#   CC_CAN_LINK*                whether user-space programs can be linked here (not with a cross compiler without a libc)
#   OPENSSL_SUPPORTS_ML_DSA, MODULE_SIG_KEY_TYPE_*    what the installed OpenSSL can sign with
#   [THUMB2_]COMPAT_VDSO        arm64: the vDSO of 32-bit programs, which needs a 32-bit compiler
HARMLESS_OPTIONS='CC_VERSION_TEXT|CC_CAN_LINK[A-Z0-9_]*|OPENSSL_SUPPORTS_ML_DSA|MODULE_SIG_KEY_TYPE_[A-Z0-9_]*|(THUMB2_)?COMPAT_VDSO'

# Structures whose layout the module relies on through the rebuilt bindings; compared with the image's BTF.
LAYOUTS=device,cdev,file,file_operations,vm_area_struct,pci_dev

# series_supported RELEASE: whether a kernel release (7.3.4+deb13-amd64) belongs to a supported series.
series_supported() {
	local series
	for series in $SUPPORTED_SERIES; do
		case $1 in "$series" | "$series".* | "$series"-* | "$series"+*) return 0 ;; esac
	done
	return 1
}
