//! Virtio devices under Debian's drivers.

use std::fs;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::linux::with_initramfs;
use super::machine::{Case, Session};
use crate::configuration::Configuration;
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::output;

/// The initial file system with the drivers.
const INITRAMFS: &str = "drivers.cpio";

/// Linux boots within this.
const BOOT: Duration = Duration::from_secs(120);
/// What follows from something that was typed comes within this.
const SOON: Duration = Duration::from_secs(30);

/// Where devices are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum At {
    /// At places in memory, with interrupts of their own.
    Memory,
    /// On the PCI bus.
    Bus,
}

impl At {
    /// What the configuration says of the place of one of a few devices.
    pub(super) fn place(self, number: u32) -> String {
        match self {
            At::Memory => format!("loc {:#x} intr gic:{}", 0x1c0d_0000 + 0x1000 * number, 41 + number),
            At::Bus => String::new(),
        }
    }
}

/// What is tested wherever devices are: a name, what it is, and how.
type Everywhere = (&'static str, &'static str, fn(&Case, At) -> Result<()>);
const EVERYWHERE: [Everywhere; 9] = [
    ("blk", "ext4 on a disk in memory, and a file as a disk", disks),
    ("fio", "fio writes to a disk and reads it back, from two vCPUs, deep queues and all", fio),
    ("console", "a shell on hvc0", console),
    ("ports", "a second port of a console, both ways", ports),
    ("net", "two VMs ping each other and move data over a link, and over a switch", network),
    ("entropy", "random numbers, /dev/hwrng", entropy),
    ("9p", "a directory of the boot archive, read and not written to", files),
    ("input", "the power button, with a driver that listens and without", button),
    ("reset", "a VM that is started again while requests are under way finds all as it was", reset),
];

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    let mut tests = Vec::new();
    for (at, suffix) in [(At::Memory, ""), (At::Bus, "-pci")] {
        tests.extend(EVERYWHERE.map(|(name, about, run)| {
            Test::hypervisor(format!("virtio/{name}{suffix}"), about, move |case| run(case, at))
        }));
    }
    tests.push(Test::hypervisor(
        "virtio/messages",
        "devices on the PCI bus send messages where there are any",
        messages,
    ));
    tests.push(Test::hypervisor(
        "virtio/vsock",
        "two VMs send each other some MiB by sockets, and what the host has",
        sockets,
    ));
    tests.push(Test::hypervisor(
        "virtio/vsock-ends",
        "a VM is killed in mid-transfer, and another shuts down when asked",
        ends,
    ));
    tests
}

fn fio(case: &Case, at: At) -> Result<()> {
    fio_on(case, &Machine::default(), &at.place(0), "/dev/ram,32M")
}

/// Two vCPUs and deep queues on a disk, and what is read is what was written.
pub(super) fn fio_on(case: &Case, machine: &Machine, place: &str, disk: &str) -> Result<()> {
    setup::linux_guest_with_fio()?;
    let commands = "fio --name=check --filename=/dev/vda --direct=1 --ioengine=libaio --iodepth=32 --rw=randwrite \
                    --bsrange=512-131072 --size=6M --verify=crc32c --verify_fatal=1 --randseed=7 \
                    --output-format=terse > /tmp/out && echo verified; fio --name=two --filename=/dev/vda --direct=1 --rw=randrw \
                    --bs=4k --size=2M --numjobs=2 --offset_increment=12M --verify=md5 --verify_fatal=1 > /tmp/out && echo both";
    let text = with_initramfs(2, commands, "fio.cpio").replace("256M", "640M")
        + &format!("vdev virtio-blk {place} hostdev {disk}\n");
    let ran = case.batch(machine, &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?.in_order(&["linux| verified", "linux| both"])
}

/// Two disks: an empty one in memory, and a file to read only.
fn disks(case: &Case, at: At) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let content: Vec<u8> = (0..1_000_000_u32).map(|at| (at / 512) as u8).collect();
    case.file("disk.img", &content)?;
    let commands = "cd /sys/block; echo disk $(cat vda/size) $(cat vda/serial) $(cat vdb/ro); cd /; mkdir /mnt; \
         /sbin/mke2fs -q -t ext4 /dev/vda; mount -t ext4 /dev/vda /mnt && cp /bin/busybox /mnt/one && cp /mnt/one /mnt/two && sync; \
         umount /mnt; mount -t ext4 /dev/vda /mnt; cmp /bin/busybox /mnt/two && echo equal; \
         grep -o ' ext4 ' /proc/mounts; rm /mnt/one; fstrim /mnt; umount /mnt; \
         dd if=/dev/vdb bs=512 skip=777 count=1 2> /dev/null | od -An -tu1 -N4; \
         dd if=/dev/zero of=/dev/vdb bs=512 count=1 2> /dev/null || echo refused";
    let text = with_initramfs(2, commands, INITRAMFS)
        + &format!(
            "vdev virtio-blk {} hostdev /dev/ram,32M serial first name memory\n\
             vdev virtio-blk {} hostdev <disk.img name file\n",
            at.place(0),
            at.place(1)
        );
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?;
    ran.in_order(&[
        "linux| disk 65536 first 1",
        "linux| equal",
        "linux|  ext4 ",
        "linux|    9   9   9   9",
        "linux| refused",
    ])
}

