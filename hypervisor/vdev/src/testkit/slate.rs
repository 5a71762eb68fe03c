//! A page of registers as the guest reads it without an exit.

use crate::ShadowPage;
use alloc::{sync::Arc, vec, vec::Vec};
use types::{AccessSize, Lock, PAGE_SIZE};

/// What the guest finds there; clones are handles of the same. It is empty until a device has asked for it.
#[derive(Clone, Debug, Default)]
pub struct Slate(Arc<Lock<Vec<u8>>>);

impl Slate {
    /// A device asks for it.
    pub(super) fn give(&self) {
        let length = usize::try_from(PAGE_SIZE).unwrap_or(0);
        *self.0.lock() = vec![0; length];
    }

    /// Whether a device has asked for it.
    #[must_use]
    pub fn is_given(&self) -> bool {
        !self.0.lock().is_empty()
    }

    /// What a load of `size` bytes at `offset` finds; `None` if it is not all within the page, or there is none.
    #[must_use]
    pub fn load(&self, offset: u64, size: AccessSize) -> Option<u64> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(usize::try_from(size.bytes()).ok()?)?;
        let mut value = [0; 8];
        self.0.lock().get(start..end)?.iter().zip(&mut value).for_each(|(from, to)| *to = *from);
        Some(u64::from_le_bytes(value))
    }
}

impl ShadowPage for Slate {
    fn store(&self, offset: u16, value: u32) {
        let start = usize::from(offset);
        if !offset.is_multiple_of(4) {
            return;
        }
        let mut bytes = self.0.lock();
        let word = bytes.get_mut(start..).unwrap_or_default();
        word.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from);
    }
}
