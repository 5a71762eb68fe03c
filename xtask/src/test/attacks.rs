//! Devices whose guests have them write where they must not: QEMU's edu against everybody's memory.
//!
//! Answers for: that what is refused is refused, told and counted, and that a canary in the memory that was aimed at sees nothing of it; and, with
//! nothing that confines the device, that it does. Does not answer for: the order of an SMMU's commands (`smmu`), devices at work (`functions`).
//!
//! Where a VM's memory is on the machine is known by a trick: a device without DMA that is passed as `uncontained` has its VM's RAM at
//! the machine's own addresses.

use anyhow::{Context, Result, ensure};

use super::Test;
use super::machine::{Case, Ran};
use super::scene::Scene;
use crate::qemu::device::{Device, Kind};
use crate::qemu::machine::Machine;

/// The device that attacks.
const EDU: &str = "pass loc pci:0x1234/0x11e8";

/// A device that does no DMA, by which a VM has its RAM at the machine's addresses.
const GPIO: &str = "pass loc 0x1c170000,4K,rwd=0x09030000 uncontained";

/// Where the canary is, and where the guest that attacks does not have RAM.
const PERCH: u64 = 0x9000_0000;
const PERCH_LENGTH: u64 = 64 << 20;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "attack/sweep",
            "DMA to all memory of the machine is refused, told and counted, and harms nobody",
            sweep,
        ),
        Test::hypervisor("attack/control", "the same DMA that nothing confines is seen by the canary", control),
        Test::hypervisor("attack/end", "DMA that outlives its VM does not reach who has the memory then", end),
        Test::hypervisor("attack/stale", "a page that was given back is out of the device's reach", stale),
        Test::hypervisor(
            "attack/on-fault",
            "a fault is told of, cuts the device off, or ends its VM, as is wanted",
            on_fault,
        ),
        Test::hypervisor(
            "attack/successor",
            "the next to have a device does not answer for faults of the last",
            successor,
        ),
        Test::hypervisor(
            "attack/flood",
            "a device that only faults loses events, which is told, and harms nobody",
            flood,
        ),
        Test::hypervisor("attack/refused", "functions that cannot be had safely are refused by name", refused),
        Test::hypervisor("attack/race", "pages go to others while DMA to them is under way", race),
    ]
}

fn machine(devices: usize) -> Machine {
    let devices = (0..devices).map(|_| Device::new(Kind::Edu).behind_port()).collect();
    Machine { smmu: true, devices, ..Machine::default() }
}

/// A bare-metal guest as a flat image, which runs wherever its RAM is: `ram` is `START,LENGTH`.
fn vm(scene: &mut Scene, name: &str, guest: &str, ram: &str, more: &str) -> Result<()> {
    let console = "vdev pl011 loc 0x1c090000 intr gic:37";
    let text = format!("system {name}\nram {ram}\nload {guest}.bin\n{console}\n{more}\n");
    scene.flat_guest(guest)?.file(&format!("{name}.qvmconf"), text.into());
    Ok(())
}

/// The canary at a known place, which tells its counts at the end of so many rounds.
fn perched(scene: &mut Scene, name: &str, options: &str) -> Result<()> {
    vm(scene, name, "canary", &format!("{PERCH:#x},{PERCH_LENGTH}"), &format!("cmdline \"{options}\"\n{GPIO}"))
}

fn attacker(scene: &mut Scene, name: &str, orders: &str, more: &str) -> Result<()> {
    vm(scene, name, "edu", "0x80000000,32M", &format!("cmdline \"{orders}\"\n{more}"))
}

/// All that a canary has counted is nothing, and it has counted.
fn unharmed(ran: &Ran, name: &str) -> Result<()> {
    let mut last = 0;
    for line in ran.of(name).filter_map(|line| line.strip_prefix("canary: ")) {
        if let Some((rounds, changed)) = line.split_once(" rounds, ") {
            last = rounds.parse().unwrap_or(0);
            ensure!(changed.starts_with("0 bytes"), "the canary `{name}` has seen a write: {line}");
        }
        ensure!(!line.contains(", not "), "the canary `{name}` has seen a write: {line}");
    }
    ensure!(last > 0, "the canary `{name}` has not looked");
    Ok(())
}

