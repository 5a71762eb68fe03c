//! `cargo xtask install`: onto a boot partition that there is, and off it again.
//!
//! Answers for: that nothing of the user's is lost: a file that was there before the first installation is kept under another name
//! until `--undo` puts it back, and a power cut at any moment leaves each file old or new, never half. Does not answer for:
//! what is installed (`card`).
//!
//! A record on the partition lists the files that are ours, with their checksums. It is written before the first of them and
//! removed after the last.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use clap::Args;

use super::{Board, Choice, Contents};
use crate::failure;
use crate::workspace::output;

/// The record.
const RECORD: &str = "bulkhead.installed";
/// What the name of a file ends with that was there before.
const BEFORE: &str = "before-bulkhead";
/// What the name of a file ends with that is not whole yet.
const PARTIAL: &str = "bulkhead-partial";
/// The same for a copy that is to be kept.
const KEEPING: &str = "bulkhead-keeping";
/// What the name of a file of ours ends with that somebody has changed since, once it has gone.
const CHANGED: &str = "bulkhead-changed";
/// More of a record than this is none of ours.
const LONGEST_RECORD: u64 = 1 << 20;

/// Options of `cargo xtask install`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// The VMs to run; none: the demo
    #[arg(value_name = "CONFIG.qvmconf", conflicts_with = "undo")]
    configurations: Vec<PathBuf>,
    #[command(flatten)]
    choice: Choice,
    /// Where the boot partition is mounted
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// Take off what was installed, and put back what was there before
    #[arg(long)]
    undo: bool,
    /// Even if the folder does not look like a boot partition
    #[arg(long, conflicts_with = "undo")]
    force: bool,
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let partition = Partition { folder: &arguments.to };
    if !arguments.to.is_dir() {
        return Err(failure::usage(format!("--to: there is no folder {}", arguments.to.display())));
    }
    if arguments.undo {
        partition.undo()?;
    } else {
        if !arguments.force && !partition.looks_right(arguments.choice.board) {
            return Err(failure::usage(format!(
                "{} has no {}: is it a boot partition? --force does it anyway",
                arguments.to.display(),
                landmarks(arguments.choice.board).join(" and no ")
            )));
        }
        let contents = Contents::gather(&arguments.choice, &arguments.configurations)?;
        partition.check_room(contents.size()?)?;
        partition.install(&contents.files)?;
        if let Some(advice) = arguments.choice.board.advice(|name| partition.path(name).exists()) {
            eprintln!("warning: {advice}");
        }
    }
    println!("Unmount {} before you take the card out.", arguments.to.display());
    Ok(0)
}

/// Files by one of which the boot partition of a board is known.
fn landmarks(board: Board) -> &'static [&'static str] {
    match board {
        Board::Rpi4 => &["start4.elf", "config.txt"],
        Board::Generic => &["extlinux", "boot.scr", "EFI"],
    }
}

/// A mounted boot partition.
struct Partition<'a> {
    folder: &'a Path,
}

/// The files of ours, each with its checksum.
type Record = BTreeMap<String, u32>;

