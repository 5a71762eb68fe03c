//! Where stations are: by name, by address.
//!
//! Answers for: what `peer` can be ([`Place`]), addresses for devices whose configuration gives none, and the addresses that have been
//! seen behind a port. Does not answer for: ports.

use super::End;
use alloc::{format, string::String};
use vdev::Mac;

/// What a port is connected to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// The switch of this name.
    Switch(String),
    /// Another device; `None` for the one that says so.
    Link(Option<End>),
}

impl Place {
    /// What a configuration calls `/dev/vswitchNAME`, where NAME may be empty, or `/dev/qvm/VM/DEVICE`.
    ///
    /// # Errors
    /// If it is neither.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}` is no /dev/vswitchNAME, and no /dev/qvm/VM/DEVICE");
        if let Some(name) = text.strip_prefix("/dev/vswitch") {
            let is_name = name.len() <= 32 && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/');
            return if is_name { Ok(Self::Switch(name.into())) } else { Err(wrong()) };
        }
        match text.strip_prefix("/dev/qvm/").and_then(|rest| rest.split_once('/')) {
            Some((vm, device)) if !vm.is_empty() && !device.is_empty() && !device.contains('/') => {
                Ok(Self::Link(Some(End::Device { vm: vm.into(), device: device.into() })))
            }
            _ => Err(wrong()),
        }
    }
}

/// An address for the device `device` of the VM `vm`, always the same: administered locally (IEEE 802, 8.4), by a hash (FNV-1a).
#[must_use]
pub fn derive_address(vm: &str, device: &str) -> Mac {
    let bytes = vm.bytes().chain([b'/']).chain(device.bytes());
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    let [_, _, a, b, c, d, e, f] = (hash ^ hash >> 48).to_be_bytes();
    Mac([a & 0xfc | 2, b, c, d, e, f])
}

/// Whether frames to this address are for the next bridge only, and none hands them on (IEEE 802.1Q, 8.6.3, table 8-1): spanning trees,
/// pauses, neighbours' names.
pub(super) fn is_for_bridges(address: Mac) -> bool {
    matches!(address.0, [0x01, 0x80, 0xc2, 0x00, 0x00, 0x00..=0x0f])
}

/// Places for addresses that have the same hash.
const WAYS: usize = 4;
/// How many hashes there are.
const SETS: usize = 16;

/// Addresses that have been seen behind a port, besides its own: 64 at most. Each port has its own, so that nobody can have others
/// forgotten; the oldest of those with the same hash makes room. None is forgotten because of its age: who moves is seen elsewhere,
/// and not here any more.
#[derive(Debug, Default)]
pub(super) struct Learned {
    sets: [[Mac; WAYS]; SETS],
}

impl Learned {
    fn set(address: Mac) -> usize {
        usize::from(address.0.into_iter().fold(0, |hash, byte| hash ^ byte ^ byte >> 4)) & (SETS.wrapping_sub(1))
    }

    pub(super) fn contains(&self, address: Mac) -> bool {
        self.sets.get(Self::set(address)).is_some_and(|set| set.contains(&address))
    }

    /// One more. Says whether it was not there.
    pub(super) fn add(&mut self, address: Mac) -> bool {
        let is_new = !self.contains(address);
        if is_new && let Some(set) = self.sets.get_mut(Self::set(address)) {
            set.rotate_right(1);
            set[0] = address;
        }
        is_new
    }

    pub(super) fn remove(&mut self, address: Mac) {
        if let Some(set) = self.sets.get_mut(Self::set(address)) {
            set.iter_mut().filter(|other| **other == address).for_each(|other| *other = Mac::default());
        }
    }
}
