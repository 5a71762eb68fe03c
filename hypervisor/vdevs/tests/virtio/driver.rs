//! What those drivers need of a machine: memory that a device reaches too, and a transport.
//!
//! Answers for: a device in memory or on a PCI bus, and memory of the drivers' that is the device's whenever that is told of something.
//! Does not answer for: its registers ([`registers`]), nor for concurrency; a device works while its driver notifies it, and at no
//! other time.
//!
//! A driver has its memory by pointers, and a device by copies. So there are two memories, of which one is copied to the other
//! before a device works, and back afterwards.

mod mmio;
mod pci;
mod registers;

use ::pci::testkit::Slots;
pub(crate) use registers::Registers;
use std::alloc::{Layout, alloc_zeroed};
use std::cell::{Cell, RefCell};
use std::ptr::NonNull;
use std::rc::Rc;
use types::{AccessSize, Ipa, Ticks};
use vdev::testkit::{Crew, Ram, Rig, Slate, Wires};
use vdev::{Control, DeviceId, Factory, GuestMemory, Wake};
use virtio_drivers::transport::{DeviceStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

const START: u64 = 0x8000_0000;
const SIZE: usize = 256 << 10;

thread_local! {
    /// A test's: each runs in a thread of its own.
    static MEMORY: RefCell<Memory> = RefCell::new(Memory::new());
}

/// The drivers' memory, for ever: a driver may hold pointers to it.
struct Memory {
    bytes: NonNull<u8>,
    /// Offset and length of what is taken, ascending.
    taken: Vec<(usize, usize)>,
}

impl Memory {
    fn new() -> Self {
        // SAFETY: the layout has a size.
        let bytes = unsafe { alloc_zeroed(Layout::from_size_align(SIZE, PAGE_SIZE).unwrap()) };
        Self { bytes: NonNull::new(bytes).unwrap(), taken: Vec::new() }
    }

    /// The first place that is free, at a multiple of `alignment`.
    fn take(&mut self, length: usize, alignment: usize) -> usize {
        let (mut at, mut place) = (0, 0);
        for (start, taken) in &self.taken {
            if at + length <= *start {
                break;
            }
            at = (start + taken).next_multiple_of(alignment);
            place += 1;
        }
        assert!(at + length <= SIZE, "the drivers' memory is full");
        self.taken.insert(place, (at, length));
        at
    }

    fn give_back(&mut self, address: PhysAddr) {
        let offset = usize::try_from(address - START).unwrap();
        let before = self.taken.len();
        self.taken.retain(|(start, _)| *start != offset);
        assert_eq!(self.taken.len() + 1, before, "{address:#x} was not taken");
    }

    fn pointer(&self, offset: usize) -> NonNull<u8> {
        assert!(offset <= SIZE);
        // SAFETY: within the allocation, or at its end.
        unsafe { self.bytes.add(offset) }
    }

    fn copy_in(&mut self, offset: usize, from: &[u8]) {
        assert!(offset + from.len() <= SIZE);
        // SAFETY: within the allocation, which no reference is to; nobody else runs.
        unsafe { self.pointer(offset).copy_from_nonoverlapping(NonNull::from(from).cast(), from.len()) };
    }

    fn copy_out(&self, offset: usize, into: &mut [u8]) {
        assert!(offset + into.len() <= SIZE);
        // SAFETY: as above.
        unsafe { self.pointer(offset).copy_to_nonoverlapping(NonNull::from(&mut *into).cast(), into.len()) };
    }
}

/// The drivers' machine.
pub(crate) struct Machine;

// SAFETY: what is given out lies in the thread's memory, which is never freed, at addresses that nobody else has; it is zeroed
// when it is taken.
unsafe impl Hal for Machine {
    fn dma_alloc(pages: usize, _: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        MEMORY.with_borrow_mut(|memory| {
            let offset = memory.take(pages * PAGE_SIZE, PAGE_SIZE);
            memory.copy_in(offset, &vec![0; pages * PAGE_SIZE]);
            (START + offset as u64, memory.pointer(offset))
        })
    }

    unsafe fn dma_dealloc(address: PhysAddr, _: NonNull<u8>, _: usize) -> i32 {
        MEMORY.with_borrow_mut(|memory| memory.give_back(address));
        0
    }

    unsafe fn mmio_phys_to_virt(address: PhysAddr, _: usize) -> NonNull<u8> {
        unreachable!("no driver has registers at {address:#x} by a pointer")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        MEMORY.with_borrow_mut(|memory| {
            let offset = memory.take(buffer.len(), 1);
            if direction != BufferDirection::DeviceToDriver {
                // SAFETY: the caller's promise: the buffer is valid, and nobody else's for now.
                memory.copy_in(offset, unsafe { buffer.as_ref() });
            }
            START + offset as u64
        })
    }

    unsafe fn unshare(address: PhysAddr, mut buffer: NonNull<[u8]>, direction: BufferDirection) {
        MEMORY.with_borrow_mut(|memory| {
            if direction != BufferDirection::DriverToDevice {
                let offset = usize::try_from(address - START).unwrap();
                // SAFETY: as above.
                memory.copy_out(offset, unsafe { buffer.as_mut() });
            }
            memory.give_back(address);
        });
    }
}

/// Words of options.
pub(crate) type Words<'a> = &'a [(&'a str, Option<&'a str>)];

/// Where a device is, and by which interface it is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Memory,
    /// In memory, by the interface before the standard.
    Legacy,
    Bus,
}

