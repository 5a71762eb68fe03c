//! The Power State Coordination Interface, version 1.1, as a guest sees it.
//!
//! Answers for: the functions (DEN 0022F.b, chapter 5) and the power state of every vCPU. Does not answer for: how a
//! function is called (`exit/call.rs`), nor for starting and stopping threads (the kernel's: it is told by
//! [`Effects::kick`] and [`Next::Off`]).
//!
//! Decisions that the specification leaves to the implementation:
//! - CPU_SUSPEND to a power-down state is carried out as a standby, and returns: section 5.4 lets an implementation enter
//!   a shallower state than the one requested.
//! - AFFINITY_INFO answers for affinity levels above 0 too: ON if any vCPU below the node is.
//! - When the last vCPU calls CPU_OFF nothing inside the machine can ever switch one on again. The VM ends as if by
//!   SYSTEM_OFF: a machine that can do nothing any more should not hold its memory.
//! - An entry point is refused (INVALID_ADDRESS) unless it is a word-aligned address of the VM's own RAM or ROM.

use crate::partition::Vm;
use crate::vcpu::{Next, Vcpu};
use alloc::boxed::Box;
use core::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use types::{Ipa, Mpidr, VcpuId, VcpuSet};
use vdev::{Cause, Effects};

/// What PSCI_VERSION answers: 1.1, major in the upper half.
pub const VERSION: i64 = 0x1_0001;

/// Return codes (DEN 0022, section 5.2.2).
pub mod code {
    /// Done.
    pub const SUCCESS: i64 = 0;
    /// There is no such function.
    pub const NOT_SUPPORTED: i64 = -1;
    /// An argument makes no sense.
    pub const INVALID_PARAMETERS: i64 = -2;
    /// The CPU is on.
    pub const ALREADY_ON: i64 = -4;
    /// The CPU is being switched on.
    pub const ON_PENDING: i64 = -5;
    /// The entry point is not an address where a CPU could start.
    pub const INVALID_ADDRESS: i64 = -9;
}

/// Function numbers: the low five bits of the identifiers 0x8400_0000 (32-bit calls) and 0xc400_0000 (64-bit calls).
mod function {
    pub(super) const PSCI_VERSION: u32 = 0x0;
    pub(super) const CPU_SUSPEND: u32 = 0x1;
    pub(super) const CPU_OFF: u32 = 0x2;
    pub(super) const CPU_ON: u32 = 0x3;
    pub(super) const AFFINITY_INFO: u32 = 0x4;
    pub(super) const MIGRATE_INFO_TYPE: u32 = 0x6;
    pub(super) const SYSTEM_OFF: u32 = 0x8;
    pub(super) const SYSTEM_RESET: u32 = 0x9;
    pub(super) const PSCI_FEATURES: u32 = 0xa;
    pub(super) const SYSTEM_RESET2: u32 = 0x12;
}

/// The whole identifier of PSCI_VERSION.
const PSCI_VERSION: u32 = 0x8400_0000 | function::PSCI_VERSION;

/// MIGRATE_INFO_TYPE: there is no Trusted OS, or it needs no migration.
const MIGRATION_NOT_REQUIRED: i64 = 2;

/// The bit that makes a function identifier a 64-bit call's (SMCCC).
const CALL_64: u32 = 1 << 30;

/// Whether `identifier` lies in the range of PSCI, of either width.
#[inline(always)]
#[must_use]
pub const fn is_psci(identifier: u32) -> bool {
    identifier & !(CALL_64 | 0x1f) == 0x8400_0000
}

/// Carries out the call of `vcpu`, whose identifier [`is_psci`] has accepted, and puts the answer in its X0. The PC stands
/// behind the calling instruction already.
#[inline(always)]
pub fn call(vm: &Vm, vcpu: &mut Vcpu, identifier: u32, effects: &mut Effects) -> Next {
    // The question that is asked most often, and has no arguments: no detour.
    if identifier == PSCI_VERSION {
        vcpu.answer(VERSION);
        return Next::Resume;
    }
    carry_out(vm, vcpu, identifier, effects)
}

