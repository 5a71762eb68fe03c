//! An SMMU for tests, as unhelpful as the architecture allows.
//!
//! Answers for: an SMMU that sees stores in any order until they are published, reads the words of an entry at different
//! times, caches everything that it may (invalid entries, too), obeys an invalidation only when the `CMD_SYNC` behind it
//! makes it, and lets transactions linger between translation and memory; and for noticing when one of them lands where it
//! may not. A guest's stage 1 leaves every address as it is, and is there only to be combined with stage 2 in the TLB. Does not
//! answer for: anything outside tests. Its walks follow IHI 0070, 3.3.3 and 16.2, and DDI 0487,
//! D8.3, independently of the code under test.

mod properties;
mod queues;
mod unmap;
mod world;

use crate::registers::*;
use crate::{Command, Memory, Reach, Registers};
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::{format, vec::Vec};
use types::Pa;

/// What a transaction came to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Aborted; the number of the event, 0 for none.
    Aborted(u8),
    /// Translated to this page; it lands some time.
    Translated(u64),
    /// It passed as it was.
    Passed,
}

/// A transaction between translation and memory.
#[derive(Clone, Copy, Debug)]
struct Flying {
    stream: u32,
    vmid: u16,
    ipa: u64,
    page: u64,
}

/// The SMMU, its memory, and what may land where.
#[derive(Default)]
pub(crate) struct Model {
    /// For what it does when.
    random: u64,
    /// Memory as the SMMU sees it, and as the CPU does.
    seen: BTreeMap<u64, u64>,
    written: BTreeMap<u64, u64>,
    /// Stores that the SMMU has not seen, oldest first.
    unseen: Vec<(u64, u64)>,
    registers: BTreeMap<usize, u32>,
    entries: BTreeMap<u32, [u64; 8]>,
    half_read: BTreeMap<u32, [Option<u64>; 8]>,
    descriptors: BTreeMap<u32, u64>,
    /// (VMID, page of the VM) to page and whether it can be written.
    tlb: BTreeMap<(u16, u64), (u64, bool)>,
    /// The same, of stage 1 and 2 together: no invalidation by an address of the VM finds them (4.4.3.1).
    combined: BTreeMap<(u16, u64), (u64, bool)>,
    /// (VMID, 2 MiB of the VM) to table of the last level.
    walks: BTreeMap<(u16, u64), u64>,
    /// Consumed, and not yet obeyed; and obeyed since the last `CMD_SYNC`.
    invalidations: Vec<Command>,
    obeyed: Vec<Command>,
    flying: Vec<Flying>,
    /// Walks that are under way: VMID, page of the VM, table of the last level that is going to be read.
    walking: Vec<(u16, u64, u64)>,
    /// Tables that are somebody else's memory by now.
    pub(crate) freed: BTreeSet<u64>,
    /// Which VM (by VMID) has which page and which stream; 0 is nobody.
    pub(crate) page_owner: BTreeMap<u64, u16>,
    pub(crate) stream_owner: BTreeMap<u32, u16>,
    /// Streams that transactions come from.
    pub(crate) streams: BTreeSet<u32>,
    /// Pages of VMs that they go to.
    pub(crate) pages: Vec<u64>,
    /// The first rule that was broken.
    pub(crate) violation: Option<String>,
    /// A command that it does not take.
    pub(crate) rejects: Option<u64>,
    /// It consumes nothing.
    pub(crate) is_stuck: bool,
}

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        let mut model = Self { random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, ..Self::default() };
        let qemu = [(IDR0_OFFSET, 0x0d44_101b), (IDR1_OFFSET, 0x0273_0010), (IDR3_OFFSET, 0x1404), (IDR5_OFFSET, 0x74)];
        model.registers.extend(qemu);
        // Left on by somebody: a change that is under way, an error that nobody has acknowledged, a device that is let
        // through, a translation, interrupts as messages, and numbers that are not 0.
        let left = [
            CR1_OFFSET,
            CR2_OFFSET,
            STRTAB_BASE_OFFSET + 4,
            CMDQ_BASE_OFFSET + 4,
            CMDQ_CONS_OFFSET,
            EVENTQ_PROD_OFFSET,
        ];
        model.registers.extend(left.map(|offset| (offset, 7)));
        let left = [EVENTQ_BASE_OFFSET, EVENTQ_BASE_OFFSET + 4, EVENTQ_CONS_OFFSET, CMDQ_PROD_OFFSET];
        model.registers.extend(left.map(|offset| (offset, 9)));
        let left =
            [GERROR_IRQ_CFG0_OFFSET, GERROR_IRQ_CFG0_OFFSET + 4, EVENTQ_IRQ_CFG0_OFFSET, EVENTQ_IRQ_CFG0_OFFSET + 4];
        model.registers.extend(left.map(|offset| (offset, 4)));
        model.registers.extend([
            (CR0_OFFSET, 0xd),
            (CR0ACK_OFFSET, 0xd),
            (IRQ_CTRL_OFFSET, 5),
            (IRQ_CTRLACK_OFFSET, 5),
        ]);
        model.registers.extend([(GERROR_OFFSET, 1), (GBPA_OFFSET, 1 << 31)]);
        model.entries.insert(0x09, [0b1001, 0, 0, 0, 0, 0, 0, 0]);
        model.tlb.insert((1, 0x10), (0xbad, true));
        model
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % end
    }

    fn register(&self, offset: usize) -> u32 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn wide(&self, offset: usize) -> u64 {
        u64::from(self.register(offset)) | u64::from(self.register(offset + 4)) << 32
    }

    /// What is no table any more is somebody else's: what looks like a way to a page that is nobody's.
    fn word(&self, at: u64) -> u64 {
        let is_freed = self.freed.contains(&(at & !0xfff));
        if is_freed { 0xdead_d7ff } else { self.seen.get(&at).copied().unwrap_or(0) }
    }

    pub(crate) fn is_translating(&self) -> bool {
        self.register(CR0ACK_OFFSET) & 1 != 0
    }

    fn complain(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    /// The SMMU sees one of the stores, not necessarily the oldest; those to one place in their order.
    fn see(&mut self, index: usize) {
        let (at, _) = self.unseen[index];
        let oldest = self.unseen.iter().position(|store| store.0 == at).unwrap();
        let (at, word) = self.unseen.remove(oldest);
        self.seen.insert(at, word);
    }

    /// Whatever was stored to these tables is overtaken by zeroes.
    fn clear(&mut self, table: u64, pages: usize) {
        let within = table..table + 4096 * pages as u64;
        self.unseen.retain(|store| !within.contains(&store.0));
        for memory in [&mut self.seen, &mut self.written] {
            let words: Vec<u64> = memory.range(within.clone()).map(|(at, _)| *at).collect();
            for at in words {
                memory.remove(&at);
            }
        }
    }

    /// Something happens by itself.
    pub(crate) fn tick(&mut self) {
        match self.below(11) {
            0 if !self.unseen.is_empty() => {
                let index = self.below(self.unseen.len());
                self.see(index);
            }
            1 | 2 => self.consume(),
            3 if !self.invalidations.is_empty() => {
                let index = self.below(self.invalidations.len());
                let command = self.invalidations.remove(index);
                self.obey(command);
            }
            4 => self.prefetch_entry(),
            5 if !self.flying.is_empty() => {
                let index = self.below(self.flying.len());
                self.land(index);
            }
            6 => {
                let ack = self.register(CR0_OFFSET);
                self.registers.insert(CR0ACK_OFFSET, ack);
            }
            8 => {
                let interrupts = self.register(IRQ_CTRL_OFFSET);
                self.registers.insert(IRQ_CTRLACK_OFFSET, interrupts);
            }
            9 => {
                let abort = self.register(GBPA_OFFSET) & !(1 << 31);
                self.registers.insert(GBPA_OFFSET, abort);
            }
            7 => self.transact_somewhere(),
            10 if !self.walking.is_empty() => {
                let index = self.below(self.walking.len());
                let (vmid, page, table) = self.walking.swap_remove(index);
                self.finish_walk(vmid, page, table);
            }
            _ => {}
        }
    }

    fn transact_somewhere(&mut self) {
        let (Some(streams), Some(pages)) = (self.streams.len().checked_sub(1), self.pages.len().checked_sub(1)) else {
            return;
        };
        let stream = self.below(streams + 1);
        let page = self.below(pages + 1);
        let stream = *self.streams.iter().nth(stream).unwrap();
        let page = self.pages[page];
        self.transact(stream, page);
    }

    // Commands.

    fn consume(&mut self) {
        let error = (self.register(GERROR_OFFSET) ^ self.register(GERRORN_OFFSET)) & 1 != 0;
        if self.is_stuck || error || self.register(CR0ACK_OFFSET) & 1 << 3 == 0 {
            return;
        }
        let base = self.wide(CMDQ_BASE_OFFSET);
        let bits = (base & 0x1f) as u32;
        let mask = (2 << bits) - 1;
        let cons = self.register(CMDQ_CONS_OFFSET) & mask;
        if cons == self.register(CMDQ_PROD_OFFSET) & mask {
            return;
        }
        let at = (base & 0x00ff_ffff_ffff_ffe0) + u64::from(cons & (mask >> 1)) * 16;
        let words = [self.word(at), self.word(at + 8)];
        match Command::decode(words) {
            _ if Some(words[0]) == self.rejects => return self.stop(1),
            Err(_) => return self.stop(1),
            Ok(Command::Sync(_)) => self.synchronize(),
            Ok(command) => self.invalidations.push(command),
        }
        self.registers.insert(CMDQ_CONS_OFFSET, cons.wrapping_add(1) & mask);
    }

    fn stop(&mut self, code: u32) {
        let cons = self.register(CMDQ_CONS_OFFSET) & 0xf_ffff;
        self.registers.insert(CMDQ_CONS_OFFSET, cons | code << 24);
        let gerror = self.register(GERROR_OFFSET) ^ 1;
        self.registers.insert(GERROR_OFFSET, gerror);
    }

    /// 4.7.3: what came before is complete, and so are transactions that have used it.
    fn synchronize(&mut self) {
        while let Some(command) = self.invalidations.pop() {
            self.obey(command);
        }
        let obeyed = core::mem::take(&mut self.obeyed);
        while let Some(index) = self.flying.iter().position(|flying| obeyed.iter().any(|command| used(flying, command)))
        {
            self.land(index);
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::CfgiSte { stream, leaf } => {
                self.entries.remove(&stream);
                self.half_read.remove(&stream);
                if !leaf {
                    self.descriptors.remove(&(stream >> 6));
                }
            }
            Command::CfgiAll => {
                self.entries.clear();
                self.half_read.clear();
                self.descriptors.clear();
            }
            Command::TlbiS12Vmall { vmid } => {
                self.tlb.retain(|key, _| key.0 != vmid);
                self.combined.retain(|key, _| key.0 != vmid);
                self.walks.retain(|key, _| key.0 != vmid);
                self.walking.retain(|walk| walk.0 != vmid);
            }
            Command::TlbiNsnhAll => {
                self.tlb.clear();
                self.combined.clear();
                self.walks.clear();
                self.walking.clear();
            }
            Command::TlbiS2Ipa { vmid, reach } => {
                self.tlb.retain(|key, _| key.0 != vmid || !reaches(&reach, key.1, 1));
                // A descriptor of a table takes all walks with it that have used it.
                let (mask, count) = if reach.leaf { (0, 1) } else { (511, 512) };
                self.walking.retain(|walk| walk.0 != vmid || !reaches(&reach, walk.1 & !mask, count));
                if !reach.leaf {
                    self.walks.retain(|key, _| key.0 != vmid || !reaches(&reach, key.1 << 9, 512));
                }
            }
            Command::TlbiNhAll { vmid } => self.combined.retain(|key, _| key.0 != vmid),
            other => self.complain(format!("{other:?} is of no use here")),
        }
        self.obeyed.push(command);
    }

    // Configuration.

    /// Where the entry of `stream` is, by what is cached or in memory of the first level.
    fn place(&mut self, stream: u32) -> Option<u64> {
        let base = self.wide(STRTAB_BASE_OFFSET) & 0x00ff_ffff_ffff_ffc0;
        let configuration = self.register(STRTAB_BASE_CFG_OFFSET);
        if u64::from(stream) >> (configuration & 0x3f) != 0 {
            return None;
        }
        if configuration >> 16 & 3 == 0 {
            return Some(base + u64::from(stream) * 64);
        }
        assert_eq!(configuration >> 6 & 0x1f, 6, "SPLIT");
        let index = stream >> 6;
        let at = base + u64::from(index) * 8;
        let descriptor = *self.descriptors.entry(index).or_insert_with(|| self.seen.get(&at).copied().unwrap_or(0));
        let span = descriptor & 0x1f;
        (span != 0).then_some((descriptor & 0x00ff_ffff_ffff_f000) + u64::from(stream & 63) * 64)
    }

    /// One word of some entry is read.
    fn prefetch_entry(&mut self) {
        if !self.is_translating() || self.streams.is_empty() {
            return;
        }
        let index = self.below(self.streams.len());
        let stream = *self.streams.iter().nth(index).unwrap();
        let word = self.below(8);
        self.read_word(stream, word);
    }

    fn read_word(&mut self, stream: u32, word: usize) {
        if self.entries.contains_key(&stream) {
            return;
        }
        let Some(at) = self.place(stream) else { return };
        let value = self.word(at + 8 * word as u64);
        let partial = self.half_read.entry(stream).or_default();
        partial[word].get_or_insert(value);
        if partial.iter().all(Option::is_some) {
            let whole = partial.map(Option::unwrap);
            self.half_read.remove(&stream);
            self.entries.insert(stream, whole);
        }
    }

    fn entry(&mut self, stream: u32) -> Option<[u64; 8]> {
        for word in 0..8 {
            self.read_word(stream, word);
        }
        self.entries.get(&stream).copied()
    }

    // Transactions.

    /// A write of `stream` to a page of its VM.
    pub(crate) fn transact(&mut self, stream: u32, page: u64) -> Outcome {
        if !self.is_translating() {
            return if self.register(GBPA_OFFSET) & 1 << 20 != 0 { Outcome::Aborted(0) } else { Outcome::Passed };
        }
        if !self.entries.contains_key(&stream) && self.place(stream).is_none() {
            return Outcome::Aborted(0x02);
        }
        let Some(entry) = self.entry(stream) else { return Outcome::Aborted(0x02) };
        let configuration = entry[0] >> 1 & 7;
        match (entry[0] & 1, configuration) {
            (0, _) => return Outcome::Aborted(0x04),
            (_, 0..=3) => return Outcome::Aborted(0),
            (_, 4) => return Outcome::Passed,
            (_, 6 | 7) => {}
            _ => {
                self.complain(format!("an entry with Config {configuration}"));
                return Outcome::Aborted(0x04);
            }
        }
        let vmid = (entry[2] & 0xffff) as u16;
        let translated = match (configuration, self.combined.get(&(vmid, page))) {
            (7, Some(cached)) => Some(*cached),
            _ => self.translate(vmid, &entry, page),
        };
        if let (7, Some(translated)) = (configuration, translated) {
            self.combined.insert((vmid, page), translated);
        }
        let Some((to, true)) = translated else { return Outcome::Aborted(0x10) };
        self.flying.push(Flying { stream, vmid, ipa: page, page: to });
        if self.flying.len() > 8 {
            self.land(0);
        }
        Outcome::Translated(to)
    }

    /// DDI 0487, D8.3: 4 KiB granule; the start level is 1, as for 40 bits.
    fn translate(&mut self, vmid: u16, entry: &[u64; 8], page: u64) -> Option<(u64, bool)> {
        if let Some(cached) = self.tlb.get(&(vmid, page)) {
            return Some(*cached);
        }
        if entry[2] >> 32 & 0xff != 0x58 {
            self.complain(format!("S2T0SZ and S2SL0 are {:#x}", entry[2] >> 32 & 0xff));
        }
        let table = match self.walks.get(&(vmid, page >> 9)) {
            Some(table) => *table,
            None => {
                let root = entry[3] & 0x00ff_ffff_ffff_f000;
                let level1 = self.word(root + (page >> 18) * 8);
                let level2 = (level1 & 3 == 3).then(|| self.word((level1 & ADDRESS) + (page >> 9 & 511) * 8))?;
                let table = (level2 & 3 == 3).then_some(level2 & ADDRESS)?;
                self.walks.insert((vmid, page >> 9), table);
                table
            }
        };
        // A neighbour is looked up as well, some time.
        if self.walking.len() < 4 {
            self.walking.push((vmid, page ^ 1, table));
        }
        self.finish_walk(vmid, page, table)
    }

    fn finish_walk(&mut self, vmid: u16, page: u64, table: u64) -> Option<(u64, bool)> {
        if self.freed.contains(&table) {
            self.complain(format!("a walk for VM {vmid} read what is no table any more"));
        }
        let leaf = self.word(table + (page & 511) * 8);
        let result = (leaf & 3 == 3).then_some(((leaf & ADDRESS) >> 12, leaf >> 7 & 1 != 0))?;
        self.tlb.insert((vmid, page), result);
        Some(result)
    }

    fn land(&mut self, index: usize) {
        let flying = self.flying.swap_remove(index);
        let page = self.page_owner.get(&flying.page).copied().unwrap_or(0);
        let stream = self.stream_owner.get(&flying.stream).copied().unwrap_or(0);
        if page == 0 || page != stream {
            self.complain(format!(
                "stream {:#x} of VM {stream} wrote to page {:#x} of VM {page}",
                flying.stream, flying.page
            ));
        }
    }

    /// Lets everything land that still flies.
    pub(crate) fn land_all(&mut self) {
        while !self.flying.is_empty() {
            self.land(0);
        }
    }

    /// Records an event. Events come from nowhere else: transactions here are too many to be recorded.
    pub(crate) fn record(&mut self, record: [u64; 4]) {
        let base = self.wide(EVENTQ_BASE_OFFSET);
        let mask = (2_u32 << (base & 0x1f)) - 1;
        let (prod, cons) = (self.register(EVENTQ_PROD_OFFSET), self.register(EVENTQ_CONS_OFFSET));
        if (prod ^ cons) & mask == (mask + 1) >> 1 {
            // 7.4: toggled unless there is an overflow already.
            let is_overflown = (prod ^ cons) >> 31 != 0;
            self.registers.insert(EVENTQ_PROD_OFFSET, if is_overflown { prod } else { prod ^ 1 << 31 });
            return;
        }
        let at = (base & 0x00ff_ffff_ffff_ffe0) + u64::from(prod & (mask >> 1)) * 32;
        for (word, value) in record.into_iter().enumerate() {
            self.seen.insert(at + 8 * word as u64, value);
            self.written.insert(at + 8 * word as u64, value);
        }
        self.registers.insert(EVENTQ_PROD_OFFSET, prod & 1 << 31 | prod.wrapping_add(1) & mask);
    }

    /// What [`crate::Smmu::start`] has to have left.
    pub(crate) fn is_set_up(&self) -> bool {
        let expected = [
            (GBPA_OFFSET, 1 << 20),
            (CR0ACK_OFFSET, 0b1101),
            // Inner shareable, write-back, for tables and queues.
            (CR1_OFFSET, 0xd75),
            (CR2_OFFSET, 0b110),
            (IRQ_CTRLACK_OFFSET, 0b101),
            (STRTAB_BASE_OFFSET + 4, 0x4000_0000),
            (CMDQ_BASE_OFFSET + 4, 0x4000_0000),
            (EVENTQ_BASE_OFFSET, 0x3000_0002),
            (EVENTQ_BASE_OFFSET + 4, 0x4000_0000),
            (EVENTQ_PROD_OFFSET, 0),
            (EVENTQ_CONS_OFFSET, 0),
            (GERROR_IRQ_CFG0_OFFSET, 0),
            (GERROR_IRQ_CFG0_OFFSET + 4, 0),
            (EVENTQ_IRQ_CFG0_OFFSET, 0),
            (EVENTQ_IRQ_CFG0_OFFSET + 4, 0),
        ];
        expected.iter().all(|(offset, value)| self.register(*offset) == *value)
    }

    /// Sets a register from the SMMU's side.
    pub(crate) fn force(&mut self, offset: usize, value: u32) {
        self.registers.insert(offset, value);
    }
}

