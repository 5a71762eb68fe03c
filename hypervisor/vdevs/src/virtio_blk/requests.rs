//! What a block device does with requests (virtio 1.3, 5.2.6).
//!
//! Answers for: reading requests, doing them on a disk, and saying how that went. A long one is done in parts, so that nobody waits
//! long for the worker. Does not answer for: the disk, queues, nor which requests the driver has been told of.

use super::layout::{Header, MOST_ZEROED, SERIAL, Segment, Status, UNMAP, request};
use alloc::{boxed::Box, vec::Vec};
use vdev::{BlockDevice, BlockError, SECTOR};
use virtio::{Next, Request, Service, Serving, Stopped};
use zerocopy::{FromZeros, IntoBytes};

/// Requests, or parts of them, that are done in one step.
const BATCH: usize = 8;
/// Bytes that are copied in one step; more are left for the next.
const PART: u64 = 64 << 10;

/// Does the requests of all queues, one after the other.
pub(super) struct Requests {
    disk: Box<dyn BlockDevice>,
    serial: [u8; SERIAL],
    /// For each queue the request that is being done.
    slots: Vec<Slot>,
}

/// A request, and how far it is.
struct Slot {
    request: Request,
    job: Option<Job>,
}

/// What is left of a request that copies.
#[derive(Clone, Copy)]
struct Job {
    write: bool,
    offset: u64,
    left: u64,
}

/// What becomes of a request.
enum Outcome {
    /// It has been done, or not.
    Done(Status),
    /// It goes on.
    Copying(Job),
    /// It has been done, and given back.
    GivenBack,
}

impl Requests {
    pub(super) fn new(disk: Box<dyn BlockDevice>, serial: [u8; SERIAL], queues: u16, queue_size: u16) -> Self {
        let slots = (0..queues).map(|_| Slot { request: Request::new(queue_size), job: None }).collect();
        Self { disk, serial, slots }
    }
}

impl Service for Requests {
    fn waits(&self) -> bool {
        self.disk.waits()
    }

    fn begin(&mut self, _: virtio::Features) {
        self.slots.iter_mut().for_each(|slot| slot.job = None);
    }

    fn serve(&mut self, work: &mut Serving<'_, '_>) -> Next {
        let Some(slot) = self.slots.get_mut(usize::from(work.queue())) else { return Next::Idle };
        let mut budget = PART;
        for _ in 0..BATCH {
            let outcome = if let Some(job) = slot.job.take() {
                copy(job, &mut *self.disk, &mut slot.request, work, &mut budget)
            } else {
                let mut header = Header::default();
                let Some(read) = work.pop_reading(&mut slot.request, header.as_mut_bytes()) else { return Next::Idle };
                let header = (read == size_of::<Header>()).then_some(header);
                begin(header, (&mut *self.disk, &self.serial), &mut slot.request, work, &mut budget)
            };
            match outcome {
                Ok(Outcome::Copying(job)) => {
                    slot.job = Some(job);
                    return Next::Again;
                }
                // What cannot be completed any more has nobody who waits for it.
                Ok(Outcome::Done(status)) => _ = finish(status, &mut slot.request, work),
                Ok(Outcome::GivenBack) | Err(Stopped) => {}
            }
        }
        Next::Again
    }
}

