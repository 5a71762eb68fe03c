//! Calls to the firmware at EL3: PSCI and the SMCCC discovery calls, by SMC.

pub use smccc::psci::Error;

/// Starts the CPU with affinity `target` at `entry`, physical, MMU off, with `context` in X0.
///
/// # Errors
/// What PSCI CPU_ON answers.
pub fn cpu_on(target: u64, entry: u64, context: u64) -> Result<(), Error> {
    smccc::psci::cpu_on::<smccc::Smc>(target, entry, context)
}

/// Turns the machine off. Returns only if firmware refuses.
pub fn system_off() {
    let _ = smccc::psci::system_off::<smccc::Smc>();
}

/// Resets the machine. Returns only if firmware refuses.
pub fn system_reset() {
    let _ = smccc::psci::system_reset::<smccc::Smc>();
}

/// What `SMCCC_ARCH_FEATURES` answers about an architectural call (DEN 0028): `None` if firmware does not know it, or is
/// older than SMCCC 1.1.
#[must_use]
pub fn architecture_feature(function: u32) -> Option<u32> {
    // PSCI_FEATURES says whether SMCCC_VERSION may be called at all.
    smccc::psci::psci_features::<smccc::Smc>(smccc::arch::SMCCC_VERSION).ok()?;
    smccc::arch::features::<smccc::Smc>(function).ok()
}

/// Calls an architectural workaround that [`architecture_feature`] has announced (DEN 0028, "SMCCC_ARCH_WORKAROUND_1" and
/// its successors). Those that nothing is to be said to ignore `argument`.
pub fn call_workaround(function: u32, argument: u32) {
    let _ = smccc::smc32(function, [argument, 0, 0, 0, 0, 0, 0]);
}
