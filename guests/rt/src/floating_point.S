// Filling and comparing the SIMD and floating-point registers. Register n holds x0 + n in both halves.
.arch_extension fp
.arch_extension simd

.text
.global guest_fill_vectors
guest_fill_vectors:
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    add     x1, x0, #\n
    dup     v\n\().2d, x1
    .endr
    ret

// x0: how many registers do not hold what they should.
.global guest_compare_vectors
guest_compare_vectors:
    mov     x2, #0
    .irp n, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31
    add     x1, x0, #\n
    mov     x3, v\n\().d[0]
    mov     x4, v\n\().d[1]
    cmp     x1, x3
    ccmp    x1, x4, #0, eq
    cinc    x2, x2, ne
    .endr
    mov     x0, x2
    ret
