//! The machine's disks.
//!
//! Answers for: who has which part of which, waiting for what they do and for how long, and letting VMs go that end
//! meanwhile. Does not answer for: requests themselves (`drivers::virtio_blk`, `drivers::sd_disk`), finding them (`virtio`, `board`), tables and
//! claims (`host::disk`), which interrupt is whose (`interrupt`).
//!
//! Who wants something takes a slot, or waits for one; while the device has it the thread sleeps. It is woken by the interrupt, and
//! looks from time to time all the same. A thread of a VM can be given up while it sleeps, and nowhere else in here: its slots are
//! released when the VM's threads are gone ([`end`]).

use crate::board;
use crate::compartment::{Compartment, kernel_work};
use crate::interrupt;
use crate::sync::{Lock, Rank};
use crate::thread::{self, Thread};
use crate::virtio::{self, Pages};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use drivers::disk::{Driver, Failed, Host, MOST, Operation, Ticket};
use drivers::virtio_blk;
use host::disk::table::{self, Table};
use host::disk::{Claim, Claims, Extent, Holder, Part, PartitionError, RealName, Which, partition};
use host::shell::report::DiskInfo;
use spin::Once;
use types::{IntId, Pa, Ticks, VmId};
use vdev::{BackendError, BlockDevice, BlockError, Geometry, HostDisk, SECTOR, Sink, Source};

/// How long a disk may take for a request, in microseconds. Then it is never asked again.
const PATIENCE: u64 = 10_000_000;
/// How long whoever waits sleeps if nobody wakes it, in microseconds; and if the disk has no interrupt.
const LOOK: u64 = 100_000;
const LOOK_OFTEN: u64 = 500;
/// Threads that are woken; more look for themselves.
const MOST_WAITING: usize = 16;

struct State {
    driver: Box<dyn Driver>,
    /// Who waits for a slot, or for an answer.
    waiting: ArrayVec<Arc<Thread>, MOST_WAITING>,
}

impl State {
    /// Something has changed: whoever waits looks again.
    fn wake(&mut self) {
        self.waiting.drain(..).for_each(|thread| thread::notify(&thread));
    }
}

/// A disk of the machine.
struct RealDisk {
    number: u32,
    intid: Option<IntId>,
    geometry: Geometry,
    state: Lock<State>,
}

/// In the order of their addresses. There from before the first VM on.
static DISKS: Once<Vec<RealDisk>> = Once::new();

/// Who has which. One lock of the rank at a time.
static CLAIMS: Lock<Claims<VmId>> = Lock::new(Rank::Disks, Claims::new());

fn disks() -> &'static [RealDisk] {
    DISKS.get().map_or(&[], Vec::as_slice)
}

/// A disk that can be used.
struct Found {
    kind: &'static str,
    at: Pa,
    intid: Option<IntId>,
    driver: Box<dyn Driver>,
}

/// These are the machine's virtio disks; those that the board has drivers for are looked for. Once, before there are other threads.
pub(crate) fn keep(disks: Vec<virtio::Device<'_>>) {
    let mut found: Vec<Found> = Vec::new();
    for (transport, window) in disks {
        let at = window.registers.start();
        match virtio_blk::Disk::<Pages, _>::new(transport) {
            Ok(disk) => found.push(Found { kind: "virtio", at, intid: window.intid, driver: Box::new(disk) }),
            Err(error) => log::warn!("the virtio disk at {at} is left alone: {error}"),
        }
    }
    for (begin, registers, window) in board::disks() {
        let at = window.registers.start();
        match begin(registers, &Host::new::<Pages>(microseconds)) {
            Ok(Some(driver)) => found.push(Found { kind: "SD card", at, intid: window.intid, driver }),
            Ok(None) => log::debug!("there is no SD card at {at}"),
            Err(why) => log::warn!("the SD card at {at} is left alone: {why}"),
        }
    }
    types::sort_by(&mut found, |a, b| a.at.cmp(&b.at));
    let intids: Vec<IntId> = found.iter().filter_map(|disk| disk.intid).collect();
    DISKS.call_once(|| (0..).zip(found).map(|(number, found)| RealDisk::new(number, found)).collect());
    intids.into_iter().for_each(interrupt::enable);
}

