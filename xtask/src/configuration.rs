//! What the tool has to know of a `.qvmconf` file: whether it is right, the VM's name, and the files that it names.
//!
//! Answers for: reading configurations on the user's machine with the very code that reads them at EL2, and for
//! diagnostics that name the user's files. Does not answer for: the language (`qvmconf`), what lies where in the boot
//! archive (`archive`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use qvmconf::words::Keyword;
use qvmconf::{Diagnostic, Diagnostics, Document, Loader, SettingName, Sources, Span, Value};
use qvmconf::{VdevOption, VdevWords, Vocabulary};

use crate::archive::Wanted;
use crate::{failure, lexical};

/// The option of a vdev that may name a file.
const HOST_DEVICE: &str = "hostdev";

/// A VM to run.
#[derive(Clone, Debug)]
pub(crate) struct Configuration {
    /// The file: absolute, without `.` and `..`.
    pub(crate) path: PathBuf,
    /// The VM's name.
    pub(crate) name: String,
    /// Options added to those of the file.
    pub(crate) options: String,
    /// The file itself and all that it names.
    pub(crate) wanted: Vec<Wanted>,
    /// Where a file is named that has to be there when the VM starts.
    named: Vec<(PathBuf, Span)>,
    sources: Sources,
}

impl Configuration {
    /// Reads a configuration; what is wrong with it is an error with the exit status 65. `options` are added to it.
    pub(crate) fn read(path: &Path, options: &str) -> Result<Configuration> {
        let path = lexical::absolute(path).with_context(|| format!("{} leads nowhere", path.display()))?;
        let content = fs::read(&path).map_err(|error| failure::data(format!("{}: {error}", path.display())))?;
        let mut sources = Sources::new();
        let file = archive_name(&path)?;
        let mut roots = vec![sources.add_file(&file, &content)];
        if !options.is_empty() {
            roots.push(sources.add_text("options", qvmconf::folder_of(&file), options));
        }
        let document = qvmconf::parse(&mut sources, &roots, &mut HostFiles, &vocabulary());
        let mut configuration = Configuration {
            path,
            name: name(&document),
            options: options.to_string(),
            wanted: Vec::new(),
            named: Vec::new(),
            sources,
        };
        configuration.report(&document.diagnostics)?;
        configuration.collect(&document, roots.len())?;
        Ok(configuration)
    }

    /// Makes sure that each file that the configuration names is there, but for those in `replaced`; what is missing is an
    /// error with the exit status 65 that shows where it is named.
    pub(crate) fn check_files(&self, replaced: &[PathBuf]) -> Result<()> {
        let mut diagnostics = Diagnostics::new();
        for (path, span) in &self.named {
            if !path.is_file() && !replaced.contains(path) {
                let diagnostic = Diagnostic::error(*span, format!("there is no file `{}`", path.display()));
                diagnostics.push(diagnostic.hint("paths start at the folder of the file that they stand in"));
            }
        }
        self.report(&diagnostics)
    }

    /// Prints warnings; with errors among them, fails.
    fn report(&self, diagnostics: &Diagnostics) -> Result<()> {
        if diagnostics.is_empty() {
            return Ok(());
        }
        // Only the names differ from those in the archive: here they are those of the user's files.
        let mut shown = Sources::new();
        for source in self.sources.iter() {
            if source.is_file() {
                shown.add_file(&shown_name(source.name()), source.text().as_bytes());
            } else {
                shown.add_text(source.name(), source.folder(), source.text());
            }
        }
        let text = shown.render_all(diagnostics).to_string();
        if diagnostics.has_errors() {
            return Err(failure::data(text.trim_end()));
        }
        eprint!("{text}");
        Ok(())
    }

    /// Finds the files: the configuration, what it includes, what it loads, and back ends that are files here.
    fn collect(&mut self, document: &Document, roots: usize) -> Result<()> {
        self.wanted.push(Wanted { path: self.path.clone(), absolute: false });
        let included = self.sources.iter().skip(roots).map(|source| host_path(source.name()));
        self.wanted.extend(included.map(|path| Wanted { path, absolute: false }));
        for statement in &document.statements {
            if let (Keyword::Load, Value::File { path, .. }) = (statement.keyword, statement.value()) {
                let span = statement.value_span();
                let file = self.resolve(path, span)?;
                self.named.push((file.path.clone(), span));
                self.wanted.push(file);
            }
            for setting in &statement.settings {
                if let (SettingName::Vdev(HOST_DEVICE), Some(argument)) = (&setting.name, &setting.argument) {
                    let name = argument.text.trim_start_matches(['<', '>']);
                    // A name may also be that of a console or a disk: only a file that is there is packed.
                    if let Ok(file) = self.resolve(name, argument.span)
                        && file.path.is_file()
                        && !file.path.starts_with("/dev")
                    {
                        self.wanted.push(file);
                    }
                }
            }
        }
        Ok(())
    }

