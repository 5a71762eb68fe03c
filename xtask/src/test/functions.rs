//! Functions of the machine's PCI that VMs have: QEMU's edu, disks and network cards.
//!
//! Answers for: what a guest finds of them, interrupts of both kinds, DMA that hits the guest's own memory, the end and the next life.
//! Does not answer for: what the same guests do without a hypervisor (`bare_pci`).

use std::fs;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};

use super::Test;
use super::bare_pci::{ECHO, disk, every_order_is_done};
use super::machine::Case;
use super::ordeals::lost;
use super::scene::Scene;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// QEMU's edu, wherever it is.
const EDU: &str = "pass loc pci:0:5.0=0x1234/0x11e8";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "functions/edu",
            "edu is on the guest's bus, interrupts by its pin and by messages, and hits the guest's memory",
            edu,
        ),
        Test::hypervisor("functions/disks", "Linux writes and verifies disks by NVMe and AHCI of the machine", disks),
        Test::hypervisor("functions/nets", "Linux sends by an 82574 of the machine, by messages and by its pin", nets),
        Test::hypervisor("functions/reset", "a guest resets its NVMe disk by FLR, and it works again", reset),
        Test::hypervisor("functions/killed", "Linux is ended while it writes by NVMe, and does so again", killed),
        Test::hypervisor("functions/pin", "two functions have one pin: in one VM each its line, in two the first", pin),
        Test::hypervisor(
            "functions/pin-contested",
            "two VMs want one pin at once, and one as the other ends: each starts, and has it or has messages",
            contested,
        ),
        Test::hypervisor(
            "functions/reset-killed",
            "a guest is ended while it resets its NVMe disk: the VM stops, and the next has the disk as new",
            reset_killed,
        ),
        Test::hypervisor("functions/uncontained", "edu without an SMMU, in a VM that says so", uncontained),
        Test::hypervisor("functions/refused", "what is somebody's, or cannot be had like that, is refused", refused),
        Test::hypervisor("functions/again", "a VM ends in the midst of DMA, and the next has the device as new", again),
    ]
}

/// A machine with an SMMU and these devices.
pub(super) fn machine(devices: Vec<Device>) -> Machine {
    Machine { smmu: true, devices, ..Machine::default() }
}

/// The configuration of a bare-metal guest, with an interrupt translation service or without.
fn vm(scene: &mut Scene, name: &str, guest: &str, its: bool, more: &str) -> Result<()> {
    let controller = if its { "vdev gic its 0x08080000 num-lpis 256" } else { "" };
    let console = "vdev pl011 loc 0x1c090000 intr gic:37";
    let text = format!("system {name}\nram 0x80000000,32M\nload {guest}.elf\n{controller}\n{console}\n{more}\n");
    scene.file(&format!("{name}.qvmconf"), text.into());
    if !scene.has(&format!("{guest}.elf")) {
        scene.guest(guest)?;
    }
    Ok(())
}

fn edu(case: &Case) -> Result<()> {
    for its in [true, false] {
        let mut scene = Scene::new();
        let orders = "cmdline \"test write own 64 read own\"";
        vm(&mut scene, "edu", "edu", its, &format!("{orders}\n{EDU} without-reset"))?;
        scene.line("qvm @edu.qvmconf &").line("sleep 0.2").line("pidin pci").line("status edu");
        scene.line("pidin smmu").line("wait edu").line("pidin pci");
        let ran = scene.run(case, &machine(vec![Device::new(Kind::Edu)]), None, 1)?;
        ensure!(!ran.text.contains("FAILED"), "the guest complains");
        ran.in_order(&["edu| edu: 0x010000ed at function 0x28", "qvm: edu ended: code 0 ("])?;
        for line in ["alive: ok", "dma: ok", "line: ok", "message: ok"] {
            ran.expect(line)?;
        }
    }
    Ok(())
}

