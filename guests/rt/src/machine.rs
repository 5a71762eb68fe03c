//! What the device tree says about this machine.
//!
//! Answers for: memory, CPUs, the console, the interrupt controller, timer interrupts, the way to call the firmware, the
//! arguments. Does not answer for: anything that is not in the tree; a guest assumes nothing.

use core::ops::Range;

use arrayvec::ArrayVec;
use spin::Once;

use crate::smccc::Conduit;
use crate::tree::{Node, Tree};

/// Most CPUs that a guest uses.
pub const MAX_CPUS: usize = 8;

/// The registers of a device, and its INTID.
pub type Device = (Range<u64>, Option<u32>);

/// The machine, as its device tree describes it.
#[derive(Clone, Debug)]
pub struct Machine {
    /// All RAM, in the order of the tree.
    pub memory: ArrayVec<Range<u64>, 8>,
    /// `MPIDR_EL1` affinities of the CPUs, in the order of the tree.
    pub cpus: ArrayVec<u64, MAX_CPUS>,
    /// The first PL011: registers and INTID.
    pub uart: Option<Device>,
    /// An SP805.
    pub watchdog: Option<Device>,
    /// A PL031.
    pub clock: Option<Device>,
    /// A 16550A.
    pub serial: Option<Device>,
    /// The alarm clock of the vdev guide.
    pub alarm: Option<Device>,
    /// The first virtio device by MMIO.
    pub virtio: Option<Device>,
    /// Every further PL011's registers.
    pub other_uarts: ArrayVec<Range<u64>, 40>,
    /// The distributor's registers.
    pub distributor: Range<u64>,
    /// Where the CPU interface of a GICv2 is, if it is one.
    pub cpu_interface: Option<u64>,
    /// Where a GICv2 takes messages, if it does.
    pub message_frame: Option<u64>,
    /// The redistributors' registers of a GICv3.
    pub redistributors: Range<u64>,
    /// Where its ITS is, if it has one.
    pub its: Option<u64>,
    /// The INTIDs of the EL1 physical and virtual timer.
    pub timers: TimerInterrupts,
    /// How to call the firmware.
    pub conduit: Conduit,
    /// The words that the machine was started with.
    pub arguments: &'static str,
    /// Entropy from whoever started the machine.
    pub seed: Option<&'static [u8]>,
    /// An initial RAM disk.
    pub initrd: Option<Range<u64>>,
    /// The device tree's own memory.
    pub tree: Range<u64>,
    /// Whether the tree says that this is a Bulkhead VM: what only a hypervisor does is checked only there.
    pub is_bulkhead: bool,
}

/// INTIDs of the generic timers.
#[derive(Clone, Copy, Debug)]
pub struct TimerInterrupts {
    /// `CNTP_*_EL0`.
    pub physical: u32,
    /// `CNTV_*_EL0`.
    pub virtual_: u32,
}

static MACHINE: Once<Machine> = Once::new();

/// The machine. Known from `main` on.
///
/// # Panics
///
/// Before that.
#[must_use]
pub fn machine() -> &'static Machine {
    MACHINE.get().expect("the machine is known before anything asks for it")
}

pub(crate) fn publish(machine: Machine) -> &'static Machine {
    MACHINE.call_once(|| machine)
}

impl Machine {
    /// Reads everything from `tree`.
    #[must_use]
    pub fn read(tree: Tree) -> Self {
        let mut machine = Self {
            memory: ArrayVec::new(),
            cpus: ArrayVec::new(),
            uart: None,
            watchdog: None,
            clock: None,
            serial: None,
            alarm: None,
            virtio: None,
            other_uarts: ArrayVec::new(),
            distributor: 0..0,
            cpu_interface: None,
            message_frame: None,
            redistributors: 0..0,
            its: None,
            // The base system architecture's numbers, should the tree be silent (BSA 1.0, PPI assignment).
            timers: TimerInterrupts { physical: 30, virtual_: 27 },
            conduit: Conduit::Hvc,
            arguments: "",
            seed: None,
            initrd: None,
            tree: tree.range(),
            is_bulkhead: false,
        };
        for node in tree.nodes() {
            machine.take(node);
        }
        machine
    }

