//! Devices of the host that the guest gets: what of the host they are.
//!
//! Answers for: that there is such a device, all of it and nothing else is passed, nobody but the guest could want its interrupt, and
//! what it reaches by itself as far as the host's device tree says. Does not answer for: who else has it at that time (the kernel:
//! `host::ownership`), nor for its node in the guest's tree ([`crate::tree::passed`]).
//!
//! A page is the least that can be passed, so all that is in it goes to the guest, and a device goes with all its pages.

use super::{AssembleError, Description, Host, Subject, limit};
use crate::tree::passed::PassedNode;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use machine::{Device, Stream};
use types::{IntId, Ipa, Pa, Range};
use vdev::{DeviceId, Place, WantedFunction, Way};

/// What a passed device reaches by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// `n`: no memory.
    Nothing,
    /// `d`: what the guest reaches. An SMMU sees to that.
    Own,
    /// `d`, and `uncontained`: whatever the machine has. Nothing keeps it from that.
    Everything,
}

/// Something of the host that reaches memory through SMMUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedStreams {
    /// Where the configuration says that it is passed.
    pub place: Option<Place>,
    /// What it is: its path in the host's tree.
    pub device: String,
    /// What it sends by.
    pub streams: Vec<Stream>,
}

/// What of the host is passed as one thing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedDevice {
    /// Where the configuration says so.
    pub place: Option<Place>,
    /// What it reaches by itself.
    pub reach: Reach,
    /// Its pages of registers.
    pub regions: Vec<PassedRegion>,
    /// Its interrupts.
    pub interrupts: Vec<PassedInterrupt>,
}

/// A function of the machine's PCI Express that the guest has on its own bus.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PassedFunction {
    /// Which of the VM's devices stands for it.
    pub vdev: usize,
    /// Which function.
    pub wanted: WantedFunction,
    /// `without-reset`: it need not be one that can be reset.
    pub without_reset: bool,
    /// What it reaches by itself.
    pub reach: Reach,
    /// Where the configuration says so.
    pub place: Option<Place>,
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

/// What the guest's tree is to have of all that is passed, and what of it is behind SMMUs.
pub(super) fn nodes(
    description: &Description,
    host: &Host<'_>,
) -> Result<(Vec<PassedNode>, Vec<PassedStreams>), Vec<AssembleError>> {
    let (mut nodes, mut streams, mut errors) = (Vec::new(), Vec::new(), Vec::new());
    let Some(tree) = host.tree.filter(|_| !description.passed.is_empty()) else { return Ok((nodes, streams)) };
    let devices = machine::devices(tree)
        .map_err(|error| alloc::vec![AssembleError::new(Subject::Vm, format!("nothing can be passed: {error}"))])?;
    for passed in &description.passed {
        let touched: Vec<&Device> = devices.iter().filter(|device| passed.touches(device)).collect();
        let before = errors.len();
        check_regions(passed, &touched, limit(host), &mut errors);
        let is_confined = touched.iter().any(|device| !device.streams.is_empty());
        touched.iter().for_each(|device| check_device(passed, device, is_confined, &mut errors));
        check_interrupts(passed, &devices, &mut errors);
        if errors.len() == before {
            nodes.extend(touched.iter().map(|device| PassedNode::new(passed, device)));
            streams.extend(touched.iter().filter(|device| !device.streams.is_empty()).map(|device| PassedStreams {
                place: passed.place,
                device: device.path.clone(),
                streams: device.streams.clone(),
            }));
        }
    }
    if errors.is_empty() { Ok((nodes, streams)) } else { Err(errors) }
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
            errors.push(at(
                region.place,
                message,
                "what can be passed is in the machine's device tree; RAM is not, `ram` gives it",
            ));
        }
    }
}

/// `is_confined`: something of what is passed is behind an SMMU.
fn check_device(passed: &PassedDevice, device: &Device, is_confined: bool, errors: &mut Vec<AssembleError>) {
    let Device { path, .. } = device;
    let place = passed.regions.iter().find(|region| device.registers.iter().any(|range| region.host.overlaps(range)));
    let place = place.and_then(|region| region.place).or(passed.place);
    if let Some(role) = device.role {
        let message = format!("`pass`: {path} is {role}, which is the hypervisor's");
        return errors.push(at(place, message, "no guest can have it"));
    }
    if let Some((why, hint)) = flaw(passed.reach, device, is_confined) {
        return errors.push(at(place, format!("`pass`: {path} {why}"), hint));
    }
    if let Some(rest) = device.registers.iter().find(|range| passed.guest_range(range).is_none()) {
        let message = format!("`pass`: {path} has registers at {rest}, and not all of them are passed");
        errors.push(at(place, message, "a device is passed as a whole, in one `pass`"));
    }
}

/// What is wrong with what the configuration says that it reaches, and what to do about that.
fn flaw(reach: Reach, device: &Device, is_confined: bool) -> Option<(&'static str, &'static str)> {
    match reach {
        Reach::Nothing if device.reaches_memory => Some(("reaches memory by itself", "say `d` in place of `n`")),
        // What is in the same page as one that is confined need not reach memory.
        Reach::Own if device.streams.is_empty() && (device.reaches_memory || !is_confined) => {
            let why = "reaches memory by itself, and no SMMU confines it: it could reach everybody's";
            Some((why, "`uncontained` passes it all the same, with the guest's RAM where the machine's is"))
        }
        Reach::Everything if !device.streams.is_empty() => {
            Some(("is behind an SMMU, which confines it", "leave `uncontained` out"))
        }
        _ => None,
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
                    format!("`pass`: interrupt {number} is that of {}, which is not passed with it", device.path);
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
