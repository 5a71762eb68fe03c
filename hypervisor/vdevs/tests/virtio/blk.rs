//! `vdev virtio-blk`.

use crate::driver::{Machine, Place, Registers, Words, World, negotiate, tests};
use vdev::BlockError;
use vdev::testkit::{Disk, Rig, Wires};
use virtio_drivers::device::blk::{BlkReq, BlkResp, VirtIOBlk};
use virtio_drivers::queue::VirtQueue;
use virtio_drivers::transport::Transport;

tests! {
    a_driver_reads_and_writes and legacy,
    it_has_a_serial_number,
    what_is_only_to_be_read_is_not_written,
    what_the_disk_cannot_do_is_an_error_and_no_more,
    a_driver_that_goes_leaves_a_device_for_the_next,
    sectors_are_discarded_and_zeroed,
    requests_that_make_no_sense_are_answered,
    a_header_may_be_in_pieces_and_the_status_beside_the_data,
    there_is_a_queue_for_each_vcpu_and_as_many_as_are_asked_for,
}

type Driver = VirtIOBlk<Machine, Registers>;
const FILE: (&str, Option<&str>) = ("hostdev", Some("disk.img"));
const SECTORS: usize = 600;

fn content() -> Vec<u8> {
    (0..SECTORS * 512).map(|at| (at / 512 * 7 + at % 512) as u8).collect()
}

/// A machine with the device, and its disk.
fn world(place: Place, options: Words<'_>) -> (World, Disk) {
    let wires = Wires::default();
    let disk = wires.disk.clone();
    disk.fill(&content());
    (World::new(place, "virtio-blk", options, wires), disk)
}

fn a_driver_reads_and_writes(place: Place) {
    let (world, disk) = world(place, &[FILE]);
    let mut driver = Driver::new(world.transport()).unwrap();
    assert_eq!((driver.capacity(), driver.readonly()), (SECTORS as u64, false));
    let mut model = content();
    for (sector, count) in [(0, 1), (3, 8), (599, 1), (10, 80)] {
        let mut bytes = vec![0; count * 512];
        driver.read_blocks(sector, &mut bytes).unwrap();
        assert_eq!(bytes, model[sector * 512..][..count * 512]);
        bytes.iter_mut().for_each(|byte| *byte = byte.wrapping_add(1));
        driver.write_blocks(sector, &bytes).unwrap();
        model[sector * 512..][..count * 512].copy_from_slice(&bytes);
        assert!(disk.bytes() == model);
    }
    driver.flush().unwrap();
    assert_eq!(disk.flushes(), 1);
    assert!(driver.read_blocks(600, &mut [0; 512]).is_err(), "behind the end");
    assert!(driver.read_blocks(599, &mut [0; 1024]).is_err(), "over the end");
    assert!(driver.read_blocks(usize::MAX / 512, &mut [0; 512]).is_err(), "wraps around");
}

fn it_has_a_serial_number(place: Place) {
    let id = |options: Words<'_>| {
        let mut id = [0xee; 20];
        let length = Driver::new(world(place, options).0.transport()).unwrap().device_id(&mut id).unwrap();
        String::from_utf8(id[..length].to_vec()).unwrap()
    };
    assert_eq!(id(&[FILE]), place.name("virtio-blk"));
    assert_eq!(id(&[FILE, ("serial", Some("12345678901234567890"))]), "12345678901234567890");
}

fn what_is_only_to_be_read_is_not_written(place: Place) {
    let (world, disk) = world(place, &[("hostdev", Some("<disk.img"))]);
    let mut driver = Driver::new(world.transport()).unwrap();
    assert!(driver.readonly());
    assert!(driver.write_blocks(0, &[1; 512]).is_err());
    assert!(disk.bytes() == content());
}

fn what_the_disk_cannot_do_is_an_error_and_no_more(place: Place) {
    let (world, disk) = world(place, &[FILE]);
    let mut driver = Driver::new(world.transport()).unwrap();
    for error in [BlockError::Failed, BlockError::Full] {
        disk.fail(Some(error));
        assert!(driver.read_blocks(0, &mut [0; 512]).is_err() && driver.write_blocks(0, &[0; 512]).is_err());
        assert!(driver.flush().is_err());
    }
    disk.fail(None);
    driver.read_blocks(0, &mut [0; 512]).unwrap();
}

fn a_driver_that_goes_leaves_a_device_for_the_next(place: Place) {
    let (world, _) = world(place, &[FILE]);
    for _ in 0..3 {
        let mut driver = Driver::new(world.transport()).unwrap();
        let (mut request, mut response, mut bytes) = (BlkReq::default(), BlkResp::default(), [0; 512]);
        // SAFETY: all three live until the driver, and with it the device's queue, is gone.
        unsafe { driver.read_blocks_nb(1, &mut request, &mut bytes, &mut response) }.unwrap();
    }
}

/// A queue without a driver that knows what requests are.
struct Raw {
    world: World,
    transport: Registers,
    queue: VirtQueue<Machine, 8>,
}

impl Raw {
    fn new(place: Place, options: Words<'_>) -> (Self, Disk) {
        let (world, disk) = world(place, options);
        let mut transport = world.transport();
        // All that are a disk's own.
        let features = transport.read_device_features() & 0xff_ffff;
        negotiate(&mut transport, features);
        let queue = VirtQueue::new(&mut transport, 0, false, false).unwrap();
        transport.finish_init();
        (Self { world, transport, queue }, disk)
    }

