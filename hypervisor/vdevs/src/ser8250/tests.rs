//! Conversations with the device as drivers hold them, and a test for each sentence of the data sheet that the chip follows.

use super::FACTORY;
use alloc::vec::Vec;
use types::AccessSize::{self, Byte, Word};
use vdev::{
    AccessFault, Control,
    testkit::{Rig, Wire, Wires},
};

const DATA: u64 = 0;
const IER: u64 = 1;
const IIR: u64 = 2;
const FCR: u64 = 2;
const LCR: u64 = 3;
const MCR: u64 = 4;
const LSR: u64 = 5;
const MSR: u64 = 6;
const SCR: u64 = 7;

const RDI: u64 = 1 << 0;
const THRI: u64 = 1 << 1;
const RLSI: u64 = 1 << 2;
const MSI: u64 = 1 << 3;

const DR: u64 = 1 << 0;
const OE: u64 = 1 << 1;
const BI: u64 = 1 << 4;
const THRE: u64 = 1 << 5;
const EMPTY: u64 = 1 << 6 | THRE;

fn uart() -> (Rig, Wire) {
    let mut wires = Wires::default();
    let console = wires.wire("-");
    (Rig::new(&FACTORY, &[], &mut wires).unwrap(), console)
}

fn load(rig: &mut Rig, register: u64) -> u64 {
    rig.try_read(register, Byte).unwrap()
}

fn store(rig: &mut Rig, register: u64, value: u64) {
    rig.try_write(register, Byte, value).unwrap();
}

/// FIFOs on, with this trigger level, these interrupts enabled.
fn running(trigger: u64, enable: u64) -> (Rig, Wire) {
    let (mut rig, wire) = uart();
    store(&mut rig, FCR, 1 | trigger << 6);
    store(&mut rig, IER, enable);
    (rig, wire)
}

fn in_loop(enable: u64) -> (Rig, Wire) {
    let (mut rig, wire) = running(0, enable);
    store(&mut rig, MCR, 0x10);
    (rig, wire)
}

/// Linux's `8250`, reduced to its register accesses.
struct LinuxDriver {
    pending: Vec<u8>,
    received: Vec<u8>,
    enable: u64,
}

impl LinuxDriver {
    /// serial8250_do_startup, and set_termios.
    fn start(rig: &mut Rig) -> Self {
        for value in [1, 7, 0] {
            store(rig, FCR, value);
        }
        for register in [LSR, DATA, IIR, MSR] {
            load(rig, register);
        }
        assert_ne!(load(rig, LSR), 0xff, "nothing there");
        // The test for transmitters that do not interrupt again.
        assert_eq!(load(rig, LSR) & THRE, THRE);
        let enable_and_ask = |rig: &mut Rig| {
            store(rig, IER, THRI);
            let asserted = rig.line();
            let identification = load(rig, IIR);
            store(rig, IER, 0);
            (identification, asserted)
        };
        assert_eq!(enable_and_ask(rig), (2, true));
        assert_eq!(enable_and_ask(rig), (2, true), "not re-asserted: a timer would have to help");
        store(rig, LCR, 3);
        store(rig, MCR, 0xb);
        let (status, (identification, _)) = (load(rig, LSR), enable_and_ask(rig));
        assert!(
            status & 1 << 6 == 0 || identification & 1 == 0,
            "the transmitter does not interrupt when it is enabled"
        );
        store(rig, LCR, 0x83);
        store(rig, DATA, 1);
        store(rig, IER, 0);
        store(rig, LCR, 3);
        store(rig, FCR, 1);
        store(rig, FCR, 1 | 2 << 6);
        let enable = RDI | RLSI;
        store(rig, IER, enable);
        for register in [LSR, DATA, IIR, MSR] {
            load(rig, register);
        }
        Self { pending: Vec::new(), received: Vec::new(), enable }
    }

    fn write(&mut self, rig: &mut Rig, text: &[u8]) {
        self.pending.extend(text);
        self.enable |= THRI;
        store(rig, IER, self.enable);
    }

    fn interrupt(&mut self, rig: &mut Rig) {
        for _ in 0..256 {
            if load(rig, IIR) & 1 != 0 {
                return;
            }
            let mut status = load(rig, LSR);
            while status & (DR | BI) != 0 {
                self.received.push(load(rig, DATA).to_le_bytes()[0]);
                status = load(rig, LSR);
            }
            load(rig, MSR);
            if status & THRE != 0 && self.enable & THRI != 0 {
                for byte in self.pending.drain(..self.pending.len().min(16)) {
                    store(rig, DATA, u64::from(byte));
                }
                if self.pending.is_empty() {
                    self.enable &= !THRI;
                    store(rig, IER, self.enable);
                }
            }
        }
        panic!("the interrupt does not go away");
    }
}

