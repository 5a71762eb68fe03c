//! Conversations with the device as drivers hold them, and a test for each sentence of DDI 0270 that the chip follows.

use super::FACTORY;
use alloc::vec::Vec;
use types::AccessSize;
use vdev::{
    AccessFault, Cause, Control, OptionError,
    testkit::{Rig, Wires},
};

const LOAD: u64 = 0x00;
const VALUE: u64 = 0x04;
const CONTROL: u64 = 0x08;
const CLEAR: u64 = 0x0c;
const RIS: u64 = 0x10;
const MIS: u64 = 0x14;
const LOCK: u64 = 0xc00;
const ITCR: u64 = 0xf00;
const ITOP: u64 = 0xf04;

const KEY: u64 = 0x1acc_e551;
const SECOND: u64 = 1_000_000_000;
/// Counts of a second.
const RATE: u64 = 25_000_000;

fn made(options: &[(&str, Option<&str>)]) -> Result<Rig, Vec<OptionError>> {
    Rig::new(&FACTORY, options, &mut Wires::default())
}

fn watchdog() -> Rig {
    made(&[]).unwrap()
}

/// Counts seconds, interrupt and reset enabled.
fn running(seconds: u64) -> Rig {
    let mut rig = watchdog();
    rig.write(LOAD, seconds * RATE - 1);
    rig.write(CONTROL, 3);
    rig
}

fn bitten(rig: &mut Rig) -> bool {
    rig.take_effects().stop() == Some(Cause::Watchdog)
}

/// Linux's `sp805_wdt`, reduced to its register accesses.
struct LinuxDriver {
    load: u64,
}

impl LinuxDriver {
    fn probe(rig: &mut Rig, timeout: u64) -> Self {
        assert_eq!(rig.read(CONTROL) & 1, 0, "not running yet");
        Self { load: RATE / 2 * timeout - 1 }
    }

    fn start(&self, rig: &mut Rig) {
        self.configure(rig, false);
    }

    fn ping(&self, rig: &mut Rig) {
        self.configure(rig, true);
    }

    fn configure(&self, rig: &mut Rig, ping: bool) {
        rig.write(LOCK, KEY);
        rig.write(LOAD, self.load);
        rig.write(CLEAR, 1);
        if !ping {
            rig.write(CONTROL, 3);
        }
        rig.write(LOCK, 1);
        rig.read(LOCK);
    }

    fn stop(rig: &mut Rig) {
        rig.write(LOCK, KEY);
        rig.write(CONTROL, 0);
        rig.write(LOCK, 1);
        rig.read(LOCK);
    }

    fn time_left(&self, rig: &mut Rig) -> u64 {
        let value = rig.read(VALUE);
        let before = if rig.read(RIS) & 1 == 0 { self.load + 1 } else { 0 };
        (value + before) / RATE
    }

    fn restart(rig: &mut Rig) {
        rig.write(LOCK, KEY);
        rig.write(CONTROL, 0);
        rig.write(LOAD, 0);
        rig.write(CONTROL, 3);
    }
}

#[test]
fn linux_kicks_and_lives_and_stops_kicking_and_does_not() {
    let mut rig = watchdog();
    let driver = LinuxDriver::probe(&mut rig, 10);
    driver.start(&mut rig);
    for _ in 0..20 {
        rig.pass(6 * SECOND);
        assert_eq!(driver.time_left(&mut rig), 3, "6 of 10 seconds, and a fraction, are gone");
        driver.ping(&mut rig);
        assert!(!rig.line() && !bitten(&mut rig));
    }
    rig.pass(10 * SECOND - 100);
    assert!(rig.line() && !bitten(&mut rig));
    rig.pass(100);
    assert!(bitten(&mut rig));
}

#[test]
fn linux_stops_it_for_good() {
    let mut rig = watchdog();
    let driver = LinuxDriver::probe(&mut rig, 10);
    driver.start(&mut rig);
    LinuxDriver::stop(&mut rig);
    assert_eq!(rig.pass(1000 * SECOND), 0);
    assert!(!bitten(&mut rig));
}

#[test]
fn linux_restarts_the_machine_with_it() {
    let mut rig = watchdog();
    LinuxDriver::restart(&mut rig);
    rig.pass(SECOND);
    assert!(bitten(&mut rig));
}

