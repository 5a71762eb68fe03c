//! The console's device, and the host thread behind it.
//!
//! Answers for: the UART, feeding it from the multiplexer (`host`), taking what is typed, and printing when nothing else
//! works any more. Does not answer for: what is shown when (`host::console`).

use crate::board::FirstConsole;
use crate::compartment::Requests;
use crate::qvm;
use crate::sync::{Lock, Rank, logging, masked};
use crate::{board, interrupt, start, startup, thread};
use alloc::sync::Arc;
use core::cell::Cell;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicBool, Ordering};
use drivers::{Mmio, Serial};
use host::console::{Action, Bell, Multiplexer, Next, Progress, Uart, Urgency, VmNumber};
use host::log::{Log, Surroundings};
use machine::Machine;
use spin::Once;
use types::Ticks;

/// Priority of the console's thread: output goes on while VMs with the default priority are busy.
const PRIORITY: u8 = 40;

/// Bytes that are sent with interrupts masked.
const CHUNK: usize = 128;

/// Polls of a transmitter that is full before an epitaph goes on without it.
const PATIENCE: u32 = 1_000_000;

/// Bytes of input taken in one interrupt: what a FIFO holds, several times. Should there be more, the interrupt comes again.
const INPUT: usize = 256;

/// How long output may wait for more to come, and how long a full transmitter is left alone, in microseconds.
const PAUSE: u64 = 1000;

/// Pauses for which [`flush`] waits: as many milliseconds.
const FLUSH: u32 = 2000;

static LOG: Log = Log::new();
static FIRST: First = First(Cell::new(None));
/// The transmitter has been waited for in vain.
static STUCK: AtomicBool = AtomicBool::new(false);
static BELL: Once<Arc<Bell>> = Once::new();
static CONSOLE: Lock<Option<Console>> = Lock::new(Rank::Console, None);
static THREAD: Once<Arc<thread::Thread>> = Once::new();

struct Console {
    multiplexer: Multiplexer,
    device: Option<Device>,
}

/// What [`write_now`] prints on. No atomic, which there are none of before the MMU is on.
struct First(Cell<Option<FirstConsole>>);

// SAFETY: written while the boot CPU is the only one (`set_first`, `initialise`), afterwards read.
unsafe impl Sync for First {}

struct Device(Serial);

impl Uart for Device {
    #[inline(always)]
    fn ready(&self) -> bool {
        self.0.can_send()
    }
    #[inline(always)]
    fn send(&mut self, byte: u8) {
        self.0.send(byte);
    }
}

/// A machine without a console that we have a driver for: everything printed vanishes.
struct Nowhere;

impl Uart for Nowhere {
    fn ready(&self) -> bool {
        true
    }
    fn send(&mut self, _: u8) {}
}

/// There is a serial port: [`write_now`] may use it. The other CPUs have not been started.
pub(crate) fn set_first(console: FirstConsole) {
    FIRST.0.set(Some(console));
}

/// Prints at once, past every queue and lock: before there is a console, and when the hypervisor has failed.
pub(crate) fn write_now(text: &str) {
    if let Some(device) = &mut device_now() {
        text.bytes().for_each(|byte| send_now(device, byte));
    }
}

fn device_now() -> Option<Serial> {
    /// Holds every register of a serial port that is used.
    const WINDOW: u64 = 0x80;
    let FirstConsole { kind, registers } = FIRST.0.get()?;
    // SAFETY: a serial port by the device tree or the board, mapped since the MMU is on. Whoever else uses it either does not
    // exist yet or has been stopped.
    Some(Serial::new(kind, unsafe { Mmio::new(registers, WINDOW) }))
}

fn send_now(device: &mut Serial, byte: u8) {
    // Once: a transmitter that does not move at all must not hold up the reset behind the epitaph.
    if !STUCK.load(Ordering::Relaxed) && !(0..PATIENCE).any(|_| device.can_send()) {
        STUCK.store(true, Ordering::Relaxed);
    }
    device.send(byte);
}

/// The host's log, to which the `log` package's words lead.
pub(crate) fn log() -> &'static Log {
    &LOG
}

struct Now;

impl Write for Now {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        write_now(text);
        Ok(())
    }
}

/// As [`write_now`], formatted.
pub(crate) fn print_now(text: fmt::Arguments<'_>) {
    let _ = Now.write_fmt(text);
}

/// Prints what the log still holds, for an epitaph. Takes no memory and waits for no lock.
pub(crate) fn rescue_log() {
    let Some(device) = &mut device_now() else { return };
    LOG.rescue(|byte| {
        if byte == b'\n' {
            send_now(device, b'\r');
        }
        send_now(device, byte);
    });
}