/// Events of the function's stream by the last `pidin smmu`, by what its line ends with.
fn events(ran: &Ran, whose: &str) -> Result<u64> {
    let line = ran.text.lines().rev().find(|line| line.starts_with("    0x") && line.ends_with(whose));
    let line = line.with_context(|| format!("`pidin smmu` names no stream as `{whose}`"))?;
    line.split_whitespace().nth(1).and_then(|events| events.parse().ok()).context("`pidin smmu` has another form")
}

/// RAM of everybody else, at host addresses; the hypervisor's image; devices; what is not there; the end of all addresses.
fn sweep(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let orders = format!(
        "read own sweep 0 0x3fffffff 0x4000000 sweep 0x40000000 0x7fffffff 0x3000000 sweep {PERCH:#x} {:#x} 0x400000 \
         sweep 0x94000000 0xbfffffff 0x3000000 sweep 0xc0000000 0xffffffff 0x10000000 sweep 0x100000000 0x8000000000 0x1000000000 \
         read 0x40080000 read {PERCH:#x} write 0xfffffffffffff000 4096 write 0xffffffffffffffc0 128 write 0xfffffffffff 64 \
         write 0x81fffff0 64",
        PERCH + PERCH_LENGTH - 1
    );
    perched(&mut scene, "canary", "rate=4096 report=1")?;
    vm(&mut scene, "large", "canary", "0x80000000,512M", "cmdline \"rate=8192 report=1\"")?;
    attacker(&mut scene, "edu", &orders, EDU)?;
    scene.line("qvm @canary.qvmconf &").line("sleep 0.5").line("qvm @large.qvmconf &").line("sleep 1");
    scene.line("qvm @edu.qvmconf &").line("sleep 2").line("pidin smmu").line("wait edu").line("pidin smmu");
    scene.line("sleep 4").line("slay -s QUIT canary").line("slay -s QUIT large");
    scene.line("wait canary").line("wait large");
    let ran = scene.run(case, &machine(1), None, 4)?;
    ran.in_order(&["edu| edu: loaded, own memory is ", "edu| edu: read 0x", "qvm: edu ended: code 0 ("])?;
    unharmed(&ran, "canary")?;
    unharmed(&ran, "large")?;
    for line in ran.of("edu").filter(|line| line.starts_with("edu: sweep ") || line.starts_with("edu: FAILED")) {
        ensure!(line.ends_with(" 0 own bytes changed"), "it has hit its own memory: {line}");
    }
    for secret in ["edu| edu: read 0x40080000: done, ", &format!("edu| edu: read {PERCH:#x}: done, ")] {
        let line = ran.text.lines().find(|line| line.starts_with(secret)).context("nothing was read")?;
        ensure!(line.ends_with("nothing came") || line.ends_with("zeroes"), "it has read others' memory: {line}");
    }
    ran.expect("smmu0: stream 0x")?.expect("(F_TRANSLATION) [PCI function ")?.expect(": VM `edu`'s]")?;
    ran.expect(": VM `edu`'s")?;
    // The stream is nobody's by now.
    ensure!(events(&ran, "nobody's: refused")? > 80, "not each attempt was counted");
    Ok(())
}

/// The attacker has its RAM where the machine has it, and so has the canary.
fn control(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    perched(&mut scene, "canary", "rate=4096 report=1")?;
    let sweep = format!("sweep {PERCH:#x} {:#x} 0x400000 read {:#x}", PERCH + PERCH_LENGTH - 1, PERCH + (32 << 20));
    let (there, more) = ("0xa0000000,32M", format!("cmdline \"{sweep}\"\n{EDU} uncontained"));
    vm(&mut scene, "edu", "edu", there, &more)?;
    scene.line("qvm @canary.qvmconf &").line("sleep 1").line("qvm @edu.qvmconf").line("sleep 2");
    scene.line("slay -s QUIT canary").line("wait canary");
    let ran = scene.run(case, &Machine { smmu: false, ..machine(1) }, None, 2)?;
    ran.expect("a passed device is uncontained: it reaches all memory")?;
    // 64 bytes of each of 16 shots. Not each is told of by its address: the console is slower than a device.
    let counts = ran
        .of("canary")
        .filter_map(|line| line.strip_suffix(" bytes changed")?.rsplit(' ').next()?.parse::<u64>().ok());
    let (seen, named) = (counts.max().unwrap_or(0), ran.of("canary").any(|line| line.contains(" is 0xed, not ")));
    ensure!(seen >= 512 && named, "the canary has seen {seen} bytes that the device has written: it could not fail");
    let secret = format!("edu: read {:#x}: done, ", PERCH + (32 << 20));
    let read = ran.of("edu").find(|line| line.starts_with(&secret)).context("nothing was read")?;
    ensure!(read.contains(" ... "), "it has not read the canary's memory: {read}");
    Ok(())
}

