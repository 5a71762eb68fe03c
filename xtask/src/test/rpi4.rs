//! The Raspberry Pi 4, as far as QEMU has it; and which other tests can be run on one.
//!
//! Answers for: what is the board's own: its CPUs and how they are started, its serial ports, its reset, what its device tree
//! says. Does not answer for: what runs on it like anywhere else (`cargo xtask test --board rpi4`).

use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Test;
use super::guests::judge;
use super::linux::two_vcpus;
use super::machine::{Case, PATIENCE, Ran};
use super::scene::Scene;
use crate::qemu::machine::{Board, Machine};
use crate::qemu::raspberry::{Tree, cells};

const SOON: Duration = Duration::from_secs(60);
const PROMPT: &str = "bulkhead# ";

/// Tests by the beginnings of their names, and why they cannot be run on a Raspberry Pi.
const ELSEWHERE: &[(&str, &str)] = &[
    ("bare/", "guests without hypervisor run on the machine virt"),
    ("models/", "its cores are of one kind"),
    ("interface/machines", "it is about machines of other kinds"),
    ("linux/entropy", "its cores have no random numbers, and QEMU has not the board's"),
    ("virtio/drivers", "its cores have no random numbers, and QEMU has not the board's"),
    ("linux/profiler", "its performance monitors have no private interrupt"),
    ("firmware/uefi", "it does not know what time it is"),
    ("linux/clocks", "it does not know what time it is"),
    ("disks/", "it has no disks that there is a driver for"),
    ("virtio/uplink", "it has no network card that there is a driver for"),
    ("refused/", "it changes the device tree of the machine virt"),
    ("shared/refused", "it has the memory that is to be refused"),
];

/// Why this test is not run on a Raspberry Pi, if it is not.
pub(super) fn elsewhere(name: &str) -> Option<&'static str> {
    if name.ends_with("-max") {
        return Some("its cores are of one kind");
    }
    ELSEWHERE.iter().find(|(beginning, _)| name.starts_with(beginning)).map(|(_, why)| *why)
}

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("rpi4/one", "one of its CPUs", |case| count(case, 1, "1 CPU, ", "16M")),
        Test::hypervisor("rpi4/four", "all of its CPUs, and RAM in two places", |case| {
            count(case, 4, "4 CPUs, ", "1G")
        }),
        Test::hypervisor("rpi4/selftest", "a VM with four vCPUs seen from inside is right", selftest),
        Test::hypervisor("rpi4/linux", "Debian's kernel on two vCPUs", |case| two_vcpus(case, &machine())),
        Test::hypervisor(
            "rpi4/mini-uart",
            "somebody at the mini UART; `reset` starts anew, `shutdown` ends",
            mini_uart,
        ),
        Test::hypervisor("rpi4/pl011", "somebody at the PL011", pl011),
        Test::hypervisor("rpi4/disks", "a disk that it has not got is named in vain", disks),
        Test::hypervisor("rpi4/absent", "CPUs that cannot be started are told of, and the others go on", absent),
    ]
}

fn machine() -> Machine {
    Machine { board: Board::Rpi4, gic: 2, cpus: 4, ..Machine::default() }
}

fn count(case: &Case, cpus: u32, says: &str, memory: &str) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("hello", "hello", memory, "")?.line("qvm @hello.qvmconf");
    let ran = scene.run(case, &Machine { cpus, ..machine() }, None, 1)?;
    // 960 MiB from 0 on, 1 GiB above: 1 GiB for a VM is some of both.
    ran.expect(&format!("on Raspberry Pi 4 Model B (rpi4): {says}1984 MiB RAM"))?;
    ran.expect("hello| hello: good-bye")?.expect("qvm: hello ended: code 0 (")?;
    Ok(())
}