/// QEMU gives the pins of devices 1 and 5 one interrupt.
fn pin(case: &Case) -> Result<()> {
    let edu = |device| format!("edu,dma_mask=0xffffffffffffffff,addr={device}");
    let more = [1, 5].into_iter().flat_map(|device| ["-device".into(), edu(device)]).collect();
    let machine = Machine { smmu: true, more, ..Machine::default() };
    let passed = |host| format!("pass loc pci:0:{host}.0 without-reset\n");
    let mut scene = Scene::new();
    vm(&mut scene, "both", "edu", false, &format!("cmdline lines\n{}{}", passed(1), passed(5)))?;
    vm(&mut scene, "first", "edu", true, &format!("cmdline \"test wait 3000 test\"\n{}", passed(1)))?;
    vm(&mut scene, "second", "edu", true, &format!("cmdline test\n{}", passed(5)))?;
    scene
        .line("pidin pci")
        .line("qvm @both.qvmconf")
        .line("qvm @first.qvmconf &")
        .line("sleep 1")
        .line("qvm @second.qvmconf");
    scene.line("wait first").line("qvm @second.qvmconf");
    let ran = scene.run(case, &machine, None, 4)?;
    ran.expect("both| edu: two lines: ok")?;
    ran.in_order(&[
        "second| edu: line: FAILED: the tree names no line",
        "second| edu: message: ok",
        "qvm: second ended: code 0 (",
        "qvm: first ended: code 0 (",
        "second| edu: line: ok",
    ])?;
    ensure!(ran.of("first").filter(|line| line.contains(": ok")).count() == 8, "the first does not work beside it");
    Ok(())
}

/// The first has much memory, so that it takes a while until what it had is others'.
fn contested(case: &Case) -> Result<()> {
    let edu = |device| format!("edu,dma_mask=0xffffffffffffffff,addr={device}");
    let more = [1, 5].into_iter().flat_map(|device| ["-device".into(), edu(device)]).collect();
    let machine = Machine { smmu: true, more, ..Machine::default() };
    let passed = |host| format!("pass loc pci:0:{host}.0 without-reset\n");
    let mut scene = Scene::new();
    vm(&mut scene, "first", "edu", true, &format!("ram 0xa0000000,256M\ncmdline \"test wait 60000\"\n{}", passed(1)))?;
    vm(&mut scene, "second", "edu", true, &format!("cmdline test\n{}", passed(5)))?;
    let delays = [0.0, 0.01, 0.03, 0.06, 0.1];
    for delay in delays {
        scene.line("qvm @first.qvmconf &").line("qvm @second.qvmconf").line("sleep 0.5");
        scene.line("slay -s QUIT first").line(format!("sleep {delay}")).line("qvm @second.qvmconf").line("wait first");
    }
    let ran = scene.run(case, &machine, None, 15)?;
    let ends = |name: &str, code: u8| ran.text.matches(&format!("qvm: {name} ended: code {code} (")).count();
    ensure!(ends("first", 3) == delays.len() && ends("second", 0) == 2 * delays.len(), "one has not started");
    let messages = ran.of("second").filter(|line| line.contains("edu: message: ok")).count();
    ensure!(messages == 2 * delays.len(), "{messages} times it had messages");
    Ok(())
}

/// A Linux guest with drivers for PCI, which gives the script `passed` these orders.
pub(super) fn linux(scene: &mut Scene, its: bool, (words, orders): (&str, &str), more: &str) -> Result<()> {
    setup::linux_guest_with_pci()?;
    for (file, path) in [("Image", setup::LINUX_IMAGE), ("initramfs", setup::LINUX_INITRAMFS_WITH_PCI)] {
        scene.file(file, fs::read(root().join(path))?);
    }
    let controller = if its { "vdev gic its 0x08080000 num-lpis 256" } else { "" };
    let text = format!(
        "system linux\nram 0x80000000,512M\ncpu\ncpu\nload Image\ninitrd load initramfs\n{controller}\n\
         cmdline \"console=ttyAMA0 quiet {words} bulkhead.run=\\\"passed {orders}\\\"\"\n\
         vdev pl011 loc 0x1c090000 intr gic:37\n{more}\n"
    );
    scene.file("linux.qvmconf", text.into());
    Ok(())
}

