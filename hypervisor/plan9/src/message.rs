//! Messages: fields of fixed size, little-endian, and texts with a length in front (intro(5)).
//!
//! Answers for: taking fields out of a message without ever running over its end, and putting an answer together. Does not answer
//! for: what the fields mean.

use alloc::vec::Vec;

/// Most bytes of a message that are looked at: the longest that makes sense is a `Twalk` of 16 names of 255 bytes.
pub const REQUEST: usize = 8192;
/// Most bytes of an answer, without what is read of a file.
pub const ANSWER: usize = 8192;
/// `size[4] type[1] tag[2]`.
pub(crate) const HEADER: usize = 7;
/// A `qid[13]`: `type[1] version[4] path[8]`.
pub(crate) const QID: usize = 13;
/// What stands in front of the data of `Rread` and `Rreaddir`: `count[4]` behind the header.
pub(crate) const DATA_HEADER: u32 = 11;
/// The answer to what has no tag that could be read.
const NOTAG: u16 = u16::MAX;

/// Types of messages (`protocol.md`; Linux `include/net/9p/9p.h`). An answer's is one more than that of what it answers.
#[expect(missing_docs, reason = "they are the protocol's names")]
pub mod kind {
    pub const RLERROR: u8 = 7;
    pub const TSTATFS: u8 = 8;
    pub const TLOPEN: u8 = 12;
    pub const TLCREATE: u8 = 14;
    pub const TSYMLINK: u8 = 16;
    pub const TMKNOD: u8 = 18;
    pub const TRENAME: u8 = 20;
    pub const TREADLINK: u8 = 22;
    pub const TGETATTR: u8 = 24;
    pub const TSETATTR: u8 = 26;
    pub const TXATTRWALK: u8 = 30;
    pub const TXATTRCREATE: u8 = 32;
    pub const TREADDIR: u8 = 40;
    pub const TFSYNC: u8 = 50;
    pub const TLINK: u8 = 70;
    pub const TMKDIR: u8 = 72;
    pub const TRENAMEAT: u8 = 74;
    pub const TUNLINKAT: u8 = 76;
    pub const TVERSION: u8 = 100;
    pub const TATTACH: u8 = 104;
    pub const TFLUSH: u8 = 108;
    pub const TWALK: u8 = 110;
    pub const TREAD: u8 = 116;
    pub const TWRITE: u8 = 118;
    pub const TCLUNK: u8 = 120;
    pub const TREMOVE: u8 = 122;
}

/// Why not, as Linux numbers it (`include/uapi/asm-generic/errno-base.h`, `errno.h`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// There is nothing of that name.
    ENOENT = 2,
    /// There is no such fid, or it is not open.
    EBADF = 9,
    /// There is no memory for another fid.
    ENOMEM = 12,
    /// It is no directory.
    ENOTDIR = 20,
    /// It is a directory.
    EISDIR = 21,
    /// It makes no sense.
    EINVAL = 22,
    /// There are too many fids.
    ENFILE = 23,
    /// Nobody writes here.
    EROFS = 30,
    /// There was no `Tversion`.
    EPROTO = 71,
    /// The message ends too early.
    EBADMSG = 74,
    /// The message, or the room for its answer, has the wrong size.
    EMSGSIZE = 90,
    /// There is no such message.
    EOPNOTSUPP = 95,
}

