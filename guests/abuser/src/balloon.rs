//! A balloon's driver (virtio 1.3, 5.5) that says what it should and much that it should not, and looks what becomes of memory.
//!
//! Answers for: two queues of page numbers and one of reports, a request at a time. Does not answer for: what a real driver does, which
//! is to give back what it can do without and to leave it alone.

use core::ops::Range;
use core::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64};

use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::println;
use guest_rt::registers::{dsb, relax};

use crate::Abuse;

/// Entries of a queue.
const SIZE: usize = 4;
/// Page numbers of a request.
const NUMBERS: usize = 1024;
const PAGE: u64 = 4096;

/// Device ID (5.5.1), queues (5.5.2).
const BALLOON: u32 = 5;
const INFLATE: usize = 0;
const DEFLATE: usize = 1;
const REPORT: usize = 2;
const QUEUE_NUMBERS: [u32; 3] = [0, 1, 4];
/// `VIRTIO_BALLOON_F_MUST_TELL_HOST` and `VIRTIO_BALLOON_F_PAGE_REPORTING`; `VIRTIO_F_VERSION_1`, in the upper word.
const MUST_TELL_HOST: u32 = 1 << 0;
const PAGE_REPORTING: u32 = 1 << 5;
const VERSION_1: u32 = 1;
/// The device writes to the buffer (2.7.5).
const WRITE: u64 = 2;

/// Cycles if no argument says how many.
const CYCLES: u64 = 4;

/// A split queue (2.7): areas behind one another, each aligned as it has to be.
#[repr(C, align(4096))]
struct Queue {
    /// Address; then length in bits 31 to 0, and flags.
    descriptors: [[AtomicU64; 2]; SIZE],
    /// Flags, index, ring; only head 0 is ever in it.
    available: [AtomicU16; 2 + SIZE],
    /// Flags, with the index above; ring.
    used: [AtomicU32; 1 + 2 * SIZE],
    /// Requests so far.
    count: AtomicU16,
}

static QUEUES: [Queue; 3] = [const {
    Queue {
        descriptors: [const { [const { AtomicU64::new(0) }; 2] }; SIZE],
        available: [const { AtomicU16::new(0) }; 2 + SIZE],
        used: [const { AtomicU32::new(0) }; 1 + 2 * SIZE],
        count: AtomicU16::new(0),
    }
}; 3];
static PAGES: [AtomicU32; NUMBERS] = [const { AtomicU32::new(0) }; NUMBERS];

/// The device, and whether it takes reports.
#[derive(Clone, Copy)]
struct Balloon {
    device: Mmio,
    reports: bool,
}

impl Balloon {
    /// As 3.1.1 has it: features, the queues, ready. `None` if there is no balloon, or it is not content.
    fn start(machine: &'static Machine) -> Option<Self> {
        let (registers, _) = machine.virtio.as_ref()?;
        // SAFETY: the tree says that a virtio device is there.
        let device = unsafe { Mmio::new(registers.start as usize) };
        if device.read(0x08) != BALLOON {
            return None;
        }
        for (register, value) in [(0x70, 0), (0x70, 1), (0x70, 3), (0x14, 0)] {
            device.write(register, value);
        }
        let offered = device.read(0x10);
        let reports = offered & PAGE_REPORTING != 0;
        let features = offered & (MUST_TELL_HOST | PAGE_REPORTING);
        for (register, value) in [(0x24, 0), (0x20, features), (0x24, 1), (0x20, VERSION_1), (0x70, 11)] {
            device.write(register, value);
        }
        for (number, queue) in QUEUE_NUMBERS.iter().zip(&QUEUES).take(if reports { 3 } else { 2 }) {
            let areas = [
                (0x80, queue.descriptors.as_ptr() as u64),
                (0x90, queue.available.as_ptr() as u64),
                (0xa0, queue.used.as_ptr() as u64),
            ];
            queue.available.iter().for_each(|half| half.store(0, Relaxed));
            queue.used.iter().for_each(|word| word.store(0, Relaxed));
            queue.count.store(0, Relaxed);
            device.write(0x30, *number);
            device.write(0x38, SIZE as u32);
            for (register, address) in areas {
                device.write(register, address as u32);
                device.write(register + 4, (address >> 32) as u32);
            }
            device.write(0x44, 1);
        }
        device.write(0x70, 15);
        (device.read(0x70) == 15).then_some(Self { device, reports })
    }

    /// Makes a request of one buffer and waits for its end, if that is wanted.
    fn say(&self, queue: usize, address: u64, length: u64, flags: u64, wait: bool) {
        let (number, queue) = (QUEUE_NUMBERS[queue], &QUEUES[queue]);
        let count = queue.count.load(Relaxed).wrapping_add(1);
        queue.count.store(count, Relaxed);
        queue.descriptors[0][0].store(address, Relaxed);
        queue.descriptors[0][1].store(length | flags << 32, Relaxed);
        queue.available[1].store(count, Release);
        dsb();
        self.device.write(0x50, number);
        while wait && queue.used[0].load(Acquire) >> 16 != u32::from(count) {
            relax();
        }
    }

