//! A configuration space made of memory.
//!
//! Answers for: functions with registers, bridges that forward what their registers say, resets that take their time; and those that do none
//! of that. For tests of this crate.

use crate::{
    Configuration, PciAddress,
    registers::{self, advanced, command, express},
};
use alloc::{string::String, vec, vec::Vec};
use core::cell::{Cell, RefCell};
use machine::{PciHost, PciInterrupts, PciSpace, PciWindow};
use types::{AccessSize, Pa, Range};

/// How a function misbehaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Vices {
    /// It does not answer.
    pub(crate) is_gone: bool,
    /// Transactions Pending stays set once Bus Master has been.
    pub(crate) never_finishes: bool,
    /// It does not answer again after a reset.
    pub(crate) never_returns: bool,
    /// Bus Master stays set once it is, resets or not.
    pub(crate) stays_master: bool,
    /// Its BARs do not keep addresses after a reset.
    pub(crate) forgets: bool,
}

/// A function.
#[derive(Clone, Debug)]
pub(crate) struct Simulated {
    /// The bridge above: an index. None is the host's bus.
    pub(crate) above: Option<usize>,
    /// Device and function number, `device << 3 | function`.
    pub(crate) number: u8,
    /// What it has after a reset.
    pub(crate) initial: Vec<u8>,
    /// What it has.
    pub(crate) registers: Vec<u8>,
    /// Which bits of it can be written.
    pub(crate) writable: Vec<u8>,
    /// What is wrong with it.
    pub(crate) vices: Vices,
    /// How often it has been reset.
    pub(crate) resets: u32,
    /// A BAR, and where the word is that says how large it is (7.8.6.3).
    pub(crate) resizable: Option<(u16, u16)>,
    /// From when on it answers.
    returns: u64,
    /// Where its PCI Express and Advanced Features capabilities are.
    express: Option<u16>,
    advanced: Option<u16>,
    /// The last capability of each list, and where the next can be.
    last: u16,
    next: u16,
    extended: u16,
}

impl Simulated {
    /// An endpoint of a device.
    #[must_use]
    pub(crate) fn endpoint(number: u8, vendor: u16, device: u16, class: [u8; 3]) -> Self {
        let mut own = Self {
            above: None,
            number,
            initial: vec![0; 4096],
            registers: Vec::new(),
            writable: vec![0; 4096],
            vices: Vices::default(),
            resets: 0,
            resizable: None,
            returns: 0,
            express: None,
            advanced: None,
            last: 0,
            next: 0x40,
            extended: 0x100,
        };
        own.set(registers::VENDOR, &vendor.to_le_bytes());
        own.set(registers::DEVICE, &device.to_le_bytes());
        own.set(registers::REVISION, &[1, class[2], class[1], class[0]]);
        own.allow(registers::COMMAND, &[0x47, 0x04]);
        own.set(registers::INTERRUPT_PIN, &[1]);
        own
    }

    /// A bridge behind which is a bus.
    #[must_use]
    pub(crate) fn bridge(number: u8) -> Self {
        let mut own = Self::endpoint(number, 0x1b36, 0x000c, [6, 4, 0]);
        own.set(registers::HEADER_TYPE, &[1]);
        own.allow(registers::PRIMARY_BUS, &[0xff, 0xff, 0xff]);
        own.allow(registers::IO_BASE, &[0xf0, 0xf0]);
        own.allow(registers::MEMORY_BASE, &[0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff, 0xf0, 0xff]);
        own.set(registers::PREFETCHABLE_BASE, &[1, 0, 1, 0]);
        own.allow(registers::PREFETCHABLE_BASE_UPPER, &[0xff; 8]);
        own.allow(registers::BRIDGE_CONTROL, &[0xff, 0x0f]);
        own.set(registers::EXPANSION_ROM, &[0; 4]);
        own
    }

    /// A root port, with or without what keeps functions apart.
    #[must_use]
    pub(crate) fn root_port(number: u8, has_access_control: bool) -> Self {
        let mut own = Self::bridge(number);
        own.add_express(4, false);
        if has_access_control {
            own.add_access_control();
        }
        own
    }

    /// Behind this bridge.
    #[must_use]
    pub(crate) fn behind(mut self, bridge: usize) -> Self {
        self.above = Some(bridge);
        self
    }

    /// Its registers are these after a reset, and cannot be written.
    pub(crate) fn set(&mut self, at: u16, bytes: &[u8]) {
        self.initial[usize::from(at)..][..bytes.len()].copy_from_slice(bytes);
    }

    /// These bits can be written.
    pub(crate) fn allow(&mut self, at: u16, mask: &[u8]) {
        self.writable[usize::from(at)..][..mask.len()].copy_from_slice(mask);
    }

    /// A BAR: `flags` are its lower bits. `at` is its register.
    pub(crate) fn add_bar(&mut self, at: u16, flags: u8, size: u64) {
        let mask = (!(size - 1)).to_le_bytes();
        let count = if flags & 7 == 4 { 8 } else { 4 };
        self.allow(at, &mask[..count]);
        self.set(at, &[flags]);
    }

