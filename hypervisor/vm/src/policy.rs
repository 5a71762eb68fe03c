//! What a guest gets for what its machine does not have: `unsupported TYPE ACTION`.
//!
//! Answers for: the types and actions of the original, and its defaults. Does not answer for: parsing them (`config`), nor
//! for carrying them out (`exit/unsupported.rs`).

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the VM with code 5 and a message that says what it did.
    Abort,
    /// Give it the exception that a machine would.
    Fail,
    /// Nothing; reads of memory return ones, reads of registers zero.
    Ignore,
}

/// The action for each type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// `instruction`: emulating the instruction that trapped is not supported.
    pub instruction: Action,
    /// `reference`: the address is not this guest's.
    pub reference: Action,
    /// `register`: there is no such system register.
    pub register: Action,
}

impl Default for Unsupported {
    fn default() -> Self {
        Self { instruction: Action::Fail, reference: Action::Ignore, register: Action::Fail }
    }
}
