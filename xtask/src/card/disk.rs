//! An image of a whole card: one FAT32 partition with files.
//!
//! Answers for: the partition table, and an image that depends on nothing but names and contents of the files, byte for byte: no
//! clock (FAT's first second stands for all of them), no random volume number, an order of its own. Does not answer for:
//! which files. The file system is the package `hadris-fat`'s; follows Microsoft's "FAT: General Overview of On-Disk Format",
//! and for the table the UEFI specification 2.10, section 5.2.1.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow};
use hadris_fat::format::{FatFormatOptions, FatTypeSelection, FatVolumeFormatter};
use hadris_fat::{FatVolume, FatVolumeReadExt as _, FatVolumeWriteExt as _};

/// Bytes of a sector.
const SECTOR: u64 = 512;
/// Where the partition begins: what other tools align to, and a multiple of what cards erase at once.
pub(crate) const START: u64 = 1 << 20;
/// FAT32, addressed by sector numbers.
const TYPE: u8 = 0x0c;
/// Loaders that look for the active partition find it.
const ACTIVE: u8 = 0x80;
/// Cylinder, head and sector of what cannot be said in these.
const NO_GEOMETRY: [u8; 3] = [0xfe, 0xff, 0xff];
/// The number of the card, and of its file system.
const NUMBER: u32 = u32::from_le_bytes(*b"BULK");
const LABEL: &str = "BULKHEAD";
/// How many bytes are copied at a time.
const CHUNK: usize = 1 << 16;

/// Makes `card`, an empty file, an image of `size` bytes with these files. `tell` is called before each is written.
pub(crate) fn write(
    card: &File,
    size: u64,
    files: &BTreeMap<String, PathBuf>,
    tell: &mut dyn FnMut(&str, u64),
) -> Result<()> {
    card.set_len(size)?;
    (&mut &*card).write_all(&partition_table(size))?;
    let options = FatFormatOptions::new(size - START)
        .fat_type(FatTypeSelection::Fat32)
        .hidden_sectors((START / SECTOR) as u32)
        .volume_id(NUMBER)
        .volume_label(LABEL);
    let volume = fat(FatVolumeFormatter::format(Partition(card), options))?;
    let mut folders = BTreeMap::from([("", volume.root_dir())]);
    for (name, path) in files {
        tell(name, super::size(path)?);
        let (folder, file) = name.rsplit_once('/').unwrap_or(("", name));
        // Those above it come first.
        for inner in name.match_indices('/').filter_map(|(end, _)| name.get(..end)) {
            let (above, last) = inner.rsplit_once('/').unwrap_or(("", inner));
            if let (Some(above), false) = (folders.get(above), folders.contains_key(inner)) {
                let made = fat(volume.create_dir(above, last))?;
                folders.insert(inner, made);
            }
        }
        let Some(folder) = folders.get(folder) else { continue };
        let entry = fat(volume.create_file(folder, file))?;
        let mut file = fat(volume.write_file(&entry))?;
        let copied = copy(path, |piece| fat(file.write(piece)));
        copied.and_then(|()| fat(file.finish())).with_context(|| format!("cannot write `{name}` to the card"))?;
    }
    Ok(())
}

/// The content of a file of such an image.
pub(crate) fn read(card: &Path, name: &str) -> Result<Vec<u8>> {
    let mut card = File::open(card).with_context(|| format!("cannot read {}", card.display()))?;
    card.seek(SeekFrom::Start(START))?;
    let volume = fat(FatVolume::open(Partition(&card)))?;
    let entry = fat(volume.open_path(name))?;
    let mut file = fat(volume.read_file(&entry))?;
    let mut content = Vec::new();
    let mut buffer = vec![0; CHUNK];
    while let count @ 1.. = fat(file.read(&mut buffer))? {
        content.extend_from_slice(buffer.get(..count).unwrap_or_default());
    }
    Ok(content)
}

/// The package's errors are none of the standard library's where it does without a clock.
fn fat<T>(result: hadris_fat::Result<T>) -> Result<T> {
    result.map_err(|error| anyhow!("FAT: {error}"))
}

