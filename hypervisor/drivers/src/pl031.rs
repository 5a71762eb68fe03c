//! The PrimeCell real time clock PL031 (DDI 0224): what time it is, and nothing else. Firmware has set it, or nobody has.

use crate::Mmio;

/// RTCDR, the time in seconds.
const DATA: usize = 0x00;

/// A PL031.
#[derive(Debug)]
pub struct Pl031 {
    registers: Mmio,
}

impl Pl031 {
    /// Leaves it as it is.
    #[must_use]
    pub const fn new(registers: Mmio) -> Self {
        Self { registers }
    }

    /// Seconds since 1970, by convention.
    #[must_use]
    pub fn seconds(&self) -> u32 {
        self.registers.read_u32(DATA)
    }
}
