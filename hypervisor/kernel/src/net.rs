//! Networks of VMs.
//!
//! Answers for: the one table of ports, its lock, the memory of ports, and how a port's device is reached; a port goes when its VM
//! does. Does not answer for: which frame goes where (`host::switch`), what guests see (`vdevs`), cards ([`uplink`]).
//!
//! What a port has is in the kernel's heap: a frame outlives the VM that has sent it. A device has a number of it only.

use crate::compartment::{Compartment, kernel_work};
use crate::sync::{Lock, Rank};
use crate::uplink;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering};
use host::switch::{self, Door, Net, PortId, Report, Storage};
use types::{Frequency, Ticks};
use vdev::{
    BackendError, DeviceId, FillFrame, Mac, NetFilter, NetPort, NetWish, Offloads, Received, Sent, TakeFrame,
    Unfinished,
};

/// A bit for each port that is up, for those who cannot wait for the lock.
static UP: AtomicU32 = AtomicU32::new(0);

static NET: Lock<Net<Knocker>> = Lock::new(Rank::Net, Net::new(&UP));

/// Who has a port.
pub(crate) enum Knocker {
    /// A device. Whoever reaches its VM's threads this way holds the lock, and so the VM is not taken down meanwhile.
    Device { compartment: Arc<Compartment>, id: DeviceId },
    /// A card of the machine.
    Card(u32),
}

impl Door for Knocker {
    fn ring(&self) {
        match self {
            Self::Device { compartment, id } => {
                if let Some(partition) = compartment.partition() {
                    partition.services.ring_first(*id);
                }
            }
            Self::Card(number) => uplink::ring(*number),
        }
    }

    fn link_changed(&self) {
        if let Self::Device { compartment, id } = self
            && let Some(partition) = compartment.partition()
        {
            partition.services.put_backend(*id);
        }
    }
}

/// The table, for threads of VMs and of cards.
pub(crate) struct Table;

impl switch::Table for Table {
    type Door = Knocker;

    fn with<R>(&self, work: impl FnOnce(&mut Net<Knocker>) -> R) -> R {
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

/// What a port needs besides a door.
fn parts() -> Result<(Storage, Frequency), &'static str> {
    let storage = Storage::new().ok_or("there is no memory for its frames")?;
    Ok((storage, el2::cpu::counter_frequency().ok_or("the counter's frequency is unknown")?))
}

/// Connects a card with this address.
///
/// # Errors
/// Why it cannot be connected there.
pub(crate) fn attach_card(number: u32, mac: Mac, wish: &NetWish) -> Result<PortId, String> {
    let (storage, frequency) = parts()?;
    NET.lock().attach_card(number, mac, wish, frequency, (Knocker::Card(number), storage))
}

/// A card has no port any more.
pub(crate) fn end_card(number: u32) {
    finish(|door| matches!(door, Knocker::Card(other) if *other == number));
}

/// What there is to say of all ports.
pub(crate) fn report() -> Vec<Report> {
    NET.lock().report()
}

/// Connects a device of a VM that is being built.
pub(crate) fn attach(
    compartment: &Compartment,
    id: DeviceId,
    wish: &NetWish,
) -> Result<(Mac, Arc<dyn NetPort>), BackendError> {
    let attached = kernel_work(|| {
        let (storage, frequency) = parts()?;
        let door = Knocker::Device { compartment: compartment.shared().ok_or("its VM has ended")?, id };
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
    finish(|door| matches!(door, Knocker::Device { compartment: its, .. } if core::ptr::eq(&**its, compartment)));
}

fn finish(is_its: impl Fn(&Knocker) -> bool) {
    let gone = NET.lock().end(is_its);
    for (end, counts, storage) in gone {
        log::info!("{end}: {counts}");
        drop(storage);
    }
}
