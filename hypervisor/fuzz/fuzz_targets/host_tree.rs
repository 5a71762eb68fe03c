//! The host's device tree: whatever firmware or a boot loader hands over, reading it ends with a machine or an error.

#![no_main]

use fuzz::changed;
use libfuzzer_sys::fuzz_target;
use machine::{Early, Machine, Tree};
use types::Pa;

const TREES: [&[u8]; 2] = [
    include_bytes!("../../machine/src/tests/trees/qemu-gicv2-1cpu.dtb"),
    include_bytes!("../../machine/src/tests/trees/qemu-gicv3-initrd.dtb"),
];

fuzz_target!(|data: &[u8]| {
    let blob = changed(&TREES, data);
    let early = Early::of(&blob);
    let _ = early.map(|tree| (tree.console(), tree.memory_at(Pa(0x4000_0000))));
    let machine = Machine::from_device_tree(&blob);
    // What early boot has validated is not validated again.
    let again = early.map(|tree| Tree::of(tree).and_then(|tree| tree.machine()));
    assert!(again.is_none_or(|again| again == machine));
    if let Ok(machine) = machine {
        assert!(!machine.cpus.is_empty() && !machine.memory.is_empty());
        assert!(machine.memory.iter().all(|bank| !bank.is_empty()));
        assert!(machine.memory.windows(2).all(|pair| pair[0].end() < pair[1].start()));
    } else if early.is_some() {
        assert!(machine::total_size(&blob).is_some());
    }
});
