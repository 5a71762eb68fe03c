//! Putting a VM together from its description.
//!
//! Answers for: making its devices, its bus, its interrupt controller and its device tree, and finding a place for its
//! images. Everything is checked, and nothing is taken: no memory, no thread, no back end but what the factories open.
//! Does not answer for: reading configurations (`config`), nor for carrying the plan out (the kernel: see [`Vm`]).

mod bus;
mod description;
mod error;
mod passed;
mod places;
mod reach;

pub use bus::PciBus;
pub use description::{Description, Host, Schedule, VdevDescription};
pub use error::{AssembleError, Subject};
pub use passed::{
    MAX_RESTS, PassedDevice, PassedFunction, PassedInterrupt, PassedRegion, PassedRest, PassedStreams, Reach,
};
pub use reach::{Balloon, check_reach, function_flaw};

use crate::Files;
use crate::controller::Frames;
use crate::load::{self, LoadPlan};
use crate::partition::{Parts, Vm};
use crate::tree::{self, TreeInput, passed::PassedNode};
use alloc::{format, sync::Arc, vec, vec::Vec};
use core::fmt;
use description::MESSAGES;
use types::{Ipa, Range};
use vdev::{Backends, Bus, Clock, Decoder, Device, DeviceId, Factory, Node, PciSlot, Setup};
use vgic::{Version, Vgic, VgicConfig};

/// A VM that could run. It has taken nothing yet.
#[derive(Debug)]
pub struct Assembled {
    /// The VM.
    pub vm: Vm,
    /// What goes where in its memory, and where it starts.
    pub load: LoadPlan,
    /// Its device tree.
    pub tree: Vec<u8>,
    /// Devices of the host that it gets and SMMUs confine.
    pub streams: Vec<PassedStreams>,
}

/// Puts a VM together. The same description can be put together again, from the very beginning, after the VM has ended.
///
/// # Errors
/// All that is wrong with its addresses, images and devices, in one go; then the first thing that is wrong with what is
/// built from them.
pub fn assemble(
    description: &Description,
    files: &dyn Files,
    host: &Host<'_>,
    backends: &mut dyn Backends,
) -> Result<Assembled, Vec<AssembleError>> {
    let mut errors = check_addresses(description, host);
    let load = match load::plan(&description.load_input(), files) {
        Ok(load) => Some(load),
        Err(failed) => {
            errors.extend(failed.into_iter().map(AssembleError::from));
            None
        }
    };
    let (passed, streams) = passed::nodes(description, host).unwrap_or_else(|failed| {
        errors.extend(failed);
        (Vec::new(), Vec::new())
    });
    let slots = bus::Slots::new(description, host);
    let (devices, shadows) =
        make_devices(description, host.id.address_bits(), slots.as_ref(), files, backends, &mut errors);
    match load {
        Some(load) if errors.is_empty() => {
            let decoder = slots.map(bus::Slots::decoder);
            put_together(description, load, (devices, shadows), (decoder, &passed), files, host)
                .map(|assembled| Assembled { streams, ..assembled })
                .map_err(|error| vec![error])
        }
        _ => Err(errors),
    }
}

fn put_together(
    description: &Description,
    load: LoadPlan,
    (devices, shadows): (Vec<Device>, Vec<Ipa>),
    (decoder, passed): (Option<Arc<dyn Decoder>>, &[PassedNode]),
    files: &dyn Files,
    host: &Host<'_>,
) -> Result<Assembled, AssembleError> {
    let clock = Arc::new(Clock::new(host.frequency, host.epoch));
    let bus = Bus::new(&description.name, clock, devices).map_err(|error| AssembleError::new(Subject::Vm, error))?;
    let bus = match decoder {
        Some(decoder) => bus.with_decoder(decoder),
        None => bus,
    };
    let (gic, frames) = make_controller(description, host)?;
    bus.listeners().iter().for_each(|(_, intid)| gic.report_ends(*intid));
    let tree = make_tree(description, frames, &load, (&bus, passed), files, host)?;
    let vm = Vm::new(Parts {
        name: description.name.clone(),
        memory: description.ram.iter().chain(&description.rom).copied().collect(),
        frames,
        policy: description.policy,
        counter_offset: description.counter_offset,
        bus,
        gic,
        host_id: host.id,
        frequency: host.frequency,
        mitigations: host.mitigations,
        monitors: description.monitors && host.monitors,
        entropy: host.entropy,
        stolen_time: description.stolen_time().map(|page| page.start()),
        shadows,
    });
    Ok(Assembled { vm, load, tree, streams: Vec::new() })
}

