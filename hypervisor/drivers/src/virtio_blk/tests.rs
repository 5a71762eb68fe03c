//! The driver against a device that does as it likes.

use super::*;
use std::alloc::{Layout, alloc};
use std::sync::{Arc, Mutex};
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

/// What the device does with the next request.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Honest,
    /// Keeps it.
    Silent,
    /// Does it, and says that it was this one.
    WithId(u32),
    /// Does nothing, and says that it has written so many bytes, with this status.
    Claims(u32, u8),
    /// Does nothing, not even a status, and says that it has written so many bytes.
    Says(u32),
    /// Does it, and says so twice.
    Twice,
}

#[derive(Default)]
struct Device {
    disk: Vec<u8>,
    features: u64,
    taken: u64,
    block_size: u32,
    legacy: bool,
    refuses: bool,
    restless: bool,
    generation: u32,
    entries: u32,
    status: u32,
    resets: usize,
    rings: [u64; 3],
    seen: u16,
    used: u16,
    answer: Option<Answer>,
    /// Requests that are kept: their first descriptors.
    kept: Vec<u16>,
    flushes: usize,
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

impl Device {
    /// The buffers of a request: address, length, whether the device writes it.
    fn chain(&self, head: u16) -> Vec<(u64, u32, bool)> {
        let mut chain = Vec::new();
        let mut next = Some(head);
        while let Some(index) = next {
            let at = self.rings[0] + 16 * u64::from(index);
            let (flags, link): (u16, u16) = (get(at + 12), get(at + 14));
            chain.push((get(at), get(at + 8), flags & 2 != 0));
            next = (flags & 1 != 0).then_some(link);
        }
        chain
    }

    fn look(&mut self) {
        let size = self.entries as u16;
        while self.seen != get::<u16>(self.rings[1] + 2) {
            let head = get(self.rings[1] + 4 + 2 * u64::from(self.seen % size));
            self.seen = self.seen.wrapping_add(1);
            let chain = self.chain(head);
            match self.answer.take().unwrap_or(Answer::Honest) {
                Answer::Silent => self.kept.push(head),
                Answer::Honest => self.answer_with(head.into(), &chain),
                Answer::WithId(id) => self.answer_with(id, &chain),
                Answer::Twice => {
                    self.answer_with(head.into(), &chain);
                    self.say(head.into(), 1);
                }
                Answer::Says(length) => self.say(head.into(), length),
                Answer::Claims(length, status) => {
                    put(chain.last().unwrap().0, status);
                    self.say(head.into(), length);
                }
            }
        }
    }

    /// Does a request.
    fn answer_with(&mut self, id: u32, chain: &[(u64, u32, bool)]) {
        let (header, status) = (chain[0].0, chain.last().unwrap().0);
        assert_eq!((chain[0].1, chain.last().unwrap().1), (16, 1));
        let (kind, sector): (u32, u64) = (get(header), get(header + 8));
        let mut written = 1;
        for (at, length, writes) in &chain[1..chain.len() - 1] {
            assert_eq!(*writes, kind == 0);
            for byte in 0..u64::from(*length) {
                let place = &mut self.disk[(sector * 512 + byte) as usize];
                if kind == 0 {
                    put(at + byte, *place);
                } else {
                    *place = get(at + byte);
                }
            }
            written += if kind == 0 { *length } else { 0 };
        }
        self.flushes += usize::from(kind == 4);
        put(status, OK);
        self.say(id, written);
    }

    /// Puts an entry into the ring of used buffers.
    fn say(&mut self, id: u32, length: u32) {
        let at = self.rings[2] + 4 + 8 * u64::from(self.used % self.entries as u16);
        put(at, id);
        put(at + 4, length);
        self.used = self.used.wrapping_add(1);
        put(self.rings[2] + 2, self.used);
    }
}

impl Fake {
    fn with<R>(&self, work: impl FnOnce(&mut Device) -> R) -> R {
        work(&mut self.0.lock().unwrap())
    }

