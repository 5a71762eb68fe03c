//! What an SMMU has to say: events and errors.
//!
//! Answers for: taking them out and telling of them, cutting a device off or ending its VM, if that is wanted. Does not answer for: what a record
//! says, how often a stream's are told of (`smmu`).

use super::super::{nested, on_fault, passed, ticks};
use super::{EVENT_BITS, Stage, Unit, Working};
use alloc::format;
use alloc::string::{String, ToString};
use arrayvec::ArrayVec;
use core::sync::atomic::Ordering;
use smmu::configuration::OnFault;
use smmu::{Event, Owner};

/// How often a stream's faults are told of, in microseconds, after the first few.
const INTERVAL: u64 = 1_000_000;
/// Events that are taken at once.
const BATCH: usize = 32;

/// An event that is told of.
struct Told {
    event: Event,
    /// Those since the last one of its stream that was told of.
    untold: u64,
    device: Option<String>,
}

/// An event of a stream that somebody has, and who had it when the event was taken: the next to have it does not answer for it.
struct Guilty {
    event: Event,
    owner: Owner,
}

/// Events of a look, by what becomes of them.
#[derive(Default)]
struct Taken {
    told: ArrayVec<Told, BATCH>,
    /// One of each stream that somebody has.
    guilty: ArrayVec<Guilty, BATCH>,
    /// What is some guest's own business: faults at its own tables.
    guests: ArrayVec<Guilty, BATCH>,
}

/// What a look has found, besides events.
struct Looked {
    has_failed: bool,
    /// Events have been lost, and it is to be told of: how often since it was told of last.
    lost: Option<u64>,
    is_more: bool,
}

impl Unit {
    /// Refuses whatever `stream` sends from now on, without further events, and takes it from its owner; a VM's stays the VM's. What is
    /// not, or no longer, `whose` stays as it is, and what is being taken from it anyway.
    pub(in super::super) fn cut_off(&self, stream: u32, whose: &Owner) {
        let detached = self.with(|working| {
            let Some((device, Some(owner))) = working.streams.who(stream) else { return Ok(None) };
            if owner != whose || working.streams.is_closing(stream) {
                return Ok(None);
            }
            let device = format!("`{device}` of `{}`", owner.name);
            let procedure =
                working.streams.detach(stream, whose, true, &working.smmu).map_err(|why| why.to_string())?;
            Ok(Some((device, procedure)))
        });
        let done = detached.and_then(|detached| {
            let Some((device, mut procedure)) = detached else { return Ok(None) };
            let is_done = self.carry_out(&mut procedure)?;
            self.with(|working| {
                if !working.streams.is_passed(stream) {
                    working.streams.released(stream, &procedure);
                }
                Ok(is_done.then_some(device))
            })
        });
        match done {
            Ok(Some(device)) => log::warn!("smmu{}: {device} (stream {stream:#x}) is cut off", self.number),
            Ok(None) => {}
            Err(why) => log::error!("smmu{}: stream {stream:#x} cannot be cut off: {why}", self.number),
        }
    }

    /// Looks what has happened, tells of it, and does what is to be done then. Whether there may be more.
    pub(in super::super) fn look(&self) -> bool {
        let (guilty, is_more) = self.hear();
        for Guilty { event, owner } in &guilty {
            match on_fault() {
                OnFault::Report => {}
                OnFault::Terminate if passed::terminate(self.number, event, owner) => {}
                OnFault::CutOff | OnFault::Terminate => self.cut_off(event.stream, owner),
            }
        }
        is_more
    }

    /// The same with everything that has happened until now.
    pub(super) fn look_at_all(&self) {
        const MOST: usize = (1 << EVENT_BITS) / BATCH + 1;
        // A device that goes on does not keep it here.
        for _ in 0..MOST {
            if !self.look() {
                break;
            }
        }
    }

    /// Looks what has happened, and tells of it: which events are of streams that somebody owns, one of each; whether there may be more.
    fn hear(&self) -> (ArrayVec<Guilty, BATCH>, bool) {
        let (mut news, mut taken) = (None, Taken::default());
        if self.has_news.swap(false, Ordering::SeqCst)
            && let Stage::Useless(why) = &*self.stage.lock()
        {
            news = Some(why.clone());
        }
        if let Some(why) = news {
            log::error!("smmu{} is not used any more: {why}: no device behind it does DMA", self.number);
        }
        let looked = self.with(|working| Ok(working.take(&mut taken)));
        let Ok(looked) = looked else { return (ArrayVec::new(), false) };
        let Taken { told, guilty, guests } = taken;
        guests.iter().for_each(|Guilty { event, owner }| nested::report(self.number, event, owner));
        for Told { event, untold, device } in told {
            let device = device.map(|device| format!(" [{device}]")).unwrap_or_default();
            let others =
                if untold > 0 { format!("; {untold} more since the last that was told") } else { String::new() };
            log::warn!("smmu{}: {event}{device}{others}", self.number);
        }
        if let Some(untold) = looked.lost {
            let before = if untold > 0 { format!("; {untold} times untold before") } else { String::new() };
            log::warn!("smmu{}: events are lost: more come than are taken{before}", self.number);
        }
        if looked.has_failed {
            // It lets nothing through any more (12.3).
            log::error!("smmu{} has failed (SFM_ERR): no device behind it does DMA any more", self.number);
            *self.stage.lock() = Stage::Useless("it has failed (SFM_ERR), and lets nothing through".into());
            return (ArrayVec::new(), false);
        }
        (guilty, looked.is_more)
    }
}

impl Working {
    /// Takes events out, a batch at most.
    fn take(&mut self, into: &mut Taken) -> Looked {
        let (now, interval) = (el2::cpu::counter(), ticks(INTERVAL));
        let errors = self.smmu.global_errors(&mut self.driver);
        let before = self.lost();
        self.unwritten = self.unwritten.saturating_add(errors.events_lost.into());
        let mut taken = 0;
        while taken < BATCH
            && let Some(event) = self.smmu.events.take(&mut self.driver)
        {
            taken += 1;
            let (device, owner) = self.streams.who(event.stream).unzip();
            let owner = owner.flatten();
            if event.is_of_stage1() && self.nested.contains(&event.stream) {
                _ = self.tally.note(event.stream, now, interval);
                into.guests.extend(owner.map(|owner| Guilty { event, owner: owner.clone() }));
                continue;
            }
            if let Some(owner) = owner.filter(|_| event.accuses())
                && into.guilty.iter().all(|other| other.event.stream != event.stream)
            {
                into.guilty.push(Guilty { event, owner: owner.clone() });
            }
            if let Some(untold) = self.tally.note(event.stream, now, interval) {
                let vm = owner.filter(|_| self.streams.is_passed(event.stream));
                let device = device.map(|device| match vm {
                    Some(Owner { name, .. }) => format!("{device}: VM `{name}`'s"),
                    None => device.into(),
                });
                into.told.push(Told { event, untold, device });
            }
        }
        let are_lost = self.lost() != before;
        let lost = if are_lost { self.lost.note(now, interval) } else { None };
        Looked { has_failed: errors.failed, lost, is_more: taken == BATCH }
    }
}
