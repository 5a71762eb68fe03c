//! Switches that lead out of the machine by a network card: to QEMU's own network, and to a flood.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::Test;
use super::linux::with_initramfs;
use super::machine::Case;
use super::scene::Scene;
use crate::qemu::machine::Machine;
use crate::setup;
use crate::workspace::root;

/// The initial file system with the drivers.
const INITRAMFS: &str = "drivers.cpio";
/// What is moved in each direction.
const BYTES: usize = 6 << 20;
/// How long the PC waits for what a guest has sent when the machine has ended.
const SOON: Duration = Duration::from_secs(10);
/// Frames that the flood sends at once before it looks whether it is over.
const BURST: usize = 64;

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::hypervisor(
            "virtio/uplink",
            "a VM gets out by a network card and back, one in another group does not",
            out,
        ),
        Test::hypervisor("virtio/uplink-refused", "what cannot be an uplink is told why", refused),
        Test::hypervisor("virtio/uplink-flood", "a flood from outside keeps no VM from its CPU", flood),
    ]
}

fn machine(nets: &[&str]) -> Machine {
    Machine { nets: nets.iter().map(|net| (*net).to_string()).collect(), ..Machine::default() }
}

/// A Linux guest with a port of `/dev/vswitch0`, in a scene.
fn linux(scene: &mut Scene, name: &str, commands: &str, port: &str) {
    let text = with_initramfs(1, commands, INITRAMFS)
        .replace("system linux", &format!("system {name}"))
        .replace("../../guests/linux/", "")
        + &format!("vdev virtio-net peer /dev/vswitch0 {port}\n");
    scene.file(&format!("{name}.qvmconf"), text.into_bytes());
    scene.line(format!("qvm @{name}.qvmconf &"));
}

/// Something that is not the same again soon.
fn pattern() -> Vec<u8> {
    let mut state = 1_u32;
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    (0..BYTES).map(|_| next()).collect()
}

/// A server on the PC: who comes first gets the pattern; what the second sends is what this answers.
fn serve(listener: &TcpListener, pattern: &[u8]) -> Result<Vec<u8>> {
    let (mut first, _) = listener.accept()?;
    first.write_all(pattern)?;
    drop(first);
    let (mut second, _) = listener.accept()?;
    let mut content = Vec::new();
    second.read_to_end(&mut content)?;
    Ok(content)
}

/// QEMU's user network (its manual, "Using the user mode network stack"): the PC is 10.0.2.2 there.
fn out(case: &Case) -> Result<()> {
    setup::linux_guest_with_drivers()?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (sender, answer) = mpsc::channel();
    thread::spawn(move || sender.send(serve(&listener, &pattern())));

    let folder = root().join(setup::LINUX_IMAGE);
    let folder = folder.parent().context("the kernel is in no folder")?;
    let mut scene = Scene::new();
    for name in ["Image", INITRAMFS] {
        scene.file(name, fs::read(folder.join(name))?);
    }
    let up = "ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up";
    scene.line("uplink /dev/net0 /dev/vswitch0 group 2 sched 12");
    let commands = format!(
        "{up}; until ping -c 1 -W 1 10.0.2.2 > /tmp/out; do :; done; ping -c 3 10.0.2.2 | grep packets; \
         nc 10.0.2.2 {port} < /dev/null > /tmp/file; wc -c < /tmp/file; nc 10.0.2.2 {port} < /tmp/file; echo sent"
    );
    linux(&mut scene, "outward", &commands, "group 2");
    let commands = format!("{up}; ping -c 3 -W 1 10.0.2.2 | grep packets");
    linux(&mut scene, "inward", &commands, "group 1");
    scene.line("pidin net").line("wait").line("pidin net").line("pidin threads");
    let ran = scene.run(case, &machine(&["user"]), None, 4)?;
    ran.in_order(&["net0: 52:54:00:12:34:56, virtio at ", "uplink of /dev/vswitch0, group 2"])?;
    ran.in_order(&[
        "outward| 3 packets transmitted, 3 packets received, 0% packet loss",
        &format!("outward| {BYTES}"),
        "outward| sent",
        "52:54:00:12:34:56 up ",
    ])?;
    ran.expect("inward| 3 packets transmitted, 0 packets received, 100% packet loss")?;
    let content = answer.recv_timeout(SOON).context("the guest has not sent all of it")??;
    ensure!(content == pattern(), "{} bytes came back, and they are not those that went out", content.len());
    Ok(())
}

