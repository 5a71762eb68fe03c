//! The file that a trace is kept in: a header of 32 bytes, then records ([`crate::Event`]), those of one CPU in their order.

use crate::event::{RECORD, Record};
use crate::{Event, bytes};
use core::fmt;
use types::{Frequency, Ticks};

/// How a capture begins; the last byte is the version of its form.
pub const MAGIC: [u8; 8] = *b"BHTRACE\x01";

/// What a capture begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Of the system counter.
    pub frequency: Frequency,
    /// When the trace began.
    pub start: Ticks,
    /// How many CPUs there are.
    pub cpus: u64,
}

impl Header {
    /// As it stands in the file.
    #[must_use]
    pub fn encode(&self) -> [u8; RECORD] {
        bytes(&[u64::from_le_bytes(MAGIC), self.frequency.hertz().into(), self.start.0, self.cpus])
    }

    fn decode(&[magic, hertz, start, cpus]: &Record) -> Option<Self> {
        let frequency = Frequency::new(u32::try_from(hertz).ok()?)?;
        (magic == u64::from_le_bytes(MAGIC)).then_some(Self { frequency, start: Ticks(start), cpus })
    }
}

/// A capture that has been read.
#[derive(Clone, Copy, Debug)]
pub struct Capture<'a> {
    /// What it begins with.
    pub header: Header,
    records: &'a [u8],
}

/// A file is no capture, or not a whole one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Damaged {
    /// It does not begin as a capture of this version does.
    Header,
    /// Its length is none that a capture can have.
    Length,
}

impl fmt::Display for Damaged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "it does not begin as a capture does",
            Self::Length => "its end is missing",
        })
    }
}

impl core::error::Error for Damaged {}

impl<'a> Capture<'a> {
    /// Reads the header.
    ///
    /// # Errors
    /// If the file is none, or not whole.
    pub fn new(file: &'a [u8]) -> Result<Self, Damaged> {
        let (first, records) = file.split_at_checked(RECORD).ok_or(Damaged::Header)?;
        let header = Header::decode(&words(first)).ok_or(Damaged::Header)?;
        if records.len().is_multiple_of(RECORD) { Ok(Self { header, records }) } else { Err(Damaged::Length) }
    }

    /// All events in the order of the file; `None` for one that this version does not know.
    pub fn events(&self) -> impl Iterator<Item = Option<Event>> + use<'a> {
        self.records.chunks_exact(RECORD).map(|record| Event::decode(&words(record)))
    }
}

fn words(bytes: &[u8]) -> Record {
    let mut words = [0; 4];
    for (to, from) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *to = from.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
    }
    words
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use crate::What;
    use std::vec::Vec;
    use types::VcpuId;

    fn header() -> Header {
        Header { frequency: Frequency::new(62_500_000).unwrap(), start: Ticks(77), cpus: 2 }
    }

    #[test]
    fn what_was_written_is_read() {
        let event = Event { at: Ticks(80), cpu: 1, vm: 1, vcpu: VcpuId(0), what: What::Entry { pc: 0x8000_0000 } };
        let mut file = header().encode().to_vec();
        file.extend(bytes(&event.encode()));
        file.extend([0xff; RECORD]);
        let capture = Capture::new(&file).unwrap();
        assert_eq!(capture.header, header());
        assert_eq!(capture.events().collect::<Vec<_>>(), [Some(event), None]);
    }

    #[test]
    fn what_is_no_capture_or_not_whole_is_refused() {
        let file = header().encode();
        assert!(Capture::new(&file).is_ok(), "nothing has happened");
        assert_eq!(Capture::new(&file[..31]).unwrap_err(), Damaged::Header);
        assert_eq!(Capture::new(&[file.as_slice(), &[0]].concat()).unwrap_err(), Damaged::Length);
        for (at, byte) in [(0, b'X'), (7, 2), (12, 1)] {
            let mut file = file;
            file[at] = byte;
            assert_eq!(Capture::new(&file).unwrap_err(), Damaged::Header, "byte {at}");
        }
        let mut stopped = file;
        stopped[8..16].fill(0);
        assert_eq!(Capture::new(&stopped).unwrap_err(), Damaged::Header, "a counter that does not count");
    }
}
