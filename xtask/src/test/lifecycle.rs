//! The life of a VM as its operator sees it: signals, restarts, the shell, and what fails.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Test;
use super::machine::{Case, PATIENCE};
use super::scene::{Scene, counting, faulty};
use crate::failure;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;

/// Calls in which `vdev faulty` can fail, how it fails, and the code of the VM's end.
const FAILURES: [(&str, &str, u8, &str); 18] = [
    ("create", "panic", 64, "the device was told to"),
    ("configured", "panic", 64, "the device was told to"),
    ("starting", "overflow", 64, "stack overflow in EL2"),
    ("write", "panic", 6, "vdev `faulty`: the device was told to"),
    ("write", "abort", 6, "vdev `faulty`: data abort in EL2"),
    ("write", "overflow", 6, "vdev `faulty`: stack overflow in EL2"),
    ("write", "exhaust", 96, "memory allocation of"),
    ("write", "terminate", 42, "ended by vdev `faulty`"),
    ("worker", "panic", 6, "vdev `faulty`: the device was told to"),
    ("worker", "overflow", 6, "vdev `faulty`: stack overflow in EL2"),
    ("worker", "hang", 3, "power cut"),
    ("worker", "terminate", 43, "ended by vdev `faulty`"),
    ("wake", "abort", 6, "vdev `faulty`: data abort in EL2"),
    ("ended", "panic", 6, "vdev `faulty`: the device was told to"),
    ("ended", "terminate", 43, "ended by vdev `faulty`"),
    ("status", "panic", 6, "vdev `faulty`: the device was told to"),
    ("button", "abort", 6, "vdev `faulty`: data abort in EL2"),
    ("terminate", "hang", 3, "vdev `faulty` did not go quiet"),
];

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::hypervisor("life/signals", "each signal does what it says, and ends with its code", signals),
        Test::hypervisor("life/restarts", "`on-exit` starts a VM again, so often and no more", restarts),
        Test::hypervisor("life/reset", "a VM that fails too often resets the board, if it is to", reset),
        Test::hypervisor("life/pause", "a paused VM does nothing, and goes on afterwards", pause),
        Test::hypervisor("life/watch", "another VM is told of each end", watch),
        Test::hypervisor("life/watchdog", "a bite dumps first, ends, and restarts, as its action says", watchdog),
        Test::hypervisor("life/dryrun", "everything is checked, nothing runs", dryrun),
        Test::hypervisor("life/shell", "what is typed is done", shell),
        Test::hypervisor("life/global", "a failure of the hypervisor itself ends in the safe state", global),
        Test::hypervisor(
            "life/masters",
            "when the hypervisor itself fails nothing on PCI Express is a master",
            masters,
        ),
    ];
    for (when, how, code, words) in FAILURES {
        tests.push(Test::hypervisor(
            format!("contained/{when}-{how}"),
            "what fails in a vdev ends its VM and no other",
            move |case| contained(case, when, how, code, words),
        ));
    }
    tests
}

fn signals(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("a", "hello", "2M", "cmdline forever")?;
    for signal in ["", "-s INT ", "-s 3 "] {
        scene.line("qvm @a.qvmconf &").line("sleep 0.2").line(format!("slay {signal}a")).line("wait a");
    }
    scene.line("qvm @a.qvmconf &").line("sleep 0.2").line("slay -s SIGUSR1 a").line("sleep 0.1");
    scene.line("slay nobody").line("shutdown");
    let ran = scene.run(case, &counting(), None, 4)?;
    ran.in_order(&[
        "qvm: a ended: code 0 (ended on request)",
        "qvm: a ended: code 0 (ended on request)",
        "qvm: a ended: code 3 (power cut)",
        "a: running; heap ",
        "a: vcpu0: exits irq=",
        "a: pl011: enabled",
        "shell: there is no VM `nobody`",
        "qvm: a ended: code 0 (ended on request)",
    ])
}

fn restarts(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("bad", "abuser", "4M", "cmdline nowhere\non-exit on-failure,2/60")?;
    scene.vm("good", "hello", "2M", "cmdline \"ticks=0\"\non-exit on-failure")?;
    scene.vm("busy", "hello", "2M", "cmdline forever\non-exit always")?;
    scene.line("qvm @bad.qvmconf").line("qvm @good.qvmconf").line("qvm @busy.qvmconf &");
    scene.line("sleep 0.2").line("slay -s QUIT busy").line("sleep 0.2").line("slay busy").line("wait");
    let ran = scene.run(case, &counting(), None, 6)?;
    ran.in_order(&["starting it again (1)", "starting it again (2)", "bad: started again too often, not once more"])?;
    let ends = |start: &str| ran.text.lines().filter(|line| line.starts_with(start)).count();
    if (ends("qvm: bad ended: code 5 ("), ends("qvm: good ended: code 0 ("), ends("qvm: busy ended: ")) != (3, 1, 2) {
        bail!("started again too often, or not often enough");
    }
    ran.expect("qvm: busy ended: code 3 (power cut); starting it again (1)")?;
    ran.expect("qvm: busy ended: code 0 (ended on request)")?;
    Ok(())
}

