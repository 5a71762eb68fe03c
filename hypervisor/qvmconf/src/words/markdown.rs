//! The tables as the reference in `docs/qvmconf.md` shows them.
//!
//! Answers for: one row for each word, variable and vdev of the original, with its status. A test keeps the document and
//! the tables together.

use super::{Context, KnownVdev, Parameter, ROWS, Repeat, Shape, VARIABLES, VDEVS};
use core::fmt;

/// The tables of options and of variables, in Markdown.
#[derive(Clone, Copy, Debug)]
pub struct Reference;

/// The table of vdevs, in Markdown, for a hypervisor that has those for which `has` says so.
#[derive(Clone, Copy, Debug)]
pub struct VdevReference<F>(pub F);

/// Text in a cell: `|` would end it.
struct Cell<T>(T);

impl<T: fmt::Display> fmt::Display for Cell<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        struct Escape<'a, 'b>(&'a mut fmt::Formatter<'b>);
        impl fmt::Write for Escape<'_, '_> {
            fn write_str(&mut self, text: &str) -> fmt::Result {
                text.chars().try_for_each(|c| if c == '|' { self.0.write_str("\\|") } else { self.0.write_char(c) })
            }
        }
        use fmt::Write;
        write!(Escape(f), "{}", self.0)
    }
}

fn context(context: Context) -> &'static str {
    context.opener().unwrap_or("anywhere")
}

fn repeat(repeat: Repeat) -> &'static str {
    match repeat {
        Repeat::LastWins => "last wins",
        Repeat::LastWinsEach => "last wins, each",
        Repeat::Accumulates => "all count",
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Option | Where | Twice | Status | Meaning |\n|---|---|---|---|---|")?;
        for row in ROWS {
            let (place, twice) = (context(row.within), repeat(row.repeat));
            writeln!(f, "| `{}` | {place} | {twice} | {} | {} |", Cell(row), row.status, Cell(row.help))?;
        }
        for row in ROWS {
            for Parameter { name, shape } in row.parameters {
                if let Shape::Choice(words) = shape {
                    write!(f, "\n`{}`: {name} is one of", row.spelling)?;
                    words.iter().try_for_each(|word| write!(f, " `{word}`"))?;
                    writeln!(f, ".")?;
                }
            }
        }
        writeln!(f, "\n| Variable | Context | Default | Status | Meaning |\n|---|---|---|---|---|")?;
        for variable in VARIABLES {
            let (name, context, default) = (variable.name, variable.context, variable.default);
            writeln!(f, "| `set {name}` | {context} | {default} | {} | {} |", variable.status, variable.help)?;
        }
        Ok(())
    }
}

impl<F: Fn(&str, Option<&str>) -> bool> fmt::Display for VdevReference<F> {
    /// The function is asked for a vdev (`None`) and for each of its options.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| Vdev | Status | What it is | Its options | Not yet |\n|---|---|---|---|---|")?;
        for vdev in VDEVS {
            let here = (self.0)(vdev.name, None);
            match vdev.never {
                Some(reason) => write!(f, "| `{}` | not here: {reason} | {} |", vdev.name, vdev.help)?,
                None if here => write!(f, "| `{}` | supported | {} |", vdev.name, vdev.help)?,
                None => write!(f, "| `{}` | known, not supported yet | {} |", vdev.name, vdev.help)?,
            }
            options(f, vdev, |option| here && (self.0)(vdev.name, Some(option)))?;
            options(f, vdev, |option| !(here && (self.0)(vdev.name, Some(option))))?;
            writeln!(f)?;
        }
        Ok(())
    }
}

fn options(f: &mut fmt::Formatter<'_>, vdev: &KnownVdev, wanted: impl Fn(&str) -> bool) -> fmt::Result {
    for option in vdev.options.iter().filter(|option| wanted(option.name)) {
        let space = if option.argument.is_empty() { "" } else { " " };
        write!(f, " `{}{space}{}`", option.name, Cell(option.argument))?;
    }
    f.write_str(" |")
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn the_reference_in_the_documentation_is_the_one_in_the_tables() {
        let document = include_str!("../../../docs/qvmconf.md");
        let table = Reference.to_string();
        let shown = document
            .split_once("<!-- options: generated -->\n")
            .and_then(|(_, rest)| rest.split_once("<!-- end -->"))
            .map(|(table, _)| table);
        assert_eq!(
            shown.map(str::trim),
            Some(table.trim()),
            "docs/qvmconf.md is out of date: put between its marks what stands on the right"
        );
    }

    #[test]
    fn an_option_that_is_not_here_stands_in_the_last_column() {
        let table =
            VdevReference(|vdev: &str, option: Option<&str>| vdev == "pl011" && option != Some("batch")).to_string();
        let row = table.lines().find(|line| line.contains("`pl011`")).unwrap();
        assert_eq!(
            row,
            "| `pl011` | supported | ARM PrimeCell UART. | `hostdev [<\\|>]PATH` `delayed SECONDS\\|forever` | `batch MICROSECONDS` |"
        );
        assert!(table.contains("| `shmem` | known, not supported yet |"));
        assert!(table.contains("| `hpet` | not here: it is a part of x86 machines |"));
    }
}
