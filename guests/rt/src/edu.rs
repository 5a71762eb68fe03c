//! QEMU's device for teaching, 1234:11e8: a factorial, interrupts at will, and DMA from and to anywhere.
//!
//! Answers for: its registers by their names, and waiting for what takes it long. Does not answer for: what it is good for (`guest-edu`,
//! `guest-bench`).
//!
//! QEMU, `docs/specs/edu.rst`. DMA begins 100 ms after it was ordered; by how many bits addresses have is said by its property `dma_mask`.

use crate::exceptions::catch;
use crate::mmio::{Mmio, Width};
use crate::pci::Function;
use crate::timer;
use crate::tree::Tree;

const VENDOR: u16 = 0x1234;
const DEVICE: u16 = 0x11e8;

const IDENTIFICATION: usize = 0x00;
const LIVENESS: usize = 0x04;
const FACTORIAL: usize = 0x08;
const STATUS: usize = 0x20;
const INTERRUPT_STATUS: usize = 0x24;
const INTERRUPT_RAISE: usize = 0x60;
const INTERRUPT_ACKNOWLEDGE: usize = 0x64;
const DMA_SOURCE: usize = 0x80;
const DMA_DESTINATION: usize = 0x88;
const DMA_COUNT: usize = 0x90;
const DMA_COMMAND: usize = 0x98;

/// [`STATUS`]: it computes; it is to interrupt when it has.
const COMPUTING: u32 = 0x01;
const INTERRUPTS: u32 = 0x80;
/// [`DMA_COMMAND`]: go; from its buffer to memory; interrupt at the end.
const START: u64 = 1;
const TO_MEMORY: u64 = 2;
const AND_INTERRUPT: u64 = 4;

/// What `INTERRUPT_STATUS` says of a factorial, and of DMA.
pub const BY_FACTORIAL: u32 = 0x001;
/// See [`BY_FACTORIAL`].
pub const BY_DMA: u32 = 0x100;

/// Where its buffer is among its own addresses, and how many bytes it has. Nothing beyond it is ever named: what QEMU does then is not this
/// device's.
const BUFFER: u64 = 0x4_0000;
/// See [`BUFFER`].
pub const BUFFER_SIZE: u64 = 4096;

/// DMA has ended within this, in microseconds, or never does.
const LONG: u64 = 2_000_000;

/// One.
#[derive(Clone, Copy, Debug)]
pub struct Edu {
    /// Its function.
    pub function: Function,
    registers: Mmio,
}

impl Edu {
    /// The first on the bus, which may reach memory from now on.
    #[must_use]
    pub fn find(tree: Tree) -> Option<Self> {
        Self::of(Function::find(tree, VENDOR, DEVICE)?)
    }

    /// The next on the bus, likewise.
    #[must_use]
    pub fn next(&self, tree: Tree) -> Option<Self> {
        Self::of(self.function.next(tree)?)
    }

    fn of(function: Function) -> Option<Self> {
        let registers = function.registers(0)?;
        function.set_bus_master(true);
        Some(Self { function, registers })
    }

    /// `0xRRrr00ed`: its version.
    #[must_use]
    pub fn identification(&self) -> u32 {
        self.registers.read(IDENTIFICATION)
    }

    /// How many bytes an access may have, as far as it takes them: QEMU's takes 4, and 8 behind the first registers. Of each size it is
    /// loaded and stored once.
    #[must_use]
    pub fn sizes(&self) -> [(usize, bool); 4] {
        Width::ALL.map(|width| {
            let (value, loaded) = catch(|| self.registers.read_width(DMA_SOURCE, width));
            let ((), stored) = catch(|| self.registers.write_width(DMA_SOURCE, width, value));
            (width.bytes(), loaded.is_none() && stored.is_none())
        })
    }

    /// What it makes of a number: its inversion.
    #[must_use]
    pub fn inverted(&self, value: u32) -> u32 {
        self.registers.write(LIVENESS, value);
        self.registers.read(LIVENESS)
    }

    /// Has it compute a factorial, modulo 2³², and interrupt when it has.
    pub fn compute(&self, value: u32) {
        self.registers.write(STATUS, INTERRUPTS);
        self.registers.write(FACTORIAL, value);
    }

    /// What it has computed; none while it does.
    #[must_use]
    pub fn computed(&self) -> Option<u32> {
        (self.registers.read(STATUS) & COMPUTING == 0).then(|| self.registers.read(FACTORIAL))
    }

    /// Why it interrupts; 0 if it does not.
    #[must_use]
    pub fn reasons(&self) -> u32 {
        self.registers.read(INTERRUPT_STATUS)
    }

    /// Interrupts for these reasons.
    #[inline(always)]
    pub fn raise(&self, reasons: u32) {
        self.registers.write(INTERRUPT_RAISE, reasons);
    }

    /// Interrupts no more for these.
    #[inline(always)]
    pub fn acknowledge(&self, reasons: u32) {
        self.registers.write(INTERRUPT_ACKNOWLEDGE, reasons);
    }

    /// Orders `length` bytes, at most [`BUFFER_SIZE`], from memory into the buffer. An order while another is under way is lost.
    pub fn load(&self, from: u64, length: u64, interrupt: bool) {
        self.order(from, BUFFER, length, if interrupt { AND_INTERRUPT } else { 0 });
    }

    /// Likewise from the buffer to memory.
    pub fn store(&self, to: u64, length: u64, interrupt: bool) {
        self.order(BUFFER, to, length, TO_MEMORY | if interrupt { AND_INTERRUPT } else { 0 });
    }

    fn order(&self, source: u64, destination: u64, length: u64, more: u64) {
        self.registers.write64(DMA_SOURCE, source);
        self.registers.write64(DMA_DESTINATION, destination);
        self.registers.write64(DMA_COUNT, length.min(BUFFER_SIZE));
        self.registers.write64(DMA_COMMAND, START | more);
    }

    /// Whether DMA is under way.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.registers.read64(DMA_COMMAND) & START != 0
    }

    /// Waits until no DMA is under way; false if that takes too long.
    #[must_use]
    pub fn wait(&self) -> bool {
        timer::sleep_until(LONG, || !self.is_busy())
    }
}
