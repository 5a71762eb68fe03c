//! A function of the PCI bus.
//!
//! Answers for: finding it on the first bus by vendor and device or by class, giving its regions places if they have none, its line, its
//! message. Does not answer for: buses behind bridges, more than one message, where messages go (`messages`).
//!
//! PCI Local Bus Specification 3.0, chapter 6; IEEE 1275 PCI binding and "Interrupt Mapping" for the node of the host bridge.

use crate::mmio::{Mmio, Width};
use crate::mmu::{self, Kind};
use crate::tree::{Node, Tree};

/// Registers (6.1), and what is in the command (6.2.2).
const COMMAND: usize = 0x04;
const CLASS: usize = 0x08;
const HEADER_TYPE: usize = 0x0e;
const BARS: usize = 0x10;
const CAPABILITIES: usize = 0x34;
const INTERRUPT_PIN: usize = 0x3d;
const MEMORY: u64 = 1 << 1;
const BUS_MASTER: u64 = 1 << 2;
const INTERRUPT_DISABLE: u64 = 1 << 10;
/// Message-signalled interrupts (6.8.1): the capability, and in its control: enabled, addresses of 64 bits.
const MSI: u64 = 5;
const MSI_ENABLE: u64 = 1 << 0;
const MSI_WIDE: u64 = 1 << 7;
/// The same with a table (6.8.2): of its entries, the first is used; enabled.
const MSI_X: u64 = 0x11;
const MSI_X_ENABLE: u64 = 1 << 15;
/// Each region has so much of the bus's window, behind what eight times as much for each device before it leaves.
const ROOM: u64 = 2 << 20;

/// A function, and the host bridge it is behind.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its configuration space.
    pub space: Mmio,
    /// Its device and function number on the first bus, which is what it sends by.
    pub number: u32,
    host: Node,
}

impl Function {
    /// The first with this vendor and device.
    #[must_use]
    pub fn find(tree: Tree, vendor: u16, device: u16) -> Option<Self> {
        let identity = u32::from(vendor) | u32::from(device) << 16;
        Self::all(tree)?.find(|function| function.space.read(0) == identity)
    }

    /// The next one that is alike.
    #[must_use]
    pub fn next(&self, tree: Tree) -> Option<Self> {
        let identity = self.space.read(0);
        Self::all(tree)?.find(|other| other.number > self.number && other.space.read(0) == identity)
    }

    /// The first of this class: base class, sub-class, programming interface (6.2.1).
    #[must_use]
    pub fn of_class(tree: Tree, class: u32) -> Option<Self> {
        Self::all(tree)?.find(|function| function.space.read(CLASS) >> 8 == class)
    }

    /// Those that are no bridges.
    fn all(tree: Tree) -> Option<impl Iterator<Item = Self>> {
        let host = tree.nodes().find(|node| node.is_compatible("pci-host-ecam-generic"))?;
        let spaces = host.reg(0)?.start;
        let functions = (0..256_u32).map(move |number| {
            let at = spaces + (u64::from(number) << 12);
            // SAFETY: the tree says that configuration spaces are there; nobody's reads as all ones.
            Self { space: unsafe { Mmio::new(mmu::reach(at, Kind::Device)) }, number, host }
        });
        Some(functions.filter(|function| {
            function.space.read(0) != u32::MAX && function.space.read_width(HEADER_TYPE, Width::Byte) & 0x7f == 0
        }))
    }

    /// The registers of region `number`, which are reached from now on. They are put into the bus's window if nobody has put them
    /// anywhere; none if there is no such region, or no room.
    #[must_use]
    pub fn registers(&self, number: usize) -> Option<Mmio> {
        let register = BARS + 4 * number;
        let found = self.space.read(register);
        let is_wide = found & 0b110 == 0b100;
        if found & 1 != 0 {
            return None;
        }
        let upper = if is_wide { u64::from(self.space.read(register + 4)) << 32 } else { 0 };
        let mut at = u64::from(found & !0xf) | upper;
        if at == 0 {
            self.space.write(register, u32::MAX);
            let bytes = u64::from(!(self.space.read(register) & !0xf)) + 1;
            let window = self.host.pci_window()?;
            at = (window.start + ROOM * u64::from(self.number) + ROOM * number as u64).next_multiple_of(bytes);
            if bytes > ROOM || bytes > window.end.saturating_sub(at) {
                return None;
            }
            self.space.write(register, at as u32);
            if is_wide {
                self.space.write(register + 4, 0);
            }
        }
        self.change_command(MEMORY, 0);
        // SAFETY: the bus's, mapped just now.
        Some(unsafe { Mmio::new(mmu::reach(at, Kind::Device)) })
    }

    /// Puts region `number`, of 32 bits, where that of another one is.
    pub fn put_over(&self, other: &Self, number: usize) {
        let register = BARS + 4 * number;
        self.space.write(register, other.space.read(register));
        self.change_command(MEMORY, 0);
    }

