//! Messages of the machine's devices, for VMs.
//!
//! Answers for: starting the machine's ITSs and the LPIs of all CPUs, giving vectors to passed functions, and handing what comes to the VM
//! whose it is, at a bounded rate. Does not answer for: commands, tables and their order (`its`), one ITS (`unit`), which LPI is whose
//! (`routes`), which device a VM has, and how its guest takes an interrupt (`vgic`).
//!
//! An LPI comes on some CPU, in whoever's thread. It has no active state, so it is over when it has been acknowledged; that it came
//! is noted in the VM's partition, and one of its vCPUs gives the guest's controller the message that the guest's driver has written.
//! From then on that LPI comes to the CPU where that happened. See docs/design/041-messages.md.

mod routes;
mod unit;

use crate::compartment::{Compartment, kernel_work};
use crate::frames::Frames;
use crate::sync::{Lock, Rank};
use crate::{controller, cpu, interrupt};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use host::shell::report::{ItsInfo, SenderInfo};
use its::{Event, lpis};
use machine::{Machine, MessageTarget};
pub(crate) use routes::MOST;
use routes::{Place, Routes, Slot, WINDOWS, Window, lpi};
use spin::Once;
use types::{CpuId, IntId, Ipa, Pa, RequesterId, Ticks, VmId};
use unit::{Common, Unit};

/// How many messages a VM gets in a period, and how long that is, in microseconds: 100,000 in a second. One that comes beyond is held at
/// the ITS, pending, until the period is over.
const MOST_IN_PERIOD: u32 = 1000;
const PERIOD: u64 = 10_000;

/// So many that were held come again while others wait for the lock: each takes a command, which the ITS has to see.
const MOST_AT_ONCE: usize = 16;

/// In the order of the device tree. There from before the first VM on.
static UNITS: Once<Vec<Unit>> = Once::new();

/// Which CPU has which collection, in the order of these.
static CPUS: Once<Vec<CpuId>> = Once::new();

static ROUTES: Lock<Routes> = Lock::new(Rank::Messages, Routes::new());

fn units() -> &'static [Unit] {
    UNITS.get().map_or(&[], Vec::as_slice)
}

/// [`PERIOD`] in ticks.
fn period() -> Ticks {
    static TICKS: Once<Ticks> = Once::new();
    *TICKS.call_once(|| ticks(PERIOD))
}

fn ticks(microseconds: u64) -> Ticks {
    el2::cpu::counter_frequency().map_or(Ticks(0), |frequency| frequency.microseconds(microseconds))
}

/// What the guest's driver has written for a vector: what a virtual function would send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct GuestMessage {
    /// Who the function is on the guest's bus.
    pub(crate) requester: Option<RequesterId>,
    /// Where it stores.
    pub(crate) address: Ipa,
    /// What.
    pub(crate) data: u32,
}

/// What a vector is to its guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// This.
    Message(GuestMessage),
    /// What the guest's driver has written for this one of a function of the VM's. That is behind a lock of the VM's, for which nobody
    /// waits who holds one of ours.
    Function {
        /// Which of the VM's functions.
        function: usize,
        /// Which of its messages.
        vector: usize,
    },
}

/// Starts all ITSs, and the LPIs of all CPUs, if there is something that sends messages. Once, on the boot CPU, when the others are
/// there, and before there are other threads.
pub(crate) fn initialise(machine: &Machine) {
    if machine.its.is_empty() {
        return;
    }
    let prepared = prepare(machine);
    let units = machine.its.iter().enumerate().map(|(number, description)| {
        let named = machine.senders.iter().flat_map(|sender| {
            let own = sender.targets.iter().filter(|target| target.its == number).map(|target| target.device);
            own.chain(sender.functions.as_ref().and_then(|functions| functions.highest(number)))
        });
        match (named.max(), &prepared) {
            (None, _) => Unit::begin(number, description, 0, Err("nothing sends messages to it".into())),
            (Some(_), Err(why)) => Unit::begin(number, description, 0, Err(why.clone())),
            (Some(highest), Ok((configuration, targets, is_past_caches))) => {
                let (configuration, is_past_caches) = (*configuration, *is_past_caches);
                Unit::begin(number, description, highest, Ok(&Common { configuration, targets, is_past_caches }))
            }
        }
    });
    let units = units.collect();
    UNITS.call_once(|| units);
}

/// The LPIs of all CPUs: where their configuration is, how an ITS names the redistributors, and whether these read past the caches.
type Prepared = (types::Range<Pa>, Vec<lpis::Target>, bool);

