//! Diagnostics as text.
//!
//! Answers for: `FILE:LINE:COLUMN: error: MESSAGE`, the line itself, a caret line under it, `hint:`, and the notes in the
//! same form. Lines are clipped, so that a kilobyte of command line does not hide the message; whatever could move a
//! terminal's cursor is shown as a replacement. Does not answer for: colours.

use crate::{Diagnostic, Diagnostics, Severity, Source, Sources, Span};
use core::fmt;

/// Most characters of a source line that are shown.
const WIDTH: usize = 100;

/// Of these, how many stand before the marked place when the line is clipped.
const LEAD: usize = 30;

/// Most characters of a message, a hint or a name: they may quote a word of kilobytes.
const LONGEST: usize = 400;

/// A diagnostic, ready to be printed; ends with a newline.
#[derive(Clone, Copy, Debug)]
pub struct Rendered<'a> {
    sources: &'a Sources,
    diagnostic: &'a Diagnostic,
}

/// All diagnostics of a configuration, ready to be printed.
#[derive(Clone, Copy, Debug)]
pub struct RenderedAll<'a> {
    sources: &'a Sources,
    diagnostics: &'a Diagnostics,
}

impl Sources {
    /// `diagnostic` as text.
    #[must_use]
    pub fn render<'a>(&'a self, diagnostic: &'a Diagnostic) -> Rendered<'a> {
        Rendered { sources: self, diagnostic }
    }

    /// All of them as text, with `and N more` at the end if not all were kept.
    #[must_use]
    pub fn render_all<'a>(&'a self, diagnostics: &'a Diagnostics) -> RenderedAll<'a> {
        RenderedAll { sources: self, diagnostics }
    }

    fn write_place(&self, f: &mut fmt::Formatter<'_>, span: Span, label: &str, message: &str) -> fmt::Result {
        let name = self.get(span.source).map_or("?", Source::name);
        let location = self.location(span);
        let (name, message) = (OneLine(name), OneLine(message));
        writeln!(f, "{name}:{}:{}: {label}: {message}", location.line, location.column)?;
        self.write_line(f, span)
    }

    fn write_line(&self, f: &mut fmt::Formatter<'_>, span: Span) -> fmt::Result {
        let text = self.get(span.source).map_or("", Source::text);
        let start = crate::source::head(text, span.start as usize).len();
        let line_start = text.get(..start).and_then(|before| before.rfind('\n')).map_or(0, |at| at.saturating_add(1));
        let line_end =
            text.get(start..).and_then(|rest| rest.find('\n')).map_or(text.len(), |at| start.saturating_add(at));
        let line = text.get(line_start..line_end).unwrap_or("").trim_end_matches('\r');
        if line.trim().is_empty() {
            return Ok(());
        }
        let before = self.location(span).column.saturating_sub(1);
        let end = (span.end as usize).min(line_start.saturating_add(line.len()));
        let marked = text.get(start..end).map_or(0, |marked| marked.chars().count()).max(1);

        let characters = line.chars().count();
        let skip = if characters > WIDTH { before.saturating_sub(LEAD) } else { 0 };
        let shown = characters.saturating_sub(skip).min(WIDTH);
        let (lead, tail) =
            (if skip > 0 { "..." } else { "" }, if skip.saturating_add(shown) < characters { "..." } else { "" });
        write!(f, "    {lead}")?;
        for c in line.chars().skip(skip).take(shown) {
            fmt::Write::write_char(f, visible(c))?;
        }
        writeln!(f, "{tail}")?;
        let column = before.saturating_sub(skip);
        let marked = marked.min(shown.saturating_sub(column)).max(1);
        let column = column.saturating_add(lead.len());
        writeln!(f, "    {:column$}{:^<marked$}", "", "^")
    }
}

/// Text that holds words of a configuration, as a part of one line of output.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(LONGEST) {
            fmt::Write::write_char(f, visible(c))?;
        }
        f.write_str(if self.0.chars().nth(LONGEST).is_some() { "..." } else { "" })
    }
}

/// What stands for `c` in one column.
fn visible(c: char) -> char {
    match c {
        '\t' => ' ',
        // Also what turns the direction of text around.
        c if c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
        {
            '\u{fffd}'
        }
        c => c,
    }
}

