//! Negotiation, requests, interrupts, resets.

use super::*;

const ANY: [Features; 4] = [
    Features::empty(),
    Features::EVENT_IDX,
    Features::RING_PACKED,
    Features::RING_PACKED.union(Features::EVENT_IDX).union(Features::INDIRECT_DESC),
];

#[test]
fn a_driver_accepts_what_was_offered_and_the_standard_itself() {
    let mut guest = Guest::new(false);
    assert!(guest.negotiate(Features::VERSION_1));
    assert!(guest.negotiate(Features::VERSION_1 | Features::RING_PACKED | Features::from_bits_retain(1)));
    assert!(!guest.negotiate(Features::empty()), "VERSION_1 is missing");
    assert!(!guest.negotiate(Features::VERSION_1 | Features::from_bits_retain(2)), "not offered");
    assert_eq!(guest.read(0x70), 3, "FEATURES_OK does not stay");
    // It may try again with others.
    guest.write(0x24, 0);
    guest.write(0x20, 1);
    guest.write(0x70, 11);
    assert_eq!(guest.read(0x70), 11);
    // A feature that there is no bit for.
    guest.write(0x70, 0);
    guest.write(0x24, 1);
    guest.write(0x20, 1);
    guest.write(0x24, 2);
    guest.write(0x20, 1);
    guest.write(0x70, 11);
    assert_eq!(guest.read(0x70), 3);
}

#[test]
fn features_that_come_late_are_not_taken() {
    let mut guest = Guest::new(false);
    assert!(guest.negotiate(Features::VERSION_1));
    guest.write(0x24, 1);
    guest.write(0x20, (Features::VERSION_1 | Features::RING_PACKED).bits() >> 32);
    let mut driver = guest.enable(0, 16, RAM, Features::VERSION_1);
    guest.write(0x70, 15);
    guest.ask(&mut driver, DATA, b"split", 8);
    guest.kick(0);
    assert!(driver.take_used(&guest.rig.ram).is_some(), "the queue is a split one");
}

#[test]
fn the_status_field_goes_one_way() {
    let mut guest = Guest::new(false);
    guest.write(0x70, 4);
    assert_eq!(guest.read(0x70), 0, "DRIVER_OK without negotiation");
    guest.write(0x70, 64);
    assert_eq!(guest.read(0x70), 0, "the device's own bit");
    guest.write(0x70, 1);
    guest.write(0x70, 2);
    assert_eq!(guest.read(0x70), 3, "bits are not cleared");
    guest.write(0x70, 0xffff_ff80);
    assert_eq!(guest.read(0x70), 0x83, "FAILED, and nothing beyond the field");
    guest.write(0x70, 0x1_0000);
    assert_eq!(guest.read(0x70), 0, "a reset: the field is 0");
}

#[test]
fn requests_are_answered_and_the_driver_is_interrupted() {
    for features in ANY {
        let (mut guest, [mut driver, _]) = Guest::running(features);
        guest.work();
        for round in 0..100_u64 {
            let question = vec![round as u8; 1 + 7 * (round as usize % 40)];
            driver.want_interrupt(&guest.rig.ram, Wish::At(0));
            if !features.contains(Features::EVENT_IDX) {
                driver.want_interrupt(&guest.rig.ram, Wish::Always);
            }
            let id = guest.ask(&mut driver, DATA, &question, 300);
            assert!(driver.must_notify(&guest.rig.ram));
            guest.write(0x50, 0);
            assert!(guest.rig.take_effects().tells());
            assert!(guest.work() > 0);
            let length = question.len() as u32;
            assert_eq!(driver.take_used(&guest.rig.ram), Some((id, Some(length))));
            assert_eq!(guest.bytes(DATA + 0x800, question.len()), question);
            let (status, asserted) = guest.interrupt();
            assert_eq!((status & 1, asserted), (1, true));
            assert!(!guest.rig.take_effects().kicked().is_empty());
            guest.write(0x64, 1);
            assert_eq!(guest.interrupt(), (status & 2, status & 2 != 0), "the other event stays");
            guest.write(0x64, 2);
            assert_eq!(guest.interrupt(), (0, false));
        }
    }
}

