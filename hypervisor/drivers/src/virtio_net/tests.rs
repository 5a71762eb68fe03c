//! The driver against a card that does as it likes.

use super::*;
use std::alloc::{Layout, alloc};
use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::vec;
use std::vec::Vec;
use types::Pa;
use virtio_drivers::transport::DeviceType;

/// A PC's memory.
#[derive(Debug)]
struct Heap;

// SAFETY: pages of our own, never freed.
unsafe impl Memory for Heap {
    fn take(pages: usize) -> Option<Pa> {
        let layout = Layout::from_size_align(pages * PAGE_SIZE as usize, PAGE_SIZE as usize).ok()?;
        // SAFETY: there is at least one page.
        let start = unsafe { alloc(layout) };
        // SAFETY: what was just allocated: never zeroes by chance.
        unsafe { start.write_bytes(0xee, layout.size()) };
        Some(Pa(start as u64))
    }
}

/// No memory at all.
#[derive(Debug)]
struct Nothing;

// SAFETY: gives nothing.
unsafe impl Memory for Nothing {
    fn take(_: usize) -> Option<Pa> {
        None
    }
}

/// One queue, as the device has it.
#[derive(Default)]
struct Queue {
    rings: [u64; 3],
    size: u16,
    seen: u16,
    used: u16,
    notified: usize,
    /// Buffers that the device has: descriptor, address, length.
    has: VecDeque<(u16, u64, u32)>,
}

#[derive(Default)]
struct Device {
    features: u64,
    taken: u64,
    legacy: bool,
    refuses: bool,
    restless: bool,
    generation: u32,
    entries: u32,
    status: u32,
    resets: usize,
    link: u16,
    queues: [Queue; 2],
    /// It keeps what it is to send.
    is_silent: bool,
    sent: Vec<Vec<u8>>,
}

/// Clones are handles of the same device.
#[derive(Clone)]
struct Fake(Arc<Mutex<Device>>);

fn get<V: Copy>(at: u64) -> V {
    // SAFETY: the driver's memory, as the driver has said; aligned as the layout is.
    unsafe { (at as *const V).read_volatile() }
}

fn put<V>(at: u64, value: V) {
    // SAFETY: as above.
    unsafe { (at as *mut V).write_volatile(value) };
}

impl Queue {
    /// Takes what is new.
    fn look(&mut self, is_written: bool) {
        while self.seen != get::<u16>(self.rings[1] + 2) {
            let head: u16 = get(self.rings[1] + 4 + 2 * u64::from(self.seen % self.size));
            self.seen = self.seen.wrapping_add(1);
            let at = self.rings[0] + 16 * u64::from(head);
            let flags: u16 = get(at + 12);
            assert_eq!(flags, if is_written { 2 } else { 0 }, "one descriptor each");
            self.has.push_back((head, get(at), get(at + 8)));
        }
    }

    /// Whether the driver wants to be told.
    fn is_heard(&self) -> bool {
        get::<u16>(self.rings[1]) & 1 == 0
    }

    fn say(&mut self, id: u32, length: u32) {
        let at = self.rings[2] + 4 + 8 * u64::from(self.used % self.size);
        put(at, id);
        put(at + 4, length);
        self.used = self.used.wrapping_add(1);
        put(self.rings[2] + 2, self.used);
    }
}

impl Device {
    fn header(&self) -> u64 {
        if self.taken & MODERN == 0 { 10 } else { 12 }
    }

    fn send_all(&mut self) {
        let header = self.header();
        while let Some((head, at, length)) = self.queues[1].has.pop_front() {
            let bytes: Vec<u8> = (0..u64::from(length)).map(|byte| get(at + byte)).collect();
            assert!(bytes[..header as usize].iter().all(|byte| *byte == 0));
            self.sent.push(bytes[header as usize..].to_vec());
            self.queues[1].say(head.into(), 0);
        }
    }

    /// A frame has come, if there is a buffer.
    fn bring(&mut self, frame: &[u8]) -> bool {
        let header = self.header();
        let Some((head, at, length)) = self.queues[0].has.pop_front() else { return false };
        assert_eq!(length, 2048);
        (0..header).for_each(|byte| put(at + byte, 0xaa_u8));
        frame.iter().zip(at + header..).for_each(|(byte, at)| put(at, *byte));
        self.queues[0].say(head.into(), header as u32 + frame.len() as u32);
        true
    }
}

