//! Memory that VMs share with each other and with the host.

use anyhow::{Context, Result, bail};

use super::Test;
use super::machine::Case;
use super::ordeals;
use super::scene::{Scene, counting};
use crate::qemu::machine::Machine;

/// The device, as the guest `exchange` expects it.
const SHMEM: &str = "vdev shmem loc 0x1c050000 intr gic:43";

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor("shared/exchange", "a gigabyte from one VM to another, every word of it compared", exchange),
        Test::hypervisor("shared/attach", "what was attached is taken back, and is clean", attach),
        Test::hypervisor("shared/both", "two vCPUs attach at once, and each store is complete when it is", both),
        Test::hypervisor("shared/status", "a script waits for what a guest tells the host", status),
        Test::hypervisor("shared/end", "a VM's end is the end of its clients; others and the host go on", end),
        Test::hypervisor("shared/linux", "Linux and a bare-metal guest exchange data and interrupts", linux),
        Test::hypervisor("shared/refused", "what a guest may not have it does not get", refused),
    ]
}

fn exchange(case: &Case) -> Result<()> {
    const MEBIBYTES: u64 = 1024;
    let mut scene = Scene::new();
    scene.vm("send", "exchange", "2M", &format!("cmdline \"send mib={MEBIBYTES}\"\n{SHMEM}"))?;
    scene.vm("receive", "exchange", "2M", &format!("cmdline receive\n{SHMEM}"))?;
    scene.line("qvm @receive.qvmconf &").line("qvm @send.qvmconf &").line("wait");
    let ran = scene.run(case, &Machine::default(), None, 10)?;
    let blocks = MEBIBYTES * 16;
    let end = |vm: &str, start: &str| {
        let line = ran.of(vm).find(|line| line.starts_with(start)).map(str::to_string);
        line.with_context(|| format!("`{vm}` does not say `{start}`"))
    };
    let sent = end("send", &format!("exchange: sent {blocks} blocks, checksum "))?;
    let received = end("receive", &format!("exchange: received {blocks} blocks, checksum "))?;
    let checksum =
        |line: &str| line.split("checksum ").nth(1).and_then(|rest| rest.split(',').next().map(str::to_string));
    if checksum(&sent) != checksum(&received) || !sent.ends_with("agreed") || !received.ends_with(", 0 wrong") {
        bail!("{sent}; {received}");
    }
    Ok(())
}

/// Attached and detached in all sizes, by two VMs one after the other: the second finds what the first one found.
fn attach(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("a", "exchange", "2M", &format!("cmdline \"attach=60\"\n{SHMEM}"))?;
    for _ in 0..3 {
        scene.line("qvm @a.qvmconf");
    }
    scene.line("shm");
    let ran = scene.run(case, &counting(), None, 3)?;
    let attached = ran.of("a").filter(|line| *line == "exchange: attached 60 times, 0 words were not zero").count();
    if attached != 3 {
        bail!("{attached} of 3 VMs were attached 60 times to what was zero");
    }
    match ordeals::left(&ran, "a").as_slice() {
        [_, (second, _), (third, _)] if second == third => Ok(()),
        left => bail!("something is lost: {left:?}"),
    }
}

/// On two CPUs and on one. What one vCPU has asked for may be done by the other; neither goes on before its own is done.
fn both(case: &Case) -> Result<()> {
    let second = SHMEM.replace("0x1c050000", "0x1c060000").replace(":43", ":44");
    for cpus in [2, 1] {
        let mut scene = Scene::new();
        scene.vm("a", "exchange", "2M", &format!("cpu cpu\ncmdline both\n{SHMEM}\n{second}"))?;
        scene.line("qvm @a.qvmconf").line("shm");
        let ran = scene.run(case, &Machine { cpus, ..Machine::default() }, None, 3)?;
        ran.in_order(&["a| exchange: attached from both CPUs, 0 too late", "       KiB CLIENTS KEPT NAME"])?;
    }
    Ok(())
}

/// The host's side of "I am about to shut down".
fn status(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("a", "exchange", "2M", &format!("cmdline \"say=0xdead\"\n{SHMEM} allow stat*"))?;
    scene.vm("other", "hello", "2M", "cmdline forever")?;
    scene.line("shm create status,8K").line("shm write status 8 0x64636261").line("qvm @other.qvmconf &");
    scene.line("qvm @a.qvmconf &").line("shm wait status 0 0xdead 20").line("slay -s QUIT other").line("wait");
    scene.line("shm read status 0 12").line("shm").line("shm wait status 0 1 0.1").line("shm read status 8K");
    scene.line("shm delete status").line("shm delete status").line("shm read status 0").line("shm");
    let ran = scene.run(case, &counting(), None, 3)?;
    ran.in_order(&[
        "a| exchange: said 0xdead",
        "qvm: other ended: code 3 (power cut)",
        "00000000  ad de 00 00 00 00 00 00 61 62 63 64              ........abcd",
        "         8       0 yes  status",
        "shell: not waiting any longer for `status`",
        "shell: `status` has 8 KiB",
        "shell: there is no region `status` that was made here",
        "shell: there is no region `status`",
        "       KiB CLIENTS KEPT NAME",
    ])
}

