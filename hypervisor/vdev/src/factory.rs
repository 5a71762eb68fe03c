//! Where devices come from: static factories, after the original's `struct vdev_factory`.
//!
//! Answers for: what is known of a kind of device before there is one (its word, options, location and interrupt rules,
//! access sizes), and for making one. Does not answer for: the table of factories (`vdevs::catalogue`, or a board's own),
//! nor for checking locations and interrupts against the rest of a configuration (`vm::config`).

use crate::{
    Balloon, Bell, BlockDevice, CharDevice, Connector, Entropy, FunctionFacts, HostDevice, HostDisk, HostFunction,
    HostStreams, Mac, NetPort, NetWish, NewWorker, OptionError, OptionSpec, Options, RegionName, Registers, Rest,
    ShadowPage, SharedMemory, TraceSink, Vdev, VsockPort, VsockWish, WantedFunction, Worker,
};
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use bitflags::bitflags;
use core::fmt;
use types::{AccessSize, IntId, Ipa, Range};

/// Version of the interface between factories and the hypervisor; a factory states the one it was written for, as the
/// original's states `QVM_VDEV_ABI`.
pub const ABI: u32 = 2;

bitflags! {
    /// What a configuration must, may and must not say about a device (`VFF_*`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct FactoryFlags: u16 {
        /// `intr` is forbidden (`VFF_INTR_NO`).
        const INTR_FORBIDDEN = 1 << 0;
        /// `intr` is required (`VFF_INTR_REQ`).
        const INTR_REQUIRED = 1 << 1;
        /// `intr` is required unless the device is on the PCI bus (`VFF_INTR_NONPCI`).
        const INTR_UNLESS_PCI = 1 << 2;
        /// `loc` is forbidden (`VFF_LOC_NO`).
        const LOC_FORBIDDEN = 1 << 3;
        /// `loc` may be a memory address (`VFF_VDEV_MEM`).
        const LOC_MEM = 1 << 4;
        /// `loc` may be a PCI address (`VFF_VDEV_PCI`).
        const LOC_PCI = 1 << 5;
        /// An interrupt controller: others name it in `intr`.
        const PIC = 1 << 6;
        /// Part of every VM whether the configuration names it or not. Naming it twice is one too many.
        const IMPLICIT = 1 << 7;
        /// What the configuration does not say of `loc` and `intr` is found (`VDEV_CTRL_ASSIGN`): a place for a device without
        /// `loc`, and then an interrupt, unless that is forbidden or given; an interrupt that is required, in any case.
        const ASSIGN = 1 << 8;
        /// The host bridge of the PCI bus: there is one as soon as a device is on that bus, or the configuration names it.
        const PCI_HOST = 1 << 9;
        /// The SMMU of the VM's own, which devices of the machine on its PCI bus are behind: one for each VM.
        const SMMU = 1 << 10;
    }

    /// Which access sizes a device takes (`acc_sizes`).
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct AccessSizes: u8 {
        /// One byte.
        const BYTE = 1 << AccessSize::Byte as u8;
        /// Two bytes.
        const HALFWORD = 1 << AccessSize::Halfword as u8;
        /// Four bytes.
        const WORD = 1 << AccessSize::Word as u8;
        /// Eight bytes.
        const DOUBLEWORD = 1 << AccessSize::Doubleword as u8;
    }
}

impl AccessSizes {
    /// Whether accesses of this size are allowed.
    #[must_use]
    #[inline]
    pub const fn allows(self, size: AccessSize) -> bool {
        (self.bits() >> size as u8) & 1 != 0
    }
}

/// Whether a device may be part of a VM whose configuration asks for safety-qualified devices only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Safety {
    /// It may.
    Qualified,
    /// It may not.
    Unqualified,
}

