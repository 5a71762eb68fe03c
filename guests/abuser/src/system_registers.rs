//! System registers and system instructions: every encoding there is.
//!
//! DDI 0487, section C5.1 (the system instruction encoding space).

use core::arch::asm;

use guest_rt::code::{self, RET, SystemRegister};
use guest_rt::exceptions::catch;
use guest_rt::registers::dsb;

use crate::Abuse;

/// All of `op0` 2 and 3.
const REGISTERS: u32 = 0x8000;

/// What a register holds up our own world, or takes it down: writing these is suicide, not abuse.
fn is_vital(register: SystemRegister) -> bool {
    const VITAL: [SystemRegister; 16] = [
        SystemRegister::new(3, 0, 1, 0, 0),  // SCTLR_EL1
        SystemRegister::new(3, 0, 1, 0, 3),  // SCTLR2_EL1
        SystemRegister::new(3, 0, 2, 0, 0),  // TTBR0_EL1
        SystemRegister::new(3, 0, 2, 0, 2),  // TCR_EL1
        SystemRegister::new(3, 0, 2, 0, 3),  // TCR2_EL1
        SystemRegister::new(3, 0, 2, 5, 0),  // GCSCR_EL1
        SystemRegister::new(3, 0, 4, 2, 0),  // SPSel
        SystemRegister::new(3, 0, 4, 2, 3),  // PAN
        SystemRegister::new(3, 0, 10, 2, 0), // MAIR_EL1
        SystemRegister::new(3, 0, 10, 2, 1), // MAIR2_EL1
        SystemRegister::new(3, 0, 10, 2, 2), // PIRE0_EL1
        SystemRegister::new(3, 0, 10, 2, 3), // PIR_EL1
        SystemRegister::new(3, 0, 10, 2, 4), // POR_EL1
        SystemRegister::new(3, 0, 12, 0, 0), // VBAR_EL1
        SystemRegister::new(3, 0, 12, 0, 2), // RMR_EL1: on a bare machine it resets
        SystemRegister::new(3, 0, 13, 0, 4), // TPIDR_EL1: who we are
    ];
    VITAL.contains(&register)
}

/// Reads every one; returns how many are not undefined.
pub(crate) fn reads(abuse: &mut Abuse) -> u64 {
    const BATCH: u32 = 4096;
    let mut readable = 0;
    for first in (0..REGISTERS).step_by(BATCH as usize) {
        if abuse.is_over() {
            break;
        }
        let words = (first..first + BATCH).map(|index| SystemRegister::from_index(index).read_into(0)).chain([RET]);
        // SAFETY: reads into x0, then a return.
        let (_, trap) = code::with(words, |code| catch(|| unsafe { code::call(code, 0) }));
        readable += u64::from(BATCH) - trap.map_or(0, |trap| trap.count);
    }
    readable
}

/// Writes every one that is not vital with zeros, ones or anything, and then back what it was; `op0` 3 first, again and
/// again while there is time. Returns how many were written to, whether that was allowed or not.
pub(crate) fn writes(abuse: &mut Abuse) -> u64 {
    const BATCH: u32 = 2047;
    const CLEAR_X1: u32 = 0xaa1f_03e1;
    const NOP: u32 = 0xd503_201f;
    let mut written = 0;
    while !abuse.is_over() {
        for first in (0..REGISTERS).step_by(BATCH as usize) {
            if abuse.is_over() {
                break;
            }
            let words = (first..(first + BATCH).min(REGISTERS)).flat_map(|index| {
                let register = SystemRegister::from_index(index ^ (REGISTERS / 2));
                let sequence = [CLEAR_X1, register.read_into(1), register.write_from(0), register.write_from(1)];
                if is_vital(register) { [NOP; 4] } else { sequence }
            });
            let value = abuse.random.value();
            // SAFETY: what the program stands on is left out; the rest is put back at once.
            code::with(words.chain([RET]), |code| catch(|| unsafe { code::call(code, value) }));
            written += u64::from(BATCH);
        }
    }
    // OS lock open again.
    // SAFETY: self-hosted debug is not in use.
    let _ = unsafe { SystemRegister::new(2, 0, 1, 0, 4).write(0) };
    written
}

/// Every encoding of SYS and SYSL, `op0` 1: caches, TLBs, address translation, prediction, and nothing. The operand is an
/// address with no memory behind it.
pub(crate) fn instructions(abuse: &mut Abuse) -> u64 {
    const SYS: u32 = 0xd508_0000;
    const SYSL: u32 = 0xd528_0000;
    const BATCH: u32 = 4096;
    let mut done = 0;
    let nowhere = abuse.machine.memory[0].start - 0x1_0000;
    for (kind, first) in
        [SYS, SYSL].into_iter().flat_map(|kind| (0..0x4000).step_by(BATCH as usize).map(move |n| (kind, n)))
    {
        if abuse.is_over() {
            break;
        }
        let words = (first..first + BATCH).filter(|index| !pops_or_pushes(*index)).map(|index| kind | index << 5);
        // SAFETY: none of these changes memory that exists: maintenance by address goes to `nowhere`, by set and way or
        // of everything it loses nothing in a VM, and on a bare emulator there are no caches.
        code::with(words.chain([RET]), |code| catch(|| unsafe { code::call(code, nowhere) }));
        done += u64::from(BATCH);
    }
    dsb();
    done
}

/// The guarded control stack's instructions (op1 3, CRn 7, CRm 7): they move a stack pointer that is not there.
const fn pops_or_pushes(index: u32) -> bool {
    index >> 3 & 0x7ff == 3 << 8 | 7 << 4 | 7
}

/// Cleans and invalidates caches by set and way, again and again, the operand at random.
pub(crate) fn set_and_way(abuse: &mut Abuse) -> u64 {
    let mut done = 0;
    while done < 5000 && !abuse.is_over() {
        let operand = abuse.random.next() & 0xffff_fffe;
        // SAFETY: cleaning loses nothing.
        unsafe { asm!("dc cisw, {0}", in(reg) operand, options(nostack)) };
        // SAFETY: as above.
        unsafe { asm!("dc csw, {0}", in(reg) operand, options(nostack)) };
        done += 2;
    }
    dsb();
    done
}