/// What drivers measure by.
fn microseconds() -> u64 {
    el2::cpu::counter_frequency().map_or(0, |frequency| frequency.to_nanoseconds(el2::cpu::counter()) / 1000)
}

/// A disk has raised its interrupt. Says whether this is one of a disk's.
pub(crate) fn interrupt(intid: IntId) -> bool {
    let own = || disks().iter().filter(|disk| disk.intid == Some(intid));
    for disk in own() {
        let mut state = disk.state.lock();
        if state.driver.acknowledge() && state.driver.take_answers() {
            state.wake();
        }
    }
    own().next().is_some()
}

/// A VM has ended, and all of its threads: it has nothing any more, and waits for nothing.
pub(crate) fn end(id: VmId) {
    CLAIMS.lock().release(&id);
    for disk in disks() {
        let mut state = disk.state.lock();
        state.driver.release_all(id);
        state.wake();
    }
}

fn after(microseconds: u64) -> Ticks {
    let ticks = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(microseconds));
    el2::cpu::counter().saturating_add(ticks)
}

impl RealDisk {
    fn new(number: u32, Found { kind, at, intid, driver }: Found) -> Self {
        log::info!("hd{number}: {} KiB, {kind} at {at}", driver.sectors() / 2);
        let geometry = Geometry {
            sectors: driver.sectors(),
            block_size: driver.block_size(),
            physical_block_size: 4096,
            zeroes: false,
            read_only: driver.is_read_only(),
            name: format!("/dev/hd{number}"),
        };
        let state = Lock::new(Rank::Disks, State { driver, waiting: ArrayVec::new() });
        Self { number, intid, geometry, state }
    }

    /// Does something with the driver, for the kernel: nothing of a VM's is touched.
    fn with<R>(&self, work: impl FnOnce(&mut State) -> R) -> R {
        kernel_work(|| work(&mut self.state.lock()))
    }

    /// Looks again and again until there is something, or the time is over.
    fn wait<R>(&self, mut look: impl FnMut(&mut State) -> Option<R>) -> Option<R> {
        let deadline = after(PATIENCE);
        let pause = if self.intid.is_some() { LOOK } else { LOOK_OFTEN };
        loop {
            let found = self.with(|state| {
                if state.driver.take_answers() {
                    state.wake();
                }
                let found = look(state);
                if found.is_none()
                    && let Some(me) = thread::current_shared()
                    && !state.waiting.iter().any(|other| Arc::ptr_eq(other, &me))
                {
                    // If there is no place it looks when it has slept.
                    let _ = state.waiting.try_push(me);
                }
                found
            });
            if found.is_some() || el2::cpu::counter() >= deadline {
                return found;
            }
            thread::sleep_until(deadline.min(after(pause)));
        }
    }

    /// Has the disk do something, with `fill` before and `take` after, which get the `length` bytes. What is read is zeroes until it has
    /// been read, whatever was there of others'.
    fn request(
        &self,
        owner: Option<VmId>,
        (operation, offset, length): (Operation, u64, usize),
        fill: impl FnOnce(&mut [u8]) -> Result<(), BlockError>,
        take: impl FnOnce(&[u8]) -> Result<(), BlockError>,
    ) -> Result<(), BlockError> {
        let ticket = self.wait(|state| match state.driver.why_broken() {
            Some(_) => Some(None),
            None => state.driver.take(owner).map(Some),
        });
        let Some(Some(mut ticket)) = ticket else { return Err(BlockError::Failed) };
        let data = self.data(&mut ticket, length);
        if operation == Operation::Read {
            data.fill(0);
        }
        let done = fill(data).and_then(|()| self.send(ticket, operation, offset, length));
        let done = done.and_then(|()| take(self.data(&mut ticket, length)));
        self.with(|state| {
            state.driver.release(ticket);
            state.wake();
        });
        done
    }

