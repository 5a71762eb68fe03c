//! What an SMMU can do, and whether that is enough.

use crate::Registers;
use crate::registers::{IDR0, IDR0_OFFSET, IDR1, IDR1_OFFSET, IDR3, IDR3_OFFSET, IDR5, IDR5_OFFSET, IIDR, IIDR_OFFSET};
use core::fmt;
use tock_registers::LocalRegisterCopy;

/// `ProductID`s of Arm's, in `SMMU_IIDR`.
const MMU_600: u32 = 0x483;
const MMU_700: u32 = 0x487;

/// What one SMMU has of what matters here (IHI 0070, 6.3.1 to 6.3.7).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Features {
    /// Bits of a StreamID, 0 to 32.
    pub stream_bits: u8,
    /// Bits of a SubstreamID, 0 to 20.
    pub substream_bits: u8,
    /// Bits of an output address; those of an intermediate physical address are as many.
    pub address_bits: u8,
    /// Logarithm of the longest command queue, in commands.
    pub command_queue_bits: u8,
    /// Logarithm of the longest event queue, in events.
    pub event_queue_bits: u8,
    /// Stream tables in two levels.
    pub two_level: bool,
    /// Stage 1.
    pub stage1: bool,
    /// Stage 1 of a guest on top of stage 2, as it should be.
    pub can_nest: bool,
    /// Two-level tables of context descriptors.
    pub two_level_contexts: bool,
    /// VMIDs of 16 bits, not 8.
    pub vmid16: bool,
    /// ASIDs of 16 bits, not 8.
    pub asid16: bool,
    /// Invalidation of ranges by one command.
    pub range_invalidation: bool,
    /// Stage 1 of EL2, whose TLB entries have to be invalidated at the start.
    pub el2_stage1: bool,
    /// Faulting transactions could be stalled, which is to be forbidden to guests.
    pub can_stall: bool,
    /// Address translation services, which are to be checked.
    pub ats: bool,
    /// A stream table entry can override memory types, so it has to say that it does not.
    pub overrides_types: bool,
    /// What it reads and writes goes through the CPUs' caches.
    pub coherent: bool,
}

/// Why an SMMU cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unfit {
    /// No stage 2.
    NoStage2,
    /// No VMSAv8-64 tables with a granule of 4 KiB, little-endian.
    NoTables,
    /// Its tables or queues have fixed places, in registers or memory of its own.
    Preset,
    /// It stalls every faulting transaction until software answers: a guest could block a bus.
    AlwaysStalls,
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoStage2 => "it has no stage 2 (IDR0.S2P is 0), so it cannot keep a device inside a VM",
            Self::NoTables => {
                "it does not walk little-endian VMSAv8-64 tables with 4 KiB pages (IDR0.TTF, TTENDIAN, IDR5.GRAN4K)"
            }
            Self::Preset => "its tables or queues have fixed places (IDR1.TABLES_PRESET, QUEUES_PRESET)",
            Self::AlwaysStalls => "it cannot abort faulting transactions, only stall them (IDR0.STALL_MODEL is 2)",
        })
    }
}

impl core::error::Error for Unfit {}

impl Features {
    /// Asks an SMMU. Its identification registers never change (6.2).
    ///
    /// # Errors
    /// If it lacks what confinement needs.
    pub fn of(registers: &mut impl Registers) -> Result<Self, Unfit> {
        let idr0 = LocalRegisterCopy::<u32, IDR0::Register>::new(registers.get(IDR0_OFFSET));
        let idr1 = LocalRegisterCopy::<u32, IDR1::Register>::new(registers.get(IDR1_OFFSET));
        let idr3 = LocalRegisterCopy::<u32, IDR3::Register>::new(registers.get(IDR3_OFFSET));
        let idr5 = LocalRegisterCopy::<u32, IDR5::Register>::new(registers.get(IDR5_OFFSET));
        if !idr0.is_set(IDR0::S2P) {
            return Err(Unfit::NoStage2);
        }
        let little = !idr0.matches_all(IDR0::TTENDIAN::Big);
        if idr0.read(IDR0::TTF) & 0b10 == 0 || !idr5.is_set(IDR5::GRAN4K) || !little {
            return Err(Unfit::NoTables);
        }
        if idr1.is_set(IDR1::TABLES_PRESET) || idr1.is_set(IDR1::QUEUES_PRESET) {
            return Err(Unfit::Preset);
        }
        if idr0.matches_all(IDR0::STALL_MODEL::Stall) {
            return Err(Unfit::AlwaysStalls);
        }
        let small = |value: u32, most: u8| u8::try_from(value).unwrap_or(most).min(most);
        Ok(Self {
            stream_bits: small(idr1.read(IDR1::SIDSIZE), 32),
            substream_bits: small(idr1.read(IDR1::SSIDSIZE), 20),
            address_bits: match idr5.read(IDR5::OAS) {
                0 => 32,
                1 => 36,
                2 => 40,
                3 => 42,
                4 => 44,
                // 52 and 56 bits are nothing to 4 KiB tables without FEAT_LPA2.
                _ => 48,
            },
            command_queue_bits: small(idr1.read(IDR1::CMDQS), 19),
            event_queue_bits: small(idr1.read(IDR1::EVENTQS), 19),
            two_level: idr0.read(IDR0::ST_LEVEL) == 1,
            stage1: idr0.is_set(IDR0::S1P),
            can_nest: idr0.is_set(IDR0::S1P) && !mistakes_nesting(registers.get(IIDR_OFFSET)),
            two_level_contexts: idr0.is_set(IDR0::CD2L),
            vmid16: idr0.is_set(IDR0::VMID16),
            asid16: idr0.is_set(IDR0::ASID16),
            range_invalidation: idr3.is_set(IDR3::RIL),
            el2_stage1: idr0.is_set(IDR0::HYP) && idr0.is_set(IDR0::S1P),
            can_stall: idr0.matches_all(IDR0::STALL_MODEL::StallAndTerminate),
            ats: idr0.is_set(IDR0::ATS),
            overrides_types: idr1.is_set(IDR1::ATTR_TYPES_OVR),
            coherent: idr0.is_set(IDR0::COHACC),
        })
    }
}

