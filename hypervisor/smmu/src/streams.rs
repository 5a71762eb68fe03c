//! Who owns which stream.
//!
//! Answers for: one owner for each stream and for each group of streams, everything else refused; and the steps by which a
//! stream's entry changes hands (IHI 0070, 3.21.3.1), so that its device at no moment reaches what neither the old nor the
//! new owner gave it. Does not answer for: carrying out the steps, and quiescing devices, which comes before.

use crate::{Command, Geometry, Procedure, Smmu, Stage1, Stage2, Stage2Flaw, Step, StreamTableEntry};
use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use types::Pa;

/// Who may have a stream, by name: messages are for people.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The name of a VM, or of the part of the host that it is for.
    pub name: String,
    /// What tags the owner's translations. Nobody else has the same as long as it owns a stream.
    pub vmid: u16,
}

/// Why a stream does not change hands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The machine has no such stream, or its table no room for it.
    NoStream {
        /// The stream.
        stream: u32,
        /// Who was to have it, or what device it was to be.
        wanted_by: String,
    },
    /// Somebody else has it.
    Taken {
        /// The stream.
        stream: u32,
        /// What is behind it.
        device: String,
        /// Who has it.
        owner: String,
        /// Who was to have it.
        wanted_by: String,
    },
    /// Somebody else has a stream of the same group: their devices reach each other without coming by the SMMU.
    GroupTaken {
        /// The stream.
        stream: u32,
        /// What is behind it.
        device: String,
        /// What is behind the other.
        neighbour: String,
        /// Who has the other.
        owner: String,
        /// Who was to have it.
        wanted_by: String,
    },
    /// It is not its owner who gives it back, or it has none.
    NotOwned {
        /// The stream.
        stream: u32,
        /// Who is not its owner.
        name: String,
    },
    /// The configuration does not name its device as one that is let through.
    BypassNotNamed {
        /// The stream.
        stream: u32,
        /// What is behind it.
        device: String,
    },
    /// Two devices have the stream, and are not declared as one group.
    TwoGroups {
        /// The stream.
        stream: u32,
        /// One of them.
        device: String,
        /// The other.
        neighbour: String,
    },
    /// The SMMU cannot walk the owner's tables.
    Tables {
        /// What keeps it from that.
        flaw: Stage2Flaw,
        /// Who was to have the stream.
        wanted_by: String,
    },
    /// It is being taken from its owner.
    Closing {
        /// The stream.
        stream: u32,
    },
    /// Its part of the stream table has no memory yet ([`Smmu::give_leaf`]).
    NoLeaf {
        /// The stream.
        stream: u32,
    },
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoStream { stream, wanted_by } => write!(f, "there is no stream {stream:#x} for `{wanted_by}`"),
            Self::Taken { stream, device, owner, wanted_by } => {
                write!(f, "`{device}` (stream {stream:#x}) belongs to `{owner}`: `{wanted_by}` cannot have it, too")
            }
            Self::GroupTaken { stream, device, neighbour, owner, wanted_by } => write!(
                f,
                "`{device}` (stream {stream:#x}) cannot be told from `{neighbour}`, which belongs to `{owner}`: \
                 `{wanted_by}` cannot have it"
            ),
            Self::NotOwned { stream, name } => write!(f, "stream {stream:#x} does not belong to `{name}`"),
            Self::BypassNotNamed { stream, device } => {
                write!(
                    f,
                    "`{device}` (stream {stream:#x}) is not let through: its configuration does not say so by name"
                )
            }
            Self::TwoGroups { stream, device, neighbour } => {
                write!(f, "`{device}` and `{neighbour}` are both stream {stream:#x}, and not in one group")
            }
            Self::Tables { flaw, wanted_by } => write!(f, "`{wanted_by}`: {flaw}"),
            Self::Closing { stream } => write!(f, "stream {stream:#x} is being taken from its owner"),
            Self::NoLeaf { stream } => write!(f, "no memory for the entry of stream {stream:#x}"),
        }
    }
}

impl core::error::Error for Refusal {}

#[derive(Clone, Debug)]
struct Known {
    stream: u32,
    /// What the configuration of `smmuman` calls what is behind it, and that device's number.
    named: Option<(String, u32)>,
    /// What its owner calls it, and its isolation group, while it is passed.
    passed: Option<(String, u32)>,
    may_bypass: bool,
    owner: Option<Owner>,
    /// It is being taken from its owner, whose wishes do not count any more.
    is_closing: bool,
    /// Its last change: [`Streams::is_current`].
    change: u64,
}

