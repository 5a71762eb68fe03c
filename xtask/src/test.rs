//! `cargo xtask test`: every test there is.
//!
//! Answers for: the list of tests, choosing among them, running them a few at a time, and telling what failed and how to
//! repeat it. The heights are those of the project's design: crates on the PC, Miri, fuzzing, guests under QEMU, real
//! guests under QEMU. Does not answer for: what a test does (`test::host`, `test::guests`, `test::bare_pci`, `test::models`, `test::linux`,
//! `test::devices`, `test::firmware`, `test::card`, `test::loader`, `test::interface`, `test::scheduling`,
//! `test::rpi4`).

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use clap::Args;

use crate::artifacts::{self, Board, Profile};
use crate::qemu::machine::{Board as Kind, Machine, set_default_board, set_default_cpus, set_default_gic};
use crate::setup;
use crate::workspace::target;

mod attacks;
mod balloon;
mod bare_pci;
mod card;
mod devices;
mod disks;
mod drivers;
mod dump;
mod firmware;
mod functions;
mod guests;
mod heavy;
mod host;
mod interface;
mod lifecycle;
mod linux;
mod loader;
mod lpi;
pub(crate) mod machine;
mod models;
mod nested;
pub(crate) mod ordeals;
mod passed;
mod pci;
mod pci_host;
mod quiesce;
mod refused;
mod rpi4;
mod scene;
mod scheduling;
mod shared;
mod smmu;
mod trace;
mod unanswered;
mod uplink;
mod virtio;
mod virtio_abuse;
mod virtual_functions;

use machine::Case;

/// How many tests run at once, on the PC or on emulated machines, which have threads of their own.
const AT_ONCE: usize = 2;

/// Options of `cargo xtask test`.
#[derive(Args, Debug)]
pub(crate) struct Arguments {
    /// Only the tests that have this in their name
    filter: Option<String>,
    /// Name the tests, run none
    #[arg(long)]
    list: bool,
    /// The machines, but for those that a test wants otherwise
    #[arg(long, value_enum, default_value = "qemu-virt")]
    board: Kind,
    /// Version of the machines' interrupt controller, where there is a choice
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u8).range(2..=3))]
    gic: u8,
    /// CPUs of the machines, but for those that a test wants otherwise
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=4))]
    cpus: u32,
    /// Build what runs on the machine with the debug profile
    #[arg(long)]
    debug: bool,
}

/// A test.
pub(crate) struct Test {
    name: String,
    about: &'static str,
    action: Action,
}

type OnThePc = Box<dyn Fn(&mut std::fs::File) -> Result<()> + Sync + Send>;
type OnMachines = Box<dyn Fn(&Case) -> Result<()> + Sync + Send>;

/// What a test does, and what it needs for that.
enum Action {
    /// Runs tools on the PC. Gets a file for their output.
    Host(OnThePc),
    /// Boots machines that run guests with no hypervisor.
    Bare(OnMachines),
    /// Boots machines with the hypervisor.
    Hypervisor(OnMachines),
}

impl Test {
    fn host(
        name: impl Into<String>,
        about: &'static str,
        action: impl Fn(&mut std::fs::File) -> Result<()> + Sync + Send + 'static,
    ) -> Test {
        Test { name: name.into(), about, action: Action::Host(Box::new(action)) }
    }

    fn bare(
        name: impl Into<String>,
        about: &'static str,
        action: impl Fn(&Case) -> Result<()> + Sync + Send + 'static,
    ) -> Test {
        Test { name: name.into(), about, action: Action::Bare(Box::new(action)) }
    }

    fn hypervisor(
        name: impl Into<String>,
        about: &'static str,
        action: impl Fn(&Case) -> Result<()> + Sync + Send + 'static,
    ) -> Test {
        Test { name: name.into(), about, action: Action::Hypervisor(Box::new(action)) }
    }
}

/// A test that has run.
struct Finished {
    name: String,
    took: Duration,
    result: Result<()>,
}

