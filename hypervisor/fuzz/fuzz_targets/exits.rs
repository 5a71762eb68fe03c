//! Everything that the vCPUs of a VM can come out with, in any order, with any registers: nothing panics, every exit has an
//! answer, and the answer is one of those there can be: the instruction is done, or the guest is at an exception vector.

#![no_main]

use libfuzzer_sys::fuzz_target;
use types::{
    AccessSize, DebugState, Frequency, IntId, Ipa, Pstate, Range, RawExit, RawExitKind, Ticks, VcpuId, VcpuSet,
};
use vdev::testkit::{NoFiles, PlainNumbers, Ram, Wires};
use vdev::{Bus, Device, DeviceId, Effects, Options, Setup};
use vgic::testkit::CpuInterface;
use vgic::{Vgic, Version, VgicConfig};
use vm::id_registers::IdRegisters;
use vm::policy::{Action, Unsupported};
use vm::smccc::{Mitigation, Mitigations, Workaround};
use vm::{Cpu, El1Register, Next, Operands, Parts, Vcpu, Vm};

const VCPUS: u16 = 3;
const RAM: Ipa = Ipa(0x8000_0000);
const RAM_SIZE: usize = 0x1_0000;
const VECTORS: u64 = 0x8000_8000;

/// Where guests are most likely to find something.
const PLACES: [u64; 8] =
    [0x0800_0000, 0x080a_0000, 0x080c_0000, 0x080f_fff8, 0x1c09_0000, 0x1c09_0ff8, 0x8000_0000, 0x2000_0000];
/// Classes that have code of their own; any other comes by chance.
const CLASSES: [u64; 12] = [0x24, 0x18, 0x16, 0x17, 0x01, 0x20, 0x24, 0x18, 0x0e, 0x2f, 0x3c, 0x34];
/// Functions, and the registers behind the most code.
const IDENTIFIERS: [u64; 8] =
    [0x8400_0000, 0xc400_0000, 0x8000_0000, 0x8000_8000, 0x8000_3ff0, 0xc400_0050, 0xc500_0020, 0];

/// The input, byte by byte; zeros behind its end.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    fn number(&mut self, bytes: usize) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }
}

/// How many [`El1Register`]s there are.
const EL1_REGISTERS: usize = El1Register::CntvCtl as usize + 1;

/// Loads and stores that only their instruction describes: a pair, write-back, a vector, an index.
const INSTRUCTIONS: [u32; 4] = [0xa940_0440, 0xf840_8420, 0x3dc0_0020, 0xb860_4841];

/// A CPU whose EL1 registers are an array.
struct FakeCpu {
    el1: [u64; EL1_REGISTERS],
    vectors: [u128; 32],
    now: Ticks,
    interface: CpuInterface,
}

