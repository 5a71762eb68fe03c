//! Queues of both kinds against the driver of `testing`, each mistake that a driver can make, and `virtio-queue` as an oracle.

mod cost;
mod errors;
mod oracle;

use super::*;
use crate::testing::{Driver, Offered, Wish};
use alloc::{vec, vec::Vec};
use proptest::prelude::*;
use types::AccessSize;
use vdev::MemoryFault;
use vdev::testkit::Ram;

const BASE: u64 = 0x8000_0000;
const DATA: u64 = BASE + 0x8000;
const TABLES: u64 = BASE + 0x4000;

fn ram() -> Ram {
    Ram::new(Ipa(BASE), 0x1_0000)
}

fn readable(address: u64, length: u32) -> Offered {
    Offered { address, length, writable: false }
}

fn writable(address: u64, length: u32) -> Offered {
    Offered { address, length, writable: true }
}

/// A device and a driver at one queue.
struct Both {
    ram: Ram,
    driver: Driver,
    queue: Queue,
    chain: Chain,
}

impl Both {
    fn new(features: Features, size: u16) -> Self {
        let (layout, end) = Driver::place(BASE, size);
        assert!(end <= TABLES);
        let queue = Queue::new(features, &layout).unwrap();
        Self { ram: ram(), driver: Driver::new(features, layout), queue, chain: Chain::new(size) }
    }

    fn offer(&mut self, buffers: &[Offered]) -> u16 {
        self.driver.offer(&self.ram, buffers, None).expect("room")
    }

    fn pop(&mut self) -> Result<bool, RingError> {
        self.queue.pop(&self.ram, &mut self.chain)
    }

    fn push(&mut self, written: u32) {
        self.queue.push(&self.ram, &self.chain, written).unwrap();
    }

    fn wants(&mut self) -> bool {
        self.queue.wants_interrupt(&self.ram).unwrap()
    }
}

/// Both kinds, and what is asked of both.
const KINDS: [Features; 2] = [Features::empty(), Features::RING_PACKED];
const ALL: Features = Features::INDIRECT_DESC.union(Features::EVENT_IDX);

/// Each byte of what is left.
fn left_to_read(chain: &mut Chain, memory: &Ram) -> Vec<u8> {
    let mut all = Vec::new();
    let mut part = [0; 100];
    loop {
        match chain.reader().read(memory, &mut part).unwrap() {
            0 => return all,
            count => all.extend(&part[..count]),
        }
    }
}

#[test]
fn the_layout_is_that_of_the_specification() {
    use core::mem::size_of;
    use virtio_spec::pvirtq;
    assert_eq!(size_of::<pvirtq::Desc>(), 16);
    assert_eq!(size_of::<pvirtq::EventSuppress>(), 4);
    assert_eq!(size_of::<virtio_spec::virtq::Desc>(), 16);
}

#[test]
fn a_request_goes_to_the_device_and_its_answer_back() {
    for kind in KINDS {
        let mut both = Both::new(kind, 4);
        both.ram.write(Ipa(DATA), b"question").unwrap();
        assert_eq!(both.pop(), Ok(false));
        let id = both.offer(&[
            readable(DATA, 3),
            readable(DATA + 3, 5),
            writable(DATA + 0x100, 2),
            writable(DATA + 0x200, 4),
        ]);
        assert_eq!(both.pop(), Ok(true));
        assert_eq!((both.chain.reader().remaining(), both.chain.writer().remaining()), (8, 6));
        assert_eq!(left_to_read(&mut both.chain, &both.ram), b"question");
        assert_eq!(both.chain.writer().write(&both.ram, b"reply and more"), Ok(6), "as much as there is room for");
        assert_eq!(both.chain.written(), 6);
        assert_eq!(both.driver.take_used(&both.ram), None);
        both.push(6);
        assert_eq!(both.driver.take_used(&both.ram), Some((id, Some(6))));
        let mut answer = [0; 4];
        both.ram.read(Ipa(DATA + 0x200), &mut answer).unwrap();
        assert_eq!(&answer, b"ply ");
        assert_eq!((both.pop(), both.driver.take_used(&both.ram)), (Ok(false), None));
    }
}