#[test]
fn linux_loses_nothing_when_the_back_end_is_slow() {
    let (mut rig, wire) = uart();
    let mut driver = LinuxDriver::start(&mut rig);
    wire.set_space(Some(0));
    let text: Vec<u8> = (0..if cfg!(miri) { 100 } else { 1000_u32 }).map(|n| n.to_le_bytes()[0]).collect();
    driver.write(&mut rig, &text);
    let mut output = Vec::new();
    for round in 0.. {
        assert!(round < 1000, "no progress");
        if rig.line() {
            driver.interrupt(&mut rig);
        }
        output.extend(wire.take_output());
        if output.len() == text.len() {
            break;
        }
        wire.set_space(Some(7));
        rig.wake();
    }
    assert_eq!(output, text);
    assert!(!rig.line());
    assert!(rig.status().contains(", 0 lost"), "{}", rig.status());
}

#[test]
fn linux_reads_what_is_typed_to_the_last_character() {
    let (mut rig, wire) = uart();
    let mut driver = LinuxDriver::start(&mut rig);
    let text: Vec<u8> = (0..if cfg!(miri) { 90 } else { 500_u32 }).map(|n| n.to_le_bytes()[0]).collect();
    for part in [&text[..1], &text[1..40], &text[40..]] {
        wire.type_in(part);
        rig.wake();
        assert!(rig.line());
        driver.interrupt(&mut rig);
        assert!(!rig.line());
    }
    assert_eq!(driver.received, text);
}

#[test]
fn a_console_that_sets_nothing_up_prints_at_once() {
    let (mut rig, wire) = uart();
    for byte in b"early" {
        assert_eq!(load(&mut rig, LSR) & EMPTY, EMPTY);
        store(&mut rig, DATA, u64::from(*byte));
    }
    assert_eq!(wire.take_output(), b"early");
    assert!(rig.take_effects().has_output());
}

#[test]
fn reset_values_are_the_data_sheets() {
    let (mut rig, _) = uart();
    for (register, value) in [(IER, 0), (IIR, 1), (LCR, 0), (MCR, 0), (LSR, 0x60), (MSR, 0xb0), (DATA, 0)] {
        assert_eq!(load(&mut rig, register), value, "register {register}");
    }
    store(&mut rig, SCR, 0x5a);
    store(&mut rig, IER, THRI);
    assert!(rig.line());
    rig.control(Control::Reset).unwrap();
    assert_eq!((load(&mut rig, SCR), load(&mut rig, IER), rig.line()), (0, 0, false));
}

#[test]
fn registers_keep_the_bits_they_have() {
    let (mut rig, _) = uart();
    for (register, bits) in [(IER, 0xf), (MCR, 0x1f), (SCR, 0xff), (LCR, 0xff)] {
        store(&mut rig, register, 0xff);
        assert_eq!(load(&mut rig, register), bits, "register {register}");
        store(&mut rig, register, 0);
        assert_eq!(load(&mut rig, register), 0, "register {register}");
    }
    for register in [LSR, MSR] {
        let before = load(&mut rig, register) & 0xf0;
        store(&mut rig, register, 0);
        assert_eq!(load(&mut rig, register) & 0xf0, before, "register {register} is for reading");
    }
}

#[test]
fn the_divisor_latch_is_behind_its_bit() {
    let (mut rig, wire) = uart();
    store(&mut rig, LCR, 0x80);
    store(&mut rig, DATA, 0x34);
    store(&mut rig, IER, 0x12);
    assert_eq!((load(&mut rig, DATA), load(&mut rig, IER), wire.take_output()), (0x34, 0x12, Vec::new()));
    store(&mut rig, LCR, 0);
    assert_eq!(load(&mut rig, IER), 0);
}

#[test]
fn received_data_interrupts_at_the_trigger_level_and_after_a_pause_below_it() {
    for (select, level) in [(0, 1), (1, 4), (2, 8), (3, 14)] {
        let (mut rig, wire) = running(select, RDI);
        wire.type_in(&[7; 16][..level]);
        rig.wake();
        assert_eq!((load(&mut rig, IIR), rig.line()), (0xc4, true), "level {level}");
        for left in (1..level).rev() {
            load(&mut rig, DATA);
            assert_eq!((load(&mut rig, IIR), rig.line()), (0xcc, true), "{left} left of {level}");
        }
        load(&mut rig, DATA);
        assert_eq!((load(&mut rig, IIR), rig.line()), (0xc1, false));
    }
}

