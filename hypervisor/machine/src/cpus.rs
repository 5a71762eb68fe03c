//! The CPUs and how they are started.
//!
//! Follows DTSpec section 3.8 and the bindings `arm/cpus.yaml` and `arm/psci.yaml`.

use crate::{
    Flaw, MachineError,
    index::{Index, NodeId},
    node::{self, Properties},
};
use alloc::vec::Vec;
use types::{Mpidr, PAGE_SIZE, Pa, Range};

/// One usable CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpu {
    /// Its affinity: who it is for PSCI, for the GIC, for itself.
    pub mpidr: Mpidr,
    /// How to start it.
    pub enable: EnableMethod,
}

/// How a CPU that is not the boot CPU is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnableMethod {
    /// By a PSCI `CPU_ON`.
    Psci,
    /// It waits for an event, over and over, until there is an entry point at this address.
    SpinTable(Pa),
    /// The tree does not say: it cannot be started.
    None,
}

/// The instruction that calls firmware.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conduit {
    /// `smc`: firmware is at EL3.
    Smc,
    /// `hvc`: firmware is at EL2, which then is not ours.
    Hvc,
}

/// "arm,psci" alone is PSCI 0.1, whose function numbers are the tree's choice: not ours.
pub(crate) const PSCI: &[&str] = &["arm,psci-1.0", "arm,psci-0.2"];

pub(crate) fn cpus(index: &Index<'_>) -> Result<Vec<Cpu>, MachineError> {
    let parent = index.at("/cpus").ok_or(MachineError::NoNode("/cpus"))?;
    let is_cpu =
        |node: &crate::index::Node<'_, '_>| node.name.split('@').next() == Some("cpu") && node::is_enabled(node);
    let found: Result<Vec<Cpu>, MachineError> =
        index.children(parent).filter(|(_, node)| is_cpu(node)).map(|(id, _)| cpu(index, parent, id)).collect();
    let found = found?;
    if found.is_empty() { Err(MachineError::NoNode("/cpus/cpu")) } else { Ok(found) }
}

/// The pages of the release addresses of all CPUs, those that are switched off among them: they wait there.
pub(crate) fn release_pages(index: &Index<'_>) -> Vec<Range<Pa>> {
    let parent = index.at("/cpus");
    let nodes = parent.into_iter().flat_map(|parent| index.children(parent));
    nodes
        .filter_map(|(_, node)| Some(Pa(node::whole_number(node.value("cpu-release-addr")?)?).align_down(PAGE_SIZE)))
        .filter_map(|page| Range::new(page, PAGE_SIZE))
        .collect()
}

fn cpu(index: &Index<'_>, parent: NodeId, id: NodeId) -> Result<Cpu, MachineError> {
    let node = index.node(id).ok_or(MachineError::NoNode("/cpus/cpu"))?;
    let reg = node.value("reg").ok_or(Flaw::Missing).map_err(index.flawed(id, "reg"))?;
    // One cell holds affinity 2 to 0, two cells affinity 3 as well (arm/cpus.yaml, `reg`).
    let mpidr = node::whole_number(reg).ok_or(Flaw::Length).map_err(index.flawed(id, "reg"))?;
    // A property that all CPUs share may stand in the parent (DTSpec 3.8.1).
    let method = node.value("enable-method").or_else(|| index.node(parent)?.value("enable-method"));
    let enable = match method.and_then(node::string) {
        Some("psci") => EnableMethod::Psci,
        Some("spin-table") => {
            let property = "cpu-release-addr";
            let value = node.value(property).ok_or(Flaw::Missing).map_err(index.flawed(id, property))?;
            let address = node::whole_number(value).ok_or(Flaw::Length).map_err(index.flawed(id, property))?;
            EnableMethod::SpinTable(Pa(address))
        }
        _ => EnableMethod::None,
    };
    Ok(Cpu { mpidr: Mpidr::new(mpidr), enable })
}

pub(crate) fn psci(index: &Index<'_>) -> Result<Option<Conduit>, MachineError> {
    let Some((id, node)) = index.compatible(PSCI).next() else { return Ok(None) };
    match node.value("method").and_then(node::string) {
        Some("smc") => Ok(Some(Conduit::Smc)),
        Some("hvc") => Ok(Some(Conduit::Hvc)),
        Some(_) => Err(index.flawed(id, "method")(Flaw::Value)),
        None => Err(index.flawed(id, "method")(Flaw::Missing)),
    }
}