impl Fake {
    fn with<R>(&self, work: impl FnOnce(&mut Device) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }
}

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::Network
    }
    fn read_device_features(&mut self) -> u64 {
        self.with(|device| device.features)
    }
    fn write_driver_features(&mut self, features: u64) {
        self.with(|device| device.taken = features);
    }
    fn max_queue_size(&mut self, _: u16) -> u32 {
        self.with(|device| device.entries)
    }
    fn notify(&mut self, queue: u16) {
        self.with(|device| {
            assert_eq!(device.status & 4, 4, "DRIVER_OK comes first (3.1.1)");
            let ring = &mut device.queues[usize::from(queue)];
            ring.notified += 1;
            ring.look(queue == 0);
            if queue == 1 && !device.is_silent {
                device.send_all();
            }
        });
    }
    fn get_status(&self) -> DeviceStatus {
        let status = self.with(|device| if device.refuses { device.status & !8 } else { device.status });
        DeviceStatus::from_bits_truncate(status)
    }
    fn set_status(&mut self, status: DeviceStatus) {
        self.with(|device| {
            device.status = status.bits();
            device.resets += usize::from(status.is_empty());
        });
    }
    fn set_guest_page_size(&mut self, size: u32) {
        assert_eq!(size, 4096);
    }
    fn requires_legacy_layout(&self) -> bool {
        self.with(|device| device.legacy)
    }
    fn queue_set(&mut self, queue: u16, size: u32, descriptors: u64, driver: u64, device_area: u64) {
        self.with(|device| {
            let queue = &mut device.queues[usize::from(queue)];
            (queue.size, queue.rings) = (size as u16, [descriptors, driver, device_area]);
        });
    }
    fn queue_unset(&mut self, _: u16) {
        panic!("a queue that is unset would be waited for");
    }
    fn queue_used(&mut self, queue: u16) -> bool {
        self.with(|device| device.queues[usize::from(queue)].size != 0)
    }
    fn ack_interrupt(&mut self) -> InterruptStatus {
        InterruptStatus::empty()
    }
    fn read_config_generation(&self) -> u32 {
        self.with(|device| {
            device.generation += u32::from(device.restless);
            device.generation
        })
    }
    fn read_config_space<V: zerocopy::FromBytes + zerocopy::IntoBytes>(
        &self,
        offset: usize,
    ) -> virtio_drivers::Result<V> {
        let link = self.with(|device| device.link);
        let mut space = vec![0x52, 0x54, 0, 0x12, 0x34, 0x56];
        space.extend(link.to_le_bytes());
        V::read_from_bytes(&space[offset..offset + size_of::<V>()])
            .map_err(|_| virtio_drivers::Error::ConfigSpaceTooSmall)
    }
    fn write_config_space<V: zerocopy::IntoBytes + zerocopy::Immutable>(
        &mut self,
        _: usize,
        _: V,
    ) -> virtio_drivers::Result<()> {
        Err(virtio_drivers::Error::Unsupported)
    }
}

const MODERN: u64 = 1 << 32;
const ANY_LAYOUT: u64 = 1 << 27;
/// All that is offered by devices that can do everything: checksums, segments, merged buffers, a control queue.
const MUCH: u64 = 0x3f << 6 | 0xff << 11 | 3;
const ADDRESS: u64 = 1 << 5;
const LINK: u64 = 1 << 16;

fn device(features: u64) -> Fake {
    Fake(Arc::new(Mutex::new(Device { features, entries: 256, link: 1, ..Device::default() })))
}

type Tested = Card<Heap, Fake>;

fn begin(fake: &Fake) -> Tested {
    Card::new(fake.clone()).unwrap()
}

fn frame(length: usize, first: u8) -> Vec<u8> {
    (0..length).map(|at| first.wrapping_add(at as u8)).collect()
}

