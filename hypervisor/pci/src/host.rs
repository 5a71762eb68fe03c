//! The host bridge: the function that the bus itself is, and the bus in the guest's device tree.
//!
//! Answers for: function 0 of device 0, which the original has there as well; what a guest gets where nobody is; and a node after
//! Linux' bindings `pci/host-generic-pci.yaml`, `pci/pci-msi.txt` and the Devicetree Specification's section 2.4 (interrupt map). Does
//! not answer for: finding places for all that (`vm::config`).

use crate::ECAM_SIZE;
use crate::config::Flaw;
use crate::endpoint::Endpoint;
use crate::function::{Description, Function, Identity, Region};
use alloc::boxed::Box;
use alloc::vec::Vec;
use types::{AccessSize, IntId, Ipa, Range};
use vdev::{AccessFault, Connector, Context, Control, ControlError, Node, PciSlot, Vdev, Wake};

/// As in the original; class 06 00 00, a host bridge.
const IDENTITY: Identity = Identity::new(Identity::VENDOR, 0x0002, 0x06_0000);

/// The first address that does not fit 32 bits.
const END_OF_32_BITS: u64 = 1 << 32;
/// Space codes of an address on the bus (IEEE 1275 PCI binding, 2.2.1.1): memory, 32 bits and 64 bits.
const MEMORY_32: u32 = 0x0200_0000;
const MEMORY_64: u32 = 0x0300_0000;
/// The device in an address on the bus, as far as it matters for interrupts: its number modulo 4.
const DEVICE_MASK: u32 = 0x1800;
/// Type of interrupt and flags in the binding of Arm's controllers: an SPI, level-sensitive, active high.
const SPI: u32 = 0;
const LEVEL_HIGH: u32 = 4;

/// Where a bus is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bridge {
    /// Where the configuration spaces are.
    pub ecam: Ipa,
    /// Where its functions may be put: each below 4 GiB or above.
    pub windows: Vec<Range<Ipa>>,
    /// What its four lines are connected to: this input of the interrupt controller and the three behind it.
    pub first_line: IntId,
    /// Where messages go, if anywhere.
    pub messages: Option<MessageTarget>,
    /// Those that are behind the VM's own SMMU.
    pub translated: Vec<PciSlot>,
}

/// Who takes messages: a node, by its phandle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MessageTarget {
    /// One that does not ask who sends: the interrupt controller itself, or its frame for messages.
    Parent(u32),
    /// One that does, by the requester's ID: an ITS.
    Translated(u32),
}

/// The host bridge's device.
#[derive(Debug)]
pub struct HostBridge {
    endpoint: Endpoint,
    bridge: Bridge,
}

/// What answers where nobody does.
#[derive(Debug)]
struct Nobody;

impl HostBridge {
    /// That of the bus that `bridge` describes.
    ///
    /// # Errors
    /// None, as long as the host bridge has nothing that cannot be.
    pub fn new(connector: Connector, bridge: Bridge) -> Result<Self, Flaw> {
        let endpoint = Endpoint::internal(connector, &Description::new(IDENTITY), Box::new(Nobody))?;
        Ok(Self { endpoint, bridge })
    }
}

impl Bridge {
    fn node(&self) -> Node {
        let ecam = Range::between(self.ecam, Ipa(self.ecam.0.saturating_add(ECAM_SIZE)));
        let ranges: Vec<u32> = self.windows.iter().flat_map(cells).collect();
        let node = Node::at("pcie", self.ecam)
            .compatible(&["pci-host-ecam-generic"])
            .text("device_type", "pci")
            .reg(&[ecam])
            .number("#address-cells", 3)
            .number("#size-cells", 2)
            .numbers("bus-range", &[0, 0])
            .numbers("ranges", &ranges)
            .flag("dma-coherent")
            .number("#interrupt-cells", 1)
            .numbers("interrupt-map-mask", &[DEVICE_MASK, 0, 0, 7])
            .numbers("interrupt-map", &self.interrupt_map());
        let node = if self.translated.is_empty() { node } else { node.numbers("iommu-map", &self.iommu_map()) };
        match self.messages {
            Some(MessageTarget::Parent(phandle)) => node.number("msi-parent", phandle),
            Some(MessageTarget::Translated(phandle)) => node.numbers("msi-map", &[0, phandle, 0, 0x1_0000]),
            None => node,
        }
    }

    /// Linux `pci/pci-iommu.txt`: requester, SMMU, stream, count. Who is not named sends past the SMMU.
    fn iommu_map(&self) -> Vec<u32> {
        let entry = |slot: &PciSlot| [slot.number().into(), Node::SMMU, slot.number().into(), 1];
        self.translated.iter().flat_map(entry).collect()
    }

    /// Of four devices the four pins each; further ones repeat that.
    fn interrupt_map(&self) -> Vec<u32> {
        let pins = (0..4_u8).flat_map(|device| (1..=4_u8).map(move |pin| (device, pin)));
        let entry = |(device, pin)| {
            let line = self.first_line.0.saturating_add(PciSlot::swizzle(device, pin).into());
            let number = line.saturating_sub(IntId::FIRST_SPI);
            // A function and its pin; the controller, an address of two cells there, an input.
            [u32::from(device) << 11, 0, 0, pin.into(), Node::INTERRUPT_CONTROLLER, 0, 0, SPI, number, LEVEL_HIGH]
        };
        pins.flat_map(entry).collect()
    }
}

/// A window, at the same addresses on the bus as off it.
fn cells(window: &Range<Ipa>) -> [u32; 7] {
    let code = if window.end().0 <= END_OF_32_BITS { MEMORY_32 } else { MEMORY_64 };
    let (start, length) = (window.start().0, window.length());
    [code, high(start), low(start), high(start), low(start), high(length), low(length)]
}

const fn low(value: u64) -> u32 {
    let [a, b, c, d, ..] = value.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

const fn high(value: u64) -> u32 {
    low(value >> 32)
}

impl Vdev for HostBridge {
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        self.endpoint.read(offset, size, context)
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        self.endpoint.write(offset, size, value, context)
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        self.endpoint.control(event, context)
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        self.endpoint.wake(wake, context);
    }

    fn describe(&self, parent: &mut Node) {
        parent.add(self.bridge.node());
    }
}

/// PCI, 3.3.3.1 and 6.1: a transaction that nobody claims reads all ones, and what it writes is gone.
impl Function for Nobody {
    fn read(&mut self, _: Region, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(u64::MAX)
    }

    fn write(&mut self, _: Region, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        Ok(())
    }

    fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        Ok(())
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}
}

#[cfg(test)]
mod tests;
