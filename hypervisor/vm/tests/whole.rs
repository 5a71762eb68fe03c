//! A whole VM on a PC: the text of a configuration in, what its guest would do as a script of exits, and out come
//! registers, output, interrupts and the end. With the real devices, and a CPU interface made of memory.

#![expect(clippy::unwrap_used, reason = "what surrounds the tests fails them too")]

use qvmconf::Sources;
use std::collections::HashMap;
use types::{
    AccessSize, DebugState, EL1_RESET_PSTATE, Frequency, IntId, Ipa, RawExit, RawExitKind, Ticks, VcpuId, VcpuSet,
};
use vdev::testkit::{Ram, Wires};
use vdev::{Cause, DeviceId, Effects, Wake};
use vgic::testkit::CpuInterface;
use vm::config::{Includes, Limits};
use vm::exit::syndrome::sysreg;
use vm::id_registers::IdRegisters;
use vm::smccc::{Mitigations, Workaround};
use vm::{Cpu, El1Register, Files, Host, Next, Operands, Vcpu, Vm};

const UART: u64 = 0x1c09_0000;
const GICD: u64 = 0x0800_0000;
const GICR: u64 = 0x080a_0000;
const FRAME: u64 = 0x2_0000;
const STARTED: Ticks = Ticks(5_000_000);

const CONFIGURATION: &str = "\
system guest
ram 0x80000000,1M
cpu
cpu
load 0x80000000,guest.bin
cmdline \"console=ttyAMA0 quiet\"
vdev pl011
    loc 0x1c090000
    intr gic:37
unsupported reference abort
";

#[derive(Default)]
struct Archive(HashMap<String, Vec<u8>>);

impl Files for Archive {
    fn file(&self, path: &str) -> Option<&[u8]> {
        self.0.get(path).map(Vec::as_slice)
    }
}

fn archive(configuration: &str) -> Archive {
    let guest = 0x1400_0000_u32.to_le_bytes().to_vec();
    let files = [("vms/guest.qvmconf", configuration.as_bytes().to_vec()), ("vms/guest.bin", guest)];
    Archive(files.into_iter().map(|(path, contents)| (path.to_string(), contents)).collect())
}

fn host() -> Host<'static> {
    let mut id = [0; IdRegisters::COUNT];
    id[24] = 0x2222; // ID_AA64PFR0_EL1
    id[48] = 0x1124; // ID_AA64MMFR0_EL1
    Host {
        id: IdRegisters::new(id),
        frequency: Frequency::new(62_500_000).unwrap(),
        epoch: 1_000_000_000,
        gic: vgic::Version::V3,
        list_registers: 4,
        priority_bits: 5,
        mitigations: Mitigations::default(),
        monitors: true,
        entropy: None,
        tree: None,
        seed: &[],
    }
}

/// What everybody who runs a configuration does; the error is what the user reads.
fn assemble(archive: &Archive, backends: &mut Wires) -> Result<vm::Assembled, String> {
    let mut sources = Sources::new();
    let root = sources.add_file("vms/guest.qvmconf", archive.file("vms/guest.qvmconf").unwrap());
    let vocabulary = vm::config::vocabulary(vdevs::CATALOGUE);
    let document = qvmconf::parse(&mut sources, &[root], &mut Includes(archive), &vocabulary);
    let built = vm::config::build(&document, &sources, vdevs::CATALOGUE, Limits::default());
    let (configuration, _) = built.map_err(|diagnostics| sources.render_all(&diagnostics).to_string())?;
    vm::assemble(&configuration.description, archive, &host(), backends).map_err(|errors| {
        let rendered = errors.iter().map(|error| configuration.spans.diagnostic(error));
        rendered.map(|diagnostic| sources.render(&diagnostic).to_string()).collect()
    })
}

struct FakeCpu {
    el1: HashMap<El1Register, u64>,
    now: Ticks,
    interface: CpuInterface,
}

impl Cpu for FakeCpu {
    type ListRegisters = CpuInterface;
    fn system_register(&self, register: El1Register) -> u64 {
        self.el1.get(&register).copied().unwrap_or(0)
    }
    fn set_system_register(&mut self, register: El1Register, value: u64) {
        self.el1.insert(register, value);
    }
    fn counter(&self) -> Ticks {
        self.now
    }
    fn list_registers(&mut self) -> &mut CpuInterface {
        &mut self.interface
    }
    fn call_workaround(&mut self, _: Workaround) {}
}

