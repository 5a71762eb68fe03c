//! Physical interrupts: who they are for.
//!
//! Answers for: acknowledging and completing, interrupts between CPUs, the console's input, disks, network cards, SMMUs, messages. Does not answer for: what
//! guests see (`vgic`); a guest's timer interrupt is handed to the vCPU that is loaded.
//!
//! Priority drop and deactivation are split: everything of ours is completed at once, a guest's timer interrupt stays
//! active until the guest deactivates it.

use crate::controller::{self, Distributor};
use crate::cpu::{self, PerCpu};
use crate::panic;
use crate::sync::{Lock, Rank};
use crate::{console, disk, messages, passed, smmuman, thread, trace, uplink, vcpu};
use core::sync::atomic::{AtomicU32, Ordering};
use drivers::GicError;
use drivers::gicv2::CpuInterface;
use el2::interface::physical;
use its::lpis;
use machine::{Gic, Machine};
use types::{CpuId, IntId};

/// "Look whether something else should run."
const SGI_RESCHEDULE: u32 = 0;
/// "Leave the guest and look for what is new."
const SGI_KICK: u32 = 1;
/// "Stop: the hypervisor has failed."
const SGI_STOP: u32 = 2;

/// Whether the number is no interrupt's (IHI 0069, "INTIDs": special).
#[inline(always)]
pub(crate) const fn is_special(intid: u32) -> bool {
    matches!(intid, 1020..=1023)
}

static DISTRIBUTOR: Lock<Option<Distributor>> = Lock::new(Rank::Distributor, None);
static CONSOLE_INTID: AtomicU32 = AtomicU32::new(u32::MAX);

/// No interrupt's number.
const NONE: u32 = u32::MAX;

/// The private interrupts in use.
struct Private {
    timer: AtomicU32,
    guest_timer: AtomicU32,
    maintenance: AtomicU32,
    monitors: AtomicU32,
}

static PRIVATE: Private = Private {
    timer: AtomicU32::new(IntId::HYPERVISOR_TIMER.0),
    guest_timer: AtomicU32::new(IntId::VIRTUAL_TIMER.0),
    maintenance: AtomicU32::new(IntId::MAINTENANCE.0),
    monitors: AtomicU32::new(NONE),
};

/// Brings the shared part up. The registers are mapped.
///
/// # Errors
/// If the machine's interrupt controller cannot be used.
pub(crate) fn initialise(machine: &Machine) -> Result<(), GicError> {
    *DISTRIBUTOR.lock() = Some(Distributor::new(&machine.gic)?);
    let (Gic::V2 { maintenance, .. } | Gic::V3 { maintenance, .. }) = &machine.gic;
    PRIVATE.timer.store(machine.timer.hypervisor.0, Ordering::Relaxed);
    PRIVATE.guest_timer.store(machine.timer.virtual_.0, Ordering::Relaxed);
    PRIVATE.monitors.store(machine.monitors.map_or(NONE, |intid| intid.0), Ordering::Relaxed);
    PRIVATE.maintenance.store(maintenance.unwrap_or(IntId::MAINTENANCE).0, Ordering::Relaxed);
    Ok(())
}

/// Brings this CPU's part up.
///
/// # Errors
/// As for [`initialise`].
pub(crate) fn initialise_cpu(machine: &Machine, cpu: &PerCpu) -> Result<(), GicError> {
    let mut private = controller::Private::new(machine, cpu)?;
    for sgi in [SGI_RESCHEDULE, SGI_KICK, SGI_STOP] {
        private.enable(IntId(sgi));
    }
    for intid in [&PRIVATE.timer, &PRIVATE.guest_timer, &PRIVATE.maintenance, &PRIVATE.monitors] {
        let intid = IntId(intid.load(Ordering::Relaxed));
        if intid.is_private() {
            private.enable(intid);
        }
    }
    // SAFETY: this CPU's own, and nothing else refers to it yet.
    unsafe { *cpu.private_interrupts.get() = Some(private) };
    controller::initialise_interface();
    Ok(())
}

/// How many LPIs the machine's interrupt controller has.
pub(crate) fn lpis() -> u32 {
    DISTRIBUTOR.lock().as_ref().map_or(0, Distributor::lpis)
}

/// Lets the console's input interrupt come to this CPU.
pub(crate) fn enable_console(intid: IntId) {
    CONSOLE_INTID.store(intid.0, Ordering::Relaxed);
    enable(intid);
}

