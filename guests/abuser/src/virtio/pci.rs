//! Rules for devices on the PCI bus (virtio 1.3, 4.1), and what a driver can do to any function there.

use guest_rt::exceptions::catch;
use guest_rt::mmio::Width;

use super::arena;
use super::driver::{ALL_OK, Bench, DATA, ENTRIES, IN, Kind};
use super::function::{BARS, BUS_MASTER, COMMAND, MEMORY, OnPci, field};
use super::registers;
use super::ring::Part;
use super::{Case, Complaint, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("pci-capabilities-written", Kind::Disk, capabilities_written),
    Case::new("pci-read-only-written", Kind::Disk, read_only_written),
    Case::new("pci-size-too-large", Kind::Disk, size_too_large),
    Case::new("pci-configured-after-enabled", Kind::Disk, configured_after_enabled),
    Case::new("pci-moved-while-enabled", Kind::Disk, registers::moved_while_enabled),
    Case::new("pci-disabled-by-zero", Kind::Disk, disabled_by_zero),
    Case::new("pci-status-unread", Kind::Disk, status_unread),
    Case::new("pci-reset-unread", Kind::Disk, registers::reset_unread),
    Case::new("pci-odd-widths", Kind::Disk, odd_widths),
    Case::new("pci-configuration-widths", Kind::Disk, registers::configuration_widths),
    Case::new("pci-notification-widths", Kind::Disk, notification_widths),
    Case::new("pci-notification-of-nothing", Kind::Disk, notification_of_nothing),
    Case::new("pci-access-misaligned", Kind::Disk, access_misaligned),
    Case::new("pci-access-outside", Kind::Disk, access_outside),
    Case::new("pci-memory-off", Kind::Disk, memory_off),
    Case::new("pci-bus-master-off", Kind::Disk, bus_master_off),
    Case::new("pci-region-moved", Kind::Disk, region_moved),
    Case::new("pci-region-upon-another", Kind::Net, region_upon_another),
    Case::new("pci-region-outside", Kind::Disk, region_outside),
    Case::new("pci-space-scribbled", Kind::Disk, space_scribbled),
];

pub(super) fn function<'a>(bench: &Bench<'a>) -> Result<&'a OnPci, Complaint> {
    bench.device.transport.function().ok_or(Complaint { what: "the device is not on a PCI bus", found: 0 })
}

fn capabilities_written(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    for at in &function.structures {
        for word in (*at..*at + 16).step_by(4) {
            let before = function.space.read(word);
            for value in [0, u32::MAX, 0x0500_0001] {
                function.space.write(word, value);
            }
            let after = function.space.read(word);
            ensure(after == before, "a capability is not what it was before it was written", word as u64)?;
        }
    }
    bench.is_unharmed()
}

fn read_only_written(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    let (byte, half, word) = (Width::Byte, Width::Halfword, Width::Word);
    for (field, width) in [
        (field::DEVICE_FEATURE, word),
        (field::NUM_QUEUES, half),
        (field::CONFIG_GENERATION, byte),
        (field::QUEUE_NOTIFY_OFF, half),
        (field::QUEUE_NOTIF_CONFIG_DATA, half),
    ] {
        let before = registers.read_width(field, width);
        for value in [0, 1, u64::MAX] {
            registers.write_width(field, width, value);
        }
        let after = registers.read_width(field, width);
        ensure(before == after, "a field is not what it was before it was written", field as u64)?;
    }
    bench.is_unharmed()
}

fn size_too_large(bench: &mut Bench<'_>) -> Verdict {
    // Until something else is said it is the largest that there can be.
    bench.device.reset()?;
    bench.device.transport.select(0);
    let limit = bench.device.transport.limit();
    registers::sizes(bench, 0, &[2 * limit, 0x8000])
}

fn configured_after_enabled(bench: &mut Bench<'_>) -> Verdict {
    bench.device.negotiate(0)?;
    bench.device.enable(0);
    bench.device.lay(0, ENTRIES);
    bench.device.go();
    bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
    // The queue is where it was when it was enabled: at 0, where no memory is.
    bench.device.needs_reset()
}

fn disabled_by_zero(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    bench.device.transport.select(0);
    for value in [0, 2, 0xffff] {
        bench.device.transport.set_ready(value);
        let ready = bench.device.transport.ready();
        ensure(ready == 1, "the queue is not enabled any more", ready)?;
    }
    bench.is_unharmed()
}

fn status_unread(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for _ in 0..20 {
        bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00)]);
        // A reset, and on without a look.
        for status in [0, 1, 3] {
            bench.device.transport.set_status(status);
        }
        bench.device.accept(super::driver::VERSION_1);
        bench.device.transport.set_status(11);
        bench.device.lay_all(ENTRIES);
        bench.device.go();
    }
    bench.is_unharmed()
}

fn odd_widths(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let registers = bench.device.transport.registers();
    // No field of two bytes or fewer is at an odd place, so that none of these is one that a driver might make; behind the fields too.
    for (offset, width) in (0..0x100).flat_map(|offset| Width::ALL.map(|width| (offset, width))) {
        catch(|| registers.read_width(offset, width));
        if offset % 2 == 1 && offset != field::CONFIG_GENERATION || offset >= field::END {
            catch(|| registers.write_width(offset, width, u64::MAX));
        }
    }
    for offset in (0..field::DEVICE_STATUS).step_by(4) {
        catch(|| registers.write_width(offset, Width::Byte, 0xff));
    }
    bench.is_unharmed()
}

fn notification_widths(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let notifications = function(bench)?.notifications;
    for (offset, width) in (0..16).flat_map(|offset| Width::ALL.map(|width| (offset, width))) {
        for value in [0, 1, u64::MAX] {
            catch(|| notifications.write_width(offset, width, value));
        }
        catch(|| notifications.read_width(offset, width));
    }
    bench.is_unharmed()
}

