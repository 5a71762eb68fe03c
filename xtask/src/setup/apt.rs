//! What Debian's package client is asked.
//!
//! Answers for: the machine's own package sources, read from the client itself so that this project names no mirror, and
//! for the options that are common to all calls. Follows apt-get(8) ("indextargets"), apt.conf(5) and sources.list(5).

use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::workspace::{output, run, target};

/// One component of one suite on one mirror.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Source {
    /// Base of the mirror.
    pub(crate) mirror: String,
    /// For example `bookworm`.
    pub(crate) suite: String,
    /// For example `main`.
    pub(crate) component: String,
    /// The keyring that the machine's list asks for; without one the machine's trusted keys count.
    pub(crate) signed_by: Option<String>,
}

impl Source {
    /// The source as a line of sources.list(5).
    pub(crate) fn line(&self) -> String {
        let options = self.signed_by.as_ref().map_or(String::new(), |keyring| format!("[signed-by={keyring}] "));
        format!("deb {options}{} {} {}\n", self.mirror, self.suite, self.component)
    }
}

/// The machine's sources of binary packages.
pub(crate) fn sources() -> Result<Vec<Source>> {
    let known = listed(&[])?;
    if !known.is_empty() {
        return Ok(known);
    }
    // A machine that has never read its lists names no sources. Reading them aside needs no root.
    let lists = target().join("setup/machine-lists");
    std::fs::create_dir_all(lists.join("partial"))?;
    let aside = options(&[
        ("Dir::State::lists", &lists.display().to_string()),
        ("Dir::Cache::pkgcache", ""),
        ("Dir::Cache::srcpkgcache", ""),
        ("APT::Sandbox::User", ""),
    ]);
    eprintln!("setup: reading this machine's package lists ...");
    run(Command::new("apt-get").args(patient()).args(&aside).args(["-q", "update"]).stdout(std::io::stderr()))?;
    let sources = listed(&aside)?;
    if sources.is_empty() {
        bail!("this machine has no package sources");
    }
    Ok(sources)
}

fn listed(options: &[String]) -> Result<Vec<Source>> {
    let format = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(SIGNED_BY)";
    let mut command = Command::new("apt-get");
    command.args(options).args(["indextargets", "--format", format, "Identifier: Packages"]);
    Ok(parse(&output(&mut command).context("cannot read this machine's package sources")?))
}

fn parse(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let mut fields = line.split('|');
        let (Some(mirror), Some(suite), Some(component), signed_by) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        // A client that does not know a field prints its name. A key that is written out in the list instead of naming
        // a keyring is left out: the check is then against the machine's trusted keys, and fails if they do not do.
        let signed_by = signed_by.filter(|keyring| keyring.starts_with('/')).map(str::to_string);
        let source = Source { mirror: mirror.into(), suite: suite.into(), component: component.into(), signed_by };
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    sources
}

/// `-o NAME=VALUE` for each.
pub(crate) fn options(pairs: &[(&str, &str)]) -> Vec<String> {
    pairs.iter().flat_map(|(name, value)| ["-o".to_string(), format!("{name}={value}")]).collect()
}

/// Options for a client that tries again when the network fails.
pub(crate) fn patient() -> Vec<String> {
    options(&[("Acquire::Retries", "5"), ("Acquire::http::Timeout", "30"), ("Acquire::https::Timeout", "30")])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_read_with_and_without_a_keyring() {
        let text = "http://mirror.example/debian/|bookworm|main|$(SIGNED_BY)\n\
                    http://mirror.example/debian/|bookworm|main|$(SIGNED_BY)\n\
                    http://mirror.example/security|trixie-security|main|/usr/share/keyrings/archive.gpg\n";
        let sources = parse(text);
        assert_eq!(sources.len(), 2);
        assert_eq!(sources[0].line(), "deb http://mirror.example/debian/ bookworm main\n");
        assert_eq!(
            sources[1].line(),
            "deb [signed-by=/usr/share/keyrings/archive.gpg] http://mirror.example/security trixie-security main\n"
        );
    }
}
