//! From the first instruction to `main`.
//!
//! Answers for: the order in which things come to life on the boot CPU, and a panic's last words. `entry.S` has done what
//! Rust cannot: image header, relocation, stack. Does not answer for: the other CPUs (`cpus`).

use core::arch::global_asm;
use core::panic::PanicInfo;

use crate::machine::{self, Machine};
use crate::tree::Tree;
use crate::{console, cpus, gic, mmu, smccc};

global_asm!(include_str!("entry.S"));
global_asm!(include_str!("vectors.S"));

unsafe extern "Rust" {
    /// What `entry!` makes of the guest's own main function.
    safe fn guest_main(machine: &'static Machine);
}

#[unsafe(no_mangle)]
extern "C" fn guest_boot(device_tree: usize) -> ! {
    cpus::set_number(0);
    // SAFETY: the boot protocol: x0 is the device tree's address. Without one there is no console to complain on.
    let Ok(tree) = (unsafe { Tree::at(device_tree) }) else { halt() };
    let machine = Machine::read(tree);
    // SAFETY: the boot CPU, alone, once.
    unsafe { mmu::start(&machine) };
    let machine = machine::publish(machine);
    if let Some((registers, _)) = &machine.uart {
        // SAFETY: the tree says that a PL011 is there.
        unsafe { console::open(registers.start as usize) };
    }
    let gic = gic::Gic::of(machine);
    gic.start_distributor();
    gic.start_cpu();
    guest_main(machine);
    smccc::system_off()
}

fn halt() -> ! {
    loop {
        crate::registers::wfi();
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::print_regardless(format_args!("\nguest: {info}\n"));
    smccc::system_off()
}
