//! Bringing a device of the machine to rest when its VM has ended.
//!
//! Answers for: what a configuration says of it ([`Rest`]), whether that makes sense, carrying it out step by step ([`Resting`]), and
//! how a device reaches such registers ([`Registers`]). Does not answer for: which device has which registers (`vm::config`), nor for
//! when it is done and by whom (the kernel).
//!
//! The steps are data: whoever carries them out needs nothing of the VM that has ended.

use crate::{AccessFault, OptionError, Options, Place};
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;
use types::{AccessSize, Frequency, Ipa, Ticks};

/// Most steps of one device.
pub const REST_STEPS: usize = 64;

/// Longest time that all steps of one device may take together, in microseconds: as long as a vdev may take to go quiet.
pub const REST_TIME: u64 = 1_000_000;

/// How often a register is looked at that is waited for, in microseconds.
const LOOK: u64 = 50;

/// Registers of a device of the machine that the VM has: one region of a `pass`.
pub trait Registers: Send + Sync {
    /// Loads `size` bytes at `offset` from the region's start: one access.
    ///
    /// # Errors
    /// [`AccessFault::Straddles`] and [`AccessFault::Unaligned`] if there is no such register, [`AccessFault::Nothing`] while the device is not
    /// the VM's: before `GuestConfigured`.
    fn read(&self, offset: u64, size: AccessSize) -> Result<u64, AccessFault>;

    /// Stores the low `size` bytes of `value` there: one access. It is complete when something of the device has been read afterwards.
    ///
    /// # Errors
    /// As [`Registers::read`]; [`AccessFault::Unsupported`] where the region is passed without `w`.
    fn write(&self, offset: u64, size: AccessSize, value: u64) -> Result<(), AccessFault>;
}

/// What a vdev brings to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Where a region of the device begins, as its `pass` gives it to the guest.
    pub region: Ipa,
    /// Where the configuration says so.
    pub place: Option<Place>,
    /// How.
    pub way: Way,
}

/// How a device comes to rest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// By these steps, which the host carries out when no thread of the VM is left.
    Steps(Vec<RestStep>),
    /// The vdev does it, when it is told [`crate::Control::Terminate`]. If it answers with an error, fails or hangs, the device is not at
    /// rest.
    ByItself,
}

/// A step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestStep {
    /// What is done.
    pub action: RestAction,
    /// Where the configuration says so.
    pub place: Option<Place>,
}

/// What can be done. Offsets are from the start of the region, in bytes; times are in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestAction {
    /// Stores `value`.
    Write {
        /// Where.
        offset: u64,
        /// How wide.
        size: AccessSize,
        /// What.
        value: u64,
    },
    /// Loads until the bits of `mask` are those of `value`, at least once, and for at most `limit`.
    Poll {
        /// From where.
        offset: u64,
        /// How wide.
        size: AccessSize,
        /// Which bits count.
        mask: u64,
        /// What they are to be.
        value: u64,
        /// How long.
        limit: u64,
    },
    /// Lets time pass.
    Wait {
        /// How much.
        time: u64,
    },
}

impl RestAction {
    /// Where and how wide it accesses the device, if it does.
    #[must_use]
    pub const fn access(&self) -> Option<(u64, AccessSize)> {
        match *self {
            Self::Write { offset, size, .. } | Self::Poll { offset, size, .. } => Some((offset, size)),
            Self::Wait { .. } => None,
        }
    }

    /// How long it can take, in microseconds.
    #[must_use]
    pub const fn time(&self) -> u64 {
        match *self {
            Self::Write { .. } => 0,
            Self::Poll { limit: time, .. } | Self::Wait { time } => time,
        }
    }

    /// `write`, `poll` or `wait` as a configuration gives it: the numbers behind the word.
    ///
    /// # Errors
    /// What is wrong, in words.
    pub fn parse(word: &str, numbers: &[u64]) -> Result<Self, String> {
        let size = |bytes: u64| {
            AccessSize::from_bytes(bytes).ok_or_else(|| format!("a register has 1, 2, 4 or 8 bytes, not {bytes}"))
        };
        let action = match (word, numbers) {
            (Self::WRITE, &[offset, bytes, value]) => Self::Write { offset, size: size(bytes)?, value },
            (Self::POLL, &[offset, bytes, mask, value, limit]) => {
                Self::Poll { offset, size: size(bytes)?, mask, value, limit }
            }
            (Self::WAIT, &[time]) => Self::Wait { time },
            _ => return Err(format!("no step: `{word}` with {} numbers", numbers.len())),
        };
        action.check()?;
        Ok(action)
    }

    /// The word for a [`RestAction::Write`] in a configuration.
    pub const WRITE: &'static str = "write";
    /// The word for a [`RestAction::Poll`].
    pub const POLL: &'static str = "poll";
    /// The word for a [`RestAction::Wait`].
    pub const WAIT: &'static str = "wait";

