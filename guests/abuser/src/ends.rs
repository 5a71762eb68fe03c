//! Ways to die: each leaves a guest that can never again execute an instruction, and is to end that VM, with its code.

use guest_rt::gic::Gic;
use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::isb;
use guest_rt::sandbox::{self, Mode};
use guest_rt::{msr, println};

use crate::Abuse;

/// Jumps to where no memory is, with the exception vectors there as well: the abort cannot be taken either.
pub(crate) fn nowhere(abuse: &mut Abuse) -> u64 {
    let address = abuse.machine.memory[0].start - 0x1_0000;
    let mapped = mmu::reach(address, Kind::Memory);
    println!("abuser: good-bye");
    // SAFETY: nothing is to work from here on.
    unsafe { msr!("vbar_el1", mapped as u64 & !0x7ff) };
    isb();
    // SAFETY: as above.
    let _ = unsafe { sandbox::run(Mode::El1t, mapped, 0, &[0; 31]) };
    0
}

/// Takes its own translation table away: not even the vectors can be found.
pub(crate) fn nowhere_walk(abuse: &mut Abuse) -> u64 {
    let table = abuse.machine.memory[0].start - 0x1_0000;
    println!("abuser: good-bye");
    // SAFETY: nothing is to work from here on.
    unsafe { msr!("ttbr0_el1", table) };
    guest_rt::instruction!("tlbi vmalle1");
    guest_rt::registers::dsb();
    isb();
    0
}

/// Where the tests' configurations have `vdev faulty`.
const FAULTY: u64 = 0x1c10_0000;

/// Tells `vdev faulty` to fail, in the way of this number.
pub(crate) fn faulty(abuse: &mut Abuse) -> u64 {
    let way = abuse.machine.numeric_argument("how").unwrap_or(1);
    let device = mmu::reach(FAULTY, Kind::Device);
    // SAFETY: the configuration says that a device is there, and it is mapped just now.
    unsafe { Mmio::new(device) }.write(0, way as u32);
    if let Some(intid) = abuse.machine.numeric_argument("intr") {
        // The device asserts it: it hears of this.
        Gic::of(abuse.machine).enable(intid as u32);
    }
    if abuse.machine.numeric_argument("wait").is_some() {
        // Until somebody ends it.
        loop {
            guest_rt::registers::wfi();
        }
    }
    0
}

/// Where a `vdev wdt-sp805` is whose configuration does not say (Arm DDI 0270).
const WATCHDOG: u64 = 0x1c0f_0000;
const LOAD: usize = 0x00;
const CONTROL: usize = 0x08;
const LOCK: usize = 0xc00;
const UNLOCKED: u32 = 0x1acc_e551;

/// Has the watchdog count, `load=CYCLES` twice, and does nothing about it.
pub(crate) fn starve(abuse: &mut Abuse) -> u64 {
    let load = abuse.machine.numeric_argument("load").unwrap_or(1000);
    // SAFETY: the configuration says that the device is there, and it is mapped just now.
    let watchdog = unsafe { Mmio::new(mmu::reach(WATCHDOG, Kind::Device)) };
    println!("abuser: starves");
    watchdog.write(LOCK, UNLOCKED);
    watchdog.write(LOAD, load as u32);
    watchdog.write(CONTROL, 0b11);
    // As a guest that hangs: it gives no hint that it waits.
    loop {
        core::hint::black_box(load);
    }
}
