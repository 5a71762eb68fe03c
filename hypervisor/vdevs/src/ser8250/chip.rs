//! The 16550A as a chip: registers and FIFOs, and one wire with bytes on it.
//!
//! Answers for: what the PC16550D data sheet says of the registers. Does not answer for: interrupt lines and buses (the
//! plug's; OUT2 gates nothing, as it does on a PC), baud rates, parity and frame formats (kept and shown), DMA.
//!
//! Time does not pass on the wire, as with the PL011: a byte that the back end takes has been sent, and a pause follows
//! whatever has come in, so the time-out is due at once. When the back end takes no more, bytes wait in the transmitter.

use super::registers::{
    Enable, FifoControl, LineControl, LineStatus, ModemControl, ModemStatus, number as register, pending,
};
use crate::fifo::Fifo;
use crate::serial::Uart;
use core::fmt;
use vdev::{CharDevice, Taken};

/// Characters in a FIFO.
const DEPTH: usize = 16;

/// A character that has come in; with a break it is a zero.
#[derive(Clone, Copy, Debug, Default)]
struct Received {
    byte: u8,
    is_break: bool,
}

/// The chip. [`Default`] is the state after a reset (8.9, "Reset configuration").
#[derive(Debug, Default)]
pub(super) struct Chip {
    receive: Fifo<Received, DEPTH>,
    transmit: Fifo<u8, DEPTH>,
    enable: Enable,
    line_control: LineControl,
    modem_control: ModemControl,
    /// What has changed on the modem inputs.
    modem_changes: ModemStatus,
    fifos: bool,
    /// Bits 7 and 6 of FCR.
    trigger: u8,
    /// The transmitter has become empty, and nobody has taken notice.
    transmitter_pending: bool,
    /// LSR's bits that a look at it clears.
    errors: LineStatus,
    /// How many of the received characters are breaks.
    breaks: u8,
    /// The wire had more than the receiver could take.
    more_input: bool,
    scratch: u8,
    divisor: [u8; 2],
    /// Bytes that were written when there was no room for them.
    lost: u64,
}

impl Uart for Chip {
    fn service(&mut self, wire: &mut dyn CharDevice) -> bool {
        let sent = self.drain(wire);
        self.fill(wire);
        sent
    }

    /// Whether INTR is asserted.
    #[inline]
    fn interrupt(&self) -> bool {
        self.pending() != pending::NOTHING
    }
}

impl Chip {
    /// A load of the register `number`.
    pub(super) fn read(&mut self, number: u64, wire: &mut dyn CharDevice) -> u8 {
        match (number, self.latched()) {
            (register::LINE_STATUS, _) => self.look_at_line(),
            (register::DATA, None) => self.take(wire),
            (register::INTERRUPT_IDENTIFICATION, _) => self.identify(),
            (register::INTERRUPT_ENABLE, None) => self.enable.bits(),
            (register::DATA, Some([low, _])) => low,
            (register::INTERRUPT_ENABLE, Some([_, high])) => high,
            (register::LINE_CONTROL, _) => self.line_control.bits(),
            (register::MODEM_CONTROL, _) => self.modem_control.bits(),
            (register::MODEM_STATUS, _) => {
                let changes = core::mem::take(&mut self.modem_changes);
                self.modem_inputs().union(changes).bits()
            }
            (register::SCRATCH, _) => self.scratch,
            _ => 0,
        }
    }

    /// A store of `value` in the register `number`. Returns whether whoever is at the other end has to be told.
    pub(super) fn write(&mut self, number: u64, value: u8, wire: &mut dyn CharDevice) -> bool {
        match (number, self.latched()) {
            (register::DATA, None) => return self.send(value, wire),
            (register::INTERRUPT_ENABLE, None) => self.set_enable(Enable::from_bits_truncate(value)),
            (register::DATA, Some([_, high])) => self.divisor = [value, high],
            (register::INTERRUPT_ENABLE, Some([low, _])) => self.divisor = [low, value],
            (register::INTERRUPT_IDENTIFICATION, _) => {
                self.set_fifos(value);
                return self.service(wire);
            }
            (register::LINE_CONTROL, _) => self.set_line_control(LineControl::from_bits_retain(value)),
            (register::MODEM_CONTROL, _) => {
                self.set_modem_control(ModemControl::from_bits_truncate(value));
                return self.service(wire);
            }
            (register::SCRATCH, _) => self.scratch = value,
            // LSR is for reading (8.3, note), and so is MSR here.
            _ => {}
        }
        false
    }

