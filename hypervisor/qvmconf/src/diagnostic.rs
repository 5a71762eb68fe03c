//! What is wrong, where, and what would be right.
//!
//! Answers for: the shape of a diagnostic and for keeping their number bounded. Does not answer for: how it looks
//! (`render`).

use crate::Span;
use alloc::string::String;
use alloc::vec::Vec;

/// Most errors, and most warnings, that are kept; of the rest only the number is known.
pub const MAX_DIAGNOSTICS: usize = 50;

/// How bad it is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// It can be used, but probably means something else.
    Warning,
}

/// Another place that belongs to a diagnostic.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Note {
    /// The place.
    pub span: Span,
    /// What is there.
    pub message: String,
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug)]
#[must_use]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// Where; `None` if it is nowhere in the text, as when something is missing altogether.
    pub span: Option<Span>,
    /// What is wrong, naming the thing and, where there are two, both parties.
    pub message: String,
    /// What was expected, or what to do about it.
    pub hint: Option<String>,
    /// The other places it is about.
    pub notes: Vec<Note>,
}

impl Diagnostic {
    /// An error at `span`.
    pub fn error(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span: Some(span), message: message.into(), hint: None, notes: Vec::new() }
    }

    /// An error that has no place in the text.
    pub fn error_nowhere(message: impl Into<String>) -> Self {
        Self { severity: Severity::Error, span: None, message: message.into(), hint: None, notes: Vec::new() }
    }

    /// A warning at `span`.
    pub fn warning(span: Span, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(span, message) }
    }

    /// With what was expected, or what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// With another place.
    pub fn note(mut self, span: Span, message: impl Into<String>) -> Self {
        self.notes.push(Note { span, message: message.into() });
        self
    }
}

/// The diagnostics of one configuration: at most [`MAX_DIAGNOSTICS`] errors and as many warnings, and how many more there
/// were.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Diagnostics {
    list: Vec<Diagnostic>,
    errors: usize,
    warnings: usize,
}

impl Diagnostics {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds one, or only counts it if there are too many already.
    pub fn push(&mut self, diagnostic: Diagnostic) {
        let count = match diagnostic.severity {
            Severity::Error => &mut self.errors,
            Severity::Warning => &mut self.warnings,
        };
        *count = count.saturating_add(1);
        if *count <= MAX_DIAGNOSTICS {
            self.list.push(diagnostic);
        }
    }

    /// Whether there is an error among them.
    #[must_use]
    pub fn has_errors(&self) -> bool {
        self.errors > 0
    }

    /// Whether there is nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Those that were kept.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.list.iter()
    }

    /// How many were only counted.
    #[must_use]
    pub fn omitted(&self) -> usize {
        self.errors.saturating_add(self.warnings).saturating_sub(self.list.len())
    }

    /// Puts them into the order of the text; what has no place comes last. Those at one place keep their order.
    pub fn sort(&mut self) {
        let place = |diagnostic: &Diagnostic| match diagnostic.span {
            Some(span) => (0, span.source, span.start),
            None => (1, crate::SourceId::default(), 0),
        };
        // They are few, and mostly in order.
        for diagnostic in core::mem::take(&mut self.list) {
            let at = self.list.partition_point(|other| place(other) <= place(&diagnostic));
            self.list.insert(at, diagnostic);
        }
    }
}

impl Extend<Diagnostic> for Diagnostics {
    fn extend<I: IntoIterator<Item = Diagnostic>>(&mut self, diagnostics: I) {
        for diagnostic in diagnostics {
            self.push(diagnostic);
        }
    }
}

impl IntoIterator for Diagnostics {
    type Item = Diagnostic;
    type IntoIter = alloc::vec::IntoIter<Diagnostic>;

    fn into_iter(self) -> Self::IntoIter {
        self.list.into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_do_not_crowd_out_errors_and_the_rest_is_counted() {
        let mut diagnostics = Diagnostics::new();
        diagnostics.extend((0..80).map(|_| Diagnostic::warning(Span::default(), "w")));
        assert!(!diagnostics.has_errors());
        diagnostics.extend((0..51).map(|_| Diagnostic::error(Span::default(), "e")));
        assert!(diagnostics.has_errors());
        assert_eq!(diagnostics.iter().count(), 2 * MAX_DIAGNOSTICS);
        assert_eq!(diagnostics.omitted(), 31);
    }

    #[test]
    fn sorting_follows_the_text() {
        let at = |start| Span { start, end: start, ..Span::default() };
        let mut diagnostics = Diagnostics::new();
        diagnostics.push(Diagnostic::error_nowhere("last"));
        diagnostics.push(Diagnostic::error(at(9), "second"));
        diagnostics.push(Diagnostic::warning(at(3), "first"));
        diagnostics.sort();
        let order: Vec<_> = diagnostics.iter().map(|diagnostic| diagnostic.message.as_str()).collect();
        assert_eq!(order, ["first", "second", "last"]);
    }
}