/// Every test, the quick ones first.
fn all() -> Result<Vec<Test>> {
    let mut tests = host::tests()?;
    tests.extend(guests::tests());
    tests.extend(bare_pci::tests());
    tests.extend(functions::tests());
    tests.extend(attacks::tests());
    tests.extend(models::tests());
    tests.extend(interface::tests());
    tests.extend(refused::tests());
    tests.extend(lifecycle::tests());
    tests.extend(dump::tests());
    tests.extend(ordeals::tests());
    tests.extend(scheduling::tests());
    tests.extend(shared::tests());
    tests.extend(trace::tests());
    tests.extend(linux::tests());
    tests.extend(pci::tests());
    tests.extend(pci_host::tests());
    tests.extend(devices::tests());
    tests.extend(virtio::tests());
    tests.extend(drivers::tests());
    tests.extend(virtio_abuse::tests());
    tests.extend(virtual_functions::tests());
    tests.extend(disks::tests());
    tests.extend(uplink::tests());
    tests.extend(smmu::tests());
    tests.extend(nested::tests());
    tests.extend(unanswered::tests());
    tests.extend(lpi::tests());
    tests.extend(balloon::tests());
    tests.extend(firmware::tests());
    tests.extend(passed::tests());
    tests.extend(quiesce::tests());
    tests.extend(rpi4::tests());
    tests.extend(card::tests());
    tests.extend(loader::tests());
    Ok(tests)
}

/// Those that run once more on machines with a GICv2, where nobody asks for all of them there.
const ON_GICV2: [&str; 12] = [
    "selftest/1-on-1-cortex-a72",
    "selftest/4-on-4-cortex-a72",
    "selftest/million",
    "selftest/ends",
    "passed/selftest",
    "abuser/2-on-2-cortex-a72",
    "contained/terminate-hang",
    "life/restarts",
    "shared/both",
    "scheduling/free-time",
    "linux/4-on-4-cortex-a72",
    "linux/stolen-time",
];

/// They, as the group `gic2/`.
fn on_gicv2() -> Result<Vec<Test>> {
    let tests: Vec<Test> = all()?.into_iter().filter(|test| ON_GICV2.contains(&test.name.as_str())).collect();
    ensure!(tests.len() == ON_GICV2.len(), "a test that is to run on a GICv2 has another name now");
    Ok(tests.into_iter().map(|test| Test { name: format!("gic2/{}", test.name), ..test }).collect())
}

/// The task.
pub(crate) fn run(arguments: &Arguments) -> Result<u8> {
    let filter = arguments.filter.as_deref().unwrap_or_default();
    let mut tests: Vec<Test> = all()?.into_iter().filter(|test| test.name.contains(filter)).collect();
    let mut repeated = Vec::new();
    if arguments.gic == 3 && arguments.board == Kind::QemuVirt {
        repeated = on_gicv2()?.into_iter().filter(|test| test.name.contains(filter)).collect();
    }
    if arguments.list {
        for test in tests.iter().chain(&repeated) {
            println!("{:32} {}", test.name, test.about);
        }
        return Ok(0);
    }
    if tests.is_empty() && repeated.is_empty() {
        bail!("no test has `{filter}` in its name; `cargo xtask test --list` names them all");
    }
    set_default_gic(arguments.gic);
    set_default_cpus(arguments.cpus);
    set_default_board(arguments.board);
    if arguments.board == Kind::Rpi4 {
        tests.retain(|test| match rpi4::elsewhere(&test.name) {
            Some(why) => {
                println!("skip {}: {why}", test.name);
                false
            }
            None => true,
        });
    }
    let start = Instant::now();
    let (host, machines): (Vec<Test>, Vec<Test>) =
        tests.into_iter().partition(|test| matches!(test.action, Action::Host(_)));
    let profile = if arguments.debug { Profile::Debug } else { Profile::Release };
    let mut finished = run_on_the_pc(host)?;
    if !machines.is_empty() {
        finished.extend(run_on_machines(machines, profile)?);
    }
    if !repeated.is_empty() {
        set_default_gic(2);
        finished.extend(run_on_machines(repeated, profile)?);
    }
    Ok(summarise(&finished, start.elapsed()))
}

