//! Instructions that a hypervisor may get in the way of.
//!
//! DDI 0487, sections C6.2 (the instructions) and D7.5 (caches).

use core::arch::asm;

use guest_rt::machine::Machine;
use guest_rt::registers::{dsb, isb};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::timer::{self, Timer};
use guest_rt::{check, check_equal, instruction, mrs, msr};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "instructions: DC ZVA clears a block", run: zero_block },
    Test { name: "instructions: cleaning caches by set and way keeps memory", run: set_and_way },
    Test { name: "instructions: WFE after SEV goes on", run: wait_for_event },
    Test {
        name: "instructions: pointer authentication tells good from forged, also after a sleep",
        run: pointer_authentication,
    },
    Test { name: "instructions: exclusive accesses to memory succeed", run: exclusives },
    Test { name: "instructions: address translation by AT gives what is mapped", run: address_translation },
];

#[repr(C, align(2048))]
struct Block([u64; 256]);

fn zero_block(_machine: &'static Machine) -> Outcome {
    let id = mrs!("dczid_el0");
    if id & 1 << 4 != 0 {
        return Err(Verdict::Skip("DCZID_EL0.DZP forbids it"));
    }
    let words = 1 << (id & 0xf) >> 1;
    let mut block = Block([!0; 256]);
    let address = block.0.as_mut_ptr();
    // SAFETY: the block is at most 2 KiB and aligned to that; it is ours.
    unsafe { asm!("dc zva, {0}", in(reg) address, options(nostack)) };
    check!(block.0[..words].iter().all(|word| *word == 0), "not all zero");
    check!(block.0[words..].iter().all(|word| *word == !0), "more than a block is zero");
    Ok(())
}

fn set_and_way(_machine: &'static Machine) -> Outcome {
    let mut block = Block([0; 256]);
    for (number, word) in (0..).zip(&mut block.0) {
        *word = number;
    }
    let clidr = mrs!("clidr_el1");
    for level in 0..7 {
        // No cache, or instructions only.
        if clidr >> (3 * level) & 7 < 2 {
            continue;
        }
        // SAFETY: only chooses what CCSIDR_EL1 shows.
        unsafe { msr!("csselr_el1", level << 1) };
        isb();
        let ccsidr = mrs!("ccsidr_el1");
        let (ways, sets) = ((ccsidr >> 3 & 0x3ff) + 1, (ccsidr >> 13 & 0x7fff) + 1);
        let way_shift = (ways as u32 - 1).leading_zeros();
        let set_shift = (ccsidr & 7) + 4;
        // A few are enough to be noticed; a hypervisor may have to clean all our memory for each.
        for (way, set) in (0..ways.min(2)).flat_map(|way| (0..sets.min(4)).map(move |set| (way, set))) {
            let operand = (if ways > 1 { way << way_shift } else { 0 }) | set << set_shift | level << 1;
            // SAFETY: clean and invalidate loses nothing.
            unsafe { asm!("dc cisw, {0}", in(reg) operand, options(nostack)) };
        }
    }
    dsb();
    check!((0..).zip(&block.0).all(|(number, word)| *word == number), "memory has changed");
    Ok(())
}

fn wait_for_event(_machine: &'static Machine) -> Outcome {
    for _ in 0..100 {
        instruction!("sevl");
        instruction!("wfe");
    }
    Ok(())
}

fn pointer_authentication(machine: &'static Machine) -> Outcome {
    const EN_IA: u64 = 1 << 31;
    let (isar1, isar2) = (mrs!("id_aa64isar1_el1"), mrs!("S3_0_C0_C6_2"));
    // APA, API; APA3.
    if isar1 & 0xff0 == 0 && isar2 & 0xf000 == 0 {
        return Err(Verdict::Skip("not implemented"));
    }
    let gic = stage::clean_gic(machine);
    gic.enable(Timer::Virtual.intid());
    let sctlr = mrs!("sctlr_el1");
    // SAFETY: compiled code here uses no pointer authentication.
    unsafe { msr!("S3_0_C2_C1_0", 0x0123_4567_89ab_cdef) }; // APIAKeyLo_EL1
    // SAFETY: as above.
    unsafe { msr!("S3_0_C2_C1_1", 0xfedc_ba98_7654_3210) }; // APIAKeyHi_EL1
    // SAFETY: as above.
    unsafe { msr!("sctlr_el1", sctlr | EN_IA) };
    isb();
    let pointer = (&raw const isar1) as u64;
    let signed = sign(pointer);
    Timer::Virtual.arm(timer::now() + timer::ticks(1000));
    guest_rt::registers::wfi();
    Timer::Virtual.stop();
    gic.disable(Timer::Virtual.intid());
    let again = sign(pointer);
    let good = authenticate(signed);
    // SAFETY: what it was.
    unsafe { msr!("sctlr_el1", sctlr) };
    isb();
    check!(signed != pointer, "signing changes nothing: {signed:#x}");
    check_equal!(again, signed, "the same signature after a sleep");
    check_equal!(good, pointer, "the authenticated pointer");
    Ok(())
}

fn sign(pointer: u64) -> u64 {
    let mut signed = pointer;
    // SAFETY: arithmetic on a register: PACIA with modifier 42. Only where it is implemented.
    unsafe {
        asm!(".arch_extension pauth", "pacia {0}, {1}", inout(reg) signed, in(reg) 42_u64, options(nostack, nomem));
    }
    signed
}

fn authenticate(signed: u64) -> u64 {
    let mut pointer = signed;
    // SAFETY: arithmetic on a register: AUTIA with modifier 42. Only where it is implemented.
    unsafe {
        asm!(".arch_extension pauth", "autia {0}, {1}", inout(reg) pointer, in(reg) 42_u64, options(nostack, nomem));
    }
    pointer
}

fn exclusives(_machine: &'static Machine) -> Outcome {
    let mut cell = 41_u64;
    // Spurious failure is allowed, for ever is not.
    let is_stored = (0..1000).any(|_| {
        let failed: u64;
        // SAFETY: our own variable.
        unsafe {
            asm!(
                "ldxr {value}, [{address}]",
                "add {value}, {value}, #1",
                "stxr {failed:w}, {value}, [{address}]",
                value = out(reg) _,
                failed = out(reg) failed,
                address = in(reg) &raw mut cell,
                options(nostack)
            );
        }
        failed as u32 == 0
    });
    check!(is_stored && cell == 42, "never succeeded");
    Ok(())
}

fn address_translation(machine: &'static Machine) -> Outcome {
    let address = machine.memory[0].start + 0x123_000;
    // SAFETY: changes PAR_EL1 only.
    unsafe { asm!("at s1e1r, {0}", in(reg) address, options(nostack)) };
    isb();
    let par = mrs!("par_el1");
    check!(par & 1 == 0, "PAR_EL1 {par:#x}: a fault");
    check_equal!(par & 0x0000_ffff_ffff_f000, address, "the address");
    // SAFETY: as above: beyond what is mapped.
    unsafe { asm!("at s1e1r, {0}", in(reg) 1_u64 << 44, options(nostack)) };
    isb();
    check!(mrs!("par_el1") & 1 == 1, "no fault where nothing is mapped");
    Ok(())
}