/// A kind of device, alive for as long as the hypervisor is.
#[derive(Clone, Copy, Debug)]
pub struct Factory {
    /// The word after `vdev`.
    pub name: &'static str,
    /// [`ABI`], as it was when the factory was written.
    pub abi: u32,
    /// Rules for `loc` and `intr`.
    pub flags: FactoryFlags,
    /// What accesses the bus lets through.
    pub access_sizes: AccessSizes,
    /// The device's own options, beside [`crate::GENERAL_OPTIONS`].
    pub options: &'static [OptionSpec],
    /// Its safety class.
    pub safety: Safety,
    /// Size of its registers at `loc`, in bytes; 0 if it has none there, or if the partition places them itself.
    pub region_size: u64,
    /// Bytes of guest-physical addresses that it has besides, for what it is given while the guest runs, a power of two; 0 for
    /// none. The partition finds a free place, at a multiple of the size ([`Setup::window`]). Offsets behind `region_size` are
    /// there.
    pub window_size: u64,
    /// Where its registers are without `loc`; with `None` a device that has registers needs a `loc`.
    pub default_location: Option<Ipa>,
    /// What it is, one line.
    pub help: &'static str,
    /// What it is for, what to watch out for, and a line of configuration: a few lines of Markdown, 80 columns wide. It is in
    /// the image, for the shell's `use`.
    pub about: &'static str,
    /// Which device of the machine such a vdev brings to rest at the end of its VM, and how; see [`Rest`]. Options have been checked
    /// against `options`.
    pub rest: Option<BringsToRest>,
    /// Makes one. Options have been checked against `options`, location and interrupt against `flags`.
    pub create: Create,
}

/// The function that makes a device.
pub type Create = fn(&Options, &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError>;

/// The function that says what a vdev brings to rest.
pub type BringsToRest = fn(&Options) -> Result<Rest, OptionError>;

impl Factory {
    /// A factory of this interface's that has said nothing yet: for what the others have in common.
    ///
    /// ```
    /// # use vdev::{AccessSizes, Factory, Options, OptionError, Setup, Vdev};
    /// # fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> { unimplemented!() }
    /// static FACTORY: Factory = Factory { name: "mine", help: "a device of mine", ..Factory::new(create) };
    /// ```
    #[must_use]
    pub const fn new(create: Create) -> Self {
        Self {
            name: "",
            abi: ABI,
            flags: FactoryFlags::LOC_MEM.union(FactoryFlags::ASSIGN),
            access_sizes: AccessSizes::WORD,
            options: &[],
            safety: Safety::Unqualified,
            region_size: 0x1000,
            window_size: 0,
            default_location: None,
            help: "",
            about: "",
            rest: None,
            create,
        }
    }

    /// Makes a device, if the factory was written for this interface.
    ///
    /// # Errors
    /// What is wrong with an option, or with the factory itself.
    pub fn build(&self, options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
        if self.abi != ABI {
            let message = format!("written for interface {}, this is {ABI}", self.abi);
            return Err(OptionError::general(message));
        }
        (self.create)(options, setup)
    }
}

/// A device within its VM, in the order of the configuration.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct DeviceId(pub u16);

/// What the partition knows about the device that is being made.
pub struct Setup<'a> {
    /// Which one it is; wakes from back ends find it by this.
    pub id: DeviceId,
    /// Its name: `name`, or one the configuration made up.
    pub name: &'a str,
    /// `loc`, if there is one.
    pub location: Option<Ipa>,
    /// `intr`, if there is one.
    pub interrupt: Option<IntId>,
    /// Its window, if its factory wants one; see [`Factory::window_size`].
    pub window: Option<Range<Ipa>>,
    /// The page of its registers, if they begin it and nothing else of the VM is there; see [`Setup::shadow_page`].
    pub shadow: Option<Range<Ipa>>,
    /// What it needs on the PCI bus, if that is where it is; then it has no location.
    pub connector: Option<Connector>,
    /// How many vCPUs the VM has.
    pub vcpus: usize,
    /// Bits of the VM's addresses.
    pub address_bits: u8,
    /// Whether the device wants to hear of the ends of its interrupt; see [`Setup::hear_ends`].
    pub hears_ends: bool,
    /// Where files come from.
    pub files: &'a dyn Files,
    /// Where back ends come from.
    pub backends: &'a mut dyn Backends,
}

