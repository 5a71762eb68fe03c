//! Which functions there are.
//!
//! Answers for: visiting all buses of a host, numbering those that have no number, switching off what is found, and noting what it
//! says of itself. Does not answer for: addresses (`assign`), groups (`group`).
//!
//! Bus numbers only rise on the way down, so that no bridge leads back; there are 256 of them, and [`MAX_FUNCTIONS`] functions.

use crate::{
    Bridge, Capabilities, Class, Configuration, Flaw, Function, Space, Trouble, assign, bar, flaw, group,
    registers::{self, command},
};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use machine::PciHost;
use pci_types::PciAddress;

/// Most functions of a host that are looked at.
pub const MAX_FUNCTIONS: usize = 1024;

/// What is on a host's buses.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Hierarchy {
    /// All functions, what is behind a bridge after it. Each is at rest, and has the addresses that it says.
    pub functions: Vec<Function>,
    /// What was found wrong.
    pub troubles: Vec<Trouble>,
}

/// Finds, switches off and gives addresses to all functions of a host, as the `segment`-th of the machine's. Nobody else uses them.
#[must_use]
pub fn scan(access: &dyn Configuration, host: &PciHost, segment: u16) -> Hierarchy {
    let root = Space::new(access, PciAddress::new(segment, host.first_bus, 0, 0));
    let mut scan = Scan { root, segment, found: Hierarchy::default() };
    scan.walk(host.first_bus, host.last_bus);
    let mut found = scan.found;
    assign::assign(root, host, &mut found);
    group::number(&mut found.functions);
    found
}

struct Scan<'a> {
    root: Space<'a>,
    segment: u16,
    found: Hierarchy,
}

/// A bus whose bridges are being followed.
struct Level {
    bus: u8,
    /// The last number that a bus below may have.
    last: u8,
    /// The last that one has.
    used: u8,
    /// The bridge above, if firmware's numbers of it are given up.
    renumbered: Option<usize>,
    /// Those on this bus that are still to be followed, the last one first.
    bridges: Vec<usize>,
    /// All of them keep their numbers.
    keeps: bool,
}

