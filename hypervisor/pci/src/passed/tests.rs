//! A function with everything that matters, under a guest that behaves and one that does not.

mod model;
mod properties;
mod virtual_functions;

use super::{PASSED, Passed, open};
use crate::testkit::Slots;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use model::Model;
use types::{AccessSize, Ipa, RequesterId};
use vdev::testkit::Wires;
use vdev::{
    AccessFault, Control, DeviceId, Factory, FunctionFacts, FunctionSignal, OptionError, Options, Setup, Vdev, Wake,
    WantedFunction,
};

/// As assembly does.
static FACTORY: Factory = Factory {
    name: "pass",
    flags: PASSED.flags,
    region_size: 0,
    ..Factory::new(|_: &Options, setup: &mut Setup<'_>| -> Result<Box<dyn Vdev>, OptionError> {
        Passed::attach(setup, WantedFunction::Place { bus: 0, device: 2, function: 0 }, false)
    })
};

const OWN: DeviceId = DeviceId(1);
const BAR_0: Ipa = Ipa(0x1010_0000);
const BAR_2: Ipa = Ipa(0x4_0002_0000);

fn build(model: &Arc<Model>, facts: FunctionFacts, has_messages: bool) -> Result<Slots, Vec<OptionError>> {
    let mut wires = Wires::default();
    wires.functions.push((facts, model.clone()));
    let mut slots = Slots::new(&[(&FACTORY, &[])], has_messages, &mut wires)?;
    slots.control(OWN, Control::GuestConfigured).unwrap();
    model.take_log();
    Ok(slots)
}

fn slots(model: &Arc<Model>) -> Slots {
    build(model, Model::facts(), true).unwrap()
}

/// With regions where a guest would put them.
fn placed(model: &Arc<Model>) -> Slots {
    let mut slots = slots(model);
    let slot = Slots::slot(1);
    slots.set_config(slot, 0x10, u32::try_from(BAR_0.0).unwrap());
    slots.set_config(slot, 0x18, u32::try_from(BAR_2.0 & 0xffff_ffff).unwrap());
    slots.set_config(slot, 0x1c, u32::try_from(BAR_2.0 >> 32).unwrap());
    slots.set_config(slot, 4, 6);
    slots
}

fn at(base: Ipa, offset: u64) -> Ipa {
    Ipa(base.0 + offset)
}

#[test]
fn the_guest_sees_who_it_is_and_nothing_of_where_it_is() {
    let model = Model::new();
    let (mut slots, slot) = (slots(&model), Slots::slot(1));
    assert_eq!(slots.config(slot, 0), 0x10d3_8086);
    assert_eq!(slots.config(slot, 8), 0x0200_0003, "class and revision");
    assert_eq!(slots.config(slot, 0x2c), 0x0001_1af4, "subsystem");
    assert_eq!(slots.config(slot, 0x0c) >> 16, 0, "one function, type 0, no self-test");
    assert_eq!(slots.config(slot, 0x3c) >> 8 & 0xff, 1, "INTA, whatever its pin is");
    for (register, low) in [(0x10, 0), (0x14, 0), (0x18, 4), (0x1c, 0), (0x20, 0), (0x24, 0)] {
        assert_eq!(slots.config(slot, register), low, "{register:#x}");
        slots.set_config(slot, register, !0);
    }
    assert_eq!(slots.config(slot, 0x10), 0xfffe_0000, "128 KiB");
    assert_eq!(slots.config(slot, 0x14), 0, "ports of I/O are absent");
    assert_eq!((slots.config(slot, 0x18), slots.config(slot, 0x1c)), (0xffff_8004, u32::MAX));
    assert_eq!(slots.config(slot, 0x30), 0, "no expansion ROM");
    let bars: Vec<u32> = (0x10..0x28).step_by(4).map(|at| model.word(at)).collect();
    assert_eq!(bars, Model::new().words(0x10, 6), "its own registers are untouched");
}

