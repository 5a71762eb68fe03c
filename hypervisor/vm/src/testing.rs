//! A whole VM on the test's machine: its vCPUs' exits are scripted, their CPUs are arrays.

use crate::controller::Controller;
use crate::exit::syndrome::{fault, sysreg};
use crate::id_registers::IdRegisters;
use crate::partition::{Parts, Vm};
use crate::policy::Unsupported;
use crate::smccc::{Mitigations, Workaround};
use crate::trng::Entropy;
use crate::vcpu::{Cpu, El1Register, Next, Operands, Vcpu};
use alloc::{boxed::Box, string::ToString, vec::Vec};
use std::collections::HashMap;
use types::{AccessSize, DebugState, Frequency, IntId, Ipa, Range, RawExit, RawExitKind, Ticks, VcpuId};
use vdev::testkit::Ram;
use vdev::{
    AccessFault, AccessSizes, Bus, Cause, Context, Control, ControlError, Device, Effects, Factory, Node, Vdev, Wake,
};
use vgic::{ListRegisters, Version, Vgic, VgicConfig};

pub(crate) const RAM: Ipa = Ipa(0x8000_0000);
pub(crate) const RAM_SIZE: u64 = 0x10_0000;
pub(crate) const ROM: Ipa = Ipa(0x4000_0000);
pub(crate) const DISTRIBUTOR: Ipa = Ipa(0x0800_0000);
pub(crate) const REDISTRIBUTORS: Ipa = Ipa(0x080a_0000);
pub(crate) const DEVICE: Ipa = Ipa(0x1c09_0000);
/// In RAM, which is as good here.
pub(crate) const STOLEN_TIME: Ipa = Ipa(0x8008_0000);
pub(crate) const NOWHERE: Ipa = Ipa(0x2000_0000);

/// The physical count at which the VM was started.
pub(crate) const STARTED: Ticks = Ticks(1_000_000);

/// A device with one interesting thing at each of a few offsets.
#[derive(Debug, Default)]
pub(crate) struct Probe {
    stored: u64,
}

impl Probe {
    pub(crate) const STORED: u64 = 0x00;
    /// Reads as all ones up to the access size, and rubbish above.
    pub(crate) const RUBBISH: u64 = 0x08;
    pub(crate) const LINE: u64 = 0x10;
    pub(crate) const END: u64 = 0x18;
    pub(crate) const BUS_ERROR: u64 = 0x20;
    pub(crate) const UNSUPPORTED: u64 = 0x28;
    pub(crate) const NOW: u64 = 0x30;
    pub(crate) const INTERRUPT: IntId = IntId(40);
}

impl Vdev for Probe {
    fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        match offset {
            Self::RUBBISH => Ok(u64::MAX),
            Self::BUS_ERROR => Err(AccessFault::Bus),
            Self::UNSUPPORTED => Err(AccessFault::Unsupported),
            Self::NOW => Ok(context.now().0),
            _ => Ok(self.stored),
        }
    }
    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        match offset {
            Self::LINE => context.set_line(value != 0),
            Self::END => context.terminate(Cause::Custom(40)),
            Self::BUS_ERROR => return Err(AccessFault::Bus),
            _ => self.stored = value,
        }
        Ok(())
    }
    fn control(&mut self, _: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        Ok(())
    }
    fn wake(&mut self, _: Wake, context: &mut Context<'_>) {
        context.terminate(Cause::Watchdog);
    }
    fn describe(&self, _: &mut Node) {}
}

pub(crate) static PROBE: Factory = Factory {
    name: "probe",
    access_sizes: AccessSizes::all().difference(AccessSizes::HALFWORD),
    region_size: 0x38,
    help: "answers in a few odd ways",
    ..Factory::new(|_, _| Ok(Box::<Probe>::default()))
};

/// A CPU on which one vCPU is loaded.
#[derive(Debug, Default)]
pub(crate) struct FakeCpu {
    pub(crate) el1: HashMap<El1Register, u64>,
    pub(crate) now: Ticks,
    pub(crate) workarounds: Vec<Workaround>,
    pub(crate) interface: FakeInterface,
    pub(crate) vectors: [u128; 32],
    pub(crate) debug: Option<DebugState>,
    pub(crate) monitors: bool,
    /// The guest's stage 1 leads nowhere.
    pub(crate) unmapped: bool,
}

