//! What is asked of each kind of device.
//!
//! Answers for: an exchange with each by the package's driver, and comparing what comes back with what has to. Does not answer for:
//! where the device is.

use alloc::format;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

use guest_rt::{floating_point, timer};
use virtio_drivers::Error;
use virtio_drivers::device::blk::{SECTOR_SIZE, VirtIOBlk};
use virtio_drivers::device::console::VirtIOConsole;
use virtio_drivers::device::input::VirtIOInput;
use virtio_drivers::device::net::{TxBuffer, VirtIONet};
use virtio_drivers::device::rng::VirtIORng;
use virtio_drivers::device::socket::{
    VMADDR_CID_HOST, VirtIOSocket, VsockAddr, VsockConnectionManager, VsockEvent, VsockEventType,
};
use virtio_drivers::device::virtio_9p::VirtIO9p;
use virtio_drivers::transport::Transport;

use crate::memory::Platform;

/// What is not as it should be.
pub(crate) struct Complaint(String);

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for Complaint {
    fn from(error: Error) -> Self {
        Self(format!("{error}"))
    }
}

/// What has been seen of a device that does what it should.
pub(crate) type Verdict = Result<String, Complaint>;

fn ensure(holds: bool, otherwise: impl FnOnce() -> String) -> Result<(), Complaint> {
    if holds { Ok(()) } else { Err(Complaint(otherwise())) }
}

/// Bytes that differ from place to place.
fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|at| (seed + at * 7 / 3) as u8).collect()
}

/// Writes in the middle, flushes and reads it back with what is around it, without and with vector registers in use: who copies for us
/// leaves them alone. Needs a disk of 16 sectors, the first and last of them zero.
pub(crate) fn blk<T: Transport>(transport: T) -> Verdict {
    const SECTORS: usize = 14;
    let mut disk = VirtIOBlk::<Platform, T>::new(transport)?;
    let mut id = [0; 20];
    let length = disk.device_id(&mut id)?;
    for seed in [1, 2, 3] {
        floating_point::switch(seed > 1);
        if seed > 1 {
            floating_point::fill(seed as u64);
        }
        let written = pattern(SECTORS * SECTOR_SIZE, seed);
        disk.write_blocks(1, &written)?;
        disk.flush()?;
        let mut found = vec![0xee; (SECTORS + 2) * SECTOR_SIZE];
        disk.read_blocks(0, &mut found)?;
        let zeroes = [0; SECTOR_SIZE];
        ensure(found == [&zeroes[..], &written, &zeroes].concat(), || "what is read was not written".into())?;
        let changed = if seed > 1 { floating_point::changed(seed as u64) } else { 0 };
        ensure(changed == 0, || format!("{changed} vector registers have changed"))?;
    }
    floating_point::switch(false);
    let behind = disk.read_blocks(disk.capacity() as usize, &mut [0; SECTOR_SIZE]);
    ensure(behind == Err(Error::IoError), || format!("a read behind the end: {behind:?}"))?;
    Ok(format!("{} sectors, id {}", disk.capacity(), String::from_utf8_lossy(&id[..length])))
}

/// Asks for a line and says what it was.
pub(crate) fn console<T: Transport>(transport: T) -> Verdict {
    const PATIENCE: u64 = 60_000_000;
    let mut console = VirtIOConsole::<Platform, T>::new(transport)?;
    console.send_bytes(b"console: a line, please\r\n")?;
    let mut line = Vec::new();
    let mut ended = Ok(false);
    timer::wait_until(PATIENCE, || {
        ended = console.recv(true).map(|byte| match byte {
            Some(b'\r' | b'\n') => true,
            Some(byte) => {
                line.push(byte);
                false
            }
            None => false,
        });
        ended != Ok(false)
    });
    let line = String::from_utf8_lossy(&line);
    ensure(ended?, || format!("no line has come, only `{line}`"))?;
    console.send_bytes(format!("console: it was `{line}`\r\n").as_bytes())?;
    Ok(format!("{} letters", line.len()))
}

