//! Words to a [`Document`].
//!
//! Answers for: contexts, arguments, which of repeated options count, includes, and going on after a mistake so that all
//! of a file's mistakes are reported at once. Does not answer for: how words are cut (`lexer`), how arguments are spelt
//! (`value`), what is right (`vm::config`).
//!
//! Contexts, repetition and includes follow `docs/qvmconf.md`, "Words". An error about a word swallows what evidently belongs to
//! it, so that one mistake is one message.

mod includes;

use crate::document::{Argument, Document, Setting, SettingName, Statement};
use crate::lexer::Token;
use crate::words::{
    Context, Effect, Keyword, KnownOption, KnownVdev, Parameter, ROWS, Repeat, Row, Shape, Status, VDEVS, Variable,
};
use crate::{Diagnostic, Diagnostics, SourceId, Sources, Span, Value, nearest, stem_of, value};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::{IntoIter, Vec};
use core::iter::Peekable;
use includes::Includes;

/// Where included files come from.
pub trait Loader {
    /// The contents of the file at `path`, which is relative to the root and normalised. `None` if there is none.
    fn load(&mut self, path: &str) -> Option<Vec<u8>>;
}

/// No file can be included.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Loader for NoFiles {
    fn load(&mut self, _: &str) -> Option<Vec<u8>> {
        None
    }
}

/// An option that a vdev of this hypervisor has, besides those of every vdev.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct VdevOption {
    /// The word.
    pub name: &'static str,
    /// Whether an argument follows.
    pub takes_argument: bool,
    /// Whether all of several count; otherwise the last one does.
    pub repeatable: bool,
}

/// A vdev of this hypervisor.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VdevWords {
    /// The word behind `vdev`.
    pub name: &'static str,
    /// Its own options.
    pub options: Vec<VdevOption>,
}

/// The part of the language that depends on which vdevs there are.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Vocabulary {
    /// The vdevs.
    pub vdevs: Vec<VdevWords>,
}

impl Vocabulary {
    fn vdev(&self, name: &str) -> Option<&VdevWords> {
        self.vdevs.iter().find(|vdev| vdev.name == name)
    }
}

/// Reads the sources `roots`, in this order, as one configuration. What is wrong is in [`Document::diagnostics`].
#[must_use]
pub fn parse(sources: &mut Sources, roots: &[SourceId], loader: &mut dyn Loader, vocabulary: &Vocabulary) -> Document {
    let stem = roots.iter().filter_map(|id| sources.get(*id)).find(|source| source.is_file());
    let mut document = Document { stem: stem.map(|source| stem_of(source.name()).to_string()), ..Document::default() };
    let mut diagnostics = Diagnostics::new();
    let tokens = words_of(sources, roots, loader, &mut diagnostics);
    let mut parser = Parser {
        tokens: tokens.into_iter().peekable(),
        end: Span::default(),
        statements: &mut document.statements,
        diagnostics,
        vocabulary,
        scope: Scope::Guest,
    };
    parser.run();
    document.diagnostics = parser.diagnostics;
    document
}

/// The words of the sources `roots`, in this order, with those of the files that they include (`@FILE`). What is wrong is added to
/// `diagnostics`.
#[must_use]
pub fn words_of(
    sources: &mut Sources,
    roots: &[SourceId],
    loader: &mut dyn Loader,
    diagnostics: &mut Diagnostics,
) -> Vec<Token> {
    let mut includes = Includes { sources, loader, open: Vec::new(), count: 0, full: false };
    let mut tokens = Vec::new();
    for root in roots {
        includes.read(*root, &mut tokens, diagnostics);
    }
    tokens
}

/// What following options apply to.
#[derive(Clone, Copy)]
enum Scope<'a> {
    Guest,
    /// The last statement, in this context.
    Statement(Context),
    /// The last statement, which is a vdev of this kind.
    Vdev(&'a VdevWords),
    /// Something that is not supported: its options are swallowed. For a vdev of the original these are known too.
    Ignored(Context, Option<&'static KnownVdev>),
}

impl Scope<'_> {
    const fn context(self) -> Context {
        match self {
            Self::Guest => Context::Guest,
            Self::Statement(context) | Self::Ignored(context, _) => context,
            Self::Vdev(_) => Context::Vdev,
        }
    }
}

struct Parser<'a> {
    tokens: Peekable<IntoIter<Token>>,
    /// The last word.
    end: Span,
    statements: &'a mut Vec<Statement>,
    diagnostics: Diagnostics,
    vocabulary: &'a Vocabulary,
    scope: Scope<'a>,
}

