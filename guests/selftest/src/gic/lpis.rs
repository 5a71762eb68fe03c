//! LPIs, and the ITS that makes them of commands and of devices' messages. Skipped where there is no ITS.
//!
//! IHI 0069, "LPIs", "The Interrupt Translation Service", "ITS commands", GITS_* and GICR_PROPBASER, GICR_PENDBASER. What enabled
//! LPIs once stays so, so the tests share one set of tables. `ended=ADDRESS` says where a device is that sends messages (`vdev
//! faulty`).

use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use guest_rt::gic::{self, Bank, GICD_TYPER, GICR_TYPER, Gic, PIDR2};
use guest_rt::machine::{Machine, machine};
use guest_rt::mmio::Mmio;
use guest_rt::mmu::{self, Kind};
use guest_rt::registers::dsb;
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal, timer};

use super::{LONG, drain, next, silence};
use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "lpi: an ITS says what it is", run: identity },
    Test { name: "lpi: a command raises an LPI, once", run: raised },
    Test { name: "lpi: a message of a device raises an LPI, and only a device's does", run: message },
    Test { name: "lpi: a message by the machine's ITS raises an LPI, on whichever CPU it comes", run: by_the_machine },
    Test {
        name: "lpi: messages by the machine's ITS that are too many come later, and none is lost for good",
        run: flood,
    },
    Test { name: "lpi: the most urgent LPI comes first, among SPIs", run: order },
    Test { name: "lpi: more LPIs than list registers all come, once each", run: crowd },
    Test { name: "lpi: an LPI that is pending comes when it is enabled", run: masked },
    Test { name: "lpi: an LPI is taken back by CLEAR, DISCARD, and MAPD", run: taken_back },
    Test { name: "lpi: LPIs move between CPUs", run: moved },
    Test { name: "lpi: the ITS works through a full queue of commands that take long", run: long },
    Test { name: "lpi: commands that cannot be done are skipped", run: skipped },
];

const GITS_CTLR: usize = 0x0000;
const GITS_TYPER: usize = 0x0008;
const GITS_CBASER: usize = 0x0080;
const GITS_CWRITER: usize = 0x0088;
const GITS_CREADR: usize = 0x0090;
const GITS_BASER: usize = 0x0100;
const GITS_TRANSLATER: u64 = 0x1_0040;
const GICR_CTLR: usize = 0x0000;
const GICR_PROPBASER: usize = 0x0070;
const GICR_PENDBASER: usize = 0x0078;

/// The device whose messages and commands these are: what `vdev faulty` calls itself.
const DEVICE: u64 = 7;
const FIRST: u32 = 8192;
/// Events of it that are mapped, event `n` to LPI 8192 + `n`, for CPU 0.
const EVENTS: u64 = 64;

/// Tables of 64 KiB, at multiples of that.
const TABLE: usize = 0x1_0000;
const PROPERTIES: usize = 0;
const QUEUE: usize = 0x4000;
const QUEUE_SIZE: u64 = 0x1000;
const TRANSLATIONS: usize = 0x8000;
const COLLECTIONS: usize = TABLE;
const DEVICES: usize = 2 * TABLE;
/// That of CPU 0; that of CPU 1 is the next.
const PENDING: usize = 3 * TABLE;
const TABLES: usize = 6 * TABLE;

/// Wherever the image is loaded, there are five tables with their alignment in it.
static MEMORY: [AtomicU8; TABLES] = [const { AtomicU8::new(0) }; TABLES];

/// Where the table at `offset` is.
fn table(offset: usize) -> u64 {
    ((&raw const MEMORY).addr().next_multiple_of(TABLE) + offset) as u64
}

fn set_byte(at: u64, value: u8) {
    if let Some(byte) = (at as usize).checked_sub((&raw const MEMORY).addr()).and_then(|offset| MEMORY.get(offset)) {
        byte.store(value, Ordering::Relaxed);
    }
}

/// The ITS, with everything mapped.
struct Its {
    frame: Mmio,
    gic: Gic,
    at: u64,
}

impl Its {
    fn new(machine: &'static Machine) -> Result<Self, Verdict> {
        let at = machine.its.ok_or(Verdict::Skip("no ITS"))?;
        let gic = stage::clean_gic(machine);
        // SAFETY: the tree says that it is there; all that is not RAM is mapped as device memory.
        let its = Self { frame: unsafe { Mmio::new(at as usize) }, gic, at };
        enable_lpis(gic, 0);
        if its.frame.read(GITS_CTLR) & 1 == 0 {
            its.start();
        }
        (0..EVENTS).for_each(|event| configure(event, 0xa1));
        its.send(&[mapd(Some(6)), mapc(0, 0)])?;
        (0..EVENTS).try_for_each(|event| its.send(&[mapti(event, 0)]))?;
        Ok(its)
    }

