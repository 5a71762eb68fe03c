//! The 16550A's registers by number and bit (National Semiconductor PC16550D data sheet, June 1995, section 8 "Registers").

use bitflags::bitflags;

/// Numbers of the registers.
pub(super) mod number {
    /// RBR, receiver buffer; THR, transmitter holding; with the divisor latch DLL.
    pub(crate) const DATA: u64 = 0;
    /// IER, interrupt enable; with the divisor latch DLM.
    pub(crate) const INTERRUPT_ENABLE: u64 = 1;
    /// IIR, interrupt identification; FCR, FIFO control.
    pub(crate) const INTERRUPT_IDENTIFICATION: u64 = 2;
    /// LCR, line control.
    pub(crate) const LINE_CONTROL: u64 = 3;
    /// MCR, modem control.
    pub(crate) const MODEM_CONTROL: u64 = 4;
    /// LSR, line status.
    pub(crate) const LINE_STATUS: u64 = 5;
    /// MSR, modem status.
    pub(crate) const MODEM_STATUS: u64 = 6;
    /// SCR, scratch.
    pub(crate) const SCRATCH: u64 = 7;
}

/// IIR (8.5): what is pending with the highest priority.
pub(super) mod pending {
    /// The receiver line status.
    pub(crate) const LINE_STATUS: u8 = 0b0110;
    /// Received data, as much as the trigger level.
    pub(crate) const DATA: u8 = 0b0100;
    /// Received data, less than that, for a while.
    pub(crate) const TIMEOUT: u8 = 0b1100;
    /// The transmitter is empty.
    pub(crate) const TRANSMITTER: u8 = 0b0010;
    /// The modem status.
    pub(crate) const MODEM: u8 = 0b0000;
    /// None.
    pub(crate) const NOTHING: u8 = 0b0001;
    /// Beside any of them: the FIFOs are on.
    pub(crate) const FIFOS: u8 = 0b1100_0000;
}

bitflags! {
    /// IER (8.7).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct Enable: u8 {
        /// ERBFI: received data, and its time-out.
        const DATA = 1 << 0;
        /// ETBEI: transmitter empty.
        const TRANSMITTER = 1 << 1;
        /// ELSI: receiver line status.
        const LINE_STATUS = 1 << 2;
        /// EDSSI: modem status.
        const MODEM = 1 << 3;
    }

    /// FCR (8.4), but for the trigger level in bits 7 and 6.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct FifoControl: u8 {
        const ENABLE = 1 << 0;
        const CLEAR_RECEIVER = 1 << 1;
        const CLEAR_TRANSMITTER = 1 << 2;
    }

    /// LCR (8.1): those bits that do something here.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct LineControl: u8 {
        /// Send a break.
        const BREAK = 1 << 6;
        /// DLAB: the divisor latch is where data and interrupt enable are.
        const DIVISOR_LATCH = 1 << 7;
        const _ = !0;
    }

    /// MCR (8.6).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct ModemControl: u8 {
        const DTR = 1 << 0;
        const RTS = 1 << 1;
        const OUT1 = 1 << 2;
        const OUT2 = 1 << 3;
        /// What is sent is received.
        const LOOP = 1 << 4;
    }

    /// LSR (8.3).
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct LineStatus: u8 {
        /// DR: there is something to read.
        const DATA_READY = 1 << 0;
        const OVERRUN = 1 << 1;
        const BREAK = 1 << 4;
        /// THRE: the transmitter's FIFO, or holding register, is empty.
        const HOLDING_EMPTY = 1 << 5;
        /// TEMT: and so is its shift register.
        const EMPTY = 1 << 6;
        /// A character in the FIFO came with an error.
        const FIFO_ERROR = 1 << 7;
    }

    /// MSR (8.8): four inputs, and whether they have changed since the last look.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    pub(super) struct ModemStatus: u8 {
        const CTS_CHANGED = 1 << 0;
        const DSR_CHANGED = 1 << 1;
        /// TERI: of the ring indicator only the end counts.
        const RING_ENDED = 1 << 2;
        const DCD_CHANGED = 1 << 3;
        const CTS = 1 << 4;
        const DSR = 1 << 5;
        const RING = 1 << 6;
        const DCD = 1 << 7;
    }
}