/// The VM's RAM is at a known place too, so its successor has just that.
fn end(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let there = format!("{PERCH:#x},{PERCH_LENGTH}");
    for (name, order) in [("again", "again own 1048576"), ("last", "last own 4096")] {
        vm(&mut scene, name, "edu", &there, &format!("cmdline \"{order}\"\n{EDU}\n{GPIO}"))?;
    }
    perched(&mut scene, "next", "rate=16384 rounds=3")?;
    // The device is somebody else's at once, as Bus Master, in the midst of what the last has ordered.
    vm(&mut scene, "heir", "edu", "0x80000000,8M", &format!("cmdline \"wait 300\"\n{EDU}"))?;
    for _ in 0..4 {
        scene.line("qvm @again.qvmconf &").line("sleep 2").line("slay -s QUIT again").line("wait again");
        scene.line("qvm @heir.qvmconf &").line("qvm @next.qvmconf").line("wait heir");
        scene.line("qvm @last.qvmconf").line("qvm @heir.qvmconf &").line("qvm @next.qvmconf").line("wait heir");
    }
    scene.line("pidin smmu");
    let ran = scene.run(case, &machine(1), None, 12)?;
    let count = |text: &str| ran.text.matches(text).count();
    let shot = ran.of("again").filter(|line| line.contains("shot 1, done")).count();
    // On a PC that is busy a guest need not have come that far each time.
    ensure!(shot >= 2 && count("edu: last 0x") == 4, "{shot} and {} of 4 have attacked", count("edu: last 0x"));
    ensure!(count("qvm: again ended: code 3 (power cut") == 4, "its end was another");
    ensure!(count("qvm: heir ended: code 0 (") == 8, "the device was not passed on each time");
    ensure!(count("qvm: next ended: code 0 (") == 8, "the memory was not passed on each time");
    unharmed(&ran, "next")
}

fn stale(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    let balloon = "vdev virtio-balloon loc 0x1c0d0000 intr gic:46";
    attacker(&mut scene, "edu", "stale stale write own 64", &format!("{EDU}\n{balloon}"))?;
    scene.line("qvm @edu.qvmconf").line("sleep 0.5").line("pidin smmu");
    let ran = scene.run(case, &machine(1), None, 1)?;
    let wrote: Vec<_> = ran.of("edu").filter(|line| line.starts_with("edu: write 0x")).collect();
    let arrived: Vec<_> = wrote.iter().map(|line| line.ends_with(", arrived")).collect();
    // A page that was given back is there again when a CPU has looked at it.
    ensure!(arrived == [true, false, true, false, true], "not as it should be: {wrote:?}");
    ran.expect("write at 0x81")?.expect("(F_TRANSLATION)")?.expect(": VM `edu`'s]")?;
    ensure!(events(&ran, "nobody's: refused")? >= 2, "not counted");
    Ok(())
}

