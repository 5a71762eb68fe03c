//! Rules for packed virtqueues (virtio 1.3, 2.8).

use guest_rt::mmio::Width;

use super::arena::{self, buffer};
use super::driver::{
    Bench, DATA, ENTRIES, EVENT_IDX, HEADER, IN, INDIRECT_DESC, Kind, PACKET_HEADER, RECEIVE, RING_PACKED, STATUS,
    put_header,
};
use super::net::MRG_RXBUF;
use super::registers;
use super::ring::{INDIRECT, NEXT, Part, WRITE};
use super::transport::Area;
use super::{Case, Verdict};

pub(super) const CASES: &[Case] = &[
    Case::new("packed-misaligned-ring", Kind::Disk, |bench| misaligned(bench, Area::Descriptor, 16)),
    Case::new("packed-misaligned-driver-area", Kind::Disk, |bench| misaligned(bench, Area::Driver, 4)),
    Case::new("packed-misaligned-device-area", Kind::Disk, |bench| misaligned(bench, Area::Device, 4)),
    Case::new("packed-size-zero", Kind::Disk, size_zero),
    Case::new("packed-changed-before-used", Kind::Disk, changed_before_used),
    Case::new("packed-changed-after-available", Kind::Disk, changed_after_available),
    Case::new("packed-list-loops", Kind::Disk, list_loops),
    Case::new("packed-readable-behind-writable", Kind::Disk, readable_behind_writable),
    Case::new("packed-no-space", Kind::Net, no_space),
    Case::new("packed-first-before-rest", Kind::Disk, first_before_rest),
    Case::new("packed-indirect-unnegotiated", Kind::Disk, indirect_unnegotiated),
    Case::new("packed-indirect-flags", Kind::Disk, indirect_flags),
    Case::new("packed-indirect-too-long", Kind::Disk, indirect_too_long),
    Case::new("packed-indirect-in-list", Kind::Disk, indirect_in_list),
    Case::new("packed-indirect-odd-length", Kind::Disk, indirect_odd_length),
    Case::new("packed-wrap-counter-wrong", Kind::Disk, wrap_counter_wrong),
    Case::new("packed-reserved-flags", Kind::Disk, reserved_flags),
    Case::new("packed-same-identifier", Kind::Disk, same_identifier),
    Case::new("packed-event-anything", Kind::Disk, event_anything),
    Case::new("packed-flags-before-rest", Kind::Disk, flags_before_rest),
];

fn misaligned(bench: &mut Bench<'_>, area: Area, alignment: u64) -> Verdict {
    registers::misaligned(bench, RING_PACKED, area, alignment)
}

fn size_zero(bench: &mut Bench<'_>) -> Verdict {
    registers::sizes(bench, RING_PACKED, &[0])
}

fn header() -> Part {
    Part::readable(HEADER, 16)
}

/// An ordinary request as a list, of which one descriptor is another one.
fn offer_with(bench: &mut Bench<'_>, other: usize, part: Part, flags: u16) {
    put_header(IN, 0);
    let mut list = [(header(), NEXT), (Part::writable(DATA, 512), WRITE | NEXT), (Part::writable(STATUS, 1), WRITE)];
    list[other] = (part, flags);
    offer_list(bench, &list);
}

/// A list of these parts and flags, the first one last.
fn offer_list(bench: &mut Bench<'_>, list: &[(Part, u16)]) {
    let ring = &mut bench.device.rings[0];
    let (first, count) = (ring.next(), list.len() as u16);
    for (behind, (part, flags)) in (0..count).zip(list).rev() {
        ring.place((first + behind) % ring.size, part, count, flags | ring.packed_flags(behind));
    }
    ring.advance(count);
    bench.device.notify(0);
}