/// Random numbers are not the same twice.
pub(crate) fn entropy<T: Transport>(transport: T) -> Verdict {
    let mut source = VirtIORng::<Platform, T>::new(transport)?;
    let mut numbers = [[0; 32]; 2];
    for bytes in &mut numbers {
        let length = source.request_entropy(bytes)?;
        ensure(length == bytes.len(), || format!("{length} bytes of {}", bytes.len()))?;
        ensure(*bytes != [0; 32], || "nothing has been written".into())?;
    }
    ensure(numbers[0] != numbers[1], || "they are the same twice".into())?;
    Ok(format!("{} bytes, twice", numbers[0].len()))
}

/// Frames go from one device to the other, and back.
pub(crate) fn net<T: Transport>(first: T, second: T) -> Verdict {
    const BUFFER: usize = 2048;
    let open = |transport| VirtIONet::<Platform, T, 16>::new(transport, BUFFER);
    let (mut first, mut second) = (open(first)?, open(second)?);
    // More than there are buffers.
    for round in 0..20 {
        send(&mut first, &mut second, pattern(60 + 70 * round, round))?;
        send(&mut second, &mut first, pattern(1514 - 70 * round, round + 1))?;
    }
    let name = |address: [u8; 6]| address.map(|byte| format!("{byte:02x}")).join(":");
    ensure(first.mac_address() != second.mac_address(), || format!("both are {}", name(first.mac_address())))?;
    Ok(format!("40 frames between {} and {}", name(first.mac_address()), name(second.mac_address())))
}

type Net<T> = VirtIONet<Platform, T, 16>;

/// Sends a frame of these bytes, but for its addresses and its type (local experiments), until it arrives: the other end may not have
/// been ready.
fn send<T: Transport>(from: &mut Net<T>, to: &mut Net<T>, mut frame: Vec<u8>) -> Result<(), Complaint> {
    const TIMES: usize = 50;
    const PATIENCE: u64 = 20_000;
    frame[..6].copy_from_slice(&to.mac_address());
    frame[6..12].copy_from_slice(&from.mac_address());
    frame[12..14].copy_from_slice(&[0x88, 0xb5]);
    for _ in 0..TIMES {
        from.send(TxBuffer::from(&frame))?;
        // What was sent twice comes twice.
        while timer::wait_until(PATIENCE, || to.can_recv()) {
            let buffer = to.receive()?;
            let is_it = buffer.packet() == frame;
            to.recycle_rx_buffer(buffer)?;
            if is_it {
                return Ok(());
            }
        }
    }
    Err(Complaint(format!("a frame of {} bytes does not arrive", frame.len())))
}

/// Who it is, and which keys it has.
pub(crate) fn input<T: Transport>(transport: T) -> Verdict {
    const EV_KEY: u8 = 1;
    let mut input = VirtIOInput::<Platform, T>::new(transport)?;
    let (name, ids, bits) = (input.name()?, input.ids()?, input.ev_bits(EV_KEY)?);
    let keys: Vec<usize> = (0..8 * bits.len()).filter(|key| bits[key / 8] >> (key % 8) & 1 != 0).collect();
    let event = input.pop_pending_event();
    ensure(event.is_none(), || format!("nobody has done anything, and there is {event:?}"))?;
    Ok(format!("{name}, {:x}:{:x}:{:x}:{:x}, keys {keys:?}", ids.bustype, ids.vendor, ids.product, ids.version))
}