fn disks(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let disk = "vdev virtio-blk loc 0x1c0d0000 intr gic:41 hostdev /dev/hd0";
    scene.line("pidin disks").vm("none", "hello", "2M", disk)?.line("qvm @none.qvmconf");
    let ran = scene.run(case, &machine(), None, 1)?;
    ran.expect("there is no disk `/dev/hd0`: this machine has none that there is a driver for")?;
    ran.expect("qvm: none ended: code 65")?;
    Ok(())
}

fn selftest(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("selftest", "selftest", "128M", &"cpu\n".repeat(4))?.line("qvm @selftest.qvmconf");
    let ran = scene.run(case, &machine(), None, 1)?;
    ran.expect("qvm: selftest ended: code 0 (")?;
    judge(ran.of("selftest"))
}

fn mini_uart(case: &Case) -> Result<()> {
    let machine = Machine { more: ["-action", "reboot=reset"].map(String::from).into(), ..machine() };
    let mut session = Scene::interactive().session(case, &machine)?;
    for command in ["reset -f\r", "shutdown -f\r"] {
        session.expect("on Raspberry Pi 4 Model B", PATIENCE)?;
        session.expect(PROMPT, SOON)?;
        // More than a FIFO holds, at once.
        session.send("log info\rlog nonsense\rpidin\r")?;
        session.expect("nonsense", SOON)?;
        session.expect("UPTIME", SOON)?;
        session.expect(PROMPT, SOON)?;
        session.send(command)?;
    }
    session.expect_end(SOON)
}

fn pl011(case: &Case) -> Result<()> {
    let alter = |tree: &mut Tree| tree.set("/chosen", "stdout-path", b"serial0:115200n8\0");
    let mut session = Scene::interactive().session(case, &Machine { alter, ..machine() })?;
    session.expect(PROMPT, PATIENCE)?;
    session.send("pidin\r")?;
    session.expect("UPTIME", SOON)?;
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

fn absent(case: &Case) -> Result<()> {
    let alter = |tree: &mut Tree| {
        // Where nobody looks, where nobody can look, and where there is our own code.
        tree.set("/cpus/cpu@1", "cpu-release-addr", &cells(&[0, 0x2000]));
        tree.set("/cpus/cpu@2", "cpu-release-addr", &cells(&[0, 0x2004]));
        tree.set("/cpus/cpu@3", "cpu-release-addr", &cells(&[0, 0x20_0000]));
    };
    let mut scene = Scene::new();
    scene.vm("hello", "hello", "16M", "cpu\ncpu")?.line("qvm @hello.qvmconf");
    let ran = scene.run(case, &Machine { alter, ..machine() }, None, 1)?;
    ran.expect("cpu2 stays off: its cpu-release-addr, 0x2004, cannot be one")?;
    ran.expect("cpu3 stays off: its cpu-release-addr, 0x200000, cannot be one")?;
    let waited = time_of(&ran, "cpu1 was started and does not report")? - time_of(&ran, "on Raspberry Pi")?;
    if waited >= 1.0 {
        bail!("told after {waited} s");
    }
    ran.expect("hello| hello: good-bye")?.expect("qvm: hello ended: code 0 (")?;
    Ok(())
}

/// The time stamp of the line that has `text`, in seconds.
fn time_of(ran: &Ran, text: &str) -> Result<f64> {
    let line = ran.text.lines().find(|line| line.contains(text)).with_context(|| format!("no line has `{text}`"))?;
    let stamp = line.strip_prefix('[').and_then(|rest| rest.split_once(']')).context("a line without a time")?.0;
    Ok(stamp.trim().parse()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_run_there_is_there() {
        let all: Vec<String> = super::super::all().unwrap().into_iter().map(|test| test.name).collect();
        for (beginning, _) in ELSEWHERE {
            assert!(all.iter().any(|name| name.starts_with(beginning)), "no test begins with {beginning}");
        }
        assert!(elsewhere("selftest/4-on-4-max").is_some() && elsewhere("selftest/4-on-4-cortex-a72").is_none());
    }
}
