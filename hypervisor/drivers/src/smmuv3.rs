//! An SMMUv3's registers, and the memory that it shares with us.
//!
//! Answers for: reaching both in the way and order that `smmu` asks for, past the caches where the SMMU does not see them. Does
//! not answer for: what is written where (`smmu`), where an SMMU is (`machine`), whose the memory is.
//!
//! Follows the Arm System Memory Management Unit Architecture Specification, version 3 (IHI 0070), 3.15 (coherency), 6.2 (registers).

extern crate alloc;

use crate::Mmio;
use alloc::vec::Vec;
use core::ptr;
use smmu::{Features, Memory, REGISTERS_LENGTH, Registers, Unfit};
use types::{AccessSize, Pa, Range};

/// The way to one SMMU.
#[derive(Debug)]
pub struct Smmuv3 {
    registers: Mmio,
    /// What is shared is read and written by the SMMU through the CPUs' caches.
    is_coherent: bool,
    /// What is shared, by address.
    shared: Vec<Range<Pa>>,
}

/// What turns a started SMMU off, whatever else is being done with it.
#[derive(Clone, Copy, Debug)]
pub struct Switch(Mmio);

impl Switch {
    /// All its traffic is aborted, soon.
    pub fn off(self) {
        smmu::turn_off(&mut Smmuv3 { registers: self.0, is_coherent: true, shared: Vec::new() });
    }
}

impl Smmuv3 {
    /// The SMMU whose registers a device tree describes; `is_coherent` if that says so of it. `None` if the window is too small.
    ///
    /// # Safety
    /// The window is an SMMUv3's registers, mapped as Device memory at its address for good, and nobody else uses them.
    #[must_use]
    pub unsafe fn new(window: &Range<Pa>, is_coherent: bool) -> Option<Self> {
        if window.length() < REGISTERS_LENGTH {
            return None;
        }
        // SAFETY: the caller's promise.
        let registers = unsafe { Mmio::of(window) };
        Some(Self { registers, is_coherent, shared: Vec::new() })
    }

    /// Whether there is something: its identification, and the registers of its second page (IHI 0070, 6.1).
    #[must_use]
    pub fn answers(&self) -> bool {
        [0, REGISTERS_LENGTH as usize / 2].iter().all(|page| self.registers.load(*page, AccessSize::Word).is_some())
    }

    /// What it can do. Coherent is what device tree and SMMU both call so: it costs little to clean what needs no cleaning.
    ///
    /// # Errors
    /// If it lacks what confinement needs.
    pub fn features(&mut self) -> Result<Features, Unfit> {
        let features = Features::of(self)?;
        self.is_coherent &= features.coherent;
        Ok(Features { coherent: self.is_coherent, ..features })
    }

    /// What turns it off.
    #[must_use]
    pub const fn switch(&self) -> Switch {
        Switch(self.registers)
    }

    /// Shares `memory` with it, all zeroes. To be called once it is known what it can do.
    ///
    /// # Safety
    /// It is RAM, whole pages, mapped at its own address as Normal memory, and nobody else's for good.
    pub unsafe fn share(&mut self, memory: Range<Pa>) {
        let at = self.shared.partition_point(|other| other.start() < memory.start());
        self.shared.insert(at, memory);
        // SAFETY: the caller's promise; from the next line on the SMMU may look at it.
        unsafe { ptr::write_bytes(memory.start().0 as *mut u8, 0, memory.length() as usize) };
        if !self.is_coherent {
            (memory.start().0..memory.end().0).step_by(size_of::<u64>()).for_each(|word| self.forget(word as *mut u64));
        }
        self.publish();
    }

    /// Where the word at `at` is, if it is shared. Another one would be a defect of the caller's: it reads zero, and is not written.
    fn word(&self, at: Pa) -> Option<*mut u64> {
        let index = self.shared.partition_point(|memory| memory.end() <= at);
        let is_shared = self.shared.get(index).is_some_and(|memory| memory.start() <= at);
        (is_shared && at.is_aligned(size_of::<u64>() as u64)).then_some(at.0 as *mut u64)
    }

    /// Writes the line back that this word is in, and drops it. No line has words of both sides that change.
    fn forget(&self, word: *mut u64) {
        if !self.is_coherent {
            // SAFETY: maintenance of a line in memory of ours, which changes nothing that a CPU sees.
            unsafe { core::arch::asm!("dc civac, {at}", at = in(reg) word, options(nostack, preserves_flags)) };
        }
    }
}

impl Registers for Smmuv3 {
    fn get(&mut self, offset: usize) -> u32 {
        // It acquires: what is loaded afterwards is not older.
        self.registers.read_u32(offset)
    }

    fn set(&mut self, offset: usize, value: u32) {
        self.registers.write_u32(offset, value);
    }
}

impl Memory for Smmuv3 {
    fn load(&mut self, at: Pa) -> u64 {
        let Some(word) = self.word(at) else { return 0 };
        if !self.is_coherent {
            // What a CPU has fetched ahead is from before.
            self.forget(word);
            self.registers.complete();
        }
        // SAFETY: an aligned word of memory that is shared with the SMMU (`share`), in one load.
        unsafe { ptr::read_volatile(word) }
    }

    fn store(&mut self, at: Pa, value: u64) {
        let Some(word) = self.word(at) else { return };
        // SAFETY: as above, in one store.
        unsafe { ptr::write_volatile(word, value) };
        self.forget(word);
    }

    fn publish(&mut self) {
        self.registers.complete();
    }
}
