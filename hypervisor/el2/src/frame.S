// What the other assembly files share.

    // HCR_EL2 while no guest is loaded: RW, and IMO, FMO, AMO, without which EL2 itself takes no interrupt and no SError;
    // E2H and TGE are 0 (DDI 0487, "HCR_EL2"). Loads it into a register.
    .macro  hcr_of_host register
    mov     \register, #0x38
    movk    \register, #0x8000, lsl #16
    .endm

    // The frame of a fault at EL2 (layout: el2::FaultFrame).
    .equ    FAULT_FRAME, 304
    .equ    FAULT_FRAME_SP, 248
    .equ    FAULT_FRAME_SPARE, 296
    .equ    STACK_VALID_BIT, 16

    // What vectors.S finds behind TPIDR_EL2 (layout: kernel::cpu::PerCpu).
    .equ    PER_CPU_EMERGENCY_STACK, 0
    .equ    PER_CPU_HARDENING, 8
    .equ    PER_CPU_DOUBTS_STAGE_2, 16

    .macro  save_fault_frame
    stp     x0, x1, [sp]
    stp     x2, x3, [sp, #16]
    stp     x4, x5, [sp, #32]
    stp     x6, x7, [sp, #48]
    stp     x8, x9, [sp, #64]
    stp     x10, x11, [sp, #80]
    stp     x12, x13, [sp, #96]
    stp     x14, x15, [sp, #112]
    stp     x16, x17, [sp, #128]
    stp     x18, x19, [sp, #144]
    stp     x20, x21, [sp, #160]
    stp     x22, x23, [sp, #176]
    stp     x24, x25, [sp, #192]
    stp     x26, x27, [sp, #208]
    stp     x28, x29, [sp, #224]
    add     x0, sp, #FAULT_FRAME
    stp     x30, x0, [sp, #240]
    mrs     x0, elr_el2
    mrs     x1, spsr_el2
    stp     x0, x1, [sp, #256]
    mrs     x0, esr_el2
    mrs     x1, far_el2
    stp     x0, x1, [sp, #272]
    mrs     x0, hpfar_el2
    str     x0, [sp, #288]
    .endm
