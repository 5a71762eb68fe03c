//! `vdev pl031`: the Arm real-time clock on a guest's bus.
//!
//! Answers for: the registers of DDI 0224 (ARM PrimeCell Real Time Clock (PL031) Technical Reference Manual), chapter 3, on
//! the host's time of day, with what the guest has set it to as a difference; interrupt line, device tree (Linux `arm,pl031`
//! binding). Does not answer for: knowing the time of day ([`vdev::Clock`]), nor for keeping what the guest has set: a VM
//! that is started again finds the host's time.
//!
//! The counter has 32 bits and wraps; its seconds are UTC and begin when the host's do.

use crate::plug::{self, Plug};
use alloc::boxed::Box;
use types::{AccessSize, Ticks};
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, Node, OptionError, Options, Safety, Setup,
    Timer, Trigger, Vdev, Wake,
};

const REGION_SIZE: u64 = 0x1000;

/// `vdev pl031`.
pub(crate) static FACTORY: Factory = Factory {
    name: "pl031",
    // Bytes for the identification registers, which EDK2 reads so.
    access_sizes: AccessSizes::BYTE.union(AccessSizes::WORD),
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    help: "Arm PrimeCell real-time clock (PL031)",
    about: "The time of day in UTC, with an alarm. What a guest sets it to goes with the VM.\n\n    \
        vdev pl031 loc 0x1c170000 intr gic:36",
    ..Factory::new(create)
};

/// RTCDR, data: the seconds.
const DATA: u64 = 0x000;
/// RTCMR, match.
const MATCH: u64 = 0x004;
/// RTCLR, load.
const LOAD: u64 = 0x008;
/// RTCCR, control.
const CONTROL: u64 = 0x00c;
/// RTCIMSC, interrupt mask set or clear.
const MASK: u64 = 0x010;
/// RTCRIS, raw interrupt status.
const RAW: u64 = 0x014;
/// RTCMIS, masked interrupt status.
const MASKED: u64 = 0x018;
/// RTCICR, interrupt clear.
const CLEAR: u64 = 0x01c;
/// RTCPeriphID0-3 (part 0x031, designer 0x41, revision 0) and RTCPCellID0-3.
const IDENTIFIERS: [u8; 8] = [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1];

/// The registers.
#[derive(Debug, Default)]
struct Chip {
    /// What the counter is before the host's seconds.
    ahead: u32,
    load: u32,
    compared: u32,
    mask: bool,
    raw: bool,
}

impl Chip {
    /// RTCDR in the second `now` of the host.
    fn data(&self, now: u64) -> u32 {
        low_word(now).wrapping_add(self.ahead)
    }

    /// Seconds until RTCDR is RTCMR.
    fn until_match(&self, now: u64) -> u32 {
        self.compared.wrapping_sub(self.data(now))
    }

    fn read(&self, at: u64, now: u64) -> u32 {
        match at {
            DATA => self.data(now),
            MATCH => self.compared,
            LOAD => self.load,
            // SPEC: 0 after reset, and the counter stands still until it is set (3.3.4). Guests that only ask what time it
            // is would find that it is 1970: firmware has started it, as it were, and nothing stops it any more.
            CONTROL => 1,
            MASK => u32::from(self.mask),
            RAW => u32::from(self.raw),
            MASKED => u32::from(self.raw && self.mask),
            _ => plug::identification(at, &IDENTIFIERS),
        }
    }

    /// A store in the second `now`. Says whether the counter's next match is another one.
    fn write(&mut self, at: u64, value: u32, now: u64) -> bool {
        match at {
            MATCH => self.compared = value,
            LOAD => {
                self.load = value;
                self.ahead = value.wrapping_sub(low_word(now));
            }
            MASK => self.mask = value & 1 != 0,
            CLEAR if value & 1 != 0 => self.raw = false,
            _ => {}
        }
        let moved = matches!(at, MATCH | LOAD);
        self.raw |= moved && self.until_match(now) == 0;
        moved
    }
}