#[test]
fn a_driver_that_wants_no_interrupt_has_none() {
    for features in [Features::empty(), Features::RING_PACKED] {
        let (mut guest, [mut driver, _]) = Guest::running(features);
        driver.want_interrupt(&guest.rig.ram, Wish::Never);
        guest.ask(&mut driver, DATA, b"quiet", 8);
        guest.kick(0);
        assert!(driver.take_used(&guest.rig.ram).is_some());
        assert_eq!(guest.interrupt(), (0, false));
    }
}

#[test]
fn nothing_is_done_before_the_driver_is_ready() {
    let mut guest = Guest::new(false);
    guest.negotiate(Features::VERSION_1);
    let mut driver = guest.enable(0, 16, RAM, Features::VERSION_1);
    guest.ask(&mut driver, DATA, b"early", 8);
    guest.write(0x50, 0);
    assert_eq!(guest.work(), 0);
    assert_eq!((driver.take_used(&guest.rig.ram), guest.interrupt()), (None, (0, false)));
    guest.write(0x70, 15);
    guest.work();
    assert!(driver.take_used(&guest.rig.ram).is_some(), "though it has not notified since");
}

#[test]
fn a_notification_of_no_queue_is_none() {
    let (mut guest, _drivers) = Guest::running(Features::empty());
    guest.work();
    for value in [2, 0xffff, 0x1_0000, 0xffff_ffff] {
        guest.write(0x50, value);
        assert_eq!(guest.work(), 0, "{value:#x}");
    }
}

#[test]
fn the_device_need_not_be_told_while_it_works() {
    let (mut guest, [mut driver, _]) = Guest::running(Features::empty());
    guest.work();
    for at in 0..5 {
        guest.ask(&mut driver, DATA + at * 16, b"batch", 8);
    }
    guest.kick(0);
    let done = core::iter::from_fn(|| driver.take_used(&guest.rig.ram)).count();
    assert_eq!(done, 5, "all of them for one notification");
    assert!(driver.must_notify(&guest.rig.ram), "and of the next it wants to be told");
}

#[test]
fn when_a_resets_store_completes_nothing_is_done_any_more() {
    for features in ANY {
        let (mut guest, [_, mut driver]) = Guest::running(features);
        guest.ask(&mut driver, DATA, b"in flight", 16);
        guest.kick(1);
        // The service has taken it, and waits.
        let before = guest.bytes(RAM, 0x1_0000);
        guest.write(0x70, 0);
        guest.rig.now = types::Ticks(10);
        guest.work();
        assert_eq!(guest.bytes(RAM, 0x1_0000), before, "not a byte");
        assert_eq!((guest.read(0x70), guest.interrupt()), (0, (0, false)));
        // The next driver has its own requests answered, and not that one.
        let [_, mut driver] = guest.start(features);
        guest.work();
        assert_eq!(driver.take_used(&guest.rig.ram), None);
        let id = guest.ask(&mut driver, DATA, b"again", 16);
        guest.kick(1);
        guest.rig.now = types::Ticks(20);
        guest.work();
        assert_eq!(driver.take_used(&guest.rig.ram), Some((id, Some(5))));
    }
}

#[test]
fn a_reset_forgets_queues_and_interrupts() {
    let (mut guest, [mut driver, _]) = Guest::running(Features::empty());
    guest.ask(&mut driver, DATA, b"x", 8);
    guest.kick(0);
    assert_eq!(guest.interrupt(), (1, true));
    guest.write(0x70, 0);
    assert_eq!(guest.interrupt(), (0, false));
    for queue in [0, 1] {
        guest.write(0x30, queue);
        assert_eq!(guest.read(0x44), 0);
    }
    guest.write(0x14, 1);
    assert_ne!(guest.read(0x10), 0);
}