fn received(card: &mut Tested) -> Option<Vec<u8>> {
    let mut into = [0x11; MOST];
    match card.receive(&mut into) {
        Received::Frame(length) => Some(into[..length].to_vec()),
        _ => None,
    }
}

#[test]
fn frames_leave_and_come_by_either_layout() {
    for (features, legacy) in [(MODERN | MUCH, false), (ANY_LAYOUT | MUCH, true)] {
        let fake = device(features);
        fake.with(|device| device.legacy = legacy);
        let mut card = begin(&fake);
        assert_eq!(fake.with(|device| device.taken & !LINK), features & !MUCH, "nothing else is agreed on");
        assert_eq!(fake.with(|device| (device.queues[0].has.len(), device.queues[0].notified)), (FRAMES, 1));
        for length in [14, 60, 1514, 1522, MOST] {
            assert!(card.has_room() && card.send(&frame(length, 3)));
            card.notify_all(false, true);
            assert_eq!(fake.with(|device| device.sent.pop()), Some(frame(length, 3)), "{length}");
        }
        assert!(!card.send(&frame(MOST + 1, 3)), "there is no room for more");
        for round in 0..3 * FRAMES {
            let frame = frame(60 + round, round as u8);
            assert!(fake.with(|device| device.bring(&frame)));
            assert_eq!(received(&mut card), Some(frame));
            assert_eq!(received(&mut card), None);
            card.notify_all(true, false);
        }
        assert_eq!(card.broken(), None);
    }
}

#[test]
fn a_card_that_makes_no_sense_is_not_used() {
    let error = |change: fn(&mut Device)| {
        let fake = device(MODERN);
        fake.with(change);
        Tested::new(fake).err()
    };
    assert_eq!(error(|_| {}), None);
    assert_eq!(error(|device| device.refuses = true), Some(VirtioError::Features));
    assert_eq!(
        error(|device| device.features = ANY_LAYOUT),
        Some(VirtioError::Features),
        "version 2 without VERSION_1"
    );
    assert_eq!(
        error(|device| (device.features, device.legacy) = (0, true)),
        Some(VirtioError::Features),
        "it wants the header in a buffer of its own"
    );
    assert_eq!(error(|device| device.entries = 32), Some(VirtioError::Queue));
    assert_eq!(error(|device| device.queues[1].size = 1), Some(VirtioError::Queue));
    assert_eq!(Card::<Nothing, Fake>::new(device(MODERN)).err(), Some(VirtioError::Memory));
}

#[test]
fn an_address_is_read_before_the_card_is_used_and_only_if_it_has_one() {
    let mut fake = device(MODERN | ADDRESS);
    assert_eq!(address(&mut fake), Some([0x52, 0x54, 0, 0x12, 0x34, 0x56]));
    assert_eq!((fake.with(|device| (device.status, device.resets)), address(&mut device(MODERN))), ((0, 0), None));
    fake.with(|device| device.restless = true);
    assert_eq!(address(&mut fake), None, "it changes all the time");
}

#[test]
fn a_link_is_what_the_card_says_if_it_says_so() {
    let fake = device(MODERN | LINK);
    let card = begin(&fake);
    assert!(card.is_up());
    fake.with(|device| device.link = 0);
    assert!(!card.is_up());
    let silent = device(MODERN);
    silent.with(|device| device.link = 0);
    assert!(begin(&silent).is_up());
}

#[test]
fn a_silent_card_takes_so_many_and_then_no_more() {
    let fake = device(MODERN);
    fake.with(|device| device.is_silent = true);
    let mut card = begin(&fake);
    for number in 0..FRAMES {
        assert!(card.has_room() && card.send(&frame(60, number as u8)));
    }
    card.notify_all(false, true);
    assert!(!card.has_room() && !card.send(&frame(60, 0)));
    assert!(!card.listen(true, true), "there is something to wait for");
    fake.with(Device::send_all);
    assert!(card.listen(true, true) && !card.listen(true, false) && card.has_room());
    let sent = fake.with(|device| core::mem::take(&mut device.sent));
    assert!(sent.iter().enumerate().all(|(number, sent)| *sent == frame(60, number as u8)) && sent.len() == FRAMES);
}