fn on_fault(case: &Case) -> Result<()> {
    for (words, order, code, said) in [
        ("report", "write 0xc0000000 64 write own 64", 0, ", arrived"),
        ("cut-off", "write 0xc0000000 64 wait 4000 write own 64 write own 64", 0, ", not arrived"),
        ("terminate", "write 0xc0000000 64 wait 1000 write own 64", 5, "smmu0: "),
    ] {
        let mut scene = Scene::new();
        scene.file("host.smmu", format!("set on-fault {words}\n").into()).line("smmuman @host.smmu");
        attacker(&mut scene, "edu", order, EDU)?;
        // The next has the device as new, whatever became of the last.
        attacker(&mut scene, "heir", "write own 64", EDU)?;
        match words {
            // While the guest waits.
            "cut-off" => scene.line("qvm @edu.qvmconf &").line("sleep 3").line("pidin smmu").line("wait edu"),
            _ => scene.line("qvm @edu.qvmconf"),
        };
        scene.line("qvm @heir.qvmconf").line("pidin smmu");
        let ran = scene.run(case, &machine(1), None, 2)?;
        let with = |error: anyhow::Error| error.context(format!("of `set on-fault {words}`"));
        ran.in_order(&["edu| edu: loaded", &format!("qvm: edu ended: code {code} ("), "heir| edu: loaded"])
            .map_err(with)?;
        let last = ran.of("heir").find(|line| line.starts_with("edu: write 0x")).context("no heir")?;
        ensure!(last.ends_with(", arrived"), "the next does not have the device: {last}");
        ran.expect("qvm: heir ended: code 0 (").map_err(with)?;
        ran.expect("write at 0xc0000000 is not mapped by stage 2 (F_TRANSLATION) [PCI function ").map_err(with)?;
        match words {
            "terminate" => {
                let record = ran.text.lines().find(|line| line.starts_with("qvm: edu ended: code 5 ("));
                let record = record.context("no record")?;
                for part in ["PCI function 0000:", "smmu0: stream 0x", "write at 0xc0000000", "F_TRANSLATION"] {
                    ensure!(record.contains(part), "the record does not say `{part}`: {record}");
                }
                let written = ran.of("edu").filter(|line| line.starts_with("edu: write 0x8")).count();
                ensure!(written == 0, "the VM went on");
            }
            _ => {
                let own = ran.of("edu").filter(|line| line.starts_with("edu: write 0x8")).last();
                let own = own.context("the guest has not come that far")?;
                ensure!(own.ends_with(said), "after the fault: {own}");
            }
        }
        if words == "cut-off" {
            ran.expect("(stream 0x100) is cut off")?.expect(": cut off, VM `edu`")?;
        }
    }
    Ok(())
}

/// Faults that are recorded when the VM ends for the first of them are many; the next has the device as soon as that is possible.
fn successor(case: &Case) -> Result<()> {
    const TIMES: usize = 5;
    let mut scene = Scene::new();
    scene.file("host.smmu", b"set on-fault terminate\n".into()).line("smmuman @host.smmu");
    // One shot: the next, once ordered, QEMU's edu does for whoever has it 100 ms later, since no reset ends what it is about.
    attacker(&mut scene, "edu", "write 0xc0000000 4096 wait 1000", &format!("{EDU} without-reset"))?;
    attacker(&mut scene, "heir", "write own 64", &format!("{EDU} without-reset"))?;
    for _ in 0..TIMES {
        scene.line("qvm @edu.qvmconf").line("qvm @heir.qvmconf");
    }
    let devices = vec![Device::new(Kind::Edu)];
    let ran = scene.run(case, &Machine { devices, ..machine(0) }, None, 2 * TIMES)?;
    let count = |text: &str| ran.text.matches(text).count();
    let (ended, went_on) = (count("qvm: edu ended: code 5 ("), count("qvm: heir ended: code 0 ("));
    ensure!(
        ended == TIMES && went_on == TIMES,
        "{ended} have ended for their faults, {went_on} heirs went on, of {TIMES}"
    );
    Ok(())
}