#[test]
fn one_queue_is_reset_and_the_other_goes_on() {
    let (mut guest, [mut first, mut second]) = Guest::running(Features::RING_RESET);
    guest.ask(&mut second, DATA, b"in flight", 16);
    guest.ask(&mut first, DATA + 0x100, b"goes on", 16);
    guest.kick(1);
    guest.write(0x30, 1);
    guest.write(0xc0, 1);
    assert_eq!((guest.read(0xc0), guest.read(0x44)), (0, 0));
    guest.write(0x50, 0);
    guest.rig.now = types::Ticks(10);
    guest.work();
    assert_eq!(second.take_used(&guest.rig.ram), None);
    assert!(first.take_used(&guest.rig.ram).is_some());
    // It comes back with another size, somewhere else.
    let mut second = guest.enable(1, 4, RAM + 0x2000, Features::VERSION_1);
    let id = guest.ask(&mut second, DATA, b"new", 16);
    guest.kick(1);
    guest.rig.now = types::Ticks(20);
    guest.work();
    assert_eq!(second.take_used(&guest.rig.ram), Some((id, Some(3))));
}

#[test]
fn a_request_of_a_queues_last_life_is_void_in_its_next() {
    let (mut guest, [_, mut second]) = Guest::running(Features::RING_RESET);
    guest.ask(&mut second, DATA, b"in flight", 16);
    guest.kick(1);
    guest.write(0x30, 1);
    guest.write(0xc0, 1);
    // Before the service has noticed, the queue is there again.
    let mut second = guest.enable(1, 8, RAM + 0x1000, Features::VERSION_1);
    let before = guest.bytes(DATA + 0x800, 16);
    guest.rig.now = types::Ticks(10);
    guest.work();
    assert_eq!((second.take_used(&guest.rig.ram), guest.bytes(DATA + 0x800, 16)), (None, before));
    assert_eq!(guest.read(0x70), 15, "nobody has made a mistake");
}

#[test]
fn while_it_has_a_request_it_need_not_be_told_of_more() {
    for features in ANY {
        let (mut guest, [_, mut driver]) = Guest::running(features);
        guest.work();
        guest.ask(&mut driver, DATA, b"held", 16);
        assert!(driver.must_notify(&guest.rig.ram));
        guest.kick(1);
        guest.ask(&mut driver, DATA + 0x100, b"next", 16);
        assert!(!driver.must_notify(&guest.rig.ram));
        for now in 1..5 {
            guest.rig.now = types::Ticks(now);
            guest.work();
        }
        assert_eq!(core::iter::from_fn(|| driver.take_used(&guest.rig.ram)).count(), 2);
    }
}

#[test]
fn a_queue_is_not_reset_alone_unless_that_was_negotiated() {
    let (mut guest, _drivers) = Guest::running(Features::empty());
    guest.write(0x30, 1);
    guest.write(0xc0, 1);
    assert_eq!(guest.read(0x44), 1);
}

#[test]
fn a_queue_that_is_not_ready_is_left_alone() {
    let (mut guest, [mut driver, _]) = Guest::running(Features::empty());
    guest.work();
    guest.write(0x30, 0);
    guest.write(0x44, 0);
    assert_eq!(guest.read(0x44), 0);
    guest.ask(&mut driver, DATA, b"x", 8);
    guest.kick(0);
    assert_eq!(driver.take_used(&guest.rig.ram), None);
}

#[test]
fn a_queue_in_use_stays_where_it_is() {
    let (mut guest, [mut driver, _]) = Guest::running(Features::empty());
    guest.write(0x30, 0);
    for offset in [0x38, 0x80, 0x84, 0x90, 0x94, 0xa0, 0xa4] {
        guest.write(offset, 0x10);
    }
    guest.write(0x44, 1);
    guest.ask(&mut driver, DATA, b"x", 8);
    guest.kick(0);
    assert!(driver.take_used(&guest.rig.ram).is_some());
}

