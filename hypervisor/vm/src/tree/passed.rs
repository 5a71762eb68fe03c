//! The nodes of passed devices.
//!
//! Answers for: what the guest is told of a device of the host: its registers and interrupts where the guest has them, and those of its
//! properties that are about nothing but itself ([`machine::PROPERTIES`]). Does not answer for: what else a driver wants to know; a user's
//! tree adds that.
//!
//! What the host's node says of other nodes is left out, but for clocks: one that never changes is there for the guest too. A PrimeCell
//! always has a clock of its bus (`arm/primecell.yaml`), or no driver would take it.

use crate::assemble::{PassedDevice, Reach};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use dtoolkit::model::DeviceTreeNode;
use machine::Device;
use types::{IntId, Ipa, Range};
use vdev::Node;

/// The clock of [`Node::APB_CLOCK`], in hertz.
const APB_FREQUENCY: u32 = 24_000_000;
/// The name of the clock of a PrimeCell's bus.
const APB_NAME: &str = "apb_pclk";
/// The phandle of the first clock that is none of that frequency.
const FIRST_CLOCK: u32 = 0x8100;

/// A device of the host, as the guest has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedNode {
    name: String,
    registers: Vec<Range<Ipa>>,
    /// Type, number and flags of each interrupt.
    interrupts: Vec<[u32; 3]>,
    interrupt_names: Vec<String>,
    /// Name and hertz.
    clocks: Vec<(Option<String>, u32)>,
    properties: Vec<(&'static str, Vec<u8>)>,
}

impl PassedNode {
    /// Of a device whose registers are all in `passed`.
    pub(crate) fn new(passed: &PassedDevice, device: &Device) -> Self {
        let mut node = Self {
            name: device.name.clone(),
            registers: device.registers.iter().filter_map(|registers| passed.guest_range(registers)).collect(),
            interrupts: Vec::new(),
            interrupt_names: Vec::new(),
            clocks: device.clocks.iter().filter_map(|clock| Some((clock.name.clone(), clock.frequency?))).collect(),
            properties: device.properties.clone(),
        };
        // Of an SMMU in front of it the guest knows nothing; how it sees caches is as it is.
        if passed.reach != Reach::Nothing && device.is_coherent {
            node.properties.push(("dma-coherent", Vec::new()));
        }
        let is_named = device.interrupt_names.len() == device.interrupts.len();
        for (index, line) in device.interrupts.iter().enumerate() {
            let Some(line) = line else { continue };
            let Some(guest) = passed.interrupts.iter().find(|interrupt| interrupt.host == line.intid) else { continue };
            node.interrupts.push([0, guest.guest.0.saturating_sub(IntId::FIRST_SPI), line.flags]);
            node.interrupt_names.extend(device.interrupt_names.get(index).filter(|_| is_named).cloned());
        }
        if node.is_prime_cell() && !node.clocks.iter().any(|(name, _)| name.as_deref() == Some(APB_NAME)) {
            node.clocks.push((Some(String::from(APB_NAME)), APB_FREQUENCY));
        }
        node
    }

    fn is_prime_cell(&self) -> bool {
        let compatible = self.properties.iter().find(|(name, _)| *name == "compatible");
        compatible.is_some_and(|(_, names)| names.split(|byte| *byte == 0).any(|name| name == b"arm,primecell"))
    }
}

/// The nodes of all of them, with those of their clocks in front.
pub(super) fn nodes(passed: &[PassedNode]) -> Vec<DeviceTreeNode> {
    let mut frequencies: Vec<u32> = Vec::new();
    let all = passed.iter().flat_map(|node| node.clocks.iter().map(|(_, frequency)| *frequency));
    for frequency in all.filter(|frequency| *frequency != APB_FREQUENCY) {
        if !frequencies.contains(&frequency) {
            frequencies.push(frequency);
        }
    }
    let clocks = frequencies.iter().zip(FIRST_CLOCK..).map(|(frequency, phandle)| {
        Node::new(format!("clock-{frequency}"))
            .compatible(&["fixed-clock"])
            .number("#clock-cells", 0)
            .number("clock-frequency", *frequency)
            .number("phandle", phandle)
            .into_model()
    });
    let phandle = |frequency: u32| {
        let own = frequencies.iter().zip(FIRST_CLOCK..).find(|(known, _)| **known == frequency);
        own.map_or(Node::APB_CLOCK, |(_, phandle)| phandle)
    };
    clocks.chain(passed.iter().map(|node| model(node, phandle))).collect()
}

fn model(passed: &PassedNode, phandle: impl Fn(u32) -> u32) -> DeviceTreeNode {
    let start = passed.registers.first().map_or(Ipa(0), Range::start);
    let mut node = Node::at(&passed.name, start).reg(&passed.registers);
    if !passed.interrupts.is_empty() {
        node = node.numbers("interrupts", passed.interrupts.as_flattened());
    }
    if !passed.interrupt_names.is_empty() {
        node = node.texts("interrupt-names", &texts(passed.interrupt_names.iter()));
    }
    if !passed.clocks.is_empty() {
        let phandles: Vec<u32> = passed.clocks.iter().map(|(_, frequency)| phandle(*frequency)).collect();
        node = node.numbers("clocks", &phandles);
        // Without a name for each it would be the wrong ones'.
        if passed.clocks.iter().all(|(name, _)| name.is_some()) {
            node = node.texts("clock-names", &texts(passed.clocks.iter().filter_map(|(name, _)| name.as_ref())));
        }
    }
    let mut node = node.into_model();
    for (name, value) in &passed.properties {
        super::set(&mut node, name, value.as_slice());
    }
    node
}

fn texts<'a>(texts: impl Iterator<Item = &'a String>) -> Vec<&'a str> {
    texts.map(String::as_str).collect()
}
