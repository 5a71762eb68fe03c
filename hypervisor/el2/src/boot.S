// Entry of the boot CPU and of the others, from whatever loaded us: QEMU -kernel, U-Boot booti, the Raspberry Pi's
// firmware. Follows Linux's Documentation/arch/arm64/booting.rst ("Call the kernel image"): MMU off, x0 = device tree.
//
// Until the MMU is on all memory is Device-nGnRnE: no exclusives, no unaligned access. The code is position independent;
// what the linker could not make relative is relocated here, before the first line of Rust.

    .section .head, "ax"
    .global _start
_start:
    b       primary_entry               // code0
    .long   0                           // code1
    .quad   0                           // text_offset: the image may start at any 2 MiB boundary
    .quad   __image_size                // image_size: including what the file does not carry
    .quad   0b1010                      // flags: little endian, 4 KiB pages, anywhere in physical memory
    .quad   0
    .quad   0
    .quad   0
    .ascii  "ARM\x64"                   // magic
    .long   0

    .section .text.boot, "ax"
primary_entry:
    mov     x20, x0                     // the device tree's address survives in x20
    msr     daifset, #0xf

    adrp    x21, _start
    add     x21, x21, :lo12:_start
    adrp    x22, __linked_at
    ldr     x22, [x22, :lo12:__linked_at]
    sub     x21, x21, x22               // x21: the slide, to be added to each word that the linker lists

    // SHT_RELR (ELF gABI, "Relative Relocation Table"): an even word is the address of a word to relocate; an odd one has
    // a bit for each of the next 63 words, the lowest first, and goes on where the word before it ended.
    adrp    x22, __relr_start
    add     x22, x22, :lo12:__relr_start
    adrp    x23, __relr_end
    add     x23, x23, :lo12:__relr_end
1:  cmp     x22, x23
    b.hs    5f
    ldr     x24, [x22], #8
    tbnz    x24, #0, 2f
    add     x25, x24, x21               // x25: the next word
    ldr     x26, [x25]
    add     x26, x26, x21
    str     x26, [x25], #8
    b       1b
2:  mov     x27, x25
    add     x25, x25, #(63 * 8)
3:  lsr     x24, x24, #1
    cbz     x24, 1b
    tbz     x24, #0, 4f
    ldr     x26, [x27]
    add     x26, x26, x21
    str     x26, [x27]
4:  add     x27, x27, #8
    b       3b
5:
    // Whoever had the memory that the file does not carry may have left dirty lines of it: written back later, they would
    // overwrite what is written past the caches from here on.
    mrs     x24, ctr_el0
    ubfx    x24, x24, #16, #4           // DminLine
    mov     x25, #4
    lsl     x24, x25, x24
    adrp    x22, __uninitialised_start
    add     x22, x22, :lo12:__uninitialised_start
    sub     x25, x24, #1
    add     x22, x22, x25
    bic     x22, x22, x25               // a line that it begins in holds data of the file as well, and is clean
    adrp    x23, __boot_stack_end
    add     x23, x23, :lo12:__boot_stack_end
6:  cmp     x22, x23
    b.hs    7f
    dc      ivac, x22
    add     x22, x22, x24
    b       6b
7:  dsb     sy
    // Zero what has to be zero, whole times 64 bytes.
    adrp    x22, __bss_start
    add     x22, x22, :lo12:__bss_start
    adrp    x23, __bss_end
    add     x23, x23, :lo12:__bss_end
6:  cmp     x22, x23
    b.hs    7f
    stp     xzr, xzr, [x22]
    stp     xzr, xzr, [x22, #16]
    stp     xzr, xzr, [x22, #32]
    stp     xzr, xzr, [x22, #48]
    add     x22, x22, #64
    b       6b
7:
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    8f
    hcr_of_host x1
    msr     hcr_el2, x1
    isb                                 // the layout of other registers depends on E2H
    adrp    x1, el2_vectors
    add     x1, x1, :lo12:el2_vectors
    msr     vbar_el2, x1
    msr     tpidr_el2, xzr
8:  msr     spsel, #1
    adrp    x1, __boot_stack_end
    add     x1, x1, :lo12:__boot_stack_end
    mov     sp, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x20
    mov     x1, x21
    bl      kernel_boot                 // (device tree, slide) -> !
9:  wfe
    b       9b

// A secondary CPU, as a spin table releases it (booting.rst, "CPU nodes with a spin-table enable-method"): MMU off. It looks for
// the `SecondaryBoot` of its own, which may come later than it: several CPUs may share a release address.
    .global el2_spin_table_entry
el2_spin_table_entry:
    msr     daifset, #0xf
    mrs     x1, mpidr_el1
    mov     x2, #0xffffff
    movk    x2, #0xff, lsl #32
    and     x1, x1, x2                  // affinity alone, as `Mpidr` has it
1:  adrp    x0, el2_first_secondary
    ldr     x0, [x0, :lo12:el2_first_secondary]
2:  cbz     x0, 3f
    ldp     x2, x3, [x0, #48]           // mpidr, next
    cmp     x2, x1
    b.eq    el2_secondary_entry
    mov     x0, x3
    b       2b
3:  wfe
    b       1b

// A secondary CPU, as PSCI CPU_ON starts it: x0 = physical address of its `SecondaryBoot`, MMU off.
    .global el2_secondary_entry
el2_secondary_entry:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    9b
    msr     spsel, #1
    hcr_of_host x1
    msr     hcr_el2, x1
    isb
    ldp     x1, x2, [x0]                // ttbr0_el2, tcr_el2
    ldp     x3, x4, [x0, #16]           // mair_el2, sctlr_el2
    ldp     x5, x6, [x0, #32]           // stack, per-CPU block
    msr     ttbr0_el2, x1
    msr     tcr_el2, x2
    msr     mair_el2, x3
    msr     tpidr_el2, x6
    adrp    x7, el2_vectors
    add     x7, x7, :lo12:el2_vectors
    msr     vbar_el2, x7
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x4
    isb
    mov     sp, x5
    mov     x29, xzr
    mov     x30, xzr
    bl      kernel_secondary            // () -> !
7:  wfe
    b       7b

// fn el2_enable_mmu(ttbr0, tcr, mair, sctlr): everything that runs is mapped where it already is.
    .section .text, "ax"
    .global el2_enable_mmu
el2_enable_mmu:
    msr     ttbr0_el2, x0
    msr     tcr_el2, x1
    msr     mair_el2, x2
    dsb     sy                          // the tables have reached memory
    tlbi    alle2
    ic      iallu
    dsb     nsh
    isb
    msr     sctlr_el2, x3
    isb
    ret

    .section .boot_stack, "aw", %nobits
    .balign 16
    .space  0x8000
