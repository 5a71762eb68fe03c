//! Whatever a guest writes: nothing panics, who the function is does not change, no page is mapped outside the windows or twice, none of
//! the table's, the function is never told to store anywhere but where the host says, and its virtual functions stay.

use super::model::Model;
use super::{OWN, build, virtual_functions};
use crate::testkit::Slots;
use alloc::vec::Vec;
use proptest::prelude::*;
use types::{AccessSize, Ipa};
use vdev::{Control, Wake};

#[derive(Clone, Copy, Debug)]
enum Step {
    Config(u16, AccessSize, u64),
    Bar(u16, u32),
    Memory(u64, AccessSize, Option<u64>),
    Wake(u8),
    Reset,
}

fn size() -> impl Strategy<Value = AccessSize> {
    (0_u64..4).prop_map(AccessSize::from_sas)
}

fn address() -> impl Strategy<Value = u32> {
    prop_oneof![
        (0_u32..8).prop_map(|page| 0x1000_0000 + page * 0x8000),
        (0_u32..4).prop_map(|page| 0x1fff_0000 + page * 0x8000),
        0_u32..8,
        any::<u32>(),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0_u16..0x210, size(), any::<u64>()).prop_map(|(at, size, value)| Step::Config(at, size, value)),
        4 => (0_u16..6, address()).prop_map(|(bar, value)| Step::Bar(0x10 + 4 * bar, value)),
        2 => (0_u32..8).prop_map(|command| Step::Bar(4, command)),
        4 => (address(), 0_u64..0x4000, size(), any::<Option<u64>>())
            .prop_map(|(at, offset, size, store)| Step::Memory(u64::from(at) + offset, size, store)),
        1 => any::<u8>().prop_map(Step::Wake),
        1 => Just(Step::Reset),
    ]
}

fn take(slots: &mut Slots, step: Step) {
    let slot = Slots::slot(1);
    match step {
        Step::Config(at, size, value) => {
            let at = Slots::config_at(slot, at);
            let _ = slots.try_write(at, size, value);
            let _ = slots.try_read(at, size);
        }
        Step::Bar(at, value) => slots.set_config(slot, at, value),
        Step::Memory(at, size, Some(value)) => {
            let _ = slots.try_write(Ipa(at), size, value);
        }
        Step::Memory(at, size, None) => {
            let _ = slots.try_read(Ipa(at), size);
        }
        Step::Wake(0..=99) => slots.wake(OWN, Wake::Backend),
        Step::Wake(100..=199) => slots.wake(OWN, Wake::InterruptEnded),
        Step::Wake(code) => slots.wake(OWN, Wake::Pulse(code)),
        Step::Reset => slots.control(OWN, Control::Reset).unwrap(),
    }
}

/// Stores to address and data of a message are the host's.
fn is_harmless(entry: &str) -> bool {
    let Some((what, value)) = entry.split_once(" = ") else { return true };
    let value = u64::from_str_radix(value.trim_start_matches("0x"), 16).unwrap();
    if let Some(at) = what.strip_prefix("config 0x") {
        return match u16::from_str_radix(at, 16).unwrap() {
            0x4 => value & !0x546 == 0,
            0x6 => value & !0xf900 == 0,
            0x72 => value & !0xc000 == 0,
            0x88 => value & !0x7010 == 0x0820 && value & 0x7000 <= 0x2000,
            0x8a => value & !0xf == 0,
            0xd2 => value & !0x11 == 0,
            0xd4 => value == 0x40,
            0xd8 => value == 0x80,
            0xdc => value == 0,
            0xe0..=0xe3 => true,
            _ => false,
        };
    }
    let place = what.strip_prefix("store 2+0x").and_then(|rest| rest.split(' ').next());
    match place.map(|at| u64::from_str_radix(at, 16).unwrap()) {
        Some(at @ 0x2000..0x2050) => match at & 0xf {
            0 => value == 0x40,
            4 => value == 0x80,
            8 => value < 3,
            _ => value < 2,
        },
        Some(0x3000..0x3008) => false,
        _ => true,
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
    fn a_guest_reaches_what_it_may(steps in prop::collection::vec(step(), 0..80)) {
        let model = Model::new();
        let mut slots = build(&model, virtual_functions::facts(), true).unwrap();
        for step in steps {
            take(&mut slots, step);
            for entry in model.take_log() {
                prop_assert!(is_harmless(&entry), "{}", entry);
            }
            let mut maps: Vec<(u64, u64)> = model.maps();
            maps.sort_unstable();
            for (at, length) in &maps {
                let low = *at >= 0x1000_0000 && at + length <= 0x2000_0000;
                let high = *at >= 0x4_0000_0000 && at + length <= 0x8_0000_0000;
                prop_assert!(low || high, "{:#x}", at);
            }
            for pair in maps.windows(2) {
                prop_assert!(pair[0].0 + pair[0].1 <= pair[1].0, "{:x?}", pair);
            }
        }
        slots.wake(OWN, Wake::Pulse(0));
        prop_assert_eq!(slots.config(Slots::slot(1), 0), 0x10d3_8086);
        prop_assert_eq!(slots.config(Slots::slot(1), 8), 0x0200_0003);
        slots.control(OWN, Control::Terminate).unwrap();
        prop_assert_eq!(model.word(4) & 4, 0);
    }
}
