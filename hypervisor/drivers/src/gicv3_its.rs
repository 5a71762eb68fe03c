//! An ITS's registers, those of redistributors that LPIs have, and the memory that both share with us.
//!
//! Answers for: reaching them in the way and order that `its` asks for, past the caches where these are not looked into. Does not answer
//! for: what is written where (`its`), where an ITS is (`machine`), whose the memory is.
//!
//! Follows the Arm Generic Interrupt Controller Architecture Specification (IHI 0069), where it says how wide accesses to memory-mapped registers are.

extern crate alloc;

use crate::Mmio;
use alloc::vec::Vec;
use core::ptr;
use its::{Memory, REGISTERS_LENGTH, Registers};
use types::{AccessSize, Pa, Range};

/// The way to one ITS, and to the memory that it and the redistributors read.
#[derive(Debug)]
pub struct Its {
    registers: Mmio,
    memory: SharedMemory,
}

/// Memory that an ITS and redistributors read.
#[derive(Debug, Default)]
pub struct SharedMemory {
    /// It is not read through the CPUs' caches.
    is_past_caches: bool,
    shared: Vec<Range<Pa>>,
}

/// The registers of one redistributor, as far as its LPIs go.
#[derive(Debug)]
pub struct Frame(pub(crate) Mmio);

impl Its {
    /// The ITS whose registers a device tree describes. `None` if the window is too small.
    ///
    /// # Safety
    /// The window is an ITS's registers, mapped as Device memory at its address for good, and nobody else uses them.
    #[must_use]
    pub unsafe fn new(window: &Range<Pa>, is_coherent: bool) -> Option<Self> {
        if window.length() < REGISTERS_LENGTH {
            return None;
        }
        // SAFETY: the caller's promise.
        let registers = unsafe { Mmio::of(window) };
        Some(Self { registers, memory: SharedMemory { is_past_caches: !is_coherent, shared: Vec::new() } })
    }

    /// Whether there is something, by its first register (IHI 0069, 12.19: `GITS_CTLR`).
    #[must_use]
    pub fn answers(&self) -> bool {
        self.registers.load(0, AccessSize::Word).is_some()
    }

    /// No message becomes an interrupt any more, soon.
    pub fn turn_off(&mut self) {
        its::turn_off(self);
    }

    /// The memory.
    pub fn memory(&mut self) -> &mut SharedMemory {
        &mut self.memory
    }
}

impl SharedMemory {
    /// Whether it is not read through the CPUs' caches, as far as has turned out.
    #[must_use]
    pub const fn is_past_caches(&self) -> bool {
        self.is_past_caches
    }

    /// Shares `memory`: what is written there is seen by both. Somebody else may share it too.
    ///
    /// # Safety
    /// It is RAM, mapped at its own address as Normal memory, nobody's for anything else, for good, and what is in it makes sense to the
    /// ITS and the redistributors.
    pub unsafe fn share(&mut self, memory: Range<Pa>) {
        let at = self.shared.partition_point(|other| other.start() < memory.start());
        self.shared.insert(at, memory);
    }

    fn is_shared(&self, at: Pa) -> bool {
        let index = self.shared.partition_point(|memory| memory.end() <= at);
        self.shared.get(index).is_some_and(|memory| memory.start() <= at)
    }

    /// Where the word at `at` is, if it is shared. Another one would be a defect of the caller's: it reads zero, and is not written.
    fn word(&self, at: Pa) -> Option<*mut u64> {
        (self.is_shared(at) && at.is_aligned(size_of::<u64>() as u64)).then_some(at.0 as *mut u64)
    }
}

/// Writes the line back that this is in, and drops it.
fn clean<T>(at: *mut T) {
    // SAFETY: maintenance of a line in memory of ours, which changes nothing that a CPU sees.
    unsafe { core::arch::asm!("dc civac, {at}", at = in(reg) at, options(nostack, preserves_flags)) };
}

fn complete() {
    // SAFETY: a barrier.
    unsafe { core::arch::asm!("dsb sy", options(nostack, preserves_flags)) };
}

impl Memory for SharedMemory {
    fn store(&mut self, at: Pa, value: u64) {
        let Some(word) = self.word(at) else { return };
        // SAFETY: an aligned word of memory that is shared (`share`), in one store.
        unsafe { ptr::write_volatile(word, value) };
        if self.is_past_caches {
            clean(word);
        }
    }

    fn store_byte(&mut self, at: Pa, value: u8) {
        if !self.is_shared(at) {
            return;
        }
        let byte = at.0 as *mut u8;
        // SAFETY: a byte of memory that is shared.
        unsafe { ptr::write_volatile(byte, value) };
        if self.is_past_caches {
            clean(byte);
        }
    }

    fn publish(&mut self) {
        complete();
    }

    fn reads_past_caches(&mut self) {
        self.is_past_caches = true;
    }
}

impl Registers for Frame {
    fn get(&mut self, offset: usize) -> u32 {
        // It acquires: what is loaded afterwards is not older.
        self.0.read_u32(offset)
    }

    fn set(&mut self, offset: usize, value: u32) {
        self.0.write_u32(offset, value);
    }

    fn get_wide(&mut self, offset: usize) -> u64 {
        self.0.read_u64(offset)
    }

    fn set_wide(&mut self, offset: usize, value: u64) {
        self.0.write_u64(offset, value);
    }
}

impl Registers for Its {
    fn get(&mut self, offset: usize) -> u32 {
        Frame(self.registers).get(offset)
    }

    fn set(&mut self, offset: usize, value: u32) {
        Frame(self.registers).set(offset, value);
    }

    fn get_wide(&mut self, offset: usize) -> u64 {
        Frame(self.registers).get_wide(offset)
    }

    fn set_wide(&mut self, offset: usize, value: u64) {
        Frame(self.registers).set_wide(offset, value);
    }
}

impl Memory for Its {
    fn store(&mut self, at: Pa, word: u64) {
        self.memory.store(at, word);
    }

    fn store_byte(&mut self, at: Pa, byte: u8) {
        self.memory.store_byte(at, byte);
    }

    fn publish(&mut self) {
        self.memory.publish();
    }

    fn reads_past_caches(&mut self) {
        self.memory.reads_past_caches();
    }
}
