//! Debian's U-Boot, unmodified, starts the hypervisor from a card: no option of QEMU's tells it anything.
//!
//! Answers for: an image that finds out by itself where it is and what the machine has, whatever lies above and below it,
//! and whatever its UART is; and for files on a card that a file system of another make reads as they were written.

use std::time::Duration;

use anyhow::{Context, Result};
use flate2::Crc;

use super::Test;
use super::card::make;
use super::machine::{Case, Session};
use super::scene::Scene;
use crate::artifacts::{self, Profile};
use crate::card::disk;
use crate::qemu::machine::{Board, Machine};
use crate::qemu::raspberry::{Tree, cells};
use crate::setup;
use crate::workspace::root;

/// What anything takes, on a PC that has others to serve.
const SOON: Duration = Duration::from_secs(60);

const CARD: &str = "card.img";

/// Files of a card for the machine `virt`, and of one for a Raspberry Pi, and what U-Boot calls the cards.
const GENERIC: (&[&str], &str) = (&["bulkhead.img", "boot.tar", "extlinux/extlinux.conf"], "virtio 0:1");
const RPI4: (&[&str], &str) = (&["bulkhead.img", "boot.tar", "config.txt", "bcm2711-rpi-4-b.dtb"], "mmc 0:1");

/// The tests of this file.
pub(super) fn tests() -> Vec<Test> {
    vec![
        Test::bare("loader/generic-gic3", "U-Boot finds the card of a machine with a GICv3 and starts it", |case| {
            by_itself(case, &virt(3), setup::U_BOOT, "(generic): 2 CPUs")?;
            Ok(())
        }),
        Test::bare(
            "loader/generic-gic2",
            "tree, archive and image lie in this order, none where it is moved to: GICv2",
            moved,
        ),
        Test::bare(
            "loader/generic-rpi4",
            "the same image on a Raspberry Pi: spin tables, and a UART that is no PL011",
            |case| by_itself(case, &raspberry(), setup::U_BOOT_RPI4, "(generic): 4 CPUs"),
        ),
        Test::bare("loader/ns16550a", "a console of which the tree says that it is a 16550", ns16550a),
        Test::bare("loader/rpi4", "every file of the Raspberry Pi's card is whole, and the card starts", rpi4),
    ]
}

fn virt(gic: u8) -> Machine {
    Machine { board: Board::QemuVirt, gic, cpus: 2, memory: "1G".into(), input: true, ..Machine::default() }
}

fn raspberry() -> Machine {
    Machine { board: Board::Rpi4, cpus: 4, input: true, ..Machine::default() }
}

/// Switches a machine on that has U-Boot and a card.
fn start(case: &Case, machine: &Machine, loader: &str, card: &str, more: &[&str]) -> Result<Session> {
    setup::firmware()?;
    make(card, &case.path(CARD), more)?;
    case.session_of(machine.boot_by(&root().join(loader), &case.path(CARD))?)
}

/// U-Boot needs to be told nothing.
fn by_itself(case: &Case, machine: &Machine, loader: &str, banner: &str) -> Result<()> {
    let mut session = start(case, machine, loader, "generic", &[])?;
    session.expect("Found /extlinux/extlinux.conf", SOON)?;
    hello(&mut session, banner)
}

/// The hypervisor comes up with these words, and the guest greets.
fn hello(session: &mut Session, banner: &str) -> Result<()> {
    for text in ["Starting kernel ...", banner, "hello: good-bye", "qvm: hello ended: code 0 ("] {
        session.expect(text, SOON)?;
    }
    Ok(())
}

/// Leaves the hypervisor: the machine is switched off.
fn power_off(session: &mut Session) -> Result<()> {
    session.send("\x1dqq")?;
    session.expect_end(SOON)
}

/// Somebody types at U-Boot's prompt.
struct Prompt {
    session: Session,
    text: &'static str,
}

