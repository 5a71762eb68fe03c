//! Rules for block devices (virtio 1.3, 5.2).

use guest_rt::mmio::Width;

use super::arena;
use super::driver::{Bench, DATA, HEADER, IN, Kind, OUT, STATUS};
use super::ring::Part;
use super::{Case, Complaint, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("blk-beyond-capacity", Kind::Disk, beyond_capacity),
    Case::new("blk-sector-overflows", Kind::Disk, sector_overflows),
    Case::new("blk-no-whole-sectors", Kind::Disk, no_whole_sectors),
    Case::new("blk-flush-of-a-sector", Kind::Disk, flush_of_a_sector),
    Case::new("blk-get-id-length", Kind::Disk, get_id_length),
    Case::new("blk-no-whole-segments", Kind::Disk, no_whole_segments),
    Case::new("blk-too-many-segments", Kind::Disk, too_many_segments),
    Case::new("blk-segment-too-long", Kind::Disk, segment_too_long),
    Case::new("blk-unmap-of-discard", Kind::Disk, unmap_of_discard),
    Case::new("blk-request-unnegotiated", Kind::Disk, request_unnegotiated),
    Case::new("blk-writeback-read-early", Kind::Disk, writeback_read_early),
    Case::new("blk-written-read-only", Kind::ReadOnlyDisk, written_read_only),
    Case::new("blk-no-status", Kind::Disk, no_status),
    Case::new("blk-no-header", Kind::Disk, no_header),
    Case::new("blk-data-of-the-wrong-kind", Kind::Disk, data_of_the_wrong_kind),
];

/// `VIRTIO_BLK_F_RO`, `VIRTIO_BLK_F_DISCARD`, `VIRTIO_BLK_F_WRITE_ZEROES`.
pub(super) const RO: u32 = 1 << 5;
const DISCARD: u64 = 1 << 13;
const WRITE_ZEROES: u64 = 1 << 14;

/// Types (5.2.6), and what a status says.
const T_FLUSH: u32 = 4;
const T_GET_ID: u32 = 8;
const T_GET_LIFETIME: u32 = 10;
const T_DISCARD: u32 = 11;
const T_WRITE_ZEROES: u32 = 13;
const T_SECURE_ERASE: u32 = 14;
const T_ZONE_APPEND: u32 = 15;
const S_OK: u64 = 0;
const S_IOERR: u64 = 1;
const S_UNSUPP: u64 = 2;

fn is(status: Result<u64, Complaint>, wanted: u64) -> Verdict {
    let status = status?;
    ensure(status == wanted, "the status of the request", status)
}

fn readable(length: u32) -> [Part; 1] {
    [Part::readable(DATA, length)]
}

fn writable(length: u32) -> [Part; 1] {
    [Part::writable(DATA, length)]
}

/// In sectors.
fn capacity(bench: &Bench<'_>) -> u64 {
    let configuration = bench.device.transport.configuration();
    u64::from(configuration.read(0)) | u64::from(configuration.read(4)) << 32
}

fn beyond_capacity(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let capacity = capacity(bench);
    for sector in [capacity, capacity + 1, capacity - 1] {
        is(bench.device.request(IN, sector, &writable(1024)), S_IOERR)?;
        is(bench.device.request(OUT, sector, &readable(1024)), S_IOERR)?;
    }
    bench.is_unharmed()
}

fn sector_overflows(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for sector in [u64::MAX, u64::MAX >> 9, (u64::MAX >> 9) + 1, 1 << 63, u64::MAX - 7] {
        is(bench.device.request(IN, sector, &writable(512)), S_IOERR)?;
        is(bench.device.request(OUT, sector, &readable(512)), S_IOERR)?;
    }
    bench.is_unharmed()
}

fn no_whole_sectors(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for length in [1, 511, 513, 700] {
        is(bench.device.request(IN, 0, &writable(length)), S_IOERR)?;
        is(bench.device.request(OUT, 0, &readable(length)), S_IOERR)?;
    }
    bench.is_unharmed()
}

fn flush_of_a_sector(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for sector in [1, u64::MAX] {
        is(bench.device.request(T_FLUSH, sector, &[]), S_OK)?;
        is(bench.device.request(T_FLUSH, sector, &readable(512)), S_OK)?;
        is(bench.device.request(T_FLUSH, sector, &writable(512)), S_OK)?;
    }
    bench.is_unharmed()
}

fn get_id_length(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for length in [1, 19, 21, 512] {
        let status = bench.device.request(T_GET_ID, 0, &writable(length))?;
        ensure(status <= S_UNSUPP, "the status of the request", status)?;
    }
    let status = bench.device.request(T_GET_ID, 0, &readable(20))?;
    ensure(status <= S_UNSUPP, "the status of the request", status)?;
    bench.is_unharmed()
}

/// Segments of that many sectors, behind one another in [`DATA`].
fn put_segments(count: u32, sectors: u32, flags: u32) {
    for at in (DATA..).step_by(16).take(count as usize + 1) {
        arena::write(at, Width::Doubleword, 0);
        arena::write(at + 8, Width::Doubleword, u64::from(sectors) | u64::from(flags) << 32);
    }
}

fn no_whole_segments(bench: &mut Bench<'_>) -> Verdict {
    bench.start(DISCARD | WRITE_ZEROES)?;
    put_segments(2, 1, 0);
    for (kind, length) in
        [T_DISCARD, T_WRITE_ZEROES].into_iter().flat_map(|kind| [1, 15, 17, 31].map(|length| (kind, length)))
    {
        is(bench.device.request(kind, 0, &readable(length)), S_IOERR)?;
    }
    is(bench.device.request(T_DISCARD, 0, &[]), S_IOERR)?;
    bench.is_unharmed()
}

