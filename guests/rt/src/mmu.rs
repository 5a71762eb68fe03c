//! Stage 1 translation: caches on, addresses unchanged.
//!
//! Answers for: an identity map of the lower 512 GiB less the last one (RAM as cacheable memory that may be executed, all
//! else as device memory that may not), and one 1 GiB window through which any physical address can be reached. Does not
//! answer for: protection; a guest trusts itself.
//!
//! DDI 0487, chapter D8. 4 KiB granule, 39-bit virtual addresses: three levels.

use core::cell::UnsafeCell;
use core::ops::Range;
use core::sync::atomic::{AtomicUsize, Ordering};

use crate::machine::Machine;
use crate::registers::{dsb, isb};
use crate::{instruction, mrs};

const PAGE: u64 = 0x1000;
/// The highest gigabyte that 39 bits reach: the window.
const WINDOW: u64 = 511 << 30;
const WINDOW_SIZE: u64 = 1 << 30;
const TABLES: usize = 32;

/// How memory behaves. Values are lower and upper attributes of a block descriptor, without type and address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Write-back, readable, writable, executable at EL1.
    Memory,
    /// Device-nGnRnE, not executable.
    Device,
    /// Write-back, readable and executable at EL0 and EL1.
    User,
    /// Not there.
    Unmapped,
}

impl Kind {
    /// `MAIR_EL1` index, access permissions, shareability, access flag, execute-never.
    const fn attributes(self) -> u64 {
        match self {
            Self::Memory => 1 << 2 | 0b11 << 8 | 1 << 10 | 1 << 54,
            Self::Device => 1 << 10 | 1 << 53 | 1 << 54,
            Self::User => 1 << 2 | 0b11 << 6 | 0b11 << 8 | 1 << 10,
            Self::Unmapped => 0,
        }
    }
}

/// What turns translation on; `entry.S` knows the order.
#[repr(C)]
#[derive(Debug)]
pub(crate) struct Translation {
    mair: u64,
    tcr: u64,
    table: u64,
    sctlr: u64,
}

/// The same for every CPU.
#[unsafe(no_mangle)]
static GUEST_TRANSLATION: Shared<Translation> =
    Shared(UnsafeCell::new(Translation { mair: 0, tcr: 0, table: 0, sctlr: 0 }));

#[repr(C, align(4096))]
struct Pool([[u64; 512]; TABLES]);

#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: written by the boot CPU only: before others run, and later in ways that the architecture allows beside walks.
unsafe impl<T> Sync for Shared<T> {}

static POOL: Shared<Pool> = Shared(UnsafeCell::new(Pool([[0; 512]; TABLES])));
static USED: AtomicUsize = AtomicUsize::new(1);

unsafe extern "C" {
    fn guest_enable_translation(translation: *const Translation);
    fn guest_invalidate_own_data();
}

/// Maps everything and turns translation and caches on, on the boot CPU.
///
/// # Safety
///
/// Once, by the boot CPU, before any other runs.
pub(crate) unsafe fn start(machine: &Machine) {
    map(0..WINDOW, 0, Kind::Device);
    for range in &machine.memory {
        let start = range.start.next_multiple_of(PAGE).min(WINDOW);
        let end = (range.end & !(PAGE - 1)).min(WINDOW);
        map(start..end.max(start), start, Kind::Memory);
    }
    let physical_size = mrs!("id_aa64mmfr0_el1") & 0xf;
    // SAFETY: nobody else runs.
    let translation = unsafe { &mut *GUEST_TRANSLATION.0.get() };
    // Attribute 0: Device-nGnRnE; 1: write-back, read and write allocate.
    translation.mair = 0xff00;
    // T0SZ = 25, walks write-back and inner shareable, no TTBR1, physical size as implemented (at most 48 bits).
    translation.tcr = 25 | 0b01 << 8 | 0b01 << 10 | 0b11 << 12 | 1 << 23 | physical_size.min(5) << 32;
    translation.table = POOL.0.get() as u64;
    // RES1 bits, I, SA, C, M; EL0 may use DC ZVA, CTR and cache maintenance as most systems allow.
    translation.sctlr = 0x30d0_0800 | 1 << 12 | 1 << 3 | 1 << 2 | 1 | 1 << 14 | 1 << 15 | 1 << 26;
    dsb();
    // SAFETY: all was written with the caches off: what they hold of it, they hold wrongly.
    unsafe { guest_invalidate_own_data() };
    // SAFETY: the tables map all that runs and is used at the address where it is.
    unsafe { guest_enable_translation(translation) };
}