impl<'a> Parser<'a> {
    fn run(&mut self) {
        let mut prefix: Option<(Keyword, Token)> = None;
        while let Some(token) = self.next() {
            let row = Row::find(&token.text, self.scope.context()).filter(|_| !token.quoted);
            let prefixed = prefix.take();
            if let Some((_, word)) = &prefixed
                && row.is_none_or(|row| !matches!(row.keyword, Keyword::Load | Keyword::Pass))
            {
                let message = format!("`{}` says what a `load` brings, and none follows", word.text);
                self.error(word.span, message, "as in `initrd load FILE`");
            }
            match row {
                Some(row) if row.effect == Effect::Prefix => {
                    self.refuse_unsupported(row, token.span);
                    prefix = Some((row.keyword, token));
                }
                Some(row) if row.within == Context::Guest && self.own_option(&token).is_none() => {
                    self.statement(row, prefixed.map(|(keyword, _)| keyword), token.span);
                }
                Some(row) if row.within != Context::Guest => self.setting(row, token.span),
                _ => self.own_or_unknown(&token),
            }
        }
        if let Some((_, word)) = prefix {
            let message = format!("`{}` says what a `load` brings, and none follows", word.text);
            self.error(word.span, message, "as in `initrd load FILE`");
        }
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.next()?;
        self.end = token.span;
        Some(token)
    }

    fn error(&mut self, span: Span, message: impl Into<String>, hint: &str) {
        let diagnostic = Diagnostic::error(span, message);
        self.diagnostics.push(if hint.is_empty() { diagnostic } else { diagnostic.hint(hint) });
    }

    /// Reports a word that has no effect here. Within something that has none anyway, once is enough.
    fn refuse_unsupported(&mut self, row: &Row, span: Span) -> bool {
        if row.status == Status::Supported {
            return false;
        }
        if !(matches!(self.scope, Scope::Ignored(..)) && row.within != Context::Guest) {
            self.error(span, format!("`{}`: {}", row.spelling, row.status), "");
        }
        true
    }

    /// The arguments of `row`. `None` where one is missing.
    fn arguments(&mut self, row: &Row, refused: bool) -> Vec<Argument> {
        let mut arguments: Vec<Argument> = Vec::new();
        for parameter in row.parameters {
            let shape = self.shape(parameter, arguments.first());
            let option = self.name(row.spelling, row.within);
            match self.argument(&option, shape, refused) {
                Some(argument) => arguments.push(argument),
                None => break,
            }
        }
        arguments
    }

    /// How an argument is spelt; that of a variable's value depends on the variable.
    fn shape(&self, parameter: &Parameter, first: Option<&Argument>) -> Shape {
        match (parameter.shape, first) {
            (Shape::VariableValue, Some(name)) => Variable::find(&name.text).map_or(Shape::Text, |known| known.shape),
            (shape, _) => shape,
        }
    }

    /// What an option is called in messages.
    fn name(&self, option: &str, within: Context) -> String {
        match (self.scope, within) {
            (Scope::Vdev(words), Context::Vdev) => format!("`{option}` of `vdev {}`", words.name),
            _ => format!("`{option}`"),
        }
    }

    /// The next word as an argument of `option`, as [`Parser::name`] has it. One that is no such argument but an option itself stays where it is.
    fn argument(&mut self, option: &str, shape: Shape, refused: bool) -> Option<Argument> {
        let Some(token) = self.tokens.peek() else {
            let message = format!("{option} wants {}, and the configuration ends here", article(shape));
            self.error(self.end.after(), message, shape.expected());
            return None;
        };
        let (text, span) = (token.text.clone(), token.span);
        let read = if refused { Ok(Value::Invalid) } else { value::read(shape, &text) };
        let value = match read {
            Ok(value) => value,
            Err(_) if !token.quoted && Row::is_word(&text) => {
                let message = format!("{option} wants {} before `{text}`", article(shape));
                self.error(span, message, shape.expected());
                return None;
            }
            Err(error) => {
                let hint = error.hint.unwrap_or_else(|| shape.expected().to_string());
                let place = part(span, &text, &error.part, token.quoted);
                self.diagnostics.push(Diagnostic::error(place, format!("{option}: {}", error.message)).hint(hint));
                Value::Invalid
            }
        };
        self.next();
        Some(Argument { value, text, span })
    }

