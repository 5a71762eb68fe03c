//! System registers: what can be read, what is hidden, what must not be written, what is kept.
//!
//! DDI 0487, sections D24.2 (registers) and D23.3.1 (the identification space: unallocated encodings read as zero).

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::code::SystemRegister;
use guest_rt::machine::Machine;
use guest_rt::registers::{affinity, isb};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::timer::{self, Timer};
use guest_rt::{check, check_equal, mrs, msr, println};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "registers: we run at EL1", run: level },
    Test { name: "registers: every identification register can be read", run: identification_space },
    Test { name: "registers: identification is the same on all CPUs", run: same_everywhere },
    Test { name: "registers: MPIDR is what the tree says", run: mpidr },
    Test { name: "registers: features that are not offered are not shown", run: hidden_features },
    Test { name: "registers: hidden features' registers are undefined", run: hidden_registers },
    Test {
        name: "registers: those of the interrupt controller cannot be switched off",
        run: interrupt_controller_stays,
    },
    Test { name: "registers: a write to an identification register is undefined", run: read_only },
    Test { name: "registers: EL2's and EL3's are undefined", run: higher_levels },
    Test { name: "registers: the debug registers an operating system writes at boot can be written", run: debug },
    Test { name: "registers: ours keep their values while we sleep", run: values_survive_sleep },
    Test { name: "registers: ours keep their values while another CPU writes its own", run: values_stay_apart },
];

const fn id(crm: u32, op2: u32) -> SystemRegister {
    SystemRegister::new(3, 0, 0, crm, op2)
}

const ID_AA64PFR0_EL1: SystemRegister = id(4, 0);
const ID_AA64PFR1_EL1: SystemRegister = id(4, 1);
const ID_AA64DFR0_EL1: SystemRegister = id(5, 0);

fn read(register: SystemRegister) -> Result<u64, Verdict> {
    register.read().map_err(|trap| Verdict::fail(format_args!("reading {register}: syndrome {:#x}", trap.syndrome)))
}

fn field(register: SystemRegister, shift: u32) -> Result<u64, Verdict> {
    Ok(read(register)? >> shift & 0xf)
}

fn level(_machine: &'static Machine) -> Outcome {
    check_equal!(mrs!("CurrentEL"), 1 << 2, "CurrentEL");
    Ok(())
}

fn identification_space(_machine: &'static Machine) -> Outcome {
    for (crm, op2) in (1..8).flat_map(|crm| (0..8).map(move |op2| (crm, op2))) {
        read(id(crm, op2))?;
    }
    // MIDR, MPIDR, REVIDR; CCSIDR, CLIDR, AIDR; CSSELR; CTR, DCZID.
    for (op1, op2) in [(0, 0), (0, 5), (0, 6), (1, 0), (1, 1), (1, 7), (2, 0), (3, 1), (3, 7)] {
        read(SystemRegister::new(3, op1, 0, 0, op2))?;
    }
    Ok(())
}

static IDENTIFICATION: [AtomicU64; 64] = [const { AtomicU64::new(0) }; 64];

fn collect() -> impl Iterator<Item = u64> {
    let midr = SystemRegister::new(3, 0, 0, 0, 0);
    (1..8)
        .flat_map(|crm| (0..8).map(move |op2| id(crm, op2)))
        .chain([midr])
        .map(|register| register.read().unwrap_or(!0))
}

fn same_everywhere(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    for index in 1..machine.cpus.len() {
        stage::run_on(index, |_| {
            collect().zip(&IDENTIFICATION).for_each(|(value, slot)| slot.store(value, Ordering::Relaxed));
        })?;
        for (number, (here, there)) in collect().zip(&IDENTIFICATION).enumerate() {
            let there = there.load(Ordering::Relaxed);
            check!(here == there, "CRm {} op2 {}: {here:#x}, on CPU {index} {there:#x}", number / 8 + 1, number % 8);
        }
    }
    Ok(())
}

static AFFINITY: AtomicU64 = AtomicU64::new(0);