impl Scan<'_> {
    fn walk(&mut self, first: u8, last: u8) {
        let mut open = Vec::new();
        open.push(self.enter(first, last, None, false));
        while let Some(level) = open.last_mut() {
            if let Some(bridge) = level.bridges.pop() {
                if let Some((secondary, subordinate)) = self.number(level, bridge) {
                    let is_renumbered = !level.keeps;
                    open.push(self.enter(secondary, subordinate, Some(bridge), is_renumbered));
                }
            } else if let Some(done) = open.pop()
                && let Some(above) = open.last_mut()
            {
                above.used = above.used.max(if done.renumbered.is_some() { done.used } else { done.last });
                self.close(&done);
            }
        }
    }

    /// All functions on a bus, of which no bridge that is to have other numbers forwards anything.
    fn enter(&mut self, bus: u8, last: u8, above: Option<usize>, is_renumbered: bool) -> Level {
        let begin = self.found.functions.len();
        self.visit(bus, above);
        let new = self.found.functions.iter().enumerate().skip(begin);
        let mut bridges: Vec<usize> = new.filter(|(_, function)| function.bridge.is_some()).map(|(n, _)| n).collect();
        let spans = bridges.iter().filter_map(|n| self.bridge(*n)).map(|bridge| (bridge.secondary, bridge.subordinate));
        let mut highest = bus;
        let keeps = spans.fold(true, |keeps, (secondary, subordinate)| {
            // In rising order, as everybody numbers them.
            let is_sound = highest < secondary && secondary <= subordinate && subordinate <= last;
            highest = subordinate;
            keeps && is_sound
        });
        if !keeps {
            for n in &bridges {
                self.set_numbers(*n, bus, 0, 0);
            }
        }
        bridges.reverse();
        Level { bus, last, used: bus, renumbered: above.filter(|_| is_renumbered), bridges, keeps }
    }

    fn bridge(&self, n: usize) -> Option<Bridge> {
        self.found.functions.get(n)?.bridge
    }

    /// Which buses are behind a bridge; none if it stays closed.
    fn number(&mut self, level: &Level, n: usize) -> Option<(u8, u8)> {
        let address = self.found.functions.get(n)?.address;
        let bridge = self.bridge(n)?;
        let numbers = if level.keeps {
            (bridge.secondary, bridge.subordinate)
        } else {
            let Some(secondary) = level.used.checked_add(1).filter(|secondary| *secondary <= level.last) else {
                flaw::note(&mut self.found.troubles, address, Flaw::NoBus);
                return None;
            };
            (secondary, level.last)
        };
        if !self.set_numbers(n, level.bus, numbers.0, numbers.1) {
            flaw::note(&mut self.found.troubles, address, Flaw::BusStuck);
            self.set_numbers(n, level.bus, 0, 0);
            return None;
        }
        Some(numbers)
    }

    /// All buses below have been seen.
    fn close(&mut self, done: &Level) {
        if let Some(n) = done.renumbered
            && let Some(bridge) = self.bridge(n)
        {
            self.set_numbers(n, bridge.primary, bridge.secondary, done.used);
        }
    }

    fn set_numbers(&mut self, n: usize, primary: u8, secondary: u8, subordinate: u8) -> bool {
        let Some(function) = self.found.functions.get_mut(n) else { return false };
        let space = self.root.other(function.address);
        function.bridge.as_mut().is_some_and(|bridge| {
            (bridge.primary, bridge.secondary, bridge.subordinate) = (primary, secondary, subordinate);
            bridge.write_numbers(space)
        })
    }

    fn visit(&mut self, bus: u8, above: Option<usize>) {
        let above =
            above.and_then(|n| self.found.functions.get(n)).map(|above| (above.address, above.capabilities.express));
        let address = above.map(|(address, _)| address);
        // Behind a link there is one device (7.3.1).
        let has_link = above.and_then(|(_, express)| express).is_some_and(|express| express.kind.has_link_below());
        for device in 0..if has_link { 1 } else { 32 } {
            let first = PciAddress::new(self.segment, bus, device, 0);
            let Some(has_more) = self.look(first, address) else { continue };
            if has_link && self.follow_ari(first, address) {
                continue;
            }
            for function in (1..8).filter(|_| has_more) {
                self.look(PciAddress::new(self.segment, bus, device, function), address);
            }
        }
    }

    /// The other functions of a device whose functions name each other (7.8.7.2), if port and device can do that. Says whether they can.
    fn follow_ari(&mut self, first: PciAddress, above: Option<PciAddress>) -> bool {
        let Some(ari) = self.find(Some(first)).and_then(|function| function.capabilities.ari) else { return false };
        let root = self.root;
        let Some(port) = self.find(above) else { return false };
        let space = root.other(port.address);
        let Some(express) = port.capabilities.express.as_mut().filter(|express| express.forwards_ari) else {
            return false;
        };
        express.forward_ari(space);
        let mut at = (first, ari);
        // Next Function Number rises, or ends the list.
        loop {
            let number = at.0.device() << 3 | at.0.function();
            let next = root.other(at.0).byte(at.1.saturating_add(5));
            if next <= number {
                return true;
            }
            let address = PciAddress::new(self.segment, first.bus(), next >> 3, next & 7);
            self.look(address, above);
            let Some(ari) = self.find(Some(address)).and_then(|function| function.capabilities.ari) else {
                return true;
            };
            at = (address, ari);
        }
    }

    fn find(&mut self, address: Option<PciAddress>) -> Option<&mut Function> {
        self.found.functions.iter_mut().rev().find(|function| Some(function.address) == address)
    }

    /// Looks for a function, and switches it off. Says whether its device has more; none if there is none.
    fn look(&mut self, address: PciAddress, above: Option<PciAddress>) -> Option<bool> {
        let space = self.root.other(address);
        let (vendor, device) = (space.half(registers::VENDOR), space.half(registers::DEVICE));
        // FFFFh is nobody's (2.3.2), and 0000h what some give instead.
        if [0, 0xffff].contains(&vendor) {
            return None;
        }
        let troubles = &mut self.found.troubles;
        if self.found.functions.len() >= MAX_FUNCTIONS {
            flaw::note(troubles, address, Flaw::TooMany);
            return None;
        }
        let header = space.byte(registers::HEADER_TYPE);
        let is_bridge = header & !registers::MULTI_FUNCTION == 1;
        switch_off(space, is_bridge, troubles);
        let has_more = header & registers::MULTI_FUNCTION != 0;
        if header & !registers::MULTI_FUNCTION > 1 {
            flaw::note(troubles, address, Flaw::Header(header & !registers::MULTI_FUNCTION));
            return Some(has_more);
        }
        let bars = bar::size_all(space, registers::BAR0, if is_bridge { 2 } else { 6 }, troubles);
        let [revision, interface, sub, base] = space.word(registers::REVISION).to_le_bytes();
        let subsystem = if is_bridge {
            (0, 0)
        } else {
            (space.half(registers::SUBSYSTEM_VENDOR), space.half(registers::SUBSYSTEM))
        };
        space.set_word(if is_bridge { registers::BRIDGE_EXPANSION_ROM } else { registers::EXPANSION_ROM }, 0);
        let capabilities = Capabilities::find(space, &bars, troubles);
        self.found.functions.push(Function {
            address,
            vendor,
            device,
            subsystem,
            revision,
            class: Class { base, sub, interface },
            bridge: is_bridge.then(|| Bridge::read(space)),
            pin: Some(space.byte(registers::INTERRUPT_PIN)).filter(|pin| (1..=4).contains(pin)),
            bars,
            capabilities,
            above,
            physical: None,
            group: 0,
        });
        Some(has_more)
    }
}

/// It neither answers nor does anything by itself.
fn switch_off(space: Space<'_>, is_bridge: bool, troubles: &mut Vec<Trouble>) {
    let was_master = space.half(registers::COMMAND) & command::BUS_MASTER != 0;
    space.set_half(registers::COMMAND, command::INTERRUPT_DISABLE);
    if space.half(registers::COMMAND) & command::BUS_MASTER != 0 {
        flaw::note(troubles, space.address, Flaw::StaysMaster);
    } else if was_master && !is_bridge {
        flaw::note(troubles, space.address, Flaw::WasMaster);
    }
}

/// What a function says of its own, for one that its physical function has promised (9.3.4): it has no BARs, pins or identity of its own.
pub(crate) fn virtual_function(
    space: Space<'_>,
    physical: &Function,
    device: u16,
    bars: ArrayVec<bar::Bar, 6>,
) -> Function {
    let mut troubles = Vec::new();
    space.set_half(registers::COMMAND, 0);
    let capabilities = Capabilities { sriov: None, ..Capabilities::find(space, &bars, &mut troubles) };
    let [revision, ..] = space.word(registers::REVISION).to_le_bytes();
    let subsystem = (space.half(registers::SUBSYSTEM_VENDOR), space.half(registers::SUBSYSTEM));
    Function {
        address: space.address,
        device,
        revision,
        subsystem,
        bars,
        capabilities,
        bridge: None,
        pin: None,
        physical: Some(physical.address),
        ..physical.clone()
    }
}
