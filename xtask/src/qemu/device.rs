//! Functions of PCI that QEMU's machine has beside what it always has, to be given to VMs.
//!
//! Answers for: the words that name them (`--device`) and QEMU's options for each. Follows QEMU's manual, "System Emulation", "Device
//! Emulation", and its `docs/pcie.txt`. Does not answer for: the files of disks, which whoever names them makes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use super::machine::in_option;

/// What stands before a device that has a root port of its own.
const PORT: &str = "port/";

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Device {
    /// What it is.
    pub(crate) kind: Kind,
    /// Whether it is behind a root port of its own, or on the first bus beside others.
    pub(crate) behind_port: bool,
}

/// What there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// QEMU's device for teaching (1234:11e8), whose DMA reaches all addresses.
    Edu,
    /// A disk by NVMe with this image.
    Nvme(PathBuf),
    /// A disk by AHCI with this image.
    Ahci(PathBuf),
    /// Intel's 82574L, with this behind it, as `-netdev` takes it.
    E1000e(String),
    /// Intel's 82576, of which there are virtual functions, likewise.
    Igb(String),
}

impl Device {
    /// One on the first bus.
    pub(crate) fn new(kind: Kind) -> Device {
        Device { kind, behind_port: false }
    }

    /// The same behind a root port of its own.
    pub(crate) fn behind_port(self) -> Device {
        Device { behind_port: true, ..self }
    }

    /// The image of a disk.
    pub(crate) fn image(&self) -> Option<&Path> {
        match &self.kind {
            Kind::Nvme(image) | Kind::Ahci(image) => Some(image),
            Kind::Edu | Kind::E1000e(_) | Kind::Igb(_) => None,
        }
    }

    /// Adds the options of the device with this number among the machine's.
    pub(super) fn add_to(&self, command: &mut Command, number: usize) {
        let bus = if self.behind_port {
            // Chassis and slot together are its name.
            command.args(["-device", &format!("pcie-root-port,id=port{number},chassis=1,slot={}", number + 1)]);
            format!(",bus=port{number}")
        } else {
            ",bus=pcie.0".to_string()
        };
        match &self.kind {
            // By itself it reaches the first 256 MiB of addresses, where no RAM is.
            Kind::Edu => add(command, &format!("edu,dma_mask=0xffffffffffffffff{bus}")),
            Kind::Nvme(image) => {
                drive(command, number, image);
                add(command, &format!("nvme,drive=device{number},serial=bulkhead{number}{bus}"));
            }
            Kind::Ahci(image) => {
                drive(command, number, image);
                add(command, &format!("ich9-ahci,id=ahci{number}{bus}"));
                add(command, &format!("ide-hd,drive=device{number},serial=bulkhead{number},bus=ahci{number}.0"));
            }
            Kind::E1000e(net) => card(command, number, net, &format!("e1000e{bus}")),
            Kind::Igb(net) => {
                // QEMU 10.0 puts the registers of its virtual functions where the lower 32 bits of their addresses say: none is above.
                command.args(["-M", "highmem-mmio=off"]);
                card(command, number, net, &format!("igb{bus}"));
            }
        }
    }
}

fn add(command: &mut Command, device: &str) {
    command.args(["-device", device]);
}

fn drive(command: &mut Command, number: usize, image: &Path) {
    command.args(["-drive", &format!("if=none,id=device{number},format=raw,file={}", in_option(image))]);
}

fn card(command: &mut Command, number: usize, net: &str, device: &str) {
    command.args(["-netdev", &format!("{net},id=device{number}")]);
    // Nobody boots by it.
    add(command, &format!("{device},netdev=device{number},romfile="));
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Device, String> {
        let (behind_port, text) = text.strip_prefix(PORT).map_or((false, text), |text| (true, text));
        let (name, of) = text.split_once('=').map_or((text, None), |(name, of)| (name, Some(of)));
        let image = || of.map(PathBuf::from).ok_or_else(|| format!("expected {name}=FILE, the image of the disk"));
        let net = || of.unwrap_or("user").to_string();
        let kind = match name {
            "edu" if of.is_none() => Kind::Edu,
            "nvme" => Kind::Nvme(image()?),
            "ahci" => Kind::Ahci(image()?),
            "e1000e" => Kind::E1000e(net()),
            "igb" => Kind::Igb(net()),
            _ => return Err("expected edu, nvme=FILE, ahci=FILE, e1000e[=NETDEV] or igb[=NETDEV]".into()),
        };
        Ok(Device { kind, behind_port })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::describe;

    fn options(words: &[&str]) -> String {
        let mut command = Command::new("qemu");
        for (number, word) in words.iter().enumerate() {
            word.parse::<Device>().unwrap().add_to(&mut command, number);
        }
        describe(&command)
    }

    #[test]
    fn each_word_is_a_device() {
        assert_eq!(options(&["edu"]), "qemu -device edu,dma_mask=0xffffffffffffffff,bus=pcie.0");
        assert_eq!(
            options(&["edu", "port/nvme=a,b.img"]),
            "qemu -device edu,dma_mask=0xffffffffffffffff,bus=pcie.0 \
             -device pcie-root-port,id=port1,chassis=1,slot=2 -drive if=none,id=device1,format=raw,file=a,,b.img \
             -device nvme,drive=device1,serial=bulkhead1,bus=port1"
        );
        assert!(options(&["ahci=a.img"]).ends_with("-device ide-hd,drive=device0,serial=bulkhead0,bus=ahci0.0"));
        assert!(
            options(&["e1000e"]).contains("-netdev user,id=device0 -device e1000e,bus=pcie.0,netdev=device0,romfile=")
        );
        assert!(options(&["port/igb=socket,listen=:1"]).contains("-netdev socket,listen=:1,id=device0"));
    }

    #[test]
    fn other_words_are_refused() {
        for word in ["", "nvme", "ahci", "edu=1", "port/", "rtl8139", "nvme:a.img"] {
            assert!(word.parse::<Device>().is_err(), "{word}");
        }
    }
}