fn mpidr(machine: &'static Machine) -> Outcome {
    check!(mrs!("mpidr_el1") & 1 << 31 != 0, "RES1 bit 31 is 0");
    check_equal!(affinity(), machine.cpus[0], "affinity of the boot CPU");
    for index in 1..machine.cpus.len() {
        stage::run_on(index, |_| AFFINITY.store(affinity(), Ordering::Relaxed))?;
        check_equal!(AFFINITY.load(Ordering::Relaxed), machine.cpus[index], "affinity of another CPU");
    }
    Ok(())
}

fn hidden_features(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let pfr0 = ID_AA64PFR0_EL1;
    for (name, register, shift) in [
        ("SVE", pfr0, 32),
        ("MPAM", pfr0, 40),
        ("AMU", pfr0, 44),
        ("MTE", ID_AA64PFR1_EL1, 8),
        ("SME", ID_AA64PFR1_EL1, 24),
        ("PMSVer", ID_AA64DFR0_EL1, 32),
        ("TraceVer", ID_AA64DFR0_EL1, 4),
        ("TraceBuffer", ID_AA64DFR0_EL1, 44),
    ] {
        check!(field(register, shift)? == 0, "{name} is shown");
    }
    // EL2 is not there for us, EL1 is AArch64 only.
    check_equal!(field(pfr0, 8)?, 0, "EL2");
    check_equal!(field(pfr0, 4)?, 1, "EL1");
    check_equal!(field(pfr0, 24)?, u64::from(machine.cpu_interface.is_none()), "GIC system registers");
    Ok(())
}

fn hidden_registers(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    // Our own traps come before the hypervisor's, and have a syndrome of their own on CPUs that have the features.
    const ENABLED: u64 = 3 << 16 | 3 << 20 | 3 << 24; // ZEN, FPEN, SMEN
    let cpacr = SystemRegister::new(3, 0, 1, 0, 2);
    let before = read(cpacr)?;
    // SAFETY: lets registers be used that nobody here uses.
    let _written = unsafe { cpacr.write(before | ENABLED) };
    guest_rt::instruction!("isb");
    let outcome = are_hidden();
    // SAFETY: as it was.
    let _written = unsafe { cpacr.write(before) };
    guest_rt::instruction!("isb");
    outcome
}

/// Performance monitors, which may be hidden.
const MONITORS: &[(&str, SystemRegister)] = &[
    ("PMCR_EL0", SystemRegister::new(3, 3, 9, 12, 0)),
    ("PMCCNTR_EL0", SystemRegister::new(3, 3, 9, 13, 0)),
    ("PMUSERENR_EL0", SystemRegister::new(3, 3, 9, 14, 0)),
    ("PMINTENSET_EL1", SystemRegister::new(3, 0, 9, 14, 1)),
    ("PMMIR_EL1", SystemRegister::new(3, 0, 9, 14, 6)),
    ("PMEVCNTR0_EL0", SystemRegister::new(3, 3, 14, 8, 0)),
    ("PMCCFILTR_EL0", SystemRegister::new(3, 3, 14, 15, 7)),
];

