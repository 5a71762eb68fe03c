//! What those drivers need of a machine: memory that a device reaches too, and a transport.
//!
//! Answers for: a device on a rig, its registers as a transport, and memory of the drivers' that is the device's whenever that is
//! told of something. Does not answer for: concurrency; a device works while its driver notifies it, and at no other time.
//!
//! A driver has its memory by pointers, and a device by copies. So there are two memories, of which one is copied to the other
//! before a device works, and back afterwards.

use std::alloc::{Layout, alloc_zeroed};
use std::cell::RefCell;
use std::ptr::NonNull;
use std::rc::Rc;
use types::{AccessSize, Ipa};
use vdev::testkit::{Crew, Ram, Rig, Wires};
use vdev::{Factory, GuestMemory};
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

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

/// A device on its rig, and its workers. Clones are handles of the same.
#[derive(Clone)]
pub(crate) struct World {
    inner: Rc<RefCell<(Rig, Crew)>>,
    legacy: bool,
}

impl World {
    /// A device of the catalogue.
    pub(crate) fn new(name: &str, options: &[(&str, Option<&str>)], mut wires: Wires) -> Self {
        let factory: &'static Factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == name).unwrap();
        let mut rig = Rig::new(factory, options, &mut wires).unwrap();
        rig.ram = Ram::new(Ipa(START), SIZE);
        let legacy = options.iter().any(|(name, _)| *name == "legacy");
        Self { inner: Rc::new(RefCell::new((rig, wires.crew))), legacy }
    }

    /// Its registers, for a driver.
    pub(crate) fn transport(&self) -> Registers {
        Registers(self.clone())
    }

    /// Does something with the rig.
    pub(crate) fn with<R>(&self, work: impl FnOnce(&mut Rig) -> R) -> R {
        work(&mut self.inner.borrow_mut().0)
    }

    /// The device's workers do what there is to do.
    pub(crate) fn work(&self) {
        let (rig, crew) = &mut *self.inner.borrow_mut();
        let mut bytes = vec![0; SIZE];
        MEMORY.with_borrow(|memory| memory.copy_out(0, &mut bytes));
        rig.ram.write(Ipa(START), &bytes).unwrap();
        rig.work(crew);
        rig.ram.read(Ipa(START), &mut bytes).unwrap();
        MEMORY.with_borrow_mut(|memory| memory.copy_in(0, &bytes));
    }

    fn read(&self, offset: u64) -> u32 {
        self.with(|rig| rig.try_read(offset, AccessSize::Word)).unwrap() as u32
    }

    fn write(&self, offset: u64, value: u32) {
        self.with(|rig| rig.try_write(offset, AccessSize::Word, value.into())).unwrap();
    }

    fn write_wide(&self, offset: u64, value: u64) {
        self.write(offset, value as u32);
        self.write(offset + 4, (value >> 32) as u32);
    }
}

/// Virtio over MMIO, in both versions (4.2.2, 4.2.4).
pub(crate) struct Registers(World);

impl Transport for Registers {
    fn device_type(&self) -> DeviceType {
        assert_eq!(self.0.read(0x000), u32::from_le_bytes(*b"virt"));
        assert_eq!(self.0.read(0x004), if self.0.legacy { 1 } else { 2 });
        DeviceType::try_from(self.0.read(0x008)).unwrap()
    }

    fn read_device_features(&mut self) -> u64 {
        [1, 0].into_iter().fold(0, |high, word| {
            self.0.write(0x014, word);
            high << 32 | u64::from(self.0.read(0x010))
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        for word in 0..2 {
            self.0.write(0x024, word);
            self.0.write(0x020, (features >> (32 * word)) as u32);
        }
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        self.0.write(0x030, queue.into());
        self.0.read(0x034)
    }

    fn notify(&mut self, queue: u16) {
        self.0.write(0x050, queue.into());
        self.0.work();
    }

    fn get_status(&self) -> DeviceStatus {
        DeviceStatus::from_bits_truncate(self.0.read(0x070))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.0.write(0x070, status.bits());
        let refused = status & !self.get_status();
        assert!(self.0.legacy || refused.is_empty(), "{refused:?} does not stay");
    }

    fn set_guest_page_size(&mut self, size: u32) {
        if self.0.legacy {
            self.0.write(0x028, size);
        }
    }

    fn requires_legacy_layout(&self) -> bool {
        self.0.legacy
    }

    fn queue_set(&mut self, queue: u16, size: u32, descriptors: PhysAddr, driver: PhysAddr, device: PhysAddr) {
        self.0.write(0x030, queue.into());
        self.0.write(0x038, size);
        if self.0.legacy {
            self.0.write(0x03c, PAGE_SIZE as u32);
            self.0.write(0x040, u32::try_from(descriptors / PAGE_SIZE as u64).unwrap());
        } else {
            self.0.write_wide(0x080, descriptors);
            self.0.write_wide(0x090, driver);
            self.0.write_wide(0x0a0, device);
            self.0.write(0x044, 1);
        }
        // What was allocated is zero for the device, too.
        self.0.work();
    }

    fn queue_unset(&mut self, queue: u16) {
        self.0.write(0x030, queue.into());
        self.0.write(if self.0.legacy { 0x040 } else { 0x044 }, 0);
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        self.0.write(0x030, queue.into());
        self.0.read(if self.0.legacy { 0x040 } else { 0x044 }) != 0
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        let status = self.0.read(0x060);
        self.0.write(0x064, status);
        InterruptStatus::from_bits_retain(status)
    }

    fn read_config_generation(&self) -> u32 {
        if self.0.legacy { 0 } else { self.0.read(0x0fc) }
    }

    fn read_config_space<T: FromBytes + IntoBytes>(&self, offset: usize) -> Result<T> {
        let mut value = T::new_zeroed();
        for (byte, at) in value.as_mut_bytes().iter_mut().zip(0x100 + offset as u64..) {
            *byte = self.0.with(|rig| rig.try_read(at, AccessSize::Byte)).unwrap() as u8;
        }
        Ok(value)
    }

    fn write_config_space<T: IntoBytes + Immutable>(&mut self, offset: usize, value: T) -> Result<()> {
        for (byte, at) in value.as_bytes().iter().zip(0x100 + offset as u64..) {
            self.0.with(|rig| rig.try_write(at, AccessSize::Byte, (*byte).into())).unwrap();
        }
        Ok(())
    }
}
