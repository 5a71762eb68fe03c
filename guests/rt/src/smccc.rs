//! Calls to the firmware: the calling convention, and PSCI over it.
//!
//! Answers for: issuing calls by HVC or SMC exactly as the convention says, and PSCI's numbers. Does not answer for: what a
//! caller makes of the result.
//!
//! SMC Calling Convention (DEN 0028) 1.4, section 2; Power State Coordination Interface (DEN 0022) 1.1, section 5.

use core::arch::asm;

/// The instruction that reaches the firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `HVC #0`.
    Hvc,
    /// `SMC #0`.
    Smc,
}

/// PSCI function identifiers (64-bit ones where there are two).
pub mod function {
    #![allow(missing_docs, reason = "the specification's names, section 5.1")]

    pub const PSCI_VERSION: u32 = 0x8400_0000;
    pub const CPU_SUSPEND: u32 = 0xc400_0001;
    pub const CPU_OFF: u32 = 0x8400_0002;
    pub const CPU_ON_32: u32 = 0x8400_0003;
    pub const CPU_ON: u32 = 0xc400_0003;
    pub const AFFINITY_INFO_32: u32 = 0x8400_0004;
    pub const AFFINITY_INFO: u32 = 0xc400_0004;
    pub const MIGRATE_INFO_TYPE: u32 = 0x8400_0006;
    pub const SYSTEM_OFF: u32 = 0x8400_0008;
    pub const SYSTEM_RESET: u32 = 0x8400_0009;
    pub const PSCI_FEATURES: u32 = 0x8400_000a;
    pub const SYSTEM_RESET2: u32 = 0xc400_0012;
    pub const SMCCC_VERSION: u32 = 0x8000_0000;
    pub const SMCCC_ARCH_FEATURES: u32 = 0x8000_0001;
    pub const SMCCC_ARCH_WORKAROUND_1: u32 = 0x8000_8000;
}

/// PSCI return codes, section 5.2.2.
pub mod code {
    #![allow(missing_docs, reason = "the specification's names, section 5.2.2")]

    pub const SUCCESS: i32 = 0;
    pub const NOT_SUPPORTED: i32 = -1;
    pub const INVALID_PARAMETERS: i32 = -2;
    pub const DENIED: i32 = -3;
    pub const ALREADY_ON: i32 = -4;
    pub const ON_PENDING: i32 = -5;
    pub const INVALID_ADDRESS: i32 = -9;
}

/// A call with `x0` to `x17` in and out.
pub fn call_with(conduit: Conduit, registers: &mut [u64; 18]) {
    macro_rules! call {
        ($instruction:literal) => {
            // SAFETY: the convention (section 2.6) leaves everything but x0 to x17 alone; those go through the array.
            // x18 and x29 stay out of it. The memory clobber is the default.
            unsafe {
                asm!(
                    "ldp x0, x1, [x20]",
                    "ldp x2, x3, [x20, #16]",
                    "ldp x4, x5, [x20, #32]",
                    "ldp x6, x7, [x20, #48]",
                    "ldp x8, x9, [x20, #64]",
                    "ldp x10, x11, [x20, #80]",
                    "ldp x12, x13, [x20, #96]",
                    "ldp x14, x15, [x20, #112]",
                    "ldp x16, x17, [x20, #128]",
                    $instruction,
                    "stp x0, x1, [x20]",
                    "stp x2, x3, [x20, #16]",
                    "stp x4, x5, [x20, #32]",
                    "stp x6, x7, [x20, #48]",
                    "stp x8, x9, [x20, #64]",
                    "stp x10, x11, [x20, #80]",
                    "stp x12, x13, [x20, #96]",
                    "stp x14, x15, [x20, #112]",
                    "stp x16, x17, [x20, #128]",
                    inout("x20") registers.as_mut_ptr() => _,
                    clobber_abi("C"),
                )
            }
        };
    }
    match conduit {
        Conduit::Hvc => call!("hvc #0"),
        Conduit::Smc => call!("smc #0"),
    }
}

/// A call with up to three arguments by the machine's own conduit; the result is `x0`.
pub fn call(function: u32, arguments: [u64; 3]) -> u64 {
    call_by(crate::machine::machine().conduit, function, arguments)
}

/// The same by a given conduit.
pub fn call_by(conduit: Conduit, function: u32, arguments: [u64; 3]) -> u64 {
    let mut registers = [0; 18];
    registers[0] = u64::from(function);
    registers[1..4].copy_from_slice(&arguments);
    call_with(conduit, &mut registers);
    registers[0]
}

/// A PSCI call: its return codes are signed 32-bit numbers.
pub fn psci(function: u32, arguments: [u64; 3]) -> i32 {
    call(function, arguments) as i32
}

/// Ends the machine.
pub fn system_off() -> ! {
    psci(function::SYSTEM_OFF, [0; 3]);
    crate::println!("SYSTEM_OFF returned");
    loop {
        crate::registers::wfi();
    }
}
