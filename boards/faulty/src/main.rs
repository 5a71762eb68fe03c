//! QEMU's `virt` machine with one vdev more, `faulty`, which fails on command: what the tests of containment boot.

#![no_std]
#![no_main]

extern crate alloc;

mod faulty;

static BOARD: kernel::Board = kernel::Board {
    name: "faulty",
    factories: vdev::factories!(vdevs::CATALOGUE, faulty::FACTORY),
    console: Some(kernel::Pa(0x0900_0000)),
    entropy: None,
    reset: None,
    power_off: None,
};

kernel::entry!(BOARD);
