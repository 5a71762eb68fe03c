//! Which capabilities of a function of the machine a guest gets to see, and what of them.
//!
//! Answers for: going through the function's own list (PCI, 6.7), which cannot be trusted to end, and what of each entry is shown, can be
//! written, or is the function's own at every look. Does not answer for: what follows from a write ([`super::Passed`]), and the list of PCI
//! Express ([`super::extended`]).
//!
//! Everything is hidden but what is listed here, and nothing can be written but what is said here: what is not known cannot be judged.
//! A capability that is shown is where the function has it.

use super::extended::EXTENDED;
use super::messages::Msi;
use super::space::Overlay;
use crate::config::{CAPABILITIES, FIRST_CAPABILITY, HAS_CAPABILITIES, STATUS};
use crate::function::Capability;
use crate::{ConfigSpace, Flaw};
use alloc::vec;
use alloc::vec::Vec;
use types::AccessSize;
use vdev::HostFunction;

// Capability IDs ("PCI Code and ID Assignment Specification", 2).
const POWER: u8 = 0x01;
const MSI: u8 = 0x05;
const VENDOR: u8 = 0x09;
const EXPRESS: u8 = 0x10;
const MSIX: u8 = crate::msix::ID;
const SATA: u8 = 0x12;
const VITAL_DATA: u8 = 0x03;
const ADVANCED: u8 = 0x13;

/// Most entries of a list, each of four bytes at least.
const MOST: usize = 48;

/// PCI Express, 7.5.3.3, "Device Capabilities": bit 28, "Function Level Reset Capability".
const CAN_BE_RESET: u32 = 1 << 28;
/// PCI Express, 7.5.3.4: "Device Control", and what of it the guest's word counts for; 7.5.3.5: "Device Status".
pub(super) const DEVICE_CONTROL: u16 = 8;
pub(super) const DEVICE_STATUS: u16 = 10;
/// Bit 15, "Initiate Function Level Reset".
pub(super) const INITIATE_RESET: u16 = 1 << 15;
/// Bits 3 to 0: which errors are told of. Nobody is told, since there is no root port.
const REPORTING: u16 = 0xf;
/// Bit 4, "Enable Relaxed Ordering".
pub(super) const RELAXED_ORDERING: u16 = 1 << 4;
/// Bits 14 to 12, "Max_Read_Request_Size".
pub(super) const READ_REQUEST: u16 = 7 << 12;
/// Bits 3 to 0 of Device Status: written as one to be cleared.
pub(super) const DETECTED: u16 = 0xf;

/// What has been found of the function.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) express: Option<u16>,
    pub(super) msi: Option<Msi>,
    /// Where the capability is, and what is in it: message control, table, pending bits.
    pub(super) msix: Option<(u16, u16, u32, u32)>,
}

/// What messages there can be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Messages {
    pub(super) most: u16,
    pub(super) can_be_reset: bool,
}

fn byte(function: &dyn HostFunction, at: u16) -> u8 {
    u8::try_from(function.configuration(at, AccessSize::Byte, None) & 0xff).unwrap_or(0)
}

fn halfword(function: &dyn HostFunction, at: u16) -> u16 {
    u16::try_from(function.configuration(at, AccessSize::Halfword, None) & 0xffff).unwrap_or(0)
}

fn word(function: &dyn HostFunction, at: u16) -> u32 {
    function.configuration(at, AccessSize::Word, None)
}

/// The function's own list: IDs, and where they are. Ends wherever it says nonsense.
fn list(function: &dyn HostFunction) -> Vec<(u8, u16)> {
    let mut found: Vec<(u8, u16)> = Vec::new();
    if u64::from(halfword(function, STATUS)) & HAS_CAPABILITIES == 0 {
        return found;
    }
    let mut pointer = CAPABILITIES;
    for _ in 0..MOST {
        let at = u16::from(byte(function, pointer) & !3);
        if at < FIRST_CAPABILITY || found.iter().any(|(_, other)| *other == at) {
            break;
        }
        found.push((byte(function, at), at));
        pointer = at.saturating_add(1);
    }
    found
}

/// Bytes of a capability, as far as its kind says so.
fn length(function: &dyn HostFunction, id: u8, at: u16) -> Option<u16> {
    Some(match id {
        POWER | VITAL_DATA | SATA => 8,
        ADVANCED => 6,
        MSIX => 12,
        MSI => Msi::new(at, halfword(function, at.saturating_add(2)), 1).length(),
        VENDOR => u16::from(byte(function, at.saturating_add(2))).max(3),
        // 7.5.3: with version 1 up to "Link Status", later up to "Slot Status 2".
        EXPRESS if halfword(function, at.saturating_add(2)) & 0xf < 2 => 0x14,
        EXPRESS => 0x3c,
        _ => return None,
    })
}

