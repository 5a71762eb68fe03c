//! Devices of the host that the guest gets: what of the host they are.
//!
//! Answers for: that there is such a device, all of it and nothing else is passed, nobody but the guest could want its interrupt, and
//! that it does not reach memory by itself as far as the host's device tree says. Does not answer for: who else has it at that time (the kernel:
//! `host::ownership`), nor for its node in the guest's tree ([`crate::tree::passed`]).
//!
//! A page is the least that can be passed, so all that is in it goes to the guest, and a device goes with all its pages.

use super::{AssembleError, Description, Host, Subject, limit};
use crate::tree::passed::PassedNode;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use machine::Device;
use types::{IntId, Ipa, Pa, Range};
use vdev::{DeviceId, Place, Way};

/// What of the host is passed as one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedDevice {
    /// Where the configuration says so.
    pub place: Option<Place>,
    /// Its pages of registers.
    pub regions: Vec<PassedRegion>,
    /// Its interrupts.
    pub interrupts: Vec<PassedInterrupt>,
}

/// Pages of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassedRegion {
    /// Where the guest has them: whole pages.
    pub guest: Range<Ipa>,
    /// Where the host has them, as many.
    pub host: Range<Pa>,
    /// Whether the guest may write them.
    pub writable: bool,
    /// Where the configuration says so.
    pub place: Option<Place>,
}

/// An interrupt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PassedInterrupt {
    /// Which SPI of the guest.
    pub guest: IntId,
    /// Which SPI of the host.
    pub host: IntId,
    /// `u`: edge-triggered on both sides.
    pub edge: bool,
    /// Where the configuration says so.
    pub place: Option<Place>,
}

/// What brings a device to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedRest {
    /// Which vdev says how.
    pub vdev: DeviceId,
    /// Which of [`Description::passed`] it is.
    pub device: usize,
    /// Its registers, of which the steps have offsets.
    pub region: PassedRegion,
    /// How.
    pub way: Way,
}

/// Most of those that a VM has.
pub const MAX_RESTS: usize = 64;

impl PassedDevice {
    /// Its interrupts, as the guest has them.
    pub fn interrupts(&self) -> impl Iterator<Item = IntId> {
        self.interrupts.iter().map(|interrupt| interrupt.guest)
    }

    /// Where the guest has these registers of the host; `None` if it has not all of them, in one region.
    #[must_use]
    pub fn guest_range(&self, registers: &Range<Pa>) -> Option<Range<Ipa>> {
        let region = self.regions.iter().find(|region| region.host.contains_range(registers))?;
        let offset = registers.start().0.checked_sub(region.host.start().0)?;
        Range::new(region.guest.start().checked_add(offset)?, registers.length())
    }

    fn touches(&self, device: &Device) -> bool {
        let touched = |range: &Range<Pa>| self.regions.iter().any(|region| region.host.overlaps(range));
        device.registers.iter().any(touched)
    }
}

fn at(place: Option<Place>, message: String, hint: &'static str) -> AssembleError {
    AssembleError { place, hint: Some(hint), ..AssembleError::new(Subject::Vm, message) }
}

/// What the guest's tree is to have of all that is passed.
pub(super) fn nodes(description: &Description, host: &Host<'_>) -> Result<Vec<PassedNode>, Vec<AssembleError>> {
    let Some(tree) = host.tree.filter(|_| !description.passed.is_empty()) else { return Ok(Vec::new()) };
    let devices = machine::devices(tree)
        .map_err(|error| alloc::vec![AssembleError::new(Subject::Vm, format!("nothing can be passed: {error}"))])?;
    let (mut nodes, mut errors) = (Vec::new(), Vec::new());
    for passed in &description.passed {
        let touched: Vec<&Device> = devices.iter().filter(|device| passed.touches(device)).collect();
        let before = errors.len();
        check_regions(passed, &touched, limit(host), &mut errors);
        touched.iter().for_each(|device| check_device(passed, device, &mut errors));
        check_interrupts(passed, &devices, &mut errors);
        if errors.len() == before {
            nodes.extend(touched.iter().map(|device| PassedNode::new(passed, device)));
        }
    }
    if errors.is_empty() { Ok(nodes) } else { Err(errors) }
}

fn check_regions(passed: &PassedDevice, touched: &[&Device], limit: Ipa, errors: &mut Vec<AssembleError>) {
    for region in &passed.regions {
        if region.guest.end() > limit {
            let message = format!("`pass`: {} goes beyond {limit}", region.guest);
            errors.push(at(region.place, message, "the host's addresses have no more bits"));
        }
        let is_in = |device: &&&Device| device.registers.iter().any(|registers| region.host.overlaps(registers));
        if touched.iter().find(is_in).is_none() {
            let message = format!("`pass`: the machine has no device at {}", region.host);
            errors.push(at(region.place, message, "what can be passed is in the machine's device tree"));
        }
    }
}

fn check_device(passed: &PassedDevice, device: &Device, errors: &mut Vec<AssembleError>) {
    let Device { path, .. } = device;
    let place = passed.regions.iter().find(|region| device.registers.iter().any(|range| region.host.overlaps(range)));
    let place = place.and_then(|region| region.place).or(passed.place);
    if let Some(role) = device.role {
        let message = format!("`pass`: {path} is {role}, which is the hypervisor's");
        return errors.push(at(place, message, "no guest can have it"));
    }
    if device.reaches_memory {
        let message =
            format!("`pass`: {path} reaches memory by itself, and no SMMU confines it: it could reach everybody's");
        return errors.push(at(place, message, "no guest can have it"));
    }
    if let Some(rest) = device.registers.iter().find(|range| passed.guest_range(range).is_none()) {
        let message = format!("`pass`: {path} has registers at {rest}, and not all of them are passed");
        errors.push(at(place, message, "a device is passed as a whole, in one `pass`"));
    }
}

fn check_interrupts(passed: &PassedDevice, devices: &[Device], errors: &mut Vec<AssembleError>) {
    for interrupt in &passed.interrupts {
        let number = interrupt.host.0;
        let lines =
            |device: &Device| device.interrupts.iter().flatten().find(|line| line.intid == interrupt.host).copied();
        let mut owners = devices.iter().filter_map(|device| Some((device, lines(device)?))).peekable();
        if owners.peek().is_none() {
            let message = format!("`pass`: interrupt {number} is no device's of the machine");
            errors.push(at(interrupt.place, message, "INTIDs: SPI n is n + 32"));
        }
        for (device, line) in owners {
            if !passed.touches(device) {
                let message =
                    format!("`pass`: interrupt {number} is also that of {}, which is not passed with it", device.path);
                errors.push(at(interrupt.place, message, "an interrupt is passed with all devices that raise it"));
            } else if interrupt.edge != is_edge(line.flags) {
                let (is, hint) = if interrupt.edge {
                    ("no edge, and `u` is for edges", "leave `u` out")
                } else {
                    ("an edge", "say so by `u`, as in gic:40,u")
                };
                let message = format!("`pass`: interrupt {number} of {} is {is}", device.path);
                errors.push(at(interrupt.place, message, hint));
            }
        }
    }
}

/// Linux' `arm,gic-v3` binding, third cell: 1 is a rising edge, 2 a falling one.
const fn is_edge(flags: u32) -> bool {
    flags & 3 != 0
}
