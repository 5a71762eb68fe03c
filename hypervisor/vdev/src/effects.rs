//! What handling an exit asks of the kernel.

use core::fmt;
use types::VcpuSet;

/// Why a VM ends. The numbers are the original's exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// The guest shut itself down (PSCI SYSTEM_OFF): code 0.
    Shutdown,
    /// The guest asked for a reset (PSCI SYSTEM_RESET, SYSTEM_RESET2): code 0.
    Reset,
    /// Ended from outside like pulling the plug (SIGQUIT): code 3.
    PowerCut,
    /// A watchdog bit: code 4.
    Watchdog,
    /// The guest did what its configuration does not let pass (`unsupported … abort`): code 5.
    Unsupported,
    /// A device model failed: code 6.
    Vdev,
    /// An inconsistency nobody expected: code 7.
    Unexpected,
    /// Chosen by an integrator's vdev: codes 32 to 63; others count as [`Cause::Unexpected`].
    Custom(u8),
    /// Could not be built, before the guest started: code 64.
    Fatal,
    /// Its configuration is wrong: code 65.
    Configuration,
    /// Could not be continued, after the guest started: code 96.
    FatalRunning,
}

impl Cause {
    /// The exit code.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Shutdown | Self::Reset => 0,
            Self::PowerCut => 3,
            Self::Watchdog => 4,
            Self::Unsupported => 5,
            Self::Vdev => 6,
            Self::Custom(code @ 32..=63) => code,
            Self::Unexpected | Self::Custom(_) => 7,
            Self::Fatal => 64,
            Self::Configuration => 65,
            Self::FatalRunning => 96,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Shutdown => "shut down",
            Self::Reset => "reset by the guest",
            Self::PowerCut => "power cut",
            Self::Watchdog => "watchdog",
            Self::Unsupported => "unsupported operation",
            Self::Vdev => "vdev error",
            Self::Unexpected => "unexpected error",
            Self::Custom(_) => "custom",
            Self::Fatal => "could not start",
            Self::Configuration => "configuration error",
            Self::FatalRunning => "fatal error",
        })
    }
}

/// What the kernel has to do after an exit (or a wake) has been handled. Portable code collects, the kernel applies:
/// nothing here has happened yet. Small and free to create: it is on every exit.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Effects {
    /// vCPUs that have something new to see: an interrupt to take, or to be switched on. Blocked ones are woken, running
    /// ones are brought to their next exit.
    pub kick: VcpuSet,
    /// The VM ends. The first cause wins.
    pub stop: Option<Cause>,
    /// Clean and invalidate everything this VM has in the data caches (a set/way operation was trapped).
    pub clean_caches: bool,
    /// A back end was given output: let its host thread look.
    pub output: bool,
}

impl Effects {
    /// Nothing to do.
    #[must_use]
    pub const fn none(&self) -> bool {
        self.kick.is_empty() && self.stop.is_none() && !self.clean_caches && !self.output
    }

    /// Ends the VM, unless something has already ended it.
    pub fn terminate(&mut self, cause: Cause) {
        self.stop.get_or_insert(cause);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_original() {
        let codes = [
            (Cause::Shutdown, 0),
            (Cause::Reset, 0),
            (Cause::PowerCut, 3),
            (Cause::Watchdog, 4),
            (Cause::Unsupported, 5),
            (Cause::Vdev, 6),
            (Cause::Unexpected, 7),
            (Cause::Custom(32), 32),
            (Cause::Custom(63), 63),
            (Cause::Custom(64), 7),
            (Cause::Fatal, 64),
            (Cause::Configuration, 65),
            (Cause::FatalRunning, 96),
        ];
        for (cause, code) in codes {
            assert_eq!(cause.code(), code, "{cause:?}");
        }
    }

    #[test]
    fn the_first_cause_wins() {
        let mut effects = Effects::default();
        assert!(effects.none());
        effects.terminate(Cause::Reset);
        effects.terminate(Cause::Vdev);
        assert_eq!(effects.stop, Some(Cause::Reset));
    }
}
