//! Rules for all devices: status, features, configuration, resets, initialization (virtio 1.3, 2.1 to 2.6, 3, 6).

use guest_rt::exceptions::catch;
use guest_rt::mmio::Width;

use super::arena::{self, buffer};
use super::driver::{
    ACKNOWLEDGE, ALL_OK, Bench, DATA, DEVICE_NEEDS_RESET, DRIVER, DRIVER_OK, ENTRIES, FAILED, FEATURES_OK, IN, Kind,
    OUT, RING_RESET, STATUS, VERSION_1,
};
use super::ring::Part;
use super::transport::Area;
use super::{Case, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("status-bit-cleared", Kind::Disk, status_bit_cleared),
    Case::new("status-bit-of-the-device", Kind::Disk, status_bit_of_the_device),
    Case::new("failed-and-on", Kind::Disk, failed_and_on),
    Case::new("completion-after-needs-reset", Kind::Disk, completion_after_needs_reset),
    Case::new("feature-not-offered", Kind::Disk, feature_not_offered),
    Case::new("feature-without-another", Kind::Net, feature_without_another),
    Case::new("feature-reserved", Kind::Disk, feature_reserved),
    Case::new("feature-version-1-left", Kind::Disk, version_1_left),
    Case::new("configuration-beyond", Kind::Disk, configuration_beyond),
    Case::new("configuration-before-features", Kind::Console, configuration_before_features),
    Case::new("queue-reset-unnegotiated", Kind::Disk, queue_reset_unnegotiated),
    Case::new("queue-reset-unchecked", Kind::Disk, queue_reset_unchecked),
    Case::new("queue-reset-under-way", Kind::Disk, queue_reset_under_way),
    Case::new("queue-not-configured-again", Kind::Disk, queue_not_configured_again),
    Case::new("initialization-without-reset", Kind::Disk, without_reset),
    Case::new("initialization-out-of-order", Kind::Disk, out_of_order),
    Case::new("features-after-features-ok", Kind::Disk, features_after_features_ok),
    Case::new("refused-and-on", Kind::Disk, refused_and_on),
    Case::new("notified-before-driver-ok", Kind::Disk, notified_before_driver_ok),
    Case::new("queue-that-is-not-there", Kind::Disk, queue_that_is_not_there),
    Case::new("buffers-altered", Kind::Disk, buffers_altered),
    Case::new("buffers-removed", Kind::Disk, buffers_removed),
    Case::new("address-without-memory", Kind::Disk, address_without_memory),
    Case::new("address-of-a-device", Kind::Disk, address_of_a_device),
    Case::new("address-across-the-end", Kind::Disk, address_across_the_end),
    Case::new("queue-without-memory", Kind::Disk, queue_without_memory),
    Case::new("queue-upon-a-queue", Kind::Disk, queue_upon_a_queue),
];

fn status_bit_cleared(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for left in [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK, ALL_OK & !FEATURES_OK] {
        bench.device.transport.set_status(left);
        let status = bench.device.transport.status();
        ensure(status == ALL_OK, "a bit has gone; the status is", status)?;
    }
    bench.is_unharmed()
}

fn status_bit_of_the_device(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    bench.device.transport.set_status(ALL_OK | DEVICE_NEEDS_RESET | 0xffff_ff30);
    bench.is_unharmed()
}

fn failed_and_on(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    bench.device.transport.set_status(ALL_OK | FAILED);
    let status = bench.device.transport.status();
    ensure(status & FAILED != 0, "the bit is not there; the status is", status)?;
    bench.is_unharmed()?;
    // And initialized anew, without a reset.
    for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER, ALL_OK & !DRIVER_OK, ALL_OK] {
        bench.device.transport.set_status(status);
    }
    bench.is_unharmed()
}

fn completion_after_needs_reset(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    // A descriptor that is not there, then a request that is right.
    bench.device.rings[0].offer(ENTRIES);
    bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
    bench.device.needs_reset()?;
    let status = arena::read(STATUS, Width::Byte);
    ensure(status == 0xff, "a request has been done behind the mistake; its status is", status)
}

