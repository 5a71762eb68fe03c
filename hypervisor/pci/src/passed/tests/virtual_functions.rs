//! A physical function whose virtual ones are the host's: what its guest finds of them, and that it changes nothing of them.

use super::model::Model;
use super::{OWN, build, slots};
use crate::testkit::Slots;
use alloc::string::String;
use alloc::sync::Arc;
use types::{AccessSize, Ipa};
use vdev::{Control, FunctionFacts, Wake};

/// Where the guest has it: behind the serial number.
const SRIOV: u16 = 0x110;
const CONTROL: u16 = SRIOV + 0x08;
const NUMBER: u16 = SRIOV + 0x10;
const PAGE_SIZE: u16 = SRIOV + 0x20;

pub(super) fn facts() -> FunctionFacts {
    FunctionFacts { virtual_functions: 2, ..Model::facts() }
}

fn physical(model: &Arc<Model>) -> Slots {
    build(model, facts(), true).unwrap()
}

/// The extended capabilities: IDs with versions, and where they are.
fn list(slots: &mut Slots) -> alloc::vec::Vec<(u32, u32)> {
    let mut list = alloc::vec::Vec::new();
    let mut at = 0x100;
    while at != 0 {
        let header = slots.config(Slots::slot(1), u16::try_from(at).unwrap());
        list.push((header & 0xf_ffff, at));
        at = header >> 20;
    }
    list
}

/// As the driver core of a guest does that has functions on: how many, and then that they are there.
fn enable(slots: &mut Slots, count: u32) {
    slots.set_config(Slots::slot(1), NUMBER, count);
    slots.set_config(Slots::slot(1), CONTROL, 0x9);
}

#[test]
fn the_guest_finds_how_many_there_are_and_that_none_is_on_its_bus() {
    let model = Model::new();
    let (mut slots, slot) = (physical(&model), Slots::slot(1));
    assert_eq!(list(&mut slots), [(0x1_0003, 0x100), (0x1_0010, u32::from(SRIOV))]);
    assert_eq!(slots.config(slot, 0x104), 0x1122_3344, "the serial number is as it was");
    assert_eq!(slots.config(slot, SRIOV + 4), 1, "VF Migration Capable, and nothing else");
    assert_eq!(slots.config(slot, CONTROL), 0, "off, whatever the host's own is");
    assert_eq!(slots.config(slot, SRIOV + 0xc), 0x0002_0000, "two in all, and none at first");
    assert_eq!(slots.config(slot, NUMBER), 0, "and the dependency link is function 0, which it is");
    assert_eq!(slots.config(slot, SRIOV + 0x14), 0x0001_0001, "neither offset nor stride is zero");
    assert_eq!(slots.config(slot, SRIOV + 0x18), 0x10ca_0000, "of that kind");
    assert_eq!((slots.config(slot, SRIOV + 0x1c), slots.config(slot, PAGE_SIZE)), (0x553, 1), "page sizes");
    for register in (SRIOV + 0x24..=SRIOV + 0x40).step_by(4) {
        assert_eq!(slots.config(slot, register), 0, "no regions, and nothing behind: {register:#x}");
    }
    let at = |offset| Slots::config_at(slot, SRIOV + offset);
    assert_eq!(slots.try_read(at(0x1a), AccessSize::Halfword), Ok(0x10ca));
    assert_eq!(slots.try_read(at(0x0e), AccessSize::Byte), Ok(2));
    assert!(slots.try_read(at(0x08), AccessSize::Doubleword).is_err(), "a dword at most");
}

#[test]
fn without_virtual_functions_there_is_no_such_capability() {
    let model = Model::new();
    assert_eq!(list(&mut slots(&model)), [(0x1_0003, 0x100)]);
    // The kernel says that there are some, and the function knows nothing of it.
    model.set(0x180, 0x11);
    assert_eq!(list(&mut physical(&model)), [(0x1_0003, 0x100)]);
}

