//! A device that gives back what it gets, as its driver finds it on a PCI bus.

mod interrupts;
mod life;

use super::*;
use crate::Features;
use crate::loopback::{DATA, LOOPBACK, RAM};
use crate::testing::{Driver, Offered, Wish};
use ::pci::testkit::Slots;
use alloc::collections::btree_map::BTreeMap;
use types::Ipa;
use vdev::testkit::{Crew, Wires};
use vdev::{DeviceId, GuestMemory, PciSlot};

const DEVICE: DeviceId = DeviceId(1);
/// Where tests put the BARs.
const BASE: u64 = 0x1000_0000;
const TABLE: u64 = 0x1010_0000;
const LOOPBACK_ID: u32 = 0x1040 + 42;

const BYTE: AccessSize = AccessSize::Byte;
const HALFWORD: AccessSize = AccessSize::Halfword;
const WORD: AccessSize = AccessSize::Word;
const DOUBLEWORD: AccessSize = AccessSize::Doubleword;

/// A guest with that device, enabled.
struct Guest {
    slots: Slots,
    crew: Crew,
    /// Where its capabilities are: MSI-X under 0, structures by their type.
    capabilities: BTreeMap<u8, u16>,
}

impl Guest {
    fn new(has_messages: bool) -> Self {
        let mut wires = Wires::default();
        let mut slots = Slots::new(&[(&LOOPBACK, &[])], has_messages, &mut wires).unwrap();
        let slot = Slots::slot(1);
        let mut capabilities = BTreeMap::new();
        let mut at = slots.config(slot, 0x34) & 0xff;
        while at != 0 {
            let [id, next, _, kind] = slots.config(slot, at as u16).to_le_bytes();
            let key = if id == 0x11 { 0 } else { kind };
            assert!(id == 0x11 || id == 9);
            assert!(capabilities.insert(key, at as u16).is_none(), "one of each kind");
            at = next.into();
        }
        slots.set_config(slot, 0x10, BASE as u32);
        slots.set_config(slot, 0x14, TABLE as u32);
        slots.set_config(slot, 0x04, 0x6);
        Self { slots, crew: wires.crew, capabilities }
    }

    fn slot() -> PciSlot {
        Slots::slot(1)
    }

    /// A dword of a capability.
    fn capability(&mut self, kind: u8, at: u16) -> u32 {
        self.slots.config(Self::slot(), self.capabilities[&kind] + at)
    }

    fn set_capability(&mut self, kind: u8, at: u16, value: u32) {
        self.slots.set_config(Self::slot(), self.capabilities[&kind] + at, value);
    }

    /// Where a structure is, by its capability.
    fn place(&mut self, kind: u8) -> u64 {
        assert_eq!(self.capability(kind, 4), 0, "it is in BAR 0");
        BASE + u64::from(self.capability(kind, 8))
    }

    fn read(&mut self, offset: u64, size: AccessSize) -> u64 {
        self.slots.try_read(Ipa(BASE + offset), size).unwrap()
    }

    fn write(&mut self, offset: u64, size: AccessSize, value: u64) {
        self.slots.try_write(Ipa(BASE + offset), size, value).unwrap();
    }

    fn status(&mut self) -> u64 {
        self.read(0x14, BYTE)
    }

    fn set_status(&mut self, status: u64) {
        self.write(0x14, BYTE, status);
    }

    fn isr(&mut self) -> u64 {
        let at = self.place(3);
        self.slots.try_read(Ipa(at), BYTE).unwrap()
    }

    fn line(&self) -> bool {
        self.slots.lines.level(Slots::line_of(Self::slot()))
    }

    fn work(&mut self) -> usize {
        self.slots.work(DEVICE, &self.crew)
    }

    /// Notifies, and the workers work.
    fn kick(&mut self, queue: u16) -> usize {
        self.write(0x16, HALFWORD, queue.into());
        let offset = self.read(0x1e, HALFWORD) * u64::from(self.capability(2, 16));
        let at = self.place(2) + offset;
        self.slots.try_write(Ipa(at), HALFWORD, queue.into()).unwrap();
        self.work()
    }