fn feature_not_offered(bench: &mut Bench<'_>) -> Verdict {
    let offered = bench.device.offered();
    for bit in (0..64).filter(|bit| offered & 1 << bit == 0) {
        let is_content = bench.device.propose(VERSION_1 | 1 << bit)?;
        ensure(!is_content, "the device agrees to what it does not offer: bit", bit as u64)?;
    }
    Ok(())
}

fn feature_without_another(bench: &mut Bench<'_>) -> Verdict {
    // HOST_TSO4, HOST_TSO6 want CSUM; GUEST_TSO4, GUEST_TSO6 want GUEST_CSUM; CTRL_RX wants CTRL_VQ (5.1.3.1).
    for bit in [11, 12, 7, 8, 18] {
        if bench.device.propose(VERSION_1 | 1 << bit)? {
            bench.device.lay_all(ENTRIES);
            bench.device.go();
            bench.is_unharmed()?;
        }
    }
    Ok(())
}

fn feature_reserved(bench: &mut Bench<'_>) -> Verdict {
    for word in [2, 3, 0x7fff_ffff, u32::MAX] {
        bench.device.reset()?;
        bench.device.transport.set_status(ACKNOWLEDGE | DRIVER);
        bench.device.accept(VERSION_1);
        bench.device.transport.accept(word, 1);
        bench.device.transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        let status = bench.device.transport.status();
        ensure(status & FEATURES_OK == 0, "the device agrees to features beyond all; the status is", status)?;
        let offered = bench.device.transport.offered(word);
        ensure(offered == 0, "the device offers features beyond all", offered)?;
    }
    Ok(())
}

fn version_1_left(bench: &mut Bench<'_>) -> Verdict {
    let is_content = bench.device.propose(0)?;
    ensure(!is_content, "the device agrees to a driver of no version", is_content)
}

fn configuration_beyond(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let configuration = bench.device.transport.configuration();
    // `writeback`, the fields of zoned devices, and on to the end of the registers and beyond.
    for offset in 32..0x100 {
        for width in Width::ALL {
            catch(|| configuration.read_width(offset, width));
            catch(|| configuration.write_width(offset, width, u64::MAX));
        }
    }
    bench.is_unharmed()
}

fn configuration_before_features(bench: &mut Bench<'_>) -> Verdict {
    bench.device.reset()?;
    let configuration = bench.device.transport.configuration();
    for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
        bench.device.transport.set_status(status);
        for offset in (0..16).filter(|offset| *offset < 8 || *offset >= 12) {
            catch(|| configuration.write_width(offset, Width::Byte, u64::MAX));
        }
    }
    bench.start(0)?;
    bench.is_unharmed()
}

fn queue_reset_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    bench.device.transport.select(0);
    bench.device.transport.reset_queue();
    let ready = bench.device.transport.ready();
    ensure(ready == 1, "the queue is not enabled any more", ready)?;
    bench.is_unharmed()
}

fn queue_reset_unchecked(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_RESET)?;
    for _ in 0..20 {
        bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
        bench.device.transport.select(0);
        bench.device.transport.reset_queue();
        // Used again at once, with the same memory.
        bench.device.lay(0, ENTRIES);
        bench.device.enable(0);
    }
    bench.is_unharmed()
}

fn queue_reset_under_way(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_RESET)?;
    for _ in 0..20 {
        // Eight requests are under way when their queue goes; their memory becomes somebody else's.
        for _ in 0..5 {
            bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00)]);
        }
        bench.device.transport.select(0);
        bench.device.transport.reset_queue();
        let is_resetting = bench.device.transport.is_resetting();
        ensure(!is_resetting, "the queue is not reset when the store is done", is_resetting)?;
        arena::clean();
        bench.device.linger();
        arena::check()?;
        bench.device.lay(0, ENTRIES);
        bench.device.enable(0);
    }
    bench.is_unharmed()
}

fn queue_not_configured_again(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_RESET)?;
    bench.device.transport.select(0);
    bench.device.transport.reset_queue();
    bench.device.enable(0);
    bench.device.notify(0);
    bench.device.needs_reset()
}

