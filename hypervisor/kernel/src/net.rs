//! Networks of VMs.
//!
//! Answers for: the one table of ports, its lock, the memory of ports, and how a port's device is reached; a port goes when its VM
//! does. Does not answer for: which frame goes where (`host::switch`), what guests see (`vdevs`).
//!
//! What a port has is in the kernel's heap: a frame outlives the VM that has sent it. A device has a number of it only.

use crate::compartment::{Compartment, kernel_work};
use crate::sync::{Lock, Rank};
use alloc::sync::Arc;
use core::sync::atomic::{AtomicU32, Ordering};
use host::switch::{self, Door, Net, PortId, Storage};
use types::Ticks;
use vdev::{
    BackendError, DeviceId, FillFrame, Mac, NetFilter, NetPort, NetWish, Offloads, Received, Sent, TakeFrame,
    Unfinished,
};

/// A bit for each port that is up, for those who cannot wait for the lock.
static UP: AtomicU32 = AtomicU32::new(0);

static NET: Lock<Net<Device>> = Lock::new(Rank::Net, Net::new(&UP));

/// A device with a port. Whoever reaches its VM's threads this way holds the lock, and so the VM is not taken down meanwhile.
struct Device {
    compartment: Arc<Compartment>,
    id: DeviceId,
}

impl Door for Device {
    fn ring(&self) {
        if let Some(partition) = self.compartment.partition() {
            partition.services.ring_first(self.id);
        }
    }

    fn link_changed(&self) {
        if let Some(partition) = self.compartment.partition() {
            partition.services.put_backend(self.id);
        }
    }
}

/// The table, for threads of VMs.
struct Table;

impl switch::Table for Table {
    type Door = Device;

    fn with<R>(&self, work: impl FnOnce(&mut Net<Device>) -> R) -> R {
        kernel_work(|| work(&mut NET.lock()))
    }
}

/// A device's end of its port. It is in the VM's heap.
struct Port(PortId);

impl NetPort for Port {
    fn is_up(&self) -> bool {
        UP.load(Ordering::Acquire) & self.0.bit() != 0
    }

    fn open(&self, takes: Offloads) {
        switch::Table::with(&Table, |net| net.open(self.0, takes));
    }

    fn set_filter(&self, filter: &NetFilter) {
        switch::Table::with(&Table, |net| net.set_filter(self.0, filter));
    }

    fn send(&self, now: Ticks, unfinished: Unfinished, length: usize, fill: &mut FillFrame<'_>) -> Sent {
        switch::send(&Table, self.0, now, unfinished, length, fill)
    }

    fn receive(&self, take: &mut TakeFrame<'_>) -> Received {
        switch::receive(&Table, self.0, take)
    }
}

/// Connects a device of a VM that is being built.
pub(crate) fn attach(
    compartment: &Compartment,
    id: DeviceId,
    wish: &NetWish,
) -> Result<(Mac, Arc<dyn NetPort>), BackendError> {
    let attached = kernel_work(|| {
        let no_memory = "there is no memory for its frames";
        let storage = Storage::new().ok_or(no_memory)?;
        let frequency = el2::cpu::counter_frequency().ok_or("the counter's frequency is unknown")?;
        let door = Device { compartment: compartment.shared().ok_or("its VM has ended")?, id };
        NET.lock().attach(&compartment.qvm.name, wish, frequency, (door, storage))
    });
    match attached {
        Ok((port, mac)) => Ok((mac, Arc::new(Port(port)))),
        // The copy is the VM's, as all that is not to outlive it.
        Err(message) => Err(BackendError(message.as_str().into())),
    }
}

/// A VM has ended, and all of its threads: it has no ports any more.
pub(crate) fn end(compartment: &Compartment) {
    let is_its = |door: &Device| core::ptr::eq(&*door.compartment, compartment);
    let gone = NET.lock().end(is_its);
    for (end, counts, storage) in gone {
        log::info!("{end}: {counts}");
        drop(storage);
    }
}
