//! The PL011 as a chip: registers and FIFOs, and one wire with bytes on it.
//!
//! Answers for: what DDI 0183G (PrimeCell UART (PL011) Technical Reference Manual, r1p5) says of the registers. Does not
//! answer for: interrupt lines and buses (the plug's), baud rates, parity and frame formats (there is no line to shift bits
//! over, they are kept and shown), IrDA, DMA and the test registers (as if not wired), or bytes on the way to a back end.
//!
//! Time does not pass on the wire: a byte that the back end takes has been sent, and a pause follows whatever has come in,
//! so the receive timeout is due at once. When the back end takes no more, bytes wait in the transmit FIFO, and the flags
//! and interrupts say so: a driver that looks at them loses nothing.

use super::registers::{
    CONTROL_BITS, Control, Errors, FifoLevel, Flags, IDENTIFICATION, Interrupts, LineControl, offset,
};
use crate::fifo::Fifo;
use crate::serial::Uart;
use core::fmt;
use tock_registers::LocalRegisterCopy;
use vdev::{CharDevice, Taken};

/// Characters in a PL011 r1p5's FIFO (DDI 0183, revision note of r1p5; 16 before).
const DEPTH: usize = 32;

/// A character that has come in, with what was wrong with it.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    byte: u8,
    errors: Errors,
}

/// The chip.
#[derive(Debug)]
pub(super) struct Chip {
    receive: Fifo<Received, DEPTH>,
    transmit: Fifo<u8, DEPTH>,
    raw: Interrupts,
    mask: Interrupts,
    /// Bytes written are sent at once: the transmitter runs, and not into the loop.
    sending: bool,
    receiving: bool,
    /// The wire had more than the receive FIFO could take.
    more_input: bool,
    control: LocalRegisterCopy<u16, Control::Register>,
    line_control: LocalRegisterCopy<u16, LineControl::Register>,
    fifo_level: LocalRegisterCopy<u16, FifoLevel::Register>,
    /// UARTRSR.
    status: Errors,
    /// A character came when there was no room, and none has come since.
    overrun: bool,
    irda_low_power: u8,
    integer_baud_rate: u16,
    fractional_baud_rate: u8,
    dma_control: u8,
    /// Bytes that were written when there was no room for them.
    lost: u64,
}

impl Default for Chip {
    /// After a power-on reset ("Summary of registers", reset values), and as firmware leaves it: enabled.
    fn default() -> Self {
        Self {
            receive: Fifo::default(),
            transmit: Fifo::default(),
            raw: Interrupts::empty(),
            mask: Interrupts::empty(),
            // SPEC: UARTEN is 0 after reset, and nothing is sent. Guests that begin with a console which firmware has set
            // up would be mute, as there is no firmware here; and the bit has to be seen too: Linux saves UARTCR around
            // what its console prints, and its early console waits for ever on a UART that the restored value disables.
            sending: true,
            receiving: true,
            more_input: false,
            control: LocalRegisterCopy::new(0x0301),
            line_control: LocalRegisterCopy::new(0),
            fifo_level: LocalRegisterCopy::new(0x12),
            status: Errors::empty(),
            overrun: false,
            irda_low_power: 0,
            integer_baud_rate: 0,
            fractional_baud_rate: 0,
            dma_control: 0,
            lost: 0,
        }
    }
}

impl Uart for Chip {
    fn service(&mut self, wire: &mut dyn CharDevice) -> bool {
        let sent = self.drain(wire);
        self.fill(wire);
        sent
    }

    /// Whether UARTINTR is asserted: the OR of all masked interrupts.
    #[inline]
    fn interrupt(&self) -> bool {
        self.raw.bits() & self.mask.bits() != 0
    }
}

impl Chip {
    /// Whether an access at `at` is one of the data register: a load is [`Chip::take`], not [`Chip::read`].
    #[inline]
    pub(super) const fn is_data(at: u64) -> bool {
        at == offset::DATA
    }

