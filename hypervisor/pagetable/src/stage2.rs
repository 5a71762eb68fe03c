//! Stage 2: what a guest calls physical, to what is.
//!
//! Answers for: choice of start level and concatenation, `VTCR_EL2` and `VTTBR_EL2`, and the leaf attributes of stage 2
//! (DDI 0487, D8.2 "Translation process", D8.4 "Memory access control", D8.6 "Memory region attributes";
//! `HCR_EL2.FWB` = 0). Does not answer for: VMIDs and their recycling, nor for what a guest may have mapped.

use crate::{
    change::{MapError, Progress},
    descriptor::{Format, Level, Table},
    pool::{Maintenance, TablePool},
    range::PaRange,
    tree::{Mapping, Tree},
};
use bitflags::bitflags;
use types::{Ipa, Pa, Range};

bitflags! {
    /// What a guest may do with memory.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    pub struct Access: u8 {
        /// Load.
        const READ = 1 << 0;
        /// Store.
        const WRITE = 1 << 1;
        /// Fetch instructions, at EL1 and EL0.
        const EXECUTE = 1 << 2;
    }
}

/// The memory type that stage 2 contributes: the guest's stage 1 can make it stricter, not laxer. Values are those of
/// `MemAttr[3:0]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Memory {
    /// No gathering, no reordering, no early acknowledgement.
    DeviceNgnrne = 0b0000,
    /// No gathering, no reordering.
    DeviceNgnre = 0b0001,
    /// No gathering.
    DeviceNgre = 0b0010,
    /// Gathering, reordering, early acknowledgement.
    DeviceGre = 0b0011,
    /// Normal, not cacheable.
    NormalNonCacheable = 0b0101,
    /// Normal, write-back cacheable.
    NormalWriteBack = 0b1111,
}

/// What a stage 2 mapping allows.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Attributes {
    /// Memory type.
    pub memory: Memory,
    /// Permitted accesses.
    pub access: Access,
}

impl Stage2Attributes {
    /// A guest's RAM.
    pub const RAM: Self = Self::new(Memory::NormalWriteBack, Access::all());
    /// A guest's ROM.
    pub const ROM: Self = Self::new(Memory::NormalWriteBack, Access::READ.union(Access::EXECUTE));
    /// Registers of a passed-through device.
    pub const DEVICE: Self = Self::new(Memory::DeviceNgnre, Access::READ.union(Access::WRITE));

    /// This memory type with these permissions.
    #[must_use]
    pub const fn new(memory: Memory, access: Access) -> Self {
        Self { memory, access }
    }
}

/// Stage 2 block and page descriptors (DDI 0487, D8.3.2).
#[derive(Debug)]
struct Stage2Format;

const MEM_ATTR_SHIFT: u32 = 2;
const S2AP_READ: u64 = 1 << 6;
const S2AP_WRITE: u64 = 1 << 7;
/// XN[1]: without FEAT_XNX the only bit there is; with it, and XN[0] clear, the same for EL1 and EL0.
const XN: u64 = 1 << 54;

impl Format for Stage2Format {
    type Input = Ipa;
    type Attributes = Stage2Attributes;
    const PERMISSIONS: u64 = S2AP_READ | S2AP_WRITE | XN;

    fn encode(attributes: Stage2Attributes) -> u64 {
        let Stage2Attributes { memory, access } = attributes;
        let read = if access.contains(Access::READ) { S2AP_READ } else { 0 };
        let write = if access.contains(Access::WRITE) { S2AP_WRITE } else { 0 };
        let never = if access.contains(Access::EXECUTE) { 0 } else { XN };
        ((memory as u64) << MEM_ATTR_SHIFT) | read | write | never
    }

