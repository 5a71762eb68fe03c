//! QEMU's `virt` machine with four vdevs more: `alarm` and `hush`, the examples of the vdev guide, `faulty`, which
//! fails on command, and `restless`, which fails at the end.

#![no_std]
#![no_main]

extern crate alloc;

mod faulty;
mod restless;

use kernel::{ConsoleKind, FirstConsole, Pa};

static BOARD: kernel::Board = kernel::Board {
    name: "faulty",
    factories: kernel::factories!(
        vdevs::CATALOGUE,
        example::FACTORY,
        example::hush::FACTORY,
        faulty::FACTORY,
        restless::FACTORY
    ),
    console: Some(FirstConsole { kind: ConsoleKind::Pl011, registers: Pa(0x0900_0000) }),
    // With this the tests of containment can end on a Raspberry Pi as well.
    devices: &[&drivers::bcm2835_pm::DEVICE],
};

kernel::entry!(BOARD);