fn changed_before_used(bench: &mut Bench<'_>) -> Verdict {
    for round in 0..40_u32 {
        if round == 0 || bench.device.is_lost() {
            bench.start(RING_PACKED)?;
        }
        let first = bench.device.rings[0].next();
        bench.device.submit(IN, 0, &[Part::writable(DATA, 0xe00); 7]);
        guest_rt::timer::delay(u64::from(round % 20));
        let ring = &bench.device.rings[0];
        let part = match round % 3 {
            0 => Part::writable(buffer(8), 0xe00),
            1 => Part { address: 1 << 45, length: u32::MAX, is_writable: true },
            _ => Part::writable(buffer(8), 0),
        };
        ring.place((first + 1 + (round as u16 % 7)) % ENTRIES, &part, 0xffff, round as u16);
        // What the driver sees of its own doing is of no interest; the device goes on or has had enough.
        bench.device.linger();
        bench.device.reset()?;
        bench.start(RING_PACKED)?;
    }
    Ok(())
}

fn changed_after_available(bench: &mut Bench<'_>) -> Verdict {
    for round in 0..40_u16 {
        bench.start(RING_PACKED)?;
        let first = bench.device.rings[0].next();
        bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
        // Its flags over and over, available and used and neither.
        for flags in [0, 0x80, 0x8000, 0x8080, 0xffff, NEXT, INDIRECT, WRITE] {
            let at = bench.device.rings[0].at(Area::Descriptor, 16 * usize::from(first) + 14);
            arena::write(at, Width::Halfword, (flags ^ round).into());
            bench.device.notify(0);
        }
        bench.device.linger();
    }
    Ok(())
}

fn list_loops(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED)?;
    put_header(IN, 0);
    // Every descriptor of the ring has a next one.
    let ring = &mut bench.device.rings[0];
    for index in (0..ENTRIES).rev() {
        ring.place(index, &header(), 1, NEXT | ring.packed_flags(index));
    }
    bench.device.notify(0);
    bench.device.needs_reset()
}

fn readable_behind_writable(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED)?;
    offer_list(
        bench,
        &[(Part::writable(DATA, 16), WRITE | NEXT), (header(), NEXT), (Part::writable(STATUS, 1), WRITE)],
    );
    bench.device.needs_reset()
}

fn no_space(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED | MRG_RXBUF)?;
    for _ in 0..ENTRIES {
        bench.device.send(RECEIVE, &[Part::writable(DATA, PACKET_HEADER)]);
    }
    // The device takes all of them for a frame that does not fit into them, and keeps them until there are more.
    bench.other_sends(0x200)?;
    bench.device.is_quiet(RECEIVE)?;
    // More than there is space for is put over the first of them.
    let ring = &mut bench.device.rings[RECEIVE];
    for behind in (0..4).rev() {
        let next = if behind < 3 { NEXT } else { 0 };
        ring.place(behind, &Part::writable(DATA, PACKET_HEADER), 4, WRITE | next | ring.packed_flags(behind));
    }
    bench.device.notify(RECEIVE);
    bench.device.needs_reset()
}

fn first_before_rest(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED)?;
    put_header(IN, 0);
    // The first says that there are more, which the driver has not written yet: they are zero.
    let ring = &mut bench.device.rings[0];
    ring.place(0, &header(), 3, NEXT | ring.packed_flags(0));
    bench.device.notify(0);
    bench.device.linger();
    let ring = &mut bench.device.rings[0];
    ring.place(1, &Part::writable(DATA, 512), 3, WRITE | NEXT | ring.packed_flags(1));
    ring.place(2, &Part::writable(STATUS, 1), 3, WRITE | ring.packed_flags(2));
    bench.device.notify(0);
    bench.device.linger();
    Ok(())
}

/// Where a table of descriptors is.
const TABLE: usize = buffer(4);

/// An ordinary request as a table, in which every descriptor has these flags besides.
fn ordinary_table(flags: u16) -> Part {
    put_header(IN, 0);
    let parts = [header(), Part::writable(DATA, 512), Part::writable(STATUS, 1)];
    for (index, part) in parts.iter().enumerate() {
        table_entry(index, part, part.flags() | flags);
    }
    Part::readable(TABLE, 48)
}

/// A descriptor as packed queues have it (2.8.13).
fn table_entry(index: usize, part: &Part, flags: u16) {
    let at = TABLE + 16 * index;
    arena::write(at, Width::Doubleword, part.address);
    arena::write(at + 8, Width::Word, part.length.into());
    arena::write(at + 12, Width::Word, u64::from(flags) << 16);
}

