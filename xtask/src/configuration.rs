//! What the tool has to know of a `.qvmconf` file: whether it is right, the VM's name, and the files that it names.
//!
//! Answers for: reading configurations on the user's machine with the very code that reads them at EL2, and for
//! diagnostics that name the user's files. Does not answer for: the language (`qvmconf`), its meaning (`vm`), what lies
//! where in the boot archive (`archive`); what a VM is put together with to see whether it can be is in the modules below.

mod devices;
mod machine;
mod silence;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use devices::HostDevices;
use machine::{HostFiles, Nowhere};
use qvmconf::words::Keyword;
use qvmconf::{Argument, Diagnostic, Diagnostics, Document, Loader, SettingName, Sources, Span, Statement, Value};
use types::Frequency;
use vdevs::CATALOGUE;
use vm::assemble::check_reach;
use vm::config::Limits;
use vm::controller::Version;

use crate::archive::Wanted;
use crate::{failure, lexical};

/// The option of a vdev that may name a file.
const HOST_DEVICE: &str = "hostdev";
/// Any will do.
const COUNTER: Frequency = Frequency::new(62_500_000).unwrap();

/// A VM to run.
#[derive(Debug)]
pub(crate) struct Configuration {
    /// The file: absolute, without `.` and `..`.
    pub(crate) path: PathBuf,
    /// The VM's name, as the hypervisor will report it.
    pub(crate) name: String,
    /// Options added to those of the file.
    pub(crate) options: String,
    /// The file itself and all that it names.
    pub(crate) wanted: Vec<Wanted>,
    /// Where a file is named that has to be there when the VM starts.
    named: Vec<(PathBuf, Span)>,
    sources: Sources,
    /// What is wrong with it; without an error among them there is a `meaning`.
    diagnostics: Diagnostics,
    meaning: Option<vm::config::Configuration>,
}