#[test]
fn it_is_the_first_where_there_is_no_serial_number() {
    let model = Model::new();
    model.set(0x140, 4);
    let (mut slots, slot) = (physical(&model), Slots::slot(1));
    assert_eq!(list(&mut slots), [(0x1_0010, 0x100)]);
    slots.set_config(slot, 0x110, 2);
    assert_eq!((slots.config(slot, 0x10c), slots.config(slot, 0x110)), (0x0002_0000, 2));
}

#[test]
fn a_driver_that_has_them_on_reads_what_it_has_written_and_the_function_hears_nothing() {
    let model = Model::new();
    let (mut slots, slot) = (physical(&model), Slots::slot(1));
    slots.set_config(slot, PAGE_SIZE, 0x10);
    enable(&mut slots, 2);
    assert_eq!((slots.config(slot, NUMBER), slots.config(slot, CONTROL)), (2, 9));
    assert_eq!(slots.config(slot, PAGE_SIZE), 0x10);
    let mut status = String::new();
    slots.control(OWN, Control::Status(&mut status)).unwrap();
    assert!(status.ends_with(", serves 2 virtual functions\n"), "{status}");
    slots.set_config(slot, CONTROL, 0);
    slots.set_config(slot, NUMBER, 1);
    assert_eq!((slots.config(slot, NUMBER), slots.config(slot, CONTROL)), (1, 0));
    assert!(model.take_log().is_empty());
}

#[test]
fn too_many_are_not_taken_nor_others_while_they_are_on() {
    let model = Model::new();
    let (mut slots, slot) = (physical(&model), Slots::slot(1));
    slots.set_config(slot, NUMBER, 1);
    for count in [3, 8, 0x100, 0xffff, u32::MAX] {
        slots.set_config(slot, NUMBER, count);
        assert_eq!(slots.config(slot, NUMBER), 1, "{count}");
    }
    slots.set_config(slot, CONTROL, 1);
    slots.set_config(slot, NUMBER, 2);
    slots.set_config(slot, PAGE_SIZE, 2);
    assert_eq!((slots.config(slot, NUMBER), slots.config(slot, PAGE_SIZE)), (1, 1));
    let at = |offset| Slots::config_at(slot, SRIOV + offset);
    slots.set_config(slot, CONTROL, 0);
    slots.try_write(at(0x11), AccessSize::Byte, 1).unwrap();
    assert_eq!(slots.config(slot, NUMBER), 1, "257");
    slots.try_write(at(0x10), AccessSize::Byte, 2).unwrap();
    assert_eq!(slots.config(slot, NUMBER), 2);
    for page_size in [0, 3, 4, 0x553, u32::MAX] {
        slots.set_config(slot, PAGE_SIZE, page_size);
        assert_eq!(slots.config(slot, PAGE_SIZE), 1, "{page_size:#x}");
    }
    assert!(model.take_log().is_empty());
}

#[test]
fn nothing_else_is_written_and_the_virtual_functions_are_not_moved() {
    let model = Model::new();
    let (mut slots, slot) = (physical(&model), Slots::slot(1));
    let before: alloc::vec::Vec<u32> = (0x100..0x200).step_by(4).map(|at| slots.config(slot, at)).collect();
    for register in (0x100..0x200).step_by(4).filter(|at| ![CONTROL, NUMBER, PAGE_SIZE].contains(at)) {
        slots.set_config(slot, register, 0x1030_0000);
        slots.set_config(slot, register, !0);
    }
    let after: alloc::vec::Vec<u32> = (0x100..0x200).step_by(4).map(|at| slots.config(slot, at)).collect();
    assert_eq!(before, after);
    slots.set_config(slot, CONTROL, !0);
    assert_eq!(slots.config(slot, CONTROL), 9, "no migration, no interrupts for it, no ARI");
    assert!(model.take_log().is_empty());
    assert_eq!(model.words(0x180, 16), Model::new().words(0x180, 16));
}