#[test]
fn capabilities_are_where_they_are_and_others_are_hidden() {
    let model = Model::new();
    let (mut slots, slot) = (slots(&model), Slots::slot(1));
    let mut list = Vec::new();
    let mut next = slots.config(slot, 0x34) & 0xff;
    while next != 0 {
        let header = slots.config(slot, u16::try_from(next).unwrap());
        list.push((header & 0xff, next));
        next = header >> 8 & 0xff;
    }
    assert_eq!(list, [(1, 0xc8), (5, 0xd0), (0x10, 0x80), (0x11, 0x70), (9, 0xf0)], "all but VPD");
    assert_eq!(slots.config(slot, 0x48), 0, "what is hidden is not there");
    assert_eq!(slots.config(slot, 0x4c), 0);
    assert_eq!(slots.config(slot, 0xf4), 0x0bad_cafe, "of a vendor's everything is read");
    assert_eq!(slots.config(slot, 0x40), 0x1357_9bdf, "and registers without a capability");
    for register in [0x40, 0xf4] {
        slots.set_config(slot, register, 0);
        assert_ne!(model.word(register), 0, "nothing of it is written");
    }
    assert!(!model.take_log().iter().any(|entry| entry.starts_with("config")));
    assert_eq!(slots.config(slot, 0x100), 0x0001_0003, "a serial number, and the end of the list");
    assert_eq!((slots.config(slot, 0x104), slots.config(slot, 0x108)), (0x1122_3344, 0x5566_7788));
    assert_eq!(slots.config(slot, 0x10c), 0);
    assert_eq!(slots.try_read(Slots::config_at(slot, 0x102), AccessSize::Halfword), Ok(1), "no next one");
    slots.set_config(slot, 0x104, 0);
    assert_eq!(slots.config(slot, 0x200), 0);
}

#[test]
fn power_states_are_a_word_only() {
    let model = Model::new();
    let (mut slots, slot) = (slots(&model), Slots::slot(1));
    assert_eq!(slots.config(slot, 0xc8) >> 16, 0x22, "version 2, device specific; no D1, D2, events");
    assert_eq!(slots.config(slot, 0xcc), 8, "nothing is lost");
    slots.set_config(slot, 0xcc, 0x8103);
    assert_eq!(slots.config(slot, 0xcc), 0xb, "D3hot");
    assert!(model.take_log().is_empty(), "the function does not hear of it");
}

#[test]
fn of_express_little_can_be_written() {
    let model = Model::new();
    let (mut slots, slot) = (slots(&model), Slots::slot(1));
    assert_eq!(slots.config(slot, 0x80) >> 16, 0x0092, "an endpoint without a link");
    assert_eq!(slots.config(slot, 0x84), 0x1000_8000, "it can be reset");
    for register in (0x8c..0xbc).step_by(4) {
        assert_eq!(slots.config(slot, register), 0, "no link, no slot: {register:#x}");
    }
    // The host has found 512 bytes (2) for reads, and 256 bytes of payload (1); relaxed ordering is off.
    assert_eq!(slots.config(slot, 0x88) & 0xffff, 0x2820);
    slots.set_config(slot, 0x88, 0x5_70ff);
    assert_eq!(model.word(0x88) & 0xffff, 0x2830, "no larger, and payload stays; relaxed ordering counts");
    slots.set_config(slot, 0x88, 0x1000);
    assert_eq!(model.word(0x88) & 0xffff, 0x1820, "smaller ones do");
    assert_eq!(slots.config(slot, 0x88) & 0xf, 0, "reporting is a word");
    let log = model.take_log();
    assert!(log.contains(&String::from("config 0x8a = 0x5")), "errors are cleared: {log:?}");
    slots.set_config(slot, 0x90, 0xffff_ffff);
    assert!(model.take_log().is_empty(), "no link control");
}

