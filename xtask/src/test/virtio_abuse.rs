//! Drivers that break the rules of virtio, one test for each case of `guests/abuser`.
//!
//! Answers for: which cases there are (`hypervisor/docs/virtio-abuse.md` names them), running all of a transport's in one boot, since
//! each leaves its device in order, and finding in what the guest has said what became of each. Does not answer for: the cases.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::Test;
use super::machine::{Case, Ran};
use super::ordeals::{Figures, Ordeal, shared_cpu, witnessed};
use super::scene::Scene;
use crate::qemu::machine::Machine;

/// What a driver must not do, and the case that does it.
const RULES: &str = include_str!("../../../hypervisor/docs/virtio-abuse.md");

/// All cases take less.
const PATIENCE: Duration = Duration::from_secs(300);

/// The devices.
const DEVICES: &str = "\
vdev virtio-blk hostdev /dev/ram,1M
vdev virtio-blk hostdev <disk.img name file
vdev virtio-console hostdev >- port second,>-
vdev virtio-net name one peer /dev/vswitch0
vdev virtio-net name two peer /dev/vswitch0
vdev virtio-entropy
";

/// What carries devices to a guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Mmio,
    Pci,
}

impl Transport {
    const ALL: [Self; 2] = [Self::Mmio, Self::Pci];

    /// As it is in the names of tests, and before those of cases that are for it alone.
    const fn word(self) -> &'static str {
        match self {
            Self::Mmio => "mmio",
            Self::Pci => "pci",
        }
    }

    fn has(self, case: &str) -> bool {
        let of = |other: Self| case.starts_with(&format!("{}-", other.word()));
        of(self) || !Self::ALL.into_iter().any(of)
    }

    /// The devices there: they are on the bus unless they have a place in memory.
    fn devices(self) -> String {
        let place = |(number, line): (usize, &str)| match self {
            Self::Mmio => format!("{line} loc {:#x} intr gic:{}\n", 0x1c0d_0000 + 0x1000 * number, 41 + number),
            Self::Pci => format!("{line}\n"),
        };
        DEVICES.lines().enumerate().map(place).collect()
    }
}

/// A row of the table: the section, what it says in short, and the cases.
struct Rule {
    section: &'static str,
    says: &'static str,
    cases: Vec<&'static str>,
}

/// The rows that have cases.
fn rules() -> Vec<Rule> {
    let rule = |line: &'static str| {
        let mut cells = line.strip_prefix("| ")?.strip_suffix(" |")?.split(" | ");
        let (section, says, cases) = (cells.next()?, cells.next()?, cells.next()?);
        let cases: Vec<_> = cases.split(", ").filter_map(|case| case.strip_prefix('`')?.strip_suffix('`')).collect();
        (!cases.is_empty() && cells.next().is_none()).then_some(Rule { section, says, cases })
    };
    RULES.lines().filter_map(rule).collect()
}

/// The cases, each with the first rule that it is about, by section and in short.
fn cases() -> BTreeMap<&'static str, (&'static str, &'static str)> {
    let named = |rule: Rule| rule.cases.into_iter().map(move |case| (case, (rule.section, rule.says)));
    // Of several rows that name a case the first one counts.
    rules().into_iter().rev().flat_map(named).collect()
}

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    Transport::ALL.into_iter().flat_map(tests_on).collect()
}

fn tests_on(transport: Transport) -> Vec<Test> {
    let group = format!("virtio-abuse/{}", transport.word());
    let mut tests = vec![Test::hypervisor(
        format!("{group}/neighbour"),
        "a VM beside one whose drivers break rules notices nothing",
        move |case| {
            let outcome = outcome(case, transport)?;
            Ordeal::judge(&outcome.figures)?;
            let named = named(transport);
            let run: Vec<&str> = outcome.verdicts.keys().map(String::as_str).collect();
            ensure!(named == run, "the cases of the table are {named:?}; those that have been run are {run:?}");
            Ok(())
        },
    )];
    tests.push(Test::hypervisor(format!("{group}-gicv2"), "all of that beside a GICv2", move |case| {
        let Outcome { verdicts, figures } = boot(case, &transport.devices(), 2)?;
        Ordeal::judge(&figures)?;
        judge(&named(transport), &verdicts)
    }));
    tests.extend(cases().into_iter().filter(|(name, _)| transport.has(name)).map(|(name, (section, says))| {
        Test::hypervisor(format!("{group}/{name}"), says, move |case| {
            match outcome(case, transport)?.verdicts.get(name).map(String::as_str) {
                Some("ok") => Ok(()),
                Some(verdict) => bail!("virtio 1.3, {section}: {verdict}"),
                None => bail!("nothing has come of it: the VM has ended before"),
            }
        })
    }));
    tests
}

/// The cases of a transport.
fn named(transport: Transport) -> Vec<&'static str> {
    cases().into_keys().filter(|case| transport.has(case)).collect()
}

