//! What can be wrong with an interrupt controller.

/// The hardware does not answer as the interrupt controller that it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GicError {
    /// GICD_PIDR2.ArchRev is neither 3 nor 4.
    NotGicv3,
    /// The CPU has no system registers for it: `ID_AA64PFR0_EL1.GIC`.
    NoSystemRegisters,
    /// ICPIDR2.ArchRev is not 2.
    NotGicv2,
    /// Its register windows are smaller than they have to be, or nothing answers there.
    TooSmall,
    /// No redistributor has this CPU's affinity.
    NoRedistributor,
    /// The redistributor does not wake up.
    DoesNotWake,
    /// A write to a control register is never reported as done.
    DoesNotSettle,
    /// There is no such interrupt.
    NoSuchInterrupt,
}

impl core::fmt::Display for GicError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::NotGicv3 => "the interrupt controller is not a GICv3 (GICD_PIDR2.ArchRev)",
            Self::NoSystemRegisters => {
                "the device tree has a GICv3, but the CPU no system registers for it (ID_AA64PFR0_EL1.GIC)"
            }
            Self::NotGicv2 => "the interrupt controller is not a GICv2 (ICPIDR2.ArchRev)",
            Self::TooSmall => {
                "the interrupt controller's registers need more room than its `reg` has, or do not answer there (GICD, GICC, \
                 GICH, GICV)"
            }
            Self::NoRedistributor => "no redistributor has this CPU's affinity (GICR_TYPER)",
            Self::DoesNotWake => "the redistributor does not wake up (GICR_WAKER.ChildrenAsleep stays 1)",
            Self::DoesNotSettle => {
                "the interrupt controller does not finish a register write (GICD_CTLR.RWP or GICR_CTLR.RWP stays 1)"
            }
            Self::NoSuchInterrupt => "the interrupt controller has no such interrupt",
        })
    }
}
