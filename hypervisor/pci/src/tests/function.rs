//! What an endpoint does with single accesses.

use super::{CAPABILITY, TOY, toys};
use crate::testkit::Slots;
use alloc::vec;
use types::{AccessSize, Ipa};
use vdev::testkit::{Rig, Wires};
use vdev::{AccessFault, Control, DeviceId, PciSlot, Wake};

const TOY_1: DeviceId = DeviceId(1);
const BAR_0: Ipa = Ipa(0x1000_4000);
const TABLE: u32 = 0x1000_8000;

fn at(base: Ipa, offset: u64) -> Ipa {
    Ipa(base.0 + offset)
}

/// One toy, its first two regions placed, memory and bus master enabled.
fn placed() -> (Slots, PciSlot) {
    let (mut slots, slot) = (toys(1), Slots::slot(1));
    slots.set_config(slot, 0x10, u32::try_from(BAR_0.0).unwrap());
    slots.set_config(slot, 0x14, TABLE);
    slots.set_config(slot, 0x04, 0x6);
    (slots, slot)
}

fn program(slots: &mut Slots, vector: u32, data: u32) {
    for (register, value) in [(0, 0x0800_0040), (4, 0), (8, data), (12, 0)] {
        slots.write(Ipa(u64::from(TABLE + vector * 16 + register)), value);
    }
}

fn sent(slots: &Slots) -> vec::Vec<(Ipa, u32)> {
    let messages = slots.lines.take_messages();
    messages.into_iter().map(|(_, address, data)| (address, data)).collect()
}

#[test]
fn a_region_answers_where_it_has_been_put() {
    let (mut slots, slot) = placed();
    slots.write(at(BAR_0, 8), 0x55);
    assert_eq!((slots.read(at(BAR_0, 8)), slots.device_at(BAR_0)), (0x55, Some(TOY_1)));
    slots.set_config(slot, 0x10, 0x1001_0000);
    assert_eq!((slots.read(at(BAR_0, 8)), slots.read(Ipa(0x1001_0008))), (u32::MAX, 0x55), "moved");
    slots.set_config(slot, 0x04, 0x4);
    assert_eq!(slots.read(Ipa(0x1001_0008)), u32::MAX, "memory space is disabled");
    slots.set_config(slot, 0x04, 0x6);
    slots.set_config(slot, 0x18, 0x8000);
    slots.set_config(slot, 0x1c, 5);
    assert_eq!(slots.try_read(Ipa(0x5_0000_bff8), AccessSize::Doubleword), Ok(2 << 32 | 0x3ff8), "above 4 GiB");
    slots.set_config(slot, 0x10, 0x8000_0000);
    assert_eq!(slots.try_read(Ipa(0x8000_0008), AccessSize::Word), Err(AccessFault::Nothing), "outside the windows");
}

#[test]
fn accesses_have_sizes_that_the_region_takes() {
    let (mut slots, slot) = placed();
    assert_eq!(slots.try_read(at(BAR_0, 8), AccessSize::Byte), Err(AccessFault::Size));
    assert_eq!(slots.try_write(at(BAR_0, 8), AccessSize::Halfword, 0), Err(AccessFault::Size));
    assert_eq!(slots.try_read(at(BAR_0, 8), AccessSize::Doubleword), Ok(0));
    assert_eq!(slots.try_read(at(BAR_0, 2), AccessSize::Word), Err(AccessFault::Unaligned));
    assert_eq!(slots.try_read(at(BAR_0, 0x800), AccessSize::Word), Err(AccessFault::Unsupported), "its own answer");
    let config = Slots::config_at(slot, 0);
    assert_eq!(slots.try_read(config, AccessSize::Doubleword), Err(AccessFault::Size));
    assert_eq!(slots.try_write(config, AccessSize::Doubleword, 0), Err(AccessFault::Size));
    assert_eq!(slots.try_read(at(config, 1), AccessSize::Byte), Ok(0x12));
    assert_eq!(slots.try_read(Ipa(u64::from(TABLE)), AccessSize::Byte), Err(AccessFault::Size), "6.8.2");
}

