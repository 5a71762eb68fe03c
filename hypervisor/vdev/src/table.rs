//! A board's table of factories.
//!
//! Answers for: putting it together in one line ([`factories!`](crate::factories)), and for a table with a mistake in it not
//! being compiled ([`check_factories`]). Does not answer for: what is in it (`vdevs::CATALOGUE` and the board), nor for
//! defaults of options, which are written in the configuration language: making a device for a test finds those.

// For the compiler: the image holds nothing of it, and where it panics there is no image.
#![expect(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::panic,
    reason = "evaluated when a board is compiled"
)]

use crate::{ABI, Factory, FactoryFlags, GENERAL_OPTIONS, OptionKind, OptionSpec, OptionStatus};

/// A table with a board's own factories behind those of another one, for `Board::factories`.
///
/// ```
/// # use vdev::{Factory, Options, OptionError, Setup, Vdev};
/// # static CATALOGUE: &[&Factory] = &[];
/// # fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> { unimplemented!() }
/// static MINE: Factory = Factory { name: "mine", help: "a device of mine", ..Factory::new(create) };
/// static FACTORIES: &[&Factory] = vdev::factories!(CATALOGUE, MINE);
/// const _: () = vdev::check_factories(FACTORIES);
/// assert_eq!(FACTORIES.last().map(|factory| factory.name), Some("mine"));
/// ```
#[macro_export]
macro_rules! factories {
    ($first:expr, $($own:path),+ $(,)?) => {{
        const OWN: &[&$crate::Factory] = &[$(&$own),+];
        const COUNT: usize = $first.len() + OWN.len();
        static ALL: [&$crate::Factory; COUNT] = $crate::append_factories($first, OWN);
        &ALL
    }};
}

