//! The life of a VM, and what is left of it.
//!
//! Answers for: which state may follow which (hypervisor/README.md, "The life of a VM"), and the record of its end, which
//! is written once. Does not answer for: doing what a state asks for (the kernel's reaper, `assemble`).

use arrayvec::ArrayString;
use core::fmt::{self, Write};
use core::sync::atomic::{AtomicU8, Ordering};
use spin::Once;
use types::VcpuId;
use vdev::Cause;

/// Where a VM stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Its configuration has been read.
    Described = 0,
    /// Its machine has been put together: vdevs, interrupt controller, tree.
    Configured = 1,
    /// Its memory is there and loaded; the vdevs are being told.
    Starting = 2,
    /// Its vCPUs may run.
    Running = 3,
    /// Its vCPUs may not run for now.
    Paused = 4,
    /// It has a reason to end, and is being taken apart.
    Terminating = 5,
    /// It is gone; only the record is left.
    Ended = 6,
}

impl State {
    /// Whether `next` may follow.
    #[must_use]
    pub const fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Described, Self::Configured)
                | (Self::Configured, Self::Starting)
                | (Self::Starting | Self::Paused, Self::Running)
                | (Self::Running, Self::Paused)
                | (
                    Self::Described | Self::Configured | Self::Starting | Self::Running | Self::Paused,
                    Self::Terminating
                )
                | (Self::Terminating, Self::Ended)
        )
    }

    const fn of(value: u8) -> Self {
        match value {
            0 => Self::Described,
            1 => Self::Configured,
            2 => Self::Starting,
            3 => Self::Running,
            4 => Self::Paused,
            5 => Self::Terminating,
            _ => Self::Ended,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Described => "described",
            Self::Configured => "configured",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Terminating => "terminating",
            Self::Ended => "ended",
        })
    }
}

/// How a VM ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndRecord {
    /// Why. [`Cause::code`] is the exit code.
    pub cause: Cause,
    /// What happened, for people; cut off where it got too long.
    pub detail: ArrayString<DETAIL_LENGTH>,
    /// Whose exit it was, if it was an exit.
    pub vcpu: Option<VcpuId>,
    /// Where that vCPU stood.
    pub pc: Option<u64>,
    /// What went wrong afterwards, while it was taken apart.
    pub note: ArrayString<DETAIL_LENGTH>,
}

/// Most bytes of [`EndRecord::detail`]: a line with a few registers.
pub const DETAIL_LENGTH: usize = 160;

impl EndRecord {
    /// A record. `detail` is cut off at [`DETAIL_LENGTH`] bytes; nothing is allocated.
    #[must_use]
    pub fn new(cause: Cause, vcpu: Option<VcpuId>, pc: Option<u64>, detail: fmt::Arguments<'_>) -> Self {
        let mut text = Truncated(ArrayString::new());
        // Truncated never fails.
        let _ = text.write_fmt(detail);
        Self { cause, detail: text.0, vcpu, pc, note: ArrayString::new() }
    }

    /// The same with one note more, on what went wrong afterwards.
    #[must_use]
    pub fn with(mut self, note: fmt::Arguments<'_>) -> Self {
        let mut text = Truncated(self.note);
        let separator = if text.0.is_empty() { "" } else { "; " };
        let _ = text.write_str(separator);
        let _ = text.write_fmt(note);
        self.note = text.0;
        self
    }
}

impl fmt::Display for EndRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.detail)?;
        match (self.vcpu, self.pc) {
            (Some(vcpu), Some(pc)) => write!(f, " ({vcpu}, pc {pc:#x})"),
            (Some(vcpu), None) => write!(f, " ({vcpu})"),
            _ => Ok(()),
        }
    }
}

/// Takes as much text as fits, whole characters only.
struct Truncated(ArrayString<DETAIL_LENGTH>);

impl Write for Truncated {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            if self.0.try_push(character).is_err() {
                break;
            }
        }
        Ok(())
    }
}

/// The state of one VM, readable by anybody at any time.
#[derive(Debug)]
pub struct Lifecycle {
    state: AtomicU8,
    /// Written once and read without a lock, whose holder could die.
    end: Once<EndRecord>,
}

impl Default for Lifecycle {
    fn default() -> Self {
        Self { state: AtomicU8::new(State::Described as u8), end: Once::new() }
    }
}

impl Lifecycle {
    /// The state now.
    #[must_use]
    pub fn state(&self) -> State {
        State::of(self.state.load(Ordering::Acquire))
    }

    /// Goes on to `next`. Returns whether that was allowed and nobody was faster; if not, nothing has changed.
    #[must_use]
    pub fn advance(&self, next: State) -> bool {
        let now = self.state.load(Ordering::Acquire);
        State::of(now).may_become(next)
            && self.state.compare_exchange(now, next as u8, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Keeps `record`, unless the VM has one: the first cause is the one that counts.
    pub fn record_end(&self, record: EndRecord) {
        self.end.call_once(|| record);
    }

    /// How it ended, or is about to.
    #[must_use]
    pub fn end(&self) -> Option<EndRecord> {
        self.end.get().cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::string::ToString;

    const ALL: [State; 7] = [
        State::Described,
        State::Configured,
        State::Starting,
        State::Running,
        State::Paused,
        State::Terminating,
        State::Ended,
    ];

    #[test]
    fn notes_follow_one_another() {
        let record = EndRecord::new(Cause::PowerCut, None, None, format_args!("gone"));
        let record = record.with(format_args!("a hangs")).with(format_args!("b is kept"));
        assert_eq!(&*record.note, "a hangs; b is kept");
    }

    #[test]
    fn a_vm_lives_from_described_to_ended() {
        let life = Lifecycle::default();
        for next in [State::Configured, State::Starting, State::Running, State::Paused, State::Running] {
            assert!(life.advance(next), "{next}");
            assert_eq!(life.state(), next);
        }
        assert!(life.advance(State::Terminating) && life.advance(State::Ended));
    }

    #[test]
    fn nothing_follows_the_end_and_nothing_is_skipped() {
        for next in ALL {
            assert!(!State::Ended.may_become(next));
            assert_eq!(State::Terminating.may_become(next), next == State::Ended);
        }
        let life = Lifecycle::default();
        assert!(!life.advance(State::Running));
        assert_eq!(life.state(), State::Described);
    }

    #[test]
    fn the_first_record_stays() {
        let life = Lifecycle::default();
        life.record_end(EndRecord::new(Cause::Unsupported, Some(VcpuId(1)), Some(0x8000), format_args!("first")));
        life.record_end(EndRecord::new(Cause::Shutdown, None, None, format_args!("second")));
        let end = life.end().unwrap();
        assert_eq!(end.cause, Cause::Unsupported);
        assert_eq!(end.to_string(), "first (vcpu1, pc 0x8000)");
    }

    #[test]
    fn a_long_story_is_cut_at_a_character() {
        let story = "ä".repeat(200);
        let record = EndRecord::new(Cause::Vdev, None, None, format_args!("x{story}"));
        assert_eq!(record.detail.len(), DETAIL_LENGTH - 1);
        assert!(record.detail.ends_with('ä'));
    }
}