impl Known {
    fn device(&self) -> &str {
        self.passed.as_ref().or(self.named.as_ref()).map_or("", |(device, _)| device)
    }

    /// Whether one owner has both.
    fn belongs_to(&self, other: &Self) -> bool {
        let is_one = |one: &Option<(String, u32)>, other: &Option<(String, u32)>| {
            one.as_ref().zip(other.as_ref()).is_some_and(|((_, one), (_, other))| one == other)
        };
        is_one(&self.named, &other.named) || is_one(&self.passed, &other.passed)
    }
}

/// The streams of one SMMU that have a device.
#[derive(Clone, Debug, Default)]
pub struct Streams {
    /// By number.
    known: Vec<Known>,
    /// How many changes there have been.
    changes: u64,
}

impl Streams {
    /// None has a device yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that `device` is behind `stream`. Streams of one `group` have one owner. `may_bypass` if the configuration names it
    /// as one that is let through. Several devices may be behind one stream.
    ///
    /// # Errors
    /// If the stream table has no room for it, or the stream is in another group already.
    pub fn declare(
        &mut self,
        device: &str,
        stream: u32,
        group: u32,
        may_bypass: bool,
        geometry: Geometry,
    ) -> Result<(), Refusal> {
        if !geometry.has(stream) {
            return Err(Refusal::NoStream { stream, wanted_by: device.to_owned() });
        }
        let mut known = self.known_or_new(stream);
        known.named = Some(match known.named.take() {
            Some((neighbour, other)) if other != group => {
                return Err(Refusal::TwoGroups { stream, device: device.to_owned(), neighbour });
            }
            Some((names, _)) => {
                // What one of them may not, none may.
                known.may_bypass &= may_bypass;
                (alloc::format!("{names}, {device}"), group)
            }
            None => {
                known.may_bypass = may_bypass;
                (device.to_owned(), group)
            }
        });
        self.keep(known);
        Ok(())
    }

    /// Says that `device`, behind `stream`, is going to be given to `owner`, and is its until the stream is released. All passed
    /// streams of one `group` have one owner: their devices reach each other without coming by the SMMU.
    ///
    /// # Errors
    /// If the stream table has no room for it, or somebody else has it or another one of its group.
    pub fn pass(
        &mut self,
        device: &str,
        stream: u32,
        group: u32,
        owner: &Owner,
        geometry: Geometry,
    ) -> Result<(), Refusal> {
        if !geometry.has(stream) {
            return Err(Refusal::NoStream { stream, wanted_by: device.to_owned() });
        }
        let wanted = self.known_or_new(stream);
        let passed = match &wanted.passed {
            Some((names, _)) if wanted.owner.as_ref() == Some(owner) => alloc::format!("{names}, {device}"),
            _ => device.to_owned(),
        };
        let wanted = Known { passed: Some((passed, group)), ..wanted };
        self.check(&wanted, owner)?;
        self.keep(wanted);
        Ok(())
    }

    /// Whether a VM has `stream`.
    #[must_use]
    pub fn is_passed(&self, stream: u32) -> bool {
        self.known_for(stream, "").is_ok_and(|known| known.passed.is_some() && known.owner.is_some())
    }

    /// Gives `stream` to `owner`, whose memory is that of `stage2`, behind a stage 1 of its own if it has one; or changes that, if
    /// the stream is the owner's already. It counts as the owner's at once, whatever becomes of the procedure.
    ///
    /// # Errors
    /// If there is no such stream, if somebody else has it or another one of its group, if it is being taken from its owner, or the
    /// SMMU cannot walk the tables.
    pub fn attach(
        &mut self,
        stream: u32,
        owner: &Owner,
        stage2: &Stage2,
        stage1: Option<&Stage1>,
        smmu: &Smmu,
    ) -> Result<Procedure, Refusal> {
        let entry = match stage1 {
            None => StreamTableEntry::stage2(owner.vmid, stage2, smmu.features()),
            Some(stage1) => StreamTableEntry::nested(owner.vmid, stage2, stage1, smmu.features()),
        };
        let entry = entry.map_err(|flaw| Refusal::Tables { flaw, wanted_by: owner.name.clone() })?;
        self.give(stream, owner, &entry, smmu)
    }

