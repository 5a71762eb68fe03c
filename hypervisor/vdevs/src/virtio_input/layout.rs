//! What an input device and its driver agree on: numbers and layouts (virtio 1.3, 5.8), and the one key that there is.
//!
//! Types and codes of events are those of Linux's `include/uapi/linux/input-event-codes.h`, to which the standard refers (5.8.4).

use zerocopy::byteorder::little_endian::{U16, U32};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Device ID (5.8.1).
pub(super) const ID: u16 = 18;
/// Input device, other.
pub(super) const CLASS: u32 = 0x09_8000;

/// `eventq` (5.8.2).
pub(super) const EVENTS: u16 = 0;
/// `eventq` and `statusq`.
pub(super) const QUEUES: u16 = 2;
/// Entries of a queue: Linux's driver offers as many buffers as there are, up to 64.
pub(super) const QUEUE_SIZE: u16 = 64;

/// What can be selected (5.8.4).
pub(super) mod select {
    pub(crate) const UNSET: u8 = 0;
    pub(crate) const ID_NAME: u8 = 1;
    pub(crate) const ID_DEVIDS: u8 = 3;
    pub(crate) const EV_BITS: u8 = 0x11;
}

/// Types and codes of events.
const EV_SYN: u16 = 0;
const EV_KEY: u16 = 1;
const SYN_REPORT: u16 = 0;
const KEY_POWER: u16 = 116;

const NAME: &[u8] = b"bulkhead power button";
/// `bustype`, `vendor`, `product`, `version`: `BUS_VIRTUAL`, and numbers that nobody registers.
const DEVIDS: [u16; 4] = [0x06, 0, 1, 1];

/// The configuration space (5.8.4).
#[derive(Clone, Copy, Debug, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct Configuration {
    pub(super) select: u8,
    pub(super) subsel: u8,
    /// Bytes of `u` that say something: none if there is no such thing (5.8.5.1).
    size: u8,
    reserved: [u8; 5],
    u: [u8; 128],
}

impl Default for Configuration {
    fn default() -> Self {
        Self { select: 0, subsel: 0, size: 0, reserved: [0; 5], u: [0; 128] }
    }
}

impl Configuration {
    /// What is there when this is selected.
    pub(super) fn of(select: u8, subsel: u8) -> Self {
        let mut configuration = Self { select, subsel, ..Self::default() };
        match (select, subsel) {
            (select::ID_NAME, 0) => configuration.set(NAME),
            (select::ID_DEVIDS, 0) => configuration.set(DEVIDS.map(U16::new).as_bytes()),
            (select::EV_BITS, subsel) if u16::from(subsel) == EV_KEY => configuration.set(&keys()),
            _ => {}
        }
        configuration
    }

    fn set(&mut self, bytes: &[u8]) {
        self.u.iter_mut().zip(bytes).for_each(|(into, from)| *into = *from);
        self.size = u8::try_from(bytes.len()).unwrap_or(0);
    }
}

/// Bytes that the bit of the highest key takes.
const KEYS: usize = KEY_POWER as usize / 8 + 1;

/// A bit for each key that there is.
const fn keys() -> [u8; KEYS] {
    let mut bits = [0; KEYS];
    if let Some(last) = bits.last_mut() {
        *last = 1 << (KEY_POWER % 8);
    }
    bits
}

/// An event (5.8.6).
#[derive(Clone, Copy, Debug, Default, FromBytes, Immutable, IntoBytes, KnownLayout)]
#[repr(C)]
pub(super) struct InputEvent {
    kind: U16,
    code: U16,
    value: U32,
}

impl InputEvent {
    fn new(kind: u16, code: u16, value: u32) -> Self {
        Self { kind: kind.into(), code: code.into(), value: value.into() }
    }
}

/// Events that are one press of the key.
pub(super) const PRESS: usize = 4;

/// The key goes down and up again; after each a `SYN_REPORT`, by which drivers know that the event is complete.
pub(super) fn press() -> [InputEvent; PRESS] {
    let report = InputEvent::new(EV_SYN, SYN_REPORT, 0);
    [InputEvent::new(EV_KEY, KEY_POWER, 1), report, InputEvent::new(EV_KEY, KEY_POWER, 0), report]
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::mem::offset_of;

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let offsets = [
            (offset_of!(Configuration, subsel), 1),
            (offset_of!(Configuration, size), 2),
            (offset_of!(Configuration, u), 8),
            (size_of::<Configuration>(), 136),
            (offset_of!(InputEvent, code), 2),
            (offset_of!(InputEvent, value), 4),
            (size_of::<InputEvent>(), 8),
        ];
        offsets.into_iter().for_each(|(own, theirs)| assert_eq!(own, theirs));
    }

    /// 5.8.5.1: "The device MUST set the size field to zero if it doesn't support a given select and subsel combination."
    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn what_there_is_not_has_no_size() {
        for (select, subsel) in (0..=u8::MAX).flat_map(|select| (0..=u8::MAX).map(move |subsel| (select, subsel))) {
            let there = [(1, 0), (3, 0), (0x11, 1)].contains(&(select, subsel));
            let configuration = Configuration::of(select, subsel);
            assert_eq!(configuration.size > 0, there, "{select:#x} {subsel:#x}");
            assert_eq!((configuration.select, configuration.subsel), (select, subsel));
        }
        let bits = Configuration::of(0x11, 1);
        let set: alloc::vec::Vec<usize> = (0..1024).filter(|bit| bits.u[bit / 8] >> (bit % 8) & 1 == 1).collect();
        assert_eq!((bits.size, set), (15, alloc::vec![116]));
    }
}
