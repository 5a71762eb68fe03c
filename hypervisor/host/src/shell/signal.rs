//! Signals: what `slay` sends.

/// What the original's `qvm` process is sent, and what it does with it (`docs/shell.md`, `slay`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// The power button; where nobody listens to it, the end at once.
    Term,
    /// The same.
    Int,
    /// Like removing power: the end with code 3.
    Quit,
    /// Report the state of the VM and of its devices.
    Usr1,
    /// Dump the guest's memory and registers.
    Usr2,
}

impl Signal {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Term, Self::Int, Self::Quit, Self::Usr1, Self::Usr2];

    /// As POSIX calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Term => "SIGTERM",
            Self::Int => "SIGINT",
            Self::Quit => "SIGQUIT",
            Self::Usr1 => "SIGUSR1",
            Self::Usr2 => "SIGUSR2",
        }
    }

    /// The same without `SIG`.
    #[must_use]
    pub fn short_name(self) -> &'static str {
        self.name().trim_start_matches("SIG")
    }

    /// Its number where most shells run. QNX: SIGUSR1 and SIGUSR2 are 16 and 17 there.
    #[must_use]
    pub const fn number(self) -> u8 {
        match self {
            Self::Term => 15,
            Self::Int => 2,
            Self::Quit => 3,
            Self::Usr1 => 10,
            Self::Usr2 => 12,
        }
    }

    /// By its name, with or without `SIG`, or by its number.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        let named = |signal: &Self| signal.name() == word || signal.short_name() == word;
        let number = word.parse().ok();
        Self::ALL.into_iter().find(|signal| named(signal) || number == Some(signal.number()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_goes_by_two_names_and_a_number() {
        for word in ["SIGUSR1", "USR1", "10"] {
            assert_eq!(Signal::from_word(word), Some(Signal::Usr1));
        }
        for signal in Signal::ALL {
            assert_eq!(Signal::from_word(signal.name()), Some(signal));
            assert_eq!(Signal::from_word(&std::format!("{}", signal.number())), Some(signal));
        }
        for word in ["", "SIG", "usr1", "9", "SIGKILL", "SIGSIGINT"] {
            assert_eq!(Signal::from_word(word), None);
        }
    }
}
