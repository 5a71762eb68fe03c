//! What `smmuman` is told: devices of the machine that may do DMA without being a VM's.
//!
//! Answers for: reading it, what it comes to on this machine, and making it so. Does not answer for: the language
//! (`smmu::configuration`), devices that VMs are passed.
//!
//! It is told once, and that lasts until the machine's end. What is wrong with it is told all at once, and then nothing of it takes
//! effect; an SMMU that fails while it is carried out leaves the device refused, and that is told.

use super::unit::Reach;
use super::units;
use crate::address_space::Image;
use crate::function;
use crate::pcie::{self, Holder};
use crate::stage2::DeviceSpace;
use crate::start;
use crate::startup;
use crate::sync::{Lock, Rank};
use ::pcie::PciAddress;
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use host::shell::{Part, Word};
use machine::Machine;
use pagetable::Access;
use qvmconf::Sources;
use smmu::configuration::{self, Configuration, Device, OnFault, Place, Places, Spec};
use smmu::{Owner, Stage2};
use types::{Pa, Range, RequesterId};
use vm::config::Includes;

/// Whose its streams are.
const NAME: &str = "smmuman";
/// Most streams of one `stream:FIRST-LAST`.
const MAX_STREAMS: u32 = 256;

/// What holds for all SMMUs.
#[derive(Clone, Copy)]
pub(super) struct Rules {
    /// What becomes of a device that reaches too far.
    pub(super) on_fault: OnFault,
    /// How much is told.
    pub(super) debug: u8,
}

/// `None` until it has been told.
static RULES: Lock<Option<Rules>> = Lock::new(Rank::Streams, None);

pub(super) fn rules() -> Rules {
    RULES.lock().unwrap_or(Rules { on_fault: OnFault::Report, debug: 0 })
}

/// Does what a configuration says. `missing` says in its own words that a file is.
///
/// # Errors
/// Everything that is wrong, as it is to be shown.
pub(crate) fn configure(parts: &[Part<'_>], missing: impl Fn(&Word<'_>, String) -> String) -> Result<(), String> {
    let Some((archive, machine)) = startup::archive().zip(start::MACHINE.get()) else {
        return Err("there is no boot archive".into());
    };
    if machine.smmus.is_empty() {
        return Err("smmuman: this machine has no SMMU: devices cannot be confined".into());
    }
    if RULES.lock().is_some() {
        return Err("smmuman: it has a configuration already, which lasts".into());
    }
    let mut sources = Sources::new();
    let roots = startup::roots(archive, parts, &mut sources, missing)?;
    let configuration = configuration::parse(&mut sources, &roots, &mut Includes(archive));
    if configuration.diagnostics.has_errors() {
        return Err(format!("{}", sources.render_all(&configuration.diagnostics)));
    }
    let here = Here { machine, senders: function::senders() };
    let places = configuration::resolve(&configuration, &here);
    let places = places.map_err(|found| format!("{}", sources.render_all(&found)))?;
    let Configuration { on_fault, debug, devices, .. } = configuration;
    *RULES.lock() = Some(Rules { on_fault, debug });
    let mut wrong = String::new();
    for ((device, streams), group) in devices.iter().zip(places).zip(0..) {
        if let Err(why) = confine(&here, device, &streams, group) {
            wrong.push_str(&format!("smmuman: `{}`: {why}\n", device.name));
        } else if debug > 0 {
            log::info!(
                "smmuman: `{}` is known; streams: {}, ranges: {}",
                device.name,
                streams.len(),
                device.allowed.len()
            );
        }
    }
    if wrong.is_empty() { Ok(()) } else { Err(wrong) }
}

/// Lets a device reach what it may. One that may reach nothing has a name by that, and no more.
fn confine(here: &Here<'_>, device: &Device, streams: &[Place], group: u32) -> Result<(), String> {
    let placed = || streams.iter().filter_map(|place| Some((units().get(place.smmu)?, place.stream)));
    for (unit, stream) in placed() {
        unit.declare(&device.name, stream, group, device.bypass.is_some())?;
    }
    if device.bypass.is_some() || !device.allowed.is_empty() {
        here.claim(streams)?;
    }
    let give = |vmid: u16, reach: Reach<'_>| {
        let owner = Owner { name: NAME.into(), vmid };
        placed().try_for_each(|(unit, stream)| unit.give(stream, &owner, reach))
    };
    if device.bypass.is_some() {
        // Nothing of it is translated, so nothing is tagged.
        give(0, Reach::Bypass)?;
        log::warn!("smmuman: `{}` is let through: it reaches all memory", device.name);
        return Ok(());
    }
    if device.allowed.is_empty() {
        return Ok(());
    }
    let no_memory = || String::from("there is no memory for its translation tables, or no VMID");
    let mut space = DeviceSpace::new().ok_or_else(no_memory)?;
    for allowed in &device.allowed {
        let mut access = Access::empty();
        access.set(Access::READ, allowed.read);
        access.set(Access::WRITE, allowed.write);
        let range = allowed.memory.range;
        space.map(range, access).map_err(|why| format!("{range}: {why}"))?;
    }
    let (vmid, vtcr, root) = space.describe().ok_or_else(no_memory)?;
    // From here on an SMMU walks it, for good: whatever fails below may have been done by half.
    core::mem::forget(space);
    give(vmid, Reach::Stage2(&Stage2 { vtcr, root }))
}

