//! A guest that exchanges data with another one through shared memory (`vdev shmem`).
//!
//! Answers for: `send` makes a long sequence of numbers and puts it into the region `exchange`, block by block; `receive` takes it
//! out and compares every number with what it has to be. They wait for each other by interrupts. Both print how much it was and
//! the same checksum. `attach=TIMES` attaches and detaches so many times, with regions of all sizes. `both` attaches to many regions
//! from two CPUs at once, each with a device of its own, and says whether every store was complete when it was. `say=VALUE` attaches to the
//! region `status`, stores the value in its first word, notifies whoever is there, and powers off. Does not answer for: what is
//! slow.
//!
//! `shmem=ADDRESS` of the device and `intid=NUMBER` of its interrupt; `mib=NUMBER` (16) to be sent.

#![no_std]
#![no_main]

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::gic::Gic;
use guest_rt::machine::Machine;
use guest_rt::mmio::Mmio;
use guest_rt::registers::{wfi, with_irq};
use guest_rt::shmem::{self, Region};
use guest_rt::{cpus, entry, exceptions, println};

entry!(main);

const FACTORY: u64 = 0x1c05_0000;
/// The other CPU's, for `both`.
const SECOND_FACTORY: u64 = 0x1c06_0000;
const INTID: u64 = 43;

/// Words in a block, and blocks in the region, behind the page with [`HEAD`] and its like.
const BLOCK: usize = 8192;
const BLOCKS: usize = 16;
const PAGE_WORDS: usize = 512;
const PAGES: u32 = (1 + BLOCK * BLOCKS / PAGE_WORDS) as u32;

/// Words of the first page: blocks that have been put in and taken out, how many there will be, and the receiver's verdict.
const HEAD: usize = 0;
const TAIL: usize = 8;
const TOTAL: usize = 16;
const VERDICT: usize = 24;

/// The control page, for the interrupt's handler, and how many interrupts came.
static CONTROL: AtomicU64 = AtomicU64::new(0);
static INTERRUPTS: AtomicU64 = AtomicU64::new(0);

fn main(machine: &'static Machine) {
    let argument = |name, default| machine.numeric_argument(name).unwrap_or(default);
    let factory = argument("shmem", FACTORY);
    if let Some(times) = machine.numeric_argument("attach") {
        return attach(factory, times);
    }
    if machine.has_argument("both") {
        return both();
    }
    if let Some(value) = machine.numeric_argument("say") {
        return say(factory, value);
    }
    let (name, pages) = if machine.has_argument("echo") { ("echo", 1) } else { ("exchange", PAGES) };
    let region = match Region::attach(factory, name, pages) {
        Ok(region) => region,
        Err(status) => return println!("exchange: not attached: status {status}"),
    };
    CONTROL.store(region.control().address() as u64, Ordering::Relaxed);
    // SAFETY: interrupts are still masked on this CPU, and no other runs.
    unsafe { exceptions::on_interrupt(look) };
    Gic::of(machine).enable(argument("intid", INTID) as u32);
    if machine.has_argument("echo") {
        echo(&region);
    } else if machine.has_argument("send") {
        send(&region, (argument("mib", 16) << 20) / (BLOCK as u64 * 8));
    } else {
        receive(&region);
    }
    println!("exchange: {} interrupts", INTERRUPTS.load(Ordering::Relaxed));
}

/// The interrupt: what it says is in memory.
fn look(_intid: u32) {
    // SAFETY: `main` has attached before it let the interrupt come.
    let control = unsafe { Mmio::new(CONTROL.load(Ordering::Relaxed) as usize) };
    let _news = control.read(0);
    INTERRUPTS.fetch_add(1, Ordering::Relaxed);
}

/// Sleeps until `done`, which is looked at whenever an interrupt has come. Masked until awake: none slips in between the look
/// and the sleep.
fn wait_until(done: impl Fn() -> bool) {
    while !done() {
        wfi();
        with_irq(|| {});
    }
}

/// The sequence that is sent (L'Ecuyer, "Tables of linear congruential generators", 1999).
struct Sequence(u64);

impl Sequence {
    const START: Self = Self(0x9e37_79b9_7f4a_7c15);

    #[inline(always)]
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(0x27bb_2ee6_87b0_b0fd).wrapping_add(0xb504_f32d);
        self.0
    }
}

fn add(checksum: u64, value: u64) -> u64 {
    checksum.rotate_left(1) ^ value
}