impl Place {
    pub(crate) fn is_legacy(self) -> bool {
        self == Self::Legacy
    }

    /// What a device of this kind is called there.
    pub(crate) fn name(self, kind: &str) -> &str {
        if self == Self::Bus { kind } else { "device" }
    }
}

/// Makes a test of each function that takes a [`Place`]: by the standard's interface in memory and on the bus, and with `and legacy` by
/// the one before it as well. Each runs in a thread of its own, with memory of its own.
macro_rules! tests {
    (@one $name:ident $($legacy:ident)?) => {
        mod $name {
            use crate::driver::Place;

            #[test]
            fn in_memory() {
                super::$name(Place::Memory);
            }

            #[test]
            fn on_a_bus() {
                super::$name(Place::Bus);
            }

            $(
                #[test]
                fn $legacy() {
                    super::$name(Place::Legacy);
                }
            )?
        }
    };
    ($($name:ident $(and $legacy:ident)?),* $(,)?) => {
        $(tests!(@one $name $($legacy)?);)*
    };
}
pub(crate) use tests;

enum Machinery {
    Memory(Rig, Slate),
    Bus(Slots),
}

/// A device with what is around it, and its workers. Clones are handles of the same.
#[derive(Clone)]
pub(crate) struct World {
    inner: Rc<RefCell<(Machinery, Crew)>>,
    place: Place,
    /// Where the device's own configuration is.
    configuration: u64,
}

/// The device, on a bus.
const ON_BUS: DeviceId = DeviceId(1);

impl World {
    /// A device of the catalogue.
    pub(crate) fn new(place: Place, name: &str, options: Words<'_>, mut wires: Wires) -> Self {
        let factory: &'static Factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == name).unwrap();
        let ram = Ram::new(Ipa(START), SIZE);
        let machinery = match place {
            Place::Bus => {
                let mut slots = Slots::new(&[(factory, options)], true, &mut wires).unwrap();
                slots.ram = ram;
                Machinery::Bus(slots)
            }
            Place::Memory | Place::Legacy => {
                let legacy = place.is_legacy().then_some(("legacy", None));
                let options: Vec<_> = options.iter().copied().chain(legacy).collect();
                let mut rig = Rig::new(factory, &options, &mut wires).unwrap();
                rig.ram = ram;
                rig.control(Control::GuestConfigured).unwrap();
                Machinery::Memory(rig, wires.slate.clone())
            }
        };
        let inner = Rc::new(RefCell::new((machinery, wires.crew)));
        let world = Self { inner, place, configuration: 0 };
        let configuration = world.transport().0.configuration();
        Self { configuration, ..world }
    }

    /// Its registers, for a driver.
    pub(crate) fn transport(&self) -> Registers {
        match self.place {
            Place::Bus => Registers(Box::new(pci::Pci::new(self.clone()))),
            place => Registers(Box::new(mmio::Mmio { world: self.clone(), legacy: place.is_legacy() })),
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Machinery) -> R) -> R {
        let machinery = &mut self.inner.borrow_mut().0;
        let result = work(machinery);
        machinery.check_page();
        result
    }

    /// Loads from the bus, or from offsets in memory.
    fn load(&self, at: u64, size: AccessSize) -> u64 {
        self.with(|machinery| match machinery {
            Machinery::Memory(rig, _) => rig.try_read(at, size),
            Machinery::Bus(slots) => slots.try_read(Ipa(at), size),
        })
        .unwrap()
    }

    /// Stores there.
    fn store(&self, at: u64, size: AccessSize, value: u64) {
        self.with(|machinery| match machinery {
            Machinery::Memory(rig, _) => rig.try_write(at, size, value),
            Machinery::Bus(slots) => slots.try_write(Ipa(at), size, value),
        })
        .unwrap();
    }

    /// Loads from the device's own configuration.
    pub(crate) fn configuration(&self, offset: u64, size: AccessSize) -> u64 {
        self.load(self.configuration + offset, size)
    }

