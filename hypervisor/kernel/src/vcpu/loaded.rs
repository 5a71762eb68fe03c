//! Which state of a vCPU is in the CPU when.
//!
//! Answers for: an exit leaves EL1's registers, the list registers and the timer where they are; they are exchanged only when
//! another vCPU is loaded on the CPU, and some of them (vector registers, monitors, debug state) only when they are used.
//! Does not answer for: when a vCPU runs (`thread`), what its exits mean (`vm`).

use super::interface::{self, Interface};
use crate::cpu::{self, PerCpu};
use crate::partition::Partition;
use crate::{controller, interrupt, stage2, thread};
use el2::monitors::Monitors;
use el2::state::{Controls, El1State, ExtensionState, FpState, VirtualTimer, hcr};
use types::{DebugState, IntId, Ipa, Mpidr, PAGE_SIZE, Ticks, VcpuId, VcpuSet};
use vgic::Saved;
use vm::dump::{Registers, SystemRegisters};
use vm::smccc::Workaround;
use vm::{Cpu, El1Register, Operands, Vcpu};

/// What is exchanged when another vCPU is loaded. What every switch touches comes first, where one instruction reaches two
/// registers.
#[repr(C)]
pub(crate) struct LoadedVcpu {
    /// Of the compartment, which outlives the vCPU's thread.
    partition: &'static Partition,
    id: VcpuId,
    /// The vector registers are in the CPU; otherwise their first use traps.
    pub(super) fp_in_cpu: bool,
    /// All caches of the VM have just been cleaned for a set/way operation of this vCPU, and further ones go unnoticed.
    pub(super) set_way_open: bool,
    /// The timer's interrupt has been handed to the guest, which has not deactivated it.
    timer_active: bool,
    /// The performance monitors are in the CPU; otherwise their first use traps.
    monitors_in_cpu: bool,
    /// Their interrupt has been handed to the guest, which has not deactivated it.
    monitors_active: bool,
    /// Something is to be done besides what always is: vector registers, extensions, debug state, monitors, or the active state
    /// of an interrupt are to be exchanged, or the VM has other vCPUs.
    is_special: bool,
    /// [`controller::is_v2`], where a switch finds it soonest.
    is_v2: bool,
    timer: VirtualTimer,
    controls: Controls,
    el1: El1State,
    extensions: ExtensionState,
    /// What the CPU compares and steps for this vCPU, if anything.
    debug: Option<DebugState>,
    monitors: Monitors,
    fp: FpState,
    interface: Interface,
}

/// EL1's registers of the loaded vCPU are where they are: in the CPU.
impl Cpu for LoadedVcpu {
    type ListRegisters = Interface;

    fn system_register(&self, register: El1Register) -> u64 {
        el2::state::read_el1(name(register))
    }

    fn set_system_register(&mut self, register: El1Register, value: u64) {
        el2::state::write_el1(name(register), value);
    }

    #[inline(always)]
    fn counter(&self) -> Ticks {
        el2::cpu::counter()
    }

    #[inline(always)]
    fn list_registers(&mut self) -> &mut Interface {
        &mut self.interface
    }

    fn call_workaround(&mut self, workaround: Workaround) {
        el2::firmware::call_workaround(workaround as u32, 0);
    }
}

impl Operands for LoadedVcpu {
    fn translate(&mut self, address: u64) -> Option<Ipa> {
        /// `PAR_EL1.F`: there is no translation.
        const F: u64 = 1;
        /// `PAR_EL1.PA` without LPA2, which guests do not have.
        const PA: u64 = 0x0000_ffff_ffff_f000;
        let result = el2::state::translate_el1(address);
        (result & F == 0).then_some(Ipa(result & PA | address & (PAGE_SIZE - 1)))
    }

    fn vector(&mut self, index: u8) -> u128 {
        if self.fp_in_cpu {
            self.fp.save();
        }
        self.fp.vector(index).copied().unwrap_or(0)
    }

    fn set_vector(&mut self, index: u8, value: u128) {
        if self.fp_in_cpu {
            self.fp.save();
        }
        if let Some(vector) = self.fp.vector(index) {
            *vector = value;
        }
        if self.fp_in_cpu {
            self.fp.load();
        }
    }

