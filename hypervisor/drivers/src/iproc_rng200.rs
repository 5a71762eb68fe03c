//! Broadcom's random number generator RNG200, the Raspberry Pi 4's among others.
//!
//! No public manual has it; followed is what Linux does with it (`drivers/char/hw_random/iproc-rng200.c`, binding
//! `rng/brcm,iproc-rng200.yaml`). It tests itself: while it reports a failure its numbers are not used, and it is started anew.

use crate::{Device, Mmio};

/// The driver.
pub static DEVICE: Device = Device {
    start: Some(|registers| enable(registers, true)),
    entropy: Some(random),
    ..Device::new(&["brcm,bcm2711-rng200", "brcm,iproc-rng200"])
};

const CONTROL: usize = 0x00;
/// Of what gives out the numbers.
const RESET: usize = 0x04;
/// Of what makes them.
const GENERATOR_RESET: usize = 0x08;
const STATUS: usize = 0x18;
const DATA: usize = 0x20;
const COUNT: usize = 0x24;

/// CONTROL
const GENERATOR: u32 = 0x1fff;
/// CONTROL
const ENABLE: u32 = 1;
/// STATUS: too many failures, it has locked itself up.
const LOCKED: u32 = 1 << 31;
/// STATUS: the numbers failed the tests of NIST.
const FAILED: u32 = 1 << 5;
/// COUNT: words there are.
const WORDS: u32 = 0xff;

fn enable(registers: &Mmio, on: bool) {
    let others = registers.read_u32(CONTROL) & !GENERATOR;
    registers.write_u32(CONTROL, if on { others | ENABLE } else { others });
}

fn random(registers: &Mmio) -> Option<u64> {
    let word = || (registers.read_u32(COUNT) & WORDS != 0).then(|| registers.read_u32(DATA).into());
    let value = word().and_then(|high: u64| Some(high << 32 | word()?));
    // Afterwards: a failure that it noticed before these were taken is seen.
    if registers.read_u32(STATUS) & (LOCKED | FAILED) == 0 {
        return value;
    }
    enable(registers, false);
    registers.write_u32(STATUS, u32::MAX);
    for (register, value) in [(RESET, 1), (GENERATOR_RESET, 1), (GENERATOR_RESET, 0), (RESET, 0)] {
        registers.write_u32(register, value);
    }
    enable(registers, true);
    None
}