    /// The file that `path` names in the text where `span` is.
    fn resolve(&self, path: &str, span: Span) -> Result<Wanted> {
        let folder = self.sources.get(span.source).map_or("", |source| source.folder());
        let name = qvmconf::resolve(folder, path).map_err(|error| failure::data(format!("`{path}`: {error}")))?;
        Ok(Wanted { path: host_path(&name), absolute: path.starts_with('/') })
    }
}

/// The VM's name: what `system` says, else the file's.
fn name(document: &Document) -> String {
    let system = document.statements.iter().rev().find(|statement| statement.keyword == Keyword::System);
    match system.map(qvmconf::Statement::value) {
        Some(Value::Text(name)) => name.clone(),
        _ => document.stem.clone().unwrap_or_default(),
    }
}

/// A file of this machine as the language names files: from the root, without a slash in front.
fn archive_name(path: &Path) -> Result<String> {
    let name = path.strip_prefix("/").ok().and_then(Path::to_str);
    name.map(str::to_string).with_context(|| format!("{} is not text", path.display()))
}

fn host_path(name: &str) -> PathBuf {
    Path::new("/").join(name)
}

/// The file as the user would name it: from the folder where they are, if it is below that.
fn shown_name(name: &str) -> String {
    let path = host_path(name);
    let here = std::env::current_dir().unwrap_or_default();
    path.strip_prefix(here).unwrap_or(&path).display().to_string()
}

/// The words of the vdevs that the image has.
fn vocabulary() -> Vocabulary {
    let option = |option: &vdev::OptionSpec| VdevOption {
        name: option.name,
        takes_argument: option.takes_argument(),
        repeatable: option.repeatable,
    };
    let words = |factory: &&'static vdev::Factory| VdevWords {
        name: factory.name,
        options: factory.options.iter().map(option).collect(),
    };
    Vocabulary { vdevs: vdevs::CATALOGUE.iter().map(words).collect() }
}

/// Included files come from this machine.
struct HostFiles;

impl Loader for HostFiles {
    fn load(&mut self, path: &str) -> Option<Vec<u8>> {
        fs::read(host_path(path)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with these files.
    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        folder
    }

    fn wanted(configuration: &Configuration) -> Vec<&Path> {
        configuration.wanted.iter().map(|wanted| wanted.path.as_path()).collect()
    }

    #[test]
    fn a_configuration_names_its_vm_and_its_files() {
        let text = "system first\nram 16M\nload ../images/a.elf\ninitrd load i.cpio\n";
        let folder = folder(&[("vms/a.qvmconf", text), ("vms/i.cpio", ""), ("images/a.elf", "")]);
        let at = |name: &str| folder.path().join(name);
        let configuration = Configuration::read(&at("vms/a.qvmconf"), "").unwrap();
        assert_eq!(configuration.name, "first");
        assert_eq!(wanted(&configuration), [at("vms/a.qvmconf"), at("images/a.elf"), at("vms/i.cpio")]);
        configuration.check_files(&[]).unwrap();
    }

    #[test]
    fn without_system_the_vm_is_named_after_the_file() {
        let folder = folder(&[("linux.qvmconf", "ram 16M\n")]);
        assert_eq!(Configuration::read(&folder.path().join("linux.qvmconf"), "").unwrap().name, "linux");
    }

    #[test]
    fn options_are_read_after_the_file() {
        let folder = folder(&[("a.qvmconf", "system a\nram 16M\n")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "system b load x").unwrap();
        assert_eq!(configuration.name, "b");
        assert_eq!(wanted(&configuration)[1], folder.path().join("x"));
    }

    #[test]
    fn paths_in_an_included_file_start_at_its_own_folder() {
        let folder = folder(&[("a.qvmconf", "ram 16M\n@sub/b.qvmconf\n"), ("sub/b.qvmconf", "load c.elf\n")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "").unwrap();
        let names = ["a.qvmconf", "sub/b.qvmconf", "sub/c.elf"].map(|name| folder.path().join(name));
        assert_eq!(wanted(&configuration), names);
    }

    #[test]
    fn a_missing_file_is_shown_where_it_is_named() {
        let folder = folder(&[("a.qvmconf", "system a\nram 16M\nload there/is/none.elf\n")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "").unwrap();
        let error = configuration.check_files(&[]).unwrap_err();
        assert_eq!(failure::status(&error), 65);
        let text = error.to_string();
        for part in ["a.qvmconf:3:6: error: there is no file", "load there/is/none.elf", "^"] {
            assert!(text.contains(part), "{text}");
        }
        configuration.check_files(&[folder.path().join("there/is/none.elf")]).unwrap();
    }

    #[test]
    fn a_mistake_is_an_error_of_the_data() {
        let folder = folder(&[("a.qvmconf", "sytem a\n")]);
        let error = Configuration::read(&folder.path().join("a.qvmconf"), "").unwrap_err();
        assert_eq!(failure::status(&error), 65);
        assert!(error.to_string().contains("a.qvmconf:1:1: error: "), "{error}");
        assert_eq!(failure::status(&Configuration::read(&folder.path().join("none"), "").unwrap_err()), 65);
    }
}
