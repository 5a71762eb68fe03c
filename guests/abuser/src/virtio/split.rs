//! Rules for split virtqueues (virtio 1.3, 2.7).

use guest_rt::mmio::Width;

use super::arena::{self, buffer};
use super::driver::{Bench, DATA, ENTRIES, EVENT_IDX, HEADER, IN, INDIRECT_DESC, Kind, STATUS, put_header};
use super::registers;
use super::ring::{INDIRECT, MOST, NEXT, Part, WRITE, table_entry};
use super::transport::Area;
use super::{Case, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("split-misaligned-descriptors", Kind::Disk, |bench| misaligned(bench, Area::Descriptor, 16)),
    Case::new("split-misaligned-available-ring", Kind::Disk, |bench| misaligned(bench, Area::Driver, 2)),
    Case::new("split-misaligned-used-ring", Kind::Disk, |bench| misaligned(bench, Area::Device, 4)),
    Case::new("split-size-no-power-of-two", Kind::Disk, size_no_power_of_two),
    Case::new("split-readable-behind-writable", Kind::Disk, readable_behind_writable),
    Case::new("split-excessive-descriptors", Kind::Disk, excessive_descriptors),
    Case::new("split-chain-loops", Kind::Disk, chain_loops),
    Case::new("split-chain-beyond-4-gib", Kind::Disk, chain_beyond_4_gib),
    Case::new("split-next-beyond-table", Kind::Disk, next_beyond_table),
    Case::new("split-reserved-flags", Kind::Disk, reserved_flags),
    Case::new("split-indirect-unnegotiated", Kind::Disk, indirect_unnegotiated),
    Case::new("split-indirect-nested", Kind::Disk, indirect_nested),
    Case::new("split-indirect-too-long", Kind::Disk, indirect_too_long),
    Case::new("split-indirect-and-next", Kind::Disk, indirect_and_next),
    Case::new("split-indirect-odd-length", Kind::Disk, indirect_odd_length),
    Case::new("split-indirect-loops", Kind::Disk, indirect_loops),
    Case::new("split-indirect-without-memory", Kind::Disk, indirect_without_memory),
    Case::new("split-index-decremented", Kind::Disk, index_decremented),
    Case::new("split-index-too-far", Kind::Disk, index_too_far),
    Case::new("split-head-beyond-table", Kind::Disk, head_beyond_table),
    Case::new("split-head-offered-twice", Kind::Disk, head_offered_twice),
    Case::new("split-available-flags", Kind::Disk, |bench| available_flags(bench, 0)),
    Case::new("split-available-flags-with-indices", Kind::Disk, |bench| available_flags(bench, EVENT_IDX)),
    Case::new("split-used-event-anywhere", Kind::Disk, used_event_anywhere),
    Case::new("split-used-flags-uninitialized", Kind::Disk, used_flags_uninitialized),
    Case::new("split-notified-for-nothing", Kind::Disk, notified_for_nothing),
    Case::new("split-index-before-entry", Kind::Disk, index_before_entry),
];

fn misaligned(bench: &mut Bench<'_>, area: Area, alignment: u64) -> Verdict {
    registers::misaligned(bench, 0, area, alignment)
}

fn size_no_power_of_two(bench: &mut Bench<'_>) -> Verdict {
    registers::sizes(bench, 0, &[0, 3, 7, 9, 15, 17, 100, 255])
}

/// A chain of these descriptors from the first on: part, flags, next one.
fn offer_chain(bench: &mut Bench<'_>, descriptors: &[(Part, u16, u16)]) {
    put_header(IN, 0);
    let ring = &mut bench.device.rings[0];
    for (index, (part, flags, next)) in (0..).zip(descriptors) {
        ring.describe(index, part, *flags, *next);
    }
    ring.offer(0);
    bench.device.notify(0);
}

fn header() -> Part {
    Part::readable(HEADER, 16)
}

fn readable_behind_writable(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let (data, status) = (Part::writable(DATA, 512), Part::writable(STATUS, 1));
    offer_chain(bench, &[(data, WRITE | NEXT, 1), (header(), NEXT, 2), (status, WRITE, 0)]);
    bench.device.needs_reset()
}

