//! The power manager of the BCM2835 family, as far as it resets the machine: its watchdog.
//!
//! No public manual has it; followed is what Linux does with it (`drivers/watchdog/bcm2835_wdt.c`, binding
//! `soc/bcm/brcm,bcm2835-pm.yaml`). Every write carries a password.

use crate::{Device, Mmio};

/// The driver.
pub static DEVICE: Device = Device {
    reset: Some(|registers| restart(registers, 0)),
    // What stays on is the chip that runs the firmware: it waits for the power to be cut, or for a button at its pins.
    power_off: Some(|registers| restart(registers, PARTITION)),
    ..Device::new(&["brcm,bcm2711-pm", "brcm,bcm2835-pm", "brcm,bcm2835-pm-wdt"])
};

/// PM_RSTC: what a watchdog that runs out does.
const RESET_CONTROL: usize = 0x1c;
/// PM_RSTS: why there was a reset, and what the boot loader is to do after it.
const RESET_STATUS: usize = 0x20;
/// PM_WDOG: time left, in units of 16 us.
const WATCHDOG: usize = 0x24;

const PASSWORD: u32 = 0x5a00_0000;
const VALUE: u32 = 0xff_ffff;
/// RESET_CONTROL
const CONFIGURATION: u32 = 3 << 4;
/// RESET_CONTROL
const FULL_RESET: u32 = 2 << 4;
/// In RESET_STATUS the boot loader finds the number of the partition that it is to start, in every second bit. 63, all of them
/// set, is no partition: it halts.
const PARTITION: u32 = 0x555;
/// 160 us.
const SOON: u32 = 10;

fn restart(registers: &Mmio, partition: u32) {
    let replace = |register, mask: u32, value| {
        registers.write_u32(register, PASSWORD | registers.read_u32(register) & VALUE & !mask | value);
    };
    replace(RESET_STATUS, PARTITION, partition);
    registers.write_u32(WATCHDOG, PASSWORD | SOON);
    replace(RESET_CONTROL, CONFIGURATION, FULL_RESET);
}
