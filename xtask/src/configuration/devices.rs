//! Back ends for the devices of a VM that is only put together.
//!
//! Answers for: opening what a configuration names with the checks of the real thing, so that what would be refused at EL2 is
//! refused here. Does not answer for: carrying a byte; what is opened is [`Silence`]. What depends on other VMs, or on which disks
//! and functions of PCI there are, is left to the machine.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use host::disk::{Base, Claim, Claims, Extent, Holder, Overlay, RealName, Which};
use host::switch::{Net, Storage};
use types::{Ipa, Range};
use vm::assemble::{Balloon, PassedDevice};

use super::silence::Silence;
use super::{COUNTER, files_below, host_path};

/// The console is always there, and of real disks whatever is named; nothing else is on a PC.
pub(super) struct HostDevices {
    vm: String,
    /// What its devices have of them.
    claims: Claims<()>,
    /// Which device has the VM's RAM, to give it back.
    balloon: Option<Balloon>,
    /// Where its guest has devices of the machine.
    passed: Vec<Ipa>,
}

impl HostDevices {
    /// Those of the VM `vm`, which has these devices of the machine.
    pub(super) fn new(vm: &str, passed: &[PassedDevice]) -> Self {
        let passed = passed.iter().flat_map(|device| &device.regions).map(|region| region.guest.start()).collect();
        Self { vm: vm.into(), claims: Claims::new(), balloon: None, passed }
    }

    /// What the VM has of it, when it has been put together.
    pub(super) fn balloon_device(&self) -> Option<Balloon> {
        self.balloon
    }

    /// Whether a device can have a real disk beside what others of the same VM have.
    fn claim(&mut self, device: &str, name: &str, disk: &vdev::HostDisk) -> Result<Base<'static>, vdev::BackendError> {
        let unknown =
            || vdev::BackendError(format!("there can be no disk `{disk}`: expected /dev/hd0, hd0t178 or hd0p1"));
        let name = RealName::parse(name).ok_or_else(unknown)?;
        // Where partitions are is seen when they are there: here each name is a place of its own.
        let extent = match name.which {
            Which::Whole => Extent { first: 0, count: u64::MAX },
            Which::Number(number) => Extent { first: number.into(), count: 1 },
            Which::Type(kind, further) => Extent { first: (u64::from(kind) + 1) << 32 | u64::from(further), count: 1 },
        };
        let holder = Holder { vm: self.vm.clone(), device: device.into() };
        let claim = Claim { name, extent, writes: !disk.read_only, holder };
        self.claims.add((), claim).map(|()| Base::Zeroes(1 << 20)).map_err(vdev::BackendError)
    }
}

impl vdev::Backends for HostDevices {
    fn disk(&mut self, device: &str, disk: &vdev::HostDisk) -> Result<Box<dyn vdev::BlockDevice>, vdev::BackendError> {
        let base = match &disk.name {
            vdev::DiskName::File(path) => match fs::metadata(host_path(path)) {
                Ok(file) if file.is_file() => Base::Zeroes(file.len()),
                _ => return Err(vdev::BackendError(format!("there is no file `{}`", host_path(path).display()))),
            },
            vdev::DiskName::Memory(bytes) => Base::Zeroes(*bytes),
            vdev::DiskName::Real(name) => self.claim(device, name, disk)?,
        };
        base.check(disk)?;
        let overlay = Overlay::new(String::new(), base, true, Silence);
        overlay.map(|disk| Box::new(disk) as _).ok_or_else(|| vdev::BackendError("it is too large".into()))
    }

    fn directory(&mut self, path: &str) -> Result<vdev::HostFiles, vdev::BackendError> {
        let folder = host_path(path);
        let error = |why: &str| vdev::BackendError(format!("{}: {why}", folder.display()));
        let files = files_below(&folder).map_err(|reason| error(&reason.to_string()))?;
        if files.is_empty() {
            return Err(error("there is no file in it"));
        }
        // Names only, for as long as this tool runs.
        let name = |file: PathBuf| {
            let name = file.to_str().ok_or_else(|| error(&format!("{} is not text", file.display())))?;
            Ok((&*name.to_string().leak(), &[][..]))
        };
        files.into_iter().map(name).collect()
    }

