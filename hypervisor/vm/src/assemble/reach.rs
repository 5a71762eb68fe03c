//! Devices of the host that reach memory by themselves: whether the VM can have them.
//!
//! Answers for: what keeps a function of PCI inside the VM, or that nothing does, and what of the VM's own such devices do not go with. Does
//! not answer for: which streams a device sends by (the kernel), nor for platform devices, of which the host's tree tells ([`super::passed`]).

use super::{AssembleError, Description, Reach, Subject};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use vdev::{DeviceId, Place};
use vgic::Version;

/// A balloon that the VM has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balloon {
    /// Which of its devices it is.
    pub device: DeviceId,
    /// The guest takes pages back by touching them.
    pub lends: bool,
}

/// What is wrong with what the configuration says that a function of PCI reaches; behind its name this is a sentence. `asks_smmu`: the
/// function leaves it to an SMMU in front of it what it reaches.
#[must_use]
pub const fn function_flaw(reach: Reach, is_behind_smmu: bool, asks_smmu: bool) -> Option<&'static str> {
    match (reach, is_behind_smmu) {
        // Nor is it known not to ask: its VM's RAM would have to be where the machine's is, and behind its stream, too.
        (_, true) if !asks_smmu => Some(
            "is a virtio device, which need not ask the SMMU in front of it: it could reach everybody's memory. `vdev \
             virtio-blk` and its kin are there for VMs",
        ),
        (Reach::Everything, true) => Some("is behind an SMMU, which confines it: leave `uncontained` out"),
        (Reach::Own | Reach::Nothing, false) => Some(
            "reaches memory by itself, and no SMMU confines it: it could reach everybody's. `uncontained` passes it all \
             the same, with the guest's RAM where the machine's is",
        ),
        _ => None,
    }
}

/// Whatever is wrong with devices that reach memory in a VM with a `gic` of this architecture and this balloon.
#[must_use]
pub fn check_reach(description: &Description, gic: Version, balloon: Option<Balloon>) -> Vec<AssembleError> {
    let mut errors = Vec::new();
    for (name, place, reach) in masters(description) {
        let mut refuse = |why: &str, hint, other| {
            let message = format!("`pass`: {name} {why}");
            errors.push(AssembleError { place, hint: Some(hint), other, ..AssembleError::new(Subject::Vm, message) });
        };
        let the_balloon = balloon.map(|balloon| Subject::Vdev(balloon.device.0.into()));
        match (reach, balloon) {
            (Reach::Own, _) if gic == Version::V2 => {
                let why = "reaches memory by itself, and would reach the interrupt controller (GICv2), too";
                refuse(why, "what a device reaches is what the guest has, and a GICv2's interface is in it", None);
            }
            // The guest takes such pages back by touching them, which a device cannot.
            (Reach::Own, Some(Balloon { lends: true, .. })) => {
                let why = "reaches memory by itself, and does not bring back pages from a balloon that lends";
                refuse(why, "leave `lend` out", the_balloon);
            }
            (Reach::Everything, Some(_)) => {
                let why = "is `uncontained`, and pages from a balloon would not come back to their places";
                refuse(why, "leave the balloon out", the_balloon);
            }
            _ => {}
        }
    }
    errors
}

/// What messages call each device that the VM gets, where it is passed, and what it reaches.
fn masters(description: &Description) -> impl Iterator<Item = (String, Option<Place>, Reach)> {
    let devices = description.passed.iter().filter_map(|device| {
        let region = device.regions.first()?;
        Some((format!("the device at {}", region.host.start()), region.place.or(device.place), device.reach))
    });
    let functions = description.functions.iter();
    devices.chain(functions.map(|function| (format!("pci:{}", function.wanted), function.place, function.reach)))
}
