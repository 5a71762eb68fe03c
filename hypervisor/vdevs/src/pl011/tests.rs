//! A test for each sentence of DDI 0183 that the chip follows; whole conversations are in `drivers`.

use super::FACTORY;
use alloc::{vec, vec::Vec};
use types::AccessSize;
use vdev::{
    AccessFault, Control, Node,
    testkit::{Rig, Wire, Wires},
};

mod batching;
mod drivers;

const DR: u64 = 0x00;
const RSR: u64 = 0x04;
const FR: u64 = 0x18;
const LCR_H: u64 = 0x2c;
const CR: u64 = 0x30;
const IFLS: u64 = 0x34;
const IMSC: u64 = 0x38;
const RIS: u64 = 0x3c;
const MIS: u64 = 0x40;
const ICR: u64 = 0x44;

const BUSY: u64 = 1 << 3;
const RXFE: u64 = 1 << 4;
const TXFF: u64 = 1 << 5;
const RXFF: u64 = 1 << 6;
const TXFE: u64 = 1 << 7;

const RX: u64 = 1 << 4;
const TX: u64 = 1 << 5;
const RT: u64 = 1 << 6;
const BE: u64 = 1 << 9;
const OE: u64 = 1 << 10;

const ENABLED: u64 = 0x301;
const LOOPBACK: u64 = ENABLED | 1 << 7;

fn uart() -> (Rig, Wire) {
    let mut wires = Wires::default();
    let console = wires.wire("-");
    (Rig::new(&FACTORY, &[], &mut wires).unwrap(), console)
}

/// As a driver leaves it after its set-up: FIFOs on, enabled.
fn running() -> (Rig, Wire) {
    let (mut rig, wire) = uart();
    rig.write(LCR_H, 0x70);
    rig.write(CR, ENABLED);
    (rig, wire)
}

#[test]
fn reset_values_are_the_manuals() {
    let (mut rig, _) = uart();
    for (offset, value) in
        [(RSR, 0), (0x20, 0), (0x24, 0), (0x28, 0), (LCR_H, 0), (CR, 0x301), (IFLS, 0x12), (IMSC, 0), (RIS, 0)]
    {
        assert_eq!(rig.read(offset), value, "{offset:#x}");
    }
    // Empty both ways, and somebody at the other end.
    assert_eq!(rig.read(FR), TXFE | RXFE | 7);
    rig.write(IMSC, 0x7ff);
    rig.write(DR, 0);
    assert!(rig.line());
    rig.control(Control::Reset).unwrap();
    assert!(!rig.line());
    assert_eq!(rig.read(IMSC), 0);
}

#[test]
fn registers_keep_the_bits_they_have() {
    let (mut rig, _) = uart();
    for (offset, bits) in [
        (0x20, 0xff),
        (0x24, 0xffff),
        (0x28, 0x3f),
        (LCR_H, 0xff),
        (CR, 0xff87),
        (IFLS, 0x3f),
        (IMSC, 0x7ff),
        (0x48, 7),
    ] {
        rig.write(offset, 0xffff_ffff);
        assert_eq!(rig.read(offset), bits, "{offset:#x}");
        rig.write(offset, 0);
        assert_eq!(rig.read(offset), 0, "{offset:#x}");
    }
}

#[test]
#[cfg_attr(miri, ignore = "thousands of accesses take Miri long")]
fn every_offset_answers_in_every_size_the_part_has() {
    let (mut rig, _) = uart();
    for size in [AccessSize::Byte, AccessSize::Halfword, AccessSize::Word] {
        for offset in (0..0x1000).step_by(usize::try_from(size.bytes()).unwrap()) {
            assert!(rig.try_read(offset, size).is_ok());
            assert!(rig.try_write(offset, size, 0xa5a5_a5a5).is_ok());
        }
    }
    assert_eq!(rig.try_read(0xff8, AccessSize::Doubleword), Err(AccessFault::Size));
    // Reserved, the test registers, read-only ones, and lanes above the first.
    for offset in [0x08, 0x1c, 0x4c, 0x80, 0x84, 0x88, 0x8c, 0xfdc] {
        assert_eq!(rig.read(offset), 0, "{offset:#x}");
    }
    assert_eq!(rig.try_read(0xfe1, AccessSize::Byte), Ok(0));
    assert_eq!(rig.read(0xfe0), 0x11);
    assert_eq!(rig.try_read(IFLS, AccessSize::Byte), Ok(0x25));
}

#[test]
fn the_receive_interrupt_comes_at_the_selected_level_and_goes_below_it() {
    for (select, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28)] {
        let (mut rig, wire) = running();
        rig.write(IFLS, select << 3);
        wire.type_in(&vec![0; level - 1]);
        rig.wake();
        assert_eq!(rig.read(RIS) & RX, 0, "one below level {level}");
        wire.type_in(&[0]);
        rig.wake();
        assert_eq!(rig.read(RIS) & RX, RX, "at level {level}");
        rig.read(DR);
        assert_eq!(rig.read(RIS) & RX, 0, "below level {level} again");
    }
}

