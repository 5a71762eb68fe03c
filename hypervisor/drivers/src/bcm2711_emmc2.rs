//! The Raspberry Pi 4's controller of its SD card, EMMC2 of the BCM2711.
//!
//! Answers for: what [`crate::sdhci`] does not find out. No public manual has this controller; followed is what Linux does with it
//! (`drivers/mmc/host/sdhci-iproc.c`, binding `mmc/brcm,iproc-sdhci.yaml`).

use crate::disk::{Driver, Host};
use crate::sdhci::{Registers, SdError};
use crate::{Device, Mmio, sd_disk};
use alloc::boxed::Box;

/// The driver.
pub static DEVICE: Device = Device { disk: Some(begin), ..Device::new(&["brcm,bcm2711-emmc2"]) };

/// What firmware divides its clock to, in megahertz, if its capabilities do not say.
const BASE: u32 = 100;

struct Words {
    registers: Mmio,
    now: fn() -> u64,
}

impl Registers for Words {
    fn read(&self, offset: usize) -> u32 {
        self.registers.read_u32(offset)
    }

    fn write(&mut self, offset: usize, value: u32) {
        self.registers.write_u32(offset, value);
    }

    fn now(&self) -> u64 {
        (self.now)()
    }
}

fn begin(registers: &Mmio, host: &Host) -> Result<Option<Box<dyn Driver>>, &'static str> {
    let words = Words { registers: *registers, now: host.now };
    match sd_disk::Disk::new(words, BASE, host) {
        Ok(disk) => Ok(Some(Box::new(disk))),
        Err(SdError::NoCard) => Ok(None),
        Err(error) => Err(error.why()),
    }
}
