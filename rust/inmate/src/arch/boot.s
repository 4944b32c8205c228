# SPDX-License-Identifier: MIT OR Apache-2.0
#
# From the PVH entry (32-bit protected mode, paging off, EBX = physical address
# of the start info) to `inmate_main` in 64-bit mode. Assembled through
# src/arch/boot.rs; AT&T syntax.
#
# Maps the program's own memory, the first 16 MiB without page 0, write-back:
# code executable, constants read-only, all else writable, a hole below the
# stack. Everything beyond is mapped on demand by paging.rs. So a stray access
# faults.

    .section .note.pvh, "a", @note
    .balign 4
    .long 4                     # size of the name
    .long 8                     # size of the descriptor
    .long 18                    # XEN_ELFNOTE_PHYS32_ENTRY
    .asciz "Xen"
    .quad pvh_start

    .section .text.boot, "ax", @progbits
    .code32
    .globl pvh_start
pvh_start:
    cli
    cld
    movl $boot_stack_top, %esp
    movl %ebx, %ebp             # CPUID overwrites EBX

    movl $0x80000000, %eax
    cpuid
    cmpl $0x80000001, %eax
    jb no_long_mode
    movl $0x80000001, %eax
    cpuid
    andl $((1 << 29) | (1 << 20)), %edx
    cmpl $((1 << 29) | (1 << 20)), %edx     # long mode and no-execute
    jne no_long_mode

    # The image lies in the first 2 MiB, mapped by 4 KiB pages; seven 2 MiB
    # pages follow. In the entries: 1 present, 2 writable, 80h large page; bit 31
    # of the upper half no-execute.
    movl $(boot_pdpt + 3), boot_pml4
    movl $(boot_pd + 3), boot_pdpt
    movl $(boot_pt + 3), boot_pd
    movl $1, %ecx
1:  movl %ecx, %eax
    shll $21, %eax
    orl $0x83, %eax
    movl %eax, boot_pd(, %ecx, 8)
    movl $0x80000000, boot_pd + 4(, %ecx, 8)
    incl %ecx
    cmpl $8, %ecx
    jb 1b

    movl $0x1000, %ecx          # address of the page
1:  movl %ecx, %edi
    shrl $9, %edi               # offset of its entry
    leal 3(%ecx), %eax
    movl $0x80000000, %edx
    cmpl $text_start, %ecx
    jb 3f
    cmpl $data_start, %ecx
    jae 3f
    andl $~2, %eax
    cmpl $rodata_start, %ecx
    jae 3f
    xorl %edx, %edx
3:  cmpl $boot_stack_guard, %ecx
    jne 4f
    xorl %eax, %eax
4:  movl %eax, boot_pt(%edi)
    movl %edx, boot_pt + 4(%edi)
    addl $0x1000, %ecx
    cmpl $0x200000, %ecx
    jb 1b

    movl %cr4, %eax
    orl $((1 << 5) | (1 << 9) | (1 << 10)), %eax    # PAE, OSFXSR, OSXMMEXCPT
    movl %eax, %cr4
    movl $boot_pml4, %eax
    movl %eax, %cr3
    movl $0xc0000080, %ecx      # EFER
    rdmsr
    orl $((1 << 8) | (1 << 11)), %eax               # LME, NXE
    wrmsr
    movl %cr0, %eax
    andl $~((1 << 2) | (1 << 3) | (1 << 29) | (1 << 30)), %eax      # EM, TS, NW, CD
    orl $((1 << 31) | (1 << 16) | (1 << 5) | (1 << 1)), %eax        # PG, WP, NE, MP
    movl %eax, %cr0
    lgdt boot_gdt_pointer
    ljmp $0x08, $long_mode

    # Too old a processor: say so on the serial line, leave with the failure
    # status of src/exit.rs.
no_long_mode:
    movl $no_long_mode_text, %esi
1:  lodsb
    testb %al, %al
    jz 3f
    movb %al, %ah
    movl $0x3fd, %edx
2:  inb %dx, %al
    testb $0x20, %al
    jz 2b
    movb %ah, %al
    movl $0x3f8, %edx
    outb %al, %dx
    jmp 1b
3:  movl $0xf4, %edx
    movl $0x11, %eax
    outl %eax, %dx
4:  cli
    hlt
    jmp 4b

    .code64
long_mode:
    movl $0x10, %eax
    movl %eax, %ds
    movl %eax, %es
    movl %eax, %ss
    xorl %eax, %eax
    movl %eax, %fs
    movl %eax, %gs
    fninit
    movl $boot_stack_top, %esp
    movl %ebp, %edi
    xorl %ebp, %ebp
    call inmate_main
    ud2

    .section .rodata.boot, "a", @progbits
    .balign 8
boot_gdt:
    .quad 0
    .quad 0x00af9b000000ffff    # 08h: 64-bit code
    .quad 0x00cf93000000ffff    # 10h: data
boot_gdt_pointer:
    .word . - boot_gdt - 1
    .long boot_gdt
no_long_mode_text:
    .asciz "IVSHMEM: error: the processor has no 64-bit mode with no-execute pages\r\n"

    .section .bss.boot, "aw", @nobits
    .balign 4096
    .globl boot_pml4
boot_pml4:
    .skip 4096
boot_pdpt:
    .skip 4096
boot_pd:
    .skip 4096
boot_pt:
    .skip 4096
boot_stack_guard:
    .skip 4096
    .skip 65536
boot_stack_top:
