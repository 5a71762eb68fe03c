//! Capabilities.
//!
//! Answers for: both lists of them (PCI Express Base Specification, 7.5.1.1.11, 7.6.3), walked with an end whatever they say, and what
//! is used of each capability. Does not answer for: what is done with them.

use crate::{
    Bar, Flaw, Space, Trouble, flaw,
    registers::{self, access_control, advanced, express, id, message, sriov},
};
use alloc::vec::Vec;
use arrayvec::ArrayVec;

/// What a function of PCI Express is (7.5.3.2, Device/Port Type).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PortKind {
    /// An endpoint behind a port.
    Endpoint,
    /// A port of the host.
    RootPort,
    /// A switch's port towards the host.
    UpstreamPort,
    /// A switch's port away from the host.
    DownstreamPort,
    /// A bridge between PCI Express and conventional PCI, of either direction.
    ConventionalBridge,
    /// A part of the host.
    Integrated,
    /// Something else.
    Other(u8),
}

impl PortKind {
    const fn of(kind: u8) -> Self {
        match kind {
            0 | 1 => Self::Endpoint,
            4 => Self::RootPort,
            5 => Self::UpstreamPort,
            6 => Self::DownstreamPort,
            7 | 8 => Self::ConventionalBridge,
            9 | 10 => Self::Integrated,
            other => Self::Other(other),
        }
    }

    /// Whether a link is behind it, with one device (7.3.1).
    #[must_use]
    pub const fn has_link_below(&self) -> bool {
        matches!(self, Self::RootPort | Self::DownstreamPort)
    }
}

/// PCI Express (7.5.3).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Express {
    /// Where it is.
    pub offset: u16,
    /// What the function is.
    pub kind: PortKind,
    /// Whether it can be reset by itself.
    pub has_flr: bool,
    /// Whether, as a port, it can let a device have more than eight functions.
    pub forwards_ari: bool,
    /// Device Control and Device Control 2 as firmware has left them: what the path to the function agrees with. A reset takes them away.
    pub(crate) controls: (u16, Option<u16>),
}

/// MSI (7.7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msi {
    /// Where it is.
    pub offset: u16,
    /// How many messages it can send: 1 to 32, a power of two.
    pub vectors: u8,
    /// Whether its address has 64 bits.
    pub is_wide: bool,
    /// Whether messages can be masked one by one.
    pub has_masks: bool,
}

/// A part of a BAR.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Part {
    /// Which BAR; the function has it, and it is memory.
    pub bar: u8,
    /// Where in it, in bytes; all of the part is inside.
    pub offset: u32,
}

/// MSI-X (7.7.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Msix {
    /// Where it is.
    pub offset: u16,
    /// How many messages it can send: 1 to 2048.
    pub vectors: u16,
    /// Its table: 16 bytes for each.
    pub table: Part,
    /// Which of them are pending: a bit for each, in words of 64.
    pub pending: Part,
}

/// Power management (7.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PowerManagement {
    /// Where it is.
    pub offset: u16,
}

/// Advanced Features of conventional PCI.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AdvancedFeatures {
    /// Where it is.
    pub offset: u16,
    /// Whether it can be reset by itself, and says what is pending.
    pub has_flr: bool,
}

/// Access Control Services (7.7.7), as they are once all that separate functions have been switched on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessControl {
    /// Where it is.
    pub offset: u16,
    /// Whether nothing that comes through reaches another function without having been upstream.
    pub separates: bool,
}

/// Single Root I/O Virtualization (9.3.3).
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Sriov {
    /// Where it is.
    pub offset: u16,
    /// How many virtual functions there can be; at least one.
    pub total: u16,
    /// Their Device ID.
    pub device: u16,
    /// Of each BAR one function's share. The first function's is at `place`, the others' follow.
    pub bars: ArrayVec<Bar, 6>,
}

/// How large BARs are that can be resized (7.8.6), the function's own and those of its virtual ones ("VF Resizable BAR": the same words). A reset
/// takes that away.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Resizable {
    /// Where the control words are, and what they say.
    controls: ArrayVec<(u16, u32), 12>,
}

/// What a function has, of what is used.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Capabilities {
    /// PCI Express.
    pub express: Option<Express>,
    /// MSI.
    pub msi: Option<Msi>,
    /// MSI-X. Only if its tables are where there is a BAR.
    pub msix: Option<Msix>,
    /// Power management.
    pub power: Option<PowerManagement>,
    /// Advanced Features.
    pub advanced: Option<AdvancedFeatures>,
    /// Access Control Services.
    pub access_control: Option<AccessControl>,
    /// Where Alternative Routing-ID Interpretation is (7.8.7).
    pub ari: Option<u16>,
    /// Where Address Translation Services are (10.5.1): never switched on.
    pub ats: Option<u16>,
    /// SR-IOV.
    pub sriov: Option<Sriov>,
    /// Resizable BAR, and VF Resizable BAR.
    pub resizable: Resizable,
}

