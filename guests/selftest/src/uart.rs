//! The PL011, in loopback: it listens to itself. Only printable characters are sent: some models send them out, too.
//!
//! PrimeCell UART (PL011) Technical Reference Manual (DDI 0183), chapter 3.

use core::cell::Cell;

use guest_rt::console;
use guest_rt::exceptions::catch;
use guest_rt::gic::{self, Bank, DEFAULT_PRIORITY, Gic};
use guest_rt::machine::Machine;
use guest_rt::mmio::{Mmio, Width};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal, timer};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "uart: says that it is a PL011", run: identification },
    Test { name: "uart: registers keep what they should", run: registers },
    Test { name: "uart: what is sent in loopback is received", run: loopback },
    Test { name: "uart: a FIFO takes sixteen bytes or more and then says that it is full", run: fifo_depth },
    Test { name: "uart: one byte too many is an overrun", run: overrun },
    Test { name: "uart: the receive interrupt follows the FIFO level", run: receive_level },
    Test { name: "uart: the interrupt line is a level at the controller", run: line_is_level },
    Test { name: "uart: any offset answers in any width", run: answers },
];

const DR: usize = 0x00;
const RSR: usize = 0x04;
const FR: usize = 0x18;
const IBRD: usize = 0x24;
const FBRD: usize = 0x28;
const LCR_H: usize = 0x2c;
const CR: usize = 0x30;
const IFLS: usize = 0x34;
const IMSC: usize = 0x38;
const RIS: usize = 0x3c;
const MIS: usize = 0x40;
const ICR: usize = 0x44;

const RXFE: u32 = 1 << 4;
const RXFF: u32 = 1 << 6;
const FEN: u32 = 1 << 4;
const WLEN_8: u32 = 0b11 << 5;
const LBE: u32 = 1 << 7;
const ENABLED: u32 = 0x301;
const RXIM: u32 = 1 << 4;
const OEIM: u32 = 1 << 10;

/// Runs `body` with the UART in loopback, FIFOs on and empty, all interrupts masked; then makes it a console again.
fn in_loopback(machine: &Machine, body: impl FnOnce(Mmio) -> Outcome) -> Outcome {
    let Some((registers, _)) = &machine.uart else { return Err(Verdict::Skip("no UART")) };
    // SAFETY: the tree says that a PL011 is there.
    let uart = unsafe { Mmio::new(registers.start as usize) };
    // A PL011 in loopback may send what it receives: let it be a comment.
    b"# loopback: ".iter().copied().for_each(console::put);
    // What is on its way out goes out first.
    timer::wait_until(1_000_000, || uart.read(FR) & (1 << 3 | 1 << 7) == 1 << 7);
    uart.write(CR, 0);
    uart.write(LCR_H, WLEN_8);
    uart.write(IMSC, 0);
    uart.write(ICR, 0x7ff);
    uart.write(IFLS, 0b01_0010);
    uart.write(LCR_H, WLEN_8 | FEN);
    uart.write(CR, ENABLED | LBE);
    let result = body(uart);
    empty(uart);
    uart.write(IMSC, 0);
    uart.write(ICR, 0x7ff);
    uart.write(RSR, 0);
    uart.write(IFLS, 0b01_0010);
    // SAFETY: as above.
    unsafe { console::open(registers.start as usize) };
    console::put(b'\n');
    result
}

/// Waits for a byte.
fn receive(uart: Mmio) -> Option<u32> {
    timer::wait_until(1_000_000, || uart.read(FR) & RXFE == 0).then(|| uart.read(DR))
}

fn empty(uart: Mmio) {
    for _ in 0..64 {
        if uart.read(FR) & RXFE != 0 {
            break;
        }
        let _ = uart.read(DR);
    }
}

/// Byte `number` of what is sent.
fn letter(number: u32) -> u32 {
    u32::from(b'!') + number % 94
}

/// Sends as many bytes; gives each the time to come around.
fn send(uart: Mmio, count: u32) {
    for number in 0..count {
        timer::wait_until(1_000_000, || uart.read(FR) & console::TXFF == 0);
        uart.write(DR, letter(number));
    }
}

fn identification(machine: &'static Machine) -> Outcome {
    in_loopback(machine, |uart| {
        let bytes = |offset: usize| [0, 4, 8, 12].map(|more| uart.read(offset + more) & 0xff);
        let peripheral = bytes(0xfe0);
        check_equal!([peripheral[0], peripheral[1]], [0x11, 0x10], "UARTPeriphID0 and 1");
        check_equal!(peripheral[2] & 0xf, 0x4, "UARTPeriphID2, designer");
        check_equal!(bytes(0xff0), [0x0d, 0xf0, 0x05, 0xb1], "UARTPCellID");
        Ok(())
    })
}

fn registers(machine: &'static Machine) -> Outcome {
    in_loopback(machine, |uart| {
        for (name, offset, value, mask) in [
            ("UARTIBRD", IBRD, 0x1234, 0xffff),
            ("UARTFBRD", FBRD, 0x2a, 0x3f),
            ("UARTIFLS", IFLS, 0x24, 0x3f),
            ("UARTIMSC", IMSC, 0x000, 0x7ff),
            ("UARTLCR_H", LCR_H, 0x70, 0xff),
            ("UARTCR", CR, 0x381, 0xff87),
        ] {
            uart.write(offset, value);
            check_equal!(uart.read(offset) & mask, value, name);
        }
        Ok(())
    })
}

fn loopback(machine: &'static Machine) -> Outcome {
    in_loopback(machine, |uart| {
        for number in 0..94 {
            uart.write(DR, letter(number));
            check_equal!(receive(uart), Some(letter(number)), "a byte, no error flags");
        }
        check!(uart.read(FR) & RXFE != 0, "more comes than was sent");
        Ok(())
    })
}