#[inline(never)]
fn carry_out(vm: &Vm, vcpu: &mut Vcpu, identifier: u32, effects: &mut Effects) -> Next {
    let wide = identifier & CALL_64 != 0;
    let argument = |index: usize| {
        let value = vcpu.context.x.get(index).copied().unwrap_or(0);
        if wide { value } else { value & 0xffff_ffff }
    };
    let answer = match (identifier & 0x1f, wide) {
        (function::CPU_SUSPEND, _) => {
            let answer = suspend(vm, argument(1), argument(2));
            vcpu.answer(answer);
            return if answer == code::SUCCESS { Next::WaitForInterrupt } else { Next::Resume };
        }
        (function::CPU_OFF, false) => return cpu_off(vm, vcpu, effects),
        (function::CPU_ON, _) => match cpu_on(vm, argument(1), argument(2), argument(3)) {
            Ok(target) => {
                effects.kick(VcpuSet::of(target));
                code::SUCCESS
            }
            Err(code) => code,
        },
        (function::AFFINITY_INFO, _) => affinity_info(&vm.power, argument(1), argument(2)),
        (function::MIGRATE_INFO_TYPE, false) => MIGRATION_NOT_REQUIRED,
        (function::SYSTEM_OFF, false) => {
            return vm.stop(vcpu, effects, Cause::Shutdown, format_args!("PSCI SYSTEM_OFF"));
        }
        (function::SYSTEM_RESET, false) => {
            return vm.stop(vcpu, effects, Cause::Reset, format_args!("PSCI SYSTEM_RESET"));
        }
        (function::SYSTEM_RESET2, _) => {
            // Reset type 0 is SYSTEM_WARM_RESET; other architectural ones are reserved, vendor's ones (bit 31) unknown here.
            if argument(1) & 0xffff_ffff == 0 {
                return vm.stop(vcpu, effects, Cause::Reset, format_args!("PSCI SYSTEM_RESET2"));
            }
            code::INVALID_PARAMETERS
        }
        (function::PSCI_FEATURES, false) => features(argument(1)),
        _ => code::NOT_SUPPORTED,
    };
    vcpu.answer(answer);
    Next::Resume
}

/// PSCI_FEATURES: flags of a function that exists, else NOT_SUPPORTED. It answers for SMCCC_VERSION too, which is how a
/// guest finds that call (section 5.15).
fn features(identifier: u64) -> i64 {
    use function::{
        AFFINITY_INFO, CPU_OFF, CPU_ON, CPU_SUSPEND, MIGRATE_INFO_TYPE, PSCI_FEATURES, PSCI_VERSION, SYSTEM_OFF,
        SYSTEM_RESET, SYSTEM_RESET2,
    };
    let Ok(identifier) = u32::try_from(identifier) else { return code::NOT_SUPPORTED };
    if identifier == crate::smccc::SMCCC_VERSION {
        return code::SUCCESS;
    }
    if !is_psci(identifier) {
        return code::NOT_SUPPORTED;
    }
    match (identifier & 0x1f, identifier & CALL_64 != 0) {
        // CPU_SUSPEND's flags: original StateID format, platform coordinated.
        (CPU_SUSPEND | CPU_ON | AFFINITY_INFO | SYSTEM_RESET2, _)
        | (PSCI_VERSION | CPU_OFF | MIGRATE_INFO_TYPE | SYSTEM_OFF | SYSTEM_RESET | PSCI_FEATURES, false) => {
            code::SUCCESS
        }
        _ => code::NOT_SUPPORTED,
    }
}

/// CPU_SUSPEND: the checks. `power_state` in the original format: StateID 15:0, StateType 16, PowerLevel 25:24, the rest
/// must be zero.
fn suspend(vm: &Vm, power_state: u64, entry: u64) -> i64 {
    const STATE_TYPE: u64 = 1 << 16;
    const DEFINED: u64 = 0x0301_ffff;
    if power_state & 0xffff_ffff & !DEFINED != 0 {
        return code::INVALID_PARAMETERS;
    }
    if power_state & STATE_TYPE != 0 && !vm.can_start_at(Ipa(entry)) {
        return code::INVALID_ADDRESS;
    }
    code::SUCCESS
}

/// CPU_OFF: does not return to the caller.
fn cpu_off(vm: &Vm, vcpu: &mut Vcpu, effects: &mut Effects) -> Next {
    if vm.power.off(vcpu.id) {
        return vm.stop(vcpu, effects, Cause::Shutdown, format_args!("PSCI CPU_OFF of the last vCPU"));
    }
    Next::Off
}

/// CPU_ON: who is to be kicked, or why not. Checks in the order of section 5.6: target, entry point, state.
fn cpu_on(vm: &Vm, target: u64, entry: u64, context_id: u64) -> Result<VcpuId, i64> {
    let target = Mpidr(target).to_vcpu(vm.power.vcpus()).ok_or(code::INVALID_PARAMETERS)?;
    if !vm.can_start_at(Ipa(entry)) {
        return Err(code::INVALID_ADDRESS);
    }
    vm.power.request_on(target, entry, context_id)?;
    Ok(target)
}

