//! Where things are among a VM's guest-physical addresses.
//!
//! Answers for: whether the host's CPUs can form the addresses of what the configuration places, and for finding places for what it
//! leaves open. Does not answer for: overlaps, which are found where the things are put (`load`, the bus), nor for the places of
//! images (`load`) and of the PCI bus's windows (`bus`).

use super::{AssembleError, Description, Host, Subject};
use alloc::{format, vec::Vec};
use types::{Ipa, PAGE_SIZE, Range};

impl Description {
    /// The page that tells the guest of stolen time: as on QEMU's virt machine if nothing else is there, or behind that. It
    /// has 64 KiB for itself, as a guest with such pages wants it; `None` if there is no room for long.
    #[must_use]
    pub fn stolen_time(&self) -> Option<Range<Ipa>> {
        const FIRST: Ipa = Ipa(0x090a_0000);
        const ROOM: u64 = 0x1_0000;
        let free = free_place(FIRST, ROOM, &self.taken())?;
        Range::new(free.start(), PAGE_SIZE)
    }

    /// The window of each device that has one ([`Factory::window_size`]), below `limit`: behind the first gigabytes, where
    /// guests have their memory. `None` too for one that finds no room.
    pub(super) fn windows(&self, limit: Ipa) -> Vec<Option<Range<Ipa>>> {
        let mut taken = self.taken();
        taken.extend(self.stolen_time());
        taken.extend(self.upper_window(limit));
        let mut windows = Vec::with_capacity(self.vdevs.len());
        for size in self.vdevs.iter().map(|vdev| vdev.factory.window_size) {
            let place = if size == 0 { None } else { free_place(Ipa(size), size, &taken) };
            let place = place.filter(|place| place.end() <= limit);
            taken.extend(place);
            windows.push(place);
        }
        windows
    }

    /// What is somewhere by its configuration.
    pub(super) fn taken(&self) -> Vec<Range<Ipa>> {
        let regions = self.vdevs.iter().filter_map(|vdev| Range::new(vdev.location?, vdev.factory.region_size));
        let frames = self.controller.claims(self.vcpus).filter_map(|(_, range)| range);
        let regions = regions.chain(self.pci.iter().flat_map(|pci| pci.windows.iter().copied()));
        self.ram.iter().chain(&self.rom).chain(&self.reserved).copied().chain(regions).chain(frames).collect()
    }
}

/// The first of a thousand places of `size` bytes from `first` on, one behind the other, that is not taken.
pub(super) fn free_place(first: Ipa, size: u64, taken: &[Range<Ipa>]) -> Option<Range<Ipa>> {
    const PLACES: u64 = 1024;
    let places = (0..PLACES).filter_map(|place| Range::new(first.checked_add(size.checked_mul(place)?)?, size));
    places.into_iter().find(|place| !taken.iter().any(|other| other.overlaps(place)))
}

/// The end of the addresses that the host's CPUs can form.
pub(super) fn limit(host: &Host<'_>) -> Ipa {
    Ipa(1_u64.checked_shl(u32::from(host.id.address_bits())).unwrap_or(u64::MAX))
}

/// Whether the host's CPUs can form all addresses: those of stage 2 have as many bits as the host's physical ones.
pub(super) fn check_addresses(description: &Description, host: &Host<'_>) -> Vec<AssembleError> {
    let (bits, limit) = (host.id.address_bits(), limit(host));
    let too_high = |subject, what: &str, range: Option<Range<Ipa>>| {
        if range.is_some_and(|range| range.end() <= limit) {
            return None;
        }
        let (before, after) = if let Subject::Vdev(_) = subject { ("`vdev ", "`") } else { ("", "") };
        let why = format!("goes beyond {limit}: the host's addresses have {bits} bits");
        Some(AssembleError::new(subject, format!("{before}{what}{after} {why}")))
    };
    let ram = description.ram.iter().enumerate().map(|(index, range)| (Subject::Ram(index), "RAM", Some(*range)));
    let rom = description.rom.iter().enumerate().map(|(index, range)| (Subject::Rom(index), "ROM", Some(*range)));
    let vdevs = description.vdevs.iter().enumerate().filter_map(|(index, vdev)| {
        let range = Range::new(vdev.location?, vdev.factory.region_size);
        Some((Subject::Vdev(index), vdev.factory.name, range))
    });
    let vdevs = vdevs.chain(description.pci_windows());
    let frames = description.controller.frames(host.gic, description.vcpus);
    let messages = frames.and_then(|frames| frames.messages).map(|frame| Some(frame.region()));
    let its = frames.and_then(|frames| frames.its).map(Some);
    let gic = [frames.map(|frames| frames.distributor), frames.map(|frames| frames.interface)];
    let gic = gic.into_iter().chain(messages).chain(its);
    let gic = gic.map(|range| (Subject::InterruptController, "the interrupt controller", range));
    ram.chain(rom).chain(vdevs).chain(gic).filter_map(|(subject, what, range)| too_high(subject, what, range)).collect()
}
