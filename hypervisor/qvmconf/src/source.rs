//! Where text comes from, and places in it.
//!
//! Answers for: keeping every piece of configuration text for as long as somebody may want to point into it, and for
//! turning a byte offset into a line and a column. Does not answer for: what the text says.

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;

/// Most bytes of one source. Configurations are a few kilobytes; what is larger is a kernel that somebody named by
/// mistake.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// One of the texts in [`Sources`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct SourceId(u16);

impl SourceId {
    /// As a number, for those who only carry it around.
    #[must_use]
    pub const fn as_u32(self) -> u32 {
        self.0 as u32
    }

    /// From such a number; `None` if it is none.
    #[must_use]
    pub fn from_u32(number: u32) -> Option<Self> {
        u16::try_from(number).ok().map(Self)
    }
}

/// Some bytes of a source: from `start` up to, not including, `end`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Span {
    /// In which text.
    pub source: SourceId,
    /// Offset of the first byte.
    pub start: u32,
    /// Offset behind the last byte.
    pub end: u32,
}

impl Span {
    /// From the start of this to the end of `other`; just this one if the two are in different texts.
    #[must_use]
    pub fn to(self, other: Self) -> Self {
        if self.source == other.source { Self { end: other.end.max(self.end), ..self } } else { self }
    }

    /// An empty place just behind this.
    #[must_use]
    pub fn after(self) -> Self {
        Self { start: self.end, ..self }
    }
}

/// What makes a source unreadable as a whole.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Defect {
    /// More than [`MAX_SOURCE_BYTES`]: this many bytes.
    TooLarge(usize),
    /// Not UTF-8, from this byte on.
    NotUtf8(usize),
}

/// One text: a file of the boot archive, or words from a command line.
#[derive(Clone, Debug)]
pub struct Source {
    name: String,
    folder: String,
    is_file: bool,
    text: String,
    defect: Option<Defect>,
}

impl Source {
    /// How diagnostics call it: the path of a file, else what the caller named it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The folder against which relative paths in this text are resolved; empty for the root.
    #[must_use]
    pub fn folder(&self) -> &str {
        &self.folder
    }

    /// Whether it is a file, not text from a command line.
    #[must_use]
    pub fn is_file(&self) -> bool {
        self.is_file
    }

    /// The text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    pub(crate) fn defect(&self) -> Option<Defect> {
        self.defect
    }
}

/// A line and a column, both counted from 1; the column counts characters.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Location {
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
}

/// All texts of one configuration.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    list: Vec<Source>,
}

impl Sources {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the file `path` with these contents. Relative paths in it are resolved against its folder. Contents that are
    /// not text are reported when the source is parsed.
    pub fn add_file(&mut self, path: &str, contents: &[u8]) -> SourceId {
        self.add(path, crate::folder_of(path), true, contents)
    }

    /// Adds words from a command line or a script; `name` is what diagnostics call it, `folder` is what relative paths in
    /// it are resolved against.
    pub fn add_text(&mut self, name: &str, folder: &str, text: &str) -> SourceId {
        self.add(name, folder, false, text.as_bytes())
    }

    fn add(&mut self, name: &str, folder: &str, is_file: bool, contents: &[u8]) -> SourceId {
        let (text, defect) = if contents.len() > MAX_SOURCE_BYTES {
            (String::new(), Some(Defect::TooLarge(contents.len())))
        } else {
            match core::str::from_utf8(contents) {
                Ok(text) => (text.to_owned(), None),
                // The part before the defect is kept as it is, so that the defect's offset stays right.
                Err(error) => {
                    (String::from_utf8_lossy(contents).into_owned(), Some(Defect::NotUtf8(error.valid_up_to())))
                }
            }
        };
        let id = SourceId(u16::try_from(self.list.len()).unwrap_or(u16::MAX));
        self.list.push(Source { name: name.to_owned(), folder: folder.to_owned(), is_file, text, defect });
        id
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.list.len()
    }

    /// All of them, in the order in which they were added.
    pub fn iter(&self) -> impl Iterator<Item = &Source> {
        self.list.iter()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The text `id`, if it is one of these.
    #[must_use]
    pub fn get(&self, id: SourceId) -> Option<&Source> {
        self.list.get(usize::from(id.0))
    }

    /// What `span` covers; nothing if it is not a place in these texts.
    #[must_use]
    pub fn text(&self, span: Span) -> &str {
        self.get(span.source).and_then(|source| source.text.get(span.start as usize..span.end as usize)).unwrap_or("")
    }

    /// Line and column of the first byte of `span`.
    #[must_use]
    pub fn location(&self, span: Span) -> Location {
        let text = self.get(span.source).map_or("", Source::text);
        let before = head(text, span.start as usize);
        let line_start = before.rfind('\n').map_or(0, |newline| newline.saturating_add(1));
        Location {
            line: before.bytes().filter(|&byte| byte == b'\n').count().saturating_add(1),
            column: before.get(line_start..).unwrap_or("").chars().count().saturating_add(1),
        }
    }
}

/// The first `length` bytes, or fewer if that would split a character or there are not so many.
pub(crate) fn head(text: &str, length: usize) -> &str {
    let mut end = length.min(text.len());
    while !text.is_char_boundary(end) {
        end = end.saturating_sub(1);
    }
    text.get(..end).unwrap_or("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_lines_count_newlines() {
        let mut sources = Sources::new();
        let source = sources.add_file("a/b.qvmconf", "x\n\täö ram\r\nz".as_bytes());
        let at = |start| sources.location(Span { source, start, end: start });
        assert_eq!(at(0), Location { line: 1, column: 1 });
        assert_eq!(at(2), Location { line: 2, column: 1 });
        assert_eq!(at(8), Location { line: 2, column: 5 });
        assert_eq!(sources.text(Span { source, start: 8, end: 11 }), "ram");
        assert_eq!(at(13), Location { line: 3, column: 1 });
        assert_eq!(at(4000), Location { line: 3, column: 2 }, "a place behind the end is the end");
        assert_eq!(at(4), Location { line: 2, column: 2 }, "a place inside a character is that character");
        assert_eq!(sources.get(source).unwrap().folder(), "a");
    }

    #[test]
    fn a_span_reaches_to_another_only_within_one_text() {
        let a = Span { source: SourceId(0), start: 1, end: 2 };
        let b = Span { source: SourceId(0), start: 5, end: 9 };
        assert_eq!(a.to(b), Span { source: SourceId(0), start: 1, end: 9 });
        assert_eq!(a.to(Span { source: SourceId(1), ..b }), a);
    }

    #[test]
    fn what_is_no_text_is_kept_with_its_defect() {
        let mut sources = Sources::new();
        let latin = sources.add_file("l", b"ram \xe4");
        assert_eq!(sources.get(latin).unwrap().defect(), Some(Defect::NotUtf8(4)));
        let large = sources.add_file("k", &alloc::vec![b'a'; MAX_SOURCE_BYTES + 1]);
        assert_eq!(sources.get(large).unwrap().defect(), Some(Defect::TooLarge(MAX_SOURCE_BYTES + 1)));
        assert_eq!(sources.get(large).unwrap().text(), "");
    }
}