#[test]
fn reset_values_and_identification_are_the_manuals() {
    let mut rig = watchdog();
    for (offset, value) in [(LOAD, 0xffff_ffff), (VALUE, 0xffff_ffff), (CONTROL, 0), (RIS, 0), (MIS, 0), (LOCK, 0)] {
        assert_eq!(rig.read(offset), value, "{offset:#x}");
    }
    let ids: Vec<u64> = (0..8).map(|n| rig.read(0xfe0 + 4 * n)).collect();
    assert_eq!(ids, [0x05, 0x18, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
    for offset in [CLEAR, ITCR, ITOP, 0x18, 0xbfc, 0xc04, 0xfdc] {
        assert_eq!(rig.read(offset), 0, "{offset:#x}");
    }
    assert_eq!(rig.try_read(LOAD, AccessSize::Byte), Err(AccessFault::Size));
}

#[test]
fn it_counts_down_with_its_clock_and_only_when_enabled() {
    let mut rig = watchdog();
    rig.write(LOAD, 1000);
    rig.pass(SECOND);
    assert_eq!(rig.read(VALUE), 1000);
    rig.write(CONTROL, 1);
    rig.pass(80);
    assert_eq!(rig.read(VALUE), 998, "40 ns are a cycle of 25 MHz");
    rig.pass(400);
    assert_eq!(rig.read(VALUE), 988);
    rig.write(CONTROL, 0);
    rig.pass(SECOND);
    assert_eq!(rig.read(VALUE), 988, "it stands still");
    rig.write(CONTROL, 1);
    assert_eq!(rig.read(VALUE), 1000, "enabled again, it begins again");
    rig.pass(4000);
    rig.write(LOAD, 5_000);
    assert_eq!(rig.read(VALUE), 5_000, "a new load counts at once");
    rig.pass(400);
    rig.write(CLEAR, 0);
    assert_eq!(rig.read(VALUE), 5_000, "so does clearing the interrupt");
}

#[test]
fn zero_is_an_interrupt_and_the_second_zero_a_reset() {
    let mut rig = running(3);
    rig.pass(3 * SECOND - 80);
    assert_eq!([rig.read(VALUE), rig.read(RIS), rig.read(MIS)], [1, 0, 0]);
    rig.pass(48);
    assert_eq!((rig.read(VALUE), rig.read(RIS), rig.read(MIS), rig.line()), (0, 1, 1, true));
    rig.pass(32);
    assert_eq!(rig.read(VALUE), 3 * RATE - 1, "loaded again with the next cycle");
    rig.pass(3 * SECOND - 100);
    assert!(!bitten(&mut rig));
    assert_eq!(rig.pass(100), 1);
    assert!(bitten(&mut rig));
    assert_eq!(rig.pass(100 * SECOND), 0, "the counter stands still");
    assert_eq!(rig.read(VALUE), 0);
}

#[test]
fn without_the_reset_enabled_it_goes_around_for_ever_and_wakes_nobody() {
    let mut rig = watchdog();
    rig.write(LOAD, RATE - 1);
    rig.write(CONTROL, 1);
    assert_eq!(rig.pass(10 * SECOND), 1);
    assert!(rig.line());
    assert_eq!(rig.read(VALUE), RATE - 1);
    rig.write(CONTROL, 3);
    rig.pass(SECOND - 80);
    assert!(!bitten(&mut rig));
    rig.pass(80);
    assert!(bitten(&mut rig));
}

#[test]
fn disabling_hides_the_interrupt_and_keeps_it() {
    let mut rig = running(1);
    rig.pass(SECOND);
    assert!(rig.line());
    rig.write(CONTROL, 0);
    assert_eq!((rig.read(RIS), rig.read(MIS), rig.line()), (1, 0, false));
    rig.write(CLEAR, 0xdead_beef);
    assert_eq!(rig.read(RIS), 0);
}

#[test]
fn the_lock_stops_every_store_but_its_own_key() {
    let mut rig = running(5);
    rig.write(LOCK, 0);
    assert_eq!(rig.read(LOCK), 1);
    for offset in [LOAD, CONTROL, CLEAR, ITCR, ITOP] {
        rig.write(offset, 0);
    }
    assert_eq!([rig.read(LOAD), rig.read(CONTROL), rig.read(ITCR)], [5 * RATE - 1, 3, 0]);
    rig.write(LOCK, KEY);
    assert_eq!(rig.read(LOCK), 0);
    rig.write(CONTROL, 0xffff_fffc);
    assert_eq!(rig.read(CONTROL), 0, "there are two bits");
}

#[test]
fn the_test_registers_set_the_outputs() {
    let mut rig = watchdog();
    rig.write(ITOP, 3);
    assert!(!rig.line() && !bitten(&mut rig), "not without test mode");
    rig.write(ITCR, 1);
    assert_eq!((rig.read(ITCR), rig.read(RIS), rig.line()), (1, 0, true));
    rig.write(ITOP, 0);
    assert!(!rig.line());
    rig.write(ITOP, 1);
    assert!(bitten(&mut rig));
}

#[test]
fn who_is_called_late_gives_the_guest_its_time() {
    // Paused with a second to go, for an hour; then the guest has a full count.
    let mut rig = running(10);
    rig.pass(19 * SECOND);
    assert_eq!((rig.line(), bitten(&mut rig)), (true, false));
    rig.now = Rig::clock().frequency().nanoseconds(3600 * SECOND);
    rig.pass(0);
    assert!(!bitten(&mut rig));
    rig.pass(10 * SECOND - 100);
    assert!(!bitten(&mut rig), "the count has begun anew");
    rig.pass(100);
    assert!(bitten(&mut rig));
    // The same when the guest itself is first.
    let mut rig = running(10);
    rig.now = Rig::clock().frequency().nanoseconds(3600 * SECOND);
    assert_eq!((rig.read(RIS), rig.read(VALUE)), (1, 10 * RATE - 1));
    rig.pass(9 * SECOND);
    assert!(rig.line() && !bitten(&mut rig));
}

#[test]
fn a_call_that_is_a_little_late_changes_nothing() {
    let mut rig = running(10);
    rig.now = Rig::clock().frequency().nanoseconds(11 * SECOND);
    rig.pass(0);
    assert!(rig.line());
    rig.pass(9 * SECOND - 40);
    assert!(!bitten(&mut rig));
    rig.pass(40);
    assert!(bitten(&mut rig), "at 20 s, not at 21 s");
}

#[test]
fn a_bite_may_be_an_edge() {
    let mut rig = made(&[("action", Some("fiq")), ("frequency", Some("1000"))]).unwrap();
    rig.write(LOAD, 999);
    rig.write(CONTROL, 3);
    rig.pass(SECOND);
    assert_eq!(rig.lines.take_events(), [(Rig::LINE, true)]);
    rig.pass(SECOND);
    assert_eq!(rig.lines.take_events(), [(Rig::LINE, false), (Rig::LINE, true)]);
    assert!(rig.take_effects().stop().is_none());
    assert_eq!(rig.pass(10 * SECOND), 0, "it stands still");
    assert!(rig.status().contains("1 bites"), "{}", rig.status());
    rig.write(CLEAR, 0);
    assert!(!rig.line());
    assert_eq!(rig.pass(SECOND), 1, "and counts again");
    // With the line low, there is an edge all the same.
    rig.write(CLEAR, 0);
    drop(rig.lines.take_events());
    rig.write(ITCR, 1);
    rig.write(ITOP, 1);
    assert_eq!(rig.lines.take_events(), [(Rig::LINE, false), (Rig::LINE, true), (Rig::LINE, false)]);
}

#[test]
fn a_bite_may_dump_first_and_may_want_the_vm_again() {
    for (action, dumps, ends, after_dump) in [
        ("terminate", false, Some(Cause::Watchdog), None),
        ("restart", false, Some(Cause::WatchdogRestart), None),
        ("dump,terminate", true, None, Some(Cause::Watchdog)),
        ("dump,restart", true, None, Some(Cause::WatchdogRestart)),
        ("dump,fiq", true, None, None),
    ] {
        let mut rig = made(&[("action", Some(action)), ("frequency", Some("1000"))]).unwrap();
        rig.write(LOAD, 999);
        rig.write(CONTROL, 3);
        rig.pass(2 * SECOND);
        let effects = rig.take_effects();
        let came = (effects.has_dump(), effects.stop(), effects.stop_after_dump());
        assert_eq!(came, (dumps, ends, after_dump), "{action}");
    }
}

#[test]
fn a_reset_of_the_device_is_a_reset_of_the_part() {
    let mut rig = running(1);
    rig.pass(SECOND);
    rig.write(LOCK, 0);
    rig.control(Control::Reset).unwrap();
    assert_eq!([rig.read(LOAD), rig.read(CONTROL), rig.read(RIS), rig.read(LOCK)], [0xffff_ffff, 0, 0, 0]);
    assert_eq!((rig.line(), rig.pass(10 * SECOND)), (false, 0));
}

#[test]
fn what_is_said_about_it_before_it_is_made() {
    let message = |options: &[(&str, Option<&str>)]| made(options).unwrap_err().remove(0).message;
    assert!(message(&[("action", Some("bark"))]).contains("must be one of: terminate, fiq"));
    assert!(message(&[("frequency", Some("0"))]).contains("must be from 1000 to 1000000000"));
}

#[test]
fn it_describes_itself_as_linux_wants_it() {
    let tree = made(&[("frequency", Some("1000000"))]).unwrap().describe();
    for line in [
        "clock-1c090000 {",
        r#"compatible = "fixed-clock";"#,
        "clock-frequency = <0xf4240>;",
        "phandle = <0x8100>;",
        "watchdog@1c090000 {",
        r#"compatible = "arm,sp805", "arm,primecell";"#,
        "reg = <0x00 0x1c090000 0x00 0x1000>;",
        "interrupts = <0x00 0x05 0x04>;",
        "clocks = <0x8100 0x8002>;",
        r#"clock-names = "wdog_clk", "apb_pclk";"#,
    ] {
        assert!(tree.contains(line), "{line} is not in {tree}");
    }
}
