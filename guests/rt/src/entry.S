// Where a guest begins: the image header, the boot CPU, the CPUs that PSCI starts later.
// In: x0 = device tree (boot CPU) or context id (the others); MMU and caches off, everything masked.

.section .head, "ax"
.global guest_start
guest_start:
    // The arm64 Image header ("Booting AArch64 Linux", section 4).
    b       boot_cpu
    .long   0
    .quad   0x80000                         // text_offset
    .quad   __image_end - guest_start       // image_size: memory to leave to us, .bss and stacks included
    .quad   0b1010                          // little endian, 4 KiB pages, anywhere
    .quad   0, 0, 0
    .ascii  "ARM\x64"
    .long   0

.text
boot_cpu:
    mov     x19, x0
    msr     daifset, #0xf
    msr     spsel, #1
    ldr     x0, =0x30d00800                 // SCTLR_EL1: RES1 bits, all else off
    msr     sctlr_el1, x0
    isb

    // What lies dirty in a cache could later be written back over what we are about to write past it.
    bl      guest_invalidate_own_data

    // Relocate: RELA entries (offset, R_AARCH64_RELATIVE = 1027, addend).
    adrp    x0, __link_address
    ldr     x0, [x0, #:lo12:__link_address]
    adrp    x1, guest_start
    add     x1, x1, #:lo12:guest_start
    sub     x1, x1, x0                      // how far we are from where we were linked
    adrp    x2, __relocations_start
    add     x2, x2, #:lo12:__relocations_start
    adrp    x3, __relocations_end
    add     x3, x3, #:lo12:__relocations_end
1:  cmp     x2, x3
    b.hs    3f
    ldp     x4, x5, [x2]
    ldr     x6, [x2, #16]
    add     x2, x2, #24
    cmp     w5, #1027
    b.ne    1b
    add     x6, x6, x1
    str     x6, [x4, x1]
    b       1b

3:  adrp    x0, __bss_start
    add     x0, x0, #:lo12:__bss_start
    adrp    x1, __bss_end
    add     x1, x1, #:lo12:__bss_end
4:  cmp     x0, x1
    b.hs    5f
    stp     xzr, xzr, [x0], #16
    b       4b

5:  mov     x0, #0
    bl      set_stack
    bl      set_vectors
    mov     x29, #0
    mov     x0, x19
    bl      guest_boot
6:  wfi
    b       6b

// Entry for CPU_ON; x0 = this CPU's number. The state that the firmware left is kept for those who check it.
.global guest_secondary_start
guest_secondary_start:
    mrs     x20, currentel
    mrs     x21, spsel
    mrs     x22, daif
    mrs     x23, sctlr_el1
    mov     x19, x0
    msr     daifset, #0xf
    msr     spsel, #1
    bl      set_stack
    bl      set_vectors
    adrp    x0, GUEST_TRANSLATION
    add     x0, x0, #:lo12:GUEST_TRANSLATION
    bl      guest_enable_translation
    mov     x29, #0
    mov     x0, x19
    mov     x1, x20
    mov     x2, x21
    mov     x3, x22
    mov     x4, x23
    bl      guest_secondary
7:  wfi
    b       7b

// x0 = CPU number (kept). Stacks grow down from the end of their 32 KiB.
set_stack:
    adrp    x1, __stacks_start
    add     x1, x1, #:lo12:__stacks_start
    add     x2, x0, #1
    add     x1, x1, x2, lsl #15
    mov     sp, x1
    ret

set_vectors:
    adrp    x1, guest_vectors
    add     x1, x1, #:lo12:guest_vectors
    msr     vbar_el1, x1
    isb
    ret

// Throws away what any cache holds of our writable memory: it was, or will be, written with the caches off.
.global guest_invalidate_own_data
guest_invalidate_own_data:
    adrp    x0, __data_start
    adrp    x1, __image_end
    mrs     x2, ctr_el0
    ubfx    x2, x2, #16, #4
    mov     x3, #4
    lsl     x2, x3, x2                      // smallest data cache line, bytes
1:  dc      ivac, x0
    add     x0, x0, x2
    cmp     x0, x1
    b.lo    1b
    dsb     sy
    ret

// x0 = MAIR, TCR, TTBR0, SCTLR to use, in this order (struct Translation in mmu.rs).
.global guest_enable_translation
guest_enable_translation:
    ldp     x1, x2, [x0]
    ldp     x3, x4, [x0, #16]
    msr     mair_el1, x1
    msr     tcr_el1, x2
    msr     ttbr0_el1, x3
    isb
    tlbi    vmalle1
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el1, x4
    isb
    ret
