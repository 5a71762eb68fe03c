//! Rules for devices on MMIO (virtio 1.3, 4.2).

use core::sync::atomic::{AtomicU64, Ordering};

use guest_rt::exceptions::{self, catch};
use guest_rt::gic::Gic;
use guest_rt::machine::machine;
use guest_rt::mmio::Width;
use guest_rt::registers::with_irq;
use guest_rt::timer;

use super::arena;
use super::driver::{Bench, DATA, ENTRIES, EVENT_IDX, IN, Kind, VERSION_1};
use super::registers;
use super::ring::Part;
use super::transport::{USED_BUFFER, register};
use super::{Case, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("mmio-offsets-of-nothing", Kind::Disk, offsets_of_nothing),
    Case::new("mmio-read-only-written", Kind::Disk, read_only_written),
    Case::new("mmio-write-only-read", Kind::Disk, write_only_read),
    Case::new("mmio-odd-widths", Kind::Disk, odd_widths),
    Case::new("mmio-configuration-widths", Kind::Disk, registers::configuration_widths),
    Case::new("mmio-features-unselected", Kind::Disk, features_unselected),
    Case::new("mmio-size-too-large", Kind::Disk, size_too_large),
    Case::new("mmio-moved-while-ready", Kind::Disk, registers::moved_while_enabled),
    Case::new("mmio-stopped-unread", Kind::Disk, stopped_unread),
    Case::new("mmio-acknowledged-undefined", Kind::Disk, acknowledged_undefined),
    Case::new("mmio-reset-unread", Kind::Disk, registers::reset_unread),
    Case::new("mmio-shared-memory-unexpected", Kind::Disk, shared_memory_unexpected),
    Case::new("mmio-never-acknowledged", Kind::Disk, never_acknowledged),
    Case::new("mmio-initialized-unasked", Kind::Disk, initialized_unasked),
];

/// What is at these offsets is written only, or read only.
const WRITE_ONLY: [usize; 14] = [
    register::DEVICE_FEATURES_SEL,
    register::DRIVER_FEATURES,
    register::DRIVER_FEATURES_SEL,
    register::QUEUE_SEL,
    register::QUEUE_SIZE,
    register::QUEUE_NOTIFY,
    register::INTERRUPT_ACK,
    register::QUEUE_DESC_LOW,
    register::QUEUE_DESC_LOW + 4,
    register::QUEUE_DRIVER_LOW,
    register::QUEUE_DRIVER_LOW + 4,
    register::QUEUE_DEVICE_LOW,
    register::QUEUE_DEVICE_LOW + 4,
    register::SHM_SEL,
];
const READ_ONLY: [usize; 12] = [
    register::MAGIC_VALUE,
    register::VERSION,
    register::DEVICE_ID,
    register::VENDOR_ID,
    register::DEVICE_FEATURES,
    register::QUEUE_SIZE_MAX,
    register::INTERRUPT_STATUS,
    register::SHM_LEN_LOW,
    register::SHM_LEN_LOW + 4,
    register::SHM_LEN_LOW + 8,
    register::SHM_LEN_LOW + 12,
    register::CONFIG_GENERATION,
];
const BOTH: [usize; 3] = [register::QUEUE_READY, register::STATUS, register::QUEUE_RESET];

fn offsets_of_nothing(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    let is_something = |offset| WRITE_ONLY.contains(&offset) || READ_ONLY.contains(&offset) || BOTH.contains(&offset);
    for offset in (0..register::CONFIG).step_by(4).filter(|offset| !is_something(*offset)) {
        catch(|| registers.read(offset));
        catch(|| registers.write(offset, u32::MAX));
        catch(|| registers.write(offset, 0));
    }
    bench.is_unharmed()
}

fn read_only_written(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    for offset in READ_ONLY {
        let before = registers.read(offset);
        for value in [0, 1, u32::MAX] {
            registers.write(offset, value);
        }
        let after = registers.read(offset);
        ensure(before == after, "a register is not what it was before it was written", offset as u64)?;
    }
    bench.is_unharmed()
}

fn write_only_read(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    for offset in WRITE_ONLY {
        let value = registers.read(offset);
        ensure(value == 0, "what is written only reads", value)?;
    }
    bench.is_unharmed()
}