fn too_many_segments(bench: &mut Bench<'_>) -> Verdict {
    bench.start(DISCARD | WRITE_ZEROES)?;
    for count in [2, 3, 64] {
        put_segments(count, 1, 0);
        is(bench.device.request(T_DISCARD, 0, &readable(16 * count)), S_IOERR)?;
        is(bench.device.request(T_WRITE_ZEROES, 0, &readable(16 * count)), S_IOERR)?;
    }
    bench.is_unharmed()
}

fn segment_too_long(bench: &mut Bench<'_>) -> Verdict {
    bench.start(DISCARD | WRITE_ZEROES)?;
    // Further than the disk, than a segment may be, and than numbers go.
    let beyond = capacity(bench) as u32 + 1;
    for sectors in [beyond, 0x1_0000, u32::MAX] {
        put_segments(1, sectors, 0);
        is(bench.device.request(T_DISCARD, 0, &readable(16)), S_IOERR)?;
        is(bench.device.request(T_WRITE_ZEROES, 0, &readable(16)), S_IOERR)?;
    }
    put_segments(1, 1, 0);
    arena::write(DATA, Width::Doubleword, u64::MAX);
    is(bench.device.request(T_WRITE_ZEROES, 0, &readable(16)), S_IOERR)?;
    bench.is_unharmed()
}

fn unmap_of_discard(bench: &mut Bench<'_>) -> Verdict {
    bench.start(DISCARD | WRITE_ZEROES)?;
    put_segments(1, 1, 1);
    is(bench.device.request(T_DISCARD, 0, &readable(16)), S_UNSUPP)?;
    for flags in [2, u32::MAX] {
        put_segments(1, 1, flags);
        is(bench.device.request(T_DISCARD, 0, &readable(16)), S_UNSUPP)?;
        is(bench.device.request(T_WRITE_ZEROES, 0, &readable(16)), S_UNSUPP)?;
    }
    bench.is_unharmed()
}

fn request_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for kind in [2, 3, 5, T_GET_LIFETIME, T_SECURE_ERASE, T_ZONE_APPEND, 0x8000_0000, u32::MAX] {
        is(bench.device.request(kind, 0, &readable(16)), S_UNSUPP)?;
        is(bench.device.request(kind, 0, &writable(16)), S_UNSUPP)?;
    }
    // Offered, and not accepted: a device may do these.
    for kind in [T_DISCARD, T_WRITE_ZEROES] {
        put_segments(1, 1, 0);
        let status = bench.device.request(kind, 0, &readable(16))?;
        ensure(status <= S_UNSUPP, "the status of the request", status)?;
    }
    bench.is_unharmed()
}

fn writeback_read_early(bench: &mut Bench<'_>) -> Verdict {
    const WRITEBACK: usize = 32;
    bench.device.reset()?;
    let configuration = bench.device.transport.configuration();
    for status in [0, 1, 3] {
        bench.device.transport.set_status(status);
        let _ = configuration.read_width(WRITEBACK, Width::Byte);
        configuration.write_width(WRITEBACK, Width::Byte, 1);
    }
    bench.start(0)?;
    bench.is_unharmed()
}

fn written_read_only(bench: &mut Bench<'_>) -> Verdict {
    // Accepted or not, that does not make it writable.
    for features in [0, u64::from(RO)] {
        bench.start(features)?;
        arena::fill(DATA..DATA + 512, 0);
        is(bench.device.request(OUT, 0, &readable(512)), S_IOERR)?;
        put_segments(1, 1, 0);
        for kind in [T_DISCARD, T_WRITE_ZEROES] {
            let status = bench.device.request(kind, 0, &readable(16))?;
            ensure(status == S_IOERR || status == S_UNSUPP, "the status of the request", status)?;
        }
        bench.is_unharmed()?;
    }
    Ok(())
}

fn no_status(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    super::driver::put_header(IN, 0);
    bench.device.send(0, &[Part::readable(HEADER, 16)]);
    let written = bench.device.wait(0)?;
    ensure(written == 0, "it has written where nothing is writable: bytes", written)?;
    super::driver::put_header(OUT, 0);
    bench.device.send(0, &[Part::readable(HEADER, 16), Part::readable(DATA, 512)]);
    bench.device.wait(0)?;
    bench.is_unharmed()
}

fn no_header(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    for length in [0, 1, 8, 15] {
        super::driver::put_header(IN, 0);
        bench.device.send(0, &[Part::readable(HEADER, length), Part::writable(DATA, 512), Part::writable(STATUS, 1)]);
        bench.device.wait(0)?;
        let status = arena::read(STATUS, Width::Byte);
        ensure(status == S_IOERR, "the status of the request", status)?;
    }
    bench.device.send(0, &[Part::writable(STATUS, 1)]);
    bench.device.wait(0)?;
    bench.is_unharmed()
}

fn data_of_the_wrong_kind(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    // What is to be filled can only be read, and the other way round.
    let status = bench.device.request(IN, 0, &readable(512))?;
    ensure(status <= S_IOERR, "the status of the request", status)?;
    let status = bench.device.request(OUT, 0, &writable(512))?;
    ensure(status <= S_IOERR, "the status of the request", status)?;
    bench.is_unharmed()
}
