//! Sockets of VMs.
//!
//! Answers for: the one table of stations, its lock, the memory of stations, and how a station's device is reached; a station goes when
//! its VM does. Does not answer for: who is connected with whom and what waits there (`host::vsock`), what guests see (`vdevs`).
//!
//! What a station has is in the kernel's heap: what a VM has sent outlives it. A device has a number of it only.

use crate::compartment::{Compartment, kernel_work};
use crate::sync::{Lock, Rank};
use alloc::format;
use alloc::string::String;
use alloc::sync::Arc;
use host::vsock::{self, Door, Hub, Signals, StationId, Storage};
use vdev::{BackendError, DeviceId, FillFrame, VsockPacket, VsockPort, VsockSignal, VsockWish};

static SIGNALS: Signals = Signals::new();

static HUB: Lock<Hub<Device>> = Lock::new(Rank::Vsock, Hub::new(&SIGNALS));

/// A device with a station. Whoever reaches its VM's threads this way holds the lock, and so the VM is not taken down meanwhile.
struct Device {
    compartment: Arc<Compartment>,
    id: DeviceId,
    /// Who its lines in the log are of.
    origin: String,
}

impl Door for Device {
    fn ring(&self) {
        if let Some(partition) = self.compartment.partition() {
            partition.services.ring_first(self.id);
        }
    }

    fn said(&self, line: &str) {
        log::info!(target: &self.origin, "agent: {line}");
    }
}

/// The table, for threads of VMs.
struct Table;

impl vsock::Table for Table {
    type Door = Device;

    fn with<R>(&self, work: impl FnOnce(&mut Hub<Device>) -> R) -> R {
        kernel_work(|| work(&mut HUB.lock()))
    }
}

/// A device's end of its station. It is in the VM's heap.
struct Port(StationId);

impl VsockPort for Port {
    fn open(&self) {
        vsock::Table::with(&Table, |hub| hub.open(self.0));
    }

    fn signal(&self, signal: VsockSignal) -> bool {
        SIGNALS.send(self.0, signal)
    }

    fn attend(&self) {
        vsock::attend(&Table, &SIGNALS, self.0);
    }

    fn send(&self, packet: &VsockPacket, fill: &mut FillFrame<'_>) -> bool {
        vsock::send(&Table, self.0, packet, fill)
    }

    fn receive(&self, into: &mut [u8]) -> Option<VsockPacket> {
        vsock::receive(&Table, self.0, into)
    }
}

/// Gives a device of a VM that is being built its place.
pub(crate) fn attach(
    compartment: &Compartment,
    id: DeviceId,
    wish: &VsockWish,
) -> Result<(u32, Arc<dyn VsockPort>), BackendError> {
    let attached = kernel_work(|| {
        let storage = Storage::new().ok_or("there is no memory for its connections")?;
        let origin = format!("{}/{}", compartment.qvm.origin(), wish.name);
        let door = Device { compartment: compartment.shared().ok_or("its VM has ended")?, id, origin };
        HUB.lock().attach(&compartment.qvm.name, wish, (door, storage))
    });
    match attached {
        Ok((station, cid)) => {
            log::info!(target: &format!("{}/{}", compartment.qvm.origin(), wish.name), "CID {cid}");
            Ok((cid, Arc::new(Port(station))))
        }
        // The copy is the VM's, as all that is not to outlive it.
        Err(message) => Err(BackendError(message.as_str().into())),
    }
}

/// A VM has ended, and all of its threads: it has no stations any more.
pub(crate) fn end(compartment: &Compartment) {
    let is_its = |door: &Device| core::ptr::eq(&*door.compartment, compartment);
    let gone = HUB.lock().end(is_its);
    for (end, counts, storage) in gone {
        log::info!("{end}: {counts}");
        drop(storage);
    }
}