    fn take(&mut self, node: Node) {
        if node.depth == 0 {
            self.is_bulkhead = node.is_compatible("bulkhead,vm");
        } else if node.name == "chosen" {
            self.arguments = node.string("bootargs").unwrap_or("");
            self.seed = node.property("rng-seed");
            self.initrd =
                node.number("linux,initrd-start").zip(node.number("linux,initrd-end")).map(|(from, to)| from..to);
        } else if node.string("device_type") == Some("memory") {
            self.memory.extend((0..8).map_while(|index| node.reg(index)).take(self.memory.remaining_capacity()));
        } else if node.string("device_type") == Some("cpu") {
            self.cpus.extend(node.reg(0).map(|reg| reg.start).into_iter().take(self.cpus.remaining_capacity()));
        } else if node.is_compatible("arm,pl011") {
            self.take_uart(node);
        } else if node.is_compatible("arm,sp805") {
            self.watchdog = device(node);
        } else if node.is_compatible("arm,pl031") {
            self.clock = device(node);
        } else if node.is_compatible("ns16550a") {
            self.serial = device(node);
        } else if node.is_compatible("example,alarm") {
            self.alarm = device(node);
        } else if node.is_compatible("virtio,mmio") && self.virtio.is_none() {
            self.virtio = device(node);
        } else if node.is_compatible("arm,gic-v3") {
            self.distributor = node.reg(0).unwrap_or(0..0);
            self.redistributors = node.reg(1).unwrap_or(0..0);
        } else if node.is_compatible("arm,gic-v3-its") {
            self.its = node.reg(0).map(|registers| registers.start);
        } else if node.is_compatible("arm,cortex-a15-gic") {
            self.distributor = node.reg(0).unwrap_or(0..0);
            self.cpu_interface = node.reg(1).map(|registers| registers.start);
        } else if node.is_compatible("arm,gic-v2m-frame") {
            self.message_frame = node.reg(0).map(|registers| registers.start);
        } else if node.is_compatible("arm,armv8-timer") {
            self.timers.physical = node.interrupt(1).unwrap_or(self.timers.physical);
            self.timers.virtual_ = node.interrupt(2).unwrap_or(self.timers.virtual_);
        } else if node.is_compatible("arm,psci-0.2") || node.is_compatible("arm,psci-1.0") {
            self.conduit = if node.string("method") == Some("smc") { Conduit::Smc } else { Conduit::Hvc };
        }
    }

    fn take_uart(&mut self, node: Node) {
        let Some(registers) = node.reg(0) else { return };
        if self.uart.is_none() {
            self.uart = Some((registers, node.interrupt(0)));
        } else {
            let _ = self.other_uarts.try_push(registers);
        }
    }

    /// Whether `word` is among the arguments.
    #[must_use]
    pub fn has_argument(&self, word: &str) -> bool {
        self.arguments.split_whitespace().any(|argument| argument == word)
    }

    /// The number that follows `name=` among the arguments, decimal or `0x`.
    #[must_use]
    pub fn numeric_argument(&self, name: &str) -> Option<u64> {
        let value =
            self.arguments.split_whitespace().find_map(|argument| argument.strip_prefix(name)?.strip_prefix('='))?;
        match value.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => value.parse().ok(),
        }
    }

    /// The arguments that are plain words: what selects tests and cases. Others (`console=...`) are somebody else's.
    pub fn selection(&self) -> impl Iterator<Item = &'static str> {
        self.arguments.split_whitespace().filter(|word| !word.contains('='))
    }

    /// Whether `name` is selected: no selection selects everything, each word selects the names that it is part of.
    #[must_use]
    pub fn selects(&self, name: &str) -> bool {
        let mut selection = self.selection().peekable();
        selection.peek().is_none() || selection.any(|word| name.contains(word))
    }

    /// Whether `address` is RAM.
    #[must_use]
    pub fn is_memory(&self, address: u64) -> bool {
        self.memory.iter().any(|range| range.contains(&address))
    }
}

fn device(node: Node) -> Option<Device> {
    Some((node.reg(0)?, node.interrupt(0)))
}