#[test]
fn a_packed_queue_says_whether_anything_was_written() {
    let mut both = Both::new(Features::RING_PACKED, 3);
    let id = both.offer(&[readable(DATA, 4)]);
    both.pop().unwrap();
    both.push(0);
    assert_eq!(both.driver.take_used(&both.ram), Some((id, None)));
}

#[test]
fn queues_of_any_size_go_round_many_times_and_out_of_order() {
    for (kind, sizes) in [(Features::empty(), [1, 2, 4, 64]), (Features::RING_PACKED, [1, 3, 5, 64])] {
        for size in sizes {
            let mut both = Both::new(kind | ALL, size);
            let mut others: Vec<Chain> = (0..4).map(|_| Chain::new(size)).collect();
            for round in 0..70_000_u32 / u32::from(size) {
                let (mut offered, mut taken) = (Vec::new(), 0);
                for number in 0..4 {
                    let length = 1 + (round + number) % 3;
                    let buffers: Vec<Offered> =
                        (0..length).map(|piece| writable(DATA + u64::from(0x100 * number + 0x10 * piece), 5)).collect();
                    let table =
                        (round % 5 == number && length <= size.into()).then_some(TABLES + u64::from(0x100 * number));
                    offered.extend(both.driver.offer(&both.ram, &buffers, table).map(|id| (id, length * 5)));
                }
                assert!(!offered.is_empty() || size < 3);
                for chain in others.iter_mut().take(offered.len()) {
                    assert_eq!(both.queue.pop(&both.ram, chain), Ok(true));
                    assert_eq!(chain.id(), offered[taken].0);
                    assert_eq!(chain.writer().remaining(), u64::from(offered[taken].1));
                    taken += 1;
                }
                assert_eq!(both.pop(), Ok(false));
                // The last one first.
                for (chain, (id, length)) in others.iter().take(taken).zip(&offered).rev() {
                    both.queue.push(&both.ram, chain, *length).unwrap();
                    assert_eq!(both.driver.take_used(&both.ram), Some((*id, Some(*length))));
                }
                assert_eq!(both.driver.room(), size);
            }
        }
    }
}

#[test]
fn a_table_of_descriptors_is_a_chain() {
    for kind in KINDS {
        let mut both = Both::new(kind | Features::INDIRECT_DESC, 64);
        let buffers: Vec<Offered> = (0..40).map(|i| readable(DATA + 64 * i, 2)).chain([writable(DATA, 9)]).collect();
        let bytes: Vec<u8> = (0..80).collect();
        bytes.chunks(2).zip(0..).for_each(|(two, i)| both.ram.write(Ipa(DATA + 64 * i), two).unwrap());
        both.driver.offer(&both.ram, &buffers, Some(TABLES)).unwrap();
        assert_eq!(both.pop(), Ok(true));
        assert_eq!(left_to_read(&mut both.chain, &both.ram), bytes);
        assert_eq!(both.chain.writer().remaining(), 9);
    }
}

#[test]
fn a_split_chain_may_end_in_a_table() {
    let mut both = Both::new(Features::INDIRECT_DESC, 8);
    both.offer(&[readable(DATA, 4), readable(TABLES, 32)]);
    // 2.7.5.3.2: the write flag of the descriptor that refers to the table is ignored.
    errors::set_flags(&both.ram, 6, 4 | 2);
    errors::descriptor(&both.ram, TABLES, DATA + 8, 3, 1, 1);
    errors::descriptor(&both.ram, TABLES + 16, DATA + 12, 5, 2, 0);
    assert_eq!(both.pop(), Ok(true));
    assert_eq!((both.chain.reader().remaining(), both.chain.writer().remaining()), (7, 5));
}

