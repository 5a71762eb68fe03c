//! The one way to a device's registers.

use types::{Pa, Range};

/// A device's register window, mapped as Device memory at its physical address. Accesses are volatile, of exactly the width
/// asked for, and checked against the window: an access outside is a defect of the driver, reads zero and writes nothing.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
    length: usize,
}

macro_rules! access {
    ($read:ident, $write:ident, $type:ty, $load:literal, $store:literal) => {
        /// Reads the register at `offset`.
        #[inline(always)]
        #[must_use]
        pub fn $read(&self, offset: usize) -> $type {
            if !self.holds(offset, size_of::<$type>()) {
                return 0;
            }
            let value: $type;
            // SAFETY: the window is mapped and this driver's (promise of `new`), the offset lies inside and is aligned. An
            // explicit instruction: a load form with a valid syndrome, should we ourselves be a guest. It acquires, because up
            // to r1p2 a Cortex-A57 may hang on other loads from devices between exclusives (erratum 832075).
            unsafe {
                core::arch::asm!($load, value = out(reg) value, address = in(reg) self.base + offset,
                    options(nostack, preserves_flags));
            }
            value
        }

        /// Writes the register at `offset`.
        #[inline(always)]
        pub fn $write(&self, offset: usize, value: $type) {
            if !self.holds(offset, size_of::<$type>()) {
                return;
            }
            // SAFETY: as for the read.
            unsafe {
                core::arch::asm!($store, value = in(reg) value, address = in(reg) self.base + offset,
                    options(nostack, preserves_flags));
            }
        }
    };
}

impl Mmio {
    /// The window of a device.
    ///
    /// # Safety
    /// The window is a device's registers, mapped as Device memory at this address for as long as the value is used, and
    /// this driver is the only one to use them.
    #[must_use]
    pub const unsafe fn new(base: Pa, length: u64) -> Self {
        Self { base: base.0 as usize, length: length as usize }
    }

    /// The window that a device tree describes.
    ///
    /// # Safety
    /// As for [`Mmio::new`].
    #[must_use]
    pub unsafe fn of(range: &Range<Pa>) -> Self {
        // SAFETY: the caller's promise.
        unsafe { Self::new(range.start(), range.length()) }
    }

    /// Waits until all accesses so far are complete, the answers to reads included.
    #[inline]
    pub fn complete(&self) {
        // SAFETY: a barrier.
        unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    fn holds(&self, offset: usize, size: usize) -> bool {
        offset & (size - 1) == 0 && offset.checked_add(size).is_some_and(|end| end <= self.length)
    }

    access!(read_u8, write_u8, u8, "ldarb {value:w}, [{address}]", "strb {value:w}, [{address}]");
    access!(read_u16, write_u16, u16, "ldarh {value:w}, [{address}]", "strh {value:w}, [{address}]");
    access!(read_u32, write_u32, u32, "ldar {value:w}, [{address}]", "str {value:w}, [{address}]");
    access!(read_u64, write_u64, u64, "ldar {value}, [{address}]", "str {value}, [{address}]");
}

/// A register window of known size: what is accessed at a constant offset needs no check while the driver runs.
#[derive(Clone, Copy, Debug)]
pub struct Window<const LENGTH: usize> {
    base: usize,
}

impl<const LENGTH: usize> Window<LENGTH> {
    /// The window that a device tree describes. `None` if that is smaller.
    ///
    /// # Safety
    /// As for [`Mmio::new`], but that several values may be of the same window, as far as its registers are each CPU's own.
    #[must_use]
    pub unsafe fn of(range: &Range<Pa>) -> Option<Self> {
        (range.length() >= LENGTH as u64).then_some(Self { base: range.start().0 as usize })
    }

    /// Where it is.
    pub(crate) const fn base(self) -> usize {
        self.base
    }

    /// The window at an address that [`Window::base`] has given.
    ///
    /// # Safety
    /// As for [`Window::of`].
    pub(crate) const unsafe fn at(base: usize) -> Self {
        Self { base }
    }

    /// Waits until all accesses so far are complete, the answers to reads included.
    #[inline(always)]
    pub fn complete(&self) {
        // SAFETY: a barrier.
        unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    /// Waits until what has been stored to memory so far is visible to other CPUs.
    #[inline(always)]
    pub fn publish(&self) {
        // SAFETY: a barrier.
        unsafe { core::arch::asm!("dsb ishst", options(nostack, preserves_flags)) };
    }

    #[inline(always)]
    const fn holds(&self, offset: usize, size: usize) -> bool {
        offset & (size - 1) == 0 && offset < LENGTH && LENGTH - offset >= size
    }

    access!(read_u32, write_u32, u32, "ldr {value:w}, [{address}]", "str {value:w}, [{address}]");
}