#[test]
fn interrupts_come_when_they_are_asked_for() {
    let fake = device(MODERN);
    let mut card = begin(&fake);
    let heard = || fake.with(|device| [0, 1].map(|queue| device.queues[queue].is_heard()));
    assert_eq!(heard(), [false, false]);
    for wanted in [[true, false], [true, true], [false, true], [false, false]] {
        assert!(!card.listen(wanted[0], wanted[1]));
        assert_eq!(heard(), wanted);
    }
    fake.with(|device| device.bring(&frame(60, 0)));
    assert!(card.listen(true, false) && !card.listen(false, true));
}

#[test]
fn what_is_no_frame_is_none_and_the_buffer_is_used_again() {
    let fake = device(MODERN);
    let mut card = begin(&fake);
    let mut into = [0; 1522];
    for length in [0, 13] {
        fake.with(|device| device.bring(&frame(length, 9)));
        assert_eq!(card.receive(&mut into), Received::Void, "{length}");
    }
    fake.with(|device| {
        let (head, ..) = device.queues[0].has.pop_front().unwrap();
        device.queues[0].say(head.into(), 3);
    });
    assert_eq!(card.receive(&mut into), Received::Void, "less than a header");
    fake.with(|device| device.bring(&frame(2000, 9)));
    assert_eq!(card.receive(&mut into), Received::Frame(1522), "cut off");
    card.notify_all(true, false);
    assert_eq!((fake.with(|device| device.queues[0].has.len()), card.broken()), (FRAMES, None));
}

#[test]
fn a_card_that_uses_what_it_was_not_given_is_given_up() {
    type Lie = fn(&mut Device);
    let lies: [(Lie, &str); 4] = [
        (|device| device.queues[0].say(64, 60), "no descriptor at all"),
        (|device| device.queues[0].say(u32::MAX, 60), "nor that"),
        (
            |device| {
                let (head, ..) = device.queues[0].has[0];
                device.queues[0].say(head.into(), 2049);
            },
            "more than there was room for",
        ),
        (
            |device| {
                let (head, ..) = device.queues[0].has[0];
                put(device.queues[0].rings[2] + 2, 7_u16);
                put(device.queues[0].rings[2] + 4, u32::from(head) + 1000);
            },
            "an index from nowhere",
        ),
    ];
    for (lie, why) in lies {
        let fake = device(MODERN);
        let mut card = begin(&fake);
        fake.with(lie);
        let resets = fake.with(|device| device.resets);
        assert_eq!(card.receive(&mut [0; MOST]), Received::None, "{why}");
        assert_eq!(card.broken(), Some(VirtioError::WrongRequest), "{why}");
        assert_eq!(fake.with(|device| (device.status, device.resets)), (0, resets + 1));
        assert!(!card.has_room() && !card.send(&frame(60, 0)) && card.listen(true, true) && !card.is_up());
        let notified = fake.with(|device| device.queues[0].notified);
        card.notify_all(true, true);
        assert_eq!(fake.with(|device| device.queues[0].notified), notified, "it hears of nothing any more");
    }
}

#[test]
fn a_frame_that_has_left_twice_is_a_lie() {
    let fake = device(MODERN);
    let mut card = begin(&fake);
    assert!(card.send(&frame(60, 0)));
    card.notify_all(false, true);
    fake.with(|device| device.queues[1].say(0, 0));
    assert!(!card.has_room());
    assert_eq!(card.broken(), Some(VirtioError::WrongRequest));
}

#[test]
fn a_card_that_looks_by_itself_is_not_told() {
    let fake = device(MODERN);
    let mut card = begin(&fake);
    let notified = || fake.with(|device| [0, 1].map(|queue| device.queues[queue].notified));
    let set = |flags: u16| fake.with(|device| device.queues.iter().for_each(|queue| put(queue.rings[2], flags)));
    let before = notified();
    for flags in [1, 0] {
        set(flags);
        assert!(card.send(&frame(60, 0)));
        card.notify_all(true, true);
        assert_eq!(notified(), before.map(|count| count + usize::from(flags == 0)));
    }
    assert_eq!(fake.with(|device| device.sent.len()), 2, "both have left by then");
}
