//! Every device of the catalogue: whatever a guest reads and writes there, whatever its back end does and however much time
//! passes meanwhile, the device answers, its interrupt is what its registers say, its timers are few, and what it was given is
//! passed on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use types::{AccessSize, Ipa, Ticks};
use vdev::testkit::{Rig, Shared, Wire, Wires};
use vdev::{Cause, Control, Factory, FactoryFlags, GuestMemory, RegionError, Wake};

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;

/// Pages of RAM that a balloon has.
const PAGES: u64 = 16;

/// What a device is made with: what it cannot do without, and of what changes it most, what `choice` selects.
fn options(factory: &Factory, choice: u8) -> Vec<(&'static str, Option<&'static str>)> {
    let of = |name: &'static str, values: &[&'static str]| {
        let value = values.get(usize::from(choice) % (values.len() + 1));
        value.map(|value| (name, Some(*value)))
    };
    let chosen = match factory.name {
        "virtio-console" if choice & 0x80 != 0 => return vec![("legacy", None)],
        "virtio-console" if choice & 1 != 0 => return vec![("tx-backpressure", None), ("port", Some("agent,-"))],
        "virtio-balloon" if choice & 1 != 0 => return vec![("lend", None)],
        "virtio-balloon" if choice & 0x80 != 0 => return vec![("legacy", None)],
        "virtio-entropy" if choice & 0x80 != 0 => return vec![("legacy", None)],
        "virtio-blk" if choice & 0x80 != 0 => return vec![("hostdev", Some("disk")), ("legacy", None)],
        "virtio-9p" if choice & 0x80 != 0 => return vec![("hostdev", Some("share")), ("tag", Some("t")), ("legacy", None)],
        "virtio-9p" => return vec![("hostdev", Some("share")), ("tag", Some("t"))],
        "virtio-input" if choice & 0x80 != 0 => return vec![("legacy", None)],
        "virtio-blk" => return vec![("hostdev", Some(if choice & 1 != 0 { "<disk" } else { "disk" }))],
        "watch" => return vec![("vm", Some("neighbour"))],
        "pl011" => of("batch", &["1", "60000000"]),
        "ser8250" => of("reg-shift", &["2"]),
        "wdt-sp805" if choice & 0x80 != 0 => of("action", &["fiq"]),
        "wdt-sp805" => of("frequency", &["1000", "1000000000"]),
        _ => None,
    };
    chosen.into_iter().collect()
}

fuzz_target!(|data: &[u8]| {
    let Some(([which, choice], calls)) = data.split_first_chunk() else { return };
    // The interrupt controller and the host bridge are made elsewhere; what is on the PCI bus only, that one's target has; there are
    // no networks and sockets here; `quiesce` is a list of steps for the host, and nothing to a guest.
    let on_a_bus = |factory: &&'static Factory| {
        let is_elsewhere = factory.flags.intersects(FactoryFlags::PIC | FactoryFlags::PCI_HOST) || matches!(factory.name, "virtio-net" | "virtio-vsock" | "quiesce");
        (factory.flags.contains(FactoryFlags::LOC_MEM) || factory.flags.contains(FactoryFlags::LOC_FORBIDDEN)) && !is_elsewhere
    };
    let factories: Vec<&'static Factory> = vdevs::CATALOGUE.iter().copied().filter(on_a_bus).collect();
    let factory = factories[usize::from(*which) % factories.len()];
    let mut wires = Wires::default();
    let wire = wires.wire("-");
    wires.entropy = Some(|| Some(0x0123_4567_89ab_cdef));
    wires.pages.set(Ipa(RAM), PAGES);
    wires.disk.fill(&[0x5a; 64 * 512]);
    wires.files = vec![("f", b"content")];
    let mut rig = Rig::new(factory, &options(factory, *choice), &mut wires).expect("nothing else is needed");
    for call in calls.chunks_exact(4) {
        drive(&mut rig, &wire, factory, call);
        rig.work(&wires.crew);
        if factory.name == "pl011" {
            check_pl011(&mut rig);
        }
        if factory.name == "virtio-balloon" {
            // Never a page that is no RAM of the guest's.
            assert!(wires.pages.gone().iter().all(|page| *page < PAGES));
            wires.pages.want(u64::from(call[1]) % (PAGES + 1));
        }
        if factory.name == "shmem" {
            share(&mut rig, &wires.shared, call);
        }
    }
});