/// 4 KiB to nowhere are more events at once than an SMMU keeps.
fn flood(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    perched(&mut scene, "canary", "rate=4096 report=1")?;
    scene.vm("hello", "hello", "2M", "")?;
    for name in ["one", "two"] {
        let place = if name == "one" { "1" } else { "2" };
        let more = format!("pass loc pci:0:5.0={place}:0.0");
        attacker(&mut scene, name, "write 0xc0000000 1048576 write 0xc0000000 1048576", &more)?;
    }
    scene.line("qvm @canary.qvmconf &").line("qvm @one.qvmconf &").line("qvm @two.qvmconf &").line("sleep 5");
    scene.line("qvm @hello.qvmconf").line("pidin smmu").line("slay -s QUIT one").line("slay -s QUIT two");
    scene.line("wait one").line("wait two").line("slay -s QUIT canary").line("wait canary");
    let ran = scene.run(case, &machine(2), None, 4)?;
    ran.expect("smmu0: events are lost: more come than are taken")?;
    let summary = ran.text.lines().find(|line| line.starts_with("smmu0  ")).context("no `pidin smmu`")?;
    let lost: u64 = summary.split_whitespace().nth(2).and_then(|lost| lost.parse().ok()).context("no count")?;
    ensure!(lost > 0, "events that were lost are not counted: {summary}");
    for name in ["one", "two"] {
        ensure!(events(&ran, &format!("VM `{name}`'s"))? > 100, "`{name}` was silenced");
    }
    ran.expect("hello| hello: good-bye")?;
    // The log has not become all that the machine does.
    let told = ran.text.lines().filter(|line| line.contains("is not mapped by stage 2")).count();
    ensure!(told < 100, "{told} lines of faults");
    unharmed(&ran, "canary")
}

fn refused(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    attacker(&mut scene, "there", "wait 1000000", "pass loc pci:0:5.0=0:8.0 without-reset")?;
    for (name, more) in [
        ("two", "pass loc pci:0:5.0=0:8.0 without-reset"),
        ("group", "pass loc pci:0:5.0=0:8.1 without-reset"),
        ("unknown", "pass loc pci:0x1234/0x5678"),
        ("several", "pass loc pci:0x1234/0x11e8 without-reset"),
        ("fixed", "pass loc pci:0:5.0=0:9.0"),
        (
            "large",
            "vdev pci-host window 0x3e000000,16M window 0x9000000000,16M\npass loc pci:0:5.0=0:9.0 without-reset",
        ),
    ] {
        attacker(&mut scene, name, "", more)?;
    }
    scene.line("qvm @there.qvmconf &").line("sleep 1");
    for name in ["two", "group", "unknown", "several", "fixed", "large"] {
        scene.line(format!("qvm @{name}.qvmconf"));
    }
    scene.line("pidin pci").line("slay -s QUIT there").line("wait there").line("qvm @group.qvmconf");
    let more = [
        ("-device", "edu,addr=8.0,multifunction=on"),
        ("-device", "edu,addr=8.1"),
        ("-object", "memory-backend-ram,id=large,size=64M"),
        ("-device", "ivshmem-plain,memdev=large,addr=9.0"),
    ];
    let more = more.into_iter().flat_map(|(option, value)| [option.into(), value.into()]).collect::<Vec<_>>();
    let ran = scene.run(case, &Machine { more: more.clone(), ..machine(0) }, None, 2)?;
    for said in [
        "VM `two` cannot have PCI function 0000:00:08.0: VM `there` has it",
        "VM `group` cannot have PCI function 0000:00:08.1: ",
        "the machine has no PCI function 0x1234/0x5678",
        "are both 0x1234/0x11e8: name one by its place",
        "PCI function 0000:00:09.0 cannot be reset",
        "BAR 2 of 0000:00:09.0 has 0x4000000 bytes, which no window of the guest's PCI bus has",
    ] {
        ran.expect(said)?;
    }
    for name in ["two", "unknown", "several", "fixed", "large"] {
        let ended = ran.text.lines().find(|line| line.starts_with(&format!("qvm: {name} ended: code ")));
        ensure!(ended.is_some_and(|line| !line.contains("code 0 (")), "`{name}` was not refused: {ended:?}");
    }
    // What was refused for another's sake can be had without the other.
    ran.in_order(&["qvm: group ended: code 6", "qvm: there ended: code 3 (", "qvm: group ended: code 0 ("])?;
    let stage1 = ["-M", "virt-9.1,iommu=smmuv3", "-global", "arm-smmuv3.stage=1"].map(String::from);
    let more = more.into_iter().chain(stage1).collect();
    let mut scene = Scene::new();
    attacker(&mut scene, "edu", "", "pass loc pci:0:5.0=0:8.0 without-reset")?;
    scene.line("qvm @edu.qvmconf");
    let ran = scene.run(case, &Machine { smmu: false, more, ..machine(0) }, None, 1)?;
    ran.expect("VM `edu` cannot have PCI function 0000:00:08.0: smmu0 at 0x9050000 is not used: it has no stage 2")?;
    Ok(())
}

