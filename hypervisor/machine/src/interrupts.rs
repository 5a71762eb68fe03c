//! The interrupt controller, and the interrupts of the timer.
//!
//! Follows the bindings `interrupt-controller/arm,gic-v3.yaml`, `interrupt-controller/arm,gic.yaml` and
//! `timer/arm,arch_timer.yaml`, `arm/pmu.yaml`; interrupt specifiers as DTSpec section 2.4 has them.

use crate::{
    Flaw, Line, MachineError,
    index::{Index, NodeId},
    node::{self, Properties},
};
use alloc::vec::Vec;
use types::{IntId, Pa, Range};

/// The interrupt controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gic {
    /// GICv3 or later; its CPU and virtual interfaces are system registers.
    V3 {
        /// GICD.
        distributor: Range<Pa>,
        /// GICR regions, at least one.
        redistributors: Vec<Range<Pa>>,
        /// Bytes from one redistributor to the next, where it is not what its frames add up to.
        stride: Option<u64>,
        /// The maintenance interrupt, a PPI.
        maintenance: Option<IntId>,
    },
    /// GICv2 with the Virtualization Extensions.
    V2 {
        /// GICD.
        distributor: Range<Pa>,
        /// GICC.
        cpu_interface: Range<Pa>,
        /// GICH.
        hypervisor_interface: Range<Pa>,
        /// GICV: what a guest gets for its GICC.
        virtual_cpu_interface: Range<Pa>,
        /// The maintenance interrupt, a PPI.
        maintenance: Option<IntId>,
    },
}

/// The private interrupts of the generic timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timer {
    /// EL1 virtual timer.
    pub virtual_: IntId,
    /// EL1 physical timer (non-secure).
    pub physical: IntId,
    /// EL2 physical timer.
    pub hypervisor: IntId,
}

/// The controller and where it stands in the tree.
pub(crate) struct Found {
    pub(crate) gic: Gic,
    node: NodeId,
}

pub(crate) fn gic(index: &Index<'_>) -> Result<Found, MachineError> {
    if let Some((id, node)) = index.compatible(&["arm,gic-v3"]).next() {
        let regions = node.value("#redistributor-regions").map_or(Some(1), node::whole_number);
        let regions = regions
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| (1..=64).contains(count))
            .ok_or(Flaw::Value)
            .map_err(index.flawed(id, "#redistributor-regions"))?;
        let gic = Gic::V3 {
            distributor: index.registers(id, 0)?,
            redistributors: (1..=regions).map(|n| index.registers(id, n)).collect::<Result<_, _>>()?,
            stride: node.value("redistributor-stride").and_then(node::whole_number).filter(|&stride| stride != 0),
            maintenance: interrupt(index, id, id, 0),
        };
        return Ok(Found { gic, node: id });
    }
    let v2 = ["arm,gic-400", "arm,cortex-a15-gic", "arm,cortex-a7-gic", "arm,gic-v2"];
    let (id, _) = index.compatible(&v2).next().ok_or(MachineError::NoNode("interrupt controller (GICv2 or GICv3)"))?;
    if matches!(index.registers(id, 3), Err(MachineError::Property { flaw: Flaw::TooFew, .. })) {
        return Err(MachineError::NoNode(
            "virtual interface of the GICv2: GICH and GICV, the third and fourth entry of its `reg`. Only a GICv2 with the \
             Virtualization Extensions has them, and guests need it",
        ));
    }
    let gic = Gic::V2 {
        distributor: index.registers(id, 0)?,
        cpu_interface: index.registers(id, 1)?,
        hypervisor_interface: index.registers(id, 2)?,
        virtual_cpu_interface: index.registers(id, 3)?,
        maintenance: interrupt(index, id, id, 0),
    };
    Ok(Found { gic, node: id })
}

pub(crate) fn timer(index: &Index<'_>, gic: &Found) -> Result<Timer, MachineError> {
    let (id, node) =
        index.compatible(&["arm,armv8-timer", "arm,armv7-timer"]).next().ok_or(MachineError::NoNode("timer"))?;
    let names = node.value("interrupt-names");
    let find = |name: &str, position: usize| {
        let position = match names {
            Some(names) => node::strings(names).position(|found| found == name),
            None => Some(position),
        };
        position
            .and_then(|n| interrupt(index, id, gic.node, n))
            .filter(|intid| intid.is_private())
            .ok_or(Flaw::TooFew)
            .map_err(index.flawed(id, "interrupts"))
    };
    // The order where there are no names: secure, non-secure, virtual, hypervisor.
    Ok(Timer { physical: find("phys", 1)?, virtual_: find("virt", 2)?, hypervisor: find("hyp-phys", 3)? })
}

