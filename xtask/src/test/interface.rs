//! The command line that people script on, seen from outside: exit statuses and messages.

use std::process::{Command, Stdio};
use std::{fs, slice};

use anyhow::{Context, Result, bail};

use super::Test;
use super::guests::configuration;
use super::machine::{Case, PATIENCE};
use crate::qemu::machine::Machine;
use crate::workspace::{root, target};

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "interface/status",
            "the status is the first code that is not zero, in the configurations' order",
            status,
        ),
        Test::hypervisor("interface/memory", "all of the memory of a VM that has ended is back", memory),
        Test::hypervisor("interface/timeout", "124 when the time is over, and no QEMU stays behind", timeout),
        Test::hypervisor("interface/missing", "65 and a caret for a file that is not there", missing),
        Test::hypervisor("interface/logger", "a VM's messages are shown as its configuration says", logger),
        Test::hypervisor("interface/alone", "65 for a VM whose files are wrong, and others run", alone),
        Test::hypervisor(
            "interface/archives",
            "an archive that is of no use is refused, and told what is wrong",
            archives,
        ),
        Test::hypervisor(
            "interface/machines",
            "a machine that is of no use is refused, and told what it lacks",
            machines,
        ),
        Test::bare("interface/unsupported", "64 for options that are of no use", unsupported),
    ]
}

/// Runs this very tool; its status and all that it says.
fn tool(arguments: &[&str]) -> Result<(i32, String)> {
    let output = Command::new(std::env::current_exe()?)
        .args(arguments)
        .current_dir(root())
        .stdin(Stdio::null())
        .output()
        .context("cannot run this tool")?;
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    Ok((output.status.code().unwrap_or(-1), text))
}

/// Runs this tool, and fails unless it ends with `status` and says each of `texts`.
pub(super) fn expect(arguments: &[&str], status: i32, texts: &[&str]) -> Result<()> {
    let (found, text) = tool(arguments)?;
    if found != status {
        bail!("status {found}, expected {status}, of {arguments:?}:\n{text}");
    }
    match texts.iter().find(|expected| !text.contains(**expected)) {
        Some(expected) => bail!("`{expected}` is not said by {arguments:?}:\n{text}"),
        None => Ok(()),
    }
}

fn status(case: &Case) -> Result<()> {
    let good = case.file("good.qvmconf", configuration("good", "hello", 1, ""))?;
    let bad = case.file("bad.qvmconf", configuration("bad", "abuser", 1, "nowhere"))?;
    let (good, bad) = (good.display().to_string(), bad.display().to_string());
    expect(&["qemu", "--batch", "--timeout", "120", &good], 0, &["qvm: good ended: code 0 ("])?;
    expect(&["qemu", "--batch", "--timeout", "120", &good, &bad], 5, &["qvm: bad ended: code 5 ("])
}

fn timeout(case: &Case) -> Result<()> {
    let file = case.file("forever.qvmconf", configuration("forever", "hello", 1, "forever"))?;
    expect(&["qemu", "--batch", "--timeout", "8", &file.display().to_string()], 124, &["--timeout is over"])
}

fn missing(case: &Case) -> Result<()> {
    let file = case.file("missing.qvmconf", configuration("missing", "no-such-guest", 1, ""))?;
    expect(&["qemu", "--batch", &file.display().to_string()], 65, &["missing.qvmconf:4:", "no-such-guest.elf", "^"])?;
    expect(&["check", &file.display().to_string()], 65, &["missing.qvmconf:4:", "^"])
}

/// An archive with a batch of all these VMs, by the names and texts of their configurations, and these files.
fn archive(vms: &[(&str, String)], files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let startup: String = vms.iter().map(|(name, _)| format!("qvm @/{name}.qvmconf &\n")).collect();
    archive_with(&format!("batch\n{startup}"), vms, files)
}

/// The same with another start-up script.
pub(super) fn archive_with(startup: &str, vms: &[(&str, String)], files: &[(&str, &[u8])]) -> Result<Vec<u8>> {
    let mut builder = tar::Builder::new(Vec::new());
    let mut add = |name: &str, content: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, name, content)
    };
    add("startup", startup.as_bytes())?;
    for (name, text) in vms {
        add(&format!("{name}.qvmconf"), text.as_bytes())?;
    }
    for (name, content) in files {
        add(name, content)?;
    }
    Ok(builder.into_inner()?)
}

/// The end of `hello` is worth an `info`: shown unless the configuration does not want it.
fn logger(case: &Case) -> Result<()> {
    let vm = |name: &str, logger: &str| {
        let text = configuration(name, "hello", 1, "").replace("128M", "16M");
        case.file(&format!("{name}.qvmconf"), format!("{text}{logger}\n"))
    };
    let vms = [vm("plain", "")?, vm("quiet", "logger error,warn slog")?, vm("loud", "logger info,debug stderr")?];
    let ran = case.batch(&Machine::default(), &vms)?;
    ran.expect_status(0)?.expect("plain: PSCI SYSTEM_OFF")?.expect("loud: PSCI SYSTEM_OFF")?;
    if ran.expect("quiet: PSCI SYSTEM_OFF").is_ok() {
        bail!("`logger` has no effect");
    }
    Ok(())
}

