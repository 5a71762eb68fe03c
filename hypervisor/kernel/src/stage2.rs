//! Stage 2 of each VM: its tables' memory, its VMID, and the maintenance that belongs to a change.
//!
//! Answers for: building and taking down what confines a guest's CPUs and its devices, and building what confines a device that is no
//! VM's. Does not answer for: the format of the tables (`pagetable`), which memory is mapped where (`partition`), which device walks
//! them (`smmuman`).
//!
//! Devices have a root of their own over the same tables, and forget what is taken from the guest before it is anybody else's: with the
//! lock of the tables held, so a change takes as long as the slowest SMMU, within its limit.

use crate::frames::{self, Owner};
use crate::smmuman;
use crate::sync::{Lock, Masked, Rank};
use core::ptr;
use core::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use pagetable::{
    Access, DeviceView, DeviceWalkers, Idle, Maintenance, MapError, Memory, Mirrored, PaRange, Stage2,
    Stage2Attributes, Stage2Layout, Stale, TablePool, VmidSize, Walkers,
};
use types::{Ipa, PAGE_SIZE, Pa, Range, VmId};

/// Guests see 40 bits of physical address, as far as the machine has them: enough for every memory map, and one level of
/// translation less than more would need.
const IPA_BITS: u32 = 40;

/// Beyond so many pages all of a VMID is invalidated at once.
const BY_PAGE: u64 = 64;

/// The smallest block.
const BLOCK: u64 = 2 << 20;

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

/// Tables out of frames of its owner's: promised ones first, if they are for that.
struct Pool {
    owner: Owner,
    /// Somebody walks them who may not see our caches.
    is_cleaned: bool,
}

impl TablePool for Pool {
    fn allocate(&mut self, pages: usize) -> Option<Pa> {
        let otherwise = || match self.owner {
            Owner::Promised(id) => frames::allocate(pages, pages, Owner::Vm(id)),
            _ => None,
        };
        let table = frames::allocate(pages, pages, self.owner).or_else(otherwise)?.leak();
        if self.is_cleaned {
            // SAFETY: fresh frames, mapped at their own address.
            unsafe { el2::cache::zero_and_clean(table.start().0 as usize, table.length() as usize) };
        } else {
            // SAFETY: the same. Walkers are coherent with our write-back memory (VTCR_EL2).
            unsafe { ptr::write_bytes(table.start().0 as *mut u8, 0, table.length() as usize) };
        }
        Some(table.start())
    }

    fn free(&mut self, table: Pa, pages: usize) {
        if let Some(range) = Range::new(table, pages as u64 * PAGE_SIZE) {
            frames::release(range, self.owner);
        }
    }

    fn read(&self, table: Pa, index: usize) -> u64 {
        // SAFETY: a table of ours; the index is below 512 (contract of the trait).
        unsafe { ptr::read_volatile((table.0 as *const u64).wrapping_add(index)) }
    }

    fn write(&mut self, table: Pa, index: usize, descriptor: u64) {
        let word = (table.0 as *mut u64).wrapping_add(index);
        // SAFETY: a table of ours; the index is below 512 (contract of the trait). One 64-bit store.
        unsafe { ptr::write_volatile(word, descriptor) };
        if self.is_cleaned {
            // SAFETY: the word that was written, in a table of ours.
            unsafe { el2::cache::clean_and_invalidate_word(word as usize) };
        }
    }
}

/// Tables of the hypervisor's own that an SMMU walks.
fn own() -> Pool {
    Pool { owner: Owner::Kernel, is_cleaned: true }
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
        Some(Self { tables: Some(Stage2::new(layout(), &mut own())?), vmid })
    }

    /// Lets the device reach `memory`. Not once an SMMU walks this.
    pub(crate) fn map(&mut self, memory: Range<Pa>, access: Access) -> Result<(), MapError<Ipa>> {
        let range = Range::between(Ipa(memory.start().0), Ipa(memory.end().0));
        let attributes = Stage2Attributes::new(Memory::NormalWriteBack, access);
        let tables = self.tables.as_mut().ok_or(MapError::OutOfTables)?;
        tables.map(range, memory.start(), attributes, usize::MAX, &mut own(), &mut Idle).map(|_| ())
    }

    /// VMID, `VTCR_EL2`, root: what an SMMU has to be told to walk it.
    pub(crate) fn describe(&self) -> Option<(u16, u64, Pa)> {
        Some((self.vmid.0, layout().vtcr(VmidSize::Bits8), self.tables.as_ref()?.root()))
    }
}

