//! The manual page of a vdev, made of its factory and nothing else.
//!
//! Answers for: one text that reads well on a console of 80 columns and is Markdown, for the shell's `use` and for
//! `docs/vdevs.md`. Does not answer for: what [`Factory::about`] says, nor for the order of pages.

use crate::{AccessSizes, Factory, FactoryFlags, GENERAL_OPTIONS, OptionKind, OptionSpec, OptionStatus, Safety};
use core::fmt::{Result, Write};

impl Factory {
    /// Writes its manual page: what it is, where it may be, its options with their defaults.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_manual(&self, out: &mut dyn Write) -> Result {
        writeln!(out, "## {0}\n\n`vdev {0}`: {1}.\n", self.name, self.help)?;
        if !self.about.is_empty() {
            writeln!(out, "{}\n", self.about)?;
        }
        self.location(out)?;
        self.interrupt(out)?;
        self.options.iter().try_for_each(|option| write_option(option, out))?;
        let general = GENERAL_OPTIONS.iter().filter(|option| !matches!(option.name, LOC | INTR));
        general.into_iter().try_for_each(|option| write_option(option, out))?;
        out.write_str("\nSafety class: ")?;
        out.write_str(if self.safety == Safety::Qualified { "qualified" } else { "unqualified" })?;
        if self.flags.contains(FactoryFlags::IMPLICIT) {
            out.write_str("; part of every VM, named or not")?;
        }
        out.write_str(".\n")
    }

    fn location(&self, out: &mut dyn Write) -> Result {
        if self.flags.contains(FactoryFlags::LOC_FORBIDDEN) {
            return Ok(());
        }
        out.write_str(
            match (self.flags.contains(FactoryFlags::LOC_MEM), self.flags.contains(FactoryFlags::LOC_PCI)) {
                (true, true) => "- `loc [mem:]ADDRESS|pci:DEVICE[.FUNCTION]`",
                (false, true) => "- `loc pci:DEVICE[.FUNCTION]`",
                _ => "- `loc [mem:]ADDRESS`",
            },
        )?;
        match self.default_location {
            Some(at) => write!(out, ", default `{at}`")?,
            None if self.flags.contains(FactoryFlags::LOC_PCI) => out.write_str(", else on the PCI bus")?,
            None if self.flags.intersects(FactoryFlags::ASSIGN.union(FactoryFlags::PCI_HOST)) => {
                out.write_str(FOUND)?;
            }
            None if self.flags.contains(FactoryFlags::IMPLICIT) => {}
            None => out.write_str(", required")?,
        }
        out.write_str(":\n  where its registers are")?;
        if self.region_size != 0 {
            write_size(": ", self.region_size, out)?;
            let mut before = ", in accesses of";
            for (size, bytes) in AccessSizes::all().iter().zip([1, 2, 4, 8]) {
                if self.access_sizes.contains(size) {
                    write!(out, "{before} {bytes}")?;
                    before = ",";
                }
            }
            out.write_str(" bytes")?;
        }
        if self.window_size != 0 {
            write_size(";\n  takes another ", self.window_size, out)?;
            out.write_str(" of addresses elsewhere")?;
        }
        out.write_str("\n")
    }

    fn interrupt(&self, out: &mut dyn Write) -> Result {
        if self.flags.contains(FactoryFlags::INTR_FORBIDDEN) {
            return Ok(());
        }
        out.write_str("- `intr CONTROLLER:LINE`")?;
        out.write_str(if self.flags.contains(FactoryFlags::PCI_HOST) {
            FOUND
        } else if self.flags.contains(FactoryFlags::ASSIGN) {
            // It comes with the place, but where it has to be there.
            if self.flags.contains(FactoryFlags::INTR_REQUIRED) {
                FOUND
            } else if self.default_location.is_some() {
                ""
            } else {
                ", else found if `loc` is"
            }
        } else if self.flags.contains(FactoryFlags::INTR_REQUIRED) {
            ", required"
        } else if self.flags.contains(FactoryFlags::INTR_UNLESS_PCI) {
            ", required in memory"
        } else {
            ""
        })?;
        out.write_str(":\n  the interrupt it raises\n")
    }
}

