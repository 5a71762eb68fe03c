//! From an ELF file to the flat image that boot loaders take.
//!
//! Answers for: laying out the loadable segments by physical address, as `objcopy -O binary` would. Follows the ELF-64
//! object file format, "Program Header"; the arm64 `Image` header is part of the first segment and is only read here.

use anyhow::{Context, Result, bail};
use object::Endianness;
use object::elf::{FileHeader64, PT_LOAD};
use object::read::elf::{FileHeader, ProgramHeader};
use object::{Object, ObjectSegment};

/// No image of ours comes near; more than this is two segments with an address far apart.
const LARGEST: u64 = 256 << 20;
/// The magic number of an arm64 `Image`, at [`MAGIC_AT`]: "ARM\x64".
const MAGIC: &[u8] = b"ARM\x64";
const MAGIC_AT: usize = 56;
/// Where that header says how far above a 2 MiB boundary the image wants to be.
const TEXT_OFFSET_AT: usize = 8;

/// The bytes of all loadable segments, the lowest physical address first, gaps as zeroes. Zeroes at the end (`.bss`) are
/// not part of a file; the `Image` header tells the loader how much memory there has to be.
pub(crate) fn flat(elf: &[u8]) -> Result<Vec<u8>> {
    let header = FileHeader64::<Endianness>::parse(elf).context("not a 64-bit ELF file")?;
    let endian = header.endian()?;
    let mut segments = Vec::new();
    for segment in header.program_headers(endian, elf)? {
        if segment.p_type(endian) == PT_LOAD && segment.p_filesz(endian) > 0 {
            let content = segment.data(endian, elf).ok().context("a segment lies outside the file")?;
            segments.push((segment.p_paddr(endian), content));
        }
    }
    segments.sort_by_key(|(address, _)| *address);
    let base = segments.first().context("no loadable segment")?.0;
    let mut out = Vec::new();
    for (address, content) in segments {
        let offset = address - base;
        if offset > LARGEST {
            bail!("a segment lies {offset:#x} bytes above the first");
        }
        let offset = offset as usize;
        if offset < out.len() {
            bail!("two segments overlap at {address:#x}");
        }
        out.resize(offset, 0);
        out.extend_from_slice(content);
    }
    Ok(out)
}

/// The lowest address for which a segment of the ELF file is linked.
pub(crate) fn linked_at(elf: &[u8]) -> Result<u64> {
    let segments = object::File::parse(elf)?;
    segments.segments().map(|segment| segment.address()).min().context("no loadable segment")
}

/// `text_offset` of an arm64 `Image`; `None` if it is not one.
pub(crate) fn text_offset(image: &[u8]) -> Option<u64> {
    if image.get(MAGIC_AT..MAGIC_AT + MAGIC.len())? != MAGIC {
        return None;
    }
    let field = image.get(TEXT_OFFSET_AT..TEXT_OFFSET_AT + 8)?;
    Some(u64::from_le_bytes(field.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF file with the given segments: (physical address, content, size in memory).
    fn elf(segments: &[(u64, &[u8], u64)]) -> Vec<u8> {
        let mut file = vec![0; 64];
        file[..8].copy_from_slice(&[0x7f, b'E', b'L', b'F', 2, 1, 1, 0]);
        file[16..20].copy_from_slice(&[2, 0, 183, 0]);
        file[20] = 1;
        file[32] = 64; // e_phoff
        file[52] = 64; // e_ehsize
        file[54] = 56; // e_phentsize
        file[56] = segments.len() as u8;
        let mut content_at = 64 + 56 * segments.len();
        for (address, content, memory) in segments {
            file.extend_from_slice(&1_u32.to_le_bytes());
            file.extend_from_slice(&5_u32.to_le_bytes());
            for field in [content_at as u64, 0xffff_0000, *address, content.len() as u64, *memory, 1] {
                file.extend_from_slice(&field.to_le_bytes());
            }
            content_at += content.len();
        }
        for (_, content, _) in segments {
            file.extend_from_slice(content);
        }
        file
    }

    #[test]
    fn segments_are_placed_by_physical_address_and_gaps_are_zero() {
        let file = elf(&[(0x1008, b"later", 5), (0x1000, b"first", 5), (0x2000, b"", 64)]);
        assert_eq!(flat(&file).unwrap(), b"first\0\0\0later");
    }

    #[test]
    fn memory_beyond_the_file_is_left_to_the_loader() {
        let file = elf(&[(0, b"data", 4096)]);
        assert_eq!(flat(&file).unwrap(), b"data");
        assert_eq!(linked_at(&file).unwrap(), 0xffff_0000, "the virtual address, not the physical one");
    }

    #[test]
    fn what_cannot_be_an_image_is_refused() {
        assert!(flat(b"not an ELF file").is_err());
        assert!(flat(&elf(&[])).is_err());
        assert!(flat(&elf(&[(0, b"data", 4), (2, b"over", 4)])).is_err());
        assert!(flat(&elf(&[(0, b"data", 4), (1 << 40, b"far", 4)])).is_err());
    }

    #[test]
    fn the_text_offset_is_read_from_an_image_only() {
        let mut image = vec![0; 64];
        assert_eq!(text_offset(&image), None);
        image[56..60].copy_from_slice(b"ARM\x64");
        image[8] = 0x20;
        assert_eq!(text_offset(&image), Some(0x20));
    }
}
