//! Instructions made at run time.
//!
//! Answers for: turning words into something that can be called, on real caches too; encodings of the instructions that
//! name a system register. Does not answer for: what the words do.
//!
//! DDI 0487, sections C5.2 (system register encodings) and B2.4 (concurrent modification, cache maintenance).

use core::arch::asm;
use core::cell::UnsafeCell;

use spin::Mutex;

use crate::exceptions::{Trap, catch};
use crate::registers::isb;

/// `RET`.
pub const RET: u32 = 0xd65f_03c0;
/// How many words fit.
pub const CAPACITY: usize = 8192;

#[repr(C, align(4096))]
struct Buffer(UnsafeCell<[u32; CAPACITY]>);

// SAFETY: touched by the holder of `IN_USE` only.
unsafe impl Sync for Buffer {}

static BUFFER: Buffer = Buffer(UnsafeCell::new([0; CAPACITY]));
static IN_USE: Mutex<()> = Mutex::new(());

/// The encoding of a system register: `op0` (2 or 3), `op1`, `CRn`, `CRm`, `op2` as the manual orders them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct SystemRegister(u32);

impl SystemRegister {
    /// By its fields.
    #[must_use]
    pub const fn new(op0: u32, op1: u32, crn: u32, crm: u32, op2: u32) -> Self {
        Self((op0 & 1) << 14 | (op1 & 7) << 11 | (crn & 15) << 7 | (crm & 15) << 3 | (op2 & 7))
    }

    /// The one with this number in 0 to 0x7fff: `op0 == 2` first.
    #[must_use]
    pub const fn from_index(index: u32) -> Self {
        Self(index & 0x7fff)
    }

    /// `CRn`.
    #[must_use]
    pub const fn crn(self) -> u32 {
        self.0 >> 7 & 15
    }

    /// `MRS Xt, register`.
    #[must_use]
    pub const fn read_into(self, xt: u32) -> u32 {
        0xd530_0000 | self.0 << 5 | (xt & 31)
    }

    /// `MSR register, Xt`.
    #[must_use]
    pub const fn write_from(self, xt: u32) -> u32 {
        0xd510_0000 | self.0 << 5 | (xt & 31)
    }

    /// Reads it.
    ///
    /// # Errors
    ///
    /// The exception that reading it raised.
    pub fn read(self) -> Result<u64, Trap> {
        // SAFETY: reads of system registers change no memory; those with side effects are the caller's business.
        let (value, trap) = with([self.read_into(0), RET], |code| catch(|| unsafe { call(code, 0) }));
        trap.map_or(Ok(value), Err)
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// The exception that writing it raised.
    ///
    /// # Safety
    ///
    /// The value does not change what the program stands on.
    pub unsafe fn write(self, value: u64) -> Result<(), Trap> {
        // SAFETY: the caller's promise.
        let (_, trap) = with([self.write_from(0), RET], |code| catch(|| unsafe { call(code, value) }));
        trap.map_or(Ok(()), Err)
    }
}

impl core::fmt::Display for SystemRegister {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let bits = self.0;
        let [op1, crn, crm, op2] = [bits >> 11 & 7, bits >> 7 & 15, bits >> 3 & 15, bits & 7];
        write!(f, "S{}_{op1}_C{crn}_C{crm}_{op2}", 2 + (bits >> 14))
    }
}

/// Stores `words`, at most [`CAPACITY`], makes them visible to instruction fetches and passes their address to `body`. One
/// CPU at a time; the code is gone afterwards.
pub fn with<R>(words: impl IntoIterator<Item = u32>, body: impl FnOnce(usize) -> R) -> R {
    let _use = IN_USE.lock();
    // SAFETY: we hold the lock.
    let buffer = unsafe { &mut *BUFFER.0.get() };
    let count = buffer.iter_mut().zip(words).map(|(slot, word)| *slot = word).count();
    let start = buffer.as_ptr() as usize;
    for line in (start..start + 4 * count).step_by(16) {
        // SAFETY: cache maintenance by address on our own buffer.
        unsafe { asm!("dc cvau, {0}", "dsb ish", "ic ivau, {0}", in(reg) line, options(nostack)) };
    }
    crate::registers::dsb();
    isb();
    body(start)
}

/// Calls the code at `address` with `x0`, and returns `x0`.
///
/// # Safety
///
/// It follows the procedure call standard and harms nothing.
pub unsafe fn call(address: usize, x0: u64) -> u64 {
    let result;
    // SAFETY: the caller's promise.
    unsafe { asm!("blr {0}", in(reg) address, inout("x0") x0 => result, clobber_abi("C")) };
    result
}