#[test]
fn after_a_reset_they_are_off_for_the_guest() {
    let model = Model::new();
    let (mut slots, slot) = (physical(&model), Slots::slot(1));
    slots.set_config(slot, PAGE_SIZE, 2);
    enable(&mut slots, 2);
    slots.set_config(slot, 0x88, 0x8000);
    assert_eq!(slots.config(slot, NUMBER), u32::MAX, "nobody is there");
    slots.set_config(slot, NUMBER, 1);
    slots.wake(OWN, Wake::Pulse(0));
    let found = [NUMBER, CONTROL, PAGE_SIZE, SRIOV + 0xc].map(|at| slots.config(slot, at));
    assert_eq!(found, [0, 0, 1, 0x0002_0000]);
}

#[test]
#[cfg_attr(miri, ignore = "takes Miri long, and there is no unsafe code in it")]
fn a_list_of_express_without_an_end_ends() {
    let model = Model::new();
    for (next_low, next_high) in (0..=255).step_by(16).flat_map(|low| (0..=255).step_by(5).map(move |high| (low, high)))
    {
        // Of the first entry; of the one with the serial number, which leads back.
        model.set(0x102, next_low | 1);
        model.set(0x103, next_high);
        model.set(0x140, 4);
        model.set(0x143, 0x10);
        let _ = list(&mut physical(&model));
    }
    // It begins in the last words of all, and has no room there.
    let model = Model::new();
    model.set(0x102, 0xc1);
    model.set(0x103, 0xff);
    model.set(0xffc, 0x10);
    model.set(0xffe, 1);
    assert_eq!(slots(&model).config(Slots::slot(1), 0x100), 0);
    assert_eq!(physical(&model).config(Slots::slot(1), 0x100), 0);
}

/// A virtual function, which has no pin, whose physical one has been reset by who has that.
#[test]
fn a_reset_that_the_guest_has_not_asked_for_is_undone() {
    let model = Model::new();
    let virtual_ = FunctionFacts { has_pin: false, ..Model::facts() };
    let (mut slots, slot) = (build(&model, virtual_, true).unwrap(), Slots::slot(1));
    slots.set_config(slot, 0x1c, 4);
    slots.set_config(slot, 4, 6);
    let table = Ipa(0x4_0000_2000);
    for (register, value) in [(0x10, 0x0808_0040), (0x18, 77), (0x1c, 0)] {
        slots.write(Ipa(table.0 + register), value);
    }
    slots.set_config(slot, 0x70, 0x8000_0000);
    assert_eq!((model.word(4) & 0xffff, model.word(0x70) >> 16), (0x546, 0x8000));
    [(0x04, 0), (0x05, 0), (0x73, 0)].into_iter().for_each(|(at, byte)| model.set(at, byte));
    model.take_log();
    slots.wake(OWN, Wake::Backend);
    let log = model.take_log();
    let of_vector = [
        "message 1 to 0x8 0x8080040 0x4d",
        "store 2+0x201c 4 = 0x1",
        "store 2+0x2010 4 = 0x40",
        "store 2+0x2014 4 = 0x80",
        "store 2+0x2018 4 = 0x1",
        "store 2+0x201c 4 = 0x0",
        "store 2+0x202c 4 = 0x1",
    ];
    assert!(log.windows(of_vector.len()).any(|part| part == of_vector), "vector 1 as it was, others masked: {log:?}");
    assert!(
        log.contains(&String::from("store 2+0x200c 4 = 0x1")) && log.contains(&String::from("store 2+0x204c 4 = 0x1"))
    );
    assert_eq!((model.word(4) & 0xffff, model.word(0x70) >> 16), (0x406, 0x8000), "master, and messages are on");
    assert_eq!(
        (slots.config(slot, 4) & 0xffff, slots.read(Ipa(table.0 + 0x18))),
        (6, 77),
        "the guest's own is as it was"
    );
    // While the guest's own reset is under way it is left alone.
    slots.set_config(slot, 0x88, 0x8000);
    model.take_log();
    slots.wake(OWN, Wake::Backend);
    assert!(model.take_log().is_empty());
}
