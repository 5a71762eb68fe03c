//! A CPU's ring of records.
//!
//! Answers for: one writer, the CPU with its interrupts masked, and one reader on any CPU, without a lock: neither ever waits
//! for the other. A record that finds no room is dropped and counted, and the count comes out in front of the next one that
//! does. Does not answer for: the memory (whoever makes the ring has it), when the reader looks.
//!
//! The newest are dropped, not the oldest: a writer that overwrites needs a barrier for each record and a reader that notices
//! when it was overtaken; this one costs an acquire and a release, and what has been lost is between two records that are
//! there.

use crate::atomic::{AtomicU64, Ordering};

/// Words of a record.
const WORDS: u64 = 4;

/// Records on their way from one CPU to whoever collects them.
#[derive(Debug)]
pub struct Ring<'m> {
    words: &'m [AtomicU64],
    /// How many records there is room for, less one: that is a power of two.
    mask: u64,
    /// Records written so far; the writer's.
    written: AtomicU64,
    /// Records read so far; the reader's.
    read: AtomicU64,
    /// Records dropped since the last one that was written; the writer's.
    lost: AtomicU64,
}

impl<'m> Ring<'m> {
    /// In this memory, whatever is in it. `None` if there is no room for two records.
    #[must_use]
    pub fn new(words: &'m [AtomicU64]) -> Option<Self> {
        let records = u64::try_from(words.len()).ok()? / WORDS;
        let mask = (1_u64 << records.checked_ilog2()?).wrapping_sub(1);
        (mask > 0).then(|| Self {
            words,
            mask,
            written: AtomicU64::new(0),
            read: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        })
    }

    /// Writes a record. `lost` makes one that says how many were dropped before it. Only one may write at a time.
    pub fn write(&self, record: &[u64; 4], lost: impl FnOnce(u64) -> [u64; 4]) {
        let mut written = self.written.load(Ordering::Relaxed);
        let dropped = self.lost.load(Ordering::Relaxed);
        // Behind this, what the reader has read may be overwritten.
        let used = written.wrapping_sub(self.read.load(Ordering::Acquire));
        let wanted = if dropped > 0 { 2 } else { 1 };
        if used.saturating_add(wanted) > self.mask.saturating_add(1) {
            return self.lost.store(dropped.saturating_add(1), Ordering::Relaxed);
        }
        if dropped > 0 {
            self.put(written, &lost(dropped));
            written = written.wrapping_add(1);
            self.lost.store(0, Ordering::Relaxed);
        }
        self.put(written, record);
        self.written.store(written.wrapping_add(1), Ordering::Release);
    }

    fn put(&self, number: u64, record: &[u64; 4]) {
        for (word, value) in self.place(number).iter().zip(record) {
            word.store(*value, Ordering::Relaxed);
        }
    }

    /// Takes the oldest record. Only one may read at a time.
    pub fn read(&self) -> Option<[u64; 4]> {
        let read = self.read.load(Ordering::Relaxed);
        if read == self.written.load(Ordering::Acquire) {
            return None;
        }
        let mut record = [0; 4];
        for (value, word) in record.iter_mut().zip(self.place(read)) {
            *value = word.load(Ordering::Relaxed);
        }
        self.read.store(read.wrapping_add(1), Ordering::Release);
        Some(record)
    }

    /// How many records there is room for.
    pub fn capacity(&self) -> u64 {
        self.mask.saturating_add(1)
    }

    /// How many were dropped behind the last record, once nobody writes any more.
    pub fn lost_at_the_end(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn place(&self, number: u64) -> &'m [AtomicU64] {
        let first = usize::try_from((number & self.mask).wrapping_mul(WORDS)).unwrap_or(usize::MAX);
        self.words.get(first..).unwrap_or_default()
    }
}
