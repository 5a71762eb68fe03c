//! Who is where on the bus.
//!
//! Answers for: the window of all configuration spaces (ECAM: PCI Express, 7.2.2), the windows of memory, whether they have room for
//! all functions, and in them the regions as the guest has placed them. Does not answer for: which of its regions a function wants decoded ([`crate::Endpoint`]).
//!
//! A region is a power of two and at a multiple of it, so two of one size are at the same place or apart. An address is looked for
//! among the regions of each size in use, by a binary search for the only place where such a region could be. If it is in several,
//! the first function of the bus has it, by its first region.

use crate::{CONFIG_SIZE, ECAM_SIZE, bar_offset};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use types::{Ipa, Lock, Range};
use vdev::{Decoder, DeviceId, PciSlot};

/// How many functions a bus can have.
const FUNCTIONS: usize = PciSlot::DEVICES as usize * PciSlot::FUNCTIONS as usize;
/// Most regions of a function.
const REGIONS: usize = 6;

/// Where nobody is: an offset of the host bridge's, which reads as all ones.
pub(crate) const NOBODY: u64 = CONFIG_SIZE;

/// Who is where.
pub struct Routes {
    ecam: Ipa,
    windows: Box<[Range<Ipa>]>,
    /// By slot.
    functions: Box<[Option<DeviceId>]>,
    placed: Lock<Placed>,
    /// Bytes that functions want: below 4 GiB, and anywhere.
    wanted: Lock<(u64, u64)>,
}

/// The first address that does not fit 32 bits.
const END_OF_32_BITS: u64 = 1 << 32;

/// A region that has a place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry {
    /// Its length is two to the power of this.
    order: u32,
    start: u64,
    /// The number of its slot.
    slot: u8,
    region: u8,
}

impl Entry {
    /// Powers of two at multiples of them: one is inside the other, or they are apart.
    const fn overlaps(&self, other: &Self) -> bool {
        let order = if self.order > other.order { self.order } else { other.order };
        self.start.wrapping_shr(order) == other.start.wrapping_shr(order)
    }
}

#[derive(Debug)]
struct Placed {
    /// In order.
    entries: Vec<Entry>,
    /// A bit for each order that is among them.
    orders: u64,
}

impl fmt::Debug for Routes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Routes").field("ecam", &self.ecam).field("windows", &self.windows).finish_non_exhaustive()
    }
}

impl Routes {
    /// A bus with configuration spaces from `ecam` on, on which these functions are, the host bridge among them.
    #[must_use]
    pub fn new(ecam: Ipa, windows: &[Range<Ipa>], functions: impl IntoIterator<Item = (PciSlot, DeviceId)>) -> Self {
        let mut by_slot = vec![None; FUNCTIONS].into_boxed_slice();
        let mut count = 0_usize;
        for (slot, device) in functions {
            if let Some(place) = by_slot.get_mut(usize::from(slot.number())) {
                *place = Some(device);
                count = count.saturating_add(1);
            }
        }
        // Nothing is allocated while the guest runs.
        let entries = Vec::with_capacity(count.saturating_mul(REGIONS));
        let placed = Lock::new(Placed { entries, orders: 0 });
        Self { ecam, windows: windows.into(), functions: by_slot, placed, wanted: Lock::new((0, 0)) }
    }

    /// Bytes of the windows of which this holds.
    fn bytes(&self, which: impl Fn(&Range<Ipa>) -> bool) -> u64 {
        let windows = self.windows.iter().filter(|window| which(window));
        windows.fold(0, |bytes, window| bytes.saturating_add(window.length()))
    }

    fn device(&self, slot: u8) -> Option<DeviceId> {
        self.functions.get(usize::from(slot)).copied().flatten()
    }
}

impl Decoder for Routes {
    fn decode(&self, at: Ipa) -> Option<(DeviceId, u64)> {
        let host = self.device(PciSlot::HOST.number())?;
        if let Some(offset) = at.0.checked_sub(self.ecam.0).filter(|offset| *offset < ECAM_SIZE) {
            // 7.2.2: device and function in bits 19 to 12, the register in those below.
            let slot = u8::try_from(offset / CONFIG_SIZE).unwrap_or(u8::MAX);
            return Some(match self.device(slot) {
                Some(device) => (device, offset & (CONFIG_SIZE - 1)),
                None => (host, NOBODY),
            });
        }
        if !self.windows.iter().any(|window| window.contains(at)) {
            return None;
        }
        let entry = self.placed.lock().find(at);
        let found = entry.and_then(|entry| {
            let offset = at.0.wrapping_sub(entry.start).wrapping_add(bar_offset(entry.region));
            Some((self.device(entry.slot)?, offset))
        });
        // Nobody claims the transaction: the host bridge ends it (PCI, 3.3.3.1, "Master-Abort").
        Some(found.unwrap_or((host, NOBODY)))
    }

