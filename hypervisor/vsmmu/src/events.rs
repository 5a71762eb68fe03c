//! Events, as the guest is told of them (IHI 0070, 7.2 to 7.4).
//!
//! Answers for: which of the machine's events are the guest's own doing and how it reads of them, and records in its event queue. Does
//! not answer for: the others. A fault at stage 2 is between the hypervisor and the VM: what the guest's addresses are is not for
//! its own tables to say, and in this SMMU's world there is no stage 2.

use crate::registers::{CR0_EVENTQEN, CR0_SMMUEN};
use crate::streams::Wish;
use crate::unit::{Signals, Smmu};
use smmu::registers::GERROR;
use smmu::{Event, Fault, Kind};
use types::Pa;
use vdev::GuestMemory;

impl Smmu {
    /// A transaction of a stream of the VM's has come to this: `event` is the machine's SMMU's, with the guest's number of the stream.
    /// What is the guest's to know is recorded. Says which edges are due.
    #[must_use]
    pub fn report(&mut self, event: &Event, memory: &dyn GuestMemory) -> Signals {
        let is_heard = self.registers.is_on(CR0_EVENTQEN) && self.registers.is_on(CR0_SMMUEN);
        if let Some(record) = self.own(event).filter(|_| is_heard) {
            self.record(&record, memory);
        }
        self.take_signals()
    }

    /// The event as it is without a stage 2, if it can be.
    fn own(&self, event: &Event) -> Option<Event> {
        let wish = self.streams.iter().find(|stream| stream.number == event.stream)?.wish;
        let plain = Event { substream: event.substream, ..Event::new(event.kind, event.stream) };
        match (wish, event.kind) {
            // The stream is refused, for this reason of the guest's own.
            (Wish::Abort(Some(reason)), Kind::BadSte) => {
                let is_recorded = reason.kind != Kind::BadStreamId || self.registers.records_unknown_streams();
                let fetch = reason.at.map(|at| Pa(at.0));
                is_recorded.then_some(Event { kind: reason.kind, fetch, ..plain })
            }
            (Wish::Translate(_), Kind::StreamDisabled | Kind::BadSubstreamId | Kind::BadCd | Kind::CdFetch) => {
                Some(plain)
            }
            (
                Wish::Translate(_),
                Kind::Translation
                | Kind::AddrSize
                | Kind::Access
                | Kind::Permission
                | Kind::TlbConflict
                | Kind::WalkEabt,
            ) => {
                let fault = event.fault.filter(|fault| !fault.stage2)?;
                // Where in the machine's memory a table could not be read is not said.
                let fault = Some(Fault { ipa: None, stalled: None, ..fault });
                Some(Event { fault, fetch: None, ..*event })
            }
            // What device has done that is no fault of a table's.
            (Wish::Pass | Wish::Translate(_), Kind::Uut | Kind::TranslForbidden) => {
                Some(Event { fault: None, ..*event })
            }
            _ => None,
        }
    }

    fn record(&mut self, event: &Event, memory: &dyn GuestMemory) {
        let queue = self.registers.events();
        // Not writable while an error of its own is not acknowledged (7.2.1).
        let is_writable = !self.registers.is_active(GERROR::EVENTQ_ABT_ERR::SET.value);
        let Some(position) = self.registers.event_position(&queue).filter(|_| is_writable) else {
            self.lost = self.lost.saturating_add(1);
            return;
        };
        let mut bytes = [0; 32];
        for (to, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(event.encode()) {
            *to = word.to_le_bytes();
        }
        if memory.write(queue.entry(position), &bytes).is_err() {
            self.lost = self.lost.saturating_add(1);
            self.signals.gerror |= self.registers.raise(GERROR::EVENTQ_ABT_ERR::SET.value);
            return;
        }
        self.recorded = self.recorded.saturating_add(1);
        let is_first = self.registers.produced(position, &queue);
        self.signals.eventq |= is_first && self.registers.announces_events();
    }
}