/// The device says that it has to be reset, and does nothing more before that.
fn check_broken(guest: &mut Guest, features: Features) {
    assert_eq!(guest.read(0x70), 15 | 64);
    assert_eq!((guest.read(0x60) & 2, guest.rig.line()), (2, true));
    guest.write(0x64, 3);
    let before = guest.bytes(RAM, 0x1_0000);
    for queue in [0, 1] {
        guest.kick(queue);
    }
    assert_eq!((guest.bytes(RAM, 0x1_0000), guest.interrupt()), (before, (0, false)));
    let [mut driver, _] = guest.start(features);
    guest.ask(&mut driver, DATA, b"healed", 8);
    guest.kick(0);
    assert!(driver.take_used(&guest.rig.ram).is_some());
}

#[test]
fn after_a_drivers_mistake_the_device_needs_a_reset() {
    // An index that cannot be; buffers that are not in memory; a queue that is not.
    let (mut guest, [_, mut other]) = Guest::running(Features::empty());
    guest.rig.ram.write(Ipa(RAM + 16 * 16 + 2), &[0xff, 0xff]).unwrap();
    guest.ask(&mut other, DATA, b"other", 8);
    guest.kick(0);
    check_broken(&mut guest, Features::empty());

    let (mut guest, [mut driver, _]) = Guest::running(Features::RING_PACKED);
    let nowhere = Offered { address: 0x1000, length: 4, writable: false };
    driver.offer(&guest.rig.ram, &[nowhere], None).unwrap();
    guest.kick(0);
    check_broken(&mut guest, Features::RING_PACKED);

    for (offset, value) in [(0x38, 32), (0x38, 3), (0x38, 0), (0x38, 0x1_0010), (0x80, 8), (0xa4, 0xffff_ffff)] {
        let mut guest = Guest::new(false);
        guest.negotiate(Features::VERSION_1);
        guest.enable(0, 16, RAM, Features::VERSION_1);
        guest.write(0x44, 0);
        guest.write(offset, value);
        guest.write(0x44, 1);
        guest.write(0x70, 15);
        guest.work();
        if offset == 0xa4 {
            // Far away is only found when it is used.
            let (layout, _) = Driver::place(RAM, 16);
            Driver::new(Features::VERSION_1, layout)
                .offer(&guest.rig.ram, &[Offered { address: DATA, length: 1, writable: true }], None)
                .unwrap();
            guest.kick(0);
        }
        check_broken(&mut guest, Features::empty());
    }
}

#[test]
fn a_change_of_the_configuration_space_is_told() {
    let (mut guest, [mut driver, _]) = Guest::running(Features::empty());
    driver.want_interrupt(&guest.rig.ram, Wish::Never);
    let before = guest.read(0xfc);
    for _ in 0..4 {
        guest.ask(&mut driver, DATA, b"x", 8);
    }
    guest.kick(0);
    assert_eq!((guest.read(0xfc), guest.interrupt()), (before, (0, false)));
    guest.ask(&mut driver, DATA, b"x", 8);
    guest.kick(0);
    assert_ne!(guest.read(0xfc), before);
    assert_eq!((guest.interrupt(), guest.read(0x100)), ((2, true), 5));
    guest.write(0x64, 2);
    // The model's own half, woken.
    guest.rig.wake_for(Wake::VmLives);
    assert_eq!(guest.interrupt(), (2, true));
    // And nobody is told who is not there.
    guest.write(0x70, 0);
    guest.rig.wake_for(Wake::VmLives);
    assert_eq!(guest.interrupt(), (0, false));
}

#[test]
fn a_back_end_that_wakes_the_device_has_its_services_look() {
    let (mut guest, [mut driver, _]) = Guest::running(Features::empty());
    guest.work();
    guest.ask(&mut driver, DATA, b"x", 8);
    guest.rig.wake();
    guest.work();
    assert!(driver.take_used(&guest.rig.ram).is_some());
}