/// List registers and what goes with them, as arrays.
#[derive(Debug, Default)]
pub(crate) struct FakeInterface {
    list: [u64; 4],
    active: [u64; 2],
    hcr: u64,
    vmcr: u64,
    /// The host's interrupts that were deactivated.
    pub(crate) deactivated: Vec<u32>,
}

impl FakeInterface {
    /// INTIDs of the pending interrupts in the list registers.
    pub(crate) fn pending(&self) -> Vec<u32> {
        let pending = self.list.iter().filter(|register| *register >> 62 & 1 != 0);
        pending.map(|register| u32::try_from(register & 0xffff_ffff).unwrap()).collect()
    }
}

impl ListRegisters for FakeInterface {
    fn read(&self, index: usize) -> u64 {
        self.list[index]
    }
    fn write(&mut self, index: usize, value: u64) {
        self.list[index] = value;
    }
    fn empty_mask(&self) -> u64 {
        (0..).zip(self.list).fold(0, |mask, (index, register)| mask | u64::from(register >> 62 == 0) << index)
    }
    fn eoi_mask(&self) -> u64 {
        0
    }
    fn hcr(&self) -> u64 {
        self.hcr
    }
    fn set_hcr(&mut self, value: u64) {
        self.hcr = value;
    }
    fn vmcr(&self) -> u64 {
        self.vmcr
    }
    fn set_vmcr(&mut self, value: u64) {
        self.vmcr = value;
    }
    fn ap0r(&self, _: usize) -> u64 {
        self.active[0]
    }
    fn set_ap0r(&mut self, _: usize, value: u64) {
        self.active[0] = value;
    }
    fn ap1r(&self, _: usize) -> u64 {
        self.active[1]
    }
    fn set_ap1r(&mut self, _: usize, value: u64) {
        self.active[1] = value;
    }
    fn deactivate(&mut self, physical: IntId) {
        self.deactivated.push(physical.0);
    }
}

impl Cpu for FakeCpu {
    type ListRegisters = FakeInterface;

    fn system_register(&self, register: El1Register) -> u64 {
        self.el1.get(&register).copied().unwrap_or(0)
    }
    fn set_system_register(&mut self, register: El1Register, value: u64) {
        self.el1.insert(register, value);
    }
    fn counter(&self) -> Ticks {
        self.now
    }
    fn list_registers(&mut self) -> &mut FakeInterface {
        &mut self.interface
    }
    fn call_workaround(&mut self, workaround: Workaround) {
        self.workarounds.push(workaround);
    }
}

impl Operands for FakeCpu {
    /// A guest's upper half is its physical memory, as is its lower half.
    fn translate(&mut self, address: u64) -> Option<Ipa> {
        (!self.unmapped).then_some(Ipa(address & 0xffff_ffff_ffff))
    }
    fn vector(&mut self, index: u8) -> u128 {
        self.vectors[usize::from(index)]
    }
    fn set_vector(&mut self, index: u8, value: u128) {
        self.vectors[usize::from(index)] = value;
    }
    fn set_debug(&mut self, state: Option<&DebugState>) {
        self.debug = state.cloned();
    }
    fn use_monitors(&mut self) -> bool {
        !core::mem::replace(&mut self.monitors, true)
    }
}

/// What a test may want different.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wishes {
    pub(crate) version: Version,
    pub(crate) vcpus: usize,
    pub(crate) policy: Unsupported,
    pub(crate) mitigations: Mitigations,
    pub(crate) host_id: IdRegisters,
    pub(crate) counter_offset: Option<u64>,
    pub(crate) entropy: Option<Entropy>,
    pub(crate) monitors: bool,
    /// The device's registers are read without an exit.
    pub(crate) shadow: bool,
}

impl Default for Wishes {
    fn default() -> Self {
        Self {
            version: Version::V3,
            vcpus: 1,
            policy: Unsupported::default(),
            mitigations: Mitigations::default(),
            host_id: host_id(&[(4, 0, 0x2222), (5, 0, 0x1030_5106), (7, 0, 0x1124)]),
            counter_offset: None,
            entropy: None,
            monitors: false,
            shadow: false,
        }
    }
}

