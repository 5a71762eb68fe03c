//! temporary
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU64, Ordering};
use drivers::{Mmio, pl011::Pl011};
use machine::Machine;
use types::Pa;

static EARLY: AtomicU64 = AtomicU64::new(0);

pub(crate) fn set_early(base: Pa) {
    EARLY.store(base.0, Ordering::Relaxed);
}

pub(crate) fn write_now(text: &str) {
    let base = EARLY.load(Ordering::Relaxed);
    if base == 0 {
        return;
    }
    // SAFETY: x
    let mut device = Pl011::new(unsafe { Mmio::new(Pa(base), 0x1000) });
    for byte in text.bytes() {
        for _ in 0..100_000 {
            if device.can_send() {
                break;
            }
        }
        device.send(byte);
    }
}

struct Now;
impl Write for Now {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_now(text);
        Ok(())
    }
}
pub(crate) fn print_now(text: fmt::Arguments<'_>) {
    let _ = Now.write_fmt(text);
}

struct L;
impl log::Log for L {
    fn enabled(&self, _: &log::Metadata) -> bool {
        true
    }
    fn log(&self, r: &log::Record) {
        print_now(format_args!("{}: {}\r\n", r.level(), r.args()));
    }
    fn flush(&self) {}
}
pub(crate) fn initialise(_machine: &Machine) {
    let _ = log::set_logger(&L);
    log::set_max_level(log::LevelFilter::Debug);
}
pub(crate) fn input_ready() {}