/// Linux with a console device that gets what is typed; its log is on a UART that does not.
fn on_console(case: &Case, commands: &str, vdev: &str) -> Result<Session> {
    setup::linux_guest_with_drivers()?;
    let uart = "vdev pl011 loc 0x1c090000 intr gic:37";
    let text = with_initramfs(1, commands, INITRAMFS).replace(uart, &format!("{uart} hostdev >-")) + vdev;
    let vm = Configuration::read(&case.file("linux.qvmconf", text)?, "", None)?;
    case.session(&Machine::default(), &[vm])
}

/// Somebody works in a shell on the console, prints much and all of it arrives.
fn console(case: &Case, at: At) -> Result<()> {
    // The kernel shows its command line, which is not to be taken for what is waited for.
    let commands = "echo shell$((6*7)); sh -i < /dev/hvc0 > /dev/hvc0 2>&1";
    let vdev = format!("vdev virtio-console {} tx-backpressure\n", at.place(0));
    let mut session = on_console(case, commands, &vdev)?;
    session.expect("shell42", BOOT)?;
    session.expect("linux:/root# ", SOON)?;
    session.send("echo $((6*7)) on $(readlink /proc/self/fd/0)\r")?;
    session.expect("42 on /dev/hvc0", SOON)?;
    session.send("stty -echo; seq -s , 1 9999; echo end$((6*7))\r")?;
    session.expect("end42", SOON)?;
    let all: Vec<String> = (1..=9999).map(|number| number.to_string()).collect();
    ensure!(session.text().contains(&all.join(",")), "the numbers have not arrived as they were sent");
    session.send("poweroff -f\r")?;
    session.expect("qvm: linux ended: code 0 (", SOON)?;
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}

/// The console's port prints only; the other one is found by its name, read and written.
fn ports(case: &Case, at: At) -> Result<()> {
    let commands = "cd /sys/class/virtio-ports; grep -l '^agent$' */name; port=/dev/$(dirname $(grep -l '^agent$' */name)); \
         echo first$((6*7)) > /dev/hvc0; stty -F /dev/hvc0 -echo; echo listening$((6*7)); head -n 1 < $port > /tmp/line; echo got$((6*7)) $(cat /tmp/line); \
         echo back$((6*7)) > $port; echo last$((6*7)) > /dev/hvc0";
    let vdev = format!("vdev virtio-console {} hostdev >- port agent,-\n", at.place(0));
    let mut session = on_console(case, commands, &vdev)?;
    session.expect("vport0p1/name", BOOT)?;
    session.expect("first42", SOON)?;
    session.expect("listening42", SOON)?;
    session.send("a line for the agent\n")?;
    for text in ["got42 a line for the agent", "back42", "last42", "qvm: linux ended: code 0 ("] {
        session.expect(text, SOON)?;
    }
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}