    fn start(&self) {
        for index in 0..8 {
            let offset = GITS_BASER + 8 * index;
            let place = match self.frame.read64(offset) >> 56 & 7 {
                1 => DEVICES,
                4 => COLLECTIONS,
                _ => continue,
            };
            // One page of 64 KiB, inner shareable, inner write-back.
            self.frame.write64(offset, 1 << 63 | 7 << 59 | table(place) | 1 << 10 | 2 << 8);
        }
        self.frame.write64(GITS_CBASER, 1 << 63 | 7 << 59 | table(QUEUE) | 1 << 10);
        self.frame.write64(GITS_CWRITER, 0);
        self.frame.write(GITS_CTLR, 1);
    }

    /// Puts commands into the queue, and tells the ITS.
    fn write(&self, commands: &[[u64; 4]]) -> u64 {
        let mut write = self.frame.read64(GITS_CWRITER);
        for command in commands {
            for (at, byte) in (table(QUEUE) + write..).zip(command.iter().flat_map(|word| word.to_le_bytes())) {
                set_byte(at, byte);
            }
            write = (write + 32) % QUEUE_SIZE;
        }
        dsb();
        self.frame.write64(GITS_CWRITER, write);
        write
    }

    /// Has commands done.
    fn send(&self, commands: &[[u64; 4]]) -> Outcome {
        let write = self.write(commands);
        timer::wait_until(LONG, || self.frame.read64(GITS_CREADR) == write);
        check_equal!(self.frame.read64(GITS_CREADR), write, "GITS_CREADR after commands");
        Ok(())
    }
}

/// This CPU takes LPIs.
fn enable_lpis(gic: Gic, cpu: usize) {
    let redistributor = gic.redistributor;
    if redistributor.read(GICR_CTLR) & 1 == 0 {
        redistributor.write64(GICR_PROPBASER, table(PROPERTIES) | 1 << 10 | 7 << 7 | 13);
        redistributor.write64(GICR_PENDBASER, 1 << 62 | table(PENDING + cpu * TABLE) | 1 << 10 | 7 << 7);
        dsb();
        redistributor.write(GICR_CTLR, 1);
    }
}

/// What the table says of an event's LPI: bits 7 to 2 are its priority, bit 0 enables it.
fn configure(event: u64, byte: u8) {
    set_byte(table(PROPERTIES) + event, byte);
    dsb();
}

fn mapd(bits: Option<u64>) -> [u64; 4] {
    let table = bits.map_or(0, |_| 1 << 63 | table(TRANSLATIONS));
    [0x08 | DEVICE << 32, bits.map_or(0, |bits| bits - 1), table, 0]
}

/// Collection `collection` is that of a CPU, by its number (`GITS_TYPER.PTA` is 0).
fn mapc(collection: u64, cpu: u64) -> [u64; 4] {
    [0x09, 0, 1 << 63 | cpu << 16 | collection, 0]
}

fn mapti(event: u64, collection: u64) -> [u64; 4] {
    [0x0a | DEVICE << 32, event | (u64::from(FIRST) + event) << 32, collection, 0]
}

const fn of_event(number: u64, event: u64) -> [u64; 4] {
    [number | DEVICE << 32, event, 0, 0]
}

const fn int(event: u64) -> [u64; 4] {
    of_event(0x03, event)
}

const fn clear(event: u64) -> [u64; 4] {
    of_event(0x04, event)
}

const fn inv(event: u64) -> [u64; 4] {
    of_event(0x0c, event)
}

const fn discard(event: u64) -> [u64; 4] {
    of_event(0x0f, event)
}

const fn invall(collection: u64) -> [u64; 4] {
    [0x0d, 0, collection, 0]
}

const fn movi(event: u64, collection: u64) -> [u64; 4] {
    [0x01 | DEVICE << 32, event, collection, 0]
}

const fn movall(from: u64, to: u64) -> [u64; 4] {
    [0x0e, 0, from << 16, to << 16]
}

/// Takes one interrupt, which is to be this event's.
fn take(event: u64) -> Outcome {
    check_equal!(next(), Some(FIRST + event as u32), "acknowledged");
    gic::end(FIRST + event as u32);
    Ok(())
}

