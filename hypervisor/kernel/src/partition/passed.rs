//! Interrupts of passed devices, wires and messages, on their way into the guest.
//!
//! Answers for: keeping those that have come until one of the VM's vCPUs gives them to the interrupt controller, and deactivating those
//! that the guest has made inactive without the hardware. Does not answer for: whose they are (`crate::passed`, `crate::messages`).

use super::Partition;
use super::hold::ENDED;
use crate::messages::{self, GuestMessage, Way};
use crate::sync::masked;
use crate::{cpu, interrupt, passed, thread};
use core::sync::atomic::Ordering;
use types::{IntId, VcpuId, VcpuSet};
use vdev::InterruptController;

/// Most interrupts of passed devices that a VM has (`vm::config`).
const MOST: usize = 32;

impl Partition {
    /// The passed interrupt `number` has come. From any thread, and in an interrupt: waits for nothing of this VM's.
    pub(crate) fn passed_interrupt(&self, number: u32) {
        self.arrived.fetch_or(1_u32.wrapping_shl(number), Ordering::SeqCst);
        self.hold.add(ENDED);
        if let Some(thread) = self.thread(VcpuId(self.takes.load(Ordering::Relaxed))) {
            thread::notify(thread);
        }
    }

    /// Gives the guest what has come, in the thread of vCPU `own`, which is not in its guest.
    pub(super) fn take_passed_interrupts(&self, own: VcpuId) {
        if self.arrived.load(Ordering::Relaxed) == 0 {
            return;
        }
        let arrived = self.arrived.swap(0, Ordering::SeqCst);
        // The next one comes to where this one was taken: then nobody else has to be told.
        let here = cpu::this().id;
        if self.routed.swap(here.0, Ordering::Relaxed) != here.0 {
            passed::interrupts(self.description).for_each(|passed| interrupt::enable(passed.host));
        }
        let mut kick = VcpuSet::EMPTY;
        for (number, passed) in passed::interrupts(self.description).take(MOST).enumerate() {
            if arrived >> number & 1 == 0 {
                continue;
            }
            let gic = &self.vm.gic;
            kick = kick.union(masked(|| match passed.edge {
                true => gic.inject_edge(passed.guest),
                false => gic.inject_hardware_shared(passed.guest, passed.host),
            }));
        }
        if let Some(vcpu) = kick.iter().next() {
            self.takes.store(vcpu.0, Ordering::Relaxed);
            self.kick(kick, own);
        }
    }

    /// The vector `number` of the VM's passed functions has come. As [`Partition::passed_interrupt`].
    pub(crate) fn message_arrived(&self, number: usize) {
        if let Some(word) = self.messages.get(number / 64) {
            word.fetch_or(1 << (number % 64), Ordering::SeqCst);
        }
        self.hold.add(ENDED);
        if let Some(thread) = self.thread(VcpuId(self.takes.load(Ordering::Relaxed))) {
            thread::notify(thread);
        }
    }

    /// Some come too often, and are held: the VM's own thread lets them come again.
    pub(crate) fn notify_worker(&self) {
        if let Some(worker) = &self.worker {
            thread::notify(worker);
        }
    }

    /// Gives the guest's controller the messages of vectors that have come, in the thread of vCPU `own`, which is not in its guest.
    pub(super) fn take_messages(&self, own: VcpuId) {
        let mut kick = VcpuSet::EMPTY;
        for (word, arrived) in self.messages.iter().enumerate() {
            if arrived.load(Ordering::Relaxed) == 0 {
                continue;
            }
            let mut left = arrived.swap(0, Ordering::SeqCst);
            while left != 0 {
                kick = kick.union(self.take_message(64 * word + left.trailing_zeros() as usize));
                left &= left - 1;
            }
        }
        if let Some(vcpu) = kick.iter().next() {
            self.takes.store(vcpu.0, Ordering::Relaxed);
            self.kick(kick, own);
        }
    }

    /// Gives the guest's controller the message of the vector `number`. Returns the vCPUs to kick.
    fn take_message(&self, number: usize) -> VcpuSet {
        let taken = thread::current().compartment().and_then(|compartment| messages::taken(compartment.id, number));
        let message = match taken {
            Some(Way::Message(message)) => Some(message),
            Some(Way::Function { function, vector }) => self.guest_message(function, vector),
            None => None,
        };
        let Some(GuestMessage { requester, address, data }) = message else { return VcpuSet::EMPTY };
        masked(|| self.vm.gic.message(requester, address, data))
    }

    /// Ends at the host what has ended for the guest without it.
    pub(super) fn deactivate_passed(&self) {
        let (mut list, mut count) = ([IntId(0); MOST], 0);
        masked(|| {
            self.vm.gic.take_physical(|intid| {
                if let Some(slot) = list.get_mut(count) {
                    *slot = intid;
                    count += 1;
                }
            });
        });
        list.iter().take(count).for_each(|intid| interrupt::deactivate_passed(*intid));
    }
}
