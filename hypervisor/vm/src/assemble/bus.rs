//! The PCI bus of a VM: what its functions and its host bridge are made with.
//!
//! Answers for: putting together what the configuration says of the bus, which of its devices are on it, and what the host can do.
//! Does not answer for: the bus itself (`pci`), nor for which function is in which slot (`config`).

use super::places::free_place;
use super::{Description, Host, PassedDevice, PassedFunction, Reach, Subject, limit};
use alloc::boxed::Box;
use alloc::string::ToString;
use alloc::sync::Arc;
use alloc::vec::Vec;
use pci::{Bridge, HostBridge, MessageTarget, Routes};
use types::{IntId, Ipa, Range};
use vdev::{Connector, Decoder, DeviceId, FactoryFlags, Node, OptionError, PciSlot, Vdev};
use vgic::Version;

/// Addresses above 4 GiB that functions get, if the configuration gives them none: so many, because Linux wants a window that is not
/// prefetchable to have a length of 32 bits.
const UPPER_WINDOW: u64 = 2 << 30;
/// Where a place for them is looked for first: behind most guests' RAM, and before the windows of devices.
const UPPER_WINDOW_FIRST: Ipa = Ipa(8 << 30);

/// From an ITS's first page to that of `GITS_TRANSLATER` (Arm IHI 0069, 12.18).
const TRANSLATER_FRAME: u64 = 0x1_0000;

/// Where the PCI bus is. Its host bridge is the device in slot 0.0, and the configuration spaces are at that one's `loc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PciBus {
    /// Where its functions may be put: each below 4 GiB or above.
    pub windows: Vec<Range<Ipa>>,
    /// What its four lines are connected to: this input of the interrupt controller and the three behind it.
    pub first_line: IntId,
}

impl PciBus {
    /// How many lines it has.
    pub const LINES: u32 = 4;

    /// What its lines are connected to.
    pub fn lines(&self) -> impl Iterator<Item = IntId> + use<> {
        let first = self.first_line.0;
        (0..Self::LINES).map(move |line| IntId(first.saturating_add(line)))
    }

    /// The line of the function in `slot`.
    #[must_use]
    pub const fn line(&self, slot: PciSlot) -> IntId {
        IntId(self.first_line.0.saturating_add(slot.line() as u32))
    }
}

/// Everything that is the same of all functions.
pub(super) struct Slots {
    decoder: Arc<Routes>,
    taken: Vec<PciSlot>,
    bridge: Bridge,
}

impl Slots {
    /// Of the bus that `description` has; `None` if it has none.
    pub(super) fn new(description: &Description, host: &Host<'_>) -> Option<Self> {
        let bus = description.pci.as_ref()?;
        let functions = description.vdevs.iter().zip(0_u16..);
        let functions: Vec<_> = functions.filter_map(|(vdev, id)| Some((vdev.slot?, DeviceId(id)))).collect();
        let bridge = description.vdevs.iter().find(|vdev| vdev.slot == Some(PciSlot::HOST))?;
        let windows = bus.windows.iter().copied().chain(description.upper_window(limit(host))).collect();
        let messages = description.message_target(host.gic);
        let translated = description.translated().filter_map(|(_, slot)| slot).collect();
        let bridge = Bridge { ecam: bridge.location?, windows, first_line: bus.first_line, messages, translated };
        let taken = functions.iter().map(|(slot, _)| *slot).collect();
        Some(Self { decoder: Arc::new(Routes::new(bridge.ecam, &bridge.windows, functions)), taken, bridge })
    }

    pub(super) fn decoder(self) -> Arc<dyn Decoder> {
        self.decoder
    }

    /// For the function in `slot`; the host bridge has no factory that it would be for.
    pub(super) fn connector(&self, slot: PciSlot) -> Option<Connector> {
        (slot != PciSlot::HOST).then(|| self.any_connector(slot))
    }