    // ---- interrupts

    /// What IIR says in bits 3 to 0: of what is pending and enabled, what comes first (table III).
    fn pending(&self) -> u8 {
        let enabled = |interrupt| self.enable.contains(interrupt);
        if enabled(Enable::LINE_STATUS) && !self.errors.is_empty() {
            return pending::LINE_STATUS;
        }
        if enabled(Enable::DATA) && !self.receive.is_empty() {
            return if self.receive.len() >= self.receive_trigger() { pending::DATA } else { pending::TIMEOUT };
        }
        if enabled(Enable::TRANSMITTER) && self.transmitter_pending {
            return pending::TRANSMITTER;
        }
        if enabled(Enable::MODEM) && !self.modem_changes.is_empty() {
            return pending::MODEM;
        }
        pending::NOTHING
    }

    /// IIR read (8.5): whoever learns that the transmitter is empty has taken notice of it.
    fn identify(&mut self) -> u8 {
        let pending = self.pending();
        if pending == pending::TRANSMITTER {
            self.transmitter_pending = false;
        }
        if self.fifos { pending | pending::FIFOS } else { pending }
    }

    fn set_enable(&mut self, enable: Enable) {
        // An empty transmitter interrupts whenever that is enabled: Linux tests its UARTs for it.
        let enabled = enable.difference(self.enable);
        if enabled.contains(Enable::TRANSMITTER) && self.transmit.is_empty() {
            self.transmitter_pending = true;
        }
        self.enable = enable;
    }

    // ---- sending

    /// THR written.
    fn send(&mut self, byte: u8, wire: &mut dyn CharDevice) -> bool {
        self.transmitter_pending = false;
        if self.looping() {
            self.accept(Received { byte, is_break: false });
            self.transmitter_pending = true;
            return false;
        }
        let taken = if self.transmit.is_empty() { wire.write(byte) } else { Taken::No };
        if taken.is_taken() {
            self.transmitter_pending = true;
        } else if self.transmit.len() < self.depth() {
            self.transmit.push(byte);
        } else {
            self.lost = self.lost.saturating_add(1);
        }
        taken == Taken::Ring
    }

    /// Sends what waits, as far as it goes. Returns whether whoever is at the other end has to be told.
    fn drain(&mut self, wire: &mut dyn CharDevice) -> bool {
        if self.transmit.is_empty() {
            return false;
        }
        let mut ring = false;
        // Also in the loop: it has been sent before.
        while let Some(byte) = self.transmit.first() {
            let taken = wire.write(byte);
            if !taken.is_taken() {
                return ring;
            }
            ring |= taken == Taken::Ring;
            self.transmit.pop();
        }
        self.transmitter_pending = true;
        ring
    }

    // ---- receiving

    /// RBR read: the oldest character.
    fn take(&mut self, wire: &mut dyn CharDevice) -> u8 {
        let Some(Received { byte, is_break }) = self.receive.pop() else { return 0 };
        if is_break {
            self.breaks = self.breaks.saturating_sub(1);
        }
        self.show_first();
        if self.more_input {
            self.fill(wire);
        }
        byte
    }

    /// Takes in what the wire has, as far as there is room. What there is no room for stays in the back end: from outside
    /// there is no overrun.
    fn fill(&mut self, wire: &mut dyn CharDevice) {
        self.more_input = true;
        if self.looping() {
            return;
        }
        while self.receive.len() < self.depth() {
            let Some(byte) = wire.read() else {
                self.more_input = false;
                return;
            };
            self.accept(Received { byte, is_break: false });
        }
    }

    /// One character arrives.
    fn accept(&mut self, received: Received) {
        if self.receive.len() >= self.depth() {
            self.errors.insert(LineStatus::OVERRUN);
            return;
        }
        let first = self.receive.is_empty();
        self.breaks = self.breaks.saturating_add(u8::from(received.is_break));
        self.receive.push(received);
        if first {
            self.show_first();
        }
    }