/// # Errors
/// Why there cannot be any.
fn prepare(machine: &Machine) -> Result<Prepared, String> {
    if machine.senders.is_empty() {
        return Err("nothing sends messages".into());
    }
    if interrupt::lpis() < MOST as u32 {
        return Err("the distributor has no LPIs (GICD_TYPER)".into());
    }
    let (mut frames, mut targets, mut cpus) = (Vec::new(), Vec::new(), Vec::new());
    let deadline = el2::cpu::counter().saturating_add(ticks(PERIOD));
    for cpu in cpu::online() {
        let (mut frame, at) = controller::lpis_of(machine, cpu).map_err(|error| error.to_string())?;
        let target = lpis::prepare(&mut frame, at, el2::cpu::counter, deadline);
        targets.push(target.map_err(|unfit| format!("{}: {unfit}", cpu.id))?);
        frames.push(frame);
        cpus.push(cpu.id);
    }
    let (configuration, pending) = unit::tables(frames.len())?;
    let mut memory = drivers::gicv3_its::SharedMemory::default();
    for ((mut frame, pending), id) in frames.into_iter().zip(pending).zip(&cpus) {
        lpis::enable(&mut frame, &mut memory, [configuration.start(), pending])
            .map_err(|unfit| format!("{id}: {unfit}"))?;
    }
    CPUS.call_once(|| cpus);
    Ok((configuration, targets, memory.is_past_caches()))
}

/// The collection whose LPIs come to this CPU.
fn collection_here() -> u16 {
    let here = cpu::this().id;
    CPUS.get().and_then(|cpus| cpus.iter().position(|id| *id == here)).unwrap_or(0) as u16
}

/// What keeps messages to this ITS from being taken, if something does.
pub(crate) fn flaw(its: usize) -> Option<String> {
    match units().get(its) {
        Some(unit) => unit.flaw(),
        None if controller::is_v2() => Some("the machine's GICv2 takes no messages".into()),
        None => Some("the machine has no ITS".into()),
    }
}

/// Vectors of one function. Dropping them closes them: when that is over, no LPI of theirs comes any more.
pub(crate) struct Vectors {
    unit: &'static Unit,
    device: u32,
    window: usize,
    first: usize,
    count: usize,
    /// The table of the device's events.
    table: Option<Frames>,
}

impl Vectors {
    /// `count` vectors, 1 to 256, for the function that sends to `target`, which is passed to the VM of `compartment`. Waits for the
    /// ITS; interrupts are not masked.
    ///
    /// # Errors
    /// If there is no room, or there are no messages, or the function has vectors already: what, by name.
    pub(crate) fn open(target: MessageTarget, count: usize, compartment: &'static Compartment) -> Result<Self, String> {
        let Some(unit) = units().get(target.its).filter(|unit| unit.flaw().is_none()) else {
            return Err(flaw(target.its).unwrap_or_default());
        };
        if count == 0 || count > MOST {
            return Err(format!("{count} vectors: 1 to {MOST} are possible"));
        }
        let (collection, lpis) = (collection_here(), interrupt::lpis());
        kernel_work(|| {
            let slot = |n: usize| Slot {
                its: unit.number,
                event: Event { device: target.device, event: n as u32 },
                collection,
                to: None,
                is_held: false,
                arrived: 0,
            };
            let (window, first) = ROUTES.lock().take(compartment, lpis, count, slot)?;
            match unit.map(target.device, count as u32, lpi(window, first), collection) {
                Ok(table) => Ok(Self { unit, device: target.device, window, first, count, table: Some(table) }),
                Err(why) => {
                    ROUTES.lock().give_back(window, first, count, unit.flaw().is_some());
                    Err(why)
                }
            }
        })
    }

    /// How many there are.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Address and data that the function is to have for vector `n`.
    pub(crate) fn message(&self, n: usize) -> Option<(Pa, u32)> {
        (n < self.count).then(|| (self.unit.translater(), n as u32))
    }

    /// Where vector `n` goes from now on. `None`: nowhere; what comes is dropped, and counted.
    pub(crate) fn route(&self, n: usize, to: Option<Way>) {
        if n >= self.count {
            return;
        }
        let mut routes = ROUTES.lock();
        if let Some(slot) = routes.window(self.window).and_then(|window| window.slot(self.first + n)) {
            slot.to = to;
        }
    }

    /// Has the ITS raise vector `n`, as if the function had sent it. Says whether it was told.
    pub(crate) fn raise(&self, n: usize) -> bool {
        n < self.count && self.unit.raise(Event { device: self.device, event: n as u32 })
    }
}

impl Drop for Vectors {
    fn drop(&mut self) {
        kernel_work(|| {
            let unmapped = self.unit.unmap(self.device, self.count as u32);
            if let Err(why) = &unmapped {
                log::error!("the vectors of DeviceID {:#x} cannot be taken back: {why}", self.device);
                // The ITS may still write there.
                let _lost = self.table.take().map(Frames::leak);
            }
            ROUTES.lock().give_back(self.window, self.first, self.count, unmapped.is_err());
        });
    }
}

