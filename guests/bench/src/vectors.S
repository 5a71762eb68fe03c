// The interrupt path that is measured: the counter is its first look at the world, and it does nothing beyond an
// acknowledge, a flag and an end. All other exceptions go to the run time's vectors.

.macro elsewhere offset
    .balign 128
    b       guest_vectors + \offset
.endm

.text
.balign 2048
.global bench_vectors
bench_vectors:
    elsewhere 0x000
    elsewhere 0x080
    elsewhere 0x100
    elsewhere 0x180
    elsewhere 0x200

    // IRQ from EL1h.
    .balign 128
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