fn odd_widths(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    for offset in 0..register::CONFIG {
        for width in Width::ALL {
            if width == Width::Word && offset % 4 == 0 {
                continue;
            }
            catch(|| registers.read_width(offset, width));
            for value in [0, u64::MAX] {
                catch(|| registers.write_width(offset, width, value));
            }
        }
    }
    bench.is_unharmed()
}

fn features_unselected(bench: &mut Bench<'_>) -> Verdict {
    // After a reset the first words are selected, whatever was before; a driver that relies on that is not one to rely on.
    let registers = bench.device.transport.registers();
    for word in [1, 2, u32::MAX] {
        bench.device.transport.accept(word, 0);
        let _ = bench.device.transport.offered(word);
        bench.device.reset()?;
        bench.device.transport.set_status(3);
        let offered = registers.read(register::DEVICE_FEATURES);
        registers.write(register::DRIVER_FEATURES, 0);
        ensure(offered & EVENT_IDX as u32 != 0, "the first word does not offer what it should", offered)?;
        bench.device.transport.accept(1, (VERSION_1 >> 32) as u32);
        bench.device.features = VERSION_1;
        bench.device.transport.set_status(11);
        bench.device.lay_all(ENTRIES);
        bench.device.go();
        bench.is_unharmed()?;
    }
    Ok(())
}

fn size_too_large(bench: &mut Bench<'_>) -> Verdict {
    bench.device.transport.select(0);
    let limit = bench.device.transport.limit();
    registers::sizes(bench, 0, &[2 * limit, 0x8000, 0x1_0000, limit | 0x1_0000, 1 << 31])
}

fn stopped_unread(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for _ in 0..20 {
        for _ in 0..5 {
            bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00)]);
        }
        bench.device.transport.set_ready(0);
        // Its memory is somebody else's at once.
        arena::clean();
        bench.device.linger();
        arena::check()?;
        bench.device.lay(0, ENTRIES);
        bench.device.enable(0);
    }
    bench.is_unharmed()
}

fn acknowledged_undefined(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    for events in [!3, u32::MAX, 1 << 31, 4, 0] {
        bench.works()?;
        registers.write(register::INTERRUPT_ACK, events);
    }
    let events = bench.device.transport.events();
    ensure(events & !3 == 0, "there are events that nobody has defined", events)?;
    bench.is_unharmed()
}

fn shared_memory_unexpected(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    for region in [0, 1, 255, u32::MAX] {
        registers.write(register::SHM_SEL, region);
        for offset in (register::SHM_LEN_LOW..register::SHM_LEN_LOW + 16).step_by(4) {
            let value = registers.read(offset);
            ensure(value == u32::MAX, "a region of shared memory that is not there has", value)?;
        }
    }
    bench.is_unharmed()
}

/// How often the interrupt has come that nobody acknowledges.
static COME: AtomicU64 = AtomicU64::new(0);
const ENOUGH: u64 = 1000;

fn ignore_device(intid: u32) {
    if COME.fetch_add(1, Ordering::Relaxed) >= ENOUGH {
        Gic::of(machine()).disable(intid);
    }
}

fn never_acknowledged(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let Some(intid) = bench.device.transport.interrupt() else { return Ok(()) };
    COME.store(0, Ordering::Relaxed);
    // SAFETY: interrupts are masked on this CPU, and no other runs.
    unsafe { exceptions::on_interrupt(ignore_device) };
    bench.device.request(IN, 0, &[Part::writable(DATA, 512)])?;
    let registers = bench.device.transport.registers();
    let events = registers.read(register::INTERRUPT_STATUS);
    ensure(events & USED_BUFFER != 0, "the device has raised no interrupt; its events are", events)?;
    let gic = Gic::of(bench.machine);
    gic.enable(intid);
    with_irq(|| timer::wait_until(100_000, || COME.load(Ordering::Relaxed) > ENOUGH));
    gic.disable(intid);
    // SAFETY: as above.
    unsafe { exceptions::on_interrupt(crate::ignore) };
    let come = COME.load(Ordering::Relaxed);
    ensure(come > ENOUGH, "an interrupt that is not acknowledged does not come again; it came", come)?;
    bench.is_unharmed()
}

fn initialized_unasked(bench: &mut Bench<'_>) -> Verdict {
    // Nothing of what identifies the device is read; the driver begins in the middle, on a device that is running.
    bench.start(0)?;
    bench.device.lay_all(ENTRIES);
    bench.device.go();
    bench.device.reset()?;
    bench.start(0)?;
    bench.is_unharmed()
}
