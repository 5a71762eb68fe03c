//! VMs that are killed while devices of the machine's PCI write to their memory, again and again, with canaries in all other memory.
//!
//! Answers for: Linux with two disks and a network card by NVMe, AHCI and an 82574, all of which work in each of its lives, by messages; and a
//! canary that then has the memory in which it lived. Does not answer for: what a device does that is aimed at others (`functions`, `edu`).

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::bare_pci::{ECHO, disk};
use super::machine::{Case, Ran, Session};
use super::ordeals::{Figures, Random, Watched, lost};
use super::scene::Scene;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// Linux boots and its devices are busy within this.
const BOOT: Duration = Duration::from_secs(300);
/// What follows from something that was typed comes within this.
const SOON: Duration = Duration::from_secs(60);
const PROMPT: &str = "bulkhead# ";

/// RAM of the machine, and of it what Linux has with fio and without, and what the canary has beside it, all in MiB. The boot archive and the
/// hypervisor have the rest.
const ALL: u64 = 2048;
const LINUX: u64 = 384;
const QUICK: u64 = 192;
const CANARY: u64 = 1408;
/// What the canary looks at in a millisecond, in KiB, at a lower priority than Linux: a byte that was changed stays so until it is seen.
const RATE: u64 = 128;
/// After so many lives of Linux's a canary has the memory in which it was.
const LIVES_FOR_AN_HEIR: usize = 5;

/// How long the devices are busy before the plug is pulled, in milliseconds.
const AT_LEAST: u64 = 50;
const AT_MOST: u64 = 500;

/// Linux that has each of its devices do something, and then all of them without end.
const STORM: &str = "storm nvme0n1 sda e1000e";
const BUSY: &str = "passed: storm nvme0n1 sda e1000e: ok, nvme0n1 sda eth0, interrupts: ";
/// The same in the last life, with fio before, which takes longer to begin than all the rest of a life.
const FIO: &str = "disk nvme0n1 2 + disk sda 2 + ";
const VERIFIED: [&str; 2] = ["passed: disk nvme0n1 2: ok, 2 MiB verified", "passed: disk sda 2: ok, 2 MiB verified"];

/// So many lives, each of which ends at some moment of the devices' DMA.
pub(super) fn passed(case: &Case, times: usize) -> Result<Figures> {
    let nvme = Device::new(Kind::Nvme(disk(case, "nvme.img")?));
    let ahci = Device::new(Kind::Ahci(disk(case, "ahci.img")?));
    let e1000e = Device::new(Kind::E1000e(ECHO.into()));
    let devices = [nvme, ahci, e1000e].map(Device::behind_port).into();
    let machine = Machine { smmu: true, devices, memory: format!("{ALL}M"), ..Machine::default() };
    let mut session = scene()?.session(case, &machine)?;
    session.expect(PROMPT, BOOT)?;
    ask(&mut session, "qvm @canary.qvmconf &")?;
    session.expect("canary| canary: watches ", SOON)?;
    let mut random = Random(0x7e57_ab1e_5eed_c0de);
    for life in 1..=times {
        let (file, lines) = if life == times { ("linux", &VERIFIED[..]) } else { ("quick", &[][..]) };
        ask(&mut session, &format!("qvm @{file}.qvmconf &"))?;
        for line in lines.iter().chain([&BUSY]) {
            session.expect(line, BOOT).with_context(|| format!("life {life} of {times}"))?;
        }
        thread::sleep(Duration::from_millis(AT_LEAST + random.below(AT_MOST - AT_LEAST)));
        if life == times {
            ask(&mut session, "pidin its")?;
        }
        session.send("slay -s QUIT linux\r")?;
        session.expect("linux is gone", SOON)?;
        session.expect("qvm: linux ended: code 3 (power cut)", SOON).with_context(|| format!("end {life}"))?;
        ask(&mut session, "wait linux")?;
        if life % LIVES_FOR_AN_HEIR == 0 {
            ask(&mut session, "qvm @heir.qvmconf")?;
        }
    }
    // The round under way may have passed what the last life wrote; the one behind it has not.
    for _ in 0..2 {
        session.expect("canary| canary: ", SOON)?;
        session.expect(" rounds, ", SOON)?;
    }
    session.send("slay -s QUIT canary\r")?;
    session.expect("qvm: canary ended: code 3 (", SOON)?;
    let ran = Ran { status: 0, text: session.text().into() };
    session.send("shutdown\r")?;
    session.expect_end(SOON)?;
    figures(&ran, times)
}

