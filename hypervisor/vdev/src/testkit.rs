//! A world for devices under test.
//!
//! Answers for: guest memory, an interrupt controller and a character back end that remember what happened to them, time
//! that passes on request, and a [`Rig`] that drives one device through a bus, as its real driver would. Does not answer
//! for: faithfulness in anything but the traits' contracts. Only tests, fuzzing and other crates' tests use it.

use crate::{
    AccessFault, AccessSizes, Attached, BackendError, Backends, Bus, CharDevice, Clock, Control, ControlError, Device,
    DeviceId, Effects, Factory, Given, GuestMemory, HostDevice, InterruptController, MemoryFault, NewWorker, Node,
    Numbers, OptionError, Options, Place, PulseSink, RegionError, RegionName, RegionWishes, Services, Setup,
    SharedMemory, Step, Taken, TraceSink, Untraced, WORKERS, Wake, Work,
};
use alloc::{
    boxed::Box,
    collections::{btree_map::BTreeMap, vec_deque::VecDeque},
    format,
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use core::fmt;
use dtoolkit::model::DeviceTree;
use types::{AccessSize, Frequency, IntId, Ipa, Lock, PAGE_SIZE, Range, Ticks, VcpuId, VcpuSet};

/// Guest memory from one address on, zero at first.
#[derive(Debug)]
pub struct Ram {
    start: Ipa,
    bytes: Lock<Vec<u8>>,
}

impl Ram {
    /// So many bytes from `start` on.
    #[must_use]
    pub fn new(start: Ipa, length: usize) -> Self {
        Self { start, bytes: Lock::new(vec![0; length]) }
    }

    fn with<R>(&self, at: Ipa, length: usize, f: impl FnOnce(&mut [u8]) -> R) -> Result<R, MemoryFault> {
        let fault = MemoryFault { at };
        let first = at.0.checked_sub(self.start.0).and_then(|offset| usize::try_from(offset).ok()).ok_or(fault)?;
        let end = first.checked_add(length).ok_or(fault)?;
        self.bytes.lock().get_mut(first..end).map(f).ok_or(fault)
    }
}

impl GuestMemory for Ram {
    fn read(&self, from: Ipa, into: &mut [u8]) -> Result<(), MemoryFault> {
        self.with(from, into.len(), |bytes| into.copy_from_slice(bytes))
    }

    fn write(&self, to: Ipa, from: &[u8]) -> Result<(), MemoryFault> {
        self.with(to, from.len(), |bytes| bytes.copy_from_slice(from))
    }

    fn load(&self, from: Ipa, size: AccessSize) -> Result<u64, MemoryFault> {
        if !size.is_aligned(from.0) {
            return Err(MemoryFault { at: from });
        }
        let mut value = [0; 8];
        let length = 1 << size as usize;
        self.with(from, length, |bytes| value.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from))?;
        Ok(u64::from_le_bytes(value))
    }

    fn store(&self, to: Ipa, size: AccessSize, value: u64) -> Result<(), MemoryFault> {
        if !size.is_aligned(to.0) {
            return Err(MemoryFault { at: to });
        }
        let length = 1 << size as usize;
        self.with(to, length, |bytes| bytes.iter_mut().zip(value.to_le_bytes()).for_each(|(to, from)| *to = from))
    }

    fn exchange(&self, at: Ipa, size: AccessSize, expected: u64, new: u64) -> Result<u64, MemoryFault> {
        let value = self.load(at, size)?;
        if value == expected & size.mask() {
            self.store(at, size, new)?;
        }
        Ok(value)
    }

    fn contains(&self, range: Range<Ipa>) -> bool {
        usize::try_from(range.length()).is_ok_and(|length| self.with(range.start(), length, |_| ()).is_ok())
    }
}

/// An interrupt controller that only remembers. It kicks vCPU 0 whenever a line is raised.
#[derive(Debug, Default)]
pub struct Lines {
    levels: Lock<BTreeMap<(Option<VcpuId>, IntId), bool>>,
    events: Lock<Vec<(IntId, bool)>>,
    messages: Lock<Vec<(Ipa, u32)>>,
}

