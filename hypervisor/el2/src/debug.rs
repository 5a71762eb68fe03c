//! The CPU's debug logic, on behalf of the loaded vCPU.
//!
//! The registers trap (`MDCR_EL2.TDA`), so that what is in them is what EL2 has put there, and nobody reads what another vCPU
//! has left: it does not have to be saved, and only `MDSCR_EL1` has to be cleared.

use types::{Comparator, DebugState};

macro_rules! comparators {
    ($write:ident, $what:literal, $($index:literal => $value:literal, $control:literal);*) => {
        #[doc = concat!("Writes ", $what, " and its control; the CPU has it.")]
        #[inline(never)]
        fn $write(index: u64, comparator: Comparator) {
            match index {
                $($index => {
                    write_register!($value, comparator.value);
                    write_register!($control, comparator.control);
                })*
                _ => {}
            }
        }
    };
}

comparators!(set_breakpoint, "DBGBVR<n>_EL1",
    0 => "dbgbvr0_el1", "dbgbcr0_el1"; 1 => "dbgbvr1_el1", "dbgbcr1_el1"; 2 => "dbgbvr2_el1", "dbgbcr2_el1";
    3 => "dbgbvr3_el1", "dbgbcr3_el1"; 4 => "dbgbvr4_el1", "dbgbcr4_el1"; 5 => "dbgbvr5_el1", "dbgbcr5_el1";
    6 => "dbgbvr6_el1", "dbgbcr6_el1"; 7 => "dbgbvr7_el1", "dbgbcr7_el1"; 8 => "dbgbvr8_el1", "dbgbcr8_el1";
    9 => "dbgbvr9_el1", "dbgbcr9_el1"; 10 => "dbgbvr10_el1", "dbgbcr10_el1"; 11 => "dbgbvr11_el1", "dbgbcr11_el1";
    12 => "dbgbvr12_el1", "dbgbcr12_el1"; 13 => "dbgbvr13_el1", "dbgbcr13_el1"; 14 => "dbgbvr14_el1", "dbgbcr14_el1";
    15 => "dbgbvr15_el1", "dbgbcr15_el1");

comparators!(set_watchpoint, "DBGWVR<n>_EL1",
    0 => "dbgwvr0_el1", "dbgwcr0_el1"; 1 => "dbgwvr1_el1", "dbgwcr1_el1"; 2 => "dbgwvr2_el1", "dbgwcr2_el1";
    3 => "dbgwvr3_el1", "dbgwcr3_el1"; 4 => "dbgwvr4_el1", "dbgwcr4_el1"; 5 => "dbgwvr5_el1", "dbgwcr5_el1";
    6 => "dbgwvr6_el1", "dbgwcr6_el1"; 7 => "dbgwvr7_el1", "dbgwcr7_el1"; 8 => "dbgwvr8_el1", "dbgwcr8_el1";
    9 => "dbgwvr9_el1", "dbgwcr9_el1"; 10 => "dbgwvr10_el1", "dbgwcr10_el1"; 11 => "dbgwvr11_el1", "dbgwcr11_el1";
    12 => "dbgwvr12_el1", "dbgwcr12_el1"; 13 => "dbgwvr13_el1", "dbgwcr13_el1"; 14 => "dbgwvr14_el1", "dbgwcr14_el1";
    15 => "dbgwvr15_el1", "dbgwcr15_el1");

/// Puts the loaded vCPU's breakpoints and watchpoints into the CPU, as many as it has, and switches debug exceptions on.
pub fn load(state: &DebugState) {
    let features = read_register!("id_aa64dfr0_el1");
    // BRPs and WRPs count from zero.
    let (breakpoints, watchpoints) = ((features >> 12) & 0xf, (features >> 20) & 0xf);
    (0..=breakpoints).zip(state.breakpoints).for_each(|(index, comparator)| set_breakpoint(index, comparator));
    (0..=watchpoints).zip(state.watchpoints).for_each(|(index, comparator)| set_watchpoint(index, comparator));
    write_register!("mdscr_el1", state.control);
}

/// No debug exceptions from now on: comparators compare nothing, and nothing steps.
pub fn stop() {
    write_register!("mdscr_el1", 0);
}
