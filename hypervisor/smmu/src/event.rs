//! Event records: 32 bytes each, as little-endian words (IHI 0070, 7.3).
//!
//! Answers for: what a record says, in fields and, by `Display`, as a sentence. Does not answer for: whose stream it is.

use crate::bits::Field;
use core::fmt;
use types::{Ipa, Pa};

// Word 0.
const NUMBER: Field = Field::bits(7, 0);
const SSV: Field = Field::bit(11);
const SUBSTREAM: Field = Field::bits(31, 12);
const STREAM: Field = Field::bits(63, 32);
// Word 1: bits 127 to 64.
const STAG: Field = Field::bits(15, 0);
const STALL: Field = Field::bit(31);
const PNU: Field = Field::bit(33);
const IND: Field = Field::bit(34);
const RNW: Field = Field::bit(35);
const S2: Field = Field::bit(39);
const CLASS: Field = Field::bits(41, 40);
// Word 3: bits 255 to 192.
const FETCH_ADDRESS: Field = Field::bits(55, 3);
const IPA: Field = Field::bits(55, 12);

/// What has happened. The names are the specification's, without `F_`, `C_` or `E_`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Kind {
    /// A transaction of a type that the SMMU does not support.
    Uut,
    /// No such stream.
    BadStreamId,
    /// The stream's entry could not be read.
    SteFetch,
    /// The stream's entry is not valid: nobody owns the stream.
    BadSte,
    /// A translation request of a device that may not make any.
    BadAtsTreq,
    /// Transactions without substream, or of substream 0, are switched off.
    StreamDisabled,
    /// A translated transaction of a device that may not make any.
    TranslForbidden,
    /// No such substream.
    BadSubstreamId,
    /// A context descriptor could not be read.
    CdFetch,
    /// A context descriptor is not valid.
    BadCd,
    /// A translation table could not be read.
    WalkEabt,
    /// There is no translation.
    Translation,
    /// A translation led to an address that is too long.
    AddrSize,
    /// The access flag is clear.
    Access,
    /// Such an access is not permitted.
    Permission,
    /// Two translations of one address were cached.
    TlbConflict,
    /// Two entries of one stream were cached.
    CfgConflict,
    /// A device speculates on a page.
    PageRequest,
    /// A VM structure could not be read.
    VmsFetch,
    /// Another event, of this number.
    Other(u8),
}

/// Whose fetch or access has faulted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Class {
    /// The SMMU's, of a context descriptor.
    Cd,
    /// The SMMU's, of a stage 1 table.
    Ttd,
    /// The transaction's own.
    Input,
}

/// What is recorded of a fault in translation.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Fault {
    /// At stage 2, else at stage 1.
    pub stage2: bool,
    /// Whose access it was.
    pub class: Class,
    /// At stage 2, what address of the VM's was to be translated (its page).
    pub ipa: Option<Ipa>,
    /// The transaction is stalled and waits under this number.
    pub stalled: Option<u16>,
}

/// A record.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Event {
    /// What has happened.
    pub kind: Kind,
    /// In which stream.
    pub stream: u32,
    /// In which substream, if the transaction had one.
    pub substream: Option<u32>,
    /// At which address of the device's.
    pub address: Option<u64>,
    /// Whether the transaction was a read; a write otherwise.
    pub is_read: Option<bool>,
    /// Whether it was privileged.
    pub is_privileged: Option<bool>,
    /// Whether it was to fetch instructions.
    pub is_instruction: Option<bool>,
    /// More, for a fault in translation.
    pub fault: Option<Fault>,
    /// What the SMMU tried to read.
    pub fetch: Option<Pa>,
}

impl Kind {
    const fn of(number: u8) -> Self {
        match number {
            0x01 => Self::Uut,
            0x02 => Self::BadStreamId,
            0x03 => Self::SteFetch,
            0x04 => Self::BadSte,
            0x05 => Self::BadAtsTreq,
            0x06 => Self::StreamDisabled,
            0x07 => Self::TranslForbidden,
            0x08 => Self::BadSubstreamId,
            0x09 => Self::CdFetch,
            0x0a => Self::BadCd,
            0x0b => Self::WalkEabt,
            0x10 => Self::Translation,
            0x11 => Self::AddrSize,
            0x12 => Self::Access,
            0x13 => Self::Permission,
            0x20 => Self::TlbConflict,
            0x21 => Self::CfgConflict,
            0x24 => Self::PageRequest,
            0x25 => Self::VmsFetch,
            other => Self::Other(other),
        }
    }

