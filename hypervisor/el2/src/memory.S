// Copying, for callers with the MMU on.

// unsafe fn el2_copy(to: *mut u8, from: *const u8, length: usize)
// Normal memory, aligned or not; the two do not overlap. Each byte is read once.
    .section .text, "ax"
    .global el2_copy
    .balign 64
el2_copy:
    subs    x2, x2, #64
    b.lo    2f
1:  ldp     x3, x4, [x1], #64
    ldp     x5, x6, [x1, #-48]
    ldp     x7, x8, [x1, #-32]
    ldp     x9, x10, [x1, #-16]
    stp     x3, x4, [x0], #64
    stp     x5, x6, [x0, #-48]
    stp     x7, x8, [x0, #-32]
    stp     x9, x10, [x0, #-16]
    subs    x2, x2, #64
    b.hs    1b
2:  tst     x2, #63                     // what is left, in the bits below 64
    b.eq    8f
    tbz     x2, #5, 3f
    ldp     x3, x4, [x1], #16
    ldp     x5, x6, [x1], #16
    stp     x3, x4, [x0], #16
    stp     x5, x6, [x0], #16
3:  tbz     x2, #4, 4f
    ldp     x3, x4, [x1], #16
    stp     x3, x4, [x0], #16
4:  tbz     x2, #3, 5f
    ldr     x3, [x1], #8
    str     x3, [x0], #8
5:  tbz     x2, #2, 6f
    ldr     w3, [x1], #4
    str     w3, [x0], #4
6:  tbz     x2, #1, 7f
    ldrh    w3, [x1], #2
    strh    w3, [x0], #2
7:  tbz     x2, #0, 8f
    ldrb    w3, [x1]
    strb    w3, [x0]
8:  ret

// unsafe fn el2_copy_wide(to: *mut u8, from: *const u8, length: usize)
// The same, 128 bytes at least, through vector registers: half as many instructions. Interrupts are masked. These registers are a
// vCPU's, or nobody's while CPTR_EL2 traps their use: what is in them, and whether that is trapped, is afterwards what it was.
    .arch_extension fp
    .arch_extension simd
    .equ    CPTR_EL2_TFP, 10
    .global el2_copy_wide
    .balign 64
el2_copy_wide:
    mrs     x3, cptr_el2
    tbz     x3, #CPTR_EL2_TFP, 1f
    and     x4, x3, #~(1 << CPTR_EL2_TFP)
    msr     cptr_el2, x4
    isb
1:  stp     q0, q1, [sp, #-128]!
    stp     q2, q3, [sp, #32]
    stp     q4, q5, [sp, #64]
    stp     q6, q7, [sp, #96]
    sub     x2, x2, #128
2:  ldp     q0, q1, [x1], #128
    ldp     q2, q3, [x1, #-96]
    ldp     q4, q5, [x1, #-64]
    ldp     q6, q7, [x1, #-32]
    stp     q0, q1, [x0], #128
    stp     q2, q3, [x0, #-96]
    stp     q4, q5, [x0, #-64]
    stp     q6, q7, [x0, #-32]
    subs    x2, x2, #128
    b.hs    2b
    add     x2, x2, #128
    ldp     q2, q3, [sp, #32]
    ldp     q4, q5, [sp, #64]
    ldp     q6, q7, [sp, #96]
    ldp     q0, q1, [sp], #128
    msr     cptr_el2, x3                // in effect before the next guest is entered
    b       el2_copy
