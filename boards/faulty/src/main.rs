//! QEMU's `virt` machine with one vdev more, `faulty`, which fails on command: what the tests of containment boot.

#![no_std]
#![no_main]

extern crate alloc;

mod faulty;

use vdevs::CATALOGUE;

/// The board's own factory behind those that every image has.
static FACTORIES: [&vdev::Factory; CATALOGUE.len() + 1] = {
    let mut all = [&faulty::FACTORY; CATALOGUE.len() + 1];
    let mut index = 0;
    while index < CATALOGUE.len() {
        all[index] = CATALOGUE[index];
        index += 1;
    }
    all
};

static BOARD: kernel::Board = kernel::Board {
    name: "faulty",
    factories: &FACTORIES,
    console: Some(kernel::Pa(0x0900_0000)),
    entropy: None,
    reset: None,
    power_off: None,
};

kernel::entry!(BOARD);
