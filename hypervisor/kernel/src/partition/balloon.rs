//! What a VM with a balloon has of its memory, as seen from outside, and its end for want of it.
//!
//! Answers for: handing on what it may have, and ending it when a page that it had given back is wanted and there is none. Does not answer
//! for: pages (`guest_memory::loan`), for what the guest is told (the device).

use super::Partition;
use super::hold::DRY;
use crate::guest_memory::Refused;
use crate::thread;
use types::PAGE_SIZE;
use vdev::Cause;
use vm::lifecycle::EndRecord;

impl Partition {
    /// How many bytes of memory the guest is to make do with from now on, and may have at any time. `None`: it has no balloon.
    pub(crate) fn entitle(&self, bytes: u64) -> Option<Result<(), Refused>> {
        self.ram.loan().map(|loan| loan.entitle(bytes.div_ceil(PAGE_SIZE)))
    }

    /// Memory that the guest had given back is wanted, and there is none. From anywhere; takes no lock.
    pub(crate) fn run_dry(&self) {
        self.hold.add(DRY);
    }

    /// If that is so, the VM ends.
    #[inline(always)]
    pub(super) fn end_if_dry(&self) {
        if self.hold.has(DRY) {
            self.end_dry();
        }
    }

    #[cold]
    #[inline(never)]
    fn end_dry(&self) {
        if self.hold.remove(DRY) {
            if let Some(compartment) = thread::current().compartment() {
                let why = format_args!("no memory for a page that the guest had given back");
                compartment.record(EndRecord::new(Cause::FatalRunning, None, None, why));
            }
            self.stop();
        }
    }
}
