//! The configuration of `smmuman`: which devices there are besides those that VMs are passed, and what they may reach.
//!
//! Answers for: its words, and contradictions within it; each error has its place, and where it is about two things, both.
//! Does not answer for: whether a device, a stream or memory is there, which the machine says; and for devices that
//! VMs are passed, which their own configurations name.
//!
//! The language follows the original's (`smmuman`'s options `device`, `allow`, `smmu`, `reserve`, `debug`), in the words,
//! comments, quotes and numbers of `.qvmconf` files, with `@FILE` to include others:
//!
//! | | |
//! |---|---|
//! | `smmu smmuv3` | the kind of SMMU; there is one |
//! | `device SPEC NAME` | NAME is the device at SPEC; all count |
//! | `allow NAME START,LENGTH[,PERM]` | NAME may reach this memory of the machine, at its own addresses, by `r` and `w` (default `rw`); all count |
//! | `allow NAME bypass` | NAME may reach everything |
//! | `reserve START,LENGTH` | no `allow` may reach this memory; all count |
//! | `set on-fault report`, `cut-off`, `terminate` | what a fault does besides being refused: it is told of; its device is cut off; its VM ends, too. The last one counts |
//! | `safety` | no device may be let through |
//! | `debug 1`, `debug 2` | tell of each change; of each procedure. The last one counts |
//!
//! SPEC is `pci:BUS:DEVICE.FUNCTION` (decimal), `stream:NUMBER`, `stream:FIRST-LAST`, or `mmio:ADDRESS`, a device of the
//! machine's tree by its registers.
// QNX: `allow NAME bypass` and `set on-fault` are ours; there, a device that is not named reaches everything. An address
// without prefix is hexadecimal there, and refused here where it could be meant decimal (`qvmconf::address`).

mod check;
mod resolve;
mod value;

pub use resolve::{Place, Places, resolve};
pub use value::{MemoryRange, Spec};

use alloc::borrow::ToOwned;
use alloc::format;
use alloc::string::String;
use alloc::vec::{IntoIter, Vec};
use qvmconf::{Diagnostic, Diagnostics, Loader, SourceId, Sources, Span, Token, nearest};
use types::{Pa, Range};

/// Most devices of one configuration.
pub const MAX_DEVICES: usize = 256;

/// The words that begin something.
const WORDS: [&str; 7] = ["smmu", "device", "allow", "reserve", "set", "safety", "debug"];
/// Words of the original that mean nothing here.
const NOT_HERE: [(&str, &str); 4] = [
    ("foreground", "there is no background to go to"),
    ("fdt", "the machine's own device tree is read"),
    ("use", "there is one driver, which is built in"),
    ("user", "there are no users"),
];
const KINDS: [&str; 1] = ["smmuv3"];
const ON_FAULT: [&str; 3] = ["report", "cut-off", "terminate"];

/// What becomes of a device that reaches too far, besides that it does not get there.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum OnFault {
    /// It is told of.
    #[default]
    Report,
    /// All its transactions are refused from then on.
    CutOff,
    /// Its VM ends; without a VM, it is cut off.
    Terminate,
}

/// Memory that a device may reach.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Allowed {
    /// Which.
    pub memory: MemoryRange,
    /// By reads.
    pub read: bool,
    /// By writes.
    pub write: bool,
}

/// A device.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Device {
    /// Its name.
    pub name: String,
    /// Where it is, and where that is said. At least one.
    pub places: Vec<(Spec, Span)>,
    /// What it may reach.
    pub allowed: Vec<Allowed>,
    /// It may reach everything: where that is said.
    pub bypass: Option<Span>,
}

/// What was said.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Configuration {
    /// The devices, in the order in which they were first named.
    pub devices: Vec<Device>,
    /// Memory that none of them may reach.
    pub reserved: Vec<MemoryRange>,
    /// What a fault does.
    pub on_fault: OnFault,
    /// Nothing is let through.
    pub safety: bool,
    /// How much is told: 0 to 2.
    pub debug: u8,
    /// What is wrong. With errors in here nothing of the rest is to be used.
    pub diagnostics: Diagnostics,
}

