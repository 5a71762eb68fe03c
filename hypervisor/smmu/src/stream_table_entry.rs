//! What the SMMU does with a stream: its entry in the stream table (IHI 0070, 5.2).
//!
//! Answers for: the four entries that this hypervisor writes (refused, muted, bypass, stage 2 with or without a guest's
//! stage 1 over it), so made that no implementation finds one of them ILLEGAL; and what a guest may say in an entry of
//! its own. Does not answer for: where entries are ([`crate::Geometry`]), and in which order they are written
//! ([`crate::Procedure`]).

use crate::Features;
use crate::bits::Field;
use core::fmt;
use types::{Ipa, Pa};

// Word 0.
const V: Field = Field::bit(0);
const CONFIG: Field = Field::bits(3, 1);
const S1FMT: Field = Field::bits(5, 4);
const S1CONTEXTPTR: Field = Field::bits(55, 6);
const S1CDMAX: Field = Field::bits(63, 59);
// Word 1: bits 127 to 64.
const S1DSS: Field = Field::bits(1, 0);
/// S1CIR, S1COR, S1CSH.
const S1_ATTRIBUTES: Field = Field::bits(7, 2);
const MEV: Field = Field::bit(19);
const S1STALLD: Field = Field::bit(27);
const SHCFG: Field = Field::bits(45, 44);
// Word 2: bits 191 to 128.
const S2VMID: Field = Field::bits(15, 0);
/// S2T0SZ, S2SL0, S2IR0, S2OR0, S2SH0, S2TG, S2PS: in the order and with the encodings of `VTCR_EL2` bits 18 to 0.
const S2VTCR: Field = Field::bits(50, 32);
const S2AA64: Field = Field::bit(51);
const S2AFFD: Field = Field::bit(53);
const S2PTW: Field = Field::bit(54);
const S2R: Field = Field::bit(58);
// Word 3: bits 255 to 192.
const S2TTB: Field = Field::bits(55, 4);

const ABORT: u64 = 0b000;
const BYPASS: u64 = 0b100;
const STAGE_1: u64 = 0b101;
const STAGE_2: u64 = 0b110;
const NESTED: u64 = 0b111;
/// `SHCFG`: what comes with the transaction.
const INCOMING: u64 = 0b01;
/// IRGN0, ORGN0, SH0 of `VTCR_EL2`.
const VTCR_CACHING: u64 = 0b11_1111 << 8;
const VTCR_T0SZ: Field = Field::bits(5, 0);
const VTCR: u64 = (1 << 19) - 1;

/// One entry: 64 bytes, as little-endian words.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct StreamTableEntry(pub [u64; 8]);

/// A VM's stage 2, as its CPUs use it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2 {
    /// `VTCR_EL2`; bits 18 to 0 count.
    pub vtcr: u64,
    /// The root of its tables.
    pub root: Pa,
}

/// Why an SMMU cannot walk a stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stage2Flaw {
    /// It has VMIDs of 8 bits only.
    Vmid(u16),
    /// It takes addresses of fewer bits than the tables do.
    InputBits(u8),
    /// The root is where it cannot reach.
    Root(Pa),
    /// It has no stage 1 that could stand before it.
    NoStage1,
}

impl fmt::Display for Stage2Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Vmid(vmid) => write!(f, "the SMMU has VMIDs of 8 bits, and this VM's is {vmid}"),
            Self::InputBits(bits) => write!(f, "the SMMU takes addresses of {bits} bits, and this VM's may be longer"),
            Self::NoStage1 => f.write_str("the SMMU has no stage 1 for a guest's own use"),
            Self::Root(root) => write!(f, "the SMMU does not reach this VM's translation tables at {root}"),
        }
    }
}

/// A guest's stage 1, from a stream table entry of its own. All of it is the guest's word; the SMMU reads the context
/// descriptors through stage 2.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage1 {
    /// `S1ContextPtr`.
    pub context: Ipa,
    /// `S1Fmt`: how the table of context descriptors is built.
    pub format: u8,
    /// `S1CDMax`: logarithm of the number of context descriptors.
    pub cd_max: u8,
    /// `S1DSS`: what becomes of transactions without substream.
    pub default_substream: u8,
    /// `S1CSH`, `S1COR`, `S1CIR`: how the descriptors are read.
    pub attributes: u8,
}