/// The end of the addresses that the host's CPUs can form.
fn limit(host: &Host<'_>) -> Ipa {
    end_of(host.id.address_bits())
}

/// The end of the addresses of so many bits.
fn end_of(address_bits: u8) -> Ipa {
    Ipa(1_u64.checked_shl(address_bits.into()).unwrap_or(u64::MAX))
}

/// Whether the host's CPUs can form all addresses: those of stage 2 have as many bits as the host's physical ones.
fn check_addresses(description: &Description, host: &Host<'_>) -> Vec<AssembleError> {
    let (bits, limit) = (host.id.address_bits(), limit(host));
    let too_high = |subject, what: &str, range: Option<Range<Ipa>>| {
        if range.is_some_and(|range| range.end() <= limit) {
            return None;
        }
        let (before, after) = if let Subject::Vdev(_) = subject { ("`vdev ", "`") } else { ("", "") };
        let why = format!("goes beyond {limit}: the host's addresses have {bits} bits");
        Some(AssembleError::new(subject, format!("{before}{what}{after} {why}")))
    };
    let ram = description.ram.iter().enumerate().map(|(index, range)| (Subject::Ram(index), "RAM", Some(*range)));
    let rom = description.rom.iter().enumerate().map(|(index, range)| (Subject::Rom(index), "ROM", Some(*range)));
    let vdevs = description.vdevs.iter().enumerate().filter_map(|(index, vdev)| {
        let range = Range::new(vdev.location?, vdev.factory.region_size);
        Some((Subject::Vdev(index), vdev.factory.name, range))
    });
    let vdevs = vdevs.chain(description.pci_windows());
    let frames = description.controller.frames(host.gic, description.vcpus);
    let messages = frames.and_then(|frames| frames.messages).map(|frame| Some(frame.region()));
    let its = frames.and_then(|frames| frames.its).map(Some);
    let gic = [frames.map(|frames| frames.distributor), frames.map(|frames| frames.interface)];
    let gic = gic.into_iter().chain(messages).chain(its);
    let gic = gic.map(|range| (Subject::InterruptController, "the interrupt controller", range));
    ram.chain(rom).chain(vdevs).chain(gic).filter_map(|(subject, what, range)| too_high(subject, what, range)).collect()
}

/// The interrupt controller, and where its registers are.
fn make_controller(description: &Description, host: &Host<'_>) -> Result<(Vgic, Frames), AssembleError> {
    let error = |why: &dyn fmt::Display| AssembleError::new(Subject::InterruptController, why);
    let version = host.gic;
    if let Some(wanted) = description.controller.version.filter(|wanted| *wanted != version) {
        return Err(error(&format!("a {wanted} for the guest takes one of the host's, which has a {version}")));
    }
    let frames = description.controller.frames(version, description.vcpus);
    let frames = frames.ok_or_else(|| error(&"no room for the interrupt controller's registers"))?;
    let gic = Vgic::new(VgicConfig {
        version,
        vcpus: description.vcpus,
        intids: description.intids(),
        list_registers: host.list_registers,
        priority_bits: host.priority_bits,
    });
    let gic = gic.map_err(|flaw| error(&flaw))?;
    let gic = match version {
        Version::V2 => match frames.messages {
            Some(frame) => gic.with_message_frame(frame),
            None => gic,
        },
        Version::V3 => gic.with_messages_at(frames.distributor.start()),
    };
    let gic = match description.controller.its {
        Some(its) => gic.with_its(its.at, its.lpis).map_err(|flaw| error(&flaw))?,
        None => gic,
    };
    Ok((gic, frames))
}

