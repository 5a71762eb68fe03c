//! Streams of an SMMU: given to somebody, taken back, and put behind a guest's own SMMU.
//!
//! Answers for: doing it, and waiting until it is done. Does not answer for: who may own what, what an entry is (`smmu`), which VM has
//! which (`passed`, `nested`).

use super::{Unit, Working, share};
use alloc::format;
use alloc::string::{String, ToString};
use smmu::{Command, Owner, Stage2, StreamTableEntry};
use types::PAGE_SIZE;
use vdev::StreamEntry;

/// What somebody's device reaches.
#[derive(Clone, Copy)]
pub(in super::super) enum Reach<'a> {
    /// This.
    Stage2(&'a Stage2),
    /// Everything.
    Bypass,
}

/// What a guest wants of a stream: an entry of its own table, and how long its addresses are.
#[derive(Clone, Copy)]
pub(in super::super) struct Wish {
    pub(in super::super) entry: StreamEntry,
    pub(in super::super) ipa_bits: u8,
}

impl Unit {
    /// Makes `device` known as what is behind `stream`. Streams of one `group` have one owner.
    pub(in super::super) fn declare(
        &self,
        device: &str,
        stream: u32,
        group: u32,
        may_bypass: bool,
    ) -> Result<(), String> {
        self.with(|working| {
            let geometry = working.smmu.geometry();
            working.streams.declare(device, stream, group, may_bypass, geometry).map_err(|why| why.to_string())
        })
    }

    /// Gives a stream that has been declared to `owner`.
    pub(in super::super) fn give(&self, stream: u32, owner: &Owner, reach: Reach<'_>) -> Result<(), String> {
        let mut procedure = self.with(|working| {
            working.make_room(stream)?;
            let Working { smmu, streams, .. } = working;
            let procedure = match reach {
                Reach::Stage2(stage2) => streams.attach(stream, owner, stage2, None, smmu),
                Reach::Bypass => streams.bypass(stream, owner, smmu),
            };
            procedure.map_err(|why| why.to_string())
        })?;
        let is_given = self.carry_out(&mut procedure)?;
        is_given.then_some(()).ok_or_else(|| format!("stream {stream:#x} has been taken away again meanwhile"))
    }

    /// Gives a VM a stream, behind which is `device`, or some more of it. Streams that are passed and have one `group` have one owner.
    pub(in super::super) fn pass(
        &self,
        (device, stream, group): (&str, u32, u32),
        owner: &Owner,
        stage2: &Stage2,
    ) -> Result<(), String> {
        self.with(|working| {
            let geometry = working.smmu.geometry();
            working.streams.pass(device, stream, group, owner, geometry).map_err(|why| why.to_string())
        })?;
        self.give(stream, owner, Reach::Stage2(stage2))
    }

    /// A VM puts `stream` behind an SMMU of its own. Says whether this one can do its part: the guest is told that its tables are walked
    /// through the CPUs' caches.
    pub(in super::super) fn nest(&self, stream: u32) -> bool {
        let nested = self.with(|working| {
            let features = working.smmu.features();
            let is_fit = features.can_nest && features.coherent;
            if is_fit {
                working.nested.push(stream);
            }
            Ok(is_fit)
        });
        nested == Ok(true)
    }

    /// Whether it has ASIDs of 16 bits. One that does not work does not mind.
    pub(in super::super) fn has_asid16(&self) -> bool {
        self.with(|working| Ok(working.smmu.features().asid16)) != Ok(false)
    }

    /// It is behind none any more.
    pub(in super::super) fn unnest(&self, stream: u32) {
        // One that does not work has none.
        _ = self.with(|working| {
            working.nested.retain(|other| *other != stream);
            Ok(())
        });
    }

    /// Does with the transactions of `stream` what the guest of `owner` wants. One that is being taken from it is left as it is.
    ///
    /// # Errors
    /// Why that cannot be done: what the stream reaches now is its owner's, but perhaps not what its guest wants.
    pub(in super::super) fn wish(&self, stream: u32, owner: &Owner, stage2: &Stage2, wish: Wish) -> Result<(), String> {
        let [word0, word1] = wish.entry;
        let entry = StreamTableEntry([word0, word1, 0, 0, 0, 0, 0, 0]);
        let begun = self.with(|working| {
            let Working { smmu, streams, .. } = working;
            let owned_by = streams.who(stream).and_then(|(_, owner)| owner);
            if streams.is_closing(stream) || owned_by != Some(owner) {
                return Ok(None);
            }
            let procedure = match entry.of_guest(wish.ipa_bits, smmu.features()) {
                Ok(stage1) => streams.attach(stream, owner, stage2, stage1.as_ref(), smmu),
                Err(_) => streams.hold(stream, owner, entry.is_muted(), smmu),
            };
            procedure.map(Some).map_err(|why| why.to_string())
        })?;
        // What has come between counts, and not this.
        begun.map_or(Ok(true), |mut procedure| self.carry_out(&mut procedure)).map(|_| ())
    }

    /// Forgets what a guest has asked it to forget of its stage 1.
    ///
    /// # Errors
    /// Why it may have kept some of it.
    pub(in super::super) fn forget_stage1(&self, vmid: u16, asked: &[Command]) -> Result<(), String> {
        let mut procedure = self.with(|working| Ok(working.smmu.forget_stage1(vmid, asked)))?;
        self.carry_out(&mut procedure).map(|_| ())
    }

    /// Whether `stream` is `owner`'s, or may be: one that does not work says nothing.
    pub(in super::super) fn is_owner(&self, stream: u32, owner: &Owner) -> bool {
        let who = self.with(|working| Ok(working.streams.who(stream).and_then(|(_, owner)| owner).cloned()));
        who.map_or(true, |who| who.as_ref() == Some(owner))
    }

    /// What `stream` is and who has it, if somebody has.
    pub(in super::super) fn whose(&self, stream: u32) -> Option<String> {
        let whose = |working: &mut Working| {
            let (device, owner) = working.streams.who(stream)?;
            Some(format!("{device} is `{}`'s", owner?.name))
        };
        self.with(|working| Ok(whose(working))).ok().flatten()
    }

    /// Takes a stream from `owner`: when this returns its device reaches nothing any more.
    ///
    /// # Errors
    /// Why it may go on.
    pub(in super::super) fn take_back(&self, stream: u32, owner: &Owner) -> Result<(), String> {
        let mut detached = self.with(|working| {
            working.streams.detach(stream, owner, false, &working.smmu).map_err(|why| why.to_string())
        })?;
        let done = self.carry_out(&mut detached).and_then(|_| {
            // What has been recorded until now is this owner's: the next is not to answer for it.
            self.look_at_all();
            self.with(|working| Ok(working.streams.released(stream, &detached)))
        });
        let released =
            done.and_then(|is_free| is_free.then_some(()).ok_or_else(|| "its stream has been changed again".into()));
        released.inspect_err(|why| self.close(why))
    }
}

impl Working {
    /// Sees to it that the entry of `stream` has a place.
    fn make_room(&mut self, stream: u32) -> Result<(), String> {
        if self.smmu.lacks_leaf(stream) && self.smmu.geometry().has(stream) {
            let page = share(&mut self.driver, PAGE_SIZE, self.smmu.features())?;
            self.smmu.give_leaf(stream, page);
        }
        Ok(())
    }
}
