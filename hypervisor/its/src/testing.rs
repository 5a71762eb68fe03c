//! An ITS with its redistributors for tests, as unhelpful as the architecture allows.
//!
//! Answers for: an ITS that sees stores in any order until they are published, carries commands out when it likes, in their order,
//! but lets a redistributor know of them only at a SYNC, or earlier; caches the configuration of LPIs until INV; and delivers what is
//! pending when it likes. It notices tables that are not there any more, and commands that name what is not mapped. Does not
//! answer for: anything outside tests. It reads commands and registers by their bits in IHI 0069, independently of the code under
//! test.

mod changes;
mod start;

use crate::{Memory, Registers};
use std::collections::{BTreeMap, BTreeSet};
use std::string::String;
use std::{format, vec::Vec};
use types::Pa;

/// What a command has changed, and a redistributor does not know yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Effect {
    /// The LPI's configuration is to be read anew.
    Forget(u32),
    /// The LPI is not pending.
    Clear(u32),
    /// The LPI is pending here.
    Pend(u32, u16),
    /// The LPI, if pending, is so here.
    Move(u32, u16),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Translation {
    lpi: u32,
    collection: u16,
}

/// The ITS, its memory, and the redistributors.
pub(crate) struct Model {
    random: u64,
    /// Memory as the ITS sees it, and stores that it has not seen, oldest first.
    seen: BTreeMap<u64, u8>,
    unseen: Vec<(u64, Vec<u8>)>,
    registers: BTreeMap<usize, u64>,
    /// DeviceID to table of events, its entries.
    devices: BTreeMap<u32, (u64, u64)>,
    events: BTreeMap<(u32, u32), Translation>,
    collections: BTreeMap<u16, u64>,
    /// In the order of their commands; those of one LPI stay in it.
    effects: Vec<Effect>,
    /// Configuration bytes that are cached.
    cached: BTreeMap<u32, u8>,
    /// LPIs that are pending, and at which redistributor.
    pending: BTreeMap<u32, u64>,
    /// LPIs that have come, and to which redistributor.
    pub(crate) arrived: Vec<(u32, u64)>,
    /// Tables that are somebody else's memory by now.
    pub(crate) freed: BTreeSet<u64>,
    /// LPIs that are nobody's.
    pub(crate) closed: BTreeSet<u32>,
    /// Devices that send messages, with how many events.
    pub(crate) senders: Vec<(u32, u32)>,
    /// The first rule that was broken.
    pub(crate) violation: Option<String>,
    pub(crate) is_stuck: bool,
    pub(crate) stalls_at: Option<u64>,
    /// Bits that registers do not keep, by offset.
    pub(crate) drops: BTreeMap<usize, u64>,
    pub(crate) is_past_caches: bool,
}

pub(crate) const CONFIGURATION: u64 = 0x8_0000;

impl Model {
    pub(crate) fn new(seed: u64) -> Self {
        // QEMU's: 16 bits of everything, entries of 12 and 8 bytes; two levels; left on by somebody.
        let typer = 1 | 11 << 4 | 15 << 8 | 15 << 13;
        let registers = [
            (0x0, 1),
            (0x8, typer),
            (0x80, u64::MAX >> 1),
            (0x88, 0x60),
            (0x90, 0x40),
            (0x100, 1 << 56 | 7 << 48),
            (0x108, 4 << 56 | 7 << 48),
            (0xffe8, 0x30),
        ];
        Self {
            random: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1,
            seen: BTreeMap::new(),
            unseen: Vec::new(),
            registers: registers.into(),
            devices: BTreeMap::new(),
            events: BTreeMap::new(),
            collections: BTreeMap::new(),
            effects: Vec::new(),
            cached: BTreeMap::new(),
            pending: BTreeMap::new(),
            arrived: Vec::new(),
            freed: BTreeSet::new(),
            closed: BTreeSet::new(),
            senders: Vec::new(),
            violation: None,
            is_stuck: false,
            stalls_at: None,
            drops: BTreeMap::new(),
            is_past_caches: false,
        }
    }

