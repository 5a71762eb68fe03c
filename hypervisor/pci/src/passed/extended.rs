//! The extended configuration space that a guest finds (PCI Express, 7.6.3): the function's serial number, and SR-IOV of one that has made virtual
//! functions.
//!
//! Answers for: finding both in the function's own list, which cannot be trusted to end, and a list of ours for the guest. Does not answer
//! for: making virtual functions, where they are, and whose (the kernel).
//!
//! Virtual functions are the host's to make and to place, and each is some VM's. So nothing that the guest writes here reaches the function. What is left of
//! SR-IOV (PCI Express Base Specification 4.0, 9.3.3) is what the physical function's driver needs to serve them: how many there are, and a word
//! that they are on. That they are not on the guest's bus is said in the specification's own way: the function is "VF Migration Capable", which
//! allows that of "TotalVFs" none is with this physical function at first ("InitialVFs" is 0). None comes later.

use super::space::written;
use types::AccessSize;
use vdev::{HostFunction, PciSlot};

/// Where the list begins.
pub(super) const EXTENDED: u16 = 0x100;
/// Behind the last byte of a configuration space.
const END: u16 = 0x1000;
/// Most entries of a list, each of eight bytes at least; nobody has so many.
const MOST: usize = 48;

/// "Device Serial Number" (7.9.3): its ID, and how many bytes it has.
const SERIAL_NUMBER: u16 = 0x0003;
const SERIAL_NUMBER_SIZE: u16 = 12;

/// SR-IOV (9.3.3): its ID, and how many bytes it has.
const SRIOV: u16 = 0x0010;
const SRIOV_SIZE: u16 = 0x40;
/// "SR-IOV Capabilities", "VF Migration Capable".
const MIGRATION_CAPABLE: u32 = 1;
const CONTROL: u16 = 0x08;
/// "VF Enable".
const ENABLE: u16 = 1 << 0;
/// "VF MSE": they answer in their regions.
const MEMORY: u16 = 1 << 3;
const NUMBER: u16 = 0x10;
const DEVICE: u16 = 0x1a;
const SUPPORTED_PAGE_SIZES: u16 = 0x1c;
const SYSTEM_PAGE_SIZE: u16 = 0x20;
/// Of page sizes: 4 KiB, which everybody has, and what there is after a reset.
const PAGE_4K: u32 = 1;

/// What the guest finds.
#[derive(Debug)]
pub(super) struct Extended {
    /// Where the function has its serial number.
    serial_number: Option<u16>,
    sriov: Option<Sriov>,
}

/// What a guest is told of virtual functions, and what it has written.
#[derive(Debug)]
struct Sriov {
    /// "TotalVFs": as many as the host has made.
    total: u16,
    /// "Function Dependency Link": the function itself.
    link: u8,
    /// "VF Device ID".
    device: u16,
    /// "Supported Page Sizes".
    page_sizes: u32,
    control: u16,
    /// "NumVFs".
    number: u16,
    /// "System Page Size".
    page_size: u32,
}

impl Extended {
    /// Of a function that has made so many virtual ones, and that the guest has at `slot`. Nothing of one that is not PCI Express.
    pub(super) fn new(function: &dyn HostFunction, is_express: bool, virtual_functions: u16, slot: PciSlot) -> Self {
        let found = |id, length| find(function, id, length).filter(|_| is_express);
        let sriov = found(SRIOV, SRIOV_SIZE).filter(|_| virtual_functions > 0);
        Self {
            serial_number: found(SERIAL_NUMBER, SERIAL_NUMBER_SIZE),
            sriov: sriov.map(|at| Sriov::new(function, at, virtual_functions, slot)),
        }
    }

    /// How many virtual functions the guest says to be on.
    pub(super) fn served(&self) -> u16 {
        self.sriov.as_ref().filter(|it| it.control & ENABLE != 0).map_or(0, |it| it.number)
    }

    /// As after a reset.
    pub(super) const fn reset(&mut self) {
        if let Some(sriov) = &mut self.sriov {
            sriov.reset();
        }
    }

    /// What an aligned load of at most a dword finds.
    pub(super) fn read(&self, function: &dyn HostFunction, at: u16, size: AccessSize) -> u64 {
        let shift = u32::from(at & 3).saturating_mul(8);
        u64::from(self.word(function, at & !3).wrapping_shr(shift)) & size.mask()
    }

    pub(super) fn write(&mut self, at: u16, size: AccessSize, value: u64) {
        let begin = self.sriov_at();
        if let Some((sriov, at)) = self.sriov.as_mut().zip(at.checked_sub(begin)) {
            sriov.write(at, size, value);
        }
    }