    /// The data of a slot that the calling thread has, and not the device.
    fn data<'a>(&self, ticket: &'a mut Ticket, length: usize) -> &'a mut [u8] {
        match self.with(|state| state.driver.data(*ticket)) {
            // SAFETY: the slot's memory, as many bytes at least, which are this thread's until it sends or releases it. A device that
            // writes there all the same can make them anything: they are a VM's or a table's, and are taken for no more than that.
            Some(start) => unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), length.min(MOST)) },
            None => &mut [],
        }
    }

    /// Sends a request and waits for the answer.
    fn send(&self, ticket: Ticket, operation: Operation, offset: u64, length: usize) -> Result<(), BlockError> {
        let sent = self.with(|state| state.driver.send(ticket, operation, offset / SECTOR, length));
        sent.map_err(|_| BlockError::Failed)?;
        let answer = self.wait(|state| state.driver.result(ticket));
        if answer.is_none() {
            self.with(|state| {
                state.driver.abandon();
                state.wake();
            });
            log::error!("hd{}: it has not answered in time: it is not used any more", self.number);
        }
        answer.unwrap_or(Err(Failed)).map_err(|_| BlockError::Failed)
    }
}

/// A disk of the machine, all of it, as a VM or the host uses it.
struct Handle {
    disk: &'static RealDisk,
    owner: Option<VmId>,
}

/// The requests that a part of a disk takes: where each begins, and how long it is, of whole blocks.
fn requests(offset: u64, length: u64, block: u32) -> impl Iterator<Item = (u64, usize)> {
    let block = u64::from(block);
    let (mut at, end) = (offset - offset % block, (offset + length).next_multiple_of(block));
    core::iter::from_fn(move || {
        let (start, now) = (at, (end - at).min(MOST as u64));
        at += now;
        (now > 0 && length > 0).then_some((start, now as usize))
    })
}

impl BlockDevice for Handle {
    fn geometry(&self) -> &Geometry {
        &self.disk.geometry
    }

    fn waits(&self) -> bool {
        true
    }

    fn read(&mut self, offset: u64, length: u64, to: &mut Sink<'_>) -> Result<(), BlockError> {
        self.geometry().check(offset, length)?;
        let block = self.geometry().block_size;
        requests(offset, length, block).try_for_each(|(at, count)| {
            self.disk.request(
                self.owner,
                (Operation::Read, at, count),
                |_| Ok(()),
                |data| {
                    // Blocks may be larger than what is wanted of them.
                    let from = offset.saturating_sub(at) as usize;
                    let until = (offset + length - at).min(count as u64) as usize;
                    data.get(from..until).map_or(Ok(()), &mut *to)
                },
            )
        })
    }

    fn write(&mut self, offset: u64, length: u64, from: &mut Source<'_>) -> Result<(), BlockError> {
        self.geometry().check_write(offset, length)?;
        let block = self.geometry().block_size;
        if !offset.is_multiple_of(block.into()) || !length.is_multiple_of(block.into()) {
            return Err(BlockError::Failed);
        }
        requests(offset, length, block).try_for_each(|(at, count)| {
            self.disk.request(self.owner, (Operation::Write, at, count), &mut *from, |_| Ok(()))
        })
    }

    fn zero(&mut self, offset: u64, length: u64) -> Result<(), BlockError> {
        self.write(offset, length, &mut |part| {
            part.fill(0);
            Ok(())
        })
    }

    fn flush(&mut self) -> Result<(), BlockError> {
        self.disk.request(self.owner, (Operation::Flush, 0, 0), |_| Ok(()), |_| Ok(()))
    }
}