    /// An error is shown when its character is at the top of the FIFO (8.3).
    fn show_first(&mut self) {
        if self.receive.first().is_some_and(|received| received.is_break) {
            self.errors.insert(LineStatus::BREAK);
        }
    }

    /// LSR read (8.3), which clears the errors.
    fn look_at_line(&mut self) -> u8 {
        let mut status = core::mem::take(&mut self.errors);
        status.set(LineStatus::DATA_READY, !self.receive.is_empty());
        status.set(LineStatus::HOLDING_EMPTY | LineStatus::EMPTY, self.transmit.is_empty());
        status.set(LineStatus::FIFO_ERROR, self.fifos && self.breaks > 0);
        status.bits()
    }

    // ---- control

    /// FCR (8.4).
    fn set_fifos(&mut self, value: u8) {
        let control = FifoControl::from_bits_truncate(value);
        let enable = control.contains(FifoControl::ENABLE);
        // Changing the mode clears both; with FIFOs off the other bits do nothing.
        let switched = enable != self.fifos;
        self.fifos = enable;
        self.trigger = if enable { value >> 6 } else { 0 };
        if switched || enable && control.contains(FifoControl::CLEAR_RECEIVER) {
            self.receive.clear();
            self.breaks = 0;
            self.errors.remove(LineStatus::BREAK);
        }
        // SPEC: CLEAR_TRANSMITTER has nothing to clear: what waits for the back end has been sent, as far as the guest can
        // know. Linux clears the FIFOs of a console when it is opened, behind what the kernel has printed.
    }

    /// LCR (8.1).
    fn set_line_control(&mut self, control: LineControl) {
        let risen = control.difference(self.line_control);
        self.line_control = control;
        if risen.contains(LineControl::BREAK) && self.looping() {
            self.accept(Received { byte: 0, is_break: true });
        }
    }

    /// MCR (8.6).
    fn set_modem_control(&mut self, control: ModemControl) {
        let before = self.modem_inputs();
        self.modem_control = control;
        let changed = before.symmetric_difference(self.modem_inputs());
        for (input, change) in [
            (ModemStatus::CTS, ModemStatus::CTS_CHANGED),
            (ModemStatus::DSR, ModemStatus::DSR_CHANGED),
            (ModemStatus::DCD, ModemStatus::DCD_CHANGED),
        ] {
            self.modem_changes.set(change, self.modem_changes.contains(change) || changed.contains(input));
        }
        if changed.contains(ModemStatus::RING) && before.contains(ModemStatus::RING) {
            self.modem_changes.insert(ModemStatus::RING_ENDED);
        }
    }

    /// The modem inputs: a terminal that is always ready, or in the loop the modem outputs (8.6).
    fn modem_inputs(&self) -> ModemStatus {
        if !self.looping() {
            return ModemStatus::CTS | ModemStatus::DSR | ModemStatus::DCD;
        }
        let mut inputs = ModemStatus::empty();
        for (output, input) in [
            (ModemControl::RTS, ModemStatus::CTS),
            (ModemControl::DTR, ModemStatus::DSR),
            (ModemControl::OUT1, ModemStatus::RING),
            (ModemControl::OUT2, ModemStatus::DCD),
        ] {
            inputs.set(input, self.modem_control.contains(output));
        }
        inputs
    }

    /// Whether what is sent is received.
    const fn looping(&self) -> bool {
        self.modem_control.contains(ModemControl::LOOP)
    }

    /// The divisor latch, if it is where data and interrupt enable are else.
    fn latched(&self) -> Option<[u8; 2]> {
        self.line_control.contains(LineControl::DIVISOR_LATCH).then_some(self.divisor)
    }

    /// How many characters a FIFO holds: one if it is only a holding register.
    const fn depth(&self) -> usize {
        if self.fifos { DEPTH } else { 1 }
    }

    /// At how many characters there is received data, and not a time-out (8.4).
    const fn receive_trigger(&self) -> usize {
        match self.trigger {
            0 => 1,
            1 => 4,
            2 => 8,
            _ => 14,
        }
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (to_send, received) = (self.transmit.len(), self.receive.len());
        let (enabled, lost) = (self.enable.bits(), self.lost);
        write!(
            f,
            "{to_send} to send, {received} received, interrupts {:#x} of {enabled:#x}, {lost} lost",
            self.pending()
        )
    }
}
