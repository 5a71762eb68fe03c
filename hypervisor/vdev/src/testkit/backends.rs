//! Back ends that remember what happened to them: characters, workers, shared memory.

use super::balloon::Pages;
use super::disk::Disk;
use super::part::Part;
use super::slate::Slate;
use crate::{
    Attached, BackendError, Backends, Balloon, BlockDevice, Bus, CharDevice, Context, DeviceId, Effects, Entropy,
    FunctionFacts, HostDevice, HostDisk, HostFiles, HostFunction, HostStreams, Mac, NetPort, NetWish, NewWorker,
    PulseSink, RegionError, RegionName, RegionWishes, Registers, Services, ShadowPage, SharedMemory, Step, Taken,
    TraceSink, Untraced, VsockPort, VsockWish, WORKERS, Wake, WantedFunction, Work,
};
use alloc::{
    boxed::Box,
    collections::{btree_map::BTreeMap, vec_deque::VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec::Vec,
};
use core::cell::RefCell;
use core::fmt;
use types::{Ipa, Lock, PAGE_SIZE, Range};

/// A character back end; clones are handles of the same one.
#[derive(Clone, Debug, Default)]
pub struct Wire(Arc<Lock<WireState>>);

#[derive(Debug, Default)]
struct WireState {
    output: Vec<u8>,
    limit: Option<usize>,
    input: VecDeque<u8>,
}

impl Wire {
    /// Puts bytes where the device will read them.
    pub fn type_in(&self, bytes: &[u8]) {
        self.0.lock().input.extend(bytes);
    }

    /// How many bytes the device has not read yet.
    #[must_use]
    pub fn unread(&self) -> usize {
        self.0.lock().input.len()
    }

    /// What the device has written since this was last asked.
    #[must_use]
    pub fn take_output(&self) -> Vec<u8> {
        core::mem::take(&mut self.0.lock().output)
    }

    /// From now on takes only so many bytes more (`None`: any number).
    pub fn set_space(&self, space: Option<usize>) {
        self.0.lock().limit = space;
    }
}

impl CharDevice for Wire {
    fn space(&self) -> usize {
        self.0.lock().limit.unwrap_or(usize::MAX)
    }

    fn write(&mut self, byte: u8) -> Taken {
        let mut state = self.0.lock();
        match &mut state.limit {
            Some(0) => return Taken::No,
            Some(limit) => *limit = limit.saturating_sub(1),
            None => {}
        }
        state.output.push(byte);
        if state.output.len() == 1 { Taken::Ring } else { Taken::Yes }
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, Taken) {
        let mut result = (0_usize, Taken::No);
        for taken in bytes.iter().map(|byte| self.write(*byte)).take_while(|taken| taken.is_taken()) {
            result = (result.0.saturating_add(1), result.1.and(taken));
        }
        result
    }

    fn read(&mut self) -> Option<u8> {
        self.0.lock().input.pop_front()
    }
}

/// A back end that was opened for output only.
struct Deaf(Wire);

impl CharDevice for Deaf {
    fn space(&self) -> usize {
        self.0.space()
    }

    fn write(&mut self, byte: u8) -> Taken {
        self.0.write(byte)
    }

    fn append(&mut self, bytes: &[u8]) -> (usize, Taken) {
        self.0.append(bytes)
    }

    fn read(&mut self) -> Option<u8> {
        None
    }
}

/// Back ends by name, all of them [`Wire`]s; `-` is there from the start.
pub struct Wires {
    wires: BTreeMap<String, Wire>,
    /// The shared memory of the device that wants it.
    pub shared: Shared,
    /// The device's workers.
    pub crew: Crew,
    /// Where events for traces go: nowhere, unless a test says so.
    pub trace: &'static dyn TraceSink,
    /// Where random numbers come from: there are none, unless a test says so.
    pub entropy: Option<Entropy>,
    /// The disk, under whatever name, if it has any bytes.
    pub disk: Disk,
    /// The files of the directory that the device has, under whatever name, if there are any.
    pub files: HostFiles,
    /// The RAM that the guest can give back, if it has any pages.
    pub pages: Pages,
    /// What the guest reads without an exit, if the device asks for that and nobody watches.
    pub slate: Slate,
    /// Who has that page in place of `slate`.
    pub watch: Option<Arc<dyn ShadowPage>>,
    /// Who connects the device to a network: nobody, unless a test says so.
    pub net: Option<Box<Connect>>,
    /// Who gives the device a place among those that have sockets: nobody, unless a test says so.
    pub vsock: Option<Box<Admit>>,
    /// Functions of the machine, in the order in which they are asked for: none, unless a test says so.
    pub functions: Vec<(FunctionFacts, Arc<dyn HostFunction>)>,
    /// The device of the machine that the VM has, and where its guest finds it: none, unless a test says so.
    pub passed: Option<(Ipa, Part)>,
    /// Streams of the VM's devices of the machine: none, unless a test says so.
    pub streams: Option<Arc<dyn HostStreams>>,
}

/// Connects a device to a network, as [`Backends::net`] does.
pub type Connect = dyn FnMut(&NetWish) -> Result<(Mac, Arc<dyn NetPort>), BackendError>;

/// Gives a device a place among those that have sockets, as [`Backends::vsock`] does.
pub type Admit = dyn FnMut(&VsockWish) -> Result<(u32, Arc<dyn VsockPort>), BackendError>;

impl Default for Wires {
    fn default() -> Self {
        Self {
            wires: BTreeMap::from([("-".to_string(), Wire::default())]),
            shared: Shared::default(),
            crew: Crew::default(),
            trace: &Untraced,
            entropy: None,
            disk: Disk::default(),
            files: HostFiles::new(),
            pages: Pages::default(),
            slate: Slate::default(),
            watch: None,
            net: None,
            vsock: None,
            functions: Vec::new(),
            passed: None,
            streams: None,
        }
    }
}

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wires").field("wires", &self.wires).finish_non_exhaustive()
    }
}

