//! Debian's U-Boot and UEFI, unmodified: each comes to its prompt, keeps its variables in flash, and ends its VM.

use std::time::Duration;

use anyhow::{Result, bail};

use super::Test;
use super::machine::{Case, Session};
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// What either takes from one prompt to the next, on a PC that has others to serve.
const SOON: Duration = Duration::from_secs(60);
const U_BOOT: &str = "guests/firmware/u-boot.qvmconf";
/// Whose a UEFI variable is.
const GUID: &str = "12345678-9abc-def0-1234-56789abcdef0";
const UEFI: &str = "guests/firmware/uefi.qvmconf";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "firmware/u-boot",
            "its prompt, memory, `saveenv` and `reset`, which ends with code 0",
            u_boot,
        ),
        Test::hypervisor(
            "firmware/u-boot-environment",
            "`file` of a `cfi-flash` is the environment; without it, the default",
            environment,
        ),
        Test::hypervisor("firmware/u-boot-linux", "U-Boot starts Debian's kernel, which powers off", linux),
        Test::hypervisor(
            "firmware/uefi",
            "its shell: a variable is kept, the clock runs, `reset -s` ends with 0",
            uefi,
        ),
    ]
}

/// Boots a configuration of the checkout, with `more` behind it.
fn start(case: &Case, configuration: &str, more: &str) -> Result<Session> {
    setup::firmware()?;
    let vm = Configuration::read(&root().join(configuration), more, None)?;
    case.session(&Machine::default(), &[vm])
}

/// The VM has ended well; the machine is switched off.
fn ended(session: &mut Session, name: &str) -> Result<()> {
    session.expect(&format!("qvm: {name} ended: code 0 ("), SOON)?;
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}

/// Types a line to U-Boot, and waits for the answer and the next prompt.
fn type_line(session: &mut Session, line: &str, answer: &str) -> Result<()> {
    session.send(&format!("{line}\r"))?;
    // The echo comes first.
    session.expect(line, SOON)?;
    session.expect(answer, SOON)?;
    session.expect("=> ", SOON)
}

fn u_boot(case: &Case) -> Result<()> {
    let mut session = start(case, U_BOOT, "")?;
    for text in ["U-Boot 20", "DRAM:  128 MiB", "bad CRC, using default environment", "Hit any key to stop autoboot"] {
        session.expect(text, SOON)?;
    }
    session.send("\r")?;
    session.expect("=> ", SOON)?;
    type_line(&mut session, "version", "U-Boot 20")?;
    type_line(&mut session, "flinfo", "Intel Extended command set")?;
    type_line(&mut session, "bdinfo", "-> start    = 0x0000000040000000")?;
    // The device tree's magic number at its fixed place, and a word that comes back from RAM.
    type_line(&mut session, "md.l 40000000 1", "40000000: edfe0dd0")?;
    type_line(&mut session, "mw.l 41000000 12345678; md.l 41000000 1", "41000000: 12345678")?;
    type_line(&mut session, "setenv kept in-flash; saveenv", "Saving Environment to Flash")?;
    // What was saved has a good checksum, and holds the variable.
    type_line(&mut session, "setenv kept; env import -b 4000000 40000; printenv kept", "kept=in-flash")?;
    session.send("reset\r")?;
    ended(&mut session, "u-boot")
}

/// An environment as U-Boot stores it: a checksum over all behind it, then `NAME=VALUE` with zeroes between and behind.
fn environment_with(variables: &[&str]) -> Vec<u8> {
    const SIZE: usize = 256 << 10;
    let mut data: Vec<u8> = variables.iter().flat_map(|variable| variable.bytes().chain([0])).collect();
    data.resize(SIZE - 4, 0);
    let mut checksum = flate2::Crc::new();
    checksum.update(&data);
    [&checksum.sum().to_le_bytes(), data.as_slice()].concat()
}

fn environment(case: &Case) -> Result<()> {
    let file = case.file("environment.bin", environment_with(&["bootdelay=-1", "greeting=hello-from-a-file"]))?;
    // The last of the configuration's words is about the flash.
    let mut session = start(case, U_BOOT, &format!("file {}", file.display()))?;
    session.expect("Loading Environment from Flash... OK", SOON)?;
    session.expect("=> ", SOON)?;
    type_line(&mut session, "printenv greeting", "greeting=hello-from-a-file")?;
    session.send("reset\r")?;
    ended(&mut session, "u-boot")
}

fn linux(case: &Case) -> Result<()> {
    setup::linux_guest()?;
    let [kernel, initrd] = [setup::LINUX_IMAGE, setup::LINUX_INITRAMFS].map(|path| root().join(path));
    let size = std::fs::metadata(&initrd)?.len();
    // Low in RAM: the last 33 MiB are U-Boot's own.
    let more = format!("data load 0x41000000,{} data load 0x44000000,{}", kernel.display(), initrd.display());
    let mut session = start(case, U_BOOT, &more)?;
    session.expect("Hit any key to stop autoboot", SOON)?;
    session.send("\r")?;
    session.expect("=> ", SOON)?;
    let arguments = "console=ttyAMA0 bulkhead.run=\"echo by $((6*7)) U-Boot\"";
    type_line(&mut session, &format!("setenv bootargs '{arguments}'"), "")?;
    session.send(&format!("booti 41000000 44000000:{size:x} 40000000\r"))?;
    session.expect("Starting kernel ...", SOON)?;
    session.expect("by 42 U-Boot", SOON)?;
    ended(&mut session, "u-boot")
}

fn uefi(case: &Case) -> Result<()> {
    let mut session = start(case, UEFI, "")?;
    session.expect("UEFI Interactive Shell", SOON)?;
    // It would wait for some seconds.
    session.expect("to skip", SOON)?;
    session.send("\x1b")?;
    session.expect("Shell> ", SOON)?;
    let mut ask = |line: &str, answer: &str| -> Result<()> {
        session.send(&format!("{line}\r"))?;
        session.expect(answer, SOON)?;
        session.expect("Shell> ", SOON)
    };
    // It echoes letter by letter, with sequences for the cursor between them.
    ask(&format!("setvar kept -guid {GUID} -nv -bs =0x1234"), "")?;
    ask(&format!("dmpstore kept -guid {GUID}"), "34 12")?;
    ask("date", "/20")?;
    session.send("reset -s\r")?;
    ended(&mut session, "uefi")?;
    if session.text().contains("ASSERT") {
        bail!("an assertion failed");
    }
    Ok(())
}
