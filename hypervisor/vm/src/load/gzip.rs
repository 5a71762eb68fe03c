//! Unpacking gzip without ever holding the whole.
//!
//! Answers for: the gzip member of RFC 1952 around a DEFLATE stream (RFC 1951): header, sizes, checksum, and handing out
//! what is unpacked in steps of at most [`STEP`] bytes. Does not answer for: what is in it and where that goes. Exactly one
//! member is taken; what `gzip` writes is that.

use alloc::{boxed::Box, vec, vec::Vec};
use core::fmt;
use crc::Crc;
use miniz_oxide::inflate::{
    TINFLStatus,
    core::{
        DecompressorOxide, decompress,
        inflate_flags::{TINFL_FLAG_HAS_MORE_INPUT, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF},
    },
};

/// Most bytes handed out at a time. Twice the 32 KiB that DEFLATE may refer back to, and a power of two.
pub(super) const STEP: usize = 64 * 1024;

/// The checksum of RFC 1952, section 8, with a small table: the image has no 16 KiB to spare for it.
pub(super) const CHECKSUM: Crc<u32> = Crc::<u32>::new(&crc::CRC_32_ISO_HDLC);

const MAGIC: [u8; 3] = [0x1f, 0x8b, 8];
/// DEFLATE packs no better: 258 bytes into two bits (RFC 1951, section 3.2.5).
const BEST_RATIO: u64 = 1032;
const FIXED_HEADER: usize = 10;
const TRAILER: usize = 8;
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;
const RESERVED: u8 = 0xe0;

/// Why a gzip file cannot be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GzipError {
    /// The header is not one of RFC 1952, or the file ends in it.
    Header,
    /// The compressed data are damaged.
    Data,
    /// The file ends in the middle of the compressed data.
    Truncated,
    /// Something follows the first member.
    Trailing,
    /// It unpacks to more or fewer bytes than its trailer says.
    Size,
    /// The checksum does not fit what was unpacked.
    Checksum,
}

impl fmt::Display for GzipError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "damaged gzip header",
            Self::Data => "damaged gzip data",
            Self::Truncated => "the gzip data are cut off",
            Self::Trailing => "more than one gzip member, or bytes behind the end of the gzip data",
            Self::Size => "unpacks to another size than the gzip trailer says",
            Self::Checksum => "the gzip checksum does not fit",
        })
    }
}

/// A gzip file whose header has been checked.
#[derive(Clone, Copy)]
pub(super) struct Gzip<'a> {
    compressed: &'a [u8],
    checksum: u32,
    size: u32,
}

/// Whether the file says that it is gzip (method DEFLATE, the only one there is).
pub(super) fn is_gzip(file: &[u8]) -> bool {
    file.starts_with(&MAGIC)
}

impl<'a> Gzip<'a> {
    pub(super) fn open(file: &'a [u8]) -> Result<Self, GzipError> {
        let (body, trailer) = file.split_last_chunk::<TRAILER>().ok_or(GzipError::Header)?;
        let compressed = skip_header(body).ok_or(GzipError::Header)?;
        let (checksum, size) = trailer.split_first_chunk::<4>().ok_or(GzipError::Header)?;
        let size = u32::from_le_bytes(*size.first_chunk().ok_or(GzipError::Header)?);
        let most = u64::try_from(compressed.len()).unwrap_or(u64::MAX).saturating_mul(BEST_RATIO);
        if u64::from(size) > most {
            // What stands where the size should is in all likelihood compressed data.
            return Err(GzipError::Truncated);
        }
        Ok(Self { compressed, checksum: u32::from_le_bytes(*checksum), size })
    }

    /// What the trailer says that it unpacks to. True only once [`Gzip::unpack`] has succeeded; larger files than 4 GiB,
    /// whose size the trailer cannot hold, do not.
    pub(super) fn size(&self) -> u64 {
        u64::from(self.size)
    }

    /// The first bytes of the contents, at most `length`.
    pub(super) fn head(&self, length: usize) -> Result<Vec<u8>, GzipError> {
        let mut state = Box::<DecompressorOxide>::default();
        let mut head = vec![0; length];
        let (status, _, written) =
            decompress(&mut state, self.compressed, &mut head, 0, TINFL_FLAG_USING_NON_WRAPPING_OUTPUT_BUF);
        match status {
            TINFLStatus::Done | TINFLStatus::HasMoreOutput => {
                head.truncate(written);
                Ok(head)
            }
            status => Err(failure(status)),
        }
    }

    /// Unpacks all, handing `sink` each piece with its offset, and stops at the first error, the sink's or its own. Never
    /// hands out a byte beyond [`Gzip::size`].
    pub(super) fn unpack<E: From<GzipError>>(
        &self,
        mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut state = Box::<DecompressorOxide>::default();
        let mut window = vec![0_u8; STEP];
        let mut input = self.compressed;
        let (mut position, mut done, mut checksum) = (0_usize, 0_u64, CHECKSUM.digest());
        loop {
            // Input in steps, too: miniz_oxide wants to know that there is more only if there is.
            let step = input.get(..STEP).unwrap_or(input);
            let flags = if step.len() < input.len() { TINFL_FLAG_HAS_MORE_INPUT } else { 0 };
            let (status, taken, written) = decompress(&mut state, step, &mut window, position, flags);
            input = input.get(taken..).unwrap_or_default();
            let end = position.saturating_add(written);
            let fresh = window.get(position..end).unwrap_or_default();
            checksum.update(fresh);
            let length = u64::try_from(written).unwrap_or(u64::MAX);
            if done.saturating_add(length) > self.size() {
                return Err(GzipError::Size.into());
            }
            if !fresh.is_empty() {
                sink(done, fresh)?;
            }
            done = done.saturating_add(length);
            position = if end >= STEP { 0 } else { end };
            match status {
                TINFLStatus::Done => break,
                // Neither taking nor giving anything would be for ever.
                TINFLStatus::HasMoreOutput | TINFLStatus::NeedsMoreInput if taken | written != 0 => {}
                status => return Err(failure(status).into()),
            }
        }
        if !input.is_empty() {
            return Err(GzipError::Trailing.into());
        }
        if done != self.size() {
            return Err(GzipError::Size.into());
        }
        if checksum.finalize() != self.checksum {
            return Err(GzipError::Checksum.into());
        }
        Ok(())
    }
}

