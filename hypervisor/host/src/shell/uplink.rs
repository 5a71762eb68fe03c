//! `uplink`: a switch's way out of the machine, at the shell.
//!
//! Answers for: what can be said of it, checked as far as that can be done without looking at the machine. Does not answer for: whether
//! there is such a card, and doing it (the kernel).

use super::{CommandError, argument, command::Call};
use crate::switch;
use alloc::format;
use qvmconf::{Scheduling, SchedulingPolicy};

/// `uplink /dev/netN /dev/vswitchNAME [group N] [rate SIZE] [sched PRIO]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uplink<'a> {
    /// The card's number.
    pub card: u32,
    /// The switch, as a configuration calls it.
    pub switch: &'a str,
    /// Which of its groups.
    pub group: u16,
    /// Most bytes that come in by it in a second, if there is a limit.
    pub rate: Option<u64>,
    /// How the thread is scheduled that moves its frames.
    pub scheduling: Scheduling,
}

pub(super) const ARGUMENTS: &str = "CARD SWITCH [group N] [rate SIZE] [sched PRIO]";

/// `uplink ...`.
pub(super) fn read<'a>(call: &Call<'_, 'a>) -> Result<Uplink<'a>, CommandError> {
    let [card, switch, options @ ..] = call.words else { return call.usage(usize::MAX) };
    let digits = card.text.strip_prefix("/dev/net").filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let number = digits.and_then(|digits| digits.parse().ok());
    let Some(number) = number else { return Err(card.error(format!("`{}` is no /dev/netN", card.text))) };
    if !matches!(switch::Place::parse(switch.text), Ok(switch::Place::Switch(_))) {
        return Err(switch.error(format!("`{}` is no /dev/vswitchNAME", switch.text)));
    }
    // As devices of VMs have it.
    let scheduling = Scheduling { priority: 10, policy: SchedulingPolicy::RoundRobin };
    let mut uplink = Uplink { card: number, switch: argument::plain(switch)?, group: 0, rate: None, scheduling };
    let mut rest = options;
    while let [option, value, behind @ ..] = rest {
        match option.text {
            "group" => uplink.group = u16::try_from(argument::number(value, 0, 4094)?).unwrap_or(u16::MAX),
            "rate" => match argument::size(value)? {
                0 => return Err(value.error("with a rate of 0 nothing could come in")),
                rate => uplink.rate = Some(rate),
            },
            "sched" => uplink.scheduling = qvmconf::scheduling(value.text).map_err(|why| value.error(why))?,
            _ => return call.usage(usize::MAX),
        }
        rest = behind;
    }
    if rest.is_empty() { Ok(uplink) } else { call.usage(usize::MAX) }
}

#[cfg(test)]
mod tests {
    use super::super::{Command, read};
    use super::*;
    use alloc::string::ToString;

    fn typed(text: &str) -> Uplink<'_> {
        match read(text).unwrap().unwrap() {
            Command::Uplink(uplink) => uplink,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_says_no_more_has_what_devices_of_vms_have() {
        let scheduling = Scheduling { priority: 10, policy: SchedulingPolicy::RoundRobin };
        let plain = Uplink { card: 0, switch: "/dev/vswitch0", group: 0, rate: None, scheduling };
        assert_eq!(typed("uplink /dev/net0 /dev/vswitch0"), plain);
        let scheduling = Scheduling { priority: 30, policy: SchedulingPolicy::Fifo };
        let all = Uplink { card: 12, switch: "/dev/vswitch", group: 7, rate: Some(2 << 20), scheduling };
        assert_eq!(typed("uplink /dev/net12 /dev/vswitch sched 30f rate 2M group 7"), all);
    }

    #[test]
    fn an_uplink_can_have_a_budget_of_time() {
        let scheduling = typed("uplink /dev/net0 /dev/vswitch0 sched 20,5,4,10000000,2000000s").scheduling;
        let SchedulingPolicy::Sporadic(server) = scheduling.policy else { panic!("it has a budget") };
        assert_eq!((scheduling.priority, server.low, server.budget), (20, 5, 2_000_000));
    }

    #[test]
    fn what_is_no_uplink_is_said() {
        let usage = "usage: `uplink CARD SWITCH [group N] [rate SIZE] [sched PRIO]`";
        let expected = [
            ("uplink", usage),
            ("uplink /dev/net0", usage),
            ("uplink /dev/net0 /dev/vswitch0 group", usage),
            ("uplink /dev/net0 /dev/vswitch0 grope 1", usage),
            ("uplink net0 /dev/vswitch0", "`net0` is no /dev/netN"),
            ("uplink /dev/net+1 /dev/vswitch0", "`/dev/net+1` is no /dev/netN"),
            ("uplink /dev/net /dev/vswitch0", "`/dev/net` is no /dev/netN"),
            ("uplink /dev/net0 /dev/qvm/a/net", "`/dev/qvm/a/net` is no /dev/vswitchNAME"),
            ("uplink /dev/net0 /dev/vswitch0 group 4095", "`4095` is no number from 0 to 4094"),
            ("uplink /dev/net0 /dev/vswitch0 rate 0", "with a rate of 0 nothing could come in"),
            ("uplink /dev/net0 /dev/vswitch0 sched 0", "priority 0 is not within 1 to 255"),
        ];
        for (text, message) in expected {
            assert_eq!(read(text).unwrap_err().to_string(), format!("shell: {message}"), "{text}");
        }
    }
}
