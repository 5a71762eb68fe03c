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

    // Relocate: for each R_AARCH64_RELATIVE, *(slide + offset) = slide + addend.
    adrp    x21, _start
    add     x21, x21, :lo12:_start
    adrp    x22, __linked_at
    ldr     x22, [x22, :lo12:__linked_at]
    sub     x21, x21, x22               // x21: the slide
    adrp    x22, __rela_start
    add     x22, x22, :lo12:__rela_start
    adrp    x23, __rela_end
    add     x23, x23, :lo12:__rela_end
1:  cmp     x22, x23
    b.hs    2f
    ldp     x24, x25, [x22], #16        // r_offset, r_info
    ldr     x26, [x22], #8              // r_addend
    cmp     x25, #0x403                 // R_AARCH64_RELATIVE; the linker leaves no others in this image
    b.ne    1b
    add     x26, x26, x21
    str     x26, [x24, x21]
    b       1b
2:
    // Zero what the file does not carry.
    adrp    x22, __bss_start
    add     x22, x22, :lo12:__bss_start
    adrp    x23, __bss_end
    add     x23, x23, :lo12:__bss_end
3:  cmp     x22, x23
    b.hs    4f
    stp     xzr, xzr, [x22], #16
    b       3b
4:
    mrs     x0, CurrentEL
    cmp     x0, #(2 << 2)
    b.ne    5f
    hcr_of_host x1
    msr     hcr_el2, x1
    isb                                 // the layout of other registers depends on E2H
    adrp    x1, el2_vectors
    add     x1, x1, :lo12:el2_vectors
    msr     vbar_el2, x1
    msr     tpidr_el2, xzr
5:  msr     spsel, #1
    adrp    x1, __boot_stack_end
    add     x1, x1, :lo12:__boot_stack_end
    mov     sp, x1
    isb
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x20
    mov     x1, x21
    bl      kernel_boot                 // (device tree, slide) -> !
6:  wfe
    b       6b

// A secondary CPU, as PSCI CPU_ON or a spin table releases it: x0 = physical address of its `SecondaryBoot`, MMU off.
    .global el2_secondary_entry
el2_secondary_entry:
    msr     daifset, #0xf
    mrs     x1, CurrentEL
    cmp     x1, #(2 << 2)
    b.ne    6b
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