#[test]
fn the_command_register_is_the_guests_as_far_as_it_goes() {
    let model = Model::new();
    let (mut slots, slot) = (slots(&model), Slots::slot(1));
    assert_eq!(model.word(4) & 0xffff, 0x142, "it answers from the beginning, and writes nothing");
    slots.set_config(slot, 4, 0xffff);
    assert_eq!(slots.config(slot, 4) & 0xffff, 0x406);
    assert_eq!(model.word(4) & 0xffff, 0x546);
    slots.set_config(slot, 4, 4);
    assert_eq!(model.word(4) & 0xffff, 0x146, "memory space stays");
    slots.set_config(slot, 4, 0);
    assert_eq!(model.word(4) & 0xffff, 0x142, "no bus master any more");
    model.take_log();
    assert_eq!(slots.config(slot, 4) >> 16, 0x0810, "its status, but for what the bus is like");
    slots.try_write(Slots::config_at(slot, 6), AccessSize::Halfword, 0xffff).unwrap();
    assert!(model.take_log().contains(&String::from("config 0x6 = 0xf900")), "events are cleared, no more");
    slots.control(OWN, Control::Terminate).unwrap();
    assert_eq!(model.word(4) & 0x404, 0);
}

#[test]
fn a_region_is_mapped_but_for_the_table() {
    let model = Model::new();
    let mut slots = placed(&model);
    let slot = Slots::slot(1);
    let all =
        ["map 0+0x0 0x20000 at 0x10100000", "map 2+0x0 0x2000 at 0x400020000", "map 2+0x4000 0x4000 at 0x400024000"];
    assert_eq!(model.take_maps(), all);
    slots.set_config(slot, 0x10, 0x1020_0000);
    assert_eq!(model.take_maps(), ["unmap 0+0x0 0x20000 at 0x10100000", "map 0+0x0 0x20000 at 0x10200000"], "moved");
    slots.set_config(slot, 4, 0);
    assert_eq!(model.take_maps().len(), 3, "all of it is gone");
    slots.set_config(slot, 4, 2);
    assert_eq!(model.take_maps().len(), 3);
    for elsewhere in [0x8000_0000, 0x3f00_0000, 0, 0x0ff0_0000, 0x2000_0000] {
        slots.set_config(slot, 0x10, elsewhere);
        model.take_maps().iter().for_each(|entry| assert!(entry.starts_with("unmap"), "{elsewhere:#x}: {entry}"));
    }
    slots.set_config(slot, 0x10, 0x1000_0000);
    slots.set_config(slot, 0x1c, 0);
    model.take_maps();
    slots.set_config(slot, 0x18, 0x1000_8000);
    assert_eq!(model.take_maps(), ["unmap 0+0x0 0x20000 at 0x10000000"], "two at one place are not mapped");
    assert_eq!(slots.read(Ipa(0x1000_8010)), model.register(0, 0x8010), "and the first answers");
}

#[test]
fn a_large_region_is_mapped_but_for_the_table_too() {
    let model = Model::new();
    let mut facts = Model::facts();
    facts.bars[1].size = 1 << 30;
    let (mut slots, slot) = (build(&model, facts, true).unwrap(), Slots::slot(1));
    slots.set_config(slot, 0x18, !0);
    slots.set_config(slot, 0x1c, !0);
    assert_eq!((slots.config(slot, 0x18), slots.config(slot, 0x1c)), (0xc000_0004, u32::MAX), "1 GiB");
    slots.set_config(slot, 0x18, 0x4000_0000);
    slots.set_config(slot, 0x1c, 4);
    slots.set_config(slot, 4, 6);
    assert_eq!(
        model.take_maps(),
        ["map 2+0x0 0x2000 at 0x440000000", "map 2+0x4000 0x3fffc000 at 0x440004000"],
        "all of it, but the pages of table and pending bits"
    );
    let table = Ipa(0x4_4000_2000);
    slots.write(table, 0x0808_0040);
    assert_eq!(slots.read(table), 0x0808_0040, "the table is the guest's");
}

