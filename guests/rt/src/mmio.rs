//! Device registers.
//!
//! Answers for: one load or store instruction per access, of the kind that leaves a complete syndrome (one general
//! register, no write-back), because that is what drivers use. Does not answer for: mapping, ordering between devices.

use core::arch::asm;

/// A window of device registers at a mapped address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mmio(usize);

/// How much one access moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// 8 bits.
    Byte,
    /// 16 bits.
    Halfword,
    /// 32 bits.
    Word,
    /// 64 bits.
    Doubleword,
}

impl Width {
    /// Narrowest first.
    pub const ALL: [Self; 4] = [Self::Byte, Self::Halfword, Self::Word, Self::Doubleword];

    /// In bytes.
    #[must_use]
    pub const fn bytes(self) -> usize {
        match self {
            Self::Byte => 1,
            Self::Halfword => 2,
            Self::Word => 4,
            Self::Doubleword => 8,
        }
    }
}

impl Mmio {
    /// A window at `address`.
    ///
    /// # Safety
    ///
    /// The address is mapped as device memory, or as memory that neither the compiler nor anybody else relies on: what is
    /// written through this window lands there.
    #[must_use]
    pub const unsafe fn new(address: usize) -> Self {
        Self(address)
    }

    /// Where it starts.
    #[must_use]
    pub const fn address(self) -> usize {
        self.0
    }

    /// 32 bits at `offset`.
    #[inline(always)]
    #[must_use]
    pub fn read(self, offset: usize) -> u32 {
        let value: u32;
        // SAFETY: `new`'s caller vouched for the window.
        unsafe { asm!("ldr {0:w}, [{1}]", out(reg) value, in(reg) self.0 + offset, options(nostack)) };
        value
    }

    /// 32 bits to `offset`.
    #[inline(always)]
    pub fn write(self, offset: usize, value: u32) {
        // SAFETY: `new`'s caller vouched for the window.
        unsafe { asm!("str {0:w}, [{1}]", in(reg) value, in(reg) self.0 + offset, options(nostack)) };
    }

    /// 64 bits at `offset`.
    #[inline(always)]
    #[must_use]
    pub fn read64(self, offset: usize) -> u64 {
        let value: u64;
        // SAFETY: `new`'s caller vouched for the window.
        unsafe { asm!("ldr {0}, [{1}]", out(reg) value, in(reg) self.0 + offset, options(nostack)) };
        value
    }

    /// 64 bits to `offset`.
    #[inline(always)]
    pub fn write64(self, offset: usize, value: u64) {
        // SAFETY: `new`'s caller vouched for the window.
        unsafe { asm!("str {0}, [{1}]", in(reg) value, in(reg) self.0 + offset, options(nostack)) };
    }

    /// `width` bits at `offset`, zero-extended.
    #[must_use]
    pub fn read_width(self, offset: usize, width: Width) -> u64 {
        let address = self.0 + offset;
        let value: u64;
        match width {
            // SAFETY: `new`'s caller vouched for the window.
            Width::Byte => unsafe { asm!("ldrb {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack)) },
            // SAFETY: as above.
            Width::Halfword => unsafe { asm!("ldrh {0:w}, [{1}]", out(reg) value, in(reg) address, options(nostack)) },
            Width::Word => value = u64::from(self.read(offset)),
            Width::Doubleword => value = self.read64(offset),
        }
        value
    }

    /// The low `width` bits of `value` to `offset`.
    pub fn write_width(self, offset: usize, width: Width, value: u64) {
        let address = self.0 + offset;
        match width {
            // SAFETY: `new`'s caller vouched for the window.
            Width::Byte => unsafe { asm!("strb {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)) },
            // SAFETY: as above.
            Width::Halfword => unsafe { asm!("strh {0:w}, [{1}]", in(reg) value, in(reg) address, options(nostack)) },
            Width::Word => self.write(offset, value as u32),
            Width::Doubleword => self.write64(offset, value),
        }
    }
}