/// Two guests give memory back while their devices write it; whoever begins meanwhile has as much of the machine's memory as there is, so
/// that it has what was given back.
fn race(case: &Case) -> Result<()> {
    /// They last for most of the canaries, each of which can have what was given back until it begins.
    const ROUNDS: u64 = 60;
    /// Of the canary's sizes, in steps of 1 MiB, from 2 MiB less than is free on.
    const MOST: u64 = 3;
    /// From this one on it is more than there was before anything was given back.
    const ENOUGH: u64 = 2;
    let small = Machine { memory: "128M".into(), ..machine(2) };
    let attackers = |scene: &mut Scene, orders: &str| {
        for place in [1, 2] {
            let balloon = "vdev virtio-balloon loc 0x1c0d0000 intr gic:46";
            let more = format!("cmdline \"{orders}\"\npass loc pci:0:5.0={place}:0.0\n{balloon}");
            vm(scene, &format!("edu{place}"), "edu", "0x80000000,24M", &more)?;
            scene.line(format!("qvm @edu{place}.qvmconf &"));
        }
        Ok::<_, anyhow::Error>(())
    };
    let mut scene = Scene::new();
    attackers(&mut scene, "wait 3000")?;
    scene.flat_guest("canary")?.line("sleep 1.5").line("pidin memory").line("wait edu1").line("wait edu2");
    let ran = scene.run(case, &small, None, 1)?;
    let free = ran.text.lines().find_map(|line| line.trim().strip_suffix(" free")?.trim().parse::<u64>().ok());
    let free = free.context("`pidin memory` has another form")?;
    let mut scene = Scene::new();
    attackers(&mut scene, &format!("wait 1500 race {ROUNDS}"))?;
    let sizes = 0..=MOST;
    for more in sizes.clone() {
        let ram = format!("0x80000000,{}K", ((free & !3) + 1024 * more).saturating_sub(2048));
        vm(&mut scene, &format!("canary{more}"), "canary", &ram, "cpu sched 5\ncmdline \"rate=65536 rounds=1\"")?;
    }
    // What is given back is others' only if the guest is to make do without it.
    scene.line("sleep 1.5");
    for _ in 0..5 {
        scene.line("balloon edu1 12M").line("balloon edu2 12M").line("sleep 3");
        // Which is the largest that there is room for changes all the time.
        for more in sizes.clone().rev() {
            scene.line(format!("qvm @canary{more}.qvmconf"));
        }
    }
    scene.line("wait edu1").line("wait edu2").line("pidin smmu").line("pidin memory");
    let ran = scene.run(case, &small, None, 6)?;
    let during = ran.text.split("edu: race: ").next().unwrap_or_default();
    let had = |more: &u64| during.contains(&format!("qvm: canary{more} ended: code 0 ("));
    ensure!((ENOUGH..=MOST).any(|more| had(&more)), "no canary had what was given back");
    for more in sizes.filter(had) {
        unharmed(&ran, &format!("canary{more}"))?;
    }
    for name in ["edu1", "edu2"] {
        let said = ran.of(name).find_map(|line| line.strip_prefix("edu: race: "));
        let said = said.with_context(|| format!("`{name}` has not come to its end"))?;
        ensure!(said.ends_with(" 0 own bytes changed"), "`{name}` has hit its own memory: {said}");
        let given = said.split_whitespace().nth(2).and_then(|given| given.parse::<u64>().ok());
        ensure!(given >= Some(ROUNDS * 8), "`{name}` has not given its memory back: {said}");
        ran.expect(&format!(": VM `{name}`'s]"))?;
    }
    ran.expect("         0 promised to VMs")?;
    Ok(())
}