fn drive(rig: &mut Rig, wire: &Wire, factory: &Factory, call: &[u8]) {
    let size = AccessSize::from_sas(u64::from(call[0]));
    // A device's registers, or something beyond either end of them.
    let mut offset = u64::from(u16::from_le_bytes([call[1], call[2]])) % (factory.region_size + 16);
    if factory.name == "cfi-flash" {
        offset *= 16;
    }
    let value = u64::from(call[3]) * 0x0101_0101_0101_0101;
    match call[0] >> 2 & 7 {
        0 | 1 => drop(rig.try_write(offset, size, value)),
        2 | 3 => drop(rig.try_read(offset, size)),
        // The low registers are where things happen.
        4 if factory.name == "ser8250" => drop(rig.try_write(offset & 0x1f, AccessSize::Byte, u64::from(call[3]))),
        // A command, of those that there are.
        4 if factory.name == "cfi-flash" => {
            const COMMANDS: [u8; 8] = [0x20, 0xd0, 0x40, 0xe8, 0x00, 0x70, 0x50, 0xff];
            let command = COMMANDS[usize::from(call[3] & 7)];
            let _ = rig.try_write(offset & !3, AccessSize::Word, command.into());
        }
        // The driver of a virtio device comes, or writes into its queue.
        4 if factory.name.starts_with("virtio-") && call[1] & 7 == 0 && rig.read(4) == 2 => start_virtio(rig, call[2]),
        4 if factory.name.starts_with("virtio-") => {
            let at = u64::from(u16::from_le_bytes([call[1], call[2]])) & 0xfff;
            rig.ram.write(Ipa(RAM + at), &call[3..]).expect("it is within");
        }
        4 => drop(rig.try_write(offset & 0x4c, AccessSize::Word, u64::from(call[2]) << 8 | u64::from(call[3]))),
        5 => wire.type_in(&call[1..]),
        6 => {
            wire.set_space((call[1] & 1 == 0).then_some(usize::from(call[2])));
            rig.wake();
        }
        _ => match call[1] & 7 {
            0 => rig.control(Control::Reset).expect("a reset cannot fail"),
            1 => assert!(!rig.status().is_empty()),
            2 => rig.wake_for(Wake::VmLives),
            3 if factory.name == "virtio-input" => {
                let mut handled = false;
                rig.control(Control::Button { handled: &mut handled }).expect("it is pressed or not");
            }
            3 => rig.wake_for(Wake::VmEnded { code: call[2] }),
            // A wake that comes late, or for no reason.
            4 => rig.now = rig.now.saturating_add(Ticks(1 << (call[2] % 40))),
            5 => rig.wake_for(Wake::Timer(call[2] % 5)),
            _ => {
                let wakes = rig.pass(1 << (call[2] % 36));
                // No device has a thread of its VM wake up for it all the time because a guest wrote something.
                assert!(wakes < 10_000, "{wakes} wakes in {} ns", 1_u64 << (call[2] % 36));
            }
        },
    }
    let ends = rig.take_effects().stop();
    let bitten = factory.name == "wdt-sp805" && ends == Some(Cause::Watchdog);
    assert!(ends.is_none() || bitten, "no guest can make this device end its VM: {ends:?}");
}

/// Where a rig has its memory.
const RAM: u64 = 0x8000_0000;

/// As far as a virtio driver goes before its first request (virtio 1.3, 3.1.1, 4.2.3.2), with a queue of eight at the start of memory.
fn start_virtio(rig: &mut Rig, features: u8) {
    let [low, high] = [u64::from(features & 3) << 28, 1 | u64::from(features & 4)];
    let areas = [(0x80, RAM), (0x90, RAM + 0x80), (0xa0, RAM + 0xa0)];
    let steps =
        [(0x70, 0), (0x70, 3), (0x24, 0), (0x20, low), (0x24, 1), (0x20, high), (0x70, 11), (0x30, 0), (0x38, 8)];
    for (offset, value) in steps.into_iter().chain(areas).chain([(0x44, 1), (0x70, 15)]) {
        rig.write(offset, value);
    }
    assert_eq!(rig.read(0x70), 15);
}

/// What the host, other clients and the guest do with regions, besides what happens at the factory page.
fn share(rig: &mut Rig, shared: &Shared, call: &[u8]) {
    const FACTORY: u64 = 0x1000;
    const NAME: u64 = 0x1c;
    let size = AccessSize::from_sas(u64::from(call[0]));
    let at = FACTORY + u64::from(call[1] % 20) * Shared::SPACING + u64::from(call[2] & 0x1f);
    match call[3] & 7 {
        0 | 1 => drop(rig.try_read_at_window(at, size)),
        2 | 3 => drop(rig.try_write_at_window(at, size, u64::from(call[3] >> 3))),
        4 => shared.ring(usize::from(call[1] % 20), u32::from(call[2])),
        5 => drop(rig.try_write(NAME + u64::from(call[1] % 33), AccessSize::Byte, u64::from(b'a' | call[2] & 3))),
        _ => {
            let error = [RegionError::NoMemory, RegionError::TooManyClients, RegionError::Missing, RegionError::Failed];
            let result = if call[1] & 3 == 0 { Err(error[usize::from(call[2] & 3)]) } else { Ok(()) };
            let _wanted = shared.work(result);
            rig.wake();
        }
    }
    assert!(rig.take_effects().stop().is_none());
}

fn check_pl011(rig: &mut Rig) {
    let masked = rig.read(RIS) & rig.read(IMSC);
    assert_eq!(rig.read(MIS), masked);
    assert_eq!(rig.line(), masked != 0);
    let flags = rig.read(FR);
    let (receive_empty, transmit_full) = (flags >> 4 & 1, flags >> 5 & 1);
    let (receive_full, transmit_empty, busy) = (flags >> 6 & 1, flags >> 7 & 1, flags >> 3 & 1);
    assert!(receive_empty & receive_full == 0 && transmit_empty & transmit_full == 0);
    assert_ne!(transmit_empty, busy);
    assert!(rig.read(DR) <= 0xfff);
}
