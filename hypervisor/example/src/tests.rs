//! A driver's conversation with the alarm clock, on a PC.

use super::*;
use vdev::testkit::{Rig, Wires};

const TIME: u64 = 0x0;
const RINGS: u64 = 0x4;
const MILLISECOND: u64 = 1_000_000;

fn alarm(options: &[(&str, Option<&str>)]) -> Rig {
    Rig::new(&FACTORY, options, &mut Wires::default()).unwrap()
}

#[test]
fn it_rings_when_it_is_time_and_until_it_is_silenced() {
    let mut rig = alarm(&[]);
    rig.write(TIME, 250);
    rig.pass(249 * MILLISECOND);
    assert_eq!((rig.read(TIME), rig.read(RINGS), rig.line()), (1, 0, false));
    rig.pass(MILLISECOND);
    assert_eq!((rig.read(TIME), rig.read(RINGS), rig.line()), (0, 1, true));
    rig.write(RINGS, 0);
    assert!(rig.line(), "only a one silences it");
    rig.write(RINGS, 1);
    assert_eq!((rig.read(RINGS), rig.line()), (0, false));
    assert_eq!(rig.pass(1000 * MILLISECOND), 0, "it rings once");
}

#[test]
fn a_guest_can_change_its_mind_but_not_sleep_for_ever() {
    let mut rig = alarm(&[("longest", Some("500"))]);
    rig.write(TIME, 100);
    rig.write(TIME, 0);
    assert_eq!(rig.pass(1000 * MILLISECOND), 0);
    rig.write(TIME, u64::from(u32::MAX));
    assert_eq!(rig.read(TIME), 500);
    rig.control(Control::Reset).unwrap();
    assert_eq!((rig.read(TIME), rig.pass(1000 * MILLISECOND)), (0, 0));
}

#[test]
fn the_bell_rings_at_the_back_end() {
    let mut wires = Wires::default();
    let bell = wires.wire("bell");
    let mut rig = Rig::new(&FACTORY, &[("hostdev", Some(">bell"))], &mut wires).unwrap();
    rig.write(TIME, 1);
    rig.pass(MILLISECOND);
    assert_eq!((bell.take_output(), rig.take_effects().has_output()), (b"\x07".to_vec(), true));
}

#[test]
fn mistakes_of_a_configuration_are_told() {
    let said = |words: &[(&str, Option<&str>)]| {
        Rig::new(&FACTORY, words, &mut Wires::default()).unwrap_err().remove(0).message
    };
    assert_eq!(said(&[("longest", Some("0"))]), "`longest 0`: must be from 1 to 86400000");
    assert_eq!(said(&[("hostdev", Some(">gong"))]), "there is no back end `gong`");
}

#[test]
fn a_guest_finds_it_in_its_tree_and_an_operator_in_the_report() {
    let mut rig = alarm(&[]);
    let tree = rig.describe();
    assert!(tree.contains("alarm@1c090000") && tree.contains(r#"compatible = "example,alarm""#), "{tree}");
    rig.write(TIME, 20);
    assert_eq!(rig.status(), "device: is silent, 20 ms to go\n");
}

#[test]
fn there_is_nothing_beyond_the_registers() {
    let mut rig = alarm(&[]);
    assert_eq!(rig.try_read(8, AccessSize::Word), Err(AccessFault::Unsupported));
    assert_eq!(rig.try_write(8, AccessSize::Word, 1), Err(AccessFault::Unsupported));
    assert_eq!(rig.try_read(TIME, AccessSize::Byte), Err(AccessFault::Size), "the bus lets no others through");
}
