//! A bus for functions under test.
//!
//! Answers for: a [`Slots`], which is a bus with a host bridge and the functions of some factories, with everything around them, driven
//! as by a guest: through configuration spaces and the windows. Does not answer for: faithfulness in anything but the traits'
//! contracts. Only tests, fuzzing and other crates' tests use it.

use crate::{Bridge, CONFIG_SIZE, HostBridge, MessageTarget, Routes};
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;
use types::{AccessSize, IntId, Ipa, Range, Ticks};
use vdev::testkit::{Crew, Lines, NoFiles, PlainNumbers, Ram, Rig};
use vdev::{
    AccessFault, Backends, Bus, Connector, Control, ControlError, Decoder, Device, DeviceId, Effects, Factory,
    FactoryFlags, Given, Node, OptionError, Options, PciSlot, Place, Services, Setup, Wake,
};

/// The factory that the host bridge is said to come from.
static HOST: Factory = Factory {
    name: "pci-host",
    help: "the host bridge of the testkit's bus",
    ..Factory::new(|_, _| Err(OptionError::general(String::new())))
};

/// A factory, and words for its options, as for [`Rig::new`].
pub type Wanted<'a> = (&'static Factory, &'a [(&'a str, Option<&'a str>)]);

/// A bus with functions on it, and everything around it.
pub struct Slots {
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

impl fmt::Debug for Slots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slots").field("bus", &self.bus).finish_non_exhaustive()
    }
}

impl Slots {
    /// Where the configuration spaces are.
    pub const ECAM: Ipa = Ipa(0x3f00_0000);
    /// Where functions may be put below 4 GiB: 256 MiB.
    pub const WINDOW_32: Ipa = Ipa(0x1000_0000);
    /// Where they may be put above: 16 GiB.
    pub const WINDOW_64: Ipa = Ipa(0x4_0000_0000);
    /// The first of the bus's four lines.
    pub const FIRST_LINE: IntId = IntId(64);

