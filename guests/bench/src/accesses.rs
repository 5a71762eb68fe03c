//! Things a guest does that the hypervisor answers at once: calls, registers, devices.
//!
//! Answers for: one instruction that traps per round, operands prepared outside the loop where the instruction allows it.
//! Does not answer for: interrupts.

use core::arch::asm;

use guest_rt::console;
use guest_rt::gic::{GICD_TYPER, GICR_TYPER, Gic};
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::println;
use guest_rt::registers::relax;
use guest_rt::smccc::{Conduit, function};

use crate::measure::{repeat, report, stamp};

/// A null call: x0 in and out, x1 to x17 possibly changed.
macro_rules! call {
    ($instruction:literal, $function:expr) => {
        // SAFETY: PSCI_VERSION and unknown functions have no effect; the convention leaves all else alone.
        unsafe { asm!($instruction, inout("x0") u64::from($function) => _, clobber_abi("C")) }
    };
}

fn repeat_call(name: &str, conduit: Conduit, function: u32) {
    match conduit {
        Conduit::Hvc => repeat(name, || call!("hvc #0", function)),
        Conduit::Smc => repeat(name, || call!("smc #0", function)),
    }
}

/// `PSCI_VERSION`.
pub(crate) fn hypercall(machine: &'static Machine) {
    repeat_call("hypercall", machine.conduit, function::PSCI_VERSION);
}

/// A function identifier that nobody has: owner 50, trusted operating system, fast call.
pub(crate) fn unknown_hypercall(machine: &'static Machine) {
    let is_answered = guest_rt::exceptions::catch(|| guest_rt::smccc::call(0xb200_7777, [0; 3])).1.is_none();
    if is_answered {
        repeat_call("unknown-hypercall", machine.conduit, 0xb200_7777);
    }
}

/// `GICD_TYPER`.
pub(crate) fn distributor_read(machine: &'static Machine) {
    read("gicd-read", Gic::of(machine).distributor, GICD_TYPER);
}

/// `GICR_TYPER`, its lower half.
pub(crate) fn redistributor_read(machine: &'static Machine) {
    if machine.cpu_interface.is_some() {
        println!("bench: # gicr-read: a GICv2 has none");
        return;
    }
    read("gicr-read", Gic::of(machine).redistributor, GICR_TYPER);
}

/// `UARTPeriphID0` of a device in the middle of all those there are.
pub(crate) fn vdev_read(machine: &'static Machine) {
    let others = &machine.other_uarts;
    let registers = others.get(others.len() / 2).or(machine.uart.as_ref().map(|(registers, _)| registers));
    let Some(registers) = registers else { return };
    // SAFETY: the tree says that a PL011 is there.
    read("vdev-read", unsafe { Mmio::new(registers.start as usize) }, 0xfe0);
}

fn read(name: &str, device: Mmio, offset: usize) {
    repeat(name, || {
        let _ = device.read(offset);
    });
}

/// An identification register that hypervisors trap.
pub(crate) fn id_register(_machine: &'static Machine) {
    repeat("id-register", || {
        let _ = guest_rt::mrs!("id_aa64isar0_el1");
    });
}

/// Polled output: the flag register until there is room, then the data register.
pub(crate) fn uart_byte(_machine: &'static Machine) {
    const LINES: u64 = 10;
    const BYTES: u64 = 100;
    let Some(uart) = console::registers() else { return };
    let start = stamp();
    for _ in 0..LINES {
        for left in (0..BYTES).rev() {
            while uart.read(console::UARTFR) & console::TXFF != 0 {
                relax();
            }
            uart.write(console::UARTDR, u32::from(if left == 0 { b'\n' } else { b'.' }));
        }
    }
    report("uart-byte", stamp() - start, LINES * BYTES);
}