/// Identification registers from `(CRm, op2, value)`.
pub(crate) fn host_id(values: &[(usize, usize, u64)]) -> IdRegisters {
    let mut all = [0; IdRegisters::COUNT];
    for (crm, op2, value) in values {
        all[(crm - 1) * 8 + op2] = *value;
    }
    IdRegisters::new(all)
}

/// A running VM, and the CPU that each vCPU is loaded on.
pub(crate) struct World {
    pub(crate) vm: Vm,
    pub(crate) vcpus: Vec<Vcpu>,
    pub(crate) cpus: Vec<FakeCpu>,
    pub(crate) effects: Effects,
}

impl World {
    /// One vCPU, everything as it is by default.
    pub(crate) fn new() -> Self {
        Self::with(Wishes::default())
    }

    pub(crate) fn with_policy(policy: Unsupported) -> Self {
        Self::with(Wishes { policy, ..Wishes::default() })
    }

    pub(crate) fn with(wishes: Wishes) -> Self {
        let probe = Device {
            name: "probe".to_string(),
            factory: &PROBE,
            location: Some(DEVICE),
            interrupt: Some(Probe::INTERRUPT),
            window: None,
            served: false,
            hears_ends: false,
            vdev: Box::<Probe>::default(),
        };
        let config = VgicConfig {
            version: wishes.version,
            vcpus: wishes.vcpus,
            intids: 64,
            list_registers: 4,
            priority_bits: 5,
        };
        let mut vm = Vm::new(Parts {
            name: "guest".to_string(),
            memory: [Range::new(RAM, RAM_SIZE).unwrap(), Range::new(ROM, 0x1000).unwrap()].to_vec(),
            frames: Controller::DEFAULT.frames(wishes.version, wishes.vcpus).unwrap(),
            policy: wishes.policy,
            counter_offset: wishes.counter_offset,
            bus: Bus::new("guest", vdev::testkit::Rig::clock(), [probe].into_iter().collect()).unwrap(),
            gic: Vgic::new(config).unwrap(),
            host_id: wishes.host_id,
            frequency: Frequency::new(62_500_000).unwrap(),
            mitigations: wishes.mitigations,
            monitors: wishes.monitors,
            entropy: wishes.entropy,
            stolen_time: Some(STOLEN_TIME),
            shadows: wishes.shadow.then_some(DEVICE).into_iter().collect(),
        });
        vm.configure(Box::new(Ram::new(RAM, usize::try_from(RAM_SIZE).unwrap())), STARTED).unwrap();
        vm.start(RAM, 0x8800_0000, STARTED).unwrap();
        let ids = (0..u16::try_from(wishes.vcpus).unwrap()).map(VcpuId);
        let mut world = Self {
            vcpus: ids.clone().map(|id| vm.vcpu(id).unwrap()).collect(),
            cpus: ids.map(|_| FakeCpu { now: STARTED, ..FakeCpu::default() }).collect(),
            vm,
            effects: Effects::default(),
        };
        world.boot(0);
        world
    }

    /// What the thread of a vCPU does when it was kicked and is off. Returns whether there was a start.
    pub(crate) fn boot(&mut self, vcpu: usize) -> bool {
        let id = self.vcpus[vcpu].id;
        let Some((entry, argument)) = self.vm.take_power_on(id) else { return false };
        self.vcpus[vcpu].reset(&self.vm, entry, argument);
        self.vm.gic.load(id, &mut self.cpus[vcpu].interface);
        true
    }

    /// What the kernel does before an entry; then the pending interrupts in the list registers.
    pub(crate) fn refill(&mut self, vcpu: usize) -> Vec<u32> {
        let id = self.vcpus[vcpu].id;
        let interface = &mut self.cpus[vcpu].interface;
        if self.vm.gic.needs_refill(id) {
            let _ = self.vm.gic.refill(id, interface);
        }
        interface.pending()
    }

    /// vCPU `vcpu` comes out.
    pub(crate) fn exit_of(&mut self, vcpu: usize, exit: RawExit) -> Next {
        crate::handle(&self.vm, &mut self.vcpus[vcpu], &exit, &mut self.cpus[vcpu], &mut self.effects)
    }