#[test]
fn flags_in_a_packed_table_mean_nothing_but_for_writing() {
    let mut both = Both::new(Features::RING_PACKED | Features::INDIRECT_DESC, 8);
    both.driver.offer(&both.ram, &[readable(DATA, 4), writable(DATA, 5)], Some(TABLES)).unwrap();
    both.ram.write(Ipa(TABLES + 14), &(!2_u16).to_le_bytes()).unwrap();
    assert_eq!(both.pop(), Ok(true));
    assert_eq!((both.chain.reader().remaining(), both.chain.writer().remaining()), (4, 5));
}

#[test]
fn a_legacy_queue_is_in_one_piece() {
    // The numbers of Linux' vring_init for 256 entries and an alignment of 4096, and of 8 and 64.
    let layout = Layout::legacy(Ipa(0x10_0000), 256, 4096).unwrap();
    assert_eq!((layout.descriptor_area, layout.driver_area), (Ipa(0x10_0000), Ipa(0x10_1000)));
    assert_eq!(layout.device_area, Ipa(0x10_2000));
    let layout = Layout::legacy(Ipa(0x10_0000), 8, 64).unwrap();
    assert_eq!((layout.driver_area, layout.device_area), (Ipa(0x10_0080), Ipa(0x10_00c0)));
    assert_eq!(Layout::legacy(Ipa(0x1000), 8, 0), None);
    assert_eq!(Layout::legacy(Ipa(0x1000), 8, 24), None);
    assert_eq!(Layout::legacy(Ipa(u64::MAX - 64), 8, 16), None);
}

#[test]
fn without_event_indices_a_driver_has_all_interrupts_or_none() {
    for kind in KINDS {
        let mut both = Both::new(kind, 4);
        assert!(!both.wants(), "nothing was given back");
        for (wish, wanted) in [(Wish::Always, true), (Wish::Never, false), (Wish::Always, true)] {
            both.driver.want_interrupt(&both.ram, wish);
            both.offer(&[writable(DATA, 4)]);
            both.pop().unwrap();
            both.push(4);
            assert_eq!((both.wants(), both.wants()), (wanted, false), "{wish:?}, and once");
            both.driver.take_used(&both.ram);
        }
    }
}

#[test]
fn an_interrupt_comes_when_the_batch_has_the_index_that_the_driver_named() {
    for (kind, size) in [(KINDS[0], 4), (KINDS[0], 8), (KINDS[1], 4), (KINDS[1], 7)] {
        let mut both = Both::new(kind | Features::EVENT_IDX, size);
        // Over the end of the 16-bit index, at every place of the ring, for all batches and wishes.
        for round in 0..80_000_u32 {
            let batch = 1 + (round % u32::from(size)) as u16;
            let ahead = ((round / 7) % u32::from(size)) as u16;
            both.driver.want_interrupt(&both.ram, Wish::At(ahead));
            for _ in 0..batch {
                both.offer(&[writable(DATA, 4)]);
            }
            for _ in 0..batch {
                both.pop().unwrap();
                both.push(4);
            }
            assert_eq!(both.wants(), ahead < batch, "round {round}: {batch} used, wanted after {ahead}");
            while both.driver.take_used(&both.ram).is_some() {}
        }
    }
}

#[test]
fn a_packed_driver_with_event_indices_can_still_have_all_or_none() {
    let mut both = Both::new(Features::RING_PACKED | Features::EVENT_IDX, 4);
    for (wish, wanted) in [(Wish::Always, true), (Wish::Never, false)] {
        both.driver.want_interrupt(&both.ram, wish);
        both.offer(&[writable(DATA, 4)]);
        both.pop().unwrap();
        both.push(4);
        assert_eq!(both.wants(), wanted);
        both.driver.take_used(&both.ram);
    }
}