/// What [`factories!`](crate::factories) is made of: `first`, then `own`, together `COUNT`.
///
/// # Panics
/// If those are not `COUNT`; when it is compiled, if the table is a constant.
#[must_use]
pub const fn append_factories<const COUNT: usize>(
    first: &[&'static Factory],
    own: &[&'static Factory],
) -> [&'static Factory; COUNT] {
    assert!(first.len() + own.len() == COUNT && COUNT > 0);
    let mut all = [if first.is_empty() { own[0] } else { first[0] }; COUNT];
    let mut index = 0;
    while index < COUNT {
        all[index] = if index < first.len() { first[index] } else { own[index - first.len()] };
        index += 1;
    }
    all
}

/// Makes sure that a board's table makes sense. `kernel::entry!` evaluates it as a constant.
///
/// ```compile_fail
/// # use vdev::{Factory, Options, OptionError, Setup, Vdev};
/// # fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> { unimplemented!() }
/// static ONE: Factory = Factory { name: "mine", help: "a device of mine", ..Factory::new(create) };
/// static TWO: Factory = Factory { name: "mine", help: "another", ..Factory::new(create) };
/// // error[E0080]: evaluation panicked: vdev `mine`: a second one of this name
/// const _: () = vdev::check_factories(&[&ONE, &TWO]);
/// ```
///
/// ```compile_fail
/// # use vdev::{Factory, FactoryFlags, Options, OptionError, Setup, Vdev};
/// # fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> { unimplemented!() }
/// const FLAGS: FactoryFlags = FactoryFlags::INTR_FORBIDDEN.union(FactoryFlags::INTR_REQUIRED);
/// static MINE: Factory = Factory { name: "mine", help: "a device of mine", flags: FLAGS, ..Factory::new(create) };
/// // error[E0080]: evaluation panicked: vdev `mine`: `intr` is forbidden and required
/// const _: () = vdev::check_factories(&[&MINE]);
/// ```
///
/// # Panics
/// If the table does not make sense, which then does not compile; the message names the vdev.
pub const fn check_factories(table: &[&Factory]) {
    if let Some(flaw) = flaw(table) {
        panic!("{}", flaw.message().text())
    }
}

/// What is wrong with a table.
#[derive(Debug)]
struct Flaw {
    vdev: &'static str,
    /// `None` if it is about the vdev as a whole.
    option: Option<&'static str>,
    what: &'static str,
}

/// The first mistake there is.
const fn flaw(table: &[&Factory]) -> Option<Flaw> {
    let mut index = 0;
    while index < table.len() {
        let factory = table[index];
        let mut before = 0;
        while before < index {
            if same(table[before].name, factory.name) {
                return Some(Flaw { vdev: factory.name, option: None, what: "a second one of this name" });
            }
            before += 1;
        }
        if let Some(what) = contradiction(factory) {
            return Some(Flaw { vdev: factory.name, option: None, what });
        }
        if let Some((option, what)) = bad_option(factory.options) {
            return Some(Flaw { vdev: factory.name, option: Some(option), what });
        }
        index += 1;
    }
    None
}

/// Offsets of a device on the PCI bus that its configuration space has. Those of its window are behind its registers.
const CONFIGURATION_SPACE: u64 = 0x1000;

/// What a factory says that cannot be, but for its options.
const fn contradiction(factory: &Factory) -> Option<&'static str> {
    let interrupt = FactoryFlags::INTR_REQUIRED.union(FactoryFlags::INTR_UNLESS_PCI);
    let location = FactoryFlags::LOC_MEM.union(FactoryFlags::LOC_PCI);
    let forbids_location = factory.flags.contains(FactoryFlags::LOC_FORBIDDEN);
    let has_registers = factory.region_size != 0 || factory.window_size != 0;
    Some(if !is_word(factory.name) {
        "a name is letters, digits, `-` and `_`"
    } else if factory.abi != ABI {
        "written for another interface than this one (`vdev::ABI`)"
    } else if factory.help.is_empty() {
        "no `help` says what it is"
    } else if factory.flags.contains(FactoryFlags::INTR_FORBIDDEN) && factory.flags.intersects(interrupt) {
        "`intr` is forbidden and required"
    } else if forbids_location && factory.flags.intersects(location) {
        "`loc` is forbidden and allowed"
    } else if has_registers && (forbids_location || !factory.flags.intersects(location)) {
        "it has registers, and `loc` cannot say where"
    } else if has_registers && factory.access_sizes.is_empty() {
        "it has registers that take no access of any size"
    } else if factory.window_size != 0 && !factory.window_size.is_power_of_two() {
        "its window is no power of two"
    } else if factory.window_size != 0
        && factory.region_size < CONFIGURATION_SPACE
        && factory.flags.contains(FactoryFlags::LOC_PCI)
    {
        "on the PCI bus its window would be in its configuration space"
    } else if factory.default_location.is_some() && !factory.flags.contains(FactoryFlags::LOC_MEM) {
        "it has a default `loc` in memory, where it may not be"
    } else {
        return None;
    })
}

/// The first option that cannot be, and why.
const fn bad_option(options: &[OptionSpec]) -> Option<(&'static str, &'static str)> {
    let mut index = 0;
    while index < options.len() {
        let option = &options[index];
        let (first, _) = options.split_at(index);
        let what = if !is_word(option.name) {
            "is no word of letters, digits, `-` and `_`"
        } else if is_among(option.name, GENERAL_OPTIONS) {
            "is one that every vdev has"
        } else if is_among(option.name, first) {
            "is there twice"
        } else if option.help.is_empty() {
            "has no `help`"
        } else if option.default.is_some() && (option.required || matches!(option.status, OptionStatus::NotYet)) {
            "has a default that can never count"
        } else if let OptionKind::Number { min, max } = option.kind
            && min > max
        {
            "takes no number at all"
        } else {
            index += 1;
            continue;
        };
        return Some((option.name, what));
    }
    None
}

const fn is_among(name: &str, options: &[OptionSpec]) -> bool {
    let mut index = 0;
    while index < options.len() {
        if same(options[index].name, name) {
            return true;
        }
        index += 1;
    }
    false
}

/// Whether a configuration can write it without quotes.
const fn is_word(name: &str) -> bool {
    let bytes = name.as_bytes();
    let mut index = 0;
    while index < bytes.len() {
        if !bytes[index].is_ascii_alphanumeric() && !matches!(bytes[index], b'-' | b'_') {
            return false;
        }
        index += 1;
    }
    !name.is_empty()
}

/// `==`, which is no constant function yet.
const fn same(a: &str, b: &str) -> bool {
    let (a, b) = (a.as_bytes(), b.as_bytes());
    let mut index = 0;
    while index < a.len() && index < b.len() && a[index] == b[index] {
        index += 1;
    }
    index == a.len() && index == b.len()
}

impl Flaw {
    /// "vdev `NAME`: option `OPTION` WHAT".
    const fn message(&self) -> Message {
        let message = Message { bytes: [0; 160], length: 0 }.with("vdev `").with(self.vdev).with("`: ");
        match self.option {
            None => message.with(self.what),
            Some(option) => message.with("option `").with(option).with("` ").with(self.what),
        }
    }
}

/// A text that is put together when there is no heap yet.
struct Message {
    bytes: [u8; 160],
    length: usize,
}

impl Message {
    /// With more at its end, as far as there is room.
    const fn with(mut self, text: &str) -> Self {
        let text = text.as_bytes();
        let mut index = 0;
        while index < text.len() && self.length < self.bytes.len() {
            self.bytes[self.length] = text[index];
            self.length += 1;
            index += 1;
        }
        self
    }

    const fn text(&self) -> &str {
        match core::str::from_utf8(self.bytes.split_at(self.length).0) {
            Ok(text) => text,
            Err(_) => "a vdev with a name that is no text",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AccessSizes, OptionError, Options, Setup, Vdev};
    use alloc::{
        boxed::Box,
        string::{String, ToString},
    };
    use types::Ipa;

    fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
        unreachable!("nobody makes one")
    }

    const GOOD: Factory = Factory { name: "good", help: "a good one", ..Factory::new(create) };

    fn said(table: &[&Factory]) -> String {
        flaw(table).map(|flaw| flaw.message().text().to_string()).unwrap_or_default()
    }

    #[test]
    fn a_good_table_is_good() {
        static OPTIONS: &[OptionSpec] = &[
            OptionSpec::new("a", OptionKind::Flag, "one"),
            OptionSpec::new("b", OptionKind::Number { min: 1, max: 1 }, "another").default("1"),
        ];
        let other = Factory { name: "other-2", options: OPTIONS, window_size: 4096, ..GOOD };
        assert_eq!(said(&[&GOOD, &other]), "");
        let none = FactoryFlags::LOC_FORBIDDEN | FactoryFlags::INTR_FORBIDDEN;
        assert_eq!(said(&[&Factory { flags: none, region_size: 0, access_sizes: AccessSizes::empty(), ..GOOD }]), "");
        assert_eq!(said(&[]), "");
    }

    #[test]
    fn two_of_one_name_are_one_too_many() {
        let other = Factory { name: "goo", ..GOOD };
        assert_eq!(said(&[&GOOD, &other, &GOOD]), "vdev `good`: a second one of this name");
    }

    #[test]
    fn a_factory_that_contradicts_itself_is_named() {
        let (forbidden, required) = (FactoryFlags::INTR_FORBIDDEN, FactoryFlags::INTR_REQUIRED);
        let (nowhere, memory) = (FactoryFlags::LOC_FORBIDDEN, FactoryFlags::LOC_MEM);
        let bad = [
            (Factory { name: "", ..GOOD }, "a name is letters"),
            (Factory { name: "a b", ..GOOD }, "a name is letters"),
            (Factory { abi: ABI - 1, ..GOOD }, "another interface"),
            (Factory { help: "", ..GOOD }, "no `help`"),
            (Factory { flags: memory | forbidden | required, ..GOOD }, "`intr` is forbidden and required"),
            (Factory { flags: memory | forbidden | FactoryFlags::INTR_UNLESS_PCI, ..GOOD }, "`intr` is forbidden and"),
            (Factory { flags: nowhere | memory, region_size: 0, ..GOOD }, "`loc` is forbidden and allowed"),
            (Factory { flags: nowhere, ..GOOD }, "cannot say where"),
            (Factory { flags: forbidden, ..GOOD }, "cannot say where"),
            (Factory { flags: nowhere, region_size: 0, window_size: 16, ..GOOD }, "cannot say where"),
            (Factory { access_sizes: AccessSizes::empty(), ..GOOD }, "no access of any size"),
            (Factory { window_size: 3 << 20, ..GOOD }, "its window is no power of two"),
            (Factory { window_size: 16, region_size: 16, flags: FactoryFlags::LOC_PCI, ..GOOD }, "on the PCI bus"),
            (Factory { flags: FactoryFlags::LOC_PCI, default_location: Some(Ipa(8)), ..GOOD }, "a default `loc`"),
        ];
        for (factory, what) in bad {
            let said = said(&[&factory]);
            assert!(said.starts_with(&alloc::format!("vdev `{}`: ", factory.name)) && said.contains(what), "{said}");
        }
    }

    #[test]
    fn an_option_that_cannot_be_is_named() {
        const ONE: OptionSpec = OptionSpec::new("one", OptionKind::Size, "a size");
        static BAD: [(&[OptionSpec], &str); 8] = [
            (&[ONE, ONE], "option `one` is there twice"),
            (&[ONE, OptionSpec::new("intr", OptionKind::Text, "x")], "option `intr` is one that every vdev has"),
            (&[OptionSpec::new("", OptionKind::Text, "x")], "option `` is no word"),
            (&[OptionSpec::new("a b", OptionKind::Text, "x")], "option `a b` is no word"),
            (&[OptionSpec::new("a", OptionKind::Text, "")], "option `a` has no `help`"),
            (&[ONE.default("1").required()], "option `one` has a default that"),
            (&[ONE.default("1").not_yet()], "option `one` has a default that"),
            (&[OptionSpec::new("n", OptionKind::Number { min: 2, max: 1 }, "x")], "option `n` takes no number"),
        ];
        for (options, what) in BAD {
            let said = said(&[&Factory { options, ..GOOD }]);
            assert!(said.contains(what), "{said}");
        }
    }

    #[test]
    #[should_panic(expected = "vdev `good`: its window is no power of two")]
    fn the_message_is_what_the_compiler_shows() {
        check_factories(&[&Factory { window_size: 3, ..GOOD }]);
    }

    #[test]
    fn a_name_without_end_is_cut_off() {
        let name: &'static str = Box::leak("x".repeat(1000).into_boxed_str());
        assert_eq!(said(&[&Factory { name, help: "", ..GOOD }]).len(), 160);
    }
}