    fn place(&self, slot: PciSlot, region: u8, range: Option<Range<Ipa>>) {
        let is_inside = |range: &Range<Ipa>| self.windows.iter().any(|window| window.contains_range(range));
        let entry = range.filter(is_inside).map(|range| Entry {
            order: range.length().trailing_zeros(),
            start: range.start().0,
            slot: slot.number(),
            region,
        });
        self.placed.lock().replace(slot.number(), region, entry);
    }

    fn windows(&self) -> &[Range<Ipa>] {
        &self.windows
    }

    fn is_alone(&self, slot: PciSlot, region: u8) -> bool {
        let placed = self.placed.lock();
        let is_it = |entry: &Entry| (entry.slot, entry.region) == (slot.number(), region);
        let Some(own) = placed.entries.iter().find(|entry| is_it(entry)) else { return false };
        !placed.entries.iter().any(|other| !is_it(other) && own.overlaps(other))
    }

    /// Windows begin at multiples of more than most regions have, and powers of two leave no gaps, the largest first: what fits by its
    /// bytes has places.
    fn has_room(&self, below_4g: u64, anywhere: u64) -> bool {
        let mut wanted = self.wanted.lock();
        wanted.0 = wanted.0.saturating_add(below_4g);
        wanted.1 = wanted.1.saturating_add(anywhere);
        let low = self.bytes(|window| window.end().0 <= END_OF_32_BITS);
        wanted.0 <= low && wanted.0.saturating_add(wanted.1) <= self.bytes(|_| true)
    }
}

impl Placed {
    fn replace(&mut self, slot: u8, region: u8, new: Option<Entry>) {
        let old = self.entries.iter().position(|entry| (entry.slot, entry.region) == (slot, region));
        if let Some(old) = old {
            self.entries.remove(old);
        }
        // A function that has more regions than it can have gets no room for them.
        if let Some(new) = new.filter(|_| self.entries.len() < self.entries.capacity()) {
            let at = self.entries.partition_point(|entry| *entry < new);
            self.entries.insert(at, new);
        }
        self.orders = self.entries.iter().fold(0, |orders, entry| orders | 1_u64.wrapping_shl(entry.order));
    }

