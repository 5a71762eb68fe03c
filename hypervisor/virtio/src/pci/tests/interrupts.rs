//! Vectors, messages, ISR status and the pin (4.1.4.5, 4.1.5.1.2, 4.1.5.3, 4.1.5.4).

use super::*;
use vdev::Wake;

const NONE: u64 = 0xffff;

impl Guest {
    /// Enables messages; that of vector `n` is `n`.
    fn enable_messages(&mut self) {
        self.set_capability(0, 0, 0x8000_0000);
        for vector in 0..3_u32 {
            for (register, value) in [(0, 0x0800_0040), (4, 0), (8, vector), (12, 0)] {
                self.slots.write(Ipa(TABLE + u64::from(vector * 16 + register)), value);
            }
        }
    }

    fn map_queue(&mut self, queue: u64, vector: u64) -> u64 {
        self.write(0x16, HALFWORD, queue);
        self.write(0x1a, HALFWORD, vector);
        self.read(0x1a, HALFWORD)
    }

    fn map_configuration(&mut self, vector: u64) -> u64 {
        self.write(0x10, HALFWORD, vector);
        self.read(0x10, HALFWORD)
    }

    /// The vectors whose messages have been sent since this was last asked.
    fn sent(&mut self) -> Vec<u32> {
        self.slots.lines.take_messages().into_iter().map(|(_, _, data)| data).collect()
    }

    /// "Interrupt status" in the header.
    fn interrupt_status(&mut self) -> bool {
        self.slots.config(Self::slot(), 4) & 1 << 19 != 0
    }

    /// A request in queue 0, done.
    fn request(&mut self, driver: &mut Driver) {
        self.ask(driver, b"x");
        self.kick(0);
        assert!(driver.take_used(&self.slots.ram).is_some());
    }
}

#[test]
fn there_is_a_vector_for_each_queue_and_one_for_changes() {
    let mut guest = Guest::new(true);
    assert_eq!(guest.capability(0, 0) >> 16 & 0x7ff, 2, "the last of three");
    assert_eq!(guest.read(0x10, HALFWORD), NONE, "config_msix_vector");
    for queue in 0..2 {
        guest.write(0x16, HALFWORD, queue);
        assert_eq!(guest.read(0x1a, HALFWORD), NONE);
        for vector in [0, 2, NONE, 1] {
            assert_eq!(guest.map_queue(queue, vector), vector, "any to any, and back");
        }
        for vector in [3, 0x7ff, 0x800, 0xfffe] {
            assert_eq!(guest.map_queue(queue, vector), NONE, "there is no such vector");
        }
        guest.map_queue(queue, 2);
    }
    assert_eq!((guest.map_configuration(2), guest.map_configuration(3)), (2, NONE));
    guest.map_configuration(1);
    assert_eq!(guest.map_queue(2, 1), NONE, "there is no such queue");
    guest.set_status(0);
    assert_eq!(guest.read(0x10, HALFWORD), NONE);
    for queue in 0..2 {
        guest.write(0x16, HALFWORD, queue);
        assert_eq!(guest.read(0x1a, HALFWORD), NONE, "a reset takes them back");
    }
    let mut guest = Guest::new(false);
    assert_eq!((guest.map_queue(0, 0), guest.map_configuration(0)), (NONE, NONE), "without messages there is none");
}

#[test]
fn with_messages_there_are_messages_and_nothing_else() {
    let mut guest = Guest::new(true);
    guest.enable_messages();
    let [mut driver, _] = guest.start(Features::empty());
    guest.map_queue(0, 1);
    guest.map_configuration(2);
    for round in 1..=5 {
        guest.request(&mut driver);
        // Every fifth request changes the configuration.
        assert_eq!(guest.sent(), if round == 5 { &[1, 2][..] } else { &[1] });
        assert!(!guest.line() && !guest.interrupt_status());
    }
    assert_eq!(guest.isr(), 2, "the change of the configuration; queues are not in it");
    guest.map_queue(0, NONE);
    guest.map_configuration(NONE);
    for _ in 0..5 {
        guest.request(&mut driver);
    }
    assert_eq!((guest.sent(), guest.line()), (vec![], false), "who has no vector is not heard");
}