fn indirect_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED)?;
    let table = ordinary_table(0);
    offer_list(bench, &[(table, INDIRECT)]);
    bench.device.needs_reset()
}

fn indirect_flags(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED | INDIRECT_DESC)?;
    // Others than the one that says who writes are reserved, and ignored (2.8.7).
    for flags in [NEXT, INDIRECT, 0x8080, 0xfffd] {
        let table = ordinary_table(flags);
        offer_list(bench, &[(table, INDIRECT)]);
        bench.device.wait(0)?;
    }
    bench.is_unharmed()
}

fn indirect_too_long(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED | INDIRECT_DESC)?;
    put_header(IN, 0);
    for index in 0..=usize::from(ENTRIES) {
        table_entry(index, &header(), 0);
    }
    offer_list(bench, &[(Part::readable(TABLE, 16 * (u32::from(ENTRIES) + 1)), INDIRECT)]);
    bench.device.needs_reset()
}

fn indirect_in_list(bench: &mut Bench<'_>) -> Verdict {
    for place in [0, 1, 2] {
        bench.start(RING_PACKED | INDIRECT_DESC)?;
        let table = ordinary_table(0);
        let next = if place == 2 { 0 } else { NEXT };
        offer_with(bench, place, table, INDIRECT | next);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn indirect_odd_length(bench: &mut Bench<'_>) -> Verdict {
    for length in [0, 1, 15, 17, 0x10_0000, u32::MAX] {
        bench.start(RING_PACKED | INDIRECT_DESC)?;
        let table = ordinary_table(0);
        offer_list(bench, &[(Part { length, ..table }, INDIRECT)]);
        bench.device.needs_reset()?;
    }
    Ok(())
}

fn wrap_counter_wrong(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED)?;
    put_header(IN, 0);
    // Both bits as in the lap before, both set, both clear: none of them is available.
    for bits in [0x8000, 0x8080, 0] {
        bench.device.rings[0].place(0, &header(), 1, bits);
        bench.device.notify(0);
        bench.device.linger();
    }
    arena::write(bench.device.rings[0].at(Area::Descriptor, 14), Width::Halfword, 0);
    bench.is_unharmed()
}

fn reserved_flags(bench: &mut Bench<'_>) -> Verdict {
    const RESERVED: u16 = 0x7f78;
    bench.start(RING_PACKED)?;
    offer_with(bench, 2, Part::writable(STATUS, 1), WRITE | RESERVED);
    bench.device.wait(0)?;
    bench.is_unharmed()
}

fn same_identifier(bench: &mut Bench<'_>) -> Verdict {
    bench.start(RING_PACKED)?;
    // A list's identifier is here how long it is.
    for _ in 0..5 {
        bench.device.submit(IN, 0, &[Part::writable(DATA, 512)]);
    }
    for _ in 0..5 {
        bench.device.wait(0)?;
    }
    bench.is_unharmed()
}

fn event_anything(bench: &mut Bench<'_>) -> Verdict {
    for features in [0, EVENT_IDX] {
        bench.start(RING_PACKED | features)?;
        for word in [0x0003_0000, 0xffff_ffff, 0x0002_7fff, 0x0002_ffff, 0xfffe_0010, 0x0001_0000] {
            let at = bench.device.rings[0].at(Area::Driver, 0);
            arena::write(at, Width::Word, word);
            bench.is_unharmed()?;
        }
    }
    Ok(())
}

fn flags_before_rest(bench: &mut Bench<'_>) -> Verdict {
    for round in 0..20 {
        bench.start(RING_PACKED)?;
        put_header(IN, 0);
        let ring = &mut bench.device.rings[0];
        let at = ring.at(Area::Descriptor, 0);
        // Available, and only then what it is that is available.
        arena::write(at + 14, Width::Halfword, (NEXT | ring.packed_flags(0)).into());
        bench.device.notify(0);
        guest_rt::timer::delay(round);
        arena::write(at, Width::Doubleword, 1 << 45);
        arena::write(at + 8, Width::Word, 16);
        bench.device.linger();
    }
    Ok(())
}
