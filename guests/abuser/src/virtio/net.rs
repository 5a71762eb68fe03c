//! Rules for network devices (virtio 1.3, 5.1).

use guest_rt::exceptions::catch;
use guest_rt::mmio::Width;

use super::arena::{self, buffer};
use super::driver::{Bench, DATA, ENTRIES, FRAME, Kind, PACKET_HEADER, RECEIVE, TRANSMIT, put_frame};
use super::ring::Part;
use super::{Case, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("net-configuration-written", Kind::Net, configuration_written),
    Case::new("net-buffers-counted", Kind::Net, buffers_counted),
    Case::new("net-checksum-unnegotiated", Kind::Net, checksum_unnegotiated),
    Case::new("net-checksum-outside", Kind::Net, checksum_outside),
    Case::new("net-segments-unnegotiated", Kind::Net, segments_unnegotiated),
    Case::new("net-segments-without-checksum", Kind::Net, segments_without_checksum),
    Case::new("net-segments-of-nothing", Kind::Net, segments_of_nothing),
    Case::new("net-headers-wrong", Kind::Net, headers_wrong),
    Case::new("net-reserved-flags", Kind::Net, reserved_flags),
    Case::new("net-packet-too-short", Kind::Net, packet_too_short),
    Case::new("net-packet-too-long", Kind::Net, packet_too_long),
    Case::new("net-writable-in-transmitq", Kind::Net, writable_in_transmitq),
    Case::new("net-receive-buffers-too-small", Kind::Net, |bench| receive_buffers_too_small(bench, 0)),
    Case::new("net-merged-buffers-too-small", Kind::Net, |bench| receive_buffers_too_small(bench, MRG_RXBUF)),
    Case::new("net-readable-in-receiveq", Kind::Net, readable_in_receiveq),
    Case::new("net-control-unnegotiated", Kind::Net, control_unnegotiated),
    Case::new("net-receive-mode-unnegotiated", Kind::Net, receive_mode_unnegotiated),
    Case::new("net-commands-unnegotiated", Kind::Net, commands_unnegotiated),
    Case::new("net-addresses-malformed", Kind::Net, addresses_malformed),
    Case::new("net-command-truncated", Kind::Net, command_truncated),
];

/// Features (5.1.3).
const CSUM: u64 = 1 << 0;
const HOST_TSO4: u64 = 1 << 11;
pub(super) const MRG_RXBUF: u64 = 1 << 15;
const CTRL_VQ: u64 = 1 << 17;
const CTRL_RX: u64 = 1 << 18;

/// `flags` and `gso_type` of a packet (5.1.6).
const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const RSC_INFO: u8 = 4;
const TCPV4: u8 = 1;
const UDP: u8 = 3;
const TCPV6: u8 = 4;
const UDP_L4: u8 = 5;
const ECN: u8 = 0x80;

const CONTROL: usize = 2;
/// `VIRTIO_NET_ERR`.
const ERR: u64 = 1;

/// Sends a packet whose header is this: flags, type, length of headers, of segments, and where the checksum is.
fn send(bench: &mut Bench<'_>, flags: u8, kind: u8, numbers: [u16; 5]) -> Verdict {
    put_frame(DATA, 0x11);
    arena::put(DATA, &[flags, kind]);
    for (at, number) in (DATA + 2..).step_by(2).zip(numbers) {
        arena::write(at, Width::Halfword, number.into());
    }
    bench.device.send(TRANSMIT, &[Part::readable(DATA, PACKET_HEADER + FRAME)]);
    let written = bench.device.wait(TRANSMIT)?;
    ensure(written == 0, "the device has written to a packet: bytes", written)
}

fn configuration_written(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    let configuration = bench.device.transport.configuration();
    let mac = |offset| configuration.read_width(offset, Width::Byte);
    let before: [u64; 8] = core::array::from_fn(mac);
    for offset in 0..32 {
        for width in Width::ALL {
            catch(|| configuration.write_width(offset, width, 0x0202_0202_0202_0202));
        }
    }
    let after: [u64; 8] = core::array::from_fn(mac);
    ensure(before == after, "the address is another one; it begins with", after[0])?;
    bench.is_unharmed()
}

fn buffers_counted(bench: &mut Bench<'_>) -> Verdict {
    bench.start(MRG_RXBUF)?;
    for count in [1, 2, 0xffff] {
        send(bench, 0, 0, [0, 0, 0, 0, count])?;
    }
    bench.is_unharmed()
}

