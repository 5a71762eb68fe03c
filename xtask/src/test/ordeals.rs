//! Lives and deaths of VMs, again and again: a few times in `cargo xtask test`, thousands of times in `cargo xtask soak`.
//!
//! Answers for: scripts that start, kill and restart VMs, beside a witness that must not notice; and for counting what is
//! missing afterwards. The hypervisor says after each VM what it has of its memory (`log debug`): that must be the same
//! after the last as after the first.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use super::Test;
use super::heavy;
use super::machine::{Case, Ran};
use super::scene::{Scene, counting, faulty};
use crate::qemu::machine::Machine;
use crate::workspace::target;

/// Ways in which `vdev faulty` fails, by the number that the guest writes.
const WAYS: [&str; 3] = ["panic", "abort", "overflow"];

/// How late the neighbour's timer may be, in microseconds of a CPU that executes an instruction in a nanosecond: as long as
/// the hypervisor masks interrupts while it makes a VM and takes it apart.
const LATE: u64 = 50;

/// Bytes by which what the hypervisor keeps may still grow late in a run: room for longer lines and lists than before.
const GROWTH: i64 = 512;

/// One kind of trouble.
pub(crate) struct Ordeal {
    pub(crate) name: &'static str,
    pub(crate) about: &'static str,
    /// How often in a test, and how often in a soak.
    short: usize,
    pub(crate) full: usize,
    run: fn(&Case, usize) -> Result<Figures>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// VMs that have ended as they should.
    pub(crate) ends: usize,
    /// KiB of RAM, and bytes of the hypervisor's heap, that did not come back.
    pub(crate) lost: (i64, i64),
    /// What a neighbour counted meanwhile, where it shares the CPU and nothing but instructions takes time.
    pub(crate) neighbour: Option<Neighbour>,
    /// What came of memory that others were not to write.
    pub(crate) watched: Option<Watched>,
}

/// What canaries, and SMMUs, have seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Watched {
    /// How often all of it was looked at.
    pub(super) rounds: u64,
    /// Bytes that somebody else has written.
    pub(super) changed: u64,
    /// Accesses of devices that an SMMU has refused and told of.
    pub(super) faults: usize,
}

/// What the witness has counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Neighbour {
    /// Its timer's ticks, and how many of them were a period late.
    ticks: u64,
    missed: u64,
    /// How late the worst of them was, in microseconds.
    late: u64,
}

/// All of them, the shortest first.
pub(crate) const ORDEALS: &[Ordeal] = &[
    Ordeal {
        name: "failures",
        about: "a vdev panics, faults and overflows its stack; a neighbour does not notice",
        short: 30,
        full: 1000,
        run: failures,
    },
    Ordeal { name: "together", about: "64 VMs at once on 2 CPUs", short: 64, full: 64, run: together },
    Ordeal { name: "hello", about: "one short VM after the other", short: 100, full: 10_000, run: hello },
    Ordeal {
        name: "balloon",
        about: "a guest gives 16 MiB back and takes them again, 25 times in each life; a neighbour does not notice",
        short: 4,
        full: 400,
        run: balloon,
    },
    Ordeal { name: "kills", about: "power cuts at any moment of a VM's life", short: 24, full: 2000, run: kills },
    Ordeal {
        name: "passed",
        about: "Linux is killed in the midst of DMA by NVMe, AHCI and an 82574; canaries in all other memory do not notice",
        short: 5,
        full: 500,
        run: heavy::passed,
    },
    Ordeal { name: "linux", about: "one Linux boot after the other", short: 3, full: 1000, run: linux },
];

impl Ordeal {
    /// Goes through it so many times. Fails if anything is lost, or the witness has missed a tick.
    pub(crate) fn endure(&self, case: &Case, times: usize) -> Result<Figures> {
        let figures = (self.run)(case, times)?;
        if figures.ends != times {
            bail!("{} of {times} VMs ended as they should", figures.ends);
        }
        Ok(figures)
    }