/// Where the files that a configuration names come from: the boot archive at EL2, the host's file system on a PC.
pub trait Files {
    /// The contents of the file `path`, or `None` if there is none. Paths are relative to the root, normalised, without a
    /// leading slash: `vms/linux/Image`.
    fn file(&self, path: &str) -> Option<&[u8]>;
}

impl Setup<'_> {
    /// Has the device woken with [`crate::Wake::InterruptEnded`] when the guest has dealt with its interrupt, which costs the
    /// guest an exit each time. Without `intr` there is nothing to hear of.
    pub const fn hear_ends(&mut self) {
        self.hears_ends = true;
    }

    /// Has the guest read the device's registers without an exit, if that can be: reading must have no effect, and the device keeps in
    /// the page what a load would find. Loads come to it all the same, if seldom. `None` if it shares the page with something else, or
    /// the host has none to give: then everything is as without.
    pub fn shadow_page(&mut self) -> Option<Arc<dyn ShadowPage>> {
        let page = self.backends.shadow_page(self.shadow?)?;
        self.shadow = None;
        Some(page)
    }

    /// The contents of the file that the option `option` names, an [`crate::OptionKind::File`]; `None` if it is not given.
    ///
    /// # Errors
    /// If there is no such file.
    pub fn file(&self, options: &Options, option: &'static str) -> Result<Option<&[u8]>, OptionError> {
        let Some(path) = options.text(option) else { return Ok(None) };
        let missing = || options.error(option, format!("there is no file `{path}`"));
        self.files.file(path).map(Some).ok_or_else(missing)
    }

    /// The character back end that one `hostdev` names.
    ///
    /// # Errors
    /// If there is no such back end; the error is about the option that `options` holds it in.
    pub fn character(&mut self, option: &'static str, device: &HostDevice) -> Result<Box<dyn CharDevice>, OptionError> {
        self.backends.character(self.id, device).map_err(|BackendError(message)| OptionError {
            option: Some(option),
            place: device.place,
            message,
        })
    }

    /// The disk that one `hostdev` names.
    ///
    /// # Errors
    /// If there is no such disk, or somebody has it; the error is about the option that `options` holds it in.
    pub fn disk(&mut self, option: &'static str, disk: &HostDisk) -> Result<Box<dyn BlockDevice>, OptionError> {
        self.backends.disk(self.name, disk).map_err(|BackendError(message)| OptionError {
            option: Some(option),
            place: disk.place,
            message,
        })
    }

    /// The device's port of a network, and its address there. The error is about the option that `options` holds the other end in.
    ///
    /// # Errors
    /// If it cannot be connected like that.
    pub fn net(
        &mut self,
        options: &Options,
        option: &'static str,
        wish: &NetWish,
    ) -> Result<(Mac, Arc<dyn NetPort>), OptionError> {
        self.backends.net(self.id, wish).map_err(|BackendError(message)| options.error(option, message))
    }

    /// The device's place among those that have sockets, and its CID there. The error is about the option that `options` holds the CID
    /// in.
    ///
    /// # Errors
    /// If it cannot have that place.
    pub fn vsock(
        &mut self,
        options: &Options,
        option: &'static str,
        wish: &VsockWish,
    ) -> Result<(u32, Arc<dyn VsockPort>), OptionError> {
        self.backends.vsock(self.id, wish).map_err(|BackendError(message)| options.error(option, message))
    }

    /// The VM's RAM, for its guest to give pages of back. One that `lends` lets others have what it gives back until it takes it
    /// again, and ends if it cannot have it then; else nobody gets what the guest may want again.
    ///
    /// # Errors
    /// If another device has it already, or the host can take nothing back.
    pub fn balloon(&mut self, lends: bool) -> Result<Arc<dyn Balloon>, OptionError> {
        self.backends.balloon(self.id, lends).map_err(|BackendError(message)| OptionError::general(message))
    }

    /// Gives the device a worker, which has its thread from the guest's start on. It is at rest until the device rings.
    ///
    /// # Errors
    /// If it has too many, or the host has no threads for workers.
    pub fn worker(&mut self, worker: Box<dyn Worker>) -> Result<Bell, OptionError> {
        let bell = Bell::default();
        let new = NewWorker { worker, bell: bell.clone() };
        self.backends.worker(self.id, new).map_err(|BackendError(message)| OptionError::general(message))?;
        Ok(bell)
    }

    /// Streams of the VM's devices of the machine, for a device with [`FactoryFlags::SMMU`]; `None` if there are none.
    pub fn streams(&mut self) -> Option<Arc<dyn HostStreams>> {
        self.backends.streams()
    }

    /// The shared memory of the device, in its window.
    ///
    /// # Errors
    /// If it has no window, or the host has no shared memory.
    pub fn shared_memory(&mut self, wishes: RegionWishes) -> Result<Box<dyn SharedMemory>, OptionError> {
        let window = self.window.ok_or_else(|| OptionError::general("it has no window".to_string()))?;
        let shared = self.backends.shared_memory(self.id, window, wishes);
        shared.map_err(|BackendError(message)| OptionError::general(message))
    }

    /// All files of the directory that the option `option` names, an [`crate::OptionKind::Directory`].
    ///
    /// # Errors
    /// If there is no such directory.
    pub fn directory(&mut self, options: &Options, option: &'static str) -> Result<HostFiles, OptionError> {
        let path = options.text(option).unwrap_or_default();
        self.backends.directory(path).map_err(|BackendError(message)| options.error(option, message))
    }

    /// The registers of a device of the machine that are passed to the guest at the address that the option `option` gives, an
    /// [`crate::OptionKind::Address`]. They can be reached from `GuestConfigured` to the end of `Terminate`.
    ///
    /// # Errors
    /// If the option is not given, or no `loc` of a `pass` of this VM begins there.
    pub fn registers(&mut self, options: &Options, option: &'static str) -> Result<Arc<dyn Registers>, OptionError> {
        let Some(region) = options.address(option) else {
            return Err(options.error(option, format!("option `{option}` is missing")));
        };
        self.backends.registers(region).map_err(|BackendError(message)| options.error(option, message))
    }

    /// Has the device watch another VM; the error is about the option that `options` holds the name in.
    ///
    /// # Errors
    /// If that VM cannot be watched.
    pub fn watch(&mut self, option: &'static str, vm: &str) -> Result<(), OptionError> {
        let place = None;
        self.backends.watch(self.id, vm).map_err(|BackendError(message)| OptionError {
            option: Some(option),
            place,
            message,
        })
    }
}