    /// Names pages, [`NUMBERS`] at a time.
    fn name(&self, queue: usize, numbers: impl Iterator<Item = u32>) -> u64 {
        let (mut numbers, mut all) = (numbers.peekable(), 0);
        while numbers.peek().is_some() {
            let mut length = 0;
            for (place, number) in PAGES.iter().zip(&mut numbers) {
                place.store(number, Relaxed);
                length += 4;
            }
            self.say(queue, PAGES.as_ptr() as u64, length, 0, true);
            all += length / 4;
        }
        all
    }
}

/// The part of RAM that comes and goes: not what the guest stands on.
fn spare(machine: &Machine) -> Range<u64> {
    const BELOW: u64 = 8 << 20;
    const LENGTH: u64 = 16 << 20;
    let memory = &machine.memory[0];
    let start = memory.start + BELOW;
    let end = (start + LENGTH).min(memory.end);
    // The tree is at either end of RAM, or in between.
    if (start..end).contains(&machine.tree.start) { start..machine.tree.start & !(PAGE - 1) } else { start..end }
}

/// Whether a page of it goes in this cycle.
fn goes(page: u64, cycle: u64) -> bool {
    (page / PAGE).wrapping_add(cycle).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 62 != 0
}

fn mark(page: u64, cycle: u64) -> u64 {
    page ^ cycle << 48 ^ 0x5aa5_0ff0_a55a_f00f
}

/// Page numbers that are nobody's, among them any number at all that is no page of our RAM.
fn nowhere(abuse: &mut Abuse, index: u64) -> Option<u32> {
    let number = abuse.random.value() as u32;
    let own = abuse.machine.memory.iter().any(|range| range.contains(&(u64::from(number) * PAGE)));
    (index.is_multiple_of(5) && !own).then_some(number)
}

/// Gives pages back, with rubbish between them, and looks: what went is zero, what stayed is as it was. Takes all of it again, by
/// touching it, and begins anew. Returns how many numbers it named.
pub(crate) fn give_and_take(abuse: &mut Abuse) -> u64 {
    let machine = abuse.machine;
    let Some(balloon) = Balloon::start(machine) else { return 0 };
    let cycles = machine.numeric_argument("cycles").unwrap_or(CYCLES);
    let (mut named, mut wrong, mut looked) = (0, 0_u64, 0_u64);
    let Range { start, end } = spare(machine);
    let pages = || (start..end).step_by(PAGE as usize);
    // SAFETY: RAM of ours in which nothing is.
    let at = |page: u64| unsafe { Mmio::new(page as usize) };
    for cycle in 0..cycles {
        for page in pages() {
            for offset in [0, PAGE as usize - 8] {
                at(page).write64(offset, mark(page, cycle));
            }
        }
        let report = balloon.reports && cycle % 2 == 1;
        if report {
            // All of it, in one buffer, and then once more; but for a few bytes at both ends, of which the pages stay.
            for _ in 0..2 {
                balloon.say(REPORT, start + 8, end - start - 16, WRITE, true);
            }
            named += 2;
        } else {
            // Falling on every other occasion, twice each, and rubbish.
            let numbers = pages().filter(|page| goes(*page, cycle)).map(|page| (page / PAGE) as u32);
            let numbers = numbers.enumerate().flat_map(|(index, number)| {
                [Some(number), nowhere(abuse, index as u64), index.is_multiple_of(3).then_some(number)]
                    .into_iter()
                    .flatten()
            });
            named += balloon.name(INFLATE, numbers);
        }
        for page in pages() {
            let edge = page == start || page + PAGE == end;
            let gone = if report { !edge } else { goes(page, cycle) };
            let expected = if gone { 0 } else { mark(page, cycle) };
            looked += 1;
            if [0, PAGE as usize - 8].iter().any(|offset| at(page).read64(*offset) != expected) {
                wrong += 1;
            }
        }
        named += balloon.name(DEFLATE, pages().map(|page| (page / PAGE) as u32));
    }
    println!("balloon: {wrong} wrong of {looked}");
    balloon.device.write(0x70, 0);
    named
}

/// Gives back all that there is, whatever is there: what it stands on, and its queue, come last.
pub(crate) fn give_all(abuse: &mut Abuse) -> u64 {
    let machine = abuse.machine;
    let Some(balloon) = Balloon::start(machine) else { return 0 };
    println!("abuser: good-bye");
    let all = machine.memory.iter().flat_map(|range| (range.start / PAGE..range.end / PAGE).rev());
    balloon.name(INFLATE, all.map(|number| number as u32));
    loop {
        relax();
    }
}