/// The performance monitors' interrupt, if it is a private one. Where each CPU has another, a shared one, there is none that
/// a guest could be given.
pub(crate) fn monitors(index: &Index<'_>, gic: &Found) -> Option<IntId> {
    const KINDS: [&str; 6] = [
        "arm,armv8-pmuv3",
        "arm,cortex-a53-pmu",
        "arm,cortex-a57-pmu",
        "arm,cortex-a72-pmu",
        "arm,cortex-a76-pmu",
        "arm,neoverse-n1-pmu",
    ];
    let (id, _) = index.compatible(&KINDS).next()?;
    gic.interrupt_of(index, id, 0).filter(|intid| intid.is_private())
}

impl Found {
    /// Whether this is the controller's node.
    pub(crate) fn is(&self, id: NodeId) -> bool {
        self.node == id
    }

    /// The `n`-th interrupt of a node, if it goes straight to this controller.
    pub(crate) fn interrupt_of(&self, index: &Index<'_>, id: NodeId, n: usize) -> Option<IntId> {
        interrupt(index, id, self.node, n)
    }

    /// All interrupts of a node; `None` for one that does not go straight to this controller.
    pub(crate) fn lines_of(&self, index: &Index<'_>, id: NodeId) -> Vec<Option<Line>> {
        let count = index.node(id).map_or(0, |node| count(index, id, &node));
        (0..count).map(|n| line(index, id, self.node, n)).collect()
    }
}

/// How many interrupts a node has; none if it cannot be said.
fn count<'a>(index: &Index<'_>, id: NodeId, node: &impl Properties<'a>) -> usize {
    if let Some(mut rest) = node.value("interrupts-extended") {
        let mut count: usize = 0;
        while let Some((_, after)) = extended_entry(index, rest) {
            (count, rest) = (count.saturating_add(1), after);
        }
        return count;
    }
    let parent = interrupt_parent(index, id).and_then(|parent| index.node(parent));
    let cells = parent.and_then(|parent| node::whole_number(parent.value("#interrupt-cells")?));
    let bytes = cells.and_then(|cells| usize::try_from(cells.checked_mul(4)?).ok()).filter(|bytes| *bytes != 0);
    bytes.and_then(|bytes| node.value("interrupts")?.len().checked_div(bytes)).unwrap_or(0)
}

fn interrupt(index: &Index<'_>, id: NodeId, gic: NodeId, n: usize) -> Option<IntId> {
    line(index, id, gic, n).map(|line| line.intid)
}

fn line(index: &Index<'_>, id: NodeId, gic: NodeId, n: usize) -> Option<Line> {
    let node = index.node(id)?;
    let cells = usize::try_from(node::whole_number(index.node(gic)?.value("#interrupt-cells")?)?).ok()?;
    if !(3..=8).contains(&cells) {
        return None;
    }
    if let Some(extended) = node.value("interrupts-extended") {
        // Each entry begins with its own controller; entries of other controllers have a length of their own.
        let mut rest = extended;
        for _ in 0..n {
            let (_, after) = extended_entry(index, rest)?;
            rest = after;
        }
        let (controller, _) = extended_entry(index, rest)?;
        return (controller == gic).then(|| specifier(rest.get(4..)?))?;
    }
    if interrupt_parent(index, id)? != gic {
        return None;
    }
    specifier(node.value("interrupts")?.chunks_exact(cells.checked_mul(4)?).nth(n)?)
}

fn extended_entry<'v>(index: &Index<'_>, value: &'v [u8]) -> Option<(NodeId, &'v [u8])> {
    let (phandle, rest) = node::number(value, 1)?;
    let controller = index.by_phandle(u32::try_from(phandle).ok()?)?;
    let cells = node::whole_number(index.node(controller)?.value("#interrupt-cells")?)?;
    Some((controller, rest.get(usize::try_from(cells).ok()?.checked_mul(4)?..)?))
}

/// The controller of a node's `interrupts`: its own `interrupt-parent` or the nearest ancestor's (DTSpec 2.4.1.2).
fn interrupt_parent(index: &Index<'_>, id: NodeId) -> Option<NodeId> {
    let mut next = Some(id);
    while let Some(id) = next {
        if let Some(value) = index.node(id)?.value("interrupt-parent") {
            return index.by_phandle(u32::try_from(node::whole_number(value)?).ok()?);
        }
        next = index.parent(id);
    }
    None
}

/// The GIC's three cells: type, number within the type, flags.
pub(crate) fn specifier(cells: &[u8]) -> Option<Line> {
    let (kind, rest) = node::number(cells, 1)?;
    let (number, rest) = node::number(rest, 1)?;
    let flags = u32::try_from(node::number(rest, 1)?.0).ok()?;
    let number = u32::try_from(number).ok()?;
    let intid = match kind {
        0 => number.checked_add(IntId::FIRST_SPI).map(IntId).filter(|intid| intid.is_spi()),
        1 => number.checked_add(16).map(IntId).filter(|intid| intid.is_private()),
        // Extended ranges of GICv3.1: none of ours.
        _ => None,
    };
    intid.map(|intid| Line { intid, flags })
}
