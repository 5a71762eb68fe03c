//! Where a guest finds its interrupt controller.
//!
//! Answers for: the windows of its registers, as configured and as they are on this host. Does not answer for: the registers
//! (`vgic`), the device tree's node (`tree`).

use types::{Ipa, Range};
use vgic::Vgic;

/// For those who have to name one.
pub use vgic::{MessageFrame, Version};

/// Size of the CPU interface of a GICv2: GICC, with `GICC_DIR` in the second page.
pub const CPU_INTERFACE_SIZE: u64 = 0x2000;

/// An interrupt translation service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Its {
    /// Where its frames are.
    pub at: Ipa,
    /// How many LPIs there are to be at least.
    pub lpis: u32,
}

/// What a configuration says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controller {
    /// The architecture; `None`: what the host has.
    pub version: Option<Version>,
    /// GICD.
    pub distributor: Ipa,
    /// The first GICR of a GICv3.
    pub redistributors: Ipa,
    /// GICC of a GICv2.
    pub cpu_interface: Ipa,
    /// Where a GICv2 takes messages, if it is to.
    pub messages: Option<MessageFrame>,
    /// The ITS of a GICv3, if it is to have one.
    pub its: Option<Its>,
}

/// The windows of its registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// The architecture.
    pub version: Version,
    /// GICD.
    pub distributor: Range<Ipa>,
    /// All GICRs of a GICv3, one behind the other; GICC of a GICv2.
    pub interface: Range<Ipa>,
    /// Where a GICv2 takes messages, if it does.
    pub messages: Option<MessageFrame>,
    /// The ITS of a GICv3, if it has one: both frames.
    pub its: Option<Range<Ipa>>,
}

impl Its {
    /// Its frames. `None` if they run over the end of the address space.
    fn region(self) -> Option<Range<Ipa>> {
        Range::new(self.at, Vgic::ITS_SIZE)
    }
}

impl Controller {
    /// When the configuration says nothing: as on QEMU's virt machine, so that guests made for it find it where they expect it.
    pub const DEFAULT: Self = Self {
        version: None,
        distributor: Ipa(0x0800_0000),
        redistributors: Ipa(0x080a_0000),
        cpu_interface: Ipa(0x0801_0000),
        messages: None,
        its: None,
    };

    /// On a host with this architecture. `None` if the windows run over the end of the address space.
    #[must_use]
    pub fn frames(&self, version: Version, vcpus: usize) -> Option<Frames> {
        Some(Frames {
            version,
            distributor: Range::new(self.distributor, version.distributor_size())?,
            interface: self.interface(version, vcpus)?,
            messages: self.messages.filter(|_| version == Version::V2),
            its: match self.its.filter(|_| version == Version::V3) {
                Some(its) => Some(its.region()?),
                None => None,
            },
        })
    }

    fn interface(&self, version: Version, vcpus: usize) -> Option<Range<Ipa>> {
        match version {
            Version::V2 => Range::new(self.cpu_interface, CPU_INTERFACE_SIZE),
            Version::V3 => {
                let size = Vgic::REDISTRIBUTOR_SIZE.checked_mul(u64::try_from(vcpus).ok()?)?;
                Range::new(self.redistributors, size)
            }
        }
    }

    /// All that it may have on any host that the configuration is for, by name. `None` for what runs over the end of the
    /// address space.
    pub fn claims(&self, vcpus: usize) -> impl Iterator<Item = (&'static str, Option<Range<Ipa>>)> {
        let possible = |version| self.version.is_none_or(|wanted| wanted == version);
        let size = if possible(Version::V3) { Version::V3 } else { Version::V2 }.distributor_size();
        let distributor = ("the interrupt controller's distributor", Range::new(self.distributor, size));
        let interface = |version, name| possible(version).then(|| (name, self.interface(version, vcpus)));
        [
            Some(distributor),
            interface(Version::V3, "the interrupt controller's redistributors"),
            interface(Version::V2, "the interrupt controller's CPU interface"),
            self.messages.map(|frame| ("the interrupt controller's frame for messages", Some(frame.region()))),
            self.its.map(|its| ("the interrupt translation service", its.region())),
        ]
        .into_iter()
        .flatten()
    }
}