    /// What cannot be, in whatever region.
    fn check(&self) -> Result<(), String> {
        if let Some((offset, size)) = self.access()
            && !size.is_aligned(offset)
        {
            return Err(format!("offset {offset:#x} is not a multiple of {}", size.bytes()));
        }
        match *self {
            Self::Write { size, value, .. } if value > size.mask() => {
                Err(format!("{value:#x} has more than {} bits", size.bits()))
            }
            Self::Poll { size, mask, .. } if mask > size.mask() => {
                Err(format!("the mask {mask:#x} has more than {} bits", size.bits()))
            }
            Self::Poll { mask: 0, .. } => Err("the mask has no bits: there is nothing to wait for".to_string()),
            Self::Poll { mask, value, .. } if value & !mask != 0 => {
                Err(format!("{value:#x} has bits that are not in the mask {mask:#x}: it would never come true"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for RestAction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Write { offset, size, value } => write!(f, "write {offset:#x},{},{value:#x}", size.bytes()),
            Self::Poll { offset, size, mask, value, limit } => {
                write!(f, "poll {offset:#x},{},{mask:#x},{value:#x},{limit}", size.bytes())
            }
            Self::Wait { time } => write!(f, "wait {time}"),
        }
    }
}

/// The steps that `options` give by the repeatable [`crate::OptionKind::Numbers`] `write`, `poll` and `wait`, in their order.
///
/// # Errors
/// What is wrong with one, at its place, or with all of them.
pub fn rest_steps(options: &Options) -> Result<Vec<RestStep>, OptionError> {
    let mut steps = Vec::new();
    for (option, numbers, place) in options.numbers_in_order(&[RestAction::WRITE, RestAction::POLL, RestAction::WAIT]) {
        let wrong = |message| OptionError { option: Some(option), place, message };
        let action = RestAction::parse(option, numbers).map_err(wrong)?;
        if steps.len() >= REST_STEPS {
            return Err(wrong(format!("more than {REST_STEPS} steps")));
        }
        steps.push(RestStep { action, place });
        let time = rest_time(&steps);
        if time > REST_TIME {
            return Err(wrong(format!("with this the steps may take {time} us, and {REST_TIME} us is the most")));
        }
    }
    Ok(steps)
}

/// How long the steps can take together, in microseconds.
#[must_use]
pub fn rest_time(steps: &[RestStep]) -> u64 {
    steps.iter().fold(0_u64, |sum, step| sum.saturating_add(step.action.time()))
}

/// Whether a region of `length` bytes has all the registers.
///
/// # Errors
/// The first step that accesses something behind its end, and what is wrong with it.
pub fn check_rest(steps: &[RestStep], length: u64) -> Result<(), (RestStep, String)> {
    for step in steps {
        let Some((offset, size)) = step.action.access() else { continue };
        if offset.checked_add(size.bytes()).is_none_or(|end| end > length) {
            return Err((*step, format!("offset {offset:#x} is behind the region's end, at {length:#x}")));
        }
    }
    Ok(())
}

/// What has become of the steps so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestProgress {
    /// All are done: the device is at rest.
    Done,
    /// Carry on at that time, or later.
    Until(Ticks),
    /// This one could not be done, and none behind it has been tried.
    Failed(RestStep, RestFailure),
}

/// Why a step could not be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RestFailure {
    /// The bits were something else for all its time; this was the last value.
    TimedOut(u64),
    /// There is no such register.
    Fault(AccessFault),
}

impl fmt::Display for RestFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimedOut(value) => write!(f, "it reads {value:#x} still"),
            Self::Fault(fault) => write!(f, "{fault}"),
        }
    }
}

/// Steps on their way.
#[derive(Clone, Debug)]
pub struct Resting<'a> {
    steps: &'a [RestStep],
    frequency: Frequency,
    /// When the time of the first step is over, if that has begun.
    until: Option<Ticks>,
}

impl<'a> Resting<'a> {
    /// None is done yet. `frequency` is that of the counter that tells the time.
    #[must_use]
    pub const fn new(steps: &'a [RestStep], frequency: Frequency) -> Self {
        Self { steps, frequency, until: None }
    }

    /// Does what can be done now; `now` tells the time whenever it is asked. Never waits: each step is looked at once.
    pub fn advance(&mut self, registers: &dyn Registers, now: &mut dyn FnMut() -> Ticks) -> RestProgress {
        while let Some((step, rest)) = self.steps.split_first() {
            match self.attempt(step, registers, now) {
                Ok(None) => (self.steps, self.until) = (rest, None),
                Ok(Some(when)) => return RestProgress::Until(when),
                Err(failure) => return RestProgress::Failed(*step, failure),
            }
        }
        RestProgress::Done
    }

    /// One look at a step: `None` if it is done, or when to look again.
    fn attempt(
        &mut self,
        step: &RestStep,
        registers: &dyn Registers,
        now: &mut dyn FnMut() -> Ticks,
    ) -> Result<Option<Ticks>, RestFailure> {
        // Before the look: whoever comes late looks once more after the time is over.
        let time = now();
        let end = || time.saturating_add(self.frequency.microseconds(step.action.time()));
        match step.action {
            RestAction::Write { offset, size, value } => {
                registers.write(offset, size, value).map_err(RestFailure::Fault)?;
                Ok(None)
            }
            RestAction::Poll { offset, size, mask, value, .. } => {
                let end = *self.until.get_or_insert_with(end);
                let found = registers.read(offset, size).map_err(RestFailure::Fault)?;
                match () {
                    () if found & mask == value => Ok(None),
                    () if time >= end => Err(RestFailure::TimedOut(found)),
                    () => Ok(Some(time.saturating_add(self.frequency.microseconds(LOOK)).min(end))),
                }
            }
            RestAction::Wait { .. } => {
                let end = *self.until.get_or_insert_with(end);
                Ok(Some(end).filter(|end| time < *end))
            }
        }
    }
}

#[cfg(test)]
mod tests;
