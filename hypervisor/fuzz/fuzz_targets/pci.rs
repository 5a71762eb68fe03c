//! A PCI bus with functions that have all there is, and with a virtio device and its driver: whatever a guest writes to their
//! configuration spaces, their tables of messages and the windows, nothing panics, who they are does not change, each answers exactly
//! where its own registers say, and messages are sent by bus masters that have enabled them, and by nobody else.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pci::testkit::Slots;
use pci::{Bar, Capability, Configuration, Description, Endpoint, Function, Identity, Interrupts, Messages, Region, Width};
use types::{AccessSize, Ipa};
use vdev::testkit::Wires;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, DeviceId, Factory, FactoryFlags, OptionError, Options,
    Setup, Vdev, Wake,
};

/// How many of the functions are toys; one more is the virtio device.
const TOYS: u8 = 3;
const VIRTIO: u8 = TOYS + 1;
/// Registers, sizes and widths of the regions.
const REGIONS: [(u16, u64, bool); 3] = [(0x10, 0x1000, false), (0x14, 0x2000, false), (0x18, 0x1_0000, true)];
const VIRTIO_REGIONS: [(u16, u64, bool); 2] = [(0x10, 0x4000, false), (0x14, 0x2000, false)];
/// The capability by which its BAR is accessed (virtio 1.3, 4.1.4.9), behind those of messages, common configuration, notifications and
/// ISR status: it has no configuration of its own.
const ACCESS: u16 = 0x40 + 12 + 16 + 20 + 16;
/// Where their message control is.
const MESSAGES: u16 = 0x40;

/// What is stored in it is a vector to be sent, or the level of its pin.
struct Toy(Interrupts);

impl Function for Toy {
    fn read(&mut self, _: Region, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(offset)
    }
    fn write(
        &mut self,
        region: Region,
        offset: u64,
        _: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        match (region, offset & 8) {
            (Region::Bar(0), 0) => _ = self.0.send(u16::try_from(value & 0xffff).unwrap(), context),
            _ => self.0.set_level(value & 1 != 0, context),
        }
        Ok(())
    }
    fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        Ok(())
    }
    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}
    fn configuration(&mut self, event: Configuration<'_>, _: &mut Context<'_>) {
        if let Configuration::Read { space, at, size, .. } = event {
            space.set(at, size, 0x55);
        }
    }
}

fn create(_: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let bar = |index, size, width| Bar { index, size, width, sizes: AccessSizes::all() };
    let description = Description {
        bars: vec![bar(0, 0x1000, Width::Bits32), bar(2, 0x1_0000, Width::Bits64)],
        capabilities: vec![Capability { id: 9, body: vec![0; 18], writable: vec![0xff; 18], is_watched: true }],
        messages: Some(Messages { bar: 1, vectors: 40 }),
        ..Description::new(Identity::new(0x1234, 0x5678, 0xff_0000))
    };
    Endpoint::attach(setup, &description, |_, interrupts| Ok(Toy(interrupts)))
}

static TOY: Factory =
    Factory { name: "toy", flags: FactoryFlags::LOC_PCI, help: "has everything there is", ..Factory::new(create) };

/// Where a region is by its registers, if that is in a window.
fn place(slots: &mut Slots, device: u8, (register, size, is_wide): (u16, u64, bool)) -> Option<(u64, u64)> {
    let slot = Slots::slot(device);
    let high = if is_wide { slots.config(slot, register + 4) } else { 0 };
    let start = u64::from(high) << 32 | u64::from(slots.config(slot, register) & !0xf);
    let end = start.checked_add(size)?;
    let is_in = |window: Ipa, length: u64| start >= window.0 && end <= window.0 + length;
    let decoded = is_in(Slots::WINDOW_32, 256 << 20) || is_in(Slots::WINDOW_64, 16 << 30);
    (slots.config(slot, 4) & 2 != 0 && decoded).then_some((start, end))
}