impl fmt::Debug for Setup<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Setup").field("id", &self.id).field("name", &self.name).finish_non_exhaustive()
    }
}

/// The host's side of `hostdev`: names to back ends.
pub trait Backends {
    /// Opens a character back end for the device `id` of the VM being assembled. When the back end has space again or has
    /// input, its owner wakes that device with [`crate::Wake::Backend`]. What is opened for output only never has input.
    ///
    /// # Errors
    /// If there is no such thing, or it cannot be used that way.
    fn character(&mut self, id: DeviceId, device: &HostDevice) -> Result<Box<dyn CharDevice>, BackendError>;

    /// Opens a disk for the device that is called `device`. As long as the VM lives nobody else writes to it, and nobody else reads it
    /// if this device may write.
    ///
    /// # Errors
    /// If there is no such disk, it is of no use, or somebody has it.
    fn disk(&mut self, device: &str, disk: &HostDisk) -> Result<Box<dyn BlockDevice>, BackendError> {
        Err(BackendError(format!("there is no disk `{disk}` for `{device}`")))
    }

    /// All files of a directory of the boot archive, which has at least one. Nobody writes to them.
    ///
    /// # Errors
    /// If there is no such directory; which there are instead.
    fn directory(&mut self, path: &str) -> Result<HostFiles, BackendError> {
        Err(BackendError(format!("there is no directory `{path}`")))
    }

    /// Connects the device `id` to a network, for as long as the VM lives.
    ///
    /// # Errors
    /// If there is no such network, there is no room, or somebody on it has the same address.
    fn net(&mut self, _id: DeviceId, _wish: &NetWish) -> Result<(Mac, Arc<dyn NetPort>), BackendError> {
        Err(BackendError("there are no networks".to_string()))
    }

