//! Commands: 16 bytes each, as little-endian words (IHI 0070, chapter 4).
//!
//! Answers for: the commands of the Non-secure queue, both ways: what this hypervisor gives to an SMMU, and what a guest
//! gives to a virtual one. Does not answer for: queues, and whether a guest may have what it asks for.

use crate::bits::Field;
use types::Pa;

// Word 0.
const OPCODE: Field = Field::bits(7, 0);
const SSEC: Field = Field::bit(10);
const SSV: Field = Field::bit(11);
const SUBSTREAM: Field = Field::bits(31, 12);
const STREAM: Field = Field::bits(63, 32);
const NUM: Field = Field::bits(16, 12);
const SCALE: Field = Field::bits(24, 20);
const VMID: Field = Field::bits(47, 32);
const ASID: Field = Field::bits(63, 48);
const GLOBAL: Field = Field::bit(9);
const AC: Field = Field::bit(12);
const AB: Field = Field::bit(13);
const CS: Field = Field::bits(13, 12);
const MSH: Field = Field::bits(23, 22);
const MSIATTR: Field = Field::bits(27, 24);
const MSIDATA: Field = Field::bits(63, 32);
// Word 1.
const LEAF: Field = Field::bit(0);
const RANGE: Field = Field::bits(4, 0);
const TTL: Field = Field::bits(9, 8);
const TG: Field = Field::bits(11, 10);
const ADDRESS: Field = Field::bits(63, 12);
const SIZE: Field = Field::bits(5, 0);
const PRG_INDEX: Field = Field::bits(8, 0);
const RESP: Field = Field::bits(13, 12);
const STAG: Field = Field::bits(15, 0);
const MSIADDRESS: Field = Field::bits(55, 2);

mod opcode {
    pub(super) const PREFETCH_CONFIG: u64 = 0x01;
    pub(super) const PREFETCH_ADDR: u64 = 0x02;
    pub(super) const CFGI_STE: u64 = 0x03;
    pub(super) const CFGI_STE_RANGE: u64 = 0x04;
    pub(super) const CFGI_CD: u64 = 0x05;
    pub(super) const CFGI_CD_ALL: u64 = 0x06;
    pub(super) const TLBI_NH_ALL: u64 = 0x10;
    pub(super) const TLBI_NH_ASID: u64 = 0x11;
    pub(super) const TLBI_NH_VA: u64 = 0x12;
    pub(super) const TLBI_NH_VAA: u64 = 0x13;
    pub(super) const TLBI_EL2_ALL: u64 = 0x20;
    pub(super) const TLBI_S12_VMALL: u64 = 0x28;
    pub(super) const TLBI_S2_IPA: u64 = 0x2a;
    pub(super) const TLBI_NSNH_ALL: u64 = 0x30;
    pub(super) const ATC_INV: u64 = 0x40;
    pub(super) const PRI_RESP: u64 = 0x41;
    pub(super) const RESUME: u64 = 0x44;
    pub(super) const STALL_TERM: u64 = 0x45;
    pub(super) const SYNC: u64 = 0x46;
}

/// `CMD_CFGI_STE_RANGE` with this range is `CMD_CFGI_ALL` (4.3.6).
const ALL: u8 = 31;