    /// A number below `end`.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 11) as usize % end
    }

    pub(crate) fn register(&self, offset: usize) -> u64 {
        self.registers.get(&offset).copied().unwrap_or(0)
    }

    fn complain(&mut self, what: String) {
        self.violation.get_or_insert(what);
    }

    fn word(&self, at: u64) -> u64 {
        let bytes: [u8; 8] = core::array::from_fn(|n| self.seen.get(&(at + n as u64)).copied().unwrap_or(0));
        u64::from_le_bytes(bytes)
    }

    /// The ITS sees one of the stores, not necessarily the oldest; those to one place in their order.
    fn see(&mut self, index: usize) {
        let (at, _) = self.unseen[index];
        let oldest = self.unseen.iter().position(|store| store.0 == at).unwrap();
        let (at, bytes) = self.unseen.remove(oldest);
        self.seen.extend((at..).zip(bytes));
    }

    /// Something happens by itself.
    pub(crate) fn tick(&mut self) {
        match self.below(7) {
            0 if !self.unseen.is_empty() => {
                let index = self.below(self.unseen.len());
                self.see(index);
            }
            1 | 2 => self.consume(),
            3 if !self.effects.is_empty() => {
                let index = self.below(self.effects.len());
                self.take_effect(index);
            }
            4 if !self.senders.is_empty() => {
                let sender = self.below(self.senders.len());
                let (device, events) = self.senders[sender];
                let event = self.below(events as usize) as u32;
                self.send(device, event);
            }
            5 => self.deliver(),
            // A redistributor reads ahead.
            6 => {
                let lpi = 8200 + self.below(5) as u32;
                self.configuration(lpi);
            }
            _ => {}
        }
    }

    /// A device's message.
    pub(crate) fn send(&mut self, device: u32, event: u32) {
        if self.register(0) & 1 == 0 {
            return;
        }
        self.touch(device);
        if let Some(translation) = self.events.get(&(device, event)).copied() {
            self.effects.push(Effect::Pend(translation.lpi, translation.collection));
        }
    }

    /// One that is pending and enabled comes.
    pub(crate) fn deliver(&mut self) {
        if self.pending.is_empty() {
            return;
        }
        let index = self.below(self.pending.len());
        let (lpi, target) = self.pending.iter().nth(index).map(|(lpi, target)| (*lpi, *target)).unwrap();
        if self.configuration(lpi) & 1 != 0 {
            self.pending.remove(&lpi);
            if self.closed.contains(&lpi) {
                self.complain(format!("LPI {lpi} is nobody's and has come"));
            }
            self.arrived.push((lpi, target));
        }
    }

    /// What the redistributors believe of an LPI.
    fn configuration(&mut self, lpi: u32) -> u8 {
        let byte = self.seen.get(&(CONFIGURATION + u64::from(lpi) - 8192)).copied().unwrap_or(0);
        *self.cached.entry(lpi).or_insert(byte)
    }

    /// What is known of a device is read from its table.
    fn touch(&mut self, device: u32) {
        if let Some((table, _)) = self.devices.get(&device)
            && self.freed.contains(table)
        {
            self.complain(format!("the table of device {device:#x} is somebody else's"));
        }
    }

    /// Of one LPI the oldest comes first.
    fn take_effect(&mut self, index: usize) {
        let of = |effect: &Effect| match *effect {
            Effect::Forget(lpi) | Effect::Clear(lpi) | Effect::Pend(lpi, _) | Effect::Move(lpi, _) => lpi,
        };
        let lpi = of(&self.effects[index]);
        let oldest = self.effects.iter().position(|effect| of(effect) == lpi).unwrap();
        match self.effects.remove(oldest) {
            Effect::Forget(lpi) => _ = self.cached.remove(&lpi),
            Effect::Clear(lpi) => _ = self.pending.remove(&lpi),
            Effect::Pend(lpi, collection) => match self.collections.get(&collection).copied() {
                Some(target) => _ = self.pending.insert(lpi, target),
                None => self.complain(format!("collection {collection} is mapped to nobody")),
            },
            Effect::Move(lpi, collection) => {
                let target = self.collections.get(&collection).copied().unwrap_or(u64::MAX);
                if let Some(pending) = self.pending.get_mut(&lpi) {
                    *pending = target;
                }
            }
        }
    }

    // Commands.

    fn consume(&mut self) {
        let (base, read) = (self.register(0x80), self.register(0x90));
        if self.is_stuck || self.register(0) & 1 == 0 || read & 1 != 0 || base >> 63 == 0 {
            return;
        }
        if read == self.register(0x88) {
            return;
        }
        let at = (base & 0x000f_ffff_ffff_f000) + read;
        let words: [u64; 4] = core::array::from_fn(|n| self.word(at + 8 * n as u64));
        if self.stalls_at == Some(words[0] & 0xff) {
            self.registers.insert(0x90, read | 1);
            return;
        }
        self.execute(words);
        let size = ((base & 0xff) + 1) * 0x1000;
        self.registers.insert(0x90, (read + 32) % size);
    }

    fn event(&mut self, device: u32, event: u32) -> Option<Translation> {
        self.touch(device);
        let translation = self.events.get(&(device, event)).copied();
        if translation.is_none() {
            self.complain(format!("event {event} of device {device:#x} is not mapped"));
        }
        translation
    }

    fn execute(&mut self, [first, second, third, _]: [u64; 4]) {
        let (device, event) = ((first >> 32) as u32, second as u32);
        match first & 0xff {
            0x01 => {
                let collection = third as u16;
                if let Some(it) = self.event(device, event) {
                    self.events.insert((device, event), Translation { collection, ..it });
                    self.effects.push(Effect::Move(it.lpi, collection));
                }
            }
            0x03 => {
                if let Some(it) = self.event(device, event) {
                    self.effects.push(Effect::Pend(it.lpi, it.collection));
                }
            }
            0x05 => {
                while !self.effects.is_empty() {
                    self.take_effect(0);
                }
            }
            0x08 => self.map_device(device, second, third),
            0x09 => _ = self.collections.insert(third as u16, third & 0x000f_ffff_ffff_0000),
            0x0a => {
                self.touch(device);
                let entries = self.devices.get(&device).map_or(0, |(_, entries)| *entries);
                if u64::from(event) >= entries || !self.collections.contains_key(&(third as u16)) {
                    self.complain(format!("MAPTI of event {event} of device {device:#x}: no device, or no collection"));
                }
                let translation = Translation { lpi: (second >> 32) as u32, collection: third as u16 };
                self.events.insert((device, event), translation);
            }
            0x0c => {
                if let Some(it) = self.event(device, event) {
                    self.effects.push(Effect::Forget(it.lpi));
                }
            }
            0x0d => self.cached.clear(),
            0x0f => {
                if let Some(it) = self.event(device, event) {
                    self.events.remove(&(device, event));
                    self.effects.push(Effect::Clear(it.lpi));
                }
            }
            other => self.complain(format!("command {other:#x} is of no use here")),
        }
    }

    fn map_device(&mut self, device: u32, second: u64, third: u64) {
        self.touch(device);
        self.events.retain(|(other, _), _| *other != device);
        if third >> 63 == 0 {
            self.devices.remove(&device);
            return;
        }
        let base = self.register(0x100);
        // Two levels of pages of 4 KiB, 512 entries each.
        let level1 = (base & 0x0000_ffff_ffff_f000) + u64::from(device >> 9) * 8;
        if base >> 62 & 1 != 0 && self.word(level1) >> 63 == 0 {
            self.complain(format!("device {device:#x} has no page in the table of devices"));
        }
        self.devices.insert(device, (third & 0x000f_ffff_ffff_ff00, 2 << (second & 0x1f)));
    }
}