fn without_reset(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for _ in 0..3 {
        for status in [ACKNOWLEDGE, ACKNOWLEDGE | DRIVER] {
            bench.device.transport.set_status(status);
        }
        bench.device.accept(VERSION_1 | RING_RESET);
        bench.device.transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        bench.device.go();
        bench.is_unharmed()?;
    }
    Ok(())
}

fn out_of_order(bench: &mut Bench<'_>) -> Verdict {
    // Every order of four steps, features accepted at last or not at all.
    const STEPS: [u32; 4] = [ACKNOWLEDGE, DRIVER, FEATURES_OK, DRIVER_OK];
    for order in 0..256_usize {
        bench.device.reset()?;
        let mut status = 0;
        for step in 0..4 {
            status |= STEPS[order >> (2 * step) & 3];
            bench.device.transport.set_status(status);
        }
        let status = bench.device.transport.status();
        ensure(status & (FEATURES_OK | DRIVER_OK) == 0, "it has started without features; the status is", status)?;
    }
    // The ready bit first, of a driver that has its features and queues.
    bench.device.reset()?;
    bench.device.accept(VERSION_1);
    bench.device.features = VERSION_1;
    bench.device.lay_all(ENTRIES);
    bench.device.transport.set_status(DRIVER_OK);
    bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
    bench.device.is_quiet(0)
}

fn features_after_features_ok(bench: &mut Bench<'_>) -> Verdict {
    bench.device.negotiate(0)?;
    bench.device.accept(u64::MAX);
    bench.device.lay_all(ENTRIES);
    bench.device.accept(0);
    bench.device.go();
    bench.device.accept(u64::MAX);
    bench.is_unharmed()?;
    // Had they been accepted, an indirect descriptor would be one.
    bench.device.rings[0].describe(0, &Part::readable(DATA, 16), super::ring::INDIRECT, 0);
    bench.device.rings[0].offer(0);
    bench.device.notify(0);
    bench.device.needs_reset()
}

fn refused_and_on(bench: &mut Bench<'_>) -> Verdict {
    let is_content = bench.device.propose(VERSION_1 | 1 << 63)?;
    ensure(!is_content, "the device agrees to what it does not offer", is_content)?;
    bench.device.features = 0;
    bench.device.lay_all(ENTRIES);
    bench.device.go();
    let status = bench.device.transport.status();
    ensure(status & DRIVER_OK == 0, "the device starts all the same; the status is", status)?;
    bench.device.submit(OUT, 0, &[Part::readable(DATA, 512)]);
    bench.device.is_quiet(0)
}

fn notified_before_driver_ok(bench: &mut Bench<'_>) -> Verdict {
    bench.device.negotiate(0)?;
    bench.device.lay_all(ENTRIES);
    bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
    bench.device.is_quiet(0)?;
    bench.device.go();
    bench.device.wait(0)?;
    bench.is_unharmed()
}

fn queue_that_is_not_there(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for queue in [1, 16, 255, 0xffff, 0x1_0000, u32::MAX] {
        bench.device.transport.select(queue);
        let limit = bench.device.transport.limit();
        ensure(limit == 0, "a queue that is not there may have so many entries", limit)?;
        bench.device.transport.set_size(4);
        for area in Area::ALL {
            bench.device.transport.set_area(area, arena::address(DATA));
        }
        bench.device.transport.set_ready(1);
        let ready = bench.device.transport.ready();
        ensure(ready == 0, "a queue that is not there is enabled", ready)?;
        bench.device.transport.notify(queue);
    }
    bench.is_unharmed()
}

