//! Memory that VMs share with each other and with the host: what there is, and who is attached.
//!
//! Answers for: the table of regions ([`Regions`]), what their clients tell each other ([`Bells`]), and where in a device's
//! window a region is ([`Window`]). Does not answer for: the memory behind a region, mapping it, and how a client is reached
//! (the kernel's: `M` and `D` below), or for the registers by which guests ask (`vdevs`).

use alloc::vec::Vec;
use core::sync::atomic::{AtomicU32, Ordering::SeqCst};
use types::{Ipa, PAGE_SIZE, Range, VmId};
use vdev::{REGION_CLIENTS, RegionError, RegionName};

/// Most regions there can be at a time.
pub const MAX_REGIONS: usize = 256;

/// What the clients of a region tell each other. Nobody waits for anybody: each has a word that the others set bits in.
#[derive(Debug, Default)]
pub struct Bells {
    /// A bit for each client there is.
    present: AtomicU32,
    /// For each client: who has told it to look (bits 15 to 0), and whether clients have come or gone ([`CHANGED`]).
    news: [AtomicU32; REGION_CLIENTS as usize],
}

/// Clients have come or gone since this one looked.
const CHANGED: u32 = 1 << 16;

const CLIENTS: u32 = (1 << REGION_CLIENTS) - 1;

impl Bells {
    /// Of a region without clients.
    #[must_use]
    pub const fn new() -> Self {
        Self { present: AtomicU32::new(0), news: [const { AtomicU32::new(0) }; REGION_CLIENTS as usize] }
    }

    /// From now on there is this client; the others are to look. Returns who that is.
    fn join(&self, client: u8) -> u16 {
        if let Some(news) = self.news.get(usize::from(client)) {
            news.store(0, SeqCst);
        }
        let others = self.present.fetch_or(1_u32.wrapping_shl(client.into()), SeqCst);
        self.set_changed(others)
    }

    /// There is this client no more; the others are to look. Returns who that is.
    fn leave(&self, client: u8) -> u16 {
        let own = 1_u32.wrapping_shl(client.into());
        let others = self.present.fetch_and(!own, SeqCst) & !own;
        self.set_changed(others)
    }

    fn set_changed(&self, whom: u32) -> u16 {
        self.set(whom, CHANGED)
    }

    /// `from` tells these clients to look. Returns who of them there is and did not know yet.
    pub fn notify(&self, from: u8, clients: u16) -> u16 {
        let whom = u32::from(clients) & self.present.load(SeqCst);
        self.set(whom, 1_u32.wrapping_shl(from.into()) & CLIENTS)
    }

    fn set(&self, whom: u32, bits: u32) -> u16 {
        let mut told = 0_u16;
        for client in ones(whom) {
            // Who has not looked yet has been told, and will see this as well.
            if self.news.get(client).is_some_and(|news| news.fetch_or(bits, SeqCst) == 0) {
                told |= 1_u16.checked_shl(u32::try_from(client).unwrap_or(u32::MAX)).unwrap_or(0);
            }
        }
        told
    }

    /// What `client` has been told since it last looked (bits 15 to 0), and who there is (bits 31 to 16).
    pub fn look(&self, client: u8) -> u32 {
        let news = self.news.get(usize::from(client)).map_or(0, |news| news.swap(0, SeqCst));
        (news & CLIENTS) | self.present.load(SeqCst).wrapping_shl(16)
    }

    /// Whether `client` has been told something that it has not looked at.
    #[must_use]
    pub fn has_news(&self, client: u8) -> bool {
        self.news.get(usize::from(client)).is_some_and(|news| news.load(SeqCst) != 0)
    }

    /// Which clients there are, a bit each.
    #[must_use]
    pub fn present(&self) -> u16 {
        u16::try_from(self.present.load(SeqCst) & CLIENTS).unwrap_or(0)
    }
}

/// Which bits are set, from the lowest.
fn ones(mut bits: u32) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let lowest = (bits != 0).then(|| bits.trailing_zeros())?;
        bits &= bits.wrapping_sub(1);
        usize::try_from(lowest).ok()
    })
}

/// A region, by its place in the table. What it names may have gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionId(u8);

impl RegionId {
    /// Its place in the table, below [`MAX_REGIONS`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// A region.
#[derive(Debug)]
struct Region<M, D> {
    name: RegionName,
    pages: u32,
    memory: M,
    /// How each client is reached.
    clients: [Option<D>; REGION_CLIENTS as usize],
    /// Who wants it to be there whether it has clients or not.
    keepers: Vec<Keeper>,
    /// For whose guest it was made, as long as that lives.
    maker: Option<VmId>,
}

/// Who wants a region to be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keeper {
    /// Somebody at the shell.
    Host,
    /// The configuration of a VM, while it lives.
    Vm(VmId),
}

/// A region that somebody has been attached to.
#[derive(Debug)]
pub struct Joined<M> {
    /// Which one.
    pub region: RegionId,
    /// Which client.
    pub client: u8,
    /// Its size in pages.
    pub pages: u32,
    /// What is behind it.
    pub memory: M,
    /// Clients that are to be told of it, a bit each.
    pub tell: u16,
}