    fn find(&self, at: Ipa) -> Option<Entry> {
        let mut found: Option<Entry> = None;
        let mut orders = self.orders;
        while orders != 0 {
            let order = orders.trailing_zeros();
            orders &= orders.wrapping_sub(1);
            let start = at.0.wrapping_shr(order).wrapping_shl(order);
            let first = self.entries.partition_point(|entry| (entry.order, entry.start) < (order, start));
            let here = self.entries.get(first).filter(|entry| (entry.order, entry.start) == (order, start));
            let is_first =
                |entry: &&Entry| found.is_none_or(|other| (entry.slot, entry.region) < (other.slot, other.region));
            found = here.filter(is_first).copied().or(found);
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ECAM: u64 = 0x3f00_0000;
    const WINDOW: u64 = 0x1000_0000;

    fn slot(device: u8, function: u8) -> PciSlot {
        PciSlot::new(device, function).unwrap()
    }

    fn routes() -> Routes {
        let functions = [(PciSlot::HOST, DeviceId(7)), (slot(1, 0), DeviceId(0)), (slot(3, 2), DeviceId(1))];
        let windows = [Range::new(Ipa(WINDOW), 1 << 20).unwrap(), Range::new(Ipa(1 << 34), 1 << 34).unwrap()];
        Routes::new(Ipa(ECAM), &windows, functions)
    }

    fn range(start: u64, length: u64) -> Option<Range<Ipa>> {
        Range::new(Ipa(start), length)
    }

    #[test]
    fn configuration_spaces_are_in_the_order_of_their_slots() {
        let routes = routes();
        let at = |device: u64, function: u64, register| Ipa(ECAM + (device << 15) + (function << 12) + register);
        assert_eq!(routes.decode(at(0, 0, 0)), Some((DeviceId(7), 0)));
        assert_eq!(routes.decode(at(1, 0, 0x10)), Some((DeviceId(0), 0x10)));
        assert_eq!(routes.decode(at(3, 2, 0xffc)), Some((DeviceId(1), 0xffc)));
        assert_eq!(routes.decode(at(3, 1, 0)), Some((DeviceId(7), NOBODY)), "nobody there");
        assert_eq!(routes.decode(at(31, 7, 0xffc)), Some((DeviceId(7), NOBODY)));
        assert_eq!(routes.decode(Ipa(ECAM + ECAM_SIZE)), None, "there is one bus");
        assert_eq!(routes.decode(Ipa(ECAM - 1)), None);
    }

    #[test]
    fn a_region_is_where_it_was_placed_last() {
        let routes = routes();
        assert_eq!(routes.decode(Ipa(WINDOW)), Some((DeviceId(7), NOBODY)), "an empty window");
        routes.place(slot(1, 0), 0, range(WINDOW + 0x4000, 0x4000));
        assert_eq!(routes.decode(Ipa(WINDOW + 0x4000)), Some((DeviceId(0), 1 << 56)));
        assert_eq!(routes.decode(Ipa(WINDOW + 0x7fff)), Some((DeviceId(0), (1 << 56) + 0x3fff)));
        assert_eq!(routes.decode(Ipa(WINDOW + 0x8000)), Some((DeviceId(7), NOBODY)));
        routes.place(slot(1, 0), 0, range((1 << 34) + 0x4000, 0x4000));
        assert_eq!(routes.decode(Ipa(WINDOW + 0x4000)), Some((DeviceId(7), NOBODY)), "moved");
        assert_eq!(routes.decode(Ipa((1 << 34) + 0x4000)), Some((DeviceId(0), 1 << 56)));
        routes.place(slot(1, 0), 0, None);
        assert_eq!(routes.decode(Ipa((1 << 34) + 0x4000)), Some((DeviceId(7), NOBODY)));
    }

    #[test]
    fn what_is_not_all_in_a_window_is_not_decoded() {
        let routes = routes();
        for start in [0, WINDOW - 0x1000, WINDOW + (1 << 20), ECAM, 0x8000_0000, (1 << 35) - 0x10_0000] {
            routes.place(slot(1, 0), 0, range(start, 0x20_0000));
            assert_eq!(routes.placed.lock().entries, [], "{start:#x}");
            assert_eq!(routes.decode(Ipa(0x8000_0000)), None);
        }
    }

    #[test]
    fn of_several_at_one_place_the_first_function_has_it() {
        let routes = routes();
        routes.place(slot(3, 2), 0, range(WINDOW, 0x1000));
        routes.place(slot(3, 2), 1, range(WINDOW, 0x1000));
        routes.place(slot(1, 0), 2, range(WINDOW, 0x1_0000));
        assert_eq!(routes.decode(Ipa(WINDOW + 8)), Some((DeviceId(0), (3 << 56) + 8)), "the larger one's");
        routes.place(slot(1, 0), 2, range(WINDOW + 0x1_0000, 0x1_0000));
        assert_eq!(routes.decode(Ipa(WINDOW + 8)), Some((DeviceId(1), (1 << 56) + 8)), "the first region");
        routes.place(slot(3, 2), 0, None);
        assert_eq!(routes.decode(Ipa(WINDOW + 8)), Some((DeviceId(1), (2 << 56) + 8)));
    }

    #[test]
    fn a_region_is_alone_where_no_other_one_is() {
        let routes = routes();
        assert!(!routes.is_alone(slot(1, 0), 0), "it is nowhere");
        routes.place(slot(1, 0), 0, range(WINDOW + 0x8000, 0x4000));
        assert!(routes.is_alone(slot(1, 0), 0));
        routes.place(slot(3, 2), 1, range(WINDOW + 0xc000, 0x4000));
        assert!(routes.is_alone(slot(1, 0), 0), "side by side");
        for other in [range(WINDOW + 0x9000, 16), range(WINDOW, 0x1_0000), range(WINDOW + 0x8000, 0x4000)] {
            routes.place(slot(3, 2), 1, other);
            assert!(!routes.is_alone(slot(1, 0), 0), "{other:?}");
        }
        routes.place(slot(3, 2), 1, None);
        assert!(routes.is_alone(slot(1, 0), 0));
    }

    #[test]
    fn all_functions_together_have_no_more_than_the_windows() {
        let routes = routes();
        assert!(routes.has_room(1 << 19, 1 << 33) && routes.has_room(1 << 19, (1 << 33) - 1));
        assert!(routes.has_room(0, 1), "all of both");
        assert!(!routes.has_room(0, 1));
        let low = super::Routes::new(Ipa(ECAM), &[range(WINDOW, 1 << 20).unwrap()], []);
        assert!(low.has_room(1 << 18, 1 << 19), "what can be anywhere can be below");
        assert!(!low.has_room(1 << 19, 0));
        assert!(!super::Routes::new(Ipa(ECAM), &[range(1 << 34, 1 << 34).unwrap()], []).has_room(4096, 0));
    }

    #[test]
    fn a_function_has_room_for_six_regions() {
        let routes = Routes::new(Ipa(ECAM), &[range(WINDOW, 1 << 20).unwrap()], [(PciSlot::HOST, DeviceId(0))]);
        let capacity = routes.placed.lock().entries.capacity();
        for region in 0..=255 {
            routes.place(PciSlot::HOST, region, range(WINDOW + u64::from(region) * 16, 16));
        }
        assert_eq!(routes.placed.lock().entries.capacity(), capacity, "nothing is allocated");
        assert!(routes.decode(Ipa(WINDOW + 5 * 16)).unwrap().1 != NOBODY);
    }
}
