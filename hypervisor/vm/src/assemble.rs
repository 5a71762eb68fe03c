//! Putting a VM together from its description.
//!
//! Answers for: making its devices, its bus, its interrupt controller and its device tree, and finding a place for its
//! images. Everything is checked, and nothing is taken: no memory, no thread, no back end but what the factories open.
//! Does not answer for: reading configurations (`config`), nor for carrying the plan out (the kernel: see [`Vm`]).

mod bus;
mod places;

pub use bus::PciBus;

use crate::Files;
use crate::controller::{Controller, Frames};
use crate::id_registers::IdRegisters;
use crate::load::{self, Load, LoadError, LoadInput, LoadPlan};
use crate::partition::{Parts, Vm};
use crate::policy::Unsupported;
use crate::smccc::Mitigations;
use crate::tree::{self, TreeInput};
use crate::trng::Entropy;
use alloc::{format, string::String, string::ToString, sync::Arc, vec, vec::Vec};
use core::fmt;
use types::{Frequency, IntId, Ipa, Range};
use vdev::{Backends, Bus, Clock, Decoder, Device, DeviceId, Factory, Node, Options, PciSlot, Place, Setup};
use vgic::{Version, Vgic, VgicConfig};

/// What a VM is to be.
#[derive(Debug)]
pub struct Description {
    /// What it is called.
    pub name: String,
    /// RAM, in the order of the configuration.
    pub ram: Vec<Range<Ipa>>,
    /// ROM, likewise.
    pub rom: Vec<Range<Ipa>>,
    /// Ranges where nothing is to be placed.
    pub reserved: Vec<Range<Ipa>>,
    /// Interrupts that messages are not to have.
    pub reserved_interrupts: Vec<IntId>,
    /// How many vCPUs it has.
    pub vcpus: usize,
    /// What goes into its memory.
    pub loads: Vec<Load>,
    /// The guest's command line.
    pub cmdline: Option<String>,
    /// Where it starts, if not where its image says.
    pub entry: Option<Ipa>,
    /// Where the interrupt controller is.
    pub controller: Controller,
    /// Where its device tree is to be, if that matters.
    pub tree_at: Option<Ipa>,
    /// Its devices.
    pub vdevs: Vec<VdevDescription>,
    /// Its PCI bus, if some of them are on one.
    pub pci: Option<PciBus>,
    /// What becomes of accesses to what it does not have.
    pub policy: Unsupported,
    /// Whether it has performance monitors, if the host has some to give.
    pub monitors: bool,
    /// How far its counters are behind the host's; without it they start at zero.
    pub counter_offset: Option<u64>,
}

/// What a device is to be.
#[derive(Debug)]
pub struct VdevDescription {
    /// What makes it.
    pub factory: &'static Factory,
    /// What it is called.
    pub name: String,
    /// `loc`.
    pub location: Option<Ipa>,
    /// Where on the PCI bus it is, if it is there; then it has no `loc`, unless it is the host bridge.
    pub slot: Option<PciSlot>,
    /// `intr`, or the line that its pin on the PCI bus is connected to.
    pub interrupt: Option<IntId>,
    /// `sched`: that of a thread of its own, which wakes it, and of its workers; without it, the VM's thread does.
    pub schedule: Option<Schedule>,
    /// Whether it takes part in the status report (`set debug`).
    pub reports: bool,
    /// Its own options.
    pub options: Options,
}

/// How threads that work for a device are scheduled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// 1 to 255, higher is more urgent.
    pub priority: u8,
    /// Among others of the same priority it runs until it has nothing to do, and takes no turns.
    pub fifo: bool,
}

