//! What software finds and does, step by step as Linux (`pci_scan_slot`, `pci_read_bases`, `pci_enable_msix_range`).

use super::{VECTORS, toys};
use crate::testkit::Slots;
use alloc::vec::Vec;
use types::{AccessSize, Ipa, RequesterId};

#[test]
fn a_guest_enumerates_places_and_is_interrupted() {
    let mut slots = toys(1);
    // Function 0 of each device first; where that is not, none of the others is looked for.
    let present: Vec<u8> = (0..32).filter(|device| slots.config(Slots::slot(*device), 0) != u32::MAX).collect();
    assert_eq!(present, [0, 1]);
    let slot = Slots::slot(1);
    assert_eq!(slots.config(slot, 0x0c) >> 16 & 0xff, 0, "type 0, one function");

    // Sizes, with decoding off.
    let command = slots.config(slot, 4);
    slots.set_config(slot, 4, command & !0x7);
    let mut next = Slots::WINDOW_32.0;
    let mut places = Vec::new();
    let mut at = 0x10;
    while at < 0x28 {
        slots.set_config(slot, at, !0);
        let low = slots.config(slot, at);
        let is_wide = low & 6 == 4;
        let high = if is_wide {
            slots.set_config(slot, at + 4, !0);
            slots.config(slot, at + 4)
        } else {
            u32::from(low != 0) * !0
        };
        let mask = u64::from(high) << 32 | u64::from(low & !0xf);
        let size = mask.wrapping_neg();
        if size != 0 {
            next = next.next_multiple_of(size);
            let place = if is_wide { next - Slots::WINDOW_32.0 + Slots::WINDOW_64.0 } else { next };
            slots.set_config(slot, at, u32::try_from(place & 0xffff_ffff).unwrap());
            if is_wide {
                slots.set_config(slot, at + 4, u32::try_from(place >> 32).unwrap());
            }
            places.push((place, size));
            next += size;
        }
        at += if is_wide { 8 } else { 4 };
    }
    assert_eq!(places, [(0x1000_0000, 0x1000), (0x1000_2000, 0x2000), (0x4_0000_4000, 0x4000)]);
    assert_eq!(slots.read(Ipa(places[0].0)), u32::MAX, "not decoded yet");
    slots.set_config(slot, 4, 0x406);

    // The list of capabilities.
    let mut found = Vec::new();
    let mut pointer = u16::try_from(slots.config(slot, 0x34) & 0xfc).unwrap();
    while pointer != 0 && found.len() < 48 {
        let header = slots.config(slot, pointer);
        found.push((header & 0xff, pointer));
        pointer = u16::try_from(header >> 8 & 0xfc).unwrap();
    }
    assert_eq!(found, [(0x11, 0x40), (9, 0x4c)]);

    // Messages: enabled with all masked, then vector by vector, then unmasked.
    let control = slots.config(slot, 0x40);
    assert_eq!(control >> 16 & 0x7ff, u32::from(VECTORS) - 1);
    slots.set_config(slot, 0x40, control | 0xc000_0000);
    let table = places[1].0 + u64::from(slots.config(slot, 0x44) & !7);
    for vector in 0..u64::from(VECTORS) {
        slots.write(Ipa(table + vector * 16), 0x0800_0040);
        slots.write(Ipa(table + vector * 16 + 4), 0);
        slots.write(Ipa(table + vector * 16 + 8), u32::try_from(64 + vector).unwrap());
        slots.write(Ipa(table + vector * 16 + 12), 0);
    }
    slots.set_config(slot, 0x40, control | 0x8000_0000);
    slots.write(Ipa(places[0].0 + 4), 2);
    let from = Some(RequesterId(slot.number().into()));
    assert_eq!(slots.lines.take_messages(), [(from, Ipa(0x0800_0040), 66)]);
    assert_eq!(slots.try_read(Ipa(places[2].0 + 0x10), AccessSize::Doubleword), Ok(2 << 32 | 0x10));
}
