//! A machine for a VM that is only put together: what stands for the host it would run on.
//!
//! Answers for: files of this machine in place of a boot archive's, CPUs of no particular kind, memory that forgets. Does not
//! answer for: back ends (`devices`).

use std::collections::BTreeMap;
use std::fs;

use anyhow::{Context, Result};
use types::{AccessSize, Ipa, Range};
use vm::controller::Version;

use super::{COUNTER, archive_name};
use crate::archive::Wanted;

/// Files of this machine in place of those of a boot archive.
pub(super) struct HostFiles(BTreeMap<String, Vec<u8>>);

impl HostFiles {
    pub(super) fn read(wanted: &[Wanted]) -> Result<HostFiles> {
        let read = |wanted: &Wanted| {
            let content = fs::read(&wanted.path).with_context(|| format!("cannot read {}", wanted.path.display()))?;
            Ok((archive_name(&wanted.path)?, content))
        };
        Ok(HostFiles(wanted.iter().map(read).collect::<Result<_>>()?))
    }
}

impl vm::Files for HostFiles {
    fn file(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }
}

/// CPUs of no particular kind: whether a VM can be put together does not depend on them.
pub(super) fn host(gic: Version) -> vm::Host<'static> {
    vm::Host {
        id: vm::id_registers::IdRegisters::plain(),
        frequency: COUNTER,
        epoch: 0,
        gic,
        list_registers: 4,
        priority_bits: 5,
        mitigations: vm::smccc::Mitigations::default(),
        monitors: true,
        entropy: None,
        tree: None,
        seed: &[],
    }
}

/// Memory that takes whatever is loaded into it.
pub(super) struct Nowhere;

impl vdev::GuestMemory for Nowhere {
    fn exchange(&self, at: Ipa, _: AccessSize, _: u64, _: u64) -> Result<u64, vdev::MemoryFault> {
        Err(vdev::MemoryFault { at })
    }

    fn contains(&self, _: Range<Ipa>) -> bool {
        false
    }

    fn read(&self, from: Ipa, _: &mut [u8]) -> Result<(), vdev::MemoryFault> {
        Err(vdev::MemoryFault { at: from })
    }

    fn write(&self, _: Ipa, _: &[u8]) -> Result<(), vdev::MemoryFault> {
        Ok(())
    }

    fn load(&self, from: Ipa, _: AccessSize) -> Result<u64, vdev::MemoryFault> {
        Err(vdev::MemoryFault { at: from })
    }

    fn store(&self, _: Ipa, _: AccessSize, _: u64) -> Result<(), vdev::MemoryFault> {
        Ok(())
    }
}