    /// From a reset as far as FEATURES_OK (3.1.1): whether that stays.
    fn negotiate(&mut self, features: Features) -> bool {
        for status in [0, 1, 3] {
            self.set_status(status);
        }
        for word in 0..2 {
            self.write(0x08, WORD, word);
            self.write(0x0c, WORD, features.bits() >> (32 * word) & 0xffff_ffff);
        }
        self.set_status(11);
        self.status() == 11
    }

    /// Enables a queue whose areas begin at `at` (4.1.5.1.3).
    fn enable(&mut self, queue: u16, size: u16, at: u64, features: Features) -> Driver {
        let (layout, end) = Driver::place(at, size);
        self.slots.ram.write(Ipa(at), &vec![0; (end - at) as usize]).unwrap();
        self.write(0x16, HALFWORD, queue.into());
        assert!(self.read(0x18, HALFWORD) >= size.into());
        self.write(0x18, HALFWORD, size.into());
        self.write(0x20, DOUBLEWORD, layout.descriptor_area.0);
        for (offset, area) in [(0x28, layout.driver_area), (0x30, layout.device_area)] {
            self.write(offset, WORD, area.0 & 0xffff_ffff);
            self.write(offset + 4, WORD, area.0 >> 32);
        }
        assert_eq!(self.read(0x1c, HALFWORD), 0);
        self.write(0x1c, HALFWORD, 1);
        assert_eq!(self.read(0x1c, HALFWORD), 1);
        Driver::new(features, layout)
    }

    /// A device whose driver is ready, with queue 0 at the start of RAM and queue 1 behind it.
    fn start(&mut self, features: Features) -> [Driver; 2] {
        let features = features | Features::VERSION_1;
        assert!(self.negotiate(features));
        let drivers = [self.enable(0, 16, RAM, features), self.enable(1, 8, RAM + 0x1000, features)];
        self.set_status(15);
        assert_eq!(self.status(), 15);
        drivers
    }

    /// Offers a question of so many bytes, with as much room for the answer.
    fn ask(&mut self, driver: &mut Driver, question: &[u8]) -> u16 {
        self.slots.ram.write(Ipa(DATA), question).unwrap();
        let length = question.len() as u32;
        let buffers = [
            Offered { address: DATA, length, writable: false },
            Offered { address: DATA + 0x800, length, writable: true },
        ];
        driver.offer(&self.slots.ram, &buffers, None).expect("room in the queue")
    }

    fn answer(&self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.slots.ram.read(Ipa(DATA + 0x800), &mut bytes).unwrap();
        bytes
    }
}

/// 4.1.2.1.
#[test]
fn it_is_a_virtio_device_and_no_transitional_one() {
    let mut guest = Guest::new(true);
    let mut config = |at| guest.slots.config(Guest::slot(), at);
    assert_eq!(config(0x00), LOOPBACK_ID << 16 | 0x1af4);
    assert_eq!(config(0x08), 0xff_0000 << 8 | 1, "its class, revision 1");
    assert_eq!(config(0x2c), LOOPBACK_ID << 16 | 0x1af4, "a subsystem of 0x40 or higher");
    assert_eq!(config(0x3c) >> 8 & 0xff, 1, "INTA");
}

/// 4.1.4.
#[test]
fn capabilities_say_where_structures_are() {
    for has_messages in [false, true] {
        let mut guest = Guest::new(has_messages);
        let kinds: Vec<u8> = guest.capabilities.keys().copied().collect();
        assert_eq!(kinds, if has_messages { &[0, 1, 2, 3, 4, 5][..] } else { &[1, 2, 3, 4, 5] });
        let lengths = [(1, 16, 0x3c), (2, 20, 8), (3, 16, 1), (4, 16, 12), (5, 20, 0)];
        for (kind, own, length) in lengths {
            assert_eq!(guest.capability(kind, 0) >> 16 & 0xff, own, "cap_len of {kind}");
            assert_eq!(guest.capability(kind, 12), length, "{kind}");
        }
        assert_eq!(guest.capability(2, 16), 4, "notify_off_multiplier");
        let mut pages: Vec<u64> = [1, 2, 3, 4].map(|kind| guest.place(kind)).to_vec();
        assert!(pages.iter().all(|at| at.is_multiple_of(0x1000)));
        pages.sort_unstable();
        pages.dedup();
        assert_eq!(pages.len(), 4, "a page each");
        // All of them are within the BAR.
        guest.slots.set_config(Guest::slot(), 0x10, u32::MAX);
        let size = u64::from(!guest.slots.config(Guest::slot(), 0x10)) + 1;
        assert!(pages.iter().all(|at| at - BASE + 0x1000 <= size), "{pages:x?} {size:#x}");
        // They are not the driver's to change.
        for kind in 1..=4 {
            let before = guest.capability(kind, 8);
            guest.set_capability(kind, 8, !before);
            guest.set_capability(kind, 4, 5);
            assert_eq!((guest.capability(kind, 8), guest.capability(kind, 4)), (before, 0));
        }
    }
}

