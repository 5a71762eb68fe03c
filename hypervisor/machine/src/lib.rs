//! The physical machine as its device tree describes it.
//!
//! Answers for: turning the blob that firmware hands over into a [`Machine`], and, before there is a heap, into the little
//! that early boot needs ([`Early`]); and what its cores need ([`errata`]). Does not answer for: using any of it, for
//! what a board knows beyond its tree, and for the trees that guests get (`vm::tree`).
//!
//! Follows the Devicetree Specification, Release v0.4 ("DTSpec"), and for the nodes of an Arm machine the bindings that
//! come with Linux (`Documentation/devicetree/bindings`): `arm/cpus.yaml`, `arm/psci.yaml`,
//! `interrupt-controller/arm,gic.yaml`, `interrupt-controller/arm,gic-v3.yaml`, `timer/arm,arch_timer.yaml`,
//! `serial/pl011.yaml`, `serial/8250.yaml`, `rtc/arm,pl031.yaml`, `virtio/mmio.yaml`, `iommu/arm,smmu-v3.yaml`, `iommu/iommu.txt`,
//! `pci/pci-iommu.txt`, `pci/pci-msi.txt`, `pci/host-generic-pci.yaml`, `interrupt-controller/msi.txt`.
//!
//! A blob is checked whole (see `blob`) before any of it is read; after that the `fdt` package reads it. What a tree
//! says about itself can still be nonsense, and then the error names node and property.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;

mod blob;
mod calendar;
mod chosen;
mod console;
mod cpus;
mod device;
mod early;
pub mod errata;
mod error;
mod index;
mod interrupts;
mod memory;
mod messages;
mod node;
mod pci;
mod requesters;
mod smmu;
mod virtio;

pub use blob::{MAX_DEPTH, total_size, validate};
pub use console::{Console, ConsoleKind};
pub use cpus::{Conduit, Cpu, EnableMethod};
pub use device::{Device, DeviceClock, Line, PROPERTIES, devices};
pub use early::Early;
pub use error::{Flaw, MachineError};
pub use interrupts::{Gic, Timer};
pub use messages::{Its, MessageMap, MessageSender, MessageTarget};
pub use pci::{BUS_LENGTH, PciHost, PciInterrupts, PciSpace, PciWindow};
pub use smmu::{Master, RequesterMap, Smmu, Stream};
pub use virtio::VirtioWindow;

use alloc::{string::String, vec::Vec};
use types::{IntId, Pa, Range};

/// What there is: read once from the host's device tree, never changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Machine {
    /// What the machine calls itself (`/model`).
    pub model: Option<String>,
    /// All RAM, lowest first, touching banks joined, no overlaps. Parts of it may be [`Machine::reserved`].
    pub memory: Vec<Range<Pa>>,
    /// What of the RAM firmware wants untouched: the memory reservation block and `/reserved-memory`, and the pages in
    /// which CPUs wait to be released. Lowest first, joined. The tree itself and the initrd are not in it unless firmware says so.
    pub reserved: Vec<Range<Pa>>,
    /// The usable CPUs in the order of the tree, whose index is the [`types::CpuId`]. Never empty.
    pub cpus: Vec<Cpu>,
    /// The interrupt controller.
    pub gic: Gic,
    /// The private interrupts of the generic timer.
    pub timer: Timer,
    /// The private interrupt of the performance monitors, if they have one.
    pub monitors: Option<IntId>,
    /// Serial ports with a driver, the one that `stdout-path` names first. May be empty.
    pub consoles: Vec<Console>,
    /// The registers of a PL031 that knows the time of day, if there is one.
    pub calendar: Option<Range<Pa>>,
    /// Where virtio devices may be found, lowest address first.
    pub virtio: Vec<VirtioWindow>,
    /// The SMMUs that have a driver, in the order of the tree.
    pub smmus: Vec<Smmu>,
    /// What is behind them, in the order of the tree.
    pub masters: Vec<Master>,
    /// The ITSs, in the order of the tree; none beside a GICv2.
    pub its: Vec<Its>,
    /// What sends messages to them, in the order of the tree.
    pub senders: Vec<MessageSender>,
    /// The hosts of PCI Express whose configuration space is in memory, in the order of the tree.
    pub pci: Vec<PciHost>,
    /// How to call PSCI, if firmware has it.
    pub psci: Option<Conduit>,
    /// `/chosen/bootargs`.
    pub bootargs: Option<String>,
    /// Where the boot loader put the initrd: the boot archive.
    pub initrd: Option<Range<Pa>>,
    /// Entropy from the boot loader (`rng-seed`, and `kaslr-seed` behind it); empty if it gave none.
    pub seed: Vec<u8>,
}