#[test]
fn a_list_in_a_packed_ring_counts_for_all_of_its_places() {
    let mut both = Both::new(Features::RING_PACKED | Features::EVENT_IDX, 8);
    both.driver.want_interrupt(&both.ram, Wish::At(2));
    both.offer(&[writable(DATA, 1), writable(DATA, 1), writable(DATA, 1)]);
    both.pop().unwrap();
    both.push(3);
    assert!(both.wants());
}

proptest! {
    /// No notification is missed: whatever is made available while the device says that it need not be told, it has been told that
    /// there is more when it asks for notifications again, or the driver must notify.
    #[test]
    fn a_device_that_stops_looking_is_told(
        packed in any::<bool>(),
        events in any::<bool>(),
        steps in prop::collection::vec((0_u8..4, 1_u8..4), 1..400),
    ) {
        let mut features = if packed { Features::RING_PACKED } else { Features::empty() };
        features.set(Features::EVENT_IDX, events);
        let mut both = Both::new(features, 8);
        // The device sleeps until it is told; it has been told of the queue itself.
        let (mut asleep, mut told) = (false, true);
        for (step, count) in steps {
            match step {
                0 | 1 => {
                    for _ in 0..count {
                        both.driver.offer(&both.ram, &[writable(DATA, 4)], None);
                    }
                    told |= both.driver.must_notify(&both.ram);
                }
                2 if !asleep || told => {
                    (asleep, told) = (false, false);
                    prop_assert_eq!(both.queue.expect_notification(&both.ram, false), Ok(false));
                    for _ in 0..count {
                        if both.pop().unwrap() {
                            both.push(0);
                        }
                    }
                }
                _ if !asleep => {
                    let more = both.queue.expect_notification(&both.ram, true).unwrap();
                    asleep = !more;
                }
                _ => {}
            }
            while both.driver.take_used(&both.ram).is_some() {}
            if asleep && !told {
                let mut look = Chain::new(8);
                prop_assert_eq!(both.queue.pop(&both.ram, &mut look), Ok(false), "it sleeps over something");
            }
        }
    }

    /// Cursors copy what is there, in order, wherever the buffers' borders are.
    #[test]
    fn cursors_know_no_borders(
        lengths in prop::collection::vec((0_u32..40, 0_u32..40), 1..50),
        steps in prop::collection::vec((any::<bool>(), 0_usize..200), 1..60),
    ) {
        let ram = ram();
        let mut chain = Chain::new(128);
        chain.begin(128);
        let (mut input, mut address) = (Vec::new(), DATA);
        let sources: Vec<Offered> = lengths.iter().map(|(length, _)| { address += 41; readable(address, *length) }).collect();
        let targets: Vec<Offered> = lengths.iter().map(|(_, length)| { address += 41; writable(address, *length) }).collect();
        for (number, buffer) in sources.iter().chain(&targets).enumerate() {
            let contents = vec![number as u8; buffer.length as usize];
            ram.write(Ipa(buffer.address), &contents).unwrap();
            if !buffer.writable {
                input.extend(contents);
            }
            let flags = if buffer.writable { 2 } else { 0 };
            chain.add(&Descriptor { address: Ipa(buffer.address), length: buffer.length, flags, link: 0 }).unwrap();
        }
        let room: usize = targets.iter().map(|buffer| buffer.length as usize).sum();
        let (mut read, mut written) = (0, 0);
        for (skip, count) in steps {
            let mut part = vec![0; count];
            if skip {
                chain.reader().skip(count as u64);
                chain.writer().skip(count as u64);
                read = input.len().min(read + count);
                written = room.min(written + count);
            } else {
                let done = chain.reader().read(&ram, &mut part).unwrap();
                prop_assert!(done == count || done == input.len() - read || count > 32);
                prop_assert_eq!(&part[..done], &input[read..read + done]);
                read += done;
                written += chain.writer().write(&ram, &vec![0xee; count]).unwrap();
            }
            prop_assert_eq!(chain.reader().remaining(), (input.len() - read) as u64);
            prop_assert_eq!(chain.writer().remaining(), (room - written) as u64);
        }
    }
}

