//! Text to words.
//!
//! Answers for: white space, comments, quotes and continuation lines, and for the place of every word. Does not answer
//! for: what a word means.
//!
//! The rules (`docs/qvmconf.md`, "Words"):
//! - Words are separated by white space: blanks, tabs, line ends of any kind. Lines mean nothing.
//! - `#` outside quotes starts a comment to the end of the line, also within a word.
//! - Double quotes hold white space, `#` and the rest together; they may begin anywhere in a word, and what they hold is
//!   joined to it, so `>"|gzip"` is one word. Inside, a backslash at the end of a line continues the string on the next,
//!   `\"` and `\\` are a quote and a backslash, and any other backslash is itself.
//! - A string ends on its line, unless that is continued.
//! - Control characters are errors.

use crate::source::Defect;
use crate::{Diagnostic, Diagnostics, SourceId, Sources, Span};
use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;
use core::iter::Peekable;
use core::str::CharIndices;

/// Most words of one source.
pub(crate) const MAX_WORDS: usize = 8 * 1024;

/// Longest word in bytes. Twice the longest command line that Linux takes on arm64.
pub(crate) const MAX_WORD: usize = 4096;

/// A word, and where it stands.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Token {
    /// Its text, without the quotes.
    pub text: String,
    /// Where it stands, quotes included.
    pub span: Span,
    /// Whether it has quotes anywhere.
    pub quoted: bool,
    /// Whether it is the first of its line. It means nothing but where people probably begin an option.
    pub starts_line: bool,
}

/// The words of source `id`. What is wrong is added to `diagnostics`; the words around it are there all the same.
pub(crate) fn lex(sources: &Sources, id: SourceId, diagnostics: &mut Diagnostics) -> Vec<Token> {
    let Some(source) = sources.get(id) else { return Vec::new() };
    let place = |start: usize, end: usize| Span { source: id, start: offset(start), end: offset(end) };
    match source.defect() {
        Some(Defect::TooLarge(bytes)) => {
            let message = format!("`{}` has {bytes} bytes: this is no configuration", source.name());
            let hint = format!("at most {} KiB", crate::MAX_SOURCE_BYTES >> 10);
            diagnostics.push(Diagnostic::error(place(0, 0), message).hint(hint));
            return Vec::new();
        }
        Some(Defect::NotUtf8(at)) => {
            // The rest is not looked at: a file in another encoding, or no text at all, would only give noise.
            let end = at.saturating_add(char::REPLACEMENT_CHARACTER.len_utf8());
            diagnostics.push(Diagnostic::error(place(at, end), "not UTF-8 text"));
            return Vec::new();
        }
        None => {}
    }
    let mut lexer = Lexer { id, end: source.text().len(), rest: source.text().char_indices().peekable(), diagnostics };
    lexer.words()
}

fn offset(index: usize) -> u32 {
    u32::try_from(index).unwrap_or(u32::MAX)
}

fn is_control(c: char) -> bool {
    c.is_control() && !is_space(c)
}

fn is_space(c: char) -> bool {
    // The byte-order mark that some editors put first, too.
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c' | '\u{feff}')
}

struct Lexer<'a> {
    id: SourceId,
    end: usize,
    rest: Peekable<CharIndices<'a>>,
    diagnostics: &'a mut Diagnostics,
}

