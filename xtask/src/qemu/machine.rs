//! The machine that QEMU is to be, as its command line.
//!
//! Answers for: QEMU's options. Follows QEMU's manual, "System Emulation", "Arm System emulator", "virt" and "Raspberry Pi
//! boards". Does not answer for: the Raspberry Pi's device tree (`qemu::raspberry`).

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, Ordering};

use anyhow::Result;
use clap::ValueEnum;

use super::device::Device;
use super::raspberry::{self, Tree};

/// The machines that there are images for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Board {
    /// QEMU's virt machine
    QemuVirt,
    /// Raspberry Pi 4
    Rpi4,
}

impl Board {
    /// The package that an image of it is built from.
    pub(crate) const fn package(self) -> &'static str {
        match self {
            Board::QemuVirt => "qemu-virt",
            Board::Rpi4 => "rpi4",
        }
    }
}

/// The package of the board for which nothing else is said.
pub(crate) const PACKAGE: &str = Board::QemuVirt.package();

/// The first of the machine's 32 buses for one virtio device each on which there is a network card.
const FIRST_BUS_OF_NETS: usize = 24;

/// A machine of QEMU's. What a Raspberry Pi has whatever is said here: at most 4 CPUs, a GICv2, 2 GiB, and cores of the kind
/// Cortex-A72.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
    /// Which one.
    pub(crate) board: Board,
    /// Version of the interrupt controller.
    pub(crate) gic: u8,
    /// How many CPUs.
    pub(crate) cpus: u32,
    /// RAM as QEMU's `-m` takes it.
    pub(crate) memory: String,
    /// Model of the CPUs.
    pub(crate) cpu: String,
    /// Whether there is an SMMUv3.
    pub(crate) smmu: bool,
    /// Whether to wait for a debugger before the first instruction.
    pub(crate) wait_for_debugger: bool,
    /// Whether virtual time counts instructions.
    pub(crate) count_instructions: bool,
    /// Whether standard input is the serial port's input.
    pub(crate) input: bool,
    /// Images of disks, raw, in the order of their numbers; of a Raspberry Pi one, an SD card, whose length is a power of two. The hypervisor
    /// may write to them.
    pub(crate) disks: Vec<PathBuf>,
    /// What is behind network cards, as QEMU's `-netdev` takes it without an identifier, in the order of their numbers; not of a Raspberry
    /// Pi.
    pub(crate) nets: Vec<String>,
    /// Functions of PCI, in the order of their numbers, which is that of their places on the bus; not of a Raspberry Pi.
    pub(crate) devices: Vec<Device>,
    /// What else is changed in the device tree of a Raspberry Pi.
    pub(crate) alter: fn(&mut Tree),
    /// Options that the user adds.
    pub(crate) more: Vec<String>,
}

/// What machines have for which nothing else is said.
static DEFAULT_GIC: AtomicU8 = AtomicU8::new(3);

/// Chooses the version of the interrupt controller of machines for which nothing else is said.
pub(crate) fn set_default_gic(version: u8) {
    DEFAULT_GIC.store(version, Ordering::Relaxed);
}

/// How many CPUs such machines have.
static DEFAULT_CPUS: AtomicU32 = AtomicU32::new(2);

/// Chooses how many CPUs machines have for which nothing else is said.
pub(crate) fn set_default_cpus(count: u32) {
    DEFAULT_CPUS.store(count, Ordering::Relaxed);
}

/// Whether such machines are a Raspberry Pi.
static DEFAULT_IS_RPI4: AtomicBool = AtomicBool::new(false);

/// Chooses the board of machines for which nothing else is said.
pub(crate) fn set_default_board(board: Board) {
    DEFAULT_IS_RPI4.store(board == Board::Rpi4, Ordering::Relaxed);
}

impl Default for Machine {
    /// The machine that `cargo xtask qemu` has when no option says otherwise, for a script.
    fn default() -> Self {
        let board = if DEFAULT_IS_RPI4.load(Ordering::Relaxed) { Board::Rpi4 } else { Board::QemuVirt };
        Machine {
            board,
            gic: if board == Board::Rpi4 { 2 } else { DEFAULT_GIC.load(Ordering::Relaxed) },
            cpus: DEFAULT_CPUS.load(Ordering::Relaxed),
            memory: "2G".into(),
            cpu: "cortex-a72".into(),
            smmu: false,
            wait_for_debugger: false,
            count_instructions: false,
            input: false,
            disks: Vec::new(),
            nets: Vec::new(),
            devices: Vec::new(),
            alter: |_| {},
            more: Vec::new(),
        }
    }
}

impl Machine {
    /// Boots a hypervisor: the machine has EL2.
    ///
    /// # Errors
    /// If there is no device tree for a Raspberry Pi.
    pub(crate) fn boot(&self, image: &Path, archive: &Path) -> Result<Command> {
        let mut command = match self.board {
            Board::QemuVirt => self.virt("virtualization=on"),
            Board::Rpi4 => self.raspberry()?,
        };
        command.arg("-kernel").arg(image).arg("-initrd").arg(archive).args(&self.more);
        Ok(command)
    }

    /// Boots by a boot loader that finds the hypervisor on a card or disk with this image, to which nothing is written.
    ///
    /// # Errors
    /// If there is no device tree for a Raspberry Pi.
    pub(crate) fn boot_by(&self, loader: &Path, card: &Path) -> Result<Command> {
        let (mut command, takes_loader, interface) = match self.board {
            Board::QemuVirt => (self.virt("virtualization=on"), "-bios", "none,id=card"),
            Board::Rpi4 => (self.raspberry()?, "-kernel", "sd"),
        };
        command.arg(takes_loader).arg(loader).arg("-drive");
        command.arg(format!("if={interface},format=raw,snapshot=on,file={}", card.display()));
        if self.board == Board::QemuVirt {
            command.args(["-device", "virtio-blk-device,drive=card"]);
        }
        command.args(&self.more);
        Ok(command)
    }

