//! Pages from which a guest reads registers of its devices.
//!
//! Answers for: what a device has of such a page, and that the guest finds what is stored, with its caches on or off. Does not answer
//! for: the page's frame ([`GuestRam`]), nor for what is in it (the device). See docs/design/034-shadow-page.md.

use super::GuestRam;
use core::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use types::{Ipa, PAGE_SIZE, Range};
use vdev::ShadowPage;

/// A device's end of it. There is memory behind it as soon as the VM has any. In the VM's heap, and never dropped.
pub(crate) struct Shadow {
    page: Range<Ipa>,
    /// Its address here; 0 while there is none.
    host: AtomicUsize,
}

impl Shadow {
    /// For this page of the guest's.
    pub(crate) const fn new(page: Range<Ipa>) -> Self {
        Self { page, host: AtomicUsize::new(0) }
    }

    /// Where the guest has it.
    pub(crate) fn page(&self) -> Range<Ipa> {
        self.page
    }

    /// This is the VM's memory, with the page.
    pub(crate) fn attach(&self, ram: &'static GuestRam) {
        let frame = ram.shadows().find(|(page, _)| *page == self.page);
        self.host.store(frame.map_or(0, |(_, frame)| frame.0 as usize), Ordering::Release);
    }
}

impl ShadowPage for Shadow {
    fn store(&self, offset: u16, value: u32) {
        let host = self.host.load(Ordering::Acquire);
        if host == 0 || !offset.is_multiple_of(4) || u64::from(offset) >= PAGE_SIZE {
            return;
        }
        let at = host + usize::from(offset);
        // SAFETY: aligned, within a frame that the VM has for longer than its devices; only ever stored to atomically.
        unsafe { AtomicU32::from_ptr(at as *mut u32) }.store(value.to_le(), Ordering::Release);
        // SAFETY: that word. A guest maps registers as Device memory, or has its caches off: it reads past them.
        unsafe { el2::cache::clean_and_invalidate_word(at) };
    }
}
