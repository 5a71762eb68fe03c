//! Words: what a line consists of.
//!
//! A line is words separated by white space; `#` begins a comment. Double quotes keep white space and `#` in a word, with
//! `\"` and `\\` inside. Quotes stay where they are: what they mean is for whoever reads the word.

use super::CommandError;
use alloc::{string::String, vec::Vec};

/// Text of a command and where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Word<'a> {
    /// The text, with quotes and all.
    pub text: &'a str,
    /// Its line in the script, from 1; [`super::TYPED`] if it was typed.
    pub line: usize,
    /// Its first character in the line, from 1.
    pub column: usize,
}

impl Word<'_> {
    /// What is wrong with this word.
    pub(super) fn error(&self, message: impl Into<String>) -> CommandError {
        CommandError { line: self.line, column: self.column, message: message.into() }
    }
}

/// Cuts a line into words.
pub(super) fn words(text: &str, line: usize) -> Result<Vec<Word<'_>>, CommandError> {
    let mut words = Vec::new();
    // Where the current word starts, in bytes and in characters.
    let mut start: Option<(usize, usize)> = None;
    let (mut quoted, mut escaped) = (None, false);
    for (column, (at, character)) in (1..).zip(text.char_indices()) {
        if quoted.is_some() {
            match character {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => quoted = None,
                _ => {}
            }
            continue;
        }
        let ends = character.is_whitespace() || character == '#' && start.is_none();
        if character.is_control() && !character.is_whitespace() {
            return Err(CommandError { line, column, message: "a control character".into() });
        }
        if character == '"' {
            quoted = Some(column);
        }
        match start {
            None if character == '#' => return Ok(words),
            None if !ends => start = Some((at, column)),
            Some((first, column)) if ends => {
                words.extend(text.get(first..at).map(|text| Word { text, line, column }));
                start = None;
            }
            _ => {}
        }
    }
    if let Some(column) = quoted {
        return Err(CommandError { line, column, message: "a quote without end".into() });
    }
    if let Some((first, column)) = start {
        words.extend(text.get(first..).map(|text| Word { text, line, column }));
    }
    Ok(words)
}