fn notification_of_nothing(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let notifications = function(bench)?.notifications;
    for offset in (0..0x1000).step_by(2) {
        catch(|| notifications.write_width(offset, Width::Halfword, 0xffff));
    }
    bench.is_unharmed()
}

/// An access by the capability (4.1.4.9): which BAR, where, how many bytes; read or written.
fn access(function: &OnPci, bar: u64, offset: u32, length: u32, value: Option<u32>) -> u32 {
    let (space, at) = (function.space, function.access);
    space.write_width(at + 4, Width::Byte, bar);
    space.write(at + 8, offset);
    space.write(at + 12, length);
    if let Some(value) = value {
        space.write(at + 16, value);
    }
    space.read(at + 16)
}

fn access_misaligned(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    // As it should be, once: the status.
    let status = access(function, 0, field::DEVICE_STATUS as u32, 1, None) & 0xff;
    ensure(status == ALL_OK, "by the capability the status reads", status)?;
    for (offset, length) in [(1, 2), (1, 4), (2, 4), (3, 4), (3, 2), (0x13, 2), (0x15, 4), (0x3a, 4)] {
        access(function, 0, offset, length, None);
        access(function, 0, offset, length, Some(0));
    }
    bench.is_unharmed()
}

fn access_outside(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    let bytes = function.bar().bytes as u32;
    let odd = [0, 3, 5, 8, 16, 0x8000_0000, u32::MAX].map(|length| (0, 0, length));
    let beyond = [bytes, bytes - 1, bytes - 2, 0x8000_0000, u32::MAX, u32::MAX - 3].map(|offset| (0, offset, 4));
    let others = [1, 2, 5, 6, 7, 0xff].map(|bar| (bar, 0x14, 1));
    for (bar, offset, length) in odd.into_iter().chain(beyond).chain(others) {
        access(function, bar, offset, length, None);
        access(function, bar, offset, length, Some(0));
    }
    bench.is_unharmed()
}

fn memory_off(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00)]);
    function.command(BUS_MASTER);
    let registers = bench.device.transport.registers();
    let (value, _) = catch(|| registers.read(field::DEVICE_FEATURE));
    ensure(value == u32::MAX, "a region that is switched off reads", value)?;
    catch(|| registers.write_width(field::DEVICE_STATUS, Width::Byte, 0));
    function.command(MEMORY | BUS_MASTER);
    let _ = bench.device.wait(0);
    bench.is_unharmed()
}

fn bus_master_off(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    function.command(MEMORY);
    bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00)]);
    // It reaches no memory (PCI, 6.2.2), and has forgotten nothing when it may again.
    bench.device.is_quiet(0)?;
    function.command(MEMORY | BUS_MASTER);
    bench.device.wait(0)?;
    bench.is_unharmed()
}

fn region_moved(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    let bar = function.bar();
    for step in 1..20 {
        bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00)]);
        function.move_bar(bar, bar.at + 0x10_0000 * step);
        let registers = bench.device.transport.registers();
        let (value, _) = catch(|| registers.read(field::DEVICE_FEATURE));
        ensure(value == u32::MAX, "where nobody is any more reads", value)?;
        // As regions are measured.
        function.move_bar(bar, u32::MAX.into());
        function.move_bar(bar, bar.at);
        bench.device.wait(0)?;
    }
    bench.is_unharmed()
}

fn region_upon_another(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    let other = bench.other.as_ref().and_then(|other| other.transport.function());
    let other = other.ok_or(Complaint { what: "there is no other function", found: 0 })?;
    bench.start(0)?;
    bench.works()?;
    // Both where the one is, and both where the other one is; whoever answers, it is one of them.
    for (first, second) in [(function.bar().at, function.bar().at), (other.bar().at, other.bar().at)] {
        function.move_bar(function.bar(), first);
        other.move_bar(other.bar(), second);
        let (status, _) = catch(|| bench.device.transport.status());
        ensure(status <= 0xff, "where two are reads", status)?;
        function.move_bar(function.bar(), function.bar().at);
        other.move_bar(other.bar(), other.bar().at);
        bench.is_unharmed()?;
    }
    Ok(())
}

fn region_outside(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    let (memory, uart) = (bench.machine.memory[0].start, bench.machine.uart.as_ref().map_or(0, |(uart, _)| uart.start));
    let space = function.space.address() as u64;
    for at in
        [memory, arena::address(0) & !0xffff, uart & !0xffff, bench.machine.distributor.start, space, 0, 0xffff_0000]
    {
        function.move_bar(function.bar(), at);
        // The memory is as it was, and so is what is at other places.
        arena::check()?;
        let identity = function.space.read(0) & 0xffff;
        ensure(identity == 0x1af4, "the configuration space begins with", identity)?;
    }
    function.move_bar(function.bar(), function.bar().at);
    bench.is_unharmed()
}

fn space_scribbled(bench: &mut Bench<'_>) -> Verdict {
    let function = function(bench)?;
    bench.start(0)?;
    for value in [u64::MAX, 0, 0x5555_5555_5555_5555] {
        for (offset, width) in
            (0..0x1000).flat_map(|offset| [Width::Byte, Width::Halfword, Width::Word].map(|width| (offset, width)))
        {
            // But for what the driver itself still needs to know of where it is.
            if !(COMMAND..COMMAND + 2).contains(&offset) && !(BARS - 3..BARS + 24).contains(&offset) {
                catch(|| function.space.write_width(offset, width, value));
            }
            catch(|| function.space.read_width(offset, width));
        }
        // The access capability may have reached the device: it is still one.
        function.restore();
        bench.device.reset()?;
        bench.start(0)?;
        bench.works()?;
    }
    Ok(())
}
