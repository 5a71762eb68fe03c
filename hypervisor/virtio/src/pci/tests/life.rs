//! Negotiation, requests and resets by these registers. What they mean is tested at those of MMIO.

use super::*;
use vdev::Control;

const ANY: [Features; 4] = [
    Features::empty(),
    Features::EVENT_IDX,
    Features::RING_PACKED,
    Features::RING_PACKED.union(Features::EVENT_IDX).union(Features::INDIRECT_DESC),
];

#[test]
fn requests_are_answered() {
    for features in ANY {
        let mut guest = Guest::new(true);
        let [mut driver, _] = guest.start(features);
        guest.work();
        for round in 0..50 {
            let question = vec![round; 1 + 7 * usize::from(round)];
            if features.contains(Features::EVENT_IDX) {
                driver.want_interrupt(&guest.slots.ram, Wish::At(0));
            }
            let id = guest.ask(&mut driver, &question);
            assert!(driver.must_notify(&guest.slots.ram));
            assert!(guest.kick(0) > 0);
            assert_eq!(driver.take_used(&guest.slots.ram), Some((id, Some(question.len() as u32))));
            assert_eq!(guest.answer(question.len()), question);
            assert_eq!((guest.isr() & 1, guest.line()), (1, false));
        }
    }
}

/// 4.1.5.2: by the address of a queue, in 16 bits; and of no queue but that.
#[test]
fn a_notification_is_of_the_queue_at_whose_address_it_is() {
    let mut guest = Guest::new(true);
    let [mut first, mut second] = guest.start(Features::empty());
    guest.work();
    let at = guest.place(2);
    assert_eq!(guest.slots.try_read(Ipa(at), WORD), Ok(0), "it is for writing");
    for (offset, size) in [(0, BYTE), (0, DOUBLEWORD)] {
        assert_eq!(guest.slots.try_write(Ipa(at + offset), size, 0), Err(AccessFault::Size));
    }
    for (offset, size) in [(2, HALFWORD), (8, HALFWORD), (8, WORD), (0xffc, WORD)] {
        assert_eq!(guest.slots.try_write(Ipa(at + offset), size, 0), Err(AccessFault::Unsupported));
    }
    assert_eq!(guest.work(), 0);
    guest.ask(&mut first, b"x");
    guest.ask(&mut second, b"x");
    guest.slots.try_write(Ipa(at + 4), HALFWORD, 1).unwrap();
    guest.work();
    guest.slots.now = types::Ticks(10);
    guest.work();
    assert!(first.take_used(&guest.slots.ram).is_none() && second.take_used(&guest.slots.ram).is_some());
    guest.slots.try_write(Ipa(at), WORD, 0).unwrap();
    guest.work();
    assert!(first.take_used(&guest.slots.ram).is_some());
}

#[test]
fn the_device_status_field_negotiates_and_resets() {
    let mut guest = Guest::new(true);
    assert!(!guest.negotiate(Features::empty()), "VERSION_1 is missing");
    assert!(!guest.negotiate(Features::VERSION_1 | Features::from_bits_retain(2)), "not offered");
    assert!(guest.negotiate(Features::VERSION_1));
    guest.start(Features::empty());
    guest.set_status(0);
    assert_eq!((guest.status(), guest.read(0x0c, WORD)), (0, 0));
    for queue in [0, 1] {
        guest.write(0x16, HALFWORD, queue);
        assert_eq!((guest.read(0x1c, HALFWORD), guest.read(0x20, DOUBLEWORD)), (0, 0));
    }
}

#[test]
fn when_a_resets_store_completes_nothing_is_done_any_more() {
    for by_machine in [false, true] {
        let mut guest = Guest::new(true);
        let [_, mut driver] = guest.start(Features::empty());
        guest.ask(&mut driver, b"in flight");
        guest.kick(1);
        if by_machine {
            guest.slots.control(DEVICE, Control::Reset).unwrap();
        } else {
            guest.set_status(0);
        }
        guest.slots.now = types::Ticks(10);
        guest.work();
        assert_eq!((driver.take_used(&guest.slots.ram), guest.line()), (None, false));
        if by_machine {
            assert_eq!(guest.slots.read(Ipa(BASE)), u32::MAX, "it is nowhere");
        } else {
            let [mut driver, _] = guest.start(Features::empty());
            guest.ask(&mut driver, b"again");
            guest.kick(0);
            assert!(driver.take_used(&guest.slots.ram).is_some());
        }
    }
}

