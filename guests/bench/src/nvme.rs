//! An NVMe disk, if there is one: a read of 4 KiB at a time, by a CPU that sleeps until it is done.
//!
//! Answers for: from the command to the end of its interrupt, by message; a driver has hardly less to do. Does not answer for: what is read,
//! disks whose blocks are not of 512 bytes.
//!
//! NVM Express Base Specification 1.4: 3.1 (registers), 4.2 and 4.6 (entries), 5.3 and 5.4 (queues), 7.6.1 (start); 6.9 (Read).

use core::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::pci::Function;
use guest_rt::registers::dsb;
use guest_rt::tree::Tree;
use guest_rt::{messages, println, timer};

use crate::interrupts::sleep;
use crate::measure::{report, shift_phase, stamp};

const CLASS: u32 = 0x01_0802;
const CC: usize = 0x14;
const CSTS: usize = 0x1c;
const AQA: usize = 0x24;
const ASQ: usize = 0x28;
const ACQ: usize = 0x30;
const DOORBELLS: usize = 0x1000;
/// Entries of a queue: less than a page of either kind.
const ENTRIES: usize = 16;
const CREATE_SUBMISSION: u32 = 0x01;
const CREATE_COMPLETION: u32 = 0x05;
const READ: u32 = 0x02;
const PAGE: usize = 4096;
/// Blocks of a read, less one.
const BLOCKS: u32 = PAGE as u32 / 512 - 1;
const READS: u64 = 200;
const LONG: u64 = 1_000_000;
/// In microseconds: a read that takes longer has waited for the emulator. Where all CPUs sleep and somebody has set a timer, the emulator's time
/// leaps to that, whether the disk is about to be done or not.
const LEAP: u64 = 50;

#[repr(C, align(4096))]
struct Page([AtomicU32; PAGE / 4]);

impl Page {
    const fn new() -> Self {
        Self([const { AtomicU32::new(0) }; PAGE / 4])
    }

    fn address(&self) -> u64 {
        self.0.as_ptr() as u64
    }
}

/// A queue for commands, and that of their ends.
struct Queue {
    number: usize,
    submission: Page,
    completion: Page,
    /// Commands so far.
    count: AtomicU64,
}

impl Queue {
    const fn new(number: usize) -> Self {
        Self { number, submission: Page::new(), completion: Page::new(), count: AtomicU64::new(0) }
    }

    /// Submits a command with these words 10 to 12.
    #[inline(always)]
    fn submit(&self, registers: Mmio, operation: u32, namespace: u32, data: u64, words: [u32; 3]) {
        let count = self.count.load(Ordering::Relaxed);
        let slot = count as usize % ENTRIES;
        let command = &self.submission.0[16 * slot..16 * slot + 16];
        command[0].store(operation, Ordering::Relaxed);
        command[1].store(namespace, Ordering::Relaxed);
        command[6].store(data as u32, Ordering::Relaxed);
        command[7].store((data >> 32) as u32, Ordering::Relaxed);
        for (word, value) in command[10..13].iter().zip(words) {
            word.store(value, Ordering::Relaxed);
        }
        dsb();
        registers.write(DOORBELLS + 8 * self.number, ((slot + 1) % ENTRIES) as u32);
    }

    /// What has become of the command; none if it has not ended. The next one may be submitted then.
    #[inline(always)]
    fn end(&self, registers: Mmio) -> Option<u32> {
        let count = self.count.load(Ordering::Relaxed);
        let slot = count as usize % ENTRIES;
        let found = self.completion.0[4 * slot + 3].load(Ordering::Acquire);
        // The phase changes each time around.
        if found >> 16 & 1 == (count / ENTRIES as u64) as u32 & 1 {
            return None;
        }
        self.count.store(count + 1, Ordering::Relaxed);
        registers.write(DOORBELLS + 8 * self.number + 4, ((slot + 1) % ENTRIES) as u32);
        Some(found >> 17)
    }
}

static ADMIN: Queue = Queue::new(0);
static IO: Queue = Queue::new(1);
static DATA: Page = Page::new();

/// Has the disk work, with an interrupt for each end of the second queue; none if there is none, or it does not do what it should.
fn start(machine: &'static Machine) -> Option<Mmio> {
    // SAFETY: where the boot protocol has put the tree, which nobody writes.
    let tree = unsafe { Tree::at(machine.tree.start as usize) }.ok()?;
    let function = Function::of_class(tree, CLASS)?;
    let registers = function.registers(0)?;
    function.set_bus_master(true);
    let message = messages::open(machine, tree, function.device_id())?;
    if !function.set_first_message(message.address, message.data) {
        return None;
    }
    registers.write(CC, 0);
    let is_ready = |wanted| timer::wait_until(LONG, || registers.read(CSTS) & 1 == wanted);
    let entries = ENTRIES as u32 - 1;
    if !is_ready(0) {
        return None;
    }
    registers.write(AQA, entries << 16 | entries);
    registers.write64(ASQ, ADMIN.submission.address());
    registers.write64(ACQ, ADMIN.completion.address());
    // Entries of 16 and 64 bytes, pages of 4 KiB.
    registers.write(CC, 4 << 20 | 6 << 16 | 1);
    // The second queue of each kind, of so many entries, in one piece; vector 0.
    let number = entries << 16 | 1;
    let orders = [
        (CREATE_COMPLETION, IO.completion.address(), [number, 0b11, 0]),
        (CREATE_SUBMISSION, IO.submission.address(), [number, 1 << 16 | 1, 0]),
    ];
    let does = |(operation, queue, words)| {
        ADMIN.submit(registers, operation, 0, queue, words);
        let mut status = None;
        timer::wait_until(LONG, || {
            status = ADMIN.end(registers);
            status.is_some()
        });
        status == Some(0)
    };
    (is_ready(1) && orders.into_iter().all(does)).then_some(registers)
}

/// From the command until the next could follow.
pub(crate) fn io(machine: &'static Machine) {
    let Some(registers) = start(machine) else { return };
    // The first queue's ends interrupt, too.
    while guest_rt::gic::acknowledge().map(guest_rt::gic::end).is_some() {}
    let (mut total, mut counted) = (0, 0);
    for round in 0..READS {
        shift_phase(round);
        let begin = stamp();
        IO.submit(registers, READ, 1, DATA.address(), [round as u32 * (BLOCKS + 1), 0, BLOCKS]);
        // Nothing else wakes it: once is enough.
        sleep();
        let status = IO.end(registers);
        let taken = stamp() - begin;
        if taken < LEAP * timer::frequency() / 1_000_000 {
            total += taken;
            counted += 1;
        }
        if status != Some(0) {
            return println!("bench: # nvme-io: a read ended with {status:?}");
        }
    }
    println!("bench: # nvme-io: {counted} of {READS} reads without a leap");
    if counted > 0 {
        report("nvme-io", total, counted);
    }
}
