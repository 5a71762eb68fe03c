//! Locations and interrupts that a configuration leaves open (`VDEV_CTRL_ASSIGN`).
//!
//! Answers for: finding places for devices whose factories allow it, out of the way of all that is somewhere by the
//! configuration, and of what it reserves. Does not answer for: telling the guest, which finds its devices in its device tree.

use super::Reader;
use super::memory::Memory;
use super::vdevs::Vdevs;
use crate::assemble::PassedDevice;
use alloc::format;
use alloc::vec::Vec;
use types::{IntId, Ipa, Range};
use vdev::FactoryFlags;

/// Where the first one is: behind the addresses of the original's examples.
const FIRST: u64 = 0x1d00_0000;
/// From one to the next: no page of any guest has two.
const STEP: u64 = 0x1_0000;
/// Places that are looked at.
const PLACES: u64 = 4096;
/// The first interrupt: behind those of the original's examples.
const FIRST_INTERRUPT: u32 = 64;

/// What somebody has.
pub(super) struct Taken {
    pub(super) ranges: Vec<Range<Ipa>>,
    pub(super) interrupts: Vec<IntId>,
}

impl Taken {
    pub(super) fn is_free(&self, place: &Range<Ipa>) -> bool {
        !self.ranges.iter().any(|other| other.overlaps(place))
    }
}

/// The first of so many interrupts, one behind the other, of which none is used.
pub(super) fn free_interrupts(used: &[IntId], count: u32) -> Option<IntId> {
    let end = IntId::END_SPI.saturating_sub(count.saturating_sub(1));
    let is_free = |first: &u32| !used.iter().any(|intid| intid.0.wrapping_sub(*first) < count);
    (FIRST_INTERRUPT..end).find(is_free).map(IntId)
}

/// Gives devices what they have not. `reserved` are interrupts that none of them gets. Says what is taken then.
pub(super) fn assign(
    reader: &mut Reader<'_>,
    vdevs: &mut Vdevs,
    memory: &Memory,
    reserved: &[IntId],
    vcpus: usize,
) -> Taken {
    let gic = vdevs.controller.claims(vcpus).filter_map(|(_, range)| range);
    let given = vdevs.claims.iter().map(|claim| claim.range);
    let ranges = memory.ram.iter().chain(&memory.rom).chain(&memory.reserved).copied().chain(gic).chain(given);
    let passed = vdevs.passed.iter().flat_map(PassedDevice::interrupts);
    let used = vdevs.list.iter().filter_map(|vdev| vdev.interrupt).chain(vdevs.pci.lines()).chain(passed);
    let interrupts = used.chain(reserved.iter().copied()).collect();
    let mut taken = Taken { ranges: ranges.collect(), interrupts };
    for (index, (vdev, span)) in vdevs.list.iter_mut().zip(&vdevs.spans).enumerate() {
        let (flags, size) = (vdev.factory.flags, vdev.factory.region_size);
        if !flags.contains(FactoryFlags::ASSIGN) || size == 0 || vdevs.pci.has(index) {
            continue;
        }
        let open = vdev.location.is_none();
        if open {
            let places = (0..PLACES).filter_map(|n| Range::new(Ipa(FIRST.checked_add(n.checked_mul(STEP)?)?), size));
            let Some(place) = places.into_iter().find(|place| taken.is_free(place)) else {
                let message = format!("no free addresses for `vdev {}`", vdev.factory.name);
                reader.error(*span, message, "say where it is to be, as in `loc 0x1c090000`");
                continue;
            };
            vdev.location = Some(place.start());
            taken.ranges.push(place);
        }
        let wants = open || flags.contains(FactoryFlags::INTR_REQUIRED);
        if wants && vdev.interrupt.is_none() && !flags.contains(FactoryFlags::INTR_FORBIDDEN) {
            vdev.interrupt = free_interrupts(&taken.interrupts, 1);
            taken.interrupts.extend(vdev.interrupt);
        }
    }
    taken
}