fn buffers_altered(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for round in 0..60_u32 {
        if bench.device.is_lost() {
            bench.start(0)?;
        }
        let first = bench.device.rings[0].next();
        bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00); 7]);
        // At another moment in each round: to where another buffer is, to where nothing is, longer, shorter, or readable.
        guest_rt::timer::delay(u64::from(round % 20));
        let elsewhere = Part::writable(buffer(8), 0xe00);
        let (part, flags) = match round % 5 {
            0 => (elsewhere, elsewhere.flags()),
            1 => (Part { address: 1 << 45, ..elsewhere }, elsewhere.flags()),
            2 => (Part { length: u32::MAX, address: 1 << 45, ..elsewhere }, elsewhere.flags()),
            3 => (Part { length: 1, ..elsewhere }, elsewhere.flags()),
            _ => (elsewhere, 0),
        };
        bench.device.rings[0].describe((first + 1 + (round as u16 % 7)) % ENTRIES, &part, flags, round as u16);
        let _ = bench.device.wait(0);
    }
    Ok(())
}

fn buffers_removed(bench: &mut Bench<'_>) -> Verdict {
    for round in 0..20 {
        bench.start(0)?;
        bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00); 7]);
        guest_rt::timer::delay(round);
        // The queue's memory is used for something else, without a reset; the device may go on using what it still is told of.
        let ring = bench.device.rings[0];
        arena::fill(ring.at(Area::Descriptor, 0)..ring.at(Area::Descriptor, 16 * usize::from(ENTRIES)), 0xa5);
        arena::fill(ring.at(Area::Driver, 0)..ring.at(Area::Driver, 6 + 2 * usize::from(ENTRIES)), 0xa5);
        bench.device.notify(0);
        bench.device.linger();
    }
    // What was asked for before that may have been done.
    while bench.device.rings[0].take().is_some() {}
    bench.device.needs_reset()
}

/// Requests whose data is at this address: the device reads, or writes.
fn data_at(bench: &mut Bench<'_>, address: u64, length: u32) -> Verdict {
    for is_writable in [true, false] {
        bench.start(0)?;
        let kind = if is_writable { IN } else { OUT };
        bench.device.submit(kind, 0, &[Part { address, length, is_writable }]);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn address_without_memory(bench: &mut Bench<'_>) -> Verdict {
    let memory = bench.machine.memory[0].clone();
    // Behind all memory, in front of it, at its last bytes, and where no address is.
    for address in [memory.end, memory.start - 512, memory.end - 256, 1 << 40, 1 << 55] {
        data_at(bench, address, 512)?;
    }
    Ok(())
}

fn address_of_a_device(bench: &mut Bench<'_>) -> Verdict {
    let uart = bench.machine.uart.as_ref().map_or(0, |(registers, _)| registers.start);
    let own = bench.device.transport.registers().address() as u64;
    for address in [bench.machine.distributor.start, uart, own] {
        data_at(bench, address, 512)?;
    }
    Ok(())
}

fn address_across_the_end(bench: &mut Bench<'_>) -> Verdict {
    for (address, length) in [(u64::MAX - 255, 512), (u64::MAX, 2), (1 << 63, u32::MAX)] {
        data_at(bench, address, length)?;
    }
    Ok(())
}

fn queue_without_memory(bench: &mut Bench<'_>) -> Verdict {
    let end = bench.machine.memory[0].end;
    for area in Area::ALL {
        for address in [end, bench.machine.distributor.start, 1 << 45, u64::MAX - 15] {
            bench.device.negotiate(0)?;
            bench.device.lay(0, ENTRIES);
            bench.device.transport.set_area(area, address);
            bench.device.enable(0);
            bench.device.go();
            bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
            bench.device.needs_reset()?;
        }
    }
    Ok(())
}

fn queue_upon_a_queue(bench: &mut Bench<'_>) -> Verdict {
    // The three parts on each other: what the device writes it takes for what the driver says.
    for (area, upon) in [(Area::Driver, Area::Device), (Area::Device, Area::Descriptor), (Area::Device, Area::Driver)] {
        bench.device.negotiate(0)?;
        bench.device.lay(0, ENTRIES);
        let ring = bench.device.rings[0];
        arena::offer(ring.at(upon, 0)..ring.at(upon, 6 + 8 * usize::from(ENTRIES)));
        bench.device.transport.set_area(area, ring.address(upon));
        bench.device.enable(0);
        bench.device.go();
        bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
        bench.device.linger();
        for _ in 0..10 {
            bench.device.notify(0);
        }
        bench.device.linger();
    }
    Ok(())
}