impl Operands for FakeCpu {
    fn translate(&mut self, _: u64) -> Option<Ipa> {
        None
    }
    fn vector(&mut self, _: u8) -> u128 {
        0
    }
    fn set_vector(&mut self, _: u8, _: u128) {}
    fn set_debug(&mut self, _: Option<&DebugState>) {}
    fn use_monitors(&mut self) -> bool {
        false
    }
}

/// The VM, running, with as many CPUs as vCPUs.
struct World {
    vm: Vm,
    tree: Vec<u8>,
    vcpus: Vec<Vcpu>,
    cpus: Vec<FakeCpu>,
    effects: Effects,
    backends: Wires,
}

impl World {
    fn new(configuration: &str) -> Self {
        let (archive, mut backends) = (archive(configuration), Wires::default());
        let mut assembled = assemble(&archive, &mut backends).unwrap_or_else(|errors| panic!("{errors}"));
        let ram = Ram::new(Ipa(0x8000_0000), 1 << 20);
        assembled.load.execute(&archive, &assembled.tree, &ram, &mut |_| {}).unwrap();
        assembled.vm.configure(Box::new(ram), STARTED).unwrap();
        assembled.vm.start(assembled.load.entry, assembled.load.device_tree_at.0, STARTED).unwrap();
        let vm = assembled.vm;
        let ids = (0..u16::try_from(vm.power.vcpus()).unwrap()).map(VcpuId);
        let cpu = |_| FakeCpu { el1: HashMap::new(), now: STARTED, interface: CpuInterface::new(4, 5) };
        Self {
            vcpus: ids.clone().map(|id| vm.vcpu(id).unwrap()).collect(),
            cpus: ids.map(cpu).collect(),
            tree: assembled.tree,
            effects: Effects::default(),
            vm,
            backends,
        }
    }

    /// What a vCPU's thread does when it was kicked while it was off.
    fn boot(&mut self, vcpu: usize) -> bool {
        let id = self.vcpus[vcpu].id;
        let Some((entry, argument)) = self.vm.take_power_on(id) else { return false };
        self.vcpus[vcpu].reset(&self.vm, entry, argument);
        self.vm.gic.load(id, &mut self.cpus[vcpu].interface);
        true
    }

    fn exit(&mut self, vcpu: usize, class: u64, iss: u64, at: u64) -> Next {
        let esr = class << 26 | 1 << 25 | iss;
        let exit = RawExit { kind: RawExitKind::Synchronous, esr, far: at, hpfar: at >> 12 << 4 };
        let next = vm::handle(&self.vm, &mut self.vcpus[vcpu], &exit, &mut self.cpus[vcpu], &mut self.effects);
        if self.vm.gic.needs_refill(VcpuId(vcpu as u16)) {
            self.vm.gic.refill(VcpuId(vcpu as u16), &mut self.cpus[vcpu].interface);
        }
        next
    }

    fn load(&mut self, vcpu: usize, at: u64, size: AccessSize) -> u64 {
        assert_eq!(self.exit(vcpu, 0x24, 1 << 24 | (size as u64) << 22 | 9 << 16 | 1 << 15 | 7, at), Next::Resume);
        self.vcpus[vcpu].context.x[9]
    }

    fn store(&mut self, vcpu: usize, at: u64, size: AccessSize, value: u64) {
        self.vcpus[vcpu].context.x[9] = value;
        let iss = 1 << 24 | (size as u64) << 22 | 9 << 16 | 1 << 6 | 7;
        assert_eq!(self.exit(vcpu, 0x24, iss, at), Next::Resume);
    }

    fn msr(&mut self, vcpu: usize, register: u64, value: u64) {
        self.vcpus[vcpu].context.x[9] = value;
        let next = self.exit(vcpu, 0x18, register | 9 << 5, 0);
        assert!(matches!(next, Next::Resume | Next::ArmTimer));
    }

    fn hvc(&mut self, vcpu: usize, function: u64, arguments: [u64; 3]) -> (Next, i64) {
        self.vcpus[vcpu].context.x[0] = function;
        self.vcpus[vcpu].context.x[1..4].copy_from_slice(&arguments);
        let next = self.exit(vcpu, 0x16, 0, 0);
        (next, self.vcpus[vcpu].context.x[0].cast_signed())
    }