    /// A load at `at`, which is not the data register's. Registers are at multiples of four and answer in their low byte
    /// lane: other lanes, reserved offsets and the test registers read as zero. It calls nothing, so that nothing has to be saved.
    #[inline(always)]
    pub(super) fn read(&self, at: u64) -> u16 {
        match at {
            offset::RECEIVE_STATUS => u16::from(self.status.bits()),
            offset::FLAG => self.flags().bits(),
            offset::IRDA_LOW_POWER => u16::from(self.irda_low_power),
            offset::INTEGER_BAUD_RATE => self.integer_baud_rate,
            offset::FRACTIONAL_BAUD_RATE => u16::from(self.fractional_baud_rate),
            offset::LINE_CONTROL => self.line_control.get(),
            offset::CONTROL => self.control.get(),
            offset::FIFO_LEVEL => self.fifo_level.get(),
            offset::INTERRUPT_MASK => self.mask.bits(),
            offset::RAW_INTERRUPT => self.raw.bits(),
            offset::MASKED_INTERRUPT => self.raw.intersection(self.mask).bits(),
            offset::DMA_CONTROL => u16::from(self.dma_control),
            _ => identification(at),
        }
    }

    /// A store of `value` at `at`; bits that do not exist are not kept. Stores to read-only registers, to reserved offsets
    /// and to other byte lanes than the lowest do nothing. Returns whether whoever is at the other end has to be told.
    pub(super) fn write(&mut self, at: u64, value: u64, wire: &mut dyn CharDevice) -> bool {
        let [low, high, ..] = value.to_le_bytes();
        if at == offset::DATA {
            self.send(low, wire)
        } else {
            self.configure(at, u16::from_le_bytes([low, high]), wire)
        }
    }

    fn configure(&mut self, at: u64, value: u16, wire: &mut dyn CharDevice) -> bool {
        let [low, _] = value.to_le_bytes();
        match at {
            offset::LINE_CONTROL => return self.set_line_control(low, wire),
            offset::CONTROL => return self.set_control(value, wire),
            // UARTECR: a write of any value clears all errors (3.3.2).
            offset::RECEIVE_STATUS => self.status = Errors::empty(),
            offset::IRDA_LOW_POWER => self.irda_low_power = low,
            offset::INTEGER_BAUD_RATE => self.integer_baud_rate = value,
            offset::FRACTIONAL_BAUD_RATE => self.fractional_baud_rate = low & 0x3f,
            offset::FIFO_LEVEL => self.fifo_level.set(value & 0x3f),
            offset::INTERRUPT_MASK => self.mask = Interrupts::from_bits_truncate(value),
            offset::INTERRUPT_CLEAR => self.raw.remove(Interrupts::from_bits_truncate(value)),
            offset::DMA_CONTROL => self.dma_control = low & 7,
            _ => {}
        }
        false
    }

    // ---- sending

    /// UARTDR written (3.3.1).
    #[inline(always)]
    pub(super) fn send(&mut self, byte: u8, wire: &mut dyn CharDevice) -> bool {
        let taken = if self.sending && self.transmit.is_empty() { wire.write(byte) } else { Taken::No };
        if taken.is_taken() {
            // The byte has left the FIFO again, which is below its trigger level (3.4, "UARTTXINTR").
            self.raw.insert(Interrupts::TRANSMIT);
        } else {
            self.hold(byte);
        }
        taken == Taken::Ring
    }

