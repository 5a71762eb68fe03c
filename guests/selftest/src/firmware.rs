//! Firmware calls that change nothing: versions, features, refusals.
//!
//! SMCCC (DEN 0028), sections 2 and 7; PSCI (DEN 0022), section 5.

use guest_rt::exceptions::{Trap, catch};
use guest_rt::machine::Machine;
use guest_rt::smccc::{self, Conduit, code, function};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "firmware: PSCI is 1.0 or newer", run: psci_version },
    Test { name: "firmware: PSCI_FEATURES knows what there is", run: features },
    Test { name: "firmware: PSCI_FEATURES does not know what there is not", run: unknown_features },
    Test { name: "firmware: no trusted operating system wants to migrate", run: migrate_info },
    Test { name: "firmware: SMCCC is 1.1 or newer", run: smccc_version },
    Test { name: "firmware: SMCCC_ARCH_FEATURES answers for itself and its neighbours", run: arch_features },
    Test { name: "firmware: an unknown function is NOT_SUPPORTED by HVC", run: unknown_by_hvc },
    Test { name: "firmware: an unknown function is NOT_SUPPORTED by SMC", run: unknown_by_smc },
    Test { name: "firmware: HVC and SMC give the same answers", run: same_by_both },
    Test {
        name: "firmware: a call with a number other than zero is refused, but for that of yielding",
        run: wrong_immediate,
    },
    Test { name: "firmware: a 32-bit call looks at 32 bits of its arguments", run: truncated_arguments },
];

fn psci_version(_machine: &'static Machine) -> Outcome {
    let version = smccc::psci(function::PSCI_VERSION, [0; 3]);
    check!(version >= 0x1_0000, "version {version:#x}");
    Ok(())
}

fn features(machine: &'static Machine) -> Outcome {
    use function::{
        AFFINITY_INFO, CPU_OFF, CPU_ON, CPU_SUSPEND, PSCI_FEATURES, PSCI_VERSION, SYSTEM_OFF, SYSTEM_RESET,
    };
    let mandatory =
        [PSCI_VERSION, CPU_SUSPEND, CPU_OFF, CPU_ON, AFFINITY_INFO, SYSTEM_OFF, SYSTEM_RESET, PSCI_FEATURES];
    let ours = [function::SMCCC_VERSION, function::SYSTEM_RESET2, function::CPU_ON_32, function::MIGRATE_INFO_TYPE];
    let ours = ours.into_iter().filter(|_| machine.is_bulkhead);
    for wanted in mandatory.into_iter().chain(ours) {
        let answer = smccc::psci(PSCI_FEATURES, [u64::from(wanted), 0, 0]);
        check!(answer >= 0, "{wanted:#x}: {answer}");
    }
    Ok(())
}

fn unknown_features(_machine: &'static Machine) -> Outcome {
    for id in [0x8400_001f_u64, 0xc400_001f, 0x8400_0100, 0xffff_ffff, 0] {
        check_equal!(smccc::psci(function::PSCI_FEATURES, [id, 0, 0]), code::NOT_SUPPORTED, "answer");
    }
    Ok(())
}

fn migrate_info(_machine: &'static Machine) -> Outcome {
    let answer = smccc::psci(function::MIGRATE_INFO_TYPE, [0; 3]);
    check!(answer == 2 || answer == code::NOT_SUPPORTED, "answer {answer}");
    Ok(())
}

fn smccc_version(_machine: &'static Machine) -> Outcome {
    if smccc::psci(function::PSCI_FEATURES, [u64::from(function::SMCCC_VERSION), 0, 0]) < 0 {
        return Err(Verdict::Skip("PSCI_FEATURES says that there is no SMCCC_VERSION"));
    }
    let version = smccc::psci(function::SMCCC_VERSION, [0; 3]);
    check!(version >= 0x1_0001, "version {version:#x}");
    Ok(())
}

fn arch_features(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let ask = |id: u32| smccc::psci(function::SMCCC_ARCH_FEATURES, [u64::from(id), 0, 0]);
    check!(ask(function::SMCCC_VERSION) >= 0, "SMCCC_VERSION");
    check!(ask(function::SMCCC_ARCH_FEATURES) >= 0, "SMCCC_ARCH_FEATURES");
    check_equal!(ask(0x8000_7777), code::NOT_SUPPORTED, "nonsense");
    // 0: call it; 1: not needed here; -1: not known. Whichever it is, calling it must be harmless.
    let workaround = ask(function::SMCCC_ARCH_WORKAROUND_1);
    check!((-1..=1).contains(&workaround), "SMCCC_ARCH_WORKAROUND_1: {workaround}");
    smccc::psci(function::SMCCC_ARCH_WORKAROUND_1, [0; 3]);
    Ok(())
}

