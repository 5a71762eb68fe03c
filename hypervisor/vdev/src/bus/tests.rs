use super::*;
use crate::{
    ABI, OptionError, Options, Setup,
    testkit::{ANY_SIZE, Lines, Ram, Rig, Wires},
};
use alloc::{string::ToString, sync::Arc, vec};
use types::{RequesterId, Ticks, VcpuSet};

/// Answers with the offset, keeps what was written, asserts its line while that is not zero.
struct Echo(u64);

impl Vdev for Echo {
    fn read(&mut self, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(self.0.wrapping_add(offset))
    }
    fn write(&mut self, _: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        self.0 = value;
        context.set_line(value != 0);
        Ok(())
    }
    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Reset => self.0 = 0,
            Control::Button { handled } => *handled = true,
            _ => return Err(ControlError("no".to_string())),
        }
        Ok(())
    }
    fn wake(&mut self, _: Wake, context: &mut Context<'_>) {
        self.0 = context.now().0;
    }
    fn describe(&self, parent: &mut Node) {
        parent.add(Node::new("echo"));
    }
}

fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Ok(Box::new(Echo(0)))
}

const WORDS_ONLY: Factory = Factory { name: "echo", ..Factory::new(create) };
static ECHO: Factory = WORDS_ONLY;
static SMALL: Factory = Factory { region_size: 12, access_sizes: ANY_SIZE, ..WORDS_ONLY };

fn device(name: &str, factory: &'static Factory, location: Option<u64>) -> Device {
    Device {
        name: name.to_string(),
        factory,
        location: location.map(Ipa),
        interrupt: Some(IntId(40)),
        window: None,
        served: false,
        hears_ends: false,
        vdev: Box::new(Echo(0)),
    }
}

struct World {
    ram: Ram,
    lines: Lines,
}

impl World {
    fn new() -> Self {
        Self { ram: Ram::new(Ipa(0), 0), lines: Lines::default() }
    }
    fn services(&self) -> Services<'_> {
        Services { now: Ticks(77), memory: &self.ram, interrupts: &self.lines }
    }
    fn read(&self, bus: &Bus, at: u64, size: AccessSize) -> Result<u64, AccessFault> {
        bus.read(Ipa(at), size, &self.services(), &mut Effects::default())
    }
}

#[test]
fn each_access_reaches_the_device_whose_region_it_is_in() {
    let world = World::new();
    // In no order, with gaps, one without registers in between.
    let devices = (0..32_u64).map(|n| device(&n.to_string(), &ECHO, Some(0x1000_0000 + (n * 7 % 32) * 0x2000)));
    let mut devices: Vec<Device> = devices.collect();
    devices.insert(5, device("nowhere", &ECHO, None));
    let bus = Bus::new("vm", Rig::clock(), devices).unwrap();
    for n in 0..32_u64 {
        let base = 0x1000_0000 + n * 0x2000;
        bus.write(Ipa(base), AccessSize::Word, n << 16, &world.services(), &mut Effects::default()).unwrap();
    }
    for n in 0..32_u64 {
        let base = 0x1000_0000 + n * 0x2000;
        assert_eq!(world.read(&bus, base, AccessSize::Word), Ok(n << 16));
        assert_eq!(world.read(&bus, base + 0xffc, AccessSize::Word), Ok((n << 16) + 0xffc));
        assert_eq!(world.read(&bus, base + 0x1000, AccessSize::Word), Err(AccessFault::Nothing));
    }
    for at in [0, 0x0fff_fffc, 0x1000_0000 + 32 * 0x2000, !3] {
        assert_eq!(world.read(&bus, at, AccessSize::Word), Err(AccessFault::Nothing), "{at:#x}");
    }
}

