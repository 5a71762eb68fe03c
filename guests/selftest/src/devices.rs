//! Devices beside the console: a watchdog, a clock, a PC's UART, the alarm clock of the vdev guide. Whatever of them is not in the tree is skipped.
//!
//! ARM Watchdog Module (SP805) (DDI 0270), PrimeCell Real Time Clock (PL031) (DDI 0224), National Semiconductor PC16550D.

use guest_rt::gic::{self, DEFAULT_PRIORITY};
use guest_rt::machine::{Device, Machine};
use guest_rt::mmio::{Mmio, Width};
use guest_rt::tap::{Outcome, Test, Verdict};
use guest_rt::{check, check_equal, timer};

use crate::stage;

pub(crate) const TESTS: &[Test] = &[
    Test { name: "devices: the watchdog counts down, and interrupts at zero and not before", run: watchdog },
    Test { name: "devices: the clock's second is a second, and its match interrupts", run: clock },
    Test { name: "devices: a 16550A in its loop receives what it sends, with interrupts in order", run: serial },
    Test { name: "example: the alarm clock rings when it is time, and is silenced", run: alarm },
];

/// The registers of a device, and its interrupt.
fn found(device: &Option<Device>) -> Result<(Mmio, u32), Verdict> {
    match device {
        // SAFETY: the tree says that it is there.
        Some((registers, Some(intid))) => Ok((unsafe { Mmio::new(registers.start as usize) }, *intid)),
        _ => Err(Verdict::Skip("no such device")),
    }
}

/// PrimeCell identification: the part number, after a check of what all have in common.
fn part(device: Mmio) -> Result<u32, Verdict> {
    let bytes = [0, 4, 8, 12].map(|offset| device.read(0xfe0 + offset));
    let cell = [0, 4, 8, 12].map(|offset| device.read(0xff0 + offset));
    check_equal!(cell, [0x0d, 0xf0, 0x05, 0xb1], "PCellID");
    check_equal!((bytes[1] >> 4) | (bytes[2] & 0xf) << 4, 0x41, "designer");
    Ok(bytes[0] | (bytes[1] & 0xf) << 8)
}

/// Waits for the interrupt `intid` while `device` asserts it, has `cure` end that, and looks whether it has.
fn takes(machine: &Machine, intid: u32, microseconds: u64, cure: impl FnOnce()) -> Outcome {
    let gic = stage::clean_gic(machine);
    gic.set_edge(intid, false);
    gic.set_priority(intid, DEFAULT_PRIORITY);
    gic.enable(intid);
    let mut taken = None;
    timer::wait_until(microseconds, || {
        taken = gic::acknowledge();
        taken.is_some()
    });
    cure();
    if let Some(intid) = taken {
        gic::end(intid);
    }
    let again = gic::acknowledge();
    gic.disable(intid);
    stage::clean_gic(machine);
    check_equal!(taken, Some(intid), "acknowledged");
    check_equal!(again, None, "acknowledged when the line is low again");
    Ok(())
}

fn watchdog(machine: &'static Machine) -> Outcome {
    const LOAD: usize = 0x00;
    const VALUE: usize = 0x04;
    const CONTROL: usize = 0x08;
    const CLEAR: usize = 0x0c;
    const RAW: usize = 0x10;
    const LOCK: usize = 0xc00;
    let (device, intid) = found(&machine.watchdog)?;
    check_equal!(part(device)?, 0x805, "part number");
    device.write(LOCK, 0);
    device.write(LOAD, 1);
    check_equal!([device.read(LOCK), device.read(LOAD)], [1, u32::MAX], "WdogLock and WdogLoad, locked");
    device.write(LOCK, 0x1acc_e551);
    device.write(LOAD, 1_000_000_000);
    check_equal!(device.read(VALUE), 1_000_000_000, "WdogValue, disabled");
    // The interrupt alone: nobody is to be reset.
    device.write(CONTROL, 1);
    let first = device.read(VALUE);
    timer::delay(10_000);
    let second = device.read(VALUE);
    check!(second < first && first <= 1_000_000_000, "WdogValue goes from {first} to {second}");
    check_equal!(device.read(RAW), 0, "WdogRIS, before zero");
    device.write(LOAD, 100_000);
    takes(machine, intid, 5_000_000, || {
        device.write(CONTROL, 0);
        device.write(CLEAR, 1);
    })?;
    check_equal!(device.read(RAW), 0, "WdogRIS, cleared");
    Ok(())
}

fn clock(machine: &'static Machine) -> Outcome {
    const DATA: usize = 0x00;
    const MATCH: usize = 0x04;
    const MASK: usize = 0x10;
    const CLEAR: usize = 0x1c;
    let (device, intid) = found(&machine.clock)?;
    check_equal!(part(device)?, 0x031, "part number");
    let next = |from: u32| timer::wait_until(2_000_000, || device.read(DATA) != from);
    let begin = device.read(DATA);
    check!(next(begin), "the clock stands still");
    let start = timer::now();
    check!(next(begin + 1), "the clock stands still after a second");
    let lasted = (timer::now() - start) * 1000 / timer::frequency();
    check!((900..1500).contains(&lasted) || !machine.is_bulkhead, "a second lasts {lasted} ms");
    device.write(CLEAR, 1);
    device.write(MATCH, device.read(DATA) + 1);
    device.write(MASK, 1);
    takes(machine, intid, 5_000_000, || device.write(CLEAR, 1))?;
    device.write(MASK, 0);
    Ok(())
}

fn serial(machine: &'static Machine) -> Outcome {
    const DATA: usize = 0;
    const ENABLE: usize = 1;
    const IDENTIFICATION: usize = 2;
    const MODEM: usize = 4;
    const STATUS: usize = 5;
    let (device, intid) = found(&machine.serial)?;
    let read = |register| device.read_width(register, Width::Byte);
    let write = |register, value| device.write_width(register, Width::Byte, value);
    write(IDENTIFICATION, 7);
    write(MODEM, 0x10);
    check_equal!([read(STATUS), read(IDENTIFICATION)], [0x60, 0xc1], "LSR and IIR, empty");
    for byte in 0..16 {
        write(DATA, byte);
    }
    write(ENABLE, 1);
    check_equal!([read(STATUS), read(IDENTIFICATION)], [0x61, 0xc4], "LSR and IIR, with something to read");
    let mut received = 0;
    takes(machine, intid, 1_000_000, || {
        while read(STATUS) & 1 != 0 && received < 32 {
            received += u64::from(read(DATA) == received);
        }
    })?;
    check_equal!(received, 16, "bytes in order");
    write(ENABLE, 2);
    check_equal!([read(IDENTIFICATION), read(IDENTIFICATION)], [0xc2, 0xc1], "IIR, transmitter empty, twice");
    write(ENABLE, 0);
    write(MODEM, 0);
    Ok(())
}

fn alarm(machine: &'static Machine) -> Outcome {
    const TIME: usize = 0x0;
    const RINGS: usize = 0x4;
    let (device, intid) = found(&machine.alarm)?;
    device.write(TIME, 1_000_000);
    timer::delay(10_000);
    let left = device.read(TIME);
    check!(left > 900_000 && left < 1_000_000, "{left} ms are left of a million after 10");
    let start = timer::now();
    device.write(TIME, 200);
    takes(machine, intid, 5_000_000, || device.write(RINGS, 1))?;
    let waited = (timer::now() - start) * 1000 / timer::frequency();
    check!(waited >= 200, "it rings after {waited} ms");
    check_equal!([device.read(TIME), device.read(RINGS)], [0, 0], "TIME and RINGS, afterwards");
    Ok(())
}