/// What a guest cannot have in an entry of its own: its virtual SMMU has stage 1 only.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NestedFlaw {
    /// `V` is 0.
    NotValid,
    /// `Config` asks for what the virtual SMMU does not have.
    Config,
    /// `S1Fmt` is one that the SMMU does not have.
    Format,
    /// `S1CDMax` is more than the SMMU has.
    Substreams,
    /// `S1ContextPtr` is no address of the VM's.
    Context,
}

impl StreamTableEntry {
    /// Transactions are aborted, and each is an event (`C_BAD_STE`): what every stream has that nobody owns.
    pub const REFUSED: Self = Self([0; 8]);

    /// Transactions are aborted without event: for a device that goes on and on.
    #[must_use]
    pub const fn muted() -> Self {
        Self([V.mask() | CONFIG.of(ABORT), 0, 0, 0, 0, 0, 0, 0])
    }

    /// Transactions pass as they are.
    pub(crate) const fn bypass(features: &Features) -> Self {
        Self([V.mask() | CONFIG.of(BYPASS), types_of(features), 0, 0, 0, 0, 0, 0])
    }

    /// Transactions go through a VM's stage 2; `vmid` tags its translations. Faults abort and are recorded, never stalled.
    ///
    /// # Errors
    /// If this SMMU cannot walk it.
    pub fn stage2(vmid: u16, stage2: &Stage2, features: &Features) -> Result<Self, Stage2Flaw> {
        if vmid > 0xff && !features.vmid16 {
            return Err(Stage2Flaw::Vmid(vmid));
        }
        let input_bits = 64_u64.saturating_sub(VTCR_T0SZ.get(stage2.vtcr));
        if input_bits > u64::from(features.address_bits) {
            return Err(Stage2Flaw::InputBits(features.address_bits));
        }
        if stage2.root.0.checked_shr(u32::from(features.address_bits)).unwrap_or(0) != 0 {
            return Err(Stage2Flaw::Root(stage2.root));
        }
        // An SMMU that does not see caches reads tables from memory, where the pool has cleaned them to.
        let unused = if features.coherent { 0 } else { VTCR_CACHING };
        let word2 = S2VMID.of(u64::from(vmid))
            | S2VTCR.of(stage2.vtcr & VTCR & !unused)
            | S2AA64.mask()
            | S2AFFD.mask()
            | S2R.mask();
        let word0 = V.mask() | CONFIG.of(STAGE_2);
        Ok(Self([word0, types_of(features) | MEV.mask(), word2, stage2.root.0 & S2TTB.mask(), 0, 0, 0, 0]))
    }

    /// As [`StreamTableEntry::stage2`], with a guest's stage 1 before it. The guest cannot make the device stall, and
    /// cannot have descriptors or tables read from registers of devices.
    ///
    /// # Errors
    /// If this SMMU has no stage 1, or cannot walk the stage 2.
    pub fn nested(vmid: u16, stage2: &Stage2, stage1: &Stage1, features: &Features) -> Result<Self, Stage2Flaw> {
        if !features.stage1 {
            return Err(Stage2Flaw::NoStage1);
        }
        let Self([_, word1, word2, word3, ..]) = Self::stage2(vmid, stage2, features)?;
        let word0 = V.mask()
            | CONFIG.of(NESTED)
            | S1FMT.of(u64::from(stage1.format))
            | stage1.context.0 & S1CONTEXTPTR.mask()
            | S1CDMAX.of(u64::from(stage1.cd_max));
        // ILLEGAL where there is no stalling that it could forbid (5.5).
        let no_stalls = if features.can_stall { S1STALLD.mask() } else { 0 };
        let word1 = word1
            | S1DSS.of(u64::from(stage1.default_substream))
            | S1_ATTRIBUTES.of(u64::from(stage1.attributes))
            | no_stalls;
        Ok(Self([word0, word1, word2 | S2PTW.mask(), word3, 0, 0, 0, 0]))
    }