#[test]
fn places_are_large_enough_for_every_device() {
    for (queues, configuration) in [(1, 0), (1, 1), (34, 60), (1024, 0x1000), (1025, 0x1001), (u16::MAX, u16::MAX)] {
        let places = Places::new(queues, configuration);
        assert!(NOTIFY + places.notify <= places.device && places.device.is_multiple_of(PAGE));
        assert_eq!(places.notify, 4 * u64::from(queues));
        assert!(places.device + u64::from(configuration) <= places.bar && places.bar.is_power_of_two());
        let capabilities = places.capabilities();
        // Type, offset and length of the last but one: the structures end with the device's own configuration.
        if let [.., last, _] = &capabilities[..]
            && configuration != 0
        {
            let word = |at: usize| u64::from(u32::from_le_bytes(last.body[at..at + 4].try_into().unwrap()));
            assert_eq!((last.body[1], word(6)), (DEVICE_CFG, places.device));
            assert!(word(10).is_multiple_of(4) && word(10).abs_diff(configuration.into()) < 4);
            assert!(
                (u64::from(configuration)..=places.bar - places.device).contains(&word(10)),
                "4.1.4: padding, within the BAR"
            );
        }
        let kinds = capabilities.len();
        assert_eq!(kinds, if configuration == 0 { 4 } else { 5 }, "4.1.4.6: only if there is something in it");
    }
}

/// 4.1.4.3.
#[test]
fn fields_are_where_and_as_wide_as_the_structure_says() {
    let mut guest = Guest::new(true);
    let fields = [
        (0x00, WORD),
        (0x04, WORD),
        (0x08, WORD),
        (0x0c, WORD),
        (0x10, HALFWORD),
        (0x12, HALFWORD),
        (0x14, BYTE),
        (0x15, BYTE),
        (0x16, HALFWORD),
        (0x18, HALFWORD),
        (0x1a, HALFWORD),
        (0x1c, HALFWORD),
        (0x1e, HALFWORD),
        (0x20, WORD),
        (0x24, WORD),
        (0x28, WORD),
        (0x2c, WORD),
        (0x30, WORD),
        (0x34, WORD),
        (0x38, HALFWORD),
        (0x3a, HALFWORD),
    ];
    for at in 0..0x40 {
        for size in [BYTE, HALFWORD, WORD].into_iter().filter(|size| u64::is_multiple_of(at, size.bytes())) {
            let end = at + size.bytes();
            // An access that is made of whole fields.
            let is_begin = |at: u64| fields.iter().any(|(offset, _)| *offset == at) || at == 0x3c;
            let cut = fields.iter().any(|(offset, width)| *offset < end && end < offset + width.bytes());
            let expected = match () {
                () if end > 0x3c => Err(AccessFault::Unsupported),
                () if is_begin(at) && !cut => Ok(()),
                () => Err(AccessFault::Size),
            };
            let found = guest.slots.try_read(Ipa(BASE + at), size).map(drop);
            assert_eq!(found, expected, "{at:#x} {size:?}");
            if expected.is_err() {
                assert_eq!(guest.slots.try_write(Ipa(BASE + at), size, 0), expected, "{at:#x} {size:?}");
            }
        }
    }
    // Beyond the structure, and between structures, there is nothing.
    for at in [0x3c, 0xffc, 0x1004, 0x2008, 0x2ffc] {
        assert_eq!(guest.slots.try_read(Ipa(BASE + at), WORD), Err(AccessFault::Unsupported), "{at:#x}");
        assert_eq!(guest.slots.try_write(Ipa(BASE + at), WORD, 0), Err(AccessFault::Unsupported), "{at:#x}");
    }
}