/// 2.6.1, 4.1.4.3.1.
#[test]
fn one_queue_is_reset_and_comes_back_otherwise() {
    let mut guest = Guest::new(true);
    let [_, mut second] = guest.start(Features::RING_RESET);
    guest.ask(&mut second, b"in flight");
    guest.kick(1);
    for value in [0, 2] {
        guest.write(0x3a, HALFWORD, value);
        assert_eq!(guest.read(0x1c, HALFWORD), 1, "only 1 resets");
    }
    guest.write(0x3a, HALFWORD, 1);
    assert_eq!((guest.read(0x3a, HALFWORD), guest.read(0x1c, HALFWORD)), (0, 0));
    assert_eq!((guest.read(0x18, HALFWORD), guest.read(0x20, DOUBLEWORD)), (8, 0), "as in the beginning");
    guest.slots.now = types::Ticks(10);
    guest.work();
    assert_eq!(second.take_used(&guest.slots.ram), None);
    let mut second = guest.enable(1, 4, RAM + 0x2000, Features::VERSION_1);
    assert_eq!(guest.read(0x3a, HALFWORD), 0);
    let id = guest.ask(&mut second, b"new");
    guest.kick(1);
    guest.slots.now = types::Ticks(20);
    guest.work();
    assert_eq!(second.take_used(&guest.slots.ram), Some((id, Some(3))));
}

/// "On reset, specifies the maximum queue size", which a driver may leave as it is.
#[test]
fn a_queue_of_which_nothing_is_said_is_as_long_as_it_can_be() {
    let mut guest = Guest::new(true);
    assert!(guest.negotiate(Features::VERSION_1));
    let (layout, _) = Driver::place(RAM, 16);
    guest.write(0x16, HALFWORD, 0);
    for (at, area) in [(0x20, layout.descriptor_area), (0x28, layout.driver_area), (0x30, layout.device_area)] {
        guest.write(at, DOUBLEWORD, area.0);
    }
    guest.write(0x1c, HALFWORD, 1);
    guest.set_status(15);
    let mut driver = Driver::new(Features::VERSION_1, layout);
    for _ in 0..8 {
        guest.ask(&mut driver, b"x");
    }
    guest.kick(0);
    assert_eq!(core::iter::from_fn(|| driver.take_used(&guest.slots.ram)).count(), 8);
    assert_eq!(guest.status(), 15);
}

#[test]
fn after_a_drivers_mistake_the_device_needs_a_reset() {
    let mut guest = Guest::new(true);
    guest.start(Features::empty());
    guest.slots.ram.write(Ipa(RAM + 16 * 16 + 2), &[0xff, 0xff]).unwrap();
    guest.kick(0);
    assert_eq!((guest.status(), guest.line(), guest.isr()), (15 | 64, true, 2));
}

#[test]
fn the_report_says_how_far_the_driver_is() {
    let mut guest = Guest::new(true);
    let mut report = alloc::string::String::new();
    guest.slots.control(DEVICE, Control::Status(&mut report)).unwrap();
    assert_eq!(report, "virtio-loopback: no driver; features 0x0\n");
}

impl Guest {
    /// Writes the command register: memory space, and bus master or not.
    fn set_bus_master(&mut self, is_master: bool) {
        self.slots.set_config(Self::slot(), 0x04, if is_master { 0x6 } else { 0x2 });
    }

    fn memory(&self) -> Vec<u8> {
        let mut bytes = vec![0; 0x1_0000];
        self.slots.ram.read(Ipa(RAM), &mut bytes).unwrap();
        bytes
    }
}

/// PCI, 6.2.2, "Bus Master": "A value of 0 disables the device from generating PCI accesses."
#[test]
fn who_is_not_bus_master_does_nothing_in_memory_and_goes_on_later() {
    for features in ANY {
        let mut guest = Guest::new(true);
        let [mut first, mut second] = guest.start(features);
        let under_way = guest.ask(&mut second, b"under way");
        guest.kick(1);
        guest.set_bus_master(false);
        let notified = guest.ask(&mut first, b"notified");
        let before = guest.memory();
        guest.kick(0);
        guest.slots.now = types::Ticks(10);
        guest.work();
        guest.slots.wake(DEVICE, vdev::Wake::Backend);
        guest.work();
        assert!(before == guest.memory(), "neither queues nor buffers");
        let unnoticed = guest.ask(&mut first, b"not notified of.");
        guest.work();
        guest.set_bus_master(true);
        guest.work();
        assert_eq!(first.take_used(&guest.slots.ram), Some((notified, Some(8))));
        assert_eq!(first.take_used(&guest.slots.ram), Some((unnoticed, Some(16))));
        assert_eq!(second.take_used(&guest.slots.ram).map(|(id, _)| id), Some(under_way));
        assert_eq!(guest.status(), 15);
    }
}

#[test]
fn a_driver_that_comes_while_the_function_is_no_bus_master_is_served_afterwards() {
    for by_machine in [false, true] {
        let mut guest = Guest::new(true);
        guest.start(Features::empty());
        if by_machine {
            guest.slots.control(DEVICE, Control::Reset).unwrap();
            guest.slots.set_config(Guest::slot(), 0x10, BASE as u32);
        }
        guest.set_bus_master(false);
        let [mut driver, _] = guest.start(Features::empty());
        guest.ask(&mut driver, b"x");
        guest.kick(0);
        assert_eq!(driver.take_used(&guest.slots.ram), None);
        guest.set_bus_master(true);
        guest.work();
        assert!(driver.take_used(&guest.slots.ram).is_some());
    }
}
