//! Every device with registers of its own: whatever a guest reads and writes there, and whatever its back end does
//! meanwhile, the device answers, its interrupt is what its registers say, and what it was given is passed on.

#![no_main]

use libfuzzer_sys::fuzz_target;
use types::AccessSize;
use vdev::testkit::{Rig, Wire, Wires};
use vdev::{Control, Factory, Wake};

const DR: u64 = 0x00;
const FR: u64 = 0x18;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;

/// What a device cannot be made without.
fn needed(factory: &Factory) -> &'static [(&'static str, Option<&'static str>)] {
    match factory.name {
        "watch" => &[("vm", Some("neighbour"))],
        _ => &[],
    }
}

fuzz_target!(|data: &[u8]| {
    let Some((&which, calls)) = data.split_first() else { return };
    let with_registers: Vec<&'static Factory> =
        vdevs::CATALOGUE.iter().copied().filter(|factory| factory.region_size != 0).collect();
    let factory = with_registers[usize::from(which) % with_registers.len()];
    let mut wires = Wires::default();
    let wire = wires.wire("-");
    let mut rig = Rig::new(factory, needed(factory), &mut wires).expect("nothing else is needed");
    for call in calls.chunks_exact(4) {
        drive(&mut rig, &wire, factory, call);
        if factory.name == "pl011" {
            check_pl011(&mut rig);
        }
    }
});

fn drive(rig: &mut Rig, wire: &Wire, factory: &Factory, call: &[u8]) {
    let size = AccessSize::from_sas(u64::from(call[0]));
    // A device's registers, or something beyond either end of them.
    let offset = u64::from(u16::from_le_bytes([call[1], call[2]])) % (factory.region_size + 16);
    let value = u64::from(call[3]) * 0x0101_0101_0101_0101;
    match call[0] >> 2 & 7 {
        0 | 1 => drop(rig.try_write(offset, size, value)),
        2 | 3 => drop(rig.try_read(offset, size)),
        // The low registers are where things happen.
        4 => drop(rig.try_write(offset & 0x4c, AccessSize::Halfword, u64::from(call[2]) << 8 | u64::from(call[3]))),
        5 => wire.type_in(&call[1..]),
        6 => {
            wire.set_space((call[1] & 1 == 0).then_some(usize::from(call[2])));
            rig.wake();
        }
        _ => match call[1] & 7 {
            0 => rig.control(Control::Reset).expect("a reset cannot fail"),
            1 => assert!(!rig.status().is_empty()),
            2 => rig.wake_for(Wake::VmLives),
            3 => rig.wake_for(Wake::VmEnded { code: call[2] }),
            _ => rig.wake(),
        },
    }
    assert!(rig.effects.stop().is_none(), "no guest can make this device end its VM");
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
