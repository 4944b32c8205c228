// SPDX-License-Identifier: MIT OR Apache-2.0
/*
 * Compiled against a prepared kernel tree and never linked: the structures that the module relies on, so that their layout can
 * be compared with the BTF of the kernel image (kernel-tree.sh check).
 */
#include <linux/cdev.h>
#include <linux/device.h>
#include <linux/fs.h>
#include <linux/mm_types.h>
#include <linux/pci.h>

struct cdev probe_cdev;
struct device probe_device;
struct file probe_file;
struct file_operations probe_file_operations;
struct pci_dev probe_pci_dev;
struct vm_area_struct probe_vm_area_struct;