/// First of the extended capabilities; configuration space ends at 4096 (7.6.1).
const EXTENDED: u16 = 0x100;
const LAST_WORD: u16 = 0xffc;

/// Calls `each` with number and offset of all capabilities of conventional configuration space. Says whether the list has an end.
fn walk(space: Space<'_>, mut each: impl FnMut(u8, u16)) -> bool {
    if space.half(registers::STATUS) & registers::STATUS_CAPABILITIES == 0 {
        return true;
    }
    let mut seen: u64 = 0;
    // The lower two bits are reserved.
    let mut at = space.byte(registers::CAPABILITIES_POINTER) & !3;
    while at != 0 {
        let bit = 1 << (at >> 2);
        if at < 0x40 || seen & bit != 0 {
            return false;
        }
        seen |= bit;
        let offset = u16::from(at);
        each(space.byte(offset), offset);
        at = space.byte(offset.saturating_add(1)) & !3;
    }
    true
}

/// The same for extended configuration space.
fn walk_extended(space: Space<'_>, mut each: impl FnMut(u16, u16)) -> bool {
    let mut seen = [0_u64; 16];
    let mut at = EXTENDED;
    loop {
        let header = space.word(at);
        // No list: zero, or nobody there.
        if at == EXTENDED && (header == 0 || header == u32::MAX) {
            return true;
        }
        let Some(word) = seen.get_mut(usize::from(at >> 8)) else { return false };
        let bit = 1 << (at >> 2 & 63);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        let [low, high, version_next, next] = header.to_le_bytes();
        each(u16::from_le_bytes([low, high]), at);
        at = u16::from_le_bytes([version_next, next]) >> 4 & !3;
        match at {
            0 => return true,
            EXTENDED.. => {}
            _ => return false,
        }
    }
}

impl Capabilities {
    /// Those of the function in `space`, whose BARs are `bars`. Switches off what interrupts, and on what separates.
    pub(crate) fn find(space: Space<'_>, bars: &[Bar], troubles: &mut Vec<Trouble>) -> Self {
        let mut found = Self::default();
        let has_end = walk(space, |capability, at| match capability {
            id::EXPRESS => found.express = found.express.or(Some(Express::read(space, at))),
            id::MSI => found.msi = found.msi.or(Some(Msi::read(space, at))),
            id::MSI_X if found.msix.is_none() => match Msix::read(space, at, bars) {
                Some(msix) => found.msix = Some(msix),
                None => flaw::note(troubles, space.address, Flaw::MsixOutside),
            },
            id::POWER_MANAGEMENT => found.power = found.power.or(Some(PowerManagement { offset: at })),
            id::ADVANCED_FEATURES => found.advanced = found.advanced.or(Some(AdvancedFeatures::read(space, at))),
            _ => {}
        });
        // What is not PCI Express has no extended capabilities (7.6.1).
        let has_extended_end = found.express.is_none() || found.find_extended(space, troubles);
        if !(has_end && has_extended_end) {
            flaw::note(troubles, space.address, Flaw::Capabilities);
        }
        found
    }

    fn find_extended(&mut self, space: Space<'_>, troubles: &mut Vec<Trouble>) -> bool {
        walk_extended(space, |capability, at| match capability {
            id::ACCESS_CONTROL => self.access_control = self.access_control.or(Some(AccessControl::enable(space, at))),
            id::ARI => self.ari = self.ari.or(Some(at)),
            id::ATS => self.ats = self.ats.or(Some(at)),
            id::SRIOV if self.sriov.is_none() => self.sriov = Sriov::read(space, at, troubles),
            id::RESIZABLE | id::VIRTUAL_RESIZABLE => self.resizable.note(space, at),
            _ => {}
        })
    }
}

impl Express {
    fn read(space: Space<'_>, at: u16) -> Self {
        let capabilities = space.byte(at.saturating_add(express::CAPABILITIES));
        let version = capabilities & 0xf;
        let device = space.word(at.saturating_add(express::DEVICE_CAPABILITIES));
        // Version 1 has no second set of registers.
        let second = |register: u16| (version >= 2).then(|| space.half(at.saturating_add(register)));
        let control = space.half(at.saturating_add(express::DEVICE_CONTROL)) & !express::INITIATE_FLR;
        Self {
            offset: at,
            kind: PortKind::of(space.byte(at.saturating_add(express::CAPABILITIES)) >> 4),
            has_flr: device & express::FLR_CAPABLE != 0,
            forwards_ari: second(express::DEVICE_CAPABILITIES_2)
                .is_some_and(|says| says & express::ARI_FORWARDING != 0),
            controls: (control, second(express::DEVICE_CONTROL_2)),
        }
    }

    /// The controls are again what they were.
    pub(crate) fn restore(&self, space: Space<'_>) {
        let (first, second) = self.controls;
        space.set_half(self.offset.saturating_add(express::DEVICE_CONTROL), first);
        if let Some(second) = second {
            space.set_half(self.offset.saturating_add(express::DEVICE_CONTROL_2), second);
        }
    }

