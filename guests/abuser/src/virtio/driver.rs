//! A driver that can do everything right, one step at a time, so that a case can do one step wrong.
//!
//! Answers for: bringing a device up (3.1), requests that are answered or not, and what is to be seen of a device that has had enough
//! of its driver. Does not answer for: which rule is broken (the modules of cases).

use guest_rt::machine::Machine;
use guest_rt::registers::dsb;
use guest_rt::timer;

use super::arena::{self, buffer};
use super::ring::{Part, Ring};
use super::transport::{Area, CONFIGURATION_CHANGE, Transport};
use super::{Complaint, Verdict, ensure};

/// Bits of the device status (2.1).
pub(crate) const ACKNOWLEDGE: u32 = 1;
pub(crate) const DRIVER: u32 = 2;
pub(crate) const DRIVER_OK: u32 = 4;
pub(crate) const FEATURES_OK: u32 = 8;
pub(crate) const DEVICE_NEEDS_RESET: u32 = 64;
pub(crate) const FAILED: u32 = 128;
/// Those of a driver that has come to the end.
pub(crate) const ALL_OK: u32 = ACKNOWLEDGE | DRIVER | FEATURES_OK | DRIVER_OK;

/// Features of all devices (6).
pub(crate) const INDIRECT_DESC: u64 = 1 << 28;
pub(crate) const EVENT_IDX: u64 = 1 << 29;
pub(crate) const VERSION_1: u64 = 1 << 32;
pub(crate) const RING_PACKED: u64 = 1 << 34;
pub(crate) const RING_RESET: u64 = 1 << 40;

/// Entries of a queue of which nothing else is said.
pub(crate) const ENTRIES: u16 = 16;
/// Most queues of a device: a console's with two ports.
const QUEUES: usize = 6;
/// Microseconds within which a device answers, and for which it is watched when it is not to answer.
const SOON: u64 = 200_000;
const QUIET: u64 = 1_000;

/// What a device is, as far as cases care.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Disk,
    ReadOnlyDisk,
    Net,
    Console,
    Entropy,
}

/// A device and its queues.
pub(crate) struct Driver<'a> {
    pub(crate) transport: &'a dyn Transport,
    pub(crate) kind: Kind,
    /// The arena's place of its first queue.
    place: usize,
    pub(crate) rings: [Ring; QUEUES],
    /// What has been accepted.
    pub(crate) features: u64,
}

impl<'a> Driver<'a> {
    fn new(transport: &'a dyn Transport, kind: Kind, place: usize) -> Self {
        let rings = core::array::from_fn(|queue| Ring::new(place + queue, 1, false));
        Self { transport, kind, place, rings, features: 0 }
    }

    pub(crate) fn reset(&mut self) -> Verdict {
        self.transport.set_status(0);
        let status = self.transport.status();
        ensure(status == 0, "the status after a reset is not 0", status)
    }

    pub(crate) fn accept(&self, features: u64) {
        self.transport.accept(0, features as u32);
        self.transport.accept(1, (features >> 32) as u32);
    }

    pub(crate) fn offered(&self) -> u64 {
        u64::from(self.transport.offered(0)) | u64::from(self.transport.offered(1)) << 32
    }

    /// Says what it accepts, of a device that is reset before; whether the device is content.
    pub(crate) fn propose(&mut self, features: u64) -> Result<bool, Complaint> {
        self.reset()?;
        self.transport.set_status(ACKNOWLEDGE);
        self.transport.set_status(ACKNOWLEDGE | DRIVER);
        self.accept(features);
        self.features = features;
        self.transport.set_status(ACKNOWLEDGE | DRIVER | FEATURES_OK);
        Ok(self.transport.status() & FEATURES_OK != 0)
    }

    /// The same, of features that it has to be content with.
    pub(crate) fn negotiate(&mut self, features: u64) -> Verdict {
        let features = features | VERSION_1;
        let is_content = self.propose(features)?;
        ensure(is_content, "the device does not agree to these features", features)
    }