#[test]
fn devices_far_apart_or_on_one_page_are_found_as_well() {
    let world = World::new();
    for locations in
        [[0x1000, 0x10_0000_0000, 0xffff_ffff_f000 - 0x1000], [0x1000, 0x1010, 0x1020], [0x1ff8, 0x3000, 0x4ff8]]
    {
        let devices = locations.iter().map(|at| device(&at.to_string(), &SMALL, Some(*at))).collect();
        let bus = Bus::new("vm", Rig::clock(), devices).unwrap();
        for at in locations {
            for offset in [0, 8, 11] {
                assert_eq!(world.read(&bus, at + offset, AccessSize::Byte), Ok(offset), "{at:#x} + {offset}");
            }
            for outside in [at - 1, at + 12, at + 15] {
                assert_eq!(world.read(&bus, outside, AccessSize::Byte), Err(AccessFault::Nothing), "{outside:#x}");
            }
        }
        assert_eq!(world.read(&bus, 0, AccessSize::Byte), Err(AccessFault::Nothing));
        assert_eq!(world.read(&bus, u64::MAX, AccessSize::Byte), Err(AccessFault::Nothing));
    }
}

#[test]
fn a_device_gets_only_accesses_that_fit_it() {
    let world = World::new();
    let bus = Bus::new("vm", Rig::clock(), vec![device("a", &ECHO, Some(0x1000)), device("b", &SMALL, Some(0x2000))])
        .unwrap();
    for size in [AccessSize::Byte, AccessSize::Halfword, AccessSize::Doubleword] {
        assert_eq!(world.read(&bus, 0x1000, size), Err(AccessFault::Size));
    }
    assert_eq!(world.read(&bus, 0x1002, AccessSize::Word), Err(AccessFault::Unaligned));
    assert_eq!(world.read(&bus, 0x2008, AccessSize::Word), Ok(8));
    assert_eq!(world.read(&bus, 0x2008, AccessSize::Doubleword), Err(AccessFault::Straddles));
    assert_eq!(world.read(&bus, 0x200b, AccessSize::Byte), Ok(11));
    assert_eq!(world.read(&bus, 0x200c, AccessSize::Byte), Err(AccessFault::Nothing));
    let written = bus.write(Ipa(0x2000), AccessSize::Byte, 0x1ff, &world.services(), &mut Effects::default());
    assert_eq!(written, Ok(()));
    assert_eq!(world.read(&bus, 0x2000, AccessSize::Word), Ok(0xff), "bits above the access size are cut off");
}

#[test]
fn two_at_one_address_are_refused_by_name() {
    let error = |devices| Bus::new("vm", Rig::clock(), devices).unwrap_err();
    let overlap = error(vec![device("late", &ECHO, Some(0x1800)), device("early", &ECHO, Some(0x1000))]);
    assert_eq!(overlap.to_string(), "`late` and `early` are both at 0x1800");
    let same = error(vec![device("a", &ECHO, Some(0x1000)), device("b", &SMALL, Some(0x1000))]);
    assert_eq!(same.to_string(), "`a` and `b` are both at 0x1000");
    assert!(
        Bus::new("vm", Rig::clock(), vec![device("a", &ECHO, Some(0x1000)), device("b", &ECHO, Some(0x2000))]).is_ok()
    );
}

#[test]
fn a_location_that_cannot_be_is_refused() {
    for at in [0x1004, u64::MAX - 7] {
        let error = Bus::new("vm", Rig::clock(), vec![device("a", &ECHO, Some(at))]).unwrap_err();
        assert_eq!(error, BusError::Location { name: "a".to_string(), at: Ipa(at) });
    }
}