/// The host sends back what it gets at port 7, and nobody is at port 99.
pub(crate) fn vsock<T: Transport>(transport: T) -> Verdict {
    const ECHO: VsockAddr = VsockAddr { cid: VMADDR_CID_HOST, port: 7 };
    const NOBODY: VsockAddr = VsockAddr { port: 99, ..ECHO };
    const PORT: u32 = 1024;
    let mut sockets = VsockConnectionManager::new(VirtIOSocket::<Platform, T>::new(transport)?);
    let cid = sockets.guest_cid();
    sockets.connect(NOBODY, PORT)?;
    await_event(&mut sockets, |event| matches!(event.event_type, VsockEventType::Disconnected { .. }))?;
    sockets.connect(ECHO, PORT)?;
    await_event(&mut sockets, |event| event.event_type == VsockEventType::Connected)?;
    let mut total = 0;
    for round in 0..40 {
        let sent = pattern(1 + 25 * round, round);
        sockets.send(ECHO, PORT, &sent)?;
        let (mut found, mut length) = (vec![0; sent.len()], 0);
        while length < sent.len() {
            await_event(&mut sockets, |event| matches!(event.event_type, VsockEventType::Received { .. }))?;
            length += sockets.recv(ECHO, PORT, &mut found[length..])?;
        }
        ensure(found == sent, || "the echo is not what was sent".into())?;
        sockets.update_credit(ECHO, PORT)?;
        total += length;
    }
    sockets.shutdown(ECHO, PORT)?;
    await_event(&mut sockets, |event| matches!(event.event_type, VsockEventType::Disconnected { .. }))?;
    Ok(format!("CID {cid}, {total} bytes echoed"))
}

/// Waits for an event; what is said of credit only is the package's business, anything else is wrong.
fn await_event<T: Transport>(
    sockets: &mut VsockConnectionManager<Platform, T>,
    is_it: impl Fn(&VsockEvent) -> bool,
) -> Result<(), Complaint> {
    const PATIENCE: u64 = 5_000_000;
    let mut found = Ok(None);
    let is_there = timer::wait_until(PATIENCE, || {
        found = sockets.poll();
        !matches!(&found, Ok(None | Some(VsockEvent { event_type: VsockEventType::CreditUpdate, .. })))
    });
    let found = found?;
    ensure(is_there && found.as_ref().is_some_and(is_it), || format!("wanted another event than {found:?}"))
}

/// Reads the file `greeting`, by 9P2000.L. Numbers are those of its messages; the answer's is one more.
pub(crate) fn files<T: Transport>(transport: T) -> Verdict {
    const TLOPEN: u8 = 12;
    const TVERSION: u8 = 100;
    const TATTACH: u8 = 104;
    const TWALK: u8 = 110;
    const TREAD: u8 = 116;
    const NOFID: u32 = !0;
    const LARGEST: u32 = 8192;
    let mut share = VirtIO9p::<Platform, T>::new(transport)?;
    let number = u32::to_le_bytes;
    ask(&mut share, TVERSION, &[&number(LARGEST), &text("9P2000.L")])?;
    ask(&mut share, TATTACH, &[&number(0), &number(NOFID), &text("root"), &text(""), &number(0)])?;
    ask(&mut share, TWALK, &[&number(0), &number(1), &1_u16.to_le_bytes(), &text("greeting")])?;
    ask(&mut share, TLOPEN, &[&number(1), &number(0)])?;
    let answer = ask(&mut share, TREAD, &[&number(1), &0_u64.to_le_bytes(), &number(1000)])?;
    let content = String::from_utf8_lossy(answer.get(4..).unwrap_or_default()).into_owned();
    let tag = share.mount_tag();
    Ok(format!("tag {tag}, greeting: {content}"))
}

/// Length and letters.
fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u16).to_le_bytes()[..], text.as_bytes()].concat()
}

/// A request and what is behind the header of its answer.
fn ask<T: Transport>(share: &mut VirtIO9p<Platform, T>, kind: u8, fields: &[&[u8]]) -> Result<Vec<u8>, Complaint> {
    const HEADER: usize = 7;
    let fields = fields.concat();
    let request = [&((HEADER + fields.len()) as u32).to_le_bytes()[..], &[kind, 1, 0], &fields].concat();
    let mut answer = vec![0; 1200];
    let length = share.request(&request, &mut answer)? as usize;
    let found = answer[4];
    ensure(found == kind + 1, || format!("message {kind} is answered by {found}: {:?}", &answer[HEADER..length]))?;
    answer.truncate(length);
    Ok(answer.split_off(HEADER))
}