#[test]
fn what_is_not_mapped_goes_on_to_the_function() {
    let model = Model::new();
    let mut slots = placed(&model);
    assert_eq!(slots.read(at(BAR_0, 0x14)), model.register(0, 0x14));
    slots.write(at(BAR_2, 0x2ffc), 7);
    assert_eq!(model.take_log().last().unwrap(), "store 2+0x2ffc 4 = 0x7", "beside the table");
    assert_eq!(slots.try_read(at(BAR_2, 0x2ff8), AccessSize::Byte), Ok(u64::from(model.register(2, 0x2ff8) & 0xff)));
    assert_eq!(slots.read(at(BAR_2, 0x3000)), model.register(2, 0x3000), "pending bits are read");
    model.take_log();
    slots.write(at(BAR_2, 0x3000), 7);
    assert!(model.take_log().is_empty(), "and not written");
}

#[test]
fn a_size_that_the_function_does_not_take_is_a_bus_error_of_the_guests() {
    let model = Model::new();
    let mut slots = placed(&model);
    let place = at(BAR_2, Model::WORDS_ONLY.1);
    assert_eq!(slots.try_read(place, AccessSize::Word), Ok(model.register(2, 0x2ff0).into()));
    assert_eq!(slots.try_write(place, AccessSize::Word, 1), Ok(()));
    for size in [AccessSize::Byte, AccessSize::Halfword, AccessSize::Doubleword] {
        assert_eq!(slots.try_read(place, size), Err(AccessFault::Bus), "{size:?}");
        assert_eq!(slots.try_write(place, size, 1), Err(AccessFault::Bus), "{size:?}");
    }
}

#[test]
fn the_table_is_the_guests_and_the_functions_is_the_hosts() {
    let model = Model::new();
    let mut slots = placed(&model);
    let slot = Slots::slot(1);
    assert_eq!(slots.config(slot, 0x70) >> 16, 2, "three vectors of five: no more reach the guest");
    assert_eq!((slots.config(slot, 0x74), slots.config(slot, 0x78)), (0x2002, 0x3002));
    model.take_log();
    let table = at(BAR_2, 0x2000);
    for (register, value) in [(0x10, 0x0808_0040), (0x14, 0), (0x18, 77)] {
        slots.write(at(table, register), value);
    }
    let masked = model.take_log();
    assert!(masked.iter().all(|entry| entry == "store 2+0x201c 4 = 0x1"), "masked at first: {masked:?}");
    slots.write(at(table, 0x1c), 0);
    assert_eq!(
        model.take_log(),
        [
            "message 1 to 0x8 0x8080040 0x4d",
            "store 2+0x201c 4 = 0x1",
            "store 2+0x2010 4 = 0x40",
            "store 2+0x2014 4 = 0x80",
            "store 2+0x2018 4 = 0x1",
            "store 2+0x201c 4 = 0x0",
        ],
        "its own target, and unmasked last"
    );
    assert_eq!((slots.read(at(table, 0x10)), slots.read(at(table, 0x18))), (0x0808_0040, 77), "it reads its own");
    slots.write(at(table, 0x1c), 1);
    assert_eq!(model.take_log(), ["store 2+0x201c 4 = 0x1"]);
    slots.set_config(slot, 0x70, 0xffff_ffff);
    assert_eq!(model.take_log(), ["config 0x72 = 0xc000"]);
    slots.write(at(table, 0x30), 7);
    assert_eq!((model.take_log().len(), slots.read(at(table, 0x30))), (0, 0), "a vector that it does not have");
    assert!(slots.try_read(table, AccessSize::Byte).is_err());
}

