//! The bare-metal guests, first on the bare machine, which shows that they ask for nothing wrong, then in VMs.

use anyhow::{Result, bail};

use super::Test;
use super::machine::{Case, Ran};
use super::scene::{Scene, faulty};
use crate::qemu::machine::Machine;
use crate::workspace::root;

/// CPUs of the machine, its model, vCPUs of the VM.
const MACHINES: [(u32, &str, u32); 5] =
    [(1, "cortex-a72", 1), (2, "cortex-a72", 2), (4, "cortex-a72", 4), (2, "max", 2), (1, "max", 2)];

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::bare("bare/hello", "the guest on a machine without hypervisor", |case| {
            let text = case.bare(&machine(2, "cortex-a72"), "target/guests/hello.bin", None, "")?;
            if !text.contains("hello: good-bye") {
                bail!("no good-bye");
            }
            Ok(())
        }),
        Test::bare("bare/selftest", "the guest on a machine without hypervisor", |case| {
            judge(case.bare(&machine(2, "cortex-a72"), "target/guests/selftest.bin", None, "")?.lines())
        }),
        Test::hypervisor("hello", "greets and ends with code 0", |case| {
            let ran = case.batch(&Machine::default(), &[root().join("guests/hello/hello.qvmconf")])?;
            ran.expect_status(0)?.expect("hello| hello: good-bye")?.expect("qvm: hello ended: code 0 (")?;
            Ok(())
        }),
        Test::hypervisor(
            "hello/raw",
            "plain bytes at an address of their own, with RAM elsewhere, find it all in the tree",
            raw,
        ),
        Test::hypervisor(
            "selftest/counter-offset",
            "`set counter-offset` says what the guest's counters show, and its timers work by them",
            counter_offset,
        ),
        Test::hypervisor(
            "selftest/exit-on-halt-off",
            "`set exit-on-halt off` lets a guest wait on its own, and it misses nothing",
            exit_on_halt_off,
        ),
        Test::hypervisor(
            "selftest/pmu-off",
            "`set pmu off` hides the performance monitors: no field shows them, and their registers are undefined",
            |case| {
                let text = configuration("selftest", "selftest", 1, "registers monitors") + "set pmu off\n";
                let file = case.file("selftest.qvmconf", text)?;
                let ran = case.batch(&machine(1, "cortex-a72"), &[file])?;
                ran.expect_status(0)?;
                judge(ran.of("selftest"))
            },
        ),
        Test::hypervisor(
            "selftest/million",
            "a million interrupts, more at once than list registers, none lost",
            |case| {
                let text = configuration("selftest", "selftest", 1, "interrupts=1000000 again,");
                let ran = case.batch(&machine(1, "cortex-a72"), &[case.file("selftest.qvmconf", text)?])?;
                ran.expect_status(0)?;
                judge(ran.of("selftest"))
            },
        ),
        Test::hypervisor("selftest/devices", "watchdog, clock and 16550A as a guest's drivers find them", |case| {
            let text = configuration("selftest", "selftest", 1, "devices:")
                + "vdev wdt-sp805 intr gic:40\nvdev pl031 loc 0x1c170000 intr gic:41\n\
                   vdev ser8250 loc 0x1c0a0000 intr gic:42 hostdev >-\n";
            let ran = case.batch(&machine(1, "cortex-a72"), &[case.file("selftest.qvmconf", text)?])?;
            ran.expect_status(0)?;
            if ran.text.contains("# SKIP") {
                bail!("a device was not found");
            }
            judge(ran.of("selftest"))
        }),
        Test::hypervisor(
            "selftest/messages",
            "a GICv2 with a frame for messages, for a bare-metal guest and for Linux",
            messages,
        ),
        Test::hypervisor("selftest/example", "the vdev guide's device, on the board that has it", example),
        Test::hypervisor("selftest/lpi", "a GICv3 with an ITS, for a bare-metal guest and for Linux", lpi),
        Test::hypervisor("selftest/ends", "devices hear of the ends of their interrupts, and send messages", ends),
        Test::hypervisor("abuser/nowhere", "a guest that jumps to nowhere ends alone, with its code", nowhere),
    ];
    for (cpus, model, vcpus) in MACHINES {
        let name = format!("{vcpus}-on-{cpus}-{model}");
        tests.push(Test::hypervisor(format!("selftest/{name}"), "the VM seen from inside is right", move |case| {
            let ran = run(case, "selftest", cpus, model, vcpus)?;
            ran.expect_status(0)?;
            judge(ran.of("selftest"))
        }));
        tests.push(Test::hypervisor(format!("abuser/{name}"), "a hostile guest harms nobody", move |case| {
            run(case, "abuser", cpus, model, vcpus)?.expect_status(0)?.expect("qvm: abuser ended: code 0 (")?;
            Ok(())
        }));
    }
    tests
}

/// A machine with that many CPUs of that model.
pub(super) fn machine(cpus: u32, model: &str) -> Machine {
    Machine { cpus, cpu: model.into(), ..Machine::default() }
}