fn identity(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    check_equal!(its.frame.read(PIDR2) >> 4 & 15, 3, "GITS_PIDR2.ArchRev");
    let typer = its.frame.read64(GITS_TYPER);
    check_equal!(typer & (1 | 1 << 19), 1, "GITS_TYPER.Physical and PTA");
    check!(typer >> 13 & 31 >= 7 && typer >> 8 & 31 >= 5, "GITS_TYPER: too few bits: {typer:#x}");
    check_equal!(its.gic.distributor.read(GICD_TYPER) >> 17 & 1, 1, "GICD_TYPER.LPIS");
    check!(its.gic.distributor.read(GICD_TYPER) >> 19 & 31 >= 13, "GICD_TYPER.IDbits");
    check_equal!(its.gic.redistributor.read64(GICR_TYPER) & 1, 1, "GICR_TYPER.PLPIS");
    check_equal!(its.gic.redistributor.read(GICR_CTLR) & 1, 1, "GICR_CTLR.EnableLPIs");
    Ok(())
}

fn raised(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    for event in [0, 1, EVENTS - 1, 1] {
        its.send(&[int(event)])?;
        take(event)?;
        silence()?;
    }
    // Twice pending is pending; pending again after the acknowledgement is once more.
    its.send(&[int(3), int(3)])?;
    check_equal!(next(), Some(FIRST + 3), "acknowledged");
    its.send(&[int(3)])?;
    gic::end(FIRST + 3);
    take(3)?;
    silence()
}

fn message(machine: &'static Machine) -> Outcome {
    const ADDRESS: usize = 0x14;
    const DATA: usize = 0x18;
    let its = Its::new(machine)?;
    let at = machine.numeric_argument("ended").ok_or(Verdict::Skip("no device that sends messages"))?;
    // SAFETY: the argument says that a device is there, and it is mapped just now.
    let device = unsafe { Mmio::new(mmu::reach(at, Kind::Device)) };
    for event in [5, 0, 5] {
        device.write(ADDRESS, (its.at + GITS_TRANSLATER) as u32);
        device.write(DATA, event as u32);
        take(event)?;
    }
    device.write(DATA, EVENTS as u32);
    silence()?;
    // A CPU is no device.
    // SAFETY: the second of the ITS's frames.
    unsafe { Mmio::new((its.at + GITS_TRANSLATER) as usize) }.write(0, 5);
    silence()
}

/// Has the machine's ITS send messages: what is written; that of all vectors, or of all that there are.
const HOST: usize = 0x20;
const FLOOD: usize = 0x24;

/// The device, told where to send to.
fn sender(machine: &'static Machine, its: &Its) -> Result<Mmio, Verdict> {
    const ADDRESS: usize = 0x14;
    let at = machine.numeric_argument("ended").ok_or(Verdict::Skip("no device that sends messages"))?;
    // SAFETY: the argument says that a device is there, and it is mapped just now.
    let device = unsafe { Mmio::new(mmu::reach(at, Kind::Device)) };
    device.write(ADDRESS, (its.at + GITS_TRANSLATER) as u32);
    Ok(device)
}

fn by_the_machine(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    let device = sender(machine, &its)?;
    for event in [5, 0, 5, EVENTS - 1] {
        device.write(HOST, event as u32);
        take(event)?;
    }
    // What the guest has not mapped is nothing to it.
    device.write(HOST, EVENTS as u32);
    silence()?;
    for event in 0..EVENTS {
        device.write(HOST, event as u32);
    }
    let taken = drain::<80>(EVENTS as usize);
    check_equal!(taken.len(), EVENTS as usize, "LPIs taken");
    silence()
}

fn flood(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    let device = sender(machine, &its)?;
    device.write(FLOOD, 9);
    for _ in 0..20 {
        device.write(FLOOD, 0);
        take(9)?;
    }
    // Those that are held come when their time is over.
    for _ in 0..100 {
        timer::delay(1000);
        let _ = drain::<80>(0);
    }
    for event in [5, 0, 5] {
        device.write(HOST, event as u32);
        take(event)?;
    }
    silence()
}

fn order(machine: &'static Machine) -> Outcome {
    const PRIORITIES: [u8; 10] = [0x80, 0x20, 0xf0, 0x60, 0x28, 0xa0, 0x40, 0x08, 0xc0, 0xe0];
    const RIGHT: [u64; 10] = [7, 1, 4, 6, 3, 0, 5, 8, 9, 2];
    let its = Its::new(machine)?;
    let spi = super::an_spi(machine, its.gic)?;
    its.gic.set_priority(spi, 0x90);
    for (event, priority) in (0..).zip(PRIORITIES) {
        configure(event, priority | 1);
        its.send(&[inv(event)])?;
    }
    gic::set_priority_mask(0);
    (0..10).try_for_each(|event| its.send(&[int(event)]))?;
    its.gic.set(Bank::Pending, spi);
    its.gic.wait_for_writes();
    gic::set_priority_mask(0xff);
    let (before, behind) = RIGHT.split_at(6);
    before.iter().try_for_each(|event| take(*event))?;
    check_equal!(next(), Some(spi), "the SPI in its place");
    gic::end(spi);
    behind.iter().try_for_each(|event| take(*event))?;
    silence()
}