/// Registers of extensions that `ID_*` does not show, by extension.
const HIDDEN: &[(&str, SystemRegister)] = &[
    // SVE and SME.
    ("ZCR_EL1", SystemRegister::new(3, 0, 1, 2, 0)),
    ("SMCR_EL1", SystemRegister::new(3, 0, 1, 2, 6)),
    ("SMPRI_EL1", SystemRegister::new(3, 0, 1, 2, 4)),
    ("SMIDR_EL1", SystemRegister::new(3, 1, 0, 0, 6)),
    ("SVCR", SystemRegister::new(3, 3, 4, 2, 2)),
    ("TPIDR2_EL0", SystemRegister::new(3, 3, 13, 0, 5)),
    ("FPMR", SystemRegister::new(3, 3, 4, 4, 2)),
    // MTE.
    ("GMID_EL1", SystemRegister::new(3, 1, 0, 0, 4)),
    ("RGSR_EL1", SystemRegister::new(3, 0, 1, 0, 5)),
    ("GCR_EL1", SystemRegister::new(3, 0, 1, 0, 6)),
    ("TFSR_EL1", SystemRegister::new(3, 0, 5, 6, 0)),
    ("TFSRE0_EL1", SystemRegister::new(3, 0, 5, 6, 1)),
    // Error records.
    ("ERRIDR_EL1", SystemRegister::new(3, 0, 5, 3, 0)),
    ("ERRSELR_EL1", SystemRegister::new(3, 0, 5, 3, 1)),
    ("ERXFR_EL1", SystemRegister::new(3, 0, 5, 4, 0)),
    ("ERXCTLR_EL1", SystemRegister::new(3, 0, 5, 4, 1)),
    ("ERXPFGF_EL1", SystemRegister::new(3, 0, 5, 4, 4)),
    ("PFAR_EL1", SystemRegister::new(3, 0, 6, 0, 5)),
    // Profiling.
    ("PMSCR_EL1", SystemRegister::new(3, 0, 9, 9, 0)),
    ("PMSIDR_EL1", SystemRegister::new(3, 0, 9, 9, 7)),
    ("PMBLIMITR_EL1", SystemRegister::new(3, 0, 9, 10, 0)),
    ("PMBIDR_EL1", SystemRegister::new(3, 0, 9, 10, 7)),
    // Activity monitors.
    ("AMCR_EL0", SystemRegister::new(3, 3, 13, 2, 0)),
    ("AMCFGR_EL0", SystemRegister::new(3, 3, 13, 2, 1)),
    ("AMEVCNTR00_EL0", SystemRegister::new(3, 3, 13, 4, 0)),
    // Trace, its filters and buffers, branch records.
    ("TRCPRGCTLR", SystemRegister::new(2, 1, 0, 1, 0)),
    ("TRCIDR0", SystemRegister::new(2, 1, 0, 8, 7)),
    ("TRFCR_EL1", SystemRegister::new(3, 0, 1, 2, 1)),
    ("TRBLIMITR_EL1", SystemRegister::new(3, 0, 9, 11, 0)),
    ("TRBIDR_EL1", SystemRegister::new(3, 0, 9, 11, 7)),
    ("BRBCR_EL1", SystemRegister::new(2, 1, 9, 0, 0)),
    ("BRBIDR0_EL1", SystemRegister::new(2, 1, 9, 2, 0)),
    // Memory partitioning, limited ordering regions.
    ("MPAM1_EL1", SystemRegister::new(3, 0, 10, 5, 0)),
    ("MPAM0_EL1", SystemRegister::new(3, 0, 10, 5, 1)),
    ("MPAMIDR_EL1", SystemRegister::new(3, 0, 10, 4, 4)),
    ("LORSA_EL1", SystemRegister::new(3, 0, 10, 4, 0)),
    ("LOREA_EL1", SystemRegister::new(3, 0, 10, 4, 1)),
    ("LORN_EL1", SystemRegister::new(3, 0, 10, 4, 2)),
    ("LORC_EL1", SystemRegister::new(3, 0, 10, 4, 3)),
    ("LORID_EL1", SystemRegister::new(3, 0, 10, 4, 7)),
    // Numbers of software contexts.
    ("SCXTNUM_EL1", SystemRegister::new(3, 0, 13, 0, 7)),
    ("SCXTNUM_EL0", SystemRegister::new(3, 3, 13, 0, 7)),
    // What FEAT_TCR2, FEAT_SCTLR2, FEAT_S1PIE, FEAT_S1POE, FEAT_AIE, FEAT_GCS, FEAT_LS64, FEAT_THE bring.
    ("TCR2_EL1", SystemRegister::new(3, 0, 2, 0, 3)),
    ("SCTLR2_EL1", SystemRegister::new(3, 0, 1, 0, 3)),
    ("PIRE0_EL1", SystemRegister::new(3, 0, 10, 2, 2)),
    ("PIR_EL1", SystemRegister::new(3, 0, 10, 2, 3)),
    ("POR_EL1", SystemRegister::new(3, 0, 10, 2, 4)),
    ("POR_EL0", SystemRegister::new(3, 3, 10, 2, 4)),
    ("MAIR2_EL1", SystemRegister::new(3, 0, 10, 2, 1)),
    ("AMAIR2_EL1", SystemRegister::new(3, 0, 10, 3, 1)),
    ("GCSCR_EL1", SystemRegister::new(3, 0, 2, 5, 0)),
    ("GCSPR_EL1", SystemRegister::new(3, 0, 2, 5, 1)),
    ("ACCDATA_EL1", SystemRegister::new(3, 0, 13, 0, 5)),
    ("RCWMASK_EL1", SystemRegister::new(3, 0, 13, 0, 6)),
    ("RCWSMASK_EL1", SystemRegister::new(3, 0, 13, 0, 3)),
    ("an implementation-defined one", SystemRegister::new(3, 1, 15, 2, 0)),
    ("an unallocated one", SystemRegister::new(3, 0, 6, 9, 7)),
];