    /// A capability of so many bytes. Returns where.
    pub(crate) fn add(&mut self, id: u8, length: u16) -> u16 {
        let at = self.next;
        self.set(registers::STATUS, &[0x10]);
        let link = if self.last == 0 { registers::CAPABILITIES_POINTER } else { self.last + 1 };
        self.set(link, &[at as u8]);
        self.set(at, &[id, 0]);
        (self.last, self.next) = (at, at + length.next_multiple_of(4));
        at
    }

    /// An extended capability of so many bytes. Returns where.
    pub(crate) fn add_extended(&mut self, id: u16, length: u16) -> u16 {
        let at = self.extended;
        if at != 0x100 {
            // The list is in order, without gaps but those of 0x40.
            let last =
                (0x100..at).rev().step_by(1).find(|n| n % 0x40 == 0 && self.initial[usize::from(*n)] != 0).unwrap();
            let [low, high] = (at << 4 | 1).to_le_bytes();
            self.set(last + 2, &[low, high]);
        }
        let [low, high] = id.to_le_bytes();
        self.set(at, &[low, high, 1, 0]);
        self.extended = at + length.next_multiple_of(0x40);
        at
    }

    /// PCI Express, of a device or port type.
    pub(crate) fn add_express(&mut self, kind: u8, has_flr: bool) -> u16 {
        let at = self.add(registers::id::EXPRESS, 0x3c);
        self.set(at + express::CAPABILITIES, &[kind << 4 | 2]);
        if has_flr {
            self.set(at + express::DEVICE_CAPABILITIES, &express::FLR_CAPABLE.to_le_bytes());
        }
        self.allow(at + express::DEVICE_CONTROL, &[0xff, 0x7f]);
        self.allow(at + express::DEVICE_CONTROL_2, &[0xff, 0xff]);
        self.express = Some(at);
        at
    }

    /// Advanced Features, with a reset.
    pub(crate) fn add_advanced(&mut self) -> u16 {
        let at = self.add(registers::id::ADVANCED_FEATURES, 6);
        self.set(at + advanced::CAPABILITIES, &[3]);
        self.advanced = Some(at);
        at
    }

    /// Access Control Services: the four.
    pub(crate) fn add_access_control(&mut self) -> u16 {
        let at = self.add_extended(registers::id::ACCESS_CONTROL, 8);
        self.set(at + registers::access_control::CAPABILITY, &[0x1d]);
        self.allow(at + registers::access_control::CONTROL, &[0x7f]);
        at
    }

    fn half(&self, at: u16) -> u16 {
        u16::from_le_bytes([self.registers[usize::from(at)], self.registers[usize::from(at) + 1]])
    }

    /// Of a BAR as many bits can be written as its size leaves; others are zero.
    fn resize(&mut self) {
        let Some((bar, control)) = self.resizable else { return };
        let size = 1_u64 << 20 << (self.registers[usize::from(control) + 1] & 0x3f);
        for (n, mask) in (usize::from(bar)..).zip((!(size - 1)).to_le_bytes()) {
            self.writable[n] = mask;
            self.registers[n] = self.registers[n] & mask | self.initial[n];
        }
    }

    fn reset(&mut self, returns: u64) {
        let (was, first) = (self.half(registers::COMMAND), usize::from(registers::COMMAND));
        self.registers = self.initial.clone();
        if self.vices.stays_master {
            self.registers[first] |= was as u8 & command::BUS_MASTER as u8;
        }
        if self.vices.forgets {
            self.writable[0x10..0x28].fill(0);
        }
        self.resize();
        self.returns = if self.vices.never_returns { u64::MAX } else { returns };
        self.resets += 1;
    }
}

/// How long a function is away after a reset, in microseconds.
pub(crate) const AWAY: u64 = 150_000;

/// All functions of a host.
#[derive(Debug, Default)]
pub(crate) struct Model {
    functions: RefCell<Vec<Simulated>>,
    /// Microseconds.
    pub(crate) now: Cell<u64>,
    /// How often configuration space has been accessed.
    pub(crate) accesses: Cell<u64>,
}

impl Model {
    /// These, as after a reset.
    #[must_use]
    pub(crate) fn new(functions: impl IntoIterator<Item = Simulated>) -> Self {
        let functions =
            functions.into_iter().map(|function| Simulated { registers: function.initial.clone(), ..function });
        Self { functions: RefCell::new(functions.collect()), ..Self::default() }
    }

    /// Looks at a function, or changes it.
    pub(crate) fn with<T>(&self, n: usize, f: impl FnOnce(&mut Simulated) -> T) -> T {
        f(&mut self.functions.borrow_mut()[n])
    }

