//! What is typed: the console's own key sequence, and all the rest.
//!
//! `Ctrl-]` and a key: a digit is the VM of that number, 0 or `s` the shell, `n` the next VM, `l` the list of VMs, `h` or `?` help, `q` twice
//! powers off, `Ctrl-]` again is the character itself.

/// `Ctrl-]`.
const ESCAPE: u8 = 0x1d;

/// What a key means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    /// A character for the guest.
    Text(u8),
    /// Part of a sequence: nothing yet.
    Nothing,
    /// Show VM number so-and-so; 0 is the shell.
    Select(u8),
    /// Show the next VM.
    Next,
    /// List the VMs.
    List,
    /// Explain the keys.
    Help,
    /// Ask whether to power off.
    AskPowerOff,
    /// Power off.
    PowerOff,
    /// Not to power off, after all.
    StayOn,
    /// Behind `Ctrl-]`, this means nothing.
    Unknown,
}

/// Where in the sequence typing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Keys {
    #[default]
    Text,
    /// Behind `Ctrl-]`.
    Escaped,
    /// Behind `Ctrl-]` `q`.
    PoweringOff,
}

impl Keys {
    /// The next byte typed.
    pub(super) fn press(&mut self, byte: u8) -> Key {
        let before = core::mem::take(self);
        match (before, byte) {
            (Self::Text, ESCAPE) => {
                *self = Self::Escaped;
                Key::Nothing
            }
            (Self::Text, _) | (Self::Escaped, ESCAPE) => Key::Text(byte),
            (Self::Escaped, b'0'..=b'9') => Key::Select(byte.wrapping_sub(b'0')),
            (Self::Escaped, b's') => Key::Select(0),
            (Self::Escaped, b'n') => Key::Next,
            (Self::Escaped, b'l') => Key::List,
            (Self::Escaped, b'h' | b'?') => Key::Help,
            (Self::Escaped, b'q') => {
                *self = Self::PoweringOff;
                Key::AskPowerOff
            }
            (Self::Escaped, _) => Key::Unknown,
            (Self::PoweringOff, b'q') => Key::PowerOff,
            (Self::PoweringOff, _) => Key::StayOn,
        }
    }
}

/// What `Ctrl-] h` says.
pub(super) const HELP: &str =
    "console: Ctrl-] and: 1-9 that VM, 0 or s the shell, n the next, l list, q q power off, Ctrl-] itself";

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn press(text: &[u8]) -> Vec<Key> {
        let mut keys = Keys::default();
        text.iter().map(|byte| keys.press(*byte)).filter(|key| *key != Key::Nothing).collect()
    }

    #[test]
    fn text_is_text_and_the_escape_key_twice_is_itself() {
        assert_eq!(press(b"a\x1d\x1d1"), [Key::Text(b'a'), Key::Text(ESCAPE), Key::Text(b'1')]);
    }

    #[test]
    fn sequences_mean_what_the_help_says() {
        let keys = press(b"\x1d3\x1d0\x1ds\x1dn\x1dl\x1dh\x1d?\x1dz");
        assert_eq!(
            keys,
            [Key::Select(3), Key::Select(0), Key::Select(0), Key::Next, Key::List, Key::Help, Key::Help, Key::Unknown]
        );
    }

    #[test]
    fn powering_off_takes_two() {
        assert_eq!(press(b"\x1dqq"), [Key::AskPowerOff, Key::PowerOff]);
        assert_eq!(press(b"\x1dqxq"), [Key::AskPowerOff, Key::StayOn, Key::Text(b'q')]);
    }
}