fn checksum_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    send(bench, NEEDS_CSUM, 0, [0, 0, 34, 6, 0])?;
    bench.is_unharmed()
}

fn checksum_outside(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CSUM)?;
    for (start, offset) in [(60, 0), (59, 0), (0, 59), (58, 1), (0xffff, 0xffff), (0xffff, 1), (0, 0xffff), (30, 30)] {
        send(bench, NEEDS_CSUM, 0, [0, 0, start, offset, 0])?;
    }
    bench.is_unharmed()
}

fn segments_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    for features in [0, CSUM] {
        bench.start(features)?;
        for kind in [TCPV4, TCPV6, UDP, UDP_L4, TCPV4 | ECN, ECN, 2, 0x7f, 0xff] {
            send(bench, NEEDS_CSUM, kind, [54, 100, 34, 16, 0])?;
        }
        bench.is_unharmed()?;
    }
    Ok(())
}

fn segments_without_checksum(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CSUM | HOST_TSO4)?;
    send(bench, 0, TCPV4, [54, 100, 34, 16, 0])?;
    send(bench, 0, TCPV4, [0; 5])?;
    bench.is_unharmed()
}

fn segments_of_nothing(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CSUM | HOST_TSO4)?;
    for size in [0, 1, 0xffff] {
        send(bench, NEEDS_CSUM, TCPV4, [54, size, 34, 16, 0])?;
    }
    bench.is_unharmed()
}

fn headers_wrong(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CSUM | HOST_TSO4)?;
    for headers in [0, 1, 61, 0xffff] {
        send(bench, NEEDS_CSUM, TCPV4, [headers, 100, 34, 16, 0])?;
    }
    bench.is_unharmed()
}

fn reserved_flags(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CSUM)?;
    for flags in [DATA_VALID, RSC_INFO, DATA_VALID | RSC_INFO, 0xf8, 0xfe] {
        send(bench, flags, 0, [0; 5])?;
    }
    bench.is_unharmed()
}

fn packet_too_short(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    put_frame(DATA, 0x12);
    for length in [0, 1, PACKET_HEADER - 1, PACKET_HEADER, PACKET_HEADER + 1, PACKET_HEADER + 13] {
        bench.device.send(TRANSMIT, &[Part::readable(DATA, length)]);
        bench.device.wait(TRANSMIT)?;
    }
    bench.is_unharmed()
}

fn packet_too_long(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    put_frame(DATA, 0x13);
    // Memory that is there, as much as a chain takes, and more than a frame can have.
    let memory = bench.machine.memory[0].clone();
    for length in [0x1_0000, 0x10_0000, (memory.end - memory.start) as u32] {
        let rest = Part { address: memory.start, length, is_writable: false };
        bench.device.send(TRANSMIT, &[Part::readable(DATA, PACKET_HEADER + FRAME), rest, rest]);
        bench.device.wait(TRANSMIT)?;
    }
    bench.is_unharmed()
}

fn writable_in_transmitq(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    put_frame(DATA, 0x14);
    bench.device.send(TRANSMIT, &[Part::writable(buffer(6), 100)]);
    let written = bench.device.wait(TRANSMIT)?;
    ensure(written == 0, "the device has written to a packet: bytes", written)?;
    bench.device.send(TRANSMIT, &[Part::readable(DATA, PACKET_HEADER + FRAME), Part::writable(buffer(6), 100)]);
    let written = bench.device.wait(TRANSMIT)?;
    ensure(written == 0, "the device has written to a packet: bytes", written)?;
    bench.is_unharmed()
}

fn receive_buffers_too_small(bench: &mut Bench<'_>, features: u64) -> Verdict {
    bench.start(features)?;
    for length in [0, 1, 2, 9, 10, 11, PACKET_HEADER, PACKET_HEADER + 1] {
        bench.device.send(RECEIVE, &[Part::writable(DATA, length)]);
    }
    bench.other_sends(FRAME)?;
    bench.other_sends(0x400)?;
    bench.is_unharmed()
}

fn readable_in_receiveq(bench: &mut Bench<'_>) -> Verdict {
    for features in [0, MRG_RXBUF] {
        bench.start(features)?;
        arena::fill(DATA..DATA + 0x100, 0);
        for _ in 0..ENTRIES {
            bench.device.send(RECEIVE, &[Part::readable(DATA, 0x100)]);
        }
        bench.other_sends(FRAME)?;
        bench.is_unharmed()?;
    }
    Ok(())
}