impl Wires {
    /// The back end `name`, made if it is not there.
    pub fn wire(&mut self, name: &str) -> Wire {
        self.wires.entry(name.to_string()).or_default().clone()
    }
}

impl Backends for Wires {
    fn streams(&mut self) -> Option<Arc<dyn HostStreams>> {
        self.streams.clone()
    }

    fn function(
        &mut self,
        _: DeviceId,
        wanted: WantedFunction,
        _: bool,
    ) -> Result<(FunctionFacts, Arc<dyn HostFunction>), BackendError> {
        if self.functions.is_empty() {
            return Err(BackendError(format!("the machine has no function {wanted}")));
        }
        Ok(self.functions.remove(0))
    }

    fn character(&mut self, _id: DeviceId, device: &HostDevice) -> Result<Box<dyn CharDevice>, BackendError> {
        match self.wires.get(&device.name) {
            Some(wire) if device.direction.reads() => Ok(Box::new(wire.clone())),
            Some(wire) => Ok(Box::new(Deaf(wire.clone()))),
            None => Err(BackendError(format!("there is no back end `{}`", device.name))),
        }
    }

    fn disk(&mut self, _: &str, disk: &HostDisk) -> Result<Box<dyn BlockDevice>, BackendError> {
        if self.disk.bytes().is_empty() {
            return Err(BackendError(format!("there is no disk `{disk}`")));
        }
        Ok(Box::new(self.disk.open(disk)))
    }

    fn directory(&mut self, path: &str) -> Result<HostFiles, BackendError> {
        if self.files.is_empty() {
            return Err(BackendError(format!("there is no directory `{path}`")));
        }
        Ok(self.files.clone())
    }

    fn net(&mut self, _id: DeviceId, wish: &NetWish) -> Result<(Mac, Arc<dyn NetPort>), BackendError> {
        self.net
            .as_mut()
            .map_or_else(|| Err(BackendError("there are no networks".to_string())), |connect| connect(wish))
    }

    fn vsock(&mut self, _id: DeviceId, wish: &VsockWish) -> Result<(u32, Arc<dyn VsockPort>), BackendError> {
        self.vsock.as_mut().map_or_else(|| Err(BackendError("there are no sockets".to_string())), |place| place(wish))
    }

    fn balloon(&mut self, _id: DeviceId, _lends: bool) -> Result<Arc<dyn Balloon>, BackendError> {
        if !self.pages.is_there() {
            return Err(BackendError("there is no RAM to give back".to_string()));
        }
        Ok(Arc::new(self.pages.clone()))
    }