#[test]
fn a_masked_message_waits() {
    let mut guest = Guest::new(true);
    guest.enable_messages();
    let [mut driver, _] = guest.start(Features::empty());
    guest.map_queue(0, 1);
    guest.slots.write(Ipa(TABLE + 16 + 12), 1);
    guest.request(&mut driver);
    guest.request(&mut driver);
    assert!(guest.sent().is_empty());
    guest.slots.write(Ipa(TABLE + 16 + 12), 0);
    assert_eq!(guest.sent(), [1], "one for both");
    guest.set_capability(0, 0, 0xc000_0000);
    guest.request(&mut driver);
    assert!(guest.sent().is_empty(), "all are masked");
    guest.set_capability(0, 0, 0x8000_0000);
    assert_eq!(guest.sent(), [1]);
    guest.slots.set_config(Guest::slot(), 0x04, 0x2);
    guest.map_configuration(1);
    guest.slots.wake(DEVICE, Wake::VmLives);
    assert!(guest.sent().is_empty(), "it is not bus master");
    guest.slots.set_config(Guest::slot(), 0x04, 0x6);
    assert_eq!(guest.sent(), [1]);
}

#[test]
fn without_messages_isr_status_says_what_has_happened() {
    for has_messages in [false, true] {
        let mut guest = Guest::new(has_messages);
        let [mut driver, _] = guest.start(Features::empty());
        guest.map_queue(0, 1);
        assert_eq!((guest.isr(), guest.line()), (0, false));
        guest.request(&mut driver);
        assert!(guest.line() && guest.interrupt_status());
        let isr = guest.place(3);
        guest.slots.try_write(Ipa(isr), BYTE, 0).unwrap();
        assert!(guest.line(), "it is read only");
        assert_eq!((guest.isr(), guest.line(), guest.interrupt_status()), (1, false, false), "reading clears it");
        assert_eq!(guest.isr(), 0);
        for _ in 0..4 {
            guest.request(&mut driver);
        }
        assert_eq!((guest.isr(), guest.line()), (3, false), "a change of the configuration is the second bit");
        guest.slots.wake(DEVICE, Wake::VmLives);
        assert!(guest.line());
        assert_eq!((guest.isr(), guest.sent()), (2, vec![]));
        guest.request(&mut driver);
        guest.slots.set_config(Guest::slot(), 0x04, 0x406);
        assert!(!guest.line() && guest.interrupt_status(), "the pin is disabled");
        guest.slots.set_config(Guest::slot(), 0x04, 0x6);
        assert!(guest.line());
        guest.set_status(0);
        assert_eq!((guest.line(), guest.isr()), (false, 0));
    }
}

#[test]
fn what_is_in_isr_status_is_told_when_messages_go() {
    let mut guest = Guest::new(true);
    guest.enable_messages();
    guest.start(Features::empty());
    guest.slots.wake(DEVICE, Wake::VmLives);
    assert!(!guest.line() && guest.sent().is_empty());
    guest.set_capability(0, 0, 0);
    assert!(guest.line() && guest.interrupt_status(), "the logical OR of all bits in ISR status");
    guest.set_capability(0, 0, 0x8000_0000);
    assert!(!guest.line() && !guest.interrupt_status());
}

/// 4.1.4.3.1: another generation after something new has been read, however many changes there were.
#[test]
fn the_generation_changes_when_something_new_is_read() {
    let mut guest = Guest::new(true);
    let [mut driver, _] = guest.start(Features::empty());
    let at = guest.place(4) - BASE;
    let mut generations = vec![guest.read(0x15, BYTE)];
    for changes in [1, 255, 256, 257] {
        for _ in 0..changes {
            guest.slots.wake(DEVICE, Wake::VmLives);
        }
        let before = guest.read(0x15, BYTE);
        guest.read(at, WORD);
        guest.read(at + 4, WORD);
        let after = guest.read(0x15, BYTE);
        assert_ne!(before, after, "{changes}");
        guest.read(at, WORD);
        assert_eq!(guest.read(0x15, BYTE), after, "nothing has changed since");
        generations.push(after);
    }
    guest.request(&mut driver);
    assert_eq!(guest.read(0x15, BYTE), *generations.last().unwrap(), "nor by a request");
}

#[test]
fn a_queues_reset_takes_its_vector() {
    for features in [Features::empty(), Features::RING_RESET] {
        let mut guest = Guest::new(true);
        guest.start(features);
        guest.map_queue(0, 1);
        guest.map_queue(1, 2);
        guest.write(0x3a, HALFWORD, 1);
        let expected = if features.is_empty() { 2 } else { NONE };
        assert_eq!((guest.read(0x1a, HALFWORD), guest.read(0x3a, HALFWORD)), (expected, 0));
        guest.write(0x16, HALFWORD, 0);
        assert_eq!(guest.read(0x1a, HALFWORD), 1, "not the other's");
    }
}
