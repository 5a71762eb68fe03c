//! From the addresses of an epitaph to functions and lines.
//!
//! Answers for: recognising the epitaph in the hypervisor's output (`bulkhead: panic ...` or
//! `bulkhead: cannot run here ...`, `image at 0x...`, `#N 0x...`) and looking its addresses up in the image's debug information. Does not answer for: making the backtrace.

use std::fmt::Write;
use std::path::Path;

use anyhow::{Result, anyhow};

use crate::image;

/// How the first line of an epitaph begins: a failure, or a machine that cannot be used.
const BEGINNINGS: [&str; 2] = ["bulkhead: panic", "bulkhead: cannot run here"];
const IMAGE_AT: &str = "image at 0x";

/// Collects the epitaph from lines of output.
#[derive(Debug, Default)]
pub(crate) struct Epitaph {
    seen: bool,
    image_at: Option<u64>,
    frames: Vec<(u32, u64)>,
}

impl Epitaph {
    /// Looks at one line of the hypervisor's own.
    pub(crate) fn line(&mut self, line: &str) {
        self.seen |= BEGINNINGS.iter().any(|beginning| line.starts_with(beginning));
        if !self.seen {
            return;
        }
        if let Some((_, rest)) = line.split_once(IMAGE_AT) {
            self.image_at = leading_hexadecimal(rest).or(self.image_at);
        }
        if let Some(frame) = frame(line) {
            self.frames.push(frame);
        }
    }

    /// Whether there was one.
    pub(crate) fn seen(&self) -> bool {
        self.seen
    }

    /// The backtrace with names, as text of several lines; empty when there is nothing to say.
    pub(crate) fn explain(&self, elf: &Path) -> Result<String> {
        let mut out = String::new();
        let Some(image_at) = self.image_at else { return Ok(out) };
        let loader = addr2line::Loader::new(elf).map_err(|error| anyhow!("{}: {error}", elf.display()))?;
        let linked_at = image::linked_at(&std::fs::read(elf)?)?;
        for &(number, address) in &self.frames {
            let _ = writeln!(out, "  #{number} {address:#x}");
            // Return addresses point at the call already: the hypervisor has taken an instruction off.
            let Some(probe) = address.checked_sub(image_at).map(|offset| offset + linked_at) else { continue };
            let mut frames = loader.find_frames(probe).map_err(|error| anyhow!("{error}"))?;
            while let Ok(Some(frame)) = frames.next() {
                // With line tables only (the debug profile) the name comes from the symbol table.
                let name = frame.function.as_ref().and_then(|name| name.raw_name().ok());
                let name = name.or_else(|| loader.find_symbol(probe).map(Into::into));
                let name = name.map_or("?".to_string(), |name| format!("{:#}", rustc_demangle::demangle(&name)));
                let location = frame.location.map_or(String::new(), |location| {
                    format!(" at {}:{}", location.file.unwrap_or("?"), location.line.unwrap_or(0))
                });
                let _ = writeln!(out, "       {name}{location}");
            }
        }
        Ok(out)
    }
}

/// `#N 0xADDRESS` at the beginning of a line, after white space.
fn frame(line: &str) -> Option<(u32, u64)> {
    let (number, rest) = line.trim_start().strip_prefix('#')?.split_once(' ')?;
    Some((number.parse().ok()?, leading_hexadecimal(rest.trim_start().strip_prefix("0x")?)?))
}

fn leading_hexadecimal(text: &str) -> Option<u64> {
    let end = text.find(|character: char| !character.is_ascii_hexdigit()).unwrap_or(text.len());
    u64::from_str_radix(text.get(..end)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use object::{Object, ObjectSymbol};

    use super::*;

    #[test]
    fn an_epitaph_is_recognised_line_by_line() {
        let mut epitaph = Epitaph::default();
        epitaph.line("  #0 0x1 before any panic");
        assert!(!epitaph.seen());
        for line in ["bulkhead: panic on CPU 1", "image at 0x40200000, 300 KiB", "  #0 0x40201234", "#1 0x40205678 in"]
        {
            epitaph.line(line);
        }
        assert!(epitaph.seen());
        assert_eq!(epitaph.image_at, Some(0x4020_0000));
        assert_eq!(epitaph.frames, [(0, 0x4020_1234), (1, 0x4020_5678)]);
    }

    #[test]
    fn addresses_are_looked_up_relative_to_the_load_address() {
        // This very test is an ELF file with symbols; pretend it was loaded elsewhere.
        let program = std::env::current_exe().unwrap();
        let content = std::fs::read(&program).unwrap();
        let file = object::File::parse(&*content).unwrap();
        let is_it = |name: &str| name.contains("leading_hexadecimal");
        let symbol = file.symbols().find(|symbol| symbol.name().is_ok_and(is_it)).unwrap();
        let moved = symbol.address() - image::linked_at(&content).unwrap() + 0x7000_0000;
        let mut epitaph = Epitaph::default();
        for line in ["bulkhead: panic on cpu0", "image at 0x70000000", &format!("#0 {moved:#x}")] {
            epitaph.line(line);
        }
        let text = epitaph.explain(&program).unwrap();
        assert!(text.contains("leading_hexadecimal"), "{text}");
    }
}