    /// Puts an empty queue into its place, and says where that is.
    pub(crate) fn lay(&mut self, queue: usize, size: u16) {
        self.rings[queue] = Ring::new(self.place + queue, size, self.features & RING_PACKED != 0);
        self.transport.select(queue as u32);
        self.transport.set_size(size.into());
        for area in Area::ALL {
            self.transport.set_area(area, self.rings[queue].address(area));
        }
    }

    pub(crate) fn enable(&self, queue: usize) {
        self.transport.select(queue as u32);
        self.transport.set_ready(1);
    }

    /// How many queues it uses with these features (5.1.2, 5.2.2, 5.3.2, 5.4.2).
    fn queues(&self) -> usize {
        match self.kind {
            Kind::Disk | Kind::ReadOnlyDisk | Kind::Entropy => 1,
            Kind::Net if self.features & 1 << 17 != 0 => 3,
            Kind::Console if self.features & 1 << 1 != 0 => 6,
            Kind::Net | Kind::Console => 2,
        }
    }

    /// All its queues, and those enabled.
    pub(crate) fn lay_all(&mut self, size: u16) {
        for queue in 0..self.queues() {
            self.lay(queue, size);
            self.enable(queue);
        }
    }

    /// Tells the device that the driver is ready.
    pub(crate) fn go(&self) {
        self.transport.set_status(ALL_OK);
    }

    /// Everything, as it has to be.
    pub(crate) fn start(&mut self, features: u64) -> Verdict {
        self.negotiate(features)?;
        self.lay_all(ENTRIES);
        self.go();
        let status = self.transport.status();
        ensure(status == ALL_OK, "the device does not start", status)
    }

    /// Makes a buffer available and tells the device.
    pub(crate) fn send(&mut self, queue: usize, parts: &[Part]) {
        self.rings[queue].add(parts);
        self.notify(queue);
    }

    pub(crate) fn notify(&self, queue: usize) {
        dsb();
        self.transport.notify(queue as u32);
    }

    /// Waits for the next used buffer: how many bytes have been written.
    pub(crate) fn wait(&mut self, queue: usize) -> Result<u32, Complaint> {
        let (ring, mut used) = (&mut self.rings[queue], None);
        timer::sleep_until(SOON, || {
            used = ring.take();
            used.is_some()
        });
        let status = self.transport.status();
        used.map(|(_, length)| length).ok_or(Complaint { what: "no answer; the status is", found: status.into() })
    }

    /// Nothing is used for a while.
    pub(crate) fn is_quiet(&mut self, queue: usize) -> Verdict {
        let (ring, mut used) = (&mut self.rings[queue], None);
        timer::sleep_until(QUIET, || {
            used = ring.take();
            used.is_some()
        });
        ensure(used.is_none(), "a buffer has been used", used.map_or(0, |(id, _)| id))
    }

    /// Whether the device has given up on the driver.
    pub(crate) fn is_lost(&self) -> bool {
        self.transport.status() & DEVICE_NEEDS_RESET != 0
    }

    /// It gives up, says so (2.1.2), and uses nothing more.
    pub(crate) fn needs_reset(&mut self) -> Verdict {
        timer::sleep_until(SOON, || self.is_lost());
        let status = self.transport.status();
        ensure(status & DEVICE_NEEDS_RESET != 0, "it does not ask for a reset; the status is", status)?;
        let events = self.transport.events();
        ensure(events & CONFIGURATION_CHANGE != 0, "it does not tell that it needs a reset; its events are", events)?;
        for queue in 0..self.queues() {
            self.is_quiet(queue)?;
        }
        Ok(())
    }

    /// Lets it do what it wants to do.
    pub(crate) fn linger(&self) {
        timer::sleep_until(QUIET, || false);
    }
}

/// What a case has to do with.
pub(crate) struct Bench<'a> {
    pub(crate) machine: &'static Machine,
    pub(crate) device: Driver<'a>,
    /// Of a network device: the one on the same switch.
    pub(crate) other: Option<Driver<'a>>,
}