/// The text of a configuration for an in-tree guest with that many vCPUs.
pub(super) fn configuration(system: &str, guest: &str, vcpus: u32, command_line: &str) -> String {
    let cpus = "cpu\n".repeat(vcpus as usize);
    format!(
        "system {system}\nram 0x80000000,128M\n{cpus}load ../../guests/{guest}.elf\ncmdline \"{command_line}\"\n\
         vdev pl011 loc 0x1c090000 intr gic:37\n"
    )
}

fn run(case: &Case, guest: &str, cpus: u32, model: &str, vcpus: u32) -> Result<Ran> {
    let file = case.file(&format!("{guest}.qvmconf"), configuration(guest, guest, vcpus, ""))?;
    case.batch(&machine(cpus, model), &[file])
}

/// Judges the lines of `selftest`, which are in the form of TAP: as many results as planned, none of them `not ok`.
pub(super) fn judge<'a>(lines: impl Iterator<Item = &'a str>) -> Result<()> {
    let (mut planned, mut passed, mut failed) = (None, 0_u32, Vec::new());
    for line in lines.map(str::trim) {
        if line.starts_with("not ok") {
            failed.push(line);
        } else if line.starts_with("ok ") {
            passed += 1;
        } else if let Some(count) = line.strip_prefix("1..") {
            planned = count.parse::<u32>().ok();
        }
    }
    if !failed.is_empty() {
        bail!("{} failed:\n{}", failed.len(), failed.join("\n"));
    }
    match planned {
        Some(planned) if planned == passed && planned > 0 => Ok(()),
        planned => bail!("{passed} results, planned: {planned:?}"),
    }
}

fn messages(case: &Case) -> Result<()> {
    // The controller stands before the devices that name it.
    let with_frame = |text: String| text.replace("vdev pl011", "vdev gic version 2 msi 0x08020000,64,32\nvdev pl011");
    let version_2 = Machine { gic: 2, ..machine(1, "cortex-a72") };
    let bare = case.file("selftest.qvmconf", with_frame(configuration("selftest", "selftest", 1, "these")))?;
    let ran = case.batch(&version_2, &[bare])?;
    ran.expect_status(0)?;
    if ran.text.contains("# SKIP") {
        bail!("the frame was not found");
    }
    judge(ran.of("selftest"))?;
    crate::setup::linux_guest()?;
    let linux = super::linux::configuration("linux", 1, "dmesg | grep GICv2m; poweroff -f");
    let ran = case.batch(&version_2, &[case.file("linux.qvmconf", with_frame(linux))?])?;
    ran.expect_status(0)?.expect("GICv2m: range[mem 0x08020000-0x08020fff], SPI[64:95]")?;
    Ok(())
}

fn lpi(case: &Case) -> Result<()> {
    let text = "system selftest\nram 0x80000000,32M\ncpu\ncpu\nload selftest.elf\n\
                cmdline \"lpi: ended=0x1c100000 intr=40\"\n\
                vdev gic its 0x08080000 num-lpis 1000\n\
                vdev pl011 loc 0x1c090000 intr gic:37\n\
                vdev faulty loc 0x1c100000 intr gic:40 when ended how never\n";
    for cpus in [1, 2] {
        let mut scene = Scene::new();
        scene.guest("selftest")?.file("selftest.qvmconf", text.as_bytes().to_vec()).line("qvm @selftest.qvmconf");
        let ran = scene.run(case, &machine(cpus, "cortex-a72"), Some(faulty()?), 1)?;
        ran.expect_status(0)?.expect("is skipped: there is no such command")?;
        if ran.text.contains("# SKIP") {
            bail!("a test was skipped");
        }
        judge(ran.of("selftest"))?;
    }
    crate::setup::linux_guest()?;
    let linux = super::linux::configuration("linux", 2, "dmesg | grep -e ITS -e GICv3 -e LPI; poweroff -f")
        .replace("vdev pl011", "vdev gic its 0x08080000 num-lpis 256\nvdev pl011");
    let ran = case.batch(&machine(2, "cortex-a72"), &[case.file("linux.qvmconf", linux)?])?;
    ran.expect_status(0)?
        .expect("ITS [mem 0x08080000-0x0809ffff]")?
        .expect("GICv3: CPU1: using allocated LPI pending table")?;
    if ran.text.contains("is skipped") || ran.text.contains("ITS queue timeout") {
        bail!("Linux and the ITS do not understand each other");
    }
    Ok(())
}

