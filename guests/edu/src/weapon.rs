//! DMA, and what can be seen of it.
//!
//! Answers for: a magazine, which is what the device writes; a target, a piece of own memory with the pattern, in which each write that
//! arrives is seen. Does not answer for: when to shoot at what (`orders`).

use core::ops::Range;
use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::edu::{BUFFER_SIZE, Edu};
use guest_rt::machine::Machine;
use guest_rt::tree::Tree;
use guest_rt::{pattern, println, timer};

/// Bytes of the target.
const TARGET: u64 = 1 << 20;
/// Bytes of a single shot.
pub(crate) const SHOT: u64 = 64;
/// Most bytes of one order.
const MOST: u64 = 1 << 20;

const WORDS: usize = BUFFER_SIZE as usize / 8;
/// A page each: what the device is loaded with, and what is read by it.
#[repr(C, align(4096))]
struct Page([AtomicU64; WORDS]);

static MAGAZINE: Page = Page([const { AtomicU64::new(0) }; WORDS]);
static FOUND: Page = Page([const { AtomicU64::new(0) }; WORDS]);

/// What is in a word of the magazine: `0xed` in each byte but the first, which counts.
fn bullet(index: usize) -> u64 {
    0xeded_eded_eded_ed00 | index as u64 & 0xff
}

/// The device, loaded.
pub(crate) struct Weapon {
    pub(crate) machine: &'static Machine,
    pub(crate) tree: Tree,
    pub(crate) edu: Edu,
    /// Own memory, with the pattern.
    pub(crate) target: Range<u64>,
    /// Own memory that nobody uses, in whole pages.
    pub(crate) spare: Range<u64>,
}

impl Weapon {
    /// None if there is no room for a target, or the device never ends.
    pub(crate) fn new(machine: &'static Machine, tree: Tree, edu: Edu) -> Option<Self> {
        let room = pattern::spare(machine).into_iter().max_by_key(|range| range.end - range.start)?;
        // In its second half, at a page.
        let start = (room.start / 2 + room.end / 2).next_multiple_of(BUFFER_SIZE);
        let target = start..start + TARGET;
        if target.end > room.end {
            return None;
        }
        // SAFETY: RAM that nobody uses.
        unsafe { pattern::fill(target.clone()) };
        for (index, word) in MAGAZINE.0.iter().enumerate() {
            word.store(bullet(index), Ordering::Relaxed);
        }
        let spare = room.start..start;
        let weapon = Self { machine, tree, edu, target, spare };
        let (at, reloaded) = (weapon.target.start, weapon.reload());
        weapon.edu.store(at, SHOT, false);
        if !reloaded || !weapon.edu.wait() {
            return None;
        }
        // It says the same of what is refused: only own memory tells.
        if weapon.arrived(at, SHOT) == Some(true) {
            println!("edu: loaded, own memory is {:#x}", weapon.target.start);
        } else {
            println!("edu: DMA does not reach own memory, {:#x}", weapon.target.start);
        }
        weapon.hits();
        Some(weapon)
    }

    /// Fills the device's buffer with bullets.
    pub(crate) fn reload(&self) -> bool {
        self.edu.load(MAGAZINE.0.as_ptr() as u64, BUFFER_SIZE, false);
        self.edu.wait()
    }

    /// Writes at any address, in shots of a page; what the device says, and whether it is there if that is own memory.
    pub(crate) fn write(&self, at: u64, length: u64) {
        let length = length.min(MOST);
        let start = timer::now();
        let mut done = true;
        for offset in (0..length).step_by(BUFFER_SIZE as usize) {
            self.edu.store(at.wrapping_add(offset), BUFFER_SIZE.min(length - offset), false);
            done &= self.edu.wait();
        }
        let milliseconds = (timer::now() - start) * 1000 / timer::frequency().max(1);
        let seen = match self.arrived(at, length) {
            Some(true) => ", arrived",
            Some(false) => ", not arrived",
            None => "",
        };
        println!("edu: write {at:#x} {length}: {} in {milliseconds} ms{seen}", says(done));
        self.hits();
    }

    /// Whether what has been written is there; none if it is not in the target.
    fn arrived(&self, at: u64, length: u64) -> Option<bool> {
        let is_own = at >= self.target.start && at.checked_add(length).is_some_and(|end| end <= self.target.end);
        is_own.then(|| {
            (0..length).all(|offset| {
                // SAFETY: in the target, which is RAM that nobody else uses.
                let found = unsafe { ((at + offset) as *const u8).read_volatile() };
                let place = (offset % BUFFER_SIZE) as usize;
                found == bullet(place / 8).to_le_bytes()[place % 8]
            })
        })
    }

    /// One shot, about which nothing is said.
    pub(crate) fn shoot(&self, at: u64) -> bool {
        self.edu.store(at, SHOT, false);
        self.edu.wait()
    }

    /// Reads 64 bytes: bullets are in the device's buffer before that, and what is then is looked at.
    pub(crate) fn read(&self, at: u64) {
        FOUND.0.iter().for_each(|word| word.store(0, Ordering::Relaxed));
        self.edu.load(at, SHOT, false);
        let mut done = self.edu.wait();
        self.edu.store(FOUND.0.as_ptr() as u64, SHOT, false);
        done &= self.edu.wait();
        let found = || FOUND.0.iter().take(SHOT as usize / 8).map(|word| word.load(Ordering::Acquire));
        let device = says(done);
        if found().eq((0..SHOT as usize / 8).map(bullet)) {
            println!("edu: read {at:#x}: {device}, nothing came");
        } else if found().all(|word| word == 0) {
            println!("edu: read {at:#x}: {device}, zeroes");
        } else {
            let [first, second] = [0, 1].map(|index: usize| FOUND.0[index].load(Ordering::Acquire).swap_bytes());
            let last = FOUND.0[SHOT as usize / 8 - 1].load(Ordering::Acquire).swap_bytes();
            println!("edu: read {at:#x}: {device}, {first:016x} {second:016x} ... {last:016x}");
        }
        if !self.reload() {
            println!("edu: FAILED: the magazine is not read any more");
        }
    }

    /// How many bytes of the target have changed since the last look. It is whole again then.
    pub(crate) fn hits(&self) -> u64 {
        // SAFETY: RAM that nobody else uses, filled by `new`.
        unsafe { pattern::check(self.target.clone(), |_, _, _| {}) }
    }

    /// Whether the pattern of one place in the target is at another: a shot's length of it.
    pub(crate) fn has(&self, of: u64, at: u64) -> bool {
        (0..SHOT).step_by(pattern::WORD as usize).all(|offset| {
            // SAFETY: in the target, which is RAM that nobody else uses.
            let found = unsafe { ((at + offset) as *const u64).read_volatile() };
            found == pattern::word(of + offset)
        })
    }
}

/// What the device says of an order.
pub(crate) fn says(done: bool) -> &'static str {
    if done { "done" } else { "never done" }
}
