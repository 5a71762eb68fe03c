//! The machine's ITS: messages of its devices, on their way into guests.
//!
//! Answers for: QEMU's ITS, whose events `vdev faulty` raises by command. Does not answer for: real functions, nor the guest's own ITS
//! (`selftest/lpi`).

use anyhow::{Result, ensure};

use super::Test;
use super::guests::judge;
use super::machine::Case;
use super::scene::{Scene, counting, faulty};
use crate::qemu::machine::Machine;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("lpi/boot", "an ITS is started where there is one, and nobody has vectors", boot),
        Test::hypervisor(
            "lpi/guests",
            "messages by the machine's ITS reach two guests at once, a flood of them too",
            guests,
        ),
        Test::hypervisor("lpi/flood", "messages that are too many are held for a while, and come then", flood),
        Test::hypervisor("lpi/again", "a VM that is started again has its vectors again", again),
    ]
}

fn machine(cpus: u32) -> Machine {
    Machine { gic: 3, cpus, ..Machine::default() }
}

fn boot(case: &Case) -> Result<()> {
    for gic in [3, 2] {
        let mut scene = Scene::new();
        scene.vm("hello", "hello", "2M", "")?.line("pidin its").line("qvm @hello.qvmconf");
        let ran = scene.run(case, &Machine { gic, ..machine(2) }, None, 1)?;
        ran.in_order(&["ITS             VECTORS  MESSAGES", "hello| hello: good-bye"])?;
        ensure!(ran.text.contains("its0    at 0x8080000") == (gic == 3), "the ITS is not where it is");
        ensure!(!ran.text.contains("is not used"), "it is used");
        ran.expect_status(0)?;
    }
    Ok(())
}

fn text(name: &str, cpus: usize) -> String {
    format!(
        "system {name}\nram 0x80000000,32M\n{}load selftest.elf\n\
         cmdline \"lpi: ended=0x1c100000 intr=40\"\n\
         vdev gic its 0x08080000 num-lpis 1000\n\
         vdev pl011 loc 0x1c090000 intr gic:37\n\
         vdev faulty loc 0x1c100000 intr gic:40 when ended how never\n",
        "cpu\n".repeat(cpus)
    )
}

fn guests(case: &Case) -> Result<()> {
    for cpus in [1, 2, 4] {
        let mut scene = Scene::new();
        scene
            .guest("selftest")?
            .file("a.qvmconf", text("a", 2).into_bytes())
            .file("b.qvmconf", text("b", 1).into_bytes());
        scene.line("qvm @b.qvmconf &").line("qvm @a.qvmconf").line("wait b").line("pidin its");
        let ran = scene.run(case, &machine(cpus), Some(faulty()?), 2)?;
        ran.expect_status(0)?;
        judge(ran.of("a"))?;
        judge(ran.of("b"))?;
        ensure!(!ran.text.contains("have not been closed"), "vectors are left");
        let report = ran.text.split("ITS             VECTORS  MESSAGES").nth(1).unwrap_or_default();
        ensure!(report.contains("its0    at 0x8080000") && !report.contains("0xff0"), "somebody has vectors still");
    }
    Ok(())
}

/// In time that only instructions count in: there are 40 times 256 messages within milliseconds.
fn flood(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.guest("selftest")?.file("a.qvmconf", text("a", 1).into_bytes()).line("qvm @a.qvmconf");
    let ran = scene.run(case, &Machine { gic: 3, cpus: 1, ..counting() }, Some(faulty()?), 1)?;
    ran.expect_status(0)?.expect("a: passed functions send more than 100000 messages in a second: they are held")?;
    judge(ran.of("a"))
}

fn again(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.guest("selftest")?.file("a.qvmconf", text("a", 1).into_bytes());
    for _ in 0..3 {
        scene.line("qvm @a.qvmconf");
    }
    let ran = scene.run(case, &machine(2), Some(faulty()?), 3)?;
    ran.expect_status(0)?;
    let lives = ran.of("a").filter(|line| line.contains("a message by the machine's ITS raises an LPI")).count();
    ensure!(lives == 3, "{lives} of 3 lives had messages");
    ensure!(!ran.of("a").any(|line| line.starts_with("not ok")), "a test has failed");
    Ok(())
}