impl Machine {
    /// Reads the tree in `blob`, which may be followed by other bytes. Needs the heap.
    ///
    /// # Errors
    /// If the blob is not a sound tree, or the tree lacks what no hypervisor can do without: memory, CPUs, a GIC with
    /// virtualization registers, the generic timer. The error names node and property.
    pub fn from_device_tree(blob: &[u8]) -> Result<Self, MachineError> {
        Tree::check(blob)?.machine()
    }

    fn of(sound: &blob::Sound<'_>) -> Result<Self, MachineError> {
        let index = index::Index::of(sound)?;
        let gic = interrupts::gic(&index)?;
        let (smmus, masters) = smmu::smmus(&index, &gic);
        let (its, senders) = messages::all(&index, &gic.gic);
        let memory = memory::banks(&index)?;
        let pci = pci::hosts(&index, &gic, &memory);
        Ok(Self {
            smmus,
            masters,
            its,
            senders,
            model: index
                .root()
                .and_then(|root| node::string(node::Properties::value(&root, "model")?))
                .map(String::from),
            memory,
            pci,
            reserved: memory::reserved(&index, &sound.reader()?)?,
            cpus: cpus::cpus(&index)?,
            timer: interrupts::timer(&index, &gic)?,
            monitors: interrupts::monitors(&index, &gic),
            consoles: console::consoles(&index, &gic),
            calendar: calendar::calendar(&index),
            virtio: virtio::windows(&index, &gic),
            gic: gic.gic,
            psci: cpus::psci(&index)?,
            bootargs: chosen::bootargs(&index),
            initrd: chosen::initrd(&index)?,
            seed: chosen::seed(&index),
        })
    }
}

/// Where a device of a board's own is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceWindow {
    /// Its registers.
    pub registers: Range<Pa>,
    /// Its interrupt, if it has one at the GIC.
    pub intid: Option<IntId>,
}

/// A tree that has been checked, once for all that is read of it.
#[derive(Debug)]
pub struct Tree<'a>(blob::Sound<'a>);

impl<'a> Tree<'a> {
    /// Checks the tree in `blob`, which may be followed by other bytes. This and all that follows needs the heap.
    ///
    /// # Errors
    /// If it is not a sound tree.
    pub fn check(blob: &'a [u8]) -> Result<Self, MachineError> {
        blob::Sound::check(blob).map(Self)
    }

    /// The same, as far as it has not been done for `early`. The blob is what it was then.
    ///
    /// # Errors
    /// As there.
    pub fn of(early: Early<'a>) -> Result<Self, MachineError> {
        blob::Sound::check_rest(early.validated()).map(Self)
    }

    /// What it says of the machine.
    ///
    /// # Errors
    /// If it lacks what no hypervisor can do without. The error names node and property.
    pub fn machine(&self) -> Result<Machine, MachineError> {
        Machine::of(&self.0)
    }

    /// The first usable device that is compatible with one of each list of `wanted`: what drivers of a board's own
    /// are for. `None` for one that there is none of, or that cannot be reached through its buses.
    #[must_use]
    pub fn find_devices(&self, wanted: &[&[&str]]) -> Vec<Option<DeviceWindow>> {
        let Ok(index) = index::Index::of(&self.0) else { return Vec::new() };
        let gic = interrupts::gic(&index).ok();
        let find = |names: &&[&str]| {
            let (id, _) = index.compatible(names).next()?;
            let intid = gic.as_ref().and_then(|gic| gic.interrupt_of(&index, id, 0));
            Some(DeviceWindow { registers: index.registers(id, 0).ok()?, intid })
        };
        wanted.iter().map(find).collect()
    }

    /// The tree without what it does not need: for somebody who wants to read it again.
    ///
    /// # Errors
    /// If there is no memory for the copy.
    pub fn compact(&self) -> Result<Vec<u8>, MachineError> {
        self.0.compact()
    }
}

#[cfg(test)]
mod tests;
