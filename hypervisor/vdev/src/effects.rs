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
    /// Ended on request (SIGTERM, SIGINT), because no vdev passes the request on or it came twice: code 0.
    Terminated,
    /// Ended from outside like pulling the plug (SIGQUIT): code 3.
    PowerCut,
    /// A watchdog bit: code 4.
    Watchdog,
    /// A watchdog bit whose configuration wants the VM to be started again, whatever its `on-exit` says: code 4.
    WatchdogRestart,
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
            Self::Shutdown | Self::Reset | Self::Terminated => 0,
            Self::PowerCut => 3,
            Self::Watchdog | Self::WatchdogRestart => 4,
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
            Self::Terminated => "ended on request",
            Self::PowerCut => "power cut",
            Self::Watchdog | Self::WatchdogRestart => "watchdog",
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
/// nothing here has happened yet. It is on every exit, and mostly empty: small, and empty by one look.
#[derive(Clone, Copy, Debug, Default)]
#[must_use]
pub struct Effects {
    /// What there is to do: all that is looked at after most exits.
    asked: Asked,
    stop: Option<Cause>,
    /// Why the VM ends when it has been dumped.
    stop_after_dump: Option<Cause>,
    kick: VcpuSet,
}

bitflags::bitflags! {
    #[derive(Clone, Copy, Debug, Default)]
    struct Asked: u8 {
        const KICK = 1 << 0;
        const STOP = 1 << 1;
        const CLEAN_CACHES = 1 << 2;
        const OUTPUT = 1 << 3;
        const ALARM = 1 << 4;
        const LATER = 1 << 5;
        const DUMP = 1 << 6;
        const TELL = 1 << 7;
    }
}

impl Effects {
    /// Nothing to do.
    #[inline]
    #[must_use]
    pub const fn none(&self) -> bool {
        self.asked.is_empty()
    }

    /// Whether the VM is to end, now or when it has been dumped.
    #[inline]
    #[must_use]
    pub const fn may_end(&self) -> bool {
        self.asked.intersects(Asked::STOP.union(Asked::DUMP))
    }

    /// vCPUs that have something new to see: an interrupt to take, or to be switched on. Blocked ones are woken, running
    /// ones are brought to their next exit.
    #[inline]
    #[must_use]
    pub const fn kicked(&self) -> VcpuSet {
        self.kick
    }

    /// Why the VM ends, if it does.
    #[inline]
    #[must_use]
    pub const fn stop(&self) -> Option<Cause> {
        self.stop
    }

    /// Whether everything that this VM has in the data caches is to be cleaned and invalidated.
    #[inline]
    #[must_use]
    pub const fn cleans_caches(&self) -> bool {
        self.asked.contains(Asked::CLEAN_CACHES)
    }

    /// Whether a back end has output that its host thread has to look at.
    #[inline]
    #[must_use]
    pub const fn has_output(&self) -> bool {
        self.asked.contains(Asked::OUTPUT)
    }

    /// Whether a timer of a device is due earlier than the VM's thread wakes up by itself.
    #[inline]
    #[must_use]
    pub const fn has_alarm(&self) -> bool {
        self.asked.contains(Asked::ALARM)
    }

    /// Whether there is something to do that takes long.
    #[inline]
    #[must_use]
    pub const fn takes_long(&self) -> bool {
        self.asked.intersects(Asked::CLEAN_CACHES.union(Asked::LATER))
    }

    /// Whether somebody has been told to look who does not know yet: workers, other clients of shared memory.
    #[inline]
    #[must_use]
    pub const fn tells(&self) -> bool {
        self.asked.contains(Asked::TELL)
    }

    /// Whether back ends have something to do that takes long.
    #[inline]
    #[must_use]
    pub const fn has_later(&self) -> bool {
        self.asked.contains(Asked::LATER)
    }

    /// Whether the guest is to be dumped.
    #[inline]
    #[must_use]
    pub const fn has_dump(&self) -> bool {
        self.asked.contains(Asked::DUMP)
    }

    /// Why the VM ends when it has been dumped, if it does.
    #[must_use]
    pub const fn stop_after_dump(&self) -> Option<Cause> {
        self.stop_after_dump
    }

    /// Has the guest dumped; then the VM ends, if there is a cause.
    pub fn dump(&mut self, then: Option<Cause>) {
        self.stop_after_dump = self.stop_after_dump.or(then);
        self.ask(Asked::DUMP);
    }

    /// Adds vCPUs that have something new to see.
    #[inline]
    pub fn kick(&mut self, vcpus: VcpuSet) {
        if !vcpus.is_empty() {
            self.kick = self.kick.union(vcpus);
            self.ask(Asked::KICK);
        }
    }

    /// Ends the VM, unless something has already ended it: the first cause wins.
    pub fn terminate(&mut self, cause: Cause) {
        self.stop.get_or_insert(cause);
        self.ask(Asked::STOP);
    }

    /// A set/way operation was trapped: the caches have to be cleaned.
    pub const fn clean_caches(&mut self) {
        self.ask(Asked::CLEAN_CACHES);
    }

    /// The VM's thread has to wake up earlier than it would.
    pub const fn alarm(&mut self) {
        self.ask(Asked::ALARM);
    }

    /// Somebody has been told to look: workers, other clients of shared memory.
    pub const fn tell(&mut self) {
        self.ask(Asked::TELL);
    }

    /// Back ends have something to do that takes long.
    pub const fn later(&mut self) {
        self.ask(Asked::LATER);
    }

    /// A back end has output that somebody has to be told of.
    #[inline]
    pub const fn output(&mut self) {
        self.ask(Asked::OUTPUT);
    }

    #[inline]
    const fn ask(&mut self, what: Asked) {
        self.asked = self.asked.union(what);
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
            (Cause::Terminated, 0),
            (Cause::PowerCut, 3),
            (Cause::Watchdog, 4),
            (Cause::WatchdogRestart, 4),
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
    fn whatever_is_asked_for_shows() {
        let after = |ask: fn(&mut Effects)| {
            let mut effects = Effects::default();
            assert!(effects.none());
            ask(&mut effects);
            effects
        };
        assert!(after(|effects| effects.kick(VcpuSet::EMPTY)).none());
        let kick = after(|effects| {
            effects.kick(VcpuSet(1));
            effects.kick(VcpuSet(4));
        });
        assert!(!kick.none() && kick.kicked() == VcpuSet(5));
        let clean = after(Effects::clean_caches);
        assert!(!clean.none() && clean.cleans_caches());
        let alarm = after(Effects::alarm);
        assert!(!alarm.none() && alarm.has_alarm());
        let dump = after(|effects| {
            effects.dump(None);
            effects.dump(Some(Cause::Watchdog));
            effects.dump(Some(Cause::Vdev));
        });
        assert!(!dump.none() && dump.has_dump() && dump.stop_after_dump() == Some(Cause::Watchdog));
        let later = after(Effects::later);
        assert!(!later.none() && later.has_later() && later.takes_long());
        let tell = after(Effects::tell);
        assert!(!tell.none() && tell.tells() && !tell.takes_long());
        let output = after(Effects::output);
        assert!(!output.none() && output.has_output());
    }

    #[test]
    fn the_first_cause_wins() {
        let mut effects = Effects::default();
        assert!(effects.none());
        effects.terminate(Cause::Reset);
        effects.terminate(Cause::Vdev);
        assert_eq!(effects.stop(), Some(Cause::Reset));
        assert!(!effects.none());
    }
}
