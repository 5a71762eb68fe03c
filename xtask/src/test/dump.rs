//! Dumps of guests, on their whole way to a debugger.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Result, bail, ensure};

use super::Test;
use super::machine::Case;
use super::scene::Scene;
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::output;

/// What the debugger is asked. Of a vCPU that sleeps and one that is busy; the banner is `linux_banner`.
const QUESTIONS: &str = "set pagination off
set print frame-arguments none
info threads
thread apply all backtrace 16
find /1 &_stext, +64000000, 'L','i','n','u','x',' ','v','e','r','s','i','o','n',' ','6'
x/s $_
thread 2
x/1i $pc
find /1 0x80000000, +0x4000000, 'L','i','n','u','x',' ','v','e','r','s','i','o','n',' ','6'
x/s $_
";

/// The first frame of the first CPU's idle thread, and of another's.
const OUTERMOST: [&str; 2] = [" __primary_switched+0x", " __secondary_switched+0x"];

/// How long a guest may take to boot, a command to answer, and some 30 MB to come over the console, byte by byte.
const BOOT: Duration = Duration::from_secs(90);
const SOON: Duration = Duration::from_secs(60);
const SENT: Duration = Duration::from_secs(400);

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("dump/shell", "dumps, names, files, and what there is no room for", shell),
        Test::hypervisor("dump/linux", "gdb finds its way in a Linux guest, asleep and busy", linux),
    ]
}

/// Takes the files out of what a machine has printed.
pub(super) fn received(case: &Case, text: &str) -> Result<PathBuf> {
    let folder = case.path("dumps");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    let mut receiver = crate::receive::Receiver::new(Some(&folder), std::io::sink());
    std::io::Write::write_all(&mut receiver, text.as_bytes())?;
    ensure!(receiver.finish().1 == 0, "a file was damaged");
    Ok(folder)
}

fn shell(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("hello", "hello", "2M", "cpu cpu\ncmdline ticks=1000\ndump dumps")?;
    scene.vm("mute", "hello", "2M", "cmdline ticks=1000")?;
    scene.line("qvm @hello.qvmconf &").line("qvm @mute.qvmconf &").line("sleep 0.3");
    // By signal only where the configuration says so; by hand everywhere; a paused VM stays paused.
    scene
        .line("slay -s USR2 hello mute")
        .line("sleep 1")
        .line("dump hello")
        .line("pause mute")
        .line("dump mute m.gcore");
    scene.line("resume mute").line("dump mute m.gcore").line("files").line("rm nothing").line("rm m.gcore");
    scene.line("send dumps/hello.gcore").line("send m.gcore");
    scene.line("sleep 0.3").line("slay -s QUIT hello mute").line("wait").line("files");
    let ran = scene.run(case, &Machine::default(), None, 4)?;
    ran.in_order(&[
        "warning: mute: no dump: its configuration has no `dump`",
        "hello: dumped to `dumps/hello.gcore`: 2052 KiB, packed ",
        "hello: dumped to `dumps/hello-1.gcore`: 2052 KiB",
        "mute: dumped to `m.gcore`",
        "error: mute: no dump: there is a file `m.gcore` already",
        "dumps/hello.gcore",
        "dumps/hello-1.gcore",
        "m.gcore",
        "shell: there is no file `nothing`",
        "@file end dumps/hello.gcore",
        "shell: there is no file `m.gcore`",
        " dumps/hello-1.gcore",
    ])?;
    // Behind what the VM has still to print, which the shell does not wait for.
    ran.expect("qvm: hello ended: code 3")?;
    // The guests have gone on: they print a line every 100 ms.
    let behind = ran.text.rsplit_once("shell: there is no file `m.gcore`").map_or("", |(_, rest)| rest);
    for name in ["hello| hello: tick", "mute| hello: tick"] {
        ensure!(behind.contains(name), "`{name}` is missing after the dumps");
    }
    let core = received(case, &ran.text)?.join("hello.gcore");
    let text = describe(&core)?;
    for wanted in ["memory: 0x80000000..0x80200000 (2048 KiB)", "vcpu0: on", "vcpu1: ", "status: pl011"] {
        ensure!(text.contains(wanted), "no `{wanted}` in:\n{text}");
    }
    Ok(())
}

fn linux(case: &Case) -> Result<()> {
    let mut scene = Scene::interactive();
    scene.linux(2, "(while :; do :; done) & sleep 1; echo ready; sleep 1000")?;
    scene.line("qvm @linux.qvmconf dump / &");
    let mut session = scene.session(case, &Machine { memory: "1G".into(), ..Machine::default() })?;
    // Not the one on the command line, which Linux prints.
    session.expect("\nready", BOOT)?;
    for (typed, answer, within) in [
        ("\x1ds", "bulkhead# ", SOON),
        ("sleep 3\r", "\rbulkhead# ", SOON),
        ("dump linux\r", "linux: dumped to `linux.gcore`: ", SOON),
        ("send linux.gcore\r", "@file end linux.gcore", SENT),
        ("slay -s QUIT linux\r", "qvm: linux ended: code 3", SOON),
        ("shutdown\r", "", SOON),
    ] {
        session.send(typed)?;
        session.expect(answer, within)?;
    }
    let core = received(case, session.text())?.join("linux.gcore");
    let text = describe(&core)?;
    fs::write(core.with_extension("txt"), &text)?;
    let idle = text.lines().filter(|line| line.contains(" cpu_do_idle+")).count();
    let outermost = text.lines().filter(|line| OUTERMOST.iter().any(|frame| line.contains(frame))).count();
    ensure!(idle == 1 && outermost == 1, "one vCPU is to be asleep, and known down to its first frame:\n{text}");
    debug(&core)
}

/// What this tool says of a dump; makes symbols for it.
fn describe(core: &Path) -> Result<String> {
    output(Command::new(std::env::current_exe()?).arg("core").arg(core))
}

/// What gdb says of a dump of Linux.
fn debug(core: &Path) -> Result<()> {
    let debugger = setup::debugger()?;
    let questions = core.with_extension("gdb");
    fs::write(&questions, QUESTIONS)?;
    let symbols = core.with_extension("symbols.elf");
    let mut command = Command::new(debugger);
    command.args(["-batch", "-nx", "-x"]).arg(&questions).arg(&symbols).arg(core);
    let text = output(&mut command)?;
    fs::write(core.with_extension("gdb.txt"), &text)?;
    for wanted in ["in cpu_do_idle ()", "in do_idle ()", "in cpu_startup_entry ()"] {
        if !text.contains(wanted) {
            bail!("gdb does not say `{wanted}`:\n{text}");
        }
    }
    // The banner is at a virtual address and at a physical one.
    let banner_at = |start| text.lines().any(|line| line.starts_with(start) && line.contains("\"Linux version 6"));
    ensure!(banner_at("0xffff") && banner_at("0x8"), "gdb does not find the banner in both places:\n{text}");
    ensure!(text.matches("Thread ").count() >= 2, "gdb does not see two vCPUs:\n{text}");
    Ok(())
}
