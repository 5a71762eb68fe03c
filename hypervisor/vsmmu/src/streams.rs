//! What a guest wants of its streams: its stream table (IHI 0070, 3.3.1, 5.1, 5.2).
//!
//! Answers for: finding a stream's entry, copying it once, and what it means in an SMMU that has stage 1 only. Does not answer for:
//! when it is looked at (`unit`), and doing what it says.

use crate::host::Target;
use crate::registers::Registers;
use crate::shape::Shape;
use smmu::{Kind, Stage1, StreamTableEntry};
use types::{AccessSize, Ipa};
use vdev::GuestMemory;

/// Bytes of an entry, and of a descriptor of the first level, as powers of two.
const ENTRY: u32 = 6;
const DESCRIPTOR: u32 = 3;
/// `L2Ptr`, bits 55 to 6.
const POINTER: u64 = 0x00ff_ffff_ffff_ffc0;
/// `Span`.
const SPAN: u64 = 0x1f;

/// What a guest wants of a stream.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Wish {
    /// Its transactions are aborted, with this event if there is one.
    Abort(Option<Reason>),
    /// They pass its own stage 1 by.
    Pass,
    /// They are translated.
    Translate(Stage1),
}

/// Why a stream's configuration is none.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Reason {
    /// `C_BAD_STREAMID`, `F_STE_FETCH` or `C_BAD_STE`.
    pub(crate) kind: Kind,
    /// What could not be read.
    pub(crate) at: Option<Ipa>,
}

impl Reason {
    const BAD_STREAM: Self = Self { kind: Kind::BadStreamId, at: None };
    const BAD_ENTRY: Self = Self { kind: Kind::BadSte, at: None };

    const fn unreadable(at: Ipa) -> Self {
        Self { kind: Kind::SteFetch, at: Some(at) }
    }
}

impl Wish {
    /// What the host is to do for it.
    pub(crate) const fn target(&self) -> Target {
        match self {
            Self::Abort(None) => Target::Muted,
            Self::Abort(Some(_)) => Target::Refused,
            Self::Pass => Target::Stage2,
            Self::Translate(stage1) => Target::Nested(*stage1),
        }
    }

    /// What the guest's table says of `stream` now.
    pub(crate) fn of(stream: u32, registers: &Registers, shape: &Shape, memory: &dyn GuestMemory) -> Self {
        let entry = match find(stream, registers, shape, memory).and_then(|at| copy(at, memory)) {
            Ok(entry) => entry,
            Err(reason) => return Self::Abort(Some(reason)),
        };
        match entry.of_guest(shape.address_bits, &shape.features()) {
            Ok(Some(stage1)) => Self::Translate(stage1),
            Ok(None) => Self::Pass,
            Err(_) if entry.is_muted() => Self::Abort(None),
            Err(_) => Self::Abort(Some(Reason::BAD_ENTRY)),
        }
    }
}

/// Where the entry of `stream` is.
fn find(stream: u32, registers: &Registers, shape: &Shape, memory: &dyn GuestMemory) -> Result<Ipa, Reason> {
    let (base, config) = (registers.strtab_base & POINTER, registers.strtab_base_cfg);
    let bits = (config & 0x3f).min(shape.stream_bits.into());
    let index = u64::from(stream);
    if index.checked_shr(bits).unwrap_or(0) != 0 {
        return Err(Reason::BAD_STREAM);
    }
    // FMT: what is reserved behaves as a linear table.
    if config >> 16 & 3 != 1 {
        return Ok(element(base, bits, ENTRY, index));
    }
    // SPLIT: what is reserved behaves as 6.
    let split = match config >> 6 & 0x1f {
        split @ (8 | 10) => split,
        _ => 6,
    };
    let at = element(base, bits.saturating_sub(split), DESCRIPTOR, index.wrapping_shr(split));
    let descriptor = memory.load(at, AccessSize::Doubleword).map_err(|_| Reason::unreadable(at))?;
    let span = u32::try_from(descriptor & SPAN).unwrap_or(0);
    let below = index & 1_u64.wrapping_shl(split).wrapping_sub(1);
    // 5.1: 0 is invalid; more than SPLIT + 1 is reserved, and behaves as 0.
    let bits = span.checked_sub(1).filter(|bits| *bits <= split).ok_or(Reason::BAD_STREAM)?;
    if below.wrapping_shr(bits) != 0 {
        return Err(Reason::BAD_STREAM);
    }
    Ok(element(descriptor & POINTER, bits, ENTRY, below))
}

/// Where element `index` is of a table of 2^`bits` elements of 2^`size` bytes, which is aligned to its size, and to 64 bytes.
fn element(table: u64, bits: u32, size: u32, index: u64) -> Ipa {
    let aligned = table & !1_u64.wrapping_shl(bits.saturating_add(size)).wrapping_sub(1);
    Ipa(aligned.saturating_add(index.wrapping_shl(size)))
}

/// The entry as it is now. The guest may be writing it: it has to say so when it is done (3.21.3).
fn copy(at: Ipa, memory: &dyn GuestMemory) -> Result<StreamTableEntry, Reason> {
    let mut bytes = [0; 1 << ENTRY];
    memory.read(at, &mut bytes).map_err(|_| Reason::unreadable(at))?;
    let mut entry = StreamTableEntry::default();
    for (word, bytes) in entry.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    Ok(entry)
}