fn are_hidden() -> Outcome {
    let mut seen = 0;
    let monitors = if field(ID_AA64DFR0_EL1, 8)? == 0 { MONITORS } else { &[] };
    for (name, register) in HIDDEN.iter().chain(monitors) {
        match register.read() {
            // FEAT_IDST reports what is not there of the identification space with the class of a trapped register.
            Err(trap) => {
                let is_identification = register.crn() == 0 && trap.syndrome >> 26 == 0x18;
                check!(trap.is_undefined() || is_identification, "{name}: syndrome {:#x}", trap.syndrome);
            }
            Ok(value) => {
                println!("# {name} reads {value:#x}");
                seen += 1;
            }
        }
    }
    check_equal!(seen, 0, "hidden registers that can be read");
    Ok(())
}

fn interrupt_controller_stays(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let icc_sre = SystemRegister::new(3, 0, 12, 12, 5);
    if machine.cpu_interface.is_some() {
        check!(icc_sre.read().is_err(), "ICC_SRE_EL1 can be read beside a GICv2");
        return Ok(());
    }
    check_equal!(read(icc_sre)?, 7, "ICC_SRE_EL1");
    // SAFETY: asks for the registers in memory, which there are not.
    let written = unsafe { icc_sre.write(0) };
    check!(written.is_ok(), "ICC_SRE_EL1 cannot be written");
    check_equal!(read(icc_sre)?, 7, "ICC_SRE_EL1 afterwards");
    read(SystemRegister::new(3, 0, 12, 12, 7))?; // ICC_IGRPEN1_EL1
    Ok(())
}

fn read_only(_machine: &'static Machine) -> Outcome {
    for register in [SystemRegister::new(3, 0, 0, 0, 0), ID_AA64PFR0_EL1, ID_AA64DFR0_EL1] {
        // SAFETY: it cannot be written.
        let result = unsafe { register.write(0) };
        let trap = result.err().ok_or_else(|| Verdict::fail(format_args!("{register} can be written")))?;
        check!(trap.is_undefined(), "{register}: syndrome {:#x}", trap.syndrome);
    }
    Ok(())
}

fn higher_levels(_machine: &'static Machine) -> Outcome {
    // HCR_EL2, SCTLR_EL2, VTTBR_EL2, ICH_HCR_EL2, SCR_EL3, SCTLR_EL3.
    for (op1, crn, crm, op2) in [(4, 1, 1, 0), (4, 1, 0, 0), (4, 2, 1, 0), (4, 12, 11, 0), (6, 1, 1, 0), (6, 1, 0, 0)] {
        let register = SystemRegister::new(3, op1, crn, crm, op2);
        let trap = register.read().err().ok_or_else(|| Verdict::fail(format_args!("{register} can be read")))?;
        check!(trap.is_undefined(), "{register}: syndrome {:#x}", trap.syndrome);
    }
    Ok(())
}

fn debug(_machine: &'static Machine) -> Outcome {
    // OSLAR, OSDLR, MDSCR: what Linux writes on every CPU that it brings up.
    for (crn, crm, op2) in [(1, 0, 4), (1, 3, 4), (0, 2, 2)] {
        let register = SystemRegister::new(2, 0, crn, crm, op2);
        // SAFETY: unlocks and disables self-hosted debug, which is off.
        let result = unsafe { register.write(0) };
        check!(result.is_ok(), "{register} cannot be written");
    }
    read(SystemRegister::new(2, 0, 0, 2, 2))?;
    read(SystemRegister::new(2, 0, 1, 1, 4))?;
    Ok(())
}