fn failure(status: TINFLStatus) -> GzipError {
    match status {
        TINFLStatus::FailedCannotMakeProgress | TINFLStatus::NeedsMoreInput => GzipError::Truncated,
        _ => GzipError::Data,
    }
}

/// What follows the header with its optional fields (RFC 1952, 2.3.1); its own checksum is not looked at, the contents
/// have a better one.
fn skip_header(file: &[u8]) -> Option<&[u8]> {
    let (header, mut rest) = file.split_first_chunk::<FIXED_HEADER>()?;
    let flags = header.starts_with(&MAGIC).then(|| header.get(3).copied())??;
    if flags & RESERVED != 0 {
        return None;
    }
    if flags & FEXTRA != 0 {
        let (length, after) = rest.split_first_chunk::<2>()?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..)?;
    }
    for text in [FNAME, FCOMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|&byte| byte == 0)?;
            rest = rest.get(end..)?.get(1..)?;
        }
    }
    if flags & FHCRC != 0 { rest.get(2..) } else { Some(rest) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::testing::gzip;

    fn unpack(file: &[u8]) -> Result<Vec<u8>, GzipError> {
        let mut unpacked = Vec::new();
        Gzip::open(file)?.unpack(|offset, piece| {
            assert_eq!(offset, u64::try_from(unpacked.len()).unwrap());
            assert!(piece.len() <= STEP);
            unpacked.extend_from_slice(piece);
            Ok::<(), GzipError>(())
        })?;
        Ok(unpacked)
    }

    /// Enough for several windows.
    const LENGTH: u32 = if cfg!(miri) { 70_000 } else { 400_000 };

    /// Bytes that repeat over short and over long distances.
    fn contents() -> Vec<u8> {
        (0..LENGTH).map(|n| (n.wrapping_mul(n) >> (n / 50_000)).to_le_bytes()[0]).collect()
    }

    #[test]
    fn what_was_packed_is_unpacked_in_order() {
        for contents in [contents(), vec![0; LENGTH as usize], b"short".to_vec(), vec![]] {
            assert_eq!(unpack(&gzip(&contents)), Ok(contents));
        }
    }

    #[test]
    fn the_head_is_the_start_of_the_contents() {
        let file = gzip(&contents());
        let gzip = Gzip::open(&file).unwrap();
        assert_eq!(gzip.size(), u64::from(LENGTH));
        assert_eq!(gzip.head(4096).unwrap(), contents()[..4096]);
        assert_eq!(Gzip::open(&crate::load::testing::gzip(b"abc")).unwrap().head(4096).unwrap(), b"abc");
    }

    #[test]
    fn optional_header_fields_are_skipped() {
        let plain = gzip(b"contents");
        let mut file = plain[..10].to_vec();
        file[3] = FEXTRA | FNAME | FCOMMENT | FHCRC;
        file.extend(b"\x03\0abcname\0comment\0\x12\x34");
        file.extend(&plain[10..]);
        assert_eq!(unpack(&file), Ok(b"contents".to_vec()));
        file[3] |= 0x20;
        assert_eq!(unpack(&file), Err(GzipError::Header), "a reserved flag");
    }

    #[test]
    fn damage_has_a_name() {
        let file = gzip(&contents());
        let end = file.len();
        assert_eq!(unpack(&file[..9]), Err(GzipError::Header));
        assert_eq!(unpack(&file[..14]), Err(GzipError::Header));
        let mut cut = file[..end / 2].to_vec();
        cut.extend(&file[end - 8..]);
        assert_eq!(unpack(&cut), Err(GzipError::Truncated));
        let mut wrong = file.clone();
        wrong[end - 8] ^= 1;
        assert_eq!(unpack(&wrong), Err(GzipError::Checksum));
        for size in [LENGTH - 1, LENGTH + 1] {
            let mut wrong = file.clone();
            wrong[end - 4..].copy_from_slice(&size.to_le_bytes());
            assert_eq!(unpack(&wrong), Err(GzipError::Size));
        }
        let mut two = file.clone();
        two.extend(&file);
        assert_eq!(unpack(&two), Err(GzipError::Trailing));
    }

    #[test]
    fn no_byte_is_handed_out_beyond_the_size_in_the_trailer() {
        let mut file = gzip(&vec![7; LENGTH as usize]);
        let end = file.len();
        file[end - 4..].copy_from_slice(&66_000_u32.to_le_bytes());
        let mut handed = 0;
        let result = Gzip::open(&file).unwrap().unpack(|_, piece| {
            handed += piece.len();
            Ok::<(), GzipError>(())
        });
        assert_eq!(result, Err(GzipError::Size));
        assert!(handed <= 66_000);
    }
}