fn disks(case: &Case) -> Result<()> {
    let nvme = Device::new(Kind::Nvme(disk(case, "nvme.img")?)).behind_port();
    let ahci = Device::new(Kind::Ahci(disk(case, "ahci.img")?)).behind_port();
    let mut scene = Scene::new();
    let passed = "pass loc pci:0x1b36/0x0010\npass loc pci:0x8086/0x2922";
    linux(&mut scene, true, ("", "disk nvme0n1 16 + disk sda 16"), passed)?;
    scene.line("qvm @linux.qvmconf &").line("sleep 3").line("pidin pci").line("wait linux").line("pidin its");
    let ran = scene.run(case, &machine(vec![nvme, ahci]), None, 6)?;
    every_order_is_done(&ran.text, &["disk nvme0n1 16: ok, 16 MiB verified", "disk sda 16: ok, 16 MiB verified"])?;
    ran.expect("interrupts: 3 messages")?;
    Ok(())
}

fn nets(case: &Case) -> Result<()> {
    for (its, words, kind) in [(true, "", "messages"), (false, "", "messages"), (false, "pci=nomsi", "lines")] {
        let e1000e = Device::new(Kind::E1000e(ECHO.into())).behind_port();
        let mut scene = Scene::new();
        linux(&mut scene, its, (words, "net e1000e 1"), "pass loc pci:0x8086/0x10d3")?;
        scene.line("qvm @linux.qvmconf");
        let ran = scene.run(case, &machine(vec![e1000e]), None, 4)?;
        every_order_is_done(&ran.text, &["net e1000e 1: ok"])?;
        let done = ran.text.lines().find(|line| line.contains("passed: net e1000e 1: ok")).unwrap_or_default();
        ensure!(done.trim_end().ends_with(kind), "it does not interrupt by {kind}: {done}");
    }
    Ok(())
}

/// Linux resets it by the host's FLR, since nothing else is on offer, and its driver starts it anew.
fn reset(case: &Case) -> Result<()> {
    let nvme = Device::new(Kind::Nvme(disk(case, "nvme.img")?)).behind_port();
    let mut scene = Scene::new();
    let orders = "disk nvme0n1 4; cd /sys/bus/pci/devices/0000:00:03.0; cat reset_method; echo 1 > reset; \
                  echo reset is $?; passed disk nvme0n1 8";
    linux(&mut scene, true, ("", orders), "pass loc pci:0:3.0=0x1b36/0x0010")?;
    scene.line("qvm @linux.qvmconf");
    let ran = scene.run(case, &machine(vec![nvme]), None, 4)?;
    ran.in_order(&["disk nvme0n1 4: ok, 4 MiB verified", "flr", "reset is 0", "disk nvme0n1 8: ok, 8 MiB verified"])?;
    Ok(())
}

/// Its reset is most of what the guest does: the power is cut in the midst of one, five times.
fn reset_killed(case: &Case) -> Result<()> {
    let soon = Duration::from_secs(240);
    let nvme = Device::new(Kind::Nvme(disk(case, "nvme.img")?)).behind_port();
    let mut scene = Scene::interactive();
    let orders = "disk nvme0n1 1; cd /sys/bus/pci/devices/0000:00:03.0; echo 1 > reset; echo it resets on; \
                  while :; do echo 1 > reset; done";
    linux(&mut scene, true, ("", orders), "pass loc pci:0:3.0=0x1b36/0x0010")?;
    let mut session = scene.session(case, &machine(vec![nvme]))?;
    session.expect("bulkhead# ", soon)?;
    for pause in [0, 1, 50, 170, 310] {
        session.send("qvm @linux.qvmconf &\r")?;
        session.expect("linux| passed: disk nvme0n1 1: ok, 1 MiB verified", soon)?;
        session.expect("linux| it resets on", soon)?;
        thread::sleep(Duration::from_millis(pause));
        session.send("slay -s QUIT linux\r")?;
        session.expect("qvm: linux ended: code 3 (", soon)?;
    }
    let text = session.text();
    ensure!(!text.contains("does not stop") && !text.contains("is not at rest"), "it is not as it should be");
    session.send("shutdown -f\r")?;
    session.expect_end(soon)
}

