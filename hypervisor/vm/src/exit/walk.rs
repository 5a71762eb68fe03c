//! At which level of the guest's own table walk an access failed.
//!
//! Answers for: `FSC`'s level in the abort that a guest gets when its stage 1 tables lie where there is no memory. The
//! hardware says the level of stage 2 only, so the walk is repeated here (DDI 0487, "The AArch64 Virtual Memory System
//! Architecture", "Translation process"). Does not answer for: whether the walk is right otherwise. Guest memory may
//! change meanwhile; then the answer is a level all the same, and only the guest is told something odd.

use super::syndrome::fault_ipa;
use crate::partition::Vm;
use crate::vcpu::{Cpu, El1Register};
use types::{AccessSize, Ipa, PAGE_SIZE, RawExit};

/// Output addresses in tables and TTBR: bits 47:12. LPA2 and 52-bit addresses are hidden from guests.
const ADDRESS: u64 = 0x0000_ffff_ffff_f000;

/// The level, 0 to 3, whose descriptor lies in the page that `HPFAR_EL2` names.
pub(super) fn level_of_fault<C: Cpu>(vm: &Vm, cpu: &C, exit: &RawExit) -> u64 {
    /// `SCTLR_EL1.EE`: tables are big endian.
    const EE: u64 = 1 << 25;
    let big_endian = cpu.system_register(El1Register::Sctlr) & EE != 0;
    let failed = fault_ipa(exit).align_down(PAGE_SIZE);
    let walk = Walk::new(cpu, exit.far);
    let mut table = walk.root;
    for level in walk.first_level..=3 {
        let descriptor_at = walk.descriptor_at(table, level);
        if descriptor_at.align_down(PAGE_SIZE) == failed {
            return level.into();
        }
        let Ok(descriptor) = vm.memory().load(descriptor_at, AccessSize::Doubleword) else { return level.into() };
        let descriptor = if big_endian { descriptor.swap_bytes() } else { descriptor };
        if descriptor & 3 != 3 {
            return level.into();
        }
        table = descriptor & ADDRESS;
    }
    3
}

/// The part of a walk that `TCR_EL1` and the address decide.
struct Walk {
    root: u64,
    first_level: u32,
    /// Log2 of the granule. A table resolves this less three bits, because a descriptor has eight bytes.
    granule: u32,
    /// The part of the address that is translated.
    input: u64,
}

impl Walk {
    fn new<C: Cpu>(cpu: &C, address: u64) -> Self {
        let tcr = cpu.system_register(El1Register::Tcr);
        let upper = address & (1 << 55) != 0;
        let (ttbr, size, granule) = if upper {
            // TG1: 0b01 is 16 KiB, 0b11 64 KiB.
            let granule = match field(tcr, 30, 3) {
                1 => 14,
                3 => 16,
                _ => 12,
            };
            (El1Register::Ttbr1, field(tcr, 16, 0x3f), granule)
        } else {
            // TG0: 0b01 is 64 KiB, 0b10 16 KiB.
            let granule = match field(tcr, 14, 3) {
                1 => 16,
                2 => 14,
                _ => 12,
            };
            (El1Register::Ttbr0, field(tcr, 0, 0x3f), granule)
        };
        // TxSZ is 16 to 48; what lies beyond counts as the nearest.
        let size = size.clamp(16, 48);
        let to_resolve = 64_u32.saturating_sub(size).saturating_sub(granule);
        let levels = to_resolve.div_ceil(granule.saturating_sub(3).max(1)).clamp(1, 4);
        Self {
            // Bits 11:1 belong to the address where the first table is smaller than a page; bit 0 is CnP.
            root: cpu.system_register(ttbr) & (ADDRESS | 0xffe),
            first_level: 4_u32.saturating_sub(levels),
            granule,
            input: address & u64::MAX.checked_shr(size).unwrap_or(0),
        }
    }

    fn descriptor_at(&self, table: u64, level: u32) -> Ipa {
        let stride = self.granule.saturating_sub(3);
        let below = 3_u32.saturating_sub(level).saturating_mul(stride).saturating_add(self.granule);
        let index = self.input.checked_shr(below).unwrap_or(0);
        // The first table takes all that is left of the input.
        let mask = if level == self.first_level { u64::MAX } else { !u64::MAX.checked_shl(stride).unwrap_or(0) };
        Ipa(table.wrapping_add((index & mask).wrapping_mul(8)))
    }
}

#[expect(clippy::cast_possible_truncation, reason = "masks have at most six bits")]
const fn field(value: u64, shift: u32, mask: u64) -> u32 {
    ((value >> shift) & mask) as u32
}
