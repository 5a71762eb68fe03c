//! The device's registers as its driver reads them without an exit.
//!
//! Answers for: what has been stored to the page, so that nothing is stored twice. Does not answer for: what a register reads (`mmio`),
//! who may store at the same time (`interrupt`).

use super::END;
use alloc::sync::Arc;
use vdev::ShadowPage;

/// Registers of 32 bits, and as many bytes of the configuration space at a time.
const WORD: u16 = 4;
const WORDS: usize = (END / WORD) as usize;

/// The page, and what is in it as far as there are registers.
pub(super) struct Shadow {
    page: Arc<dyn ShadowPage>,
    words: [u32; WORDS],
}

impl Shadow {
    /// A page of zeroes.
    pub(super) const fn new(page: Arc<dyn ShadowPage>) -> Self {
        Self { page, words: [0; WORDS] }
    }

    /// Has the driver read `value` at `offset`, a multiple of 4, when this returns: the one place where the page is written.
    pub(super) fn show(&mut self, offset: u16, value: u32) {
        let word = self.words.get_mut(usize::from(offset / WORD));
        if word.is_some_and(|word| core::mem::replace(word, value) != value) {
            self.page.store(offset, value);
        }
    }

    /// What the driver reads at `offset`, a multiple of 4.
    pub(super) fn shown(&self, offset: u16) -> u32 {
        self.words.get(usize::from(offset / WORD)).copied().unwrap_or(0)
    }
}