/// The power is cut in the midst of writes, three times; then all of a part of the disk is written and verified.
fn killed(case: &Case) -> Result<()> {
    let nvme = Device::new(Kind::Nvme(disk(case, "nvme.img")?)).behind_port();
    let mut scene = Scene::new();
    let forever = "disk-forever nvme0n1";
    linux(&mut scene, true, ("", forever), "pass loc pci:0x1b36/0x0010")?;
    let text = scene.text("linux.qvmconf").replace(forever, "disk nvme0n1 8");
    scene.file("good.qvmconf", text.into());
    for _ in 0..3 {
        scene.line("qvm @linux.qvmconf &").line("sleep 12").line("slay -s QUIT linux").line("wait linux");
    }
    scene.line("pidin pci").line("pidin its").line("pidin smmu").line("qvm @good.qvmconf");
    let ran = scene.run(case, &machine(vec![nvme]), None, 8)?;
    ensure!(ran.text.matches("qvm: linux ended: code 3 (").count() == 3, "it was not ended three times");
    ran.in_order(&["0000:01:00.0 1b36:0010     2 FLR      36 off -", "smmu0                 0         0"])?;
    ran.expect("disk nvme0n1 8: ok, 8 MiB verified")?;
    Ok(())
}

fn uncontained(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let orders = "cmdline \"test write own 64 read own\"";
    vm(&mut scene, "edu", "edu", true, &format!("{orders}\n{EDU} without-reset uncontained"))?;
    scene.line("qvm @edu.qvmconf");
    let bare = Machine { smmu: false, ..machine(vec![Device::new(Kind::Edu)]) };
    let ran = scene.run(case, &bare, None, 1)?;
    ensure!(!ran.text.contains("FAILED"), "the guest complains");
    for line in ["dma: ok", "line: ok", "message: ok", "a passed device is uncontained: it reaches all memory"] {
        ran.expect(line)?;
    }
    Ok(())
}