fn crowd(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    for _ in 0..20 {
        (0..EVENTS).try_for_each(|event| its.send(&[int(event)]))?;
        let taken = drain::<80>(EVENTS as usize);
        check_equal!(taken.len(), EVENTS as usize, "LPIs taken");
        for event in 0..EVENTS as u32 {
            check!(taken.contains(&(FIRST + event)), "{event} is lost");
        }
    }
    silence()
}

fn masked(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    for invalidate in [inv(2), invall(0)] {
        configure(2, 0xa0);
        its.send(&[invalidate, int(2)])?;
        silence()?;
        configure(2, 0xa1);
        its.send(&[invalidate])?;
        take(2)?;
    }
    silence()
}

fn taken_back(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    gic::set_priority_mask(0);
    its.send(&[int(1), int(2), int(3), clear(1), discard(2)])?;
    gic::set_priority_mask(0xff);
    take(3)?;
    silence()?;
    // What is not mapped is not translated.
    its.send(&[mapd(None), mapd(Some(6)), mapti(4, 0), int(4)])?;
    take(4)?;
    if machine.is_bulkhead {
        its.send(&[int(3)])?;
    }
    silence()
}

static TAKEN: [AtomicU32; 2] = [const { AtomicU32::new(0) }; 2];
static READY: AtomicU64 = AtomicU64::new(0);

/// Takes LPIs until nothing comes for long: how many, and the sum of their events.
fn collect(_index: usize) {
    let gic = Gic::of(machine());
    gic.start_cpu();
    enable_lpis(gic, 1);
    READY.store(1, Ordering::Release);
    while let Some(lpi) = next() {
        gic::end(lpi);
        TAKEN[0].fetch_add(1, Ordering::Relaxed);
        TAKEN[1].fetch_add(lpi.wrapping_sub(FIRST), Ordering::Relaxed);
    }
}

fn moved(machine: &'static Machine) -> Outcome {
    stage::needs_cpus(machine, 2)?;
    let its = Its::new(machine)?;
    TAKEN.iter().for_each(|count| count.store(0, Ordering::Relaxed));
    READY.store(0, Ordering::Relaxed);
    stage::start(1, collect)?;
    timer::wait_until(2 * LONG, || READY.load(Ordering::Acquire) != 0);
    gic::set_priority_mask(0);
    let outcome = its.send(&[mapc(1, 1), int(9), movi(9, 1), int(10), int(11), movall(0, 1)]);
    gic::set_priority_mask(0xff);
    let outcome = outcome.and_then(|()| its.send(&[int(9)])).and_then(|()| {
        // MOVALL changes no mapping.
        its.send(&[int(12)])?;
        take(12)?;
        silence()
    });
    stage::finish(1)?;
    outcome?;
    let [count, sum] = [0, 1].map(|index| TAKEN[index].load(Ordering::Relaxed));
    // The last may have come while the first was pending still.
    check!((count, sum) == (4, 39) || (count, sum) == (3, 30), "CPU 1 took {count} LPIs, of the sum {sum}");
    Ok(())
}

fn long(machine: &'static Machine) -> Outcome {
    let its = Its::new(machine)?;
    // All but one of the queue's places.
    let commands = [invall(0); (QUEUE_SIZE / 32) as usize - 3];
    let before = timer::now();
    let write = its.write(&commands);
    its.write(&[int(6)]);
    check!(timer::now() > before, "time stands still");
    timer::wait_until(LONG, || its.frame.read64(GITS_CREADR) == (write + 32) % QUEUE_SIZE);
    take(6)?;
    silence()
}

fn skipped(machine: &'static Machine) -> Outcome {
    stage::needs_hypervisor(machine)?;
    let its = Its::new(machine)?;
    for bad in [
        [0; 4],
        [u64::MAX; 4],
        int(EVENTS),
        inv(0xffff),
        mapc(0xffff, 0),
        mapc(0, 0xffff),
        invall(77),
        [0x0a | DEVICE << 32, 1 | 8191 << 32, 0, 0],
        [0x0a | DEVICE << 32, 1 | 0xffff_ffff << 32, 0, 0],
        [0x08 | 8 << 32, 31, 1 << 63 | 0xf_ffff_ffff_ff00, 0],
    ] {
        its.send(&[bad, int(1)])?;
        take(1)?;
    }
    silence()
}
