//! `cargo xtask docs`: the documents that are made of the code.
//!
//! Answers for: `hypervisor/docs/vdevs.md`, a manual page for each vdev of the catalogue, and what `hypervisor/docs/vdev-guide.md`
//! shows of the code. Does not answer for: the words of those pages (the factories', and `vdev`'s, which has the same page for
//! the shell's `use`), nor for the tables in `hypervisor/docs/qvmconf.md`, which tests hold to the code.
//!
//! In the guide, what stands between `<!-- code: FILE: START -->` and `<!-- end -->` is the paragraph of FILE, without an empty
//! line in it, that has a line which begins with START, but for the beginning or end of a block around it; between `<!-- page -->` and `<!-- end -->`, the manual page of the
//! guide's vdev.

use std::fs;

use anyhow::{Context, Result, bail};
use clap::Args;
use vdev::{Factory, FactoryFlags};
use vdevs::CATALOGUE;

use crate::workspace::root;

/// Options of `cargo xtask docs`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Write nothing: fail if a document is out of date
    #[arg(long)]
    check: bool,
}

/// A document, from the root of the tree, and what it holds.
struct Document {
    path: &'static str,
    content: String,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let mut stale = 0;
    for Document { path, content } in documents()? {
        let file = root().join(path);
        if fs::read_to_string(&file).is_ok_and(|current| current == content) {
            continue;
        }
        if arguments.check {
            stale = 1;
            eprintln!("docs: {path} is out of date: `cargo xtask docs` writes it");
        } else {
            fs::write(&file, content).with_context(|| format!("cannot write {path}"))?;
            println!("docs: wrote {path}");
        }
    }
    Ok(stale)
}

fn documents() -> Result<Vec<Document>> {
    let guide = fs::read_to_string(root().join(GUIDE)).with_context(|| format!("cannot read {GUIDE}"))?;
    Ok(vec![
        Document { path: "hypervisor/docs/vdevs.md", content: vdevs()? },
        Document { path: GUIDE, content: with_code(&guide, |path| Ok(fs::read_to_string(root().join(path))?))? },
    ])
}

const GUIDE: &str = "hypervisor/docs/vdev-guide.md";
const END: &str = "<!-- end -->";

/// The guide with what its marks name between them.
fn with_code(guide: &str, read: impl Fn(&str) -> Result<String>) -> Result<String> {
    let mut text = String::new();
    let mut lines = guide.lines();
    while let Some(line) = lines.next() {
        text.push_str(line);
        text.push('\n');
        let mark = line.strip_prefix("<!-- ").and_then(|line| line.strip_suffix(" -->"));
        let block = match mark.map(|mark| mark.splitn(3, ": ").collect::<Vec<_>>()).as_deref() {
            Some(["code", path, start]) => {
                let found = paragraph(&read(path)?, start);
                format!("```rust\n{}```\n", found.with_context(|| format!("{path} has no line `{start}`"))?)
            }
            Some(["page"]) => {
                let mut page = String::new();
                example::FACTORY.write_manual(&mut page)?;
                format!("```text\n{page}```\n")
            }
            _ => continue,
        };
        if !lines.any(|line| line == END) {
            bail!("no `{END}` behind `{line}`");
        }
        text.push_str(&block);
        text.push_str(END);
        text.push('\n');
    }
    Ok(text)
}

/// The lines without an empty one among them that have one which begins with `start`, as far to the left as that goes. What is
/// further to the left, the beginning or the end of the block around them, is left out.
fn paragraph(source: &str, start: &str) -> Option<String> {
    let indent = |line: &str| line.len() - line.trim_start().len();
    source.split("\n\n").find_map(|paragraph| {
        let left = paragraph.lines().find(|line| line.trim_start().starts_with(start)).map(indent)?;
        let lines = paragraph.lines().filter(|line| !line.is_empty() && indent(line) >= left);
        Some(lines.flat_map(|line| [line.get(left..).unwrap_or_default(), "\n"]).collect())
    })
}

/// What stands above the pages.
const INTRODUCTION: &str = "\
# The vdevs

<!-- Written by `cargo xtask docs`; change the factories instead. -->

What every image has. The shell's `use NAME` shows the same pages, and those of the board's own vdevs besides. How a
configuration is written is in [qvmconf.md](qvmconf.md); how to write a vdev, in [vdev-guide.md](vdev-guide.md).

| Vdev | | `loc` | `intr` | Its options |
|---|---|---|---|---|
";

fn vdevs() -> Result<String> {
    let mut text = INTRODUCTION.to_string();
    for factory in CATALOGUE {
        text.push_str(&row(factory));
    }
    for factory in CATALOGUE {
        text.push('\n');
        factory.write_manual(&mut text)?;
    }
    Ok(text)
}

/// A line of the table.
fn row(factory: &Factory) -> String {
    let has = |flag| factory.flags.contains(flag);
    let location = match factory.default_location {
        _ if has(FactoryFlags::LOC_FORBIDDEN) => "none".to_string(),
        Some(at) => format!("{at}"),
        None if has(FactoryFlags::LOC_PCI) => "on the PCI bus".to_string(),
        None if has(FactoryFlags::ASSIGN) || has(FactoryFlags::PCI_HOST) => "found".to_string(),
        None if has(FactoryFlags::IMPLICIT) => "may be given".to_string(),
        None => "required".to_string(),
    };
    let interrupt = match () {
        () if has(FactoryFlags::INTR_FORBIDDEN) => "none",
        () if has(FactoryFlags::PCI_HOST) => "found",
        () if has(FactoryFlags::ASSIGN) && factory.default_location.is_none() => "found",
        () if has(FactoryFlags::INTR_REQUIRED) => "required",
        () => "may be given",
    };
    let options: Vec<String> = factory.options.iter().map(|option| format!("`{}`", option.name)).collect();
    let (name, help) = (factory.name, factory.help);
    format!("| [`{name}`](#{name}) | {help} | {location} | {interrupt} | {} |\n", options.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_documents_are_up_to_date() {
        for Document { path, content } in documents().unwrap() {
            let current = fs::read_to_string(root().join(path)).unwrap();
            assert_eq!(current, content, "{path} is out of date: `cargo xtask docs` writes it");
        }
    }

    #[test]
    fn code_is_shown_as_it_stands_in_its_file() {
        let source = "use x;\n\nimpl A {\n    /// Does.\n    fn b() {\n        c();\n    }\n\n    fn d() {}\n}\n";
        let read = |_: &str| Ok(source.to_string());
        let guide = "a\n<!-- code: x.rs: fn b -->\nold\n<!-- end -->\n<!-- code: x.rs: fn d -->\n<!-- end -->\nz\n";
        let shown = "a\n<!-- code: x.rs: fn b -->\n```rust\n/// Does.\nfn b() {\n    c();\n}\n```\n<!-- end -->\n\
            <!-- code: x.rs: fn d -->\n```rust\nfn d() {}\n```\n<!-- end -->\nz\n";
        assert_eq!(with_code(guide, read).unwrap(), shown);
        assert_eq!(with_code(shown, read).unwrap(), shown);
        assert!(with_code("<!-- code: x.rs: fn e -->\n<!-- end -->\n", read).is_err());
        assert!(with_code("<!-- code: x.rs: fn b -->\n", read).is_err());
    }

    #[test]
    fn pages_fit_a_console_of_80_columns() {
        for factory in CATALOGUE.iter().chain(&[&example::FACTORY, &example::hush::FACTORY]) {
            let mut page = String::new();
            factory.write_manual(&mut page).unwrap();
            for line in page.lines() {
                assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
            }
        }
    }
}