impl Cpu for FakeCpu {
    type ListRegisters = CpuInterface;
    fn system_register(&self, register: El1Register) -> u64 {
        self.el1[register as usize]
    }
    fn set_system_register(&mut self, register: El1Register, value: u64) {
        self.el1[register as usize] = value;
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
    fn translate(&mut self, address: u64) -> Option<Ipa> {
        (address >> 56 != 0xff).then_some(Ipa(address))
    }
    fn vector(&mut self, index: u8) -> u128 {
        self.vectors[usize::from(index)]
    }
    fn set_vector(&mut self, index: u8, value: u128) {
        self.vectors[usize::from(index)] = value;
    }
    fn set_debug(&mut self, _: Option<&DebugState>) {}
    fn use_monitors(&mut self) -> bool {
        self.now.0 & 1 == 0
    }
}

fn action(bits: u8) -> Action {
    match bits & 3 {
        0 => Action::Fail,
        1 => Action::Abort,
        _ => Action::Ignore,
    }
}

fn machine(shape: u8, features: u64) -> Vm {
    let factory = vdevs::CATALOGUE.iter().copied().find(|factory| factory.name == "pl011").unwrap();
    let options = Options::parse(factory.options, [], &PlainNumbers).unwrap();
    let (location, interrupt) = (Some(Ipa(0x1c09_0000)), Some(IntId(37)));
    let vcpus = usize::from(VCPUS);
    let (files, backends) = (&NoFiles, &mut Wires::default());
    let (id, name, window, shadow, connector, hears_ends) = (DeviceId(0), "uart", None, None, None, false);
    let address_bits = 40;
    let mut setup = Setup {
        id,
        name,
        location,
        interrupt,
        window,
        shadow,
        connector,
        vcpus,
        address_bits,
        hears_ends,
        files,
        backends,
    };
    let vdev = factory.build(&options, &mut setup).unwrap();
    let name = name.to_string();
    let device = Device { name, factory, location, interrupt, window, served: false, hears_ends: false, vdev };
    let config = VgicConfig { version: Version::V3, vcpus, intids: 96, list_registers: 2, priority_bits: 5 };
    let mitigation = if shape & 0x40 == 0 { Mitigation::Required } else { Mitigation::NotRequired };
    let mut vm = Vm::new(Parts {
        name: "guest".into(),
        memory: vec![Range::new(RAM, RAM_SIZE as u64).unwrap()],
        frames: vm::controller::Controller::DEFAULT.frames(Version::V3, vcpus).unwrap(),
        policy: Unsupported { instruction: action(shape), reference: action(shape >> 2), register: action(shape >> 4) },
        counter_offset: (shape & 0x80 != 0).then_some(u64::MAX - 5),
        bus: Bus::new("guest", vdev::testkit::Rig::clock(), vec![device]).unwrap(),
        gic: Vgic::new(config).unwrap(),
        host_id: IdRegisters::new([features; IdRegisters::COUNT]),
        frequency: Frequency::new(62_500_000).unwrap(),
        mitigations: Mitigations { workaround_1: mitigation, workaround_2: mitigation, workaround_3: mitigation },
        monitors: true,
        entropy: Some(|| Some(0x5aa5)),
        stolen_time: Some(RAM),
        shadows: vec![Ipa(0x1c09_0000)],
    });
    vm.configure(Box::new(Ram::new(RAM, RAM_SIZE)), Ticks(1000)).unwrap();
    vm.start(RAM, 0, Ticks(1000)).unwrap();
    vm
}

fn exit(input: &mut Input<'_>) -> RawExit {
    let choice = input.byte();
    let kind = match choice >> 4 {
        15 => RawExitKind::SError,
        14 => RawExitKind::Irq,
        _ => RawExitKind::Synchronous,
    };
    let class = CLASSES.get(usize::from(choice & 15)).copied().unwrap_or_else(|| input.number(1) & 0x3f);
    let esr = class << 26 | input.number(4) & 0x3ff_ffff;
    let place = input.byte();
    let address = match PLACES.get(usize::from(place)) {
        Some(near) => near.wrapping_add(input.number(2)),
        None => input.number(8),
    };
    RawExit { kind, esr, far: address, hpfar: address >> 12 << 4 }
}

fn registers(vcpu: &mut Vcpu, input: &mut Input<'_>) {
    let identifier = IDENTIFIERS[usize::from(input.byte()) % IDENTIFIERS.len()];
    vcpu.context.x[0] = identifier | input.number(1);
    for index in 1..4 {
        vcpu.context.x[index] = if input.byte() & 1 == 0 { input.number(1) } else { input.number(8) };
    }
    let register = usize::from(input.byte()) % 31;
    vcpu.context.x[register] = input.number(8);
    if input.byte() & 7 == 0 {
        vcpu.context.pc = [VECTORS + 0x200, RAM.0, u64::MAX - 3, 0x2000_0000][usize::from(input.byte()) % 4];
    }
    let modes = [Pstate::EL1H, Pstate::EL1H, Pstate::EL1T, Pstate::EL0T, 0x10];
    vcpu.context.pstate = modes[usize::from(input.byte()) % modes.len()] | u64::from(input.byte()) << 6;
}

fn check(next: Next, pc: u64, is_smc: bool, vcpu: &Vcpu, effects: &Effects, vm: &Vm) {
    assert!(effects.kicked().without(VcpuSet::first(usize::from(VCPUS))).is_empty(), "{:?}", effects.kicked());
    if next == Next::Stop {
        assert!(effects.stop().is_some() && vm.lifecycle.end().is_some());
        return;
    }
    assert!(effects.stop().is_none());
    let steps = vcpu.context.pc.wrapping_sub(pc);
    let vector = vcpu.context.pc & !0x600 == VECTORS;
    assert!(matches!(steps, 0 | 2 | 4) || vector, "{pc:#x} -> {:#x}", vcpu.context.pc);
    assert!(!is_smc || next == Next::Off || steps == 4, "an SMC is stepped over");
    let mode = vcpu.context.pstate & Pstate::MODE;
    assert!([Pstate::EL1H, Pstate::EL1T, Pstate::EL0T, 0x10].contains(&mode));
}

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let vm = machine(input.byte(), input.number(8));
    let ids = (0..VCPUS).map(VcpuId);
    let mut vcpus: Vec<Vcpu> = ids.clone().map(|id| vm.vcpu(id).unwrap()).collect();
    let cpu =
        || FakeCpu { el1: [0; EL1_REGISTERS], vectors: [0; 32], now: Ticks(1000), interface: CpuInterface::new(2, 5) };
    let mut cpus: Vec<FakeCpu> = ids.map(|_| cpu()).collect();
    let mut on = [false; VCPUS as usize];
    for _ in 0..200 {
        if input.0.is_empty() {
            break;
        }
        let who = usize::from(input.byte()) % vcpus.len();
        let (vcpu, cpu) = (&mut vcpus[who], &mut cpus[who]);
        if !on[who] {
            let Some((entry, argument)) = vm.take_power_on(vcpu.id) else { continue };
            vcpu.reset(&vm, entry, argument);
            vm.gic.load(vcpu.id, &mut cpu.interface);
            cpu.el1[El1Register::Vbar as usize] = VECTORS;
            on[who] = true;
        }
        registers(vcpu, &mut input);
        let control = [El1Register::Tcr, El1Register::Ttbr0, El1Register::Ttbr1, El1Register::Sctlr];
        let register = input.byte();
        cpu.el1[control[usize::from(register) % control.len()] as usize] = input.number(8);
        if register & 0x80 != 0 {
            let at = Ipa(RAM.0 + (input.number(2) & 0xfff8));
            vm.memory().store(at, AccessSize::Doubleword, input.number(8)).unwrap();
        }
        if register & 0x40 != 0 {
            // Where the guest stands, and with every base register at what it touches.
            vcpu.context.pc = RAM.0;
            let word = INSTRUCTIONS[usize::from(input.byte()) % INSTRUCTIONS.len()] ^ input.number(4) as u32;
            vm.memory().store(RAM, AccessSize::Word, word.into()).unwrap();
        }
        cpu.now = Ticks(cpu.now.0.wrapping_add(input.number(2)));
        let mut effects = Effects::default();
        let exit = exit(&mut input);
        if register & 0x20 != 0 {
            vcpu.context.x = [exit.far; 31];
        }
        let is_smc = exit.kind == RawExitKind::Synchronous && exit.esr >> 26 == 0x17;
        let pc = vcpu.context.pc;
        let next = vm::handle(&vm, vcpu, &exit, cpu, &mut effects);
        check(next, pc, is_smc, vcpu, &effects, &vm);
        match next {
            Next::Stop => return,
            Next::Off => {
                vm.gic.save(vcpu.id, &mut cpu.interface);
                vm.gic.power_off(vcpu.id);
                on[who] = false;
            }
            Next::ArmTimer => {
                let due = vcpu.timer_deadline();
                let mut effects = Effects::default();
                vcpu.update_timer(&vm, due.min(Ticks(u64::MAX - 1)), &mut effects);
            }
            _ => {}
        }
        if on[who] && vm.gic.needs_refill(vcpu.id) {
            vm.gic.refill(vcpu.id, &mut cpu.interface);
        }
    }
});
