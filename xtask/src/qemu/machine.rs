//! The machine that QEMU is to be, as its command line.
//!
//! Answers for: QEMU's options. Follows QEMU's manual, "System Emulation", "Arm System emulator", "virt".

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU8, Ordering};

/// The package of the board that this machine runs.
pub(crate) const PACKAGE: &str = "qemu-virt";

/// A machine of QEMU's `virt` kind.
#[derive(Clone, Debug)]
pub(crate) struct Machine {
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
    /// Options that the user adds.
    pub(crate) more: Vec<String>,
}

/// What machines have for which nothing else is said.
static DEFAULT_GIC: AtomicU8 = AtomicU8::new(3);

/// Chooses the version of the interrupt controller of machines for which nothing else is said.
pub(crate) fn set_default_gic(version: u8) {
    DEFAULT_GIC.store(version, Ordering::Relaxed);
}

impl Default for Machine {
    /// The machine that `cargo xtask qemu` has when no option says otherwise, for a script.
    fn default() -> Self {
        Machine {
            gic: DEFAULT_GIC.load(Ordering::Relaxed),
            cpus: 2,
            memory: "2G".into(),
            cpu: "cortex-a72".into(),
            smmu: false,
            wait_for_debugger: false,
            count_instructions: false,
            input: false,
            more: Vec::new(),
        }
    }
}

impl Machine {
    /// Boots a hypervisor: the machine has EL2.
    pub(crate) fn boot(&self, image: &Path, archive: &Path) -> Command {
        let mut command = self.command("virtualization=on");
        command.arg("-kernel").arg(image).arg("-initrd").arg(archive).args(&self.more);
        command
    }

    /// Boots a guest without any hypervisor, to compare with.
    pub(crate) fn boot_bare(&self, image: &Path, initrd: Option<&Path>, command_line: &str) -> Command {
        let mut command = self.command("virtualization=off");
        command.arg("-kernel").arg(image);
        if let Some(initrd) = initrd {
            command.arg("-initrd").arg(initrd);
        }
        command.args(["-append", command_line]).args(&self.more);
        command
    }

    fn command(&self, virtualization: &str) -> Command {
        let mut command = super::qemu();
        let smmu = if self.smmu { ",iommu=smmuv3" } else { "" };
        command.args(["-M", &format!("virt,gic-version={},{virtualization}{smmu}", self.gic)]);
        command.args(["-cpu", &self.cpu, "-smp", &self.cpus.to_string(), "-m", &self.memory]);
        if self.smmu {
            command.args(["-global", "arm-smmuv3.stage=nested"]);
        }
        command.args(["-nodefaults", "-no-reboot", "-display", "none"]);
        // Without `signal` a terminal's Ctrl-C is a character for the guest.
        let signal = if self.input { "off" } else { "on" };
        command.args(["-chardev", &format!("stdio,id=console,mux=off,signal={signal}"), "-serial", "chardev:console"]);
        if self.wait_for_debugger {
            command.args(["-s", "-S"]);
        }
        if self.count_instructions {
            command.args(["-icount", "shift=0,sleep=off"]);
        }
        command
    }
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
        let shown = describe(&Machine::default().boot(Path::new("a.img"), Path::new("a.tar")));
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
            more: vec!["-d".into(), "int".into()],
            ..Machine::default()
        };
        let shown = describe(&machine.boot(Path::new("a.img"), Path::new("a.tar")));
        for part in ["iommu=smmuv3", "arm-smmuv3.stage=nested", "-s -S", "-icount shift=0,sleep=off"] {
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