    /// An option of the VM, or one that opens a context.
    fn statement(&mut self, row: &'static Row, prefix: Option<Keyword>, span: Span) {
        let mut refused = self.refuse_unsupported(row, span);
        // A later one, as from a command line, overrides the first.
        let named = |statement: &Statement| statement.keyword == Keyword::System;
        if row.keyword == Keyword::System && !self.statements.is_empty() && !self.statements.iter().any(named) {
            let warning = Diagnostic::warning(span, "`system` stands first in the original");
            self.diagnostics.push(warning.hint("move it to the top"));
        }
        let arguments = self.arguments(row, refused);
        let complete = arguments.len() == row.parameters.len();
        let mut scope = match row.effect {
            Effect::Opens(context) if refused => Scope::Ignored(context, None),
            Effect::Opens(context) => Scope::Statement(context),
            _ => self.scope,
        };
        if let (Keyword::Vdev, Some(argument)) = (row.keyword, arguments.first()) {
            scope = self.vdev(argument);
            refused |= matches!(scope, Scope::Ignored(..));
        }
        if let (Keyword::Set, Some(argument)) = (row.keyword, arguments.first()) {
            refused |= self.refuse_variable(argument);
        }
        self.scope = scope;
        if refused || !complete {
            return;
        }
        if row.keyword == Keyword::Set
            && let Some(variable) = arguments.first().and_then(|name| Variable::find(&name.text))
            && variable.context == "vdev"
        {
            return self.set_of_vdev(variable, span, arguments);
        }
        match row.repeat {
            Repeat::LastWins => self.statements.retain(|other| other.keyword != row.keyword),
            Repeat::LastWinsEach => {
                let first = arguments.first().map(|argument| argument.text.clone());
                let same = |other: &Statement| other.arguments.first().map(|argument| &argument.text) == first.as_ref();
                self.statements.retain(|other| other.keyword != row.keyword || !same(other));
            }
            Repeat::Accumulates => {}
        }
        let settings = Vec::new();
        self.statements.push(Statement { keyword: row.keyword, prefix, span, arguments, settings });
    }

    /// `set` with a variable that every vdev has for itself.
    fn set_of_vdev(&mut self, variable: &'static Variable, span: Span, mut arguments: Vec<Argument>) {
        match self.scope {
            Scope::Vdev(_) => {
                let setting = Setting { name: SettingName::Variable(variable.name), span, argument: arguments.pop() };
                self.add(setting, true);
            }
            Scope::Ignored(..) => {}
            _ => {
                let message =
                    format!("`set {}` says something about a vdev, and there is none before it", variable.name);
                self.error(span, message, "it follows the vdev that it is about");
            }
        }
    }