/// QEMU ends where the board would begin anew.
fn reset(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("bad", "abuser", "4M", "cmdline nowhere\non-exit always,1/60,reset")?;
    scene.vm("other", "hello", "2M", "cmdline forever")?.line("qvm @other.qvmconf &").line("qvm @bad.qvmconf");
    let ran = scene.run(case, &counting(), None, 2)?;
    ran.in_order(&["starting it again (1)", "bad: started again too often; the board is reset"])?;
    if ran.text.contains("qvm: other ended") {
        bail!("the other VM has ended");
    }
    Ok(())
}

fn pause(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("a", "witness", "2M", "cmdline \"report=100\"")?.line("qvm @a.qvmconf &").line("sleep 0.55");
    scene.line("pause a").line("pause a").line("sleep 1").line("status a").line("sleep 0.1").line("resume a");
    scene.line("sleep 0.5").line("slay a");
    let ran = scene.run(case, &counting(), None, 2)?;
    ran.in_order(&[
        "witness: 500 ticks",
        "shell: `a` is paused already",
        "a: paused; heap",
        "witness: ",
        "qvm: a ended: code 0",
    ])?;
    // What passed meanwhile is one long tick.
    let last = ran.of("a").last().unwrap_or_default();
    if !last.ends_with("0 wrong") || last.contains(" 0 missed") {
        bail!("it did not stand still: {last}");
    }
    Ok(())
}

fn watch(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let more = "cmdline \"report=50 watch=0x1c110000 intid=40\"\ncpu sched 30\n\
                vdev watch loc 0x1c110000 intr gic:40 vm bad";
    scene.vm("w", "witness", "2M", more)?.vm("bad", "abuser", "4M", "cmdline nowhere\non-exit always,2/60")?;
    scene.line("qvm @w.qvmconf &").line("qvm @bad.qvmconf").line("sleep 0.2").line("slay w");
    let ran = scene.run(case, &counting(), None, 4)?;
    ran.expect("w| witness: the other has ended 3 times, last with code 5; 3 interrupts")?;
    Ok(())
}

fn dryrun(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("a", "hello", "2M", "")?.vm("b", "hello", "2M", "load 0x90000000,hello.elf")?;
    scene.vm("c", "hello", "2M", "vdev virtio-9p hostdev share/none tag c")?.file("share/some/file", vec![1]);
    scene.line("dryrun @a.qvmconf").line("qvm @a.qvmconf dryrun").line("dryrun @b.qvmconf").line("dryrun @c.qvmconf");
    let ran = scene.run(case, &counting(), None, 2)?;
    ran.in_order(&["dryrun completed", "dryrun completed", "b.qvmconf:", "qvm: b ended: code 65"])?;
    ran.in_order(&[
        "`vdev virtio-9p`: `share/none` is no directory of the boot archive; there are `share/some`",
        "qvm: c ended: code 65",
    ])?;
    if ran.text.contains("Hello from") {
        bail!("something has run");
    }
    Ok(())
}

/// Somebody at the console: a VM in the foreground, the shell beside it, and back.
fn shell(case: &Case) -> Result<()> {
    let soon = Duration::from_secs(60);
    let mut scene = Scene::interactive();
    scene.vm("a", "hello", "2M", "cmdline forever")?.vm("b", "hello", "2M", "cmdline \"ticks=1\"")?;
    scene.line("qvm @a.qvmconf &");
    let mut session = scene.session(case, &Machine::default())?;
    session.expect("console: a is in the foreground", PATIENCE)?;
    session.expect("told     forever", soon)?;
    session.send("\x1ds")?;
    session.expect("bulkhead# ", soon)?;
    for (typed, answer) in [
        ("hel\t use\r", "use [VDEV]"),
        ("pidin\r", "running"),
        ("stat\ta\r", "a: pl011: enabled"),
        ("pause a\r\x10\r", "shell: `a` is paused already"),
        ("resume a\r", "bulkhead# "),
        ("frobnicate\r", "shell: unknown command `frobnicate`"),
        ("qvm @b\t\r", "qvm: b ended: code 0 (shut down)"),
        ("slog2info b\r", "b: PSCI SYSTEM_OFF"),
        ("sleep 1000\r", "sleep 1000"),
        ("\x03help\r", "slay [-s SIGNAL]"),
        ("slay -s QUIT a\r", "qvm: a ended: code 3 (power cut)"),
    ] {
        session.send(typed)?;
        session.expect(answer, soon)?;
    }
    session.send("shutdown\r")?;
    session.expect_end(soon)
}

