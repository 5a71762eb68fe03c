//! Messages: an interrupt by a store to an address.
//!
//! Answers for: where they go, and the frame that takes them beside a GICv2, whose distributor does not. Does not answer for:
//! what a message does to the interrupt (`shared`).
//!
//! The frame is that of GICv2m (Arm DEN 0029, Server Base System Architecture, appendix "GICv2m Architecture"): edge-triggered
//! SPIs of one range, each raised by a store of its INTID.

use crate::Vgic;
use crate::v3::{CLRSPI_NSR, SETSPI_NSR};
use crate::word::low;
use types::{AccessSize, IntId, Ipa, PAGE_SIZE, Range, VcpuSet};

/// `MSI_TYPER`: the first SPI, and how many.
const TYPER: u64 = 0x008;
const TYPER_BASE_SHIFT: u32 = 16;
/// `MSI_SETSPI_NS`: where a GICv3 has `GICD_SETSPI_NSR`.
const SETSPI_NS: u64 = SETSPI_NSR;
/// `MSI_IIDR`.
const IIDR: u64 = 0xfcc;

/// Where messages are taken.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Doorbell {
    /// In the distributor, which is there: `GICD_SETSPI_NSR` and `GICD_CLRSPI_NSR`.
    Distributor(Ipa),
    /// In a frame of its own.
    Frame(MessageFrame),
}

/// A frame for messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MessageFrame {
    region: Range<Ipa>,
    first: IntId,
    count: u32,
}

impl MessageFrame {
    /// A page at `at`, for `count` SPIs from `first` on. `None` if these are not all SPIs, or none, or the page runs over the end
    /// of the address space.
    #[must_use]
    pub fn new(at: Ipa, first: IntId, count: u32) -> Option<Self> {
        let last = IntId(first.0.checked_add(count.checked_sub(1)?)?);
        let region = Range::new(at, PAGE_SIZE)?;
        (first.is_spi() && last.is_spi()).then_some(Self { region, first, count })
    }

    /// Its page.
    #[must_use]
    pub fn region(&self) -> Range<Ipa> {
        self.region
    }

    /// The first SPI, and how many there are.
    #[must_use]
    pub fn interrupts(&self) -> (IntId, u32) {
        (self.first, self.count)
    }

    /// Whether it can raise this one.
    #[must_use]
    pub fn has(&self, intid: IntId) -> bool {
        intid.0.checked_sub(self.first.0).is_some_and(|number| number < self.count)
    }
}

impl Vgic {
    /// The frame for messages, if there is one and `at` is in it, and the offset.
    #[must_use]
    pub fn message_frame(&self, at: Ipa) -> Option<(MessageFrame, u64)> {
        match self.messages {
            Some(Doorbell::Frame(frame)) if frame.region.contains(at) => {
                Some((frame, at.0.wrapping_sub(frame.region.start().0)))
            }
            _ => None,
        }
    }

    /// Makes an SPI pending, once.
    fn pulse(&self, intid: IntId) -> VcpuSet {
        let mut shared = self.shared.lock();
        let mut signals = self.signals(None);
        shared.pulse(intid.0, &mut signals);
        signals.kick
    }

    /// A message of a device, or of whoever stores `data` at `address`. One to where none are taken is ignored.
    pub(crate) fn take_message(&self, address: Ipa, data: u32) -> VcpuSet {
        match self.messages {
            Some(Doorbell::Distributor(distributor)) => match address.0.wrapping_sub(distributor.0) {
                offset @ (SETSPI_NSR | CLRSPI_NSR) => self.write_shared(offset, AccessSize::Word, data.into()),
                _ => VcpuSet::EMPTY,
            },
            Some(Doorbell::Frame(frame)) if frame.region.contains(address) => {
                frame.write(self, address.0.wrapping_sub(frame.region.start().0), AccessSize::Word, data.into())
            }
            _ => VcpuSet::EMPTY,
        }
    }
}

impl MessageFrame {
    /// A guest's load from the frame. All but words read as zero.
    #[must_use]
    pub fn read(&self, offset: u64, size: AccessSize) -> u64 {
        match (offset, size) {
            (TYPER, AccessSize::Word) => u64::from(self.first.0.wrapping_shl(TYPER_BASE_SHIFT) | self.count),
            (IIDR, AccessSize::Word) => crate::v3::IIDR.into(),
            _ => 0,
        }
    }

    /// A store to the frame. Returns the vCPUs to kick. An INTID that is not its own is ignored, and so is all but a word or a
    /// halfword in `MSI_SETSPI_NS`.
    #[must_use]
    pub fn write(&self, gic: &Vgic, offset: u64, size: AccessSize, value: u64) -> VcpuSet {
        let (fits, intid) = (matches!(size, AccessSize::Word | AccessSize::Halfword), IntId(low(value)));
        if offset == SETSPI_NS && fits && self.has(intid) { gic.pulse(intid) } else { VcpuSet::EMPTY }
    }
}
