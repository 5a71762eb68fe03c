//! Conversations with the device as drivers hold them.

use super::*;

/// Linux's `amba-pl011`, reduced to its register accesses.
struct LinuxDriver {
    pending: Vec<u8>,
    received: Vec<u8>,
    mask: u64,
}

impl LinuxDriver {
    fn start(rig: &mut Rig) -> Self {
        rig.write(ICR, 0x7ff);
        rig.write(IFLS, 0x12);
        rig.write(LCR_H, 0x70);
        rig.write(CR, ENABLED | 3 << 10);
        rig.write(ICR, RX | RT);
        for _ in 0..64 {
            if rig.read(FR) & RXFE != 0 {
                break;
            }
            rig.read(DR);
        }
        let mask = RX | RT;
        rig.write(IMSC, mask);
        Self { pending: Vec::new(), received: Vec::new(), mask }
    }

    fn fifo_size(rig: &mut Rig) -> usize {
        if rig.read(0xfe8) >> 4 < 3 { 16 } else { 32 }
    }

    fn write(&mut self, rig: &mut Rig, text: &[u8]) {
        self.pending.extend(text);
        // pl011_start_tx: fill by the flag, and let the interrupt do the rest.
        if self.transmit(rig, false) {
            self.mask |= TX;
            rig.write(IMSC, self.mask);
        }
    }

    /// pl011_tx_chars: from the interrupt, half a FIFO is written without looking at the flag.
    fn transmit(&mut self, rig: &mut Rig, from_interrupt: bool) -> bool {
        let mut count = Self::fifo_size(rig) / 2;
        while !self.pending.is_empty() {
            if from_interrupt && count == 0 || !from_interrupt && rig.read(FR) & TXFF != 0 {
                break;
            }
            rig.write(DR, u64::from(self.pending.remove(0)));
            count = count.saturating_sub(1);
        }
        !self.pending.is_empty()
    }

    fn interrupt(&mut self, rig: &mut Rig) {
        for _ in 0..256 {
            let status = rig.read(RIS) & self.mask;
            if status == 0 {
                return;
            }
            rig.write(ICR, status & !(TX | RT | RX));
            if status & (RX | RT) != 0 {
                while rig.read(FR) & RXFE == 0 {
                    self.received.push(rig.read(DR).to_le_bytes()[0]);
                }
            }
            if status & TX != 0 && !self.transmit(rig, true) {
                self.mask &= !TX;
                rig.write(IMSC, self.mask);
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
        output.extend(wire.take_output());
        if output.len() == text.len() {
            break;
        }
        wire.set_space(Some(7));
        rig.wake();
        if rig.line() {
            driver.interrupt(&mut rig);
        }
    }
    assert_eq!(output, text);
    assert_eq!(driver.mask & TX, 0, "the driver has masked its transmit interrupt again");
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
fn linux_finds_a_fifo_of_32() {
    let (mut rig, _) = uart();
    assert_eq!(LinuxDriver::fifo_size(&mut rig), 32);
    let ids: Vec<u64> = (0..8).map(|n| rig.read(0xfe0 + 4 * n)).collect();
    assert_eq!(ids, [0x11, 0x10, 0x34, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
}

#[test]
fn a_console_that_sets_nothing_up_prints_at_once() {
    let (mut rig, wire) = uart();
    for byte in b"early" {
        assert_eq!(rig.read(FR) & TXFF, 0);
        rig.try_write(DR, AccessSize::Byte, u64::from(*byte)).unwrap();
    }
    assert_eq!(wire.take_output(), b"early");
    assert!(rig.take_effects().has_output());
    assert_eq!(rig.read(FR) & (TXFE | BUSY), TXFE);
}

#[test]
fn a_polling_driver_that_waits_for_the_full_flag_loses_nothing() {
    let (mut rig, wire) = uart();
    wire.set_space(Some(3));
    let mut written = Vec::new();
    for n in 0..100_u8 {
        if rig.read(FR) & TXFF != 0 {
            assert_eq!(rig.read(FR) & (TXFE | BUSY), BUSY);
            wire.set_space(Some(2));
            rig.wake();
        }
        assert_eq!(rig.read(FR) & TXFF, 0);
        rig.write(DR, u64::from(n));
        written.push(n);
    }
    wire.set_space(None);
    rig.wake();
    assert_eq!(wire.take_output(), written);
}
