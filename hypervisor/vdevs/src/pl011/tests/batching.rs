//! `batch`: output that is held back for a while and passed on in one piece.

use super::*;

fn batching(microseconds: &str) -> (Rig, Wire) {
    let mut wires = Wires::default();
    let console = wires.wire("-");
    (Rig::new(&FACTORY, &[("batch", Some(microseconds))], &mut wires).unwrap(), console)
}

#[test]
fn a_batch_is_passed_on_when_nothing_has_come_for_a_while() {
    let (mut rig, wire) = batching("1000");
    for byte in b"hello" {
        rig.write(DR, u64::from(*byte));
        assert_eq!(rig.read(FR) & (TXFE | BUSY), TXFE, "the guest does not notice");
        rig.pass(900_000);
        assert_eq!(wire.take_output(), b"");
    }
    assert!(!rig.take_effects().has_output());
    rig.pass(99_000);
    assert_eq!(wire.take_output(), b"");
    rig.pass(2_000);
    assert_eq!(wire.take_output(), b"hello");
    assert!(rig.take_effects().has_output());
    assert_eq!(rig.pass(1_000_000_000), 0, "nothing is left to wait for");
}

#[test]
#[cfg_attr(miri, ignore = "a thousand characters take Miri long")]
fn a_batch_that_gets_too_long_is_passed_on_at_once() {
    let (mut rig, wire) = batching("60000000");
    for n in 0..1023_u64 {
        rig.write(DR, n & 0x7f);
    }
    assert_eq!(wire.take_output(), b"");
    rig.write(DR, 1);
    assert_eq!(wire.take_output().len(), 1024);
    assert!(rig.take_effects().has_output());
}

#[test]
#[cfg_attr(miri, ignore = "a thousand characters take Miri long")]
fn a_batch_waits_for_space_and_holds_back_the_driver() {
    let (mut rig, wire) = batching("1");
    wire.set_space(Some(3));
    for n in 0..1024_u64 {
        rig.write(DR, n & 0x7f);
    }
    rig.pass(1_000_000);
    assert_eq!(wire.take_output(), [0, 1, 2]);
    // Three more, and the FIFO of one character behind them.
    let written = (0..100).take_while(|_| rig.read(FR) & TXFF == 0 && rig.try_write(DR, AccessSize::Byte, 9).is_ok());
    assert_eq!(written.count(), 4);
    wire.set_space(None);
    rig.wake();
    rig.pass(1_000_000);
    assert_eq!(wire.take_output().len(), 1024 + 4 - 3);
    assert_eq!(rig.read(FR) & (TXFE | BUSY), TXFE);
}

#[test]
#[cfg_attr(miri, ignore = "a thousand characters take Miri long")]
fn a_full_batch_that_finds_space_waits_for_no_silence() {
    let (mut rig, wire) = batching("60000000");
    wire.set_space(Some(0));
    for n in 0..1024_u64 {
        rig.write(DR, n & 0x7f);
    }
    wire.set_space(None);
    rig.wake();
    assert_eq!(wire.take_output().len(), 1024);
}

#[test]
fn what_is_held_back_is_passed_on_at_the_end() {
    let (mut rig, wire) = batching("1000000");
    rig.write(DR, u64::from(b'x'));
    rig.control(Control::Terminate).unwrap();
    assert_eq!(wire.take_output(), b"x");
    // And what comes in is not held back.
    wire.type_in(b"y");
    rig.wake();
    assert_eq!(rig.read(DR), u64::from(b'y'));
}

#[test]
fn whoever_would_wait_for_a_back_end_has_it_at_once() {
    for time in ["0", "10", "forever"] {
        assert!(Rig::new(&FACTORY, &[("delayed", Some(time))], &mut Wires::default()).is_ok());
    }
    let errors = Rig::new(&FACTORY, &[("delayed", Some("soon"))], &mut Wires::default()).unwrap_err();
    assert_eq!(errors[0].message, "`delayed soon`: must be a number of seconds or `forever`");
}