    /// Stores there.
    pub(crate) fn set_configuration(&self, offset: u64, size: AccessSize, value: u64) {
        self.store(self.configuration + offset, size, value);
    }

    /// Wakes the device: its back end has space or input.
    pub(crate) fn wake(&self) {
        self.with(|machinery| match machinery {
            Machinery::Memory(rig, _) => rig.wake(),
            Machinery::Bus(slots) => slots.wake(ON_BUS, Wake::Backend),
        });
    }

    /// Whether the device asserts its interrupt.
    pub(crate) fn line(&self) -> bool {
        self.with(|machinery| match machinery {
            Machinery::Memory(rig, _) => rig.line(),
            Machinery::Bus(slots) => slots.lines.level(Slots::line_of(Slots::slot(1))),
        })
    }

    /// Tells the device what happens to its VM.
    fn control(&self, event: Control<'_>) {
        self.with(|machinery| match machinery {
            Machinery::Memory(rig, _) => rig.control(event),
            Machinery::Bus(slots) => slots.control(ON_BUS, event),
        })
        .unwrap();
    }

    /// The device's status report.
    pub(crate) fn status(&self) -> String {
        let mut report = String::new();
        self.control(Control::Status(&mut report));
        report
    }

    /// Somebody presses the power button. Says whether the device has handled that; its workers have not yet heard of it.
    pub(crate) fn press_button(&self) -> bool {
        let mut handled = false;
        self.control(Control::Button { handled: &mut handled });
        handled
    }

    /// So much time passes.
    pub(crate) fn pass(&self, ticks: Ticks) {
        self.with(|machinery| {
            let now = match machinery {
                Machinery::Memory(rig, _) => &mut rig.now,
                Machinery::Bus(slots) => &mut slots.now,
            };
            *now = now.saturating_add(ticks);
        });
    }

    /// Has the guest store such words at a device in memory when its workers are about to look for the `moment`th time, from 0. What is
    /// returned says whether they have been.
    pub(crate) fn store_at(&self, moment: usize, words: &'static [(u64, u64)]) -> Rc<Cell<bool>> {
        let (mut looks, done) = (0, Rc::new(Cell::new(false)));
        let told = Rc::clone(&done);
        let crew = self.inner.borrow().1.clone();
        crew.interfere(Some(Box::new(move |bus, services, effects| {
            if looks == moment {
                for (offset, value) in words {
                    bus.write(Ipa(Rig::BASE.0 + offset), AccessSize::Word, *value, services, effects).unwrap();
                }
                told.set(true);
            }
            looks += 1;
        })));
        done
    }

    /// The device's workers do what there is to do.
    pub(crate) fn work(&self) {
        let (machinery, crew) = &mut *self.inner.borrow_mut();
        let mut bytes = vec![0; SIZE];
        MEMORY.with_borrow(|memory| memory.copy_out(0, &mut bytes));
        machinery.ram().write(Ipa(START), &bytes).unwrap();
        match machinery {
            Machinery::Memory(rig, _) => rig.work(crew),
            Machinery::Bus(slots) => slots.work(ON_BUS, crew),
        };
        machinery.check_page();
        machinery.ram().read(Ipa(START), &mut bytes).unwrap();
        MEMORY.with_borrow_mut(|memory| memory.copy_in(0, &bytes));
    }
}

impl Machinery {
    /// What the driver reads without an exit is what it would have read with one.
    fn check_page(&mut self) {
        let Self::Memory(rig, slate) = self else { return };
        for offset in (0..0x100).step_by(4) {
            let expected = rig.try_read(offset, AccessSize::Word).unwrap_or(0);
            assert_eq!(slate.load(offset, AccessSize::Word), Some(expected), "{offset:#x}");
        }
        for offset in 0x100..0x200 {
            let expected = rig.try_read(offset, AccessSize::Byte).unwrap();
            assert_eq!(slate.load(offset, AccessSize::Byte), Some(expected), "{offset:#x}");
        }
    }

    fn ram(&self) -> &Ram {
        match self {
            Self::Memory(rig, _) => &rig.ram,
            Self::Bus(slots) => &slots.ram,
        }
    }
}

/// Begins as a driver does (3.1.1): a reset, and these features, which have to be offered, with `VERSION_1` where that is. Queues are
/// next, and then `finish_init`.
pub(crate) fn negotiate(transport: &mut Registers, features: u64) {
    const VERSION_1: u64 = 1 << 32;
    let found = DeviceStatus::ACKNOWLEDGE | DeviceStatus::DRIVER;
    transport.set_status(DeviceStatus::empty());
    transport.set_status(found);
    let offered = transport.read_device_features();
    assert_eq!(features & offered, features, "{features:#x} are offered");
    transport.write_driver_features(features | offered & VERSION_1);
    transport.set_status(found | DeviceStatus::FEATURES_OK);
}