    /// A request of these bytes, with so many for the answer; that, and how many of them the device says it has written.
    fn request(&mut self, bytes: &[&[u8]], answer: usize) -> (Vec<u8>, u32) {
        let mut answer = vec![0xee; answer];
        let mut outputs: Vec<&mut [u8]> = if answer.is_empty() { vec![] } else { vec![&mut answer] };
        // SAFETY: the buffers live until they are popped below.
        let token = unsafe { self.queue.add(bytes, &mut outputs) }.unwrap();
        self.transport.notify(0);
        self.world.work();
        // SAFETY: the buffers that were added.
        let length = unsafe { self.queue.pop_used(token, bytes, &mut outputs) }.unwrap();
        (answer, length)
    }

    fn status(&mut self, bytes: &[&[u8]]) -> u8 {
        self.request(bytes, 1).0[0]
    }
}

fn header(kind: u32, sector: u64) -> Vec<u8> {
    [kind.to_le_bytes().as_slice(), &[0; 4], &sector.to_le_bytes()].concat()
}

fn segment(sector: u64, count: u32, flags: u32) -> Vec<u8> {
    [sector.to_le_bytes().as_slice(), &count.to_le_bytes(), &flags.to_le_bytes()].concat()
}

const DISCARD: u32 = 11;
const WRITE_ZEROES: u32 = 13;
const OK: u8 = 0;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;

fn sectors_are_discarded_and_zeroed(place: Place) {
    let (mut raw, disk) = Raw::new(place, &[FILE]);
    let mut model = content();
    for (kind, flags) in [(DISCARD, 0), (WRITE_ZEROES, 0), (WRITE_ZEROES, 1)] {
        let first = 10 * u64::from(kind + flags);
        assert_eq!(raw.status(&[&header(kind, 0), &segment(first, 9, flags)]), OK);
        model[first as usize * 512..][..9 * 512].fill(0);
        assert!(disk.bytes() == model);
    }
    for (kind, segment, expected) in [
        (DISCARD, segment(0, 1, 1), UNSUPP),
        (DISCARD, segment(0, 1, 2), UNSUPP),
        (WRITE_ZEROES, segment(0, 1, 2), UNSUPP),
        (WRITE_ZEROES, segment(599, 2, 0), IOERR),
        (WRITE_ZEROES, segment(u64::MAX, 1, 0), IOERR),
        (WRITE_ZEROES, segment(0, u32::MAX, 0), IOERR),
        (WRITE_ZEROES, [segment(0, 1, 0), segment(1, 1, 0)].concat(), IOERR),
        (WRITE_ZEROES, vec![0; 15], IOERR),
    ] {
        assert_eq!(raw.status(&[&header(kind, 0), &segment]), expected, "{kind} {segment:?}");
    }
    assert!(disk.bytes() == model);
}

fn requests_that_make_no_sense_are_answered(place: Place) {
    let (mut raw, disk) = Raw::new(place, &[FILE]);
    assert_eq!(raw.status(&[&header(99, 0)]), UNSUPP);
    assert_eq!(raw.status(&[&header(1, 0), &[0; 511]]), IOERR, "half a sector");
    assert_eq!(raw.status(&[&header(1, u64::MAX / 512 + 1), &[0; 512]]), IOERR);
    assert_eq!(raw.status(&[&[0; 15]]), IOERR, "half a header");
    let (answer, length) = raw.request(&[&header(0, 0)], 512);
    assert_eq!((answer.last(), length), (Some(&IOERR), 0), "no whole sector beside the status");
    // No room for a status, or for anything: it is given back.
    assert_eq!(raw.request(&[&header(4, 0)], 0), (vec![], 0));
    assert_eq!(raw.status(&[&header(1, 1), &[7; 512]]), OK, "and all goes on");
    assert_eq!(disk.bytes()[512..1024], [7; 512]);
}

fn a_header_may_be_in_pieces_and_the_status_beside_the_data(place: Place) {
    let (mut raw, _) = Raw::new(place, &[FILE]);
    let header = header(0, 2);
    let (answer, length) = raw.request(&[&header[..3], &header[3..9], &header[9..]], 1025);
    assert_eq!((answer[..1024] == content()[1024..2048], answer[1024], length), (true, OK, 1025));
}

#[test]
fn options_are_checked() {
    let factory = vdevs::CATALOGUE.iter().find(|factory| factory.name == "virtio-blk").unwrap();
    let error = |options: Words<'_>| {
        let mut wires = Wires::default();
        wires.disk.fill(&content());
        Rig::new(factory, options, &mut wires).err().map(|errors| errors[0].message.clone()).unwrap_or_default()
    };
    assert_eq!(error(&[FILE, ("threads", Some("4")), ("dio", Some("enable")), ("delayed", Some("forever"))]), "");
    assert!(error(&[]).contains("hostdev"), "{}", error(&[]));
    assert!(error(&[FILE, ("serial", Some("123456789012345678901"))]).contains("21 characters of at most 20"));
    assert!(error(&[FILE, ("threads", Some("33"))]).contains("must be from 1 to 32"));
    assert!(error(&[FILE, ("delayed", Some("soon"))]).contains("seconds or `forever`"));
    assert!(error(&[("hostdev", Some(">disk.img"))]).contains("<NAME to read only"));
    let missing = Rig::new(factory, &[FILE], &mut Wires::default()).err().unwrap();
    assert!(missing[0].message.contains("there is no disk `/disk.img`"), "{missing:?}");
}

fn there_is_a_queue_for_each_vcpu_and_as_many_as_are_asked_for(place: Place) {
    let (world, _) = world(place, &[FILE, ("queues", Some("3"))]);
    let transport = world.transport();
    assert_eq!(transport.read_config_space::<u16>(34), Ok(3));
    assert_eq!((0..4).map(|queue| world.transport().max_queue_size(queue)).collect::<Vec<_>>(), [256, 256, 256, 0]);
    assert_eq!((transport.read_config_space::<u32>(20), transport.read_config_space::<u8>(24)), (Ok(512), Ok(3)));
}