impl Drop for DeviceSpace {
    fn drop(&mut self) {
        if let Some(tables) = self.tables.take() {
            tables.destroy(&mut own());
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

/// The SMMUs that walk a VM's tables: bit n is smmuN.
struct Smmus<'a> {
    vmid: u16,
    numbers: &'a AtomicU32,
    /// They may have combined it with a stage 1 of the guest's.
    nested: bool,
}

impl DeviceWalkers for Smmus<'_> {
    fn forget(&mut self, range: Range<Ipa>, stale: Stale) -> bool {
        match self.numbers.load(Ordering::SeqCst) {
            0 => true,
            numbers => smmuman::forget(numbers, self.vmid, range, stale, self.nested),
        }
    }
}

/// Tables, and the same as devices see them.
struct Tables {
    stage2: Stage2,
    view: Option<DeviceView>,
}

/// What has become of pages that were to be taken from a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// Nobody reaches them any more.
    All,
    /// The guest's CPUs do not reach them, but a device of its may: they must not become anybody else's.
    Lost,
    /// There was no table for it, and nothing has changed.
    Nothing,
}

/// The stage 2 of one VM. Dropping it invalidates what CPUs have cached of it and gives its memory back; not while an SMMU walks it.
pub(crate) struct GuestSpace {
    tables: Lock<Option<Tables>>,
    vmid: Vmid,
    id: VmId,
    /// Tables are cleaned for an SMMU.
    is_cleaned: bool,
    /// The SMMUs that walk it.
    smmus: AtomicU32,
    /// The guest has a stage 1 before it.
    nested: AtomicBool,
    /// One of them may have kept what was taken from the guest.
    lost: AtomicBool,
}

/// What a VM's stage 2 can be.
pub(crate) fn layout() -> Stage2Layout {
    let pa = PaRange::from_id_aa64mmfr0(el2::mmu::memory_model_features());
    Stage2Layout::new(pa, IPA_BITS.min(pa.bits())).unwrap_or(Stage2Layout::largest(pa))
}

impl GuestSpace {
    /// Empty; for devices, too, if it is `shared` with an SMMU. `None` if there is no memory for a root, or no VMID.
    pub(crate) fn new(id: VmId, shared: bool) -> Option<Self> {
        let vmid = Vmid::new()?;
        let is_cleaned = shared && smmuman::needs_cleaning();
        let mut pool = Pool { owner: Owner::Vm(id), is_cleaned };
        let stage2 = Stage2::new(layout(), &mut pool)?;
        let view = if shared { DeviceView::new(&stage2, &mut pool) } else { None };
        let has_view = view.is_some();
        let (smmus, nested, lost) = (AtomicU32::new(0), AtomicBool::new(false), AtomicBool::new(false));
        let tables = Lock::new(Rank::Stage2, Some(Tables { stage2, view }));
        let space = Self { tables, vmid, id, is_cleaned, smmus, nested, lost };
        (has_view == shared).then_some(space)
    }

    /// VTTBR_EL2.
    pub(crate) fn vttbr(&self) -> u64 {
        self.tables.lock().as_ref().map_or(0, |tables| tables.stage2.vttbr(self.vmid.0))
    }

    /// VMID, `VTCR_EL2`, root: what an SMMU has to be told to walk it. `None` if it is not for devices.
    pub(crate) fn describe(&self) -> Option<(u16, u64, Pa)> {
        let root = self.tables.lock().as_ref()?.view.as_ref()?.root();
        Some((self.vmid.0, layout().vtcr(VmidSize::Bits8), root))
    }

    /// From now on smmu `number` is told of each change: before it walks the tables for the first time.
    pub(crate) fn tell(&self, number: usize) {
        self.smmus.fetch_or(1 << number, Ordering::SeqCst);
    }

    /// From now on the guest may have a stage 1 before it.
    pub(crate) fn nest(&self) {
        self.nested.store(true, Ordering::SeqCst);
    }

    /// No SMMU walks it any more.
    pub(crate) fn tell_nobody(&self) {
        self.smmus.store(0, Ordering::SeqCst);
    }

