//! A function that remembers what is done to it: a network card with everything, as far as this end of the bus is concerned.

use alloc::format;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use types::{AccessSize, Ipa, Lock, RequesterId};
use vdev::{AccessFault, FunctionBar, FunctionFacts, FunctionPart, FunctionSignal, GuestMessage, HostFunction};

#[derive(Debug)]
pub(super) struct Model(Lock<State>);

#[derive(Debug)]
struct State {
    config: Vec<u8>,
    log: Vec<String>,
    signals: Vec<FunctionSignal>,
    requesters: Vec<RequesterId>,
    /// What is mapped where.
    maps: Vec<(u64, u64)>,
}

/// What is in its configuration space that is not zero: words.
const WORDS: [(usize, u32); 30] = [
    (0x00, 0x10d3_8086),
    (0x04, 0x0810_0140),
    (0x08, 0x0200_0003),
    (0x0c, 0x0080_0010),
    (0x10, 0x1004_0000),
    (0x14, 0x0000_c001),
    (0x18, 0x2000_000c),
    (0x1c, 0x0000_0001),
    (0x2c, 0x0001_1af4),
    (0x30, 0xffe0_0001),
    (0x34, 0x0000_00c8),
    (0x3c, 0x0000_0325),
    (0x40, 0x1357_9bdf),
    // Vital product data.
    (0x48, 0x1234_f003),
    (0x4c, 0x9abc_def0),
    // MSI-X: five vectors, table at 2:0x2000, pending bits at 2:0x3000.
    (0x70, 0x0004_4811),
    (0x74, 0x0000_2002),
    (0x78, 0x0000_3002),
    // PCI Express, version 2.
    (0x80, 0x0002_7010),
    (0x84, 0x1000_8000),
    (0x88, 0x0005_2820),
    (0x8c, 0x0003_1811),
    (0x90, 0x1011_0040),
    // Power management.
    (0xc8, 0xc822_d001),
    (0xcc, 0x0000_2000),
    // MSI: 8 messages, 64 bits, masks.
    (0xd0, 0x0186_8005),
    // A vendor's own.
    (0xf0, 0x0008_0009),
    (0xf4, 0x0bad_cafe),
    (0x100, 0x1401_0001),
    (0x140, 0x2001_0003),
];

/// SR-IOV, as an 82576 has it with two of eight virtual functions, which the host has made and placed; before ATS and the serial number's end.
const SRIOV: [(usize, u32); 13] = [
    (0x180, 0x0001_0010),
    (0x184, 0x0020_0002),
    (0x188, 0x0001_0019),
    (0x18c, 0x0008_0008),
    (0x190, 0x0000_0002),
    (0x194, 0x0002_0180),
    (0x198, 0x10ca_0000),
    (0x19c, 0x0000_0553),
    (0x1a0, 0x0000_0001),
    (0x1a4, 0x1020_0004),
    (0x1b0, 0x1022_0004),
    (0x1bc, 0x0000_1230),
    (0x1c0, 0x5a5a_5a5a),
];

impl Model {
    /// Two registers that take accesses of one size only.
    pub(super) const WORDS_ONLY: (u8, u64) = (2, 0x2ff0);

    pub(super) fn new() -> Arc<Self> {
        let mut config = vec![0; 0x1000];
        let serial = [(0x144, 0x1122_3344_u32), (0x148, 0x5566_7788), (0x200, 0x1801_000f)];
        for (at, word) in WORDS.into_iter().chain(serial).chain(SRIOV) {
            config[at..at + 4].copy_from_slice(&word.to_le_bytes());
        }
        let (log, signals, requesters, maps) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Arc::new(Self(Lock::new(State { config, log, signals, requesters, maps })))
    }

    pub(super) fn facts() -> FunctionFacts {
        FunctionFacts {
            name: "0000:00:02.0".to_string(),
            vendor: 0x8086,
            device: 0x10d3,
            bars: vec![
                FunctionBar { index: 0, size: 0x2_0000, is_64_bit: false },
                FunctionBar { index: 2, size: 0x8000, is_64_bit: true },
            ],
            has_pin: true,
            messages: 3,
            can_be_reset: true,
            virtual_functions: 0,
        }
    }

