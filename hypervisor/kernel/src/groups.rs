//! Clusters of CPUs and adaptive partitions, by the names that configurations use.
//!
//! Answers for: the one table of them, and that what a name stands for is there. Does not answer for: which names there may be
//! (`vm::config::Groups`), what a partition guarantees (`sched`), where VMs say which they want (`vm::config`).

use crate::start;
use crate::sync::{Lock, Rank};
use crate::thread;
use alloc::vec::Vec;
use machine::Machine;
use sched::{ShareError, ShareId};
use types::CpuSet;
use vm::config::{GroupError, Groups, SYSTEM_PARTITION};

static GROUPS: Lock<Option<Groups>> = Lock::new(Rank::Groups, None);

/// Why an adaptive partition cannot be defined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PartitionError {
    /// By its name.
    Name(GroupError),
    /// By what it is guaranteed.
    Share(ShareError),
}

impl core::fmt::Display for PartitionError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Name(error) => error.fmt(f),
            Self::Share(error) => error.fmt(f),
        }
    }
}

/// What the machine has by itself.
pub(crate) fn initialise(machine: &Machine) {
    let affinities: Vec<_> = machine.cpus.iter().map(|cpu| cpu.mpidr).collect();
    *GROUPS.lock() = Some(Groups::new(&affinities));
}

/// Gives a set of CPUs a name.
///
/// # Errors
/// When the name or one of the CPUs cannot be.
pub(crate) fn define_cluster(name: &str, cpus: CpuSet) -> Result<(), GroupError> {
    let count = start::MACHINE.get().map_or(0, |machine| machine.cpus.len());
    GROUPS.lock().as_mut().map_or(Err(GroupError::NoCpu), |groups| groups.define_cluster(name, cpus, count))
}

/// Guarantees `percent` of the machine's time to the threads in the adaptive partition `name`, which may be a new one.
///
/// # Errors
/// When the name cannot be, or less than that is left.
pub(crate) fn define_partition(name: &str, percent: u8) -> Result<(), PartitionError> {
    let mut groups = GROUPS.lock();
    let groups = groups.as_mut().ok_or(PartitionError::Share(ShareError::NoMemory))?;
    if let Some(place) = groups.partition(name).filter(|place| *place != SYSTEM_PARTITION) {
        return thread::redefine_share(ShareId::from_index(place as u8), percent).map_err(PartitionError::Share);
    }
    groups.check_partition(name).map_err(PartitionError::Name)?;
    // Both count from the system's, so that the share of a partition has its place in the list.
    thread::define_share(percent).map_err(PartitionError::Share)?;
    groups.define_partition(name).map_err(PartitionError::Name)
}

/// All of them as they are now.
pub(crate) fn all() -> Option<Groups> {
    GROUPS.lock().clone()
}
