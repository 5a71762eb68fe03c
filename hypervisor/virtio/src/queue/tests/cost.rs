//! How often memory is accessed for a request: each time is a search for the frames behind an address.

use super::*;
use core::sync::atomic::{AtomicUsize, Ordering};
use types::{AccessSize, Range};
use vdev::MemoryFault;

/// Memory that counts.
struct Counting(Ram, AtomicUsize);

impl Counting {
    fn count(&self) -> &Ram {
        self.1.fetch_add(1, Ordering::Relaxed);
        &self.0
    }

    fn take(&self) -> usize {
        self.1.swap(0, Ordering::Relaxed)
    }
}

impl GuestMemory for Counting {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.count().read(from, into)
    }
    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.count().write(to, from)
    }
    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        self.count().load(from, size)
    }
    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        self.count().store(to, size, value)
    }
    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        self.count().exchange(at, size, expected, new)
    }
    fn contains(&self, range: Range<Ipa>) -> bool {
        self.count().contains(range)
    }
}

/// Accesses for taking a chain of so many buffers, for giving it back, and for the look at the driver's wishes.
fn accesses(features: Features, buffers: u64, table: Option<u64>) -> [usize; 3] {
    let both = Both::new(features | ALL, 64);
    let Both { ram, mut driver, mut queue, mut chain } = both;
    let buffers: Vec<Offered> = (0..buffers).map(|at| writable(DATA + at, 1)).collect();
    driver.offer(&ram, &buffers, table).unwrap();
    let memory = Counting(ram, AtomicUsize::new(0));
    assert_eq!(queue.pop(&memory, &mut chain), Ok(true));
    let pop = memory.take();
    queue.push(&memory, &chain, 0).unwrap();
    let push = memory.take();
    queue.wants_interrupt(&memory).unwrap();
    [pop, push, memory.take()]
}

#[test]
fn a_request_takes_few_accesses() {
    // The index, the ring's entry, each descriptor; the element and the index; the event index.
    assert_eq!(accesses(KINDS[0], 3, None), [2 + 3, 2, 1]);
    // The two halves of each descriptor; one of them.
    assert_eq!(accesses(KINDS[1], 3, None), [2 * 3, 1, 1]);
    // A table by 8 descriptors.
    assert_eq!(accesses(KINDS[0], 3, Some(TABLES)), [2 + 1 + 1, 2, 1]);
    assert_eq!(accesses(KINDS[0], 40, Some(TABLES)), [2 + 1 + 5, 2, 1]);
    assert_eq!(accesses(KINDS[1], 40, Some(TABLES)), [2 + 5, 1, 1]);
}