impl Partition<'_> {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn looks_right(&self, board: Board) -> bool {
        landmarks(board).iter().any(|name| self.path(name).exists())
    }

    /// Makes sure that all new files fit beside the old ones.
    fn check_room(&self, size: u64) -> Result<()> {
        let free = free_room(self.folder)?;
        let needed = size + size / 16;
        if needed > free {
            return Err(failure::usage(format!(
                "{} has {} MiB free, {} MiB are needed",
                self.folder.display(),
                free >> 20,
                needed.div_ceil(1 << 20)
            )));
        }
        Ok(())
    }

    fn install(&self, files: &BTreeMap<String, PathBuf>) -> Result<()> {
        let before = self.record()?;
        let mut record = before.clone();
        // First all that needs room and time; nothing has changed if it fails.
        let copied = files.iter().try_for_each(|(name, source)| -> Result<()> {
            println!("    {:>11}  {name}", super::size(source)?);
            record.insert(name.clone(), self.copy(source, name, PARTIAL)?);
            Ok(())
        });
        if copied.is_err() {
            files.keys().for_each(|name| drop(fs::remove_file(with(&self.path(name), PARTIAL))));
        }
        copied?;
        for name in files.keys() {
            self.keep(name, before.get(name).copied())?;
        }
        self.write_record(&record)?;
        for name in files.keys() {
            let path = self.path(name);
            fs::rename(with(&path, PARTIAL), &path).with_context(|| format!("cannot write {}", path.display()))?;
        }
        self.synchronise(files.keys())?;
        println!("`--undo` puts everything back as it was.");
        Ok(())
    }

    /// Keeps a file that is not ours, or not as we wrote it, before another takes its place. `ours`: what it was installed as.
    fn keep(&self, name: &str, ours: Option<u32>) -> Result<()> {
        let path = self.path(name);
        if !path.exists() || ours.is_some_and(|ours| checksum(&path).is_ok_and(|is| is == ours)) {
            return Ok(());
        }
        let kept = with(&path, BEFORE);
        // Of an installation that was cut off: there in both places.
        if kept.exists() && checksum(&kept)? == checksum(&path)? {
            return Ok(());
        }
        let kept = if ours.is_some() || kept.exists() { with(&path, CHANGED) } else { kept };
        // A copy, so that the name always leads to something.
        self.copy(&path, name, KEEPING)?;
        fs::rename(with(&path, KEEPING), &kept)?;
        println!("kept the {name} that was there as {}", kept.display());
        Ok(())
    }

    fn undo(&self) -> Result<()> {
        let record = self.record()?;
        if record.is_empty() {
            return Err(failure::usage(format!("nothing is installed in {}", self.folder.display())));
        }
        for (name, installed_as) in &record {
            let (path, kept) = (self.path(name), with(&self.path(name), BEFORE));
            let ours = path.is_file() && checksum(&path)? == *installed_as;
            if kept.exists() {
                if path.is_file() && !ours {
                    self.keep(name, Some(*installed_as))?;
                }
                fs::rename(&kept, &path)?;
                println!("put the old {name} back");
            } else if ours {
                fs::remove_file(&path)?;
            }
            // Of an installation that was cut off.
            for ending in [PARTIAL, KEEPING] {
                let _ = fs::remove_file(with(&path, ending));
            }
        }
        self.synchronise(record.keys())?;
        fs::remove_file(self.path(RECORD))?;
        // Folders that only our files were in; those with anything else in them stay.
        for name in record.keys().rev() {
            let _ = Path::new(name)
                .parent()
                .filter(|parent| *parent != Path::new(""))
                .map(|parent| fs::remove_dir(self.folder.join(parent)));
        }
        println!("took {} files off {}", record.len(), self.folder.display());
        Ok(())
    }

    /// Copies to `name` with an `ending`, all the way to the medium, and reads it back; its checksum.
    fn copy(&self, source: &Path, name: &str, ending: &str) -> Result<u32> {
        let path = with(&self.path(name), ending);
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let copied = || -> Result<u32> {
            let mut file = File::create(&path)?;
            io::copy(&mut File::open(source)?, &mut file)?;
            file.sync_all()?;
            let (wanted, found) = (checksum(source)?, checksum(&path)?);
            if wanted != found {
                bail!("what was written reads back as something else");
            }
            Ok(found)
        };
        copied().with_context(|| format!("cannot write {}", path.display()))
    }

    /// What is installed; nothing if there is no record.
    fn record(&self) -> Result<Record> {
        let path = self.path(RECORD);
        let mut text = String::new();
        match File::open(&path) {
            Ok(file) => file.take(LONGEST_RECORD).read_to_string(&mut text)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Record::new()),
            Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
        };
        read_record(&text).with_context(|| format!("{} is damaged: nothing is touched", path.display()))
    }

    fn write_record(&self, record: &Record) -> Result<()> {
        let path = self.path(RECORD);
        let partial = with(&path, PARTIAL);
        let lines: String = record.iter().map(|(name, checksum)| format!("{checksum:08x} {name}\n")).collect();
        let mut file = File::create(&partial)?;
        file.write_all(lines.as_bytes())?;
        file.sync_all()?;
        fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))
    }

    /// Waits until the names of these files are on the medium.
    fn synchronise<'n>(&self, names: impl Iterator<Item = &'n String>) -> Result<()> {
        let mut folders: BTreeSet<PathBuf> = names.filter_map(|name| Some(self.path(name).parent()?.into())).collect();
        folders.insert(self.folder.into());
        for folder in folders.iter().filter(|folder| folder.is_dir()) {
            File::open(folder)?.sync_all().with_context(|| format!("cannot write {}", folder.display()))?;
        }
        Ok(())
    }
}

