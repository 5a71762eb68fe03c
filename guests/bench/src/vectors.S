// The interrupt path that is measured: the counter is its first look at the world, and it does nothing beyond an
// acknowledge, a flag and an end. All other exceptions go to the run time's vectors.

.macro elsewhere offset
    .balign 128
    b       guest_vectors + \offset
.endm

.macro vectors name
.balign 2048
.global \name
\name:
    elsewhere 0x000
    elsewhere 0x080
    elsewhere 0x100
    elsewhere 0x180
    elsewhere 0x200
    .balign 128
    \name\()_irq
    elsewhere 0x300
    elsewhere 0x380
    elsewhere 0x400
    elsewhere 0x480
    elsewhere 0x500
    elsewhere 0x580
    elsewhere 0x600
    elsewhere 0x680
    elsewhere 0x700
    elsewhere 0x780
.endm

// IRQ from EL1h, of a GICv3.
.macro bench_vectors_irq
    stp     x0, x1, [sp, #-32]!
    mrs     x0, cntvct_el0
    str     x2, [sp, #16]
    mrs     x2, tpidr_el1
    adrp    x1, BENCH_SEEN
    add     x1, x1, #:lo12:BENCH_SEEN
    add     x1, x1, x2, lsl #6
    mrs     x2, S3_0_C12_C12_0              // ICC_IAR1_EL1
    stp     x0, x2, [x1]                    // Seen: at, intid; one line per CPU
    cmp     w2, #16
    b.lo    1f
    mov     x0, #2                          // a PPI, hence the timer: IMASK, or it would be back at once
    msr     cntv_ctl_el0, x0
    isb
1:  msr     S3_0_C12_C12_1, x2              // ICC_EOIR1_EL1
    ldr     x2, [sp, #16]
    ldp     x0, x1, [sp], #32
    eret
.endm

// And of a GICv2, whose CPU interface is in memory: what is acknowledged has the sender above the INTID.
.macro bench_vectors_v2_irq
    stp     x0, x1, [sp, #-32]!
    mrs     x0, cntvct_el0
    stp     x2, x3, [sp, #16]
    mrs     x2, tpidr_el1
    adrp    x1, BENCH_SEEN
    add     x1, x1, #:lo12:BENCH_SEEN
    add     x1, x1, x2, lsl #6
    adrp    x3, BENCH_INTERFACE
    ldr     x3, [x3, #:lo12:BENCH_INTERFACE]
    ldr     w2, [x3, #0xc]                  // GICC_IAR
    str     x0, [x1]
    and     x0, x2, #0x3ff
    str     x0, [x1, #8]
    cmp     w0, #16
    b.lo    1f
    mov     x0, #2
    msr     cntv_ctl_el0, x0
    isb
1:  str     w2, [x3, #0x10]                 // GICC_EOIR
    ldp     x2, x3, [sp, #16]
    ldp     x0, x1, [sp], #32
    eret
.endm

.text
vectors bench_vectors
vectors bench_vectors_v2