/// An access: to a register of a configuration space, a BAR of which is put into few places, or to one of those places.
fn drive(slots: &mut Slots, call: &[u8; 8]) {
    let [kind, device, a, b, rest @ ..] = *call;
    let size = AccessSize::from_sas(u64::from(kind >> 6));
    let slot = Slots::slot(device % (VIRTIO + 2));
    let value = u64::from(u32::from_le_bytes(rest)) * 0x1_0000_0001;
    let near = u64::from(b & 7) * 0x1000 + u64::from(a) * 8;
    let at = match kind & 7 {
        0 | 1 => Slots::config_at(slot, u16::from_le_bytes([a, b]) & 0xfff),
        2 => return slots.set_config(slot, 0x10 + u16::from(a % 6) * 4, 0x1000_0000 + u32::from(b & 15) * 0x1000),
        3 => return slots.set_config(slot, 4, u32::from(a)),
        4 if device & 0x80 == 0 => return slots.set_config(slot, MESSAGES, u32::from(a) << 24),
        4 if device & 0x40 == 0 => return start_virtio(slots, a),
        // A store by that capability, or a load.
        4 => {
            let slot = Slots::slot(VIRTIO);
            slots.set_config(slot, ACCESS + 8, u32::from(b & 0x7f) | u32::from(a & 3) << 12);
            slots.set_config(slot, ACCESS + 12, [1, 2, 4, u32::from(b)][usize::from(a >> 6)]);
            slots.config(slot, ACCESS + 16);
            return slots.set_config(slot, ACCESS + 16, u32::from_le_bytes(rest));
        }
        5 => Ipa(Slots::WINDOW_64.0 + near),
        _ => Ipa(Slots::WINDOW_32.0 + near),
    };
    if kind & 8 == 0 {
        let _refused = slots.try_write(at, size, value);
    } else {
        let _refused = slots.try_read(at, size);
    }
}

/// A driver comes, as far as its first request (virtio 1.3, 3.1.1, 4.1.5.1), with a queue of eight that is where there is memory.
fn start_virtio(slots: &mut Slots, features: u8) {
    let slot = Slots::slot(VIRTIO);
    let base = u64::from(slots.config(slot, 0x10) & !0xf);
    let mut write = |at: u64, size, value| {
        let _refused = slots.try_write(Ipa(base + at), size, value);
    };
    let (byte, halfword, word) = (AccessSize::Byte, AccessSize::Halfword, AccessSize::Word);
    for status in [0, 3] {
        write(0x14, byte, status);
    }
    for (select, value) in [(0, u64::from(features & 3) << 28), (1, 1 | u64::from(features & 4))] {
        write(0x08, word, select);
        write(0x0c, word, value);
    }
    write(0x14, byte, 11);
    for (at, value) in [(0x16, 0), (0x18, 8), (0x1a, u64::from(features >> 3 & 3))] {
        write(at, halfword, value);
    }
    for (at, value) in [(0x20, RAM), (0x28, RAM + 0x80), (0x30, RAM + 0xa0)] {
        write(at, AccessSize::Doubleword, value);
    }
    write(0x1c, halfword, 1);
    write(0x14, byte, 15);
}

/// Where the bus has its memory.
const RAM: u64 = 0x8000_0000;

fuzz_target!(|data: &[u8]| {
    let entropy = vdevs::CATALOGUE.iter().find(|factory| factory.name == "virtio-entropy").unwrap();
    let mut wires = Wires::default();
    wires.entropy = Some(|| Some(0x0123_4567_89ab_cdef));
    let all = [&TOY, &TOY, &TOY, entropy].map(|factory| (factory, [].as_slice()));
    let mut slots = Slots::new(&all, true, &mut wires).unwrap();
    for call in data.as_chunks().0 {
        let may_send = (1..=VIRTIO).any(|device| {
            let slot = Slots::slot(device);
            slots.config(slot, 4) & 4 != 0 || call[0] & 7 < 2 || call[0] & 7 == 3
        });
        drive(&mut slots, call);
        slots.work(DeviceId(VIRTIO.into()), &wires.crew);
        let sent = slots.lines.take_messages();
        assert!(may_send || sent.is_empty(), "sent by nobody: {sent:?}");
    }
    let mut placed = Vec::new();
    for device in 1..=VIRTIO {
        let is_toy = device <= TOYS;
        let identity = if is_toy { (0x5678_1234, 0xff00_0000) } else { (0x1044_1af4, 0xff00_0001) };
        assert_eq!((slots.config(Slots::slot(device), 0), slots.config(Slots::slot(device), 8)), identity);
        let regions = if is_toy { REGIONS.as_slice() } else { &VIRTIO_REGIONS };
        for region in regions {
            placed.extend(place(&mut slots, device, *region).map(|(start, end)| (start, end, device)));
        }
    }
    for at in placed.iter().flat_map(|(start, end, _)| [*start, start - 1, *end, end - 1]) {
        let here = placed.iter().filter(|(start, end, _)| (*start..*end).contains(&at));
        let first = here.map(|(.., device)| DeviceId(u16::from(*device))).min();
        assert_eq!(slots.device_at(Ipa(at)).filter(|id| id.0 != 0), first, "{at:#x}");
    }
});