/// A command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Command {
    /// `CMD_PREFETCH_CONFIG` or, from a guest, `CMD_PREFETCH_ADDR`: hints that mean nothing here.
    Prefetch {
        /// Of which stream.
        stream: u32,
    },
    /// `CMD_CFGI_STE`: what is cached of a stream's entry, and of all context descriptors behind it.
    CfgiSte {
        /// Which stream.
        stream: u32,
        /// Not of the first-level descriptor above it.
        leaf: bool,
    },
    /// `CMD_CFGI_STE_RANGE`: of 2^(range + 1) streams, aligned; also of first-level descriptors.
    CfgiSteRange {
        /// One of them.
        stream: u32,
        /// 0 to 30.
        range: u8,
    },
    /// `CMD_CFGI_ALL`: of all streams.
    CfgiAll,
    /// `CMD_CFGI_CD`: of one context descriptor.
    CfgiCd {
        /// Of which stream.
        stream: u32,
        /// Which.
        substream: u32,
        /// Not of the first-level descriptor above it.
        leaf: bool,
    },
    /// `CMD_CFGI_CD_ALL`: of all context descriptors of a stream.
    CfgiCdAll {
        /// Which stream.
        stream: u32,
    },
    /// `CMD_TLBI_NH_ALL`: all of stage 1, combined entries too.
    TlbiNhAll {
        /// Of which VM.
        vmid: u16,
    },
    /// `CMD_TLBI_NH_ASID`: of stage 1.
    TlbiNhAsid {
        /// Of which VM.
        vmid: u16,
        /// Of which address space.
        asid: u16,
    },
    /// `CMD_TLBI_NH_VA`: of stage 1.
    TlbiNhVa {
        /// Of which VM.
        vmid: u16,
        /// Of which address space.
        asid: u16,
        /// Which addresses.
        reach: Reach,
    },
    /// `CMD_TLBI_NH_VAA`: of stage 1, all address spaces.
    TlbiNhVaa {
        /// Of which VM.
        vmid: u16,
        /// Which addresses.
        reach: Reach,
    },
    /// `CMD_TLBI_EL2_ALL`.
    TlbiEl2All,
    /// `CMD_TLBI_S12_VMALL`: both stages.
    TlbiS12Vmall {
        /// Of which VM.
        vmid: u16,
    },
    /// `CMD_TLBI_S2_IPA`: of stage 2, but not what is combined with a stage 1.
    TlbiS2Ipa {
        /// Of which VM.
        vmid: u16,
        /// Which addresses.
        reach: Reach,
    },
    /// `CMD_TLBI_NSNH_ALL`: of all VMs.
    TlbiNsnhAll,
    /// `CMD_ATC_INV`: in a device's own cache of translations.
    AtcInv {
        /// Which stream.
        stream: u32,
        /// Which substream, if any.
        substream: Option<u32>,
        /// In all substreams.
        global: bool,
        /// From this address on, a multiple of 4 KiB.
        address: u64,
        /// 4 KiB times two to the power of this; 52 is everything.
        size: u8,
    },
    /// `CMD_PRI_RESP`: the answer to a page request group.
    PriResp {
        /// Which stream.
        stream: u32,
        /// Which substream, if any.
        substream: Option<u32>,
        /// Which group.
        group: u16,
        /// The answer.
        response: PageResponse,
    },
    /// `CMD_RESUME`: what becomes of a stalled transaction.
    Resume {
        /// Which stream.
        stream: u32,
        /// Which transaction, from its event.
        stag: u16,
        /// What becomes of it.
        action: Action,
    },
    /// `CMD_STALL_TERM`: all stalled transactions of a stream are terminated.
    StallTerm {
        /// Which stream.
        stream: u32,
    },
    /// `CMD_SYNC`: consumed when all commands before it are complete.
    Sync(Signal),
}

/// Which addresses an invalidation reaches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reach {
    /// The first, a multiple of 4 KiB.
    pub address: u64,
    /// Only what was cached of descriptors of the last level.
    pub leaf: bool,
    /// More than what the one address is mapped by; only where the SMMU has range invalidation.
    pub range: Option<Range>,
}

/// (`num` + 1) · 2^`scale` granules (4.4.1.1). `num`, `scale` and `level` are not all 0.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    /// `TG`: 1 is 4 KiB, 2 is 16 KiB, 3 is 64 KiB.
    pub granule: u8,
    /// `SCALE`, 0 to 31.
    pub scale: u8,
    /// `NUM`, 0 to 31.
    pub num: u8,
    /// `TTL`: the level of the leaves, or 0 for any.
    pub level: u8,
}

/// The answer to a page request group (4.5.2).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageResponse {
    /// The device is not served at all.
    Failure,
    /// One of the pages is not there.
    Invalid,
    /// All pages are there.
    Success,
}

/// What becomes of a stalled transaction (4.7.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Action {
    /// It is tried again.
    Retry,
    /// It ends as if it had succeeded: reads give zero, writes are lost.
    Ignore,
    /// It is aborted.
    Abort,
}

/// How the completion of `CMD_SYNC` is told (4.7.3), besides its being consumed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Signal {
    /// Not at all.
    None,
    /// By an interrupt: a message, where the address is not 0.
    Irq {
        /// Where the message goes: for a guest's command, an address of the VM's.
        address: u64,
        /// What it says.
        data: u32,
        /// `MSIAttr` in bits 3 to 0, `MSH` in bits 5 and 4.
        attributes: u8,
    },
    /// By a WFE event.
    Sev,
}

/// No command of the Non-secure queue: `CERROR_ILL`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Illegal;

impl Reach {
    fn encode(self) -> (u64, u64) {
        let word1 = LEAF.of(u64::from(self.leaf)) | self.address & ADDRESS.mask();
        match self.range {
            None => (0, word1),
            Some(range) => (
                NUM.of(u64::from(range.num)) | SCALE.of(u64::from(range.scale)),
                word1 | TG.of(u64::from(range.granule)) | TTL.of(u64::from(range.level)),
            ),
        }
    }