    fn shadow_page(&mut self, _page: Range<Ipa>) -> Option<Arc<dyn ShadowPage>> {
        if let Some(watch) = self.watch.take() {
            return Some(watch);
        }
        self.slate.give();
        Some(Arc::new(self.slate.clone()))
    }

    fn registers(&mut self, region: Ipa) -> Result<Arc<dyn Registers>, BackendError> {
        match &self.passed {
            Some((at, part)) if *at == region => Ok(Arc::new(part.clone())),
            _ => Err(BackendError(format!("nothing is passed at {region}"))),
        }
    }

    fn watch(&mut self, _id: DeviceId, _vm: &str) -> Result<(), BackendError> {
        Ok(())
    }

    fn worker(&mut self, _id: DeviceId, new: NewWorker) -> Result<(), BackendError> {
        let mut hands = self.crew.hands.lock();
        if hands.len() >= WORKERS {
            return Err(BackendError(format!("more than {WORKERS} workers")));
        }
        hands.push((new, Step::Wait));
        Ok(())
    }

    fn shared_memory(
        &mut self,
        _id: DeviceId,
        window: Range<Ipa>,
        wishes: RegionWishes,
    ) -> Result<Box<dyn SharedMemory>, BackendError> {
        let mut state = self.shared.0.lock();
        (state.window, state.wishes) = (window.start(), wishes);
        drop(state);
        Ok(Box::new(self.shared.clone()))
    }

    fn trace(&self) -> &'static dyn TraceSink {
        self.trace
    }

    fn entropy(&self) -> Option<Entropy> {
        self.entropy
    }
}

/// The workers of a device, which work when the test says so ([`Rig::work`]); clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct Crew {
    hands: Arc<Lock<Vec<(NewWorker, Step)>>>,
    pulses: Pulses,
    /// What happens before each look of a worker's.
    meanwhile: Meanwhile,
}

/// What a guest does while workers work, to devices of that bus.
pub type Interference = dyn FnMut(&Bus, &Services<'_>, &mut Effects);

#[derive(Clone, Default)]
struct Meanwhile(Arc<Lock<Option<Box<Interference>>>>);

impl fmt::Debug for Meanwhile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Meanwhile")
    }
}

#[derive(Clone, Debug, Default)]
struct Pulses(Arc<Lock<Vec<u8>>>);

impl Crew {
    /// Has the guest do something whenever a worker is about to reach for memory or for what it shares with its device: that is where
    /// another CPU can have been faster.
    pub fn interfere(&self, interference: Option<Box<Interference>>) {
        *self.meanwhile.0.lock() = interference;
    }

    /// The workers take steps as those of the device `id` of `bus` until all of them wait, and then it has its pulses. Says how many
    /// steps that were.
    ///
    /// # Panics
    /// After a million of them: a worker does not come to an end.
    pub fn work(&self, bus: &Bus, id: DeviceId, services: &Services<'_>, effects: &mut Effects) -> usize {
        let mut steps = 0_usize;
        let mut hands = core::mem::take(&mut *self.hands.lock());
        let told = RefCell::new(&mut *effects);
        let gate = |work: &mut dyn FnMut(&mut Context<'_>)| {
            if let Some(interfere) = &mut *self.meanwhile.0.lock() {
                interfere(bus, services, &mut told.borrow_mut());
            }
            bus.enter(id, services, &mut told.borrow_mut(), work);
        };
        for (NewWorker { worker, bell }, next) in &mut hands {
            let is_ready = |next: &Step| match next {
                Step::Again => true,
                Step::Wait => false,
                Step::Until(when) => *when <= services.now,
            };
            while bell.take() || is_ready(next) {
                *next = worker.step(&mut Work::new(services.now, services.memory, &gate, &self.pulses));
                steps = steps.saturating_add(1);
                assert!(steps < 1_000_000, "a worker does not come to an end");
            }
        }
        *self.hands.lock() = hands;
        let pulses = core::mem::take(&mut *self.pulses.0.lock());
        pulses.into_iter().for_each(|code| bus.wake(id, Wake::Pulse(code), services, effects));
        steps
    }
}

impl PulseSink for Pulses {
    fn send(&self, code: u8) {
        self.0.lock().push(code);
    }
}

/// Shared memory whose other clients are the test; clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct Shared(Arc<Lock<SharedState>>);