/// Lets a shared interrupt come to this CPU.
pub(crate) fn enable(intid: IntId) {
    if let Some(distributor) = DISTRIBUTOR.lock().as_mut() {
        distributor.enable(intid, cpu::this());
    }
}

/// The same for one that comes by edges, or by levels, as is said.
pub(crate) fn enable_as(intid: IntId, edge: bool) {
    if let Some(distributor) = DISTRIBUTOR.lock().as_mut() {
        distributor.configure(intid, edge);
        distributor.enable(intid, cpu::this());
    }
}

/// The guest has made the interrupt of a passed device inactive without the hardware.
pub(crate) fn deactivate_passed(intid: IntId) {
    if let Some(distributor) = DISTRIBUTOR.lock().as_mut() {
        distributor.deactivate(intid);
    }
}

/// The interrupt of a passed device does not come any more, and is as if it had never come.
pub(crate) fn release_passed(intid: IntId) {
    if let Some(distributor) = DISTRIBUTOR.lock().as_mut() {
        if let Err(error) = distributor.disable(intid) {
            log::error!("interrupt {} of a passed device cannot be disabled: {error}", intid.0);
        }
        distributor.forget(intid);
        distributor.deactivate(intid);
    }
}

/// The INTID of the guests' virtual timer as the hardware raises it.
pub(crate) fn guest_timer() -> IntId {
    IntId(PRIVATE.guest_timer.load(Ordering::Relaxed))
}

/// The INTID of the performance monitors as the hardware raises it, if it does.
pub(crate) fn monitors() -> IntId {
    IntId(PRIVATE.monitors.load(Ordering::Relaxed))
}

/// Sets or clears the active state of a guest's private interrupt at this CPU: [`guest_timer`] or [`monitors`].
pub(crate) fn set_guest_active(cpu: &PerCpu, intid: IntId, active: bool) {
    // SAFETY: this CPU's own, with interrupts masked.
    if let Some(private) = unsafe { &mut *cpu.private_interrupts.get() } {
        private.set_active(intid, active);
    }
}

/// A CPU's interface to the interrupt controller. What is acknowledged is an INTID; with a GICv2 there is more to it.
trait Physical {
    fn acknowledge(&self) -> u32;
    fn intid(acknowledged: u32) -> u32;
    fn drop_priority(&self, acknowledged: u32);
    fn deactivate(&self, acknowledged: u32);
}

struct SystemRegisters;

impl Physical for SystemRegisters {
    #[inline(always)]
    fn acknowledge(&self) -> u32 {
        physical::acknowledge()
    }
    #[inline(always)]
    fn intid(acknowledged: u32) -> u32 {
        acknowledged
    }
    #[inline(always)]
    fn drop_priority(&self, acknowledged: u32) {
        physical::drop_priority(acknowledged);
    }
    #[inline(always)]
    fn deactivate(&self, acknowledged: u32) {
        physical::deactivate(acknowledged);
    }
}

impl Physical for CpuInterface {
    #[inline(always)]
    fn acknowledge(&self) -> u32 {
        (*self).acknowledge()
    }
    #[inline(always)]
    fn intid(acknowledged: u32) -> u32 {
        Self::intid(acknowledged)
    }
    #[inline(always)]
    fn drop_priority(&self, acknowledged: u32) {
        (*self).drop_priority(acknowledged);
    }
    #[inline(always)]
    fn deactivate(&self, acknowledged: u32) {
        (*self).deactivate(acknowledged);
    }
}

/// Takes all pending interrupts. Interrupts are masked.
#[unsafe(link_section = ".text.exits")]
pub(crate) fn handle() {
    if controller::is_v2() {
        return handle_in_memory();
    }
    handle_all(&SystemRegisters);
}

#[inline(never)]
#[unsafe(link_section = ".text.exits")]
fn handle_in_memory() {
    if let Some(interface) = controller::cpu_interface() {
        handle_all(&interface);
    }
}

#[inline(always)]
fn handle_all<P: Physical>(interface: &P) {
    loop {
        let acknowledged = interface.acknowledge();
        let intid = P::intid(acknowledged);
        if is_special(intid) {
            return;
        }
        interface.drop_priority(acknowledged);
        let guests = if intid == PRIVATE.guest_timer.load(Ordering::Relaxed) {
            Some(IntId::VIRTUAL_TIMER)
        } else {
            match take(intid) {
                Served::Completely => None,
                Served::OfMonitors => Some(IntId::MONITORS),
                Served::ByGuest | Served::Message => continue,
            }
        };
        if let Some(guests) = guests
            && vcpu::hand_on(guests, IntId(intid))
        {
            continue; // the guest deactivates it
        }
        interface.deactivate(acknowledged);
    }
}

