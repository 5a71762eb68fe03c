//! Functions of the machine's PCI Express that the VM has, in its own threads.
//!
//! Answers for: telling devices of their pins, ending these at the host when all have, what messages are to the guest, resets that the
//! guest wants, and those that others have brought about. Does not answer for: whose functions they are (`crate::function`).

use super::Partition;
use super::hold::ENDED;
use crate::messages::GuestMessage;
use crate::sync::masked;
use crate::{interrupt, thread};
use ::pcie::PciAddress;
use core::sync::atomic::Ordering;
use types::{IntId, VcpuId};
use vdev::Wake;

impl Partition {
    /// A pin has come. As [`Partition::passed_interrupt`].
    pub(crate) fn pin_arrived(&self, intid: IntId) {
        let is_it = |function: &&(usize, &alloc::sync::Arc<crate::function::Handle>)| {
            function.1.line.as_ref().is_some_and(|line| line.intid == intid)
        };
        let own = || self.functions.iter().enumerate().filter(|function| is_it(&function));
        let all = own().fold(0, |all, (number, _)| all | 1_u32.wrapping_shl(number as u32));
        if let Some((_, function)) = own().next()
            && let Some(line) = &function.line
        {
            line.begin(all);
        }
        own().for_each(|(_, function)| function.note_news());
        self.have_looked();
    }

    /// The function at `address` has been reset with its physical one: its device brings it to where its guest has had it. From any thread.
    pub(crate) fn function_was_reset(&self, address: PciAddress) {
        self.functions.iter().filter(|function| function.address == address).for_each(|function| function.note_news());
        self.have_looked();
    }

    /// A vCPU's thread tells devices what has come.
    fn have_looked(&self) {
        self.hold.add(ENDED);
        if let Some(thread) = self.thread(VcpuId(self.takes.load(Ordering::Relaxed))) {
            thread::notify(thread);
        }
    }

    /// All functions with a pin have ended it: a vCPU does so at the host, before it enters its guest. Takes no lock.
    pub(crate) fn note_pin_ended(&self) {
        self.hold.add(ENDED);
    }

    /// Tells the devices whose pins have come, or that have been reset with others, and ends pins that are over, in the thread of a vCPU, which
    /// is not in its guest.
    pub(super) fn take_pins(&self) {
        for function in self.functions.iter().filter(|function| function.take_news()) {
            self.wake(function.device, Wake::Backend);
        }
        for line in self.functions.iter().filter_map(|function| function.line.as_ref()) {
            if line.take_ended() {
                // The next one comes to where this one was ended, and not in some other VM's time.
                if line.moves_here() {
                    interrupt::enable(line.intid);
                }
                interrupt::deactivate_passed(line.intid);
            }
            // It stays active, and so does not come any more.
            if line.take_useless() {
                let (origin, intid) = (self.vm.origin(), line.intid.0);
                log::error!(target: origin, "interrupt {intid} comes on and on though no passed function has its pin asserted: it is masked");
            }
        }
    }

    /// What message `vector` of the function `number` is to the guest.
    pub(super) fn guest_message(&self, number: usize, vector: usize) -> Option<GuestMessage> {
        let function = self.functions.get(number)?;
        let (requester, address, data) = masked(|| function.guest_message(vector))?;
        Some(GuestMessage { requester: Some(requester), address, data })
    }

    /// Resets what the guest wants reset, in one of the VM's threads. If that fails the device is not told, and leaves the function alone; if
    /// the VM ends meanwhile its end does it.
    pub(super) fn reset_functions(&self) {
        let go_on = || !self.is_stopping();
        for function in self.functions.iter().filter(|function| go_on() && function.reset_if_wanted(&go_on)) {
            self.wake(function.device, Wake::Pulse(0));
        }
    }
}
