// The exception vectors of EL2. Nothing is decided here: a guest's exit returns to the caller of enter_guest (switch.S),
// an interrupt of EL2 itself calls the kernel, a register that does not answer is told to whoever asked, anything else at EL2 is a defect
// and is reported with all registers.

    .macro  vector target
    .balign 0x80
    b       \target
    .endm

    // From EL2 itself, on SP_EL0, which is never used, and on SP_EL2.
    .macro  vectors_of_el2
    vector  fault_el2_t
    vector  fault_el2_t
    vector  fault_el2_t
    vector  fault_el2_t
    .balign 0x80
    // Is the stack still a stack? Below every stack, that of boot included, is a guard in which bit 16 of SP is clear
    // (kernel::address_space, hypervisor.ld). The test must not use memory or a register: SP and x0 are swapped by arithmetic.
    sub     sp, sp, #FAULT_FRAME
    add     sp, sp, x0
    sub     x0, sp, x0
    tbz     x0, #STACK_VALID_BIT, stack_overflow
    sub     x0, sp, x0
    sub     sp, sp, x0
    b       fault_el2_synchronous
    vector  irq_el2
    vector  fault_el2_asynchronous      // FIQ: none is routed to us
    vector  fault_el2_asynchronous      // SError
    .endm

    .macro  guest_vector kind
    .balign 0x80
    stp     x0, x1, [sp, #-16]!
    mov     x1, #\kind
    b       guest_exit
    .endm

    // The same where a guest could have prepared what EL2's branches are predicted to do. Takes the branches that the core
    // needs to forget the history of the guest's, makes the firmware call that it needs, if any, and goes on when all that is
    // done: whatever is predicted before, nothing behind the barriers is executed ahead of them. The call keeps X4 and up
    // (DEN 0028, "SMCCC_ARCH_WORKAROUND_1").
    .macro  hardened_vector kind
    .balign 0x80
    stp     x0, x1, [sp, #-16]!
    stp     x2, x3, [sp, #-16]!
    mrs     x0, tpidr_el2
    ldp     w1, w0, [x0, #PER_CPU_HARDENING]
1:  b       2f
2:  subs    w1, w1, #1
    b.ne    1b
    cbz     w0, 3f
    smc     #0
3:  dsb     nsh
    isb
    .if     \kind == 0
    mrs     x0, tpidr_el2
    ldr     w0, [x0, #PER_CPU_DOUBTS_STAGE_2]
    cbnz    w0, doubt_stage_2
    .endif
    ldp     x2, x3, [sp], #16
    mov     x1, #\kind
    b       guest_exit
    .endm

    // From a guest in AArch64, and from its EL0 in AArch32. The kinds are those of RawExitKind.
    .macro  vectors_of_guests entry
    .rept   2
    \entry 0                            // Synchronous
    \entry 1                            // Irq
    \entry 2                            // Fiq
    \entry 3                            // SError
    .endr
    .balign 0x80
    .endm

    .section .text.vectors, "ax"
    .balign 0x800
    .global el2_vectors
el2_vectors:
    vectors_of_el2
    vectors_of_guests guest_vector
    .global el2_hardened_vectors
el2_hardened_vectors:
    vectors_of_el2
    vectors_of_guests hardened_vector

// Erratum 834220 of Cortex-A57: a load that crosses a page may be reported as a translation fault of stage 2 where it has a
// fault of stage 1. So stage 1 is asked, as for a load by EL1; if it has a fault the guest goes on where it stands, to meet it.
// x0 to x3 of the guest are pushed.
doubt_stage_2:
    mrs     x0, esr_el2
    ubfx    x1, x0, #26, #6
    cmp     x1, #0x24                   // a data abort from below
    b.ne    1f
    and     x1, x0, #0x3c
    cmp     x1, #0x04                   // translation fault, any level
    b.ne    1f
    tbnz    x0, #7, 1f                  // S1PTW: of a walk, which crosses no page
    mrs     x2, par_el1                 // the guest's
    mrs     x1, far_el2
    at      s1e1r, x1
    isb
    mrs     x1, par_el1
    msr     par_el1, x2
    tbz     x1, #0, 1f                  // F: no fault
    ldp     x2, x3, [sp], #16
    ldp     x0, x1, [sp], #16
    eret
    dsb     nsh
    isb
1:  ldp     x2, x3, [sp], #16
    mov     x1, #0                      // Synchronous
    b       guest_exit

// An interrupt while EL2 ran a host thread with interrupts on: save what a Rust function may overwrite.
irq_el2:
    sub     sp, sp, #192
    stp     x29, x30, [sp]
    stp     x0, x1, [sp, #16]
    stp     x2, x3, [sp, #32]
    stp     x4, x5, [sp, #48]
    stp     x6, x7, [sp, #64]
    stp     x8, x9, [sp, #80]
    stp     x10, x11, [sp, #96]
    stp     x12, x13, [sp, #112]
    stp     x14, x15, [sp, #128]
    stp     x16, x17, [sp, #144]
    mrs     x0, elr_el2
    mrs     x1, spsr_el2
    stp     x18, x0, [sp, #160]
    str     x1, [sp, #176]
    mov     x29, sp                     // a frame record, so that a backtrace passes through
    bl      kernel_irq                  // may switch threads and come back much later, on any CPU
    ldp     x18, x0, [sp, #160]
    ldr     x1, [sp, #176]
    msr     elr_el2, x0
    msr     spsr_el2, x1
    ldp     x16, x17, [sp, #144]
    ldp     x14, x15, [sp, #128]
    ldp     x12, x13, [sp, #112]
    ldp     x10, x11, [sp, #96]
    ldp     x8, x9, [sp, #80]
    ldp     x6, x7, [sp, #64]
    ldp     x4, x5, [sp, #48]
    ldp     x2, x3, [sp, #32]
    ldp     x0, x1, [sp, #16]
    ldp     x29, x30, [sp]
    add     sp, sp, #192
    eret
    dsb     nsh                         // as in el2_enter_guest
    isb

// The faulting SP lies in a guard page. x0 = that SP - FAULT_FRAME, SP = x0 + the old x0. A thread that comes here never goes
// on, so the SP_EL0 of a vCPU it may have loaded can be spent to keep x0.
stack_overflow:
    sub     x0, sp, x0
    msr     sp_el0, x0                  // the old x0
    sub     sp, sp, x0
    mrs     x0, tpidr_el2
    ldr     x0, [x0, #PER_CPU_EMERGENCY_STACK]
    add     sp, sp, x0
    sub     x0, sp, x0                  // x0 = the SP that failed - FAULT_FRAME
    sub     sp, sp, x0                  // SP = the emergency stack
    sub     sp, sp, #FAULT_FRAME
    str     x0, [sp, #FAULT_FRAME_SPARE]
    mrs     x0, sp_el0
    save_fault_frame
    ldr     x0, [sp, #FAULT_FRAME_SPARE]
    add     x0, x0, #FAULT_FRAME
    str     x0, [sp, #FAULT_FRAME_SP]
    mov     x0, sp
    mov     x1, #1
    b       kernel_fault                // (&FaultFrame, overflow) -> !

// A device that does not answer is no defect of ours where that may be (drivers::mmio): the linker puts the functions for it between
// these symbols. They have no stack, and hand X0 and X1 back. They return at once, with zeroes there.
fault_el2_synchronous:
    stp     x0, x1, [sp]
    mrs     x0, elr_el2
    adrp    x1, __guarded_start
    add     x1, x1, :lo12:__guarded_start
    cmp     x0, x1
    b.lo    1f
    adrp    x1, __guarded_end
    add     x1, x1, :lo12:__guarded_end
    cmp     x0, x1
    b.hs    1f
    mrs     x0, esr_el2
    ubfx    x1, x0, #26, #6
    cmp     x1, #0x25                   // a data abort from here
    b.ne    1f
    and     x1, x0, #0x3f
    cmp     x1, #0x10                   // synchronous external abort, not of a walk
    b.ne    1f
    msr     elr_el2, x30
    mov     x0, #0
    mov     x1, #0
    add     sp, sp, #FAULT_FRAME
    eret
    dsb     nsh                         // as in el2_enter_guest
    isb
1:  ldp     x0, x1, [sp]
    b       fault_el2

fault_el2_t:
    msr     spsel, #1
fault_el2_asynchronous:
    sub     sp, sp, #FAULT_FRAME
fault_el2:
    save_fault_frame
    mov     x0, sp
    mov     x1, #0
    b       kernel_fault                // (&FaultFrame, overflow) -> !
