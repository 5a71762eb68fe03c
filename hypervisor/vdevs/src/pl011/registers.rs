//! The PL011's registers by name and bit (DDI 0183G, chapter 3 "Programmers Model").

use bitflags::bitflags;
use tock_registers::register_bitfields;

/// Offsets of the registers.
pub(super) mod offset {
    /// UARTDR, data.
    pub(crate) const DATA: u64 = 0x000;
    /// UARTRSR, UARTECR: receive status, error clear.
    pub(crate) const RECEIVE_STATUS: u64 = 0x004;
    /// UARTFR, flags.
    pub(crate) const FLAG: u64 = 0x018;
    /// UARTILPR, IrDA low-power counter.
    pub(crate) const IRDA_LOW_POWER: u64 = 0x020;
    /// UARTIBRD, integer baud rate.
    pub(crate) const INTEGER_BAUD_RATE: u64 = 0x024;
    /// UARTFBRD, fractional baud rate.
    pub(crate) const FRACTIONAL_BAUD_RATE: u64 = 0x028;
    /// UARTLCR_H, line control.
    pub(crate) const LINE_CONTROL: u64 = 0x02c;
    /// UARTCR, control.
    pub(crate) const CONTROL: u64 = 0x030;
    /// UARTIFLS, interrupt FIFO level select.
    pub(crate) const FIFO_LEVEL: u64 = 0x034;
    /// UARTIMSC, interrupt mask set/clear.
    pub(crate) const INTERRUPT_MASK: u64 = 0x038;
    /// UARTRIS, raw interrupt status.
    pub(crate) const RAW_INTERRUPT: u64 = 0x03c;
    /// UARTMIS, masked interrupt status.
    pub(crate) const MASKED_INTERRUPT: u64 = 0x040;
    /// UARTICR, interrupt clear.
    pub(crate) const INTERRUPT_CLEAR: u64 = 0x044;
    /// UARTDMACR, DMA control.
    pub(crate) const DMA_CONTROL: u64 = 0x048;
    /// UARTPeriphID0, the first of eight identification registers.
    pub(crate) const IDENTIFICATION: u64 = 0xfe0;
}

/// UARTPeriphID0-3 (part 0x011, designer 0x41, revision 3 = r1p5) and UARTPCellID0-3.
pub(super) const IDENTIFICATION: [u8; 8] = [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

register_bitfields! [u16,
    /// UARTLCR_H (3.3.7).
    pub(super) LineControl [
        /// BRK: send a break.
        BREAK OFFSET(0) NUMBITS(1) [],
        /// FEN: the FIFOs are FIFOs; else one character deep.
        FIFO_ENABLE OFFSET(4) NUMBITS(1) [],
    ],
    /// UARTCR (3.3.8).
    pub(super) Control [
        /// UARTEN.
        ENABLE OFFSET(0) NUMBITS(1) [],
        /// LBE: what is sent is received.
        LOOPBACK OFFSET(7) NUMBITS(1) [],
        /// TXE.
        TRANSMIT_ENABLE OFFSET(8) NUMBITS(1) [],
        /// RXE.
        RECEIVE_ENABLE OFFSET(9) NUMBITS(1) [],
        /// DTR, RTS, Out1, Out2: the modem outputs.
        DTR OFFSET(10) NUMBITS(1) [],
        RTS OFFSET(11) NUMBITS(1) [],
        OUT1 OFFSET(12) NUMBITS(1) [],
        OUT2 OFFSET(13) NUMBITS(1) [],
    ],
    /// UARTIFLS (3.3.9).
    pub(super) FifoLevel [
        /// TXIFLSEL.
        TRANSMIT OFFSET(0) NUMBITS(3) [],
        /// RXIFLSEL.
        RECEIVE OFFSET(3) NUMBITS(3) [],
    ],
];

/// Bits of UARTCR that exist; 3 to 6 are reserved.
pub(super) const CONTROL_BITS: u16 = 0xff87;

bitflags! {
    /// UARTFR (3.3.3). Of the modem inputs the flags show the complement of the pin: set is "asserted".
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Flags: u16 {
        const CTS = 1 << 0;
        const DSR = 1 << 1;
        const DCD = 1 << 2;
        /// Something is still to be sent.
        const BUSY = 1 << 3;
        /// Nothing received.
        const RXFE = 1 << 4;
        /// No room to send.
        const TXFF = 1 << 5;
        /// No room to receive.
        const RXFF = 1 << 6;
        /// Nothing to send.
        const TXFE = 1 << 7;
        const RI = 1 << 8;
        const MODEM = Self::CTS.bits() | Self::DSR.bits() | Self::DCD.bits() | Self::RI.bits();
    }

    /// UARTIMSC, UARTRIS, UARTMIS, UARTICR (3.3.10 to 3.3.13).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Interrupts: u16 {
        const RI = 1 << 0;
        const CTS = 1 << 1;
        const DCD = 1 << 2;
        const DSR = 1 << 3;
        const RECEIVE = 1 << 4;
        const TRANSMIT = 1 << 5;
        const RECEIVE_TIMEOUT = 1 << 6;
        const FRAMING = 1 << 7;
        const PARITY = 1 << 8;
        const BREAK = 1 << 9;
        const OVERRUN = 1 << 10;
    }

    /// What UARTDR shows beside a character in bits 11 to 8, UARTRSR in bits 3 to 0 (3.3.1, 3.3.2).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Errors: u8 {
        const FRAMING = 1 << 0;
        const PARITY = 1 << 1;
        const BREAK = 1 << 2;
        const OVERRUN = 1 << 3;
    }
}