#[test]
fn msi_is_programmed_with_what_the_host_says() {
    let model = Model::new();
    let (mut slots, slot) = (slots(&model), Slots::slot(1));
    assert_eq!(slots.config(slot, 0xd0) >> 16, 0x0182, "two messages, of three at most; 64 bits, masks");
    for (register, value) in [(0xd4, 0x0808_0043), (0xd8, 0), (0xdc, 0x55)] {
        slots.set_config(slot, register, value);
    }
    model.take_log();
    slots.set_config(slot, 0xd0, 0x71_0000);
    assert_eq!(
        model.take_log(),
        [
            "config 0xd2 = 0x0",
            "message 0 to 0x8 0x8080040 0x54",
            "message 1 to 0x8 0x8080040 0x55",
            "config 0xd4 = 0x40",
            "config 0xd8 = 0x80",
            "config 0xdc = 0x0",
            "config 0xd2 = 0x11",
        ]
    );
    slots.set_config(slot, 0xe0, 2);
    assert_eq!(model.take_log(), ["config 0xe0 = 0x2"], "masks are the function's, which goes on sending meanwhile");
    slots.try_write(Slots::config_at(slot, 0xe1), AccessSize::Byte, 3).unwrap();
    assert_eq!(model.take_log(), ["config 0xe1 = 0x3"]);
    slots.set_config(slot, 0xe4, 2);
    assert!(model.take_log().is_empty(), "what is pending is not written");
    slots.set_config(slot, 0xd0, 0);
    assert_eq!(model.take_log(), ["config 0xd2 = 0x0"]);
}

#[test]
fn msi_without_64_bits_is_not_there() {
    for control in [0x06, 0x06 | 0x100] {
        let model = Model::new();
        model.set(0xd2, u8::try_from(control & 0xff).unwrap());
        model.set(0xd3, u8::try_from(control >> 8).unwrap());
        let (mut slots, slot) = (slots(&model), Slots::slot(1));
        assert_eq!(slots.config(slot, 0xc8) >> 8 & 0xff, 0x80, "from power to PCI Express");
        for register in (0xd0..0xd0 + if control & 0x100 == 0 { 0xc } else { 0x14 }).step_by(4) {
            assert_eq!(slots.config(slot, register), 0, "{register:#x}");
            slots.set_config(slot, register, !0);
        }
        assert!(model.take_log().is_empty(), "it cannot be told to send anything anywhere");
    }
}

#[test]
fn without_anybody_to_take_them_there_are_no_messages() {
    let model = Model::new();
    for (messages, has_messages) in [(3, false), (0, true)] {
        let facts = FunctionFacts { messages, ..Model::facts() };
        let (mut slots, slot) = (build(&model, facts, has_messages).unwrap(), Slots::slot(1));
        assert_eq!(slots.config(slot, 0xc8) & 0xffff, 0x8001, "from power to PCI Express");
        assert_eq!((slots.config(slot, 0x70), slots.config(slot, 0xd0), slots.config(slot, 0xd4)), (0, 0, 0));
        slots.set_config(slot, 0xd0, !0);
        slots.set_config(slot, 0x70, !0);
        assert!(model.take_log().is_empty());
    }
}

#[test]
fn the_pin_is_the_buss_and_ends_with_the_guest() {
    let model = Model::new();
    let mut slots = placed(&model);
    let (slot, line) = (Slots::slot(1), Slots::line_of(Slots::slot(1)));
    slots.wake(OWN, Wake::Backend);
    assert_eq!(
        (slots.lines.level(line), model.take_signals()),
        (false, alloc::vec![FunctionSignal::PinIdle]),
        "not it"
    );
    model.assert_pin(true);
    slots.wake(OWN, Wake::Backend);
    slots.wake(OWN, Wake::Backend);
    assert_eq!((slots.lines.level(line), model.take_signals().len()), (true, 0));
    assert_eq!(slots.config(slot, 4) >> 16 & 8, 8, "the status says so");
    slots.wake(OWN, Wake::InterruptEnded);
    assert_eq!(
        (slots.lines.level(line), model.take_signals()),
        (false, alloc::vec![FunctionSignal::PinEnded]),
        "it may come again"
    );
    slots.wake(OWN, Wake::InterruptEnded);
    assert!(model.take_signals().is_empty(), "another one's");
    slots.wake(OWN, Wake::Backend);
    slots.set_config(slot, 4, 0x406);
    assert_eq!((slots.lines.level(line), model.take_signals().len()), (false, 1), "disabled");
    slots.wake(OWN, Wake::Backend);
    assert!(!slots.lines.level(line));
    let signals = model.take_signals();
    assert_eq!(signals, [FunctionSignal::PinIdle], "it comes all the same, and the guest does not hear of it");
    slots.set_config(slot, 4, 6);
    slots.set_config(slot, 0x70, 0x8000_0000);
    slots.wake(OWN, Wake::Backend);
    assert!(!slots.lines.level(line), "messages are enabled");
}

