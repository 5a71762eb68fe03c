//! QEMU's `virt` machine: everything is in its device tree.

#![no_std]
#![no_main]

use kernel::{ConsoleKind, FirstConsole, Pa};

static BOARD: kernel::Board = kernel::Board {
    name: "qemu-virt",
    factories: vdevs::CATALOGUE,
    console: Some(FirstConsole { kind: ConsoleKind::Pl011, registers: Pa(0x0900_0000) }),
    devices: &[],
};

kernel::entry!(BOARD);
