//! Exceptions: each arrives once, where it should, with the syndrome that the manual gives.
//!
//! DDI 0487, section D24.2.40 (`ESR_EL1`) and D1.3 (exception entry).

use core::arch::asm;

use guest_rt::code::{self, RET};
use guest_rt::exceptions::{Trap, catch, class};
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::isb;
use guest_rt::sandbox::{self, Mode, Outcome as End};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal, instruction, mrs, msr};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "exceptions: SVC brings its number", run: svc },
    Test { name: "exceptions: UDF is undefined", run: udf },
    Test { name: "exceptions: BRK brings its number", run: brk },
    Test { name: "exceptions: an unaligned access faults when alignment is checked", run: alignment },
    Test { name: "exceptions: an unmapped address is a translation fault", run: translation },
    Test { name: "exceptions: a table walk into nowhere is an abort of the walk", run: walk_into_nowhere },
    Test { name: "exceptions: a fetch from nowhere is an instruction abort", run: fetch_from_nowhere },
    Test { name: "exceptions: a misaligned program counter faults", run: pc_alignment },
    Test { name: "exceptions: an illegal exception return is an illegal state", run: illegal_state },
    Test { name: "exceptions: EL0 reaches EL1 by SVC", run: svc_from_el0 },
    Test { name: "exceptions: EL0 may not read EL1's registers", run: el1_register_from_el0 },
    Test { name: "exceptions: HVC and SMC are undefined at EL0", run: calls_from_el0 },
    Test { name: "exceptions: the interrupt mask at entry is kept by the return", run: masks_survive },
];

fn trap_of(body: impl FnOnce()) -> Result<Trap, Verdict> {
    catch(body).1.ok_or_else(|| Verdict::fail(format_args!("no exception")))
}

/// Loads from where it ought not to work.
fn read_word(address: u64) {
    // SAFETY: a load changes nothing, should it work after all.
    let _ = unsafe { Mmio::new(address as usize) }.read(0);
}

fn svc(_machine: &'static Machine) -> Outcome {
    let trap = trap_of(|| instruction!("svc #0x1234"))?;
    check_equal!(trap.syndrome, class::SVC << 26 | 1 << 25 | 0x1234, "syndrome");
    check_equal!(trap.count, 1, "number of exceptions");
    check_equal!(trap.pstate & 0x1f, 0b0101, "mode it came from");
    Ok(())
}

fn udf(_machine: &'static Machine) -> Outcome {
    let (pc, trap) = code::with([0, RET], |address| {
        // SAFETY: an undefined instruction, then a return.
        (address, catch(|| unsafe { code::call(address, 0) }).1)
    });
    let trap = trap.ok_or_else(|| Verdict::fail(format_args!("no exception")))?;
    check!(trap.is_undefined(), "syndrome {:#x}", trap.syndrome);
    check_equal!(trap.pc, pc as u64, "return address");
    Ok(())
}

fn brk(_machine: &'static Machine) -> Outcome {
    let trap = trap_of(|| instruction!("brk #0xbeef"))?;
    check_equal!(trap.syndrome, class::BRK << 26 | 1 << 25 | 0xbeef, "syndrome");
    Ok(())
}

fn alignment(_machine: &'static Machine) -> Outcome {
    const A: u64 = 1 << 1;
    let cell = [0_u64; 2];
    let address = cell.as_ptr() as usize + 1;
    let sctlr = mrs!("sctlr_el1");
    // SAFETY: everything that runs until the next write is aligned, but for the one load.
    unsafe { msr!("sctlr_el1", sctlr | A) };
    isb();
    // SAFETY: a load from our own array.
    let (_, trap) = catch(|| unsafe { Mmio::new(address) }.read(0));
    // SAFETY: back to what it was.
    unsafe { msr!("sctlr_el1", sctlr) };
    isb();
    let trap = trap.ok_or_else(|| Verdict::fail(format_args!("no exception")))?;
    check_equal!(trap.class(), class::DATA_ABORT, "class");
    check_equal!(trap.status(), 0b10_0001, "fault status");
    check_equal!(trap.address, address as u64, "fault address");
    Ok(())
}

fn translation(_machine: &'static Machine) -> Outcome {
    // Beyond the 39 bits that TTBR0 covers.
    let address = 1_u64 << 44;
    let trap = trap_of(|| read_word(address))?;
    check_equal!(trap.class(), class::DATA_ABORT, "class");
    check_equal!(trap.status() & !0b11, 0b00_0100, "fault status");
    check_equal!(trap.address, address, "fault address");
    Ok(())
}