/// What there is, for whoever has named something else.
fn choice() -> String {
    match disks() {
        [] => "this machine has none that there is a driver for".into(),
        all => {
            let names: Vec<&str> = all.iter().map(|disk| disk.geometry.name.as_str()).collect();
            format!("there is {}; `pidin disks` shows what is on them", names.join(", "))
        }
    }
}

/// Opens what `/dev/NAME` stands for, for a device of a VM.
pub(super) fn open(
    compartment: &Compartment,
    device: &str,
    name: &str,
    wanted: &HostDisk,
) -> Result<Box<dyn BlockDevice>, BackendError> {
    let none = || BackendError(format!("there is no disk `/dev/{name}`: {}", choice()));
    let real = RealName::parse(name).ok_or_else(none)?;
    let disk = disks().get(real.disk as usize).ok_or_else(none)?;
    let mut handle = Handle { disk, owner: Some(compartment.id) };
    let refused = |PartitionError(why): PartitionError| BackendError(format!("`/dev/{name}`: {why}"));
    let extent = partition(&mut handle, real.which).map_err(refused)?;
    check(extent, &disk.geometry, name)?;
    let writes = !wanted.read_only && !disk.geometry.read_only;
    let claimed = kernel_work(|| {
        let holder = Holder { vm: compartment.qvm.name.clone(), device: device.into() };
        CLAIMS.lock().add(compartment.id, Claim { name: real, extent, writes, holder })
    });
    // The copy is the VM's, as all that is not to outlive it.
    claimed.map_err(|why| BackendError(why.as_str().into()))?;
    // Before it was claimed somebody else may have had all of the disk, and written another table.
    if partition(&mut handle, real.which).map_err(refused)? != extent {
        return Err(BackendError(format!("`/dev/{name}` has just been moved")));
    }
    Ok(Box::new(Part::new(handle, extent, wanted.read_only, format!("{wanted}"))))
}

/// Whether there can be a disk in there.
fn check(extent: Extent, geometry: &Geometry, name: &str) -> Result<(), BackendError> {
    let block = u64::from(geometry.block_size) / SECTOR;
    if extent.first.is_multiple_of(block) && extent.count.is_multiple_of(block) {
        return Ok(());
    }
    let (first, count) = (extent.first, extent.count);
    Err(BackendError(format!("`/dev/{name}`, {count} sectors from {first} on, is not of whole blocks of its disk")))
}

/// All disks and partitions, and who has them.
pub(crate) fn report() -> Vec<DiskInfo> {
    let mut all = Vec::new();
    for disk in disks() {
        let broken = disk.with(|state| state.driver.why_broken());
        let table = match broken {
            None => table::read(&mut Handle { disk, owner: None }),
            Some(why) => Err(PartitionError(format!("not used any more: {why}"))),
        };
        let about = match &table {
            Ok(table) => format!("{}{}", table.form, if disk.geometry.read_only { ", read-only" } else { "" }),
            Err(PartitionError(why)) => why.clone(),
        };
        let whole = Extent { first: 0, count: disk.geometry.sectors };
        all.push(info(RealName { disk: disk.number, which: Which::Whole }, whole, about));
        for entry in table.iter().flat_map(|table: &Table| &table.entries) {
            let which = table.as_ref().map_or(Which::Whole, |table| table.which(entry));
            let number =
                if which == Which::Number(entry.number) { String::new() } else { format!("p{}, ", entry.number) };
            let about = format!("{number}from sector {} on", entry.extent.first);
            all.push(info(RealName { disk: disk.number, which }, entry.extent, about));
        }
    }
    all
}

fn info(name: RealName, extent: Extent, about: String) -> DiskInfo {
    let claims = CLAIMS.lock();
    // By whatever name: `hd0p1` may be `hd0t178`.
    let own = claims.iter().filter(|claim| claim.name.disk == name.disk && claim.extent == extent);
    let holders = own.map(|claim| format!("{} {}", claim.holder, if claim.writes { "writes" } else { "reads" }));
    DiskInfo { name: format!("{name}"), sectors: extent.count, about, holders: holders.collect() }
}