    /// Gives `stream` to `owner` past all translation: the device reaches everything.
    ///
    /// # Errors
    /// As [`Streams::attach`], and if the configuration does not name the device as one that is let through.
    pub fn bypass(&mut self, stream: u32, owner: &Owner, smmu: &Smmu) -> Result<Procedure, Refusal> {
        let known = self.known_for(stream, &owner.name)?;
        if !known.may_bypass {
            return Err(Refusal::BypassNotNamed { stream, device: known.device().to_owned() });
        }
        self.give(stream, owner, &StreamTableEntry::bypass(smmu.features()), smmu)
    }

    fn give(
        &mut self,
        stream: u32,
        owner: &Owner,
        entry: &StreamTableEntry,
        smmu: &Smmu,
    ) -> Result<Procedure, Refusal> {
        let known = self.known_for(stream, &owner.name)?;
        self.check(known, owner)?;
        if known.is_closing {
            return Err(Refusal::Closing { stream });
        }
        let mut procedure = change(stream, entry, owner.vmid, smmu)?;
        self.number(stream, &mut procedure);
        if let Some(known) = self.known_mut(stream) {
            known.owner = Some(owner.clone());
        }
        Ok(procedure)
    }

    /// From now on this is the change of `stream` that counts.
    fn number(&mut self, stream: u32, procedure: &mut Procedure) {
        self.changes = self.changes.wrapping_add(1);
        let change = self.changes;
        procedure.change = Some((stream, change));
        if let Some(known) = self.known_mut(stream) {
            known.change = change;
        }
    }

    /// Whether no other change of its stream has begun since. One that is not current is to be abandoned where it is: the other begins with
    /// an entry that is not valid, wherever this one has come to, and a step of this one between those of the other would make an entry that
    /// nobody has meant.
    #[must_use]
    pub fn is_current(&self, procedure: &Procedure) -> bool {
        let last = |stream| self.known_for(stream, "").ok().map(|known| known.change);
        procedure.change.is_none_or(|(stream, change)| last(stream) == Some(change))
    }

    /// Whether `owner` may have a stream.
    fn check(&self, known: &Known, owner: &Owner) -> Result<(), Refusal> {
        let taken = |other: &Known| other.owner.as_ref().filter(|it| *it != owner).map(|it| it.name.clone());
        let (stream, device, wanted_by) = (known.stream, known.device().to_owned(), owner.name.clone());
        if let Some(owner) = taken(known) {
            return Err(Refusal::Taken { stream, device, owner, wanted_by });
        }
        let mut neighbours = self.known.iter().filter(|other| other.belongs_to(known));
        if let Some((neighbour, owner)) = neighbours.find_map(|it| Some((it.device().to_owned(), taken(it)?))) {
            return Err(Refusal::GroupTaken { stream, device, neighbour, owner, wanted_by });
        }
        Ok(())
    }

    /// Takes `stream` from `owner`: its transactions are refused, each with an event or, if `quietly`, without. It still
    /// counts as the owner's until [`Streams::released`], who cannot have it attached again. When the procedure is done no transaction of the
    /// device reaches the owner's memory any more, not even one that was under way.
    ///
    /// # Errors
    /// If it is not the owner's.
    pub fn detach(&mut self, stream: u32, owner: &Owner, quietly: bool, smmu: &Smmu) -> Result<Procedure, Refusal> {
        let procedure = self.refuse(stream, owner, quietly, smmu)?;
        if let Some(known) = self.known_mut(stream) {
            known.is_closing = true;
        }
        Ok(procedure)
    }

    /// Whether `stream` is being taken from its owner, or has been.
    #[must_use]
    pub fn is_closing(&self, stream: u32) -> bool {
        self.known_for(stream, "").is_ok_and(|known| known.is_closing)
    }

    /// As [`Streams::detach`], as long as its owner likes: that can have it attached again.
    ///
    /// # Errors
    /// If it is not the owner's, or being taken from it.
    pub fn hold(&mut self, stream: u32, owner: &Owner, quietly: bool, smmu: &Smmu) -> Result<Procedure, Refusal> {
        if self.is_closing(stream) {
            return Err(Refusal::Closing { stream });
        }
        self.refuse(stream, owner, quietly, smmu)
    }

    fn refuse(&mut self, stream: u32, owner: &Owner, quietly: bool, smmu: &Smmu) -> Result<Procedure, Refusal> {
        let known = self.known_for(stream, &owner.name)?;
        if known.owner.as_ref() != Some(owner) {
            return Err(Refusal::NotOwned { stream, name: owner.name.clone() });
        }
        let entry = if quietly { StreamTableEntry::muted() } else { StreamTableEntry::REFUSED };
        let mut procedure = change(stream, &entry, owner.vmid, smmu)?;
        self.number(stream, &mut procedure);
        Ok(procedure)
    }

