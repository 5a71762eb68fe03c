//! Rules for messages of devices on the PCI bus (virtio 1.3, 4.1.4.5, 4.1.5.1.2; PCI, 6.8.2), which come as interrupts.
//!
//! They come as SPIs: of a GICv3 itself, or of the frame beside a GICv2. Not as LPIs, which need an ITS.

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use guest_rt::exceptions::{self, catch};
use guest_rt::gic::Gic;
use guest_rt::machine::Machine;
use guest_rt::mmio::{Mmio, Width};
use guest_rt::mmu::{self, Kind as Mapping};
use guest_rt::registers::with_irq;
use guest_rt::timer;
use guest_rt::tree::Tree;

use super::arena::{self, buffer};
use super::driver::{Bench, Kind};
use super::function::{OnPci, field};
use super::pci::function;
use super::{Case, Complaint, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("pci-status-read-with-messages", Kind::Disk, status_read_with_messages),
    Case::new("pci-vector-beyond-table", Kind::Disk, vector_beyond_table),
    Case::new("pci-message-into-memory", Kind::Disk, message_into_memory),
    Case::new("pci-message-of-no-message", Kind::Disk, message_of_no_message),
    Case::new("pci-message-masked", Kind::Disk, message_masked),
    Case::new("pci-message-changed-while-pending", Kind::Disk, message_changed_while_pending),
    Case::new("pci-table-by-bytes", Kind::Disk, table_by_bytes),
];

const NO_VECTOR: u64 = 0xffff;
/// Of the capability MSI-X: messages are enabled, and all are masked (PCI, 6.8.2.3).
const MESSAGES: u64 = 1 << 15;
const MASKED: u64 = 1 << 14;

/// Enables messages, or disables them; all are masked or none.
fn set_messages(function: &OnPci, control: u64) -> Verdict {
    let at = function.messages.ok_or(Complaint { what: "the function sends no messages", found: 0 })?;
    function.space.write_width(at + 2, Width::Halfword, control);
    Ok(())
}

/// How many vectors there are.
fn vectors(function: &OnPci) -> u64 {
    let control = function.messages.map_or(0, |at| function.space.read_width(at + 2, Width::Halfword));
    (control & 0x7ff) + 1
}

/// Gives both kinds of events the first vector, of a device that is running.
fn map_vectors(bench: &Bench<'_>) {
    let registers = bench.device.transport.registers();
    registers.write_width(field::CONFIG_MSIX_VECTOR, Width::Halfword, 0);
    bench.device.transport.select(0);
    registers.write_width(field::QUEUE_MSIX_VECTOR, Width::Halfword, 0);
}

/// The table of vectors: address, data, and whether it is masked (PCI, 6.8.2.6 to 6.8.2.9).
fn table(function: &OnPci) -> Result<Mmio, Complaint> {
    part(function, 4)
}

/// What is pending, a bit for each vector (PCI, 6.8.2.10).
fn pending(function: &OnPci) -> Result<u32, Complaint> {
    Ok(part(function, 8)?.read(0))
}

/// What the capability has the place of at so many bytes in it.
fn part(function: &OnPci, at: usize) -> Result<Mmio, Complaint> {
    let none = Complaint { what: "there is no table of messages", found: 0 };
    let word = function.space.read(function.messages.ok_or(none)? + at);
    let bar = function.bars.iter().find(|bar| bar.is_number(word & 7)).ok_or(none)?;
    // SAFETY: in the bus's window, where the function has it.
    Ok(unsafe { Mmio::new(mmu::reach(bar.at + u64::from(word & !7), Mapping::Device)) })
}

/// Where the first of the interrupts that messages can be; how often that one has come, the one behind it, and any other.
static FIRST: AtomicU32 = AtomicU32::new(0);
static COME: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

fn count(intid: u32) {
    let place = intid.wrapping_sub(FIRST.load(Relaxed)).min(2) as usize;
    COME[place].fetch_add(1, Relaxed);
}

/// Microseconds within which a message that has been sent has come.
const SOON: u64 = 500;

/// How often which has come since this was last asked.
fn come() -> [u64; 3] {
    with_irq(|| timer::delay(SOON));
    [0, 1, 2].map(|place| COME[place].swap(0, Relaxed))
}