    pub(crate) fn judge(figures: &Figures) -> Result<()> {
        if figures.lost.0 != 0 || figures.lost.1 > GROWTH {
            bail!("{} KiB of RAM and {} bytes of the heap are lost", figures.lost.0, figures.lost.1);
        }
        if let Some(Neighbour { ticks, missed, late }) = figures.neighbour
            && (missed != 0 || late > LATE)
        {
            bail!("the neighbour missed {missed} of {ticks} ticks, and was {late} us late at worst");
        }
        if let Some(Watched { rounds, changed, faults }) = figures.watched
            && (rounds == 0 || changed != 0 || faults != 0)
        {
            bail!("in {rounds} rounds {changed} bytes were changed; {faults} accesses were refused");
        }
        Ok(())
    }
}

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let ordeal = |ordeal: &'static Ordeal| {
        Test::hypervisor(format!("ordeal/{}", ordeal.name), ordeal.about, |case| {
            Ordeal::judge(&ordeal.endure(case, ordeal.short)?)
        })
    };
    ORDEALS.iter().map(ordeal).collect()
}

/// How many VMs of this name have ended with this code.
pub(super) fn ends(ran: &Ran, name: &str, code: u8) -> usize {
    let start = format!("qvm: {name} ended: code {code} (");
    ran.text.lines().filter(|line| line.starts_with(&start)).count()
}

/// What is free, in KiB, and what of the heap is in use, in bytes, each time that a VM of this name is gone.
pub(super) fn left(ran: &Ran, name: &str) -> Vec<(i64, i64)> {
    let marker = format!("debug: {name} is gone: ");
    let numbers = |line: &str| {
        let rest = line.split_once(&marker)?.1;
        let free = rest.split_once(" of ")?.0.parse().ok()?;
        let used = rest.split_once(" KiB heap, ")?.1.split_once(" bytes")?.0.parse().ok()?;
        Some((free, used))
    };
    ran.text.lines().filter_map(numbers).collect()
}

/// What is missing after the last VM of this name that was there at the worst moment of the first half: what is made once
/// and kept (queues of the console, for as many VMs as there were at once) is made by then; what is lost with each VM is
/// lost in the second half as well.
pub(super) fn lost(ran: &Ran, name: &str) -> Result<(i64, i64)> {
    let left = left(ran, name);
    let first = &left[..left.len().div_ceil(2)];
    let (free, used) = (first.iter().map(|(free, _)| free).min(), first.iter().map(|(_, used)| used).max());
    match (free, used, left.last()) {
        (Some(free), Some(used), Some((last_free, last_used))) if left.len() > 1 => {
            Ok(((free - last_free).max(0), (last_used - used).max(0)))
        }
        _ => bail!("too little is said of memory"),
    }
}

/// What the witness has counted.
pub(super) fn witnessed(ran: &Ran) -> Result<Neighbour> {
    let last = ran.of("witness").filter(|line| line.ends_with(" wrong")).last().context("the witness is silent")?;
    if !last.ends_with(" 0 wrong") {
        bail!("somebody has written to the witness's memory: {last}");
    }
    let number = |word: &str| {
        let before = last.split_once(word).map(|(before, _)| before).unwrap_or_default();
        let number = before.rsplit(' ').next().and_then(|number| number.parse().ok());
        number.with_context(|| format!("not understood: {last}"))
    };
    Ok(Neighbour { ticks: number(" ticks")?, missed: number(" missed")?, late: number(" us at most")? })
}

/// One CPU, on which the neighbour and the trouble take turns. Of several, QEMU runs one at a time while it counts
/// instructions, for as long as no timer is due: a CPU that waits for another for an instant waits for half a millisecond.
pub(super) fn shared_cpu() -> Machine {
    Machine { cpus: 1, ..counting() }
}

fn failures(case: &Case, times: usize) -> Result<Figures> {
    let mut scene = Scene::new();
    scene.witness()?;
    for (number, way) in WAYS.iter().enumerate() {
        let more = format!("cmdline \"faulty how={}\"\nvdev faulty loc 0x1c100000", number + 1);
        scene.vm(way, "abuser", "4M", &more)?;
    }
    for way in WAYS.iter().cycle().take(times) {
        scene.line(format!("qvm @{way}.qvmconf"));
    }
    scene.line("sleep 0.2").line("slay -s QUIT witness");
    let ran = scene.run(case, &shared_cpu(), Some(faulty()?), times)?;
    let neighbour = Some(witnessed(&ran)?);
    let ends = WAYS.iter().map(|way| ends(&ran, way, 6)).sum();
    Ok(Figures { ends, lost: lost(&ran, WAYS[0])?, neighbour, watched: None })
}

