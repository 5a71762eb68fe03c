//! One VM as its vCPU threads share it.
//!
//! Answers for: what is where in the guest's address space, which parts a vCPU's exit reaches, the steps from configured
//! to running and to the end that concern devices. Does not answer for: how it is put together (`assemble`), memory and
//! threads (the kernel's). All of it is `Sync`; exits take no lock of the VM's own, only those of the device or the
//! interrupt controller they talk to.

use crate::controller::Frames;
use crate::id_registers::{IdRegisters, PstateFeatures};
use crate::lifecycle::{EndRecord, Lifecycle, State};
use crate::policy::Unsupported;
use crate::psci::Power;
use crate::smccc::Mitigations;
use crate::stolen_time::StolenTime;
use crate::trng::Entropy;
use crate::vcpu::{ExitCounters, Next, Vcpu};
use alloc::{boxed::Box, format, string::String, sync::Arc, vec::Vec};
use core::fmt;
use types::{AccessSize, Frequency, Ipa, Lock, PAGE_SIZE, Range, Ticks, VcpuId};
use vdev::{Bus, Cause, Context, Control, ControlError, DeviceId, Effects, GuestMemory, MemoryFault, Services, Wake};
use vgic::Vgic;

/// A VM. The kernel drives it through these steps: put it together; take memory; [`Vm::configure`]; load the
/// images; [`Vm::start`]; run its vCPUs with [`crate::exit::handle`]; [`Vm::terminate`]; give memory back;
/// [`Vm::ended`].
pub struct Vm {
    /// Its devices.
    pub bus: Bus,
    /// Its interrupt controller.
    pub gic: Vgic,
    /// The power state of its vCPUs.
    pub power: Power,
    /// Its identification registers.
    pub id: IdRegisters,
    /// Where it stands, and how it ended.
    pub lifecycle: Lifecycle,
    /// Ticks per second of its counters.
    pub frequency: Frequency,
    pub(crate) pstate: PstateFeatures,
    pub(crate) mitigations: Mitigations,
    pub(crate) policy: Unsupported,
    pub(crate) entropy: Option<Entropy>,
    pub(crate) stolen_time: StolenTime,
    /// Pages of registers that the guest reads without an exit, ascending.
    shadows: Box<[Ipa]>,
    name: String,
    /// RAM and ROM.
    map: Box<[Range<Ipa>]>,
    /// The log target of messages about this VM: `vm:NAME`.
    origin: String,
    distributor: u64,
    distributor_size: u64,
    interface: u64,
    interface_size: u64,
    memory: Box<dyn GuestMemory>,
    /// How the VM ends when it has been dumped, if a device wants that.
    after_dump: Lock<Option<EndRecord>>,
    configured_offset: Option<u64>,
    counter_offset: u64,
    counters: Box<[Arc<ExitCounters>]>,
}

impl fmt::Debug for Vm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vm").field("name", &self.name).field("state", &self.lifecycle.state()).finish_non_exhaustive()
    }
}

/// What a VM is put together from. Assembly makes it from a configuration.
#[derive(Debug)]
pub struct Parts {
    /// What it is called.
    pub name: String,
    /// Where RAM and ROM are.
    pub memory: Vec<Range<Ipa>>,
    /// Where the interrupt controller's registers are.
    pub frames: Frames,
    /// What becomes of accesses to what is not there.
    pub policy: Unsupported,
    /// What the guest's counters are behind the physical one; without it they start at zero.
    pub counter_offset: Option<u64>,
    /// The devices.
    pub bus: Bus,
    /// The interrupt controller, which also says how many vCPUs there are.
    pub gic: Vgic,
    /// The identification registers of the host's CPUs.
    pub host_id: IdRegisters,
    /// Ticks per second of the counters.
    pub frequency: Frequency,
    /// What firmware said of its workarounds.
    pub mitigations: Mitigations,
    /// Whether it has performance monitors, if the host's CPUs have.
    pub monitors: bool,
    /// Where its random numbers come from.
    pub entropy: Option<Entropy>,
    /// The page that tells its vCPUs how long they have waited for a CPU.
    pub stolen_time: Option<Ipa>,
    /// Pages of registers that it reads without an exit, ascending.
    pub shadows: Vec<Ipa>,
}

/// A device refused a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceError {
    /// The device's name.
    pub device: String,
    /// What it says.
    pub error: ControlError,
}

