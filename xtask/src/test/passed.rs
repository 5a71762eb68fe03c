//! Devices of the machine that VMs have: QEMU's PL031, which harms nobody.

use anyhow::{Result, bail};

use super::Test;
use super::guests::{configuration, judge, machine};
use super::machine::Case;
use super::refused::{Refused, refuse};
use super::scene::Scene;
use crate::qemu::machine::Machine;
use crate::setup;

/// The clock of QEMU's machine, somewhere else for the guest.
const CLOCK: &str = "pass loc 0x1c170000,4K,rwn=0x09010000 intr gic:41=34\n";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "passed/selftest",
            "a passed clock's interrupts come once each, and end at the source",
            inside,
        ),
        Test::hypervisor("passed/linux", "rtc-pl031 drives the machine's own clock, and has its alarm", linux),
        Test::hypervisor("passed/again", "what a VM had is free when it is gone, with nothing left pending", again),
        Test::hypervisor(
            "passed/uncontained",
            "a device that nothing confines is told of wherever its VM is",
            uncontained,
        ),
        Test::hypervisor("passed/refused", "what is somebody's, or no device, is refused by both names", refusals),
    ]
}

fn inside(case: &Case) -> Result<()> {
    for (cpus, vcpus) in [(1, 1), (2, 2)] {
        let text = configuration("selftest", "selftest", vcpus, "passed:") + CLOCK;
        let ran = case.batch(&machine(cpus, "cortex-a72"), &[case.file("selftest.qvmconf", text)?])?;
        ran.expect_status(0)?;
        if ran.text.contains("# SKIP") || ran.text.contains("has no owner") {
            bail!("the device was not found, or its interrupt came to nobody");
        }
        judge(ran.of("selftest"))?;
    }
    Ok(())
}

fn linux(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let commands = "cd /sys/class/rtc/rtc0; echo name $(cat name); echo +3 > wakealarm; sleep 5; \
                    grep rtc-pl031 /proc/interrupts";
    let text = super::linux::configuration("linux", 2, commands) + CLOCK;
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?.expect("linux| name rtc-pl031")?;
    let alarm = ran.of("linux").find(|line| line.contains("GIC") && line.contains("rtc-pl031")).unwrap_or_default();
    if alarm.split_whitespace().skip(1).take(2).all(|count| count == "0") {
        bail!("no alarm: {alarm}");
    }
    Ok(())
}

/// The first is ended in the middle of it: its line is high, and its interrupt active. The next has the device as if it had been
/// nobody's.
fn again(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("first", "selftest", "32M", &format!("cmdline \"held\"\n{CLOCK}"))?;
    scene.vm("second", "selftest", "32M", &format!("cmdline \"passed:\"\n{CLOCK}"))?;
    scene.line("qvm @first.qvmconf &").line("sleep 1").line("slay -s QUIT first").line("sleep 0.5");
    scene.line("qvm @second.qvmconf");
    let ran = scene.run(case, &machine(2, "cortex-a72"), None, 2)?;
    ran.in_order(&["first| # the interrupt is active", "qvm: first ended: code 3 (", "qvm: second ended: code 0 ("])?;
    if ran.text.contains("has no owner") {
        bail!("an interrupt came to nobody");
    }
    judge(ran.of("second"))
}

/// QEMU's device of firmware variables reaches memory by itself, and is behind no SMMU.
fn uncontained(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let device = "pass loc 0x1c170000,4K,rwd=0x09020000 uncontained";
    scene.vm("wild", "witness", "2M", device)?.line("qvm @wild.qvmconf &").line("sleep 0.5");
    scene.line("pidin").line("status wild").line("sleep 0.5");
    // Where its RAM would be is somebody's, and then nothing.
    scene.vm("second", "witness", "2M", "pass loc 0x1c170000,4K,rwd=0x09030000 uncontained")?;
    scene.line("qvm @second.qvmconf").line("slay -s QUIT wild").line("wait wild");
    let balloon = format!("{device} vdev virtio-balloon loc 0x1c0d0000 intr gic:46");
    scene.vm("balloon", "witness", "2M", &balloon)?.line("qvm @balloon.qvmconf");
    let here = Machine { memory: "2G".into(), ..machine(2, "cortex-a72") };
    let ran = scene.run(case, &here, None, 3)?;
    ran.in_order(&[
        " wild (uncontained: reaches all memory)",
        "qvm: second ended: code 64 (could not start: `uncontained`: not all of the guest's RAM is free RAM of the machine at the same addresses (0x",
        "qvm: wild ended: code 3 (power cut: a passed device is uncontained: it reaches all memory",
        "is `uncontained`, and pages from a balloon would not come back to their places",
        "qvm: balloon ended: code 65 (",
    ])?;
    // At the start, and in the status; the log has its own pace.
    let all = "a passed device is uncontained: it reaches all memory";
    if ran.text.lines().filter(|line| line.contains("wild") && line.contains(all)).count() < 3 {
        bail!("it is not told at the start, in the status and at the end");
    }
    let mut scene = Scene::new();
    scene.vm("wild", "witness", "2M", device)?.line("qvm @wild.qvmconf");
    let small = Machine { memory: "1G".into(), ..machine(2, "cortex-a72") };
    scene.run(case, &small, None, 1)?.expect("qvm: wild ended: code 64 (could not start: `uncontained`: not all of")?;
    Ok(())
}

fn refusals(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let there = "pass loc 0x1c170000,4K,rwn=0x09010000 intr gic:41=34";
    scene.vm("there", "witness", "2M", there)?.line("qvm @there.qvmconf &").line("sleep 0.5");
    let refused: &[Refused] = &[
        (
            "twice",
            "pass loc 0x1c170000,4K,rwn=0x09010000 intr gic:41=34",
            &[
                ":4:10: error: ",
                "VM `twice` cannot have 0x9010000-0x9010fff of the machine: VM `there` has 0x9010000-0x9010fff",
                ":4:44: error: VM `twice` cannot have interrupt 34 of the machine: VM `there` has interrupt 34",
            ],
        ),
        (
            "console",
            "pass loc 0x1c170000,4K,rwn=0x09000000",
            &["VM `console` cannot have 0x9000000-0x9000fff of the machine: the hypervisor's console has"],
        ),
        ("gic", "pass loc 0x1c170000,64K,rwn=0x08000000", &["is the machine's interrupt controller"]),
        ("virtio", "pass loc 0x1c170000,4K,rwn=0x0a000000", &["/virtio_mmio@a000000 is a place for virtio devices"]),
        ("memory", "pass loc 0x1c170000,4K,rwn=0x40000000", &["the machine has no device at 0x40000000-0x40000fff"]),
        ("half", "pass loc 0x1c170000,2K,rwn=0x09030000", &["is not whole pages"]),
        ("line", "pass loc 0x1c170000,4K,rwn=0x09030000 intr gic:41=33", &["interrupt 33 is that of /pl011@9000000"]),
        ("edge", "pass loc 0x1c170000,4K,rwn=0x09030000 intr gic:41,u=39", &["is no edge, and `u` is for edges"]),
        (
            "dma",
            "pass loc 0x1c170000,4K,rwd=0x09030000",
            &["/pl061@9030000 reaches memory by itself, and no SMMU confines it"],
        ),
    ];
    refuse(case, &Machine::default(), scene, "slay -s QUIT there", refused)
}