/// What [`FactoryFlags::ASSIGN`] means for what a configuration does not say.
const FOUND: &str = ", else one is found";
const LOC: &str = "loc";
const INTR: &str = "intr";

fn write_option(option: &OptionSpec, out: &mut dyn Write) -> Result {
    write!(out, "- `{}", option.name)?;
    match option.kind {
        OptionKind::Flag => {}
        OptionKind::Number { .. } => out.write_str(" NUMBER")?,
        OptionKind::Size => out.write_str(" SIZE")?,
        OptionKind::Address => out.write_str(" ADDRESS")?,
        OptionKind::Text => out.write_str(" TEXT")?,
        OptionKind::File => out.write_str(" FILE")?,
        OptionKind::Directory => out.write_str(" DIRECTORY")?,
        OptionKind::NamedSize => out.write_str(" NAME,SIZE")?,
        OptionKind::Region => out.write_str(" START,SIZE")?,
        OptionKind::Numbers(form) => write!(out, " {form}")?,
        OptionKind::HostDevice => out.write_str(" [<|>]NAME")?,
        OptionKind::Disk => out.write_str(" [<]NAME")?,
        OptionKind::Choice(words) => {
            let mut before = ' ';
            for word in words {
                write!(out, "{before}{word}")?;
                before = '|';
            }
        }
    }
    out.write_str("`")?;
    if let OptionKind::Number { min, max } = option.kind {
        // Of what has no upper limit nobody wants to know the number.
        match max {
            u64::MAX => {}
            max => write!(out, ", {min} to {max}")?,
        }
    }
    if let Some(text) = option.default {
        // Many words to choose from fill the line.
        let gap = if let OptionKind::Choice(_) = option.kind { "\n  " } else { " " };
        write!(out, ",{gap}default `{text}`")?;
    }
    if option.required {
        out.write_str(", required")?;
    }
    if option.repeatable {
        out.write_str(", repeatable")?;
    }
    if option.status == OptionStatus::NotYet {
        out.write_str(", not supported yet")?;
    }
    writeln!(out, ":\n  {}", option.help)
}