#[test]
fn features_are_offered_and_accepted_by_words() {
    let mut guest = Guest::new(true);
    let offered = guest.front_features(0x00, 0x04);
    let own = Features::INDIRECT_DESC | Features::EVENT_IDX | Features::VERSION_1;
    let expected = own | Features::RING_PACKED | Features::RING_RESET;
    assert_eq!(offered, [1 | expected.bits() & 0xffff_ffff, (expected.bits() | 1 << 50) >> 32, 0, 0]);
    guest.set_status(3);
    for (word, value) in [(0, 1), (1, 1), (2, 0)] {
        guest.write(0x08, WORD, word);
        guest.write(0x0c, WORD, value);
    }
    assert_eq!(guest.front_features(0x08, 0x0c), [1, 1, 0, 0]);
    guest.set_status(11);
    assert_eq!(guest.status(), 11);
    guest.write(0x08, WORD, 0);
    guest.write(0x0c, WORD, 0);
    assert_eq!(guest.front_features(0x08, 0x0c), [1, 1, 0, 0], "it is too late");
    guest.write(0x04, WORD, 0);
    assert_eq!(guest.front_features(0x00, 0x04), offered, "read only");
}

impl Guest {
    /// What a field of features reads for some values of the field that selects.
    fn front_features(&mut self, select: u64, field: u64) -> [u64; 4] {
        [0, 1, 2, 0xffff_ffff].map(|word| {
            self.write(select, WORD, word);
            assert_eq!(self.read(select, WORD), word);
            self.read(field, WORD)
        })
    }
}

#[test]
fn queues_say_how_long_they_can_be_and_where_they_are() {
    let mut guest = Guest::new(true);
    assert_eq!(guest.read(0x12, HALFWORD), 2, "num_queues");
    for (queue, limit) in [(0, 16), (1, 8), (2, 0), (0xffff, 0)] {
        guest.write(0x16, HALFWORD, queue);
        assert_eq!((guest.read(0x16, HALFWORD), guest.read(0x18, HALFWORD)), (queue, limit));
        assert_eq!(guest.read(0x1c, HALFWORD), 0, "queue_enable");
    }
    guest.write(0x16, HALFWORD, 1);
    guest.write(0x18, HALFWORD, 4);
    for (at, value) in [(0x20, 0x1_8000_0000_u64), (0x28, 0x2_8000_1000), (0x30, 0x3_8000_2000)] {
        guest.write(at, WORD, value & 0xffff_ffff);
        guest.write(at + 4, WORD, value >> 32);
        assert_eq!(guest.read(at, DOUBLEWORD), value);
        assert_eq!((guest.read(at, WORD), guest.read(at + 4, WORD)), (value & 0xffff_ffff, value >> 32));
    }
    assert_eq!((guest.read(0x18, HALFWORD), guest.read(0x1e, HALFWORD)), (4, 1), "queue_notify_off");
    assert_eq!(guest.read(0x38, WORD), 0, "what was not negotiated");
    guest.write(0x16, HALFWORD, 0);
    assert_eq!((guest.read(0x18, HALFWORD), guest.read(0x20, DOUBLEWORD)), (16, 0), "another queue");
    // Several fields in one access: size, vector, enable, and what is only read.
    guest.write(0x18, DOUBLEWORD, 0xffff_0001_0001_0008);
    assert_eq!(guest.read(0x18, DOUBLEWORD), 0x0000_0001_0001_0008);
    guest.set_status(0);
    assert_eq!((guest.read(0x16, HALFWORD), guest.read(0x18, DOUBLEWORD)), (0, 0xffff_0010));
}

/// "The driver MUST NOT write a 0 to queue_enable"; nor is anything but 1 defined.
#[test]
fn a_queue_is_enabled_by_a_one_and_stays_so() {
    let mut guest = Guest::new(true);
    guest.start(Features::empty());
    for value in [0, 2, 0xffff] {
        guest.write(0x1c, HALFWORD, value);
        assert_eq!(guest.read(0x1c, HALFWORD), 1);
    }
    guest.write(0x16, HALFWORD, 2);
    guest.write(0x1c, HALFWORD, 1);
    assert_eq!(guest.read(0x1c, HALFWORD), 0, "there is no such queue");
}