/// With a device that a vCPU tells, and with one that has a thread of its own, at a higher priority.
fn ends(case: &Case) -> Result<()> {
    for own in ["", "sched 30"] {
        let mut scene = Scene::new();
        // A GICv2 takes messages in a frame; the controller stands before the devices that name it.
        let gic = if Machine::default().gic == 2 { "vdev gic version 2 msi 0x08020000,64,32" } else { "" };
        let text = format!(
            "system selftest\nram 0x80000000,32M\nload selftest.elf\ncmdline \"ends: ended=0x1c100000 intr=40\"\n{gic}\n\
             vdev pl011 loc 0x1c090000 intr gic:37\n\
             vdev faulty loc 0x1c100000 intr gic:40 when ended how never {own}\n"
        );
        scene.guest("selftest")?.file("selftest.qvmconf", text.into_bytes()).line("qvm @selftest.qvmconf");
        let ran = scene.run(case, &machine(1, "cortex-a72"), Some(faulty()?), 1)?;
        ran.expect_status(0)?;
        if ran.text.contains("# SKIP") {
            bail!("the device was not found");
        }
        judge(ran.of("selftest"))?;
    }
    Ok(())
}

/// What third-party guests expect: to start at their first byte, wherever that is, with the device tree in X0.
fn raw(case: &Case) -> Result<()> {
    let text = "system raw\nram 0x40000000,64M\nentry 0x40345000\ndata load 0x40345000,../../guests/hello.bin\n\
                cmdline \"two words\"\nvdev pl011 loc 0x09000000 intr gic:33\n";
    let file = case.file("raw.qvmconf", text)?;
    let ran = case.batch(&Machine::default(), &[file])?;
    ran.expect_status(0)?.expect("memory   0x40000000..0x44000000 (65536 KiB)")?.expect("told     two words")?;
    Ok(())
}

/// A guest that is far ahead of the host: host counter minus guest counter is a negative number. Its timers are left out:
/// QEMU's never fire with such an offset (the sum of compare value and offset is not to wrap there). Then one that sees the
/// host's own counter, timers and all.
fn counter_offset(case: &Case) -> Result<()> {
    const AHEAD: u64 = 1 << 40;
    for (words, ahead) in [("counter", AHEAD), ("timers", 0)] {
        let text = configuration("selftest", "selftest", 2, &format!("{words} counter={ahead:#x}"))
            + &format!("set counter-offset {:#x}\n", ahead.wrapping_neg());
        let file = case.file("selftest.qvmconf", text)?;
        let ran = case.batch(&machine(2, "cortex-a72"), &[file])?;
        ran.expect_status(0)?;
        judge(ran.of("selftest"))?;
    }
    Ok(())
}

/// All of `selftest`, each vCPU with a CPU of its own. Then the host counts hardly any wait.
fn exit_on_halt_off(case: &Case) -> Result<()> {
    let text = configuration("selftest", "selftest", 2, "") + "set exit-on-halt off\n";
    let file = case.file("selftest.qvmconf", text)?;
    let ran = case.batch(&machine(2, "cortex-a72"), &[file])?;
    ran.expect_status(0)?;
    judge(ran.of("selftest"))
}

/// `hello` beside it must not notice.
/// The device is found by its node, interrupts and is silent again; the shell explains it; mistakes about it are told.
fn example(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let alarm = "vdev alarm loc 0x1c0d0000";
    scene.vm("selftest", "selftest", "32M", &format!("cmdline \"example\"\n{alarm} intr gic:45 longest 1000000000"))?;
    scene.vm("right", "selftest", "32M", &format!("cmdline \"example\"\n{alarm} intr gic:45 longest 3600000"))?;
    scene.vm("deaf", "selftest", "32M", alarm)?;
    scene.line("use alarm").line("qvm @selftest.qvmconf").line("qvm @deaf.qvmconf").line("qvm @right.qvmconf");
    let ran = scene.run(case, &Machine::default(), Some(faulty()?), 2)?;
    ran.in_order(&[
        "`vdev alarm`: an alarm clock",
        "- `longest NUMBER`, 1 to 86400000, default `60000`:",
        "selftest.qvmconf:6:47: error: `vdev alarm`: `longest 1000000000`: must be from 1 to 86400000",
        "deaf.qvmconf:5:1: error: `vdev alarm`: nobody would hear it",
        "right/alarm: rings",
        "qvm: right ended: code 0 (",
    ])?;
    if ran.text.contains("# SKIP") {
        bail!("the device was not found");
    }
    judge(ran.of("right"))
}

fn nowhere(case: &Case) -> Result<()> {
    let abuser = case.file("abuser.qvmconf", configuration("abuser", "abuser", 1, "nowhere"))?;
    let ran = case.batch(&Machine::default(), &[abuser, root().join("guests/hello/hello.qvmconf")])?;
    ran.expect_status(5)?.expect("qvm: abuser ended: code 5 (")?.expect("qvm: hello ended: code 0 (")?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_held_against_the_plan() {
        assert!(judge("ok 1 - a\nok 2 - b # SKIP\n1..2\n".lines()).is_ok());
        assert!(judge("ok 1 - a\n1..2\n".lines()).is_err(), "one is missing");
        assert!(judge("ok 1 - a\nnot ok 2 - b\n1..2\n".lines()).is_err());
        assert!(judge("".lines()).is_err());
    }
}
