//! Rules for consoles (virtio 1.3, 5.3).

use guest_rt::exceptions::catch;
use guest_rt::mmio::Width;

use super::arena::{self, buffer};
use super::driver::{Bench, DATA, Kind, RECEIVE, TRANSMIT};
use super::ring::Part;
use super::{Case, Verdict, ensure};

pub(super) const CASES: &[Case] = &[
    Case::new("console-readable-in-receiveq", Kind::Console, readable_in_receiveq),
    Case::new("console-writable-in-transmitq", Kind::Console, writable_in_transmitq),
    Case::new("console-multiport-unnegotiated", Kind::Console, multiport_unnegotiated),
    Case::new("console-device-not-ready", Kind::Console, device_not_ready),
    Case::new("console-messages-of-no-port", Kind::Console, messages_of_no_port),
    Case::new("console-message-too-short", Kind::Console, message_too_short),
    Case::new("console-no-room-for-messages", Kind::Console, no_room_for_messages),
    Case::new("console-emergency-anyhow", Kind::Console, emergency_anyhow),
];

/// `VIRTIO_CONSOLE_F_MULTIPORT`, the control queues, and the first ones of the second port (5.3.2).
const MULTIPORT: u64 = 1 << 1;
const CONTROL_RECEIVE: usize = 2;
const CONTROL_TRANSMIT: usize = 3;
const SECOND_RECEIVE: usize = 4;

/// Messages (5.3.6.2).
const DEVICE_READY: u16 = 0;
const DEVICE_ADD: u16 = 1;
const DEVICE_REMOVE: u16 = 2;
const PORT_READY: u16 = 3;
const CONSOLE_PORT: u16 = 4;
const RESIZE: u16 = 5;
const PORT_OPEN: u16 = 6;
const PORT_NAME: u16 = 7;

/// Says something, as long as it is or shorter.
fn say(bench: &mut Bench<'_>, (port, event, value): (u32, u16, u16), length: u32) -> Verdict {
    let at = buffer(5);
    arena::write(at, Width::Doubleword, u64::from(port) | u64::from(event) << 32 | u64::from(value) << 48);
    bench.device.send(CONTROL_TRANSMIT, &[Part::readable(at, length)]);
    bench.device.wait(CONTROL_TRANSMIT).map(|_| ())
}

fn readable_in_receiveq(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    arena::fill(DATA..DATA + 64, b'?');
    for _ in 0..4 {
        bench.device.send(RECEIVE, &[Part::readable(DATA, 64)]);
        bench.device.send(RECEIVE, &[Part::readable(DATA, 64), Part::writable(DATA + 64, 1)]);
    }
    bench.is_unharmed()
}

fn writable_in_transmitq(bench: &mut Bench<'_>) -> Verdict {
    bench.start(0)?;
    bench.device.send(TRANSMIT, &[Part::writable(DATA, 64)]);
    let written = bench.device.wait(TRANSMIT)?;
    ensure(written == 0, "the device has written to a buffer for output: bytes", written)?;
    arena::put(DATA + 128, b"-\n");
    bench.device.send(TRANSMIT, &[Part::readable(DATA + 128, 2), Part::writable(DATA, 64)]);
    bench.device.wait(TRANSMIT)?;
    bench.is_unharmed()
}

fn multiport_unnegotiated(bench: &mut Bench<'_>) -> Verdict {
    bench.device.negotiate(0)?;
    for queue in 0..6 {
        bench.device.lay(queue, super::driver::ENTRIES);
        bench.device.enable(queue);
    }
    bench.device.go();
    bench.device.send(CONTROL_RECEIVE, &[Part::writable(DATA, 64)]);
    let at = buffer(5);
    arena::write(at, Width::Doubleword, 1 << 48);
    bench.device.send(CONTROL_TRANSMIT, &[Part::readable(at, 8)]);
    bench.device.is_quiet(CONTROL_RECEIVE)?;
    bench.device.is_quiet(CONTROL_TRANSMIT)?;
    bench.is_unharmed()
}

fn device_not_ready(bench: &mut Bench<'_>) -> Verdict {
    bench.start(MULTIPORT)?;
    for _ in 0..4 {
        bench.device.send(CONTROL_RECEIVE, &[Part::writable(DATA, 64)]);
    }
    // Ports are ready and open, of which the driver has not been told.
    for port in [0, 1] {
        say(bench, (port, PORT_READY, 1), 8)?;
        say(bench, (port, PORT_OPEN, 1), 8)?;
    }
    bench.device.is_quiet(CONTROL_RECEIVE)?;
    bench.is_unharmed()
}

fn messages_of_no_port(bench: &mut Bench<'_>) -> Verdict {
    bench.start(MULTIPORT)?;
    say(bench, (0, DEVICE_READY, 1), 8)?;
    for port in [0, 1, 2, 15, 0x8000_0000, u32::MAX] {
        for event in [DEVICE_ADD, DEVICE_REMOVE, CONSOLE_PORT, RESIZE, PORT_NAME, 8, 0xffff] {
            say(bench, (port, event, 1), 8)?;
        }
        for value in [0, 1, 2, 0xffff] {
            say(bench, (port, PORT_OPEN, value), 8)?;
            say(bench, (port, PORT_READY, value), 8)?;
            say(bench, (port, DEVICE_READY, value), 8)?;
        }
    }
    bench.device.send(SECOND_RECEIVE, &[Part::readable(DATA, 8)]);
    bench.is_unharmed()
}

fn message_too_short(bench: &mut Bench<'_>) -> Verdict {
    bench.start(MULTIPORT)?;
    for length in [0, 1, 4, 7] {
        say(bench, (0, DEVICE_READY, 1), length)?;
    }
    bench.device.send(CONTROL_TRANSMIT, &[Part::writable(DATA, 8)]);
    bench.device.wait(CONTROL_TRANSMIT)?;
    say(bench, (0, DEVICE_READY, 1), 0xe00)?;
    bench.is_unharmed()
}

fn no_room_for_messages(bench: &mut Bench<'_>) -> Verdict {
    bench.start(MULTIPORT)?;
    for length in [0, 1, 7] {
        bench.device.send(CONTROL_RECEIVE, &[Part::writable(DATA, length)]);
    }
    bench.device.send(CONTROL_RECEIVE, &[Part::readable(DATA, 64)]);
    say(bench, (0, DEVICE_READY, 1), 8)?;
    // And never any room again, whatever there is to say.
    for port in [0, 1] {
        say(bench, (port, PORT_READY, 1), 8)?;
        say(bench, (port, PORT_OPEN, 1), 8)?;
    }
    bench.is_unharmed()
}

fn emergency_anyhow(bench: &mut Bench<'_>) -> Verdict {
    const EMERG_WR: usize = 8;
    bench.start(0)?;
    let configuration = bench.device.transport.configuration();
    for width in Width::ALL {
        catch(|| configuration.write_width(EMERG_WR, width, u64::from(b'\n')));
        catch(|| configuration.read_width(EMERG_WR, width));
    }
    for offset in [0, 4] {
        catch(|| configuration.write(offset, u32::MAX));
    }
    let ports = configuration.read(4);
    ensure((1..=16).contains(&ports), "the device has so many ports", ports)?;
    bench.is_unharmed()
}