fn hello(case: &Case, times: usize) -> Result<Figures> {
    let mut scene = Scene::new();
    scene.witness()?.vm("hello", "hello", "2M", "cmdline \"ticks=0\"")?;
    for _ in 0..times {
        scene.line("qvm @hello.qvmconf");
    }
    scene.line("sleep 0.2").line("slay -s QUIT witness");
    let ran = scene.run(case, &shared_cpu(), None, times)?;
    Ok(Figures {
        ends: ends(&ran, "hello", 0),
        lost: lost(&ran, "hello")?,
        neighbour: Some(witnessed(&ran)?),
        watched: None,
    })
}

/// Every other VM by reports as well, and with nothing promised to it.
fn balloon(case: &Case, times: usize) -> Result<Figures> {
    let mut scene = Scene::new();
    scene.witness()?;
    for (name, option) in [("keeper", ""), ("lender", "lend")] {
        let more = format!("cmdline \"balloon cycles=25\"\nvdev virtio-balloon loc 0x1c0d0000 intr gic:46 {option}");
        scene.vm(name, "abuser", "32M", &more)?;
    }
    for name in ["keeper", "lender"].iter().cycle().take(times) {
        scene.line(format!("qvm @{name}.qvmconf"));
    }
    scene.line("sleep 0.2").line("slay -s QUIT witness");
    let ran = scene.run(case, &shared_cpu(), None, times)?;
    let names = ["keeper", "lender"];
    let good = |name: &&str| ran.of(name).filter(|line| line.contains("balloon: 0 wrong of ")).count();
    let (ended, good) = (names.iter().map(|name| ends(&ran, name, 0)).sum(), names.iter().map(good).sum::<usize>());
    if good != ended {
        bail!("{good} of {ended} guests found their memory as they had left it");
    }
    Ok(Figures { ends: ended, lost: lost(&ran, "lender")?, neighbour: Some(witnessed(&ran)?), watched: None })
}

/// All at once, twice: after the second time there must be as much as after the first.
fn together(case: &Case, times: usize) -> Result<Figures> {
    let mut scene = Scene::new();
    scene.vm("hello", "hello", "2M", "")?;
    for _ in 0..2 {
        for number in 1..=times {
            scene.line(format!("qvm @hello.qvmconf system hello{number} &"));
        }
        scene.line("wait").line("sleep 0.1").line("qvm @hello.qvmconf");
    }
    let ran = scene.run(case, &counting(), None, 2 * times)?;
    let all = (1..=times).map(|number| ends(&ran, &format!("hello{number}"), 0)).sum::<usize>();
    let left = left(&ran, "hello");
    let [(free, used), (last_free, last_used)] = left.as_slice() else { bail!("too little is said of memory") };
    Ok(Figures { ends: all / 2, lost: (free - last_free, last_used - used), neighbour: None, watched: None })
}

/// Numbers that look random and are the same each time (Vigna, "An experimental exploration of Marsaglia's xorshift
/// generators").
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % limit
    }
}

/// Linux while it boots, with four vCPUs to switch on, and a guest that does what it may not: each is cut off somewhere in
/// its life.
fn kills(case: &Case, times: usize) -> Result<Figures> {
    let mut scene = Scene::new();
    scene.witness()?.vm("abuser", "abuser", "4M", "cpu cpu")?.vm("hello", "hello", "2M", "")?;
    scene.linux(4, "ls -lR /")?;
    // As many at once as there will ever be, so that the console has queues for all of them.
    for _ in 0..8 {
        scene.line("qvm @hello.qvmconf &");
    }
    scene.line("wait hello").line("sleep 0.2").line("qvm @hello.qvmconf");
    let mut random = Random(0x2b99_2ddf_a232_49d6);
    for number in 0..times {
        let (name, longest) = [("linux", 4000), ("abuser", 1500), ("hello", 400)][number % 3];
        // Most of what can go wrong is at the beginning.
        let milliseconds = if number % 2 == 0 { random.below(longest) } else { random.below(80) };
        let (seconds, thousandths) = (milliseconds / 1000, milliseconds % 1000);
        scene.line(format!("qvm @{name}.qvmconf dump kills &")).line(format!("sleep {seconds}.{thousandths:03}"));
        // Every other life may end while it is dumped.
        if number % 4 < 2 {
            scene.line(format!("slay -s USR2 {name}")).line(format!("sleep 0.{:03}", random.below(300)));
        }
        scene.line(format!("slay -s SIGQUIT {name}")).line(format!("wait {name}"));
        // One that had ended already is no harm, nor is a dump that was never made.
        scene.line(format!("rm kills/{name}.gcore"));
    }
    scene.line("sleep 0.2").line("qvm @hello.qvmconf").line("slay -s QUIT witness");
    let machine = Machine { memory: "1G".into(), ..Machine::default() };
    let ran = scene.run(case, &machine, None, times)?;
    // It has lived and its memory is as it was; in this machine's time the PC's other work counts, and its ticks say nothing.
    witnessed(&ran)?;
    let names = ["linux", "abuser", "hello"];
    let all = names.iter().map(|name| ends(&ran, name, 3) + ends(&ran, name, 0)).sum::<usize>();
    Ok(Figures { ends: all.saturating_sub(10), lost: lost(&ran, "hello")?, neighbour: None, watched: None })
}