#[test]
fn a_reset_is_the_hosts_to_do_and_takes_everything_back() {
    let model = Model::new();
    let mut slots = placed(&model);
    let slot = Slots::slot(1);
    slots.set_config(slot, 0x70, 0x8000_0000);
    slots.write(at(BAR_2, 0x200c), 0);
    model.take_log();
    slots.set_config(slot, 0x88, 0x8000);
    assert_eq!(model.take_signals(), [FunctionSignal::PinIdle, FunctionSignal::Reset]);
    assert!(slots.effects.takes_long());
    assert!(!model.take_log().iter().any(|entry| entry.starts_with("config 0x88")), "not by the guest's own store");
    assert_eq!((slots.config(slot, 0), slots.read(BAR_0)), (u32::MAX, u32::MAX), "meanwhile nobody is there");
    slots.set_config(slot, 4, 6);
    slots.write(BAR_0, 1);
    assert!(model.take_log().iter().all(|entry| entry.starts_with("unmap")), "and nobody reaches it");
    slots.wake(OWN, Wake::Pulse(0));
    assert_eq!((slots.config(slot, 0), slots.config(slot, 4) & 0xffff, slots.config(slot, 0x10)), (0x10d3_8086, 0, 0));
    assert_eq!(model.word(4) & 0xffff, 0x142);
    let log = model.take_log();
    assert!(log.contains(&String::from("config 0x72 = 0x0")) && log.contains(&String::from("store 2+0x204c 4 = 0x1")));
    slots.wake(OWN, Wake::Pulse(0));
    assert!(model.take_log().is_empty(), "once");
}

#[test]
fn until_its_reset_is_over_and_if_it_fails_nobody_looks_at_the_function() {
    let model = Model::new();
    let mut slots = placed(&model);
    let slot = Slots::slot(1);
    slots.set_config(slot, 0x88, 0x8000);
    model.take_log();
    // Whatever happens meanwhile, and whatever it would answer.
    model.assert_pin(true);
    slots.set_config(slot, 4, 6);
    slots.set_config(slot, 0x88, 0x8000);
    slots.wake(OWN, Wake::Backend);
    slots.wake(OWN, Wake::InterruptEnded);
    slots.control(OWN, Control::Terminate).unwrap();
    assert_eq!(
        (slots.config(slot, 4), slots.read(BAR_0), slots.read(at(BAR_2, 0x2000))),
        (u32::MAX, u32::MAX, u32::MAX)
    );
    assert!(model.take_log().is_empty() && model.maps().is_empty(), "it is left alone");
    assert!(!slots.lines.level(Slots::line_of(slot)));
}