    /// Whether a device may have kept a way to what was taken from the guest.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Relaxed)
    }

    /// Lets the VM's devices, and nobody else, write the page `to` of the machine's registers. Says where they have it: in a part of the
    /// address space of which `is_free` says that the guest never has anything there. `None` if there is none, or no memory.
    pub(crate) fn open_doorbell(&self, to: Pa, is_free: impl Fn(Range<Ipa>) -> bool) -> Option<Ipa> {
        let mut tables = self.tables.lock();
        let view = tables.as_mut()?.view.as_mut()?;
        view.open_doorbell(to, is_free, &mut self.pool(Owner::Vm(self.id)), &mut self.live())
    }

    /// The same, with the page at `at`. Says whether that could be: `is_free` says of the part of the address space that it is in that the
    /// guest has no memory there.
    pub(crate) fn open_doorbell_at(&self, to: Pa, at: Ipa, is_free: impl Fn(Range<Ipa>) -> bool) -> bool {
        let mut tables = self.tables.lock();
        let Some(view) = tables.as_mut().and_then(|tables| tables.view.as_mut()) else { return false };
        let mut walkers = Walkers { cpus: self.live(), devices: self.walkers(), lost: &self.lost };
        view.open_doorbell_at(to, at, is_free, &mut self.pool(Owner::Vm(self.id)), &mut walkers)
    }

    fn walkers(&self) -> Smmus<'_> {
        Smmus { vmid: self.vmid.0, numbers: &self.smmus, nested: self.nested.load(Ordering::SeqCst) }
    }

    fn pool(&self, owner: Owner) -> Pool {
        Pool { owner, is_cleaned: self.is_cleaned }
    }

    /// Makes a change to the tables, with all who walk them told.
    fn change<R>(
        &self,
        owner: Owner,
        work: impl FnOnce(&mut Stage2, &mut Mirrored<'_, Pool>, &mut Walkers<'_, Live, Smmus<'_>>) -> R,
    ) -> Option<R> {
        let mut tables = self.tables.lock();
        let Tables { stage2, view } = tables.as_mut()?;
        let mut pool = self.pool(owner);
        let mut pool = Mirrored { pool: &mut pool, view: view.as_ref(), lost: &self.lost };
        Some(work(stage2, &mut pool, &mut Walkers { cpus: self.live(), devices: self.walkers(), lost: &self.lost }))
    }

    fn live(&self) -> Live {
        Live(u64::from(self.vmid.0) << 48 | nobody())
    }

    /// Maps `range` to RAM from `to` on; the guest may write it unless it is `read_only`. If it is to be `by_pages`, each of them can be
    /// taken from the guest without its neighbours being gone for a moment.
    pub(crate) fn map_memory(
        &self,
        range: Range<Ipa>,
        to: Pa,
        read_only: bool,
        by_pages: bool,
    ) -> Result<(), MapError<Ipa>> {
        let access = if read_only { Access::READ | Access::EXECUTE } else { Access::all() };
        let mut at = range.start();
        while at < range.end() {
            // A page of each block by itself: then the rest fits no block either.
            let is_first = at.is_aligned(BLOCK);
            let end = match (by_pages, is_first) {
                (false, _) => range.end(),
                (true, true) => Ipa(at.0 + PAGE_SIZE),
                (true, false) => Ipa((at.0 + PAGE_SIZE).next_multiple_of(BLOCK)),
            };
            let part = Range::between(at, end.min(range.end()));
            let to = Pa(to.0 + (at.0 - range.start().0));
            self.map(part, to, access, usize::MAX, Owner::Vm(self.id))?;
            at = part.end();
        }
        Ok(())
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
        let progress =
            self.change(tables_of, |stage2, pool, walkers| stage2.map(range, to, attributes, entries, pool, walkers));
        Ok(progress.ok_or(MapError::OutOfTables)??.rest)
    }

    /// Takes `range` out of the guest's reach. Goes over `entries` leaves and holes at most, and returns what is left. Whoever gives
    /// away what was there asks [`GuestSpace::is_lost`] first.
    pub(crate) fn unmap(&self, range: Range<Ipa>, entries: usize) -> Option<Range<Ipa>> {
        let owner = Owner::Vm(self.id);
        // An address that it could not have is not mapped.
        self.change(owner, |stage2, pool, walkers| stage2.unmap(range, entries, pool, walkers))?.ok()?.rest
    }

    /// Takes a few pages of RAM out of the guest's reach, of all CPUs and devices, before this returns.
    pub(crate) fn unmap_given_back(&self, pages: Range<Ipa>) -> Taken {
        let owner = Owner::Promised(self.id);
        match self.change(owner, |stage2, pool, walkers| stage2.unmap(pages, usize::MAX, pool, walkers)) {
            Some(Ok(_)) if self.is_lost() => Taken::Lost,
            Some(Ok(_)) => Taken::All,
            Some(Err(_)) | None => Taken::Nothing,
        }
    }

    /// The memory behind `at`, up to the end of the block or page that maps it.
    pub(crate) fn lookup(&self, at: Ipa) -> Option<Range<Pa>> {
        let mapping = self.tables.lock().as_ref()?.stage2.lookup(at, &self.pool(Owner::Vm(self.id)))?;
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
        if let Some(Tables { stage2, view }) = tables {
            let mut pool = self.pool(Owner::Vm(self.id));
            stage2.destroy(&mut pool);
            if let Some(view) = view {
                view.destroy(&mut pool);
            }
        }
    }
}