#[test]
fn the_pin_is_told_unless_it_is_disabled_or_messages_are_enabled() {
    let (mut slots, slot) = placed();
    let line = Slots::line_of(slot);
    slots.write(BAR_0, 1);
    assert_eq!((slots.lines.level(line), slots.config(slot, 4) >> 16 & 8), (true, 8));
    slots.set_config(slot, 0x04, 0x406);
    assert_eq!((slots.lines.level(line), slots.config(slot, 4) >> 16 & 8), (false, 8), "disabled, and still there");
    slots.set_config(slot, 0x04, 0x6);
    assert!(slots.lines.level(line));
    slots.set_config(slot, 0x40, 0x8000_0000);
    assert!(!slots.lines.level(line), "messages are enabled");
    slots.set_config(slot, 0x40, 0);
    slots.write(BAR_0, 0);
    assert_eq!((slots.lines.level(line), slots.config(slot, 4) >> 16 & 8), (false, 0));
    let _ = slots.lines.take_events();
    slots.write(BAR_0, 0);
    assert!(slots.lines.take_events().is_empty(), "nobody is told twice");
    slots.wake(TOY_1, Wake::Backend);
    assert!(slots.lines.level(line), "a wake reaches the function");
}

#[test]
fn messages_wait_until_nothing_masks_them() {
    let (mut slots, slot) = placed();
    slots.write(at(BAR_0, 4), 1);
    assert!(sent(&slots).is_empty(), "not enabled, and forgotten");
    assert_eq!(slots.read(at(BAR_0, 0x38)), 0);
    slots.set_config(slot, 0x40, 0x8000_0000);
    assert_eq!(slots.read(at(BAR_0, 0x38)), 1, "the function knows");
    slots.write(at(BAR_0, 4), 1);
    assert!(sent(&slots).is_empty(), "the vector is masked");
    assert_eq!(slots.read(Ipa(u64::from(TABLE) + 0x1000)), 0b10, "and pending");
    program(&mut slots, 1, 70);
    assert_eq!(sent(&slots), [(Ipa(0x0800_0040), 70)], "as soon as it is not any more");
    assert_eq!(slots.read(Ipa(u64::from(TABLE) + 0x1000)), 0);
    slots.set_config(slot, 0x40, 0xc000_0000);
    slots.write(at(BAR_0, 4), 1);
    assert!(sent(&slots).is_empty(), "all are masked");
    slots.set_config(slot, 0x40, 0x8000_0000);
    assert_eq!(sent(&slots), [(Ipa(0x0800_0040), 70)]);
    slots.set_config(slot, 0x04, 0x2);
    slots.write(at(BAR_0, 4), 1);
    assert!(sent(&slots).is_empty(), "it is not bus master");
    slots.set_config(slot, 0x04, 0x6);
    assert_eq!(sent(&slots), [(Ipa(0x0800_0040), 70)]);
    slots.write(at(BAR_0, 4), 99);
    assert!(sent(&slots).is_empty(), "no such vector");
    assert!(!slots.effects.kicked().is_empty(), "whoever has to take it is told");
}

#[test]
fn a_watched_capability_is_the_functions() {
    let (mut slots, slot) = placed();
    assert_eq!((slots.config(slot, CAPABILITY + 4), slots.config(slot, CAPABILITY + 4)), (1, 2));
    slots.set_config(slot, CAPABILITY + 8, 0xabcd);
    assert_eq!((slots.config(slot, CAPABILITY + 8), slots.read(at(BAR_0, 8))), (0xabcd, 0xabcd));
}

#[test]
fn without_anybody_to_take_them_there_are_no_messages() {
    let mut slots = Slots::new(&[(&TOY, &[])], false, &mut Wires::default()).unwrap();
    let slot = Slots::slot(1);
    assert_eq!((slots.config(slot, 0x34), slots.config(slot, 0x40) & 0xff), (0x40, 9), "the other capability is first");
    slots.set_config(slot, 0x14, u32::MAX);
    assert_eq!(slots.config(slot, 0x14), 0, "nor their BAR");
}

#[test]
fn a_reset_takes_everything_back() {
    let (mut slots, slot) = placed();
    slots.set_config(slot, 0x40, 0x8000_0000);
    program(&mut slots, 0, 70);
    slots.set_config(slot, 0x40, 0);
    slots.write(BAR_0, 1);
    slots.control(TOY_1, Control::Reset).unwrap();
    assert!(!slots.lines.level(Slots::line_of(slot)));
    assert_eq!((slots.config(slot, 4), slots.config(slot, 0x10)), (0x10_0000, 0));
    assert_eq!(slots.read(at(BAR_0, 8)), u32::MAX, "it is nowhere");
    slots.set_config(slot, 0x14, TABLE);
    slots.set_config(slot, 0x04, 0x6);
    assert_eq!((slots.read(Ipa(u64::from(TABLE) + 8)), slots.read(Ipa(u64::from(TABLE) + 12))), (0, 1));
}

#[test]
fn off_the_bus_there_is_no_function() {
    let error = Rig::new(&TOY, &[], &mut Wires::default()).unwrap_err();
    assert_eq!(error[0].message, "it needs a place on the PCI bus, as in `loc pci:3`");
}
