//! Hosts of PCI Express.
//!
//! Answers for: where a host's configuration space is, which addresses its functions can have, which interrupt a function's pin
//! is. Follows IEEE Std 1275's PCI bus binding (revision 2.1: 2.2.1 addresses, 4.1.1 `ranges`, 6 interrupts), the binding
//! `pci/host-generic-pci.yaml` and DTSpec 2.4.3 (`interrupt-map`). Does not answer for: what is on the bus (`pcie`), and streams (`smmu`).
//! A window or a route that is no sense counts as not there; so does a host without configuration space.

use crate::{
    Line,
    index::{Index, Node, NodeId},
    interrupts::{self, Found},
    node::{self, Properties},
};
use alloc::{string::String, vec::Vec};
use types::{PAGE_SIZE, Pa, Range};

/// Bytes of configuration space that a bus has: 32 devices of 8 functions of 4 KiB (PCI Express Base Specification, 7.2.2).
pub const BUS_LENGTH: u64 = 1 << 20;
/// Most windows that are read of one host.
const MAX_WINDOWS: usize = 16;
/// Most entries that are read of one `interrupt-map`.
const MAX_ROUTES: usize = 1024;

/// What kind of addresses a window has (`ss` of IEEE 1275 PCI, 2.2.1.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PciSpace {
    /// I/O.
    Io,
    /// Memory below 4 GiB of the bus.
    Memory32,
    /// Memory anywhere.
    Memory64,
}

/// Addresses of the bus that CPUs reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PciWindow {
    /// Which kind.
    pub space: PciSpace,
    /// Whether it may be read ahead.
    pub is_prefetchable: bool,
    /// Its first address on the bus, a whole page.
    pub bus: u64,
    /// Where CPUs have it: whole pages, none of them RAM.
    pub cpu: Range<Pa>,
}

/// A host with a configuration space in memory (ECAM).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PciHost {
    /// The path of its node, the same as that of its [`crate::Master`].
    pub path: String,
    /// What its functions' addresses begin with, if the tree says so (`linux,pci-domain`).
    pub domain: Option<u32>,
    /// Its configuration space: [`BUS_LENGTH`] for each bus, `first_bus` first. Cut to what there are buses for.
    pub configuration: Range<Pa>,
    /// The bus that functions of the host itself are on (`bus-range`).
    pub first_bus: u8,
    /// The last number that a bus can have; not below `first_bus`.
    pub last_bus: u8,
    /// In the order of the tree.
    pub windows: Vec<PciWindow>,
    /// Which interrupts the functions' pins are.
    pub interrupts: PciInterrupts,
    /// Whether its functions' DMA sees what is in the CPUs' caches (`dma-coherent`).
    pub is_coherent: bool,
}

/// Which interrupts the pins of a host's functions are (`interrupt-map`).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct PciInterrupts {
    /// The bits that count of a function's address, and of the pin (`interrupt-map-mask`).
    mask: (u32, u32),
    routes: Vec<Route>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Route {
    function: u32,
    pin: u32,
    line: Line,
}

impl PciInterrupts {
    /// The interrupt of `pin` (1 is INTA) of a function on the host's own bus, whose device is `device`; behind bridges pins are
    /// swapped first (PCI-to-PCI Bridge Architecture Specification, 9.1).
    #[must_use]
    pub fn line(&self, bus: u8, device: u8, function: u8, pin: u8) -> Option<Line> {
        // IEEE 1275 PCI, 2.2.1.1: bbbbbbbb dddddfff in bits 23 to 8.
        let function = u32::from(bus) << 16 | u32::from(device & 31) << 11 | u32::from(function & 7) << 8;
        let is = |route: &&Route| route.function == function & self.mask.0 && route.pin == u32::from(pin) & self.mask.1;
        self.routes.iter().find(is).map(|route| route.line)
    }
}

/// All of them. No window reaches into `memory`.
pub(crate) fn hosts(index: &Index<'_>, gic: &Found, memory: &[Range<Pa>]) -> Vec<PciHost> {
    index.compatible(&["pci-host-ecam-generic"]).filter_map(|(id, node)| host(index, gic, memory, id, &node)).collect()
}

fn host(index: &Index<'_>, gic: &Found, memory: &[Range<Pa>], id: NodeId, node: &Node<'_, '_>) -> Option<PciHost> {
    let (first_bus, last_bus) = match node.value("bus-range") {
        None => (0, u8::MAX),
        Some(value) => {
            let (first, rest) = cell(value)?;
            (u8::try_from(first).ok()?, u8::try_from(cell(rest)?.0).ok()?)
        }
    };
    let registers = index.registers(id, 0).ok().filter(|registers| registers.start().is_aligned(PAGE_SIZE))?;
    let room = registers.length().checked_div(BUS_LENGTH)?.checked_sub(1)?;
    let last_bus = last_bus.min(u8::try_from(u64::from(first_bus).saturating_add(room)).unwrap_or(u8::MAX));
    let buses = u64::from(last_bus.checked_sub(first_bus)?).saturating_add(1);
    let configuration = Range::new(registers.start(), buses.checked_mul(BUS_LENGTH)?)?;
    if memory.iter().any(|bank| bank.overlaps(&configuration)) {
        return None;
    }
    Some(PciHost {
        path: index.path(id),
        domain: node.value("linux,pci-domain").and_then(cell).map(|(domain, _)| domain),
        configuration,
        first_bus,
        last_bus,
        windows: windows(index, memory, &configuration, id, node),
        interrupts: interrupts(index, gic, node).unwrap_or_default(),
        is_coherent: index.lineage(id).iter().any(|node| node.value("dma-coherent").is_some()),
    })
}

