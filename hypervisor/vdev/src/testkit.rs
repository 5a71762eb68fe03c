//! A world for devices under test.
//!
//! Answers for: guest memory, an interrupt controller and a character back end that remember what happened to them, time
//! that passes on request, and a [`Rig`] that drives one device through a bus, as its real driver would. Does not answer
//! for: faithfulness in anything but the traits' contracts. Only tests, fuzzing and other crates' tests use it.

mod around;
mod backends;
mod balloon;
mod disk;
mod part;
mod slate;

pub use around::{Lines, Ram};
pub use backends::{Admit, Connect, Crew, Interference, Shared, Wire, Wires};
pub use balloon::Pages;
pub use disk::Disk;
pub use part::{Behaviour, Part};
pub use slate::Slate;

use crate::{
    AccessFault, AccessSizes, Backends, Bus, Clock, Control, ControlError, Device, DeviceId, Effects, Factory, Files,
    Given, Node, Numbers, OptionError, Options, Place, Services, Setup, Wake,
};
use alloc::{
    string::{String, ToString},
    sync::Arc,
    vec,
    vec::Vec,
};
use core::fmt;
use dtoolkit::model::DeviceTree;
use types::{AccessSize, Frequency, IntId, Ipa, PAGE_SIZE, Range, Ticks};

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

/// There is no file.
#[derive(Clone, Copy, Debug)]
pub struct NoFiles;

impl Files for NoFiles {
    fn file(&self, _: &str) -> Option<&[u8]> {
        None
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
        Self::with_files(factory, words, backends, &NoFiles)
    }

    /// The same where there are files.
    ///
    /// # Errors
    /// What is wrong with the options.
    pub fn with_files(
        factory: &'static Factory,
        words: &[(&str, Option<&str>)],
        backends: &mut dyn Backends,
        files: &dyn Files,
    ) -> Result<Self, Vec<OptionError>> {
        let given = words.iter().map(|(name, argument)| Given { name, argument: *argument, place: Place::default() });
        let options = Options::parse(factory.options, given, &PlainNumbers)?;
        let (id, name) = (DeviceId(0), "device");
        let (location, interrupt) = (Some(Self::BASE), Some(Self::LINE));
        let window = Range::new(Self::WINDOW, factory.window_size).filter(|window| !window.is_empty());
        let shadow = Range::new(Self::BASE, PAGE_SIZE);
        let (connector, vcpus, address_bits, hears_ends) = (None, 1, 40, false);
        let mut setup = Setup {
            id,
            name,
            location,
            interrupt,
            window,
            shadow,
            connector,
            vcpus,
            address_bits,
            hears_ends,
            files,
            backends,
        };
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

    /// The workers of the device take steps until all of them wait: [`Crew::work`].
    ///
    /// # Panics
    /// As that does.
    pub fn work(&mut self, crew: &Crew) -> usize {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        crew.work(&self.bus, DeviceId(0), &services, &mut self.effects)
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