    pub(super) fn word(&self, at: u16) -> u32 {
        self.configuration(at, AccessSize::Word, None)
    }

    pub(super) fn words(&self, at: u16, count: u16) -> Vec<u32> {
        (0..count).map(|index| self.word(at + index * 4)).collect()
    }

    pub(super) fn set(&self, at: usize, byte: u8) {
        self.0.lock().config[at] = byte;
    }

    pub(super) fn assert_pin(&self, asserted: bool) {
        let byte = &mut self.0.lock().config[6];
        *byte = *byte & !8 | u8::from(asserted) << 3;
    }

    /// What its registers have.
    pub(super) fn register(&self, bar: u8, offset: u64) -> u32 {
        u32::from(bar) << 24 | u32::try_from(offset).unwrap()
    }

    pub(super) fn take_log(&self) -> Vec<String> {
        core::mem::take(&mut self.0.lock().log)
    }

    pub(super) fn take_maps(&self) -> Vec<String> {
        self.take_log().into_iter().filter(|entry| entry.contains("map ")).collect()
    }

    pub(super) fn take_signals(&self) -> Vec<FunctionSignal> {
        core::mem::take(&mut self.0.lock().signals)
    }

    pub(super) fn requesters(&self) -> Vec<RequesterId> {
        self.0.lock().requesters.clone()
    }

    /// Guest addresses that reach it, with their lengths.
    pub(super) fn maps(&self) -> Vec<(u64, u64)> {
        self.0.lock().maps.clone()
    }
}

impl HostFunction for Model {
    fn configuration(&self, at: u16, size: AccessSize, store: Option<u32>) -> u32 {
        assert!(u64::from(at).is_multiple_of(size.bytes()) && at < 0x1000 && size.bytes() <= 4);
        let state = &mut *self.0.lock();
        let range = usize::from(at)..usize::from(at) + usize::try_from(size.bytes()).unwrap();
        let bytes = &mut state.config[range];
        if let Some(value) = store {
            state.log.push(format!("config {at:#x} = {value:#x}"));
            // Status registers: ones clear.
            if at != 6 && at != 0x8a {
                let length = bytes.len();
                bytes.copy_from_slice(&value.to_le_bytes()[..length]);
            }
        }
        bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    fn registers(&self, bar: u8, offset: u64, size: AccessSize, store: Option<u64>) -> Result<u64, AccessFault> {
        assert!(offset.is_multiple_of(size.bytes()));
        let facts = Self::facts();
        assert!(facts.bars.iter().any(|it| it.index == bar && offset + size.bytes() <= it.size));
        if let Some(value) = store {
            self.0.lock().log.push(format!("store {bar}+{offset:#x} {} = {value:#x}", size.bytes()));
        }
        if (bar, offset & !7) == Self::WORDS_ONLY && size != AccessSize::Word {
            return Err(AccessFault::Bus);
        }
        Ok(u64::from(self.register(bar, offset)) & size.mask())
    }

    fn map(&self, at: Ipa, part: FunctionPart, reach: bool) -> bool {
        let FunctionPart { bar, offset, length } = part;
        assert!([at.0, offset, length].iter().all(|value| value.is_multiple_of(0x1000)) && length > 0);
        let state = &mut *self.0.lock();
        let what = if reach { "map" } else { "unmap" };
        state.log.push(format!("{what} {bar}+{offset:#x} {length:#x} at {at:#x}", at = at.0));
        if reach {
            state.maps.push((at.0, length));
        } else {
            state.maps.retain(|map| *map != (at.0, length));
        }
        true
    }

    fn message(&self, vector: u16, (from, address, data): GuestMessage) -> Option<(u64, u32)> {
        let state = &mut *self.0.lock();
        state.log.push(format!("message {vector} to {:#x} {:#x} {data:#x}", from.0, address.0));
        state.requesters.push(from);
        (vector < 3).then_some((0x80_0000_0040, vector.into()))
    }

    fn signal(&self, signal: FunctionSignal) {
        self.0.lock().signals.push(signal);
    }
}