#[test]
fn devices_are_called_by_their_place_in_the_configuration() {
    let world = World::new();
    let devices = vec![device("high", &ECHO, Some(0x2000)), device("none", &ECHO, None), device("low", &ECHO, Some(0))];
    let bus = Bus::new("vm", Rig::clock(), devices).unwrap();
    assert!(bus.devices().map(|id| bus.name(id).unwrap()).eq(["high", "none", "low"]));
    let mut effects = Effects::default();
    bus.wake(DeviceId(0), Wake::Backend, &world.services(), &mut effects);
    bus.wake(DeviceId(9), Wake::Backend, &world.services(), &mut effects);
    assert_eq!(world.read(&bus, 0x2000, AccessSize::Word), Ok(77));
    assert_eq!(world.read(&bus, 0, AccessSize::Word), Ok(0));
    bus.control(DeviceId(0), Control::Reset, &world.services(), &mut effects).unwrap();
    assert_eq!(world.read(&bus, 0x2000, AccessSize::Word), Ok(0));
    let mut handled = false;
    bus.control(DeviceId(1), Control::Button { handled: &mut handled }, &world.services(), &mut effects).unwrap();
    assert!(handled);
    assert!(bus.control(DeviceId(3), Control::Terminate, &world.services(), &mut effects).is_err());
    assert!(effects.none());
}

#[test]
fn raising_the_line_kicks_through_the_effects() {
    let world = World::new();
    let bus = Arc::new(Bus::new("vm", Rig::clock(), vec![device("a", &ECHO, Some(0))]).unwrap());
    let mut effects = Effects::default();
    bus.write(Ipa(0), AccessSize::Word, 1, &world.services(), &mut effects).unwrap();
    assert!(world.lines.level(IntId(40)));
    assert_eq!(effects.kicked(), VcpuSet(1));
}

#[test]
fn a_line_that_is_shared_is_asserted_as_long_as_somebody_asserts_it() {
    let world = World::new();
    let devices = [0x1000, 0x2000, 0x3000].map(|at| device(&at.to_string(), &ECHO, Some(at)));
    let bus = Bus::new("vm", Rig::clock(), devices.into_iter().collect()).unwrap();
    let set = |at, asserted| {
        let mut effects = Effects::default();
        bus.write(Ipa(at), AccessSize::Word, asserted, &world.services(), &mut effects).unwrap();
        (world.lines.level(IntId(40)), effects.kicked())
    };
    assert_eq!(set(0x1000, 1), (true, VcpuSet(1)));
    assert_eq!(set(0x3000, 1), (true, VcpuSet::EMPTY));
    assert_eq!(set(0x1000, 0), (true, VcpuSet::EMPTY));
    assert_eq!(set(0x2000, 0), (true, VcpuSet::EMPTY));
    assert_eq!(set(0x3000, 0), (false, VcpuSet::EMPTY));
}

#[test]
fn more_than_64_devices_do_not_share_a_line() {
    let devices = |count: u64| (0..count).map(|n| device(&n.to_string(), &ECHO, Some(n * 0x1000))).collect();
    assert!(Bus::new("vm", Rig::clock(), devices(64)).is_ok());
    let error = Bus::new("vm", Rig::clock(), devices(65)).unwrap_err();
    assert_eq!(error.to_string(), "65 devices share interrupt 40: 64 are possible");
}

#[test]
fn a_factory_of_another_interface_makes_nothing() {
    static OLD: Factory = Factory { abi: ABI + 1, ..WORDS_ONLY };
    let error = crate::testkit::Rig::new(&OLD, &[], &mut crate::testkit::Wires::default()).unwrap_err();
    assert!(error[0].message.starts_with("written for interface "), "{}", error[0].message);
}

/// Sends what is written as a message, and counts the ends of its interrupt.
struct Listener(u64);

impl Vdev for Listener {
    fn read(&mut self, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(self.0)
    }
    fn write(&mut self, offset: u64, _: AccessSize, value: u64, cx: &mut Context<'_>) -> Result<(), AccessFault> {
        cx.message(Some(RequesterId(3)), Ipa(0x800_0000 + offset), u32::try_from(value).unwrap());
        Ok(())
    }
    fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        Ok(())
    }
    fn wake(&mut self, wake: Wake, _: &mut Context<'_>) {
        self.0 += u64::from(wake == Wake::InterruptEnded);
    }
    fn describe(&self, _: &mut Node) {}
}

