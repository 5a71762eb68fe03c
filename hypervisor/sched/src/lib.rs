//! Scheduling policy: who runs on which CPU, and until when.
//!
//! Answers for: priorities 1 to 255, round robin, FIFO and sporadic servers, guaranteed shares of the CPUs' time, CPU affinity,
//! placement of woken threads, time accounting, and the protocol by which sleeping and waking do not miss each other
//!. Does not answer for: stacks, registers, timers, inter-processor interrupts and the lock around a
//! [`Scheduler`], which are the kernel's; it asks, and does what the answers say. Nothing here blocks, and after
//! [`Scheduler::new`] nothing allocates but the definition of shares and the creation of sporadic servers and of threads in
//! new sets of CPUs, which fail if there is no memory.
//!
//! The model is QNX's: the highest ready priority runs, a preempted thread keeps its place and the rest of its slice, one
//! whose slice is over goes behind its equals ("Scheduling algorithms" in the QNX Neutrino programmer's guide; POSIX.1-2017
//! 2.8.4 `SCHED_FIFO` and `SCHED_RR`).
//!
//! # Residency
//!
//! There is no idle thread. A CPU with nothing to run waits on the stack of the thread that blocked there last: that thread
//! stays *resident*, its registers unsaved, so no other CPU may run it. It ceases to be resident when the CPU picks another
//! thread, or is told to `vacate` that stack for its own boot stack. The kernel saves the thread before it lets any other
//! CPU into the scheduler (or has that CPU wait until it is saved).
//!
//! # Waking
//!
//! A wake is never lost: if the thread is not blocked, its next [`Scheduler::block`] does nothing. So a thread checks what it
//! waits for, blocks, and checks again when it comes back.

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;
#[cfg(test)]
extern crate std;

/// What the lock-free parts are made of; `tests/interleavings.rs` compiles them with its own.
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, Ordering, fence};
}
mod change;
mod metering;
mod parameters;
mod placement;
mod presence;
mod queue;
mod scheduler;
mod shares;
#[cfg(test)]
mod simulation;
mod sporadic;
mod status;
mod thread;
#[cfg(test)]
mod timeline;
mod turnstile;

pub use parameters::{Parameters, Policy, Priority, RemoveError, ShareError, SpawnError};
pub use presence::Presence;
pub use scheduler::{Choice, Scheduler};
pub use shares::{ShareId, WINDOW_MILLISECONDS};
pub use sporadic::Sporadic;
pub use status::{State, Status};
pub use thread::ThreadId;
pub use turnstile::Turnstile;