/// What is in a directory is what was packed, byte for byte; nothing of it changes.
fn files(case: &Case, at: At) -> Result<()> {
    let place = at.place(0);
    setup::linux_guest_with_drivers()?;
    let folder = case.path("share");
    fs::create_dir_all(folder.join("deep/er"))?;
    let big: Vec<u8> = (0..5_000_011_u32).map(|at| (at / 7 + at / 4096) as u8).collect();
    for (name, content) in [("share/big", &big[..]), ("share/deep/er/small", b"small"), ("share/empty", b"")] {
        case.file(name, content)?;
    }
    let names = ["big", "deep/er/small", "empty"];
    let sums = output(Command::new("sha256sum").args(names).current_dir(&folder))?;
    let sums: Vec<String> = sums.lines().map(|line| format!("linux| {line}")).collect();
    ensure!(sums.len() == names.len(), "{} sums of {} files", sums.len(), names.len());
    let check = format!("sha256sum {}", names.join(" "));
    let mount = "mount -t 9p -o trans=virtio,version=9p2000.L";
    let commands = format!(
        "mkdir /mnt; {mount} share /mnt; cd /mnt; find . | sort | xargs; {check}; ls -l deep/er; stat -f -c %t .; \
         echo x > big; echo x > new; mkdir one; rm empty; mv big two; chmod 644 big; ln -s big three; cat big > /dev/null; \
         cd /; umount /mnt; {mount},ro,cache=loose,msize=500000 share /mnt; cd /mnt; {check}; cd /; umount /mnt; \
         {mount} deep /mnt; cd /mnt/er/../..; ls -d mnt/*; {mount} none /mnt || echo neither"
    );
    let text = with_initramfs(2, &commands, INITRAMFS)
        + &format!(
            "vdev virtio-9p {place} hostdev share tag share\n\
             vdev virtio-9p loc 0x1c0d1000 intr gic:42 hostdev share/deep tag deep legacy\n"
        );
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?;
    let sums: Vec<&str> = sums.iter().map(String::as_str).collect();
    let found = ["linux| . ./big ./deep ./deep/er ./deep/er/small ./empty"];
    let said = ["linux| -r-xr-xr-x    1 0        0                5 Jan  1 ", "linux| 1021997"];
    let refused = [
        "can't create big: Read-only file system",
        "can't create new: Read-only file system",
        "'one': Read-only file system",
        "'empty': Read-only file system",
        "'big': Read-only file system",
        "big: Read-only file system",
        "three: Read-only file system",
    ];
    let last = ["linux| mnt/er", "linux| neither"];
    ran.in_order(&[&found[..], &sums, &said, &refused, &sums, &last].concat())
}

/// One guest shuts down when the button is pressed; one has a driver and does nothing, so the second signal ends it; one has no
/// driver, so the first does.
fn button(case: &Case, at: At) -> Result<()> {
    let place = at.place(0);
    setup::linux_guest_with_drivers()?;
    // Who has not opened the device gets no events.
    let listen = "insmod /lib/modules/evdev.ko; cat /sys/class/input/event0/device/name; exec 3< /dev/input/event0; \
         echo listening$((6*7)); head -c 96 <&3 | od -An -v -tx2 -w24; echo in order$((6*7))";
    let with_vdev = |vm: String| vm + &format!("vdev virtio-input {place}\n");
    let orderly = with_vdev(with_initramfs(1, listen, INITRAMFS));
    // `EV_KEY`, `KEY_POWER`, pressed; `SYN_REPORT`; released; `SYN_REPORT`.
    let events =
        [" 0001 0074 0001 0000\r", " 0000 0000 0000 0000\r", " 0001 0074 0000 0000\r", " 0000 0000 0000 0000\r"];
    let ends = [&events[..], &["in order42", "qvm: linux ended: code 0 (shut down"]].concat();
    at_the_shell(case, &orderly, &["bulkhead power button", "listening42"], &[("slay -s SIGTERM linux\r", &ends)])?;

    let deaf = with_vdev(with_initramfs(1, "echo deaf$((6*7)); sleep 1000", INITRAMFS));
    let on_request = ["qvm: linux ended: code 0 (ended on request"];
    let twice = [
        ("slay -s INT linux\r", &["bulkhead# "][..]),
        ("status linux\r", &["virtio-input: ", "; pressed 1 times"]),
        ("slay linux\r", &on_request),
    ];
    at_the_shell(case, &deaf, &["deaf42"], &twice)?;

    let without = with_vdev(with_initramfs(1, "echo without$((6*7)); sleep 1000", "initramfs.cpio.gz"));
    at_the_shell(case, &without, &["without42"], &[("slay linux\r", &on_request)])
}

