//! Software generated interrupts.
//!
//! Answers for: trapped writes of the system registers that send them. Follows IHI 0069, ICC_SGI0R_EL1, ICC_SGI1R_EL1,
//! ICC_ASGI1R_EL1, and "Forwarding an SGI to a target PE".

use crate::Vgic;
use crate::bank::BitRegister;
use crate::signals::Cell;
use crate::word::{bit, low};
use core::sync::atomic::Ordering;
use types::{VcpuId, VcpuSet};

/// Which register was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SgiRegister {
    /// `ICC_SGI0R_EL1`: group 0.
    Sgi0r,
    /// `ICC_SGI1R_EL1`: group 1.
    Sgi1r,
    /// `ICC_ASGI1R_EL1`: group 1 of the other security state. There is only one, so it reaches what that register can
    /// reach besides: group 0.
    Asgi1r,
}

/// `IRM`: everybody but the sender.
const ALL_BUT_SELF: u64 = 1 << 40;
/// `Aff3`, `RS`, `Aff2`: nobody has an affinity in which one of them is not zero (`GICD_TYPER.RSS` is 0, affinity level 0
/// ends at 15).
const NOBODY: u64 = 0x00ff_f0ff_0000_0000;

/// The vCPUs that a value names, one bit each, existing or not.
#[inline]
fn targets(from: VcpuId, value: u64) -> u64 {
    if value & ALL_BUT_SELF != 0 {
        return !VcpuSet::of(from).0;
    }
    // Aff0 is a bit of the list, Aff1 counts by 16 vCPUs; 64 are the most there are.
    let cluster = low(value.wrapping_shr(16)) & 0xff;
    if value & NOBODY != 0 || cluster > 3 {
        return 0;
    }
    (value & 0xffff).wrapping_shl(cluster.wrapping_mul(16))
}

impl Vgic {
    /// vCPU `from` has written `value` to `register`. Returns the vCPUs to kick, `from` itself perhaps among them.
    pub fn send_sgi(&self, from: VcpuId, register: SgiRegister, value: u64) -> VcpuSet {
        let sgi = bit(low(value.wrapping_shr(24)) & 15);
        let mut rest = targets(from, value) & VcpuSet::first(self.cells.len()).0;
        let mut kick = VcpuSet::EMPTY;
        while rest != 0 {
            // At most 64 rounds: each takes out the lowest bit.
            let Ok(number) = u16::try_from(rest.trailing_zeros()) else { break };
            rest &= rest.wrapping_sub(1);
            if let Some(cell) = self.cells.get(usize::from(number)) {
                kick = kick.union(self.send_one(VcpuId(number), cell, register, sgi));
            }
        }
        kick
    }

    /// Makes an SGI pending for one vCPU, if its group there is the one that `register` generates.
    #[inline]
    fn send_one(&self, vcpu: VcpuId, cell: &Cell, register: SgiRegister, sgi: u32) -> VcpuSet {
        let mut private = cell.private.lock();
        let group_1 = private.bank.group & sgi != 0;
        if group_1 != (register == SgiRegister::Sgi1r) {
            return VcpuSet::EMPTY;
        }
        let flags = private.write(BitRegister::SetPending, sgi, self.groups.load(Ordering::Relaxed));
        drop(private);
        cell.notify(vcpu, flags)
    }
}

impl Cell {
    /// Raises `flags`, if any; returns `vcpu` if so, else nobody.
    #[inline]
    pub(crate) fn notify(&self, vcpu: VcpuId, flags: u32) -> VcpuSet {
        if flags == 0 {
            return VcpuSet::EMPTY;
        }
        self.attend(flags);
        VcpuSet::of(vcpu)
    }
}
