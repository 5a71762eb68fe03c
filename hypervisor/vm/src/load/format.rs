//! What kind of file is this?
//!
//! Answers for: telling the formats apart by their first bytes. Does not answer for: the formats themselves.

use super::{executable, executable::Executable, gzip, gzip::Gzip, gzip::GzipError, image, image::Image};
use alloc::borrow::Cow;
use core::fmt;

/// As much of a compressed file as is unpacked to tell its format: all headers have to be in it.
pub(super) const HEAD: usize = 16 * 1024;

/// Why a file that says what it is cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FormatError {
    /// The headers contradict themselves.
    Header,
    /// The file is shorter than its headers say.
    Truncated,
    /// ELF, but not for AArch64, 64 bits, little endian.
    NotAarch64,
    /// ELF, but neither an executable nor a static position-independent one.
    NotExecutable,
    /// The entry point is in none of the segments.
    Entry,
    /// A big-endian kernel.
    BigEndian,
    /// Compressed in a way that is not supported.
    Packed(&'static str),
    /// Damaged gzip.
    Gzip(GzipError),
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("its headers contradict themselves"),
            Self::Truncated => f.write_str("the file is cut off: it is shorter than its headers say"),
            Self::NotAarch64 => f.write_str("an ELF file, but not for AArch64 (64 bits, little endian)"),
            Self::NotExecutable => f.write_str("an ELF file, but not a statically linked executable"),
            Self::Entry => f.write_str("its entry point lies in none of its segments"),
            Self::BigEndian => f.write_str("a big-endian kernel, which is not supported"),
            Self::Packed(how) => write!(f, "packed as {how}, which is not supported: unpack it first"),
            Self::Gzip(error) => error.fmt(f),
        }
    }
}

impl From<GzipError> for FormatError {
    fn from(error: GzipError) -> Self {
        Self::Gzip(error)
    }
}

/// A recognised guest image, or none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Image(Image),
    Elf(Executable),
    Unknown,
}

/// A file's contents: as they are, or to be unpacked.
pub(super) struct Contents<'a> {
    file: &'a [u8],
    gzip: Option<Gzip<'a>>,
}

impl<'a> Contents<'a> {
    /// The bytes of the file themselves.
    pub(super) fn plain(file: &'a [u8]) -> Self {
        Self { file, gzip: None }
    }

    /// What is in the file, if it is gzip; else its bytes.
    pub(super) fn unpacked(file: &'a [u8]) -> Result<Self, FormatError> {
        let gzip = gzip::is_gzip(file).then(|| Gzip::open(file)).transpose()?;
        Ok(Self { file, gzip })
    }

    /// Whether it has to be unpacked.
    pub(super) fn is_packed(&self) -> bool {
        self.gzip.is_some()
    }

    /// Bytes, once unpacked.
    pub(super) fn length(&self) -> u64 {
        self.gzip.as_ref().map_or(u64::try_from(self.file.len()).unwrap_or(u64::MAX), Gzip::size)
    }

    /// All the bytes, or, if it has to be unpacked, the first [`HEAD`] of them.
    pub(super) fn head(&self) -> Result<Cow<'a, [u8]>, FormatError> {
        match &self.gzip {
            None => Ok(Cow::Borrowed(self.file)),
            Some(gzip) => Ok(Cow::<[u8]>::Owned(gzip.head(HEAD)?)),
        }
    }

    /// Hands out everything in order, each piece with its offset.
    pub(super) fn stream<E: From<GzipError>>(
        &self,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        match &self.gzip {
            Some(gzip) => gzip.unpack(sink),
            None => {
                let mut offset = 0_u64;
                for piece in self.file.chunks(gzip::STEP) {
                    sink(offset, piece)?;
                    offset = offset.saturating_add(u64::try_from(piece.len()).unwrap_or(u64::MAX));
                }
                Ok(())
            }
        }
    }
}

/// Which format the contents have.
pub(super) fn detect(contents: &Contents<'_>) -> Result<Format, FormatError> {
    let head = contents.head()?;
    if executable::is_elf(&head) {
        return executable::parse(&head, contents.length()).map(Format::Elf);
    }
    if let Some(image) = image::parse(&head, contents.length()) {
        return image.map(Format::Image);
    }
    match packed(&head) {
        Some(how) => Err(FormatError::Packed(how)),
        None => Ok(Format::Unknown),
    }
}

/// Packed kernels that would otherwise be taken for raw code.
fn packed(head: &[u8]) -> Option<&'static str> {
    let magics: [(&[u8], usize, &'static str); 6] = [
        (b"zimg", 4, "an EFI zboot image (vmlinuz.efi)"),
        (b"\xfd7zXZ\0", 0, "xz"),
        (b"\x28\xb5\x2f\xfd", 0, "zstd"),
        (b"\x02\x21\x4c\x18", 0, "lz4"),
        (b"BZh", 0, "bzip2"),
        (&[0x27, 0x05, 0x19, 0x56], 0, "a U-Boot uImage"),
    ];
    magics
        .iter()
        .find(|(magic, at, _)| head.get(*at..).is_some_and(|rest| rest.starts_with(magic)))
        .map(|found| found.2)
}

/// Whether it is a flattened device tree (Devicetree Specification 0.4, 5.2).
pub(super) fn is_device_tree(file: &[u8]) -> bool {
    file.starts_with(&[0xd0, 0x0d, 0xfe, 0xed])
}

/// Little-endian number at `offset`.
pub(super) fn halfword(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

/// Little-endian number at `offset`.
pub(super) fn word(bytes: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_le_bytes(*bytes.get(offset..)?.first_chunk()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::{Elf, elf, gzip, image};
    use alloc::vec;

    fn format(file: &[u8]) -> Result<Format, FormatError> {
        detect(&Contents::unpacked(file)?)
    }

    #[test]
    fn formats_are_told_by_their_first_bytes_packed_or_not() {
        let image = image(0, 0x10_0000, 0x5000);
        let elf = elf(&Elf::exec(0x8000_0000).segment(0x8000_0000, 0x8000_0000, &[1; 20_000], 20_000));
        for file in [image.clone(), gzip(&image)] {
            assert!(matches!(format(&file), Ok(Format::Image(_))));
        }
        for file in [elf.clone(), gzip(&elf)] {
            assert!(matches!(format(&file), Ok(Format::Elf(_))));
        }
        for file in [b"raw".to_vec(), gzip(b"raw"), vec![]] {
            assert_eq!(format(&file), Ok(Format::Unknown));
        }
    }

    #[test]
    fn what_would_have_to_be_unpacked_otherwise_is_refused_by_name() {
        assert_eq!(format(b"MZ\0\0zimg........"), Err(FormatError::Packed("an EFI zboot image (vmlinuz.efi)")));
        assert_eq!(format(b"\xfd7zXZ\0\0"), Err(FormatError::Packed("xz")));
    }

    #[test]
    fn an_executable_cut_off_before_it_was_packed_is_still_truncated() {
        let whole = elf(&Elf::exec(0x8000_0000).segment(0x8000_0000, 0x8000_0000, &[1; 20_000], 20_000));
        assert_eq!(format(&gzip(&whole[..10_000])), Err(FormatError::Truncated));
    }
}
