//! A device of the machine that is passed to the VM, for what brings it to rest.

use crate::{AccessFault, Registers};
use alloc::{boxed::Box, collections::btree_map::BTreeMap, sync::Arc, vec::Vec};
use core::fmt;
use types::{AccessSize, Lock};

/// What a device's registers do beyond keeping what is written: is told of each access, before a load and after a store.
pub type Behaviour = dyn FnMut(&mut BTreeMap<u64, u64>, Option<u64>, u64) + Send;

/// Registers that keep what is written; clones are handles of the same.
#[derive(Clone, Default)]
pub struct Part(Arc<Lock<State>>);

#[derive(Default)]
struct State {
    values: BTreeMap<u64, u64>,
    stores: Vec<(u64, AccessSize, u64)>,
    loads: usize,
    behaviour: Option<Arc<Lock<Box<Behaviour>>>>,
}

impl fmt::Debug for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Part").finish_non_exhaustive()
    }
}

impl Part {
    /// How many bytes there are.
    pub const LENGTH: u64 = 0x1000;

    /// One that does something: `behaviour` has its registers, what was stored or `None` for a load, and the offset.
    #[must_use]
    pub fn new(behaviour: impl FnMut(&mut BTreeMap<u64, u64>, Option<u64>, u64) + Send + 'static) -> Self {
        let part = Self::default();
        part.0.lock().behaviour = Some(Arc::new(Lock::new(Box::new(behaviour))));
        part
    }

    /// Sets a register, as its guest has left it.
    pub fn set(&self, offset: u64, value: u64) {
        self.0.lock().values.insert(offset, value);
    }

    /// What a register has.
    #[must_use]
    pub fn get(&self, offset: u64) -> u64 {
        self.0.lock().values.get(&offset).copied().unwrap_or(0)
    }

    /// All that was stored, in order: where, how wide, what.
    #[must_use]
    pub fn stores(&self) -> Vec<(u64, AccessSize, u64)> {
        self.0.lock().stores.clone()
    }

    /// How many loads there were.
    #[must_use]
    pub fn loads(&self) -> usize {
        self.0.lock().loads
    }

    fn check(offset: u64, size: AccessSize) -> Result<(), AccessFault> {
        match () {
            () if offset.checked_add(size.bytes()).is_none_or(|end| end > Self::LENGTH) => Err(AccessFault::Straddles),
            () if !size.is_aligned(offset) => Err(AccessFault::Unaligned),
            () => Ok(()),
        }
    }
}

impl Registers for Part {
    fn read(&self, offset: u64, size: AccessSize) -> Result<u64, AccessFault> {
        Self::check(offset, size)?;
        let mut state = self.0.lock();
        state.loads = state.loads.saturating_add(1);
        if let Some(behaviour) = state.behaviour.clone() {
            behaviour.lock()(&mut state.values, None, offset);
        }
        Ok(state.values.get(&offset).copied().unwrap_or(0) & size.mask())
    }

    fn write(&self, offset: u64, size: AccessSize, value: u64) -> Result<(), AccessFault> {
        Self::check(offset, size)?;
        let mut state = self.0.lock();
        state.stores.push((offset, size, value));
        state.values.insert(offset, value & size.mask());
        if let Some(behaviour) = state.behaviour.clone() {
            behaviour.lock()(&mut state.values, Some(value), offset);
        }
        Ok(())
    }
}