#[test]
fn the_configuration_space_takes_all_sizes_and_is_zero_outside() {
    let mut guest = Guest::new(true);
    let at = guest.place(4) - BASE;
    guest.write(at + 4, WORD, 0x4433_2211);
    guest.write(at + 5, BYTE, 0xaa);
    guest.write(at + 6, HALFWORD, 0xbbcc);
    assert_eq!(guest.read(at + 4, WORD), 0xbbcc_aa11);
    assert_eq!(guest.read(at, DOUBLEWORD), 0xbbcc_aa11 << 32);
    guest.write(at + 9, BYTE, 0xff);
    guest.write(at + 0xc, WORD, 0xffff_ffff);
    assert_eq!((guest.read(at + 9, BYTE), guest.read(at + 0xc, WORD), guest.read(at + 0xff8, DOUBLEWORD)), (0, 0, 0));
    // What lies across the end: bytes that there are, and zeroes.
    guest.write(at + 8, WORD, 0xffff_ff5a);
    for size in [BYTE, HALFWORD, WORD, DOUBLEWORD] {
        assert_eq!(guest.read(at + 8, size), 0x5a, "{size:?}");
    }
}

/// 4.1.4.9.
#[test]
fn structures_are_reached_through_the_configuration_space_too() {
    let mut guest = Guest::new(true);
    let mut access = |offset: u64, length: u32, value: Option<u32>| {
        guest.set_capability(5, 4, 0);
        guest.set_capability(5, 8, offset as u32);
        guest.set_capability(5, 12, length);
        if let Some(value) = value {
            guest.set_capability(5, 16, value);
        }
        guest.capability(5, 16)
    };
    assert_eq!(access(0x12, 2, None), 2, "num_queues");
    access(0x14, 1, Some(0xffff_ff01));
    assert_eq!(access(0x14, 1, None) & 0xff, 1);
    access(0x00, 4, Some(1));
    assert_eq!(
        access(0x04, 4, None),
        ((Features::VERSION_1 | Features::RING_RESET | Features::RING_PACKED).bits() >> 32) as u32 | 1 << 18
    );
    assert_eq!(guest.status(), 1, "the same registers");
}

#[test]
fn accesses_through_the_configuration_space_that_cannot_be_are_none() {
    let mut guest = Guest::new(true);
    let slot = Guest::slot();
    for (bar, offset, length) in [
        (0, 0x14, 0),
        (0, 0x14, 3),
        (0, 0x14, 8),
        (0, 0x14, 0x101),
        (0, 0x13, 2),
        (0, 0x16, 4),
        (0, 0x4000, 1),
        (0, 0xffff_fffc, 4),
        (0, 0x3c, 4),
        (1, 0, 4),
        (6, 0x14, 1),
        (0xff, 0x14, 1),
    ] {
        guest.set_capability(5, 4, bar);
        guest.set_capability(5, 8, offset);
        guest.set_capability(5, 12, length);
        guest.set_capability(5, 16, 0x0f0f_0f0f);
        assert_eq!(guest.capability(5, 16), 0x0f0f_0f0f, "what was written: {bar} {offset:#x} {length}");
        assert_eq!((guest.status(), guest.read(0x00, WORD), guest.read(0x18, HALFWORD)), (0, 0, 16));
    }
    // Looking at the rest of the capability, or at all of the configuration space, does nothing.
    let [mut driver, _] = guest.start(Features::empty());
    guest.ask(&mut driver, b"x");
    guest.kick(0);
    let isr = guest.place(3) - BASE;
    guest.set_capability(5, 8, isr as u32);
    for at in (0..0x100).step_by(4) {
        guest.slots.config(slot, at);
    }
    assert_eq!(guest.isr(), 1, "a length of 0x101 is none");
}

#[test]
fn the_interface_before_the_standard_is_not_there() {
    let error = Slots::new(&[(&LOOPBACK, &[("legacy", None)])], true, &mut Wires::default()).unwrap_err();
    assert_eq!(error[0].option, Some("legacy"));
    assert!(error[0].message.contains("give it a place in memory"), "{error:?}");
}
