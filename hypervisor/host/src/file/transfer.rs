//! A file on its way over the console.
//!
//! Answers for: the lines, in both directions. Does not answer for: when they are printed, and what becomes of the file.
//!
//! Lines, because a console has other lines between them; each begins with [`MARK`]:
//!
//! ```text
//! @file begin linux.gcore 268439552 23410322 9ab3f201     name, size, size packed, checksum of the packed bytes
//! @file 0 f0VMRgIBAQA... 1c291ca3                         number, up to 192 packed bytes in base64, their checksum
//! @file end linux.gcore
//! ```
//!
//! Numbers are decimal, checksums hexadecimal: CRC-32 as in Ethernet and zip (CRC-32/ISO-HDLC), that of a line over number
//! (32 bits, little-endian) and bytes. Base64 is RFC 4648, section 4, with padding.

use alloc::{format, string::String, vec::Vec};

/// How each line begins.
pub const MARK: &str = "@file ";
/// Packed bytes in a line.
pub const LINE: usize = 192;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// CRC-32/ISO-HDLC over several pieces.
#[derive(Clone, Copy, Debug)]
pub struct Checksum(u32);

impl Default for Checksum {
    fn default() -> Self {
        Self(u32::MAX)
    }
}

impl Checksum {
    /// Bit by bit, four at a time: a table of 64 bytes, and a file takes far longer on its way.
    const TABLE: [u32; 16] = {
        let mut table = [0; 16];
        let mut index = 0_u32;
        while index < 16 {
            let (mut value, mut bit) = (index, 0_u32);
            while bit < 4 {
                value = if value & 1 == 1 { value >> 1 ^ 0xedb8_8320 } else { value >> 1 };
                bit = bit.saturating_add(1);
            }
            #[expect(clippy::indexing_slicing, reason = "below 16, and checked while compiling")]
            {
                table[index as usize] = value;
            }
            index = index.saturating_add(1);
        }
        table
    };

    /// Goes on with these bytes.
    #[must_use]
    pub fn with(mut self, bytes: &[u8]) -> Self {
        for byte in bytes {
            self.0 ^= u32::from(*byte);
            for _ in 0..2 {
                let nibble = self.0 & 15;
                self.0 = self.0 >> 4 ^ Self::TABLE.get(nibble as usize).copied().unwrap_or_default();
            }
        }
        self
    }

    /// What has come of it.
    #[must_use]
    pub const fn value(self) -> u32 {
        !self.0
    }
}

fn checksum(number: u32, bytes: &[u8]) -> u32 {
    Checksum::default().with(&number.to_le_bytes()).with(bytes).value()
}

/// The line in front of a file.
#[must_use]
pub fn begin(name: &str, size: u64, packed: u64, checksum: u32) -> String {
    format!("{MARK}begin {name} {size} {packed} {checksum:08x}")
}

/// The line behind it.
#[must_use]
pub fn end(name: &str) -> String {
    format!("{MARK}end {name}")
}

/// The line with the `number`th [`LINE`] bytes.
#[must_use]
pub fn data(number: u32, bytes: &[u8]) -> String {
    let mut line = format!("{MARK}{number} ");
    for triple in bytes.chunks(3) {
        let byte = |index: usize| u32::from(triple.get(index).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4_usize {
            let index = bits >> 18_usize.saturating_sub(place.saturating_mul(6)) & 63;
            let digit = ALPHABET.get(index as usize).copied().unwrap_or(b'=');
            line.push(char::from(if place > triple.len() { b'=' } else { digit }));
        }
    }
    line.push_str(&format!(" {:08x}", checksum(number, bytes)));
    line
}

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    /// A file begins.
    Begin {
        /// What it is called.
        name: &'a str,
        /// Its size.
        size: u64,
        /// What is sent of it.
        packed: u64,
        /// The checksum over what is sent.
        checksum: u32,
    },
    /// Some of it.
    Data {
        /// How many lines came before.
        number: u32,
        /// The packed bytes.
        bytes: Vec<u8>,
    },
    /// It is over.
    End {
        /// What it is called.
        name: &'a str,
    },
    /// It was one of these.
    Damaged,
}

/// Reads a line. `None` if it has nothing to do with files.
#[must_use]
pub fn read(line: &str) -> Option<Line<'_>> {
    let rest = line.strip_prefix(MARK)?;
    Some(understood(rest).unwrap_or(Line::Damaged))
}

fn understood(rest: &str) -> Option<Line<'_>> {
    let mut words = rest.split(' ');
    let hexadecimal = |word: &str| u32::from_str_radix(word, 16).ok();
    let name =
        |word: Option<&'_ str>| word.filter(|name| !name.is_empty() && name.chars().all(super::is_harmless)).is_some();
    let line = match words.next()? {
        "begin" => {
            let word = words.next();
            name(word).then_some(())?;
            let (size, packed) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            Line::Begin { name: word?, size, packed, checksum: hexadecimal(words.next()?)? }
        }
        "end" => {
            let word = words.next();
            name(word).then_some(())?;
            Line::End { name: word? }
        }
        number => {
            let number = number.parse().ok()?;
            let bytes = decode(words.next()?)?;
            (hexadecimal(words.next()?)? == checksum(number, &bytes)).then_some(())?;
            Line::Data { number, bytes }
        }
    };
    words.next().is_none().then_some(line)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) || text.len() > LINE.saturating_mul(2) {
        return None;
    }
    let digits = text.trim_end_matches('=');
    let missing = text.len().saturating_sub(digits.len());
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0_u32);
    for digit in digits.bytes() {
        let value = ALPHABET.iter().position(|known| *known == digit)?;
        bits = bits << 6 | u32::try_from(value).ok()?;
        count = count.saturating_add(6);
        if count >= 8 {
            count = count.saturating_sub(8);
            bytes.push(u8::try_from(bits >> count & 0xff).ok()?);
        }
    }
    (missing <= 2).then_some(bytes)
}