/// What has become of an interrupt.
enum Served {
    /// There is nothing else to do about it.
    Completely,
    /// It is of the loaded vCPU's monitors.
    OfMonitors,
    /// It is a passed device's, and stays active until its guest has ended it.
    ByGuest,
    /// It is an LPI, which has no active state (IHI 0069, "LPIs").
    Message,
}

fn take(intid: u32) -> Served {
    let cpu = cpu::this();
    cpu.in_interrupt.set(true);
    let served = serve(intid);
    cpu.in_interrupt.set(false);
    served
}

fn serve(intid: u32) -> Served {
    match intid {
        SGI_RESCHEDULE => cpu::this().need_reschedule.set(true),
        SGI_KICK => {}
        _ if intid == PRIVATE.timer.load(Ordering::Relaxed) => thread::timer_fired(),
        _ if intid == PRIVATE.maintenance.load(Ordering::Relaxed) => vcpu::maintenance(),
        _ => return serve_device(intid),
    }
    Served::Completely
}

/// What does not come with every turn of a thread. Out of line: its registers would have to be saved for the timer too.
#[inline(never)]
fn serve_device(intid: u32) -> Served {
    match intid {
        SGI_STOP => panic::stop_here(),
        lpis::FIRST.. => {
            messages::interrupt(intid);
            return Served::Message;
        }
        _ if intid == PRIVATE.monitors.load(Ordering::Relaxed) => {
            return if vcpu::is_counting() { Served::OfMonitors } else { Served::Completely };
        }
        _ if intid == CONSOLE_INTID.load(Ordering::Relaxed) => console::input_ready(),
        // All have a look: they may share it.
        _ if disk::interrupt(IntId(intid)) | uplink::interrupt(IntId(intid)) | smmuman::interrupt(IntId(intid)) => {}
        _ => match passed::interrupt(IntId(intid)) {
            Some(true) => return Served::ByGuest,
            Some(false) => {}
            None => disable(IntId(intid)),
        },
    }
    Served::Completely
}

/// An interrupt that nobody has asked for: it must not come again, whatever left it enabled.
#[cold]
fn disable(intid: IntId) {
    let outcome = if intid.is_private() {
        // SAFETY: this CPU's own, with interrupts masked.
        unsafe { &mut *cpu::this().private_interrupts.get() }.as_mut().map(|private| private.disable(intid))
    } else {
        DISTRIBUTOR.lock().as_mut().map(|distributor| distributor.disable(intid))
    };
    match outcome {
        Some(Err(error)) => log::error!("interrupt {} has no owner and cannot be disabled: {error}", intid.0),
        _ => log::warn!("interrupt {} has no owner; disabled", intid.0),
    }
}

/// An interrupt that came while EL2 ran a host thread.
#[unsafe(no_mangle)]
extern "C" fn kernel_irq() {
    if cpu::this().is_traced() {
        trace::interrupt();
    }
    handle();
    thread::preempt_if_needed();
}

#[inline(always)]
fn send(sgi: u32, target: &PerCpu) {
    match if controller::is_v2() { controller::cpu_interface() } else { None } {
        None => physical::send_sgi(sgi, target.mpidr),
        Some(interface) => interface.send_sgi(sgi, target.interface.load(Ordering::Relaxed)),
    }
}

/// Makes a CPU look for a more important thread.
pub(crate) fn request_reschedule(target: CpuId) {
    let here = cpu::this();
    if target == here.id {
        here.need_reschedule.set(true);
    } else if let Some(cpu) = cpu::of(target) {
        send(SGI_RESCHEDULE, cpu);
    }
}

/// Brings a CPU out of its guest.
#[inline(always)]
pub(crate) fn kick(target: CpuId) {
    if let Some(cpu) = cpu::of(target) {
        send(SGI_KICK, cpu);
    }
}

/// Stops all other CPUs for good.
pub(crate) fn stop_others() {
    let here = cpu::this().id;
    for other in cpu::online().filter(|cpu| cpu.id != here) {
        send(SGI_STOP, other);
    }
}