    fn next(&self, answer: Answer) {
        self.with(|device| device.answer = Some(answer));
    }
}

impl Transport for Fake {
    fn device_type(&self) -> DeviceType {
        DeviceType::Block
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
        assert_eq!(queue, 0);
        self.with(Device::look);
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
    fn queue_set(&mut self, _: u16, size: u32, descriptors: u64, driver: u64, device_area: u64) {
        self.with(|device| (device.entries, device.rings) = (size, [descriptors, driver, device_area]));
    }
    fn queue_unset(&mut self, _: u16) {
        panic!("a queue that is unset would be waited for");
    }
    fn queue_used(&mut self, _: u16) -> bool {
        self.with(|device| device.rings[0] != 0)
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
        let bytes = self.with(|device| {
            let sectors = device.disk.len() as u64 / 512;
            let mut space = [0; 24];
            space[..8].copy_from_slice(&sectors.to_le_bytes());
            space[20..].copy_from_slice(&device.block_size.to_le_bytes());
            space
        });
        V::read_from_bytes(&bytes[offset..offset + size_of::<V>()])
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
const FLUSH: u64 = 1 << 9;
const WITH_BLOCKS: u64 = 1 << 6;
const READ_ONLY: u64 = 1 << 5;

fn device(features: u64) -> Fake {
    let disk = (0..256 * 512_u32).map(|at| (at / 512) as u8).collect();
    Fake(Arc::new(Mutex::new(Device { disk, features, entries: 128, block_size: 512, ..Device::default() })))
}

type Tested = Disk<Heap, Fake>;

fn begin(fake: &Fake) -> Tested {
    Disk::new(fake.clone()).unwrap()
}

fn content(disk: &Tested, ticket: Ticket, length: usize) -> Vec<u8> {
    let at = disk.data(ticket).unwrap().as_ptr() as u64;
    (0..length as u64).map(|offset| get(at + offset)).collect()
}

fn fill(disk: &Tested, ticket: Ticket, bytes: &[u8]) {
    let at = disk.data(ticket).unwrap().as_ptr() as u64;
    (at..).zip(bytes).for_each(|(at, byte)| put(at, *byte));
}

/// Sends a request and takes the answer.
fn ask(disk: &mut Tested, ticket: Ticket, operation: Operation, length: usize) -> Option<Result<(), Failed>> {
    disk.send(ticket, operation, 3, length).unwrap();
    disk.take_answers();
    disk.result(ticket)
}

#[test]
fn what_is_written_is_read_and_flushed_by_either_layout() {
    for (features, legacy) in [(MODERN | FLUSH, false), (FLUSH, true)] {
        let fake = device(features);
        fake.with(|device| device.legacy = legacy);
        let mut disk = begin(&fake);
        assert_eq!((disk.sectors(), disk.block_size(), disk.is_read_only()), (256, 512, false));
        assert_eq!(fake.with(|device| (device.taken, device.status)), (features, 15));
        for _ in 0..100 {
            let ticket = disk.take(None).unwrap();
            assert_eq!(ask(&mut disk, ticket, Operation::Read, 1024), Some(Ok(())));
            assert_eq!(content(&disk, ticket, 1024), [[3; 512], [4; 512]].concat());
            disk.release(ticket);
            let ticket = disk.take(None).unwrap();
            fill(&disk, ticket, &[7; 512]);
            disk.send(ticket, Operation::Write, 9, 512).unwrap();
            disk.take_answers();
            assert_eq!(disk.result(ticket), Some(Ok(())));
            disk.release(ticket);
            let ticket = disk.take(None).unwrap();
            disk.send(ticket, Operation::Flush, 0, 0).unwrap();
            disk.take_answers();
            assert_eq!(disk.result(ticket), Some(Ok(())));
            disk.release(ticket);
        }
        assert_eq!(fake.with(|device| (device.disk[9 * 512], device.flushes)), (7, 100));
    }
}

#[test]
fn without_the_feature_there_is_nothing_to_flush() {
    let fake = device(MODERN);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    disk.send(ticket, Operation::Flush, 0, 0).unwrap();
    assert_eq!((disk.result(ticket), fake.with(|device| device.flushes)), (Some(Ok(())), 0));
}

#[test]
fn a_device_that_makes_no_sense_is_not_used() {
    let refused = |change: fn(&mut Device)| {
        let fake = device(MODERN | WITH_BLOCKS);
        fake.with(change);
        Disk::<Heap, Fake>::new(fake).map(|_| ()).unwrap_err()
    };
    assert_eq!(refused(|device| device.refuses = true), VirtioError::Features);
    assert_eq!(refused(|device| device.features = 0), VirtioError::Features, "the new layout without VERSION_1");
    assert_eq!(refused(|device| device.restless = true), VirtioError::Configuration);
    assert_eq!(refused(|device| device.disk.clear()), VirtioError::Configuration);
    for size in [0, 256, 1000, 8192] {
        let fake = device(MODERN | WITH_BLOCKS);
        fake.with(|device| device.block_size = size);
        assert_eq!(Disk::<Heap, Fake>::new(fake).map(|_| ()).unwrap_err(), VirtioError::Configuration, "{size}");
    }
    assert_eq!(refused(|device| device.entries = 8), VirtioError::Queue);
    assert_eq!(Disk::<Nothing, Fake>::new(device(MODERN)).map(|_| ()).unwrap_err(), VirtioError::Memory);
}

#[test]
fn what_is_no_request_never_reaches_the_device() {
    let fake = device(MODERN | READ_ONLY | FLUSH);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    let wrong = [
        (Operation::Read, 0, 0),
        (Operation::Read, 0, 511),
        (Operation::Read, 255, 1024),
        (Operation::Read, 0, MOST + 512),
        (Operation::Write, 0, 512),
        (Operation::Flush, 0, 512),
    ];
    for (operation, sector, length) in wrong {
        assert_eq!(disk.send(ticket, operation, sector, length), Err(Failed), "{operation:?} {sector} {length}");
    }
    for sector in [u64::MAX, u64::MAX / 512, 256] {
        assert_eq!(disk.send(ticket, Operation::Read, sector, 512), Err(Failed), "{sector}");
    }
    assert_eq!(disk.send(Ticket(1), Operation::Read, 0, 512), Err(Failed), "a slot that nobody has taken");
    assert_eq!(disk.send(Ticket(99), Operation::Read, 0, 512), Err(Failed));
    assert_eq!(fake.with(|device| device.seen), 0);
    disk.send(ticket, Operation::Read, 0, 512).unwrap();
    assert_eq!(disk.send(ticket, Operation::Read, 0, 512), Err(Failed), "it has been sent");
}

#[test]
fn large_blocks_are_read_and_written_whole() {
    let fake = device(MODERN | WITH_BLOCKS);
    fake.with(|device| device.block_size = 4096);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    assert_eq!(disk.send(ticket, Operation::Read, 0, 512), Err(Failed));
    assert_eq!(disk.send(ticket, Operation::Read, 1, 4096), Err(Failed));
    disk.send(ticket, Operation::Read, 8, 4096).unwrap();
}

#[test]
fn a_device_that_says_it_failed_has_failed_once() {
    let fake = device(MODERN);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    for (length, status) in [(513, 1), (513, 2), (513, 0xff), (512, OK), (0, OK)] {
        fake.next(Answer::Claims(length, status));
        assert_eq!(ask(&mut disk, ticket, Operation::Read, 512), Some(Err(Failed)), "{length} {status}");
        disk.release(ticket);
        assert_eq!(disk.take(None), Some(ticket));
    }
    assert_eq!(ask(&mut disk, ticket, Operation::Read, 512), Some(Ok(())));
}

#[test]
fn an_old_status_is_no_answer_and_what_a_device_has_not_written_is_as_it_was() {
    let fake = device(MODERN);
    let mut disk = begin(&fake);
    let ticket = disk.take(Some(VmId(1))).unwrap();
    fill(&disk, ticket, &[0x55; 4096]);
    assert_eq!(ask(&mut disk, ticket, Operation::Write, 4096), Some(Ok(())));
    disk.release(ticket);
    let ticket = disk.take(Some(VmId(2))).unwrap();
    fill(&disk, ticket, &[0; 4096]);
    fake.next(Answer::Says(4097));
    assert_eq!(ask(&mut disk, ticket, Operation::Read, 4096), Some(Err(Failed)));
    disk.release(ticket);
    assert_eq!(disk.take(Some(VmId(2))), Some(ticket));
    fake.next(Answer::Claims(4097, OK));
    assert_eq!(ask(&mut disk, ticket, Operation::Read, 4096), Some(Ok(())));
    assert_eq!(content(&disk, ticket, 4096), [0; 4096]);
}

#[test]
fn a_device_that_answers_what_nobody_asked_is_given_up() {
    for answer in [Answer::WithId(5), Answer::WithId(0xffff), Answer::WithId(u32::MAX), Answer::Twice] {
        let fake = device(MODERN);
        let mut disk = begin(&fake);
        let (first, second) = (disk.take(None).unwrap(), disk.take(None).unwrap());
        fake.next(Answer::Silent);
        disk.send(first, Operation::Read, 0, 512).unwrap();
        fake.next(answer);
        disk.send(second, Operation::Read, 0, 512).unwrap();
        let resets = fake.with(|device| device.resets);
        disk.take_answers();
        assert_eq!((disk.broken(), disk.result(first)), (Some(VirtioError::WrongRequest), Some(Err(Failed))));
        assert_eq!(fake.with(|device| (device.resets, device.status)), (resets + 1, 0), "{answer:?}");
        disk.release(first);
        let again = disk.take(None).unwrap();
        assert_eq!(disk.send(again, Operation::Read, 0, 512), Err(Failed));
        disk.take_answers();
    }
}

#[test]
fn an_index_from_nowhere_is_no_endless_loop() {
    let fake = device(MODERN);
    let mut disk = begin(&fake);
    let ticket = disk.take(None).unwrap();
    fake.next(Answer::Silent);
    disk.send(ticket, Operation::Read, 0, 512).unwrap();
    // All entries are of the request 0: the first is its answer, the second one too many.
    fake.with(|device| put(device.rings[2] + 2, 0x8000_u16));
    disk.take_answers();
    assert_eq!(disk.broken(), Some(VirtioError::WrongRequest));
    assert_eq!(disk.result(ticket), Some(Err(Failed)), "nothing was written");
}

#[test]
fn a_silent_device_fails_all_that_wait_and_takes_nothing_more() {
    let fake = device(MODERN);
    let mut disk = begin(&fake);
    let tickets: Vec<Ticket> = (0..SLOTS).map(|_| disk.take(None).unwrap()).collect();
    assert_eq!(disk.take(None), None);
    for ticket in &tickets {
        fake.next(Answer::Silent);
        disk.send(*ticket, Operation::Read, 0, 512).unwrap();
    }
    disk.take_answers();
    assert!(tickets.iter().all(|ticket| disk.result(*ticket).is_none() && disk.data(*ticket).is_none()));
    disk.give_up(VirtioError::Silent);
    assert!(tickets.iter().all(|ticket| disk.result(*ticket) == Some(Err(Failed))));
    disk.give_up(VirtioError::WrongRequest);
    assert_eq!(disk.broken(), Some(VirtioError::Silent), "the first reason counts");
}

#[test]
fn a_slot_whose_vm_is_gone_is_free_when_the_device_has_answered() {
    let fake = device(MODERN);
    let mut disk = begin(&fake);
    let (own, others) = (Some(VmId(1)), Some(VmId(2)));
    let sent = disk.take(own).unwrap();
    fake.next(Answer::Silent);
    disk.send(sent, Operation::Write, 0, 512).unwrap();
    let (held, done, other) = (disk.take(own).unwrap(), disk.take(own).unwrap(), disk.take(others).unwrap());
    assert_eq!(ask(&mut disk, done, Operation::Read, 512), Some(Ok(())));
    disk.release_all(VmId(1));
    assert_eq!((disk.take(None), disk.take(None), disk.take(None)), (Some(held), Some(done), None));
    fake.with(|device| {
        let head = device.kept.remove(0);
        let chain = device.chain(head);
        device.answer_with(head.into(), &chain);
    });
    disk.take_answers();
    assert_eq!(disk.take(None), Some(sent));
    assert!(disk.data(other).is_some(), "another's stays");
}

#[test]
fn several_requests_are_answered_in_whatever_order() {
    let fake = device(MODERN);
    let mut disk = begin(&fake);
    let tickets: Vec<Ticket> = (0..SLOTS).map(|_| disk.take(None).unwrap()).collect();
    for (sector, ticket) in (10..).zip(&tickets) {
        fake.next(Answer::Silent);
        disk.send(*ticket, Operation::Read, sector, 512).unwrap();
    }
    fake.with(|device| {
        for head in core::mem::take(&mut device.kept).into_iter().rev() {
            let chain = device.chain(head);
            device.answer_with(head.into(), &chain);
        }
    });
    disk.take_answers();
    for (sector, ticket) in (10..).zip(&tickets) {
        assert_eq!((disk.result(*ticket), content(&disk, *ticket, 1)), (Some(Ok(())), [sector].to_vec()));
    }
}
