//! What brings passed devices to rest at the VM's end.
//!
//! Answers for: which passed region a vdev names that does so, that its registers are there, and that `safety` gets no device without one.
//! Does not answer for: what the steps are (`vdev::Rest`), nor for carrying them out (the kernel).
//!
//! Read when all devices are known by their numbers: the host bridge of a PCI bus may be one that nobody has named.

use super::vdevs::Vdevs;
use super::{Reader, span_of};
use crate::assemble::{MAX_RESTS, PassedDevice, PassedRegion, PassedRest};
use alloc::format;
use alloc::vec::Vec;
use qvmconf::Span;
use qvmconf::words::Keyword;
use vdev::{DeviceId, OptionError, Rest, Way, check_rest};

/// Those of all vdevs that bring something to rest.
pub(super) fn read(reader: &mut Reader<'_>, vdevs: &Vdevs) -> Vec<PassedRest> {
    // What is wrong with a `pass` is said, and not once more here.
    let is_whole = !reader.diagnostics.has_errors();
    let mut rests: Vec<(PassedRest, Span)> = Vec::new();
    for ((vdev, span), number) in vdevs.list.iter().zip(&vdevs.spans).zip(0_u16..) {
        let Some(brings) = vdev.factory.rest else { continue };
        match brings(&vdev.options).and_then(|rest| find(rest, &vdevs.passed)) {
            Ok(Some((device, region, rest))) => {
                let span = rest.place.and_then(span_of).unwrap_or(*span);
                if let Some((_, other)) = rests.iter().find(|(other, _)| other.region == region) {
                    let message = format!("`vdev {}`: {} is brought to rest twice", vdev.factory.name, rest.region);
                    reader.conflict(span, message, *other, "here too");
                }
                if rests.len() >= MAX_RESTS {
                    reader.error(span, format!("more than {MAX_RESTS} regions are brought to rest"), "");
                    break;
                }
                rests.push((PassedRest { vdev: DeviceId(number), device, region, way: rest.way }, span));
            }
            Ok(None) if !is_whole => {}
            Ok(None) => {
                let message = format!("`vdev {}`: no `loc` of a `pass` begins there", vdev.factory.name);
                reader.error(*span, message, "`region` is the guest's address, as in `pass loc REGION,LENGTH,rwn`");
            }
            Err(OptionError { place, message, .. }) => {
                let span = place.and_then(span_of).unwrap_or(*span);
                reader.error(span, format!("`vdev {}`: {message}", vdev.factory.name), "");
            }
        }
    }
    let rests = rests.into_iter().map(|(rest, _)| rest).collect::<Vec<_>>();
    if is_whole {
        refuse_restless(reader, vdevs, &rests);
    }
    rests
}

/// The device that is meant, and its region; `None` if there is none.
fn find(rest: Rest, passed: &[PassedDevice]) -> Result<Option<(usize, PassedRegion, Rest)>, OptionError> {
    let at = |place, message| Err(OptionError { option: None, place, message });
    let found = passed.iter().zip(0_usize..).find_map(|(device, number)| {
        let region = device.regions.iter().find(|region| region.guest.start() == rest.region)?;
        Some((number, *region))
    });
    let Some((device, region)) = found else { return Ok(None) };
    if !region.writable {
        return at(rest.place, format!("{} is passed without `w`: it cannot be written", rest.region));
    }
    if let Way::Steps(steps) = &rest.way
        && let Err((step, message)) = check_rest(steps, region.guest.length())
    {
        return at(step.place, format!("`{}`: {message}", step.action));
    }
    Ok(Some((device, region, rest)))
}

/// `safety`: what nothing brings to rest is not passed. Functions of PCI are reset, unless the configuration does without.
fn refuse_restless(reader: &mut Reader<'_>, vdevs: &Vdevs, rests: &[PassedRest]) {
    let Some(safety) = reader.last(Keyword::Safety) else { return };
    let is_restless = |number| rests.iter().all(|rest| rest.device != number);
    let devices = vdevs.passed.iter().zip(0_usize..).filter(|(_, number)| is_restless(*number));
    let devices = devices.map(|(device, _)| {
        (device.place, "`pass`: nothing brings the device to rest at the end of the VM, as `vdev quiesce` would")
    });
    let functions = vdevs.functions.iter().filter(|function| function.without_reset);
    let functions = functions.map(|function| {
        (
            function.place,
            "`without-reset`: nothing need bring the function to rest at the end of the VM, as a reset would",
        )
    });
    for (place, message) in devices.chain(functions) {
        let Some(span) = place.and_then(span_of) else { continue };
        reader.conflict(span, message, safety.span.to(safety.value_span()), "which this asks for");
    }
}
