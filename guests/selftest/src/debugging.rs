//! The CPU's debug logic, as a debugger uses it: breakpoints, watchpoints, single steps.
//!
//! DDI 0487, chapter D2 ("AArch64 Self-hosted Debug").

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::code::{self, RET};
use guest_rt::exceptions::{Trap, catch};
use guest_rt::machine::Machine;
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::isb;
use guest_rt::sandbox::{self, Mode};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check_equal, instruction, mrs, msr};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "debugging: a watchpoint stops a store where it says", run: watchpoint },
    Test { name: "debugging: a breakpoint stops an instruction", run: breakpoint },
    Test { name: "debugging: EL0 is stepped one instruction at a time", run: step },
    Test { name: "debugging: the OS lock holds debug exceptions back", run: lock },
    Test { name: "debugging: breakpoints and watchpoints of CPUs are their own", run: apart },
];

const BREAKPOINT: u64 = 0x31;
const STEP_FROM_EL0: u64 = 0x32;
const WATCHPOINT: u64 = 0x35;
const NOP: u32 = 0xd503_201f;
/// `MRS X0, CNTPCT_EL0`: a hypervisor may have to read it for us.
const READ_COUNTER: u32 = 0xd53b_e020;

/// `MDSCR_EL1`: breakpoints and watchpoints on, for EL1 too; software step.
const MDE: u64 = 1 << 15;
const KDE: u64 = 1 << 13;
const SS: u64 = 1;

/// Runs `body` with `MDSCR_EL1` so and debug exceptions not masked.
fn with_control<R>(control: u64, body: impl FnOnce() -> R) -> R {
    // SAFETY: opens the OS lock; what is compared has been set up by the caller.
    unsafe { msr!("oslar_el1", 0_u64) };
    // SAFETY: as above.
    unsafe { msr!("mdscr_el1", control) };
    isb();
    instruction!("msr daifclr, #8");
    let result = body();
    instruction!("msr daifset, #8");
    // SAFETY: off again.
    unsafe { msr!("mdscr_el1", 0_u64) };
    isb();
    result
}

fn watch(cell: &AtomicU64) {
    /// `E`; EL1; stores; all eight bytes.
    const CONTROL: u64 = 1 | 0b01 << 1 | 0b10 << 3 | 0xff << 5;
    // SAFETY: takes effect in `with_control` only.
    unsafe { msr!("dbgwvr0_el1", cell.as_ptr() as u64) };
    // SAFETY: as above.
    unsafe { msr!("dbgwcr0_el1", CONTROL) };
}

fn forget() {
    // SAFETY: compares nothing any more.
    unsafe { msr!("dbgwcr0_el1", 0_u64) };
    // SAFETY: as above.
    unsafe { msr!("dbgbcr0_el1", 0_u64) };
}

fn store_to(cell: &AtomicU64) -> Option<Trap> {
    catch(|| cell.store(1, Ordering::Relaxed)).1
}

fn expect(trap: Option<Trap>, class: u64) -> Result<Trap, Verdict> {
    let trap = trap.ok_or_else(|| Verdict::fail(format_args!("no exception")))?;
    check_equal!(trap.class(), class, "class");
    check_equal!(trap.count, 1, "number of exceptions");
    Ok(trap)
}

fn watchpoint(_machine: &'static Machine) -> Outcome {
    let (cell, beside) = (AtomicU64::new(0), AtomicU64::new(0));
    watch(&cell);
    let (there, not_there) = with_control(MDE | KDE, || (store_to(&cell), store_to(&beside)));
    let off = store_to(&cell);
    forget();
    let trap = expect(there, WATCHPOINT)?;
    check_equal!(trap.address, cell.as_ptr() as u64, "fault address");
    check_equal!(trap.status(), 0b10_0010, "fault status");
    check_equal!((not_there, off), (None, None), "exceptions beside it, and with everything off");
    Ok(())
}

fn breakpoint(_machine: &'static Machine) -> Outcome {
    /// `E`; EL1; a whole instruction.
    const CONTROL: u64 = 1 | 0b01 << 1 | 0xf << 5;
    let (at, trap) = code::with([NOP, RET], |address| {
        // SAFETY: takes effect in `with_control` only.
        unsafe { msr!("dbgbvr0_el1", address as u64) };
        // SAFETY: as above.
        unsafe { msr!("dbgbcr0_el1", CONTROL) };
        // SAFETY: does nothing, and returns.
        (address, with_control(MDE | KDE, || catch(|| unsafe { code::call(address, 0) }).1))
    });
    forget();
    let trap = expect(trap, BREAKPOINT)?;
    check_equal!(trap.pc, at as u64, "where");
    Ok(())
}

fn step(_machine: &'static Machine) -> Outcome {
    const EL0PCTEN: u64 = 1;
    let before = mrs!("cntkctl_el1");
    // SAFETY: lets EL0 read the counter.
    unsafe { msr!("cntkctl_el1", before | EL0PCTEN) };
    let ends = code::with([NOP, READ_COUNTER, NOP, 0], |address| {
        let address = mmu::reach(address as u64, Kind::User);
        with_control(SS, || {
            [0, 4, 8].map(|offset| {
                // SAFETY: instructions that do nothing; the step ends them, or the undefined one behind them.
                let end = unsafe { sandbox::run(Mode::El0tStepping, address + offset, 0, &[0; 31]) };
                (end.syndrome >> 26, end.pc.wrapping_sub((address + offset) as u64))
            })
        })
    });
    // SAFETY: as it was.
    unsafe { msr!("cntkctl_el1", before) };
    check_equal!(ends, [(STEP_FROM_EL0, 4); 3], "class, and how far it came");
    Ok(())
}

fn lock(machine: &'static Machine) -> Outcome {
    // QEMU's own lock holds nothing back.
    stage::needs_hypervisor(machine)?;
    let cell = AtomicU64::new(0);
    watch(&cell);
    let (locked, open) = with_control(MDE | KDE, || {
        // SAFETY: what the lock is for.
        unsafe { msr!("oslar_el1", 1_u64) };
        isb();
        let locked = store_to(&cell);
        // SAFETY: as above.
        unsafe { msr!("oslar_el1", 0_u64) };
        isb();
        (locked, store_to(&cell))
    });
    forget();
    check_equal!(locked, None, "an exception while locked");
    expect(open, WATCHPOINT)?;
    Ok(())
}

static CELL: AtomicU64 = AtomicU64::new(0);
static SEEN: AtomicU64 = AtomicU64::new(0);

fn apart(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    watch(&CELL);
    let (other, here) = with_control(MDE | KDE, || {
        let other = stage::run_on(1, |_| {
            let trapped = store_to(&CELL).is_some();
            SEEN.store(mrs!("mdscr_el1") | u64::from(trapped), Ordering::Release);
        });
        (other, store_to(&CELL))
    });
    forget();
    other?;
    check_equal!(SEEN.load(Ordering::Acquire), 0, "MDSCR_EL1 of another CPU, or an exception there");
    let trap = expect(here, WATCHPOINT)?;
    check_equal!(trap.address, CELL.as_ptr() as u64, "fault address");
    Ok(())
}