    fn decode(word0: u64, word1: u64) -> Result<Self, Illegal> {
        let granule = TG.get8(word1);
        let range = Range { granule, scale: SCALE.get8(word0), num: NUM.get8(word0), level: TTL.get8(word1) };
        if granule != 0 && range.scale == 0 && range.num == 0 && range.level == 0 {
            return Err(Illegal);
        }
        let range = (granule != 0).then_some(range);
        Ok(Self { address: word1 & ADDRESS.mask(), leaf: LEAF.is_set(word1), range })
    }
}

fn substream_of(substream: Option<u32>) -> u64 {
    substream.map_or(0, |substream| SSV.mask() | SUBSTREAM.of(u64::from(substream)))
}

fn of_stream(opcode: u64, stream: u32) -> u64 {
    opcode | STREAM.of(u64::from(stream))
}

fn of_vm(opcode: u64, vmid: u16) -> u64 {
    opcode | VMID.of(u64::from(vmid))
}

impl Command {
    /// As it stands in a queue.
    #[must_use]
    pub fn encode(&self) -> [u64; 2] {
        let reaching = |word0: u64, reach: Reach| {
            let (range, word1) = reach.encode();
            [word0 | range, word1]
        };
        match *self {
            Self::Prefetch { stream } => [of_stream(opcode::PREFETCH_CONFIG, stream), 0],
            Self::CfgiSte { stream, leaf } => [of_stream(opcode::CFGI_STE, stream), LEAF.of(u64::from(leaf))],
            Self::CfgiSteRange { stream, range } => {
                [of_stream(opcode::CFGI_STE_RANGE, stream), RANGE.of(u64::from(range))]
            }
            Self::CfgiAll => [opcode::CFGI_STE_RANGE, RANGE.of(u64::from(ALL))],
            Self::CfgiCd { stream, substream, leaf } => {
                [of_stream(opcode::CFGI_CD, stream) | SUBSTREAM.of(u64::from(substream)), LEAF.of(u64::from(leaf))]
            }
            Self::CfgiCdAll { stream } => [of_stream(opcode::CFGI_CD_ALL, stream), 0],
            Self::TlbiNhAll { vmid } => [of_vm(opcode::TLBI_NH_ALL, vmid), 0],
            Self::TlbiNhAsid { vmid, asid } => [of_vm(opcode::TLBI_NH_ASID, vmid) | ASID.of(u64::from(asid)), 0],
            Self::TlbiNhVa { vmid, asid, reach } => {
                reaching(of_vm(opcode::TLBI_NH_VA, vmid) | ASID.of(u64::from(asid)), reach)
            }
            Self::TlbiNhVaa { vmid, reach } => reaching(of_vm(opcode::TLBI_NH_VAA, vmid), reach),
            Self::TlbiEl2All => [opcode::TLBI_EL2_ALL, 0],
            Self::TlbiS12Vmall { vmid } => [of_vm(opcode::TLBI_S12_VMALL, vmid), 0],
            Self::TlbiS2Ipa { vmid, reach } => reaching(of_vm(opcode::TLBI_S2_IPA, vmid), reach),
            Self::TlbiNsnhAll => [opcode::TLBI_NSNH_ALL, 0],
            Self::AtcInv { stream, substream, global, address, size } => [
                of_stream(opcode::ATC_INV, stream) | substream_of(substream) | GLOBAL.of(u64::from(global)),
                address & ADDRESS.mask() | SIZE.of(u64::from(size)),
            ],
            Self::PriResp { stream, substream, group, response } => [
                of_stream(opcode::PRI_RESP, stream) | substream_of(substream),
                PRG_INDEX.of(u64::from(group)) | RESP.of(response as u64),
            ],
            Self::Resume { stream, stag, action } => {
                let action = match action {
                    Action::Retry => AC.mask(),
                    Action::Ignore => 0,
                    Action::Abort => AB.mask(),
                };
                [of_stream(opcode::RESUME, stream) | action, STAG.of(u64::from(stag))]
            }
            Self::StallTerm { stream } => [of_stream(opcode::STALL_TERM, stream), 0],
            Self::Sync(signal) => signal.encode(),
        }
    }