fn linux(case: &Case, times: usize) -> Result<Figures> {
    let mut scene = Scene::new();
    scene.witness()?.linux(1, "true")?;
    for _ in 0..times {
        scene.line("qvm @linux.qvmconf");
    }
    scene.line("slay -s QUIT witness");
    let machine = Machine { memory: "1G".into(), ..shared_cpu() };
    let ran = scene.run(case, &machine, None, times)?;
    Ok(Figures {
        ends: ends(&ran, "linux", 0),
        lost: lost(&ran, "linux")?,
        neighbour: Some(witnessed(&ran)?),
        watched: None,
    })
}

/// Where an ordeal of a soak keeps its output.
pub(crate) fn log(ordeal: &Ordeal) -> PathBuf {
    target().join("test").join(format!("soak-{}.log", ordeal.name))
}

/// A line of the soak's table.
pub(crate) fn row(ordeal: &Ordeal, figures: &Figures, seconds: f32) -> String {
    let Figures { ends, lost, neighbour, watched } = figures;
    let mut line = format!("{:12} {ends:>7} {:>9} {:>10} ", ordeal.name, lost.0, lost.1);
    let [ticks, missed, late] = match neighbour {
        Some(Neighbour { ticks, missed, late }) => [ticks, missed, late].map(u64::to_string),
        None => ["-"; 3].map(String::from),
    };
    let [rounds, changed, faults] = match watched {
        Some(Watched { rounds, changed, faults }) => {
            [*rounds, *changed, *faults as u64].map(|number| number.to_string())
        }
        None => ["-"; 3].map(String::from),
    };
    let _infallible =
        write!(line, "{ticks:>9} {missed:>7} {late:>7} {rounds:>7} {changed:>7} {faults:>7} {seconds:>8.0} s");
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ran(text: &str) -> Ran {
        Ran { status: 0, text: text.into() }
    }

    #[test]
    fn what_is_lost_is_seen() {
        let line = |free, used| {
            format!(
                "[   0.1] debug: hello is gone: {free} of 524288 KiB RAM free, 256 KiB the hypervisor's, of them 192 KiB \
                 heap, {used} bytes in use\n"
            )
        };
        let text = line(1000, 50) + &line(900, 60) + &line(896, 61);
        assert_eq!(left(&ran(&text), "hello"), [(1000, 50), (900, 60), (896, 61)]);
        assert_eq!(lost(&ran(&text), "hello").unwrap(), (4, 1));
        assert_eq!(lost(&ran(&(line(900, 70) + &line(910, 60))), "hello").unwrap(), (0, 0));
        assert!(lost(&ran(&line(1000, 50)), "hello").is_err());
        assert!(Ordeal::judge(&Figures { lost: (0, GROWTH + 1), ..Figures::default() }).is_err());
    }

    #[test]
    fn the_witness_is_understood() {
        let text = "witness| witness: 100 ticks, 0 missed, late 3 us at most; 99 sums, 0 wrong\n\
                    witness| witness: 200 ticks, 7 missed, late 9 us at most; 199 sums, 0 wrong\n";
        assert_eq!(witnessed(&ran(text)).unwrap(), Neighbour { ticks: 200, missed: 7, late: 9 });
        assert!(witnessed(&ran(&text.replace("0 wrong", "1 wrong"))).is_err());
        assert!(witnessed(&ran("")).is_err());
    }

    #[test]
    fn ends_are_counted_by_name_and_code() {
        let text = "qvm: a ended: code 6 (x)\nqvm: a ended: code 0 (y)\nqvm: ab ended: code 6 (z)\na| qvm: a ended: code 6 (\n";
        assert_eq!(ends(&ran(text), "a", 6), 1);
    }
}
