//! What VMs are called on the console.

use super::MAX_VMS;
use core::fmt;

/// A VM on the console, from 1 on; free again when its end has been reported. And the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VmNumber(pub(super) u8);

impl VmNumber {
    /// The shell's.
    pub const SHELL: Self = Self(0);

    /// The number that is shown.
    #[must_use]
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl fmt::Display for VmNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Some VMs on the console, perhaps the shell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VmNumbers(u128);

impl VmNumbers {
    /// Whether `number` is one of them.
    #[must_use]
    pub const fn contains(self, number: VmNumber) -> bool {
        self.0 & bit(number) != 0
    }

    /// All of them, lowest first.
    pub fn iter(self) -> impl Iterator<Item = VmNumber> {
        (0..=MAX_VMS).map(VmNumber).filter(move |number| self.contains(*number))
    }

    pub(super) fn insert(&mut self, number: VmNumber) {
        self.0 |= bit(number);
    }
}

const fn bit(number: VmNumber) -> u128 {
    1 << (number.0 & 127)
}