    /// As a port: a device behind it may have more than eight functions (6.13).
    pub(crate) fn forward_ari(&mut self, space: Space<'_>) {
        self.controls.1 = self.controls.1.map(|control| control | express::ARI_FORWARDING);
        self.restore(space);
    }
}

impl Msi {
    fn read(space: Space<'_>, at: u16) -> Self {
        let control = at.saturating_add(message::CONTROL);
        let says = space.half(control);
        space.set_half(control, says & !message::MSI_ENABLE);
        let vectors = match says >> 1 & 7 {
            many @ 1..=5 => 1 << many,
            // 6 and 7 are reserved.
            _ => 1,
        };
        Self { offset: at, vectors, is_wide: says & 1 << 7 != 0, has_masks: says & 1 << 8 != 0 }
    }
}

impl Msix {
    fn read(space: Space<'_>, at: u16, bars: &[Bar]) -> Option<Self> {
        let control = at.saturating_add(message::CONTROL);
        let says = space.half(control);
        space.set_half(control, says & !message::MSIX_ENABLE | message::MSIX_FUNCTION_MASK);
        let vectors = (says & 0x7ff).saturating_add(1);
        let part = |register: u16, length: u64| {
            let says = space.word(at.saturating_add(register));
            let (which, offset) = (says & 7, says & !7);
            let bar = bars.iter().find(|bar| u32::from(bar.index) == which && !bar.kind.is_io())?;
            let is_inside = u64::from(offset).saturating_add(length) <= bar.size;
            is_inside.then_some(Part { bar: bar.index, offset })
        };
        let table = part(message::TABLE, u64::from(vectors).saturating_mul(16))?;
        let pending = part(message::PENDING, u64::from(vectors).div_ceil(64).saturating_mul(8))?;
        Some(Self { offset: at, vectors, table, pending })
    }
}

impl AdvancedFeatures {
    fn read(space: Space<'_>, at: u16) -> Self {
        let both = advanced::TRANSACTIONS_PENDING_CAPABLE | advanced::FLR_CAPABLE;
        let says = space.byte(at.saturating_add(advanced::CAPABILITIES));
        Self { offset: at, has_flr: says & both == both }
    }
}

impl AccessControl {
    /// Switches on what sends all requests upstream: the four that a port needs for that (7.7.7.2; 6.12.1.1). What a function
    /// without such a capability bit does not do, it need not be kept from.
    fn enable(space: Space<'_>, at: u16) -> Self {
        use access_control::{COMPLETION_REDIRECT, REQUEST_REDIRECT, SOURCE_VALIDATION, UPSTREAM_FORWARDING};
        const ALL: u16 = SOURCE_VALIDATION | REQUEST_REDIRECT | COMPLETION_REDIRECT | UPSTREAM_FORWARDING;
        let control = at.saturating_add(access_control::CONTROL);
        let wanted = space.half(at.saturating_add(access_control::CAPABILITY)) & ALL;
        space.set_half(control, wanted);
        let separates = space.half(control) & wanted == wanted;
        Self { offset: at, separates }
    }

    /// The same after a reset.
    pub(crate) fn restore(&self, space: Space<'_>) {
        let _ = Self::enable(space, self.offset);
    }
}

impl Resizable {
    /// Those of the capability at `at`: the first control word says how many there are (7.8.6.3).
    fn note(&mut self, space: Space<'_>, at: u16) {
        let controls = (at.saturating_add(8)..=LAST_WORD).step_by(8);
        let mut left = 1;
        for (n, control) in controls.enumerate().take(6) {
            let says = space.word(control);
            if n == 0 {
                left = says >> 5 & 7;
            }
            if left == 0 {
                break;
            }
            left = left.saturating_sub(1);
            // Six BARs of each kind at most.
            let _ = self.controls.try_push((control, says));
        }
    }

    /// The sizes are again what they were. Says whether all are. The function does not decode meanwhile.
    pub(crate) fn restore(&self, space: Space<'_>) -> bool {
        self.controls.iter().for_each(|(control, said)| space.set_word(*control, *said));
        self.controls.iter().all(|(control, said)| space.word(*control) == *said)
    }
}

impl Sriov {
    fn read(space: Space<'_>, at: u16, troubles: &mut Vec<Trouble>) -> Option<Self> {
        let register = |offset: u16| at.saturating_add(offset);
        // No virtual function is there, and decodes: all may change (9.3.3.3).
        space.set_half(register(sriov::CONTROL), 0);
        let total = space.half(register(sriov::TOTAL));
        // Pages of 4 KiB are bit 0; every function has them (9.3.3.13).
        if total == 0 || space.word(register(sriov::SUPPORTED_PAGE_SIZES)) & 1 == 0 {
            return None;
        }
        space.set_word(register(sriov::SYSTEM_PAGE_SIZE), 1);
        let device = space.half(register(sriov::DEVICE));
        Some(Self { offset: at, total, device, bars: crate::bar::size_virtual(space, at, troubles) })
    }
}
