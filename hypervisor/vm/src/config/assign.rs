//! Locations and interrupts that a configuration leaves open (`VDEV_CTRL_ASSIGN`).
//!
//! Answers for: finding places for devices whose factories allow it, out of the way of all that is somewhere by the
//! configuration, and of what it reserves. Does not answer for: telling the guest, which finds its devices in its device tree.

use super::Reader;
use super::memory::Memory;
use super::vdevs::Vdevs;
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

/// Gives devices what they have not. `reserved` are interrupts that none of them gets.
pub(super) fn assign(reader: &mut Reader<'_>, vdevs: &mut Vdevs, memory: &Memory, reserved: &[IntId], vcpus: usize) {
    let gic = vdevs.controller.claims(vcpus).filter_map(|(_, range)| range);
    let given = vdevs.claims.iter().map(|claim| claim.range);
    let mut taken: Vec<Range<Ipa>> =
        memory.ram.iter().chain(&memory.rom).chain(&memory.reserved).copied().chain(gic).chain(given).collect();
    let mut used: Vec<IntId> =
        vdevs.list.iter().filter_map(|vdev| vdev.interrupt).chain(reserved.iter().copied()).collect();
    for (vdev, span) in vdevs.list.iter_mut().zip(&vdevs.spans) {
        let (flags, size) = (vdev.factory.flags, vdev.factory.region_size);
        if !flags.contains(FactoryFlags::ASSIGN) || size == 0 {
            continue;
        }
        let open = vdev.location.is_none();
        if open {
            let places = (0..PLACES).filter_map(|n| Range::new(Ipa(FIRST.checked_add(n.checked_mul(STEP)?)?), size));
            let free = places.into_iter().find(|place| !taken.iter().any(|other| other.overlaps(place)));
            let Some(place) = free else {
                let message = format!("no free addresses for `vdev {}`", vdev.factory.name);
                reader.error(*span, message, "say where it is to be, as in `loc 0x1c090000`");
                continue;
            };
            vdev.location = Some(place.start());
            taken.push(place);
        }
        let wants = open || flags.contains(FactoryFlags::INTR_REQUIRED);
        if wants && vdev.interrupt.is_none() && !flags.contains(FactoryFlags::INTR_FORBIDDEN) {
            let free =
                (FIRST_INTERRUPT..).map(IntId).take_while(|intid| intid.is_spi()).find(|intid| !used.contains(intid));
            vdev.interrupt = free;
            used.extend(free);
        }
    }
}