    /// Gives the device `id` a place among those that have sockets, for as long as the VM lives.
    ///
    /// # Errors
    /// If there is no room, or somebody has its CID.
    fn vsock(&mut self, _id: DeviceId, _wish: &VsockWish) -> Result<(u32, Arc<dyn VsockPort>), BackendError> {
        Err(BackendError("there are no sockets".to_string()))
    }

    /// The VM's RAM for the device `id`: see [`Setup::balloon`].
    ///
    /// # Errors
    /// If another device has it already, or nothing can be taken back.
    fn balloon(&mut self, _id: DeviceId, _lends: bool) -> Result<Arc<dyn Balloon>, BackendError> {
        Err(BackendError("the host can take no memory back".to_string()))
    }

    /// Has the guest find a page of memory that it cannot write at `page`: see [`Setup::shadow_page`]. `None` if there is none.
    fn shadow_page(&mut self, _page: Range<Ipa>) -> Option<Arc<dyn ShadowPage>> {
        None
    }

    /// The function of the machine that the device `id` passes to the guest. It is the VM's once that has been built. One
    /// that is `without_reset` need not be one that can be reset.
    ///
    /// # Errors
    /// If there is no such function, several are meant, or it is of no use.
    fn function(
        &mut self,
        _id: DeviceId,
        _wanted: WantedFunction,
        _without_reset: bool,
    ) -> Result<(FunctionFacts, Arc<dyn HostFunction>), BackendError> {
        Err(BackendError("the machine has no PCI Express of which functions could be passed".to_string()))
    }

    /// Streams of the VM's devices of the machine: see [`Setup::streams`].
    fn streams(&mut self) -> Option<Arc<dyn HostStreams>> {
        None
    }

    /// The registers that a `pass` of the VM gives its guest from `region` on: see [`Setup::registers`].
    ///
    /// # Errors
    /// If none of its regions begins there.
    fn registers(&mut self, region: Ipa) -> Result<Arc<dyn Registers>, BackendError> {
        Err(BackendError(format!("nothing is passed at {region}")))
    }

    /// From the guest's start on the device `id` is woken when the VM `vm` lives ([`crate::Wake::VmLives`]) and when it has
    /// ended ([`crate::Wake::VmEnded`]). There need not be such a VM yet.
    ///
    /// # Errors
    /// If it cannot be watched.
    fn watch(&mut self, id: DeviceId, vm: &str) -> Result<(), BackendError>;

    /// Gives the device `id` a worker: a thread of its own from the guest's start on. The first step is taken when the bell has
    /// rung.
    ///
    /// # Errors
    /// If it has [`crate::WORKERS`], or there are no threads for workers.
    fn worker(&mut self, id: DeviceId, new: NewWorker) -> Result<(), BackendError>;

    /// The shared memory of the device `id`, mapped for its guest within `window`. What is wished for is made when the VM has
    /// its memory; if it cannot be, the VM does not start.
    ///
    /// # Errors
    /// If there is none.
    fn shared_memory(
        &mut self,
        id: DeviceId,
        window: Range<Ipa>,
        wishes: RegionWishes,
    ) -> Result<Box<dyn SharedMemory>, BackendError>;

    /// Where events for traces go.
    fn trace(&self) -> &'static dyn TraceSink {
        &crate::Untraced
    }

    /// Where random numbers come from, if from anywhere.
    fn entropy(&self) -> Option<Entropy> {
        None
    }
}

/// What a configuration says about shared memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegionWishes {
    /// Regions that there are to be while the VM lives, with their pages.
    pub create: Vec<(RegionName, u32)>,
    /// Most pages of all regions together that are made because the guest asks for them.
    pub limit: u64,
}

/// Files by their paths below a directory of the host's: `etc/passwd`. They are there as long as the hypervisor is.
pub type HostFiles = Vec<(&'static str, &'static [u8])>;

/// Why a `hostdev` could not be opened: one sentence that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendError(pub String);