impl fmt::Display for Rendered<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let label = match self.diagnostic.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        let message = OneLine(&self.diagnostic.message);
        match self.diagnostic.span {
            Some(span) => self.sources.write_place(f, span, label, message.0)?,
            // Nothing to point at: say at least in which configuration.
            None => match self.sources.get(crate::SourceId::default()) {
                Some(source) => writeln!(f, "{}: {label}: {message}", OneLine(source.name()))?,
                None => writeln!(f, "{label}: {message}")?,
            },
        }
        if let Some(hint) = &self.diagnostic.hint {
            writeln!(f, "    hint: {}", OneLine(hint))?;
        }
        for note in &self.diagnostic.notes {
            self.sources.write_place(f, note.span, "note", &note.message)?;
        }
        Ok(())
    }
}

impl fmt::Display for RenderedAll<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for diagnostic in self.diagnostics.iter() {
            self.sources.render(diagnostic).fmt(f)?;
        }
        match self.diagnostics.omitted() {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;
    use alloc::string::{String, ToString};
    use proptest::prelude::*;

    fn rendered(text: &str, start: u32, end: u32) -> String {
        let mut sources = Sources::new();
        let source = sources.add_file("vms/a.qvmconf", text.as_bytes());
        sources.render(&Diagnostic::error(Span { source, start, end }, "wrong").hint("right")).to_string()
    }

    #[test]
    fn the_line_and_a_caret_under_the_place_are_shown() {
        assert_eq!(
            rendered("system a\n\tram 12Q\r\ncpu", 14, 17),
            "vms/a.qvmconf:2:6: error: wrong\n     ram 12Q\n         ^^^\n    hint: right\n"
        );
    }

    #[test]
    fn a_place_over_several_lines_is_marked_to_the_end_of_the_first() {
        assert_eq!(
            rendered("cmdline \"ab\\\ncd\"", 8, 16),
            "vms/a.qvmconf:1:9: error: wrong\n    cmdline \"ab\\\n            ^^^^\n    hint: right\n"
        );
    }

    #[test]
    fn long_lines_are_clipped_around_the_place() {
        let text = format!("{} here {}", "a".repeat(200), "b".repeat(200));
        let shown = rendered(&text, 201, 205);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].chars().count(), 4 + 3 + WIDTH + 3);
        let caret = lines[2].find('^').unwrap();
        assert_eq!(&lines[1][caret..caret + 4], "here");
        assert_eq!(lines[2].matches('^').count(), 4);
    }

    #[test]
    fn nothing_reaches_the_terminal_raw() {
        assert!(!rendered("a\x1b[2Jb\u{202e}c", 0, 1).contains(['\x1b', '\u{202e}']));
        let mut sources = Sources::new();
        let source = sources.add_file("a\x1bb", b"x");
        let wrong = Diagnostic::error(Span { source, start: 0, end: 1 }, "`a\rb\n` is wrong")
            .hint("\x07")
            .note(Span::default(), "\x08");
        for diagnostic in [wrong.clone(), Diagnostic { span: None, ..wrong }] {
            let shown = sources.render(&diagnostic).to_string();
            assert!(
                shown.chars().all(|c| c == '\n' || !c.is_control()) && shown.contains("`a\u{fffd}b\u{fffd}` is wrong")
            );
        }
    }

    #[test]
    fn a_message_does_not_quote_kilobytes() {
        let shown = Sources::new().render(&Diagnostic::error_nowhere("ä".repeat(4000))).to_string();
        assert_eq!(shown.chars().count(), "error: ".len() + LONGEST + "...\n".len());
    }

    #[test]
    fn notes_point_at_the_other_party() {
        let mut sources = Sources::new();
        let source = sources.add_file("a", b"ram 1m\nrom 2m");
        let at = |start, end| Span { source, start, end };
        let diagnostic = Diagnostic::error(at(7, 10), "overlaps").note(at(0, 3), "the other");
        assert_eq!(
            sources.render(&diagnostic).to_string(),
            "a:2:1: error: overlaps\n    rom 2m\n    ^^^\na:1:1: note: the other\n    ram 1m\n    ^^^\n"
        );
        assert_eq!(sources.render(&Diagnostic::error_nowhere("no memory")).to_string(), "a: error: no memory\n");
    }

    #[test]
    fn what_was_not_kept_is_counted() {
        let mut diagnostics = Diagnostics::new();
        diagnostics.extend((0..53).map(|_| Diagnostic::error_nowhere("x")));
        assert!(Sources::new().render_all(&diagnostics).to_string().ends_with("error: x\nand 3 more\n"));
    }

    use alloc::vec::Vec;

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn any_place_in_any_text_can_be_shown(text in "[a\\t\\r\\n ä\u{1b}]{0,300}", start in 0_u32..400, length in 0_u32..400) {
            let shown = rendered(&text, start, start + length);
            prop_assert!(shown.lines().all(|line| line.chars().count() <= 4 + 6 + WIDTH));
        }
    }
}