    fn decode(leaf: u64) -> Stage2Attributes {
        let memory = match (leaf >> MEM_ATTR_SHIFT) & 0xf {
            0b0001 => Memory::DeviceNgnre,
            0b0010 => Memory::DeviceNgre,
            0b0011 => Memory::DeviceGre,
            0b0101 => Memory::NormalNonCacheable,
            0b1111 => Memory::NormalWriteBack,
            _ => Memory::DeviceNgnrne,
        };
        let mut access = Access::empty();
        access.set(Access::READ, leaf & S2AP_READ != 0);
        access.set(Access::WRITE, leaf & S2AP_WRITE != 0);
        access.set(Access::EXECUTE, leaf & XN == 0);
        Stage2Attributes::new(memory, access)
    }
}

/// The descriptor of a page, of the last level.
pub(crate) fn page(to: Pa, attributes: Stage2Attributes) -> u64 {
    Level::Three.leaf(to, Stage2Format::encode(attributes))
}

/// Width of VMIDs: `ID_AA64MMFR1_EL1.VMIDBits`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum VmidSize {
    /// 8 bits.
    Bits8,
    /// 16 bits (FEAT_VMID16).
    Bits16,
}

/// The shape of a stage 2: how wide its input is, hence where its walk starts.
///
/// As few levels as possible: up to 16 tables of the start level are concatenated into one root (DDI 0487, D8.2.2). That
/// also keeps to the rules that forbid a start at level 0 below 44 bits. Fewer bits than the machine has are fine, and
/// make a TLB miss cheaper: 43 bits walk three levels, 44 walk four. Give a guest no more than its memory map needs, and
/// show it the same number in its `ID_AA64MMFR0_EL1.PARange`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stage2Layout {
    pa: PaRange,
    ipa_bits: u32,
}

impl Stage2Layout {
    /// With `ipa_bits` of input: 32 up to the machine's own number. `None` outside.
    #[must_use]
    pub const fn new(pa: PaRange, ipa_bits: u32) -> Option<Self> {
        if ipa_bits >= 32 && ipa_bits <= pa.bits() { Some(Self { pa, ipa_bits }) } else { None }
    }

    /// With as many bits of input as the machine has of output.
    #[must_use]
    pub const fn largest(pa: PaRange) -> Self {
        Self { pa, ipa_bits: pa.bits() }
    }

    /// Number of IPA bits.
    #[must_use]
    pub const fn ipa_bits(self) -> u32 {
        self.ipa_bits
    }

    /// Number of contiguous tables in the root: 1 to 16, a power of two.
    #[must_use]
    pub const fn root_tables(self) -> usize {
        self.root(Pa(0)).pages()
    }

    /// The value of `VTCR_EL2`: write-back, inner shareable walks, 4 KiB granule. Bits 18:0 are also what an SMMU's stream
    /// table entry takes (IHI 0070, "STE", `S2VTCR` fields).
    #[must_use]
    pub const fn vtcr(self, vmids: VmidSize) -> u64 {
        const RES1: u64 = 1 << 31;
        const VS: u64 = 1 << 19;
        const SH0_INNER: u64 = 0b11 << 12;
        const ORGN0_WRITE_BACK: u64 = 0b01 << 10;
        const IRGN0_WRITE_BACK: u64 = 0b01 << 8;
        let vs = match vmids {
            VmidSize::Bits8 => 0,
            VmidSize::Bits16 => VS,
        };
        let sl0: u64 = match self.start_level() {
            Level::Zero => 2,
            Level::One => 1,
            Level::Two | Level::Three => 0,
        };
        let t0sz = 64_u32.wrapping_sub(self.ipa_bits) as u64;
        RES1 | vs | (self.pa.ps() << 16) | SH0_INNER | ORGN0_WRITE_BACK | IRGN0_WRITE_BACK | (sl0 << 6) | t0sz
    }

    const fn start_level(self) -> Level {
        match self.ipa_bits {
            0..=34 => Level::Two,
            35..=43 => Level::One,
            _ => Level::Zero,
        }
    }

    /// The root at `pa`.
    const fn root(self, pa: Pa) -> Table {
        let level = self.start_level();
        let end = 1_u64.wrapping_shl(self.ipa_bits);
        let last = end.wrapping_sub(1);
        let mask = match level {
            Level::Zero => last >> 39,
            Level::One => last >> 30,
            Level::Two | Level::Three => last >> 21,
        };
        Table { pa, level, mask }
    }
}

