//! The host's device tree: whatever firmware or a boot loader hands over, reading it ends with a machine or an error.

#![no_main]

use fuzz::changed;
use libfuzzer_sys::fuzz_target;
use machine::{Machine, early_console, first_memory, memory_at};
use types::Pa;

const TREES: [&[u8]; 2] = [
    include_bytes!("../../machine/src/tests/trees/qemu-gicv2-1cpu.dtb"),
    include_bytes!("../../machine/src/tests/trees/qemu-gicv3-initrd.dtb"),
];

fuzz_target!(|data: &[u8]| {
    let blob = changed(&TREES, data);
    let early = (early_console(&blob), first_memory(&blob), memory_at(&blob, Pa(0x4000_0000)));
    if let Ok(machine) = Machine::from_device_tree(&blob) {
        assert!(!machine.cpus.is_empty() && !machine.memory.is_empty());
        assert!(machine.memory.iter().all(|bank| !bank.is_empty()));
        assert!(machine.memory.windows(2).all(|pair| pair[0].end() < pair[1].start()));
    } else if early.0.is_some() || early.1.is_some() {
        assert!(machine::total_size(&blob).is_some());
    }
});