    /// What a guest's driver does first.
    fn set_up_interrupts(&mut self, vcpu: usize) {
        let redistributor = GICR + FRAME * vcpu as u64;
        self.store(vcpu, GICD, AccessSize::Word, 0b10);
        self.store(vcpu, redistributor + 0x14, AccessSize::Word, 0); // GICR_WAKER
        self.store(vcpu, redistributor + 0x1_0080, AccessSize::Word, 0xffff_ffff); // GICR_IGROUPR0
        self.store(vcpu, redistributor + 0x1_0100, AccessSize::Word, 0xffff_ffff); // GICR_ISENABLER0
        let interface = &mut self.cpus[vcpu].interface;
        interface.set_mask(0xf8);
        interface.enable_group(1, true);
    }

    /// The guest takes an interrupt and ends it; 1023 if there is none.
    fn take_interrupt(&mut self, vcpu: usize) -> u32 {
        let id = VcpuId(vcpu as u16);
        let interface = &mut self.cpus[vcpu].interface;
        if self.vm.gic.needs_refill(id) {
            self.vm.gic.refill(id, interface);
        }
        let intid = interface.acknowledge(1);
        if intid < 1020 {
            interface.end(1, intid);
            if interface.maintenance() != 0 {
                self.vm.gic.refill(id, interface);
            }
        }
        intid
    }

    fn output(&mut self) -> String {
        String::from_utf8(self.backends.wire("-").take_output()).unwrap()
    }
}

#[test]
fn the_first_vcpu_starts_at_its_image_with_the_tree_in_x0() {
    let mut world = World::new(CONFIGURATION);
    assert!(world.boot(0));
    assert!(!world.boot(1));
    let context = &world.vcpus[0].context;
    assert_eq!((context.pc, context.pstate), (0x8000_0000, EL1_RESET_PSTATE));
    let mut magic = [0; 4];
    world.vm.memory().read(Ipa(context.x[0]), &mut magic).unwrap();
    assert_eq!(magic, [0xd0, 0x0d, 0xfe, 0xed]);
    let text = String::from_utf8_lossy(&world.tree);
    for word in ["console=ttyAMA0 quiet", "arm,pl011", "arm,gic-v3", "arm,psci-1.0", "serial@1c090000"] {
        assert!(text.contains(word), "{word}");
    }
}

#[test]
fn a_guest_prints_types_and_powers_off() {
    let mut world = World::new(CONFIGURATION);
    world.boot(0);
    // The PL011 is there, and takes what is written to it.
    assert_eq!(world.load(0, UART + 0xfe0, AccessSize::Word), 0x11);
    world.store(0, UART + 0x30, AccessSize::Word, 0x301);
    for byte in b"hi\n" {
        assert_eq!(world.load(0, UART + 0x18, AccessSize::Word) & 0x20, 0, "FIFO full");
        world.store(0, UART, AccessSize::Byte, u64::from(*byte));
    }
    assert_eq!(world.output(), "hi\n");
    assert!(world.effects.has_output(), "the console's thread is told");
    // Somebody types: an interrupt, up to its end.
    world.set_up_interrupts(0);
    world.store(0, GICD + 0x84, AccessSize::Word, 1 << 5); // GICD_IGROUPR1: INTID 37
    world.store(0, GICD + 0x104, AccessSize::Word, 1 << 5); // GICD_ISENABLER1
    world.store(0, UART + 0x38, AccessSize::Word, 0x50); // receive and receive timeout
    assert_eq!(world.take_interrupt(0), 1023);
    world.backends.wire("-").type_in(b"q");
    world.effects = Effects::default();
    world.vm.wake(DeviceId(0), Wake::Backend, STARTED, &mut world.effects);
    assert_eq!(world.effects.kicked(), VcpuSet::of(VcpuId(0)));
    assert_eq!(world.load(0, UART, AccessSize::Word), u64::from(b'q'));
    assert_eq!(world.hvc(0, 0x8400_0008, [0; 3]).0, Next::Stop);
    assert_eq!(world.effects.stop(), Some(Cause::Shutdown));
}

