//! A function of the machine with any configuration space at all, passed to a guest that writes anything anywhere: nothing panics, no
//! list is followed for ever, who the function is does not change, the function's own messages are the host's, it is bus master only if
//! the guest says so, and what is mapped is in the windows, once, and not the table of its messages.

#![no_main]

use libfuzzer_sys::fuzz_target;
use pci::Passed;
use pci::testkit::Slots;
use std::sync::{Arc, Mutex};
use types::{AccessSize, Ipa};
use vdev::testkit::Wires;
use vdev::{
    AccessFault, Control, DeviceId, Factory, FactoryFlags, FunctionBar, FunctionFacts, FunctionPart, FunctionSignal,
    GuestMessage, HostFunction, WantedFunction, Wake,
};

const OWN: DeviceId = DeviceId(1);
/// Where the host has messages stored.
const DOORBELL: u64 = 0x80_0000_0040;

static PASSED: Factory = Factory {
    name: "pass",
    flags: FactoryFlags::LOC_PCI,
    region_size: 0,
    ..Factory::new(|_, setup| Passed::attach(setup, WantedFunction::Kind { vendor: 1, device: 2 }, false))
};

struct Model(Mutex<State>);

struct State {
    config: Vec<u8>,
    maps: Vec<(u64, FunctionPart)>,
}

impl HostFunction for Model {
    fn configuration(&self, at: u16, size: AccessSize, store: Option<u32>) -> u32 {
        assert!(u64::from(at).is_multiple_of(size.bytes()) && size.bytes() <= 4);
        let range = usize::from(at)..usize::from(at) + usize::try_from(size.bytes()).unwrap();
        let state = &mut *self.0.lock().unwrap();
        let bytes = &mut state.config[range];
        if let Some(value) = store {
            assert!(at >= 0x40 || at == 4 || at == 6, "the header is the host's: {at:#x}");
            assert!(at < 0x100, "virtual functions are the host's: {at:#x}");
            let length = bytes.len();
            bytes.copy_from_slice(&value.to_le_bytes()[..length]);
        }
        bytes.iter().rev().fold(0, |value, byte| value << 8 | u32::from(*byte))
    }

    fn registers(&self, bar: u8, offset: u64, size: AccessSize, _: Option<u64>) -> Result<u64, AccessFault> {
        let bars = bars();
        let bar = bars.iter().find(|it| it.index == bar).unwrap();
        assert!(offset.is_multiple_of(size.bytes()) && offset + size.bytes() <= bar.size);
        if offset % 0x60 == 0 { Err(AccessFault::Bus) } else { Ok(offset) }
    }

    fn map(&self, at: Ipa, part: FunctionPart, reach: bool) -> bool {
        let state = &mut *self.0.lock().unwrap();
        if reach {
            state.maps.push((at.0, part));
        } else {
            state.maps.retain(|map| *map != (at.0, part));
        }
        true
    }

    fn message(&self, vector: u16, _: GuestMessage) -> Option<(u64, u32)> {
        (vector < 40).then_some((DOORBELL, vector.into()))
    }

    fn signal(&self, _: FunctionSignal) {}
}

fn bars() -> Vec<FunctionBar> {
    let bar = |index, size, is_64_bit| FunctionBar { index, size, is_64_bit };
    vec![bar(0, 0x1_0000, false), bar(1, 0x100, false), bar(2, 0x8000, true)]
}

fn drive(slots: &mut Slots, call: &[u8; 8]) {
    let [kind, device, a, b, rest @ ..] = *call;
    let size = AccessSize::from_sas(u64::from(kind >> 6));
    let value = u64::from(u32::from_le_bytes(rest)) * 0x1_0000_0001;
    let near = u64::from(b & 31) * 0x1000 + u64::from(a) * 8;
    let slot = Slots::slot(1);
    let at = match kind & 7 {
        0 | 1 => Slots::config_at(slot, u16::from_le_bytes([a, b]) & 0xfff),
        2 => return slots.set_config(slot, 0x10 + u16::from(a % 6) * 4, 0x1000_0000 + u32::from(b & 31) * 0x4000),
        3 => return slots.set_config(slot, 4, u32::from(a) | u32::from(b) << 8),
        4 => {
            let wakes = [Wake::Backend, Wake::InterruptEnded, Wake::Pulse(device)];
            return slots.wake(OWN, wakes[usize::from(a % 3)]);
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

fuzz_target!(|data: &[u8]| {
    let (own, calls) = data.split_at(data.len().min(0x140));
    let mut config = own.to_vec();
    config.resize(0x1000, 0);
    let model = Arc::new(Model(Mutex::new(State { config, maps: Vec::new() })));
    let facts = FunctionFacts {
        name: String::from("0000:00:01.0"),
        vendor: 1,
        device: 2,
        bars: bars(),
        has_pin: true,
        messages: 40,
        can_be_reset: true,
        virtual_functions: 3,
    };
    let mut wires = Wires::default();
    wires.functions.push((facts, model.clone()));
    let Ok(mut slots) = Slots::new(&[(&PASSED, &[])], true, &mut wires) else { return };
    slots.control(OWN, Control::GuestConfigured).unwrap();
    let class = slots.config(Slots::slot(1), 8);
    for call in calls.as_chunks().0 {
        drive(&mut slots, call);
        let mut maps = model.0.lock().unwrap().maps.clone();
        maps.sort_unstable_by_key(|(at, _)| *at);
        for (at, FunctionPart { bar, offset, length }) in &maps {
            let bars = bars();
            let size = bars.iter().find(|it| it.index == *bar).unwrap().size;
            assert!(offset + length <= size && *length > 0 && (at | offset | length).is_multiple_of(0x1000));
            let is_low = *at >= Slots::WINDOW_32.0 && at + length <= Slots::WINDOW_32.0 + (256 << 20);
            let is_high = *at >= Slots::WINDOW_64.0 && at + length <= Slots::WINDOW_64.0 + (16 << 30);
            assert!(is_low || is_high, "{at:#x}");
        }
        assert!(maps.windows(2).all(|pair| pair[0].0 + pair[0].1.length <= pair[1].0), "{maps:x?}");
    }
    slots.wake(OWN, Wake::Pulse(0));
    let slot = Slots::slot(1);
    assert_eq!((slots.config(slot, 0), slots.config(slot, 8)), (0x2_0001, class));
    let is_master = |config: &[u8]| config[4] & 4 != 0;
    let wanted = slots.config(slot, 4) & 4 != 0;
    assert_eq!(is_master(&model.0.lock().unwrap().config), wanted);
});
