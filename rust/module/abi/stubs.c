// SPDX-License-Identifier: GPL-2.0
/*
 * See stubs.h.
 */

#include <linux/anon_inodes.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/uaccess.h>

#include <asm/barrier.h>

#include "stubs.h"

MODULE_VERSION("0.1.0");

/*
 * vm_flags_set() is an inline function, pgprot_decrypted() a macro. Memory of a device is not encrypted
 * where a guest's own is, and the kernel's mapping of it is not either.
 */
void ivshmem_vma_set_pfnmap(struct vm_area_struct *vma, const struct vm_operations_struct *ops)
{
	vm_flags_set(vma, VM_PFNMAP | VM_IO | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_page_prot = pgprot_decrypted(vma->vm_page_prot);
	vma->vm_ops = ops;
}

/* FMODE_NOWAIT is a cast, which bindgen leaves out. */
void ivshmem_file_set_nowait(struct file *file)
{
	file->f_mode |= FMODE_NOWAIT;
}

/* FMODE_READ and FMODE_WRITE, likewise. */
bool ivshmem_file_is_readable(const struct file *file)
{
	return file->f_mode & FMODE_READ;
}

bool ivshmem_file_is_writable(const struct file *file)
{
	return file->f_mode & FMODE_WRITE;
}

/* i_cdev is in an anonymous union, whose name in Rust depends on the kernel's configuration. */
struct cdev *ivshmem_inode_cdev(const struct inode *inode)
{
	return inode->i_cdev;
}

/* The bindings do not include its header. */
struct file *ivshmem_anon_file(const char *name, const struct file_operations *fops, void *priv)
{
	return anon_inode_getfile(name, fops, priv, O_RDWR);
}

/* IOCB_NOWAIT is a cast, too. */
bool ivshmem_kiocb_is_nowait(const struct kiocb *kiocb)
{
	return kiocb->ki_flags & IOCB_NOWAIT;
}

/* Inline functions. */
void ivshmem_pagefault_disable(void)
{
	pagefault_disable();
}

void ivshmem_pagefault_enable(void)
{
	pagefault_enable();
}

/*
 * Barriers against a CPU of another machine: unlike smp_mb() they stay in a kernel for one CPU. The kernel crate
 * has those only, and mb(), which costs more than is wanted.
 */
void ivshmem_virt_mb(void)
{
	virt_mb();
}

void ivshmem_virt_rmb(void)
{
	virt_rmb();
}

void ivshmem_virt_wmb(void)
{
	virt_wmb();
}
