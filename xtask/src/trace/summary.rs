//! A capture in numbers: for each VM how long its vCPUs were in the guest, how often they left it, why, and what that took.

use std::fmt::Write;

use types::Ticks;

use super::timeline::{Cost, Timeline};

/// The table.
pub(crate) fn table(timeline: &Timeline) -> String {
    let nanoseconds = |ticks: Ticks| timeline.frequency.to_nanoseconds(ticks);
    let length = timeline.end.saturating_sub(timeline.start);
    let mut text = String::new();
    let mut line = |arguments: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(text, "{arguments}");
    };
    line(format_args!(
        "{} events in {:.3} ms on {} CPUs, {} lost; a tick of the counter is {} ns",
        timeline.events,
        nanoseconds(length) as f64 / 1e6,
        timeline.cpus,
        timeline.lost,
        nanoseconds(Ticks(1))
    ));
    if timeline.unknown > 0 {
        line(format_args!("{} events are of a kind that this tool does not know", timeline.unknown));
    }
    if timeline.out_of_turn > 0 {
        line(format_args!("{} entries and exits did not come in turn", timeline.out_of_turn));
    }
    for (number, vm) in &timeline.vms {
        let name = timeline.vm_names.get(number).map_or("?", String::as_str);
        let share = vm.in_guest.0 as f64 * 100.0 / length.0.max(1) as f64;
        line(format_args!(""));
        line(format_args!(
            "VM {number}: {name}, {:.3} ms in the guest, {share:.1} % of a CPU",
            nanoseconds(vm.in_guest) as f64 / 1e6
        ));
        line(format_args!(
            "{:10} {:>10} {:>12} {:>12} {:>12} {:>12}",
            "exits", "count", "total us", "average ns", "worst ns", "average tk"
        ));
        let mut rows: Vec<(&str, Cost)> = vm.exits.iter().map(|(reason, cost)| (*reason, *cost)).collect();
        rows.sort_by_key(|(_, cost)| std::cmp::Reverse(cost.total));
        let sum = rows.iter().fold(Cost::default(), |sum, (_, cost)| Cost {
            count: sum.count + cost.count,
            complete: sum.complete + cost.complete,
            total: sum.total.saturating_add(cost.total),
            worst: sum.worst.max(cost.worst),
        });
        for (reason, cost) in rows.into_iter().chain([("all", sum)]) {
            let average = cost.total.0 as f64 / cost.complete.max(1) as f64;
            line(format_args!(
                "{reason:10} {:>10} {:>12.1} {:>12.0} {:>12} {average:>12.1}",
                cost.count,
                nanoseconds(cost.total) as f64 / 1000.0,
                average * 1e9 / f64::from(timeline.frequency.hertz()),
                nanoseconds(cost.worst)
            ));
        }
    }
    text
}
