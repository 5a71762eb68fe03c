//! Trace events: what they are, the rings they are recorded in, the file they are kept in.
//!
//! Answers for: events with the original's classes and numbers ([`Event`]), a CPU's ring ([`Ring`]), what of a vCPU's
//! interrupts and timers is an event ([`Watch`]), and the form of a capture ([`Header`], [`Capture`]). Does not answer for:
//! when something is recorded and where rings and captures are kept (the kernel's), nor what people get to see of them
//! (`cargo xtask trace`).
//!
//! Classes and numbers are those of QNX's `sys/trace.h` (`_TRACE_*_C`) and of "Trace events" in the QNX Hypervisor user's
//! guide. docs/design/019-tracing.md says what was decided, docs/trace.md how it is used.

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

/// What the ring is made of; `tests/interleavings.rs` compiles it with its own.
mod atomic {
    pub(crate) use core::sync::atomic::{AtomicU64, Ordering};
}
mod capture;
mod event;
mod ring;
mod watch;

pub use capture::{Capture, Damaged, Header, MAGIC};
pub use event::{Event, HOST, NAME_PART, RECORD, Record, What, bytes, lost, name_part};
pub use ring::Ring;
pub use watch::Watch;
