//! What the bare-metal guests stand on.
//!
//! Answers for: getting from the first instruction to `main` with caches on and a console, and thin, exact access to what
//! the machine offers: exceptions, interrupts, timers, firmware calls, other CPUs, physical addresses. Everything about
//! the machine comes from its device tree. Does not answer for: what a guest wants with it.
//!
//! Nothing here knows the hypervisor: the same image runs on a bare machine at EL1. Follows the Arm Architecture Reference
//! Manual (DDI 0487), the GIC specification (IHI 0069), PSCI (DEN 0022), SMCCC (DEN 0028), the PL011 manual (DDI 0183), the
//! device-tree specification and "Booting AArch64 Linux".

#![no_std]

pub mod code;
pub mod console;
pub mod cpus;
pub mod edu;
mod entry;
pub mod exceptions;
pub mod floating_point;
pub mod gic;
pub mod machine;
pub mod messages;
pub mod mmio;
pub mod mmu;
pub mod pattern;
pub mod pci;
pub mod registers;
pub mod sandbox;
pub mod shmem;
pub mod smccc;
pub mod tap;
pub mod timer;
pub mod tree;

/// Makes `$main` (a `fn(&'static Machine)`) what the boot CPU runs. The machine powers off when it returns.
#[macro_export]
macro_rules! entry {
    ($main:path) => {
        // SAFETY: the one definition of this symbol; `entry.rs` declares it with the same signature.
        #[unsafe(no_mangle)]
        extern "Rust" fn guest_main(machine: &'static $crate::machine::Machine) {
            let main: fn(&'static $crate::machine::Machine) = $main;
            main(machine);
        }
    };
}
