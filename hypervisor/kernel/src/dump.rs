//! Dumping a guest to a file in RAM.
//!
//! Answers for: keeping the vCPUs out of their guests until memory has been read, what they were at, the file's name, and
//! giving all of it up when the VM is to end. Does not answer for: what is in the file (`vm::dump`), how it is packed
//! (`host::file`), where it is kept (`files`).
//!
//! It runs in the VM's own thread, at the priority of the VM's vCPUs: the time it takes is that VM's. Should it die there,
//! the VM ends, and the unfinished file goes with it.

use crate::compartment::{Compartment, deadline};
use crate::files::{self, About, Full, Room};
use crate::partition::{self, Partition};
use crate::{startup, thread};
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::{self, Write};
use host::file::{Packer, Store};
use types::{Ipa, Range, Ticks, VcpuId};
use vm::dump::{Dump, Presence, Sink};
use vm::psci::State;

/// From one look whether the vCPUs have come out to the next, in microseconds.
const LOOK: u64 = 200;

/// What the name of a dump ends with.
const EXTENSION: &str = "gcore";

/// SCTLR_EL1.C: data caches are on.
const CACHES: u64 = 1 << 2;

/// Why there is no dump.
enum Failure {
    /// The VM is to end.
    Ending,
    /// No name is left.
    Name(String),
    /// No room is left when so many of so many bytes have been read.
    Room { read: u64, total: u64, packed: u64 },
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ending => f.write_str("the VM ends"),
            Self::Name(name) => write!(f, "there is a file `{name}` already"),
            Self::Room { read, total, packed } => {
                let missing = (u128::from(*packed) * u128::from(total - read) / u128::from((*read).max(1))) as u64;
                write!(f, "no RAM is left for it, about {} KiB are missing", missing / 1024 + 1)
            }
        }
    }
}

/// What the dump goes through: counts, and ends with the VM.
struct Watched<'a, S> {
    packer: Packer<S>,
    compartment: &'a Compartment,
    partition: &'a Partition,
    read: u64,
    total: u64,
}

impl<S> Watched<'_, S> {
    fn is_over(&self) -> bool {
        self.compartment.is_ending() || self.partition.is_stopping()
    }

    fn count(&mut self, bytes: u64) -> Result<(), Full> {
        self.read += bytes;
        self.compartment.qvm.set_dumped((self.read * 100 / self.total.max(1)).min(99) as u32);
        if self.is_over() { Err(Full) } else { Ok(()) }
    }
}

impl<S: Store<Error = Full>> Sink for Watched<'_, S> {
    type Error = Full;

    fn bytes(&mut self, bytes: &[u8]) -> Result<(), Full> {
        self.count(bytes.len() as u64)?;
        self.packer.bytes(bytes)
    }

    fn zeroes(&mut self, count: u64) -> Result<(), Full> {
        self.count(count)?;
        self.packer.zeroes(count)
    }
}

/// Dumps the guest, and says in the log what has come of it. The guest goes on afterwards.
pub(crate) fn take(compartment: &Compartment, partition: &Partition) {
    let (me, qvm) = (thread::current(), &compartment.qvm);
    let priority = qvm.vcpu_parameters().iter().map(|parameters| parameters.priority).max();
    thread::set_priority(me, priority.map_or(startup::PRIORITY, sched::Priority::get));
    partition.hold_for_dump(true);
    let result = write(compartment, partition);
    partition.hold_for_dump(false);
    thread::set_priority(me, qvm.priority());
    let origin = partition.vm.origin();
    match result {
        Ok((name, About { size, packed, .. })) => {
            log::info!(target: origin, "dumped to `{name}`: {} KiB, packed {} KiB", size >> 10, packed >> 10);
        }
        Err(failure) => {
            files::abandon(compartment.id);
            log::error!(target: origin, "no dump: {failure}");
        }
    }
    qvm.end_dump();
}

fn write(compartment: &Compartment, partition: &Partition) -> Result<(String, About), Failure> {
    let (vm, description) = (&*partition.vm, &compartment.qvm.configuration.description);
    let regions: Vec<(Range<Ipa>, bool)> = {
        let writable = description.ram.iter().map(|range| (*range, true));
        writable.chain(description.rom.iter().map(|range| (*range, false))).collect()
    };
    let vcpus = wait_for_vcpus(compartment, partition);
    // What a guest has written past the caches is not to be taken out of the caches.
    let uncached = |presence: &Presence| match presence {
        Presence::On(registers) => registers.system.sctlr_el1 & CACHES == 0,
        Presence::Off | Presence::Running => false,
    };
    if vcpus.iter().any(|(_, presence)| uncached(presence)) {
        partition.clean_caches(|| !compartment.is_ending());
    }
    let mut status = String::new();
    partition::status(compartment, partition, |line| {
        let _ = writeln!(status, "{line}");
    });
    let name = begin(compartment)?;
    let mut room = Room::new(compartment.id);
    let total = regions.iter().fold(0, |sum: u64, (range, _)| sum.saturating_add(range.length()));
    let packer = Packer::new(&mut room);
    let mut sink = Watched { packer, compartment, partition, read: 0, total };
    let dump = Dump { regions: &regions, memory: vm.memory(), vcpus: &vcpus, status: &status };
    let size = dump.write(&mut sink);
    let (read, is_over) = (sink.read.min(total), sink.is_over());
    let size = size.and_then(|()| sink.packer.finish());
    match size {
        Ok(size) => {
            let about = files::finish(compartment.id, size, room.checksum());
            Ok((name, about.ok_or(Failure::Ending)?))
        }
        Err(Full) if is_over => Err(Failure::Ending),
        Err(Full) => Err(Failure::Room { read, total, packed: room.packed() }),
    }
}

/// The first name that nobody has.
fn begin(compartment: &Compartment) -> Result<String, Failure> {
    let qvm = &compartment.qvm;
    match qvm.dump_file() {
        Some(name) if files::create(&name, compartment.id) => Ok(name),
        Some(name) => Err(Failure::Name(name)),
        None => {
            let folder = qvm.configuration.dump.as_deref().unwrap_or_default();
            files::create_any(folder, &qvm.name, EXTENSION, compartment.id).map_err(Failure::Name)
        }
    }
}

/// What is known of the vCPUs when each is out of its guest, or has had time enough for that.
fn wait_for_vcpus(compartment: &Compartment, partition: &Partition) -> Vec<(VcpuId, Presence)> {
    let vm = &*partition.vm;
    let limit = deadline();
    let all = || (0..vm.gic.vcpus()).map(|number| VcpuId(number as u16));
    let is_off = |id| vm.power.state(id) == State::Off;
    let is_out = |id: VcpuId| is_off(id) || partition.shown(|shown| shown.iter().any(|(out, _)| *out == id));
    while !all().all(is_out) && !compartment.is_ending() && el2::cpu::counter() < limit {
        let pause = el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(LOOK));
        thread::sleep_until(el2::cpu::counter().saturating_add(pause));
    }
    let mut shown = partition.shown(core::mem::take);
    let presence = |id| match shown.iter().position(|(out, _)| *out == id) {
        Some(place) => Presence::On(shown.swap_remove(place).1),
        None if is_off(id) => Presence::Off,
        None => Presence::Running,
    };
    all().zip(all().map(presence)).collect()
}