/// What the host's CPUs are, as far as guests get to see it.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    /// Their identification registers.
    pub id: IdRegisters,
    /// Ticks per second of their counter.
    pub frequency: Frequency,
    /// Seconds since 1970, in UTC, when that was zero; zero if nobody knows.
    pub epoch: u64,
    /// The architecture of their interrupt controller.
    pub gic: Version,
    /// How many list registers they have: `ICH_VTR_EL2.ListRegs + 1`, or that of `GICH_VTR`.
    pub list_registers: usize,
    /// How many priority bits their virtual interface has: `ICH_VTR_EL2.PRIbits + 1`.
    pub priority_bits: u8,
    /// What firmware said of its workarounds.
    pub mitigations: Mitigations,
    /// Whether guests can be given the performance monitors: they have an interrupt for each CPU.
    pub monitors: bool,
    /// Where random numbers come from, if from anywhere.
    pub entropy: Option<Entropy>,
    /// Entropy for the guest: eight bytes for where its kernel goes, the rest for its generator; empty for none.
    pub seed: &'a [u8],
}

/// A VM that could run. It has taken nothing yet.
#[derive(Debug)]
pub struct Assembled {
    /// The VM.
    pub vm: Vm,
    /// What goes where in its memory, and where it starts.
    pub load: LoadPlan,
    /// Its device tree.
    pub tree: Vec<u8>,
}

/// What an error is about: an index in one of the description's lists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The VM as a whole.
    Vm,
    /// One of [`Description::ram`].
    Ram(usize),
    /// One of [`Description::rom`].
    Rom(usize),
    /// One of [`Description::loads`].
    Load(usize),
    /// [`Description::entry`].
    Entry,
    /// [`Description::tree_at`].
    Tree,
    /// One of [`Description::vdevs`].
    Vdev(usize),
    /// The interrupt controller.
    InterruptController,
}

/// Why a VM cannot be put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssembleError {
    /// What it is about.
    pub subject: Subject,
    /// The other party, where two are at odds.
    pub other: Option<Subject>,
    /// Where in the configuration, if the thing itself knows more exactly than the subject.
    pub place: Option<Place>,
    /// One sentence.
    pub message: String,
    /// What to do about it, where there is something to say.
    pub hint: Option<&'static str>,
}

impl AssembleError {
    fn new(subject: Subject, message: impl fmt::Display) -> Self {
        Self { subject, other: None, place: None, message: message.to_string(), hint: None }
    }
}

impl fmt::Display for AssembleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for AssembleError {}

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
    let slots = bus::Slots::new(description, host);
    let (devices, shadows) = make_devices(description, limit(host), slots.as_ref(), files, backends, &mut errors);
    match load {
        Some(load) if errors.is_empty() => {
            let decoder = slots.map(bus::Slots::decoder);
            put_together(description, load, (devices, shadows), decoder, files, host).map_err(|error| vec![error])
        }
        _ => Err(errors),
    }
}

fn put_together(
    description: &Description,
    load: LoadPlan,
    (devices, shadows): (Vec<Device>, Vec<Ipa>),
    decoder: Option<Arc<dyn Decoder>>,
    files: &dyn Files,
    host: &Host<'_>,
) -> Result<Assembled, AssembleError> {
    let clock = Arc::new(Clock::new(host.frequency, host.epoch));
    let bus = Bus::new(&description.name, clock, devices).map_err(|error| AssembleError::new(Subject::Vm, error))?;
    let bus = match decoder {
        Some(decoder) => bus.with_decoder(decoder),
        None => bus,
    };
    let version = host.gic;
    if let Some(wanted) = description.controller.version.filter(|wanted| *wanted != version) {
        let why = format!("a {wanted} for the guest takes one of the host's, which has a {version}");
        return Err(AssembleError::new(Subject::InterruptController, why));
    }
    let frames = description.controller.frames(version, description.vcpus).ok_or_else(|| {
        AssembleError::new(Subject::InterruptController, "no room for the interrupt controller's registers")
    })?;
    let gic = Vgic::new(VgicConfig {
        version,
        vcpus: description.vcpus,
        intids: description.intids(),
        list_registers: host.list_registers,
        priority_bits: host.priority_bits,
    });
    let gic = gic.map_err(|error| AssembleError::new(Subject::InterruptController, error))?;
    let gic = match version {
        Version::V2 => match frames.messages {
            Some(frame) => gic.with_message_frame(frame),
            None => gic,
        },
        Version::V3 => gic.with_messages_at(frames.distributor.start()),
    };
    let gic = match description.controller.its {
        Some(its) => gic.with_its(its.at, its.lpis),
        None => Ok(gic),
    };
    let gic = gic.map_err(|error| AssembleError::new(Subject::InterruptController, error))?;
    bus.listeners().iter().for_each(|(_, intid)| gic.report_ends(*intid));
    let tree = make_tree(description, frames, &load, &bus, files, host)?;
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
    Ok(Assembled { vm, load, tree })
}