    /// Which kind of vdev this is, or why there is none.
    fn vdev(&mut self, argument: &Argument) -> Scope<'a> {
        let name = argument.text.as_str();
        if let Some(words) = self.vocabulary.vdev(name) {
            return Scope::Vdev(words);
        }
        let (message, hint) = match KnownVdev::find(name) {
            Some(KnownVdev { never: Some(reason), .. }) => {
                (format!("`vdev {name}`: not here: {reason}"), String::new())
            }
            Some(_) => (format!("`vdev {name}`: known, not supported yet"), String::new()),
            None => {
                let here = self.vocabulary.vdevs.iter().map(|vdev| vdev.name);
                let hint = match nearest(name, here.clone().chain(VDEVS.iter().map(|vdev| vdev.name))) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("there are {}", here.collect::<Vec<_>>().join(", ")),
                };
                (format!("there is no vdev `{name}`"), hint)
            }
        };
        self.error(argument.span, message, &hint);
        Scope::Ignored(Context::Vdev, KnownVdev::find(name))
    }

    fn refuse_variable(&mut self, argument: &Argument) -> bool {
        let name = argument.text.as_str();
        match Variable::find(name) {
            Some(variable) if variable.status == Status::Supported => false,
            Some(variable) => {
                self.error(argument.span, format!("`set {name}`: {}", variable.status), "");
                true
            }
            None => {
                let near = nearest(name, crate::words::VARIABLES.iter().map(|variable| variable.name));
                let hint = near.map_or(String::new(), |near| format!("did you mean `{near}`?"));
                self.error(argument.span, format!("there is no variable `{name}`"), &hint);
                true
            }
        }
    }

    /// An option within the current context that every such context has.
    fn setting(&mut self, row: &'static Row, span: Span) {
        let refused = self.refuse_unsupported(row, span) || matches!(self.scope, Scope::Ignored(..));
        let mut arguments = self.arguments(row, refused);
        if refused || arguments.len() != row.parameters.len() {
            return;
        }
        let setting = Setting { name: SettingName::Keyword(row.keyword), span, argument: arguments.pop() };
        if row.keyword == Keyword::Sched && setting.argument.as_ref().is_some_and(|it| it.text.contains(',')) {
            // The original writes the policy of a sporadic server as a word of its own.
            self.tokens.next_if(|token| token.text == "s");
        }
        self.add(setting, row.repeat != Repeat::Accumulates);
    }

    fn add(&mut self, setting: Setting, last_wins: bool) {
        let opens = |statement: &&mut Statement| {
            matches!(statement.keyword, Keyword::Cpu | Keyword::Vdev | Keyword::Pass | Keyword::Reserve)
        };
        if let Some(statement) = self.statements.iter_mut().rev().find(opens) {
            if last_wins {
                statement.settings.retain(|other| other.name != setting.name);
            }
            statement.settings.push(setting);
        }
    }

    /// The option of the current vdev that `token` names.
    fn own_option(&self, token: &Token) -> Option<VdevOption> {
        match self.scope {
            Scope::Vdev(words) if !token.quoted => {
                words.options.iter().find(|option| option.name == token.text).copied()
            }
            _ => None,
        }
    }

    fn own_or_unknown(&mut self, token: &Token) {
        if let Some(option) = self.own_option(token) {
            let argument = if option.takes_argument {
                let name = self.name(option.name, Context::Vdev);
                let Some(argument) = self.argument(&name, Shape::Text, false) else { return };
                Some(argument)
            } else {
                None
            };
            let setting = Setting { name: SettingName::Vdev(option.name), span: token.span, argument };
            return self.add(setting, !option.repeatable);
        }
        if let Scope::Ignored(_, Some(vdev)) = self.scope
            && let Some(option) = vdev.option(&token.text).filter(|_| !token.quoted)
        {
            if !option.argument.is_empty() {
                let name = self.name(option.name, Context::Vdev);
                self.argument(&name, Shape::Text, true);
            }
            return;
        }
        self.unknown(token);
        // What follows belongs to the word nobody knows, until there is one that somebody does. Lines mean nothing, but
        // people begin options with them: a mistake in the next line is most likely another one.
        while let Some(next) = self.tokens.peek().cloned() {
            let known = Row::is_word(&next.text) || self.own_option(&next).is_some();
            if (known && !next.quoted) || next.starts_line {
                break;
            }
            self.next();
        }
    }

    fn unknown(&mut self, token: &Token) {
        let word = token.text.as_str();
        if token.quoted && ROWS.iter().any(|row| row.spelling == word) {
            return self.error(token.span, format!("`{word}` is not an option"), "it is one without quotes");
        }
        let elsewhere = ROWS.iter().find(|row| row.spelling == word);
        match (self.scope, elsewhere) {
            // Whose options nobody knows.
            (Scope::Ignored(_, None), _) => {}
            (_, Some(_)) => {
                let rows = ROWS.iter().filter(|row| row.spelling == word);
                let openers: Vec<_> = rows.filter_map(|row| row.within.opener()).map(|it| format!("`{it}`")).collect();
                let message = format!("`{word}` applies to a {}, and there is none here", openers.join(", a "));
                self.error(token.span, message, "");
            }
            (Scope::Vdev(words), None)
                if KnownVdev::find(words.name).is_some_and(|vdev| vdev.option(word).is_some()) =>
            {
                self.error(token.span, format!("`{word}` of `vdev {}`: known, not supported yet", words.name), "");
            }
            (scope, None) => {
                let (own, known): (&[VdevOption], &[KnownOption]) = match scope {
                    Scope::Vdev(words) => (&words.options, &[]),
                    Scope::Ignored(_, Some(vdev)) => (&[], vdev.options),
                    _ => (&[], &[]),
                };
                let own = own.iter().map(|option| option.name).chain(known.iter().map(|option| option.name));
                let all = ROWS.iter().map(|row| row.spelling).chain(own.clone());
                let hint = match (nearest(word, all), own.collect::<Vec<_>>().join(", ")) {
                    (Some(near), _) => format!("did you mean `{near}`?"),
                    (None, own) if own.is_empty() => own,
                    (None, own) => format!("its own options are {own}"),
                };
                let what = match scope {
                    Scope::Vdev(VdevWords { name, .. }) | Scope::Ignored(_, Some(KnownVdev { name, .. })) => {
                        format!("neither an option of `vdev {name}` nor any other")
                    }
                    _ => "not an option".to_string(),
                };
                self.error(token.span, format!("`{word}` is {what}"), &hint);
            }
        }
    }
}

/// An argument of this shape, in a sentence.
const fn article(shape: Shape) -> &'static str {
    match shape {
        Shape::Address => "an address",
        Shape::Size => "a size",
        Shape::Number => "a number",
        Shape::File => "a file",
        Shape::Region | Shape::Range => "a range",
        Shape::Interrupt | Shape::PassedInterrupt => "an interrupt",
        Shape::Boolean => "yes or no",
        Shape::Vdev => "the name of a vdev",
        Shape::Variable => "the name of a variable",
        _ => "an argument",
    }
}

/// The place of a part of a word.
fn part(span: Span, text: &str, part: &core::ops::Range<usize>, quoted: bool) -> Span {
    // Quotes and escapes shift what is behind them: then the whole word is the place.
    if quoted || part.is_empty() || part.end > text.len() {
        return span;
    }
    let at = |index: usize| span.start.saturating_add(u32::try_from(index).unwrap_or(0));
    Span { source: span.source, start: at(part.start), end: at(part.end) }
}

#[cfg(test)]
mod tests;
