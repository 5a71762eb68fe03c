//! Stage 2 of each VM: its tables' memory, its VMID, and the maintenance that belongs to a change.
//!
//! Answers for: building and taking down what confines a guest's CPU accesses, and building what confines a device that is no VM's. Does not answer for: the format of the
//! tables (`pagetable`), which memory is mapped where (`partition`).

use crate::frames::{self, Owner};
use crate::sync::{Lock, Masked, Rank};
use core::ptr;
use core::sync::atomic::AtomicU64;
use pagetable::{
    Access, Idle, Maintenance, MapError, Memory, PaRange, Stage2, Stage2Attributes, Stage2Layout, Stale, TablePool,
    VmidSize,
};
use types::{Ipa, PAGE_SIZE, Pa, Range, VmId};

/// Guests see 40 bits of physical address, as far as the machine has them: enough for every memory map, and one level of
/// translation less than more would need.
const IPA_BITS: u32 = 40;

/// Beyond so many pages all of a VMID is invalidated at once.
const BY_PAGE: u64 = 64;

/// Words of the VMID bitmap: 8 bits of VMID suffice for as many VMs as there can be.
const VMID_WORDS: usize = 4;

struct Vmids {
    used: [u64; VMID_WORDS],
    next: u16,
}

/// A root that maps nothing, as large and as aligned as a root of [`layout`] can be.
#[repr(align(8192))]
struct Nothing(#[expect(dead_code, reason = "reached by walkers only")] [AtomicU64; 1024]);
static NOTHING: Nothing = Nothing([const { AtomicU64::new(0) }; 1024]);

/// VTTBR_EL2 while no vCPU is loaded: VMID 0, through which nothing can be reached.
#[inline(always)]
pub(crate) fn nobody() -> u64 {
    &raw const NOTHING as u64
}

/// Before the first vCPU is loaded on this CPU.
pub(crate) fn initialise_cpu() {
    let vmids = if el2::mmu::has_16_bit_vmids() { VmidSize::Bits16 } else { VmidSize::Bits8 };
    el2::state::stage2::initialise(layout().vtcr(vmids), nobody());
}

/// VMID 0 is nobody's: it is what VTTBR_EL2 holds while no guest is loaded.
static VMIDS: Lock<Vmids> = Lock::new(Rank::Vmids, Vmids { used: [1, 0, 0, 0], next: 1 });

/// A VMID, free again when dropped. Recycled in turn, so that each is used again as late as possible.
#[derive(Debug)]
struct Vmid(u16);

impl Vmid {
    fn new() -> Option<Self> {
        let mut vmids = VMIDS.lock();
        let count = (VMID_WORDS * 64) as u16;
        let free = (0..count)
            .map(|n| (vmids.next + n) % count)
            .find(|&id| vmids.used.get(usize::from(id / 64)).is_some_and(|word| word >> (id % 64) & 1 == 0))?;
        vmids.used[usize::from(free / 64)] |= 1 << (free % 64);
        vmids.next = (free + 1) % count;
        Some(Self(free))
    }
}

impl Drop for Vmid {
    fn drop(&mut self) {
        if let Some(word) = VMIDS.lock().used.get_mut(usize::from(self.0 / 64)) {
            *word &= !(1 << (self.0 % 64));
        }
    }
}

/// Tables out of frames that count as the VM's: promised ones first, if they are for that.
struct Pool(Owner);

impl TablePool for Pool {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        let otherwise = || match self.0 {
            Owner::Promised(id) => frames::allocate(pages, pages, Owner::Vm(id)),
            _ => None,
        };
        let table = frames::allocate(pages, pages, self.0).or_else(otherwise)?.leak();
        // SAFETY: fresh frames, mapped at their own address. Walkers are coherent with our write-back memory (VTCR_EL2).
        unsafe { ptr::write_bytes(table.start().0 as *mut u8, 0, table.length() as usize) };
        Some(table.start())
    }

    fn free(&mut self, table: Pa, pages: usize) {
        if let Some(range) = Range::new(table, pages as u64 * PAGE_SIZE) {
            frames::release(range, self.0);
        }
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        // SAFETY: a table of ours; the index is below 512 (contract of the trait).
        unsafe { ptr::read_volatile((table.0 as *const u64).wrapping_add(index)) }
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        // SAFETY: a table of ours; the index is below 512 (contract of the trait). One 64-bit store.
        unsafe { ptr::write_volatile((table.0 as *mut u64).wrapping_add(index), descriptor) };
    }
}

/// Tables of the hypervisor's own that somebody walks who may not see our caches.
struct Cleaned;