impl Registers for Model {
    fn get(&mut self, offset: usize) -> u32 {
        if self.below(2) == 0 {
            self.tick();
        }
        let quiescent = u32::from(offset == 0 && self.register(0) & 1 == 0) << 31;
        self.register(offset) as u32 | quiescent
    }

    fn set(&mut self, offset: usize, value: u32) {
        self.registers.insert(offset, u64::from(value) & 0x7fff_ffff);
    }

    fn get_wide(&mut self, offset: usize) -> u64 {
        for _ in 0..3 {
            self.tick();
        }
        self.register(offset)
    }

    fn set_wide(&mut self, offset: usize, value: u64) {
        let kept = value & !self.drops.get(&offset).copied().unwrap_or(0);
        let fixed = 0x071f_0000_0000_0000;
        match offset {
            0x100..=0x138 if self.register(0) & 1 != 0 => {
                self.complain(format!("{offset:#x} is set while the ITS is on"));
            }
            0x100..=0x138 if self.register(offset) == 0 => {}
            0x100..=0x138 => _ = self.registers.insert(offset, kept & !fixed | self.register(offset) & fixed),
            0x80 => {
                self.registers.insert(0x80, kept);
                self.registers.insert(0x90, 0);
            }
            _ => _ = self.registers.insert(offset, kept),
        }
        self.tick();
    }
}

impl Memory for Model {
    fn store(&mut self, at: Pa, word: u64) {
        assert!(at.is_aligned(8));
        self.unseen.push((at.0, word.to_le_bytes().to_vec()));
        self.tick();
    }

    fn store_byte(&mut self, at: Pa, byte: u8) {
        self.unseen.push((at.0, Vec::from([byte])));
        self.tick();
    }

    fn publish(&mut self) {
        while !self.unseen.is_empty() {
            self.see(0);
        }
    }

    fn reads_past_caches(&mut self) {
        self.is_past_caches = true;
    }
}