/// The lines of a record; `None` if one makes no sense, or names a file outside the partition.
fn read_record(text: &str) -> Option<Record> {
    let line = |line: &str| {
        let (checksum, name) = line.split_once(' ')?;
        let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
        Some((name.to_string(), u32::from_str_radix(checksum, 16).ok().filter(|_| inside && !name.is_empty())?))
    };
    text.lines().map(line).collect()
}

/// `config.txt` as `config.txt.ENDING`.
fn with(path: &Path, ending: &str) -> PathBuf {
    path.with_added_extension(ending)
}

/// The CRC-32 of a file.
fn checksum(path: &Path) -> Result<u32> {
    let mut content = File::open(path)?;
    let mut checksum = flate2::Crc::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        match content.read(&mut piece)? {
            0 => return Ok(checksum.sum()),
            count => checksum.update(piece.get(..count).unwrap_or_default()),
        }
    }
}

/// Bytes that are free where `folder` is. From `df` as POSIX has it: the call behind it needs `unsafe`.
fn free_room(folder: &Path) -> Result<u64> {
    let text = output(Command::new("df").arg("-Pk").arg(folder))?;
    let blocks = text.lines().next_back().and_then(free_blocks);
    Ok(blocks.context("cannot tell how much room there is")? * 1024)
}

