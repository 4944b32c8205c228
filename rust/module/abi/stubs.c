// SPDX-License-Identifier: GPL-2.0
/*
 * See stubs.h.
 */

#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>

#include "stubs.h"

MODULE_VERSION("0.1.0");

/* vm_flags_set() is an inline function. */
void ivshmem_vma_set_pfnmap(struct vm_area_struct *vma, const struct vm_operations_struct *ops)
{
	vm_flags_set(vma, VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = ops;
}

/* FMODE_NOWAIT is a cast, which bindgen leaves out. */
void ivshmem_file_set_nowait(struct file *file)
{
	file->f_mode |= FMODE_NOWAIT;
}

/* i_cdev is in an anonymous union, whose name in Rust depends on the kernel's configuration. */
struct cdev *ivshmem_inode_cdev(const struct inode *inode)
{
	return inode->i_cdev;
}