    const fn number(self) -> u8 {
        match self {
            Self::Uut => 0x01,
            Self::BadStreamId => 0x02,
            Self::SteFetch => 0x03,
            Self::BadSte => 0x04,
            Self::BadAtsTreq => 0x05,
            Self::StreamDisabled => 0x06,
            Self::TranslForbidden => 0x07,
            Self::BadSubstreamId => 0x08,
            Self::CdFetch => 0x09,
            Self::BadCd => 0x0a,
            Self::WalkEabt => 0x0b,
            Self::Translation => 0x10,
            Self::AddrSize => 0x11,
            Self::Access => 0x12,
            Self::Permission => 0x13,
            Self::TlbConflict => 0x20,
            Self::CfgConflict => 0x21,
            Self::PageRequest => 0x24,
            Self::VmsFetch => 0x25,
            Self::Other(number) => number,
        }
    }

    /// The specification's name, and what it means.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Uut => ("F_UUT", "is of a type that the SMMU does not support"),
            Self::BadStreamId => ("C_BAD_STREAMID", "comes from a stream that nobody owns, beyond the table"),
            Self::SteFetch => ("F_STE_FETCH", "met a stream table that cannot be read"),
            Self::BadSte => ("C_BAD_STE", "comes from a stream that nobody owns"),
            Self::BadAtsTreq => ("F_BAD_ATS_TREQ", "asks for a translation, which it may not"),
            Self::StreamDisabled => ("F_STREAM_DISABLED", "comes without a substream that it needs"),
            Self::TranslForbidden => ("F_TRANSL_FORBIDDEN", "claims to be translated already"),
            Self::BadSubstreamId => ("C_BAD_SUBSTREAMID", "comes with a substream that there is none of"),
            Self::CdFetch => ("F_CD_FETCH", "met a context descriptor that cannot be read"),
            Self::BadCd => ("C_BAD_CD", "met a context descriptor that is not valid"),
            Self::WalkEabt => ("F_WALK_EABT", "met a translation table that cannot be read"),
            Self::Translation => ("F_TRANSLATION", "is not mapped"),
            Self::AddrSize => ("F_ADDR_SIZE", "is mapped to an address that is too long"),
            Self::Access => ("F_ACCESS", "met a clear access flag"),
            Self::Permission => ("F_PERMISSION", "is not permitted"),
            Self::TlbConflict => ("F_TLB_CONFLICT", "met two cached translations"),
            Self::CfgConflict => ("F_CFG_CONFLICT", "met two cached stream table entries"),
            Self::PageRequest => ("E_PAGE_REQUEST", "is only speculated on"),
            Self::VmsFetch => ("F_VMS_FETCH", "met a VM structure that cannot be read"),
            Self::Other(_) => ("unknown event", "was recorded"),
        }
    }
}

impl Event {
    /// From a copy of the record. What is not of this version of the architecture is [`Kind::Other`]: not fatal (7.3).
    #[must_use]
    pub fn decode([word0, word1, word2, word3]: [u64; 4]) -> Self {
        let kind = Kind::of(NUMBER.get8(word0));
        let in_translation = matches!(kind, Kind::Translation | Kind::AddrSize | Kind::Access | Kind::Permission);
        let has_fault = in_translation || matches!(kind, Kind::WalkEabt | Kind::TlbConflict);
        let has_attributes = has_fault || matches!(kind, Kind::Uut);
        let has_address =
            has_attributes || matches!(kind, Kind::BadAtsTreq | Kind::TranslForbidden | Kind::PageRequest);
        let has_fetch = matches!(kind, Kind::SteFetch | Kind::CdFetch | Kind::VmsFetch | Kind::WalkEabt);
        let stage2 = S2.is_set(word1);
        let has_ipa = stage2 && (in_translation || matches!(kind, Kind::TlbConflict));
        // No SSV there: the substream is what is wrong (7.3.9).
        let has_substream = SSV.is_set(word0) || matches!(kind, Kind::BadSubstreamId);
        Self {
            kind,
            stream: STREAM.get32(word0),
            substream: has_substream.then(|| SUBSTREAM.get32(word0)),
            address: has_address.then_some(word2),
            is_read: (has_attributes || matches!(kind, Kind::TranslForbidden)).then(|| RNW.is_set(word1)),
            is_privileged: has_attributes.then(|| PNU.is_set(word1)),
            is_instruction: has_attributes.then(|| IND.is_set(word1)),
            fault: has_fault.then(|| Fault {
                stage2,
                class: match CLASS.get(word1) {
                    0 if in_translation => Class::Cd,
                    1 => Class::Ttd,
                    _ => Class::Input,
                },
                ipa: has_ipa.then_some(Ipa(word3 & IPA.mask())),
                stalled: (in_translation && STALL.is_set(word1)).then(|| STAG.get16(word1)),
            }),
            fetch: has_fetch.then_some(Pa(word3 & FETCH_ADDRESS.mask())),
        }
    }
}