impl Lines {
    /// Whether the shared input `intid` is asserted.
    #[must_use]
    pub fn level(&self, intid: IntId) -> bool {
        self.levels.lock().get(&(None, intid)).copied().unwrap_or(false)
    }

    /// Every call since the last time this was asked, in order.
    #[must_use]
    pub fn take_events(&self) -> Vec<(IntId, bool)> {
        core::mem::take(&mut self.events.lock())
    }

    /// The messages that were sent since this was last asked, in order, wherever they were addressed to.
    #[must_use]
    pub fn take_messages(&self) -> Vec<(Ipa, u32)> {
        core::mem::take(&mut self.messages.lock())
    }

    fn set(&self, vcpu: Option<VcpuId>, intid: IntId, asserted: bool) -> VcpuSet {
        self.events.lock().push((intid, asserted));
        let before = self.levels.lock().insert((vcpu, intid), asserted).unwrap_or(false);
        if asserted && !before { VcpuSet::of(vcpu.unwrap_or_default()) } else { VcpuSet::EMPTY }
    }
}

impl InterruptController for Lines {
    fn set_level(&self, intid: IntId, asserted: bool) -> VcpuSet {
        if intid.is_spi() { self.set(None, intid, asserted) } else { VcpuSet::EMPTY }
    }

    fn set_private_level(&self, vcpu: VcpuId, intid: IntId, asserted: bool) -> VcpuSet {
        if intid.is_private() && !intid.is_sgi() { self.set(Some(vcpu), intid, asserted) } else { VcpuSet::EMPTY }
    }

    fn message(&self, address: Ipa, data: u32) -> VcpuSet {
        self.messages.lock().push((address, data));
        VcpuSet::of(VcpuId::default())
    }
}

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
}

impl Default for Wires {
    fn default() -> Self {
        Self {
            wires: BTreeMap::from([("-".to_string(), Wire::default())]),
            shared: Shared::default(),
            crew: Crew::default(),
            trace: &Untraced,
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
    fn character(&mut self, _id: DeviceId, device: &HostDevice) -> Result<Box<dyn CharDevice>, BackendError> {
        match self.wires.get(&device.name) {
            Some(wire) if device.direction.reads() => Ok(Box::new(wire.clone())),
            Some(wire) => Ok(Box::new(Deaf(wire.clone()))),
            None => Err(BackendError(format!("there is no back end `{}`", device.name))),
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
}

/// The workers of a device, which work when the test says so ([`Rig::work`]); clones are handles of the same.
#[derive(Clone, Debug, Default)]
pub struct Crew {
    hands: Arc<Lock<Vec<(NewWorker, Step)>>>,
    pulses: Pulses,
}

#[derive(Clone, Debug, Default)]
struct Pulses(Arc<Lock<Vec<u8>>>);

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

/// Decimal and `0x` hexadecimal numbers; sizes with the suffixes `K`, `M` and `G`.
#[derive(Clone, Copy, Debug)]
pub struct PlainNumbers;

impl Numbers for PlainNumbers {
    fn number(&self, text: &str) -> Result<u64, String> {
        let parsed = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16),
            None => text.parse(),
        };
        parsed.map_err(|_| "not a number".to_string())
    }

    fn size(&self, text: &str) -> Result<u64, String> {
        let (digits, shift) = match text.as_bytes().last() {
            Some(b'K') => (text.trim_end_matches('K'), 10),
            Some(b'M') => (text.trim_end_matches('M'), 20),
            Some(b'G') => (text.trim_end_matches('G'), 30),
            _ => (text, 0),
        };
        let scaled = self.number(digits)?.checked_mul(1 << shift);
        scaled.ok_or_else(|| "too large".to_string())
    }
}

/// One device on a bus, with everything around it, driven by absolute calls.
pub struct Rig {
    bus: Bus,
    /// The VM's memory: 64 KiB at 0x8000_0000.
    pub ram: Ram,
    /// The VM's interrupt controller.
    pub lines: Lines,
    /// The time.
    pub now: Ticks,
    /// What calls have asked of the kernel since somebody looked.
    pub effects: Effects,
}

impl fmt::Debug for Rig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rig").field("bus", &self.bus).finish_non_exhaustive()
    }
}

