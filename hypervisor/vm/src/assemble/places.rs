//! Which guest-physical addresses are free, and what goes there by itself.
//!
//! Answers for: places for what the configuration gives none, and which device has a page for itself. Does not answer for: whether what
//! has a place may be there (`config`, [`vdev::Bus`]), nor for devices on the PCI bus (`bus`).

use super::{Description, VdevDescription};
use alloc::vec::Vec;
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

    /// The page at a device's `loc`, if its registers begin there, end there, and nothing else that is somewhere by the configuration
    /// is there; what is given a place has no part of such a page either.
    pub(super) fn own_page(&self, vdev: &VdevDescription) -> Option<Range<Ipa>> {
        let at = vdev.location.filter(|at| vdev.slot.is_none() && at.is_aligned(PAGE_SIZE))?;
        let page = Range::new(at, PAGE_SIZE)?;
        let registers = Range::new(at, vdev.factory.region_size).filter(|registers| !registers.is_empty())?;
        let there = self.taken().iter().filter(|other| other.overlaps(&page)).count();
        (page.contains_range(&registers) && there == 1).then_some(page)
    }

    /// The window of each device that has one ([`vdev::Factory::window_size`]), below `limit`: behind the first gigabytes, where
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

    /// All that the guest has somewhere below `limit`, or may come to have: where nothing of it is, there never is anything.
    #[must_use]
    pub fn everything(&self, limit: Ipa) -> Vec<Range<Ipa>> {
        let mut taken = self.taken();
        taken.extend(self.stolen_time());
        taken.extend(self.upper_window(limit));
        taken.extend(self.windows(limit).into_iter().flatten());
        taken
    }

    /// What is somewhere by its configuration.
    pub(super) fn taken(&self) -> Vec<Range<Ipa>> {
        let regions = self.vdevs.iter().filter_map(|vdev| Range::new(vdev.location?, vdev.factory.region_size));
        let frames = self.controller.claims(self.vcpus).filter_map(|(_, range)| range);
        let regions = regions.chain(self.pci.iter().flat_map(|pci| pci.windows.iter().copied()));
        let passed = self.passed.iter().flat_map(|device| device.regions.iter().map(|region| region.guest));
        self.ram
            .iter()
            .chain(&self.rom)
            .chain(&self.reserved)
            .copied()
            .chain(regions)
            .chain(frames)
            .chain(passed)
            .collect()
    }
}

/// The first of a thousand places of `size` bytes from `first` on, one behind the other, that is not taken.
pub(super) fn free_place(first: Ipa, size: u64, taken: &[Range<Ipa>]) -> Option<Range<Ipa>> {
    const PLACES: u64 = 1024;
    let places = (0..PLACES).filter_map(|place| Range::new(first.checked_add(size.checked_mul(place)?)?, size));
    places.into_iter().find(|place| !taken.iter().any(|other| other.overlaps(place)))
}
