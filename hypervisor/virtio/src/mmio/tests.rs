//! A device that gives back what it gets, as its driver finds it on MMIO.

mod life;
mod shadow;

use super::*;
use crate::Features;
use crate::loopback::{DATA, LOOPBACK, RAM};
use crate::testing::{Driver, Offered, Wish};
use vdev::GuestMemory;
use vdev::testkit::{Crew, Rig, Slate, Wires};

/// A guest with that device.
struct Guest {
    rig: Rig,
    crew: Crew,
    slate: Slate,
}

impl Guest {
    fn new(legacy: bool) -> Self {
        let mut wires = Wires::default();
        let options: &[_] = if legacy { &[("legacy", None)] } else { &[] };
        let rig = Rig::new(&LOOPBACK, options, &mut wires).unwrap();
        Self { rig, crew: wires.crew, slate: wires.slate }
    }

    fn read(&mut self, offset: u64) -> u64 {
        self.rig.try_read(offset, AccessSize::Word).unwrap()
    }

    fn write(&mut self, offset: u64, value: u64) {
        self.rig.try_write(offset, AccessSize::Word, value).unwrap();
    }

    fn work(&mut self) -> usize {
        self.rig.work(&self.crew)
    }

    /// From a reset as far as FEATURES_OK (3.1.1): whether that stays.
    fn negotiate(&mut self, features: Features) -> bool {
        for status in [0, 1, 3] {
            self.write(0x70, status);
        }
        for word in 0..2 {
            self.write(0x24, word);
            self.write(0x20, features.bits() >> (32 * word) & 0xffff_ffff);
        }
        self.write(0x70, 11);
        self.read(0x70) == 11
    }

    /// Enables a queue whose areas begin at `at` (4.2.3.2).
    fn enable(&mut self, queue: u16, size: u16, at: u64, features: Features) -> Driver {
        let (layout, end) = Driver::place(at, size);
        self.rig.ram.write(Ipa(at), &vec![0; (end - at) as usize]).unwrap();
        self.write(0x30, queue.into());
        assert_eq!(self.read(0x44), 0);
        assert!(self.read(0x34) >= size.into());
        self.write(0x38, size.into());
        let areas = [layout.descriptor_area, layout.driver_area, layout.device_area];
        for (offset, area) in [0x80, 0x90, 0xa0].into_iter().zip(areas) {
            self.write(offset, area.0 & 0xffff_ffff);
            self.write(offset + 4, area.0 >> 32);
        }
        self.write(0x44, 1);
        assert_eq!(self.read(0x44), 1);
        Driver::new(features, layout)
    }

    /// A device whose driver is ready, with queue 0 at the start of RAM and queue 1 behind it.
    fn running(features: Features) -> (Self, [Driver; 2]) {
        let mut guest = Self::new(false);
        let drivers = guest.start(features);
        (guest, drivers)
    }

    fn start(&mut self, features: Features) -> [Driver; 2] {
        let features = features | Features::VERSION_1;
        assert!(self.negotiate(features));
        let drivers = [self.enable(0, 16, RAM, features), self.enable(1, 8, RAM + 0x1000, features)];
        self.write(0x70, 15);
        assert_eq!(self.read(0x70), 15);
        drivers
    }

    /// Offers a question, with room for so many bytes of answer.
    fn ask(&mut self, driver: &mut Driver, at: u64, question: &[u8], room: u32) -> u16 {
        self.rig.ram.write(Ipa(at), question).unwrap();
        let question = Offered { address: at, length: question.len() as u32, writable: false };
        let answer = Offered { address: at + 0x800, length: room, writable: true };
        driver.offer(&self.rig.ram, &[question, answer], None).expect("room in the queue")
    }

    /// Notifies, and the workers work.
    fn kick(&mut self, queue: u16) -> usize {
        self.write(0x50, queue.into());
        self.work()
    }

    fn bytes(&self, at: u64, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.rig.ram.read(Ipa(at), &mut bytes).unwrap();
        bytes
    }

    /// InterruptStatus, and whether the line is asserted.
    fn interrupt(&mut self) -> (u64, bool) {
        (self.read(0x60), self.rig.line())
    }
}

