//! The 16550 and its descendants as the hypervisor's console (TI PC16550D data sheet), and the mini UART of the BCM2835
//! family, which has the same registers for what is used here (BCM2835 ARM Peripherals, section 2.2, with the errata that
//! bits 0 and 1 of `AUX_MU_IER_REG` are those of a 16550).
//!
//! Polled output, interrupt-driven input. The line parameters are left as firmware set them, as are the FIFOs.

use crate::Mmio;

/// Receiver buffer when read, transmitter holding register when written.
const DATA: usize = 0;
/// IER
const INTERRUPT_ENABLE: usize = 1;
/// IIR
const INTERRUPT_IDENTIFICATION: usize = 2;
/// MCR
const MODEM_CONTROL: usize = 4;
/// LSR
const LINE_STATUS: usize = 5;

/// IER: received data, and receiver line status, without which some mini UARTs raise nothing.
const RECEIVED: u32 = 1 << 0 | 1 << 2;
/// IIR: no data for a while.
const TIMEOUT: u32 = 0x0c;
/// IIR: there are FIFOs, and they are on.
const FIFOS: u32 = 0xc0;
/// Bytes that the transmitter's takes when it is empty.
const FIFO: u8 = 16;
const IDENTIFICATION: u32 = 0x3f;
/// MCR: OUT2, which lets the interrupt out where it is wired that way.
const OUT2: u32 = 1 << 3;
/// LSR
const DATA_READY: u32 = 1 << 0;
/// LSR
const TRANSMITTER_EMPTY: u32 = 1 << 5;

/// A 16550 that somebody else has set up.
#[derive(Debug)]
pub struct Ns16550 {
    registers: Mmio,
    /// Registers are `1 << shift` bytes apart.
    shift: u8,
    /// Whether they are accessed by 32 bits, not by 8.
    wide: bool,
    /// Bytes that it takes when it says that it takes some: all that its FIFO holds, but of a mini UART that has room for one.
    batch: u8,
    /// Of those, how many it has not been sent yet.
    room: u8,
}

impl Ns16550 {
    /// Takes the UART over. `shift` and `width` are the tree's `reg-shift` and `reg-io-width`. All its interrupts are off until
    /// [`Ns16550::enable_input`].
    #[must_use]
    pub fn new(registers: Mmio, shift: u8, width: u8) -> Self {
        let mut device = Self { registers, shift, wide: width == 4, batch: 1, room: 0 };
        device.write(INTERRUPT_ENABLE, 0);
        if device.read(INTERRUPT_IDENTIFICATION) & FIFOS == FIFOS {
            device.batch = FIFO;
        }
        device
    }

    /// Takes a mini UART over.
    #[must_use]
    pub fn mini(registers: Mmio) -> Self {
        Self { batch: 1, ..Self::new(registers, 2, 4) }
    }

    fn read(&self, register: usize) -> u32 {
        let offset = register << self.shift;
        if self.wide { self.registers.read_u32(offset) } else { self.registers.read_u8(offset).into() }
    }

    fn write(&self, register: usize, value: u32) {
        let offset = register << self.shift;
        if self.wide { self.registers.write_u32(offset, value) } else { self.registers.write_u8(offset, value as u8) }
    }

    /// Whether [`Ns16550::send`] would be taken now.
    #[must_use]
    pub fn can_send(&self) -> bool {
        self.room > 0 || self.read(LINE_STATUS) & TRANSMITTER_EMPTY != 0
    }

    /// Sends a byte, for which there is room.
    pub fn send(&mut self, byte: u8) {
        self.room = if self.room > 0 { self.room } else { self.batch } - 1;
        self.write(DATA, byte.into());
    }

    /// The next byte received, if there is one. Bytes with a line error are passed on as they came.
    #[must_use]
    pub fn receive(&mut self) -> Option<u8> {
        (self.read(LINE_STATUS) & DATA_READY != 0).then(|| self.read(DATA) as u8)
    }

    /// Lets received bytes raise the interrupt.
    pub fn enable_input(&mut self) {
        self.write(MODEM_CONTROL, self.read(MODEM_CONTROL) | OUT2);
        self.write(INTERRUPT_ENABLE, RECEIVED);
    }

    /// The interrupt goes with what was received, which is yet to be read. But a DesignWare UART may report a timeout without
    /// any data, and reading some is all that ends it.
    pub fn clear_interrupt(&mut self) {
        if self.read(INTERRUPT_IDENTIFICATION) & IDENTIFICATION == TIMEOUT && self.read(LINE_STATUS) & DATA_READY == 0 {
            let _ = self.read(DATA);
        }
    }
}