    /// Boots a guest without any hypervisor, to compare with, on the machine `virt`.
    pub(crate) fn boot_bare(&self, image: &Path, initrd: Option<&Path>, command_line: &str) -> Command {
        let mut command = self.virt("virtualization=off");
        command.arg("-kernel").arg(image);
        if let Some(initrd) = initrd {
            command.arg("-initrd").arg(initrd);
        }
        command.args(["-append", command_line]).args(&self.more);
        command
    }

    fn virt(&self, virtualization: &str) -> Command {
        let mut command = super::qemu();
        let smmu = if self.smmu { ",iommu=smmuv3" } else { "" };
        command.args(["-M", &format!("virt,gic-version={},{virtualization}{smmu}", self.gic)]);
        command.args(["-cpu", &self.cpu, "-smp", &self.cpus.to_string(), "-m", &self.memory]);
        if self.smmu {
            command.args(["-global", "arm-smmuv3.stage=nested"]);
        }
        self.common(&mut command);
        command.args(["-serial", "chardev:console"]);
        for (number, disk) in self.disks.iter().enumerate() {
            command.args(["-drive", &format!("if=none,id=hd{number},format=raw,file={}", in_option(disk))]);
            // The bus says at which address: in that order the hypervisor counts.
            command.args(["-device", &format!("virtio-blk-device,drive=hd{number},bus=virtio-mmio-bus.{number}")]);
        }
        for (number, net) in self.nets.iter().enumerate() {
            command.args(["-netdev", &format!("{net},id=net{number}")]);
            // Behind those of disks.
            let bus = FIRST_BUS_OF_NETS + number;
            command.args(["-device", &format!("virtio-net-device,netdev=net{number},bus=virtio-mmio-bus.{bus}")]);
        }
        for (number, device) in self.devices.iter().enumerate() {
            device.add_to(&mut command, number);
        }
        command
    }

    fn raspberry(&self) -> Result<Command> {
        let mut command = super::qemu();
        let (tree, port) = raspberry::tree(self.cpus, self.alter)?;
        command.args(["-M", "raspi4b"]).arg("-dtb").arg(tree);
        // Without this those that the tree does not offer would wait in a loop, and never sleep.
        command.args(["-global", &format!("bcm2838.enabled-cpus={}", self.cpus)]);
        self.common(&mut command);
        // The PL011 is the first, the mini UART the second.
        command.args(["-serial", "null"].repeat(port));
        command.args(["-serial", "chardev:console"]);
        for disk in &self.disks {
            command.args(["-drive", &format!("if=sd,format=raw,file={}", in_option(disk))]);
        }
        Ok(command)
    }

    fn common(&self, command: &mut Command) {
        command.args(["-nodefaults", "-no-reboot", "-display", "none"]);
        // Without `signal` a terminal's Ctrl-C is a character for the guest.
        let signal = if self.input { "off" } else { "on" };
        command.args(["-chardev", &format!("stdio,id=console,mux=off,signal={signal}")]);
        if self.wait_for_debugger {
            command.args(["-s", "-S"]);
        }
        if self.count_instructions {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
    }
}

/// A file's name as it is part of an option: a comma is written twice.
pub(super) fn in_option(file: &Path) -> String {
    file.display().to_string().replace(',', ",,")
}

/// Checks an amount of memory: a number with a suffix that QEMU knows. Mebibytes without one.
pub(crate) fn memory_size(text: &str) -> Result<String, String> {
    let digits = text.trim_end_matches(['k', 'K', 'm', 'M', 'g', 'G', 't', 'T']);
    let plain = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if plain && text.len() - digits.len() <= 1 {
        Ok(text.to_string())
    } else {
        Err("expected a size such as 512M or 2G".into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::describe;

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let shown = describe(&Machine::default().boot(Path::new("a.img"), Path::new("a.tar")).unwrap());
        for part in [
            "-M virt,gic-version=3,virtualization=on -cpu cortex-a72 -smp 2 -m 2G ",
            "-kernel a.img -initrd a.tar",
            "-no-reboot",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(!shown.contains("-icount") && !shown.contains("iommu") && !shown.contains(" -s "));
    }

    #[test]
    fn every_option_reaches_qemu() {
        let machine = Machine {
            smmu: true,
            wait_for_debugger: true,
            count_instructions: true,
            disks: vec!["a,b.img".into(), "c.img".into()],
            nets: vec!["user".into()],
            devices: vec!["port/edu".parse().unwrap()],
            more: vec!["-d".into(), "int".into()],
            ..Machine::default()
        };
        let shown = describe(&machine.boot(Path::new("a.img"), Path::new("a.tar")).unwrap());
        for part in [
            "iommu=smmuv3",
            "arm-smmuv3.stage=nested",
            "-s -S",
            "-icount shift=0,sleep=off",
            "file=a,,b.img",
            "drive=hd1,bus=virtio-mmio-bus.1",
            "-netdev user,id=net0 -device virtio-net-device,netdev=net0,bus=virtio-mmio-bus.24",
            "-device edu,dma_mask=0xffffffffffffffff,bus=port0",
        ] {
            assert!(shown.contains(part), "{shown}");
        }
        assert!(shown.ends_with("-d int"), "{shown}");
    }

    #[test]
    fn sizes_are_checked() {
        assert!(memory_size("2G").is_ok() && memory_size("1024").is_ok());
        assert!(memory_size("G").is_err() && memory_size("2GG").is_err() && memory_size("two").is_err());
    }
}