#[test]
fn a_driver_finds_what_the_specification_says() {
    for (legacy, version) in [(false, 2), (true, 1)] {
        let mut guest = Guest::new(legacy);
        let found = [0, 4, 8, 0xc].map(|offset| guest.read(offset));
        assert_eq!(found, [u32::from_le_bytes(*b"virt").into(), version, 42, VENDOR.into()]);
        assert_eq!((guest.read(0x70), guest.interrupt()), (0, (0, false)));
        for (queue, limit) in [(0, 16), (1, 8), (2, 0), (0xffff, 0), (0x1_0000, 0)] {
            guest.write(0x30, queue);
            assert_eq!(guest.read(0x34), limit);
        }
        let mut features = |word| {
            guest.write(0x14, word);
            guest.read(0x10)
        };
        let own = Features::INDIRECT_DESC | Features::EVENT_IDX;
        if legacy {
            assert_eq!((features(0), features(1)), (1 | (own | Features::ANY_LAYOUT).bits(), 0));
        } else {
            let modern = Features::VERSION_1 | Features::RING_PACKED | Features::RING_RESET;
            assert_eq!((features(0), features(1)), (1 | own.bits(), (modern.bits() | 1 << 50) >> 32));
        }
        for word in [2, 3, 0xffff_ffff] {
            assert_eq!(features(word), 0);
        }
    }
}

#[test]
fn registers_are_32_bits_wide_and_where_the_tables_say() {
    let both = [0x0, 0x4, 0x8, 0xc, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x50, 0x60, 0x64, 0x70];
    let modern = [0x44, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4, 0xac, 0xb0, 0xb4, 0xb8, 0xbc, 0xc0, 0xfc];
    let old = [0x28, 0x3c, 0x40];
    for legacy in [false, true] {
        let mut guest = Guest::new(legacy);
        let own: &[u64] = if legacy { &old } else { &modern };
        for offset in (0..0x100).step_by(4) {
            let there = both.contains(&offset) || own.contains(&offset);
            let expected = if there { Ok(()) } else { Err(AccessFault::Unsupported) };
            assert_eq!(guest.rig.try_read(offset, AccessSize::Word).map(drop), expected, "{offset:#x}");
            assert_eq!(guest.rig.try_write(offset, AccessSize::Word, 0), expected, "{offset:#x}");
            for size in [AccessSize::Byte, AccessSize::Halfword] {
                let expected = if there { AccessFault::Size } else { AccessFault::Unsupported };
                assert_eq!(guest.rig.try_read(offset, size), Err(expected), "{offset:#x}");
                assert_eq!(guest.rig.try_write(offset, size, 0), Err(expected), "{offset:#x}");
            }
        }
    }
}

#[test]
fn what_is_written_only_reads_zero_and_what_is_read_only_stays() {
    let mut guest = Guest::new(false);
    for offset in [0x14, 0x20, 0x24, 0x30, 0x38, 0x50, 0x64, 0x80, 0xa4, 0xac] {
        guest.write(offset, 0xffff_ffff);
        assert_eq!(guest.read(offset), 0, "{offset:#x}");
    }
    guest.write(0x30, 0);
    for offset in [0x0, 0x4, 0x8, 0xc, 0x34, 0x60, 0xfc] {
        let before = guest.read(offset);
        guest.write(offset, !before & 0xffff_ffff);
        assert_eq!(guest.read(offset), before, "{offset:#x}");
    }
}

#[test]
fn there_is_no_shared_memory() {
    let mut guest = Guest::new(false);
    for region in [0, 1, 0xff] {
        guest.write(0xac, region);
        assert!([0xb0, 0xb4, 0xb8, 0xbc].iter().all(|offset| guest.read(*offset) == 0xffff_ffff));
    }
}

#[test]
fn the_configuration_space_takes_all_sizes_and_is_zero_outside() {
    let mut guest = Guest::new(false);
    guest.rig.try_write(0x104, AccessSize::Word, 0x4433_2211).unwrap();
    guest.rig.try_write(0x105, AccessSize::Byte, 0xaa).unwrap();
    guest.rig.try_write(0x106, AccessSize::Halfword, 0xbbcc).unwrap();
    assert_eq!(guest.rig.try_read(0x104, AccessSize::Word), Ok(0xbbcc_aa11));
    assert_eq!(guest.rig.try_read(0x107, AccessSize::Byte), Ok(0xbb));
    assert_eq!(guest.rig.try_read(0x100, AccessSize::Doubleword), Ok(0xbbcc_aa11 << 32));
    assert_eq!(guest.rig.try_write(0x108, AccessSize::Doubleword, u64::MAX), Ok(()));
    assert_eq!(guest.rig.try_read(0x108, AccessSize::Word), Ok(0xff), "the one byte that there still is");
    for (offset, size) in [(0x109, AccessSize::Byte), (0x1fc, AccessSize::Word), (0x1f8, AccessSize::Doubleword)] {
        assert_eq!(guest.rig.try_write(offset, size, size.mask()), Ok(()));
        assert_eq!(guest.rig.try_read(offset, size), Ok(0));
    }
}

#[test]
fn the_tree_says_where_it_is() {
    let guest = Guest::new(false);
    let tree = guest.rig.describe();
    for part in ["virtio_mmio@1c090000", "virtio,mmio", "dma-coherent", "interrupts", "0x200"] {
        assert!(tree.contains(part), "{part}: {tree}");
    }
}
