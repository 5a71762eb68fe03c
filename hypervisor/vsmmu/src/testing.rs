//! Guests with a virtual SMMU each, and a machine whose SMMU they share.
//!
//! Answers for: an SMMU that caches whatever it may, obeys orders only when it is told to be done with them, and walks a guest's tables
//! through stage 2; and a guest's driver. Written from the specification: the guest's numbers are its, not the code's.

use crate::{Host, Invalidation, Shape, Signals, Smmu, Target};
use alloc::boxed::Box;
use alloc::collections::btree_map::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use smmu::{ContextDescriptor, Event, Features, Reach, Stage2, StreamTableEntry};
use std::sync::Mutex;
use types::{AccessSize, Ipa, Pa};
use vdev::GuestMemory;
use vdev::testkit::Ram;

pub(crate) const MEMORY: u64 = 0x4000_0000;
pub(crate) const MEMORY_SIZE: usize = 0x20_0000;
pub(crate) const COMMANDS: u64 = MEMORY;
pub(crate) const EVENTS: u64 = MEMORY + 0x1000;
/// A linear stream table of 2^8 entries.
pub(crate) const STREAMS: u64 = MEMORY + 0x1_0000;
pub(crate) const CONTEXT: u64 = MEMORY + 0x2_0000;
/// Tables of levels 1, 2 and 3, for addresses of 39 bits.
pub(crate) const TABLES: u64 = MEMORY + 0x3_0000;
/// What the last of them maps, page by page, from address 0 on.
pub(crate) const DATA: u64 = MEMORY + 0x10_0000;

pub(crate) const CR0: u64 = 0x20;
pub(crate) const CR0ACK: u64 = 0x24;
pub(crate) const CR1: u64 = 0x28;
pub(crate) const CR2: u64 = 0x2c;
pub(crate) const GBPA: u64 = 0x44;
pub(crate) const IRQ_CTRL: u64 = 0x50;
pub(crate) const IRQ_CTRLACK: u64 = 0x54;
pub(crate) const GERROR: u64 = 0x60;
pub(crate) const GERRORN: u64 = 0x64;
pub(crate) const STRTAB_BASE: u64 = 0x80;
pub(crate) const STRTAB_BASE_CFG: u64 = 0x88;
pub(crate) const CMDQ_BASE: u64 = 0x90;
pub(crate) const CMDQ_PROD: u64 = 0x98;
pub(crate) const CMDQ_CONS: u64 = 0x9c;
pub(crate) const EVENTQ_BASE: u64 = 0xa0;
pub(crate) const EVENTQ_PROD: u64 = 0x1_00a8;
pub(crate) const EVENTQ_CONS: u64 = 0x1_00ac;

pub(crate) const CFGI_ALL: [u64; 2] = [0x04, 31];
pub(crate) const SYNC: [u64; 2] = [0x46, 0];
pub(crate) const SYNC_WITH_INTERRUPT: [u64; 2] = [0x46 | 1 << 12, 0];
pub(crate) const TLBI_NH_ALL: [u64; 2] = [0x10, 0];

pub(crate) fn cfgi_ste(stream: u64) -> [u64; 2] {
    [0x03 | stream << 32, 1]
}

pub(crate) fn cfgi_cd(stream: u64) -> [u64; 2] {
    [0x05 | stream << 32, 1]
}

/// What a shape says with `bits` of stream.
pub(crate) fn shape() -> Shape {
    Shape { stream_bits: 16, address_bits: 40, asid16: true }
}