/// Boots a VM, waits until it is ready, and types commands into the shell, each with what comes of it.
fn at_the_shell(case: &Case, vm: &str, ready: &[&str], commands: &[(&str, &[&str])]) -> Result<()> {
    let vm = Configuration::read(&case.file("linux.qvmconf", vm)?, "", None)?;
    let mut session = case.session(&Machine::default(), &[vm])?;
    ready.iter().try_for_each(|text| session.expect(text, BOOT))?;
    session.send("\x1ds")?;
    session.expect("bulkhead# ", SOON)?;
    for (typed, answers) in commands {
        session.send(typed)?;
        answers.iter().try_for_each(|answer| session.expect(answer, SOON))?;
    }
    session.send("shutdown\r")?;
    session.expect_end(SOON)
}

/// Two VMs, each with a device of a link and a port of a switch. The first one serves until the other has gone.
fn network(case: &Case, at: At) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let vm = |name: &str, host: u32, other: &str, commands: &str| {
        let addresses = format!(
            "ip link set lo up; ip addr add 10.0.0.{host}/24 dev eth0; ip link set eth0 up; \
             ip addr add 10.0.1.{host}/24 dev eth1; ip link set eth1 up"
        );
        let text = with_initramfs(1, &format!("{addresses}; {commands}"), INITRAMFS)
            .replace("system linux", &format!("system {name}"))
            + &format!(
                "vdev virtio-net {} name link peer /dev/qvm/{other}/link\n\
                 vdev virtio-net {} name port peer /dev/vswitch0\n",
                at.place(0),
                at.place(1)
            );
        case.file(&format!("{name}.qvmconf"), text)
    };
    let carrier = "until [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 1; done";
    let server = vm(
        "server",
        1,
        "client",
        &format!(
            "iperf3 -s -D; {carrier}; echo up; while [ $(cat /sys/class/net/eth0/carrier) = 1 ]; do sleep 1; done; echo down"
        ),
    )?;
    let measure =
        |address: &str| format!("ping -c 3 {address} | grep packets; iperf3 -c {address} -t 2 -f M | grep receiver");
    let client = vm(
        "client",
        2,
        "server",
        &format!(
            "{carrier}; until ping -c 1 -W 1 10.0.0.1 > /tmp/out; do :; done; {}; {}; echo done",
            measure("10.0.0.1"),
            measure("10.0.1.1")
        ),
    )?;
    let ran = case.batch(&Machine::default(), &[server, client])?;
    ran.expect_status(0)?;
    ran.in_order(&[
        "client| 3 packets transmitted, 3 packets received, 0% packet loss",
        "receiver",
        "client| 3 packets transmitted, 3 packets received, 0% packet loss",
        "receiver",
        "client| done",
    ])?;
    ran.in_order(&["server| up", "server| down"])
}

/// On a machine whose cores have random numbers.
fn entropy(case: &Case, at: At) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let commands = "cat /sys/class/misc/hw_random/rng_current; head -c 4096 /dev/hwrng > /tmp/one; \
                    head -c 4096 /dev/hwrng > /tmp/two; wc -c < /tmp/two; cmp /tmp/one /tmp/two";
    let text = with_initramfs(2, commands, INITRAMFS) + &format!("vdev virtio-entropy {}\n", at.place(0));
    let machine = Machine { cpu: "max".into(), ..Machine::default() };
    let ran = case.batch(&machine, &[case.file("linux.qvmconf", text)?])?;
    ran.expect_status(0)?.in_order(&["linux| virtio_rng.0", "linux| 4096", "linux| /tmp/one /tmp/two differ"])
}