impl TablePool for Cleaned {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        let table = frames::allocate(pages, pages, Owner::Kernel)?.leak();
        // SAFETY: fresh frames, mapped at their own address.
        unsafe { el2::cache::zero_and_clean(table.start().0 as usize, table.length() as usize) };
        Some(table.start())
    }

    fn free(&mut self, table: Pa, pages: usize) {
        Pool(Owner::Kernel).free(table, pages);
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        Pool(Owner::Kernel).read(table, index)
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        Pool(Owner::Kernel).write(table, index, descriptor);
        // SAFETY: the word that was written, in a table of ours.
        unsafe { el2::cache::clean_and_invalidate_word((table.0 as *const u64).wrapping_add(index) as usize) };
    }
}

/// What a device of the machine may reach that is no VM's: memory at its own addresses. No CPU uses it. Not to be dropped while an
/// SMMU walks it.
pub(crate) struct DeviceSpace {
    tables: Option<Stage2>,
    vmid: Vmid,
}

impl DeviceSpace {
    /// Empty. `None` if there is no memory for a root, or no VMID.
    pub(crate) fn new() -> Option<Self> {
        let vmid = Vmid::new()?;
        Some(Self { tables: Some(Stage2::new(layout(), &mut Cleaned)?), vmid })
    }

    /// Lets the device reach `memory`. Not once an SMMU walks this.
    pub(crate) fn map(&mut self, memory: Range<Pa>, access: Access) -> Result<(), MapError<Ipa>> {
        let range = Range::between(Ipa(memory.start().0), Ipa(memory.end().0));
        let attributes = Stage2Attributes::new(Memory::NormalWriteBack, access);
        let tables = self.tables.as_mut().ok_or(MapError::OutOfTables)?;
        tables.map(range, memory.start(), attributes, usize::MAX, &mut Cleaned, &mut Idle).map(|_| ())
    }

    /// VMID, `VTCR_EL2`, root: what an SMMU has to be told to walk it.
    pub(crate) fn describe(&self) -> Option<(u16, u64, Pa)> {
        Some((self.vmid.0, layout().vtcr(VmidSize::Bits8), self.tables.as_ref()?.root()))
    }
}

impl Drop for DeviceSpace {
    fn drop(&mut self) {
        if let Some(tables) = self.tables.take() {
            tables.destroy(&mut Cleaned);
        }
    }
}

/// What is left to map, and to where.
pub(crate) type Part = Option<(Range<Ipa>, Pa)>;

/// Its VMID, as VTTBR_EL2 has it, with a root that maps nothing.
struct Live(u64);

impl Maintenance<Ipa> for Live {
    fn publish(&mut self) {
        el2::tlb::publish();
    }

    fn invalidate(&mut self, range: Range<Ipa>, _stale: Stale) {
        let _masked = Masked::new();
        let pages = range.length() / PAGE_SIZE;
        if pages <= BY_PAGE {
            el2::tlb::invalidate_guest_pages(self.0, range.start(), pages);
        } else {
            el2::tlb::invalidate_guest(self.0);
        }
    }
}

/// The stage 2 of one VM. Dropping it invalidates what CPUs have cached of it and gives its memory back.
pub(crate) struct GuestSpace {
    tables: Lock<Option<Stage2>>,
    vmid: Vmid,
    id: VmId,
}

/// What a VM's stage 2 can be.
pub(crate) fn layout() -> Stage2Layout {
    let pa = PaRange::from_id_aa64mmfr0(el2::mmu::memory_model_features());
    Stage2Layout::new(pa, IPA_BITS.min(pa.bits())).unwrap_or(Stage2Layout::largest(pa))
}

impl GuestSpace {
    /// Empty. `None` if there is no memory for a root, or no VMID.
    pub(crate) fn new(id: VmId) -> Option<Self> {
        let vmid = Vmid::new()?;
        let tables = Stage2::new(layout(), &mut Pool(Owner::Vm(id)))?;
        Some(Self { tables: Lock::new(Rank::Stage2, Some(tables)), vmid, id })
    }

    /// VTTBR_EL2.
    pub(crate) fn vttbr(&self) -> u64 {
        self.tables.lock().as_ref().map_or(0, |tables| tables.vttbr(self.vmid.0))
    }

    fn live(&self) -> Live {
        Live(u64::from(self.vmid.0) << 48 | nobody())
    }

    /// Maps `range` to RAM from `to` on; the guest may write it unless it is `read_only`.
    pub(crate) fn map_memory(&self, range: Range<Ipa>, to: Pa, read_only: bool) -> Result<(), MapError<Ipa>> {
        let access = if read_only { Access::READ | Access::EXECUTE } else { Access::all() };
        self.map(range, to, access, usize::MAX, Owner::Vm(self.id)).map(|_| ())
    }

    /// Maps a page that the guest only reads data from: registers. Its own attributes say how, so that it may be Device memory; where
    /// its caches are on it finds what is in ours.
    pub(crate) fn map_shadow(&self, page: Range<Ipa>, to: Pa) -> Result<(), MapError<Ipa>> {
        self.map(page, to, Access::READ, usize::MAX, Owner::Vm(self.id)).map(|_| ())
    }

