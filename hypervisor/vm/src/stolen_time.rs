//! Stolen time, as a guest is told of it.
//!
//! Answers for: the calls of Paravirtualized Time for Arm-based Systems (DEN 0057), and the structure that each vCPU has in a
//! page of its VM. Does not answer for: how long a vCPU has waited for a CPU (the kernel's scheduler knows), nor for the page,
//! which the kernel maps read-only for the guest like a ROM.

use crate::smccc::{NOT_SUPPORTED, SUCCESS};
use core::sync::atomic::{AtomicU64, Ordering};
use types::{AccessSize, Ipa, MAX_VCPUS, PAGE_SIZE, VcpuId};
use vdev::GuestMemory;

/// PV_TIME_FEATURES, of which SMCCC_ARCH_FEATURES tells, too.
pub(crate) const PV_TIME_FEATURES: u32 = 0xc500_0020;
const PV_TIME_ST: u32 = 0xc500_0021;

/// Bytes from one vCPU's structure to the next, and what they are aligned to (section 3.2.2).
const STRUCTURE: u64 = 64;
/// Where in it the nanoseconds are. Revision and attributes in front of them are zero, as the memory is.
const STOLEN_TIME: u64 = 8;

const _: () = assert!(STRUCTURE * MAX_VCPUS as u64 <= PAGE_SIZE);

/// The structures of a VM's vCPUs.
#[derive(Debug, Default)]
pub(crate) struct StolenTime {
    /// The page, if there was room for one.
    page: Option<Ipa>,
    /// The vCPUs that have asked for theirs: nobody else pays for it.
    asked: AtomicU64,
}

impl StolenTime {
    pub(crate) fn new(page: Option<Ipa>) -> Self {
        Self { page, asked: AtomicU64::new(0) }
    }

    /// What SMCCC_ARCH_FEATURES answers for PV_TIME_FEATURES.
    pub(crate) const fn feature(&self) -> i64 {
        if self.page.is_some() { SUCCESS } else { NOT_SUPPORTED }
    }

    /// Answers a call of `vcpu`; NOT_SUPPORTED if it is not one of these.
    pub(crate) fn call(&self, vcpu: VcpuId, identifier: u32, argument: u64) -> i64 {
        let Some(structure) = self.structure(vcpu) else { return NOT_SUPPORTED };
        match (identifier, u32::try_from(argument)) {
            (PV_TIME_FEATURES, Ok(PV_TIME_FEATURES | PV_TIME_ST)) => SUCCESS,
            (PV_TIME_ST, _) => {
                self.asked.fetch_or(bit(vcpu), Ordering::Relaxed);
                structure.0.cast_signed()
            }
            _ => NOT_SUPPORTED,
        }
    }

    pub(crate) fn is_shown_to(&self, vcpu: VcpuId) -> bool {
        let asked = self.asked.load(Ordering::Relaxed);
        asked != 0 && asked & bit(vcpu) != 0
    }

    /// Tells `vcpu` that it has waited for so long altogether.
    pub(crate) fn publish(&self, vcpu: VcpuId, nanoseconds: u64, memory: &dyn GuestMemory) {
        if let Some(structure) = self.structure(vcpu) {
            // The page is the VM's: it is there.
            let _ = memory.store(Ipa(structure.0.wrapping_add(STOLEN_TIME)), AccessSize::Doubleword, nanoseconds);
        }
    }

    fn structure(&self, vcpu: VcpuId) -> Option<Ipa> {
        Some(Ipa(self.page?.0.wrapping_add(STRUCTURE.wrapping_mul(vcpu.0.into()))))
    }
}

fn bit(vcpu: VcpuId) -> u64 {
    1_u64.checked_shl(vcpu.0.into()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::Ram;

    const PAGE: Ipa = Ipa(0x090a_0000);

    #[test]
    fn each_vcpu_has_a_structure_and_nobody_pays_who_has_not_asked() {
        let (time, memory) = (StolenTime::new(Some(PAGE)), Ram::new(PAGE, 0x1000));
        assert!(!time.is_shown_to(VcpuId(2)));
        assert_eq!(time.call(VcpuId(2), PV_TIME_ST, 0), 0x090a_0080);
        assert!(time.is_shown_to(VcpuId(2)) && !time.is_shown_to(VcpuId(1)));
        time.publish(VcpuId(2), 5_000, &memory);
        let words = [0, 8].map(|offset| memory.load(Ipa(PAGE.0 + 0x80 + offset), AccessSize::Doubleword).unwrap());
        assert_eq!(words, [0, 5_000], "revision and attributes, nanoseconds");
        assert_eq!(time.call(VcpuId(63), PV_TIME_ST, 0), 0x090a_0fc0);
    }

    #[test]
    fn features_are_the_two_calls_and_nothing_without_a_page() {
        let time = StolenTime::new(Some(PAGE));
        for function in [PV_TIME_FEATURES, PV_TIME_ST] {
            assert_eq!(time.call(VcpuId(0), PV_TIME_FEATURES, function.into()), SUCCESS);
        }
        assert_eq!(time.call(VcpuId(0), PV_TIME_FEATURES, 0xc500_0022), NOT_SUPPORTED, "live physical time");
        assert_eq!(time.call(VcpuId(0), 0xc500_0022, 0), NOT_SUPPORTED);
        assert_eq!(time.feature(), SUCCESS);
        let none = StolenTime::new(None);
        assert_eq!((none.call(VcpuId(0), PV_TIME_ST, 0), none.feature()), (NOT_SUPPORTED, NOT_SUPPORTED));
    }
}