/// Whether all of the cases have been run, and are right.
fn judge(named: &[&str], verdicts: &BTreeMap<String, String>) -> Result<()> {
    let wrong: Vec<String> = named
        .iter()
        .filter_map(|case| match verdicts.get(*case).map(String::as_str) {
            Some("ok") => None,
            verdict => Some(format!("{case}: {}", verdict.unwrap_or("nothing has come of it"))),
        })
        .collect();
    ensure!(wrong.is_empty(), "{}", wrong.join("; "));
    Ok(())
}

/// What has come of all cases.
struct Outcome {
    /// By case.
    verdicts: BTreeMap<String, String>,
    figures: Figures,
}

/// The first test that asks has a machine booted; the others wait for it.
fn outcome(case: &Case, transport: Transport) -> Result<&'static Outcome> {
    static ON_MMIO: OnceLock<Result<Outcome, String>> = OnceLock::new();
    static ON_PCI: OnceLock<Result<Outcome, String>> = OnceLock::new();
    let outcome = match transport {
        Transport::Mmio => &ON_MMIO,
        Transport::Pci => &ON_PCI,
    };
    let outcome = outcome.get_or_init(|| boot(case, &transport.devices(), 3).map_err(|error| format!("{error:#}")));
    outcome.as_ref().map_err(|error| anyhow!("{error}"))
}

/// Runs all cases of the devices, beside a witness, on a machine with an interrupt controller of that version.
fn boot(case: &Case, devices: &str, gic: u8) -> Result<Outcome> {
    let disk: Vec<u8> = b"Bulkhead".iter().copied().cycle().take(8192).collect();
    let mut scene = Scene::new();
    scene.witness()?.file("disk.img", disk);
    // Where messages go: a GICv3 takes them by itself. The controller stands before the devices that name it.
    let controller = if gic == 2 { "vdev gic version 2 msi 0x08020000,96,32\n" } else { "" };
    let text = format!(
        "system abuser\nram 0x80000000,8M\nload abuser.elf\ncmdline \"virtio\"\n{controller}\
         vdev pl011 loc 0x1c090000 intr gic:37\n{devices}"
    );
    scene.guest("abuser")?.file("abuser.qvmconf", text.into_bytes());
    scene.line("qvm @abuser.qvmconf").line("sleep 0.2").line("slay -s QUIT witness");
    let machine = Machine { gic, cpu: "max".into(), ..shared_cpu() };
    let ran = scene.run_within(case, &machine, PATIENCE)?;
    ran.expect("qvm: abuser ended: code 0 (").context("the VM has not ended as it should")?;
    let neighbour = Some(witnessed(&ran)?);
    Ok(Outcome { verdicts: verdicts(&ran), figures: Figures { neighbour, ..Figures::default() } })
}

fn verdicts(ran: &Ran) -> BTreeMap<String, String> {
    let verdict = |line: &str| {
        let (case, verdict) = line.strip_prefix("virtio: ")?.split_once(": ")?;
        Some((case.to_string(), verdict.trim_end().to_string()))
    };
    ran.of("abuser").filter_map(verdict).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::root;
    use std::collections::BTreeSet;
    use std::fs;

    /// The names of the guest's cases, as they stand in its source.
    fn of_the_guest() -> BTreeSet<String> {
        let files = fs::read_dir(root().join("guests/abuser/src/virtio")).unwrap();
        let sources = files.map(|file| fs::read_to_string(file.unwrap().path()).unwrap());
        let names = |source: String| -> Vec<String> {
            source.split("Case::new(\"").skip(1).filter_map(|rest| Some(rest.split_once('"')?.0.to_string())).collect()
        };
        sources.flat_map(names).collect()
    }

    #[test]
    fn the_table_names_every_case_and_no_other() {
        let named: BTreeSet<String> = cases().into_keys().map(str::to_string).collect();
        assert_eq!(named, of_the_guest());
    }

    #[test]
    fn every_row_has_a_section_and_a_rule() {
        for Rule { section, says, .. } in rules() {
            assert!(section.split('.').all(|part| part.parse::<u32>().is_ok()), "{section}");
            assert!(!says.is_empty());
        }
    }

    #[test]
    fn a_case_that_fails_or_has_not_been_run_is_named() {
        let verdicts = [("a", "ok"), ("b", "FAILED: it is 0x1")].map(|(case, verdict)| (case.into(), verdict.into()));
        let verdicts = BTreeMap::from(verdicts);
        assert!(judge(&["a"], &verdicts).is_ok());
        let error = judge(&["a", "b", "c"], &verdicts).unwrap_err().to_string();
        assert_eq!(error, "b: FAILED: it is 0x1; c: nothing has come of it");
    }

    #[test]
    fn verdicts_are_found_by_case() {
        let text = "abuser| virtio: a: ok\nabuser| virtio: b: FAILED: it is 0x1\nwitness| virtio: c: ok\n".to_string();
        let found = verdicts(&Ran { status: 0, text });
        assert_eq!(found.get("a").map(String::as_str), Some("ok"));
        assert_eq!(found.get("b").map(String::as_str), Some("FAILED: it is 0x1"));
        assert!(!found.contains_key("c"), "that is what another VM says");
    }
}