    /// vCPU 0 comes out.
    pub(crate) fn exit(&mut self, exit: RawExit) -> Next {
        self.exit_of(0, exit)
    }

    pub(crate) fn x(&self, register: usize) -> u64 {
        self.vcpus[0].context.x[register]
    }

    pub(crate) fn pc(&self) -> u64 {
        self.vcpus[0].context.pc
    }

    pub(crate) fn el1(&self, register: El1Register) -> u64 {
        self.cpus[0].system_register(register)
    }

    /// Calls a function with up to four arguments by HVC and returns X0.
    pub(crate) fn hvc(&mut self, vcpu: usize, identifier: u64, arguments: [u64; 3]) -> (Next, i64) {
        self.vcpus[vcpu].context.x[0] = identifier;
        self.vcpus[vcpu].context.x[1..4].copy_from_slice(&arguments);
        let next = self.exit_of(vcpu, hvc(0));
        (next, self.vcpus[vcpu].context.x[0].cast_signed())
    }

    /// Reads a trapped register into X2; `None` if that is undefined.
    pub(crate) fn mrs(&mut self, name: u64) -> Option<u64> {
        let pc = self.pc();
        let _ = self.exit(mrs(name, 2));
        (self.pc() == pc.wrapping_add(4)).then(|| self.x(2))
    }

    /// Writes a trapped register from X2; `None` if that is undefined.
    pub(crate) fn msr(&mut self, name: u64, value: u64) -> Option<Next> {
        self.vcpus[0].context.x[2] = value;
        let pc = self.pc();
        let next = self.exit(msr(name, 2));
        (self.pc() == pc.wrapping_add(4)).then_some(next)
    }

    /// Writes guest memory.
    pub(crate) fn poke(&self, at: Ipa, value: u64) {
        self.vm.memory().store(at, AccessSize::Doubleword, value).unwrap();
    }
}

fn synchronous(class: u64, iss: u64) -> RawExit {
    RawExit { kind: RawExitKind::Synchronous, esr: class << 26 | 1 << 25 | iss, far: 0, hpfar: 0 }
}

pub(crate) fn hvc(immediate: u64) -> RawExit {
    synchronous(0x16, immediate)
}

pub(crate) fn smc(immediate: u64) -> RawExit {
    synchronous(0x17, immediate)
}

pub(crate) fn mrs(name: u64, register: u64) -> RawExit {
    synchronous(0x18, name | register << 5 | 1)
}

pub(crate) fn msr(name: u64, register: u64) -> RawExit {
    synchronous(0x18, name | register << 5)
}

pub(crate) fn wfx(iss: u64) -> RawExit {
    synchronous(0x01, iss)
}

fn at(exit: RawExit, address: Ipa) -> RawExit {
    RawExit { far: 0xffff_0000_0000_0000 | address.0, hpfar: address.0 >> 12 << 4, ..exit }
}

/// A described load of `size` into register `register`.
pub(crate) fn load(address: Ipa, size: AccessSize, register: u64) -> RawExit {
    let sf = u64::from(size == AccessSize::Doubleword) << 15;
    let iss = 1 << 24 | (size as u64) << 22 | register << 16 | sf | fault::TRANSLATION | 3;
    at(synchronous(0x24, iss), address)
}

/// The same, a store.
pub(crate) fn store(address: Ipa, size: AccessSize, register: u64) -> RawExit {
    let exit = load(address, size, register);
    RawExit { esr: exit.esr | 1 << 6, ..exit }
}

/// A data abort with this ISS.
pub(crate) fn data_abort(address: Ipa, iss: u64) -> RawExit {
    at(synchronous(0x24, iss), address)
}

/// A fetch abort with this ISS.
pub(crate) fn fetch_abort(address: Ipa, iss: u64) -> RawExit {
    RawExit { far: address.0, ..at(synchronous(0x20, iss), address) }
}

/// Any other class.
pub(crate) fn class(class: u64, iss: u64) -> RawExit {
    synchronous(class, iss)
}

/// `ID_AA64PFR0_EL1`.
pub(crate) const ID_AA64PFR0_EL1: u64 = sysreg(3, 0, 0, 4, 0);