impl Lexer<'_> {
    fn words(&mut self) -> Vec<Token> {
        let mut words = Vec::new();
        while let Some(token) = self.word() {
            if words.len() >= MAX_WORDS {
                let message = format!("more than {MAX_WORDS} words: this is no configuration");
                self.diagnostics.push(Diagnostic::error(token.span, message));
                break;
            }
            words.push(token);
        }
        words
    }

    /// Offset of the next character.
    fn here(&mut self) -> usize {
        self.rest.peek().map_or(self.end, |&(index, _)| index)
    }

    fn place(&self, start: usize, end: usize) -> Span {
        Span { source: self.id, start: offset(start), end: offset(end) }
    }

    fn peek(&mut self) -> Option<char> {
        self.rest.peek().map(|&(_, c)| c)
    }

    fn next_if(&mut self, wanted: impl Fn(char) -> bool) -> Option<char> {
        self.rest.next_if(|&(_, c)| wanted(c)).map(|(_, c)| c)
    }

    /// To the next word. Whether it is in another line.
    fn skip_blank(&mut self) -> bool {
        let mut new_line = false;
        while let Some(c) = self.next_if(|c| is_space(c) || c == '#') {
            if c == '#' {
                while self.next_if(|c| c != '\n').is_some() {}
            }
            new_line |= c == '\n';
        }
        new_line
    }

    fn word(&mut self) -> Option<Token> {
        loop {
            let starts_line = self.skip_blank();
            self.peek()?;
            let start = self.here();
            let mut text = String::new();
            let mut quoted = false;
            while let Some(c) = self.peek() {
                if is_space(c) || c == '#' {
                    break;
                } else if c == '"' {
                    quoted = true;
                    self.string(&mut text);
                } else if is_control(c) {
                    self.control_characters();
                } else {
                    text.push(c);
                    self.rest.next();
                }
            }
            let end = self.here();
            let span = self.place(start, end);
            if text.len() > MAX_WORD {
                self.diagnostics.push(Diagnostic::error(span, format!("a word of more than {MAX_WORD} bytes")));
                text = String::from(crate::source::head(&text, MAX_WORD));
            }
            // A word of nothing but control characters has been reported and is none.
            if quoted || !text.is_empty() {
                return Some(Token { text, span, quoted, starts_line });
            }
        }
    }

    /// From the opening quote to behind the closing one.
    fn string(&mut self, text: &mut String) {
        let start = self.here();
        self.rest.next();
        while let Some(c) = self.peek() {
            match c {
                '"' => {
                    self.rest.next();
                    return;
                }
                '\n' => break,
                '\\' => {
                    self.rest.next();
                    self.escape(text);
                }
                // Of a line end of two characters, the first; the second ends the string.
                '\r' => {
                    self.rest.next();
                    if self.peek() != Some('\n') {
                        text.push('\r');
                    }
                }
                c if is_control(c) => self.control_characters(),
                c => {
                    text.push(c);
                    self.rest.next();
                }
            }
        }
        let here = self.here();
        let span = self.place(start, here);
        self.diagnostics.push(
            Diagnostic::error(span, "the string has no end")
                .hint("close it with `\"`, or end the line with `\\` to go on in the next"),
        );
    }

    /// Behind a backslash in a string.
    fn escape(&mut self, text: &mut String) {
        if let Some(c) = self.next_if(|c| c == '"' || c == '\\') {
            text.push(c);
        } else if self.next_if(|c| c == '\n').is_some() {
            // Continued: neither the backslash nor the line end is part of the string.
        } else if self.next_if(|c| c == '\r').is_some() {
            if self.next_if(|c| c == '\n').is_none() {
                text.push_str("\\\r");
            }
        } else {
            text.push('\\');
        }
    }

    /// Reports a run of them, once.
    fn control_characters(&mut self) {
        let start = self.here();
        let Some(first) = self.next_if(is_control) else { return };
        while self.next_if(is_control).is_some() {}
        let here = self.here();
        let span = self.place(start, here);
        self.diagnostics.push(Diagnostic::error(span, format!("control character U+{:04X}", u32::from(first))));
    }
}

/// `text` as one word of the language: what the lexer makes of it is `text` again, unless it holds control characters.
#[must_use]
pub fn quote(text: &str) -> String {
    let plain = !text.is_empty()
        && !text.starts_with('@')
        && text.chars().all(|c| !is_space(c) && !is_control(c) && c != '"' && c != '#');
    if plain {
        return text.into();
    }
    let mut quoted = String::from("\"");
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted.push('"');
    quoted
}

#[cfg(test)]
mod tests;