/// `allow`, before it is known whether there is such a device.
struct Allow {
    name: Token,
    what: Option<Allowed>,
}

/// Reads the sources `roots`, in this order, as one configuration.
#[must_use]
pub fn parse(sources: &mut Sources, roots: &[SourceId], loader: &mut dyn Loader) -> Configuration {
    let mut configuration = Configuration::default();
    let tokens = qvmconf::words_of(sources, roots, loader, &mut configuration.diagnostics);
    let mut parser = Parser { tokens: tokens.into_iter(), end: Span::default(), configuration, allows: Vec::new() };
    while let Some(token) = parser.next() {
        parser.statement(&token);
    }
    let Parser { mut configuration, allows, .. } = parser;
    check::resolve(&mut configuration, allows);
    check::check(&mut configuration);
    configuration.diagnostics.sort();
    configuration
}

struct Parser {
    tokens: IntoIter<Token>,
    /// The last word.
    end: Span,
    configuration: Configuration,
    allows: Vec<Allow>,
}

impl Parser {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.next()?;
        self.end = token.span;
        Some(token)
    }

    fn error(&mut self, diagnostic: Diagnostic) {
        self.configuration.diagnostics.push(diagnostic);
    }

    fn statement(&mut self, word: &Token) {
        match word.text.as_str() {
            _ if word.quoted => self.unknown(word),
            "smmu" => drop(self.choice(word, &KINDS)),
            "device" => self.device(word),
            "allow" => self.allow(word),
            "reserve" => {
                if let Some(memory) = self.argument(word, "START,LENGTH").and_then(|it| self.memory(&it)) {
                    self.configuration.reserved.push(memory);
                }
            }
            "set" => self.set(word),
            "safety" => self.configuration.safety = true,
            "debug" => match self.choice(word, &["1", "2"]) {
                Some(0) => self.configuration.debug = 1,
                Some(_) => self.configuration.debug = 2,
                None => {}
            },
            _ => self.unknown(word),
        }
    }

    fn unknown(&mut self, word: &Token) {
        let text = word.text.as_str();
        let known = NOT_HERE.iter().find(|(known, _)| *known == text && !word.quoted);
        let diagnostic = match (known, nearest(text, WORDS)) {
            _ if word.quoted && WORDS.contains(&text) => {
                Diagnostic::error(word.span, format!("unknown word `{text}`")).hint("it is one without quotes")
            }
            (Some((_, reason)), _) => Diagnostic::error(word.span, format!("`{text}`: not here: {reason}")),
            (_, Some(near)) => {
                Diagnostic::error(word.span, format!("unknown word `{text}`")).hint(format!("did you mean `{near}`?"))
            }
            _ => Diagnostic::error(word.span, format!("unknown word `{text}`"))
                .hint(format!("there are {}", WORDS.join(", "))),
        };
        self.error(diagnostic);
        // What belongs to it is not looked at.
        while self.tokens.as_slice().first().is_some_and(|token| !token.starts_line) {
            self.next();
        }
    }

    /// The next word, unless the line ends before it and the next begins with a word of the language.
    fn argument(&mut self, word: &Token, wanted: &str) -> Option<Token> {
        let there = self.tokens.as_slice().first();
        let is_other = |token: &Token| token.starts_line && WORDS.contains(&token.text.as_str());
        if there.is_none_or(is_other) {
            let place = self.end.after();
            self.error(Diagnostic::error(place, format!("`{}` wants {wanted}, and nothing follows", word.text)));
            return None;
        }
        self.next()
    }

    /// Which of `words` follows.
    fn choice(&mut self, word: &Token, words: &[&str]) -> Option<usize> {
        let listed = words.join(", ");
        let argument = self.argument(word, &listed)?;
        let found = words.iter().position(|known| *known == argument.text);
        if found.is_none() {
            let message = format!("`{}` knows no `{}`", word.text, argument.text);
            self.error(Diagnostic::error(argument.span, message).hint(format!("expected {listed}")));
        }
        found
    }

    fn set(&mut self, word: &Token) {
        let Some(variable) = self.argument(word, "a variable") else { return };
        if variable.text != "on-fault" {
            let message = format!("there is no variable `{}`", variable.text);
            self.error(Diagnostic::error(variable.span, message).hint("there is `on-fault`"));
            let _ = self.argument(word, "a value");
            return;
        }
        match self.choice(&variable, &ON_FAULT) {
            Some(0) => self.configuration.on_fault = OnFault::Report,
            Some(1) => self.configuration.on_fault = OnFault::CutOff,
            Some(_) => self.configuration.on_fault = OnFault::Terminate,
            None => {}
        }
    }

    fn device(&mut self, word: &Token) {
        let Some(place) = self.argument(word, "SPEC and NAME") else { return };
        let Some(name) = self.argument(word, "a NAME behind SPEC") else { return };
        let spec = match value::spec(&place.text) {
            Ok(spec) => spec,
            Err(message) => {
                let hint = "pci:BUS:DEVICE.FUNCTION, stream:NUMBER, stream:FIRST-LAST or mmio:ADDRESS";
                return self.error(Diagnostic::error(place.span, message).hint(hint));
            }
        };
        let devices = &mut self.configuration.devices;
        if let Some(device) = devices.iter_mut().find(|device| device.name == name.text) {
            device.places.push((spec, place.span));
        } else if devices.len() < MAX_DEVICES {
            let places = [(spec, place.span)].to_vec();
            devices.push(Device { name: name.text, places, allowed: Vec::new(), bypass: None });
        } else {
            let message = format!("more than {MAX_DEVICES} devices: this is no configuration");
            self.error(Diagnostic::error(name.span, message));
        }
    }

    fn allow(&mut self, word: &Token) {
        let Some(name) = self.argument(word, "NAME and START,LENGTH") else { return };
        let Some(what) = self.argument(word, "START,LENGTH or `bypass` behind NAME") else { return };
        if what.text == "bypass" {
            return self.allows.push(Allow { name, what: None });
        }
        let (range, permission) = match what.text.match_indices(',').nth(1) {
            Some((at, _)) => (what.text.get(..at), what.text.get(at.saturating_add(1)..)),
            None => (Some(what.text.as_str()), Some("rw")),
        };
        let permission = permission.unwrap_or("");
        if permission.is_empty() || !permission.chars().all(|letter| matches!(letter, 'r' | 'w')) {
            let message = format!("`{permission}` is no permission");
            return self.error(Diagnostic::error(what.span, message).hint("letters of `rw`"));
        }
        let range = Token { text: range.unwrap_or("").to_owned(), ..what };
        if let Some(memory) = self.memory(&range) {
            let (read, write) = (permission.contains('r'), permission.contains('w'));
            self.allows.push(Allow { name, what: Some(Allowed { memory, read, write }) });
        }
    }

    fn memory(&mut self, token: &Token) -> Option<MemoryRange> {
        match value::memory(&token.text) {
            Ok((start, length)) => match Range::new(Pa(start), length) {
                Some(range) => Some(MemoryRange { range, span: token.span }),
                None => {
                    let message = format!("`{}` runs over the end of the address space", token.text);
                    self.error(Diagnostic::error(token.span, message));
                    None
                }
            },
            Err(message) => {
                self.error(
                    Diagnostic::error(token.span, message).hint("START,LENGTH in whole pages, as in 0x80000000,64K"),
                );
                None
            }
        }
    }
}

#[cfg(test)]
mod tests;