/// QEMU's, with both stages.
const FEATURES: Features = Features {
    stream_bits: 16,
    substream_bits: 0,
    address_bits: 44,
    command_queue_bits: 19,
    event_queue_bits: 19,
    two_level: true,
    stage1: true,
    can_nest: true,
    two_level_contexts: false,
    vmid16: true,
    asid16: true,
    range_invalidation: true,
    el2_stage1: false,
    can_stall: false,
    ats: false,
    overrides_types: false,
    coherent: true,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Outcome {
    /// Muted.
    Aborted,
    /// With `C_BAD_STE`.
    Refused,
    /// By a guest's stage 1.
    Stage1Fault,
    /// Not the VM's memory.
    Stage2Fault,
    /// It has reached this page of the machine's.
    Reached(u64),
}

/// A host's stream: a VM, and its guest's number for it.
pub(crate) type HostStream = (u16, u32);

type Pending = Box<dyn FnOnce(&mut World) + Send>;

/// The machine's SMMU, and the memory of all VMs.
#[derive(Default)]
pub(crate) struct World {
    entries: BTreeMap<HostStream, StreamTableEntry>,
    contexts: BTreeMap<HostStream, [u64; 8]>,
    /// By VMID, ASID and page.
    tlb: BTreeMap<(u16, u16, u64), u64>,
    memories: BTreeMap<u16, Arc<Ram>>,
    pending: Vec<(u16, Pending)>,
}

impl World {
    /// The page of the machine's where a VM has a page of its memory.
    pub(crate) fn page(vmid: u16, ipa: u64) -> u64 {
        u64::from(vmid) << 40 | ipa >> 12
    }

    fn stage2(&self, vmid: u16, ipa: u64) -> Option<u64> {
        let there = (MEMORY..MEMORY + MEMORY_SIZE as u64).contains(&ipa);
        there.then(|| Self::page(vmid, ipa))
    }

    /// What is cached of one VM's.
    pub(crate) fn cached(&self, vmid: u16) -> Vec<((u16, u16, u64), u64)> {
        self.tlb.iter().filter(|(key, _)| key.0 == vmid).map(|(key, page)| (*key, *page)).collect()
    }

    fn load(&self, vmid: u16, ipa: u64) -> Option<u64> {
        self.stage2(vmid, ipa)?;
        self.memories[&vmid].load(Ipa(ipa), AccessSize::Doubleword).ok()
    }

    /// A transaction.
    pub(crate) fn transact(&mut self, stream: HostStream, address: u64) -> Outcome {
        let entry = self.entries.get(&stream).copied().unwrap_or(StreamTableEntry::REFUSED);
        if entry.0[0] & 1 == 0 {
            return Outcome::Refused;
        }
        // Of the machine's entry, nothing else counts.
        let vmid = (entry.0[2] & 0xffff) as u16;
        assert!(entry.0[0] >> 1 & 7 == 0 || entry.0[3] == u64::from(vmid) << 20, "the host's tables");
        let reached = |page: Option<u64>| page.map_or(Outcome::Stage2Fault, Outcome::Reached);
        match entry.0[0] >> 1 & 7 {
            0b000 => Outcome::Aborted,
            0b110 => reached(self.stage2(vmid, address)),
            0b111 => {
                let Some(context) = self.context(stream, vmid, entry.0[0] & 0x00ff_ffff_ffff_ffc0) else {
                    return Outcome::Stage2Fault;
                };
                match ContextDescriptor::decode(&context) {
                    Some(context) => self.translate(vmid, &context, address),
                    None => Outcome::Stage1Fault,
                }
            }
            config => panic!("Config {config}"),
        }
    }

    fn context(&mut self, stream: HostStream, vmid: u16, at: u64) -> Option<[u64; 8]> {
        if let Some(context) = self.contexts.get(&stream) {
            return Some(*context);
        }
        let mut words = [0; 8];
        for (word, n) in words.iter_mut().zip(0..) {
            *word = self.load(vmid, at + 8 * n)?;
        }
        self.contexts.insert(stream, words);
        Some(words)
    }

    fn translate(&mut self, vmid: u16, context: &ContextDescriptor, address: u64) -> Outcome {
        let key = (vmid, context.asid, address >> 12);
        if let Some(page) = self.tlb.get(&key) {
            return Outcome::Reached(*page);
        }
        let Some(half) = context.lower.filter(|half| half.size_offset == 25 && half.granule == 0) else {
            return Outcome::Stage1Fault;
        };
        let mut table = half.root.0;
        for shift in [30, 21, 12] {
            let Some(descriptor) = self.load(vmid, table + (address >> shift & 511) * 8) else {
                return Outcome::Stage2Fault;
            };
            if descriptor & 3 != 3 {
                return Outcome::Stage1Fault;
            }
            table = descriptor & 0xffff_ffff_f000;
        }
        match self.stage2(vmid, table) {
            None => Outcome::Stage2Fault,
            Some(page) => {
                self.tlb.insert(key, page);
                Outcome::Reached(page)
            }
        }
    }

    fn set(&mut self, stream: HostStream, target: &Target) {
        let vmid = stream.0;
        let stage2 = Stage2 { vtcr: 0x8002_3558, root: Pa(u64::from(vmid) << 20) };
        let entry = match target {
            Target::Muted => StreamTableEntry::muted(),
            Target::Refused => StreamTableEntry::REFUSED,
            Target::Stage2 => StreamTableEntry::stage2(vmid, &stage2, &FEATURES).unwrap(),
            Target::Nested(stage1) => StreamTableEntry::nested(vmid, &stage2, stage1, &FEATURES).unwrap(),
        };
        self.entries.insert(stream, entry);
        self.contexts.remove(&stream);
    }

    fn invalidate(&mut self, vmid: u16, what: &Invalidation) {
        let within = |reach: &Reach, page: u64| {
            let pages = reach.range.map_or(1, |range| (u64::from(range.num) + 1) << range.scale);
            (reach.address >> 12..(reach.address >> 12) + pages).contains(&page)
        };
        self.tlb.retain(|(vm, asid, page), _| {
            let hit = match what {
                Invalidation::All => true,
                Invalidation::Asid(only) => only == asid,
                Invalidation::Address { asid: only, reach } => {
                    only.is_none_or(|only| only == *asid) && within(reach, *page)
                }
            };
            *vm != vmid || !hit
        });
    }
}

/// A VM's side of it.
#[derive(Clone)]
pub(crate) struct Side {
    pub(crate) world: Arc<Mutex<World>>,
    pub(crate) vmid: u16,
}

impl Side {
    fn later(&self, act: impl FnOnce(&mut World) + Send + 'static) {
        self.world.lock().unwrap().pending.push((self.vmid, Box::new(act)));
    }
}

impl Host for Side {
    fn set(&mut self, stream: u32, target: &Target) {
        let (stream, target) = ((self.vmid, stream), *target);
        self.later(move |world| world.set(stream, &target));
    }

    fn forget_contexts(&mut self, stream: u32) {
        let stream = (self.vmid, stream);
        self.later(move |world| {
            world.contexts.remove(&stream);
        });
    }

    fn invalidate(&mut self, what: &Invalidation) {
        let (vmid, what) = (self.vmid, *what);
        self.later(move |world| world.invalidate(vmid, &what));
    }

    fn synchronize(&mut self) {
        let mut world = self.world.lock().unwrap();
        let (now, later) = core::mem::take(&mut world.pending).into_iter().partition(|(vmid, _)| *vmid == self.vmid);
        world.pending = later;
        let now: Vec<(u16, Pending)> = now;
        now.into_iter().for_each(|(_, act)| act(&mut world));
    }
}

/// A guest, with its driver.
pub(crate) struct Guest {
    pub(crate) smmu: Smmu,
    pub(crate) ram: Arc<Ram>,
    pub(crate) host: Side,
}

impl Guest {
    /// VM `vmid` of `world`, with devices behind these streams.
    pub(crate) fn new(world: &Arc<Mutex<World>>, vmid: u16, streams: &[u32]) -> Self {
        let ram = Arc::new(Ram::new(Ipa(MEMORY), MEMORY_SIZE));
        let host = Side { world: world.clone(), vmid };
        let mut inner = world.lock().unwrap();
        inner.memories.insert(vmid, ram.clone());
        streams.iter().for_each(|stream| inner.set((vmid, *stream), &Target::Stage2));
        drop(inner);
        Self { smmu: Smmu::new(shape(), streams), ram, host }
    }

    /// The only VM there is, with devices behind streams 3 and 8, as a driver leaves it that has just enabled the SMMU.
    pub(crate) fn alone() -> Self {
        let mut guest = Self::new(&Arc::default(), 1, &[3, 8]);
        guest.boot();
        guest
    }

    pub(crate) fn get(&self, offset: u64) -> u64 {
        self.smmu.read(offset, AccessSize::Word)
    }

    pub(crate) fn wide(&self, offset: u64) -> u64 {
        self.smmu.read(offset, AccessSize::Doubleword)
    }

    /// Writes a register, without working.
    pub(crate) fn put(&mut self, offset: u64, value: u64) -> bool {
        self.smmu.write(offset, AccessSize::Word, value)
    }

    pub(crate) fn put_wide(&mut self, offset: u64, value: u64) -> bool {
        self.smmu.write(offset, AccessSize::Doubleword, value)
    }

    /// Writes a register, and everything is done that there is to do.
    pub(crate) fn set(&mut self, offset: u64, value: u64) -> Signals {
        self.put(offset, value);
        self.work()
    }

    /// One batch.
    pub(crate) fn step(&mut self) -> Signals {
        let batch = self.smmu.begin(&*self.ram);
        batch.carry_out(&mut self.host);
        self.smmu.finish()
    }

    pub(crate) fn work(&mut self) -> Signals {
        let mut all = Signals::default();
        for round in 0.. {
            assert!(round < 10_000, "it works without end");
            if !self.smmu.has_work() {
                break;
            }
            let Signals { eventq, gerror, sync } = self.step();
            all.eventq |= eventq;
            all.gerror |= gerror;
            all.sync |= sync;
        }
        all
    }

    /// As Linux' driver does, but with a linear stream table.
    pub(crate) fn boot(&mut self) {
        self.set(CR0, 0);
        self.put(CR1, 0xd75);
        self.put(CR2, 2);
        self.put_wide(STRTAB_BASE, 1 << 62 | STREAMS);
        self.put(STRTAB_BASE_CFG, 8);
        self.put_wide(CMDQ_BASE, 1 << 62 | COMMANDS | 8);
        self.put(CMDQ_PROD, 0);
        self.put(CMDQ_CONS, 0);
        self.set(CR0, 1 << 3);
        assert_eq!(self.get(CR0ACK), 1 << 3);
        self.send(&[CFGI_ALL, SYNC, [0x30, 0], SYNC]);
        self.put_wide(EVENTQ_BASE, 1 << 62 | EVENTS | 7);
        self.put(EVENTQ_PROD, 0);
        self.put(EVENTQ_CONS, 0);
        self.set(CR0, 0b1100);
        self.set(IRQ_CTRL, 0b101);
        self.set(CR0, 0b1101);
        assert_eq!(self.get(CR0ACK), 0b1101);
    }

    /// Writes commands behind those that are there, without telling of them.
    pub(crate) fn prepare(&mut self, commands: &[[u64; 2]]) -> u64 {
        let mut position = self.get(CMDQ_PROD);
        for command in commands {
            let at = COMMANDS + (position & 0xff) * 16;
            self.store(at, command);
            position = (position + 1) & 0x1ff;
        }
        position
    }

    pub(crate) fn send(&mut self, commands: &[[u64; 2]]) -> Signals {
        let position = self.prepare(commands);
        self.set(CMDQ_PROD, position)
    }

    pub(crate) fn store(&self, at: u64, words: &[u64]) {
        for (word, n) in words.iter().zip(0..) {
            self.ram.store(Ipa(at + 8 * n), AccessSize::Doubleword, *word).unwrap();
        }
    }

    pub(crate) fn loaded(&self, at: u64) -> [u64; 4] {
        [0, 8, 16, 24].map(|n| self.ram.load(Ipa(at + n), AccessSize::Doubleword).unwrap())
    }

    /// Writes a stream's entry.
    pub(crate) fn entry(&self, stream: u64, words: [u64; 2]) {
        self.store(STREAMS + stream * 64, &[words[0], words[1], 0, 0, 0, 0, 0, 0]);
    }

    /// The stream is to go through a context descriptor at `CONTEXT` that maps `pages` from address 0 on.
    pub(crate) fn translate(&self, stream: u64, asid: u64, pages: &[u64]) {
        self.entry(stream, [1 | 0b101 << 1 | CONTEXT, 0]);
        let word0 = 25 | 1 << 30 | 1 << 31 | 2 << 32 | 1 << 41 | 0b11 << 45 | asid << 48;
        self.store(CONTEXT, &[word0, TABLES, 0, 0, 0, 0, 0, 0]);
        self.store(TABLES, &[(TABLES + 0x1000) | 3]);
        self.store(TABLES + 0x1000, &[(TABLES + 0x2000) | 3]);
        for (page, n) in pages.iter().zip(0..) {
            self.store(TABLES + 0x2000 + 8 * n, &[page | 0x403]);
        }
    }

    pub(crate) fn transact(&self, stream: u32, address: u64) -> Outcome {
        self.host.world.lock().unwrap().transact((self.host.vmid, stream), address)
    }

    pub(crate) fn report(&mut self, event: &Event) -> Signals {
        self.smmu.report(event, &*self.ram)
    }

    /// What a transaction comes to that reaches `ipa`.
    pub(crate) fn reached(&self, ipa: u64) -> Outcome {
        Outcome::Reached(World::page(self.host.vmid, ipa))
    }
}