    fn set_debug(&mut self, state: Option<&DebugState>) {
        self.debug = state.cloned();
        self.is_special = true;
        self.debug.as_ref().map_or_else(el2::debug::stop, el2::debug::load);
    }

    fn use_monitors(&mut self) -> bool {
        if self.monitors_in_cpu || !el2::monitors::are_there() {
            return false;
        }
        self.monitors.load();
        self.monitors_in_cpu = true;
        self.is_special = true;
        true
    }
}

fn name(register: El1Register) -> el2::state::El1 {
    use el2::state::El1;
    match register {
        El1Register::SpEl0 => El1::SpEl0,
        El1Register::SpEl1 => El1::SpEl1,
        El1Register::Sctlr => El1::Sctlr,
        El1Register::Tcr => El1::Tcr,
        El1Register::Ttbr0 => El1::Ttbr0,
        El1Register::Ttbr1 => El1::Ttbr1,
        El1Register::Vbar => El1::Vbar,
        El1Register::Elr => El1::Elr,
        El1Register::Spsr => El1::Spsr,
        El1Register::Esr => El1::Esr,
        El1Register::Far => El1::Far,
        El1Register::CntvCtl => El1::CntvCtl,
    }
}

impl LoadedVcpu {
    pub(super) fn new(partition: &'static Partition, id: VcpuId) -> Self {
        const MPIDR_RES1: u64 = 1 << 31;
        let mut traps = hcr::VM | hcr::SWIO | hcr::PTW | hcr::FMO | hcr::IMO | hcr::AMO | hcr::FB | hcr::BSU_INNER;
        traps |= hcr::TID3 | hcr::TSC | hcr::TIDCP | hcr::TACR | hcr::TSW | hcr::RW | el2::traps::hcr_of_extensions();
        if partition.exit_on_halt {
            traps |= hcr::TWI;
        }
        if el2::state::has_pointer_authentication() {
            traps |= hcr::APK | hcr::API;
        }
        Self {
            partition,
            id,
            controls: Controls {
                hcr: traps,
                vmpidr: MPIDR_RES1 | Mpidr::of_vcpu(id).0,
                vpidr: el2::cpu::midr(),
                counter_offset: partition.vm.counter_offset(),
            },
            el1: El1State::reset(),
            extensions: ExtensionState::reset(),
            fp: FpState::reset(),
            fp_in_cpu: false,
            timer: VirtualTimer::default(),
            set_way_open: false,
            timer_active: false,
            monitors: Monitors::reset(),
            monitors_in_cpu: false,
            monitors_active: false,
            is_special: true,
            is_v2: controller::is_v2(),
            debug: None,
            interface: Interface::here(),
        }
    }

    /// As a core comes out of reset. The vCPU is in no CPU.
    pub(super) fn reset(&mut self) {
        self.el1 = El1State::reset();
        self.fp = FpState::reset();
        self.timer = VirtualTimer::default();
        self.extensions = ExtensionState::reset();
        self.debug = None;
        self.monitors = Monitors::reset();
        self.monitors_active = false;
        self.is_special = true;
    }

    /// Puts the vCPU into this CPU, unless it is there. Interrupts are masked.
    #[inline(always)]
    pub(super) fn load(&mut self) {
        let cpu = cpu::this();
        if !core::ptr::eq(cpu.loaded.get(), self) {
            self.load_into(cpu);
        }
    }

    /// No other one is in it. So the vector registers trap: whoever used them has left that behind.
    #[inline(never)]
    #[unsafe(link_section = ".text.exits")]
    fn load_into(&mut self, cpu: &PerCpu) {
        self.controls.load();
        self.el1.load();
        el2::state::stage2::enter(self.partition.vttbr);
        interface::load(&self.partition.vm.gic, self.id, self.is_v2);
        if self.is_special {
            self.load_special(cpu);
        }
        self.timer.load();
        cpu.loaded.set(self);
        if self.partition.vm.shows_stolen_time(self.id) {
            self.publish_stolen_time();
        }
    }

