//! Whatever a guest writes: nothing panics, who a function is does not change, and it answers exactly where its own registers say.

use super::toys;
use crate::testkit::Slots;
use alloc::vec::Vec;
use proptest::prelude::*;
use types::{AccessSize, Ipa};
use vdev::DeviceId;

/// Sizes of the toys' regions, by BAR, and whether they are wide.
const REGIONS: [(u16, u64, bool); 3] = [(0x10, 0x1000, false), (0x14, 0x2000, false), (0x18, 0x4000, true)];
const TOYS: u8 = 3;

/// Where a region is by the registers that a guest reads, if it is anywhere that the bus decodes.
fn place(slots: &mut Slots, device: u8, (register, size, is_wide): (u16, u64, bool)) -> Option<(u64, u64)> {
    let slot = Slots::slot(device);
    let high = if is_wide { slots.config(slot, register + 4) } else { 0 };
    let start = u64::from(high) << 32 | u64::from(slots.config(slot, register) & !0xf);
    let end = start.checked_add(size)?;
    let in_window = |window: Ipa, length: u64| start >= window.0 && end <= window.0 + length;
    let decoded = in_window(Slots::WINDOW_32, 256 << 20) || in_window(Slots::WINDOW_64, 16 << 30);
    (slots.config(slot, 4) & 2 != 0 && decoded).then_some((start, end))
}

/// Addresses that are worth writing to a BAR: few, so that regions meet.
fn address() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0_u32..8).prop_map(|page| 0x1000_0000 + page * 0x1000),
        (0_u32..8).prop_map(|page| 0x1fff_c000 + page * 0x1000),
        Just(4),
        Just(8),
        any::<u32>(),
    ]
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Config(u8, u16, AccessSize, u64),
    Bar(u8, u16, u32),
    Enable(u8, bool),
    Memory(u64, AccessSize, Option<u64>),
}

fn size() -> impl Strategy<Value = AccessSize> {
    (0_u64..4).prop_map(AccessSize::from_sas)
}

fn step() -> impl Strategy<Value = Step> {
    let device = 0..=TOYS + 1;
    prop_oneof![
        (device.clone(), 0_u16..0x110, size(), any::<u64>()).prop_map(|(d, at, size, v)| Step::Config(d, at, size, v)),
        (device.clone(), 0_u16..6, address()).prop_map(|(device, bar, value)| Step::Bar(device, 0x10 + 4 * bar, value)),
        (device, any::<bool>()).prop_map(|(device, enabled)| Step::Enable(device, enabled)),
        (address(), size(), any::<Option<u64>>()).prop_map(|(at, size, store)| Step::Memory(at.into(), size, store)),
    ]
}

fn take(slots: &mut Slots, step: Step) {
    match step {
        Step::Config(device, at, size, value) => {
            let at = Slots::config_at(Slots::slot(device), at);
            let _ = slots.try_write(at, size, value);
            let _ = slots.try_read(at, size);
        }
        Step::Bar(device, at, value) => slots.set_config(Slots::slot(device), at, value),
        Step::Enable(device, enabled) => slots.set_config(Slots::slot(device), 4, u32::from(enabled) * 6),
        Step::Memory(at, size, Some(value)) => {
            let _ = slots.try_write(Ipa(at), size, value);
        }
        Step::Memory(at, size, None) => {
            let _ = slots.try_read(Ipa(at), size);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_function_answers_where_its_registers_say_and_nowhere_else(steps in prop::collection::vec(step(), 0..60)) {
        let mut slots = toys(TOYS.into());
        steps.into_iter().for_each(|step| take(&mut slots, step));
        let mut placed = Vec::new();
        for device in 1..=TOYS {
            prop_assert_eq!(slots.config(Slots::slot(device), 0), 0x5678_1234);
            prop_assert_eq!(slots.config(Slots::slot(device), 8), 0xff00_0000);
            for region in REGIONS {
                placed.extend(place(&mut slots, device, region).map(|(start, end)| (start, end, device)));
            }
        }
        let edges = placed.iter().flat_map(|(start, end, _)| [*start, start - 1, *end, end - 1]);
        let edges: Vec<u64> = edges.chain([Slots::WINDOW_32.0, Slots::WINDOW_64.0, 0x1000_4321]).collect();
        for at in edges {
            let first = placed.iter().filter(|(start, end, _)| (*start..*end).contains(&at)).map(|(.., device)| *device).min();
            let found = slots.device_at(Ipa(at)).filter(|id| id.0 != 0);
            prop_assert_eq!(found, first.map(|device| DeviceId(device.into())), "{:#x}", at);
        }
    }
}