/// Where the output of a test is kept.
fn log(name: &str) -> PathBuf {
    target().join("test").join(format!("{}.log", name.replace('/', "-")))
}

fn run_on_the_pc(tests: Vec<Test>) -> Result<Vec<Finished>> {
    std::fs::create_dir_all(target().join("test"))?;
    Ok(side_by_side(tests, |name, action| {
        let Action::Host(action) = action else { return Ok(()) };
        let log = log(name);
        let mut file = std::fs::File::create(&log)?;
        action(&mut file).map_err(|error| machine::with_tail(error, &log))
    }))
}

fn run_on_machines(tests: Vec<Test>, profile: Profile) -> Result<Vec<Finished>> {
    setup::rust_target()?;
    setup::qemu()?;
    let hypervisor = tests.iter().any(|test| matches!(test.action, Action::Hypervisor(_)));
    let package = Machine::default().board.package();
    let board = artifacts::build(hypervisor.then_some(package), &artifacts::guests()?, profile)?;
    Ok(side_by_side(tests, |name, action| run_on_a_machine(name, action, board.as_ref())))
}

/// Runs tests, a few at a time.
fn side_by_side(tests: Vec<Test>, run: impl Fn(&str, &Action) -> Result<()> + Sync) -> Vec<Finished> {
    let queue = Mutex::new(VecDeque::from(tests));
    let finished = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some(test) = take(&queue) {
                    let result = timed(test.name, |name| run(name, &test.action));
                    if let Ok(mut finished) = finished.lock() {
                        finished.push(result);
                    }
                }
            });
        }
    });
    finished.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

fn take(queue: &Mutex<VecDeque<Test>>) -> Option<Test> {
    queue.lock().ok()?.pop_front()
}

fn run_on_a_machine(name: &str, action: &Action, board: Option<&Board>) -> Result<()> {
    let log = log(name);
    let case = Case::new(name, &log, board)?;
    match action {
        Action::Host(_) => Ok(()),
        Action::Bare(action) | Action::Hypervisor(action) => {
            action(&case).map_err(|error| machine::with_tail(error, &log))
        }
    }
}

/// Runs one, and says at once what came of it: whoever watches need not wait for the end.
fn timed(name: String, action: impl FnOnce(&str) -> Result<()>) -> Finished {
    let start = Instant::now();
    let result = action(&name);
    let took = start.elapsed();
    let seconds = took.as_secs_f32();
    match &result {
        Ok(()) => println!("ok   {name} ({seconds:.1} s)"),
        Err(error) => println!("FAIL {name} ({seconds:.1} s)\n{error:#}"),
    }
    Finished { name, took, result }
}

/// Prints what failed and how to repeat it, then the count; the exit status.
fn summarise(finished: &[Finished], took: Duration) -> u8 {
    let mut failed = 0_usize;
    for test in finished {
        if let Err(error) = &test.result {
            failed += 1;
            println!("\n---- {} failed after {:.1} s", test.name, test.took.as_secs_f32());
            println!("{error:#}");
            println!("output: {}", log(&test.name).display());
            println!("repeat: cargo xtask test {}", test.name);
        }
    }
    println!("\n{} tests, {} failed, {:.0} s", finished.len(), failed, took.as_secs_f32());
    u8::from(failed > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_unique() {
        let mut names: Vec<String> = all().unwrap().into_iter().map(|test| test.name).collect();
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn a_failure_makes_the_status_one() {
        let finished = |result| Finished { name: "x".into(), took: Duration::ZERO, result };
        assert_eq!(summarise(&[finished(Ok(()))], Duration::ZERO), 0);
        assert_eq!(summarise(&[finished(Ok(())), finished(Err(anyhow::anyhow!("no")))], Duration::ZERO), 1);
    }
}