impl Configuration {
    /// Reads a configuration; `options` are added to it. What is wrong with it is for [`Configuration::check`] to tell:
    /// the hypervisor runs the other VMs all the same. A file that cannot be read is an error with the exit status 65.
    pub(crate) fn read(path: &Path, options: &str, cpus: Option<u32>) -> Result<Configuration> {
        let path = lexical::absolute(path).with_context(|| format!("{} leads nowhere", path.display()))?;
        let content = fs::read(&path).map_err(|error| failure::data(format!("{}: {error}", path.display())))?;
        let mut sources = Sources::new();
        let mut roots = vec![sources.add_file(&archive_name(&path)?, &content)];
        if !options.is_empty() {
            roots.push(sources.add_text("command line", "", options));
        }
        let vocabulary = vm::config::vocabulary(CATALOGUE);
        let document = qvmconf::parse(&mut sources, &roots, &mut Includes, &vocabulary);
        let limits = Limits { cpus: cpus.map(|cpus| cpus as usize), groups: None };
        let (meaning, diagnostics) = match vm::config::build(&document, &sources, CATALOGUE, limits) {
            Ok((meaning, warnings)) => (Some(meaning), warnings),
            Err(diagnostics) => (None, diagnostics),
        };
        let name = vm::config::name_of(&document);
        let mut configuration = Configuration {
            path,
            name,
            options: options.to_string(),
            wanted: Vec::new(),
            named: Vec::new(),
            sources,
            diagnostics,
            meaning,
        };
        configuration.collect(&document, roots.len());
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

    /// Makes sure that the hypervisor would start this VM; what is wrong is an error with the exit status 65.
    pub(crate) fn check(&self) -> Result<()> {
        self.report(&self.diagnostics)?;
        self.check_files(&[])?;
        let Some(meaning) = &self.meaning else { return Ok(()) };
        let files = HostFiles::read(&self.wanted)?;
        let version = meaning.description.controller.version.unwrap_or(Version::V3);
        let mut devices = HostDevices::new(&self.name, &meaning.description.passed);
        let assembled = vm::assemble(&meaning.description, &files, &machine::host(version), &mut devices);
        let assembled = assembled.and_then(|assembled| {
            let flaws = check_reach(&meaning.description, version, devices.balloon_device());
            if flaws.is_empty() { Ok(assembled) } else { Err(flaws) }
        });
        // What is packed is seen to be whole only when it is unpacked.
        let loaded = assembled.and_then(|vm::Assembled { load, tree, .. }| {
            load.execute(&files, &tree, &Nowhere, &mut |_| {}).map_err(|error| vec![error.into()])
        });
        let mut diagnostics = Diagnostics::new();
        for mut diagnostic in loaded.err().iter().flatten().map(|error| meaning.spans.diagnostic(error)) {
            diagnostic.message = self.with_shown_names(diagnostic.message)?;
            diagnostics.push(diagnostic);
        }
        self.report(&diagnostics)
    }

    /// A message in which files are called as the user would, not as an archive would.
    fn with_shown_names(&self, message: String) -> Result<String> {
        let mut names = self.wanted.iter().map(|wanted| archive_name(&wanted.path)).collect::<Result<Vec<_>>>()?;
        // No name in front of a longer one that begins with it.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let found = names.iter().find(|name| message.contains(name.as_str()));
        let Some(found) = found else { return Ok(message) };
        let parts: Result<Vec<_>> =
            message.split(found.as_str()).map(|part| self.with_shown_names(part.into())).collect();
        Ok(parts?.join(&shown_name(found)))
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
    fn collect(&mut self, document: &Document, roots: usize) {
        self.wanted.push(Wanted { path: self.path.clone(), absolute: false });
        let included = self.sources.iter().skip(roots).map(|source| host_path(source.name()));
        self.wanted.extend(included.map(|path| Wanted { path, absolute: false }));
        for statement in &document.statements {
            if let (Keyword::Load, Value::File { path, .. }) = (statement.keyword, statement.value())
                && let Some(file) = self.resolve(path, statement.value_span())
            {
                self.named.push((file.path.clone(), statement.value_span()));
                self.wanted.push(file);
            }
            for argument in named_by(vdev::OptionKind::File, statement) {
                if let Some(file) = self.resolve(&argument.text, argument.span) {
                    self.named.push((file.path.clone(), argument.span));
                    self.wanted.push(file);
                }
            }
            for argument in named_by(vdev::OptionKind::Directory, statement) {
                // One that cannot be read is found out of by `check`.
                if let Some(Wanted { path, absolute }) = self.resolve(&argument.text, argument.span) {
                    let files = files_below(&path).unwrap_or_default();
                    self.wanted.extend(files.into_iter().map(|file| Wanted { path: path.join(file), absolute }));
                }
            }
            for setting in &statement.settings {
                if let (SettingName::Vdev(HOST_DEVICE), Some(argument)) = (&setting.name, &setting.argument) {
                    let name = argument.text.trim_start_matches(['<', '>']);
                    // A name may also be that of a console or a disk: only a file that is there is packed.
                    let file = self.resolve(name, argument.span);
                    self.wanted.extend(file.filter(|file| file.path.is_file() && !file.path.starts_with("/dev")));
                }
            }
        }
    }

    /// The file that `path` names in the text where `span` is.
    fn resolve(&self, path: &str, span: Span) -> Option<Wanted> {
        let folder = self.sources.get(span.source).map_or("", |source| source.folder());
        let name = qvmconf::resolve(folder, path).ok()?;
        Some(Wanted { path: host_path(&name), absolute: path.starts_with('/') })
    }
}

/// What the options of a vdev name that are of this kind.
fn named_by(wanted: vdev::OptionKind, statement: &Statement) -> impl Iterator<Item = &Argument> {
    let kind = statement.arguments.first().map(|argument| argument.text.as_str());
    let factory = CATALOGUE.iter().find(|factory| Some(factory.name) == kind);
    let is_wanted = move |name: &str| {
        let mut options = factory.iter().flat_map(|factory| factory.options);
        options.any(|option| option.name == name && option.kind == wanted)
    };
    statement.settings.iter().filter_map(move |setting| match setting.name {
        SettingName::Vdev(name) if is_wanted(name) => setting.argument.as_ref(),
        _ => None,
    })
}

/// All files below a folder, by their paths from there. Links to folders are not followed: they may lead in circles, and out of it.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![PathBuf::new()]);
    while let Some(below) = folders.pop() {
        for entry in fs::read_dir(folder.join(&below))? {
            let entry = entry?;
            let path = below.join(entry.file_name());
            if entry.file_type()?.is_dir() {
                folders.push(path);
            } else if entry.path().is_file() {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
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

/// Included files come from this machine.
struct Includes;

impl Loader for Includes {
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
        let configuration = Configuration::read(&at("vms/a.qvmconf"), "", None).unwrap();
        assert_eq!(configuration.name, "first");
        assert_eq!(wanted(&configuration), [at("vms/a.qvmconf"), at("images/a.elf"), at("vms/i.cpio")]);
        configuration.check_files(&[]).unwrap();
    }

    #[test]
    fn a_configuration_that_makes_sense_passes() {
        let text = "system a\nram 0x80000000,16M\ncpu\nload 0x80000000,a\nvdev pl011 loc 0x1c090000 intr gic:37\n";
        let folder = folder(&[("a.qvmconf", text), ("a", "1234")]);
        Configuration::read(&folder.path().join("a.qvmconf"), "", Some(2)).unwrap().check().unwrap();
    }

    #[test]
    fn functions_of_a_machine_that_is_not_known_are_taken_as_they_are_written() {
        let check = |text: &str| {
            let text = format!("system a\nram 0x80000000,16M\nload 0x80000000,a\n{text}\n");
            let folder = folder(&[("a.qvmconf", &text), ("a", "1234")]);
            let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "", Some(2)).unwrap();
            configuration.check().map_err(|error| error.to_string())
        };
        check("pass loc pci:1:0.0\npass loc pci:0:5.0=0x1234/0x11e8 without-reset").unwrap();
        check("vdev gic its 0x08080000 num-lpis 256\npass loc pci:0:2.0 uncontained\nvdev smmu").unwrap();
        check("pass loc pci:1:0.0\nvdev virtio-balloon").unwrap();
        let error = check("pass loc pci:0:0.0=1:0.0").unwrap_err();
        assert!(error.contains("a.qvmconf:4:10: error: ") && error.contains("is its host bridge"), "{error}");
        for (text, said) in [
            (
                "pass loc pci:1:0.0\nvdev virtio-balloon lend",
                "`pass`: pci:1:0.0 reaches memory by itself, and does not",
            ),
            ("pass loc pci:1:0.0 uncontained\nvdev virtio-balloon", "`pass`: pci:1:0.0 is `uncontained`, and pages"),
        ] {
            let error = check(text).unwrap_err();
            assert!(error.contains("a.qvmconf:4:10: error: ") && error.contains(said), "{error}");
            assert!(error.contains("a.qvmconf:5:1: note: the other one"), "{error}");
        }
    }

    #[test]
    fn disks_and_networks_are_checked_like_on_a_machine() {
        let check = |devices: &str| {
            let text = format!("system a\nram 0x80000000,16M\nload 0x80000000,a\n{devices}\n");
            let folder = folder(&[("a.qvmconf", &text), ("a", "1234"), ("disk", &" ".repeat(512)), ("share/f", "")]);
            fs::create_dir(folder.path().join("empty")).unwrap();
            let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "", Some(2)).unwrap();
            configuration.check().map_err(|error| error.to_string())
        };
        check("vdev virtio-blk hostdev disk\nvdev virtio-blk hostdev </dev/ram,1M\nvdev virtio-net peer /dev/vswitch0\nvdev virtio-balloon")
            .unwrap();
        check("vdev virtio-9p tag x hostdev share\nvdev virtio-9p tag y hostdev share").unwrap();
        check("vdev virtio-blk hostdev /dev/hd0t178\nvdev virtio-blk hostdev /dev/hd0t178.1").unwrap();
        check("vdev virtio-blk hostdev </dev/hd0\nvdev virtio-blk hostdev </dev/hd0p1").unwrap();
        for (device, message) in [
            ("vdev virtio-blk hostdev nothing", "there is no file `"),
            ("vdev virtio-blk hostdev a", "too small for a disk: 4 bytes"),
            ("vdev virtio-blk hostdev /dev/sda1", "there can be no disk `/dev/sda1`"),
            (
                "vdev virtio-blk hostdev /dev/hd0 name a\nvdev virtio-blk hostdev </dev/hd0p1 name b",
                "`a` of VM `a` writes to",
            ),
            ("vdev virtio-blk hostdev /dev/hd0t7\nvdev virtio-blk hostdev /dev/hd0t7", "writes to it"),
            ("vdev virtio-net peer /dev/nonsense", "is no /dev/vswitchNAME"),
            ("vdev virtio-9p tag x hostdev nothing", "/nothing: No such file or directory"),
            ("vdev virtio-9p tag x hostdev a", "/a: Not a directory"),
            ("vdev virtio-9p tag x hostdev empty", "/empty: there is no file in it"),
            ("vdev virtio-9p tag x hostdev /", "names nothing in the archive"),
            ("vdev virtio-9p tag x hostdev share\nvdev virtio-9p tag x hostdev share", "have the same `tag`, `x`"),
            ("vdev virtio-balloon\nvdev virtio-balloon lend", "the VM has a balloon already"),
        ] {
            let error = check(device).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }

    #[test]
    fn a_directory_is_packed_with_all_below() {
        let text = "system a\nram 16M\nvdev virtio-9p tag x hostdev ../share/\n";
        let folder = folder(&[("vms/a.qvmconf", text), ("share/b", ""), ("share/a/z/deep", ""), ("shared", "")]);
        std::os::unix::fs::symlink(folder.path(), folder.path().join("share/a/circle")).unwrap();
        std::os::unix::fs::symlink(folder.path().join("shared"), folder.path().join("share/link")).unwrap();
        let configuration = Configuration::read(&folder.path().join("vms/a.qvmconf"), "", None).unwrap();
        let names = ["vms/a.qvmconf", "share/a/z/deep", "share/b", "share/link"].map(|name| folder.path().join(name));
        assert_eq!(wanted(&configuration), names);
    }

    #[test]
    fn without_system_the_vm_is_named_after_the_file() {
        let folder = folder(&[("linux.qvmconf", "ram 16M\n")]);
        assert_eq!(Configuration::read(&folder.path().join("linux.qvmconf"), "", None).unwrap().name, "linux");
    }

    #[test]
    fn options_are_read_after_the_file() {
        let folder = folder(&[("a.qvmconf", "system a\nram 16M\n")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "system b", None).unwrap();
        assert_eq!(configuration.name, "b");
    }

    #[test]
    fn paths_in_an_included_file_start_at_its_own_folder() {
        let folder = folder(&[("a.qvmconf", "ram 16M\n@sub/b.qvmconf\n"), ("sub/b.qvmconf", "load c.elf\n")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "", None).unwrap();
        let names = ["a.qvmconf", "sub/b.qvmconf", "sub/c.elf"].map(|name| folder.path().join(name));
        assert_eq!(wanted(&configuration), names);
    }

    #[test]
    fn a_missing_file_is_shown_where_it_is_named() {
        let folder = folder(&[("a.qvmconf", "system a\nram 16M\nload there/is/none.elf\n")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "", None).unwrap();
        let error = configuration.check_files(&[]).unwrap_err();
        assert_eq!(failure::status(&error), 65);
        let text = error.to_string();
        for part in ["a.qvmconf:3:6: error: there is no file", "load there/is/none.elf", "^"] {
            assert!(text.contains(part), "{text}");
        }
        configuration.check_files(&[folder.path().join("there/is/none.elf")]).unwrap();
    }

    #[test]
    fn two_images_at_one_place_are_found_without_booting() {
        let text = "system a\nram 0x80000000,16M\nload 0x80000000,a\nload 0x80000001,b\n";
        let folder = folder(&[("a.qvmconf", text), ("a", "12345678"), ("b", "12345678")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "", None).unwrap();
        let text = configuration.check().unwrap_err().to_string();
        assert!(text.contains("a.qvmconf:4:") && text.contains("a.qvmconf:3:"), "{text}");
    }

    #[test]
    fn a_file_that_turns_out_to_be_damaged_is_found_without_booting() {
        // `gzip` of nothing, with another checksum.
        let packed = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x02\0\xfd\xffhi\x01\x02\x03\x04\x02\0\0\0";
        let folder = folder(&[("a.qvmconf", "system a\nram 0x80000000,16M\nguest load 0x80000000,a.gz\n")]);
        fs::write(folder.path().join("a.gz"), packed).unwrap();
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "", None).unwrap();
        let text = configuration.check().unwrap_err().to_string();
        let file = folder.path().join("a.gz");
        assert!(text.contains(&format!("a.qvmconf:3:12: error: {}: the gzip checksum", file.display())), "{text}");
    }

    #[test]
    fn what_depends_on_the_machine_is_left_to_the_machine() {
        let text = "system a\nram 0x80000000,64G\nload 0x80000000,a\ncpu runmask 7\n";
        let folder = folder(&[("a.qvmconf", text), ("a", "1234")]);
        Configuration::read(&folder.path().join("a.qvmconf"), "", None).unwrap().check().unwrap();
    }

    #[test]
    fn a_mistake_is_an_error_of_the_data() {
        let folder = folder(&[("a.qvmconf", "sytem b\n")]);
        let configuration = Configuration::read(&folder.path().join("a.qvmconf"), "", None).unwrap();
        let error = configuration.check().unwrap_err();
        assert_eq!(failure::status(&error), 65);
        assert!(error.to_string().contains("a.qvmconf:1:1: error: "), "{error}");
        assert_eq!(configuration.name, "a");
        assert_eq!(failure::status(&Configuration::read(&folder.path().join("none"), "", None).unwrap_err()), 65);
    }
}
