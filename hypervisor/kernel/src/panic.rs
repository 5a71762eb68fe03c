//! What happens when code of ours has failed: in a thread of a VM that VM ends (`compartment`), anywhere else the hypervisor
//! itself has failed, and there is nothing but the global safe state.
//!
//! Answers for: telling the two apart; stopping the other CPUs and DMA, behind SMMUs and of PCI Express, an epitaph that tells what, where and on whose behalf, and the board's reset hook,
//! which must always succeed. Nothing here allocates, takes a lock that could be held, or returns.

use crate::address_space::{self, Image};
use crate::{board, console, interrupt, pcie, smmuman};
use crate::{compartment, cpu};
use core::fmt::{self, Write};
use core::panic::PanicInfo;
use core::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use el2::thread::FaultFrame;

static FAILED: AtomicBool = AtomicBool::new(false);

/// How many functions of PCI Express had Bus Master on then.
static MASTERS: AtomicUsize = AtomicUsize::new(0);

/// ESR_EL2.EC (DDI 0487, ESR_ELx) of exceptions taken from EL2 itself, and of an SError.
const EC_INSTRUCTION_ABORT: u64 = 0x21;
const EC_DATA_ABORT: u64 = 0x25;
const EC_SERROR: u64 = 0x2f;

/// Frames of a backtrace that are printed.
const DEPTH: usize = 24;

struct Epitaph;

impl Write for Epitaph {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        console::write_now(text);
        Ok(())
    }
}

/// Stops this CPU: another one has failed and tells about it.
pub(crate) fn stop_here() -> ! {
    el2::cpu::park()
}

/// Whether this CPU is the one to tell; the others, and a failure within the failure, go no further.
fn is_first() -> bool {
    el2::cpu::mask_interrupts();
    if FAILED.swap(true, Ordering::SeqCst) {
        // The second failure on the same CPU: the epitaph itself failed. Only the reset is left.
        if cpu::this().failing.get() {
            board::reset();
        }
        stop_here();
    }
    cpu::this().failing.set(true);
    interrupt::stop_others();
    smmuman::turn_off();
    MASTERS.store(pcie::turn_off(), Ordering::Relaxed);
    true
}

fn header(epitaph: &mut Epitaph) {
    console::rescue_log();
    let cpu = cpu::this();
    // SAFETY: null, or the thread that ran here.
    let thread = unsafe { cpu.current.get().as_ref() }.map_or("boot", |thread| thread.name.as_str());
    let _ = writeln!(epitaph, "\r\nbulkhead: panic on {} in thread {thread}\r", cpu.id);
    let _ = writeln!(epitaph, "  image at {}\r", Image::here().text.start());
    match MASTERS.load(Ordering::Relaxed) {
        0 => {}
        masters => drop(writeln!(epitaph, "  Bus Master was on in {masters} PCI functions: it is off\r")),
    }
}

fn backtrace(epitaph: &mut Epitaph, pc: Option<u64>, sp: u64, mut frame: u64) {
    let mut depth = 0;
    let mut line = |address: u64| {
        let _ = writeln!(epitaph, "  #{depth} {address:#x}\r");
        depth += 1;
    };
    if let Some(pc) = pc {
        line(pc);
    }
    for _ in 0..DEPTH {
        if frame & 7 != 0 || !address_space::same_stack(sp, frame) || !address_space::same_stack(sp, frame + 8) {
            break;
        }
        // SAFETY: inside the stack that runs, aligned.
        let record = unsafe { *(frame as *const [u64; 2]) };
        if record[1] == 0 {
            break;
        }
        line(record[1].wrapping_sub(4));
        if record[0] <= frame {
            break;
        }
        frame = record[0];
    }
}

#[panic_handler]
fn on_panic(info: &PanicInfo<'_>) -> ! {
    el2::cpu::mask_interrupts();
    match info.location() {
        Some(location) => compartment::confine(format_args!("{} ({location})", info.message())),
        None => compartment::confine(format_args!("{}", info.message())),
    }
    if is_first() {
        let epitaph = &mut Epitaph;
        header(epitaph);
        let _ = writeln!(epitaph, "  {}\r", info.message());
        if let Some(location) = info.location() {
            let _ = writeln!(epitaph, "  at {location}\r");
        }
        let frame = el2::cpu::frame_pointer();
        backtrace(epitaph, None, frame, frame);
    }
    board::reset()
}

/// An exception at EL2 that no code of ours expects.
#[unsafe(no_mangle)]
extern "C" fn kernel_fault(frame: &FaultFrame, overflow: u64) -> ! {
    let what = match (frame.esr >> 26, overflow) {
        (EC_DATA_ABORT, 1) => "stack overflow",
        (EC_INSTRUCTION_ABORT, _) => "instruction abort",
        (EC_DATA_ABORT, _) => "data abort",
        (EC_SERROR, _) => "SError",
        (0x26, _) => "misaligned stack pointer",
        _ => "unexpected exception",
    };
    // An SError says nothing about whose access it was.
    if frame.esr >> 26 != EC_SERROR {
        compartment::confine(format_args!("{what} in EL2 at {:#x}, address {:#x}", frame.pc, frame.far));
    }
    if is_first() {
        let epitaph = &mut Epitaph;
        header(epitaph);
        let _ = writeln!(
            epitaph,
            "  {what}: ESR_EL2 {:#x} FAR_EL2 {:#x} ELR_EL2 {:#x} SPSR_EL2 {:#x} SP {:#x}\r",
            frame.esr, frame.far, frame.pc, frame.pstate, frame.sp
        );
        for (index, chunk) in frame.x.chunks(4).enumerate() {
            let _ = write!(epitaph, " ");
            for (offset, value) in chunk.iter().enumerate() {
                let _ = write!(epitaph, " x{:<2} {value:016x}", index * 4 + offset);
            }
            let _ = writeln!(epitaph, "\r");
        }
        backtrace(epitaph, Some(frame.pc), frame.sp.max(frame.x[29]), frame.x[29]);
    }
    board::reset()
}