fn excessive_descriptors(bench: &mut Bench<'_>) -> Verdict {
    bench.device.negotiate(0)?;
    bench.device.lay_all(MOST);
    bench.device.go();
    put_header(IN, 0);
    // A descriptor for each byte, and some for none.
    let ring = &mut bench.device.rings[0];
    for index in 0..16 {
        ring.describe(index, &Part::readable(HEADER + usize::from(index), 1), NEXT, index + 1);
    }
    for index in 16..MOST {
        let length = if index % 3 == 0 { 0 } else { 1 };
        let flags = if index == MOST - 1 { WRITE } else { WRITE | NEXT };
        ring.describe(
            index,
            &Part::writable(DATA + usize::from(index), length.max(u32::from(index == MOST - 1))),
            flags,
            index + 1,
        );
    }
    ring.offer(0);
    bench.device.notify(0);
    bench.device.wait(0)?;
    bench.is_unharmed()
}

fn chain_loops(bench: &mut Bench<'_>) -> Verdict {
    // Upon the first, upon itself, and upon the one before it.
    for (first, second) in [(1, 0), (0, 0), (1, 1)] {
        bench.start(0)?;
        let empty = Part::readable(HEADER, 0);
        offer_chain(bench, &[(header(), NEXT, first), (empty, NEXT, second)]);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn chain_beyond_4_gib(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let long = Part { address: 0, length: u32::MAX, is_writable: true };
    offer_chain(bench, &[(header(), NEXT, 1), (long, WRITE | NEXT, 2), (long, WRITE | NEXT, 3), (long, WRITE, 0)]);
    bench.device.needs_reset()
}

fn next_beyond_table(bench: &mut Bench<'_>) -> Verdict {
    for next in [ENTRIES, ENTRIES + 1, 0x7fff, 0xffff] {
        bench.start(0)?;
        offer_chain(bench, &[(header(), NEXT, next)]);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn reserved_flags(bench: &mut Bench<'_>) -> Verdict {
    const RESERVED: u16 = 0xfff8;
    bench.start(0)?;
    let (data, status) = (Part::writable(DATA, 512), Part::writable(STATUS, 1));
    offer_chain(
        bench,
        &[(header(), NEXT | RESERVED, 1), (data, WRITE | NEXT | RESERVED, 2), (status, WRITE | RESERVED, 0)],
    );
    bench.device.wait(0)?;
    bench.is_unharmed()
}

/// Where a table of descriptors is.
const TABLE: usize = buffer(4);

/// An ordinary request as a table.
fn ordinary_table() {
    put_header(IN, 0);
    table_entry(TABLE, &header(), NEXT, 1);
    table_entry(TABLE + 16, &Part::writable(DATA, 512), WRITE | NEXT, 2);
    table_entry(TABLE + 32, &Part::writable(STATUS, 1), WRITE, 0);
}

fn table(length: u32) -> Part {
    Part::readable(TABLE, length)
}

fn indirect_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    ordinary_table();
    offer_chain(bench, &[(table(48), INDIRECT, 0)]);
    bench.device.needs_reset()
}

fn indirect_nested(bench: &mut Bench<'_>) -> Verdict {
    bench.start(INDIRECT_DESC)?;
    ordinary_table();
    table_entry(TABLE + 16, &table(48), INDIRECT, 0);
    offer_chain(bench, &[(table(48), INDIRECT, 0)]);
    bench.device.needs_reset()
}

fn indirect_too_long(bench: &mut Bench<'_>) -> Verdict {
    bench.start(INDIRECT_DESC)?;
    put_header(IN, 0);
    let count = ENTRIES + 1;
    for index in 0..count {
        let flags = if index + 1 == count { 0 } else { NEXT };
        table_entry(TABLE + 16 * usize::from(index), &header(), flags, index + 1);
    }
    offer_chain(bench, &[(table(16 * u32::from(count)), INDIRECT, 0)]);
    bench.device.needs_reset()
}

fn indirect_and_next(bench: &mut Bench<'_>) -> Verdict {
    bench.start(INDIRECT_DESC)?;
    ordinary_table();
    offer_chain(bench, &[(table(48), INDIRECT | NEXT, 1), (Part::writable(STATUS, 1), WRITE, 0)]);
    bench.device.needs_reset()
}

fn indirect_odd_length(bench: &mut Bench<'_>) -> Verdict {
    for length in [0, 1, 15, 17, 47, 0x10_0000, u32::MAX] {
        bench.start(INDIRECT_DESC)?;
        ordinary_table();
        offer_chain(bench, &[(table(length), INDIRECT, 0)]);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn indirect_loops(bench: &mut Bench<'_>) -> Verdict {
    for (index, next) in [(1, 0), (1, 1), (1, 3), (2, 0xffff)] {
        bench.start(INDIRECT_DESC)?;
        ordinary_table();
        table_entry(TABLE + 16 * index, &Part::writable(DATA, 0), WRITE | NEXT, next);
        table_entry(TABLE, &Part::writable(DATA, 0), WRITE | NEXT, 1);
        offer_chain(bench, &[(table(48), INDIRECT, 0)]);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn indirect_without_memory(bench: &mut Bench<'_>) -> Verdict {
    for address in [bench.machine.memory[0].end, bench.machine.distributor.start, u64::MAX - 15] {
        bench.start(INDIRECT_DESC)?;
        offer_chain(bench, &[(Part { address, length: 48, is_writable: false }, INDIRECT, 0)]);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn index_decremented(bench: &mut Bench<'_>) -> Verdict {
    for back in [1, 2, ENTRIES] {
        bench.start(0)?;
        for _ in 0..3 {
            bench.works()?;
        }
        let ring = &bench.device.rings[0];
        ring.set_index(ring.index().wrapping_sub(back));
        bench.device.notify(0);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn index_too_far(bench: &mut Bench<'_>) -> Verdict {
    for far in [ENTRIES + 1, 2 * ENTRIES, 0x7fff, 0xffff] {
        bench.start(0)?;
        bench.device.rings[0].set_index(far);
        bench.device.notify(0);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn head_beyond_table(bench: &mut Bench<'_>) -> Verdict {
    for head in [ENTRIES, ENTRIES + 1, 0x7fff, 0xffff] {
        bench.start(0)?;
        bench.device.rings[0].offer(head);
        bench.device.notify(0);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn head_offered_twice(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    put_header(IN, 0);
    let (data, status) = (Part::writable(DATA, 512), Part::writable(STATUS, 1));
    let ring = &mut bench.device.rings[0];
    for (index, part, flags, next) in [(0, header(), NEXT, 1), (1, data, WRITE | NEXT, 2), (2, status, WRITE, 0)] {
        ring.describe(index, &part, flags, next);
    }
    for _ in 0..ENTRIES {
        ring.offer_silently(0);
    }
    ring.set_index(ring.index());
    bench.device.notify(0);
    for _ in 0..ENTRIES {
        bench.device.wait(0)?;
    }
    bench.is_unharmed()
}

fn available_flags(bench: &mut Bench<'_>, features: u64) -> Verdict {
    bench.start(features)?;
    for flags in [2, 3, 0x8000, 0xfffe, 0xffff, 1] {
        let flags_at = bench.device.rings[0].at(Area::Driver, 0);
        arena::write(flags_at, Width::Halfword, flags);
        bench.is_unharmed()?;
    }
    Ok(())
}

fn used_event_anywhere(bench: &mut Bench<'_>) -> Verdict {
    bench.start(EVENT_IDX)?;
    for event in [0xffff, 0x8000, 1, ENTRIES, 0, 0x7fff] {
        let event_at = bench.device.rings[0].at(Area::Driver, 4 + 2 * usize::from(ENTRIES));
        arena::write(event_at, Width::Halfword, event.into());
        bench.is_unharmed()?;
    }
    Ok(())
}

fn used_flags_uninitialized(bench: &mut Bench<'_>) -> Verdict {
    bench.device.negotiate(0)?;
    bench.device.lay(0, ENTRIES);
    let ring = bench.device.rings[0];
    // But for the index, of which the driver itself would be misled.
    arena::fill(ring.at(Area::Device, 0)..ring.at(Area::Device, 2), 0xa5);
    arena::fill(ring.at(Area::Device, 4)..ring.at(Area::Device, 6 + 8 * usize::from(ENTRIES)), 0xa5);
    bench.device.enable(0);
    bench.device.go();
    bench.is_unharmed()
}

fn notified_for_nothing(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for _ in 0..2000 {
        bench.device.notify(0);
    }
    bench.device.is_quiet(0)?;
    bench.is_unharmed()
}

fn index_before_entry(bench: &mut Bench<'_>) -> Verdict {
    for round in 0..20 {
        if round == 0 || bench.device.is_lost() {
            bench.start(0)?;
        }
        put_header(IN, 0);
        let ring = &mut bench.device.rings[0];
        // The device is told of a chain that is not there yet.
        ring.describe(0, &Part { address: 1 << 45, length: 16, is_writable: false }, NEXT, 1);
        let ahead = ring.index().wrapping_add(1);
        ring.set_index(ahead);
        bench.device.notify(0);
        guest_rt::timer::delay(round);
        let ring = &mut bench.device.rings[0];
        ring.describe(0, &header(), NEXT, 1);
        ring.describe(1, &Part::writable(DATA, 512), WRITE | NEXT, 2);
        ring.describe(2, &Part::writable(STATUS, 1), WRITE, 0);
        ring.offer(0);
        bench.device.linger();
    }
    let status = bench.device.transport.status();
    ensure(status != 0, "the device has forgotten its driver; the status is", status)
}