/// Why a region cannot be added, with its memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdded<M> {
    /// There is one of that name.
    Exists(M),
    /// There are as many as there can be.
    TooMany(M),
}

/// What the end of a client has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left<M> {
    /// Which region it was.
    pub region: RegionId,
    /// Clients that are to be told of it, a bit each.
    pub tell: u16,
    /// The memory of the region, if that has gone too.
    pub memory: Option<M>,
}

/// What is known of a region, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegionInfo {
    /// Its name.
    pub name: RegionName,
    /// Its size in pages.
    pub pages: u32,
    /// Its clients, a bit each.
    pub clients: u16,
    /// Whether the shell keeps it.
    pub kept_by_host: bool,
}

/// All regions there are, and the bells of those there can be. `M` is the memory of one, `D` reaches a client.
#[derive(Debug)]
pub struct Regions<M: 'static, D> {
    /// At most [`MAX_REGIONS`].
    regions: Vec<Option<Region<M, D>>>,
    bells: &'static [Bells; MAX_REGIONS],
}

impl<M: Clone, D> Regions<M, D> {
    /// None yet.
    #[must_use]
    pub const fn new(bells: &'static [Bells; MAX_REGIONS]) -> Self {
        Self { regions: Vec::new(), bells }
    }

    fn all(&self) -> impl Iterator<Item = (RegionId, &Region<M, D>)> {
        self.regions.iter().zip(0..=u8::MAX).filter_map(|(region, number)| Some((RegionId(number), region.as_ref()?)))
    }

    fn id(&self, name: &RegionName) -> Option<RegionId> {
        self.all().find(|(_, region)| region.name == *name).map(|(id, _)| id)
    }

    fn get_mut(&mut self, id: RegionId) -> Option<&mut Region<M, D>> {
        self.regions.get_mut(id.index())?.as_mut()
    }

    /// The bells of a region.
    #[must_use]
    pub fn bells(&self, id: RegionId) -> Option<&'static Bells> {
        self.bells.get(id.index())
    }

    /// Adds a client to the region `name`. `None` if there is no such region.
    pub fn join(&mut self, name: &RegionName, door: D) -> Option<Result<Joined<M>, RegionError>> {
        let id = self.id(name)?;
        let bells = self.bells(id)?;
        let region = self.get_mut(id)?;
        let free = region.clients.iter().zip(0_u8..).find(|(client, _)| client.is_none()).map(|(_, number)| number);
        let Some(client) = free else { return Some(Err(RegionError::TooManyClients)) };
        let tell = bells.join(client);
        if let Some(place) = region.clients.get_mut(usize::from(client)) {
            *place = Some(door);
        }
        Some(Ok(Joined { region: id, client, pages: region.pages, memory: region.memory.clone(), tell }))
    }

    /// Adds a region. It is there until its first client has come and the last one has gone, or for as long as `keeper` wants
    /// it.
    ///
    /// # Errors
    /// The memory again, and why.
    pub fn add(
        &mut self,
        name: RegionName,
        pages: u32,
        memory: M,
        keeper: Option<Keeper>,
        maker: Option<VmId>,
    ) -> Result<(), NotAdded<M>> {
        if self.id(&name).is_some() {
            return Err(NotAdded::Exists(memory));
        }
        let place = match self.regions.iter().position(Option::is_none) {
            Some(place) => place,
            None if self.regions.len() < MAX_REGIONS => {
                self.regions.push(None);
                self.regions.len().saturating_sub(1)
            }
            None => return Err(NotAdded::TooMany(memory)),
        };
        let clients = [const { None }; REGION_CLIENTS as usize];
        let region = Region { name, pages, memory, clients, keepers: keeper.into_iter().collect(), maker };
        if let Some(place) = self.regions.get_mut(place) {
            *place = Some(region);
        }
        Ok(())
    }

    /// Has a region stay for the sake of `keeper`. Says whether there is one of that name.
    pub fn keep(&mut self, name: &RegionName, keeper: Keeper) -> bool {
        let Some(region) = self.id(name).and_then(|id| self.get_mut(id)) else { return false };
        if !region.keepers.contains(&keeper) {
            region.keepers.push(keeper);
        }
        true
    }

    /// `keeper` does not need a region any more. Says whether it did, and returns the memory of the region if that has gone.
    pub fn release(&mut self, name: &RegionName, keeper: Keeper) -> (bool, Option<M>) {
        let Some(id) = self.id(name) else { return (false, None) };
        let Some(region) = self.get_mut(id) else { return (false, None) };
        let before = region.keepers.len();
        region.keepers.retain(|other| *other != keeper);
        (region.keepers.len() < before, self.collect(id))
    }

    /// A client goes. `None` if it was not there.
    pub fn leave(&mut self, id: RegionId, client: u8) -> Option<Left<M>> {
        let bells = self.bells(id)?;
        let _door = self.get_mut(id)?.clients.get_mut(usize::from(client))?.take()?;
        Some(Left { region: id, tell: bells.leave(client), memory: self.collect(id) })
    }

    /// The VM `vm` has ended, whose clients `is_its` knows. One step: call it until it returns `None`.
    pub fn end(&mut self, vm: VmId, is_its: impl Fn(&D) -> bool) -> Option<Left<M>> {
        for region in self.regions.iter_mut().flatten() {
            region.keepers.retain(|keeper| *keeper != Keeper::Vm(vm));
            if region.maker == Some(vm) {
                region.maker = None;
            }
        }
        let client = self.all().find_map(|(id, region)| {
            let mine = region.clients.iter().zip(0_u8..).find(|(client, _)| client.as_ref().is_some_and(&is_its));
            mine.map(|(_, number)| (id, number))
        });
        if let Some((id, client)) = client {
            return self.leave(id, client);
        }
        let unused = self.all().find(|(_, region)| region.is_unused()).map(|(id, _)| id)?;
        Some(Left { region: unused, tell: 0, memory: self.collect(unused) })
    }

    /// How these clients of a region are reached.
    pub fn doors(&self, id: RegionId, clients: u16) -> impl Iterator<Item = &D> {
        let region = self.regions.get(id.index()).and_then(Option::as_ref);
        ones(clients.into()).filter_map(move |client| region?.clients.get(client)?.as_ref())
    }

    /// Pages of the regions that were made for the guest of `vm` and are still there.
    #[must_use]
    pub fn made_by(&self, vm: VmId) -> u64 {
        let made = self.all().filter(|(_, region)| region.maker == Some(vm));
        made.fold(0, |sum, (_, region)| sum.saturating_add(region.pages.into()))
    }

    /// The memory of the region `name`, and its size in pages.
    #[must_use]
    pub fn memory(&self, name: &RegionName) -> Option<(M, u32)> {
        self.all().find(|(_, region)| region.name == *name).map(|(_, region)| (region.memory.clone(), region.pages))
    }

    /// Names and sizes in pages of all regions.
    pub fn names(&self) -> impl Iterator<Item = (RegionName, u32)> {
        self.all().map(|(_, region)| (region.name, region.pages))
    }

    /// What is known of the region `number`, counted from 0, of those there are.
    #[must_use]
    pub fn info(&self, number: usize) -> Option<RegionInfo> {
        let (id, region) = self.all().nth(number)?;
        let clients = self.bells(id).map_or(0, Bells::present);
        let kept_by_host = region.keepers.contains(&Keeper::Host);
        Some(RegionInfo { name: region.name, pages: region.pages, clients, kept_by_host })
    }

    /// Takes the region away if nobody has it.
    fn collect(&mut self, id: RegionId) -> Option<M> {
        self.regions.get_mut(id.index())?.take_if(|region| region.is_unused()).map(|region| region.memory)
    }
}