    /// Who is at an address: what bridges forward.
    fn find(&self, address: PciAddress) -> Option<usize> {
        let functions = self.functions.borrow();
        let number = address.device() << 3 | address.function();
        let leads = |mut above: Option<usize>| {
            let is_direct = above.map_or(address.bus() == 0, |n| functions[n].registers[0x19] == address.bus());
            let mut forwards = true;
            while let Some(n) = above {
                let registers = &functions[n].registers;
                forwards &= (registers[0x19]..=registers[0x1a]).contains(&address.bus()) && registers[0x19] != 0;
                forwards &= functions[n].half(registers::BRIDGE_CONTROL) & registers::SECONDARY_BUS_RESET == 0;
                // A bridge that is above itself is of the kind that tests are for.
                above = functions[n].above.filter(|above| *above < n);
            }
            is_direct && forwards
        };
        functions.iter().position(|function| {
            let is_there = !function.vices.is_gone && function.returns <= self.now.get();
            function.number == number && is_there && leads(function.above)
        })
    }

    /// What a write brings about.
    fn follow(&self, n: usize, before: u16) {
        let returns = self.now.get() + AWAY;
        let mut functions = self.functions.borrow_mut();
        let function = &functions[n];
        let is_bridge = function.initial[usize::from(registers::HEADER_TYPE)] & 0x7f == 1;
        if is_bridge && !before & function.half(registers::BRIDGE_CONTROL) & registers::SECONDARY_BUS_RESET != 0 {
            for below in 0..functions.len() {
                let mut above = functions[below].above;
                while let Some(bridge) = above {
                    if bridge == n {
                        functions[below].reset(returns);
                    }
                    above = functions[bridge].above.filter(|above| *above < bridge);
                }
            }
        }
    }
}

impl Configuration for Model {
    fn read(&self, address: PciAddress, offset: u16, size: AccessSize) -> u32 {
        self.accesses.set(self.accesses.get() + 1);
        let bytes = 1 << size as u16;
        assert!(offset.is_multiple_of(bytes) && offset < 4096 && bytes <= 4, "offset {offset:#x}");
        let Some(n) = self.find(address) else { return u32::MAX >> (32 - 8 * bytes) };
        let functions = self.functions.borrow();
        let registers = &functions[n].registers[usize::from(offset)..][..usize::from(bytes)];
        registers.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    fn write(&self, address: PciAddress, offset: u16, size: AccessSize, value: u32) {
        self.accesses.set(self.accesses.get() + 1);
        let bytes = 1 << size as u16;
        assert!(offset.is_multiple_of(bytes) && offset < 4096 && bytes <= 4, "offset {offset:#x}");
        let Some(n) = self.find(address) else { return };
        let before = self.with(n, |function| function.half(registers::BRIDGE_CONTROL));
        let away = self.now.get() + AWAY;
        self.with(n, |function| {
            let master = function.half(registers::COMMAND) & command::BUS_MASTER;
            for (i, byte) in (usize::from(offset)..).zip(value.to_le_bytes()).take(usize::from(bytes)) {
                let mask = function.writable[i];
                function.registers[i] = function.registers[i] & !mask | byte & mask;
            }
            if function.resizable.is_some_and(|(_, control)| offset & !3 == control) {
                function.resize();
            }
            let first = usize::from(registers::COMMAND);
            if function.vices.stays_master {
                function.registers[first] |= master as u8;
            }
            let is_master = function.half(registers::COMMAND) & command::BUS_MASTER != 0;
            if let Some(at) = function.express {
                if is_master && function.vices.never_finishes {
                    function.registers[usize::from(at + express::DEVICE_STATUS)] |= express::TRANSACTIONS_PENDING as u8;
                }
                let is_control = offset == at + express::DEVICE_CONTROL && bytes == 2;
                if is_control && value as u16 & express::INITIATE_FLR != 0 {
                    function.reset(away);
                }
            }
            if function.advanced.is_some_and(|at| offset == at + advanced::CONTROL)
                && value as u8 & advanced::INITIATE_FLR != 0
            {
                function.reset(away);
            }
        });
        self.follow(n, before);
    }
}

/// A host in the manner of QEMU's: 256 MiB from 10000000h, 64 GiB from 80_00000000h.
#[must_use]
pub(crate) fn host() -> PciHost {
    let window = |space, bus, length| PciWindow {
        space,
        is_prefetchable: false,
        bus,
        cpu: Range::new(Pa(bus), length).expect("no wrap"),
    };
    PciHost {
        path: String::from("/pcie@10000000"),
        domain: None,
        configuration: Range::new(Pa(0x40_1000_0000), 256 << 20).expect("no wrap"),
        first_bus: 0,
        last_bus: 255,
        windows: vec![
            window(PciSpace::Memory32, 0x1000_0000, 0x1000_0000),
            window(PciSpace::Memory64, 0x80_0000_0000, 0x10_0000_0000),
        ],
        interrupts: PciInterrupts::default(),
        is_coherent: true,
    }
}