/// Where the parts of a request of a disk are, and its types (5.2.6).
pub(crate) const HEADER: usize = buffer(0);
pub(crate) const STATUS: usize = buffer(1);
pub(crate) const DATA: usize = buffer(2);
const OTHER_DATA: usize = buffer(3);
pub(crate) const IN: u32 = 0;
pub(crate) const OUT: u32 = 1;
/// Where ordinary requests go.
const SECTOR: u64 = 7;

/// Bytes of the header of a packet, and an ordinary frame behind it (5.1.6).
pub(crate) const PACKET_HEADER: u32 = 12;
pub(crate) const FRAME: u32 = 60;
/// Queues of a network device, and a console's first port (5.1.2, 5.3.2).
pub(crate) const RECEIVE: usize = 0;
pub(crate) const TRANSMIT: usize = 1;

const NO_OTHER: Complaint = Complaint { what: "there is no other device", found: 0 };

impl<'a> Bench<'a> {
    /// Everything in its place and nothing running.
    pub(crate) fn new(
        machine: &'static Machine,
        (kind, transport): (Kind, &'a dyn Transport),
        other: Option<&'a dyn Transport>,
    ) -> Self {
        arena::clean();
        let device = Driver::new(transport, kind, 0);
        let other = other.map(|transport| Driver::new(transport, Kind::Net, QUEUES));
        Self { machine, device, other }
    }

    pub(crate) fn start(&mut self, features: u64) -> Verdict {
        self.device.start(features)
    }

    /// Nothing is written any more.
    pub(crate) fn stop(&mut self) -> Verdict {
        let stopped = self.other.as_mut().map_or(Ok(()), Driver::reset);
        self.device.reset().and(stopped)
    }

    /// The device asks for no reset, and does an ordinary request without one.
    pub(crate) fn is_unharmed(&mut self) -> Verdict {
        let status = self.device.transport.status();
        ensure(status & DEVICE_NEEDS_RESET == 0, "it asks for a reset; the status is", status)?;
        self.works()
    }

    /// An ordinary request, of a device that is running.
    pub(crate) fn works(&mut self) -> Verdict {
        match self.device.kind {
            Kind::Disk => self.device.writes_and_reads(),
            Kind::ReadOnlyDisk => self.device.reads(),
            Kind::Console => {
                arena::put(DATA, b".\n");
                self.device.send(TRANSMIT, &[Part::readable(DATA, 2)]);
                self.device.wait(TRANSMIT).map(|_| ())
            }
            Kind::Entropy => {
                self.device.send(0, &[Part::writable(DATA, 32)]);
                let length = self.device.wait(0)?;
                ensure((1..=32).contains(&length), "so many random numbers", length)
            }
            Kind::Net => self.passes_a_frame(),
        }
    }

    /// The other device, which is started if it is not running, sends a frame of so many bytes, until it must have come through.
    pub(crate) fn other_sends(&mut self, length: u32) -> Verdict {
        let Some(other) = &mut self.other else { return Err(NO_OTHER) };
        if other.transport.status() != ALL_OK {
            other.start(0)?;
        }
        put_frame(OTHER_DATA, 1);
        arena::fill(OTHER_DATA + (PACKET_HEADER + FRAME) as usize..OTHER_DATA + (PACKET_HEADER + length) as usize, 1);
        for _ in 0..3 {
            other.send(TRANSMIT, &[Part::readable(OTHER_DATA, PACKET_HEADER + length)]);
            other.wait(TRANSMIT)?;
            other.linger();
        }
        Ok(())
    }

    /// From this device to the other one.
    fn passes_a_frame(&mut self) -> Verdict {
        /// How often a frame may be lost: a port opens when its worker has come to it.
        const TIMES: u8 = 20;
        let Some(other) = &mut self.other else { return Err(NO_OTHER) };
        other.start(0)?;
        other.send(RECEIVE, &[Part::writable(OTHER_DATA, PACKET_HEADER + FRAME)]);
        for tag in 1..=TIMES {
            put_frame(DATA, tag);
            self.device.send(TRANSMIT, &[Part::readable(DATA, PACKET_HEADER + FRAME)]);
            self.device.wait(TRANSMIT)?;
            // Before it may come one that was sent a round ago, and was late.
            while let Ok(length) = other.wait_shortly(RECEIVE) {
                ensure(length == PACKET_HEADER + FRAME, "a frame of so many bytes has come", length)?;
                let last = arena::read(OTHER_DATA + (PACKET_HEADER + FRAME - 1) as usize, guest_rt::mmio::Width::Byte);
                if last == u64::from(tag) {
                    return other.reset();
                }
                other.send(RECEIVE, &[Part::writable(OTHER_DATA, PACKET_HEADER + FRAME)]);
            }
        }
        Err(Complaint { what: "frames do not come; lost", found: TIMES.into() })
    }
}

impl Driver<'_> {
    fn wait_shortly(&mut self, queue: usize) -> Result<u32, ()> {
        let (ring, mut used) = (&mut self.rings[queue], None);
        timer::sleep_until(5 * QUIET, || {
            used = ring.take();
            used.is_some()
        });
        used.map(|(_, length)| length).ok_or(())
    }

