//! What a thread is created with, and why it may not be.

use crate::{shares::ShareId, sporadic::Sporadic};
use core::{fmt, num::NonZeroU8};
use types::CpuSet;

/// Urgency, 1 (least) to 255. 0 would be an idle thread's, of which there is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[repr(transparent)]
pub struct Priority(NonZeroU8);

impl Priority {
    /// The least urgent.
    pub const LOWEST: Self = Self(NonZeroU8::MIN);
    /// The most urgent.
    pub const HIGHEST: Self = Self(NonZeroU8::MAX);

    /// `None` for 0.
    #[must_use]
    pub const fn new(value: u8) -> Option<Self> {
        match NonZeroU8::new(value) {
            Some(value) => Some(Self(value)),
            None => None,
        }
    }

    /// 1 to 255.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// What happens among threads of one priority.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Policy {
    /// Each runs for a slice, then goes behind the others.
    RoundRobin,
    /// Each runs until it blocks, yields or is preempted by a higher priority.
    Fifo,
    /// As FIFO, at its own priority for so much time in each period and at a lower one otherwise.
    Sporadic(Sporadic),
}

/// What a thread is created with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Parameters {
    /// Its urgency.
    pub priority: Priority,
    /// How it shares with its equals.
    pub policy: Policy,
    /// Where it may run. CPUs that the machine has not are ignored.
    pub affinity: CpuSet,
    /// Whose time it uses.
    pub share: ShareId,
}

/// Why a thread cannot be created, or not have this affinity.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SpawnError {
    /// There are as many threads as the scheduler was created for.
    TooManyThreads,
    /// None of the CPUs it may run on exists.
    NoCpu,
    /// More than 64 different pairs of CPUs and share are in use. Cannot happen without shares on machines with up to 6
    /// CPUs.
    TooManyAffinities,
    /// The thread does not exist (any more).
    NoThread,
    /// The share does not exist.
    NoShare,
    /// Such a sporadic server cannot be ([`Sporadic::is_sound`]).
    BadServer,
    /// No memory for the queue of a new affinity, or for the account of a sporadic server.
    NoMemory,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyThreads => "no room for another thread",
            Self::NoCpu => "none of the CPUs it may run on exists",
            Self::TooManyAffinities => "too many different sets of CPUs and shares",
            Self::NoThread => "no such thread",
            Self::NoShare => "no such share",
            Self::BadServer => "a sporadic server's numbers do not fit together",
            Self::NoMemory => "no memory",
        })
    }
}

impl core::error::Error for SpawnError {}

/// Why a thread cannot be removed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RemoveError {
    /// It does not exist (any more).
    NoThread,
    /// It is ready or running.
    NotBlocked,
    /// A CPU waits on its stack: [`crate::Scheduler::evict`] it first.
    Resident,
}

impl fmt::Display for RemoveError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoThread => "no such thread",
            Self::NotBlocked => "the thread is not blocked",
            Self::Resident => "a CPU still waits on the thread's stack",
        })
    }
}

impl core::error::Error for RemoveError {}

/// Why a share cannot be defined.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ShareError {
    /// It would be nothing.
    Nothing,
    /// There is only so much left, in percent.
    TooMuch {
        /// What the shares before have left over.
        left: u8,
    },
    /// There are as many as there can be.
    TooMany,
    /// No memory for it.
    NoMemory,
}

impl fmt::Display for ShareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "0 % guarantees nothing",
            Self::TooMuch { left } => return write!(f, "only {left} % are left"),
            Self::TooMany => "there are too many",
            Self::NoMemory => "no memory",
        })
    }
}

impl core::error::Error for ShareError {}