    /// Nobody owns `stream` any more, if `detached`, the procedure of [`Streams::detach`], is done and current; else it stays where it is,
    /// and so must the memory that its device may still reach. Whether it is free.
    pub fn released(&mut self, stream: u32, detached: &Procedure) -> bool {
        let is_done = detached.is_done() && self.is_current(detached);
        match self.known_mut(stream) {
            Some(known) if is_done => {
                (known.owner, known.passed, known.is_closing) = (None, None, false);
                self.known.retain(|known| known.named.is_some() || known.owner.is_some());
                true
            }
            _ => false,
        }
    }

    /// What is behind `stream`, and who has it.
    #[must_use]
    pub fn who(&self, stream: u32) -> Option<(&str, Option<&Owner>)> {
        let known = self.known.get(self.place(stream).ok()?)?;
        Some((known.device(), known.owner.as_ref()))
    }

    /// All that have a device, by number, with what is behind each, and who has it.
    pub fn known(&self) -> impl Iterator<Item = (u32, &str, Option<&Owner>)> {
        self.known.iter().map(|known| (known.stream, known.device(), known.owner.as_ref()))
    }

    /// The streams of `owner`.
    pub fn of<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = u32> + 'a {
        self.known.iter().filter(|known| known.owner.as_ref() == Some(owner)).map(|known| known.stream)
    }

    fn place(&self, stream: u32) -> Result<usize, usize> {
        self.known.binary_search_by_key(&stream, |known| known.stream)
    }

    fn known_for(&self, stream: u32, name: &str) -> Result<&Known, Refusal> {
        let known = self.place(stream).ok().and_then(|at| self.known.get(at));
        known.ok_or_else(|| Refusal::NoStream { stream, wanted_by: name.to_owned() })
    }

    fn known_or_new(&self, stream: u32) -> Known {
        let new = || Known {
            stream,
            named: None,
            passed: None,
            may_bypass: false,
            owner: None,
            is_closing: false,
            change: 0,
        };
        self.place(stream).ok().and_then(|at| self.known.get(at)).cloned().unwrap_or_else(new)
    }

    /// Puts it where its number belongs, in place of the one that was there.
    fn keep(&mut self, known: Known) {
        match self.place(known.stream) {
            Ok(at) => {
                if let Some(place) = self.known.get_mut(at) {
                    *place = known;
                }
            }
            Err(at) => self.known.insert(at, known),
        }
    }

    fn known_mut(&mut self, stream: u32) -> Option<&mut Known> {
        let at = self.place(stream).ok()?;
        self.known.get_mut(at)
    }
}

/// From whatever entry there is, and from whatever is cached of `vmid`'s translations, to `entry`.
fn change(stream: u32, entry: &StreamTableEntry, vmid: u16, smmu: &Smmu) -> Result<Procedure, Refusal> {
    let at = smmu.entry_at(stream).ok_or(Refusal::NoLeaf { stream })?;
    // The other words are zero in all entries there are.
    let [word0, word1, word2, word3, ..] = entry.0;
    let mut procedure = Procedure::default();
    procedure.then_all([
        // V first, and nothing else while the SMMU may still use the old entry (3.21.3.1). No command is seen before what was
        // stored before it.
        Step::Store { at, word: 0 },
        Step::Issue(Command::CfgiSte { stream, leaf: true }),
        Step::Synchronize,
        // Only now: a transaction by the old entry could have brought a translation back. Commands have no order but by
        // CMD_SYNC (4.7.3).
        Step::Issue(Command::TlbiS12Vmall { vmid }),
    ]);
    if *entry == StreamTableEntry::REFUSED {
        procedure.then(Step::Synchronize);
        return Ok(procedure);
    }
    // All but V. The SMMU reads the words in any order and at any time, so it could take old ones together with V.
    for (place, word) in [(8, word1), (16, word2), (24, word3)] {
        procedure.then(Step::Store { at: Pa(at.0.saturating_add(place)), word });
    }
    if let Some(descriptor) = smmu.descriptor_of(stream) {
        procedure.then(descriptor);
    }
    procedure.then_all([
        Step::Issue(Command::CfgiSte { stream, leaf: false }),
        Step::Synchronize,
        Step::Store { at, word: word0 },
        // The SMMU may have kept the invalid entry, too (3.21.3).
        Step::Issue(Command::CfgiSte { stream, leaf: true }),
        Step::Synchronize,
    ]);
    Ok(procedure)
}

#[cfg(test)]
mod tests;