    fn net(
        &mut self,
        _: vdev::DeviceId,
        wish: &vdev::NetWish,
    ) -> Result<(vdev::Mac, Arc<dyn vdev::NetPort>), vdev::BackendError> {
        static UP: AtomicU32 = AtomicU32::new(0);
        let storage = Storage::new().ok_or_else(|| vdev::BackendError("there is no memory for its frames".into()))?;
        // A network for it alone: that others have the same address is seen when they are there.
        let attached = Net::new(&UP).attach("", wish, COUNTER, (Silence, storage));
        attached.map(|(_, mac)| (mac, Arc::new(Silence) as _)).map_err(vdev::BackendError)
    }

    fn vsock(
        &mut self,
        _: vdev::DeviceId,
        wish: &vdev::VsockWish,
    ) -> Result<(u32, Arc<dyn vdev::VsockPort>), vdev::BackendError> {
        static SIGNALS: host::vsock::Signals = host::vsock::Signals::new();
        let no_memory = || vdev::BackendError("there is no memory for its connections".into());
        let storage = host::vsock::Storage::new().ok_or_else(no_memory)?;
        // Alone: that others have the same CID is seen when they are there.
        let attached = host::vsock::Hub::new(&SIGNALS).attach("", wish, (Silence, storage));
        attached.map(|(_, cid)| (cid, Arc::new(Silence) as _)).map_err(vdev::BackendError)
    }

    fn balloon(&mut self, device: vdev::DeviceId, lends: bool) -> Result<Arc<dyn vdev::Balloon>, vdev::BackendError> {
        match self.balloon.replace(Balloon { device, lends }) {
            Some(_) => Err(vdev::BackendError("the VM has a balloon already".into())),
            None => Ok(Arc::new(Silence)),
        }
    }

    fn function(
        &mut self,
        _: vdev::DeviceId,
        wanted: vdev::WantedFunction,
        _: bool,
    ) -> Result<(vdev::FunctionFacts, Arc<dyn vdev::HostFunction>), vdev::BackendError> {
        // What it has is seen where it is: here it is one that takes no room.
        let facts = vdev::FunctionFacts {
            name: wanted.to_string(),
            vendor: 0,
            device: 0,
            bars: Vec::new(),
            has_pin: false,
            messages: 0,
            can_be_reset: true,
            virtual_functions: 0,
        };
        Ok((facts, Arc::new(Silence)))
    }

    fn registers(&mut self, region: Ipa) -> Result<Arc<dyn vdev::Registers>, vdev::BackendError> {
        match self.passed.contains(&region) {
            true => Ok(Arc::new(Silence)),
            false => Err(vdev::BackendError(format!("nothing is passed at {region}"))),
        }
    }

    fn watch(&mut self, _: vdev::DeviceId, _: &str) -> Result<(), vdev::BackendError> {
        Ok(())
    }

    fn worker(&mut self, _: vdev::DeviceId, _: vdev::NewWorker) -> Result<(), vdev::BackendError> {
        Ok(())
    }

    fn shared_memory(
        &mut self,
        _: vdev::DeviceId,
        _: Range<Ipa>,
        _: vdev::RegionWishes,
    ) -> Result<Box<dyn vdev::SharedMemory>, vdev::BackendError> {
        Ok(Box::new(Silence))
    }

    fn character(
        &mut self,
        _: vdev::DeviceId,
        device: &vdev::HostDevice,
    ) -> Result<Box<dyn vdev::CharDevice>, vdev::BackendError> {
        if device.is_console() {
            Ok(Box::new(Silence))
        } else {
            Err(vdev::BackendError(format!("there is no host device `{device}`; `-` is the VM's console")))
        }
    }
}
