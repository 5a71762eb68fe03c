//! QEMU's `virt` machine: everything is in its device tree.

#![no_std]
#![no_main]

static BOARD: kernel::Board = kernel::Board {
    name: "qemu-virt",
    factories: vdevs::CATALOGUE,
    console: Some(kernel::Pa(0x0900_0000)),
    entropy: None,
    reset: None,
    power_off: None,
};

kernel::entry!(BOARD);
