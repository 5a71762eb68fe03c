//! The console: a PL011, polled.
//!
//! Answers for: whole lines that CPUs do not tear apart, and a way to print that works in the middle of a disaster; what is
//! typed, byte by byte. Does not answer for: interrupts, baud rates (nobody listens to them here).
//!
//! PrimeCell UART (PL011) Technical Reference Manual, DDI 0183, section 3.3.

use core::fmt::{self, Write};
use core::sync::atomic::{AtomicUsize, Ordering};

use spin::Mutex;

use crate::mmio::Mmio;
use crate::registers::relax;

/// Data register.
pub const UARTDR: usize = 0x00;
/// Flag register.
pub const UARTFR: usize = 0x18;
/// `UARTFR`: the receive FIFO is empty.
pub const RXFE: u32 = 1 << 4;
/// Line control register.
pub const UARTLCR_H: usize = 0x2c;
/// Control register.
pub const UARTCR: usize = 0x30;
/// Interrupt mask set and clear register.
pub const UARTIMSC: usize = 0x38;
/// `UARTFR`: the transmit FIFO is full.
pub const TXFF: u32 = 1 << 5;

static BASE: AtomicUsize = AtomicUsize::new(0);
static LINE: Mutex<()> = Mutex::new(());

/// The console's registers; none before the machine is known, or if it has none.
#[must_use]
pub fn registers() -> Option<Mmio> {
    match BASE.load(Ordering::Relaxed) {
        0 => None,
        // SAFETY: `open` stored a mapped device address.
        base => Some(unsafe { Mmio::new(base) }),
    }
}

/// Uses the PL011 at `address` from now on: no interrupts, FIFOs on, 8 bits, transmitter and receiver enabled.
///
/// # Safety
///
/// A PL011's registers are mapped there.
pub unsafe fn open(address: usize) {
    // SAFETY: the caller's promise.
    let uart = unsafe { Mmio::new(address) };
    uart.write(UARTCR, 0);
    uart.write(UARTIMSC, 0);
    uart.write(UARTLCR_H, 0b111_0000);
    uart.write(UARTCR, 0x301);
    BASE.store(address, Ordering::Relaxed);
}

/// Sends one byte, as soon as there is room.
pub fn put(byte: u8) {
    let Some(uart) = registers() else { return };
    while uart.read(UARTFR) & TXFF != 0 {
        relax();
    }
    uart.write(UARTDR, u32::from(byte));
}

/// The byte that was typed next, if one was.
#[must_use]
pub fn take() -> Option<u8> {
    let uart = registers()?;
    (uart.read(UARTFR) & RXFE == 0).then(|| uart.read(UARTDR) as u8)
}

struct Uart;

impl Write for Uart {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        text.bytes().for_each(put);
        Ok(())
    }
}

/// Prints, one CPU at a time.
pub fn print(arguments: fmt::Arguments<'_>) {
    let _line = LINE.lock();
    let _ = Uart.write_fmt(arguments);
}

/// Prints a line, one CPU at a time.
pub fn print_line(arguments: fmt::Arguments<'_>) {
    let _line = LINE.lock();
    let _ = Uart.write_fmt(arguments);
    put(b'\n');
}

/// Prints although somebody may be in the middle of a line, perhaps we ourselves.
pub fn print_regardless(arguments: fmt::Arguments<'_>) {
    let _ = Uart.write_fmt(arguments);
}

/// Prints a line.
#[macro_export]
macro_rules! println {
    ($($arguments:tt)*) => { $crate::console::print_line(format_args!($($arguments)*)) };
}