#[test]
fn without_fifos_there_is_room_for_one() {
    let (mut rig, wire) = uart();
    store(&mut rig, IER, RDI);
    wire.type_in(b"ab");
    rig.wake();
    assert_eq!((load(&mut rig, IIR), load(&mut rig, LSR) & DR), (4, DR));
    assert_eq!([load(&mut rig, DATA), load(&mut rig, DATA)], [u64::from(b'a'), u64::from(b'b')]);
    assert!(!rig.line());
    wire.set_space(Some(0));
    store(&mut rig, DATA, 1);
    assert_eq!(load(&mut rig, LSR) & EMPTY, 0);
    store(&mut rig, DATA, 2);
    assert!(rig.status().contains("1 to send"), "{}", rig.status());
    assert!(rig.status().contains("1 lost"), "{}", rig.status());
}

#[test]
fn an_empty_transmitter_interrupts_until_somebody_notices() {
    let (mut rig, wire) = running(0, THRI);
    assert!(rig.line(), "it is empty already");
    assert_eq!(load(&mut rig, IIR), 0xc2);
    assert_eq!((load(&mut rig, IIR), rig.line()), (0xc1, false), "noticed");
    store(&mut rig, DATA, 1);
    assert!(rig.line(), "sent, and empty again");
    wire.set_space(Some(1));
    store(&mut rig, DATA, 2);
    store(&mut rig, DATA, 3);
    assert_eq!((rig.line(), load(&mut rig, LSR) & THRE), (false, 0), "the store has taken it back");
    wire.set_space(Some(1));
    rig.wake();
    assert_eq!((rig.line(), load(&mut rig, LSR) & EMPTY), (true, EMPTY));
    // What is enabled already is not enabled again.
    load(&mut rig, IIR);
    store(&mut rig, IER, THRI | RDI);
    assert!(!rig.line());
}

#[test]
fn sixteen_wait_in_the_fifo_and_the_next_is_lost() {
    let (mut rig, wire) = running(0, 0);
    wire.set_space(Some(0));
    for n in 0..17 {
        store(&mut rig, DATA, n);
    }
    assert!(rig.status().contains("16 to send"), "{}", rig.status());
    // What waits for the back end has been sent.
    store(&mut rig, FCR, 7);
    wire.set_space(None);
    rig.wake();
    assert_eq!(wire.take_output(), (0..16).collect::<Vec<u8>>());
}

#[test]
fn clearing_the_receiver_makes_room_for_what_waits_outside() {
    let (mut rig, wire) = running(0, RDI);
    wire.type_in(&(0..20).collect::<Vec<u8>>());
    rig.wake();
    store(&mut rig, FCR, 3);
    assert_eq!((load(&mut rig, DATA), rig.line()), (16, true));
    // Changing the mode clears it, too.
    store(&mut rig, FCR, 0);
    assert_eq!((load(&mut rig, LSR) & DR, rig.line()), (0, false));
}

#[test]
fn the_highest_priority_is_told_first() {
    let (mut rig, _) = in_loop(RDI | THRI | RLSI | MSI);
    store(&mut rig, MCR, 0x12);
    store(&mut rig, LCR, 0x40);
    let told: Vec<u64> = [LSR, DATA, IIR, MSR]
        .into_iter()
        .map(|cure| {
            let told = load(&mut rig, IIR);
            load(&mut rig, cure);
            told
        })
        .collect();
    // Line status, data, transmitter (which IIR cures by itself), modem.
    assert_eq!(told, [0xc6, 0xc4, 0xc2, 0xc0]);
    assert_eq!((load(&mut rig, IIR), rig.line()), (0xc1, false));
}

#[test]
fn in_the_loop_what_is_sent_is_received_and_nothing_leaves() {
    let (mut rig, wire) = in_loop(0);
    wire.type_in(b"outside");
    rig.wake();
    for byte in b"inside" {
        store(&mut rig, DATA, u64::from(*byte));
    }
    let received: Vec<u64> = (0..6).map(|_| load(&mut rig, DATA)).collect();
    assert!(received.iter().copied().eq(b"inside".iter().map(|byte| u64::from(*byte))));
    assert_eq!((load(&mut rig, LSR) & DR, wire.take_output()), (0, Vec::new()));
    store(&mut rig, MCR, 0);
    assert_eq!(load(&mut rig, DATA), u64::from(b'o'), "what came from outside meanwhile was not lost");
}