/// Takes fields off the front of a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Errno> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Errno::EBADMSG)?;
        self.0 = rest;
        Ok(*bytes)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, Errno> {
        self.take().map(u8::from_le_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, Errno> {
        self.take().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Errno> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Errno> {
        self.take().map(u64::from_le_bytes)
    }

    /// A `name[s]`: its length in two bytes, then as many. Nobody vouches for it being text.
    pub(crate) fn text(&mut self) -> Result<&'a [u8], Errno> {
        let length = self.u16()?;
        let (text, rest) = self.0.split_at_checked(length.into()).ok_or(Errno::EBADMSG)?;
        self.0 = rest;
        Ok(text)
    }
}

/// Storage for one answer after the other: allocated once.
#[derive(Debug)]
pub struct Answer {
    bytes: Vec<u8>,
    data: &'static [u8],
}

impl Default for Answer {
    fn default() -> Self {
        Self { bytes: Vec::with_capacity(ANSWER), data: &[] }
    }
}

impl Answer {
    /// The answer's bytes, but for its data.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// What comes behind them: a part of a file.
    #[must_use]
    pub const fn data(&self) -> &'static [u8] {
        self.data
    }

    /// Begins an answer of this type. Its size is put in at the end.
    pub(crate) fn begin(&mut self, kind: u8, tag: u16) {
        self.bytes.clear();
        self.data = &[];
        self.u32(0);
        self.u8(kind);
        self.u16(tag);
    }

    /// There is none, as nobody could read it.
    pub(crate) fn none(&mut self) {
        self.bytes.clear();
        self.data = &[];
    }

    /// `Rlerror`, in place of what has been begun; without a tag if none could be read.
    pub(crate) fn error(&mut self, tag: Option<u16>, error: Errno) {
        self.begin(kind::RLERROR, tag.unwrap_or(NOTAG));
        self.u32(error as u32);
    }

    /// Puts the size in front, all included.
    pub(crate) fn end(&mut self) {
        let size = u32::try_from(self.length()).unwrap_or(u32::MAX);
        if let Some(place) = self.bytes.first_chunk_mut() {
            *place = size.to_le_bytes();
        }
    }

    /// How long it is, all included.
    pub(crate) fn length(&self) -> usize {
        self.bytes.len().saturating_add(self.data.len())
    }

    /// More is not put in than there is room for: what an answer can hold is counted before, where it is the client's choice.
    fn put(&mut self, bytes: &[u8]) {
        if self.bytes.len().saturating_add(bytes.len()) <= ANSWER {
            self.bytes.extend_from_slice(bytes);
        }
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.put(&[value]);
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.put(&value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.put(&value.to_le_bytes());
    }

    /// A `name[s]`. No name here is longer than its length can say.
    pub(crate) fn text(&mut self, text: &str) {
        self.u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
        self.put(text.as_bytes());
    }

    /// Ends it with a part of a file, with its length in front.
    pub(crate) fn set_data(&mut self, data: &'static [u8]) {
        self.u32(u32::try_from(data.len()).unwrap_or(u32::MAX));
        self.data = data;
    }

    /// Puts the length of all that came behind it into a `count[4]` right behind the header.
    pub(crate) fn set_count(&mut self) {
        let count = self.bytes.len().saturating_sub(HEADER).saturating_sub(4);
        self.overwrite(u32::try_from(count).unwrap_or(u32::MAX).to_le_bytes());
    }

    /// Puts a number into an `nwqid[2]` right behind the header.
    pub(crate) fn set_walked(&mut self, walked: u16) {
        self.overwrite(walked.to_le_bytes());
    }

    fn overwrite<const N: usize>(&mut self, field: [u8; N]) {
        if let Some(place) = self.bytes.get_mut(HEADER..).and_then(<[u8]>::first_chunk_mut) {
            *place = field;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_little_endian_and_end_with_the_message() {
        let mut fields =
            Fields(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 2, 0, b'o', b'k', 3, 0, b'n', b'o']);
        assert_eq!((fields.u8(), fields.u16(), fields.u32()), (Ok(1), Ok(0x0302), Ok(0x0706_0504)));
        assert_eq!(fields.u64(), Ok(0x0f0e_0d0c_0b0a_0908));
        assert_eq!(fields.text(), Ok(&b"ok"[..]));
        assert_eq!(fields.text(), Err(Errno::EBADMSG), "two bytes of three");
        assert_eq!((Fields(&[1, 2, 3]).u32(), Fields(&[]).u8()), (Err(Errno::EBADMSG), Err(Errno::EBADMSG)));
    }

    #[test]
    fn an_answer_says_how_long_it_is() {
        let mut answer = Answer::default();
        answer.begin(117, 0x0102);
        answer.set_data(b"data");
        answer.end();
        assert_eq!(answer.bytes(), [15, 0, 0, 0, 117, 2, 1, 4, 0, 0, 0]);
        assert_eq!(answer.data(), b"data");
        answer.error(None, Errno::EROFS);
        answer.end();
        assert_eq!((answer.bytes(), answer.data()), (&[11, 0, 0, 0, 7, 0xff, 0xff, 30, 0, 0, 0][..], &b""[..]));
    }
}