/// Files that only the hypervisor itself can find missing or damaged: this tool would not pack them.
fn alone(case: &Case) -> Result<()> {
    let hello = fs::read(target().join("guests/hello.elf"))?;
    // `gzip` of two bytes, with another checksum.
    let damaged = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x01\x02\0\xfd\xffhi\x01\x02\x03\x04\x02\0\0\0";
    let vm = |name: &str, load: &str| {
        format!("system {name}\nram 0x80000000,16M\n{load}\nvdev pl011 loc 0x1c090000 intr gic:37\n")
    };
    let vms = [
        ("missing", vm("missing", "load nowhere.elf")),
        ("damaged", vm("damaged", "guest load damaged.gz")),
        ("cut", vm("cut", "load cut.elf")),
        ("wrong", vm("named", "lode hello.elf")),
        ("good", vm("good", "load hello.elf")),
    ];
    let files: [(&str, &[u8]); 3] =
        [("hello.elf", &hello), ("damaged.gz", damaged), ("cut.elf", hello.get(..2000).unwrap_or_default())];
    let file = case.file("boot.tar", archive(&vms, &files)?)?;
    let names = ["good", "missing", "damaged", "cut", "named"];
    let ran = case.boot(&Machine::default(), &file, &names, PATIENCE)?;
    ran.expect_status(65)?.expect("qvm: good ended: code 0 (")?;
    for (name, message) in [
        ("missing", "missing.qvmconf:3:6: error: nowhere.elf: no such file"),
        ("damaged", "damaged.qvmconf:3:12: error: damaged.gz: the gzip checksum does not fit"),
        ("cut", "cut.qvmconf:3:6: error: cut.elf: the file is cut off"),
        ("named", "wrong.qvmconf:3:1: error: `lode` is not an option"),
    ] {
        ran.expect(message)?.expect(&format!("qvm: {name} ended: code 65 ("))?;
    }
    Ok(())
}

/// The same VM once more and once more: each time as much is free as the time before.
fn memory(case: &Case) -> Result<()> {
    let hello = fs::read(target().join("guests/hello.elf"))?;
    let text = "system hello\nram 0x80000000,128M\ncpu\ncpu\nload hello.elf\nvdev pl011 loc 0x1c090000 intr gic:37\n";
    let startup = format!("batch\nlog debug\n{}", "qvm @/hello.qvmconf\n".repeat(4));
    let content = archive_with(&startup, &[("hello", text.into())], &[("hello.elf", &hello)])?;
    let file = case.file("boot.tar", content)?;
    let ran = case.boot(&Machine::default(), &file, &["hello"], PATIENCE)?;
    ran.expect_status(0)?;
    let free: Vec<&str> =
        ran.text.lines().filter_map(|line| line.split_once("hello runs: ")?.1.split(',').next()).collect();
    // The first time the hypervisor itself takes what it keeps for the next.
    match free.as_slice() {
        [_, second, rest @ ..] if rest.len() == 2 && rest.iter().all(|free| free == second) => Ok(()),
        free => bail!("not all of a VM's memory came back: {free:?}"),
    }
}

fn archives(case: &Case) -> Result<()> {
    let whole = archive(&[], &[("file", &[1; 4096])])?;
    let cases: [(&[u8], &str); 4] = [
        (b"no archive at all", "boot archive: block 0: too short to be an archive"),
        (&[b'x'; 4096], "boot archive: block 0: this is not a tar archive"),
        (
            whole.get(..4096).unwrap_or_default(),
            "boot archive: block 2: a file runs over the end; was the archive cut off?",
        ),
        (&[0; 4096], "the boot archive has no `startup`"),
    ];
    for (content, message) in cases {
        let file = case.file("boot.tar", content)?;
        let ran = case.boot(&Machine::default(), &file, &[], PATIENCE)?;
        ran.expect_status(70)?.expect(&format!("bulkhead: cannot run here: {message}"))?;
    }
    let script = archive(&[("a b", String::new())], &[])?;
    let file = case.file("boot.tar", script)?;
    let ran = case.boot(&Machine::default(), &file, &["a"], PATIENCE)?;
    ran.expect_status(65)?.expect("startup:2:5: error: there is no file `a` in the boot archive")?;
    Ok(())
}

fn machines(case: &Case) -> Result<()> {
    let good = case.file("good.qvmconf", configuration("good", "hello", 1, "").replace("128M", "16M"))?;
    let large = case.file("large.qvmconf", configuration("large", "hello", 1, ""))?;
    let without_el2 = Machine { more: ["-M", "virtualization=off"].map(String::from).into(), ..Machine::default() };
    let ran = case.batch(&without_el2, slice::from_ref(&good))?;
    ran.expect_status(70)?.expect("cannot run here: entered at EL1, and a hypervisor needs EL2")?;
    for gic in [2, 3] {
        case.batch(&Machine { gic, ..Machine::default() }, slice::from_ref(&good))?.expect_status(0)?;
    }
    let ran = case.batch(&Machine { memory: "64M".into(), ..Machine::default() }, &[large, good.clone()])?;
    ran.expect_status(64)?.expect("qvm: large ended: code 64 (could not start: not enough memory: 131")?;
    ran.expect("qvm: good ended: code 0 (")?;
    // RAM in two places, one behind the other.
    let nodes = "-object memory-backend-ram,id=a,size=1G -object memory-backend-ram,id=b,size=1G \
                 -numa node,memdev=a,cpus=0 -numa node,memdev=b,cpus=1";
    let more = nodes.split_whitespace().map(String::from).collect();
    case.batch(&Machine { more, cpus: 2, ..Machine::default() }, &[good])?.expect_status(0)?;
    Ok(())
}

fn unsupported(_: &Case) -> Result<()> {
    for (option, value, why) in [
        ("--gic", "3", "a GICv2"),
        ("--cpus", "5", "four CPUs"),
        ("--memory", "4G", "2 GiB"),
        ("--cpu", "max", "Cortex-A72"),
        ("--smmu", "--batch", "it has none"),
    ] {
        expect(&["qemu", "--board", "rpi4", option, value], 64, &[option, "not with --board rpi4", why])?;
    }
    expect(&["qemu", "--initrd", "/dev/null", "guests/hello/hello.qvmconf"], 64, &["none of the configurations loads"])
}
