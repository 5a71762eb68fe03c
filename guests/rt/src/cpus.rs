//! The other CPUs.
//!
//! Answers for: starting them with something to run and stopping them again. Does not answer for: sharing; they all run
//! the same image in the same memory.

use core::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::gic::Gic;
use crate::machine::{MAX_CPUS, machine};
use crate::registers::wfi;
use crate::smccc::{self, code, function};
use crate::{msr, timer};

/// What a CPU runs, given its number.
pub type Main = fn(usize);

struct Slot {
    main: AtomicUsize,
    is_up: AtomicBool,
    entry: [AtomicU64; 4],
}

static SLOTS: [Slot; MAX_CPUS] = [const {
    Slot { main: AtomicUsize::new(0), is_up: AtomicBool::new(false), entry: [const { AtomicU64::new(0) }; 4] }
}; MAX_CPUS];

/// The state in which a CPU arrived at its entry point.
#[derive(Clone, Copy, Debug)]
pub struct EntryState {
    /// `CurrentEL`.
    pub current_el: u64,
    /// `SPSel`.
    pub spsel: u64,
    /// `DAIF`.
    pub daif: u64,
    /// `SCTLR_EL1`.
    pub sctlr: u64,
}

unsafe extern "C" {
    fn guest_secondary_start();
}

/// The address to give to `CPU_ON`; the context id is the CPU's number.
#[must_use]
pub fn entry_address() -> u64 {
    guest_secondary_start as *const () as u64
}

/// Sets what CPU `index` will run, without starting it.
pub fn prepare(index: usize, main: Main) {
    SLOTS[index].is_up.store(false, Ordering::Relaxed);
    SLOTS[index].main.store(main as usize, Ordering::Relaxed);
    crate::registers::dsb();
}

/// Starts CPU `index` and waits for it to arrive, at most two seconds, asleep if it takes long ([`timer::sleep_until`]).
///
/// # Errors
///
/// What `CPU_ON` answered; `DENIED` if the CPU never came.
pub fn start(index: usize, main: Main) -> Result<(), i32> {
    prepare(index, main);
    match smccc::psci(function::CPU_ON, [machine().cpus[index], entry_address(), index as u64]) {
        code::SUCCESS if wait_up(index) => Ok(()),
        code::SUCCESS => Err(code::DENIED),
        error => Err(error),
    }
}

/// Waits for CPU `index` to arrive, at most two seconds.
#[must_use]
pub fn wait_up(index: usize) -> bool {
    timer::sleep_until(2_000_000, || SLOTS[index].is_up.load(Ordering::Acquire))
}

/// How CPU `index` was entered when it last started.
#[must_use]
pub fn entry_state(index: usize) -> EntryState {
    let [current_el, spsel, daif, sctlr] =
        [0, 1, 2, 3].map(|field: usize| SLOTS[index].entry[field].load(Ordering::Relaxed));
    EntryState { current_el, spsel, daif, sctlr }
}

/// Waits until the firmware says that CPU `index` is off, at most two seconds.
#[must_use]
pub fn wait_off(index: usize) -> bool {
    let affinity = machine().cpus[index];
    timer::sleep_until(2_000_000, || smccc::psci(function::AFFINITY_INFO, [affinity, 0, 0]) == 1)
}

pub(crate) fn set_number(index: usize) {
    // SAFETY: our own use of the register: who am I.
    unsafe { msr!("tpidr_el1", index as u64) };
}

/// Where `entry.S` brings every CPU but the first; the CPU is switched off when its work is done.
#[unsafe(no_mangle)]
extern "C" fn guest_secondary(index: usize, current_el: u64, spsel: u64, daif: u64, sctlr: u64) -> ! {
    set_number(index);
    let slot = &SLOTS[index % MAX_CPUS];
    for (field, value) in slot.entry.iter().zip([current_el, spsel, daif, sctlr]) {
        field.store(value, Ordering::Relaxed);
    }
    Gic::of(machine()).start_cpu();
    slot.is_up.store(true, Ordering::Release);
    let main = slot.main.load(Ordering::Relaxed);
    // SAFETY: `prepare` stored a `Main`, before the CPU was started.
    let main = unsafe { core::mem::transmute::<usize, Main>(main) };
    main(index);
    smccc::psci(function::CPU_OFF, [0; 3]);
    loop {
        wfi();
    }
}