impl Prompt {
    /// Keeps U-Boot from starting anything.
    fn of(mut session: Session, text: &'static str) -> Result<Prompt> {
        session.expect("Hit any key to stop autoboot", SOON)?;
        session.send("\r")?;
        session.expect(text, SOON)?;
        Ok(Prompt { session, text })
    }

    /// Types a line, and waits for the answer and the next prompt.
    fn type_line(&mut self, line: &str, answer: &str) -> Result<()> {
        self.session.send(&format!("{line}\r"))?;
        // The echo comes first.
        self.session.expect(line, SOON)?;
        self.session.expect(answer, SOON)?;
        self.session.expect(self.text, SOON)
    }

    /// Makes sure that U-Boot reads the files of a card as they were written.
    fn compare(&mut self, case: &Case, (files, device): (&[&str], &str)) -> Result<()> {
        for name in files {
            let content = disk::read(&case.path(CARD), name)?;
            let mut checksum = Crc::new();
            checksum.update(&content);
            let length = format!("{} bytes read", content.len());
            self.type_line(&format!("load {device} ${{kernel_addr_r}} {name}"), &length)?;
            self.type_line("crc32 ${kernel_addr_r} $filesize", &format!("==> {:08x}", checksum.sum()))?;
        }
        Ok(())
    }
}

fn moved(case: &Case) -> Result<()> {
    let mut prompt = Prompt::of(start(case, &virt(2), setup::U_BOOT, "generic", &[])?, "=> ")?;
    prompt.type_line("virtio scan; virtio info", "64.0 MB")?;
    prompt.compare(case, GENERIC)?;
    // Nothing is to be moved: QEMU's own tree below, the archive, and the image far from where it was linked.
    prompt.type_line("setenv fdt_high ffffffffffffffff; setenv initrd_high ffffffffffffffff", "")?;
    prompt.type_line("load virtio 0:1 50200000 bulkhead.img", "bytes read")?;
    prompt.type_line("load virtio 0:1 44000000 boot.tar", "bytes read")?;
    prompt.session.send("booti 50200000 44000000:${filesize} 40000000\r")?;
    hello(&mut prompt.session, "(generic): 2 CPUs")?;
    power_off(&mut prompt.session)
}

/// QEMU has a 16550 by no name of its own on these machines, but the mini UART has its registers.
fn ns16550a(case: &Case) -> Result<()> {
    const PORT: &str = "/soc/serial@7e215040";
    let alter = |tree: &mut Tree| {
        tree.set(PORT, "compatible", b"ns16550a\0");
        tree.set(PORT, "reg-shift", &cells(&[2]));
        tree.set(PORT, "reg-io-width", &cells(&[4]));
    };
    let board = artifacts::build(Some("generic"), &[], Profile::Release)?.context("the board was not built")?;
    let machine = Machine { alter, ..raspberry() };
    let mut session = case.session_of(machine.boot(&board.image, &Scene::interactive().archive(case)?)?)?;
    session.expect("(generic): 4 CPUs", SOON)?;
    session.expect("bulkhead# ", SOON)?;
    session.send("pidin\r")?;
    session.expect("UPTIME", SOON)
}

fn rpi4(case: &Case) -> Result<()> {
    // The vendor's firmware is not needed: it does not run on QEMU.
    let session = start(case, &raspberry(), setup::U_BOOT_RPI4, "rpi4", &["--debian-tree"])?;
    let mut prompt = Prompt::of(session, "U-Boot> ")?;
    prompt.compare(case, RPI4)?;
    // Where the firmware would put it. The tree is that which QEMU has put in place of the firmware's.
    prompt.type_line("load mmc 0:1 200000 bulkhead.img", "bytes read")?;
    prompt.type_line("load mmc 0:1 2700000 boot.tar", "bytes read")?;
    prompt.session.send("booti 200000 2700000:${filesize} ${fdt_addr}\r")?;
    hello(&mut prompt.session, "(rpi4): 4 CPUs")?;
    power_off(&mut prompt.session)
}