impl Event {
    /// One that has nothing but its kind and its stream.
    #[must_use]
    pub const fn new(kind: Kind, stream: u32) -> Self {
        Self {
            kind,
            stream,
            substream: None,
            address: None,
            is_read: None,
            is_privileged: None,
            is_instruction: None,
            fault: None,
            fetch: None,
        }
    }

    /// Whether a guest's own stage 1 is the reason, or that it has one: if its stream goes through one, or it has just changed that. Not a
    /// fault at stage 2, which is a reach beyond the VM.
    #[must_use]
    pub fn is_of_stage1(&self) -> bool {
        match self.kind {
            Kind::BadSte | Kind::StreamDisabled | Kind::BadSubstreamId | Kind::BadCd | Kind::CdFetch => true,
            Kind::Translation
            | Kind::AddrSize
            | Kind::Access
            | Kind::Permission
            | Kind::TlbConflict
            | Kind::WalkEabt => self.fault.is_some_and(|fault| !fault.stage2),
            _ => false,
        }
    }

    /// Whether it is what the device behind the stream has asked for that is wrong: not if the stream's entry is not valid, as it is until
    /// its owner's stands, or cannot be read. That it still sends what its last owner, or firmware, has told it is no fault of the next.
    #[must_use]
    pub const fn accuses(&self) -> bool {
        !matches!(self.kind, Kind::BadSte | Kind::BadStreamId | Kind::SteFetch | Kind::CfgConflict | Kind::VmsFetch)
    }

    /// The record as an SMMU writes it: [`Event::decode`] says the same of it.
    #[must_use]
    pub fn encode(&self) -> [u64; 4] {
        let flag = |field: Field, is_set: Option<bool>| field.of(u64::from(is_set.unwrap_or(false)));
        // 7.3.9 has no SSV.
        let has_flag = self.substream.is_some() && !matches!(self.kind, Kind::BadSubstreamId);
        let word0 = NUMBER.of(u64::from(self.kind.number()))
            | flag(SSV, Some(has_flag))
            | SUBSTREAM.of(u64::from(self.substream.unwrap_or(0)))
            | STREAM.of(u64::from(self.stream));
        let attributes = flag(RNW, self.is_read) | flag(PNU, self.is_privileged) | flag(IND, self.is_instruction);
        let fault = self.fault.map_or(0, |fault| {
            let class = match fault.class {
                Class::Cd => 0,
                Class::Ttd => 1,
                Class::Input => 2,
            };
            let stall = fault.stalled.map_or(0, |tag| STALL.mask() | STAG.of(u64::from(tag)));
            flag(S2, Some(fault.stage2)) | CLASS.of(class) | stall
        });
        let ipa = self.fault.and_then(|fault| fault.ipa).map_or(0, |ipa| ipa.0 & IPA.mask());
        let fetch = self.fetch.map_or(0, |at| at.0 & FETCH_ADDRESS.mask());
        [word0, attributes | fault, self.address.unwrap_or(0), ipa | fetch]
    }
}

impl fmt::Display for Event {
    /// As `stream 0x10: write at 0x8000 is not mapped by stage 2 (F_TRANSLATION)`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, meaning) = self.kind.words();
        write!(f, "stream {:#x}", self.stream)?;
        if let Some(substream) = self.substream {
            write!(f, " substream {substream:#x}")?;
        }
        f.write_str(match (self.is_read, self.is_instruction) {
            (Some(true), Some(true)) => ": instruction fetch",
            (Some(true), _) => ": read",
            (Some(false), _) => ": write",
            (None, _) => ": a transaction",
        })?;
        if let Some(address) = self.address {
            write!(f, " at {address:#x}")?;
        }
        write!(f, " {meaning}")?;
        if let Some(fault) = self.fault {
            f.write_str(if fault.stage2 { " by stage 2" } else { " by stage 1" })?;
            match fault.class {
                Class::Input => {}
                Class::Cd => f.write_str(", at a context descriptor")?,
                Class::Ttd => f.write_str(", at a stage 1 table")?,
            }
            if let Some(ipa) = fault.ipa.filter(|ipa| self.address.is_none_or(|address| address >> 12 != ipa.0 >> 12)) {
                write!(f, ", VM's address {ipa}")?;
            }
            if fault.stalled.is_some() {
                f.write_str(", stalled")?;
            }
        }
        if let Some(fetch) = self.fetch {
            write!(f, ", at {fetch}")?;
        }
        match self.kind {
            Kind::Other(number) => write!(f, " ({number:#x})"),
            _ => write!(f, " ({name})"),
        }
    }
}