impl Description {
    fn load_input(&self) -> LoadInput<'_> {
        let Self { ram, rom, reserved, loads, entry, tree_at, .. } = self;
        LoadInput { ram, rom, reserved, loads, entry: *entry, tree_at: *tree_at }
    }

    /// How many INTIDs its interrupt controller has: as many as its devices and messages need, and some for software to play
    /// with. Not all there could be: a guest's driver writes several registers for each.
    fn intids(&self) -> u32 {
        const LEAST: u32 = 128;
        let highest = self.interrupts().map(|intid| intid.0).max().unwrap_or(0);
        let intids = highest.saturating_add(1).max(LEAST).checked_next_multiple_of(32).unwrap_or(u32::MAX);
        let end = self.messages().and_then(|first| first.0.checked_add(MESSAGES)).unwrap_or(0);
        let (first, count) = self.controller.messages.map_or((IntId(0), 0), |frame| frame.interrupts());
        let end_of_frame = first.0.saturating_add(count).checked_next_multiple_of(32).unwrap_or(u32::MAX);
        intids.max(end).max(end_of_frame)
    }

    /// The first of [`MESSAGES`] SPIs for messages: the lowest bank of them of which none is reserved or a device's. `None` if
    /// there is no such bank.
    fn messages(&self) -> Option<IntId> {
        let is_free = |first: &u32| {
            let bank = *first..first.saturating_add(MESSAGES);
            !self.interrupts().chain(self.reserved_interrupts.iter().copied()).any(|intid| bank.contains(&intid.0))
        };
        (IntId::FIRST_SPI..=IntId::END_SPI.saturating_sub(MESSAGES)).step_by(32).find(is_free).map(IntId)
    }
}

/// SPIs that a guest's driver may give to devices for their messages: a bank, and no more than that to set up.
const MESSAGES: u32 = 32;

/// The end of the addresses that the host's CPUs can form.
fn limit(host: &Host<'_>) -> Ipa {
    Ipa(1_u64.checked_shl(u32::from(host.id.address_bits())).unwrap_or(u64::MAX))
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

fn make_devices(
    description: &Description,
    limit: Ipa,
    slots: Option<&bus::Slots>,
    files: &dyn Files,
    backends: &mut dyn Backends,
    errors: &mut Vec<AssembleError>,
) -> (Vec<Device>, Vec<Ipa>) {
    let windows = description.windows(limit);
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
            hears_ends: false,
            files,
            backends: &mut *backends,
        };
        let page = setup.shadow;
        let made = match slots.filter(|_| vdev.slot == Some(PciSlot::HOST)) {
            Some(slots) => slots.host_bridge(),
            None => vdev.factory.build(&vdev.options, &mut setup),
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
                let (place, message) = (error.place, format!("`vdev {}`: {error}", vdev.factory.name));
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
    bus: &Bus,
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

impl From<LoadError> for AssembleError {
    fn from(error: LoadError) -> Self {
        let subject = match (error.load, &error.problem) {
            (Some(load), _) => Subject::Load(load),
            (None, load::Problem::BadEntry(_)) => Subject::Entry,
            // Of what has no `load` only the tree is put where the configuration says.
            (None, load::Problem::TreeAddress(_) | load::Problem::Outside(..) | load::Problem::Overlap { .. }) => {
                Subject::Tree
            }
            (None, _) => Subject::Vm,
        };
        let hint = error.problem.hint();
        Self { other: error.other.map(Subject::Load), hint, ..Self::new(subject, error) }
    }
}

#[cfg(test)]
mod tests;