    /// What few vCPUs have. The timer is not in the CPU yet: it may not fire before its interrupt is active.
    #[inline(never)]
    fn load_special(&mut self, cpu: &PerCpu) {
        if self.has_siblings() && self.partition.take_residence(cpu.id, self.id) {
            el2::tlb::forget_other_vcpu();
        }
        self.extensions.load();
        if self.timer_active {
            interrupt::set_guest_active(cpu, interrupt::guest_timer(), true);
        }
        if let Some(debug) = &self.debug {
            el2::debug::load(debug);
        }
        if self.monitors_active {
            interrupt::set_guest_active(cpu, interrupt::monitors(), true);
        }
        if self.monitors.count() {
            self.use_monitors();
        }
    }

    /// The inverse.
    #[inline(never)]
    fn put_special(&mut self, cpu: &PerCpu, saved: Saved) {
        self.extensions.save();
        self.timer_active = saved.is_in_flight(IntId::VIRTUAL_TIMER);
        if self.timer_active {
            interrupt::set_guest_active(cpu, interrupt::guest_timer(), false);
        }
        if self.fp_in_cpu {
            self.fp.save();
            el2::state::trap_fp(true);
            self.fp_in_cpu = false;
        }
        if self.debug.is_some() {
            el2::debug::stop();
        }
        // They go on when the vCPU is loaded again, if anything counts; otherwise when they are used again.
        if self.monitors_in_cpu {
            self.monitors.save();
            self.monitors_in_cpu = false;
        }
        self.monitors_active = saved.is_in_flight(IntId::MONITORS);
        if self.monitors_active {
            interrupt::set_guest_active(cpu, interrupt::monitors(), false);
        }
        let is_active = self.timer_active || self.monitors_active || self.has_siblings();
        self.is_special = is_active || !self.extensions.none() || self.debug.is_some() || self.monitors.count();
    }

    /// Whether its VM has other vCPUs.
    fn has_siblings(&self) -> bool {
        self.partition.vm.gic.vcpus() > 1
    }

    #[inline(never)]
    fn publish_stolen_time(&self) {
        self.partition.vm.publish_stolen_time(self.id, thread::waiting_time());
    }

    /// A guest that cleans by set and way does so in a loop over all sets and ways; one clean of the whole VM is as good as
    /// the loop. So the first operation is trapped, and the rest of the loop, until the next exit of another kind, is let
    /// through: it then works on this CPU's caches, which harms nobody (HCR_EL2.SWIO makes invalidations clean as well).
    #[cold]
    pub(super) fn trap_set_way(&mut self, trap: bool) {
        self.set_way_open = !trap;
        self.controls.hcr = if trap { self.controls.hcr | hcr::TSW } else { self.controls.hcr & !hcr::TSW };
        self.controls.load();
    }

    /// For a dump. The vCPU is not in a CPU.
    pub(super) fn registers(&self, vcpu: &Vcpu) -> Registers {
        let (el1, (vectors, fpsr, fpcr)) = (&self.el1, self.fp.registers());
        Registers {
            general: vcpu.context.clone(),
            system: SystemRegisters {
                sctlr_el1: el1.sctlr,
                cpacr_el1: el1.cpacr,
                ttbr0_el1: el1.ttbr0,
                ttbr1_el1: el1.ttbr1,
                tcr_el1: el1.tcr,
                spsr_el1: el1.spsr,
                elr_el1: el1.elr,
                sp_el0: el1.sp_el0,
                sp_el1: el1.sp_el1,
                esr_el1: el1.esr,
                far_el1: el1.far,
                par_el1: el1.par,
                mair_el1: el1.mair,
                vbar_el1: el1.vbar,
                contextidr_el1: el1.contextidr,
                tpidr_el1: el1.tpidr_el1,
                tpidr_el0: el1.tpidr_el0,
                tpidrro_el0: el1.tpidrro_el0,
            },
            vectors: *vectors,
            fpsr,
            fpcr,
        }
    }

    pub(super) fn use_fp(&mut self) {
        el2::state::trap_fp(false);
        self.fp.load();
        self.fp_in_cpu = true;
        self.is_special = true;
    }
}

/// What has to be done for a vCPU that was taken out of its CPU.
pub(crate) struct Put<'a> {
    vcpu: &'a LoadedVcpu,
    /// vCPUs of the same VM that have to take interrupts in its place.
    pub(crate) kick: VcpuSet,
}

