//! Functions that a function promises.
//!
//! Answers for: making the virtual functions of SR-IOV (PCI Express, chapter 9), and where they are. Does not answer for: who wants them.
//! Only those on the bus of their physical function: others would want bus numbers that have not been kept for them.

use crate::{
    Bar, Configuration, Function, Place, Space, bar, group,
    registers::{self, sriov},
    scan,
};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::fmt;
use pci_types::PciAddress;
use types::Pa;

/// After VF Enable nobody looks at them for so long, in microseconds (9.3.3.3.1).
pub const VIRTUAL_DELAY: u64 = 100_000;

/// Why there are no virtual functions.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VirtualError {
    /// The function makes none.
    NoSriov,
    /// It makes so many at most.
    TooMany(u16),
    /// Their BARs have no addresses.
    NoAddresses,
    /// They would not be on its bus, or where another function is.
    NoPlace,
    /// It does not do it.
    Refused,
}

impl fmt::Display for VirtualError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSriov => f.write_str("it has no virtual functions"),
            Self::TooMany(total) => write!(f, "it has {total} virtual functions at most, and one at least"),
            Self::NoAddresses => f.write_str("there are no addresses for its virtual functions"),
            Self::NoPlace => f.write_str("its virtual functions would need bus numbers that it has not"),
            Self::Refused => f.write_str("it does not make its virtual functions"),
        }
    }
}

/// Makes the first `count` virtual functions of `physical`, which has none; all there are, are `functions`. They are there after
/// [`VIRTUAL_DELAY`], at the addresses that are returned.
///
/// # Errors
/// If they cannot be made: then there are none.
pub fn make(
    access: &dyn Configuration,
    functions: &[Function],
    physical: &Function,
    count: u16,
) -> Result<Vec<PciAddress>, VirtualError> {
    let own = physical.capabilities.sriov.as_ref().ok_or(VirtualError::NoSriov)?;
    if count == 0 || count > own.total {
        return Err(VirtualError::TooMany(own.total));
    }
    if own.bars.iter().any(|bar| bar.place.is_none()) {
        return Err(VirtualError::NoAddresses);
    }
    let space = Space::new(access, physical.address);
    let register = |offset: u16| own.offset.saturating_add(offset);
    // Their distance may depend on how many they are (9.3.3.9), and whether device numbers count (9.3.3.3.5).
    let hierarchy =
        if physical.capabilities.ari.is_some() && physical.above.is_some() { sriov::ARI_CAPABLE_HIERARCHY } else { 0 };
    space.set_half(register(sriov::CONTROL), hierarchy);
    space.set_half(register(sriov::NUMBER), count);
    let first = space.half(register(sriov::FIRST_OFFSET));
    let stride = space.half(register(sriov::STRIDE));
    let mut addresses = Vec::new();
    for n in 0..count {
        let is_free = |address: &PciAddress| functions.iter().all(|function| function.address != *address);
        let address =
            address(physical.address, first, stride, n).filter(is_free).filter(|address| !addresses.contains(address));
        addresses.push(address.ok_or(VirtualError::NoPlace)?);
    }
    if bar::write_all(space, register(sriov::BAR0), &own.bars).is_err() {
        return Err(VirtualError::NoAddresses);
    }
    let control = hierarchy | sriov::ENABLE | sriov::MEMORY;
    space.set_half(register(sriov::CONTROL), control);
    if space.half(register(sriov::CONTROL)) & sriov::ENABLE == 0 {
        return Err(VirtualError::Refused);
    }
    Ok(addresses)
}

/// The `n`-th one's address: that of its physical function and the distances that it names (9.3.3.9), if it is on the same bus.
fn address(physical: PciAddress, first: u16, stride: u16, n: u16) -> Option<PciAddress> {
    let away = stride.checked_mul(n)?.checked_add(first)?;
    let [bus, rest] = crate::requester(physical).0.checked_add(away)?.to_be_bytes();
    (bus == physical.bus() && away != 0).then(|| PciAddress::new(physical.segment(), bus, rest >> 3, rest & 7))
}

/// The records of the virtual functions that `physical`, one of all `functions`, has made at `addresses`, switched off. Each has a group of its
/// own, but where those above can turn its requests around: there it is with its physical one.
///
/// # Errors
/// If one of them does not answer.
pub fn find(
    access: &dyn Configuration,
    functions: &[Function],
    physical: &Function,
    addresses: &[PciAddress],
) -> Result<Vec<Function>, VirtualError> {
    let own = physical.capabilities.sriov.as_ref().ok_or(VirtualError::NoSriov)?;
    let segment = physical.address.segment();
    let groups =
        functions.iter().filter(|function| function.address.segment() == segment).map(|function| function.group);
    let next = groups.max().map_or(0, |last| last.saturating_add(1));
    let is_apart = group::is_apart_from_above(functions, physical.address);
    let mut found = Vec::new();
    for (n, address) in (0_u16..).zip(addresses) {
        let space = Space::new(access, *address);
        if !space.answers() {
            return Err(VirtualError::Refused);
        }
        let bars: ArrayVec<Bar, 6> = own.bars.iter().map(|bar| share(bar, n)).collect();
        let mut function = scan::virtual_function(space, physical, own.device, bars);
        function.group = if is_apart { next.saturating_add(n) } else { physical.group };
        found.push(function);
    }
    Ok(found)
}

/// The `n`-th function's share of a BAR (9.2.1.1.1).
fn share(bar: &Bar, n: u16) -> Bar {
    let into = u64::from(n).saturating_mul(bar.room());
    let place = bar
        .place
        .and_then(|place| Some(Place { bus: place.bus.checked_add(into)?, cpu: Pa(place.cpu.0.checked_add(into)?) }));
    Bar { place, ..*bar }
}

/// No virtual function of `physical` is there any more.
pub fn unmake(access: &dyn Configuration, physical: &Function) {
    if let Some(own) = &physical.capabilities.sriov {
        Space::new(access, physical.address).set_half(own.offset.saturating_add(sriov::CONTROL), 0);
    }
}

/// What of SR-IOV a reset of the physical function takes away and is needed before they are made again.
pub(crate) fn restore(space: Space<'_>, physical: &Function) -> bool {
    let Some(own) = &physical.capabilities.sriov else { return true };
    let register = |offset: u16| own.offset.saturating_add(offset);
    space.set_half(register(sriov::CONTROL), 0);
    space.set_word(register(sriov::SYSTEM_PAGE_SIZE), 1);
    bar::write_all(space, register(sriov::BAR0), &own.bars).is_ok()
}

/// Whether `function` is what there was: a virtual one has no identity of its own.
pub(crate) fn is_same(space: Space<'_>, function: &Function) -> bool {
    let own = [space.half(registers::VENDOR), space.half(registers::DEVICE)];
    function.physical.is_some() || own == [function.vendor, function.device]
}
