//! `vdev virtio-entropy`.

use crate::driver::{Machine, Place, World, negotiate, tests};
use std::sync::atomic::{AtomicU64, Ordering};
use types::Ticks;
use vdev::testkit::{Rig, Wires};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::transport::InterruptStatus;

tests! {
    a_driver_gets_random_bytes and legacy,
    it_interrupts_when_it_has_answered,
    when_the_driver_goes_the_device_can_be_had_by_the_next,
    a_request_waits_for_a_source_that_has_nothing_to_give,
}

/// Counts up by steps of which all bytes differ.
fn counter() -> Option<u64> {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    Some(NEXT.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15))
}

fn wires(entropy: Option<vdev::Entropy>) -> Wires {
    let mut wires = Wires::default();
    wires.entropy = entropy;
    wires
}

fn a_driver_gets_random_bytes(place: Place) {
    let world = World::new(place, "virtio-entropy", &[], wires(Some(counter)));
    let mut rng = VirtIORng::<Machine, _>::new(world.transport()).unwrap();
    let mut seen = std::collections::HashSet::new();
    for length in [1, 7, 8, 64, 65, 255, 256].into_iter().chain([32; 300]) {
        let mut bytes = vec![0; length];
        assert_eq!(rng.request_entropy(&mut bytes), Ok(length));
        assert!(length < 32 || seen.insert(bytes.clone()), "the same again: {bytes:x?}");
    }
    // More than it gives at once: the rest stays as it is.
    let mut bytes = [0; 1000];
    assert_eq!(rng.request_entropy(&mut bytes), Ok(256));
    assert!(bytes[256..].iter().all(|byte| *byte == 0) && bytes[..256].chunks(8).all(|word| word != [0; 8]));
}

fn it_interrupts_when_it_has_answered(place: Place) {
    let world = World::new(place, "virtio-entropy", &[], wires(Some(counter)));
    let mut rng = VirtIORng::<Machine, _>::new(world.transport()).unwrap();
    rng.enable_interrupts();
    rng.request_entropy(&mut [0; 16]).unwrap();
    assert!(world.line());
    assert!(rng.ack_interrupt() == InterruptStatus::QUEUE_INTERRUPT);
    assert!(!world.line());
}

fn when_the_driver_goes_the_device_can_be_had_by_the_next(place: Place) {
    let world = World::new(place, "virtio-entropy", &[], wires(Some(counter)));
    for _ in 0..3 {
        let mut rng = VirtIORng::<Machine, _>::new(world.transport()).unwrap();
        assert_eq!(rng.request_entropy(&mut [0; 16]), Ok(16));
    }
}

#[test]
fn without_a_source_there_is_no_device() {
    let factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == "virtio-entropy").unwrap();
    let errors = Rig::new(factory, &[], &mut wires(None)).err().unwrap();
    assert!(errors[0].message.contains("no source of random numbers"), "{errors:?}");
}

/// Has a word to give at every third question.
fn hesitant() -> Option<u64> {
    static ASKED: AtomicU64 = AtomicU64::new(0);
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    asked.is_multiple_of(9).then_some(!asked)
}

fn a_request_waits_for_a_source_that_has_nothing_to_give(place: Place) {
    use virtio_drivers::queue::VirtQueue;
    use virtio_drivers::transport::Transport;
    let world = World::new(place, "virtio-entropy", &[], wires(Some(hesitant)));
    let mut transport = world.transport();
    negotiate(&mut transport, 0);
    let mut queue = VirtQueue::<Machine, 8>::new(&mut transport, 0, false, false).unwrap();
    transport.finish_init();
    let mut rounds = 0;
    for _ in 0..20 {
        let mut bytes = [0; 8];
        // SAFETY: the buffer lives until it has been popped below.
        let token = unsafe { queue.add(&[], &mut [&mut bytes]) }.unwrap();
        transport.notify(0);
        while !queue.can_pop() {
            world.pass(Ticks(10_000));
            world.work();
            rounds += 1;
            assert!(rounds < 1000);
        }
        // SAFETY: the buffer that was added.
        let length = unsafe { queue.pop_used(token, &[], &mut [&mut bytes]) }.unwrap();
        assert_eq!(length, 8, "never nothing");
        assert_ne!(bytes, [0; 8]);
    }
    assert!(rounds > 0, "some had to wait");
}
