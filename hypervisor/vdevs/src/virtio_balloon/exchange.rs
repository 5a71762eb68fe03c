//! What a balloon does with its queues (virtio 1.3, 5.5.6).
//!
//! Answers for: page numbers and reports from the guest to the host, a few at a time, and the guest's numbers about its memory. Does
//! not answer for: what becomes of pages (the host's).
//!
//! A page is taken while the request that names it is not void: a driver that resets the device, and uses its pages again, is not
//! overtaken by what it said before.

use super::layout::{DEFLATE, INFLATE, STATS, Statistic, feature, tag};
use alloc::sync::Arc;
use core::iter;
use types::{Ipa, PAGE_SIZE, Range, Ticks};
use vdev::{Balloon, GIVE_BACK_PAGES, Shared};
use virtio::{Features, Next, Request, Service, Serving};
use zerocopy::{FromZeros, IntoBytes};

/// Page numbers that are read at once.
const NUMBERS: usize = 32;
/// Pieces of [`GIVE_BACK_PAGES`] pages of a report in one step: 2 MiB.
const PIECES: usize = 32;
/// Requests to deflate in one step.
const BATCH: usize = 16;
/// Statistics that are looked at; there are 16 (5.5.6.4).
const STATISTICS: usize = 16;
/// How often they are asked for, in nanoseconds.
const PERIOD: u64 = 10_000_000_000;

/// What the guest says of its memory, in bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Statistics {
    pub(super) free: Option<u64>,
    pub(super) available: Option<u64>,
}

/// A request that is done in several steps, or kept.
struct Job {
    request: Request,
    is_begun: bool,
}

impl Job {
    fn new(queue_size: u16) -> Self {
        Self { request: Request::new(queue_size), is_begun: false }
    }

    /// Says whether there is a request, the one that is begun or the next.
    fn begin(&mut self, work: &mut Serving<'_, '_>) -> bool {
        self.is_begun = self.is_begun || work.pop(&mut self.request);
        self.is_begun
    }

    fn end(&mut self, work: &mut Serving<'_, '_>) {
        self.is_begun = false;
        // One that is void is forgotten.
        let _ = work.complete(&self.request);
    }

    /// Takes pages because of it. Says whether it is not void.
    fn take(&mut self, balloon: &dyn Balloon, pages: Range<Ipa>, work: &mut Serving<'_, '_>) -> bool {
        self.is_begun = work.while_alive(&self.request, || balloon.give_back(pages)).is_ok();
        self.is_begun
    }
}

/// Does what there is to do in all queues.
pub(super) struct Exchange {
    balloon: Arc<dyn Balloon>,
    statistics: Shared<Statistics>,
    reports: bool,
    inflation: Job,
    deflation: Request,
    /// Of either place of the queue.
    report: [Job; 2],
    /// The buffer with statistics, which the driver gets back when others are wanted, and when that is.
    about: Job,
    due: Ticks,
}

impl Exchange {
    pub(super) fn new(balloon: Arc<dyn Balloon>, statistics: Shared<Statistics>, queue_size: u16) -> Self {
        let job = || Job::new(queue_size);
        let (report, deflation) = ([job(), job()], Request::new(queue_size));
        Self { balloon, statistics, reports: false, inflation: job(), deflation, report, about: job(), due: Ticks(0) }
    }

    /// Page numbers (5.5.6.1): each is of 4 KiB, whatever the guest's pages are.
    fn inflate(&mut self, work: &mut Serving<'_, '_>) -> Next {
        let job = &mut self.inflation;
        if !job.begin(work) {
            return Next::Idle;
        }
        let mut bytes = [[0; 4]; NUMBERS];
        let Ok(length) = work.read(&mut job.request, bytes.as_flattened_mut()) else {
            job.is_begun = false;
            return Next::Again;
        };
        let count = length.checked_div(size_of::<u32>()).unwrap_or(0);
        if count == 0 {
            job.end(work);
            return Next::Again;
        }
        for pages in runs(bytes.into_iter().take(count).map(u32::from_le_bytes)) {
            if !job.take(&*self.balloon, pages, work) {
                break;
            }
        }
        Next::Again
    }

    /// What is in it comes back when it is touched: there is nothing to do but to say so (5.5.6.1).
    fn deflate(&mut self, work: &mut Serving<'_, '_>) -> Next {
        for _ in 0..BATCH {
            if !work.pop(&mut self.deflation) {
                return Next::Idle;
            }
            let _ = work.complete(&self.deflation);
        }
        Next::Again
    }

    /// The buffers themselves are the free pages (5.5.6.7).
    fn hear_report(job: &mut Job, balloon: &dyn Balloon, work: &mut Serving<'_, '_>) -> Next {
        if !job.begin(work) {
            return Next::Idle;
        }
        for _ in 0..PIECES {
            let Some(area) = job.request.writable_area() else {
                job.end(work);
                break;
            };
            let (pages, length) = first_piece(area);
            job.request.skip_writable(length);
            if !job.take(balloon, pages, work) {
                break;
            }
        }
        Next::Again
    }

