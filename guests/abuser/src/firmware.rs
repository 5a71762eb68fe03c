//! Firmware calls: every owner's, with any arguments.
//!
//! SMCCC (DEN 0028), section 2.5 (function identifiers).

use guest_rt::code::{self, RET};
use guest_rt::exceptions::catch;
use guest_rt::smccc::{self, Conduit};

use crate::Abuse;

/// PSCI functions that would end us, or let us sleep with nobody to wake us, by the lower half of their identifiers:
/// `CPU_SUSPEND`, `CPU_OFF`, `CPU_ON` (has a case of its own), `MIGRATE`, `SYSTEM_OFF`, `SYSTEM_RESET`, `CPU_FREEZE`,
/// `CPU_DEFAULT_SUSPEND`, `SYSTEM_SUSPEND`, `SYSTEM_RESET2`, `SYSTEM_OFF2`.
const FINAL: [u32; 11] = [0x1, 0x2, 0x3, 0x5, 0x8, 0x9, 0xb, 0xc, 0xe, 0x12, 0x15];

fn is_final(function: u32) -> bool {
    function >> 24 & 0xbf == 0x84 && FINAL.contains(&(function & 0xffff))
}

/// The first functions of each owner by both conduits, fast and yielding, then random ones, then odd immediates.
pub(crate) fn calls(abuse: &mut Abuse) -> u64 {
    let mut done = 0;
    for function in (0..=255_u32).flat_map(|top| (0..0x20).map(move |low| top << 24 | low)) {
        done += call(abuse, function);
    }
    while done < 40_000 && !abuse.is_over() {
        let function = abuse.random.next() as u32;
        done += call(abuse, function);
    }
    for immediate in (0..16).map(|power| 1_u32 << power) {
        // HVC and SMC with a number; x0 is PSCI_VERSION, harmless should it be looked at.
        for instruction in [0xd400_0002, 0xd400_0003] {
            code::with([instruction | immediate << 5, RET], |code| {
                // SAFETY: a call of the firmware, or undefined.
                catch(|| unsafe { code::call(code, 0x8400_0000) })
            });
            done += 1;
        }
    }
    done
}

fn call(abuse: &mut Abuse, function: u32) -> u64 {
    if is_final(function) || abuse.is_over() {
        return 0;
    }
    for conduit in [Conduit::Hvc, Conduit::Smc] {
        let mut registers = core::array::from_fn(|_| abuse.random.value());
        // The upper half of the identifier is junk, too.
        registers[0] = abuse.random.next() << 32 | u64::from(function);
        catch(|| smccc::call_with(conduit, &mut registers));
    }
    2
}
