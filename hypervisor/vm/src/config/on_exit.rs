//! `on-exit`: what becomes of a VM that has ended.
//!
//! QNX: not of the original, where a script or a monitor starts `qvm` again (`docs/qvmconf.md`, "When it has ended").

use alloc::format;
use alloc::string::String;

/// Whether a VM that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OnExit {
    /// After which ends.
    pub when: When,
    /// How often at most within how many seconds; neither is 0.
    pub limit: (u32, u32),
    /// What if it ends once more.
    pub then: Then,
}

/// After which ends a VM is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// None.
    Never,
    /// Those whose code is not 0.
    OnFailure,
    /// All.
    Always,
}

/// What is done about a VM that has been started again too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// It is left as it is.
    Stay,
    /// The board is reset.
    Reset,
}

impl Default for OnExit {
    /// Never; and of those that are started again, five times a minute.
    fn default() -> Self {
        Self { when: When::Never, limit: (5, 60), then: Then::Stay }
    }
}

/// Reads `never|on-failure|always[,COUNT/SECONDS[,stay|reset]]`.
///
/// # Errors
/// What is wrong with it.
pub(super) fn read(text: &str) -> Result<OnExit, String> {
    let mut policy = OnExit::default();
    let mut parts = text.split(',');
    policy.when = match parts.next() {
        Some("never") => When::Never,
        Some("on-failure") => When::OnFailure,
        Some("always") => When::Always,
        word => return Err(format!("`{}` is none of never, on-failure and always", word.unwrap_or_default())),
    };
    if let Some(limit) = parts.next() {
        let number = |text: &str| u32::try_from(qvmconf::number(text).ok()?).ok().filter(|number| *number > 0);
        let pair = limit.split_once('/').and_then(|(count, seconds)| Some((number(count)?, number(seconds)?)));
        policy.limit = pair.ok_or_else(|| format!("`{limit}` is no number of times in a number of seconds"))?;
    }
    policy.then = match parts.next() {
        None | Some("stay") => Then::Stay,
        Some("reset") => Then::Reset,
        Some(word) => return Err(format!("`{word}` is neither stay nor reset")),
    };
    match parts.next() {
        Some(word) => Err(format!("`{word}` is one word too many")),
        None if policy.when == When::Never && text != "never" => Err("there is no limit to `never`".into()),
        None => Ok(policy),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_is_when_how_often_and_then() {
        let expected = |when, limit, then| Ok(OnExit { when, limit, then });
        assert_eq!(read("never"), Ok(OnExit::default()));
        assert_eq!(read("on-failure"), expected(When::OnFailure, (5, 60), Then::Stay));
        assert_eq!(read("always,3/10"), expected(When::Always, (3, 10), Then::Stay));
        assert_eq!(read("on-failure,1/3600,reset"), expected(When::OnFailure, (1, 3600), Then::Reset));
        assert_eq!(read("always,1/1,stay"), expected(When::Always, (1, 1), Then::Stay));
    }

    #[test]
    fn what_is_no_policy_is_named() {
        for (text, message) in [
            ("", "`` is none of never, on-failure and always"),
            ("sometimes", "`sometimes` is none of never, on-failure and always"),
            ("always,5", "`5` is no number of times in a number of seconds"),
            ("always,0/60", "`0/60` is no number of times in a number of seconds"),
            ("always,5/60/7", "`5/60/7` is no number of times in a number of seconds"),
            ("always,reset", "`reset` is no number of times in a number of seconds"),
            ("always,5/60,restart", "`restart` is neither stay nor reset"),
            ("always,5/60,stay,now", "`now` is one word too many"),
            ("never,5/60", "there is no limit to `never`"),
        ] {
            assert_eq!(read(text), Err(message.into()), "{text}");
        }
    }
}
