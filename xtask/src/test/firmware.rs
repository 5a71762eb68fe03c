//! Debian's U-Boot and UEFI, unmodified: each comes to its prompt, keeps its variables in flash, starts Linux from a disk, and ends its
//! VM.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};

use super::Test;
use super::linux::with_initramfs;
use super::machine::{Case, PATIENCE, Session};
use super::virtio::At;
use crate::card::disk;
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
    let mut tests = vec![
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
    ];
    for (at, suffix) in [(At::Memory, ""), (At::Bus, "-pci")] {
        let mut add = |name: &str, about, run: fn(&Case, At) -> Result<()>| {
            tests.push(Test::hypervisor(format!("firmware/{name}{suffix}"), about, move |case| run(case, at)));
        };
        add("u-boot-disk", "U-Boot starts Linux from a virtio disk", u_boot_disk);
        add("u-boot-net", "U-Boot pings Linux by a virtio network device", u_boot_net);
        add("uefi-disk", "UEFI starts GRUB from a virtio disk, and that Linux, unattended", uefi_disk);
    }
    tests
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

/// A disk of 64 MiB with one FAT partition, which has the kernel, its initial file system and these files.
fn boot_disk(case: &Case, more: &[(&str, PathBuf)]) -> Result<PathBuf> {
    setup::linux_guest()?;
    let [kernel, initrd] = [setup::LINUX_IMAGE, setup::LINUX_INITRAMFS].map(|path| root().join(path));
    let mut files = BTreeMap::from([("Image".to_string(), kernel), ("initrd".to_string(), initrd)]);
    files.extend(more.iter().map(|(name, path)| ((*name).to_string(), path.clone())));
    let path = case.path("disk.img");
    let card = File::options().read(true).write(true).create(true).truncate(true).open(&path)?;
    disk::write(&card, 64 << 20, &files, &mut |_, _| {})?;
    Ok(path)
}

fn u_boot_disk(case: &Case, at: At) -> Result<()> {
    let disk = boot_disk(case, &[])?;
    let mut session = start(case, U_BOOT, &format!("vdev virtio-blk {} hostdev {}", at.place(0), disk.display()))?;
    session.expect("Hit any key to stop autoboot", SOON)?;
    session.send("\r")?;
    session.expect("=> ", SOON)?;
    type_line(&mut session, "virtio scan; virtio info", "64.0 MB = 0.0 GB (131072 x 512)")?;
    type_line(&mut session, "ls virtio 0", "2 file(s), 0 dir(s)")?;
    type_line(&mut session, "load virtio 0 41000000 Image", "bytes read in")?;
    type_line(&mut session, "load virtio 0 44000000 initrd", "bytes read in")?;
    type_line(&mut session, "setenv bootargs 'console=ttyAMA0 bulkhead.run=\"echo from $((6*7)) disks\"'", "")?;
    session.send("booti 41000000 44000000:${filesize} 40000000\r")?;
    session.expect("Starting kernel ...", SOON)?;
    session.expect("from 42 disks", SOON)?;
    ended(&mut session, "u-boot")
}

fn u_boot_net(case: &Case, at: At) -> Result<()> {
    setup::firmware()?;
    setup::linux_guest_with_drivers()?;
    let vdev = format!("vdev virtio-net {} peer /dev/vswitch0", at.place(0));
    let u_boot = Configuration::read(&root().join(U_BOOT), &vdev, None)?;
    let commands = "ip addr add 10.0.0.1/24 dev eth0; ip link set eth0 up; echo serving$((6*7)); sleep 1000";
    let text = with_initramfs(1, commands, "drivers.cpio") + &vdev + "\n";
    let linux = Configuration::read(&case.file("linux.qvmconf", text)?, "", None)?;
    let mut session = case.session(&Machine::default(), &[u_boot, linux])?;
    // Neither waits for the other.
    session.expect("Hit any key to stop autoboot", SOON)?;
    session.send("\r")?;
    session.expect("serving42", SOON)?;
    type_line(&mut session, "setenv ipaddr 10.0.0.2; ping 10.0.0.1", "host 10.0.0.1 is alive")?;
    session.send("reset\r")?;
    ended(&mut session, "u-boot")
}

fn uefi_disk(case: &Case, at: At) -> Result<()> {
    setup::firmware()?;
    let menu = "linux /Image console=ttyAMA0 bulkhead.run=dmesg\ninitrd /initrd\nboot\n";
    let menu = format!("search --set=root --file /Image\n{menu}");
    let menu = case.file("grub.cfg", menu)?;
    // The first is what UEFI looks for on any disk (UEFI 2.10, 3.5.1.1), the second what Debian's GRUB looks for.
    let files = [("EFI/BOOT/BOOTAA64.EFI", root().join(setup::GRUB)), ("EFI/debian/grub.cfg", menu)];
    let disk = boot_disk(case, &files)?;
    let place = match at {
        // It has no page for what is not from 0x08000000 to 0x0fffffff.
        At::Memory => "loc 0x0a000000 intr gic:40",
        At::Bus => "",
    };
    let mut session = start(case, UEFI, &format!("vdev virtio-blk {place} hostdev {}", disk.display()))?;
    // It looks at all that there is before.
    session.expect("Welcome to GRUB", PATIENCE)?;
    session.expect("Exiting boot services", SOON)?;
    session.expect("efi: EFI v2", SOON)?;
    ended(&mut session, "uefi")
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