fn send(region: &Region, blocks: u64) {
    let words = region.words();
    let (head, tail, verdict) = (&words[HEAD], &words[TAIL], &words[VERDICT]);
    words[TOTAL].store(blocks, Ordering::Release);
    let (mut sequence, mut checksum) = (Sequence::START, 0);
    for (number, block) in (0..blocks).zip(words[PAGE_WORDS..].chunks_exact(BLOCK).cycle()) {
        wait_until(|| number - tail.load(Ordering::Acquire) < BLOCKS as u64);
        for word in block {
            let value = sequence.next();
            word.store(value, Ordering::Relaxed);
            checksum = add(checksum, value);
        }
        head.store(number + 1, Ordering::Release);
        region.notify(!0);
    }
    wait_until(|| verdict.load(Ordering::Acquire) != 0);
    let agreed = verdict.load(Ordering::Acquire) == checksum;
    println!("exchange: sent {blocks} blocks, checksum {checksum:016x}, {}", if agreed { "agreed" } else { "WRONG" });
}

fn receive(region: &Region) {
    let words = region.words();
    let (head, tail, total) = (&words[HEAD], &words[TAIL], &words[TOTAL]);
    wait_until(|| total.load(Ordering::Acquire) != 0);
    let (mut sequence, mut checksum, mut wrong) = (Sequence::START, 0, 0_u64);
    let blocks = total.load(Ordering::Acquire);
    for (number, block) in (0..blocks).zip(words[PAGE_WORDS..].chunks_exact(BLOCK).cycle()) {
        wait_until(|| head.load(Ordering::Acquire) > number);
        for word in block {
            let value = word.load(Ordering::Relaxed);
            wrong += u64::from(value != sequence.next());
            checksum = add(checksum, value);
        }
        tail.store(number + 1, Ordering::Release);
        region.notify(!0);
    }
    words[VERDICT].store(checksum, Ordering::Release);
    region.notify(!0);
    println!("exchange: received {blocks} blocks, checksum {checksum:016x}, {wrong} wrong");
}

/// Answers until it has had enough.
fn echo(region: &Region) {
    let word = &region.words()[0];
    println!("exchange: listens as client {}", region.client);
    let (mut answered, mut interrupts) = (0, INTERRUPTS.load(Ordering::Relaxed));
    loop {
        wait_until(|| INTERRUPTS.load(Ordering::Relaxed) != interrupts);
        interrupts = INTERRUPTS.load(Ordering::Relaxed);
        let value = word.load(Ordering::Acquire);
        if value != answered && value != 0 {
            answered = value + 1;
            word.store(answered, Ordering::Release);
            region.notify(!(1 << region.client));
            println!("exchange: {value} answered");
        }
        if value > 100 {
            return;
        }
    }
}

/// Regions of this guest's own, with pages of all kinds of numbers: what is in them is zero, and goes with them.
fn attach(factory: u64, times: u64) {
    const SIZES: [u32; 6] = [1, 3, 511, 512, 513, 2048];
    let mut dirty = 0_u64;
    for pages in SIZES.into_iter().cycle().take(times as usize) {
        match Region::attach(factory, "mine", pages) {
            Ok(region) if region.pages == pages as usize => {
                for word in region.words().iter().step_by(PAGE_WORDS / 2) {
                    dirty += u64::from(word.swap(!0, Ordering::Relaxed) != 0);
                }
                region.detach();
            }
            Ok(region) => return println!("exchange: {pages} pages wanted, {} found", region.pages),
            Err(status) => return println!("exchange: not attached: status {status}"),
        }
    }
    println!("exchange: attached {times} times, {dirty} words were not zero");
}

/// Regions that were not there when the store that attached to them was complete, of both CPUs; `DONE` by each when it is.
static LATE: AtomicU64 = AtomicU64::new(0);
const DONE: u64 = 1 << 32;

/// As many regions as a device can have.
fn fill(factory: u64, letter: char) {
    let mut last = 0;
    for number in 0..16_u8 {
        let name = [letter as u8, b'a' + number];
        match shmem::ask(factory, core::str::from_utf8(&name).unwrap_or_default(), 256) {
            Ok((at, 256)) if at != last => last = at,
            _ => _ = LATE.fetch_add(1, Ordering::Relaxed),
        }
    }
    LATE.fetch_add(DONE, Ordering::Release);
}

fn both() {
    if let Err(error) = cpus::start(1, |_| fill(SECOND_FACTORY, 'b')) {
        return println!("exchange: no second CPU: {error}");
    }
    fill(FACTORY, 'a');
    while LATE.load(Ordering::Acquire) < 2 * DONE {
        core::hint::spin_loop();
    }
    println!("exchange: attached from both CPUs, {} too late", LATE.load(Ordering::Acquire) - 2 * DONE);
}

/// What a guest does that tells the host something.
fn say(factory: u64, value: u64) {
    match Region::attach(factory, "status", 1) {
        Ok(region) => {
            region.words()[0].store(value, Ordering::Release);
            region.notify(region.others());
            println!("exchange: said {value:#x}");
            // The host has it before the region goes with this guest, if it has not kept it.
            wait(region);
        }
        Err(status) => println!("exchange: not attached: status {status}"),
    }
}

/// Gives others time to look.
fn wait(_region: Region) {
    guest_rt::timer::delay(100_000);
}
