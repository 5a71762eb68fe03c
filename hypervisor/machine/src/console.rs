//! Serial ports.
//!
//! Answers for: which ports there are that a driver exists for, and which of them firmware chose (`stdout-path`, DTSpec
//! section 3.6). A port that cannot be reached through its buses is left out: it is no reason not to start.

use crate::{
    index::Index,
    interrupts::Found,
    node::{self, Properties},
};
use alloc::vec::Vec;
use types::{IntId, Pa, Range};

/// A serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Console {
    /// Which driver.
    pub kind: ConsoleKind,
    /// Its registers.
    pub registers: Range<Pa>,
    /// Its interrupt, if it has one at the GIC; never known to [`crate::Early`].
    pub intid: Option<IntId>,
}

/// What kind of serial port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsoleKind {
    /// Arm PrimeCell PL011.
    Pl011,
    /// The mini UART of the BCM2835 family.
    MiniUart,
    /// 16550 and its descendants.
    Ns16550 {
        /// Registers are `1 << shift` bytes apart (`reg-shift`).
        shift: u8,
        /// Bytes of each access: 1 or 4 (`reg-io-width`).
        width: u8,
    },
}

const PL011: [&str; 2] = ["arm,pl011", "arm,sbsa-uart"];
const MINI_UART: [&str; 1] = ["brcm,bcm2835-aux-uart"];
const NS16550: [&str; 3] = ["ns16550a", "ns16550", "snps,dw-apb-uart"];
/// What there is a driver for.
const ALL: [&str; 6] = [PL011[0], PL011[1], MINI_UART[0], NS16550[0], NS16550[1], NS16550[2]];

impl ConsoleKind {
    /// What the node is, if there is a driver for it.
    pub(crate) fn of<'a>(node: &impl Properties<'a>) -> Option<Self> {
        if node::is_compatible(node, &PL011) {
            return Some(Self::Pl011);
        }
        if node::is_compatible(node, &MINI_UART) {
            return Some(Self::MiniUart);
        }
        if node::is_compatible(node, &NS16550) {
            let small = |name, default| {
                node.value(name).and_then(node::whole_number).map_or(Some(default), |n| u8::try_from(n).ok())
            };
            let (shift, width) = (small("reg-shift", 0)?, small("reg-io-width", 1)?);
            return (shift <= 3 && matches!(width, 1 | 4)).then_some(Self::Ns16550 { shift, width });
        }
        None
    }
}

/// The part of `stdout-path` before its options: `serial0` of `serial0:115200n8`.
pub(crate) fn without_options(path: &str) -> &str {
    path.split(':').next().unwrap_or(path)
}

pub(crate) fn consoles(index: &Index<'_>, gic: &Found) -> Vec<Console> {
    let chosen = index.at("/chosen").and_then(|id| index.node(id));
    let stdout = chosen.and_then(|chosen| {
        let path = chosen.value("stdout-path").or_else(|| chosen.value("linux,stdout-path"))?;
        index.at_path_or_alias(without_options(node::string(path)?))
    });
    let (chosen, others): (Vec<(bool, Console)>, Vec<_>) = index
        .compatible(&ALL)
        .filter_map(|(id, node)| {
            let kind = ConsoleKind::of(&node)?;
            let registers = index.registers(id, 0).ok()?;
            Some((stdout == Some(id), Console { kind, registers, intid: gic.interrupt_of(index, id, 0) }))
        })
        .partition(|(is_chosen, _)| *is_chosen);
    chosen.into_iter().chain(others).map(|(_, console)| console).collect()
}
