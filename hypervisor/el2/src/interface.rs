//! The hypervisor control interface of a GICv3: list registers and their company (IHI 0069, "GIC virtualization").

// The first is where it is used: it is the one that is most often meant, and of some the only one. The others are out of line:
// a register's number is a part of the instruction, so each place would have a jump over all of them.
macro_rules! by_index {
    ($read:ident, $write:ident, $what:literal, $first:literal, $($index:literal => $name:literal),*) => {
        #[doc = concat!("Reads ", $what, "; an index beyond the last reads zero.")]
        #[must_use]
        #[inline(always)]
        pub fn $read(index: usize) -> u64 {
            #[inline(never)]
            fn others(index: usize) -> u64 {
                match index {
                    $($index => read_register!($name),)*
                    _ => 0,
                }
            }
            if index == 0 { read_register!($first) } else { others(index) }
        }

        #[doc = concat!("Writes ", $what, "; an index beyond the last writes nothing.")]
        #[inline(always)]
        pub fn $write(index: usize, value: u64) {
            #[inline(never)]
            fn others(index: usize, value: u64) {
                match index {
                    $($index => write_register!($name, value),)*
                    _ => {}
                }
            }
            if index == 0 { write_register!($first, value) } else { others(index, value) }
        }
    };
}

by_index!(list_register, set_list_register, "`ICH_LR<n>_EL2`",
    "s3_4_c12_c12_0", 1 => "s3_4_c12_c12_1", 2 => "s3_4_c12_c12_2", 3 => "s3_4_c12_c12_3",
    4 => "s3_4_c12_c12_4", 5 => "s3_4_c12_c12_5", 6 => "s3_4_c12_c12_6", 7 => "s3_4_c12_c12_7",
    8 => "s3_4_c12_c13_0", 9 => "s3_4_c12_c13_1", 10 => "s3_4_c12_c13_2", 11 => "s3_4_c12_c13_3",
    12 => "s3_4_c12_c13_4", 13 => "s3_4_c12_c13_5", 14 => "s3_4_c12_c13_6", 15 => "s3_4_c12_c13_7");

by_index!(active_priorities_0, set_active_priorities_0, "`ICH_AP0R<n>_EL2`",
    "s3_4_c12_c8_0", 1 => "s3_4_c12_c8_1", 2 => "s3_4_c12_c8_2", 3 => "s3_4_c12_c8_3");

by_index!(active_priorities_1, set_active_priorities_1, "`ICH_AP1R<n>_EL2`",
    "s3_4_c12_c9_0", 1 => "s3_4_c12_c9_1", 2 => "s3_4_c12_c9_2", 3 => "s3_4_c12_c9_3");

/// ICH_VTR_EL2: how many list registers and priority bits there are.
#[must_use]
pub fn vtr() -> u64 {
    read_register!("s3_4_c12_c11_1")
}

/// ICH_HCR_EL2.
#[must_use]
#[inline]
pub fn hcr() -> u64 {
    read_register!("s3_4_c12_c11_0")
}

/// Writes ICH_HCR_EL2.
#[inline]
pub fn set_hcr(value: u64) {
    write_register!("s3_4_c12_c11_0", value);
}

/// ICH_VMCR_EL2: what the guest wrote to its CPU interface's control registers.
#[must_use]
#[inline]
pub fn vmcr() -> u64 {
    read_register!("s3_4_c12_c11_7")
}

/// Writes ICH_VMCR_EL2.
#[inline]
pub fn set_vmcr(value: u64) {
    write_register!("s3_4_c12_c11_7", value);
}

/// ICH_MISR_EL2: why the maintenance interrupt is pending.
#[must_use]
pub fn misr() -> u64 {
    read_register!("s3_4_c12_c11_2")
}

/// ICH_EISR_EL2: list registers with an end of interrupt to report.
#[must_use]
#[inline]
pub fn eisr() -> u64 {
    read_register!("s3_4_c12_c11_3")
}

/// ICH_ELRSR_EL2: empty list registers.
#[must_use]
#[inline]
pub fn elrsr() -> u64 {
    read_register!("s3_4_c12_c11_5")
}