fn make_devices(
    description: &Description,
    address_bits: u8,
    slots: Option<&bus::Slots>,
    files: &dyn Files,
    backends: &mut dyn Backends,
    errors: &mut Vec<AssembleError>,
) -> (Vec<Device>, Vec<Ipa>) {
    let windows = description.windows(end_of(address_bits));
    let mut shadows = Vec::new();
    let mut devices = Vec::with_capacity(description.vdevs.len());
    for (index, vdev) in description.vdevs.iter().enumerate() {
        let Ok(id) = u16::try_from(index) else {
            errors.push(AssembleError::new(Subject::Vdev(index), "one device too many"));
            break;
        };
        let window = windows.get(index).copied().flatten();
        if vdev.factory.window_size > 0 && window.is_none() {
            let Factory { name, window_size, .. } = vdev.factory;
            let message =
                format!("`vdev {name}`: no room for the {} MiB of addresses that it wants", window_size >> 20);
            errors.push(AssembleError::new(Subject::Vdev(index), message));
            continue;
        }
        let mut setup = Setup {
            id: DeviceId(id),
            name: &vdev.name,
            location: vdev.location,
            interrupt: vdev.interrupt,
            window,
            shadow: description.own_page(vdev),
            connector: slots.and_then(|slots| slots.connector(vdev.slot?)),
            vcpus: description.vcpus,
            address_bits,
            hears_ends: false,
            files,
            backends: &mut *backends,
        };
        let page = setup.shadow;
        let function = description.functions.iter().find(|function| function.vdev == index);
        let made = match (slots.filter(|_| vdev.slot == Some(PciSlot::HOST)), function) {
            (Some(slots), _) => slots.host_bridge(),
            (None, Some(function)) => pci::Passed::attach(&mut setup, function.wanted, function.without_reset),
            (None, None) => vdev.factory.build(&vdev.options, &mut setup),
        };
        match made {
            Ok(made) => {
                shadows.extend(page.filter(|_| setup.shadow.is_none()).map(|page| page.start()));
                devices.push(Device {
                    name: vdev.name.clone(),
                    factory: vdev.factory,
                    // What is on the PCI bus is found by that: the host bridge's registers are everybody's configuration spaces.
                    location: vdev.location.filter(|_| vdev.slot.is_none()),
                    interrupt: vdev.interrupt,
                    window,
                    served: vdev.schedule.is_some(),
                    hears_ends: setup.hears_ends,
                    vdev: made,
                });
            }
            Err(error) => {
                let message = match function {
                    Some(function) => format!("`pass loc pci:{}`: {error}", function.wanted),
                    None => format!("`vdev {}`: {error}", vdev.factory.name),
                };
                let place = error.place.or(function.and_then(|function| function.place));
                errors.push(AssembleError { place, ..AssembleError::new(Subject::Vdev(index), message) });
            }
        }
    }
    types::sort_by(&mut shadows, Ord::cmp);
    (devices, shadows)
}

fn make_tree(
    description: &Description,
    frames: Frames,
    load: &LoadPlan,
    (bus, passed): (&Bus, &[PassedNode]),
    files: &dyn Files,
    host: &Host<'_>,
) -> Result<Vec<u8>, AssembleError> {
    let mut devices = Node::new("devices");
    for id in bus.devices() {
        bus.describe(id, &mut devices);
    }
    let mut user = Vec::with_capacity(load.user_trees.len());
    for tree in &load.user_trees {
        // The plan has found it, and read it.
        let missing = || AssembleError::new(Subject::Load(tree.load), format!("{}: no such file", tree.path));
        user.push(files.file(&tree.path).ok_or_else(missing)?);
    }
    let input = TreeInput {
        name: &description.name,
        ram: &description.ram,
        vcpus: description.vcpus,
        gic: frames,
        messages: description.messages().filter(|_| frames.version == Version::V3).map(|first| (first, MESSAGES)),
        devices,
        passed,
        cmdline: description.cmdline.as_deref(),
        initrd: load.initrd,
        monitors: description.monitors && host.monitors && host.id.has_monitors(),
        seed: host.seed,
        user: &user,
    };
    let tree = tree::generate(&input).map_err(|error| {
        let about = error.user.and_then(|index| load.user_trees.get(index));
        match about {
            Some(tree) => AssembleError::new(Subject::Load(tree.load), format!("{}: {error}", tree.path)),
            None => AssembleError::new(Subject::Vm, error),
        }
    })?;
    let size = u64::try_from(tree.len()).unwrap_or(u64::MAX);
    if size > load.device_tree_space {
        let space = load.device_tree_space;
        let problem = load::Problem::TreeTooLarge { size, space };
        return Err(AssembleError::new(Subject::Vm, problem));
    }
    Ok(tree)
}

#[cfg(test)]
mod tests;