/// Passes the content of a file to `write`, which takes as much as it can of each piece.
fn copy(from: &Path, mut write: impl FnMut(&[u8]) -> Result<usize>) -> Result<()> {
    let mut from = File::open(from).with_context(|| format!("cannot read {}", from.display()))?;
    let mut buffer = vec![0; CHUNK];
    loop {
        let count = from.read(&mut buffer)?;
        let mut piece = buffer.get(..count).unwrap_or_default();
        if piece.is_empty() {
            return Ok(());
        }
        while !piece.is_empty() {
            let taken = write(piece)?;
            piece = piece.get(taken..).filter(|_| taken > 0).context("no more is taken")?;
        }
    }
}

/// The first sector: one partition, from [`START`] to the end.
fn partition_table(size: u64) -> [u8; SECTOR as usize] {
    let first = (START / SECTOR) as u32;
    let sectors = u32::try_from((size - START) / SECTOR).unwrap_or(u32::MAX);
    let mut table = [0; SECTOR as usize];
    let mut entry = Vec::from([ACTIVE]);
    entry.extend(NO_GEOMETRY);
    entry.push(TYPE);
    entry.extend(NO_GEOMETRY);
    entry.extend(first.to_le_bytes());
    entry.extend(sectors.to_le_bytes());
    for (at, field) in [(440, &NUMBER.to_le_bytes()[..]), (446, &entry), (510, &[0x55, 0xaa])] {
        for (to, from) in table.iter_mut().skip(at).zip(field) {
            *to = *from;
        }
    }
    table
}

/// The partition as a disk of its own.
struct Partition<'a>(&'a File);

impl Read for Partition<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.0.read(to)
    }
}

impl Write for Partition<'_> {
    fn write(&mut self, from: &[u8]) -> io::Result<usize> {
        self.0.write(from)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Partition<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let to = match to {
            SeekFrom::Start(offset) => SeekFrom::Start(START + offset),
            relative => relative,
        };
        self.0.seek(to)?.checked_sub(START).ok_or(io::ErrorKind::InvalidInput.into())
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    fn image(folder: &tempfile::TempDir, name: &str, files: &BTreeMap<String, PathBuf>) -> PathBuf {
        let path = folder.path().join(name);
        let card = File::options().read(true).write(true).create_new(true).open(&path).unwrap();
        write(&card, 64 << 20, files, &mut |_, _| {}).unwrap();
        path
    }

    fn scene() -> (tempfile::TempDir, BTreeMap<String, PathBuf>) {
        let folder = tempfile::tempdir().unwrap();
        // None of them a multiple of a sector, one of more than a cluster.
        let contents = [
            ("config.txt", 7),
            ("a-long-name-of-a-file.bin", 100_001),
            ("overlays/one.dtbo", 513),
            ("empty", 0),
            ("EFI/BOOT/BOOTAA64.EFI", 1025),
            ("EFI/debian/grub.cfg", 9),
        ];
        let files = contents.map(|(name, length)| {
            let path = folder.path().join(name.replace('/', "-"));
            let bytes: Vec<u8> = (0..length).map(|n: u32| (n % 251) as u8).collect();
            std::fs::write(&path, bytes).unwrap();
            (name.to_string(), path)
        });
        (folder, files.into())
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (folder, files) = scene();
        let card = image(&folder, "card.img", &files);
        for (name, path) in &files {
            assert!(read(&card, name).unwrap() == std::fs::read(path).unwrap(), "{name}");
        }
    }

    #[test]
    fn the_same_files_make_the_same_image_at_any_time() {
        let (folder, files) = scene();
        let once = std::fs::read(image(&folder, "once.img", &files)).unwrap();
        // FAT's clock ticks every two seconds; a clock would be seen in a file's age as well.
        std::thread::sleep(std::time::Duration::from_millis(2100));
        assert!(once == std::fs::read(image(&folder, "again.img", &files)).unwrap());
    }

    #[test]
    fn the_table_has_one_partition_to_the_end() {
        let table = partition_table(64 << 20);
        assert_eq!(table[446..450], [0x80, 0xfe, 0xff, 0xff]);
        assert_eq!(table[450], 0x0c);
        assert_eq!(table[454..458], 2048_u32.to_le_bytes());
        assert_eq!(table[458..462], (63_u32 * 2048).to_le_bytes());
        assert!(table[462..510].iter().all(|byte| *byte == 0), "three empty entries");
        assert_eq!(table[510..], [0x55, 0xaa]);
    }
}