    /// A request of a disk, done: its status (5.2.6).
    pub(crate) fn request(&mut self, kind: u32, sector: u64, data: &[Part]) -> Result<u64, Complaint> {
        self.submit(kind, sector, data);
        self.wait(0)?;
        Ok(arena::read(STATUS, guest_rt::mmio::Width::Byte))
    }

    /// Makes a request available and tells the device.
    pub(crate) fn submit(&mut self, kind: u32, sector: u64, data: &[Part]) {
        let mut parts = [Part::readable(HEADER, 16); 10];
        put_header(kind, sector);
        parts[1..=data.len()].copy_from_slice(data);
        parts[data.len() + 1] = Part::writable(STATUS, 1);
        arena::fill(STATUS..STATUS + 1, 0xff);
        self.send(0, &parts[..data.len() + 2]);
    }

    fn writes_and_reads(&mut self) -> Verdict {
        let seed = timer::now() as u8;
        (0..512).for_each(|at| arena::fill(DATA + at..DATA + at + 1, seed ^ at as u8));
        let status = self.request(OUT, SECTOR, &[Part::readable(DATA, 512)])?;
        ensure(status == 0, "the status of writing", status)?;
        let status = self.request(IN, SECTOR, &[Part::writable(OTHER_DATA, 512)])?;
        ensure(status == 0, "the status of reading", status)?;
        let byte = |at| arena::read(at, guest_rt::mmio::Width::Byte);
        match (0..512).find(|at| byte(DATA + at) != byte(OTHER_DATA + at)) {
            None => Ok(()),
            Some(at) => Err(Complaint { what: "what was written is not what is read at", found: at as u64 }),
        }
    }

    /// The first bytes of the file that the tests give it.
    fn reads(&mut self) -> Verdict {
        let status = self.request(IN, 0, &[Part::writable(OTHER_DATA, 512)])?;
        ensure(status == 0, "the status of reading", status)?;
        let first = arena::read(OTHER_DATA, guest_rt::mmio::Width::Doubleword);
        ensure(first == u64::from_le_bytes(*b"Bulkhead"), "the disk begins with", first)
    }
}

/// The header of a request (5.2.6).
pub(crate) fn put_header(kind: u32, sector: u64) {
    use guest_rt::mmio::Width::Doubleword;
    arena::write(HEADER, Doubleword, kind.into());
    arena::write(HEADER + 8, Doubleword, sector);
}

/// A packet that asks for nothing, with a frame to everybody (5.1.6; IEEE 802.3).
pub(crate) fn put_frame(at: usize, tag: u8) {
    arena::fill(at..at + PACKET_HEADER as usize, 0);
    let frame = at + PACKET_HEADER as usize;
    arena::fill(frame..frame + 6, 0xff);
    arena::put(frame + 6, &[2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
    arena::fill(frame + 14..frame + FRAME as usize, tag);
}