/// Three lives, each with a file as a disk that is written until the machine is reset under it.
fn reset(case: &Case, at: At) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    case.file("disk.img", vec![b'B'; 8 << 20])?;
    // The kernel shows its command line, which is not to be taken for what is waited for.
    let commands = "echo first$((6*7)) $(dd if=/dev/vda bs=4 count=1 2> /tmp/out); \
                    while :; do dd if=/dev/zero of=/dev/vda bs=256k oflag=direct 2> /tmp/one; done & \
                    while :; do dd if=/dev/vda of=/dev/null bs=4k iflag=direct 2> /tmp/two; done & \
                    sleep 1; echo now $(dd if=/dev/vda bs=4 count=1 iflag=direct 2> /tmp/out | od -An -tx4); reboot -f";
    let text = with_initramfs(2, commands, INITRAMFS)
        + &format!("vdev virtio-blk {} hostdev disk.img\non-exit always,2/600\n", at.place(0));
    let ran = case.batch(&Machine::default(), &[case.file("linux.qvmconf", text)?])?;
    let life = ["linux| first42 BBBB", "linux| now 00000000"];
    let ends = ["starting it again (1)", "starting it again (2)", "started again too often, not once more"];
    let lives: Vec<&str> = ends.iter().flat_map(|end| life.iter().chain([end]).copied()).collect();
    ran.in_order(&lives)
}

/// Machines and words of the interrupt controller, and what Linux calls the interrupts of a disk's requests then.
const MESSAGES: [(u8, &str, &str); 4] = [
    (3, "", "MSI"),
    (3, "vdev gic its 0x08080000 num-lpis 256\n", "ITS-MSI"),
    (2, "", "Level"),
    (2, "vdev gic version 2 msi 0x08020000,64,32\n", "MSI"),
];

fn messages(case: &Case) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let commands = "dd if=/dev/vda of=/dev/null bs=64k iflag=direct 2> /tmp/out; grep virtio /proc/interrupts; dmesg | grep GICv2m";
    for (gic, controller, kind) in MESSAGES {
        // The controller stands before the devices that name it.
        let text = with_initramfs(1, commands, INITRAMFS).replace("vdev pl011", &format!("{controller}vdev pl011"))
            + "vdev virtio-blk hostdev /dev/ram,4M\n";
        let machine = Machine { gic, ..Machine::default() };
        let ran = case.batch(&machine, &[case.file("linux.qvmconf", text)?])?;
        ran.expect_status(0)?;
        // A number, how often, whose, its number there, and whose else it is.
        let is_of = |line: &&str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let count = words.get(1).and_then(|count| count.parse::<u32>().ok()).unwrap_or(0);
            let name = words.last().copied().unwrap_or_default();
            let name_fits = if kind == "Level" { name == "virtio0" } else { name == "virtio0-req.0" };
            name_fits && count >= 64 && words.contains(&kind)
        };
        ensure!(ran.of("linux").filter(is_of).count() == 1, "GICv{gic}, `{controller}`: no interrupts of kind {kind}");
    }
    Ok(())
}

/// A VM with sockets: its CID, its groups, and what it runs.
fn with_sockets(system: &str, cid: &str, groups: &str, commands: &str) -> String {
    // One in memory, one on the PCI bus.
    let place = if cid == "5" { At::Memory.place(0) } else { At::Bus.place(0) };
    with_initramfs(1, commands, "sockets.cpio").replace("system linux", &format!("system {system}"))
        + &format!("vdev virtio-vsock {place} cid {cid} {groups}\n")
}

/// Bytes that nobody makes by accident, so many MiB.
fn noise(file: &str, mebibytes: u32) -> String {
    format!("dd if=/dev/urandom of={file} bs=1M count={mebibytes} 2> /tmp/err")
}

/// Until there is a connection: the other VM may be slower.
const PATIENTLY: &str = "retry=60,interval=1";