#[test]
fn what_is_written_behind_a_gap_does_not_count() {
    let mut both = Both::new(Features::empty(), 4);
    both.offer(&[writable(DATA, 8), writable(DATA + 0x100, 8)]);
    both.pop().unwrap();
    assert_eq!(both.chain.writer().write(&both.ram, b"abc"), Ok(3));
    both.chain.writer().skip(0);
    assert_eq!(both.chain.writer().write(&both.ram, b"de"), Ok(2));
    both.chain.writer().skip(10);
    assert_eq!((both.chain.writer().remaining(), both.chain.written()), (1, 5));
    assert_eq!(both.chain.writer().write(&both.ram, b"x"), Ok(1));
    assert_eq!((both.chain.writer().remaining(), both.chain.written()), (0, 5));
    let mut last = [0];
    both.ram.read(Ipa(DATA + 0x107), &mut last).unwrap();
    assert_eq!(&last, b"x");
}

#[test]
fn a_step_copies_so_many_bytes_and_buffers_and_no_more() {
    let mut both = Both::new(Features::empty(), 256);
    both.offer(&[readable(DATA, 2 * STEP as u32)]);
    both.pop().unwrap();
    let mut into = vec![0; 3 * STEP];
    assert_eq!(both.chain.reader().read(&both.ram, &mut into), Ok(STEP));
    assert_eq!(both.chain.reader().read(&both.ram, &mut into), Ok(STEP));
    assert_eq!(both.chain.reader().read(&both.ram, &mut into), Ok(0));
    let many: Vec<Offered> = (0..100).map(|at| writable(DATA + 2 * at, 1)).collect();
    both.offer(&many);
    both.pop().unwrap();
    assert_eq!(both.chain.writer().write(&both.ram, &[1; 100]), Ok(crate::STEP_BUFFERS));
    assert_eq!(both.chain.writer().remaining(), 100 - crate::STEP_BUFFERS as u64);
}

const STEP: usize = crate::STEP_BYTES;

/// Memory that does not take a certain store, as if it came last.
struct Without<'a>(&'a Ram, Ipa);

impl GuestMemory for Without<'_> {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.0.read(from, into)
    }
    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.0.write(to, from)
    }
    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.0.load(from, size)
    }
    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        if to == self.1 { Err(MemoryFault { at: to }) } else { self.0.store(to, size, value) }
    }
    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        self.0.exchange(at, size, expected, new)
    }
    fn contains(&self, range: types::Range<Ipa>) -> bool {
        self.0.contains(range)
    }
}

#[test]
fn a_driver_sees_all_parts_of_one_thing_or_none() {
    let (layout, _) = Driver::place(BASE, 8);
    // What the driver looks at first: the used ring's index, the first descriptor's flags.
    let decisive = [layout.device_area.0 + 2, layout.descriptor_area.0 + 8].map(Ipa);
    for (kind, decisive) in KINDS.into_iter().zip(decisive) {
        for is_stored in [false, true] {
            let mut both = Both::new(kind, 8);
            let ids = [0, 1, 2].map(|at| both.offer(&[writable(DATA + at * 0x10, 8)]));
            let mut chains = [(); 3].map(|()| Chain::new(8));
            for (chain, length) in chains.iter_mut().zip(3..) {
                assert_eq!(both.queue.pop(&both.ram, chain), Ok(true));
                chain.writer().write(&both.ram, &[7; 8][..length]).unwrap();
            }
            if is_stored {
                both.queue.push_together(&both.ram, &mut chains.iter()).unwrap();
                let used = [(); 3].map(|()| both.driver.take_used(&both.ram));
                assert_eq!(used, [(ids[0], Some(3)), (ids[1], Some(4)), (ids[2], Some(5))].map(Some));
            } else {
                let memory = Without(&both.ram, decisive);
                assert!(both.queue.push_together(&memory, &mut chains.iter()).is_err());
            }
            assert_eq!(both.driver.take_used(&both.ram), None);
        }
    }
}