const ADDRESS: u64 = 0xffff_ffff_f000;

/// Whether an invalidation by address reaches one of `count` pages from `page` on.
fn reaches(reach: &Reach, page: u64, count: u64) -> bool {
    let first = reach.address >> 12;
    let pages = reach.range.map_or(1, |range| (u64::from(range.num) + 1) << range.scale);
    first < page + count && page < first + pages
}

/// Whether a transaction has used what `command` invalidates.
fn used(flying: &Flying, command: &Command) -> bool {
    match command {
        Command::CfgiSte { stream, .. } => *stream == flying.stream,
        Command::TlbiS12Vmall { vmid } | Command::TlbiNhAll { vmid } => *vmid == flying.vmid,
        Command::TlbiS2Ipa { vmid, reach } => *vmid == flying.vmid && reaches(reach, flying.ipa, 1),
        _ => matches!(command, Command::CfgiAll | Command::TlbiNsnhAll),
    }
}

impl Registers for Model {
    fn get(&mut self, offset: usize) -> u32 {
        self.tick();
        self.register(offset)
    }

    fn set(&mut self, offset: usize, value: u32) {
        self.tick();
        let on = self.register(CR0ACK_OFFSET);
        let guarded = matches!(offset, STRTAB_BASE_OFFSET | STRTAB_BASE_CFG_OFFSET | CR1_OFFSET | CR2_OFFSET);
        if guarded && on & 1 != 0 || matches!(offset, CMDQ_BASE_OFFSET | CMDQ_CONS_OFFSET) && on & 1 << 3 != 0 {
            self.complain(format!("the register at {offset:#x} was written while it was in use"));
        }
        let messages = matches!(offset & !4, GERROR_IRQ_CFG0_OFFSET | EVENTQ_IRQ_CFG0_OFFSET);
        if messages && self.register(IRQ_CTRLACK_OFFSET) != 0
            || offset == GBPA_OFFSET && self.register(offset) >> 31 != 0
        {
            self.complain(format!("the register at {offset:#x} was written too early"));
        }
        if offset == CR0_OFFSET && on & 1 != 0 && value & 1 == 0 && self.register(GBPA_OFFSET) != 1 << 20 {
            self.complain("translation was switched off with nothing to abort traffic".into());
        }
        if offset == CR0_OFFSET && value != on && self.register(CR0_OFFSET) != on {
            self.complain("CR0 was changed before the last change was acknowledged".into());
        }
        self.registers.insert(offset, value);
    }
}

impl Memory for Model {
    fn load(&mut self, at: Pa) -> u64 {
        self.written.get(&at.0).copied().unwrap_or(0)
    }

    fn store(&mut self, at: Pa, word: u64) {
        self.tick();
        self.written.insert(at.0, word);
        self.unseen.push((at.0, word));
    }

    fn publish(&mut self) {
        while !self.unseen.is_empty() {
            self.see(0);
        }
    }
}