/// Bits 31 to 0.
#[expect(clippy::cast_possible_truncation, reason = "that is what it is for")]
const fn low_word(value: u64) -> u32 {
    value as u32
}

struct Pl031 {
    plug: Plug,
    chip: Chip,
    /// Goes off when the counter matches.
    timer: Timer,
}

fn create(_: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Ok(Box::new(Pl031 { plug: Plug::new(setup)?, chip: Chip::default(), timer: Timer::new(0) }))
}

impl Pl031 {
    /// The counter may have matched. Returns the host's second.
    fn advance(&mut self, context: &mut Context<'_>) -> u64 {
        if self.timer.expired(context) > 0 {
            self.chip.raw = true;
            self.arm(context);
        }
        context.clock().seconds(context.now())
    }

    /// Sets the timer for the next match, which is not now.
    fn arm(&mut self, context: &mut Context<'_>) {
        let hertz = u64::from(context.clock().frequency().hertz());
        let seconds = match self.chip.until_match(context.clock().seconds(context.now())) {
            0 => 1 << 32,
            seconds => u64::from(seconds),
        };
        // Seconds begin at multiples of the frequency.
        let second = context.now().0.checked_div(hertz).unwrap_or_default().saturating_add(seconds);
        self.timer.once(Ticks(second.saturating_mul(hertz)), context);
    }

    fn settle(&mut self, context: &mut Context<'_>) {
        self.plug.settle(self.chip.raw && self.chip.mask, context);
    }
}

