//! The PrimeCell UART PL011 as the hypervisor's console (DDI 0183).
//!
//! Polled output, interrupt-driven input. The line parameters are left as firmware set them: the console works before we
//! know any clock.

use crate::Mmio;
use tock_registers::LocalRegisterCopy;
use tock_registers::register_bitfields;

register_bitfields![u32,
    /// UARTFR
    Flags [
        /// Receive FIFO empty
        RXFE 4,
        /// Transmit FIFO full
        TXFF 5,
        /// Transmitting
        BUSY 3
    ],
    /// UARTIMSC, UARTICR
    Interrupts [
        /// Receive
        RX 4,
        /// Receive timeout
        RT 6
    ]
];

const DR: usize = 0x00;
const FR: usize = 0x18;
const IMSC: usize = 0x38;
const ICR: usize = 0x44;

/// A PL011 that somebody else has set up.
#[derive(Debug)]
pub struct Pl011 {
    registers: Mmio,
}

impl Pl011 {
    /// Takes the UART over. All its interrupts are off until [`Pl011::enable_input`].
    #[must_use]
    pub fn new(registers: Mmio) -> Self {
        registers.write_u32(IMSC, 0);
        Self { registers }
    }

    fn flags(&self) -> LocalRegisterCopy<u32, Flags::Register> {
        LocalRegisterCopy::new(self.registers.read_u32(FR))
    }

    /// Whether [`Pl011::send`] would be taken now.
    #[inline]
    #[must_use]
    pub fn can_send(&self) -> bool {
        !self.flags().is_set(Flags::TXFF)
    }

    /// Sends a byte, for which there is room.
    #[inline]
    pub fn send(&mut self, byte: u8) {
        self.registers.write_u32(DR, u32::from(byte));
    }

    /// The next byte received, if there is one. Bytes with a line error are passed on as they came.
    #[must_use]
    pub fn receive(&mut self) -> Option<u8> {
        if self.flags().is_set(Flags::RXFE) {
            return None;
        }
        Some((self.registers.read_u32(DR) & 0xff) as u8)
    }

    /// Lets received bytes raise the interrupt.
    pub fn enable_input(&mut self) {
        self.registers.write_u32(IMSC, (Interrupts::RX::SET + Interrupts::RT::SET).value);
    }

    /// Withdraws the interrupt; then call [`Pl011::receive`] until it returns `None`.
    pub fn clear_interrupt(&mut self) {
        self.registers.write_u32(ICR, (Interrupts::RX::SET + Interrupts::RT::SET).value);
    }
}