/// A server takes a file and sends another, at once; checksums are the same at both ends. The host echoes; others are not reached.
fn sockets(case: &Case) -> Result<()> {
    setup::linux_guest_with_sockets()?;
    let server = format!(
        "{}; echo out $(md5sum < /tmp/back); socat -t 30 -b 65536 VSOCK-LISTEN:5000 OPEN:/tmp/back,rdonly!!CREATE:/tmp/got; \
         echo in $(md5sum < /tmp/got)",
        noise("/tmp/back", 3)
    );
    let client = format!(
        "{}; echo out $(md5sum < /tmp/there); \
         socat -t 30 VSOCK-CONNECT:5:5000,{PATIENTLY} OPEN:/tmp/there,rdonly!!CREATE:/tmp/got; \
         echo in $(md5sum < /tmp/got); dd if=/tmp/there bs=1M count=1 2> /tmp/err > /tmp/part; \
         socat -t 30 OPEN:/tmp/part,rdonly!!CREATE:/tmp/echo VSOCK-CONNECT:2:7; cmp /tmp/part /tmp/echo && echo echoed; \
         socat - VSOCK-CONNECT:2:99 < /dev/null 2>&1 | grep -o reset; \
         socat - VSOCK-CONNECT:7:5000 < /dev/null 2>&1 | grep -o reset; echo done$((6*7))",
        noise("/tmp/there", 5)
    );
    let vms = [
        case.file("server.qvmconf", with_sockets("server", "5", "group other group pair", &server))?,
        case.file("client.qvmconf", with_sockets("client", "6", "group pair", &client))?,
    ];
    let ran = case.batch(&Machine::default(), &vms)?;
    ran.expect_status(0)?;
    let sum = |vm: &'static str, word: &str| -> Result<String> {
        let line = ran.of(vm).find_map(|line| line.trim().strip_prefix(word).map(str::to_string));
        line.with_context(|| format!("{vm} has no line `{word}...`"))
    };
    for (from, to) in [("server", "client"), ("client", "server")] {
        ensure!(sum(from, "out ")? == sum(to, "in ")?, "{to} has not got what {from} has sent");
    }
    ran.in_order(&["client| echoed", "client| reset", "client| reset", "client| done42"])
}

/// One VM ends in mid-transfer without a word, and comes again: its peer hears of it, and reaches it again. Then that peer's agent is
/// asked to shut down, and does so.
fn ends(case: &Case) -> Result<()> {
    setup::linux_guest_with_sockets()?;
    let source = "socat -u OPEN:/dev/zero VSOCK-LISTEN:5000";
    let sink = format!(
        "for round in 1 2; do socat -u -b 4096 VSOCK-CONNECT:5:5000,{PATIENTLY} - | (head -c 100000; echo begun$round > /dev/console; cat) | wc -c > /tmp/count; \
         echo ended$round; done; (echo ready; sleep 2; echo listening$((6*7)) > /dev/console; sleep 1000) | socat - VSOCK-CONNECT:2:1 | (read order; echo order $order; poweroff -f)"
    );
    let vms = [
        ("sink", with_sockets("sink", "6", "group pair", &sink)),
        ("source", with_sockets("source", "5", "group pair", source) + "on-exit on-failure\n"),
    ];
    let mut read = Vec::new();
    for (name, text) in vms {
        read.push(Configuration::read(&case.file(&format!("{name}.qvmconf"), text)?, "", None)?);
    }
    let mut session = case.session(&Machine::default(), &read)?;
    for round in [1, 2] {
        session.expect(&format!("begun{round}"), BOOT)?;
        if round == 1 {
            session.send("\x1d0")?;
        }
        session.send("slay -s SIGQUIT source\r")?;
        // Before or after the host says so.
        session.expect(&format!("ended{round}"), SOON)?;
    }
    // What an agent says is in the log.
    session.expect("listening42", SOON)?;
    session.send("slog2info\r")?;
    session.expect("agent: ready", SOON)?;
    session.send("slay -s SIGTERM sink\r")?;
    session.expect("order shutdown", SOON)?;
    session.expect("qvm: sink ended: code 0 (", SOON)?;
    let kills = session.text().matches("qvm: source ended: code 3 (").count();
    ensure!(kills == 2, "source was killed {kills} times, not twice");
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}