#[test]
fn one_too_many_in_the_loop_is_an_overrun_until_somebody_looks() {
    let (mut rig, _) = in_loop(RLSI);
    for n in 0..17 {
        store(&mut rig, DATA, n);
    }
    assert_eq!((load(&mut rig, IIR), rig.line()), (0xc6, true));
    assert_eq!(load(&mut rig, LSR) & OE, OE);
    assert_eq!((load(&mut rig, LSR) & OE, rig.line()), (0, false));
    assert_eq!(load(&mut rig, DATA), 0, "the first is still there");
}

#[test]
fn a_break_in_the_loop_is_shown_with_its_character() {
    let (mut rig, _) = in_loop(0);
    store(&mut rig, DATA, 5);
    store(&mut rig, LCR, 0x40);
    assert_eq!(load(&mut rig, LSR) & (BI | 0x80), 0x80, "somewhere in the FIFO");
    assert_eq!(load(&mut rig, DATA), 5);
    assert_eq!(load(&mut rig, LSR) & (BI | 0x80), BI | 0x80);
    assert_eq!(load(&mut rig, LSR) & BI, 0, "told once");
    assert_eq!((load(&mut rig, DATA), load(&mut rig, LSR) & (DR | 0x80)), (0, 0));
}

#[test]
fn in_the_loop_the_modem_inputs_are_the_modem_outputs() {
    let (mut rig, _) = in_loop(0);
    assert_eq!(load(&mut rig, MSR), 0x0b, "CTS, DSR and DCD have gone");
    // What drivers probe for: RTS and OUT2.
    store(&mut rig, MCR, 0x1a);
    assert_eq!(load(&mut rig, MSR) & 0xf0, 0x90);
    store(&mut rig, MCR, 0x14);
    assert_eq!(load(&mut rig, MSR), 0x49, "the ring indicator's begin does not count");
    store(&mut rig, IER, MSI);
    store(&mut rig, MCR, 0x10);
    assert!(rig.line());
    assert_eq!((load(&mut rig, MSR), rig.line()), (0x04, false), "its end does");
}

#[test]
fn registers_four_bytes_apart_are_words_or_bytes() {
    let mut wires = Wires::default();
    let wire = wires.wire("-");
    let mut rig = Rig::new(&FACTORY, &[("reg-shift", Some("2"))], &mut wires).unwrap();
    rig.write(SCR << 2, 0xffff_ff5a);
    assert_eq!((rig.read(SCR << 2), rig.try_read(SCR << 2, Byte)), (0x5a, Ok(0x5a)));
    rig.try_write(DATA, Byte, u64::from(b'x')).unwrap();
    assert_eq!((wire.take_output(), rig.read(LSR << 2)), (b"x".to_vec(), 0x60));
    assert_eq!(rig.try_read(29, Byte), Ok(0), "between registers");
    assert!(rig.describe().contains("reg-io-width = <0x04>;"), "{}", rig.describe());
    let error = Rig::new(&FACTORY, &[("reg-shift", Some("1"))], &mut wires).unwrap_err();
    assert!(error[0].message.contains("must be one of: 0, 2"), "{}", error[0].message);
}

#[test]
fn registers_a_byte_apart_are_bytes() {
    let (mut rig, _) = uart();
    assert_eq!(rig.try_read(0, Word), Err(AccessFault::Size));
    assert_eq!(rig.try_write(4, Word, 0), Err(AccessFault::Size));
    assert_eq!(rig.try_read(8, Byte), Err(AccessFault::Unsupported));
    assert_eq!(rig.try_read(0, AccessSize::Halfword), Err(AccessFault::Size));
}

#[test]
fn it_describes_itself_as_linux_wants_it() {
    let tree = uart().0.describe();
    for line in [
        "serial@1c090000 {",
        r#"compatible = "ns16550a";"#,
        "reg = <0x00 0x1c090000 0x00 0x08>;",
        "interrupts = <0x00 0x05 0x04>;",
        "clock-frequency = <0x1c2000>;",
        "reg-shift = <0x00>;",
        "reg-io-width = <0x01>;",
    ] {
        assert!(tree.contains(line), "{line} is not in {tree}");
    }
}

#[test]
fn output_is_passed_on_in_batches_on_request() {
    let mut wires = Wires::default();
    let wire = wires.wire("-");
    let mut rig = Rig::new(&FACTORY, &[("batch", Some("100"))], &mut wires).unwrap();
    store(&mut rig, DATA, u64::from(b'a'));
    store(&mut rig, DATA, u64::from(b'b'));
    assert_eq!(wire.take_output(), b"");
    rig.pass(200_000);
    assert_eq!(wire.take_output(), b"ab");
}