impl Vdev for Pl031 {
    fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        let now = self.advance(context);
        self.settle(context);
        Ok(u64::from(self.chip.read(offset, now)))
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        if size != AccessSize::Word {
            return Err(AccessFault::Size);
        }
        let now = self.advance(context);
        if self.chip.write(offset, low_word(value), now) {
            self.arm(context);
        }
        self.settle(context);
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Status(report) => {
                let Chip { ahead, compared, raw, .. } = self.chip;
                let seconds = self.chip.data(context.clock().seconds(context.now()));
                let matched = if raw { ", matched" } else { "" };
                let what = format_args!("{seconds} s since 1970, set by {ahead:#x}; match at {compared}{matched}");
                return self.plug.report(report, what);
            }
            Control::Reset => {
                self.chip = Chip::default();
                self.arm(context);
            }
            Control::GuestStarting => self.arm(context),
            _ => {}
        }
        self.settle(context);
        Ok(())
    }

    fn wake(&mut self, _: Wake, context: &mut Context<'_>) {
        self.advance(context);
        self.settle(context);
    }

    fn describe(&self, parent: &mut Node) {
        parent.add(
            self.plug
                .node("rtc", &["arm,pl031", "arm,primecell"], REGION_SIZE, Trigger::Level)
                .numbers("clocks", &[Node::APB_CLOCK])
                .texts("clock-names", &["apb_pclk"]),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use vdev::testkit::{Rig, Wires};

    const SECOND: u64 = 1_000_000_000;
    /// When the testkit's machine was started.
    const EPOCH: u64 = 1_000_000_000;

    fn calendar() -> Rig {
        let mut rig = Rig::new(&FACTORY, &[], &mut Wires::default()).unwrap();
        rig.control(Control::GuestStarting).unwrap();
        rig
    }

    /// Linux's `rtc-pl031`: probe, an alarm, its interrupt.
    #[test]
    fn linux_reads_the_time_and_sets_an_alarm() {
        let mut rig = calendar();
        let control = rig.read(CONTROL);
        rig.write(CONTROL, control | 1);
        rig.pass(3 * SECOND);
        assert_eq!(rig.read(DATA), EPOCH + 3);
        rig.write(MATCH, EPOCH + 10);
        rig.write(CLEAR, 1);
        rig.write(MASK, 1);
        rig.pass(7 * SECOND - 160);
        assert_eq!((rig.read(RAW), rig.line()), (0, false));
        assert_eq!(rig.pass(160), 1);
        assert_eq!((rig.read(MASKED), rig.read(DATA), rig.line()), (1, EPOCH + 10, true));
        rig.write(CLEAR, 1);
        assert_eq!((rig.read(MASKED), rig.line()), (0, false));
        assert_eq!(rig.pass(1000 * SECOND), 0);
    }

    #[test]
    fn the_guest_sets_its_clock_and_nobody_elses() {
        let mut rig = calendar();
        rig.pass(SECOND / 2);
        rig.write(LOAD, 0xffff_fffe);
        assert_eq!([rig.read(DATA), rig.read(LOAD)], [0xffff_fffe, 0xffff_fffe]);
        rig.pass(SECOND / 2);
        assert_eq!(rig.read(DATA), 0xffff_ffff, "seconds begin with the host's");
        rig.pass(2 * SECOND);
        assert_eq!((rig.read(DATA), rig.read(RAW)), (1, 1), "it has wrapped, and come by the match register's 0");
        rig.control(Control::Reset).unwrap();
        assert_eq!((rig.read(DATA), rig.read(RAW), rig.read(LOAD)), (EPOCH + 3, 0, 0));
    }

    #[test]
    fn a_match_is_seen_by_who_looks_before_the_timer_is() {
        let mut rig = calendar();
        rig.write(MATCH, EPOCH + 1);
        rig.now = Rig::clock().frequency().nanoseconds(5 * SECOND);
        assert_eq!([rig.read(RAW), rig.read(MASKED)], [1, 0]);
        rig.write(MASK, 1);
        assert!(rig.line());
        rig.write(MASK, 0xffff_fffe);
        assert_eq!((rig.read(MASK), rig.line()), (0, false));
        rig.write(CLEAR, 2);
        assert_eq!(rig.read(RAW), 1, "only bit 0 clears");
    }

    #[test]
    fn what_matches_already_matches_at_once_and_again_in_136_years() {
        let mut rig = calendar();
        rig.write(MATCH, EPOCH);
        assert_eq!(rig.read(RAW), 1);
        rig.write(CLEAR, 1);
        rig.pass(((1 << 32) - 1) * SECOND);
        assert_eq!((rig.read(RAW), rig.read(DATA)), (0, EPOCH - 1));
        rig.pass(SECOND);
        assert_eq!(rig.read(RAW), 1);
        rig.write(CLEAR, 1);
        rig.write(MATCH, 77);
        rig.write(LOAD, 77);
        assert_eq!(rig.read(RAW), 1, "so does loading what matches");
    }

    #[test]
    fn it_says_what_it_is() {
        let mut rig = calendar();
        let ids: Vec<u64> = (0..8).map(|n| rig.read(0xfe0 + 4 * n)).collect();
        assert_eq!(ids, [0x31, 0x10, 0x04, 0x00, 0x0d, 0xf0, 0x05, 0xb1]);
        rig.write(CONTROL, 0);
        assert_eq!([rig.read(CONTROL), rig.read(CLEAR), rig.read(0x20)], [1, 0, 0]);
        assert_eq!(rig.try_read(DATA, AccessSize::Halfword), Err(AccessFault::Size));
        assert_eq!(rig.try_read(0xfe1, AccessSize::Byte), Ok(0));
        assert_eq!(rig.try_read(0xfec, AccessSize::Byte), Ok(0), "EDK2 reads its name by bytes");
        assert_eq!(rig.try_read(0xff0, AccessSize::Byte), Ok(0x0d));
        assert_eq!(rig.try_write(LOAD, AccessSize::Byte, 0), Err(AccessFault::Size));
        assert!(rig.status().contains("1000000000 s since 1970"), "{}", rig.status());
        for line in ["rtc@1c090000 {", r#"compatible = "arm,pl031", "arm,primecell";"#, r#"clock-names = "apb_pclk";"#]
        {
            assert!(rig.describe().contains(line), "{line} is not in {}", rig.describe());
        }
    }
}
