//! A serial port of whichever kind as the hypervisor's console.

use crate::Mmio;
use crate::ns16550::Ns16550;
use crate::pl011::Pl011;
use machine::ConsoleKind;

/// A serial port that firmware has set up: speed, format and pins are left as they are.
#[derive(Debug)]
pub enum Serial {
    /// Arm PrimeCell PL011.
    Pl011(Pl011),
    /// 16550, or a mini UART.
    Ns16550(Ns16550),
}

impl Serial {
    /// Takes the port over. All its interrupts are off until [`Serial::enable_input`].
    #[must_use]
    pub fn new(kind: ConsoleKind, registers: Mmio) -> Self {
        match kind {
            ConsoleKind::Pl011 => Self::Pl011(Pl011::new(registers)),
            ConsoleKind::MiniUart => Self::Ns16550(Ns16550::mini(registers)),
            ConsoleKind::Ns16550 { shift, width } => Self::Ns16550(Ns16550::new(registers, shift, width)),
        }
    }

    /// Whether [`Serial::send`] would be taken now.
    #[inline(always)]
    #[must_use]
    pub fn can_send(&self) -> bool {
        match self {
            Self::Pl011(port) => port.can_send(),
            Self::Ns16550(port) => port.can_send(),
        }
    }

    /// Sends a byte, for which there is room.
    #[inline(always)]
    pub fn send(&mut self, byte: u8) {
        match self {
            Self::Pl011(port) => port.send(byte),
            Self::Ns16550(port) => port.send(byte),
        }
    }

    /// The next byte received, if there is one. Bytes with a line error are passed on as they came.
    #[must_use]
    pub fn receive(&mut self) -> Option<u8> {
        match self {
            Self::Pl011(port) => port.receive(),
            Self::Ns16550(port) => port.receive(),
        }
    }

    /// Lets received bytes raise the interrupt.
    pub fn enable_input(&mut self) {
        match self {
            Self::Pl011(port) => port.enable_input(),
            Self::Ns16550(port) => port.enable_input(),
        }
    }

    /// Withdraws the interrupt; then call [`Serial::receive`] until it returns `None`.
    pub fn clear_interrupt(&mut self) {
        match self {
            Self::Pl011(port) => port.clear_interrupt(),
            Self::Ns16550(port) => port.clear_interrupt(),
        }
    }
}
