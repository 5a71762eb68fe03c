//! The arm64 `Image`.
//!
//! Answers for: the header of Linux' `Documentation/arch/arm64/booting.rst`, section 4, and, where the image is a PE file
//! as well (`drivers/firmware/efi/libstub`; Microsoft PE format, "COFF File Header"), whether the file has all the bytes
//! that its sections need: the one thing by which a cut-off kernel can be told. Does not answer for: where it goes.

use super::format::{FormatError, halfword, word};
use zerocopy::{
    FromBytes, Immutable, KnownLayout,
    little_endian::{U32, U64},
};

/// Alignment of the base that `text_offset` counts from.
pub(super) const BASE_ALIGNMENT: u64 = 2 << 20;

const MAGIC: [u8; 4] = *b"ARM\x64";
/// What `text_offset` means in the images of before Linux 3.17, whose `image_size` is zero.
const OLD_TEXT_OFFSET: u64 = 0x8_0000;
const PE_POINTER: usize = 60;
const SECTION_HEADER: usize = 40;
const MAX_SECTIONS: u16 = 96;

#[derive(FromBytes, KnownLayout, Immutable)]
#[repr(C)]
struct Header {
    code: [U32; 2],
    text_offset: U64,
    image_size: U64,
    flags: U64,
    reserved: [U64; 3],
    magic: [u8; 4],
    pe_offset: U32,
}

const _: () = assert!(size_of::<Header>() == 64, "booting.rst, section 4: the header has 64 bytes");

/// What matters of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Image {
    /// Bytes from a 2 MiB boundary to the image.
    pub(super) text_offset: u64,
    /// Bytes from the start of the image that it will use, its zero-initialised data included.
    pub(super) memory: u64,
}

/// Reads the header at the start of a file of `length` bytes, of which `head` is the beginning. `None` if there is none.
pub(super) fn parse(head: &[u8], length: u64) -> Option<Result<Image, FormatError>> {
    match Header::ref_from_prefix(head) {
        Ok((header, _)) => (header.magic == MAGIC).then(|| check(header, head, length)),
        Err(_) => {
            head.get(core::mem::offset_of!(Header, magic)..)?.starts_with(&MAGIC).then_some(Err(FormatError::Truncated))
        }
    }
}

fn check(header: &Header, head: &[u8], length: u64) -> Result<Image, FormatError> {
    let flags = header.flags.get();
    if flags & 1 != 0 {
        return Err(FormatError::BigEndian);
    }
    let (text_offset, memory) = match header.image_size.get() {
        0 => (OLD_TEXT_OFFSET, length),
        size => (header.text_offset.get(), size.max(length)),
    };
    if text_offset >= 1 << 32 {
        return Err(FormatError::Header);
    }
    if head.starts_with(b"MZ") && section_end(head).is_some_and(|end| end > length) {
        return Err(FormatError::Truncated);
    }
    Ok(Image { text_offset, memory })
}

/// The end of the last section in the file. `None` if these are not the headers of a PE file, or not in `head`.
fn section_end(head: &[u8]) -> Option<u64> {
    let pe = usize::try_from(word(head, PE_POINTER)?).ok()?;
    let headers = head.get(pe..)?.strip_prefix(b"PE\0\0")?;
    let (count, optional) = (halfword(headers, 2)?, halfword(headers, 16)?);
    let sections = headers.get(20_usize.checked_add(usize::from(optional))?..)?;
    let sections = sections.chunks_exact(SECTION_HEADER).take(usize::from(count.min(MAX_SECTIONS)));
    sections.map(|section| Some(u64::from(word(section, 16)?).saturating_add(u64::from(word(section, 20)?)))).max()?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::image;
    use alloc::vec::Vec;

    fn parsed(file: &[u8]) -> Option<Result<Image, FormatError>> {
        parse(file, u64::try_from(file.len()).unwrap())
    }

    #[test]
    fn the_header_says_offset_and_size() {
        let file = image(0x8_0000, 0x20_0000, 4096);
        assert_eq!(parsed(&file), Some(Ok(Image { text_offset: 0x8_0000, memory: 0x20_0000 })));
    }

    #[test]
    fn a_file_longer_than_it_says_needs_its_length() {
        assert_eq!(parsed(&image(0, 100, 4096)), Some(Ok(Image { text_offset: 0, memory: 4096 })));
    }

    #[test]
    fn an_image_size_of_zero_means_an_offset_of_512_kib() {
        assert_eq!(parsed(&image(0, 0, 4096)), Some(Ok(Image { text_offset: 0x8_0000, memory: 4096 })));
    }

    #[test]
    fn big_endian_kernels_and_absurd_offsets_are_refused() {
        let mut file = image(0, 4096, 4096);
        file[24] = 1;
        assert_eq!(parsed(&file), Some(Err(FormatError::BigEndian)));
        assert_eq!(parsed(&image(1 << 32, 4096, 4096)), Some(Err(FormatError::Header)));
        let endless = Image { text_offset: 0, memory: u64::MAX };
        assert_eq!(parsed(&image(0, u64::MAX, 4096)), Some(Ok(endless)), "no RAM is large enough, and that is said");
    }

    #[test]
    fn without_the_magic_or_too_short_it_is_no_image() {
        let mut file = image(0, 4096, 4096);
        assert_eq!(parsed(&file[..63]), Some(Err(FormatError::Truncated)));
        assert_eq!(parsed(&file[..59]), None);
        file[56] = 0;
        assert_eq!(parsed(&file), None);
    }

    #[test]
    fn a_pe_file_that_lacks_the_end_of_a_section_is_truncated() {
        let mut file: Vec<u8> = image(0, 0x4000, 0x3000);
        file[..2].copy_from_slice(b"MZ");
        file[60..64].copy_from_slice(&64_u32.to_le_bytes());
        let pe = &mut file[64..256];
        pe.fill(0);
        pe[..4].copy_from_slice(b"PE\0\0");
        pe[6] = 2; // sections
        pe[20] = 16; // bytes of the optional header
        let second = 24 + 16 + 40;
        pe[second + 16..second + 20].copy_from_slice(&0x1000_u32.to_le_bytes());
        pe[second + 20..second + 24].copy_from_slice(&0x2000_u32.to_le_bytes());
        assert!(matches!(parsed(&file), Some(Ok(_))));
        file.pop();
        assert_eq!(parsed(&file), Some(Err(FormatError::Truncated)));
    }
}