/// Gives an order: its class, itself, and what comes with it. What the device says of it.
fn order(bench: &mut Bench<'_>, order: [u8; 2], data: &[u8]) -> Result<u64, super::Complaint> {
    let (at, answer) = (buffer(5), buffer(6));
    arena::put(at, &order);
    arena::put(at + 2, data);
    arena::fill(answer..answer + 1, 0xff);
    bench.device.send(CONTROL, &[Part::readable(at, 2 + data.len() as u32), Part::writable(answer, 1)]);
    bench.device.wait(CONTROL)?;
    Ok(arena::read(answer, Width::Byte))
}

fn is_refused(bench: &mut Bench<'_>, class: u8, command: u8, data: &[u8]) -> Verdict {
    let answer = order(bench, [class, command], data)?;
    ensure(answer == ERR, "the device does not refuse, but says", answer)
}

fn control_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.device.negotiate(0)?;
    for queue in 0..3 {
        bench.device.lay(queue, ENTRIES);
        bench.device.enable(queue);
    }
    bench.device.go();
    let at = buffer(5);
    arena::put(at, &[0, 0, 1]);
    bench.device.send(CONTROL, &[Part::readable(at, 3), Part::writable(buffer(6), 1)]);
    bench.device.linger();
    let answer = arena::read(buffer(6), Width::Byte);
    ensure(answer != 0, "an order is followed that nobody may give; the answer is", answer)?;
    bench.is_unharmed()
}

fn receive_mode_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CTRL_VQ)?;
    // Promiscuous, all multicast; then those of `CTRL_RX_EXTRA`; then tables of addresses.
    for command in 0..=5 {
        is_refused(bench, 0, command, &[1])?;
    }
    is_refused(bench, 1, 0, &[0; 8])?;
    is_refused(bench, 1, 1, &[2, 0, 0, 0, 0, 9])?;
    bench.is_unharmed()
}

fn commands_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CTRL_VQ | CTRL_RX)?;
    // Of `CTRL_RX_EXTRA`; VLANs, announcements, queue pairs (too many, none), hashes, offloads, coalescing, statistics; no class at all.
    for command in 2..=5 {
        is_refused(bench, 0, command, &[1])?;
    }
    for (class, command) in
        [(2, 0), (2, 1), (3, 0), (4, 0), (4, 1), (4, 2), (5, 0), (6, 0), (6, 3), (7, 0), (8, 0), (255, 255)]
    {
        is_refused(bench, class, command, &[0xff; 16])?;
        is_refused(bench, class, command, &[0; 2])?;
    }
    bench.is_unharmed()
}

fn addresses_malformed(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CTRL_VQ | CTRL_RX)?;
    // A table without a second one; tables with fewer addresses than they say, far more, and with something behind them.
    let tables: [&[u8]; 6] = [
        &[0, 0, 0, 0],
        &[1, 0, 0, 0, 2, 0, 0],
        &[0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 0, 0, 0, 0],
        &[0, 0, 0, 0, 0xff, 0xff, 0xff, 0x7f],
        &[0, 0, 0, 0, 0, 0, 0, 0, 0],
        &[0xab, 0xaa, 0xaa, 0x2a, 0, 0, 0, 0],
    ];
    for data in tables {
        is_refused(bench, 1, 0, data)?;
    }
    bench.is_unharmed()
}

fn command_truncated(bench: &mut Bench<'_>) -> Verdict {
    bench.start(CTRL_VQ | CTRL_RX)?;
    let (at, answer) = (buffer(5), buffer(6));
    arena::put(at, &[0, 0, 1]);
    // Half an order, none, one without data, with a value that is neither on nor off, and one without room for the answer.
    for length in [0, 1, 2] {
        bench.device.send(CONTROL, &[Part::readable(at, length), Part::writable(answer, 1)]);
        bench.device.wait(CONTROL)?;
        let answer = arena::read(answer, Width::Byte);
        ensure(answer == ERR, "the device does not refuse, but says", answer)?;
    }
    is_refused(bench, 0, 0, &[2])?;
    is_refused(bench, 0, 0, &[1, 1])?;
    bench.device.send(CONTROL, &[Part::readable(at, 3)]);
    bench.device.wait(CONTROL)?;
    bench.is_unharmed()
}