/// That as many of the first two have come, and nothing else; several may have become one.
fn expect_come(first: bool, second: bool) -> Verdict {
    let [of_first, of_second, others] = come();
    ensure(others == 0, "interrupts have come that are nobody's", others)?;
    ensure((of_first > 0) == first, "so often the first message has come", of_first)?;
    ensure((of_second > 0) == second, "so often the second message has come", of_second)
}

/// A function that sends messages, and who takes them.
struct Messages<'a> {
    function: &'a OnPci,
    table: Mmio,
    /// Where they are sent, and what says which.
    address: u64,
    first: u32,
}

impl<'a> Messages<'a> {
    /// All vectors send the first message; they are enabled, and a driver is there that has mapped its events to the first of them.
    fn start(bench: &mut Bench<'a>) -> Result<Self, Complaint> {
        let function = function(bench)?;
        let none = Complaint { what: "nobody takes messages", found: 0 };
        let (address, first) = taker(bench.machine).ok_or(none)?;
        let messages = Self { function, table: table(function)?, address, first };
        FIRST.store(first, Relaxed);
        let gic = Gic::of(bench.machine);
        for intid in [first, first + 1] {
            gic.set_edge(intid, true);
            gic.enable(intid);
        }
        // SAFETY: interrupts are masked on this CPU, and no other runs.
        unsafe { exceptions::on_interrupt(count) };
        come();
        (0..vectors(function) as usize).for_each(|vector| messages.write(vector, first));
        set_messages(function, MESSAGES)?;
        bench.start(0)?;
        map_vectors(bench);
        bench.works()?;
        expect_come(true, false)?;
        Ok(messages)
    }

    /// What a vector sends.
    fn write(&self, vector: usize, data: u32) {
        self.table.write64(16 * vector, self.address);
        self.table.write(16 * vector + 8, data);
        self.mask(vector, false);
    }

    fn mask(&self, vector: usize, masked: bool) {
        self.table.write(16 * vector + 12, masked.into());
    }
}

/// Where messages are sent, and the first that there is: `GICD_SETSPI_NSR`, or `MSI_SETSPI_NS` of the frame (DEN 0029).
fn taker(machine: &Machine) -> Option<(u64, u32)> {
    const SETSPI: u64 = 0x40;
    const MSI_TYPER: usize = 0x08;
    if let Some(frame) = machine.message_frame {
        // SAFETY: the tree says that it is there; it is mapped just now.
        let first = unsafe { Mmio::new(mmu::reach(frame, Mapping::Device)) }.read(MSI_TYPER) >> 16 & 0x3ff;
        return Some((frame + SETSPI, first));
    }
    // SAFETY: where the boot protocol has put the tree, which nobody writes.
    let tree = unsafe { Tree::at(machine.tree.start as usize) }.ok()?;
    let ranges = tree.nodes().find_map(|node| node.property("mbi-ranges"))?;
    Some((machine.distributor.start + SETSPI, u32::from_be_bytes(*ranges.first_chunk()?)))
}

fn status_read_with_messages(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    set_messages(function, MESSAGES | MASKED)?;
    bench.start(0)?;
    map_vectors(bench);
    for _ in 0..5 {
        bench.works()?;
        let events = bench.device.transport.events();
        ensure(events & !3 == 0, "there are events that nobody has defined", events)?;
    }
    bench.is_unharmed()
}

fn vector_beyond_table(bench: &mut Bench<'_>) -> Verdict {
    let messages = Messages::start(bench)?;
    let registers = bench.device.transport.registers();
    let count = vectors(messages.function);
    for vector in [count, count + 1, 0x7ff, 0x800, 0xfffe] {
        for field in [field::CONFIG_MSIX_VECTOR, field::QUEUE_MSIX_VECTOR] {
            bench.device.transport.select(0);
            registers.write_width(field, Width::Halfword, vector);
            let mapped = registers.read_width(field, Width::Halfword);
            ensure(mapped == NO_VECTOR, "a vector that is not there has been mapped", mapped)?;
        }
        bench.works()?;
        expect_come(false, false)?;
    }
    // Of a queue that is not there, too.
    bench.device.transport.select(77);
    registers.write_width(field::QUEUE_MSIX_VECTOR, Width::Halfword, 0);
    bench.works()?;
    expect_come(false, false)?;
    map_vectors(bench);
    bench.is_unharmed()?;
    expect_come(true, false)
}

