// Accesses to registers that a device may leave without an answer. Each is C's: the address in X0, of a store the value in X1; back come the
// value that was loaded in X0, and 1 in X1. If the access ends in a synchronous external abort EL2's vectors return in its place, with zeroes
// (vectors.S), which know the functions by their section. No stack, no other register: nothing is to be undone then.
//
// Loads are of a form with a valid syndrome, should we ourselves be a guest. They acquire, because up to r1p2 a Cortex-A57 may
// hang on other loads from devices between exclusives (erratum 832075).

    .macro  guarded name, access:vararg
    .global guarded_\name
guarded_\name:
    \access
    mov     x1, #1
    ret
    .endm

    .section .text.guarded, "ax"
    guarded load_byte, ldarb w0, [x0]
    guarded load_halfword, ldarh w0, [x0]
    guarded load_word, ldar w0, [x0]
    guarded load_doubleword, ldar x0, [x0]
    guarded store_byte, strb w1, [x0]
    guarded store_halfword, strh w1, [x0]
    guarded store_word, str w1, [x0]
    guarded store_doubleword, str x1, [x0]
    .text
