//! Devices of the machine that are brought to rest when their VM has ended: QEMU's PL031, whose interrupt is left raised.

use anyhow::{Result, bail};

use super::Test;
use super::machine::{Case, Ran};
use super::scene::{Scene, faulty};
use crate::qemu::machine::Machine;

const CLOCK: &str = "pass loc 0x1c170000,4K,rwn=0x09010000 intr gic:41=34\n";

/// RTCIMSC off, RTCICR, until RTCRIS is off.
const QUIESCE: &str = "vdev quiesce region 0x1c170000 write 0x10,4,0 write 0x1c,4,1 poll 0x14,4,1,0,1000\n";

/// What the next owner finds of a clock that is at rest.
const QUIET: &str = "found| # found mask 0 status 0";

/// Long enough for the guest to have raised the interrupt, on a PC that has other things to do.
const LONG: &str = "sleep 3";

/// How `vdev faulty` takes the VM's own thread with it, what is done to it, and the VM's code then.
const FAILURES: [(&str, &str, &str, u8); 5] = [
    ("status", "panic", "slay -s USR1 first", 6),
    ("status", "exhaust", "slay -s USR1 first", 96),
    ("button", "abort", "slay first", 6),
    ("terminate", "panic", "slay -s QUIT first", 3),
    ("terminate", "hang", "slay -s QUIT first", 3),
];

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let mut tests = vec![
        Test::hypervisor("passed/quiesce", "the next owner finds the device at rest, and without steps not", rests),
        Test::hypervisor("passed/quiesce-again", "twenty times in a row, and it works each time", again),
        Test::hypervisor("passed/quiesce-late", "what does not come to rest nobody gets any more", late),
        Test::hypervisor("passed/quiesce-own", "a vdev of one's own does it, whatever another one does", own),
        Test::hypervisor("passed/quiesce-unable", "what a vdev of one's own cannot stop nobody gets", unable),
        Test::hypervisor("passed/quiesce-early", "a VM that does not start leaves its device at rest, too", early),
    ];
    for (when, how, end, code) in FAILURES {
        tests.push(Test::hypervisor(
            format!("passed/quiesce-{when}-{how}"),
            "the steps are taken though the VM's own thread is gone",
            move |case| failed(case, (when, how), end, code),
        ));
    }
    tests
}

/// The VM `first`, whose guest leaves the clock's interrupt active and its line high, and `found`, which says what it finds.
fn scene(more: &str) -> Result<Scene> {
    let mut scene = Scene::new();
    scene.vm("first", "selftest", "32M", &format!("cmdline \"held\"\n{CLOCK}{more}"))?;
    scene.vm("found", "selftest", "32M", &format!("cmdline \"found\"\n{CLOCK}"))?;
    Ok(scene)
}

fn nobody_is_interrupted(ran: &Ran) -> Result<()> {
    if ran.text.contains("has no owner") {
        bail!("an interrupt came to nobody");
    }
    Ok(())
}

fn rests(case: &Case) -> Result<()> {
    let mut scene = scene(&format!("safety qualified\n{QUIESCE}"))?;
    scene.vm("restless", "selftest", "32M", &format!("cmdline \"held\"\n{CLOCK}"))?;
    scene.line("qvm @first.qvmconf &").line(LONG).line("slay -s USR1 first").line("sleep 0.2");
    scene.line("slay -s QUIT first").line("wait first").line("qvm @found.qvmconf");
    // The other way round, so that this can fail.
    scene.line("qvm @restless.qvmconf &").line(LONG).line("slay -s USR1 restless").line("sleep 0.2");
    scene.line("slay -s QUIT restless").line("wait restless").line("qvm @found.qvmconf");
    let ran = scene.run(case, &Machine::default(), None, 4)?;
    ran.in_order(&[
        "first: passed: 0x1c170000 is brought to rest by vdev `quiesce`",
        "first: quiesce: 3 steps for 0x1c170000, at most 1000 us",
        "qvm: first ended: code 3 (power cut)",
        QUIET,
        "restless: passed: nothing brings it to rest at the end",
        "qvm: restless ended: code 3 (power cut)",
        "found| # found mask 1 status 1",
    ])?;
    nobody_is_interrupted(&ran)
}

fn again(case: &Case) -> Result<()> {
    const TIMES: usize = 20;
    let mut scene = scene(QUIESCE)?;
    for _ in 0..TIMES {
        scene.line("qvm @first.qvmconf &").line("sleep 1").line("slay -s QUIT first").line("wait first");
    }
    scene.line("qvm @found.qvmconf");
    let ran = scene.run(case, &Machine::default(), None, TIMES + 1)?;
    let count = |words| ran.text.matches(words).count();
    let (raised, ended) = (count("first| # the interrupt is active"), count("qvm: first ended: code 3 (power cut)"));
    // On a PC that is busy a guest need not have come that far each time.
    if ended != TIMES || raised < TIMES / 2 {
        bail!("{raised} times raised and {ended} times ended in place of {TIMES}");
    }
    ran.expect(QUIET)?;
    nobody_is_interrupted(&ran)
}

