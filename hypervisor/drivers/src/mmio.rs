//! The one way to a device's registers.
//!
//! Answers for: accesses of exactly the width asked for, none outside of a device's window, and what becomes of one that no device
//! answers. Does not answer for: where devices are (`machine`), that windows are mapped (`kernel`).
//!
//! A device tree may name a device where none is, and a device need not take accesses of every width: the answer is a synchronous
//! external abort then (DDI 0487, "Synchronous External abort"). So all accesses of [`Mmio`] are made by the functions of `mmio.S`, which
//! EL2's vectors let return without an answer. `// SPEC:` A machine may tell of a store that nobody takes by an SError, later: that is nobody's access
//! any more, and the hypervisor's end as all SErrors at EL2.

use types::{AccessSize, Pa, Range};

core::arch::global_asm!(include_str!("mmio.S"));

unsafe extern "C" {
    fn guarded_load_byte();
    fn guarded_load_halfword();
    fn guarded_load_word();
    fn guarded_load_doubleword();
    fn guarded_store_byte();
    fn guarded_store_halfword();
    fn guarded_store_word();
    fn guarded_store_doubleword();
}

/// A device's register window, mapped as Device memory at its physical address. Accesses are volatile, of exactly the width
/// asked for, and checked against the window. What is outside (a defect of the driver), and what no device answers, reads zero and is
/// not written; [`Mmio::load`] and [`Mmio::store`] tell.
#[derive(Clone, Copy, Debug)]
pub struct Mmio {
    base: usize,
    length: usize,
}

/// One of the functions of `mmio.S`, at an offset of the window: what it hands back, and whether there was an answer.
macro_rules! call {
    ($function:ident, $window:expr, $offset:expr, $value:expr) => {{
        let (value, answered): (u64, u64);
        // SAFETY: the window is mapped and this driver's (promise of `new`), the offset lies inside and is aligned (the caller has looked).
        // The functions use what is named here, and nothing else.
        unsafe {
            core::arch::asm!("bl {function}", function = sym $function, inout("x0") $window.base + $offset => value,
                inout("x1") $value => answered, lateout("x30") _, options(nostack, preserves_flags));
        }
        (value, answered != 0)
    }};
}

macro_rules! guarded {
    ($read:ident, $write:ident, $type:ty, $load:ident, $store:ident) => {
        /// Reads the register at `offset`.
        #[inline]
        #[must_use]
        pub fn $read(&self, offset: usize) -> $type {
            if self.holds(offset, size_of::<$type>()) { call!($load, self, offset, 0_u64).0 as $type } else { 0 }
        }

        /// Writes the register at `offset`.
        #[inline]
        pub fn $write(&self, offset: usize, value: $type) {
            if self.holds(offset, size_of::<$type>()) {
                let _ = call!($store, self, offset, u64::from(value));
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

    /// Where it is.
    pub(crate) const fn start(&self) -> Pa {
        Pa(self.base as u64)
    }

    /// Waits until all accesses so far are complete, the answers to reads included.
    #[inline]
    pub fn complete(&self) {
        // SAFETY: a barrier.
        unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
    }

    /// Aligned where it is: a device tree need not have put the window where registers can be.
    fn holds(&self, offset: usize, size: usize) -> bool {
        let is_inside = offset.checked_add(size).is_some_and(|end| end <= self.length);
        is_inside && self.base.checked_add(offset).is_some_and(|at| at & (size - 1) == 0)
    }

    /// What is at `offset`; `None` if nothing answers there in this size.
    #[must_use]
    pub fn load(&self, offset: usize, size: AccessSize) -> Option<u64> {
        if !self.holds(offset, size.bytes() as usize) {
            return None;
        }
        let (value, answered) = match size {
            AccessSize::Byte => call!(guarded_load_byte, self, offset, 0_u64),
            AccessSize::Halfword => call!(guarded_load_halfword, self, offset, 0_u64),
            AccessSize::Word => call!(guarded_load_word, self, offset, 0_u64),
            AccessSize::Doubleword => call!(guarded_load_doubleword, self, offset, 0_u64),
        };
        answered.then_some(value)
    }

    /// Stores the low `size` bytes of `value` at `offset`. Says whether something takes it there in this size, as far as the machine
    /// says so at once.
    #[must_use]
    pub fn store(&self, offset: usize, size: AccessSize, value: u64) -> bool {
        if !self.holds(offset, size.bytes() as usize) {
            return false;
        }
        let (_, answered) = match size {
            AccessSize::Byte => call!(guarded_store_byte, self, offset, value),
            AccessSize::Halfword => call!(guarded_store_halfword, self, offset, value),
            AccessSize::Word => call!(guarded_store_word, self, offset, value),
            AccessSize::Doubleword => call!(guarded_store_doubleword, self, offset, value),
        };
        answered
    }

    guarded!(read_u8, write_u8, u8, guarded_load_byte, guarded_store_byte);
    guarded!(read_u16, write_u16, u16, guarded_load_halfword, guarded_store_halfword);
    guarded!(read_u32, write_u32, u32, guarded_load_word, guarded_store_word);
    guarded!(read_u64, write_u64, u64, guarded_load_doubleword, guarded_store_doubleword);
}

/// A register window of known size: what is accessed at a constant offset needs no check while the driver runs. That it answers is
/// seen at the beginning, and taken for granted then.
#[derive(Clone, Copy, Debug)]
pub struct Window<const LENGTH: usize> {
    base: usize,
}

impl<const LENGTH: usize> Window<LENGTH> {
    /// The window that a device tree describes. `None` if that is smaller, or nothing answers at its first register.
    ///
    /// # Safety
    /// As for [`Mmio::new`], but that several values may be of the same window, as far as its registers are each CPU's own.
    #[must_use]
    pub unsafe fn of(range: &Range<Pa>) -> Option<Self> {
        // SAFETY: the caller's promise.
        let registers = unsafe { Mmio::of(range) };
        let is_there = range.length() >= LENGTH as u64 && registers.load(0, AccessSize::Word).is_some();
        is_there.then_some(Self { base: range.start().0 as usize })
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
    const fn holds(offset: usize) -> bool {
        offset & 3 == 0 && offset < LENGTH && LENGTH - offset >= 4
    }

    /// Reads the register at `offset`.
    #[inline(always)]
    #[must_use]
    pub fn read_u32(&self, offset: usize) -> u32 {
        if !Self::holds(offset) {
            return 0;
        }
        let value: u32;
        // SAFETY: the window is mapped and this driver's (promise of `of`), the offset lies inside and is aligned. An explicit
        // instruction: a load form with a valid syndrome, should we ourselves be a guest.
        unsafe {
            core::arch::asm!("ldr {value:w}, [{address}]", value = out(reg) value, address = in(reg) self.base + offset,
                options(nostack, preserves_flags));
        }
        value
    }

    /// Writes the register at `offset`.
    #[inline(always)]
    pub fn write_u32(&self, offset: usize, value: u32) {
        if !Self::holds(offset) {
            return;
        }
        // SAFETY: as for the read.
        unsafe {
            core::arch::asm!("str {value:w}, [{address}]", value = in(reg) value, address = in(reg) self.base + offset,
                options(nostack, preserves_flags));
        }
    }
}
