//! A ring's writer and reader under every kind of interleaving.
//!
//! `shuttle` runs each test many times with its own atomics and decides at each of them who goes on. What is tested is the
//! source that the kernel runs, compiled here once more with those atomics in place of the hardware's. Orderings weaker than
//! sequential consistency are not explored.

#![allow(unreachable_pub, dead_code, missing_docs, reason = "a module of the crate, compiled as a part of this test")]
#![allow(clippy::unwrap_used, reason = "a test")]

mod atomic {
    pub(crate) use shuttle::sync::atomic::{AtomicU64, Ordering};
}
#[path = "../src/ring.rs"]
mod ring;

use ring::Ring;
use shuttle::sync::atomic::AtomicU64;
use shuttle::thread;

const RUNS: usize = 3000;
/// In the first word of a record that says how many are missing.
const LOST: u64 = u64::MAX;

/// A record in which every word says which it is: a torn one would be noticed.
fn record(number: u64) -> [u64; 4] {
    [number, number + 1000, number + 2000, number + 3000]
}

/// Memory for so many records.
fn memory(records: usize) -> &'static [AtomicU64] {
    Box::leak((0..records * 4).map(|_| AtomicU64::new(0)).collect())
}

/// What of `count` records comes out while they are written: whole, in order, and what is missing is counted in its place.
fn check(capacity: usize, count: u64, looks: usize) {
    let ring: &'static Ring<'static> = Box::leak(Box::new(Ring::new(memory(capacity)).unwrap()));
    let writer = thread::spawn(move || (0..count).for_each(|n| ring.write(&record(n), |lost| [LOST, lost, 0, 0])));
    let mut next = 0;
    let mut see = |found: [u64; 4]| match found {
        [LOST, lost, 0, 0] => {
            assert!(lost > 0);
            next += lost;
        }
        whole => {
            assert_eq!(whole, record(next), "torn, out of order, or missing without a word");
            next += 1;
        }
    };
    for _ in 0..looks {
        if let Some(found) = ring.read() {
            see(found);
        }
        thread::yield_now();
    }
    writer.join().unwrap();
    while let Some(found) = ring.read() {
        see(found);
    }
    assert_eq!(next + ring.lost_at_the_end(), count);
}

#[test]
fn records_come_whole_and_in_order_and_losses_are_counted_where_they_are() {
    for capacity in [2, 4, 5] {
        let test = move || check(capacity, 7, 6);
        shuttle::check_random(test, RUNS);
        shuttle::check_pct(test, RUNS, 3);
    }
}

#[test]
fn a_ring_goes_round_and_fills_up() {
    shuttle::check_random(
        || {
            let ring = Ring::new(memory(4)).unwrap();
            let lost = |lost| [LOST, lost, 0, 0];
            for round in 0..10 {
                (0..4).for_each(|n| ring.write(&record(round * 4 + n), lost));
                assert_eq!([(); 4].map(|()| ring.read().unwrap()), [0, 1, 2, 3].map(|n| record(round * 4 + n)));
            }
            assert_eq!(ring.read(), None);
            (0..6).for_each(|n| ring.write(&record(n), lost));
            assert_eq!(ring.lost_at_the_end(), 2);
            // With room for one, there is none for a record and the count before it.
            assert_eq!(ring.read(), Some(record(0)));
            ring.write(&record(6), lost);
            assert_eq!((ring.lost_at_the_end(), ring.read()), (3, Some(record(1))));
            ring.write(&record(7), lost);
            let found = [(); 4].map(|()| ring.read().unwrap());
            assert_eq!(found, [record(2), record(3), lost(3), record(7)]);
        },
        1,
    );
}

#[test]
fn memory_that_is_too_small_makes_no_ring() {
    shuttle::check_random(|| assert!(Ring::new(memory(1)).is_none() && Ring::new(memory(0)).is_none()), 1);
}