/// What this machine has.
struct Here<'m> {
    machine: &'m Machine,
    /// Functions of PCI, by the streams that they send by.
    senders: Vec<(machine::Stream, PciAddress)>,
}

impl Here<'_> {
    fn senders(&self, place: Place) -> impl Iterator<Item = PciAddress> {
        let stream = machine::Stream { smmu: place.smmu, id: place.stream };
        self.senders.iter().filter(move |(other, _)| *other == stream).map(|(_, address)| *address)
    }

    /// Functions that reach something are no VM's from now on, nor is what they can reach without asking an SMMU.
    fn claim(&self, streams: &[Place]) -> Result<(), String> {
        let mut functions: Vec<_> = streams.iter().flat_map(|place| self.senders(*place)).collect();
        functions.sort_unstable();
        functions.dedup();
        pcie::claim(Holder::Smmuman, NAME, &functions)
            .map_err(|refusals| refusals.into_iter().map(|(_, why)| why).collect::<Vec<_>>().join("; "))
    }

    /// Those streams, if an SMMU that works has them.
    fn usable(streams: Vec<Place>) -> Result<Vec<Place>, String> {
        let flaw = |place: &Place| units().get(place.smmu).and_then(|unit| unit.flaw(place.stream));
        streams.iter().find_map(flaw).map_or(Ok(streams), Err)
    }
}

impl Places for Here<'_> {
    fn streams(&self, spec: &Spec) -> Result<Vec<Place>, String> {
        let Self { machine, .. } = self;
        let place = |stream: &machine::Stream| Place { smmu: stream.smmu, stream: stream.id };
        let streams: Vec<Place> = match *spec {
            Spec::Pci { bus, device, function } => {
                let requester = RequesterId(u16::from(bus) << 8 | u16::from(device) << 3 | u16::from(function));
                // There is no word for which bus of several: the first that has it.
                let maps = machine.masters.iter().filter_map(|master| master.functions.as_ref());
                let stream = maps.filter_map(|functions| functions.stream(requester)).next();
                stream.iter().map(place).collect()
            }
            Spec::Mmio(at) => {
                let starts = |master: &&machine::Master| master.registers.is_some_and(|it| it.start() == at);
                machine.masters.iter().filter(starts).flat_map(|master| &master.streams).map(place).collect()
            }
            Spec::Streams { first, last } => {
                if machine.smmus.len() > 1 {
                    let count = machine.smmus.len();
                    return Err(format!("there are {count} SMMUs: name it by `pci:` or `mmio:`"));
                }
                if last - first >= MAX_STREAMS {
                    return Err(format!("more than {MAX_STREAMS} streams"));
                }
                (first..=last).map(|stream| Place { smmu: 0, stream }).collect()
            }
        };
        if streams.is_empty() {
            return Err(format!("by the device tree there is nothing at {spec}, or it is behind no SMMU"));
        }
        Self::usable(streams)
    }

    /// All other RAM is the hypervisor's, and VMs'. Registers are nobody's to reach by DMA.
    fn may_give(&self, memory: Range<Pa>) -> Result<(), String> {
        let Self { machine, .. } = self;
        let is_reserved = machine.reserved.iter().any(|reserved| reserved.contains_range(&memory));
        let own = machine.initrd.into_iter().chain([Image::here().whole()]);
        if is_reserved && own.into_iter().all(|own| !own.overlaps(&memory)) {
            return Ok(());
        }
        Err("it is not memory that the device tree reserves; all other is the hypervisor's, and its VMs'".into())
    }

    fn taken(&self, place: Place) -> Option<String> {
        let kept = |address| {
            Some(format!("{}; the stream is that of PCI function {address}", pcie::refusal(Holder::Smmuman, address)?))
        };
        let whose = units().get(place.smmu)?.whose(place.stream);
        whose.or_else(|| self.senders(place).find_map(kept))
    }
}
