//! Memory that guests give back: who has it then, and that it comes back.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::Test;
use super::machine::{Case, Session};
use super::scene::Scene;
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// Linux boots within this.
const BOOT: Duration = Duration::from_secs(180);
/// What follows from something that was typed comes within this.
const SOON: Duration = Duration::from_secs(60);
const PROMPT: &str = "bulkhead# ";

/// Of Linux, in MiB: all of it, and half.
const ALL: u64 = 512;
const HALF: u64 = 256;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("balloon/linux", "Linux gives half of its memory to another VM, and has it again", linux),
        Test::hypervisor("balloon/lend", "what Linux reports as free others have, until it cannot come back", lend),
        Test::hypervisor("balloon/restart", "a VM without half of its memory is killed, and begins with all", restart),
        Test::hypervisor("balloon/early", "a script need not wait for a VM before it says what that may have", early),
        Test::hypervisor("balloon/rubbish", "a guest that gives back what it stands on harms nobody", rubbish),
    ]
}

/// Linux with a balloon, on a machine on which there is not room for it and for the VM `second` as well.
fn scene(commands: &str, balloon: &str) -> Result<Scene> {
    setup::linux_guest_with_drivers()?;
    let mut scene = Scene::interactive();
    for (name, path) in [("Image", setup::LINUX_IMAGE), ("initramfs", "target/guests/linux/drivers.cpio")] {
        scene.file(name, std::fs::read(root().join(path))?);
    }
    let text = format!(
        "system linux\nram 0x80000000,{ALL}M\ncpu\ncpu\nload Image\ninitrd load initramfs\n\
         cmdline \"console=ttyAMA0 quiet bulkhead.run=\\\"{commands}\\\"\"\nvdev pl011 loc 0x1c090000 intr gic:37\n\
         vdev virtio-balloon loc 0x1c0d0000 intr gic:46 {balloon} name balloon\n"
    );
    scene.file("linux.qvmconf", text.into_bytes());
    scene.vm("second", "hello", "480M", "cmdline forever")?;
    scene.line("qvm @linux.qvmconf &");
    Ok(scene)
}

/// Behind `qvm` at once: the VM is still being put together.
fn early(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let balloon = "vdev virtio-balloon loc 0x1c0d0000 intr gic:46 name balloon";
    scene.vm("early", "hello", "64M", &format!("cmdline forever\n{balloon}"))?;
    scene
        .line("qvm @early.qvmconf &")
        .line("balloon early 32M")
        .line("sleep 0.5")
        .line("status early")
        .line("sleep 0.5");
    scene.line("slay -s QUIT early").line("wait early").line("qvm @early.qvmconf &").line("pause early");
    scene.line("resume early").line("slay -s QUIT early").line("wait early").line("balloon early 32M");
    let ran = scene.run(case, &machine(), None, 2)?;
    ran.in_order(&["32768 wanted", "qvm: early ended: code 3 ("])?;
    // Who has waited for it goes on when it is no more, which may be before its end is told.
    ensure!(ran.text.matches("qvm: early ended: code 3 (").count() == 2, "it has not ended twice");
    ran.expect("there is no VM `early`")?;
    ensure!(!ran.text.contains("does not run yet"), "nobody has waited");
    Ok(())
}

fn machine() -> Machine {
    Machine { memory: "1G".into(), ..Machine::default() }
}

/// Types a command of the shell's, and returns what it says.
fn ask(session: &mut Session, command: &str) -> Result<String> {
    let from = session.text().len();
    session.send(&format!("{command}\r"))?;
    session.expect(command, SOON)?;
    session.expect(PROMPT, SOON)?;
    Ok(session.text().get(from..).unwrap_or_default().to_string())
}

/// A line of `pidin memory`, in KiB.
fn memory(session: &mut Session, what: &str) -> Result<u64> {
    let said = ask(session, "pidin memory")?;
    let number = said.lines().find_map(|line| line.trim().strip_suffix(what)?.trim().parse().ok());
    number.with_context(|| format!("`pidin memory` does not say `{what}`: {said}"))
}

/// A report is six messages, of which the log takes eight in a second from one VM.
const BETWEEN_REPORTS: Duration = Duration::from_secs(2);

