//! A machine of which nothing is known but its device tree.

#![no_std]
#![no_main]

static BOARD: kernel::Board =
    kernel::Board { name: "generic", factories: vdevs::CATALOGUE, console: None, devices: &[] };

kernel::entry!(BOARD);