    /// A bus with functions in devices 1 and up, function 0 of each. The host bridge is [`vdev::DeviceId`] 0, the others follow.
    /// Messages reach somebody if `has_messages`.
    ///
    /// # Errors
    /// What is wrong with the options, or with the functions.
    pub fn new(
        wanted: &[Wanted<'_>],
        has_messages: bool,
        backends: &mut dyn Backends,
    ) -> Result<Self, Vec<OptionError>> {
        let windows = Self::windows();
        let slots = || (0_u8..).filter_map(|device| PciSlot::new(device, 0)).take(wanted.len().saturating_add(1));
        let routes = Routes::new(Self::ECAM, &windows, slots().zip((0_u16..).map(DeviceId)));
        let decoder: Arc<dyn Decoder> = Arc::new(routes);
        let connector = |slot| Connector { slot, is_one_of_several: false, has_messages, decoder: decoder.clone() };
        let bridge = Bridge {
            ecam: Self::ECAM,
            windows,
            first_line: Self::FIRST_LINE,
            messages: has_messages.then_some(MessageTarget::Parent(Node::INTERRUPT_CONTROLLER)),
            translated: Vec::new(),
        };
        let general = |message: String| [OptionError::general(message)].into_iter().collect::<Vec<_>>();
        let host = HostBridge::new(connector(PciSlot::HOST), bridge).map_err(|flaw| general(flaw.to_string()))?;
        let mut devices = Vec::new();
        devices.push(Device {
            name: "pci-host".to_string(),
            factory: &HOST,
            location: None,
            interrupt: None,
            window: None,
            served: false,
            hears_ends: false,
            vdev: Box::new(host),
        });
        for ((slot, id), (factory, words)) in slots().zip(0_u16..).skip(1).zip(wanted) {
            let given =
                words.iter().map(|(name, argument)| Given { name, argument: *argument, place: Place::default() });
            let options = Options::parse(factory.options, given, &PlainNumbers)?;
            let interrupt = Some(Self::line_of(slot)).filter(|_| !factory.flags.contains(FactoryFlags::INTR_FORBIDDEN));
            let window = Range::new(Rig::WINDOW, factory.window_size).filter(|window| !window.is_empty());
            let mut setup = Setup {
                id: DeviceId(id),
                name: factory.name,
                location: None,
                interrupt,
                window,
                shadow: None,
                connector: Some(connector(slot)),
                vcpus: 1,
                address_bits: 40,
                hears_ends: false,
                files: &NoFiles,
                backends: &mut *backends,
            };
            let vdev = factory.build(&options, &mut setup).map_err(|error| [error].into_iter().collect::<Vec<_>>())?;
            let (name, hears_ends) = (factory.name.to_string(), setup.hears_ends);
            devices.push(Device { name, factory, location: None, interrupt, window, served: false, hears_ends, vdev });
        }
        let bus = Bus::new("test", Rig::clock(), devices).map_err(|error| general(error.to_string()))?;
        let (ram, lines) = (Ram::new(Ipa(0x8000_0000), 0x1_0000), Lines::default());
        Ok(Self { bus: bus.with_decoder(decoder), ram, lines, now: Ticks(0), effects: Effects::default() })
    }

    /// The function of the device `device`, which is below 32.
    #[must_use]
    pub fn slot(device: u8) -> PciSlot {
        PciSlot::new(device, 0).unwrap_or_default()
    }

    /// The line that a function's pin is connected to.
    #[must_use]
    pub fn line_of(slot: PciSlot) -> IntId {
        IntId(Self::FIRST_LINE.0.saturating_add(slot.line().into()))
    }

    /// Where a register of a function's configuration space is.
    #[must_use]
    pub fn config_at(slot: PciSlot, at: u16) -> Ipa {
        Ipa(Self::ECAM.0.saturating_add(u64::from(slot.number()).saturating_mul(CONFIG_SIZE)).saturating_add(at.into()))
    }

    /// Loads `size` bytes; bits above are cut off, as the exit code does.
    ///
    /// # Errors
    /// If bus or device refuse.
    pub fn try_read(&mut self, at: Ipa, size: AccessSize) -> Result<u64, AccessFault> {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        self.bus.read(at, size, &services, &mut self.effects).map(|value| value & size.mask())
    }

    /// Stores `size` bytes.
    ///
    /// # Errors
    /// If bus or device refuse.
    pub fn try_write(&mut self, at: Ipa, size: AccessSize, value: u64) -> Result<(), AccessFault> {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        self.bus.write(at, size, value, &services, &mut self.effects)
    }

    /// A load of a dword; all ones if it is refused.
    pub fn read(&mut self, at: Ipa) -> u32 {
        let value = self.try_read(at, AccessSize::Word).ok();
        value.and_then(|value| u32::try_from(value).ok()).unwrap_or(u32::MAX)
    }

    /// A store of a dword; nothing happens if it is refused.
    pub fn write(&mut self, at: Ipa, value: u32) {
        let _refused = self.try_write(at, AccessSize::Word, value.into());
    }

    /// A register of a function's configuration space.
    pub fn config(&mut self, slot: PciSlot, at: u16) -> u32 {
        self.read(Self::config_at(slot, at))
    }

    /// Writes a register of a function's configuration space.
    pub fn set_config(&mut self, slot: PciSlot, at: u16, value: u32) {
        self.write(Self::config_at(slot, at), value);
    }

    /// Which device is at an address, as the log would name it.
    #[must_use]
    pub fn device_at(&self, at: Ipa) -> Option<DeviceId> {
        self.bus.device_at(at)
    }

    /// The workers of the device `id` take steps until all of them wait: [`Crew::work`].
    pub fn work(&mut self, id: DeviceId, crew: &Crew) -> usize {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        crew.work(&self.bus, id, &services, &mut self.effects)
    }

    /// Wakes a device.
    pub fn wake(&mut self, id: DeviceId, wake: Wake) {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        self.bus.wake(id, wake, &services, &mut self.effects);
    }

    /// Tells a device what happens to its VM.
    ///
    /// # Errors
    /// What the device answers.
    pub fn control(&mut self, id: DeviceId, event: Control<'_>) -> Result<(), ControlError> {
        let services = Services { now: self.now, memory: &self.ram, interrupts: &self.lines };
        self.bus.control(id, event, &services, &mut self.effects)
    }

    fn windows() -> Vec<Range<Ipa>> {
        let windows = [(Self::WINDOW_32, 256_u64 << 20), (Self::WINDOW_64, 16 << 30)];
        windows.into_iter().filter_map(|(start, length)| Range::new(start, length)).collect()
    }
}