    /// From a copy of what stands in a queue. Reserved fields are ignored, as an SMMU may (4.1.5).
    ///
    /// # Errors
    /// If no SMMU would take it from a Non-secure queue. Whether one without stage 2, ATS or PRI would is the caller's to
    /// ask.
    pub fn decode([word0, word1]: [u64; 2]) -> Result<Self, Illegal> {
        let (stream, vmid, leaf) = (STREAM.get32(word0), VMID.get16(word0), LEAF.is_set(word1));
        let substream = SSV.is_set(word0).then(|| SUBSTREAM.get32(word0));
        let opcode = OPCODE.get(word0);
        // Secure streams are nobody's business here (4.1.6).
        let takes_ssec = opcode < opcode::TLBI_NH_ALL || matches!(opcode, opcode::RESUME | opcode::STALL_TERM);
        if takes_ssec && SSEC.is_set(word0) {
            return Err(Illegal);
        }
        Ok(match opcode {
            opcode::PREFETCH_CONFIG | opcode::PREFETCH_ADDR => Self::Prefetch { stream },
            opcode::CFGI_STE => Self::CfgiSte { stream, leaf },
            opcode::CFGI_STE_RANGE => match RANGE.get8(word1) {
                ALL => Self::CfgiAll,
                range => Self::CfgiSteRange { stream, range },
            },
            opcode::CFGI_CD => Self::CfgiCd { stream, substream: SUBSTREAM.get32(word0), leaf },
            opcode::CFGI_CD_ALL => Self::CfgiCdAll { stream },
            opcode::TLBI_NH_ALL => Self::TlbiNhAll { vmid },
            opcode::TLBI_NH_ASID => Self::TlbiNhAsid { vmid, asid: ASID.get16(word0) },
            opcode::TLBI_NH_VA => Self::TlbiNhVa { vmid, asid: ASID.get16(word0), reach: Reach::decode(word0, word1)? },
            opcode::TLBI_NH_VAA => Self::TlbiNhVaa { vmid, reach: Reach::decode(word0, word1)? },
            opcode::TLBI_EL2_ALL => Self::TlbiEl2All,
            opcode::TLBI_S12_VMALL => Self::TlbiS12Vmall { vmid },
            opcode::TLBI_S2_IPA => Self::TlbiS2Ipa { vmid, reach: Reach::decode(word0, word1)? },
            opcode::TLBI_NSNH_ALL => Self::TlbiNsnhAll,
            opcode::ATC_INV => Self::AtcInv {
                stream,
                substream,
                global: GLOBAL.is_set(word0),
                address: word1 & ADDRESS.mask(),
                size: SIZE.get8(word1),
            },
            opcode::PRI_RESP => Self::PriResp {
                stream,
                substream,
                group: PRG_INDEX.get16(word1),
                response: match RESP.get(word1) {
                    0 => PageResponse::Failure,
                    1 => PageResponse::Invalid,
                    2 => PageResponse::Success,
                    _ => return Err(Illegal),
                },
            },
            opcode::RESUME => Self::Resume {
                stream,
                stag: STAG.get16(word1),
                action: match (AC.is_set(word0), AB.is_set(word0)) {
                    (true, _) => Action::Retry,
                    (false, false) => Action::Ignore,
                    (false, true) => Action::Abort,
                },
            },
            opcode::STALL_TERM => Self::StallTerm { stream },
            opcode::SYNC => Self::Sync(Signal::decode(word0, word1)?),
            _ => return Err(Illegal),
        })
    }
}

impl Signal {
    fn encode(self) -> [u64; 2] {
        match self {
            Self::None => [opcode::SYNC, 0],
            Self::Irq { address, data, attributes } => {
                let attributes = u64::from(attributes);
                let how = MSIATTR.of(attributes) | MSH.of(attributes.wrapping_shr(4));
                [opcode::SYNC | CS.of(1) | how | MSIDATA.of(u64::from(data)), address & MSIADDRESS.mask()]
            }
            Self::Sev => [opcode::SYNC | CS.of(2), 0],
        }
    }

    fn decode(word0: u64, word1: u64) -> Result<Self, Illegal> {
        match CS.get(word0) {
            0 => Ok(Self::None),
            1 => Ok(Self::Irq {
                address: word1 & MSIADDRESS.mask(),
                data: MSIDATA.get32(word0),
                attributes: MSIATTR.get8(word0) | MSH.get8(word0).wrapping_shl(4),
            }),
            2 => Ok(Self::Sev),
            _ => Err(Illegal),
        }
    }
}

/// Bytes of a command, as a power of two.
pub(crate) const BYTES_LOG2: u32 = 4;

/// Where entry `index` of a queue at `base` is, with entries of 2^`bytes` bytes.
pub(crate) fn entry_at(base: Pa, index: u32, bytes: u32) -> Pa {
    Pa(base.0.saturating_add(u64::from(index).wrapping_shl(bytes)))
}

#[cfg(test)]
mod tests;