fn watchdog(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let vm =
        |action: &str, more: &str| format!("cmdline starve\nvdev wdt-sp805 frequency 100000 action {action}\n{more}");
    scene.vm("a", "abuser", "4M", &vm("terminate", ""))?;
    scene.vm("b", "abuser", "4M", &vm("restart", "on-exit never"))?;
    scene.vm("c", "abuser", "4M", &vm("dump,terminate", "dump dumps"))?;
    scene.vm("d", "abuser", "4M", &vm("dump,terminate", ""))?;
    for name in ["a", "b", "c"] {
        scene.line(format!("qvm @{name}.qvmconf"));
    }
    scene.line("files").line("qvm @d.qvmconf");
    let ran = scene.run(case, &counting(), None, 9)?;
    ran.in_order(&[
        "a/wdt-sp805: the watchdog bites",
        "qvm: a ended: code 4 (watchdog: ended by vdev `wdt-sp805`)",
        "qvm: b ended: code 4 (watchdog: ended by vdev `wdt-sp805`); starting it again (1)",
        "qvm: b ended: code 4 (watchdog: ended by vdev `wdt-sp805`); starting it again (5)",
        "b: started again too often, not once more",
        "qvm: b ended: code 4 (watchdog: ended by vdev `wdt-sp805`)",
        "c: dumped to `dumps/c.gcore`",
        "qvm: c ended: code 4 (watchdog: ended by vdev `wdt-sp805`, after a dump)",
        "dumps/c.gcore",
        "d: no dump: its configuration has no `dump`",
        "qvm: d ended: code 4 (watchdog: ended by vdev `wdt-sp805`, after a dump)",
    ])
}

fn contained(case: &Case, when: &str, how: &str, code: u8, words: &str) -> Result<()> {
    let mut scene = Scene::new();
    let told = u8::from(matches!(when, "write" | "worker" | "wake" | "ended"));
    let after = if when == "write" || matches!(when, "create" | "configured" | "starting") { "" } else { "wait=1" };
    // A thread of its own wakes it.
    let (own, intr) = match when {
        "wake" => ("sched 30", ""),
        "ended" => ("intr gic:40", "intr=40"),
        _ => ("", ""),
    };
    let command = format!("faulty how={told} {intr} {after}");
    let more = format!("cmdline \"{command}\"\nvdev faulty loc 0x1c100000 when {when} how {how} {own}");
    scene.witness()?.vm("a", "abuser", "4M", &more)?.line("qvm @a.qvmconf &").line("sleep 0.2");
    match when {
        "status" => scene.line("slay -s USR1 a"),
        "button" => scene.line("slay a"),
        "terminate" => scene.line("slay -s QUIT a"),
        "worker" if how == "hang" => scene.line("slay -s QUIT a"),
        _ => &mut scene,
    };
    scene.line("wait a").line("sleep 0.2").line("slay witness");
    // Counting instructions, QEMU runs one CPU at a time, and one that spins for ever keeps the others waiting.
    let machine = if how == "hang" { Machine::default() } else { counting() };
    let ran = scene.run(case, &machine, Some(faulty()?), 2)?;
    ran.expect(&format!("qvm: a ended: code {code} ("))?.expect(words)?;
    // It may be ended in the middle of a line.
    let last = ran.of("witness").filter(|line| line.ends_with(" wrong")).last().unwrap_or_default();
    // A call that goes through all of a heap takes long, and nothing on its CPU runs meanwhile.
    let missed = machine.count_instructions && how != "exhaust" && !last.contains(" 0 missed,");
    if missed || !last.ends_with(" 0 wrong") {
        bail!("the witness has noticed: {last}");
    }
    Ok(())
}

fn global(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.witness()?;
    scene.vm("a", "abuser", "4M", "cmdline \"faulty how=1\"\nvdev faulty loc 0x1c100000 how hypervisor")?;
    scene.line("qvm @a.qvmconf");
    let ran = scene.run(case, &Machine::default(), Some(faulty()?), 2)?;
    ran.expect_status(failure::HYPERVISOR)?;
    ran.in_order(&["bulkhead: panic on cpu", "the hypervisor was told to fail", "  #0 0x"])
}

/// A function of PCI is at it, and the port that it is behind: the epitaph says that both have been switched off.
fn masters(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("edu", "edu", "32M", "cmdline \"again own 4096\"\npass loc pci:0x1234/0x11e8 uncontained")?;
    scene.vm("a", "abuser", "4M", "cmdline \"faulty how=1\"\nvdev faulty loc 0x1c100000 how hypervisor")?;
    scene.line("qvm @edu.qvmconf &").line("sleep 2").line("pidin pci").line("qvm @a.qvmconf");
    let machine = Machine { devices: vec![Device::new(Kind::Edu).behind_port()], ..Machine::default() };
    let ran = scene.run(case, &machine, Some(faulty()?), 2)?;
    ran.expect_status(failure::HYPERVISOR)?;
    ran.in_order(&[
        "edu| edu: again",
        "bulkhead: panic on cpu",
        "  Bus Master was on in 2 PCI functions: it is off",
        "the hypervisor was told to fail",
    ])
}