impl fmt::Display for DeviceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "vdev `{}`: {}", self.device, self.error)
    }
}

impl Vm {
    /// A VM that is described, no more.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let vcpus = parts.gic.vcpus();
        Self {
            origin: format!("vm:{}", parts.name),
            name: parts.name,
            map: parts.memory.into_boxed_slice(),
            distributor: parts.frames.distributor.start().0,
            distributor_size: parts.frames.distributor.length(),
            interface: parts.frames.interface.start().0,
            interface_size: parts.frames.interface.length(),
            policy: parts.policy,
            power: Power::new(vcpus),
            id: parts.host_id.for_guest(parts.monitors, parts.frames.version),
            pstate: parts.host_id.pstate_features(),
            lifecycle: Lifecycle::default(),
            memory: Box::new(NoMemory),
            after_dump: Lock::new(None),
            configured_offset: parts.counter_offset,
            counter_offset: 0,
            counters: (0..vcpus).map(|_| Arc::default()).collect(),
            bus: parts.bus,
            gic: parts.gic,
            frequency: parts.frequency,
            mitigations: parts.mitigations,
            entropy: parts.entropy,
            stolen_time: StolenTime::new(parts.stolen_time),
            shadows: parts.shadows.into_boxed_slice(),
        }
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The log target of messages about it.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// What is taken off the physical count for this VM's counters (`CNTVOFF_EL2`). Known from [`Vm::start`] on.
    #[inline(always)]
    #[must_use]
    pub const fn counter_offset(&self) -> u64 {
        self.counter_offset
    }

    /// The guest's count at the physical count `now`.
    #[inline(always)]
    #[must_use]
    pub const fn guest_time(&self, now: Ticks) -> u64 {
        now.0.wrapping_sub(self.counter_offset)
    }

    /// Its memory; before [`Vm::configure`] there is none, and every access faults.
    #[must_use]
    pub fn memory(&self) -> &dyn GuestMemory {
        &*self.memory
    }

