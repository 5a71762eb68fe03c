//! What a guest's stage 1 tables map.
//!
//! Answers for: the tables of `TTBR0_EL1` and `TTBR1_EL1` (DDI 0487, "The AArch64 Virtual Memory System Architecture"):
//! granules of 4, 16 and 64 KiB, addresses of up to 52 bits by FEAT_LPA, FEAT_LVA and FEAT_LPA2. Does not answer for:
//! permissions and attributes.
//!
//! The tables are whatever a guest has written: how many are looked at is bounded, and what they map to must be in the dump.

use super::{Core, Vcpu};

/// Most tables that are looked at: as many as there could be, each for two roots. Tables that point at one another would
/// lead on for ever.
fn most_tables(core: &Core) -> usize {
    let bytes: u64 = core.segments.iter().map(|segment| segment.size).sum();
    (bytes >> 11) as usize + 16
}

const SCTLR_M: u64 = 1 << 0;
const TCR_EPD: [u64; 2] = [1 << 7, 1 << 23];
const TCR_DS: u64 = 1 << 59;
const VALID: u64 = 1 << 0;
const TABLE_OR_PAGE: u64 = 1 << 1;

/// Memory that follows one another in three ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) address: u64,
    pub(super) physical: u64,
    /// In the file.
    pub(super) offset: u64,
    pub(super) size: u64,
}

/// One translation regime's half.
#[derive(Clone, Copy, Debug)]
struct Half {
    root: u64,
    /// Address bits that are translated.
    bits: u32,
    /// Address bits within a page.
    page: u32,
    /// FEAT_LPA2: where an address's high bits are.
    long: bool,
    /// The upper half: addresses begin with ones.
    upper: bool,
}

impl Half {
    /// `None`: it is off, or there is no such thing.
    fn of(vcpu: &Vcpu, upper: bool) -> Option<Half> {
        let tcr = vcpu.system("tcr_el1");
        if vcpu.system("sctlr_el1") & SCTLR_M == 0 || tcr & TCR_EPD[usize::from(upper)] != 0 {
            return None;
        }
        let (size, granule) = if upper { (tcr >> 16 & 0x3f, tcr >> 30 & 3) } else { (tcr & 0x3f, tcr >> 14 & 3) };
        let page = match (granule, upper) {
            (0, false) | (2, true) => 12,
            (2, false) | (1, true) => 14,
            (1, false) | (3, true) => 16,
            _ => return None,
        };
        let bits = 64 - size as u32;
        // TnSZ from 12 to 48, as far as the architecture goes with all its extensions.
        if !(16..=52).contains(&bits) || bits <= page {
            return None;
        }
        let long = page < 16 && tcr & TCR_DS != 0;
        let register = vcpu.system(if upper { "ttbr1_el1" } else { "ttbr0_el1" });
        let root = if page == 16 || long {
            register & 0x0000_ffff_ffff_ffc0 | (register >> 2 & 0xf) << 48
        } else {
            register & 0x0000_ffff_ffff_fffe
        };
        Some(Half { root, bits, page, long, upper })
    }

    /// Address bits that one table translates.
    fn stride(self) -> u32 {
        self.page - 3
    }

    /// The level at which the walk begins, from -1 on.
    fn first_level(self) -> i32 {
        4 - (self.bits - self.page).div_ceil(self.stride()) as i32
    }

    /// Address bits below those that a table of this level translates.
    fn shift(self, level: i32) -> u32 {
        self.page + self.stride() * (3 - level) as u32
    }

    fn may_be_block(self, level: i32) -> bool {
        match self.page {
            12 => level == 2 || level == 1 || level == 0 && self.long,
            14 => level == 2 || level == 1 && self.long,
            _ => level == 2 || level == 1,
        }
    }

    /// What a descriptor points to.
    fn output(self, descriptor: u64) -> u64 {
        let low = !((1 << self.page) - 1);
        if self.page == 16 {
            descriptor & 0x0000_ffff_ffff_0000 | (descriptor >> 12 & 0xf) << 48
        } else if self.long {
            descriptor & 0x0003_ffff_ffff_f000 & low | (descriptor >> 8 & 3) << 50
        } else {
            descriptor & 0x0000_ffff_ffff_f000 & low
        }
    }
}