#[test]
fn what_cannot_be_reset_does_not_say_so() {
    let model = Model::new();
    let facts = FunctionFacts { can_be_reset: false, ..Model::facts() };
    let (mut slots, slot) = (build(&model, facts, true).unwrap(), Slots::slot(1));
    assert_eq!(slots.config(slot, 0x84), 0x8000);
    slots.set_config(slot, 0x88, 0x8000);
    assert!(model.take_signals().is_empty());
    // The host can reset it, but with its bus: that is not the guest's to do at will.
    model.set(0x87, 0);
    let mut slots = self::slots(&model);
    assert_eq!(slots.config(slot, 0x84), 0x8000);
    for (at, size, value) in
        [(0x88, AccessSize::Word, 0x8000), (0x88, AccessSize::Halfword, 0x8000), (0x89, AccessSize::Byte, 0x80)]
    {
        slots.try_write(Slots::config_at(slot, at), size, value).unwrap();
        assert!(model.take_signals().is_empty());
    }
    assert_eq!(slots.config(slot, 0), 0x10d3_8086, "it is still there");
}

#[test]
fn a_function_without_room_or_with_nonsense_is_refused() {
    let model = Model::new();
    let mut facts = Model::facts();
    facts.bars[0].size = 1 << 29;
    let error = build(&model, facts, true).unwrap_err();
    let words = "BAR 0 of 0000:00:02.0 has 0x20000000 bytes, which no window of the guest's PCI bus has at a multiple of that \
                 (0x10000000-0x1fffffff)";
    assert!(error[0].message.starts_with(words), "{}", error[0].message);
    let mut facts = Model::facts();
    facts.bars[0].size = 1 << 28;
    facts.bars.push(vdev::FunctionBar { index: 4, size: 1 << 28, is_64_bit: false });
    let error = build(&model, facts, true).unwrap_err();
    assert!(error[0].message.contains("0000:00:02.0 of the machine: the windows"), "{}", error[0].message);
    let mut facts = Model::facts();
    facts.bars[0].size = 3;
    assert!(build(&model, facts, true).unwrap_err()[0].message.contains("its BAR 0 cannot be"));
    let error = Slots::new(&[(&FACTORY, &[])], true, &mut Wires::default()).unwrap_err();
    assert_eq!(error[0].message, "the machine has no function 0:2.0");
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_list_without_an_end_ends() {
    let model = Model::new();
    model.set(0xf1, 0xc8);
    assert_eq!(slots(&model).config(Slots::slot(1), 0x34) & 0xff, 0xc8);
    for next in 0..=255 {
        model.set(0x71, next);
        model.set(0x81, next ^ 0x55);
        let mut slots = slots(&model);
        let (mut next, mut count) = (slots.config(Slots::slot(1), 0x34) & 0xff, 0);
        while next != 0 {
            next = slots.config(Slots::slot(1), u16::try_from(next).unwrap()) >> 8 & 0xff;
            count += 1;
            assert!(count < 48);
        }
    }
}

#[test]
fn what_is_left_of_a_region_is_around_its_holes() {
    let parts = |without| open(0x8000, without).collect::<Vec<_>>();
    assert_eq!(parts([(0, 0); 2]), [(0, 0x8000)]);
    assert_eq!(parts([(0x3000, 0x4000), (0x1000, 0x2000)]), [(0, 0x1000), (0x2000, 0x1000), (0x4000, 0x4000)]);
    assert_eq!(parts([(0, 0x1000), (0, 0x1000)]), [(0x1000, 0x7000)]);
    assert_eq!(parts([(0, 0x4000), (0x1000, 0x2000)]), [(0x4000, 0x4000)]);
    assert_eq!(parts([(0, 0x8000), (0x7000, 0x8000)]), []);
    assert_eq!(parts([(0x7000, 0x9000), (0, 0)]), [(0, 0x7000)]);
}

#[test]
fn it_says_what_it_is() {
    let model = Model::new();
    let mut slots = placed(&model);
    let mut status = String::new();
    slots.control(OWN, Control::Status(&mut status)).unwrap();
    assert_eq!(status, "pass: 0000:00:02.0 of the machine, 8086:10d3, interrupts by its pin, bus master\n");
    assert_eq!(model.requesters(), Vec::<RequesterId>::new());
}
