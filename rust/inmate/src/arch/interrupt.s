# SPDX-License-Identifier: MIT OR Apache-2.0
#
# One entry stub of 16 bytes for each of the 256 vectors, and the way from there
# to `interrupt_entry` in interrupt.rs. Assembled by that file; AT&T
# syntax.
#
# Every gate switches to a stack of its own (IST), so the red zone of the
# interrupted code stays intact, and RSP is 16-byte aligned at the call.

    .section .text.interrupt, "ax", @progbits
    .code64
    .globl interrupt_stubs
    .balign 16
interrupt_stubs:
    .set vector, 0
    .rept 256
    .balign 16
    # These exceptions push an error code themselves; the others get a zero.
    .if !(vector == 8 || (vector >= 10 && vector <= 14) || vector == 17 || vector == 21 || vector == 29 || vector == 30)
    pushq $0
    .endif
    pushq $vector
    jmp interrupt_common
    .set vector, vector + 1
    .endr

interrupt_common:
    pushq %rax
    pushq %rcx
    pushq %rdx
    pushq %rsi
    pushq %rdi
    pushq %r8
    pushq %r9
    pushq %r10
    pushq %r11
    movq %rsp, %rdi
    subq $512, %rsp
    fxsave64 (%rsp)
    cld
    call interrupt_entry
    fxrstor64 (%rsp)
    addq $512, %rsp
    popq %r11
    popq %r10
    popq %r9
    popq %r8
    popq %rdi
    popq %rsi
    popq %rdx
    popq %rcx
    popq %rax
    addq $16, %rsp
    iretq
