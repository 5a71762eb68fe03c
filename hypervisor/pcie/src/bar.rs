//! Base Address registers.
//!
//! Answers for: how many bytes each wants (PCI Express Base Specification, 7.5.1.2.1), and setting them. Does not answer for: which
//! addresses they get (`assign`).

use crate::{Flaw, Space, Trouble, flaw, registers::sriov};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use types::{PAGE_SIZE, Pa};

/// What a BAR decodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BarKind {
    /// I/O.
    Io,
    /// Memory below 4 GiB of the bus.
    Memory32 {
        /// Reading it changes nothing.
        is_prefetchable: bool,
    },
    /// Memory anywhere; it takes two registers.
    Memory64 {
        /// Reading it changes nothing.
        is_prefetchable: bool,
    },
}

impl BarKind {
    /// Whether it is I/O.
    #[must_use]
    pub const fn is_io(&self) -> bool {
        matches!(self, Self::Io)
    }

    /// Whether it takes two registers.
    #[must_use]
    pub const fn is_wide(&self) -> bool {
        matches!(self, Self::Memory64 { .. })
    }

    /// Whether reading it changes nothing.
    #[must_use]
    pub const fn is_prefetchable(&self) -> bool {
        matches!(self, Self::Memory32 { is_prefetchable: true } | Self::Memory64 { is_prefetchable: true })
    }
}

/// Where a BAR is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Place {
    /// On the bus: what the register says.
    pub bus: u64,
    /// For CPUs.
    pub cpu: Pa,
}

/// A BAR that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Bar {
    /// Which: 0 to 5; the lower one of two registers.
    pub index: u8,
    /// What it decodes.
    pub kind: BarKind,
    /// Bytes: a power of two.
    pub size: u64,
    /// Where it is, if it has an address. Memory has whole pages to itself; I/O has none, because what needs it is no PCI Express
    /// (1.3.2.2).
    pub place: Option<Place>,
}

impl Bar {
    /// Bytes that are nobody else's: what is less than a page has one.
    #[must_use]
    pub fn room(&self) -> u64 {
        self.size.max(PAGE_SIZE)
    }

    /// The offset of its register, of those from `first` on.
    pub(crate) fn offset(index: u8, first: u16) -> u16 {
        first.saturating_add(u16::from(index).saturating_mul(4))
    }

    /// Its address as its registers say.
    pub(crate) fn read(&self, space: Space<'_>, first: u16) -> u64 {
        let at = Self::offset(self.index, first);
        let low = space.word(at);
        match self.kind {
            BarKind::Io => u64::from(low & !3),
            BarKind::Memory32 { .. } => u64::from(low & !0xf),
            BarKind::Memory64 { .. } => u64::from(space.word(at.saturating_add(4))) << 32 | u64::from(low & !0xf),
        }
    }

    /// Sets its address. Says whether it keeps it. The function does not decode meanwhile.
    pub(crate) fn write(&self, space: Space<'_>, first: u16, address: u64) -> bool {
        let at = Self::offset(self.index, first);
        let [low, high] = halves(address);
        space.set_word(at, low);
        if self.kind.is_wide() {
            space.set_word(at.saturating_add(4), high);
        }
        self.read(space, first) == address
    }
}

/// The lower and upper word.
pub(crate) fn halves(address: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = address.to_le_bytes();
    [u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])]
}

/// What a register is before it is known how large.
enum Shape {
    Absent,
    Wrong,
    Is(BarKind, u64),
}

/// The BARs of a header with `count` of them, from `first` on, which keep their values. The function does not decode.
pub(crate) fn size_all(space: Space<'_>, first: u16, count: u8, troubles: &mut Vec<Trouble>) -> ArrayVec<Bar, 6> {
    let mut bars = ArrayVec::new();
    let mut index = 0;
    while index < count.min(6) {
        let (shape, takes) = size(space, Bar::offset(index, first), index.saturating_add(1) < count);
        match shape {
            Shape::Absent => {}
            Shape::Wrong => flaw::note(troubles, space.address, Flaw::BarSize(index)),
            // Six at most.
            Shape::Is(kind, size) => drop(bars.try_push(Bar { index, kind, size, place: None })),
        }
        index = index.saturating_add(takes);
    }
    bars
}

/// What the register at `at` is, and how many registers that is. `has_next`: there is one behind it.
fn size(space: Space<'_>, at: u16, has_next: bool) -> (Shape, u8) {
    let before = space.word(at);
    let low = ask(space, at, before);
    if low & 1 != 0 {
        // Of I/O the upper half may be hardwired to zero (PCI Local Bus Specification 3.0, 6.2.5.1).
        let mask = u64::from(low & !3 | if low >> 16 == 0 { 0xffff_0000 } else { 0 });
        return (shape(BarKind::Io, mask | 0xffff_ffff_0000_0000), 1);
    }
    let is_prefetchable = low & 8 != 0;
    match low >> 1 & 3 {
        _ if low == 0 => (Shape::Absent, 1),
        0 | 1 => {
            let mask = u64::from(low & !0xf) | 0xffff_ffff_0000_0000;
            (shape(BarKind::Memory32 { is_prefetchable }, mask), 1)
        }
        2 if has_next => {
            let next = at.saturating_add(4);
            let high = ask(space, next, space.word(next));
            (shape(BarKind::Memory64 { is_prefetchable }, u64::from(high) << 32 | u64::from(low & !0xf)), 2)
        }
        _ => (Shape::Wrong, 1),
    }
}

/// What a register says that has been set to all ones. It is `before` again.
fn ask(space: Space<'_>, at: u16, before: u32) -> u32 {
    space.set_word(at, u32::MAX);
    let says = space.word(at);
    space.set_word(at, before);
    says
}

/// The bits that can be set are the upper ones, and no other.
fn shape(kind: BarKind, mask: u64) -> Shape {
    let size = mask & mask.wrapping_neg();
    // 4 GiB of a narrow one would be a register without bits.
    let is_whole = size != 0 && mask | size.wrapping_sub(1) == u64::MAX;
    let fits = kind.is_wide() || size <= 1 << 31;
    // Seven address bits are the least that memory has (7.5.1.2.1), two that I/O has.
    if is_whole && fits && size < 1 << 63 { Shape::Is(kind, size) } else { Shape::Wrong }
}

/// The BARs of virtual functions, from the SR-IOV capability at `at`: each is one function's share (9.2.1.1.1).
pub(crate) fn size_virtual(space: Space<'_>, at: u16, troubles: &mut Vec<Trouble>) -> ArrayVec<Bar, 6> {
    let mut bars = size_all(space, at.saturating_add(sriov::BAR0), 6, troubles);
    bars.retain(|bar| !bar.kind.is_io());
    bars
}

/// Writes the addresses that `bars` have, and none into the others, of those registers from `first` on, all of them in any case. The function does not decode
/// meanwhile.
///
/// # Errors
/// The first BAR that does not keep its address.
pub(crate) fn write_all(space: Space<'_>, first: u16, bars: &[Bar]) -> Result<(), u8> {
    let is_wrong = |bar: &&Bar| !bar.write(space, first, bar.place.map_or(0, |place| place.bus)) && bar.place.is_some();
    let wrong = bars.iter().filter(is_wrong).fold(None, |first, bar| first.or(Some(bar.index)));
    wrong.map_or(Ok(()), Err)
}