/// A keyboard, Linux with the devices, and the canaries.
fn scene() -> Result<Scene> {
    setup::linux_guest_with_pci()?;
    let mut scene = Scene::interactive();
    scene.line("log debug");
    let files = [
        ("Image", setup::LINUX_IMAGE),
        ("with-fio", setup::LINUX_INITRAMFS_WITH_PCI),
        ("without", setup::LINUX_INITRAMFS_WITH_PCI_ALONE),
    ];
    for (file, path) in files {
        scene.file(file, fs::read(root().join(path))?);
    }
    for (file, memory, initrd, before) in [("linux", LINUX, "with-fio", FIO), ("quick", QUICK, "without", "")] {
        let text = format!(
            "system linux\nram 0x80000000,{memory}M\ncpu\ncpu\nload Image\ninitrd load {initrd}\n\
             vdev gic its 0x08080000 num-lpis 256\nvdev pl011 loc 0x1c090000 intr gic:37\n\
             cmdline \"console=ttyAMA0 quiet bulkhead.run=\\\"passed {before}{STORM}\\\"\"\n\
             pass loc pci:0x1b36/0x0010\npass loc pci:0x8086/0x2922\npass loc pci:0x8086/0x10d3\n"
        );
        scene.file(&format!("{file}.qvmconf"), text.into());
    }
    let watch = |words: String| format!("cmdline \"{words}\"\ncpu sched 5");
    scene.vm("canary", "canary", &format!("{CANARY}M"), &watch(format!("rate={RATE} report=1")))?;
    scene.vm("heir", "canary", &format!("{LINUX}M"), &watch("rate=1048576 rounds=1".into()))?;
    Ok(scene)
}

/// Types a command of the shell's, and waits until it has taken it.
fn ask(session: &mut Session, command: &str) -> Result<()> {
    session.send(&format!("{command}\r"))?;
    session.expect(command, SOON)?;
    session.expect(PROMPT, SOON)
}

/// What is to be said of so many lives.
fn figures(ran: &Ran, times: usize) -> Result<Figures> {
    ensure!(!ran.text.contains("FAILED"), "a device does not work, or not as it should");
    ensure!(ran.text.matches(BUSY).count() == times, "not each life says by what its devices interrupt");
    let by_line = ran.of("linux").find(|line| line.starts_with("passed: ") && line.ends_with(" lines"));
    ensure!(by_line.is_none(), "a device interrupts by its pin: {by_line:?}");
    let watched = Watched {
        faults: ran.text.lines().filter(|line| line.contains("smmu0: stream ")).count(),
        ..watched(ran, times / LIVES_FOR_AN_HEIR)?
    };
    Ok(Figures {
        ends: ran.text.matches("qvm: linux ended: code 3 (").count(),
        lost: lost(ran, "linux")?,
        neighbour: None,
        watched: Some(watched),
    })
}

/// What the canary counted, and so many heirs.
fn watched(ran: &Ran, heirs: usize) -> Result<Watched> {
    let counts = |name| {
        ran.of(name).filter_map(|line| {
            let (rounds, rest) = line.strip_prefix("canary: ")?.split_once(" rounds, ")?;
            let changed = rest.strip_suffix(" bytes changed")?.parse::<u64>().ok()?;
            Some((rounds.parse::<u64>().ok()?, changed))
        })
    };
    let (rounds, changed) = counts("canary").last().context("the canary is silent")?;
    let found: Vec<(u64, u64)> = counts("heir").collect();
    ensure!(found.len() == heirs, "{} of {heirs} heirs have looked at their memory", found.len());
    Ok(Watched { rounds, changed: changed + found.iter().map(|(_, changed)| changed).sum::<u64>(), faults: 0 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_canaries_say_is_added_up() {
        let text = "canary| canary: 1 rounds, 0 bytes changed\nheir| canary: 1 rounds, 3 bytes changed\n\
                    canary| canary: 0x80100000 is 0x00, not 0x17\ncanary| canary: 2 rounds, 1 bytes changed\n\
                    heir| canary: 1 rounds, 0 bytes changed\n";
        let ran = Ran { status: 0, text: text.into() };
        assert_eq!(watched(&ran, 2).unwrap(), Watched { rounds: 2, changed: 4, faults: 0 });
        assert!(watched(&ran, 1).is_err());
    }
}
