//! The registers of `vdev shmem`, byte by byte: guests access them in any size.

use types::{AccessSize, IntId, Ipa};
use vdev::{AccessFault, RegionName};

/// What has become of what the guest asked for (`GSS_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Ok = 0,
    UnknownFailure = 1,
    NoMemory = 2,
    ClientMax = 3,
    IllegalName = 4,
    NoPermission = 5,
    DoesNotExist = 6,
}

/// Reads "QVMG2GSM" as bytes.
pub(super) const SIGNATURE: u64 = 0x4d53_4732_474d_5651;

const SIZE: u64 = 0x18;
const NAME: u64 = 0x1c;
const FIND: u64 = 0x3c;
/// What follows is reserved, up to the end of the page: reads as zero. The original's later versions have permissions there.
const END: usize = 0x40;

/// The factory page.
#[derive(Debug)]
pub(super) struct Factory {
    shmem: u64,
    vector: u32,
    status: Status,
    size: u32,
    pub(super) name: [u8; RegionName::SIZE],
    find: u32,
}

/// What a store to the factory page asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stored {
    Nothing,
    Size(u32),
    Find(u32),
}

impl Factory {
    pub(super) fn new(interrupt: Option<IntId>) -> Self {
        let vector = interrupt.map_or(u32::MAX, |intid| intid.0);
        Self { shmem: 0, vector, status: Status::Ok, size: 0, name: [0; RegionName::SIZE], find: 0 }
    }

    pub(super) fn attached(&mut self, control: Ipa, pages: u32) {
        (self.shmem, self.size, self.status) = (control.0, pages, Status::Ok);
    }

    pub(super) fn refuse(&mut self, status: Status) {
        self.status = status;
    }

    pub(super) fn found(&mut self, region: Option<(RegionName, u32)>) {
        match region {
            Some((name, pages)) => (self.name, self.size, self.status) = (*name.bytes(), pages, Status::Ok),
            None => self.status = Status::DoesNotExist,
        }
    }

    pub(super) fn read(&self, offset: u64, size: AccessSize) -> Result<u64, AccessFault> {
        let numbers = [SIGNATURE, self.shmem];
        let words = [self.vector, self.status as u32, self.size];
        let mut bytes = numbers.iter().flat_map(|number| number.to_le_bytes());
        let page = bytes.by_ref().chain(words.iter().flat_map(|word| word.to_le_bytes()));
        let page = page.chain(self.name).chain(self.find.to_le_bytes()).chain(core::iter::repeat(0));
        Ok(gather(page, offset, size))
    }

    pub(super) fn write(&mut self, offset: u64, size: AccessSize, value: u64) -> Result<Stored, AccessFault> {
        for (byte, at) in value.to_le_bytes().into_iter().zip(offset..offset.saturating_add(size.bytes())) {
            let place = at.checked_sub(NAME).and_then(|index| self.name.get_mut(usize::try_from(index).ok()?));
            if let Some(place) = place {
                *place = byte;
            }
        }
        if let Some(size) = stored(SIZE, offset, size, value) {
            self.size = size;
            return Ok(Stored::Size(size));
        }
        if let Some(number) = stored(FIND, offset, size, value) {
            self.find = number;
            return Ok(Stored::Find(number));
        }
        Ok(Stored::Nothing)
    }
}

/// A control page, at the moment of a load.
#[derive(Debug)]
pub(super) struct Control {
    pub(super) status: u32,
    pub(super) index: u8,
}

const NOTIFY: u64 = 8;
const DETACH: u64 = 12;

impl Control {
    /// Whether a load at `offset` has the guest know what `status` says.
    pub(super) const fn reads_status(offset: u64) -> bool {
        offset == 0
    }

    pub(super) fn read(&self, offset: u64, size: AccessSize) -> Result<u64, AccessFault> {
        let bytes = self.status.to_le_bytes().into_iter().chain(u32::from(self.index).to_le_bytes());
        Ok(gather(bytes.chain(core::iter::repeat(0)), offset, size))
    }

    /// The clients that a store is to notify. `Err`: there are no registers.
    pub(super) fn notify(offset: u64, value: u64) -> Result<Option<u16>, AccessFault> {
        match offset {
            NOTIFY => Ok(u16::try_from(value & 0xffff).ok().filter(|clients| *clients != 0)),
            0..END_OF_CONTROL => Ok(None),
            _ => Err(AccessFault::Unsupported),
        }
    }

    /// Whether a store ends it.
    pub(super) fn detaches(offset: u64, size: AccessSize) -> bool {
        stored(DETACH, offset, size, 0).is_some()
    }
}

const END_OF_CONTROL: u64 = 0x10;

/// The number in the bytes from `offset` on.
fn gather(bytes: impl Iterator<Item = u8>, offset: u64, size: AccessSize) -> u64 {
    let offset = usize::try_from(offset).unwrap_or(END).min(END);
    let mut value = [0; 8];
    let length = usize::try_from(size.bytes()).unwrap_or(0);
    value.iter_mut().take(length).zip(bytes.skip(offset)).for_each(|(to, from)| *to = from);
    u64::from_le_bytes(value)
}

/// What is stored to the register at `register`, if the store begins at it or before.
fn stored(register: u64, offset: u64, size: AccessSize, value: u64) -> Option<u32> {
    let skipped = register.checked_sub(offset).filter(|skipped| *skipped < size.bytes())?;
    let shift = u32::try_from(skipped).ok()?.checked_mul(8)?;
    u32::try_from(value.checked_shr(shift)? & u64::from(u32::MAX)).ok()
}
