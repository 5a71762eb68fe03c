// The two switches: between a vCPU thread and its guest, and between two threads.

// unsafe fn el2_enter_guest(context: *mut VcpuContext, exit: *mut RawExit)
// Interrupts are masked. Returns when the guest exits. The layout is that of types::VcpuContext and types::RawExit.
    .section .text, "ax"
    .global el2_enter_guest
    .balign 64
el2_enter_guest:
    stp     x29, x30, [sp, #-112]!
    mov     x29, sp
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    stp     x0, x1, [sp, #96]
    ldp     x2, x3, [x0, #248]
    msr     elr_el2, x2
    msr     spsr_el2, x3
    ldp     x2, x3, [x0, #16]
    ldp     x4, x5, [x0, #32]
    ldp     x6, x7, [x0, #48]
    ldp     x8, x9, [x0, #64]
    ldp     x10, x11, [x0, #80]
    ldp     x12, x13, [x0, #96]
    ldp     x14, x15, [x0, #112]
    ldp     x16, x17, [x0, #128]
    ldp     x18, x19, [x0, #144]
    ldp     x20, x21, [x0, #160]
    ldp     x22, x23, [x0, #176]
    ldp     x24, x25, [x0, #192]
    ldp     x26, x27, [x0, #208]
    ldp     x28, x29, [x0, #224]
    ldr     x30, [x0, #240]
    ldp     x0, x1, [x0]
    eret
    // Nothing behind an exception return may be executed speculatively (Arm, "Straight-line speculation").
    dsb     nsh
    isb

// From the vectors: x0 and x1 of the guest are pushed, x1 = RawExitKind.
    .global guest_exit
guest_exit:
    ldr     x0, [sp, #112]              // context
    stp     x2, x3, [x0, #16]
    ldp     x2, x3, [sp], #16           // the guest's x0, x1
    stp     x2, x3, [x0]
    stp     x4, x5, [x0, #32]
    stp     x6, x7, [x0, #48]
    stp     x8, x9, [x0, #64]
    stp     x10, x11, [x0, #80]
    stp     x12, x13, [x0, #96]
    stp     x14, x15, [x0, #112]
    stp     x16, x17, [x0, #128]
    stp     x18, x19, [x0, #144]
    stp     x20, x21, [x0, #160]
    stp     x22, x23, [x0, #176]
    stp     x24, x25, [x0, #192]
    stp     x26, x27, [x0, #208]
    stp     x28, x29, [x0, #224]
    str     x30, [x0, #240]
    mrs     x2, elr_el2
    mrs     x3, spsr_el2
    stp     x2, x3, [x0, #248]
    ldr     x4, [sp, #104]              // exit
    mrs     x2, esr_el2
    stp     x1, x2, [x4]
    mrs     x2, far_el2
    mrs     x3, hpfar_el2
    stp     x2, x3, [x4, #16]
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #112
    ret

// unsafe fn el2_switch_thread(from: *mut usize, to: usize)
// Saves the callee-saved registers and SP of the running thread and goes on with another's. `from` and `to` hold SP.
    .global el2_switch_thread
el2_switch_thread:
    stp     x29, x30, [sp, #-96]!
    mov     x29, sp
    stp     x19, x20, [sp, #16]
    stp     x21, x22, [sp, #32]
    stp     x23, x24, [sp, #48]
    stp     x25, x26, [sp, #64]
    stp     x27, x28, [sp, #80]
    mov     x9, sp
    str     x9, [x0]
    mov     sp, x1
    ldp     x19, x20, [sp, #16]
    ldp     x21, x22, [sp, #32]
    ldp     x23, x24, [sp, #48]
    ldp     x25, x26, [sp, #64]
    ldp     x27, x28, [sp, #80]
    ldp     x29, x30, [sp], #96
    ret

// Where a new thread starts: x19 = what it runs on, put there by ThreadStack::prepare.
    .global el2_thread_start
el2_thread_start:
    mov     x29, xzr
    mov     x30, xzr
    mov     x0, x19
    bl      kernel_thread_main          // (argument) -> !
    brk     #0