/// The physical CPU interface, by system registers (IHI 0069, "GIC CPU interface register descriptions"). Priority drop and
/// deactivation are split: an interrupt that is handed to a guest stays active until the guest deactivates it.
pub mod physical {
    use aarch64_cpu::asm::barrier;

    /// Turns the interface on for group 1, all priorities, split end of interrupt. System registers are enabled for EL2 and
    /// for EL1 (whose accesses go to the virtual interface), and EL1 cannot change that: `ICC_SRE_EL1` is one register for
    /// all vCPUs of a CPU, and a guest that cleared its SRE would take the interface from the next one.
    pub fn initialise() {
        const SRE_DFB_DIB: u64 = 7;
        const ENABLE: u64 = 8;
        write_register!("s3_4_c12_c9_5", SRE_DFB_DIB | ENABLE); // ICC_SRE_EL2
        barrier::isb(barrier::SY);
        write_register!("s3_0_c12_c12_5", SRE_DFB_DIB); // ICC_SRE_EL1
        barrier::isb(barrier::SY);
        write_register!("s3_4_c12_c9_5", SRE_DFB_DIB);
        barrier::isb(barrier::SY);
        let control = read_register!("s3_0_c12_c12_4"); // ICC_CTLR_EL1
        write_register!("s3_0_c12_c12_4", control | 2); // EOImode
        // An interrupt that firmware or a boot loader took and never ended would keep ours back.
        let priority_bits = ((control >> 8) & 7) + 1;
        write_register!("s3_0_c12_c9_0", 0); // ICC_AP1R0_EL1
        if priority_bits >= 6 {
            write_register!("s3_0_c12_c9_1", 0);
        }
        if priority_bits >= 7 {
            write_register!("s3_0_c12_c9_2", 0);
            write_register!("s3_0_c12_c9_3", 0);
        }
        write_register!("s3_0_c4_c6_0", 0xff); // ICC_PMR_EL1
        write_register!("s3_0_c12_c12_3", 0); // ICC_BPR1_EL1
        write_register!("s3_0_c12_c12_7", 1); // ICC_IGRPEN1_EL1
        barrier::isb(barrier::SY);
    }

    /// Acknowledges the highest-priority pending interrupt: its INTID, or 1020–1023 if there is none.
    #[must_use]
    #[inline]
    pub fn acknowledge() -> u32 {
        let intid = read_register!("s3_0_c12_c12_0") as u32 & 0xff_ffff; // ICC_IAR1_EL1
        // What the device wrote before it raised the interrupt is visible after this.
        barrier::dsb(barrier::SY);
        intid
    }

    /// The interrupt that [`acknowledge`] would take now, or 1020–1023 if there is none.
    #[must_use]
    pub fn highest_pending() -> u32 {
        read_register!("s3_0_c12_c12_2") as u32 & 0xff_ffff // ICC_HPPIR1_EL1
    }

    /// Drops the running priority.
    #[inline]
    pub fn drop_priority(intid: u32) {
        write_register!("s3_0_c12_c12_1", u64::from(intid)); // ICC_EOIR1_EL1
    }

    /// Deactivates: the interrupt may be taken again.
    #[inline]
    pub fn deactivate(intid: u32) {
        write_register!("s3_0_c12_c11_1", u64::from(intid)); // ICC_DIR_EL1
        barrier::isb(barrier::SY);
    }

    /// Sends SGI `intid` (0–15) to the CPU with this affinity.
    #[inline]
    pub fn send_sgi(intid: u32, target: types::Mpidr) {
        let affinity = target.0;
        let value = ((affinity >> 32) & 0xff) << 48
            | ((affinity >> 16) & 0xff) << 32
            | ((affinity >> 8) & 0xff) << 16
            | ((affinity >> 4) & 0xf) << 44 // RS: which sixteen of Aff0
            | u64::from(intid & 0xf) << 24
            | 1 << (affinity & 0xf);
        // What we wrote for the other CPU is visible to it before the interrupt is.
        barrier::dsb(barrier::ISHST);
        write_register!("s3_0_c12_c11_5", value); // ICC_SGI1R_EL1
        barrier::isb(barrier::SY);
    }
}