    /// What devices may reach, at the time `now`.
    #[inline(always)]
    #[must_use]
    pub fn services(&self, now: Ticks) -> Services<'_> {
        Services { now, memory: &*self.memory, interrupts: &self.gic }
    }

    /// The vCPU `id`, off, to be owned by its thread. `None` if the VM does not have it.
    #[must_use]
    pub fn vcpu(&self, id: VcpuId) -> Option<Vcpu> {
        Some(Vcpu::new(id, Arc::clone(self.counters.get(id.index())?)))
    }

    /// How often a vCPU has left its guest, by reason.
    #[must_use]
    pub fn exits(&self, id: VcpuId) -> Option<&ExitCounters> {
        self.counters.get(id.index()).map(|counters| &**counters)
    }

    /// Whether it has pages of registers that the guest reads without an exit.
    pub(crate) const fn has_shadows(&self) -> bool {
        !self.shadows.is_empty()
    }

    /// Whether `at` is in one of them.
    pub(crate) fn is_shadowed(&self, at: Ipa) -> bool {
        self.shadows.binary_search(&at.align_down(PAGE_SIZE)).is_ok()
    }

    /// Whether `vcpu` has asked how much time is stolen from it: then [`Vm::publish_stolen_time`] is called whenever it has
    /// had to wait.
    #[inline]
    #[must_use]
    pub fn shows_stolen_time(&self, vcpu: VcpuId) -> bool {
        self.stolen_time.is_shown_to(vcpu)
    }

    /// Tells `vcpu` for how long altogether it has been ready without a CPU.
    pub fn publish_stolen_time(&self, vcpu: VcpuId, waited: Ticks) {
        self.stolen_time.publish(vcpu, self.frequency.to_nanoseconds(waited), &*self.memory);
    }

    /// For the thread of `vcpu`: the start that it was asked for, as entry point and X0. It then calls [`Vcpu::reset`] and
    /// resets what is in the CPU.
    #[must_use]
    pub fn take_power_on(&self, vcpu: VcpuId) -> Option<(u64, u64)> {
        self.power.take_on(vcpu)
    }

    /// The VM has its memory: devices are told that they are configured.
    ///
    /// # Errors
    /// The first device that refuses; the VM is to be terminated then.
    pub fn configure(&mut self, memory: Box<dyn GuestMemory>, now: Ticks) -> Result<(), DeviceError> {
        self.memory = memory;
        let _ = self.lifecycle.advance(State::Configured);
        self.tell_all(|| Control::GuestConfigured, now, &mut Effects::default())
    }

    /// The memory is loaded: counts from `now` on, tells the devices, and asks for vCPU 0 to start at `entry` with
    /// `argument` in X0. Its thread then finds that in [`Vm::take_power_on`].
    ///
    /// # Errors
    /// The first device that refuses; the VM is to be terminated then.
    pub fn start(&mut self, entry: Ipa, argument: u64, now: Ticks) -> Result<(), DeviceError> {
        let _ = self.lifecycle.advance(State::Starting);
        self.counter_offset = self.configured_offset.unwrap_or(now.0);
        self.bus.clock().set_offset(Ticks(self.counter_offset));
        self.tell_all(|| Control::GuestStarting, now, &mut Effects::default())?;
        // Nobody else knows this VM yet, so vCPU 0 is off.
        let _ = self.power.request_on(VcpuId(0), entry.0, argument);
        let _ = self.lifecycle.advance(State::Running);
        Ok(())
    }

    /// The VM is being taken apart, and its vCPUs have stopped: the device goes quiet. Says whether it has; if it says that it cannot,
    /// that is logged.
    pub fn terminate(&self, device: DeviceId, now: Ticks) -> bool {
        let _ = self.lifecycle.advance(State::Terminating);
        let (services, mut effects) = (self.services(now), Effects::default());
        let told = self.bus.control(device, Control::Terminate, &services, &mut effects);
        if let Err(error) = &told {
            log::error!(target: &self.origin, "vdev `{}`: {error}", self.bus.name(device).unwrap_or_default());
        }
        told.is_ok()
    }

    /// The power button is pressed: every device is told, until one passes it on to the guest. Says whether one has.
    pub fn press_button(&self, now: Ticks, effects: &mut Effects) -> bool {
        let services = self.services(now);
        let mut handled = false;
        for id in self.bus.devices() {
            let event = Control::Button { handled: &mut handled };
            if let Err(error) = self.bus.control(id, event, &services, effects) {
                effects.terminate(Cause::Vdev);
                let name = self.bus.name(id).unwrap_or_default();
                self.lifecycle.record_end(EndRecord::new(
                    Cause::Vdev,
                    None,
                    None,
                    format_args!("vdev `{name}`: {error}"),
                ));
                return true;
            }
            self.record_end_by(id, effects);
            if handled || effects.stop().is_some() {
                return true;
            }
        }
        false
    }

    /// What a device says of its state; empty if it has nothing to say.
    pub fn status(&self, device: DeviceId, now: Ticks, into: &mut dyn fmt::Write) {
        let (services, mut effects) = (self.services(now), Effects::default());
        if let Err(error) = self.bus.control(device, Control::Status(into), &services, &mut effects) {
            let _ = write!(into, "{error}");
        }
    }

    /// Nothing of the VM is left but its record.
    pub fn ended(&self) {
        let _ = self.lifecycle.advance(State::Ended);
    }

    /// A device's back end has something for it.
    pub fn wake(&self, device: DeviceId, wake: Wake, now: Ticks, effects: &mut Effects) {
        self.bus.wake(device, wake, &self.services(now), effects);
        self.record_end_by(device, effects);
    }

    /// Wakes a device for those of its timers that are due.
    pub fn expire_timers(&self, device: DeviceId, now: Ticks, effects: &mut Effects) {
        self.bus.expire(device, &self.services(now), effects);
        self.record_end_by(device, effects);
    }

    /// A device's worker does something with what its device may reach.
    pub fn enter(&self, device: DeviceId, now: Ticks, effects: &mut Effects, work: &mut dyn FnMut(&mut Context<'_>)) {
        self.bus.enter(device, &self.services(now), effects, work);
        if effects.may_end() {
            self.record_end_by(device, effects);
        }
    }

    /// If the VM is to end, it is because of `device`, unless there was a cause before.
    fn record_end_by(&self, device: DeviceId, effects: &Effects) {
        let name = || self.bus.name(device).unwrap_or_default();
        if let Some(cause) = effects.stop() {
            self.lifecycle.record_end(EndRecord::new(cause, None, None, format_args!("ended by vdev `{}`", name())));
        }
        if let Some(cause) = effects.stop_after_dump() {
            let record = EndRecord::new(cause, None, None, format_args!("ended by vdev `{}`, after a dump", name()));
            self.after_dump.lock().get_or_insert(record);
        }
    }

    /// What the device at `at` is called.
    pub(crate) fn device_at(&self, at: Ipa) -> &str {
        self.bus.device_at(at).and_then(|id| self.bus.name(id)).unwrap_or_default()
    }

    /// The device at `at` wants the VM to end when it has been dumped.
    #[cold]
    pub(crate) fn end_when_dumped(&self, at: Ipa, effects: &Effects) {
        if let Some(device) = self.bus.device_at(at) {
            self.record_end_by(device, effects);
        }
    }

    /// The VM has been dumped, or cannot be: says whether it ends now, because a device wants that, and records how.
    pub fn end_after_dump(&self) -> bool {
        let record = self.after_dump.lock().take();
        if let Some(record) = &record {
            log::error!(target: &self.origin, "{record}");
            self.lifecycle.record_end(record.clone());
        }
        record.is_some()
    }

    fn tell_all(
        &self,
        event: impl Fn() -> Control<'static>,
        now: Ticks,
        effects: &mut Effects,
    ) -> Result<(), DeviceError> {
        let services = self.services(now);
        for id in self.bus.devices() {
            let mut result = self.bus.control(id, event(), &services, effects);
            if effects.stop().or(effects.stop_after_dump()).is_some() {
                let message = format!("it ends the VM on {:?}, before the guest has started", event());
                result = result.and(Err(ControlError(message)));
            }
            result.map_err(|error| DeviceError { device: self.bus.name(id).unwrap_or_default().into(), error })?;
        }
        Ok(())
    }

    /// Ends the VM on behalf of `vcpu`: the first cause counts and is recorded.
    #[cold]
    pub(crate) fn stop(&self, vcpu: &Vcpu, effects: &mut Effects, cause: Cause, detail: fmt::Arguments<'_>) -> Next {
        effects.terminate(cause);
        let record = EndRecord::new(cause, Some(vcpu.id), Some(vcpu.context.pc), detail);
        let level = if cause.code() == 0 { log::Level::Info } else { log::Level::Error };
        log::log!(target: &self.origin, level, "{record}");
        self.lifecycle.record_end(record);
        Next::Stop
    }

    /// Whether a vCPU could start at `entry`: an instruction's address in RAM or ROM.
    pub(crate) fn can_start_at(&self, entry: Ipa) -> bool {
        entry.is_aligned(4) && self.map.iter().any(|range| range.contains(entry))
    }

    /// The offset of `at` in the distributor's window, if it is there.
    #[inline(always)]
    pub(crate) fn in_distributor(&self, at: Ipa) -> Option<u64> {
        let offset = at.0.wrapping_sub(self.distributor);
        (offset < self.distributor_size).then_some(offset)
    }

    /// The offset of `at` in the window of the redistributors, or of the CPU interface of a GICv2, if it is there.
    #[inline(always)]
    pub(crate) fn in_interface(&self, at: Ipa) -> Option<u64> {
        let offset = at.0.wrapping_sub(self.interface);
        (offset < self.interface_size).then_some(offset)
    }
}

/// The memory of a VM that has none yet.
struct NoMemory;

impl GuestMemory for NoMemory {
    fn read(&self, from: Ipa, _: &mut [u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { at: from })
    }
    fn write(&self, to: Ipa, _: &[u8]) -> Result<(), MemoryFault> {
        Err(MemoryFault { at: to })
    }
    fn load(&self, from: Ipa, _: AccessSize) -> Result<u64, MemoryFault> {
        Err(MemoryFault { at: from })
    }
    fn store(&self, to: Ipa, _: AccessSize, _: u64) -> Result<(), MemoryFault> {
        Err(MemoryFault { at: to })
    }
    fn exchange(&self, at: Ipa, _: AccessSize, _: u64, _: u64) -> Result<u64, MemoryFault> {
        Err(MemoryFault { at })
    }
    fn contains(&self, range: Range<Ipa>) -> bool {
        range.is_empty()
    }
}

const _: () =
    assert!(Vgic::DISTRIBUTOR_SIZE.is_multiple_of(PAGE_SIZE) && Vgic::REDISTRIBUTOR_SIZE.is_multiple_of(PAGE_SIZE));
