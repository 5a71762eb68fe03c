//! Firmware calls that give something: random numbers, and the time that a CPU was not ours.
//!
//! Arm True Random Number Generator Firmware Interface (DEN 0098); Paravirtualized Time for Arm-based Systems (DEN 0057).

use guest_rt::exceptions::catch;
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::smccc::{self, Conduit, code, function};
use guest_rt::tap::{Outcome, Test};
use guest_rt::{check, check_equal, mrs};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "services: random numbers come if the CPU has any, else none of the calls is there", run: random },
    Test { name: "services: each CPU has a structure for its stolen time, which it cannot write", run: stolen_time },
];

const TRNG_VERSION: u32 = 0x8400_0050;
const TRNG_FEATURES: u32 = 0x8400_0051;
const TRNG_GET_UUID: u32 = 0x8400_0052;
const TRNG_RND32: u32 = 0x8400_0053;
const TRNG_RND64: u32 = 0xc400_0053;
const PV_TIME_FEATURES: u32 = 0xc500_0020;
const PV_TIME_ST: u32 = 0xc500_0021;

/// A call with one argument: X0 to X3.
fn call(function: u32, argument: u64) -> [u64; 4] {
    let mut registers = [!0; 18];
    registers[0] = function.into();
    registers[1] = argument;
    smccc::call_with(Conduit::Hvc, &mut registers);
    [registers[0], registers[1], registers[2], registers[3]]
}

fn random(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let there = mrs!("id_aa64isar0_el1") >> 60 != 0;
    for function in [TRNG_VERSION, TRNG_FEATURES, TRNG_GET_UUID, TRNG_RND32, TRNG_RND64] {
        let known = call(TRNG_FEATURES, function.into())[0] as i32 >= 0;
        check!(known == there, "function {function:#x}: {known}");
        check!(there || call(function, 32)[0] as i32 == code::NOT_SUPPORTED, "function {function:#x} answers");
    }
    check_equal!(there || machine.seed.is_none(), true, "no seed in the tree without a source");
    if !there {
        return Ok(());
    }
    check!(machine.seed.is_some_and(|seed| seed.iter().any(|byte| *byte != 0)), "no seed in the tree");
    check_equal!(call(TRNG_VERSION, 0)[0], 0x1_0000, "version");
    let (first, second) = (call(TRNG_RND64, 192), call(TRNG_RND64, 192));
    check_equal!((first[0], second[0]), (0, 0), "status");
    check!(first[1..].iter().chain(&second[1..]).all(|word| *word != 0), "zeros: {first:x?} {second:x?}");
    check!(first[1..] != second[1..], "twice the same");
    let few = call(TRNG_RND32, 33);
    check!(few[0] == 0 && few[1] == 0 && few[2] <= 1 && few[3] <= 0xffff_ffff, "33 bits: {few:x?}");
    for (function, bits) in [(TRNG_RND64, 0), (TRNG_RND64, 193), (TRNG_RND32, 97)] {
        check_equal!(call(function, bits)[0] as i32, code::INVALID_PARAMETERS, "too few or too many bits");
    }
    Ok(())
}

fn stolen_time(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let features = smccc::psci(function::SMCCC_ARCH_FEATURES, [PV_TIME_FEATURES.into(), 0, 0]);
    check_equal!(features, code::SUCCESS, "SMCCC_ARCH_FEATURES");
    for (function, answer) in [(PV_TIME_FEATURES, 0), (PV_TIME_ST, 0), (0xc500_0022, code::NOT_SUPPORTED)] {
        check_equal!(call(PV_TIME_FEATURES, function.into())[0] as i32, answer, "PV_TIME_FEATURES");
    }
    let at = call(PV_TIME_ST, 0)[0];
    check!(at.is_multiple_of(64) && at as i64 > 0 && !machine.is_memory(at), "PV_TIME_ST answers {at:#x}");
    check_equal!(call(PV_TIME_ST, 0)[0], at, "the same again");
    // SAFETY: the hypervisor says that it is there.
    let structure = unsafe { Mmio::new(at as usize) };
    check_equal!(structure.read64(0), 0, "revision and attributes");
    let before = structure.read64(8);
    let _ = catch(|| structure.write64(8, !0));
    let after = structure.read64(8);
    check!((before..before + 60_000_000_000).contains(&after), "{before} ns, then {after} ns");
    Ok(())
}