impl Put<'_> {
    /// When its virtual timer wants it back.
    pub(crate) fn wake_at(&self) -> Ticks {
        let VirtualTimer { control, compare } = self.vcpu.timer;
        vm::timer::virtual_deadline(control, compare, self.partition().vm.counter_offset())
    }

    #[inline]
    pub(crate) fn partition(&self) -> &'static Partition {
        self.vcpu.partition
    }
}

/// Takes a vCPU out of the CPU.
#[inline(always)]
pub(crate) fn put<'a>(this: &'a mut LoadedVcpu, cpu: &PerCpu) -> Put<'a> {
    this.timer.save();
    let saved = interface::save(&this.partition.vm.gic, this.id, this.is_v2);
    this.el1.save();
    el2::state::stage2::leave(stage2::nobody());
    if this.is_special || saved.is_any_in_flight() {
        this.put_special(cpu, saved);
    }
    Put { vcpu: this, kick: saved.kick }
}

/// The same, where a switch is not waited for.
#[inline(never)]
fn take_out<'a>(this: &'a mut LoadedVcpu, cpu: &PerCpu) -> Put<'a> {
    put(this, cpu)
}

/// Whether the performance monitors are the loaded vCPU's.
#[cold]
pub(crate) fn is_counting() -> bool {
    // SAFETY: as below.
    unsafe { cpu::this().loaded.get().as_ref() }.is_some_and(|loaded| loaded.monitors_in_cpu)
}

/// The loaded vCPU's timer has fired, or its monitors: `virtual_` is what it is to the guest. Says whether the guest was given
/// the interrupt, and will deactivate it.
#[inline(always)]
pub(crate) fn hand_on(virtual_: IntId, physical: IntId) -> bool {
    let cpu = cpu::this();
    // SAFETY: null, or the vCPU of the thread on whose stack this CPU is; that thread does not touch it during an interrupt.
    let Some(loaded) = (unsafe { cpu.loaded.get().as_ref() }) else { return false };
    loaded.partition.vm.gic.inject_hardware(loaded.id, virtual_, physical);
    if !cpu.current.get().is_null() {
        thread::notify_waiting(thread::current());
    }
    true
}

/// List registers of the loaded vCPU want to be looked at.
pub(crate) fn maintenance() {
    // SAFETY: as for the timer.
    if let Some(loaded) = unsafe { cpu::this().loaded.get().as_ref() } {
        let kick = interface::refill(&loaded.partition.vm.gic, loaded.id);
        loaded.partition.kick(kick, loaded.id);
    }
}

/// Takes the vCPU out of this CPU, with everything kept for when it goes on.
pub(super) fn unload_paused(loaded: &mut LoadedVcpu) {
    let (cpu, id) = (cpu::this(), loaded.id);
    if core::ptr::eq(cpu.loaded.get(), loaded) {
        let put = take_out(loaded, cpu);
        put.partition().kick(put.kick, id);
        cpu.loaded.set(core::ptr::null_mut());
    }
}

/// Forgets what is in the CPU: nobody will go on with it.
pub(super) fn unload(loaded: &mut LoadedVcpu) {
    let (cpu, id) = (cpu::this(), loaded.id);
    if core::ptr::eq(cpu.loaded.get(), loaded) {
        let put = take_out(loaded, cpu);
        let (kick, partition) = (put.kick, put.partition());
        let others = kick.union(partition.vm.gic.power_off(id));
        partition.kick(others, id);
        cpu.loaded.set(core::ptr::null_mut());
    }
}

/// Forgets the vCPU in this CPU without looking at it: its thread has failed.
pub(crate) fn discard(cpu: &PerCpu) {
    // Nobody's registers are in the CPU, or will be; and it may have failed while it copied through them.
    el2::state::trap_fp(true);
    if cpu.loaded.replace(core::ptr::null_mut()).is_null() {
        return;
    }
    el2::state::stage2::leave(stage2::nobody());
    interface::clear();
    VirtualTimer::default().load();
    el2::debug::stop();
    if interrupt::monitors().is_private() {
        el2::monitors::stop();
        interrupt::set_guest_active(cpu, interrupt::monitors(), false);
    }
    interrupt::set_guest_active(cpu, interrupt::guest_timer(), false);
}
