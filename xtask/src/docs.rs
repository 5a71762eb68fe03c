//! `cargo xtask docs`: the documents that are made of the code.
//!
//! Answers for: `hypervisor/docs/vdevs.md`, a manual page for each vdev of the catalogue. Does not answer for: the words of
//! those pages (the factories', and `vdev`'s, which has the same page for the shell's `use`), nor for the tables in
//! `hypervisor/docs/qvmconf.md`, which tests hold to the code.

use std::fs;

use anyhow::{Context, Result};
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
    Ok(vec![Document { path: "hypervisor/docs/vdevs.md", content: vdevs()? }])
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
        None if has(FactoryFlags::ASSIGN) => "found".to_string(),
        None if has(FactoryFlags::IMPLICIT) => "may be given".to_string(),
        None => "required".to_string(),
    };
    let interrupt = match () {
        () if has(FactoryFlags::INTR_FORBIDDEN) => "none",
        () if has(FactoryFlags::ASSIGN) => "found",
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
    fn pages_fit_a_console_of_80_columns() {
        for factory in CATALOGUE {
            let mut page = String::new();
            factory.write_manual(&mut page).unwrap();
            for line in page.lines() {
                assert!(line.chars().count() <= 80, "{} columns: {line}", line.chars().count());
            }
        }
    }
}