/// Puts into `space` and `overlay` what the guest is to find of the function's capabilities.
pub(super) fn show(
    function: &dyn HostFunction,
    messages: Messages,
    space: &mut ConfigSpace,
    overlay: &mut Overlay,
) -> Result<Found, Flaw> {
    let mut found = Found::default();
    let list = list(function);
    overlay.see_all_behind(FIRST_CAPABILITY);
    for (id, at) in &list {
        // One whose length is not known has all up to the next one.
        let next = list.iter().map(|(_, other)| *other).filter(|other| other > at).min().unwrap_or(EXTENDED);
        let length = length(function, *id, *at).unwrap_or_else(|| next.saturating_sub(*at));
        overlay.hide(*at, length);
    }
    let mut taken: Vec<(u8, u16, u16)> = Vec::new();
    for (id, at) in list {
        let length = length(function, id, at).unwrap_or(0);
        if usize::from(at.saturating_add(length)) > crate::config::SIZE {
            continue;
        }
        let end = at.saturating_add(length).checked_next_multiple_of(4).unwrap_or(u16::MAX);
        // One inside another, or of a kind that has been, is no list's.
        if taken.iter().any(|(other, start, before)| *other == id && id != VENDOR || at < *before && *start < end) {
            continue;
        }
        let Some(capability) = shown(function, (id, at, length), messages, overlay, &mut found) else { continue };
        space.add_capability_at(at, &capability)?;
        taken.push((id, at, end));
    }
    Ok(found)
}

fn shown(
    function: &dyn HostFunction,
    (id, at, length): (u8, u16, u16),
    messages: Messages,
    overlay: &mut Overlay,
    found: &mut Found,
) -> Option<Capability> {
    let body = at.saturating_add(2);
    let control = halfword(function, body);
    let capability = |body: Vec<u8>, writable: Vec<u8>| Capability { id, body, writable, is_watched: false };
    Some(match id {
        // PCI Power Management, 3.2.3: version and "DSI", no other states than D0 and D3hot, no events. 3.2.4: the state is a word between the
        // guest and us: the function stays in D0, where its registers answer whoever reaches them. "No_Soft_Reset": nothing is lost.
        POWER => capability(
            [control & 0x0027, 1 << 3].into_iter().flat_map(u16::to_le_bytes).chain([0, 0]).collect(),
            vec![0, 0, 0b11],
        ),
        VENDOR => {
            overlay.see(body, length.saturating_sub(2));
            capability(vec![0; usize::from(length.saturating_sub(2))], Vec::new())
        }
        SATA => {
            let bytes = (body..at.saturating_add(length)).map(|at| byte(function, at)).collect();
            capability(bytes, Vec::new())
        }
        EXPRESS => {
            found.express = Some(at);
            overlay.see(at.saturating_add(DEVICE_CONTROL).saturating_add(1), 3);
            overlay.see_bits(at.saturating_add(DEVICE_CONTROL), 0xf0);
            express(function, at, length, messages.can_be_reset, capability)
        }
        MSI => {
            let msi = Msi::new(at, control, messages.most).filter_usable(messages.most)?;
            // Masks and pending bits are the function's.
            if let Some((masks, length)) = msi.masks() {
                overlay.see(masks, length);
            }
            let (body, writable) = msi.layout();
            found.msi = Some(msi);
            capability(body, writable)
        }
        MSIX if messages.most > 0 => {
            let (table, pending) = (word(function, at.saturating_add(4)), word(function, at.saturating_add(8)));
            found.msix = Some((at, control, table, pending));
            let last = (control & 0x7ff).min(messages.most.saturating_sub(1));
            let body = last.to_le_bytes().into_iter().chain(table.to_le_bytes()).chain(pending.to_le_bytes());
            capability(body.collect(), (crate::msix::ENABLE | crate::msix::FUNCTION_MASK).to_le_bytes().to_vec())
        }
        _ => return None,
    })
}

/// Whether the guest finds that the function has FLR: else the bit that begins it is hardwired to zero (PCI Express, 7.5.3.4), and others may be
/// reset along with it. `register` is "Device Control".
pub(super) fn shows_reset(space: &ConfigSpace, register: u16) -> bool {
    let capabilities = register.saturating_sub(DEVICE_CONTROL).saturating_add(4);
    space.read(capabilities, AccessSize::Word) & u64::from(CAN_BE_RESET) != 0
}

/// PCI Express, 7.5.3. The guest's bus has neither ports nor links, so the function is one that is integrated into it, and what is about
/// links, slots and what comes later ("Device Capabilities 2" and so on) reads zero.
fn express(
    function: &dyn HostFunction,
    at: u16,
    length: u16,
    can_be_reset: bool,
    capability: impl FnOnce(Vec<u8>, Vec<u8>) -> Capability,
) -> Capability {
    /// Bits 7 to 4, "Device/Port Type", and "Root Complex Integrated Endpoint"; bit 8, "Slot Implemented".
    const TYPE: u16 = 0xf0;
    const INTEGRATED: u16 = 0x90;
    const SLOT: u16 = 1 << 8;
    let capabilities = halfword(function, at.saturating_add(2)) & !(TYPE | SLOT) | INTEGRATED;
    let device = word(function, at.saturating_add(4));
    let device = if can_be_reset { device } else { device & !CAN_BE_RESET };
    let mut body: Vec<u8> = capabilities.to_le_bytes().into_iter().chain(device.to_le_bytes()).collect();
    body.resize(usize::from(length.saturating_sub(2)), 0);
    let mut writable = vec![0; 6];
    writable.extend(REPORTING.to_le_bytes());
    capability(body, writable)
}