    /// As a guest's own would be that lets transactions pass, or has them translated by `stage1`: [`StreamTableEntry::of_guest`] says the
    /// same of it.
    #[must_use]
    pub fn for_guest(stage1: Option<&Stage1>) -> Self {
        let Some(stage1) = stage1 else { return Self([V.mask() | CONFIG.of(BYPASS), 0, 0, 0, 0, 0, 0, 0]) };
        let word0 = V.mask()
            | CONFIG.of(STAGE_1)
            | S1FMT.of(u64::from(stage1.format))
            | stage1.context.0 & S1CONTEXTPTR.mask()
            | S1CDMAX.of(u64::from(stage1.cd_max));
        let word1 = S1DSS.of(u64::from(stage1.default_substream)) | S1_ATTRIBUTES.of(u64::from(stage1.attributes));
        Self([word0, word1, 0, 0, 0, 0, 0, 0])
    }

    /// What a guest wants of a stream, from an entry that it has written (a copy): `Ok(None)` if it lets transactions pass
    /// its own stage 1 by. `Ok(Some)` is a stage 1 that [`StreamTableEntry::nested`] takes. A muted entry is `Err`, too: to
    /// be told apart by [`StreamTableEntry::is_muted`].
    ///
    /// # Errors
    /// If the SMMU that the guest sees, one without stage 2 and with these `features` otherwise, would find it ILLEGAL.
    /// `ipa_bits` is how long its addresses are.
    pub fn of_guest(&self, ipa_bits: u8, features: &Features) -> Result<Option<Stage1>, NestedFlaw> {
        let Self([word0, word1, ..]) = *self;
        if !V.is_set(word0) {
            return Err(NestedFlaw::NotValid);
        }
        match CONFIG.get(word0) {
            BYPASS => return Ok(None),
            STAGE_1 => {}
            _ => return Err(NestedFlaw::Config),
        }
        let (cd_max, format) = (S1CDMAX.get8(word0), S1FMT.get8(word0));
        if cd_max > features.substream_bits {
            return Err(NestedFlaw::Substreams);
        }
        // Without substreams there is one descriptor, and the format is IGNORED; 3 behaves as 0.
        let format = if cd_max == 0 || format == 3 { 0 } else { format };
        if format != 0 && !features.two_level_contexts {
            return Err(NestedFlaw::Format);
        }
        let context = word0 & S1CONTEXTPTR.mask();
        if context.checked_shr(u32::from(ipa_bits)).unwrap_or(0) != 0 {
            return Err(NestedFlaw::Context);
        }
        Ok(Some(Stage1 {
            context: Ipa(context),
            format,
            cd_max,
            default_substream: S1DSS.get8(word1),
            attributes: S1_ATTRIBUTES.get8(word1),
        }))
    }

    /// Whether it is valid and aborts without event.
    #[must_use]
    pub const fn is_muted(&self) -> bool {
        let Self([word0, ..]) = *self;
        V.is_set(word0) && CONFIG.get(word0) & BYPASS == 0
    }
}

