//! Breakpoints and watchpoints of a vCPU.

/// Most breakpoints, and most watchpoints, that a CPU has.
pub const MAX_COMPARATORS: usize = 16;

/// An address, or a context, and what is to happen there: `DBGBVR<n>_EL1` and `DBGBCR<n>_EL1`, or `DBGWVR<n>_EL1` and
/// `DBGWCR<n>_EL1`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Comparator {
    /// What is compared.
    pub value: u64,
    /// When, and whether at all.
    pub control: u64,
}

/// What a guest has asked the CPU's debug logic for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DebugState {
    /// `MDSCR_EL1`.
    pub control: u64,
    /// Breakpoints; those that the CPU does not have are zero.
    pub breakpoints: [Comparator; MAX_COMPARATORS],
    /// Watchpoints, likewise.
    pub watchpoints: [Comparator; MAX_COMPARATORS],
}