/// What a VM has of its memory by `status`, in KiB.
fn present(session: &mut Session, vm: &str) -> Result<u64> {
    std::thread::sleep(BETWEEN_REPORTS);
    session.send(&format!("status {vm}\r"))?;
    session.expect("; has ", SOON)?;
    session.expect(" KiB, ", SOON)?;
    let text = session.text();
    let number = text.rsplit_once("; has ").and_then(|(_, rest)| rest.split(' ').next()?.parse().ok());
    number.context("the status is not understood")
}

fn linux(case: &Case) -> Result<()> {
    let total = "$(sed -n 's/^MemTotal: *\\([0-9]*\\).*/\\1/p' /proc/meminfo)";
    let commands = format!(
        "mkdir /mnt; mount -t tmpfs none /mnt; dd if=/dev/urandom of=/mnt/one bs=1M count=64 2>/dev/null; md5sum /mnt/one > /tmp/one; \
         echo ready$((6*7)); until [ {total} -lt 250000 ]; do sleep 1; done; echo small$((6*7)); \
         md5sum -c /tmp/one; until [ {total} -gt 400000 ]; do sleep 1; done; echo large$((6*7)); \
         dd if=/dev/urandom of=/mnt/two bs=1M count=230 2>/dev/null; md5sum /mnt/two > /tmp/two; sync; \
         md5sum -c /tmp/one /tmp/two; echo last$((6*7)); sleep 5"
    );
    let mut session = scene(&commands, "")?.session(case, &machine())?;
    session.expect("ready42", BOOT)?;
    session.send("\x1ds")?;
    session.expect(PROMPT, SOON)?;
    session.send("qvm @second.qvmconf\r")?;
    session.expect("not enough memory: 4915", SOON)?;
    session.expect(PROMPT, SOON)?;
    let before = memory(&mut session, " free")?;
    ask(&mut session, &format!("balloon linux {HALF}M"))?;
    session.expect("small42", SOON)?;
    session.expect("/mnt/one: OK", SOON)?;
    let has = present(&mut session, "linux")?;
    ensure!(has == HALF << 10, "Linux has {has} KiB");
    let freed = memory(&mut session, " free")?.saturating_sub(before);
    // The VM's own heap may have grown meanwhile.
    ensure!(freed + 128 >= (ALL - HALF) << 10, "only {freed} KiB are free that were not");
    session.send("qvm @second.qvmconf &\r")?;
    session.expect("second| hello: tick", SOON)?;
    let refused = ask(&mut session, &format!("balloon linux {ALL}M"))?;
    ensure!(refused.contains("KiB more are wanted"), "{refused}");
    let refused = ask(&mut session, "balloon linux 513M")?;
    ensure!(refused.contains("`linux` has 524288 KiB of RAM"), "{refused}");
    let refused = ask(&mut session, "balloon second 1M")?;
    ensure!(refused.contains("`second` has no virtio-balloon"), "{refused}");
    session.send("slay -s QUIT second\r")?;
    session.expect("qvm: second ended: code 3 (", SOON)?;
    ask(&mut session, "wait second")?;
    ask(&mut session, &format!("balloon linux {ALL}M"))?;
    session.expect("large42", SOON)?;
    session.expect("/mnt/one: OK", SOON)?;
    session.expect("/mnt/two: OK", SOON)?;
    session.expect("last42", SOON)?;
    session.expect("qvm: linux ended: code 0 (", SOON)?;
    ensure!(memory(&mut session, " promised to VMs")? == 0, "something is still promised");
    session.send("shutdown\r")?;
    session.expect_end(SOON)
}

