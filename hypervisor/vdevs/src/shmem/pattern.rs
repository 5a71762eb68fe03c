//! Patterns of a shell, for names: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`, and `\` in front of what is to be taken as it is
//! (POSIX.1-2024, Shell Command Language, "Pattern Matching Notation", without character classes).

/// Whether `pattern` can be one: no bracket is left open, and nothing follows the last `\` but a character.
pub(super) fn is_valid(pattern: &str) -> bool {
    let mut rest = pattern.as_bytes();
    while let Some((_, behind)) = element(rest, 0) {
        rest = behind;
    }
    rest.is_empty()
}

/// Whether all of `name` is as `pattern` says. Takes time with the product of their lengths, whatever they are.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.as_bytes(), name.as_bytes());
    // Where to go on when it has gone wrong: behind the last `*`, which then stands for one character more.
    let mut again: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', behind @ ..] = pattern {
            again = Some((behind, name));
            pattern = behind;
            continue;
        }
        let Some((first, others)) = name.split_first() else {
            return pattern.is_empty();
        };
        match element(pattern, *first) {
            Some((true, behind)) => (pattern, name) = (behind, others),
            _ => {
                let Some((behind, [_, rest @ ..])) = again else { return false };
                again = Some((behind, rest));
                (pattern, name) = (behind, rest);
            }
        }
    }
}

/// Whether the first element of `pattern` stands for `byte`, and what is behind it. `None` if there is no element there.
fn element(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    match pattern {
        [] | [b'\\'] => None,
        [b'?' | b'*', behind @ ..] => Some((true, behind)),
        [b'[', behind @ ..] => bracket(behind, byte),
        [b'\\', literal, behind @ ..] | [literal, behind @ ..] => Some((*literal == byte, behind)),
    }
}

/// Whether `byte` is in the list that `pattern` begins with, behind its `[`, and what is behind its `]`.
fn bracket(pattern: &[u8], byte: u8) -> Option<(bool, &[u8])> {
    let (negated, mut rest) = match pattern {
        [b'!', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let (mut found, mut is_first) = (false, true);
    loop {
        rest = match rest {
            [] => return None,
            // As the first one it is in the list.
            [b']', behind @ ..] if !is_first => return Some((found != negated, behind)),
            [from, b'-', to, behind @ ..] if *to != b']' => {
                found |= (*from..=*to).contains(&byte);
                behind
            }
            [one, behind @ ..] => {
                found |= *one == byte;
                behind
            }
        };
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_as_a_shell_does() {
        for (pattern, yes, no) in [
            ("frames", &["frames"][..], &["frame", "framess", ""][..]),
            ("*", &["", "a", "a/b"], &[]),
            ("cam*", &["cam", "camera", "cam*"], &["ca", "xcam"]),
            ("*a*b", &["ab", "xaxxb", "abab"], &["aba", "b"]),
            ("c?m", &["cam", "c?m"], &["cm", "caam"]),
            ("v[0-3x]", &["v0", "v3", "vx"], &["v4", "v", "v-"]),
            ("[!a-c]*", &["d", "xa"], &["a", "b", ""]),
            ("[]-]", &["]", "-"], &["a"]),
            ("a\\*", &["a*"], &["ab"]),
            ("", &[""], &["a"]),
        ] {
            assert!(is_valid(pattern), "{pattern}");
            yes.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
        for pattern in ["[", "[]", "[a", "a\\", "[!]"] {
            assert!(!is_valid(pattern), "{pattern}");
        }
    }

    #[test]
    fn the_worst_pattern_is_soon_done() {
        let pattern = "*a".repeat(40);
        assert!(!matches(&pattern, &"a".repeat(32).replace('a', "ab")));
    }
}