#[derive(Debug, Default)]
struct SharedState {
    window: Ipa,
    wishes: RegionWishes,
    /// What there is, and its size in pages.
    regions: Vec<(RegionName, u32)>,
    wanted: Option<(RegionName, u32)>,
    answer: Option<Result<Attached, RegionError>>,
    /// What is in each slot, and what its client has not looked at.
    slots: Vec<Option<(RegionName, u32)>>,
    notified: Vec<(u8, u16)>,
}

impl Shared {
    /// Somebody else makes a region.
    ///
    /// # Panics
    /// If that cannot be its name.
    pub fn add(&self, name: &str, pages: u32) {
        let name = RegionName::new(name.as_bytes());
        assert!(name.is_some(), "that is no name");
        self.0.lock().regions.extend(name.map(|name| (name, pages)));
    }

    /// What the device's configuration wants.
    #[must_use]
    pub fn wishes(&self) -> RegionWishes {
        self.0.lock().wishes.clone()
    }

    /// Does what the device has asked for: says what that was, if anything. The device is to be woken then.
    pub fn work(&self, result: Result<(), RegionError>) -> Option<(RegionName, u32)> {
        let mut state = self.0.lock();
        let wanted = state.wanted.take()?;
        let (name, asked) = wanted;
        let there = state.regions.iter().find(|(other, _)| *other == name).map(|(_, pages)| *pages);
        let pages = there.unwrap_or(asked);
        state.answer = Some(result.map(|()| {
            if there.is_none() {
                state.regions.push((name, pages));
            }
            let slot = state.slots.iter().position(Option::is_none).unwrap_or(state.slots.len());
            if slot == state.slots.len() {
                state.slots.push(None);
            }
            if let Some(place) = state.slots.get_mut(slot) {
                *place = Some((name, 0));
            }
            let number = u64::try_from(slot).unwrap_or(u64::MAX);
            let control = Ipa(state.window.0.wrapping_add(number.wrapping_mul(Self::SPACING)));
            Attached { slot: u8::try_from(slot).unwrap_or(u8::MAX), client: Self::CLIENT, pages, control }
        }));
        Some(wanted)
    }

    /// From one region's registers to the next.
    pub const SPACING: u64 = 16 * PAGE_SIZE;

    /// Which client the device is everywhere.
    pub const CLIENT: u8 = 3;

    /// Others tell the device's client to look.
    pub fn ring(&self, slot: usize, from: u32) {
        if let Some(Some((_, news))) = self.0.lock().slots.get_mut(slot) {
            *news |= from;
        }
    }

    /// Whom the device has told to look since this was last asked: slots and clients.
    #[must_use]
    pub fn take_notified(&self) -> Vec<(u8, u16)> {
        core::mem::take(&mut self.0.lock().notified)
    }

    /// Whether the device is attached to something in this slot.
    #[must_use]
    pub fn is_attached(&self, slot: usize) -> bool {
        self.0.lock().slots.get(slot).is_some_and(Option::is_some)
    }
}

impl SharedMemory for Shared {
    fn attach(&mut self, name: RegionName, pages: u32) -> bool {
        let mut state = self.0.lock();
        let free = state.wanted.is_none() && state.answer.is_none();
        if free {
            state.wanted = Some((name, pages));
        }
        free
    }

    fn answer(&mut self) -> Option<Result<Attached, RegionError>> {
        self.0.lock().answer.take()
    }

    fn detach(&mut self, slot: u8) {
        if let Some(place) = self.0.lock().slots.get_mut(usize::from(slot)) {
            *place = None;
        }
    }

    fn notify(&mut self, slot: u8, clients: u16) {
        self.0.lock().notified.push((slot, clients));
    }

    fn look(&mut self, slot: u8) -> u32 {
        match self.0.lock().slots.get_mut(usize::from(slot)) {
            Some(Some((_, news))) => core::mem::take(news) & 0xffff | 1 << (16 + Self::CLIENT),
            _ => 0,
        }
    }

    fn has_news(&self) -> bool {
        self.0.lock().slots.iter().flatten().any(|(_, news)| *news != 0)
    }

    fn region(&self, number: u32) -> Option<(RegionName, u32)> {
        self.0.lock().regions.get(usize::try_from(number).ok()?).copied()
    }
}