struct Walk<'a> {
    core: &'a Core,
    runs: Vec<Run>,
    /// Most runs.
    room: usize,
    tables: usize,
    complete: bool,
}

/// What the vCPUs' tables map of the dumped memory, by address, and whether that is all. Of two tables that map an address
/// the first counts: the kernel's before user space's, a vCPU's that is in the kernel before another's.
pub(super) fn walk(core: &Core, room: usize) -> (Vec<Run>, bool) {
    let mut walk = Walk { core, runs: Vec::new(), room, tables: most_tables(core), complete: true };
    let mut vcpus: Vec<&Vcpu> = core.vcpus.iter().collect();
    vcpus.sort_by_key(|vcpu| vcpu.in_user_space());
    let mut roots = Vec::new();
    for upper in [true, false] {
        for vcpu in &vcpus {
            let Some(half) = Half::of(vcpu, upper) else { continue };
            if !roots.contains(&(half.root, upper)) {
                roots.push((half.root, upper));
                let mut found = Walk { core, runs: Vec::new(), room, tables: walk.tables, complete: true };
                found.half(half);
                walk.tables = found.tables;
                walk.complete &= found.complete;
                walk.merge(found.runs);
            }
        }
    }
    (walk.runs, walk.complete)
}

impl Walk<'_> {
    fn half(&mut self, half: Half) {
        let level = half.first_level();
        let start = if half.upper { u64::MAX << half.bits } else { 0 };
        let entries = 1_u64 << (half.bits - half.shift(level));
        self.table(half, level, half.root, start, entries);
    }

    fn table(&mut self, half: Half, level: i32, table: u64, start: u64, entries: u64) {
        let mut bytes = vec![0; entries as usize * 8];
        if self.tables == 0 {
            self.complete = false;
            return;
        }
        self.tables -= 1;
        if self.core.physical(table, &mut bytes).is_none() {
            return;
        }
        let size = 1_u64 << half.shift(level);
        for (index, descriptor) in (0..).zip(super::longs(&bytes)) {
            let address = start + index * size;
            let output = half.output(descriptor);
            if descriptor & VALID == 0 {
                continue;
            }
            match descriptor & TABLE_OR_PAGE != 0 {
                true if level < 3 => self.table(half, level + 1, output, address, 1 << half.stride()),
                true => self.found(address, output, size),
                false if half.may_be_block(level) => self.found(address, output & !(size - 1), size),
                false => {}
            }
        }
    }

    /// So much of a page or block as is in the dump.
    fn found(&mut self, address: u64, physical: u64, size: u64) {
        for segment in &self.core.segments {
            let first = physical.max(segment.address);
            let end = (physical + size).min(segment.address + segment.size);
            if first >= end {
                continue;
            }
            let run = Run {
                address: address + (first - physical),
                physical: first,
                offset: segment.offset + (first - segment.address),
                size: end - first,
            };
            let room = self.runs.len() < self.room;
            match self.runs.last_mut() {
                Some(last)
                    if last.address.wrapping_add(last.size) == run.address
                        && last.physical + last.size == run.physical
                        && last.offset + last.size == run.offset =>
                {
                    last.size += run.size;
                }
                _ if room => self.runs.push(run),
                // There is no point in looking on.
                _ => (self.complete, self.tables) = (false, 0),
            }
        }
    }

    /// Adds what is not covered yet.
    fn merge(&mut self, runs: Vec<Run>) {
        for run in runs {
            let covers = |other: &Run| {
                let (end, other_end) = (run.address + (run.size - 1), other.address + (other.size - 1));
                run.address <= other_end && other.address <= end
            };
            let place = self.runs.partition_point(|other| other.address < run.address);
            let near = self.runs.get(place.saturating_sub(1)..(place + 1).min(self.runs.len())).unwrap_or_default();
            if near.iter().any(covers) {
                continue;
            }
            if self.runs.len() < self.room {
                self.runs.insert(place, run);
            } else {
                self.complete = false;
            }
        }
    }
}