/// Registers of EL1 and EL0 that hold whatever is put there and steer nothing meanwhile, with the bits that are kept.
macro_rules! keepers {
    ($use:ident) => {
        $use!("tpidr_el0", !0);
        $use!("tpidrro_el0", !0);
        $use!("far_el1", !0);
        $use!("contextidr_el1", 0xffff_ffff);
        $use!("sp_el0", !0);
        $use!("elr_el1", !0);
        $use!("ttbr1_el1", 0x0000_ffff_ffff_f000);
        $use!("cntkctl_el1", 0x3);
    };
}

fn values_survive_sleep(machine: &'static Machine) -> Outcome {
    const PATTERN: u64 = 0x7856_3412_dec0_adde;
    macro_rules! fill {
        ($name:literal, $mask:expr) => {
            // SAFETY: nothing of ours lives in these registers while no exception is taken.
            unsafe { msr!($name, PATTERN & $mask) }
        };
    }
    let gic = stage::clean_gic(machine);
    gic.enable(Timer::Virtual.intid());
    keepers!(fill);
    isb();
    // Asleep, masked, a few times: the CPU is free for others meanwhile.
    for _ in 0..3 {
        Timer::Virtual.arm(timer::now() + timer::ticks(2000));
        timer::wait_until(20_000, || {
            guest_rt::registers::wfi();
            Timer::Virtual.is_due()
        });
        Timer::Virtual.stop();
    }
    gic.disable(Timer::Virtual.intid());
    macro_rules! compare {
        ($name:literal, $mask:expr) => {
            check_equal!(mrs!($name) & $mask, PATTERN & $mask, $name);
        };
    }
    keepers!(compare);
    // SAFETY: what the entry code left.
    unsafe { msr!("cntkctl_el1", 0) };
    Ok(())
}

/// DISR_EL1, with the bits that are kept (FEAT_RAS). No hypervisor can hide it.
const DISR_EL1: SystemRegister = SystemRegister::new(3, 0, 12, 1, 1);
const DISR_KEPT: u64 = 1 << 31 | 0xff_ffff;

/// What the other CPU leaves in its registers, and what it found there.
const OTHERS: u64 = 0xfedc_ba98_7654_3210;
static FOUND: AtomicU64 = AtomicU64::new(0);

fn values_stay_apart(machine: &'static Machine) -> Outcome {
    const OURS: u64 = 0x0123_4567_89ab_cdef;
    stage::needs_cpus(machine, 2)?;
    macro_rules! fill {
        ($name:literal, $mask:expr) => {
            // SAFETY: as in the test above.
            unsafe { msr!($name, OURS & $mask) }
        };
    }
    // SAFETY: reports errors, of which there are none.
    let has_disr = unsafe { DISR_EL1.write(OURS & DISR_KEPT) }.is_ok();
    keepers!(fill);
    isb();
    stage::run_on(1, leave_something)?;
    macro_rules! compare {
        ($name:literal, $mask:expr) => {
            check_equal!(mrs!($name) & $mask, OURS & $mask, $name);
        };
    }
    keepers!(compare);
    // SAFETY: what the entry code left.
    unsafe { msr!("cntkctl_el1", 0) };
    if has_disr {
        check_equal!(read(DISR_EL1)? & DISR_KEPT, OURS & DISR_KEPT, "DISR_EL1");
        // SAFETY: as above.
        let _cleared = unsafe { DISR_EL1.write(0) };
        if machine.is_bulkhead {
            check_equal!(FOUND.load(Ordering::Relaxed) & DISR_KEPT, 0, "DISR_EL1 of a CPU that was switched on");
        }
    }
    Ok(())
}

fn leave_something(_index: usize) {
    FOUND.store(DISR_EL1.read().unwrap_or(0), Ordering::Relaxed);
    macro_rules! fill {
        ($name:literal, $mask:expr) => {
            // SAFETY: as in the test above.
            unsafe { msr!($name, OTHERS & $mask) }
        };
    }
    keepers!(fill);
    // SAFETY: as above.
    let _written = unsafe { DISR_EL1.write(OTHERS & DISR_KEPT) };
    isb();
}