/// The fourth column of the line, counted from the percents: the first may have spaces.
fn free_blocks(line: &str) -> Option<u64> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let percents = columns.iter().position(|column| column.ends_with('%') && column.len() > 1)?;
    columns.get(percents.checked_sub(1)?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Scene {
        folder: tempfile::TempDir,
        files: BTreeMap<String, PathBuf>,
    }

    /// A partition as the vendor's system leaves it, and what is to be installed.
    fn scene() -> Scene {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("boot")).unwrap();
        for (name, content) in [("start4.elf", "firmware"), ("config.txt", "the user's"), ("kernel8.img", "Linux")] {
            fs::write(folder.path().join("boot").join(name), content).unwrap();
        }
        let files = [("config.txt", "ours"), ("bulkhead.img", "image"), ("overlays/a.dtbo", "overlay")];
        let files = files.map(|(name, content)| {
            let path = folder.path().join(name.replace('/', "-"));
            fs::write(&path, content).unwrap();
            (name.to_string(), path)
        });
        Scene { folder, files: files.into() }
    }

    impl Scene {
        fn boot(&self) -> PathBuf {
            self.folder.path().join("boot")
        }

        fn install(&self) {
            Partition { folder: &self.boot() }.install(&self.files).unwrap();
        }

        fn undo(&self) -> Result<()> {
            Partition { folder: &self.boot() }.undo()
        }

        /// Every file of the partition with its content.
        fn all(&self) -> BTreeMap<String, String> {
            let mut found = BTreeMap::new();
            let mut folders = vec![self.boot()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap() {
                    let path = entry.unwrap().path();
                    if path.is_dir() {
                        folders.push(path.clone());
                        continue;
                    }
                    let name = path.strip_prefix(self.boot()).unwrap().display().to_string();
                    found.insert(name, fs::read_to_string(path).unwrap());
                }
            }
            found
        }
    }

    #[test]
    fn undo_leaves_what_was_there_before() {
        let scene = scene();
        let before = scene.all();
        scene.install();
        let installed = scene.all();
        assert_eq!(installed["config.txt"], "ours");
        assert_eq!(installed["config.txt.before-bulkhead"], "the user's");
        assert_eq!(installed["overlays/a.dtbo"], "overlay");
        assert_eq!(
            installed.len(),
            before.len() + 4,
            "the record and three of ours, one of them in place: {installed:?}"
        );
        scene.undo().unwrap();
        assert_eq!(scene.all(), before);
        assert!(!scene.boot().join("overlays").exists());
        assert_eq!(failure::status(&scene.undo().unwrap_err()), failure::USAGE, "once only");
    }

    #[test]
    fn a_second_installation_keeps_what_the_first_one_kept() {
        let scene = scene();
        let before = scene.all();
        scene.install();
        fs::write(&scene.files["config.txt"], "ours, better").unwrap();
        scene.install();
        assert_eq!(scene.all()["config.txt"], "ours, better");
        assert_eq!(scene.all()["config.txt.before-bulkhead"], "the user's");
        scene.undo().unwrap();
        assert_eq!(scene.all(), before);
    }

    #[test]
    fn what_the_user_has_changed_since_is_kept() {
        let scene = scene();
        scene.install();
        fs::write(scene.boot().join("config.txt"), "edited").unwrap();
        fs::write(scene.boot().join("bulkhead.img"), "built by hand").unwrap();
        scene.undo().unwrap();
        let all = scene.all();
        assert_eq!((all["config.txt"].as_str(), all["config.txt.bulkhead-changed"].as_str()), ("the user's", "edited"));
        assert_eq!(all["bulkhead.img"], "built by hand");
    }

    #[test]
    fn what_the_user_has_changed_between_two_installations_is_kept() {
        let scene = scene();
        scene.install();
        fs::write(scene.boot().join("config.txt"), "edited").unwrap();
        scene.install();
        let all = scene.all();
        assert_eq!((all["config.txt"].as_str(), all["config.txt.bulkhead-changed"].as_str()), ("ours", "edited"));
        assert_eq!(all["config.txt.before-bulkhead"], "the user's");
    }

    #[test]
    fn a_cut_in_the_middle_of_undo_loses_nothing() {
        let scene = scene();
        let before = scene.all();
        scene.install();
        // One file is back, the record still there.
        fs::rename(scene.boot().join("config.txt.before-bulkhead"), scene.boot().join("config.txt")).unwrap();
        scene.undo().unwrap();
        assert_eq!(scene.all(), before);
    }

    #[test]
    fn a_cut_in_the_middle_of_an_installation_is_mended_by_another_and_by_undo() {
        for again in [false, true] {
            let scene = scene();
            let before = scene.all();
            // As far as the record, and one file further.
            scene.install();
            let (boot, at) = (scene.boot(), |name: &str| scene.boot().join(name));
            fs::rename(at("config.txt"), at("config.txt.bulkhead-partial")).unwrap();
            fs::rename(at("overlays/a.dtbo"), at("overlays/a.dtbo.bulkhead-partial")).unwrap();
            fs::copy(at("config.txt.before-bulkhead"), at("config.txt")).unwrap();
            if again {
                scene.install();
                assert_eq!(scene.all()["config.txt"], "ours");
            }
            scene.undo().unwrap();
            assert_eq!(scene.all(), before, "{}", boot.display());
        }
    }

    #[test]
    fn an_installation_that_fails_changes_nothing() {
        let mut scene = scene();
        let before = scene.all();
        scene.files.insert("zzz".into(), "/nowhere/at/all".into());
        assert!(Partition { folder: &scene.boot() }.install(&scene.files).is_err());
        assert_eq!(scene.all(), before);
    }

    #[test]
    fn a_record_names_files_of_the_partition_only() {
        assert_eq!(read_record("0000002a a/b\n"), Some([("a/b".to_string(), 42)].into()));
        for wrong in ["0000002a ../b\n", "2a /etc/passwd\n", "2a \n", "x y\n", "word\n"] {
            assert_eq!(read_record(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn free_room_is_read_from_df() {
        assert_eq!(free_blocks("/dev/sdb1  258095  33018 225077  13% /media/My Card"), Some(225_077));
        assert_eq!(free_blocks("Filesystem 1024-blocks Used Available Capacity Mounted on"), None);
        assert!(free_room(Path::new("/")).is_ok());
    }
}
