//! Who has to look, and who has to be told to.
//!
//! Answers for: the flags by which a vCPU learns, without a lock, that its list registers are no longer what they should
//! be, and for collecting the vCPUs to kick. Does not answer for: kicking (the kernel).

use crate::private::Private;
use core::sync::atomic::{AtomicU32, Ordering};
use types::{Lock, VcpuId, VcpuSet};

/// A private interrupt may be waiting.
pub(crate) const PRIVATE: u32 = 1 << 0;
/// A shared interrupt may be waiting.
pub(crate) const SHARED: u32 = 1 << 1;
/// The list registers have to be written anew: something that one of them holds has changed.
pub(crate) const RESYNC: u32 = 1 << 2;
/// Somebody wants to see what the list registers say.
pub(crate) const SYNC: u32 = 1 << 3;

/// What belongs to one vCPU. On cache lines of its own.
#[derive(Debug)]
#[repr(align(64))]
pub(crate) struct Cell {
    /// What to look at before the next entry. Set by anybody, after the state was changed; taken by the vCPU, before it
    /// looks at the state.
    pub(crate) attention: AtomicU32,
    /// Its private interrupts and its virtual CPU interface.
    pub(crate) private: Lock<Private>,
}

impl Cell {
    /// Asks the vCPU to look.
    #[inline]
    pub(crate) fn attend(&self, flags: u32) {
        self.attention.fetch_or(flags, Ordering::Release);
    }

    /// Whether a vCPU has been asked to write its list registers anew and has not yet.
    #[inline]
    pub(crate) fn is_out_of_date(&self) -> bool {
        self.attention.load(Ordering::Acquire) & RESYNC != 0
    }
}

/// What a change of shared state needs to know of the rest, and where it collects whom to kick.
pub(crate) struct Signals<'a> {
    /// All vCPUs.
    pub(crate) cells: &'a [Cell],
    /// `GICD_CTLR`'s group enables.
    pub(crate) groups: u32,
    /// vCPUs that take their part of 1-of-N interrupts, one bit each.
    pub(crate) participating: u64,
    /// The vCPU whose list registers are being written right now: needs no telling.
    pub(crate) current: Option<VcpuId>,
    /// Whom to kick.
    pub(crate) kick: VcpuSet,
}

impl Signals<'_> {
    /// Tells vCPU `index`. An index that is nobody's is ignored.
    #[inline]
    pub(crate) fn notify(&mut self, index: u8, flags: u32) {
        let vcpu = VcpuId(u16::from(index));
        if self.current == Some(vcpu) {
            return;
        }
        if let Some(cell) = self.cells.get(vcpu.index()) {
            cell.attend(flags);
            self.kick.insert(vcpu);
        }
    }
}