fn refused(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    vm(&mut scene, "there", "witness", false, &format!("{EDU} without-reset"))?;
    for (name, more) in [
        ("twice", "pass loc pci:0:5.0=0:1.0 without-reset"),
        ("fixed", EDU),
        ("absent", "pass loc pci:0:30.0"),
        ("host", "pass loc pci:0:0.0"),
        ("double", &format!("{EDU} without-reset\npass loc pci:0:1.0 without-reset")),
        // In hexadecimal 0000:00:10.0.
        ("virtio", "pass loc pci:0:16.0 without-reset"),
        ("wild", "pass loc pci:0:1.0 without-reset uncontained"),
        ("late", "pass loc pci:0:1.0 without-reset"),
        ("mate", "pass loc pci:0:18.1 without-reset"),
    ] {
        vm(&mut scene, name, "witness", false, more)?;
    }
    let through = "smmuman device pci:0:1.0 edu allow edu bypass device pci:0:18.0 twin allow twin bypass";
    scene.line("qvm @there.qvmconf &").line("sleep 0.5").line("qvm @twice.qvmconf").line(through).line("pidin smmu");
    scene.line("slay -s QUIT there").line("wait there");
    for name in ["fixed", "absent", "host", "double", "virtio", "wild"] {
        scene.line(format!("qvm @{name}.qvmconf"));
    }
    // What smmuman has no VM gets, nor what it cannot be kept apart from; and the other way round.
    scene.line("qvm @mate.qvmconf &").line("sleep 0.5").line(through).line("slay -s QUIT mate").line("wait mate");
    scene.line(through).line("qvm @late.qvmconf").line("qvm @mate.qvmconf").line("pidin pci");
    let virtio = [
        "-device",
        "virtio-rng-pci,addr=10.0,romfile=",
        "-device",
        "pci-testdev,addr=12.0,multifunction=on",
        "-device",
        "pci-testdev,addr=12.1",
    ];
    let virtio = virtio.map(String::from).into();
    let one = Machine { more: virtio, ..machine(vec![Device::new(Kind::Edu)]) };
    let ran = scene.run(case, &one, None, 3)?;
    // Nothing of what it has been told takes effect: it can be told again.
    ran.in_order(&[
        "`edu` cannot have stream 0x8: PCI function 0000:00:01.0 is `there`'s",
        "    0x8               0          PCI function 0000:00:01.0: VM `there`'s",
        "qvm: there ended",
        "`twin` cannot have stream 0x90: VM `mate` has 0000:00:12.1, and the two cannot be kept apart",
        "qvm: mate ended",
        "warning: smmuman: `edu` is let through: it reaches all memory",
        "VM `late` cannot have PCI function 0000:00:01.0: smmuman has it",
        "VM `mate` cannot have PCI function 0000:00:12.1: smmuman has 0000:00:12.0, and the two cannot be kept apart",
    ])?;
    for said in [
        "twice.qvmconf:6:10: error: VM `twice` cannot have PCI function 0000:00:01.0: VM `there` has it",
        "fixed.qvmconf:6:10: error: `pass loc pci:0x1234/0x11e8`: PCI function 0000:00:01.0 cannot be reset",
        "absent.qvmconf:6:10: error: `pass loc pci:0:30.0`: the machine has no PCI function 0:30.0, which `pidin pci` calls 00:1e.0",
        "host.qvmconf:6:10: error: `pass loc pci:0:0.0`: PCI function 0000:00:00.0 is a host bridge, which is the hypervisor's",
        "double.qvmconf:7:10: error: `pass loc pci:0:1.0`: PCI function 0000:00:01.0 is passed already by `pass loc pci:0x1234/0x11e8`",
        "virtio.qvmconf:6:10: error: PCI function 0000:00:10.0 is a virtio device, which need not ask the SMMU in front of it",
        "PCI function 0000:00:01.0 is behind an SMMU, which confines it: leave `uncontained` out",
    ] {
        ran.expect(said)?;
    }
    let mut scene = Scene::new();
    vm(&mut scene, "open", "witness", false, &format!("{EDU} without-reset"))?;
    scene.line("qvm @open.qvmconf");
    let bare = Machine { devices: vec![Device::new(Kind::Edu)], ..Machine::default() };
    let ran = scene.run(case, &bare, None, 1)?;
    ran.expect("PCI function 0000:00:01.0 reaches memory by itself, and no SMMU confines it")?;
    let two = machine(vec![Device::new(Kind::Edu), Device::new(Kind::Edu)]);
    let ran = scene.run(case, &two, None, 1)?;
    ran.expect("0000:00:01.0 and 0000:00:02.0 are both 0x1234/0x11e8: name one by its place")?;
    Ok(())
}

/// The first is ended while its device writes its memory; the next finds the device as after a reset, and nothing was caught.
fn again(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    vm(&mut scene, "first", "edu", true, &format!("cmdline \"again own 4096\"\n{EDU}"))?;
    vm(&mut scene, "second", "edu", true, &format!("cmdline \"test\"\n{EDU}"))?;
    for _ in 0..5 {
        scene.line("qvm @first.qvmconf &").line("sleep 0.5").line("slay -s QUIT first").line("wait first");
        scene.line("qvm @second.qvmconf");
    }
    let ran = scene.run(case, &machine(vec![Device::new(Kind::Edu).behind_port()]), None, 10)?;
    ensure!(!ran.text.contains("FAILED") && !ran.text.contains("is not mapped"), "the device was not as new");
    let good = ran.text.lines().filter(|line| line.contains("edu: message: ok")).count();
    ensure!(good == 5, "{good} of 5 lives had the device");
    for name in ["first", "second"] {
        let (pages, bytes) = lost(&ran, name)?;
        ensure!((pages, bytes) == (0, 0), "with `{name}` {pages} KiB and {bytes} bytes of the heap are lost");
    }
    Ok(())
}