/// RTCCR is 1 as long as the clock runs, which is always.
fn late(case: &Case) -> Result<()> {
    let mut scene = scene("vdev quiesce region 0x1c170000 write 0x10,4,0 poll 0x0c,4,1,0,2000 write 0x1c,4,1\n")?;
    scene.line("qvm @first.qvmconf &").line(LONG).line("slay -s QUIT first").line("wait first");
    scene.line("qvm @found.qvmconf").line("qvm @first.qvmconf");
    let ran = scene.run(case, &Machine::default(), None, 3)?;
    let why = "VM `first`, which has ended without bringing it to rest, has";
    ran.in_order(&[
        "vdev `quiesce`: 0x9010000-0x9010fff is not at rest: `poll 0xc,4,0x1,0x0,2000`: it reads 0x1 still",
        "qvm: first ended: code 3 (power cut: vdev `quiesce` did not bring 0x9010000-0x9010fff to rest: nobody gets it)",
        &format!("VM `found` cannot have 0x9010000-0x9010fff of the machine: {why}"),
        "qvm: found ended: code 65",
        &format!("VM `first` cannot have 0x9010000-0x9010fff of the machine: {why}"),
        "qvm: first ended: code 65",
    ])?;
    nobody_is_interrupted(&ran)
}

fn failed(case: &Case, (when, how): (&str, &str), end: &str, code: u8) -> Result<()> {
    let mut scene = scene(&format!("vdev faulty loc 0x1c100000 when {when} how {how}\n{QUIESCE}"))?;
    scene.line("qvm @first.qvmconf &").line(LONG).line(end).line("wait first").line("qvm @found.qvmconf");
    let ran = scene.run(case, &Machine::default(), Some(faulty()?), 2)?;
    ran.in_order(&["first| # the interrupt is active", &format!("qvm: first ended: code {code} ("), QUIET])?;
    if ran.text.contains("not at rest") {
        bail!("the steps were not taken");
    }
    nobody_is_interrupted(&ran)
}

/// By itself, and behind a vdev that hangs.
fn own(case: &Case) -> Result<()> {
    let hush = "vdev hush region 0x1c170000\n";
    let hangs = "vdev faulty loc 0x1c100000 when terminate how hang\n";
    let mut scene = scene(hush)?;
    scene.vm("second", "selftest", "32M", &format!("cmdline \"held\"\n{hangs}{CLOCK}{hush}"))?;
    for vm in ["first", "second"] {
        scene.line(format!("qvm @{vm}.qvmconf &")).line(LONG).line(format!("slay -s QUIT {vm}"));
        scene.line(format!("wait {vm}")).line("qvm @found.qvmconf");
    }
    let ran = scene.run(case, &Machine::default(), Some(faulty()?), 4)?;
    ran.in_order(&[
        "qvm: first ended: code 3 (power cut)",
        QUIET,
        "qvm: second ended: code 3 (power cut: vdev `faulty` did not go quiet)",
        QUIET,
    ])?;
    nobody_is_interrupted(&ran)
}

/// One that says so, and one that fails.
fn unable(case: &Case) -> Result<()> {
    for word in ["", "panics"] {
        let mut scene = scene(&format!("vdev restless region 0x1c170000 {word}\n"))?;
        scene.line("qvm @first.qvmconf &").line(LONG).line("slay -s QUIT first").line("wait first");
        scene.line("qvm @found.qvmconf");
        let ran = scene.run(case, &Machine::default(), Some(faulty()?), 2)?;
        ran.in_order(&[
            "vdev `restless` did not bring 0x9010000-0x9010fff to rest: nobody gets it)",
            "VM `found` cannot have 0x9010000-0x9010fff of the machine: VM `first`, which has ended without",
            "qvm: found ended: code 65",
        ])?;
        nobody_is_interrupted(&ran)?;
    }
    Ok(())
}

/// The device is the VM's already when a vdev refuses to start. Nothing was done to it, so it is somebody else's next.
fn early(case: &Case) -> Result<()> {
    let mut scene = scene(&format!("vdev faulty loc 0x1c100000 when starting how panic\n{QUIESCE}"))?;
    scene.line("qvm @first.qvmconf").line("qvm @found.qvmconf");
    let ran = scene.run(case, &Machine::default(), Some(faulty()?), 2)?;
    ran.in_order(&["qvm: first ended: code 64 (", QUIET, "qvm: found ended: code 0"])
}