/// A number of bytes as a configuration would write it.
fn write_size(before: &str, bytes: u64, out: &mut dyn Write) -> Result {
    let unit = [(30, "G"), (20, "M"), (10, "K")].iter().find(|(shift, _)| bytes.trailing_zeros() >= *shift);
    let (shift, unit) = unit.copied().unwrap_or((0, " bytes"));
    write!(out, "{before}{}{unit}", bytes >> shift)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OptionError, Options, Setup, Vdev};
    use alloc::{boxed::Box, string::String};
    use types::Ipa;

    fn create(_: &Options, _: &mut Setup<'_>) -> core::result::Result<Box<dyn Vdev>, OptionError> {
        unreachable!("nobody makes one")
    }

    fn page(factory: &Factory) -> String {
        let mut page = String::new();
        factory.write_manual(&mut page).unwrap();
        page
    }

    const OPTIONS: &[OptionSpec] = &[
        OptionSpec::new("fast", OptionKind::Flag, "hurries").required(),
        OptionSpec::new("rate", OptionKind::Number { min: 2, max: 9 }, "per second").default("4"),
        OptionSpec::new("any", OptionKind::Number { min: 0, max: u64::MAX }, "whatever"),
        OptionSpec::new("mode", OptionKind::Choice(&["a", "b"]), "which").not_yet(),
        OptionSpec::new("way", OptionKind::Choice(&["c", "d"]), "which way").default("c"),
        OptionSpec::new("hostdev", OptionKind::HostDevice, "where to").repeatable(),
    ];

    #[test]
    fn a_page_says_all_that_a_factory_does() {
        let factory = Factory {
            name: "thing",
            options: OPTIONS,
            help: "a thing",
            about: "For those who need one.\n\n    vdev thing intr gic:40",
            flags: FactoryFlags::LOC_MEM.union(FactoryFlags::INTR_REQUIRED),
            access_sizes: AccessSizes::BYTE.union(AccessSizes::WORD),
            window_size: 3 << 20,
            default_location: Some(Ipa(0x1c0f_0000)),
            ..Factory::new(create)
        };
        let expected = "\
## thing

`vdev thing`: a thing.

For those who need one.

    vdev thing intr gic:40

- `loc [mem:]ADDRESS`, default `0x1c0f0000`:
  where its registers are: 4K, in accesses of 1, 4 bytes;
  takes another 3M of addresses elsewhere
- `intr CONTROLLER:LINE`, required:
  the interrupt it raises
- `fast`, required:
  hurries
- `rate NUMBER`, 2 to 9, default `4`:
  per second
- `any NUMBER`:
  whatever
- `mode a|b`, not supported yet:
  which
- `way c|d`,
  default `c`:
  which way
- `hostdev [<|>]NAME`, repeatable:
  where to
";
        let page = page(&factory);
        assert!(page.starts_with(expected), "{page}");
        for option in GENERAL_OPTIONS.iter().filter(|option| !matches!(option.name, LOC | INTR)) {
            assert!(page.contains(&alloc::format!("\n- `{}", option.name)), "{page}");
        }
        assert!(page.ends_with("\n\nSafety class: unqualified.\n"), "{page}");
    }

    #[test]
    fn what_a_configuration_may_not_say_is_not_there() {
        let none = Factory {
            flags: FactoryFlags::LOC_FORBIDDEN.union(FactoryFlags::INTR_FORBIDDEN),
            safety: Safety::Qualified,
            region_size: 0,
            ..Factory::new(create)
        };
        let text = page(&none);
        assert!(!text.contains("`loc") && !text.contains("`intr") && text.contains("class: qualified.\n"), "{text}");
    }

    #[test]
    fn what_may_be_left_out_is_not_required() {
        let with = |flags| page(&Factory { flags, region_size: 0x20, ..Factory::new(create) });
        let text = with(FactoryFlags::LOC_PCI | FactoryFlags::LOC_MEM | FactoryFlags::INTR_UNLESS_PCI);
        assert!(
            text.contains("- `loc [mem:]ADDRESS|pci:DEVICE[.FUNCTION]`, else on the PCI bus:\n  where its registers are: 32 bytes, in"),
            "{text}"
        );
        assert!(text.contains("- `intr CONTROLLER:LINE`, required in memory:\n"), "{text}");
        let text = with(FactoryFlags::LOC_MEM | FactoryFlags::PCI_HOST);
        assert!(
            text.contains("ADDRESS`, else one is found:\n") && text.contains(":LINE`, else one is found:\n"),
            "{text}"
        );
        let text = with(FactoryFlags::LOC_MEM | FactoryFlags::ASSIGN);
        assert!(text.contains("- `loc [mem:]ADDRESS`, else one is found:\n"), "{text}");
        assert!(text.contains("- `intr CONTROLLER:LINE`, else found if `loc` is:\n"), "{text}");
        let text = with(FactoryFlags::LOC_MEM | FactoryFlags::ASSIGN | FactoryFlags::INTR_REQUIRED);
        assert!(text.contains("- `intr CONTROLLER:LINE`, else one is found:\n"), "{text}");
        let text = with(FactoryFlags::LOC_MEM | FactoryFlags::IMPLICIT);
        assert!(text.contains("- `loc [mem:]ADDRESS`:\n") && text.contains("- `intr CONTROLLER:LINE`:\n"), "{text}");
        assert!(text.contains("; part of every VM, named or not"), "{text}");
    }
}