/// Makes a physical address reachable: where it is, if that is among those mapped one to one, else through the window.
#[must_use]
pub fn reach(physical: u64, kind: Kind) -> usize {
    if kind == Kind::Device && physical < WINDOW {
        return physical as usize;
    }
    let start = physical & !(WINDOW_SIZE - 1);
    remap(WINDOW..WINDOW + WINDOW_SIZE, start, kind);
    (WINDOW + (physical - start)) as usize
}

/// Maps `range` to `physical` while running. Boot CPU only; nothing in use lies there.
pub fn remap(range: Range<u64>, physical: u64, kind: Kind) {
    // Break before make (DDI 0487, section D8.16.1).
    map(range.clone(), 0, Kind::Unmapped);
    flush();
    map(range, physical, kind);
    flush();
}

/// Changes the first-level entry of the window to any bit pattern, such as a table in memory that does not exist.
///
/// # Safety
///
/// Whatever the window then reaches is not relied on.
pub unsafe fn set_window_descriptor(descriptor: u64) {
    // SAFETY: the caller's promise; the root table is the first of the pool.
    let root = unsafe { &mut (&mut *POOL.0.get()).0[0] };
    root[511] = descriptor;
    flush();
}

/// Where the window is.
#[must_use]
pub const fn window() -> usize {
    WINDOW as usize
}

fn flush() {
    dsb();
    instruction!("tlbi vmalle1is");
    dsb();
    isb();
}

fn map(range: Range<u64>, physical: u64, kind: Kind) {
    let mut address = range.start;
    while address < range.end {
        let output = physical + (address - range.start);
        let left = range.end - address;
        // The largest block that fits: 1 GiB at level 1, 2 MiB at level 2, a page at level 3.
        let level =
            (1..3).find(|level| (address | output).is_multiple_of(span(*level)) && left >= span(*level)).unwrap_or(3);
        let kind_bits = if level == 3 { 0b11 } else { 0b01 };
        let descriptor = if kind == Kind::Unmapped { 0 } else { output | kind.attributes() | kind_bits };
        set(address, level, descriptor);
        address += span(level);
    }
}

/// What one entry at `level` covers.
const fn span(level: u32) -> u64 {
    1 << (39 - 9 * level)
}

fn set(address: u64, level: u32, descriptor: u64) {
    // SAFETY: the boot CPU alone changes tables, and no reference to them outlives a function of this module.
    let tables = unsafe { &mut (*POOL.0.get()).0 };
    let mut table = 0;
    for above in 1..level {
        let index = (address / span(above) % 512) as usize;
        table = match tables[table][index] {
            next if next & 0b11 == 0b11 => (next - POOL.0.get() as u64) as usize / size_of::<[u64; 512]>(),
            block => {
                let new = USED.fetch_add(1, Ordering::Relaxed);
                assert!(new < TABLES, "memory is too fragmented for our translation tables");
                split(&mut tables[new], block, above + 1);
                tables[table][index] = &raw const tables[new] as u64 | 0b11;
                new
            }
        };
    }
    tables[table][(address / span(level) % 512) as usize] = descriptor;
}

/// Fills a table of `level` with what `block` said.
fn split(table: &mut [u64; 512], block: u64, level: u32) {
    for (index, entry) in (0..).zip(table.iter_mut()) {
        *entry = if block == 0 { 0 } else { (block + index * span(level)) | if level == 3 { 0b11 } else { 0b01 } };
    }
}
