//! Where SPIs go.
//!
//! Answers for: the registers that say so, in both architectures, and choosing among several vCPUs. Does not answer for: what
//! is done about an interrupt that goes elsewhere (`shared`).

use super::{NOBODY, Shared, SharedBank, place};
use crate::bank::Change;
use crate::signals::Signals;
use crate::word::{bit, low_byte};
use types::Mpidr;

/// `GICD_IROUTER<n>.Interrupt_Routing_Mode`: any participating vCPU, of those that the bits from [`ROUTER_TARGETS`] on name.
pub(crate) const ROUTER_ANY: u64 = 1 << 31;
/// Where a router has `GICD_ITARGETSR<n>`'s byte for its interrupt, in a GICv2. The field is nothing that a GICv3 shows.
const ROUTER_TARGETS: u32 = 48;
/// Of a GICv3: all vCPUs.
const EVERYBODY: u64 = u64::MAX;
/// What `GICD_IROUTER<n>` implements: affinity levels 2 to 0 and the routing mode. `ICC_CTLR_EL1.A3V` may be one for the
/// virtual interface, but no vCPU has a level 3, so the field stays zero (`GICD_TYPER.A3V`).
const ROUTER_MASK: u64 = 0x80ff_ffff;
impl SharedBank {
    /// The vCPU that takes interrupt `index`, if any of several may, is chosen anew, should the last one not take part any more.
    /// `last` was chosen last for any interrupt; returns who is now.
    pub(super) fn choose_target(&mut self, index: u32, last: u8, signals: &Signals<'_>) -> u8 {
        let router = self.router.get(index as usize).copied().unwrap_or(0);
        if router & ROUTER_ANY == 0 || participates(self.target_of(index), signals) {
            return last;
        }
        let chosen = choose(last, signals.participating & candidates(router));
        if let Some(target) = self.target.get_mut(index as usize) {
            *target = chosen;
        }
        chosen
    }
}

impl Shared {
    /// `GICD_IROUTER<intid>`.
    pub(crate) fn router(&self, intid: u32) -> u64 {
        let Some((number, index)) = place(intid) else { return 0 };
        self.banks.get(number).and_then(|shared| shared.router.get(index as usize)).copied().unwrap_or(0)
    }

    /// A write of `GICD_IROUTER<intid>`. An interrupt that is pending goes to the new target; one that is active stays
    /// where it was acknowledged.
    pub(crate) fn set_router(&mut self, intid: u32, value: u64, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let vcpus = self.ready.len();
        let Some(shared) = self.banks.get_mut(number) else { return };
        if shared.implemented & bit(index) == 0 {
            return;
        }
        let value = value & ROUTER_MASK;
        let target = if value & ROUTER_ANY != 0 {
            None
        } else {
            Mpidr(value).to_vcpu(vcpus).and_then(|vcpu| u8::try_from(vcpu.0).ok())
        };
        if let (Some(router), Some(slot)) =
            (shared.router.get_mut(index as usize), shared.target.get_mut(index as usize))
        {
            *router = value;
            *slot = target.unwrap_or(NOBODY);
        }
        let resident = bit(index) & shared.bank.resident;
        self.apply(number, Change { pending: bit(index), resync: resident, physical: 0 }, signals);
    }

    /// A byte of `GICD_ITARGETSR<n>`: one bit for each vCPU.
    pub(crate) fn targets(&self, intid: u32) -> u8 {
        low_byte(self.router(intid).wrapping_shr(ROUTER_TARGETS))
    }

    /// A write of a byte of `GICD_ITARGETSR<n>`: any participating one of these vCPUs takes the interrupt. One that is pending goes
    /// to one of them; one that is active stays where it was acknowledged.
    pub(crate) fn set_targets(&mut self, intid: u32, targets: u8, signals: &mut Signals<'_>) {
        let Some((number, index)) = place(intid) else { return };
        let Some(shared) = self.banks.get_mut(number) else { return };
        let (Some(router), Some(target)) =
            (shared.router.get_mut(index as usize), shared.target.get_mut(index as usize))
        else {
            return;
        };
        if shared.implemented & bit(index) == 0 {
            return;
        }
        *router = u64::from(targets).wrapping_shl(ROUTER_TARGETS) | if targets == 0 { 0 } else { ROUTER_ANY };
        *target = NOBODY;
        let resident = bit(index) & shared.bank.resident;
        self.apply(number, Change { pending: bit(index), resync: resident, physical: 0 }, signals);
    }
}

/// The vCPUs that an interrupt with this router may go to, if it may go to any.
fn candidates(router: u64) -> u64 {
    match router.wrapping_shr(ROUTER_TARGETS) {
        0 => EVERYBODY,
        targets => targets,
    }
}

/// Whether vCPU `index` takes its part of 1-of-N interrupts.
fn participates(index: u8, signals: &Signals<'_>) -> bool {
    index != NOBODY && signals.participating & 1_u64.wrapping_shl(u32::from(index)) != 0
}

/// The next participating vCPU after `last`, in turn; [`NOBODY`] if there is none.
fn choose(last: u8, participating: u64) -> u8 {
    if participating == 0 {
        return NOBODY;
    }
    let after = if last == NOBODY { 0 } else { u32::from(last).wrapping_add(1) & 63 };
    let turned = participating.rotate_right(after);
    let step = turned.trailing_zeros();
    u8::try_from(after.wrapping_add(step) & 63).unwrap_or(NOBODY)
}