#[test]
fn a_legacy_driver_finds_its_queue_by_a_page() {
    let mut guest = Guest::new(true);
    guest.write(0x70, 1);
    guest.write(0x70, 3);
    guest.write(0x24, 0);
    guest.write(0x20, Features::EVENT_IDX.bits() | 2);
    guest.write(0x28, 4096);
    guest.write(0x30, 0);
    assert_eq!(guest.read(0x40), 0);
    guest.write(0x38, 16);
    guest.write(0x3c, 4096);
    guest.write(0x40, RAM / 4096);
    assert_eq!(guest.read(0x40), RAM / 4096);
    let layout = Layout::legacy(Ipa(RAM), 16, 4096).unwrap();
    assert_eq!(layout.device_area, Ipa(RAM + 0x1000));
    let mut driver = Driver::new(Features::EVENT_IDX, layout);
    guest.write(0x70, 7);
    assert_eq!(guest.read(0x70), 7, "there is no FEATURES_OK");
    guest.work();
    let id = guest.ask(&mut driver, DATA, b"old", 8);
    guest.kick(0);
    assert_eq!(driver.take_used(&guest.rig.ram), Some((id, Some(3))));
    assert_eq!(guest.interrupt(), (1, true));
    guest.write(0x40, 0);
    assert_eq!(guest.read(0x40), 0);
    guest.ask(&mut driver, DATA, b"stop", 8);
    guest.kick(0);
    assert_eq!(driver.take_used(&guest.rig.ram), None);
    guest.write(0x40, RAM / 4096);
    guest.write(0x70, 0);
    guest.write(0x30, 0);
    assert_eq!((guest.read(0x70), guest.read(0x40)), (0, 0));
}

/// Linux's driver says it when it finds the device (`virtio_mmio_probe`), and resets it after that.
#[test]
fn a_legacy_page_size_outlives_resets() {
    let mut guest = Guest::new(true);
    guest.write(0x28, 4096);
    for status in [0, 3, 0, 3] {
        guest.write(0x70, status);
    }
    guest.write(0x38, 16);
    guest.write(0x3c, 4096);
    guest.write(0x40, RAM / 4096);
    assert_eq!((guest.read(0x70), guest.read(0x40)), (3, RAM / 4096));
    guest.rig.control(Control::Reset).unwrap();
    guest.write(0x38, 16);
    guest.write(0x3c, 4096);
    guest.write(0x40, RAM / 4096);
    assert_eq!(guest.read(0x40), 0, "not that of the machine");
}

#[test]
fn a_legacy_queue_that_cannot_be_needs_a_reset() {
    let mut guest = Guest::new(true);
    guest.write(0x70, 3);
    guest.write(0x28, 4096);
    guest.write(0x38, 16);
    guest.write(0x3c, 24);
    guest.write(0x40, RAM / 4096);
    assert_eq!((guest.read(0x70), guest.read(0x40)), (3 | 64, 0));
}

#[test]
fn the_report_says_how_far_the_driver_is() {
    let (mut guest, _drivers) = Guest::running(Features::RING_PACKED);
    let report = guest.rig.status();
    assert_eq!(
        report,
        "device: ACKNOWLEDGE DRIVER DRIVER_OK FEATURES_OK; features 0x500000000; queue 0 of 16; queue 1 of 8\n"
    );
    guest.write(0x70, 0);
    assert_eq!(guest.rig.status(), "device: no driver; features 0x0\n");
}

#[test]
fn a_reset_of_the_machine_is_one_of_the_device() {
    let (mut guest, [mut driver, _]) = Guest::running(Features::empty());
    guest.ask(&mut driver, DATA, b"x", 8);
    guest.write(0x50, 0);
    guest.rig.control(Control::Reset).unwrap();
    guest.work();
    assert_eq!((guest.read(0x70), driver.take_used(&guest.rig.ram)), (0, None));
}