    /// The driver has its buffer back when it is to say something new (5.5.6.3).
    fn hear_statistics(&mut self, work: &mut Serving<'_, '_>) -> Next {
        if self.about.is_begun {
            if work.now() < self.due {
                return Next::Until(self.due);
            }
            self.about.end(work);
        }
        if !self.about.begin(work) {
            return Next::Idle;
        }
        let mut all = [Statistic::new_zeroed(); STATISTICS];
        let length = work.read(&mut self.about.request, all.as_mut_bytes()).unwrap_or(0);
        let count = length.checked_div(size_of::<Statistic>()).unwrap_or(0);
        let of = |tag| all.iter().take(count).find(|one| one.tag.get() == tag).map(|one| one.val.get());
        let now = Statistics { free: of(tag::MEMFREE), available: of(tag::AVAIL) };
        let period = work.with(&self.statistics, |statistics, context| {
            *statistics = now;
            context.clock().frequency().nanoseconds(PERIOD)
        });
        self.due = work.now().saturating_add(period);
        Next::Until(self.due)
    }
}

impl Service for Exchange {
    fn begin(&mut self, features: Features) {
        self.reports = features.contains(feature::PAGE_REPORTING);
        let [first, second] = &mut self.report;
        [&mut self.inflation, &mut self.about, first, second].into_iter().for_each(|job| job.is_begun = false);
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        match work.queue() {
            INFLATE => self.inflate(work),
            DEFLATE => self.deflate(work),
            STATS => self.hear_statistics(work),
            _ if !self.reports => Next::Idle,
            queue => {
                let [first, second] = &mut self.report;
                let job = if queue.is_multiple_of(2) { second } else { first };
                Self::hear_report(job, &*self.balloon, work)
            }
        }
    }
}

/// The pages of some numbers, neighbours together: Linux's fall as often as they rise.
fn runs(numbers: impl Iterator<Item = u32>) -> impl Iterator<Item = Range<Ipa>> {
    let mut numbers = numbers.map(u64::from).peekable();
    iter::from_fn(move || {
        let first = numbers.next()?;
        let (mut start, mut end) = (first, first.saturating_add(1));
        while end.saturating_sub(start) < GIVE_BACK_PAGES {
            match numbers.peek() {
                Some(next) if *next == end => end = end.saturating_add(1),
                Some(next) if next.saturating_add(1) == start => start = *next,
                _ => break,
            }
            numbers.next();
        }
        let [start, end] = [start, end].map(|number| Ipa(number.saturating_mul(PAGE_SIZE)));
        Some(Range::between(start, end))
    })
}

/// The whole pages at the beginning of an area, and how many bytes of it have been dealt with then.
fn first_piece(area: Range<Ipa>) -> (Range<Ipa>, u64) {
    const MOST: u64 = GIVE_BACK_PAGES.saturating_mul(PAGE_SIZE);
    let start = area.start();
    let end = start.align_down(PAGE_SIZE).checked_add(MOST).unwrap_or(area.end()).min(area.end());
    let (first, last) = (start.align_up(PAGE_SIZE).unwrap_or(end), end.align_down(PAGE_SIZE));
    (Range::between(first.min(last), last), end.0.saturating_sub(start.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn pages(start: u64, end: u64) -> Range<Ipa> {
        Range::between(Ipa(start * PAGE_SIZE), Ipa(end * PAGE_SIZE))
    }

    #[test]
    fn neighbours_go_together_and_no_more_than_a_step_takes() {
        let all = |numbers: &[u32]| runs(numbers.iter().copied()).collect::<Vec<_>>();
        assert_eq!(all(&[]), []);
        assert_eq!(all(&[7, 8, 9, 4, 3, 1]), [pages(7, 10), pages(3, 5), pages(1, 2)]);
        assert_eq!(all(&[5, 5, 6, 5]), [pages(5, 6), pages(5, 7), pages(5, 6)]);
        let rising: Vec<u32> = (100..140).collect();
        assert_eq!(all(&rising), [pages(100, 116), pages(116, 132), pages(132, 140)]);
        assert_eq!(all(&[0, u32::MAX, 0]), [pages(0, 1), pages(0xffff_ffff, 0x1_0000_0000), pages(0, 1)]);
    }

    #[test]
    fn of_a_reported_area_whole_pages_go_in_steps() {
        let piece = |start, end| first_piece(Range::between(Ipa(start), Ipa(end)));
        assert_eq!(piece(0x1000, 0x20_1000), (pages(1, 17), 0x1_0000));
        assert_eq!(piece(0x1800, 0x3800), (pages(2, 3), 0x2000));
        assert_eq!(piece(0x1800, 0x1900), (pages(1, 1), 0x100), "no whole page");
        assert_eq!(piece(0x1000, 0x2000), (pages(1, 2), 0x1000));
        let last = u64::MAX - 0x1fff;
        assert_eq!(piece(last, u64::MAX), (Range::between(Ipa(last), Ipa(!0xfff)), 0x1fff));
    }
}