    /// Maps a page of RAM that comes back.
    pub(crate) fn map_returned(&self, page: Range<Ipa>, to: Pa) -> Result<(), MapError<Ipa>> {
        self.map(page, to, Access::all(), usize::MAX, Owner::Promised(self.id)).map(|_| ())
    }

    /// Maps `range` to memory that others have as well, from `to` on: for data, not for code. Goes over `entries` leaves at most,
    /// and returns what is left.
    pub(crate) fn map_shared(&self, range: Range<Ipa>, to: Pa, entries: usize) -> Result<Part, MapError<Ipa>> {
        let rest = self.map(range, to, Access::READ | Access::WRITE, entries, Owner::Vm(self.id))?;
        Ok(rest.and_then(|rest| Some((rest, to.checked_add(rest.start().0 - range.start().0)?))))
    }

    /// Maps `range` to registers from `to` on.
    pub(crate) fn map_registers(&self, range: Range<Ipa>, to: Pa) -> Result<(), MapError<Ipa>> {
        let attributes = Stage2Attributes::new(Memory::DeviceNgnrne, Access::READ | Access::WRITE);
        self.map_as(range, to, attributes, usize::MAX, Owner::Vm(self.id)).map(|_| ())
    }

    /// Maps registers of a passed device. Writes of it may be answered before they are done, as drivers expect that map it as
    /// Device-nGnRE (Linux' `ioremap`); a guest that wants them done says so by its own attributes.
    pub(crate) fn map_passed(&self, range: Range<Ipa>, to: Pa, writable: bool) -> Result<(), MapError<Ipa>> {
        let access = if writable { Access::READ | Access::WRITE } else { Access::READ };
        let attributes = Stage2Attributes::new(Memory::DeviceNgnre, access);
        self.map_as(range, to, attributes, usize::MAX, Owner::Vm(self.id)).map(|_| ())
    }

    fn map(
        &self,
        range: Range<Ipa>,
        to: Pa,
        access: Access,
        entries: usize,
        tables_of: Owner,
    ) -> Result<Option<Range<Ipa>>, MapError<Ipa>> {
        self.map_as(range, to, Stage2Attributes::new(Memory::NormalWriteBack, access), entries, tables_of)
    }

    fn map_as(
        &self,
        range: Range<Ipa>,
        to: Pa,
        attributes: Stage2Attributes,
        entries: usize,
        tables_of: Owner,
    ) -> Result<Option<Range<Ipa>>, MapError<Ipa>> {
        let mut tables = self.tables.lock();
        let tables = tables.as_mut().ok_or(MapError::OutOfTables)?;
        let progress = tables.map(range, to, attributes, entries, &mut Pool(tables_of), &mut self.live())?;
        Ok(progress.rest)
    }

    /// Takes `range` out of the guest's reach. Goes over `entries` leaves and holes at most, and returns what is left.
    pub(crate) fn unmap(&self, range: Range<Ipa>, entries: usize) -> Option<Range<Ipa>> {
        let mut tables = self.tables.lock();
        // An address that it could not have is not mapped.
        tables.as_mut()?.unmap(range, entries, &mut Pool(Owner::Vm(self.id)), &mut self.live()).ok()?.rest
    }

    /// Takes a few pages of RAM out of the guest's reach, on all CPUs, before this returns. Says whether that was possible: if it was
    /// not, for want of a table, nothing has changed.
    pub(crate) fn unmap_given_back(&self, pages: Range<Ipa>) -> bool {
        let mut tables = self.tables.lock();
        let Some(tables) = tables.as_mut() else { return false };
        tables.unmap(pages, usize::MAX, &mut Pool(Owner::Promised(self.id)), &mut self.live()).is_ok()
    }

    /// The memory behind `at`, up to the end of the block or page that maps it.
    pub(crate) fn lookup(&self, at: Ipa) -> Option<Range<Pa>> {
        let mapping = self.tables.lock().as_ref()?.lookup(at, &Pool(Owner::Vm(self.id)))?;
        let offset = at.0 - mapping.range.start().0;
        Range::new(mapping.to.checked_add(offset)?, mapping.range.length() - offset)
    }

    /// No CPU has anything cached of it any more. None has it loaded.
    pub(crate) fn invalidate(&self) {
        let _masked = Masked::new();
        el2::tlb::invalidate_guest(self.live().0);
    }
}

impl Drop for GuestSpace {
    fn drop(&mut self) {
        self.invalidate();
        // Takes long, and nobody waits for it.
        let tables = self.tables.lock().take();
        if let Some(tables) = tables {
            tables.destroy(&mut Pool(Owner::Vm(self.id)));
        }
    }
}