fn nanoseconds() -> u64 {
    el2::cpu::counter_frequency().map_or(0, |frequency| frequency.to_nanoseconds(el2::cpu::counter()))
}

/// Takes over the machine's console and starts logging to it. Threads do not run yet.
pub(crate) fn initialise(machine: &Machine) {
    let _ = log::set_logger(&LOG);
    LOG.set_level(log::LevelFilter::Info);
    let multiplexer = Multiplexer::new(&LOG);
    let bell = Arc::clone(BELL.call_once(|| multiplexer.bell()));
    LOG.start(Surroundings { nanoseconds, masked: |work| logging(work), bell });
    let chosen = machine.consoles.first();
    let device = chosen.map(|console| {
        if FIRST.0.get().is_none() {
            start::map_device(console.registers);
        }
        set_first(FirstConsole { kind: console.kind, registers: console.registers.start() });
        // SAFETY: a serial port by the device tree, mapped; from here on this is its driver.
        Device(Serial::new(console.kind, unsafe { Mmio::of(&console.registers) }))
    });
    *CONSOLE.lock() = Some(Console { multiplexer, device });
    if let Some(intid) = chosen.and_then(|console| console.intid) {
        interrupt::enable_console(intid);
        if let Some(Console { device: Some(device), .. }) = &mut *CONSOLE.lock() {
            device.0.enable_input();
        }
    }
}

/// Starts the console's thread.
///
/// # Errors
/// If there is no memory for it.
pub(crate) fn start_thread() -> Result<(), thread::SpawnError> {
    let thread = thread::spawn("console".into(), startup::host_parameters(PRIORITY), || run())?;
    THREAD.call_once(|| thread);
    Ok(())
}

/// Works with the multiplexer. Interrupts are masked meanwhile.
pub(crate) fn with<R>(work: impl FnOnce(&mut Multiplexer) -> R) -> Option<R> {
    let result = CONSOLE.lock().as_mut().map(|console| masked(|| work(&mut console.multiplexer)));
    answer_bell();
    result
}

fn step() -> Option<Progress> {
    CONSOLE.lock().as_mut().map(|Console { multiplexer, device }| match device {
        Some(device) => masked(|| multiplexer.step(device, CHUNK)),
        None => masked(|| multiplexer.step(&mut Nowhere, CHUNK)),
    })
}

/// In a little while.
pub(crate) fn pause() -> Ticks {
    let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(PAUSE));
    el2::cpu::counter().saturating_add(ticks)
}

/// Waits until everything that was said has been printed, for a while.
pub(crate) fn flush() {
    for _ in 0..FLUSH {
        if with(|multiplexer| multiplexer.is_idle()) != Some(false) {
            return;
        }
        thread::sleep_until(pause());
    }
}

fn run() -> ! {
    loop {
        let Some(progress) = step() else { el2::cpu::park() };
        progress.relieved.iter().for_each(|number| qvm::request(number, Requests::ROOM));
        if progress.finished {
            board::power_off();
        }
        match progress.next {
            Next::Again => {}
            Next::UartFull => thread::sleep_until(pause()),
            Next::Idle => thread::sleep_until(Ticks::NEVER),
        }
    }
}

/// Wakes the console's thread if somebody has asked for it.
#[inline(always)]
pub(crate) fn answer_bell() {
    if let Some(bell) = BELL.get()
        && let Some(urgency) = bell.answer()
    {
        wake_thread(urgency);
    }
}

#[cold]
#[inline(never)]
fn wake_thread(urgency: Urgency) {
    match (THREAD.get(), urgency) {
        (Some(thread), Urgency::Now) => thread::notify(thread),
        (Some(thread), Urgency::Soon) => thread::notify_at(thread, pause()),
        (None, _) => {}
    }
}

/// The UART has received something.
pub(crate) fn input_ready() {
    let mut to_wake = arrayvec::ArrayVec::<VmNumber, 8>::new();
    let mut power_off = false;
    if let Some(Console { multiplexer, device: Some(device) }) = &mut *CONSOLE.lock() {
        // First: a byte that comes while we read raises the interrupt anew.
        device.0.clear_interrupt();
        for _ in 0..INPUT {
            let Some(byte) = device.0.receive() else { break };
            match masked(|| multiplexer.input(byte)) {
                Action::None => {}
                Action::Wake(number) if to_wake.contains(&number) => {}
                Action::Wake(number) => {
                    let _ = to_wake.try_push(number);
                }
                Action::PowerOff => power_off = true,
            }
        }
    }
    if power_off {
        board::power_off();
    }
    to_wake.into_iter().for_each(|number| qvm::request(number, Requests::INPUT));
    answer_bell();
}