#[test]
fn a_device_hears_of_ends_if_it_has_asked_and_has_an_interrupt() {
    static LISTENER: Factory = Factory {
        name: "listener",
        ..Factory::new(|_, setup| {
            setup.hear_ends();
            Ok(Box::new(Listener(0)))
        })
    };
    let mut rig = Rig::new(&LISTENER, &[], &mut Wires::default()).unwrap();
    assert!(rig.end_interrupt() && rig.end_interrupt());
    assert_eq!(rig.read(0), 2);
    let mut rig = Rig::new(&ECHO, &[], &mut Wires::default()).unwrap();
    assert!(!rig.end_interrupt());
    // Devices are numbered as in the configuration, not as they stand.
    let hears = |name, at, interrupt| Device { interrupt, hears_ends: true, ..device(name, &ECHO, at) };
    let devices =
        vec![hears("b", Some(0x2000), Some(IntId(41))), device("a", &ECHO, Some(0x1000)), hears("none", None, None)];
    let bus = Bus::new("vm", Rig::clock(), devices).unwrap();
    assert_eq!(bus.listeners(), [(DeviceId(0), IntId(41))]);
}

#[test]
fn a_message_goes_out_as_it_is_and_kicks_whom_the_controller_names() {
    static SENDER: Factory = Factory { name: "sender", ..Factory::new(|_, _| Ok(Box::new(Listener(0)))) };
    let mut rig = Rig::new(&SENDER, &[], &mut Wires::default()).unwrap();
    rig.write(0x40, 100);
    assert_eq!(rig.lines.take_messages(), [(Some(RequesterId(3)), Ipa(0x800_0040), 100)]);
    assert!(!rig.take_effects().kicked().is_empty());
    assert!(rig.lines.take_messages().is_empty() && rig.lines.take_events().is_empty());
}

/// Has the first device at two pages, and one that there is not behind them.
struct Somewhere;

impl Decoder for Somewhere {
    fn decode(&self, at: Ipa) -> Option<(DeviceId, u64)> {
        match at.0 {
            0x5000_0000..0x5000_2000 => Some((DeviceId(1), at.0 - 0x5000_0000 + (1 << 56))),
            0x5000_2000..0x5000_3000 => Some((DeviceId(9), 0)),
            _ => None,
        }
    }
    fn place(&self, _: crate::PciSlot, _: u8, _: Option<Range<Ipa>>) {}
    fn windows(&self) -> &[Range<Ipa>] {
        &[]
    }
    fn is_alone(&self, _: crate::PciSlot, _: u8) -> bool {
        true
    }
    fn has_room(&self, _: u64, _: u64) -> bool {
        true
    }
}

#[test]
fn a_device_without_a_place_is_where_the_decoder_says() {
    let world = World::new();
    let devices = vec![device("fixed", &ECHO, Some(0x1000)), device("moved", &SMALL, None)];
    let bus = Bus::new("vm", Rig::clock(), devices).unwrap();
    let at = |offset: u64| 0x5000_0000 + offset;
    assert_eq!(world.read(&bus, at(8), AccessSize::Word), Err(AccessFault::Nothing), "nobody decodes");
    let bus = bus.with_decoder(Arc::new(Somewhere));
    assert_eq!(world.read(&bus, at(0x1008), AccessSize::Doubleword), Ok(0x1008 + (1 << 56)));
    assert_eq!(world.read(&bus, at(2), AccessSize::Word), Err(AccessFault::Unaligned));
    assert_eq!(world.read(&bus, at(0x2000), AccessSize::Word), Err(AccessFault::Nothing), "no such device");
    assert_eq!(world.read(&bus, at(0x3000), AccessSize::Word), Err(AccessFault::Nothing));
    assert_eq!(world.read(&bus, 0x1008, AccessSize::Word), Ok(8), "the one with a place");
    assert_eq!((bus.device_at(Ipa(at(0))), bus.device_at(Ipa(0x1000))), (Some(DeviceId(1)), Some(DeviceId(0))));
    assert_eq!(bus.find(Ipa(at(0)), AccessSize::Word).err(), Some(AccessFault::Nothing), "the fast way knows nothing");
}