#[test]
fn the_transmit_interrupt_comes_when_the_fifo_falls_to_its_level_and_not_before_anything_was_sent() {
    for (select, level) in [(0, 4), (1, 8), (2, 16), (3, 24), (4, 28)] {
        let (mut rig, wire) = running();
        rig.write(IFLS, select);
        assert_eq!(rig.read(RIS) & TX, 0);
        wire.set_space(Some(0));
        for _ in 0..32 {
            rig.write(DR, 0);
        }
        assert_eq!(rig.read(RIS) & TX, 0);
        wire.set_space(Some(31 - level));
        rig.wake();
        assert_eq!(rig.read(RIS) & TX, 0, "one above level {level}");
        wire.set_space(Some(1));
        rig.wake();
        assert_eq!(rig.read(RIS) & TX, TX, "at level {level}");
        rig.write(DR, 0);
        assert_eq!(rig.read(RIS) & TX, 0, "written above level {level}");
    }
}

#[test]
fn without_fifos_there_is_room_for_one() {
    let (mut rig, wire) = running();
    rig.write(LCR_H, 0x60);
    wire.type_in(b"ab");
    rig.wake();
    assert_eq!(rig.read(FR) & (RXFF | RXFE), RXFF);
    assert_eq!(rig.read(RIS) & RX, RX);
    assert_eq!(rig.read(DR), u64::from(b'a'));
    assert_eq!(rig.read(DR), u64::from(b'b'), "the second waited in the back end");
    assert_eq!(rig.read(FR) & RXFE, RXFE);
    wire.set_space(Some(0));
    rig.write(DR, 1);
    assert_eq!(rig.read(FR) & (TXFF | TXFE), TXFF);
}

#[test]
fn the_receive_timeout_shows_what_is_below_the_level_until_the_fifo_is_empty() {
    let (mut rig, wire) = running();
    rig.write(IMSC, RT);
    wire.type_in(b"ab");
    rig.wake();
    assert!(rig.line());
    assert_eq!(rig.read(MIS), RT);
    rig.read(DR);
    assert!(rig.line());
    rig.read(DR);
    assert!(!rig.line());
}

#[test]
fn the_clear_register_clears_interrupts_and_reads_as_zero() {
    let (mut rig, wire) = running();
    rig.write(IMSC, 0x7ff);
    rig.write(DR, 0);
    wire.type_in(b"x");
    rig.wake();
    assert_eq!(rig.read(MIS), TX | RT);
    rig.write(ICR, TX);
    assert_eq!(rig.read(MIS), RT);
    rig.write(ICR, RT);
    assert!(!rig.line());
    assert_eq!(rig.read(ICR), 0);
    assert_eq!(rig.read(FR) & RXFE, 0, "the character is still there");
}

#[test]
fn the_line_is_told_only_when_it_changes() {
    let (mut rig, _) = running();
    rig.write(IMSC, TX);
    for _ in 0..5 {
        rig.write(DR, 0);
    }
    rig.write(ICR, TX);
    rig.read(FR);
    assert_eq!(rig.lines.take_events(), [(Rig::LINE, true), (Rig::LINE, false)]);
}

#[test]
fn what_is_written_to_a_stopped_transmitter_waits_for_it() {
    let (mut rig, wire) = running();
    rig.write(CR, 0x200);
    rig.write(DR, u64::from(b'a'));
    assert_eq!(wire.take_output(), b"");
    assert_eq!(rig.read(FR) & (TXFE | BUSY), BUSY);
    assert!(!rig.take_effects().has_output());
    rig.write(CR, ENABLED);
    assert_eq!(wire.take_output(), b"a");
    assert!(rig.take_effects().has_output());
}

#[test]
fn turning_the_fifos_off_flushes_a_stopped_transmitter_and_the_receiver() {
    let (mut rig, wire) = running();
    wire.type_in(b"in");
    rig.wake();
    rig.write(CR, 0);
    rig.write(DR, u64::from(b'x'));
    rig.write(LCR_H, 0x60);
    assert_eq!(rig.read(FR) & (RXFE | TXFE), RXFE | TXFE);
    rig.write(LCR_H, 0x70);
    rig.write(CR, ENABLED);
    assert_eq!(wire.take_output(), b"");
}

#[test]
fn what_only_waits_for_the_back_end_survives_the_flush() {
    let (mut rig, wire) = running();
    wire.set_space(Some(0));
    rig.write(DR, u64::from(b'a'));
    rig.write(DR, u64::from(b'b'));
    rig.write(LCR_H, 0x60);
    wire.set_space(None);
    rig.wake();
    assert_eq!(wire.take_output(), b"ab");
}