impl<M, D> Region<M, D> {
    fn is_unused(&self) -> bool {
        self.keepers.is_empty() && self.clients.iter().all(Option::is_none)
    }
}

/// The guest-physical addresses in which a device has its regions. Each is the page of its registers and, right behind it, its
/// memory, which begins at a multiple of what one block of stage 2 maps.
#[derive(Debug)]
pub struct Window {
    range: Range<Ipa>,
    /// Sorted.
    taken: Vec<Range<Ipa>>,
}

impl Window {
    /// All of it is free.
    #[must_use]
    pub const fn new(range: Range<Ipa>) -> Self {
        Self { range, taken: Vec::new() }
    }

    /// Takes the first place for a region of so many pages.
    pub fn take(&mut self, pages: u32) -> Option<Range<Ipa>> {
        /// What a block at levels 2 and 1 maps (DDI 0487, "The VMSAv8-64 translation table format descriptors", 4 KiB granule).
        const BLOCKS: [u64; 2] = [2 << 20, 1 << 30];
        let length = u64::from(pages).checked_mul(PAGE_SIZE)?;
        let alignment = BLOCKS.into_iter().rev().find(|block| length >= *block).unwrap_or(BLOCKS[0]);
        let gaps = core::iter::once(self.range.start()).chain(self.taken.iter().map(Range::end));
        let place = gaps.into_iter().find_map(|free| {
            let memory = free.checked_add(PAGE_SIZE)?.align_up(alignment)?;
            let place = Range::new(Ipa(memory.0.checked_sub(PAGE_SIZE)?), length.checked_add(PAGE_SIZE)?)?;
            let fits = self.range.contains_range(&place) && !self.taken.iter().any(|other| other.overlaps(&place));
            fits.then_some(place)
        })?;
        self.taken.push(place);
        types::sort_by(&mut self.taken, |a: &Range<Ipa>, b: &Range<Ipa>| a.start().cmp(&b.start()));
        Some(place)
    }

    /// Gives a place back.
    pub fn give_back(&mut self, place: Range<Ipa>) {
        self.taken.retain(|other| *other != place);
    }
}

#[cfg(test)]
mod tests;
