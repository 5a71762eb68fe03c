//! What a VM is to be, and what the host has to offer.
//!
//! Answers for: what a configuration comes to, in the words of the machine. Does not answer for: reading it (`config`), nor for
//! what is built from it ([`super::assemble`]).

use super::{PassedDevice, PassedFunction, PassedRest, PciBus, Reach};
use crate::controller::Controller;
use crate::id_registers::IdRegisters;
use crate::load::{Load, LoadInput};
use crate::policy::Unsupported;
use crate::smccc::Mitigations;
use crate::trng::Entropy;
use alloc::{string::String, vec::Vec};
use types::{Frequency, IntId, Ipa, Range};
use vdev::{Factory, Options, PciSlot};
use vgic::Version;

/// What a VM is to be.
#[derive(Debug)]
pub struct Description {
    /// What it is called.
    pub name: String,
    /// RAM, in the order of the configuration.
    pub ram: Vec<Range<Ipa>>,
    /// ROM, likewise.
    pub rom: Vec<Range<Ipa>>,
    /// Ranges where nothing is to be placed.
    pub reserved: Vec<Range<Ipa>>,
    /// Interrupts that messages are not to have.
    pub reserved_interrupts: Vec<IntId>,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// What goes into its memory.
    pub loads: Vec<Load>,
    /// The guest's command line.
    pub cmdline: Option<String>,
    /// Where it starts, if not where its image says.
    pub entry: Option<Ipa>,
    /// Where the interrupt controller is.
    pub controller: Controller,
    /// Where its device tree is to be, if that matters.
    pub tree_at: Option<Ipa>,
    /// Its devices.
    pub vdevs: Vec<VdevDescription>,
    /// Devices of the host that it gets.
    pub passed: Vec<PassedDevice>,
    /// Functions of the host's PCI Express that it gets.
    pub functions: Vec<PassedFunction>,
    /// What brings them to rest at its end, in the order of the vdevs that say so; [`super::MAX_RESTS`] at most.
    pub rests: Vec<PassedRest>,
    /// Its PCI bus, if some of them are on one.
    pub pci: Option<PciBus>,
    /// What becomes of accesses to what it does not have.
    pub policy: Unsupported,
    /// Whether it has performance monitors, if the host has some to give.
    pub monitors: bool,
    /// How far its counters are behind the host's; without it they start at zero.
    pub counter_offset: Option<u64>,
}

/// What a device is to be.
#[derive(Debug)]
pub struct VdevDescription {
    /// What makes it.
    pub factory: &'static Factory,
    /// What it is called.
    pub name: String,
    /// `loc`.
    pub location: Option<Ipa>,
    /// Where on the PCI bus it is, if it is there; then it has no `loc`, unless it is the host bridge.
    pub slot: Option<PciSlot>,
    /// `intr`, or the line that its pin on the PCI bus is connected to.
    pub interrupt: Option<IntId>,
    /// `sched`: that of a thread of its own, which wakes it, and of its workers; without it, the VM's thread does.
    pub schedule: Option<Schedule>,
    /// Whether it takes part in the status report (`set debug`).
    pub reports: bool,
    /// Its own options.
    pub options: Options,
}

/// How threads that work for a device are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// 1 to 255, higher is more urgent.
    pub priority: u8,
    /// Among others of the same priority it runs until it has nothing to do, and takes no turns.
    pub fifo: bool,
}

/// What the host's CPUs are, as far as guests get to see it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Their identification registers.
    pub id: IdRegisters,
    /// Ticks per second of their counter.
    pub frequency: Frequency,
    /// Seconds since 1970, in UTC, when that was zero; zero if nobody knows.
    pub epoch: u64,
    /// The architecture of their interrupt controller.
    pub gic: Version,
    /// How many list registers they have: `ICH_VTR_EL2.ListRegs + 1`, or that of `GICH_VTR`.
    pub list_registers: usize,
    /// How many priority bits their virtual interface has: `ICH_VTR_EL2.PRIbits + 1`.
    pub priority_bits: u8,
    /// What firmware said of its workarounds.
    pub mitigations: Mitigations,
    /// Whether guests can be given the performance monitors: they have an interrupt for each CPU.
    pub monitors: bool,
    /// Where random numbers come from, if from anywhere.
    pub entropy: Option<Entropy>,
    /// The device tree of the machine: what can be passed. `None` where the machine is not known, on a PC: then nothing is said against
    /// what is passed, and the guest's tree has no node for it.
    pub tree: Option<&'a [u8]>,
    /// Entropy for the guest: eight bytes for where its kernel goes, the rest for its generator; empty for none.
    pub seed: &'a [u8],
}

impl Description {
    /// Whether a device of the host that it gets reaches this.
    #[must_use]
    pub fn has_device(&self, reach: Reach) -> bool {
        let functions = self.functions.iter().map(|function| function.reach);
        self.passed.iter().map(|device| device.reach).chain(functions).any(|it| it == reach)
    }

    pub(super) fn load_input(&self) -> LoadInput<'_> {
        let Self { ram, rom, reserved, loads, entry, tree_at, .. } = self;
        LoadInput { ram, rom, reserved, loads, entry: *entry, tree_at: *tree_at }
    }

    /// How many INTIDs its interrupt controller has: as many as its devices and messages need, and some for software to play
    /// with. Not all there could be: a guest's driver writes several registers for each.
    pub(super) fn intids(&self) -> u32 {
        const LEAST: u32 = 128;
        let highest = self.interrupts().map(|intid| intid.0).max().unwrap_or(0);
        let intids = highest.saturating_add(1).max(LEAST).checked_next_multiple_of(32).unwrap_or(u32::MAX);
        let end = self.messages().and_then(|first| first.0.checked_add(MESSAGES)).unwrap_or(0);
        let (first, count) = self.controller.messages.map_or((IntId(0), 0), |frame| frame.interrupts());
        let end_of_frame = first.0.saturating_add(count).checked_next_multiple_of(32).unwrap_or(u32::MAX);
        intids.max(end).max(end_of_frame)
    }

    /// The first of [`MESSAGES`] SPIs for messages: the lowest bank of them of which none is reserved or a device's. `None` if
    /// there is no such bank.
    pub(super) fn messages(&self) -> Option<IntId> {
        let is_free = |first: &u32| {
            let bank = *first..first.saturating_add(MESSAGES);
            !self.interrupts().chain(self.reserved_interrupts.iter().copied()).any(|intid| bank.contains(&intid.0))
        };
        (IntId::FIRST_SPI..=IntId::END_SPI.saturating_sub(MESSAGES)).step_by(32).find(is_free).map(IntId)
    }
}

/// SPIs that a guest's driver may give to devices for their messages: a bank, and no more than that to set up.
pub(super) const MESSAGES: u32 = 32;