/// Function identifiers that nobody has: each owner, both widths, fast and yielding, and what looks like PSCI.
const UNKNOWN: [u32; 14] = [
    0x0000_0000,
    0x0300_0000,
    0x8000_7fff,
    0xc000_0001,
    0x8100_0042,
    0x8200_0001,
    0xc200_fff0,
    0x8300_0000,
    0x8400_001f,
    0xc400_0000,
    0x8700_1234,
    0xb200_0000,
    0xf200_ffff,
    0xffff_ffff,
];

/// The convention (section 2.6): x0 is -1, everything else is kept (from 1.1 on, x4 to x17; x1 to x3 with no results).
fn unknown(conduit: Conduit) -> Outcome {
    for id in UNKNOWN {
        let mut registers = core::array::from_fn(|number| 0x1111_1111_1111_1111 * (number as u64 % 15 + 1));
        registers[0] = u64::from(id);
        let before = registers;
        let ((), trap) = catch(|| smccc::call_with(conduit, &mut registers));
        check_equal!(trap.map(|trap| trap.syndrome), None, "exception");
        check!(registers[0] == !0, "{id:#x}: x0 is {:#x}", registers[0]);
        for number in 1..18 {
            check!(registers[number] == before[number], "{id:#x}: x{number} is {:#x}", registers[number]);
        }
    }
    Ok(())
}

fn unknown_by_hvc(machine: &'static Machine) -> Outcome {
    if machine.conduit != Conduit::Hvc {
        stage::needs_hypervisor(machine)?;
    }
    unknown(Conduit::Hvc)
}

fn unknown_by_smc(machine: &'static Machine) -> Outcome {
    if machine.conduit != Conduit::Smc {
        stage::needs_hypervisor(machine)?;
    }
    unknown(Conduit::Smc)
}

fn same_by_both(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let own = machine.cpus[0];
    for (id, argument) in [
        (function::PSCI_VERSION, 0),
        (function::AFFINITY_INFO, own),
        (function::AFFINITY_INFO, 0xdead_beef),
        (function::PSCI_FEATURES, u64::from(function::CPU_SUSPEND)),
        (function::SMCCC_VERSION, 0),
        (function::MIGRATE_INFO_TYPE, 0),
    ] {
        let [hvc, smc] = [Conduit::Hvc, Conduit::Smc].map(|conduit| smccc::call_by(conduit, id, [argument, 0, 0]));
        check!(hvc == smc, "{id:#x}: {hvc:#x} by HVC, {smc:#x} by SMC");
    }
    Ok(())
}

/// Only `HVC #0` and `SMC #0` are calls of the convention (section 2.9); others are undefined or not supported.
fn wrong_immediate(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let is_refused = |(x0, trap): (u64, Option<Trap>)| match trap {
        Some(trap) => trap.is_undefined(),
        None => x0 == !0,
    };
    macro_rules! call {
        ($instruction:literal) => {
            catch(|| {
                let mut x0 = u64::from(function::PSCI_VERSION);
                // SAFETY: if it were taken for a call it would have no effect.
                unsafe { core::arch::asm!($instruction, inout("x0") x0, clobber_abi("C")) };
                x0
            })
        };
    }
    // This one lets others run, and answers nothing.
    check!(call!("hvc #1").0 == u64::from(function::PSCI_VERSION), "HVC #1");
    check!(is_refused(call!("hvc #2")), "HVC #2");
    check!(is_refused(call!("hvc #0xffff")), "HVC #0xffff");
    check!(is_refused(call!("smc #1")), "SMC #1");
    Ok(())
}

fn truncated_arguments(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let junk = 0x1234_5678_0000_0000;
    let answer = smccc::psci(function::AFFINITY_INFO_32, [machine.cpus[0] | junk, junk, 0]);
    check_equal!(answer, 0, "AFFINITY_INFO of ourselves, junk in the upper halves");
    let answer = smccc::call(function::PSCI_FEATURES, [u64::from(function::CPU_OFF) | junk, 0, 0]) as i32;
    check_equal!(answer, 0, "PSCI_FEATURES of CPU_OFF, junk in the upper half");
    Ok(())
}