#[test]
fn a_devices_interrupt_is_taken_while_its_line_is_up() {
    let mut world = World::new(CONFIGURATION);
    world.boot(0);
    world.set_up_interrupts(0);
    world.store(0, GICD + 0x84, AccessSize::Word, 1 << 5);
    world.store(0, GICD + 0x104, AccessSize::Word, 1 << 5);
    world.store(0, UART + 0x30, AccessSize::Word, 0x301);
    world.store(0, UART + 0x38, AccessSize::Word, 0x50);
    world.backends.wire("-").type_in(b"q");
    world.vm.wake(DeviceId(0), Wake::Backend, STARTED, &mut world.effects);
    assert_eq!(world.take_interrupt(0), 37);
    assert_eq!(world.take_interrupt(0), 37, "nobody has read the character: the line is up still");
    assert_eq!(world.load(0, UART, AccessSize::Word), u64::from(b'q'));
    assert_eq!(world.take_interrupt(0), 1023);
}

#[test]
fn a_second_vcpu_is_switched_on_interrupted_and_switched_off() {
    let mut world = World::new(CONFIGURATION);
    world.boot(0);
    assert_eq!(world.hvc(0, 0xc400_0003, [1, 0x8000_0004, 42]), (Next::Resume, 0));
    assert_eq!(world.effects.kicked(), VcpuSet::of(VcpuId(1)));
    assert!(world.boot(1));
    assert_eq!((world.vcpus[1].context.pc, world.vcpus[1].context.x[0]), (0x8000_0004, 42));
    world.set_up_interrupts(0);
    world.set_up_interrupts(1);
    world.effects = Effects::default();
    world.msr(0, sysreg(3, 0, 12, 11, 5), 3 << 24 | 1 << 1);
    assert_eq!(world.effects.kicked(), VcpuSet::of(VcpuId(1)));
    assert_eq!((world.take_interrupt(0), world.take_interrupt(1)), (1023, 3));
    assert_eq!(world.hvc(1, 0x8400_0002, [0; 3]).0, Next::Off);
    assert_eq!(world.hvc(0, 0xc400_0004, [1, 0, 0]), (Next::Resume, 1));
}

#[test]
fn the_physical_timer_interrupts_when_it_is_due() {
    let mut world = World::new(CONFIGURATION);
    world.boot(0);
    world.set_up_interrupts(0);
    world.msr(0, sysreg(3, 3, 14, 2, 0), 1000); // CNTP_TVAL_EL0
    world.msr(0, sysreg(3, 3, 14, 2, 1), 1); // CNTP_CTL_EL0
    let due = world.vcpus[0].timer_deadline();
    assert_eq!(due, Ticks(STARTED.0 + 1000));
    assert_eq!(world.take_interrupt(0), 1023);
    world.cpus[0].now = due;
    world.vcpus[0].update_timer(&world.vm, due, &mut world.effects);
    assert_eq!(world.take_interrupt(0), IntId::PHYSICAL_TIMER.0);
}

#[test]
fn a_stray_access_ends_the_vm_if_it_says_so() {
    let mut world = World::new(CONFIGURATION);
    world.boot(0);
    assert_eq!(world.exit(0, 0x24, 1 << 24 | 2 << 22 | 7, 0x1234_5678), Next::Stop);
    let end = world.vm.lifecycle.end().unwrap();
    assert_eq!(end.cause.code(), 5);
    assert_eq!(end.to_string(), "load of 4 bytes at 0x12345678: no device there (vcpu0, pc 0x80000000)");
}

#[test]
fn errors_of_assembly_point_into_the_file() {
    let wrong = CONFIGURATION.replace("guest.bin", "nobody.bin");
    let message = assemble(&archive(&wrong), &mut Wires::default()).unwrap_err();
    assert!(message.starts_with("vms/guest.qvmconf:5:6: error: vms/nobody.bin: no such file"), "{message}");
    assert!(message.contains("load 0x80000000,nobody.bin") && message.contains('^'), "{message}");
    let wrong = CONFIGURATION.replace("ram 0x80000000,1M", "ram 0x80000000,1M\nram 0x100000000000,1M");
    let message = assemble(&archive(&wrong), &mut Wires::default()).unwrap_err();
    assert!(message.contains(":3:") && message.contains("44 bits"), "{message}");
}