/// The receiver is killed while it waits; the sender's region has one client then, and the host can still use it.
fn end(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("receive", "exchange", "2M", &format!("cmdline receive\n{SHMEM}"))?;
    scene.vm("again", "exchange", "2M", &format!("cmdline receive\n{SHMEM} create mine,4K"))?;
    scene.line("qvm @receive.qvmconf &").line("qvm @again.qvmconf &").line("sleep 0.3").line("shm");
    scene.line("slay -s QUIT receive").line("wait receive").line("shm").line("status again").line("sleep 0.1");
    scene.line("slay -s QUIT again").line("wait").line("shm").line("pidin memory");
    let ran = scene.run(case, &counting(), None, 3)?;
    ran.in_order(&[
        "       2 no   exchange",
        "       0 no   mine",
        "       1 no   exchange",
        "shmem: attached to 1 regions",
        "`exchange`: client 1",
        "       KiB CLIENTS KEPT NAME",
        "         0 shared",
    ])?;
    let tables: Vec<&str> = ran.text.split("       KiB CLIENTS KEPT NAME").collect();
    if tables.last().is_some_and(|last| last.contains("exchange")) {
        bail!("a region is left");
    }
    Ok(())
}

fn refused(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.vm("denied", "exchange", "2M", &format!("cmdline \"attach=1\"\n{SHMEM} deny m*"))?;
    scene.vm("large", "exchange", "2M", &format!("cmdline \"send\"\n{SHMEM} limit 64K"))?;
    scene.vm("huge", "exchange", "2M", &format!("cmdline \"send\"\n{SHMEM} create all,1G"))?;
    scene.vm("both", "exchange", "2M", &format!("cmdline \"send\"\n{SHMEM} allow a deny b"))?;
    scene.line("qvm @denied.qvmconf").line("qvm @large.qvmconf").line("qvm @huge.qvmconf").line("qvm @both.qvmconf");
    let ran = scene.run(case, &counting(), None, 4)?;
    ran.in_order(&[
        "the guest may not have the region `mine`",
        "denied| exchange: not attached: status 5",
        "region `exchange`: no memory, or more than its `limit`",
        "large| exchange: not attached: status 2",
        "qvm: huge ended: code 64 (could not start: no memory for the region `all` of 262144 pages)",
        "either `allow` or `deny`, not both",
        "qvm: both ended: code 65",
    ])
}

/// Linux reaches registers and memory by `/dev/mem`, and takes the interrupts by a driver of its own that wants nothing but an
/// interrupt: `gpio-keys`, for which the VM is given a node that names the device's line. Each interrupt is a key that is pressed.
/// The name `echo` is two words of four bytes; the window of the device begins at 16 GiB, and the first region's memory at 2 MiB
/// in that.
fn linux(case: &Case) -> Result<()> {
    let commands = "insmod /lib/modules/evdev.ko; insmod /lib/modules/gpio_keys.ko; \
        devmem 0x1c05001c 32 0x6f686365; devmem 0x1c050020 32 0; devmem 0x1c050018 32 1; \
        echo status $(devmem 0x1c050014) at $(devmem 0x1c050008 64); \
        for value in 41 1000; do echo old news $(devmem 0x4001ff000); exec 3</dev/input/event0; \
        devmem 0x400200000 64 $value; devmem 0x4001ff008 32 1; \
        dd bs=24 count=1 <&3 2>/dev/null | wc -c; exec 3<&-; \
        echo news $(devmem 0x4001ff000) word $(devmem 0x400200000 64); done; grep doorbell /proc/interrupts";
    let mut scene = Scene::new();
    scene.vm("bare", "exchange", "2M", &format!("cmdline echo\n{SHMEM}"))?;
    scene.linux(1, commands)?.file("doorbell.dtb", doorbell());
    scene.line("qvm @bare.qvmconf &").line("sleep 0.3");
    scene.line(format!("qvm @linux.qvmconf {SHMEM} fdt load doorbell.dtb")).line("wait");
    let ran = scene.run(case, &Machine::default(), None, 4)?;
    ran.in_order(&[
        "bare| exchange: listens as client 0",
        "bare| exchange: 41 answered",
        "bare| exchange: 1000 answered",
    ])?;
    ran.in_order(&[
        "linux| status 0x00000000 at 0x00000004001FF000",
        "linux| 24",
        "linux| news 0x00030001 word 0x000000000000002A",
        "linux| 24",
        "word 0x00000000000003E9",
        "doorbell",
    ])
}

/// The node of a key that is the device's interrupt (Linux `gpio-keys` binding). It rises once until the status is read.
fn doorbell() -> Vec<u8> {
    const KEY_POWER: u32 = 116;
    let key = vdev::Node::new("doorbell").text("label", "doorbell").number("linux,code", KEY_POWER);
    let mut keys = vdev::Node::new("gpio-keys").compatible(&["gpio-keys"]);
    keys.add(key.interrupt(types::IntId(43), vdev::Trigger::Edge));
    let mut tree = dtoolkit::model::DeviceTree::new();
    tree.root.add_child(keys.into_model());
    tree.to_dtb()
}