#[test]
fn a_stopped_receiver_leaves_input_where_it_is() {
    let (mut rig, wire) = running();
    rig.write(CR, 0x101);
    wire.type_in(b"x");
    rig.wake();
    assert_eq!((rig.read(FR) & RXFE, wire.unread()), (RXFE, 1));
    rig.write(CR, ENABLED);
    assert_eq!(rig.read(DR), u64::from(b'x'));
}

#[test]
fn input_that_was_there_before_the_guest_is_there_for_it() {
    let (mut rig, wire) = uart();
    wire.type_in(b"x");
    rig.control(Control::GuestStarting).unwrap();
    assert_eq!(rig.read(FR) & RXFE, 0);
}

#[test]
fn in_the_loop_what_is_sent_is_received_and_nothing_leaves() {
    let (mut rig, wire) = running();
    rig.write(CR, LOOPBACK);
    wire.type_in(b"outside");
    rig.wake();
    for byte in b"inside" {
        rig.write(DR, u64::from(*byte));
    }
    let received: Vec<u64> = (0..6).map(|_| rig.read(DR)).collect();
    assert!(received.iter().copied().eq(b"inside".iter().map(|byte| u64::from(*byte))));
    assert_eq!((rig.read(FR) & RXFE, wire.take_output()), (RXFE, Vec::new()));
    rig.write(CR, ENABLED);
    assert_eq!(rig.read(DR), u64::from(b'o'), "what came from outside meanwhile was not lost");
}

#[test]
fn one_too_many_in_the_loop_is_an_overrun_until_it_is_cleared() {
    let (mut rig, _) = running();
    rig.write(CR, LOOPBACK);
    for n in 0..33 {
        rig.write(DR, n);
    }
    assert_eq!(rig.read(FR) & RXFF, RXFF);
    assert_eq!(rig.read(RIS) & OE, OE);
    assert_eq!(rig.read(DR), 1 << 11, "overrun, and the first character");
    assert_eq!(rig.read(RSR), 1 << 3);
    rig.write(DR, 99);
    assert_eq!(rig.read(DR), 1, "cleared by the next character that finds room");
    assert_eq!(rig.read(RSR), 1 << 3, "RSR keeps it");
    rig.write(RSR, 0);
    assert_eq!(rig.read(RSR), 0);
}

#[test]
fn a_break_in_the_loop_is_one_zero_character_with_the_break_bit() {
    let (mut rig, _) = running();
    rig.write(CR, LOOPBACK);
    rig.write(LCR_H, 0x71);
    rig.write(LCR_H, 0x71);
    assert_eq!(rig.read(RIS) & BE, BE);
    assert_eq!(rig.read(DR), 1 << 10);
    assert_eq!(rig.read(RSR), 1 << 2);
    assert_eq!(rig.read(FR) & RXFE, RXFE);
    rig.write(DR, 5);
    assert_eq!((rig.read(DR), rig.read(RSR)), (5, 0), "RSR belongs to the character read last");
}

#[test]
fn in_the_loop_the_modem_inputs_are_the_modem_outputs() {
    let (mut rig, _) = running();
    let inputs = 1 << 8 | 7;
    rig.write(ICR, 0x7ff);
    rig.write(CR, LOOPBACK);
    assert_eq!(rig.read(FR) & inputs, 0);
    assert_eq!(rig.read(RIS) & 0xf, 0b1110, "CTS, DCD and DSR have changed");
    for (output, input) in [(10, 1), (11, 0), (12, 2), (13, 8)] {
        rig.write(CR, LOOPBACK | 1 << output);
        assert_eq!(rig.read(FR) & inputs, 1 << input);
    }
}

#[test]
fn a_byte_without_room_is_counted_as_lost() {
    let (mut rig, wire) = running();
    wire.set_space(Some(0));
    for _ in 0..40 {
        rig.write(DR, 0);
    }
    assert!(rig.status().contains("32 to send, 0 received"), "{}", rig.status());
    assert!(rig.status().contains("8 lost"), "{}", rig.status());
}

#[test]
fn it_describes_itself_as_linux_wants_it() {
    let (rig, _) = uart();
    let tree = rig.describe();
    let clocks = alloc::format!("clocks = <{clock:#04x} {clock:#04x}>;", clock = Node::APB_CLOCK);
    for line in [
        "serial@1c090000 {",
        r#"compatible = "arm,pl011", "arm,primecell";"#,
        "reg = <0x00 0x1c090000 0x00 0x1000>;",
        "interrupts = <0x00 0x05 0x04>;",
        &clocks,
        r#"clock-names = "uartclk", "apb_pclk";"#,
    ] {
        assert!(tree.contains(line), "{line} is not in {tree}");
    }
}
