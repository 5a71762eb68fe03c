//! A PCI bus with functions that have all there is: whatever a guest writes to their configuration spaces, their tables of messages
//! and the windows, nothing panics, who they are does not change, each answers exactly where its own registers say, and messages
//! are sent by bus masters that have enabled them, and by nobody else.

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

const FUNCTIONS: u8 = 3;
/// Registers, sizes and widths of the regions.
const REGIONS: [(u16, u64, bool); 3] = [(0x10, 0x1000, false), (0x14, 0x2000, false), (0x18, 0x1_0000, true)];
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
            (Region::Bar(0), 0) => self.0.send(u16::try_from(value & 0xffff).unwrap(), context),
            _ => self.0.set_level(value & 1 != 0, context),
        }
        Ok(())
    }
    fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        Ok(())
    }
    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}
    fn configuration(&mut self, event: Configuration<'_>, _: &mut Context<'_>) {
        if let Configuration::Read { space, at, size } = event {
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
    let slot = Slots::slot(device % (FUNCTIONS + 2));
    let value = u64::from(u32::from_le_bytes(rest)) * 0x1_0000_0001;
    let near = u64::from(b & 7) * 0x1000 + u64::from(a) * 8;
    let at = match kind & 7 {
        0 | 1 => Slots::config_at(slot, u16::from_le_bytes([a, b]) & 0xfff),
        2 => return slots.set_config(slot, 0x10 + u16::from(a % 6) * 4, 0x1000_0000 + u32::from(b & 15) * 0x1000),
        3 => return slots.set_config(slot, 4, u32::from(a)),
        4 => return slots.set_config(slot, MESSAGES, u32::from(a) << 24),
        5 => Ipa(Slots::WINDOW_64.0 + near),
        _ => Ipa(Slots::WINDOW_32.0 + near),
    };
    if kind & 8 == 0 {
        let _refused = slots.try_write(at, size, value);
    } else {
        let _refused = slots.try_read(at, size);
    }
}

fuzz_target!(|data: &[u8]| {
    let mut slots = Slots::new(&[(&TOY, [].as_slice()); FUNCTIONS as usize], true, &mut Wires::default()).unwrap();
    for call in data.as_chunks().0 {
        let may_send = (1..=FUNCTIONS).any(|device| {
            let slot = Slots::slot(device);
            slots.config(slot, 4) & 4 != 0 || call[0] & 7 < 2 || call[0] & 7 == 3
        });
        drive(&mut slots, call);
        let sent = slots.lines.take_messages();
        assert!(may_send || sent.is_empty(), "sent by nobody: {sent:?}");
    }
    let mut placed = Vec::new();
    for device in 1..=FUNCTIONS {
        assert_eq!((slots.config(Slots::slot(device), 0), slots.config(Slots::slot(device), 8)), (0x5678_1234, 0xff00_0000));
        for region in REGIONS {
            placed.extend(place(&mut slots, device, region).map(|(start, end)| (start, end, device)));
        }
    }
    for at in placed.iter().flat_map(|(start, end, _)| [*start, start - 1, *end, end - 1]) {
        let here = placed.iter().filter(|(start, end, _)| (*start..*end).contains(&at));
        let first = here.map(|(.., device)| DeviceId(u16::from(*device))).min();
        assert_eq!(slots.device_at(Ipa(at)).filter(|id| id.0 != 0), first, "{at:#x}");
    }
});
