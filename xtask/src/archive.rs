//! Writes the boot archive: configurations, what they name, and the start-up commands, as a plain `tar`.
//!
//! Answers for: where a file of the user's machine lies in the archive. The archive mirrors the machine below the deepest
//! folder that all files share, so that relative names in a configuration lead to the same file in both; a file that is
//! named by an absolute path lies at that path. Follows POSIX `pax`, "ustar Interchange Format". The archive is the same
//! for the same files, byte for byte.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

use crate::workspace::target;
use crate::{failure, lexical};

/// The archive's start-up commands.
const STARTUP: &str = "startup";

/// A file that has to be in the archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where it is on the user's machine: absolute, without `.` and `..`.
    pub(crate) path: PathBuf,
    /// Whether the configuration names it by an absolute path.
    pub(crate) absolute: bool,
}

/// Which file lies where in the archive.
#[derive(Debug)]
pub(crate) struct Layout {
    folder: PathBuf,
    members: BTreeMap<String, PathBuf>,
}

impl Layout {
    /// A place for each file.
    pub(crate) fn new(files: &[Wanted]) -> Result<Layout> {
        let relative = files.iter().filter(|file| !file.absolute).map(|file| file.path.as_path());
        let folder = lexical::common_folder(relative).unwrap_or_else(|| PathBuf::from("/"));
        let mut layout = Layout { folder, members: BTreeMap::new() };
        for file in files {
            let name = if file.absolute { member(&file.path, Path::new("/"))? } else { layout.name(&file.path)? };
            if name == STARTUP {
                bail!("{}: this place in the boot archive is for the start-up commands", file.path.display());
            }
            if let Some(other) = layout.members.insert(name.clone(), file.path.clone())
                && other != file.path
            {
                bail!("{} and {} would both be `{name}` in the boot archive", other.display(), file.path.display());
            }
        }
        Ok(layout)
    }

    /// The name in the archive of a file that is named by a relative path.
    pub(crate) fn name(&self, path: &Path) -> Result<String> {
        member(path, &self.folder)
    }

    /// Takes the content of each file in `replaced` from another file.
    pub(crate) fn replace(&mut self, replaced: &Path, by: &Path) {
        for path in self.members.values_mut().filter(|path| path.as_path() == replaced) {
            *path = by.to_path_buf();
        }
    }

    /// Makes sure that every file can be read, before anything is started with it.
    pub(crate) fn check(&self) -> Result<()> {
        for path in self.members.values() {
            if !fs::metadata(path).is_ok_and(|data| data.is_file()) {
                return Err(failure::data(format!("{}: no such file", path.display())));
            }
        }
        Ok(())
    }

    /// Writes the archive.
    pub(crate) fn write(&self, startup: &str, to: impl Write) -> Result<()> {
        let mut builder = tar::Builder::new(to);
        append(&mut builder, STARTUP, startup.len() as u64, startup.as_bytes())?;
        for (name, path) in &self.members {
            let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
            let size = file.metadata()?.len();
            append(&mut builder, name, size, file).with_context(|| format!("cannot pack {}", path.display()))?;
        }
        builder.into_inner()?.flush()?;
        Ok(())
    }
}

fn member(path: &Path, folder: &Path) -> Result<String> {
    let name = path.strip_prefix(folder).ok().and_then(Path::to_str);
    Ok(name
        .with_context(|| format!("{} is not below {} or is not text", path.display(), folder.display()))?
        .to_string())
}

fn append(builder: &mut tar::Builder<impl Write>, name: &str, size: u64, content: impl std::io::Read) -> Result<()> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).with_context(|| format!("`{name}` is too long a name for the boot archive"))?;
    header.set_size(size);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    builder.append(&header, content)?;
    Ok(())
}

/// An archive in a file of its own, gone when dropped.
#[derive(Debug)]
pub(crate) struct ArchiveFile {
    path: PathBuf,
}

impl ArchiveFile {
    /// Writes the archive for one run.
    pub(crate) fn create(layout: &Layout, startup: &str) -> Result<ArchiveFile> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let folder = target().join("images");
        fs::create_dir_all(&folder)?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let archive = ArchiveFile { path: folder.join(format!("boot-{}-{number}.tar", std::process::id())) };
        let file = File::create(&archive.path).with_context(|| format!("cannot create {}", archive.path.display()))?;
        layout.write(startup, BufWriter::new(file))?;
        Ok(archive)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for ArchiveFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    fn wanted(path: &Path) -> Wanted {
        Wanted { path: path.to_path_buf(), absolute: false }
    }

    /// The archive's members as (name, content).
    fn members(layout: &Layout, startup: &str) -> Vec<(String, String)> {
        let mut bytes = Vec::new();
        layout.write(startup, &mut bytes).unwrap();
        let mut archive = tar::Archive::new(bytes.as_slice());
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_string(), content)
        });
        entries.collect()
    }

    #[test]
    fn the_archive_mirrors_the_machine_below_the_common_folder() {
        let folder = tempfile::tempdir().unwrap();
        let (configuration, image) = (folder.path().join("vms/a/a.qvmconf"), folder.path().join("images/a.elf"));
        for (path, content) in [(&configuration, "load ../../images/a.elf\n"), (&image, "elf")] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let layout = Layout::new(&[wanted(&configuration), wanted(&image)]).unwrap();
        assert_eq!(layout.name(&configuration).unwrap(), "vms/a/a.qvmconf");
        let expected = [
            ("startup", "qvm @/vms/a/a.qvmconf &\n"),
            ("images/a.elf", "elf"),
            ("vms/a/a.qvmconf", "load ../../images/a.elf\n"),
        ];
        let expected = expected.map(|(name, content)| (name.to_string(), content.to_string()));
        assert_eq!(members(&layout, "qvm @/vms/a/a.qvmconf &\n"), expected);
    }

    #[test]
    fn a_file_named_by_an_absolute_path_lies_at_that_path() {
        let folder = tempfile::tempdir().unwrap();
        let (configuration, image) = (folder.path().join("a.qvmconf"), folder.path().join("a.elf"));
        fs::write(&configuration, "").unwrap();
        fs::write(&image, "").unwrap();
        let files = [wanted(&configuration), Wanted { path: image.clone(), absolute: true }];
        let names: Vec<String> = members(&Layout::new(&files).unwrap(), "").into_iter().map(|(name, _)| name).collect();
        assert!(names.contains(&"a.qvmconf".to_string()));
        assert!(names.contains(&image.to_str().unwrap()[1..].to_string()));
    }

    #[test]
    fn two_files_at_one_place_are_refused() {
        let files = [
            wanted(Path::new("/a/x.qvmconf")),
            wanted(Path::new("/a/b/y")),
            Wanted { path: "/b/y".into(), absolute: true },
        ];
        let message = Layout::new(&files).unwrap_err().to_string();
        assert!(message.contains("/a/b/y") && message.contains("/b/y"), "{message}");
        assert!(Layout::new(&[wanted(Path::new("/a/startup"))]).is_err());
    }

    #[test]
    fn a_replaced_file_keeps_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let (image, own) = (folder.path().join("Image"), folder.path().join("own"));
        fs::write(&own, "own kernel").unwrap();
        let mut layout = Layout::new(&[wanted(&image)]).unwrap();
        layout.replace(&image, &own);
        assert!(members(&layout, "").contains(&("Image".to_string(), "own kernel".to_string())));
    }
}
