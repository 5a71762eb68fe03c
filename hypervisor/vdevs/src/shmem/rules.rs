//! Which regions a guest may use.

use super::pattern;
use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use vdev::{OptionError, Options};

pub(super) const ALLOW: &str = "allow";
pub(super) const DENY: &str = "deny";

/// Patterns of names: either those that a guest may use, or those it may not.
#[derive(Debug)]
pub(super) enum Rules {
    /// These and no others.
    Allow(Vec<String>),
    /// All but these.
    Deny(Vec<String>),
}

impl Rules {
    pub(super) fn read(options: &Options) -> Result<Self, OptionError> {
        let list = |name: &'static str| -> Result<Vec<String>, OptionError> {
            let bad = |text: &str| options.error(name, format!("`{name} {text}`: a `[` without `]`, or a last `\\`"));
            let one = |text: &str| if pattern::is_valid(text) { Ok(text.to_string()) } else { Err(bad(text)) };
            options.texts(name).map(one).collect()
        };
        let (allow, deny) = (list(ALLOW)?, list(DENY)?);
        match (allow.is_empty(), deny.is_empty()) {
            (false, false) => {
                let message = "either `allow` or `deny`, not both: what neither names would be allowed and denied";
                Err(options.error(DENY, message.to_string()))
            }
            (false, true) => Ok(Self::Allow(allow)),
            (true, _) => Ok(Self::Deny(deny)),
        }
    }

    pub(super) fn allow(&self, name: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| pattern::matches(pattern, name));
        match self {
            Self::Allow(patterns) => any(patterns),
            Self::Deny(patterns) => !any(patterns),
        }
    }
}