/// AFFINITY_INFO: 0 ON, 1 OFF, 2 ON_PENDING. Affinity fields below `level` are ignored (section 5.7).
fn affinity_info(power: &Power, target: u64, level: u64) -> i64 {
    let compared: u64 = match level {
        0 => Mpidr::AFFINITY,
        1 => 0xff_00ff_ff00,
        2 => 0xff_00ff_0000,
        3 => 0xff_0000_0000,
        _ => return code::INVALID_PARAMETERS,
    };
    if target & !Mpidr::AFFINITY != 0 {
        return code::INVALID_PARAMETERS;
    }
    let below = |index: u16| (Mpidr::of_vcpu(VcpuId(index)).0 ^ target) & compared == 0;
    // At most MAX_VCPUS turns. ON (0) beats ON_PENDING (2) beats OFF (1).
    let mut best = None;
    for (index, slot) in (0u16..).zip(power.slots.iter()) {
        if below(index) {
            best = match (best, slot.state()) {
                (_, State::On) => return 0,
                (_, State::OnPending) | (Some(2), State::Off) => Some(2),
                (_, State::Off) => Some(1),
            };
        }
    }
    best.unwrap_or(code::INVALID_PARAMETERS)
}

/// The power state of a vCPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Switched off: its thread waits for [`Vm::take_power_on`] to give it a start.
    Off,
    /// Somebody has asked for it; its thread has not taken the start yet.
    OnPending,
    /// It runs, or waits for an interrupt.
    On,
}

/// The power states of all vCPUs of a VM. No lock: two callers of CPU_ON for one target meet in one compare-and-swap, and
/// exactly one wins.
#[derive(Debug)]
pub struct Power {
    slots: Box<[Slot]>,
    /// How many are not off. A vCPU counts itself out in CPU_OFF, its starter counts it in before that.
    awake: AtomicUsize,
}

#[derive(Debug)]
struct Slot {
    state: AtomicU8,
    entry: AtomicU64,
    context_id: AtomicU64,
}

const OFF: u8 = 0;
/// Somebody has won the compare-and-swap and is writing the start.
const CLAIMED: u8 = 1;
/// The start is complete.
const REQUESTED: u8 = 2;
const ON: u8 = 3;

impl Slot {
    fn state(&self) -> State {
        match self.state.load(Ordering::Acquire) {
            OFF => State::Off,
            CLAIMED | REQUESTED => State::OnPending,
            _ => State::On,
        }
    }
}

impl Power {
    /// `vcpus` vCPUs, all off.
    #[must_use]
    pub fn new(vcpus: usize) -> Self {
        let slot = || Slot { state: AtomicU8::new(OFF), entry: AtomicU64::new(0), context_id: AtomicU64::new(0) };
        Self { slots: (0..vcpus).map(|_| slot()).collect(), awake: AtomicUsize::new(0) }
    }

    /// How many vCPUs there are.
    #[must_use]
    pub fn vcpus(&self) -> usize {
        self.slots.len()
    }

    /// The state of `vcpu`; one that does not exist is off.
    #[must_use]
    pub fn state(&self, vcpu: VcpuId) -> State {
        self.slots.get(vcpu.index()).map_or(State::Off, Slot::state)
    }

    /// Asks for `vcpu` to start at `entry` with `context_id` in X0.
    ///
    /// # Errors
    /// ALREADY_ON, ON_PENDING; INVALID_PARAMETERS if there is no such vCPU.
    pub fn request_on(&self, vcpu: VcpuId, entry: u64, context_id: u64) -> Result<(), i64> {
        let slot = self.slots.get(vcpu.index()).ok_or(code::INVALID_PARAMETERS)?;
        match slot.state.compare_exchange(OFF, CLAIMED, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                self.awake.fetch_add(1, Ordering::Relaxed);
                slot.entry.store(entry, Ordering::Relaxed);
                slot.context_id.store(context_id, Ordering::Relaxed);
                slot.state.store(REQUESTED, Ordering::Release);
                Ok(())
            }
            Err(ON) => Err(code::ALREADY_ON),
            Err(_) => Err(code::ON_PENDING),
        }
    }

    /// For the thread of `vcpu`: the start somebody has asked for, as entry point and context id. The vCPU is on then.
    pub fn take_on(&self, vcpu: VcpuId) -> Option<(u64, u64)> {
        let slot = self.slots.get(vcpu.index())?;
        if slot.state.load(Ordering::Acquire) != REQUESTED {
            return None;
        }
        let start = (slot.entry.load(Ordering::Relaxed), slot.context_id.load(Ordering::Relaxed));
        slot.state.store(ON, Ordering::Release);
        Some(start)
    }

    /// Switches `vcpu` off, by its own thread. Returns whether it was the last one.
    #[must_use]
    pub fn off(&self, vcpu: VcpuId) -> bool {
        let Some(slot) = self.slots.get(vcpu.index()) else { return false };
        let was = self.awake.fetch_sub(1, Ordering::AcqRel);
        slot.state.store(OFF, Ordering::Release);
        was == 1
    }
}

#[cfg(test)]
mod tests;