    /// Whether it reaches memory by itself, and sends messages.
    pub fn set_bus_master(&self, on: bool) {
        if on { self.change_command(BUS_MASTER, 0) } else { self.change_command(0, BUS_MASTER) }
    }

    /// Whether it may use its line.
    pub fn set_line(&self, on: bool) {
        if on { self.change_command(0, INTERRUPT_DISABLE) } else { self.change_command(INTERRUPT_DISABLE, 0) }
    }

    fn change_command(&self, on: u64, off: u64) {
        let command = self.space.read_width(COMMAND, Width::Halfword);
        self.space.write_width(COMMAND, Width::Halfword, (command | on) & !off);
    }

    /// The INTID of its line, by the tree's `interrupt-map`.
    #[must_use]
    pub fn line(&self, tree: Tree) -> Option<u32> {
        let pin = self.space.read_width(INTERRUPT_PIN, Width::Byte) as u32;
        let map = Cells(self.host.property("interrupt-map")?);
        let mask = Cells(self.host.property("interrupt-map-mask")?);
        let function = self.number << 8 & mask.at(0)?;
        let mut at = 0;
        loop {
            // Three cells of an address, a pin, who takes it, an address there, and three of what it is there.
            let parent = map.at(at + 4)?;
            let controller = tree.nodes().find(|node| node.number("phandle") == Some(parent.into()))?;
            let rest = at + 5 + controller.number("#address-cells").unwrap_or(0) as usize;
            if map.at(at)? == function && map.at(at + 3)? == pin & mask.at(3)? {
                // SPIs only: 0.
                return (map.at(rest)? == 0).then_some(map.at(rest + 1)? + 32);
            }
            at = rest + 3;
        }
    }

    /// What an ITS knows it by: its number on the bus as the tree's `msi-map` has it.
    #[must_use]
    pub fn device_id(&self) -> u32 {
        let Some(map) = self.host.property("msi-map").map(Cells) else { return self.number };
        let entries = (0..).step_by(4).map_while(|at| Some((map.at(at)?, map.at(at + 2)?, map.at(at + 3)?)));
        let mine = |(first, _, length): &(u32, u32, u32)| {
            self.number.checked_sub(*first).is_some_and(|offset| offset < *length)
        };
        entries.into_iter().find(mine).map_or(self.number, |(first, target, _)| self.number - first + target)
    }

    /// Has it send its only message from now on in place of using its line, or no more; false if it has none.
    pub fn set_message(&self, message: Option<(u64, u32)>) -> bool {
        let Some(at) = self.capability(MSI) else { return false };
        let control = self.space.read_width(at + 2, Width::Halfword);
        // None enabled while it changes; of several one.
        let control = control & !MSI_ENABLE & !(0b111 << 4);
        self.space.write_width(at + 2, Width::Halfword, control);
        if let Some((address, data)) = message {
            let is_wide = control & MSI_WIDE != 0;
            self.space.write(at + 4, address as u32);
            if is_wide {
                self.space.write(at + 8, (address >> 32) as u32);
            }
            self.space.write_width(at + if is_wide { 12 } else { 8 }, Width::Halfword, data.into());
            self.space.write_width(at + 2, Width::Halfword, control | MSI_ENABLE);
        }
        true
    }

    /// The same for one with a table of messages, of which the first is sent for everything that has it.
    pub fn set_first_message(&self, address: u64, data: u32) -> bool {
        let Some(at) = self.capability(MSI_X) else { return false };
        let place = self.space.read(at + 4) as usize;
        let Some(registers) = self.registers(place & 7) else { return false };
        let table = place & !7;
        // The vector's control, which masks it, comes last.
        for (offset, value) in [(0, address as u32), (4, (address >> 32) as u32), (8, data), (12, 0)] {
            registers.write(table + offset, value);
        }
        let control = self.space.read_width(at + 2, Width::Halfword);
        self.space.write_width(at + 2, Width::Halfword, control | MSI_X_ENABLE);
        true
    }

    fn capability(&self, kind: u64) -> Option<usize> {
        let byte = |at| self.space.read_width(at, Width::Byte);
        let mut at = byte(CAPABILITIES) as usize & !3;
        // As many as there can be: the list may be a loop.
        for _ in 0..48 {
            if at == 0 || byte(at) == kind {
                break;
            }
            at = byte(at + 1) as usize & !3;
        }
        (at != 0 && byte(at) == kind).then_some(at)
    }
}

/// A property of 32-bit numbers.
struct Cells(&'static [u8]);

impl Cells {
    fn at(&self, index: usize) -> Option<u32> {
        let bytes = self.0.get(4 * index..4 * index + 4)?;
        Some(u32::from_be_bytes(bytes.try_into().ok()?))
    }
}