/// `ranges`: three cells of the bus, then the parent's address, then the size.
fn windows(
    index: &Index<'_>,
    memory: &[Range<Pa>],
    configuration: &Range<Pa>,
    id: NodeId,
    node: &Node<'_, '_>,
) -> Vec<PciWindow> {
    let mut found: Vec<PciWindow> = Vec::new();
    let above = index.parent(id).and_then(|parent| index.node(parent));
    let cells = |node: Option<&Node<'_, '_>>, name| {
        node.and_then(|node| node.value(name)).and_then(cell).map(|(cells, _)| cells)
    };
    let (ours, size) = (cells(Some(node), "#address-cells"), cells(Some(node), "#size-cells"));
    // DTSpec 2.3.5: two, if the parent does not say.
    let parent = cells(above.as_ref(), "#address-cells").unwrap_or(2);
    let (Some(3), Some(2), true) = (ours, size, parent == 1 || parent == 2) else { return found };
    let lineage = index.lineage(id);
    let mut rest = node.value("ranges").unwrap_or_default();
    while let Some((kind, bus, above, length, after)) = entry(rest, parent).filter(|_| found.len() < MAX_WINDOWS) {
        rest = after;
        let window = node::translate(&lineage, above, length).ok().and_then(|cpu| window(kind, bus, cpu));
        let is_free = |window: &PciWindow| {
            let others = found.iter().map(|other| &other.cpu).chain(memory).chain(core::iter::once(configuration));
            !others.into_iter().any(|other| other.overlaps(&window.cpu))
        };
        found.extend(window.filter(is_free));
    }
    found
}

/// Kind, address on the bus, address above, length, and what follows.
fn entry(value: &[u8], parent: u32) -> Option<(u32, u64, u64, u64, &[u8])> {
    let (kind, rest) = cell(value)?;
    let (bus, rest) = node::number(rest, 2)?;
    let (above, rest) = node::number(rest, parent)?;
    let (length, rest) = node::number(rest, 2)?;
    Some((kind, bus, above, length, rest))
}

fn window(kind: u32, bus: u64, cpu: Range<Pa>) -> Option<PciWindow> {
    let space = match kind >> 24 & 3 {
        1 => PciSpace::Io,
        2 => PciSpace::Memory32,
        3 => PciSpace::Memory64,
        _ => return None,
    };
    let last = bus.checked_add(cpu.length().checked_sub(1)?)?;
    let fits = space == PciSpace::Memory64 || last <= u64::from(u32::MAX);
    // What is no whole page on both sides cannot be given to anybody.
    let is_whole = [bus, cpu.start().0, cpu.length()].iter().all(|number| number % PAGE_SIZE == 0);
    (fits && is_whole).then_some(PciWindow { space, is_prefetchable: kind & 1 << 30 != 0, bus, cpu })
}

/// `interrupt-map`: three cells and one for the pin, then the controller, its address and its specifier.
fn interrupts(index: &Index<'_>, gic: &Found, node: &Node<'_, '_>) -> Option<PciInterrupts> {
    let mut mask = node.value("interrupt-map-mask")?.chunks_exact(4);
    let mut mask = || mask.next().and_then(cell).map(|(mask, _)| mask);
    let (high, _, _, pins) = (mask()?, mask()?, mask()?, mask()?);
    if node.value("#interrupt-cells").and_then(cell)?.0 != 1 {
        return None;
    }
    let mut routes = Vec::new();
    let mut controller: Option<(u32, NodeId, usize, usize)> = None;
    let mut rest = node.value("interrupt-map")?;
    for _ in 0..MAX_ROUTES {
        let Some((function, pin, phandle, after)) = child(rest) else { break };
        // There is hardly ever more than one, and looking for it takes long.
        if controller.is_none_or(|(known, ..)| known != phandle) {
            controller = parent(index, phandle).map(|(id, address, cells)| (phandle, id, address, cells));
        }
        let Some((_, id, address, cells)) = controller else { break };
        let Some((specifier, after)) = after.get(address..).and_then(|after| after.split_at_checked(cells)) else {
            break;
        };
        if let Some(line) = interrupts::specifier(specifier).filter(|line| gic.is(id) && line.intid.is_spi()) {
            routes.push(Route { function: function & high, pin: pin & pins, line });
        }
        rest = after;
    }
    Some(PciInterrupts { mask: (high, pins), routes })
}

/// Of an entry: function, pin, controller, and what follows.
fn child(value: &[u8]) -> Option<(u32, u32, u32, &[u8])> {
    let (function, rest) = cell(value)?;
    let (_, rest) = node::number(rest, 2)?;
    let (pin, rest) = cell(rest)?;
    let (phandle, rest) = cell(rest)?;
    Some((function, pin, phandle, rest))
}

/// A controller, and the bytes of its addresses and specifiers in a map; no address if it does not say (as Linux reads it).
fn parent(index: &Index<'_>, phandle: u32) -> Option<(NodeId, usize, usize)> {
    let id = index.by_phandle(phandle)?;
    let node = index.node(id)?;
    let bytes = |name| {
        let (cells, _) = node.value(name).and_then(cell)?;
        usize::try_from(cells).ok().filter(|cells| *cells <= 8)?.checked_mul(4)
    };
    let address = if node.value("#address-cells").is_some() { bytes("#address-cells")? } else { 0 };
    Some((id, address, bytes("#interrupt-cells")?))
}

fn cell(value: &[u8]) -> Option<(u32, &[u8])> {
    let (number, rest) = node::number(value, 1)?;
    Some((u32::try_from(number).ok()?, rest))
}