/// The window's first-level entry points to a table where no memory is.
fn walk_into_nowhere(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let table = stage::nowhere(machine);
    // SAFETY: nothing uses the window now.
    unsafe { mmu::set_window_descriptor(table | 0b11) };
    let result = trap_of(|| read_word(mmu::window() as u64));
    // SAFETY: as above.
    unsafe { mmu::set_window_descriptor(0) };
    let trap = result?;
    check_equal!(trap.class(), class::DATA_ABORT, "class");
    // Synchronous external abort on a walk, level 2: where the descriptor could not be read.
    check_equal!(trap.status(), 0b01_0110, "fault status");
    check_equal!(trap.address, mmu::window() as u64, "fault address");
    Ok(())
}

fn fetch_from_nowhere(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let address = mmu::reach(stage::nowhere(machine), Kind::Memory);
    // SAFETY: the call returns through its link register, by way of the exception.
    let (_, trap) = catch(|| unsafe { code::call(address, 0) });
    let trap = trap.ok_or_else(|| Verdict::fail(format_args!("no exception")))?;
    check_equal!(trap.class(), class::INSTRUCTION_ABORT, "class");
    check_equal!(trap.status(), 0b01_0000, "fault status");
    check_equal!((trap.address, trap.pc), (address as u64, address as u64), "fault and return address");
    check_equal!(trap.count, 1, "number of exceptions");
    Ok(())
}

/// Runs `words` from `offset` bytes on, until an exception.
fn run(mode: Mode, words: &[u32], offset: usize) -> End {
    code::with(words.iter().copied(), |address| {
        let pc = match mode {
            Mode::El1t => address,
            Mode::El0t | Mode::El0tStepping => mmu::reach(address as u64, Kind::User),
        };
        // SAFETY: the tests' code raises an exception at once and writes nothing.
        unsafe { sandbox::run(mode, pc + offset, 0, &[0; 31]) }
    })
}

fn expect(end: &End, vector: u64, class: u64) -> Outcome {
    check_equal!(end.vector, vector, "vector");
    check_equal!(end.syndrome >> 26 & 0x3f, class, "class");
    Ok(())
}

fn pc_alignment(_machine: &'static Machine) -> Outcome {
    let end = run(Mode::El1t, &[0, 0], 2);
    expect(&end, 0, class::PC_ALIGNMENT)?;
    check_equal!(end.address & 0xfff, 2, "fault address");
    Ok(())
}

fn illegal_state(_machine: &'static Machine) -> Outcome {
    let (_, trap) = catch(|| {
        // SAFETY: returns to the next label at EL1 whatever PSTATE says; interrupts are masked throughout. EL2 from EL1 is
        // an illegal return (DDI 0487, section D1.3.4).
        unsafe {
            asm!(
                "adr {0}, 2f",
                "msr elr_el1, {0}",
                "mov {0}, #0x3c9",
                "msr spsr_el1, {0}",
                "isb",
                "eret",
                "2: nop",
                out(reg) _,
                options(nostack)
            );
        }
    });
    let trap = trap.ok_or_else(|| Verdict::fail(format_args!("no exception")))?;
    check_equal!(trap.class(), class::ILLEGAL_STATE, "class");
    check_equal!(trap.count, 1, "number of exceptions");
    Ok(())
}

fn svc_from_el0(_machine: &'static Machine) -> Outcome {
    // SVC #7
    let end = run(Mode::El0t, &[0xd400_00e1], 0);
    expect(&end, 8, class::SVC)?;
    check_equal!(end.syndrome & 0xffff, 7, "immediate");
    check_equal!(end.pstate & 0x1f, 0, "mode it came from");
    Ok(())
}

fn el1_register_from_el0(_machine: &'static Machine) -> Outcome {
    // MRS X0, SCTLR_EL1
    let end = run(Mode::El0t, &[0xd538_1000], 0);
    expect(&end, 8, class::UNKNOWN)
}

fn calls_from_el0(_machine: &'static Machine) -> Outcome {
    for word in [0xd400_0002, 0xd400_0003] {
        expect(&run(Mode::El0t, &[word], 0), 8, class::UNKNOWN)?;
    }
    Ok(())
}

fn masks_survive(_machine: &'static Machine) -> Outcome {
    let before = mrs!("daif");
    let trap = trap_of(|| instruction!("svc #0"))?;
    check_equal!(mrs!("daif"), before, "masks after the return");
    check_equal!(trap.pstate & 0x3c0, before, "masks in the saved PSTATE");
    Ok(())
}
