//! A configuration as it was said, after the rules of the language: contexts resolved, repeated options reduced to those
//! that count, arguments read.
//!
//! Answers for: the shape in which the parser hands it on. Does not answer for: what is right (`vm::config`).

use crate::words::Keyword;
use crate::{Diagnostics, Span, Value};
use alloc::string::String;
use alloc::vec::Vec;

/// One configuration, from whatever number of sources.
#[derive(Clone, Debug, Default)]
pub struct Document {
    /// The options in the order in which they were said; those that were overridden by a later one are gone.
    pub statements: Vec<Statement>,
    /// What is wrong so far. With errors in here the statements are what could be understood: enough to look for more
    /// errors, not to build a VM.
    pub diagnostics: Diagnostics,
    /// The name of the first file, without folders and ending: what a VM is called that does not say otherwise. `None` if
    /// there is no file.
    pub stem: Option<String>,
}

/// An option with its arguments; for one that opens a context also the options that apply to it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Statement {
    /// Which option.
    pub keyword: Keyword,
    /// The blob type before it: [`Keyword::Guest`], [`Keyword::Data`], [`Keyword::Initrd`], [`Keyword::Fdt`].
    pub prefix: Option<Keyword>,
    /// Where the option word stands.
    pub span: Span,
    /// As many as the option has parameters, except for [`Value::Invalid`] ones in the middle of a mistake.
    pub arguments: Vec<Argument>,
    /// What was said within the context that this opens.
    pub settings: Vec<Setting>,
}

impl Statement {
    /// The first argument's value; [`Value::Invalid`] if there is none.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.arguments.first().map_or(&Value::Invalid, |argument| &argument.value)
    }

    /// The place of the first argument, else of the option itself.
    #[must_use]
    pub fn value_span(&self) -> Span {
        self.arguments.first().map_or(self.span, |argument| argument.span)
    }

    /// What `set` has said of a variable of this context.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&Setting> {
        self.settings.iter().find(|setting| matches!(setting.name, SettingName::Variable(known) if known == name))
    }

    /// The setting `keyword`, if it was said.
    #[must_use]
    pub fn setting(&self, keyword: Keyword) -> Option<&Setting> {
        self.settings.iter().find(|setting| setting.name == SettingName::Keyword(keyword))
    }
}

/// An argument.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Argument {
    /// What it says.
    pub value: Value,
    /// How it was written, without quotes.
    pub text: String,
    /// Where.
    pub span: Span,
}

/// The name of an option within a context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum SettingName {
    /// A word of the language.
    Keyword(Keyword),
    /// An option of this kind of vdev only.
    Vdev(&'static str),
    /// A variable that `set` gives a value in this context.
    Variable(&'static str),
}

/// An option within a context.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Which.
    pub name: SettingName,
    /// Where the word stands.
    pub span: Span,
    /// Its argument, if it takes one.
    pub argument: Option<Argument>,
}

impl Setting {
    /// The argument's value; [`Value::Invalid`] if there is none.
    #[must_use]
    pub fn value(&self) -> &Value {
        self.argument.as_ref().map_or(&Value::Invalid, |argument| &argument.value)
    }

    /// The place of the argument, else of the word itself.
    #[must_use]
    pub fn value_span(&self) -> Span {
        self.argument.as_ref().map_or(self.span, |argument| argument.span)
    }
}
