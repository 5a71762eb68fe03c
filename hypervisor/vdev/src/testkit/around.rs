//! Guest memory and an interrupt controller that remember what happened to them.

use crate::{GuestMemory, InterruptController, MemoryFault};
use alloc::{collections::btree_map::BTreeMap, vec, vec::Vec};
use types::{AccessSize, IntId, Ipa, Lock, Range, RequesterId, VcpuId, VcpuSet};

/// Guest memory from one address on, zero at first.
#[derive(Debug)]
pub struct Ram {
    start: Ipa,
    bytes: Lock<Vec<u8>>,
}

impl Ram {
    /// So many bytes from `start` on.
    #[must_use]
    pub fn new(start: Ipa, length: usize) -> Self {
        Self { start, bytes: Lock::new(vec![0; length]) }
    }

    fn with<R>(&self, at: Ipa, length: usize, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, MemoryFault> {
        let fault = MemoryFault { at };
        let first = at.0.checked_sub(self.start.0).and_then(|offset| usize::try_from(offset).ok()).ok_or(fault)?;
        let end = first.checked_add(length).ok_or(fault)?;
        self.bytes.lock().get_mut(first..end).map(f).ok_or(fault)
    }
}

impl GuestMemory for Ram {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.with(from, into.len(), |bytes| into.copy_from_slice(bytes))
    }

    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.with(to, from.len(), |bytes| bytes.copy_from_slice(from))
    }

    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        if !size.is_aligned(from.0) {
            return Err(MemoryFault { at: from });
        }
        let mut value = [0; 8];
        let length = 1 << size as usize;
        self.with(from, length, |bytes| value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from))?;
        Ok(u64::from_le_bytes(value))
    }

    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        if !size.is_aligned(to.0) {
            return Err(MemoryFault { at: to });
        }
        let length = 1 << size as usize;
        self.with(to, length, |bytes| bytes.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from))
    }

    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        let value = self.load(at, size)?;
        if value == expected & size.mask() {
            self.store(at, size, new)?;
        }
        Ok(value)
    }

    fn contains(&self, range: Range<Ipa>) -> bool {
        usize::try_from(range.length()).is_ok_and(|length| self.with(range.start(), length, |_| ()).is_ok())
    }
}

/// An interrupt controller that only remembers. It kicks vCPU 0 whenever a line is raised.
#[derive(Debug, Default)]
pub struct Lines {
    levels: Lock<BTreeMap<(Option<VcpuId>, IntId), bool>>,
    events: Lock<Vec<(IntId, bool)>>,
    messages: Lock<Vec<(Option<RequesterId>, Ipa, u32)>>,
}

impl Lines {
    /// Whether the shared input `intid` is asserted.
    #[must_use]
    pub fn level(&self, intid: IntId) -> bool {
        self.levels.lock().get(&(None, intid)).copied().unwrap_or(false)
    }

    /// Every call since the last time this was asked, in order.
    #[must_use]
    pub fn take_events(&self) -> Vec<(IntId, bool)> {
        core::mem::take(&mut self.events.lock())
    }

    /// The messages that were sent since this was last asked, by whom and to where, in order.
    #[must_use]
    pub fn take_messages(&self) -> Vec<(Option<RequesterId>, Ipa, u32)> {
        core::mem::take(&mut self.messages.lock())
    }

    fn set(&self, vcpu: Option<VcpuId>, intid: IntId, asserted: bool) -> VcpuSet {
        self.events.lock().push((intid, asserted));
        let before = self.levels.lock().insert((vcpu, intid), asserted).unwrap_or(false);
        if asserted && !before { VcpuSet::of(vcpu.unwrap_or_default()) } else { VcpuSet::EMPTY }
    }
}

impl InterruptController for Lines {
    fn set_level(&self, intid: IntId, asserted: bool) -> VcpuSet {
        if intid.is_spi() { self.set(None, intid, asserted) } else { VcpuSet::EMPTY }
    }

    fn set_private_level(&self, vcpu: VcpuId, intid: IntId, asserted: bool) -> VcpuSet {
        if intid.is_private() && !intid.is_sgi() { self.set(Some(vcpu), intid, asserted) } else { VcpuSet::EMPTY }
    }

    fn message(&self, from: Option<RequesterId>, address: Ipa, data: u32) -> VcpuSet {
        self.messages.lock().push((from, address, data));
        VcpuSet::of(VcpuId::default())
    }
}