    fn any_connector(&self, slot: PciSlot) -> Connector {
        let others = self.taken.iter().filter(|other| **other != slot);
        Connector {
            slot,
            is_one_of_several: others.into_iter().any(|other| other.device() == slot.device()),
            has_messages: self.bridge.messages.is_some(),
            decoder: self.decoder.clone(),
        }
    }

    pub(super) fn host_bridge(&self) -> Result<Box<dyn Vdev>, OptionError> {
        let made = HostBridge::new(self.any_connector(PciSlot::HOST), self.bridge.clone());
        made.map(|made| Box::new(made) as Box<dyn Vdev>).map_err(|flaw| OptionError::general(flaw.to_string()))
    }
}

impl Description {
    /// Interrupts that are a device's, or lines of its PCI bus.
    pub(super) fn interrupts(&self) -> impl Iterator<Item = IntId> {
        let lines = self.pci.iter().flat_map(PciBus::lines);
        let passed = self.passed.iter().flat_map(PassedDevice::interrupts);
        self.vdevs.iter().filter_map(|vdev| vdev.interrupt).chain(lines).chain(passed)
    }

    /// The windows of its PCI bus that the configuration has, for whoever looks whether they can be.
    pub(super) fn pci_windows(&self) -> impl Iterator<Item = (Subject, &'static str, Option<Range<Ipa>>)> {
        let bridge = self.vdevs.iter().position(|vdev| vdev.slot == Some(PciSlot::HOST));
        let named = bridge.and_then(|index| Some((Subject::Vdev(index), self.vdevs.get(index)?.factory.name)));
        let windows = self.pci.iter().flat_map(|bus| bus.windows.iter().copied());
        windows.filter_map(move |window| named.map(|(subject, name)| (subject, name, Some(window))))
    }

    /// Where functions with 64 bits of address may be put, unless the configuration says. Who finds no room for it below
    /// `limit` does without: they fit below 4 GiB as well.
    pub(super) fn upper_window(&self, limit: Ipa) -> Option<Range<Ipa>> {
        let bus = self.pci.as_ref()?;
        if bus.windows.iter().any(|window| window.end().0 > 1 << 32) {
            return None;
        }
        let mut taken = self.taken();
        taken.extend(self.stolen_time());
        free_place(UPPER_WINDOW_FIRST, UPPER_WINDOW, &taken).filter(|window| window.end() <= limit)
    }

    /// The VM's own SMMU, if it has one.
    #[must_use]
    pub fn smmu(&self) -> Option<DeviceId> {
        let own = self.vdevs.iter().position(|vdev| vdev.factory.flags.contains(FactoryFlags::SMMU))?;
        u16::try_from(own).ok().map(DeviceId)
    }

    /// Functions of the host's that are behind the VM's own SMMU, and where on the bus they are: those that an SMMU of the host's
    /// confines.
    pub fn translated(&self) -> impl Iterator<Item = (&PassedFunction, Option<PciSlot>)> {
        let own = self.functions.iter().filter(|function| function.reach == Reach::Own && self.smmu().is_some());
        own.map(|function| (function, self.vdevs.get(function.vdev).and_then(|vdev| vdev.slot)))
    }

    /// The page in which the guest's functions find what takes their messages, on a host with a GICv3: `GITS_TRANSLATER` (Arm IHI 0069,
    /// 12.19.1), or else `GICD_SETSPI_NSR` (12.9.36).
    #[must_use]
    pub fn message_page(&self) -> Ipa {
        let its = self.controller.its.and_then(|its| its.at.checked_add(TRANSLATER_FRAME));
        its.unwrap_or(self.controller.distributor)
    }

    /// Who takes messages of PCI functions on a host with this interrupt controller.
    fn message_target(&self, version: Version) -> Option<MessageTarget> {
        let phandle = match version {
            Version::V3 if self.controller.its.is_some() => return Some(MessageTarget::Translated(Node::ITS)),
            Version::V3 => self.messages().map(|_| Node::INTERRUPT_CONTROLLER),
            Version::V2 => self.controller.messages.map(|_| Node::MESSAGE_FRAME),
        };
        phandle.map(MessageTarget::Parent)
    }
}