impl Rig {
    /// Where the device's registers are.
    pub const BASE: Ipa = Ipa(0x1c09_0000);
    /// Where its window is, if it has one.
    pub const WINDOW: Ipa = Ipa(1 << 40);
    /// The device's interrupt.
    pub const LINE: IntId = IntId(37);

    /// Makes a device of `factory` with options as words: `[("hostdev", Some(">-"))]`.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn new(
        factory: &'static Factory,
        words: &[(&str, Option<&str>)],
        backends: &mut dyn Backends,
    ) -> Result<Self, Vec<OptionError>> {
        let given = words.iter().map(|(name, argument)| Given { name, argument: *argument, place: Place::default() });
        let options = Options::parse(factory.options, given, &PlainNumbers)?;
        let (id, name) = (DeviceId(0), "device");
        let (location, interrupt) = (Some(Self::BASE), Some(Self::LINE));
        let window = Range::new(Self::WINDOW, factory.window_size).filter(|window| !window.is_empty());
        let mut setup = Setup { id, name, location, interrupt, window, vcpus: 1, hears_ends: false, backends };
        let vdev = factory.build(&options, &mut setup).map_err(|error| vec![error])?;
        let (name, hears_ends) = (name.to_string(), setup.hears_ends);
        let device = Device { name, factory, location, interrupt, window, served: false, hears_ends, vdev };
        let bus = Bus::new("test", Self::clock(), vec![device])
            .map_err(|error| vec![OptionError::general(error.to_string())])?;
        let (ram, lines) = (Ram::new(Ipa(0x8000_0000), 0x1_0000), Lines::default());
        Ok(Self { bus, ram, lines, now: Ticks(0), effects: Effects::default() })
    }

    /// The time of a VM on a machine like QEMU's virt: 62.5 MHz, started on 2001-09-09 at 01:46:40 UTC.
    #[must_use]
    pub fn clock() -> Arc<Clock> {
        Arc::new(Clock::new(const { Frequency::new(62_500_000).unwrap() }, 1_000_000_000))
    }

    /// Time passes: to `when`, and every timer that is due until then goes off when it is. Says how many wakes that were.
    ///
    /// # Panics
    /// After a million of them: the device keeps arming a timer for a time that has come.
    pub fn advance_to(&mut self, when: Ticks) -> usize {
        let mut wakes = 0_usize;
        loop {
            let next = self.bus.next_deadline(None);
            if next > when || next == Ticks::NEVER {
                self.now = self.now.max(when);
                return wakes;
            }
            self.now = self.now.max(next);
            let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
            self.bus.expire(DeviceId(0), &services, &mut self.effects);
            wakes = wakes.saturating_add(1);
            assert!(wakes < 1_000_000, "a timer goes off again and again at {:?}", self.now);
        }
    }

    /// So many nanoseconds pass; see [`Rig::advance_to`].
    pub fn pass(&mut self, nanoseconds: u64) -> usize {
        let ticks = self.bus.clock().frequency().nanoseconds(nanoseconds);
        self.advance_to(self.now.saturating_add(ticks))
    }

    /// The same as [`Rig::try_read`] where registers and window are two things: offsets behind the registers are in the window.
    ///
    /// # Errors
    /// If bus or device refuse.
    pub fn try_read_at_window(&mut self, offset: u64, size: AccessSize) -> Result<u64, AccessFault> {
        self.try_read(self.distance(offset), size)
    }

    /// The same as [`Rig::try_write`], likewise.
    ///
    /// # Errors
    /// If bus or device refuse.
    pub fn try_write_at_window(&mut self, offset: u64, size: AccessSize, value: u64) -> Result<(), AccessFault> {
        self.try_write(self.distance(offset), size, value)
    }

    /// From the registers to what the device calls `offset`.
    fn distance(&self, offset: u64) -> u64 {
        let region = self.bus.factory(DeviceId(0)).map_or(0, |factory| factory.region_size);
        match offset.checked_sub(region) {
            Some(offset) => offset.wrapping_add(Self::WINDOW.0).wrapping_sub(Self::BASE.0),
            None => offset,
        }
    }

    /// The workers of the device take steps until all of them wait, and then it has its pulses. Says how many steps that were.
    ///
    /// # Panics
    /// After a million of them: a worker does not come to an end.
    pub fn work(&mut self, crew: &Crew) -> usize {
        let mut steps = 0_usize;
        let mut hands = core::mem::take(&mut *crew.hands.lock());
        for (NewWorker { worker, bell }, next) in &mut hands {
            let is_ready = |next: &Step| match next {
                Step::Again => true,
                Step::Wait => false,
                Step::Until(when) => *when <= self.now,
            };
            while bell.take() || is_ready(next) {
                *next = worker.step(&mut Work::new(self.now, &self.ram, &|work| work(), &crew.pulses));
                steps = steps.saturating_add(1);
                assert!(steps < 1_000_000, "a worker does not come to an end");
            }
        }
        *crew.hands.lock() = hands;
        let pulses = core::mem::take(&mut *crew.pulses.0.lock());
        pulses.into_iter().for_each(|code| self.wake_for(Wake::Pulse(code)));
        steps
    }

    /// Loads `size` bytes at `offset`; bits above are cut off, as the exit code does.
    ///
    /// # Errors
    /// If bus or device refuse.
    pub fn try_read(&mut self, offset: u64, size: AccessSize) -> Result<u64, AccessFault> {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        let at = Ipa(Self::BASE.0.wrapping_add(offset));
        self.bus.read(at, size, &services, &mut self.effects).map(|value| value & size.mask())
    }

    /// Stores `size` bytes at `offset`.
    ///
    /// # Errors
    /// If bus or device refuse.
    pub fn try_write(&mut self, offset: u64, size: AccessSize, value: u64) -> Result<(), AccessFault> {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        let at = Ipa(Self::BASE.0.wrapping_add(offset));
        self.bus.write(at, size, value, &services, &mut self.effects)
    }

    /// A 32-bit load; all ones if it is refused.
    pub fn read(&mut self, offset: u64) -> u64 {
        self.try_read(offset, AccessSize::Word).unwrap_or(u64::MAX)
    }

    /// A 32-bit store; nothing happens if it is refused.
    pub fn write(&mut self, offset: u64, value: u64) {
        let _refused = self.try_write(offset, AccessSize::Word, value);
    }

    /// Wakes the device: its back end has space or input.
    pub fn wake(&mut self) {
        self.wake_for(Wake::Backend);
    }

    /// Wakes the device for this reason.
    pub fn wake_for(&mut self, wake: Wake) {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        self.bus.wake(DeviceId(0), wake, &services, &mut self.effects);
    }

    /// The guest deals with the device's interrupt. Says whether the device wanted to hear of it.
    pub fn end_interrupt(&mut self) -> bool {
        let hears = self.bus.listeners().contains(&(DeviceId(0), Self::LINE));
        if hears {
            self.wake_for(Wake::InterruptEnded);
        }
        hears
    }

    /// Tells the device what happens to its VM.
    ///
    /// # Errors
    /// What the device answers.
    pub fn control(&mut self, event: Control<'_>) -> Result<(), ControlError> {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        self.bus.control(DeviceId(0), event, &services, &mut self.effects)
    }

    /// Whether the device asserts its interrupt.
    #[must_use]
    pub fn line(&self) -> bool {
        self.lines.level(Self::LINE)
    }

    /// What calls have asked of the kernel since this was last asked.
    pub fn take_effects(&mut self) -> Effects {
        core::mem::take(&mut self.effects)
    }

    /// The device's status report.
    #[must_use]
    pub fn status(&mut self) -> String {
        let mut report = String::new();
        match self.control(Control::Status(&mut report)) {
            Ok(()) => report,
            Err(error) => error.to_string(),
        }
    }

    /// The device's part of the tree as source text.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut root = Node::new("");
        self.bus.describe(DeviceId(0), &mut root);
        let mut tree = DeviceTree::new();
        tree.root = root.into_model();
        tree.to_string()
    }
}

/// All sizes, for factories that take any.
pub const ANY_SIZE: AccessSizes = AccessSizes::all();
