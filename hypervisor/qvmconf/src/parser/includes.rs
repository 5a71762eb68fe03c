//! Files within files.

use super::Loader;
use crate::lexer::{Token, lex};
use crate::{Diagnostic, Diagnostics, SourceId, Sources, resolve};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

/// How deep files may include each other.
const MAX_DEPTH: usize = 16;

/// Most files that one configuration may include.
pub(super) const MAX_INCLUDES: usize = 64;

/// Most words of one configuration in all its files.
const MAX_WORDS: usize = 4 * crate::lexer::MAX_WORDS;

/// Files within files, flattened to one stream of words.
pub(super) struct Includes<'a> {
    pub(super) sources: &'a mut Sources,
    pub(super) loader: &'a mut dyn Loader,
    /// The files that are being read, outermost first.
    pub(super) open: Vec<String>,
    pub(super) count: usize,
    /// There were too many words.
    pub(super) full: bool,
}

impl Includes<'_> {
    pub(super) fn read(&mut self, id: SourceId, into: &mut Vec<Token>, diagnostics: &mut Diagnostics) {
        let Some(source) = self.sources.get(id) else { return };
        let (name, folder) = (source.name().to_string(), source.folder().to_string());
        self.open.push(name);
        for token in lex(self.sources, id, diagnostics) {
            if into.len() >= MAX_WORDS {
                // Said once, where the first one too many stands.
                if !core::mem::replace(&mut self.full, true) {
                    let message = format!("more than {MAX_WORDS} words in all: this is no configuration");
                    diagnostics.push(Diagnostic::error(token.span, message));
                }
                break;
            }
            match token.text.strip_prefix('@').filter(|_| !token.quoted) {
                None => into.push(token),
                Some(path) => match self.include(&folder, path) {
                    Ok(included) => self.read(included, into, diagnostics),
                    Err(message) => diagnostics.push(Diagnostic::error(token.span, message)),
                },
            }
        }
        self.open.pop();
    }

    fn include(&mut self, folder: &str, path: &str) -> Result<SourceId, String> {
        let path = resolve(folder, path).map_err(|error| format!("`@{path}`: {error}"))?;
        if self.open.contains(&path) {
            return Err(format!("`{path}` includes itself"));
        }
        if self.open.len() >= MAX_DEPTH || self.count >= MAX_INCLUDES {
            return Err(format!(
                "`{path}`: too many files within files (at most {MAX_DEPTH} deep, {MAX_INCLUDES} in all)"
            ));
        }
        self.count = self.count.saturating_add(1);
        let contents = self.loader.load(&path).ok_or_else(|| format!("there is no file `{path}`"))?;
        Ok(self.sources.add_file(&path, &contents))
    }
}