fn lend(case: &Case) -> Result<()> {
    let commands = "mkdir /mnt; mount -t tmpfs -o size=90% none /mnt; echo ready$((6*7)); sleep 3; dd if=/dev/urandom of=/mnt/one bs=1M count=200 \
         2>/dev/null; md5sum /mnt/one > /tmp/one; md5sum -c /tmp/one; echo full$((6*7)); sleep 4; rm /mnt/one; echo empty$((6*7)); \
         until [ -e /mnt/go ]; do sleep 20; break; done; dd if=/dev/zero of=/mnt/two bs=1M count=400 2>/dev/null; echo unreached$((6*7))";
    let mut scene = scene(commands, "lend")?;
    scene.vm("third", "hello", "128M", "cmdline forever")?;
    let mut session = scene.session(case, &machine())?;
    session.expect("ready42", BOOT)?;
    session.send("\x1ds")?;
    session.expect(PROMPT, SOON)?;
    session.expect("/mnt/one: OK", SOON)?;
    session.expect("full42", SOON)?;
    let full = present(&mut session, "linux")?;
    session.expect("empty42", SOON)?;
    let mut empty = full;
    for _ in 0..20 {
        empty = present(&mut session, "linux")?;
        if empty + (150 << 10) < full {
            break;
        }
    }
    ensure!(empty + (150 << 10) < full, "{full} KiB when it was full, {empty} KiB afterwards");
    session.send("qvm @second.qvmconf &\r")?;
    session.expect("second| hello: tick", SOON)?;
    // Soon there is too little for all three.
    session.send("qvm @third.qvmconf &\r")?;
    session.expect("qvm: linux ended: code 96 (", SOON)?;
    session.expect("which the guest had given back", SOON)?;
    session.expect("second| hello: tick", SOON)?;
    session.expect("third| hello: tick", SOON)?;
    if session.text().contains("unreached42") {
        bail!("there was memory enough after all");
    }
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

fn restart(case: &Case) -> Result<()> {
    let mut session = scene("echo ready$((6*7)); sleep 1000", "")?.session(case, &machine())?;
    session.expect("ready42", BOOT)?;
    session.send("\x1ds")?;
    session.expect(PROMPT, SOON)?;
    let before = memory(&mut session, " free")?;
    for _ in 0..2 {
        ask(&mut session, &format!("balloon linux {HALF}M"))?;
        for _ in 0..60 {
            if present(&mut session, "linux")? == HALF << 10 {
                break;
            }
        }
        session.send("qvm @second.qvmconf &\r")?;
        session.expect("second| hello: tick", SOON)?;
        session.send("slay -s QUIT linux\r")?;
        session.expect("qvm: linux ended: code 3 (", SOON)?;
        // All of it is wanted again, and somebody has a part.
        session.send("qvm @linux.qvmconf\r")?;
        session.expect("not enough memory: 524", SOON)?;
        session.send("slay -s QUIT second\r")?;
        session.expect("qvm: second ended: code 3 (", SOON)?;
        ask(&mut session, "wait second")?;
        session.send("qvm @linux.qvmconf &\r")?;
        session.expect("ready42", BOOT)?;
        ensure!(present(&mut session, "linux")? == ALL << 10, "it does not have all of its memory");
    }
    session.expect(PROMPT, SOON)?;
    let after = memory(&mut session, " free")?;
    ensure!(after + 512 >= before, "{before} KiB were free, {after} KiB are");
    session.send("shutdown -f\r")?;
    session.expect_end(SOON)
}

/// One guest gives back all that it has, its code, its tables and the queue included; another only what it can do without.
fn rubbish(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let balloon = "vdev virtio-balloon loc 0x1c0d0000 intr gic:46";
    scene.witness()?;
    scene.vm("careful", "abuser", "32M", &format!("cmdline \"balloon cycles=20\"\ncpu\n{balloon}"))?;
    scene.vm("lender", "abuser", "32M", &format!("cmdline \"balloon cycles=20\"\ncpu\n{balloon} lend"))?;
    scene.vm("suicide", "abuser", "32M", &format!("cmdline balloon-all\ncpu\n{balloon}"))?;
    for _ in 0..3 {
        scene.line("qvm @careful.qvmconf").line("qvm @lender.qvmconf").line("qvm @suicide.qvmconf &").line("sleep 1");
        scene.line("status suicide").line("slay -s QUIT suicide").line("wait suicide");
    }
    scene.line("pidin memory").line("slay -s QUIT witness");
    let ran = scene.run(case, &machine(), None, 10)?;
    for vm in ["careful", "lender"] {
        let good = ran.of(vm).filter(|line| line.contains("balloon: 0 wrong of ")).count();
        ensure!(good == 3, "{good} of 3 guests `{vm}` found their memory as they had left it");
    }
    ensure!(ran.text.matches("qvm: suicide ended: code 3 (").count() == 3, "it did not stay until it was killed");
    ran.expect("         0 promised to VMs")?;
    let left: Vec<_> = super::ordeals::left(&ran, "careful").into_iter().map(|(free, _)| free).collect();
    match left.as_slice() {
        [_, second, third] if second == third => Ok(()),
        left => bail!("something is lost: {left:?}"),
    }
}
