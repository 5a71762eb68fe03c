//! System registers that the `aarch64-cpu` package does not have, read and written by name.
//!
//! Where the package has a register its typed form is used instead; this file closes the gap with one macro.

/// Reads a system register by the name (or `s3_…` encoding) the assembler knows it by.
macro_rules! read_register {
    ($name:expr) => {{
        let value: u64;
        // SAFETY: reading a system register that exists at EL2 has no effect on memory; the callers name only registers
        // that the CPU has, or check its identification registers first.
        unsafe {
            core::arch::asm!(concat!("mrs {}, ", $name), out(reg) value, options(nomem, nostack, preserves_flags));
        }
        value
    }};
}

/// Writes a system register by name. The caller adds the barriers that the register needs.
macro_rules! write_register {
    ($name:tt, $value:expr) => {{
        let value: u64 = $value;
        // SAFETY: the callers name registers that hold guest state or configuration EL2 owns; none of them changes how
        // EL2's own Rust code is executed or what memory it sees.
        unsafe {
            core::arch::asm!(concat!("msr ", $name, ", {}"), in(reg) value, options(nostack, preserves_flags));
        }
    }};
}

/// Barriers, maintenance and mask instructions that have no operand but registers. They reveal nothing and overwrite
/// nothing; the callers say why they are where they are.
macro_rules! instructions {
    ($($line:literal),+ $(, $name:ident = $value:expr)*) => {
        // SAFETY: translations, instructions and cache lines that are dropped are fetched again, what is written back was
        // the memory's content already, and a masked interrupt waits.
        unsafe { core::arch::asm!($($line),+ $(, $name = in(reg) $value)*, options(nostack, preserves_flags)); }
    };
}
