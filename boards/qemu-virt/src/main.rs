//! QEMU's `virt` machine: everything is in its device tree.

#![no_std]
#![no_main]

static BOARD: kernel::Board =
    kernel::Board { name: "qemu-virt", factories: vdevs::CATALOGUE, reset: None, power_off: None };

kernel::entry!(BOARD);