/// The stage 2 of one guest.
///
/// Every change takes the pool its tables came from and the [`Maintenance`] of whoever walks them. A change is bounded by
/// `entries`, the number of leaves and holes it may go over; what is left is in its [`Progress`]. Each call is all or
/// nothing: on an error nothing has been changed by it. The caller keeps two changes from happening at once.
#[derive(Debug)]
#[must_use = "its tables are lost unless it is destroyed"]
pub struct Stage2 {
    layout: Stage2Layout,
    tree: Tree<Stage2Format>,
}

impl Stage2 {
    /// An empty one: everything faults. `None` if the pool has no memory for the root.
    pub fn new(layout: Stage2Layout, pool: &mut impl TablePool) -> Option<Self> {
        let root = layout.root(pool.allocate(layout.root_tables())?);
        Some(Self { layout, tree: Tree::new(root, layout.ipa_bits, layout.pa.bits()) })
    }

    /// Maps `range`, which must be unmapped, to the same number of bytes from `to` on. To go on after a partial
    /// [`Progress`], move `to` along with the start of the rest.
    pub fn map<P: TablePool>(
        &mut self,
        range: Range<Ipa>,
        to: Pa,
        attributes: Stage2Attributes,
        entries: usize,
        pool: &mut P,
        maintenance: &mut impl Maintenance<Ipa>,
    ) -> Result<Progress<Ipa>, MapError<Ipa>> {
        self.tree.map(range, to, attributes, entries, pool, maintenance)
    }

    /// Unmaps whatever is mapped in `range`; holes are no error. When it returns, no CPU and no device reaches what was
    /// mapped.
    pub fn unmap<P: TablePool>(
        &mut self,
        range: Range<Ipa>,
        entries: usize,
        pool: &mut P,
        maintenance: &mut impl Maintenance<Ipa>,
    ) -> Result<Progress<Ipa>, MapError<Ipa>> {
        self.tree.unmap(range, entries, pool, maintenance)
    }

    /// Gives whatever is mapped in `range` these attributes; holes stay holes. Mere permissions change without a moment in
    /// which the guest would fault, unless a block has to be split.
    pub fn protect<P: TablePool>(
        &mut self,
        range: Range<Ipa>,
        attributes: Stage2Attributes,
        entries: usize,
        pool: &mut P,
        maintenance: &mut impl Maintenance<Ipa>,
    ) -> Result<Progress<Ipa>, MapError<Ipa>> {
        self.tree.protect(range, attributes, entries, pool, maintenance)
    }

    /// The block or page that maps `address`.
    #[must_use]
    pub fn lookup(&self, address: Ipa, pool: &impl TablePool) -> Option<Mapping<Ipa, Stage2Attributes>> {
        self.tree.lookup(address, pool)
    }

    /// Frees all tables. No walker uses them any more: no CPU has this root loaded, no stream table entry names it, and its
    /// VMID has been invalidated. Takes time with every table that is left; where that is long, [`Stage2::unmap`]
    /// everything step by step first.
    pub fn destroy(self, pool: &mut impl TablePool) {
        self.tree.destroy(pool);
    }

    /// Its shape.
    #[must_use]
    pub fn layout(&self) -> Stage2Layout {
        self.layout
    }

    /// The root table, aligned to its size.
    #[must_use]
    pub fn root(&self) -> Pa {
        self.tree.root.pa
    }

    /// The value of `VTTBR_EL2` for these tables and `vmid`.
    #[must_use]
    pub fn vttbr(&self, vmid: u16) -> u64 {
        (u64::from(vmid) << 48) | self.root().0
    }

    /// The same with its level and size.
    pub(crate) fn root_table(&self) -> Table {
        self.tree.root
    }

    /// How many 4 KiB tables it takes, the root's among them.
    #[must_use]
    pub fn tables(&self) -> usize {
        self.tree.tables
    }
}

#[cfg(test)]
mod tests;