/// How many bytes until the receive FIFO says that it is full; 64 if never.
fn fill(uart: Mmio) -> u32 {
    let sent = Cell::new(0);
    while sent.get() < 64 && uart.read(FR) & RXFF == 0 {
        uart.write(DR, letter(sent.get()));
        sent.set(sent.get() + 1);
        timer::wait_until(1000, || uart.read(FR) & (1 << 3) == 0 || uart.read(FR) & RXFF != 0);
    }
    sent.get()
}

fn fifo_depth(machine: &'static Machine) -> Outcome {
    in_loopback(machine, |uart| {
        let depth = fill(uart);
        check!(depth == 16 || depth == 32, "{depth} bytes");
        for number in 0..depth {
            check_equal!(receive(uart).map(|data| data & 0xff), Some(letter(number)), "a byte, in order");
        }
        check!(uart.read(FR) & RXFE != 0, "the FIFO is not empty in the end");
        // Without FIFOs there is one.
        uart.write(CR, 0);
        uart.write(LCR_H, WLEN_8);
        uart.write(CR, ENABLED | LBE);
        check_equal!(fill(uart), 1, "bytes without FIFOs");
        Ok(())
    })
}

fn overrun(machine: &'static Machine) -> Outcome {
    if !machine.is_bulkhead {
        return Err(Verdict::Skip("the emulated PL011 has no overrun"));
    }
    in_loopback(machine, |uart| {
        let depth = fill(uart);
        uart.write(DR, u32::from(b'~'));
        let is_raised = timer::wait_until(1_000_000, || uart.read(RIS) & OEIM != 0);
        check!(is_raised, "UARTRIS has no overrun");
        uart.write(ICR, OEIM);
        check_equal!(uart.read(RIS) & OEIM, 0, "the overrun interrupt after it was cleared");
        for number in 0..depth {
            check_equal!(receive(uart).map(|data| data & 0xff), Some(letter(number)), "what came before it");
        }
        Ok(())
    })
}

fn receive_level(machine: &'static Machine) -> Outcome {
    in_loopback(machine, |uart| {
        let depth = fill(uart);
        empty(uart);
        uart.write(ICR, 0x7ff);
        // UARTIFLS.RXIFLSEL: eighths of the FIFO. 0b010 is a half.
        uart.write(IFLS, 0b01_0010);
        send(uart, depth / 2 - 1);
        timer::delay(1000);
        // The emulator's own PL011 raises it at the first byte.
        let early = uart.read(RIS) & RXIM;
        check!(early == 0 || !machine.is_bulkhead, "the interrupt comes one byte below the level");
        send(uart, 1);
        let is_raised = timer::wait_until(1_000_000, || uart.read(RIS) & RXIM != 0);
        check!(is_raised, "no interrupt at the level");
        check_equal!(uart.read(MIS) & RXIM, 0, "the masked interrupt");
        uart.write(IMSC, RXIM);
        check_equal!(uart.read(MIS) & RXIM, RXIM, "the unmasked interrupt");
        empty(uart);
        check_equal!(uart.read(RIS) & RXIM, 0, "the interrupt of an empty FIFO");
        Ok(())
    })
}

fn line_is_level(machine: &'static Machine) -> Outcome {
    let Some((_, Some(intid))) = machine.uart.clone() else { return Err(Verdict::Skip("no interrupt in the tree")) };
    let gic = stage::clean_gic(machine);
    gic.set_edge(intid, false);
    gic.set_priority(intid, DEFAULT_PRIORITY);
    gic.enable(intid);
    let outcome = in_loopback(machine, |uart| level(gic, intid, uart));
    gic.disable(intid);
    stage::clean_gic(machine);
    outcome
}

fn level(gic: Gic, intid: u32, uart: Mmio) -> Outcome {
    let taken = || {
        let mut taken = None;
        timer::wait_until(1_000_000, || {
            taken = gic::acknowledge();
            taken.is_some()
        });
        taken
    };
    send(uart, 16);
    uart.write(IMSC, RXIM);
    // Ended with the cause still there: it comes again.
    for _ in 0..5 {
        check_equal!(taken(), Some(intid), "acknowledged while the line is high");
        gic::end(intid);
    }
    // The cause goes while it is in hand: it does not come again.
    check_equal!(taken(), Some(intid), "acknowledged once more");
    empty(uart);
    uart.write(ICR, 0x7ff);
    gic::end(intid);
    timer::delay(500);
    check_equal!(gic::acknowledge(), None, "acknowledged when the line is low");
    check!(!gic.is(Bank::Pending, intid), "it is pending though the line is low");
    // The cause goes before it is acknowledged: it is taken back.
    send(uart, 16);
    check!(timer::wait_until(1_000_000, || gic.is(Bank::Pending, intid)), "it is not pending though the line is high");
    uart.write(IMSC, 0);
    check!(timer::wait_until(1_000_000, || !gic.is(Bank::Pending, intid)), "a line that fell leaves it pending");
    check_equal!(gic::acknowledge(), None, "acknowledged after the line fell");
    Ok(())
}

fn answers(machine: &'static Machine) -> Outcome {
    in_loopback(machine, |uart| {
        for width in Width::ALL {
            let ((), trap) = catch(|| {
                for offset in (0x48..0x1000).step_by(width.bytes().max(4)) {
                    let _ = uart.read_width(offset, width);
                }
            });
            check!(
                trap.is_none() || !machine.is_bulkhead,
                "{width:?}: syndrome {:#x?}",
                trap.map(|trap| trap.syndrome)
            );
        }
        Ok(())
    })
}