/// An LPI has come, and is over. Waits for nothing of a VM's, and needs no memory.
pub(crate) fn interrupt(intid: u32) {
    // Held to the end: as long as it is, the VM is there.
    let mut routes = ROUTES.lock();
    if !routes.find(intid).is_some_and(|(window, place)| arrive(window, place, IntId(intid))) {
        routes.dropped += 1;
    }
}

/// Says whether there is somebody for it.
fn arrive(window: &mut Window, place: usize, lpi: IntId) -> bool {
    let Some(partition) = window.compartment.and_then(Compartment::partition) else { return false };
    let is_too_much = window.count(el2::cpu::counter(), period());
    let Some(slot) = window.slot(place) else { return false };
    slot.arrived += 1;
    let has_way = slot.to.is_some();
    if is_too_much && !slot.is_held && units().get(slot.its).is_some_and(|unit| unit.enable(slot.event, lpi, false)) {
        slot.is_held = true;
        if window.note_held(period()) {
            let most = MOST_IN_PERIOD * (1_000_000 / PERIOD as u32);
            log::warn!(target: partition.vm.origin(), "passed functions send more than {most} messages in a second: they are held");
        }
        partition.notify_worker();
    }
    if has_way {
        partition.message_arrived(place);
    }
    has_way
}

/// The VM is no more. What is still there of its vectors, which should have been closed, goes nowhere.
pub(crate) fn end(owner: VmId) {
    if let Some((_, window)) = ROUTES.lock().of(owner) {
        log::error!("vectors of a passed function have not been closed");
        window.abandon();
    }
}

/// What is to be told to the guest of `owner`, whose vector `number` has come. The next one comes to this CPU.
pub(crate) fn taken(owner: VmId, number: usize) -> Option<Way> {
    let here = collection_here();
    let mut routes = ROUTES.lock();
    let (_, window) = routes.of(owner)?;
    let slot = window.slot(number)?;
    if slot.collection != here && units().get(slot.its).is_some_and(|unit| unit.send_to(slot.event, here)) {
        slot.collection = here;
    }
    slot.to
}

/// Lets those come again that have come too often, if it is time; of many only some, and the others with the next call. When that is, if
/// there are any.
pub(crate) fn release(owner: VmId) -> Ticks {
    let mut routes = ROUTES.lock();
    let Some((number, window)) = routes.of(owner).filter(|(_, window)| window.held > 0) else { return Ticks::NEVER };
    let now = el2::cpu::counter();
    if now < window.held_until {
        return window.held_until;
    }
    let held = window.places.iter_mut().enumerate().skip(window.next).filter_map(|(place, it)| match it {
        Place::Used(slot) if slot.is_held => Some((place, slot)),
        _ => None,
    });
    for (count, (place, slot)) in held.enumerate() {
        if count == MOST_AT_ONCE {
            window.next = place;
            return now;
        }
        let lpi = lpi(number, place);
        if units().get(slot.its).is_some_and(|unit| unit.enable(slot.event, lpi, true)) {
            slot.is_held = false;
            window.held -= 1;
        }
    }
    window.next = 0;
    window.held_until = now.saturating_add(period());
    if window.held == 0 { Ticks::NEVER } else { window.held_until }
}

/// All of them, and how many LPIs were nobody's or had no way to a guest.
pub(crate) fn report() -> (Vec<ItsInfo>, u64) {
    let (mut senders, dropped): (Vec<(usize, SenderInfo)>, u64) = (Vec::new(), ROUTES.lock().dropped);
    for number in 0..WINDOWS {
        let mut routes = ROUTES.lock();
        let Some(window) = routes.window(number) else { continue };
        let about = window.compartment.map(|compartment| compartment.qvm.name.clone()).unwrap_or_default();
        for slot in window.slots() {
            let (device, messages) = (slot.event.device, slot.arrived);
            match senders.iter_mut().find(|(its, info)| (*its, info.device) == (slot.its, device)) {
                Some((_, info)) => (info.vectors, info.messages) = (info.vectors + 1, info.messages + messages),
                None => senders.push((slot.its, SenderInfo { device, vectors: 1, messages, about: about.clone() })),
            }
        }
    }
    let units = units().iter().map(|unit| {
        let own = senders.iter().filter(|(its, _)| *its == unit.number);
        let (name, about) = (format!("its{}", unit.number), unit.about());
        ItsInfo { name, about, senders: own.map(|(_, info)| info.clone()).collect() }
    });
    (units.collect(), dropped)
}