/// Whether an implementation is known to make mistakes where stage 1 is on top of stage 2: Arm's MMU-600 before r2p0 (1209401) and
/// MMU-700 (2268618, 2812531), by what Linux does about them.
fn mistakes_nesting(iidr: u32) -> bool {
    let iidr = LocalRegisterCopy::<u32, IIDR::Register>::new(iidr);
    let (product, variant) = (iidr.read(IIDR::ProductID), iidr.read(IIDR::Variant));
    iidr.matches_all(IIDR::Implementer::Arm) && (product == MMU_700 || product == MMU_600 && variant < 2)
}

#[cfg(test)]
pub(crate) mod testing {
    use super::Features;

    /// Those of QEMU's SMMU.
    pub(crate) const FEATURES: Features = Features {
        stream_bits: 16,
        substream_bits: 0,
        address_bits: 44,
        command_queue_bits: 19,
        event_queue_bits: 19,
        two_level: true,
        stage1: true,
        can_nest: true,
        two_level_contexts: false,
        vmid16: true,
        asid16: true,
        range_invalidation: true,
        el2_stage1: false,
        can_stall: false,
        ats: false,
        overrides_types: false,
        coherent: true,
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Identification registers 0, 1, 3, 5, and whose it is.
    struct Identity([u32; 5]);

    impl Registers for Identity {
        fn get(&mut self, offset: usize) -> u32 {
            match offset {
                0x0 => self.0[0],
                0x4 => self.0[1],
                0xc => self.0[2],
                0x14 => self.0[3],
                0x18 => self.0[4],
                _ => panic!("{offset:#x} is no identification register"),
            }
        }
        fn set(&mut self, _: usize, _: u32) {
            panic!("nothing is to be written");
        }
    }

    /// QEMU's, with `stage=nested`: two levels, no stall, ASID16, VMID16, both stages, coherent; queues of 2^19, 16 bits
    /// of stream; ranges; 44 bits, 4 KiB.
    const QEMU: [u32; 5] = [0x0d44_101b, 0x0273_0010, 0x0000_1404, 0x0000_0074, 0];

    #[test]
    fn what_an_emulator_says_is_understood() {
        assert_eq!(Features::of(&mut Identity(QEMU)), Ok(testing::FEATURES));
    }

    #[test]
    fn what_cannot_confine_is_refused() {
        let with = |n: usize, clear: u32, set: u32| {
            let mut registers = QEMU;
            registers[n] = registers[n] & !clear | set;
            Features::of(&mut Identity(registers))
        };
        assert_eq!(with(0, 1, 0), Err(Unfit::NoStage2));
        assert_eq!(with(0, 2 << 2, 0), Err(Unfit::NoTables));
        assert_eq!(with(0, 0, 3 << 21), Err(Unfit::NoTables));
        assert_eq!(with(3, 1 << 4, 0), Err(Unfit::NoTables));
        assert_eq!(with(1, 0, 1 << 30), Err(Unfit::Preset));
        assert_eq!(with(1, 0, 1 << 29), Err(Unfit::Preset));
        assert_eq!(with(0, 3 << 24, 2 << 24), Err(Unfit::AlwaysStalls));
    }

    #[test]
    fn those_that_make_mistakes_do_not_nest() {
        let nests = |iidr| {
            let mut registers = QEMU;
            registers[4] = iidr;
            Features::of(&mut Identity(registers)).unwrap().can_nest
        };
        assert!(!nests(0x4830_043b) && !nests(0x4831_243b), "MMU-600 r0p0, r1p2");
        assert!(nests(0x4832_043b), "r2p0");
        assert!(!nests(0x4870_043b) && !nests(0x4871_043b), "MMU-700");
        assert!(nests(0x4870_0000), "somebody else's");
        let mut without = QEMU;
        without[0] &= !2;
        assert!(!Features::of(&mut Identity(without)).unwrap().can_nest, "no stage 1");
    }

    #[test]
    fn nonsense_in_a_size_is_cut_to_what_there_can_be() {
        let features = Features::of(&mut Identity([QEMU[0], !(3 << 29), 0, 0x17, 0])).unwrap();
        assert_eq!((features.stream_bits, features.substream_bits), (32, 20));
        assert_eq!((features.command_queue_bits, features.event_queue_bits, features.address_bits), (19, 19, 48));
    }
}