/// Bytes of a record, as a power of two.
pub(crate) const BYTES_LOG2: u32 = 5;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use proptest::prelude::*;

    fn words(number: u64) -> [u64; 4] {
        [number | 0x10 << 32, 0, 0, 0]
    }

    fn said(words: [u64; 4]) -> alloc::string::String {
        Event::decode(words).to_string()
    }

    #[test]
    fn what_stage_2_stops_is_not_of_stage_1() {
        let fault = Fault { stage2: false, class: Class::Input, ipa: None, stalled: None };
        for kind in
            [Kind::Translation, Kind::AddrSize, Kind::Access, Kind::Permission, Kind::TlbConflict, Kind::WalkEabt]
        {
            let event = Event { fault: Some(fault), ..Event::new(kind, 3) };
            assert!(event.is_of_stage1());
            for class in [Class::Input, Class::Cd, Class::Ttd] {
                let fault = Some(Fault { stage2: true, class, ..fault });
                assert!(!Event { fault, ..event }.is_of_stage1(), "{kind:?}");
            }
        }
        for kind in [Kind::BadSte, Kind::BadCd, Kind::CdFetch, Kind::StreamDisabled, Kind::BadSubstreamId] {
            assert!(Event::new(kind, 3).is_of_stage1());
        }
        for kind in [Kind::Uut, Kind::TranslForbidden, Kind::BadAtsTreq, Kind::BadStreamId, Kind::SteFetch] {
            assert!(!Event::new(kind, 3).is_of_stage1());
        }
    }

    #[test]
    fn a_device_answers_for_what_it_asks_for_and_not_for_its_streams_entry() {
        for kind in [Kind::BadSte, Kind::BadStreamId, Kind::SteFetch] {
            assert!(!Event::new(kind, 3).accuses(), "{kind:?}");
        }
        for kind in [Kind::Translation, Kind::Permission, Kind::AddrSize, Kind::Uut, Kind::TranslForbidden] {
            assert!(Event::new(kind, 3).accuses(), "{kind:?}");
        }
    }

    #[test]
    fn a_device_that_reaches_too_far_is_told_of() {
        let mut record = words(0x10);
        // Stage 2, class IN, unprivileged data write.
        record[1] = 1 << 39 | 2 << 40;
        record[2] = 0x8000_1234;
        record[3] = 0x8000_1000;
        let event = Event::decode(record);
        assert_eq!((event.kind, event.stream, event.substream), (Kind::Translation, 0x10, None));
        assert_eq!((event.address, event.is_read, event.is_privileged), (Some(0x8000_1234), Some(false), Some(false)));
        let fault = Fault { stage2: true, class: Class::Input, ipa: Some(Ipa(0x8000_1000)), stalled: None };
        assert_eq!(event.fault, Some(fault));
        assert_eq!(event.to_string(), "stream 0x10: write at 0x80001234 is not mapped by stage 2 (F_TRANSLATION)");
        record[1] |= 1 << 35 | 1 << 34;
        record[3] = 0x9000_0000;
        record[0] |= 1 << 11 | 5 << 12;
        assert_eq!(
            said(record),
            "stream 0x10 substream 0x5: instruction fetch at 0x80001234 is not mapped by stage 2, VM's address 0x90000000 (F_TRANSLATION)"
        );
    }

    #[test]
    fn every_record_is_read_by_its_own_form() {
        let addressed = |number: u64| {
            let event = Event::decode([number | 0x10 << 32, u64::MAX, 0x1000, u64::MAX]);
            (event.address.is_some(), event.is_read.is_some(), event.fault.is_some(), event.fetch.is_some())
        };
        for number in [0x02, 0x04, 0x06, 0x08, 0x0a, 0x21, 0xe0, 0xff] {
            assert_eq!(addressed(number), (false, false, false, false), "{number:#x}");
        }
        for number in [0x03, 0x09, 0x25] {
            assert_eq!(addressed(number), (false, false, false, true), "{number:#x}");
        }
        for number in [0x10, 0x11, 0x12, 0x13, 0x20] {
            assert_eq!(addressed(number), (true, true, true, false), "{number:#x}");
        }
        assert_eq!(addressed(0x01), (true, true, false, false));
        assert_eq!(addressed(0x05), (true, false, false, false));
        assert_eq!(addressed(0x07), (true, true, false, false));
        assert_eq!(addressed(0x0b), (true, true, true, true));
        assert_eq!(addressed(0x24), (true, false, false, false));
    }

    #[test]
    fn fields_are_where_the_specification_has_them() {
        let fault = |word1: u64| Event::decode([0x13, word1, 0, 0]).fault.unwrap();
        assert_eq!(fault(0).class, Class::Cd);
        assert_eq!(fault(1 << 40).class, Class::Ttd);
        assert_eq!(fault(2 << 40).class, Class::Input);
        assert_eq!(fault(1 << 31 | 0xabcd).stalled, Some(0xabcd));
        assert_eq!(fault(0xabcd).stalled, None);
        assert_eq!(fault(0).ipa, None, "7.3.13: only at stage 2");
        let event = |word1: u64| Event::decode([0x13, word1, 0, 0]);
        assert_eq!(event(1 << 33).is_privileged, Some(true));
        assert_eq!(event(1 << 34).is_instruction, Some(true));
        assert_eq!(event(1 << 35).is_read, Some(true));
        assert_eq!(Event::decode([0x08 | 0xabcde << 12, 0, 0, 0]).substream, Some(0xabcde), "7.3.9: no SSV");
        assert_eq!(Event::decode([0x04 | 0xabcde << 12, 0, 0, 0]).substream, None);
        assert_eq!(Event::decode([0x03, 0, 0, u64::MAX]).fetch, Some(Pa(0x00ff_ffff_ffff_fff8)));
    }

    #[test]
    fn a_record_is_made_with_its_fields_where_the_specification_has_them() {
        assert_eq!(Event::new(Kind::BadSte, 0x10).encode(), [0x10_0000_0004, 0, 0, 0]);
        let fault = Fault { stage2: false, class: Class::Ttd, ipa: None, stalled: None };
        let event = Event {
            substream: Some(5),
            address: Some(0x1234_5678),
            is_read: Some(true),
            is_privileged: Some(true),
            is_instruction: Some(false),
            fault: Some(fault),
            ..Event::new(Kind::Permission, 7)
        };
        assert_eq!(event.encode(), [7 << 32 | 5 << 12 | 1 << 11 | 0x13, 1 << 40 | 1 << 35 | 1 << 33, 0x1234_5678, 0]);
        let substream = Event { substream: Some(3), ..Event::new(Kind::BadSubstreamId, 1) };
        assert_eq!(substream.encode()[0], 1 << 32 | 3 << 12 | 0x08, "7.3.9: no SSV");
    }

    #[test]
    fn sentences_name_stream_and_kind() {
        assert_eq!(said(words(0x04)), "stream 0x10: a transaction comes from a stream that nobody owns (C_BAD_STE)");
        assert_eq!(said(words(0xe3)), "stream 0x10: a transaction was recorded (0xe3)");
        let mut walk = words(0x0b);
        walk[1] = 1 << 39 | 2 << 40 | 1 << 35;
        walk[2] = 0x7000;
        walk[3] = 0x4000_0018;
        assert_eq!(
            said(walk),
            "stream 0x10: read at 0x7000 met a translation table that cannot be read by stage 2, at 0x40000018 (F_WALK_EABT)"
        );
        let mut table = words(0x10);
        table[1] = 1 << 39 | 1 << 40;
        assert!(said(table).contains(", at a stage 1 table"));
    }

    proptest! {
        #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn whatever_is_recorded_can_be_told(words: [u64; 4]) {
            prop_assert!(!said(words).is_empty());
        }

        #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
        fn what_is_said_of_a_record_makes_one_that_says_the_same(words: [u64; 4], number in 0_u64..0x30) {
            let event = Event::decode([words[0] & !0xff | number, words[1], words[2], words[3]]);
            prop_assert_eq!(Event::decode(event.encode()), event);
        }
    }
}