    /// SR-IOV is the last entry.
    const fn sriov_at(&self) -> u16 {
        if self.serial_number.is_some() { EXTENDED.saturating_add(0x10) } else { EXTENDED }
    }

    fn word(&self, function: &dyn HostFunction, at: u16) -> u32 {
        if let Some(sriov) = &self.sriov
            && let Some(within) = at.checked_sub(self.sriov_at())
        {
            return sriov.word(within);
        }
        let within = at.saturating_sub(EXTENDED);
        let Some(own) = self.serial_number.filter(|_| within < SERIAL_NUMBER_SIZE) else { return 0 };
        let word = function.configuration(own.saturating_add(within), AccessSize::Word, None);
        if within > 0 {
            return word;
        }
        let next = if self.sriov.is_some() { self.sriov_at() } else { 0 };
        word & 0xf_ffff | u32::from(next).wrapping_shl(20)
    }
}

impl Sriov {
    fn new(function: &dyn HostFunction, at: u16, made: u16, slot: PciSlot) -> Self {
        let device = function.configuration(at.saturating_add(DEVICE), AccessSize::Halfword, None);
        // The last one's number is still one of the guest's bus, though nobody is there.
        let room = u16::from(u8::MAX.saturating_sub(slot.number()));
        Self {
            total: made.min(room),
            link: slot.function(),
            device: u16::try_from(device & 0xffff).unwrap_or(0),
            page_sizes: function.configuration(at.saturating_add(SUPPORTED_PAGE_SIZES), AccessSize::Word, None)
                | PAGE_4K,
            control: 0,
            number: 0,
            page_size: PAGE_4K,
        }
    }

    const fn reset(&mut self) {
        (self.control, self.number, self.page_size) = (0, 0, PAGE_4K);
    }

    fn word(&self, within: u16) -> u32 {
        match within {
            0x00 => dword(SRIOV, 1),
            0x04 => MIGRATION_CAPABLE,
            CONTROL => self.control.into(),
            // "InitialVFs".
            0x0c => dword(0, self.total),
            NUMBER => dword(self.number, self.link.into()),
            // "First VF Offset", "VF Stride": next to each other.
            0x14 => dword(1, 1),
            0x18 => dword(0, self.device),
            SUPPORTED_PAGE_SIZES => self.page_sizes,
            SYSTEM_PAGE_SIZE => self.page_size,
            // 9.3.3.14: a BAR that is not there reads zero. SPEC: neither is the "VF Migration State Array" (9.3.3.15), which nobody reads before "VF
            // Migration Enable" is set, and that cannot be.
            _ => 0,
        }
    }

    fn write(&mut self, at: u16, size: AccessSize, value: u64) {
        let (mask, bits) = written(at, size, value, NUMBER);
        let number = self.number & !mask | bits;
        let merged = |old: u32, register: u16| {
            let [low, high] = [0_u16, 2].map(|half| written(at, size, value, register.saturating_add(half)));
            old & !dword(low.0, high.0) | dword(low.1, high.1)
        };
        let page_size = merged(self.page_size, SYSTEM_PAGE_SIZE);
        // 9.3.3.7, 9.3.3.13: neither changes while "VF Enable" is set; beyond TotalVFs, or with no page size that is supported, nothing
        // is promised.
        if self.control & ENABLE == 0 {
            if number <= self.total {
                self.number = number;
            }
            if page_size.is_power_of_two() && page_size & self.page_sizes != 0 {
                self.page_size = page_size;
            }
        }
        let (mask, bits) = written(at, size, value, CONTROL);
        self.control = self.control & !mask | bits & (ENABLE | MEMORY);
    }
}

const fn dword(low: u16, high: u16) -> u32 {
    let ([a, b], [c, d]) = (low.to_le_bytes(), high.to_le_bytes());
    u32::from_le_bytes([a, b, c, d])
}

/// Where the function has an entry with this ID and so many bytes.
fn find(function: &dyn HostFunction, id: u16, length: u16) -> Option<u16> {
    let mut at = EXTENDED;
    for _ in 0..MOST {
        let header = function.configuration(at, AccessSize::Word, None);
        if header == 0 || header == u32::MAX {
            return None;
        }
        if header & 0xffff == u32::from(id) {
            return Some(at).filter(|at| at.saturating_add(length) <= END);
        }
        let next = u16::try_from(header.wrapping_shr(20)).unwrap_or(0) & !3;
        if next < EXTENDED {
            return None;
        }
        at = next;
    }
    None
}
