/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the module needs of the kernel and Rust cannot reach in this release: inline functions and
 * macros without a Rust helper. This is a closed list without logic; the Rust mirror is stubs.rs.
 */
#ifndef _IVSHMEM_STUBS_H
#define _IVSHMEM_STUBS_H

#include <linux/types.h>

struct cdev;
struct file;
struct file_operations;
struct inode;
struct kiocb;
struct vm_area_struct;
struct vm_operations_struct;

void ivshmem_vma_set_pfnmap(struct vm_area_struct *vma, const struct vm_operations_struct *ops);
void ivshmem_file_set_nowait(struct file *file);
bool ivshmem_file_is_readable(const struct file *file);
bool ivshmem_file_is_writable(const struct file *file);
struct cdev *ivshmem_inode_cdev(const struct inode *inode);
struct file *ivshmem_anon_file(const char *name, const struct file_operations *fops, void *priv);
bool ivshmem_kiocb_is_nowait(const struct kiocb *kiocb);
void ivshmem_pagefault_disable(void);
void ivshmem_pagefault_enable(void);
void ivshmem_virt_mb(void);
void ivshmem_virt_rmb(void);
void ivshmem_virt_wmb(void);

#endif /* _IVSHMEM_STUBS_H */