/// Memory types and shareability as they come with the transaction.
const fn types_of(features: &Features) -> u64 {
    // RES0 where it cannot be overridden; 0 would make everything non-shareable where it can.
    if features.overrides_types { SHCFG.of(INCOMING) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::testing::FEATURES;

    const VTCR_40_BITS: u64 = 0x8002_3558;

    fn stage2() -> Stage2 {
        Stage2 { vtcr: VTCR_40_BITS, root: Pa(0x4_1234_0000) }
    }

    /// Bit `n` of the structure, as the specification counts them.
    fn bits(entry: &StreamTableEntry, high: usize, low: usize) -> u64 {
        let word = entry.0[low / 64];
        (word >> (low % 64)) & (u64::MAX >> (63 - (high - low)))
    }

    #[test]
    fn a_refused_stream_is_not_valid_and_a_muted_one_is_valid_and_aborts() {
        assert_eq!(bits(&StreamTableEntry::REFUSED, 0, 0), 0);
        let muted = StreamTableEntry::muted();
        assert_eq!((bits(&muted, 0, 0), bits(&muted, 3, 1)), (1, 0b000));
        assert!(muted.is_muted() && !StreamTableEntry::REFUSED.is_muted());
    }

    #[test]
    fn bypass_leaves_the_incoming_shareability_where_it_could_be_overridden() {
        let entry = StreamTableEntry::bypass(&Features { overrides_types: true, ..FEATURES });
        assert_eq!((bits(&entry, 0, 0), bits(&entry, 3, 1), bits(&entry, 109, 108)), (1, 0b100, 0b01));
        let entry = StreamTableEntry::bypass(&Features { overrides_types: false, ..FEATURES });
        assert_eq!(bits(&entry, 109, 108), 0, "RES0");
    }

    #[test]
    fn stage_2_is_the_vms_own() {
        let entry = StreamTableEntry::stage2(7, &stage2(), &FEATURES).unwrap();
        assert_eq!((bits(&entry, 0, 0), bits(&entry, 3, 1)), (1, 0b110));
        assert_eq!(bits(&entry, 143, 128), 7, "S2VMID");
        assert_eq!(bits(&entry, 165, 160), 24, "S2T0SZ");
        assert_eq!(bits(&entry, 167, 166), 1, "S2SL0");
        assert_eq!(
            (bits(&entry, 169, 168), bits(&entry, 171, 170), bits(&entry, 173, 172)),
            (1, 1, 3),
            "S2IR0 S2OR0 S2SH0"
        );
        assert_eq!(bits(&entry, 175, 174), 0, "S2TG: 4 KiB");
        assert_eq!(bits(&entry, 178, 176), 2, "S2PS");
        assert_eq!((bits(&entry, 179, 179), bits(&entry, 180, 180)), (1, 0), "S2AA64, S2ENDI");
        assert_eq!((bits(&entry, 181, 181), bits(&entry, 182, 182)), (1, 0), "S2AFFD, S2PTW");
        assert_eq!(bits(&entry, 184, 183), 0, "S2HA, S2HD: tables are not written");
        assert_eq!((bits(&entry, 185, 185), bits(&entry, 186, 186)), (0, 1), "S2S, S2R: abort and record");
        assert_eq!(bits(&entry, 247, 196) << 4, 0x4_1234_0000, "S2TTB");
        assert_eq!((bits(&entry, 93, 92), bits(&entry, 95, 94)), (0, 0), "EATS, STRW");
        assert_eq!(entry.0[4..], [0; 4]);
    }

    #[test]
    fn walks_of_an_smmu_that_sees_no_caches_are_not_cacheable() {
        let entry = StreamTableEntry::stage2(7, &stage2(), &Features { coherent: false, ..FEATURES }).unwrap();
        assert_eq!(bits(&entry, 173, 168), 0, "S2IR0 S2OR0 S2SH0");
        assert_eq!(bits(&entry, 165, 160), 24);
    }

    #[test]
    fn what_the_smmu_cannot_walk_is_refused() {
        let refused = |vmid, stage2: Stage2| {
            StreamTableEntry::stage2(vmid, &stage2, &Features { vmid16: false, address_bits: 39, ..FEATURES })
        };
        assert_eq!(refused(7, stage2()), Err(Stage2Flaw::InputBits(39)));
        let fits = Stage2 { vtcr: VTCR_40_BITS + 1, ..stage2() };
        assert!(refused(7, fits).is_ok());
        assert_eq!(refused(256, fits), Err(Stage2Flaw::Vmid(256)));
        assert_eq!(refused(7, Stage2 { root: Pa(1 << 39), ..fits }), Err(Stage2Flaw::Root(Pa(1 << 39))));
    }

    /// An entry as a guest's Linux writes it: stage 1, 4 KiB leaves, 2^5 substreams.
    fn of_linux() -> StreamTableEntry {
        let mut entry = StreamTableEntry::default();
        entry.0[0] = 1 | 0b101 << 1 | 0b01 << 4 | 0x4810_0000 | 5 << 59;
        entry.0[1] = 0b10 | 0b01 << 2 | 0b01 << 4 | 0b11 << 6 | 1 << 28 | 0b10 << 30;
        entry
    }

    #[test]
    fn a_guests_stage_1_stands_before_the_hosts_stage_2() {
        let features = Features { substream_bits: 8, two_level_contexts: true, can_stall: true, ..FEATURES };
        let stage1 = of_linux().of_guest(40, &features).unwrap().unwrap();
        assert_eq!(stage1.context, Ipa(0x4810_0000));
        let entry = StreamTableEntry::nested(7, &stage2(), &stage1, &features).unwrap();
        assert_eq!((bits(&entry, 0, 0), bits(&entry, 3, 1)), (1, 0b111));
        assert_eq!((bits(&entry, 5, 4), bits(&entry, 55, 6) << 6, bits(&entry, 63, 59)), (1, 0x4810_0000, 5));
        assert_eq!(bits(&entry, 65, 64), 0b10, "S1DSS");
        assert_eq!((bits(&entry, 67, 66), bits(&entry, 69, 68), bits(&entry, 71, 70)), (1, 1, 3), "S1CIR S1COR S1CSH");
        assert_eq!(bits(&entry, 91, 91), 1, "S1STALLD");
        assert_eq!(
            (bits(&entry, 93, 92), bits(&entry, 95, 94)),
            (0, 0),
            "the guest's EATS and STRW are not taken over"
        );
        assert_eq!(bits(&entry, 182, 182), 1, "S2PTW");
        assert_eq!(bits(&entry, 143, 128), 7);
        let entry =
            StreamTableEntry::nested(7, &stage2(), &stage1, &Features { can_stall: false, ..features }).unwrap();
        assert_eq!(bits(&entry, 91, 91), 0, "S1STALLD is ILLEGAL where nothing stalls");
        let without = Features { stage1: false, ..features };
        assert_eq!(StreamTableEntry::nested(7, &stage2(), &stage1, &without), Err(Stage2Flaw::NoStage1));
    }

    #[test]
    fn what_is_made_for_a_guest_is_read_back_the_same() {
        let features = Features { substream_bits: 8, two_level_contexts: true, ..FEATURES };
        let stage1 = of_linux().of_guest(40, &features).unwrap();
        assert!(stage1.is_some());
        for wanted in [stage1, None] {
            assert_eq!(StreamTableEntry::for_guest(wanted.as_ref()).of_guest(40, &features), Ok(wanted));
        }
    }

    #[test]
    fn what_a_guest_may_not_say_is_its_own_mistake() {
        let features = Features { substream_bits: 8, two_level_contexts: true, ..FEATURES };
        let said = |change: fn(&mut u64), features: &Features| {
            let mut entry = of_linux();
            change(&mut entry.0[0]);
            entry.of_guest(40, features)
        };
        assert_eq!(said(|word| *word &= !1, &features), Err(NestedFlaw::NotValid));
        assert_eq!(said(|word| *word |= 0b010 << 1, &features), Err(NestedFlaw::Config), "stage 2");
        assert_eq!(said(|word| *word &= !(0b100 << 1), &features), Err(NestedFlaw::Config), "aborts");
        assert_eq!(said(|word| *word &= !(0b001 << 1), &features), Ok(None), "bypass");
        assert_eq!(said(|_| {}, &FEATURES), Err(NestedFlaw::Substreams));
        let one_level = Features { two_level_contexts: false, ..features };
        assert_eq!(said(|_| {}, &one_level), Err(NestedFlaw::Format));
        assert_eq!(said(|word| *word |= 0b11 << 4, &one_level).map(|stage1| stage1.map(|it| it.format)), Ok(Some(0)));
        assert_eq!(said(|word| *word |= 1 << 40, &features), Err(NestedFlaw::Context));
    }
}
