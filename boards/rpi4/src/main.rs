//! The Raspberry Pi 4 with the firmware that it is sold with: no PSCI, so resetting and switching off are the board's.

#![no_std]
#![no_main]

use drivers::{bcm2711_emmc2, bcm2835_pm, iproc_rng200};
use kernel::{ConsoleKind, FirstConsole, Pa};

static BOARD: kernel::Board = kernel::Board {
    name: "rpi4",
    factories: vdevs::CATALOGUE,
    // The mini UART, which has pins 14 and 15 with `enable_uart=1`.
    console: Some(FirstConsole { kind: ConsoleKind::MiniUart, registers: Pa(0xfe21_5040) }),
    devices: &[&bcm2711_emmc2::DEVICE, &bcm2835_pm::DEVICE, &iproc_rng200::DEVICE],
};

kernel::entry!(BOARD);
