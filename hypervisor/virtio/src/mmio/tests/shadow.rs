//! What the driver reads without an exit.

use super::*;
use crate::serving::Signals as _;
use proptest::prelude::*;
use types::{Lock, RequesterId, Ticks, VcpuId, VcpuSet};
use vdev::{Deadlines, Effects, Identity, InterruptController, Line, Services, ShadowPage};

impl Guest {
    /// Whether the page has whatever a load that exits would find, and zeroes where nothing is.
    fn check_page(&mut self) {
        for offset in (0..0x100).step_by(4) {
            let expected = self.rig.try_read(offset, AccessSize::Word).unwrap_or(0);
            assert_eq!(self.slate.load(offset, AccessSize::Word), Some(expected), "{offset:#x}");
        }
        for offset in 0x100..0x200 {
            let expected = self.rig.try_read(offset, AccessSize::Byte).ok();
            assert_eq!(self.slate.load(offset, AccessSize::Byte), expected, "{offset:#x}");
        }
        assert!((0x200..0x1000).step_by(8).all(|at| self.slate.load(at, AccessSize::Doubleword) == Some(0)));
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write(u64, u64),
    Configuration(u64, u8),
    Ask(usize, bool),
    Notify(u64),
    Work,
    Wake,
    Pass,
    Start(bool),
    Reset,
    Acknowledge(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let values = prop_oneof![0_u64..20, Just(RAM), Just(RAM + 0x1000), any::<u32>().prop_map(u64::from)];
    prop_oneof![
        1 => (0_u64..64, values).prop_map(|(register, value)| Step::Write(register * 4, value)),
        1 => (0_u64..16, any::<u8>()).prop_map(|(at, value)| Step::Configuration(0x100 + at, value)),
        3 => (0_usize..2, any::<bool>()).prop_map(|(queue, is_wrong)| Step::Ask(queue, is_wrong)),
        2 => (0_u64..3).prop_map(Step::Notify),
        3 => Just(Step::Work),
        1 => Just(Step::Wake),
        1 => Just(Step::Pass),
        2 => any::<bool>().prop_map(Step::Start),
        1 => Just(Step::Reset),
        2 => (0_u64..4).prop_map(Step::Acknowledge),
    ]
}

proptest! {
    #[test]
    fn after_each_step_the_page_has_what_a_load_would_find(
        legacy: bool,
        steps in prop::collection::vec(step(), 1..40),
    ) {
        let mut guest = Guest::new(legacy);
        guest.rig.control(Control::GuestConfigured).unwrap();
        guest.check_page();
        let mut drivers = None;
        for step in steps {
            match step {
                // The service wants to have been told of features.
                Step::Write(0x70, value) if legacy && value & 4 != 0 => {}
                Step::Write(offset, value) => _ = guest.rig.try_write(offset, AccessSize::Word, value),
                Step::Configuration(offset, value) => {
                    guest.rig.try_write(offset, AccessSize::Byte, value.into()).unwrap();
                }
                Step::Ask(queue, is_wrong) => {
                    if let Some(driver) = drivers.as_mut().map(|drivers: &mut [Driver; 2]| &mut drivers[queue])
                        && driver.room() > 2
                    {
                        let at = if is_wrong { 0x1000 } else { DATA };
                        let answer = Offered { address: at, length: 8, writable: true };
                        driver.offer(&guest.rig.ram, &[answer], None);
                    }
                }
                Step::Notify(queue) => guest.write(0x50, queue),
                Step::Work => _ = guest.work(),
                Step::Wake => guest.rig.wake_for(Wake::VmLives),
                Step::Pass => guest.rig.now = guest.rig.now.saturating_add(Ticks(1)),
                // A legacy driver is there as soon as it says so, and its queues are wherever the writes above have put them.
                Step::Start(_) if legacy => {
                    let accepted = Features::EVENT_IDX.bits();
                    let writes = [(0x70, 0), (0x70, 3), (0x24, 0), (0x20, accepted), (0x70, 7)];
                    writes.into_iter().for_each(|(offset, value)| guest.write(offset, value));
                }
                Step::Start(packed) => {
                    let features = if packed { Features::RING_PACKED } else { Features::EVENT_IDX };
                    drivers = Some(guest.start(features));
                }
                Step::Reset => guest.write(0x70, 0),
                Step::Acknowledge(events) => guest.write(0x64, events),
            }
            guest.check_page();
        }
    }
}

/// Remembers in which order things were done.
#[derive(Default)]
struct Witness(Lock<Vec<Seen>>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    Stored(u16, u32),
    Line(bool),
}

impl ShadowPage for Witness {
    fn store(&self, offset: u16, value: u32) {
        self.0.lock().push(Seen::Stored(offset, value));
    }
}

impl InterruptController for Witness {
    fn set_level(&self, _: IntId, asserted: bool) -> VcpuSet {
        self.0.lock().push(Seen::Line(asserted));
        VcpuSet::EMPTY
    }
    fn set_private_level(&self, _: VcpuId, _: IntId, _: bool) -> VcpuSet {
        VcpuSet::EMPTY
    }
    fn message(&self, _: Option<RequesterId>, _: Ipa, _: u32) -> VcpuSet {
        VcpuSet::EMPTY
    }
}

/// What is seen of what is done to the interrupt of a device with a page.
fn witness(work: impl FnOnce(&Interrupt, &mut Context<'_>)) -> Vec<Seen> {
    let witness = Arc::new(Witness::default());
    let ram = vdev::testkit::Ram::new(Ipa(RAM), 0x1000);
    let services = Services { now: Ticks(0), memory: &ram, interrupts: &*witness };
    let deadlines = Deadlines::new(Rig::clock(), Arc::default());
    let identity = Identity { line: Line::all(Rig::LINE, 1).next(), origin: "test".to_string(), deadlines };
    let mut effects = Effects::default();
    let interrupt = Interrupt::new(Some(Shadow::new(witness.clone())));
    work(&interrupt, &mut Context::new(&services, &identity, &mut effects));
    let seen = witness.0.lock();
    seen.clone()
}

const STATUS: u16 = 0x70;
const INTERRUPT_STATUS: u16 = 0x60;

#[test]
fn the_bit_is_in_the_page_before_the_line_is_asserted_and_gone_before_it_is_released() {
    let seen = witness(|interrupt, context| {
        interrupt.used(0, context);
        interrupt.used(1, context);
        interrupt.acknowledge(1, context);
        interrupt.acknowledge(1, context);
    });
    let set = [Seen::Stored(INTERRUPT_STATUS, 1), Seen::Line(true)];
    let clear = [Seen::Stored(INTERRUPT_STATUS, 0), Seen::Line(false)];
    assert_eq!(seen, [set, clear].concat());
}

#[test]
fn a_driver_hears_of_a_change_when_the_page_has_it() {
    let seen = witness(|interrupt, context| {
        interrupt.changed(context);
        interrupt.settle(context, |shadow| shadow.show(CONFIGURATION, 7));
        interrupt.settle(context, |shadow| shadow.show(CONFIGURATION, 7));
    });
    let stores = [Seen::Stored(CONFIGURATION, 7), Seen::Stored(INTERRUPT_STATUS, 2), Seen::Line(true)];
    assert_eq!(seen, stores, "and once");
}

#[test]
fn a_driver_hears_of_its_mistake_when_the_page_has_it() {
    let seen = witness(|interrupt, context| {
        interrupt.settle(context, |shadow| shadow.show(STATUS, 15));
        interrupt.failed(context);
    });
    let failed = [Seen::Stored(STATUS, 15 | 64), Seen::Stored(INTERRUPT_STATUS, 2), Seen::Line(true)];
    assert_eq!(seen, [&[Seen::Stored(STATUS, 15)][..], &failed].concat());
}

/// 2.5.1: who reads the configuration space and finds the same generation before and after has no part of an old and of a new one.
#[test]
fn the_generation_is_another_while_the_configuration_space_changes() {
    let mut wires = Wires::default();
    let witness = Arc::new(Witness::default());
    wires.watch = Some(witness.clone());
    let mut guest = Guest { rig: Rig::new(&LOOPBACK, &[], &mut wires).unwrap(), crew: wires.crew, slate: wires.slate };
    let [mut driver, _] = guest.start(Features::empty());
    guest.ask(&mut driver, DATA, b"x", 8);
    guest.kick(0);
    guest.write(0x64, 3);
    let before = guest.read(0xfc);
    witness.0.lock().clear();
    guest.rig.wake_for(Wake::VmLives);
    let after = guest.read(0xfc);
    let seen = witness.0.lock().clone();
    let [Seen::Stored(0xfc, between), Seen::Stored(0x100, 1), Seen::Stored(0xfc, last), ..] = seen[..] else {
        panic!("{seen:?}")
    };
    assert!(before != after && ![before, after].contains(&between.into()) && u64::from(last) == after);
    assert_eq!(seen[3..], [Seen::Stored(INTERRUPT_STATUS, 2)], "and then the driver is told");
}