fn refused(case: &Case) -> Result<()> {
    let mut scene = Scene::new();
    scene.line("uplink /dev/net7 /dev/vswitch0").line("uplink /dev/net0 /dev/vswitch0");
    scene.line("uplink /dev/net0 /dev/vswitch1").line("uplink /dev/net1 /dev/vswitch0");
    let same = "vdev virtio-net loc 0x1c0d0000 intr gic:41 name net peer /dev/vswitch0 mac 52:54:00:12:34:56";
    scene.vm("same", "hello", "2M", same)?.line("qvm @same.qvmconf");
    let other = "vdev virtio-net loc 0x1c0d0000 intr gic:41 name net peer /dev/vswitch1 mac 52:54:00:12:34:57\n\
                 cmdline forever";
    scene.vm("other", "hello", "2M", other)?.line("qvm @other.qvmconf &").line("sleep 1");
    scene.line("uplink /dev/net1 /dev/vswitch1").line("pidin net").line("slay -s QUIT other").line("wait");
    let ran = scene.run(case, &machine(&["user", "user"]), None, 2)?;
    ran.in_order(&[
        "uplink `/dev/net7`: there is no such card: there is /dev/net0, /dev/net1",
        "uplink `/dev/net0`: /dev/net0 is the uplink of /dev/vswitch0, group 0 already",
        "uplink `/dev/net1`: /dev/net0 is the uplink of /dev/vswitch0, group 0: what comes in there would go out by",
        "/dev/qvm/same/net and /dev/net0 have the same address, 52:54:00:12:34:56",
        "qvm: same ended: code 65",
        "uplink `/dev/net1`: /dev/net1 and /dev/qvm/other/net have the same address, 52:54:00:12:34:57",
        "/dev/net0, uplink of /dev/vswitch0, group 0",
        "/dev/net1, not in use",
        "/dev/qvm/other/net at /dev/vswitch1, group 0",
    ])?;
    let mut scene = Scene::new();
    scene.line("uplink /dev/net0 /dev/vswitch0").vm("hello", "hello", "2M", "")?.line("qvm @hello.qvmconf");
    let ran = scene.run(case, &Machine::default(), None, 1)?;
    ran.expect("uplink `/dev/net0`: there is no such card: this machine has none that there is a driver for")?;
    ran.expect("qvm: hello ended: code 0")?;
    Ok(())
}

/// Frames to everybody, as many as the PC can send, which QEMU takes from datagrams; and a VM of the same priority as the card's thread, on
/// the one CPU that there is.
fn flood(case: &Case) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let free = UdpSocket::bind("127.0.0.1:0")?;
    let (here, there) = (socket.local_addr()?.port(), free.local_addr()?.port());
    drop(free);
    let is_over = Arc::new(AtomicBool::new(false));
    let over = Arc::clone(&is_over);
    let flooding = thread::spawn(move || {
        let mut frame = [0x5a; 200];
        frame[..6].fill(0xff);
        frame[6..12].copy_from_slice(&[2, 9, 9, 9, 9, 9]);
        while !over.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                // Nobody may be there yet.
                let _ = socket.send_to(&frame, ("127.0.0.1", there));
            }
            // The PC has other things to do, too.
            thread::sleep(Duration::from_millis(1));
        }
    });
    let net = format!(
        "dgram,local.type=inet,local.host=127.0.0.1,local.port={there},remote.type=inet,remote.host=127.0.0.1,remote.port={here}"
    );
    let mut scene = Scene::new();
    scene.line("uplink /dev/net0 /dev/vswitch0").line("sleep 2").line("pidin net");
    scene.vm("hello", "hello", "2M", "")?.line("qvm @hello.qvmconf").line("pidin net").line("pidin threads");
    let ran = scene.run(case, &Machine { cpus: 1, ..machine(&[&net]) }, None, 1);
    is_over.store(true, Ordering::Relaxed);
    flooding.join().ok().context("the flood has failed")?;
    let ran = ran?;
    ran.expect_status(0)?.in_order(&["hello| hello: good-bye", "qvm: hello ended: code 0", "/dev/net0, uplink of"])?;
    let counts = ran.text.lines().filter_map(|line| line.strip_prefix("52:54:00:12:34:56 up"));
    let came: Vec<u64> = counts.filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect();
    ensure!(came.len() == 2 && came[0] > 100 && came[1] > came[0] + 100, "no flood came in: {came:?}");
    Ok(())
}