/// Does a request, or its first part. Without a whole header it is none.
fn begin(
    header: Option<Header>,
    (disk, serial): (&mut dyn BlockDevice, &[u8]),
    request: &mut Request,
    work: &mut Serving<'_, '_>,
    budget: &mut u64,
) -> Result<Outcome, Stopped> {
    let Some(header) = header else { return Ok(Outcome::Done(Status::IoErr)) };
    // The last byte is for the status (5.2.6.1).
    let (readable, writable) = (request.readable(), request.writable().saturating_sub(1));
    let (write, length) = match header.kind.get() {
        request::IN => (false, writable),
        request::OUT => (true, readable),
        request::FLUSH => return Ok(Outcome::Done(status(disk.flush()))),
        request::GET_ID => {
            let room = usize::try_from(writable).unwrap_or(usize::MAX).min(serial.len());
            work.write(request, serial.get(..room).unwrap_or_default())?;
            return Ok(Outcome::Done(Status::Ok));
        }
        kind @ (request::DISCARD | request::WRITE_ZEROES) => return zero(kind, disk, request, work),
        _ => return Ok(Outcome::Done(Status::Unsupp)),
    };
    let Some(offset) = header.sector.get().checked_mul(SECTOR) else { return Ok(Outcome::Done(Status::IoErr)) };
    let checked =
        if write { disk.geometry().check_write(offset, length) } else { disk.geometry().check(offset, length) };
    if checked.is_err() {
        return Ok(Outcome::Done(Status::IoErr));
    }
    copy(Job { write, offset, left: length }, disk, request, work, budget)
}

/// Copies as much as there is a budget for.
fn copy(
    job: Job,
    disk: &mut dyn BlockDevice,
    request: &mut Request,
    work: &mut Serving<'_, '_>,
    budget: &mut u64,
) -> Result<Outcome, Stopped> {
    let length = job.left.min(*budget);
    *budget = budget.saturating_sub(length);
    let (mut void, mut is_given_back) = (false, false);
    let mut whole = |copied: Result<usize, Stopped>, wanted: usize| {
        void |= copied.is_err();
        if copied == Ok(wanted) { Ok(()) } else { Err(BlockError::GivenUp) }
    };
    let copied = if job.write {
        disk.write(job.offset, length, &mut |part| whole(work.read(request, part), part.len()))
    } else {
        let mut left = job.left;
        disk.read(job.offset, length, &mut |part| {
            left = left.saturating_sub(part.len() as u64);
            if left > 0 {
                return whole(work.write(request, part), part.len());
            }
            // All has been read: the status goes with the last of it.
            let completed = work.complete_writing(request, part, &[Status::Ok as u8]);
            is_given_back = completed.is_ok();
            whole(completed.map(|()| part.len()), part.len())
        })
    };
    if void {
        return Err(Stopped);
    }
    let left = job.left.saturating_sub(length);
    Ok(match copied {
        _ if is_given_back => Outcome::GivenBack,
        Ok(()) if left > 0 => Outcome::Copying(Job { offset: job.offset.saturating_add(length), left, ..job }),
        copied => Outcome::Done(status(copied)),
    })
}

/// One segment, no more: so says the configuration space.
fn zero(
    kind: u32,
    disk: &mut dyn BlockDevice,
    request: &mut Request,
    work: &mut Serving<'_, '_>,
) -> Result<Outcome, Stopped> {
    let mut segment = Segment::new_zeroed();
    let is_one = work.read(request, segment.as_mut_bytes())? == size_of::<Segment>() && request.readable() == 0;
    let (flags, count) = (segment.flags.get(), segment.num_sectors.get());
    // 5.2.6.2: "If the unmap flag is set in a discard command, or a reserved flag: VIRTIO_BLK_S_UNSUPP."
    if flags & !UNMAP != 0 || (kind == request::DISCARD && flags != 0) {
        return Ok(Outcome::Done(Status::Unsupp));
    }
    let offset = segment.sector.get().checked_mul(SECTOR);
    let Some(offset) = offset.filter(|_| is_one && count <= MOST_ZEROED) else {
        return Ok(Outcome::Done(Status::IoErr));
    };
    Ok(Outcome::Done(status(disk.zero(offset, u64::from(count).saturating_mul(SECTOR)))))
}

const fn status(done: Result<(), BlockError>) -> Status {
    if done.is_ok() { Status::Ok } else { Status::IoErr }
}

/// Writes the status behind the data and gives the request back.
fn finish(status: Status, request: &mut Request, work: &mut Serving<'_, '_>) -> Result<(), Stopped> {
    let unused = request.writable().saturating_sub(1);
    request.skip_writable(unused);
    work.complete_writing(request, &[], &[status as u8])
}