    /// A byte that cannot be sent now, or goes into the loop.
    #[cold]
    #[inline(never)]
    fn hold(&mut self, byte: u8) {
        if self.looping() {
            self.accept(Received { byte, errors: Errors::empty() });
            self.raw.insert(Interrupts::RECEIVE_TIMEOUT | Interrupts::TRANSMIT);
            return;
        }
        if self.transmit.len() >= self.depth() {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        self.transmit.push(byte);
        if self.transmit.len() > self.transmit_trigger() {
            self.raw.remove(Interrupts::TRANSMIT);
        }
    }

    /// Sends what waits in the FIFO, as far as it goes. Returns whether whoever is at the other end has to be told.
    fn drain(&mut self, wire: &mut dyn CharDevice) -> bool {
        if !self.sending && !self.looping() {
            return false;
        }
        let (before, mut ring) = (self.transmit.len(), false);
        while let Some(byte) = self.transmit.first() {
            if self.looping() {
                self.accept(Received { byte, errors: Errors::empty() });
                self.raw.insert(Interrupts::RECEIVE_TIMEOUT);
            } else {
                let taken = wire.write(byte);
                if !taken.is_taken() {
                    break;
                }
                ring |= taken == Taken::Ring;
            }
            self.transmit.pop();
        }
        let moved = self.transmit.len() < before;
        if moved && self.transmit.len() <= self.transmit_trigger() {
            self.raw.insert(Interrupts::TRANSMIT);
        }
        ring
    }

    // ---- receiving

    /// UARTDR read (3.3.1): the oldest character and its errors.
    pub(super) fn take(&mut self, wire: &mut dyn CharDevice) -> u16 {
        let Some(received) = self.receive.pop() else { return 0 };
        let mut errors = received.errors;
        errors.set(Errors::OVERRUN, self.overrun);
        // UARTRSR belongs to the character read last; its overrun bit stays until it is cleared (3.3.2).
        self.status = self.status.intersection(Errors::OVERRUN).union(errors);
        if self.receive.len() < self.receive_trigger() {
            self.raw.remove(Interrupts::RECEIVE);
        }
        if self.receive.is_empty() {
            self.raw.remove(Interrupts::RECEIVE_TIMEOUT);
        }
        if self.more_input {
            self.fill(wire);
        }
        u16::from_le_bytes([received.byte, errors.bits()])
    }

    /// Takes in what the wire has, as far as there is room. What there is no room for stays in the back end: from outside
    /// there is no overrun.
    fn fill(&mut self, wire: &mut dyn CharDevice) {
        if !self.receiving || self.control.is_set(Control::LOOPBACK) {
            self.more_input = true;
            return;
        }
        let depth = self.depth();
        self.more_input = false;
        loop {
            if self.receive.len() >= depth {
                self.more_input = true;
                break;
            }
            let Some(byte) = wire.read() else { break };
            self.accept(Received { byte, errors: Errors::empty() });
            self.raw.insert(Interrupts::RECEIVE_TIMEOUT);
        }
    }

    /// One character arrives.
    fn accept(&mut self, received: Received) {
        if !self.receiving {
            return;
        }
        if self.receive.len() >= self.depth() {
            self.overrun = true;
            self.status.insert(Errors::OVERRUN);
            self.raw.insert(Interrupts::OVERRUN);
            return;
        }
        self.overrun = false;
        self.receive.push(received);
        self.raw
            .set(Interrupts::BREAK, self.raw.contains(Interrupts::BREAK) || received.errors.contains(Errors::BREAK));
        if self.receive.len() >= self.receive_trigger() {
            self.raw.insert(Interrupts::RECEIVE);
        }
    }

    // ---- control

    /// UARTLCR_H (3.3.7).
    fn set_line_control(&mut self, value: u8, wire: &mut dyn CharDevice) -> bool {
        let before = self.line_control;
        self.line_control.set(u16::from(value));
        let fell = |field| before.is_set(field) && !self.line_control.is_set(field);
        if fell(LineControl::FIFO_ENABLE) {
            // The FIFOs become holding registers: this is the manual's way to flush them (3.3.8, "Program the control
            // registers as follows"). SPEC: what only waits for the back end counts as sent and is not lost.
            self.receive.clear();
            self.overrun = false;
            self.raw.remove(Interrupts::RECEIVE | Interrupts::RECEIVE_TIMEOUT);
            if !self.sending {
                self.transmit.clear();
            }
        }
        let rose = !before.is_set(LineControl::BREAK) && self.line_control.is_set(LineControl::BREAK);
        if rose && self.looping() {
            // "When a break occurs, only one 0 character is loaded into the FIFO" (3.3.1).
            self.accept(Received { byte: 0, errors: Errors::BREAK });
            self.raw.insert(Interrupts::RECEIVE_TIMEOUT);
        }
        self.service(wire)
    }

    /// UARTCR (3.3.8).
    fn set_control(&mut self, value: u16, wire: &mut dyn CharDevice) -> bool {
        let before = self.modem();
        self.control.set(value & CONTROL_BITS);
        let enabled = self.control.is_set(Control::ENABLE);
        let looping = self.control.is_set(Control::LOOPBACK);
        self.sending = enabled && !looping && self.control.is_set(Control::TRANSMIT_ENABLE);
        self.receiving = enabled && self.control.is_set(Control::RECEIVE_ENABLE);
        let changed = before.symmetric_difference(self.modem());
        for (flag, interrupt) in [
            (Flags::RI, Interrupts::RI),
            (Flags::CTS, Interrupts::CTS),
            (Flags::DCD, Interrupts::DCD),
            (Flags::DSR, Interrupts::DSR),
        ] {
            if changed.contains(flag) {
                self.raw.insert(interrupt);
            }
        }
        self.service(wire)
    }

    /// Whether what is sent is received: the transmitter runs, into the loop.
    fn looping(&self) -> bool {
        [Control::ENABLE, Control::TRANSMIT_ENABLE, Control::LOOPBACK].into_iter().all(|bit| self.control.is_set(bit))
    }

    /// The modem inputs: a terminal that is always ready, or in the loop the modem outputs (3.3.8, "LBE").
    #[inline(always)]
    fn modem(&self) -> Flags {
        if !self.control.is_set(Control::LOOPBACK) {
            return Flags::CTS | Flags::DSR | Flags::DCD;
        }
        let mut flags = Flags::empty();
        flags.set(Flags::CTS, self.control.is_set(Control::RTS));
        flags.set(Flags::DSR, self.control.is_set(Control::DTR));
        flags.set(Flags::DCD, self.control.is_set(Control::OUT1));
        flags.set(Flags::RI, self.control.is_set(Control::OUT2));
        flags
    }

    /// UARTFR (3.3.3).
    #[inline(always)]
    fn flags(&self) -> Flags {
        let mut flags = self.modem();
        // Nearly always, and the shorter way for it.
        if self.transmit.is_empty() && self.receive.is_empty() {
            return flags | Flags::TXFE | Flags::RXFE;
        }
        let depth = self.depth();
        flags.set(Flags::TXFE, self.transmit.is_empty());
        flags.set(Flags::BUSY, !self.transmit.is_empty());
        flags.set(Flags::TXFF, self.transmit.len() >= depth);
        flags.set(Flags::RXFE, self.receive.is_empty());
        flags.set(Flags::RXFF, self.receive.len() >= depth);
        flags
    }

    /// How many characters a FIFO holds: one if it is only a holding register.
    #[inline(always)]
    fn depth(&self) -> usize {
        if self.line_control.is_set(LineControl::FIFO_ENABLE) { DEPTH } else { 1 }
    }

    /// At how many or fewer characters the transmit interrupt is due (3.3.9).
    fn transmit_trigger(&self) -> usize {
        if self.depth() == 1 { 0 } else { level(self.fifo_level.read(FifoLevel::TRANSMIT)) }
    }

    /// At how many or more characters the receive interrupt is due.
    fn receive_trigger(&self) -> usize {
        if self.depth() == 1 { 1 } else { level(self.fifo_level.read(FifoLevel::RECEIVE)) }
    }
}

/// What TXIFLSEL and RXIFLSEL select (3.3.9); the reserved values do as the reset value.
const fn level(select: u16) -> usize {
    match select {
        0 => DEPTH / 8,
        1 => DEPTH / 4,
        3 => DEPTH / 4 * 3,
        4 => DEPTH / 8 * 7,
        _ => DEPTH / 2,
    }
}

/// The identification registers; zero elsewhere.
fn identification(at: u64) -> u16 {
    let index = at.wrapping_sub(offset::IDENTIFICATION);
    match usize::try_from(index / 4).ok().and_then(|index| IDENTIFICATION.get(index)) {
        Some(byte) if index.is_multiple_of(4) => u16::from(*byte),
        _ => 0,
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.control.is_set(Control::ENABLE) { "enabled" } else { "not enabled" };
        write!(
            f,
            "{state}, {} to send, {} received, interrupts {:#05x} of {:#05x}, {} lost",
            self.transmit.len(),
            self.receive.len(),
            self.raw.bits(),
            self.mask.bits(),
            self.lost
        )
    }
}