fn message_into_memory(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    let table = table(function)?;
    let memory = bench.machine.memory[0].clone();
    // Where canaries are, registers of the interrupt controller that take no messages, and nothing.
    let targets = [arena::address(buffer(12)), memory.start, bench.machine.distributor.start, memory.end, 1 << 45, !3];
    for target in targets {
        for vector in 0..vectors(function) as usize {
            table.write64(16 * vector, target);
            table.write64(16 * vector + 8, 0x4d53_4720);
        }
        set_messages(function, MESSAGES)?;
        bench.start(0)?;
        map_vectors(bench);
        for _ in 0..3 {
            bench.works()?;
        }
        arena::check()?;
    }
    Ok(())
}

/// What is stored where messages are taken, but is none of theirs: interrupts of CPUs, those that there are not.
fn message_of_no_message(bench: &mut Bench<'_>) -> Verdict {
    let messages = Messages::start(bench)?;
    for data in [0, 5, 15, 16, 30, 31, 1020, 1023, 0x2000, 0xffff, u32::MAX] {
        messages.write(0, data);
        bench.works()?;
        expect_come(false, false)?;
    }
    messages.write(0, messages.first);
    bench.is_unharmed()?;
    expect_come(true, false)
}

/// One by one, and all at once.
fn message_masked(bench: &mut Bench<'_>) -> Verdict {
    let messages = Messages::start(bench)?;
    for round in 0..10 {
        let all = round % 2 == 0;
        let mask = |masked: bool| {
            if all {
                return set_messages(messages.function, MESSAGES | if masked { MASKED } else { 0 });
            }
            messages.mask(0, masked);
            Ok(())
        };
        mask(true)?;
        bench.works()?;
        expect_come(false, false)?;
        let bits = pending(messages.function)?;
        ensure(bits == 1, "the first vector alone should be pending, but there are", bits)?;
        mask(false)?;
        expect_come(true, false)?;
        let bits = pending(messages.function)?;
        ensure(bits == 0, "what has been sent is pending", bits)?;
    }
    bench.is_unharmed()
}

/// What is sent in the end is what the table says then.
fn message_changed_while_pending(bench: &mut Bench<'_>) -> Verdict {
    let messages = Messages::start(bench)?;
    for (data, second) in [(messages.first + 1, true), (messages.first, false), (messages.first + 1, true)] {
        messages.mask(0, true);
        bench.works()?;
        messages.write(0, data);
        expect_come(!second, second)?;
        // Another device's memory, as soon as it waits: nothing is stored there.
        messages.mask(0, true);
        bench.works()?;
        messages.table.write64(0, arena::address(buffer(12)));
        messages.mask(0, false);
        expect_come(false, false)?;
        arena::check()?;
        messages.write(0, data);
    }
    // Neither is one sent by a function that is switched off and on again without any.
    set_messages(messages.function, 0)?;
    set_messages(messages.function, MESSAGES)?;
    expect_come(false, false)?;
    bench.is_unharmed()
}

/// PCI, 6.8.2: by aligned words and doublewords only.
fn table_by_bytes(bench: &mut Bench<'_>) -> Verdict {
    let messages = Messages::start(bench)?;
    let entry = || [0, 4, 8, 12].map(|at| messages.table.read(at));
    let before = entry();
    for (offset, width) in (0..16).flat_map(|offset| Width::ALL.map(|width| (offset, width))) {
        if width.bytes() >= 4 && offset % width.bytes() == 0 {
            continue;
        }
        catch(|| messages.table.write_width(offset, width, u64::MAX));
        catch(|| messages.table.read_width(offset, width));
        let differs = entry().iter().zip(before).any(|(now, before)| *now != before);
        ensure(!differs, "a part of an entry has been written, at", offset as u64)?;
    }
    bench.is_unharmed()?;
    expect_come(true, false)
}
