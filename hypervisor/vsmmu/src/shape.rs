//! What a virtual SMMU has, and how it says so: its identification registers (IHI 0070, 6.3.1 to 6.3.8).
//!
//! Answers for: stage 1 by VMSAv8-64 tables with 4 KiB pages, linear and two-level stream tables, wires, invalidation of ranges; and for
//! nothing else: no stage 2, no EL2, no ATS and PRI, no substreams, no messages, no stalls (a faulting transaction is aborted), and
//! nobody writes to the guest's tables (HTTU).

use smmu::Features;
use smmu::registers::{IDR0, IDR0_OFFSET, IDR1, IDR1_OFFSET, IDR3, IDR3_OFFSET, IDR5, IDR5_OFFSET};

/// Logarithm of the longest command queue: Linux wants more than 64.
pub(crate) const COMMAND_BITS: u8 = 8;
/// Logarithm of the longest event queue: a page of records.
pub(crate) const EVENT_BITS: u8 = 7;

/// What differs from one virtual SMMU to the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// Bits of a StreamID, at most 32.
    pub stream_bits: u8,
    /// Bits of the VM's addresses; those of output addresses are as many, or the next fewer that can be said.
    pub address_bits: u8,
    /// ASIDs of 16 bits, not 8: if the machine's has them.
    pub asid16: bool,
}

impl Shape {
    /// As the guest sees it. Not for a driver of its own: it has no stage 2, as [`Features`] of the machine's have.
    pub(crate) fn features(&self) -> Features {
        Features {
            stream_bits: self.stream_bits.min(32),
            substream_bits: 0,
            address_bits: self.address_bits,
            command_queue_bits: COMMAND_BITS,
            event_queue_bits: EVENT_BITS,
            two_level: true,
            stage1: true,
            can_nest: false,
            two_level_contexts: false,
            vmid16: false,
            asid16: self.asid16,
            range_invalidation: true,
            el2_stage1: false,
            can_stall: false,
            ats: false,
            overrides_types: false,
            coherent: true,
        }
    }

    /// The identification register at `offset`; zero if there is none.
    pub(crate) fn identification(&self, offset: usize) -> u32 {
        match offset {
            IDR0_OFFSET => self.idr0(),
            IDR1_OFFSET => {
                IDR1::CMDQS.val(COMMAND_BITS.into()).value
                    | IDR1::EVENTQS.val(EVENT_BITS.into()).value
                    | IDR1::SIDSIZE.val(self.stream_bits.min(32).into()).value
            }
            // SPEC: ranges came with SMMUv3.2, of which there is nothing else: who looks for them looks here.
            IDR3_OFFSET => IDR3::RIL::SET.value,
            IDR5_OFFSET => IDR5::GRAN4K::SET.value | IDR5::OAS.val(self.output_size()).value,
            // Among the rest is AIDR, where 0 is SMMUv3.0.
            _ => 0,
        }
    }

    fn idr0(&self) -> u32 {
        let asid16 = if self.asid16 { IDR0::ASID16::SET.value } else { 0 };
        IDR0::ST_LEVEL.val(1).value
            | IDR0::TERM_MODEL::SET.value
            | IDR0::STALL_MODEL::Terminate.value
            | IDR0::TTENDIAN::Little.value
            | IDR0::COHACC::SET.value
            | IDR0::TTF.val(0b10).value
            | IDR0::S1P::SET.value
            | asid16
    }

    const fn output_size(&self) -> u32 {
        match self.address_bits {
            0..36 => 0,
            36..40 => 1,
            40..42 => 2,
            42..44 => 3,
            44..48 => 4,
            _ => 5,
        }
    }
}
