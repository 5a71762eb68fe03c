//! One SMMU.
//!
//! Answers for: memory for its tables and queues, carrying procedures out. Does not answer for: whose streams are (`streams`), events
//! (`faults`), which steps a procedure has (`smmu`), the thread (`smmuman`).

mod faults;
mod streams;

pub(super) use streams::{Reach, Wish};

use super::{configure, ticks};
use crate::frames::{self, Owner as Frames};
use crate::interrupt;
use crate::start;
use crate::sync::{Lock, Rank};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use arrayvec::ArrayVec;
use core::sync::atomic::{AtomicBool, Ordering};
use drivers::smmuv3::{Smmuv3, Switch};
use host::shell::report::{SmmuInfo, StreamInfo};
use smmu::{
    Count, Features, Geometry, Layout, Owner, Procedure, Progress, REGISTERS_LENGTH, Smmu, Streams, Tally, Walks,
};
use types::{IntId, Ipa, PAGE_SIZE, Pa, Range};

/// How long an SMMU may take for a step, in microseconds.
const PATIENCE: u64 = 100_000;
/// How long it may take to forget translations, in microseconds: meanwhile a CPU takes no interrupts.
const SHORT_PATIENCE: u64 = 10_000;
/// Queues of a page: 256 commands, 128 events.
const COMMAND_BITS: u8 = 8;
const EVENT_BITS: u8 = 7;
/// What follows where there is nobody to speak to.
const LEFT_ALONE: &str = "It is left alone: DMA from behind it may pass";

/// One that has started.
struct Working {
    driver: Smmuv3,
    smmu: Smmu,
    streams: Streams,
    /// Those that VMs have put behind SMMUs of their own.
    nested: Vec<u32>,
    tally: Tally,
    /// How often events could not be written, which an SMMU may say in place of an overflow (IHI 0070, 6.3.17: `EVENTQ_ABT_ERR`).
    unwritten: u64,
    /// How often events were lost, as far as it has been told of.
    lost: Count,
}

enum Stage {
    Working(Box<Working>),
    /// It is never used again; why.
    Useless(String),
}

/// An SMMU of the machine.
pub(super) struct Unit {
    number: usize,
    at: Pa,
    interrupts: ArrayVec<IntId, 3>,
    has_interrupts: bool,
    /// If it has been started.
    switch: Option<Switch>,
    is_coherent: bool,
    /// It has been closed while a VM's memory changed, and nobody has been told of that yet.
    has_news: AtomicBool,
    stage: Lock<Stage>,
}

impl Unit {
    /// Starts it, with every stream refused; or closes it, if it cannot be used, and says so. `highest` is the last stream that the
    /// device tree has something behind.
    pub(super) fn begin(number: usize, description: &machine::Smmu, highest: u32) -> Self {
        let at = description.registers.start();
        let name = format!("smmu{number} at {at}");
        let (mut switch, mut is_coherent) = (None, true);
        let stage = match Working::begin(description, highest) {
            Ok(working) => {
                switch = Some(working.driver.switch());
                is_coherent = working.smmu.features().coherent;
                let bits = working.smmu.geometry().bits();
                log::info!("{name}: SMMUv3 with stage 2, {} streams, all refused", 1_u64 << bits);
                Stage::Working(Box::new(working))
            }
            Err(why) => {
                log::error!("{name} is not used: {why}. No device behind it can be given to a VM");
                Stage::Useless(why)
            }
        };
        let wires = [description.eventq, description.gerror, description.combined];
        let has_interrupts = description.combined.is_some() || description.eventq.is_some();
        let interrupts = wires.into_iter().flatten().collect();
        let (has_news, stage) = (AtomicBool::new(false), Lock::new(Rank::Smmus, stage));
        Self { number, at, interrupts, has_interrupts, switch, is_coherent, has_news, stage }
    }

    pub(super) fn works(&self) -> bool {
        matches!(&*self.stage.lock(), Stage::Working(_))
    }

    /// Whether it reads tables through the CPUs' caches, or does not read any.
    pub(super) const fn is_coherent(&self) -> bool {
        self.is_coherent
    }

    /// What keeps `stream` from being given to anybody, if something does.
    pub(super) fn flaw(&self, stream: u32) -> Option<String> {
        match &*self.stage.lock() {
            Stage::Working(working) if working.smmu.geometry().has(stream) => None,
            Stage::Working(working) => {
                let bits = working.smmu.geometry().bits();
                Some(format!("smmu{} has no stream {stream:#x}: there are {}", self.number, 1_u64 << bits))
            }
            Stage::Useless(why) => Some(format!("smmu{} at {} is not used: {why}", self.number, self.at)),
        }
    }

    /// Whether it says by itself that something has happened.
    pub(super) const fn has_interrupts(&self) -> bool {
        self.has_interrupts
    }

    pub(super) fn has_interrupt(&self, intid: IntId) -> bool {
        self.interrupts.contains(&intid)
    }

    /// Lets its interrupts come. Its wires carry pulses (IHI 0070, 3.18).
    pub(super) fn listen(&self) {
        if self.works() {
            self.interrupts.iter().for_each(|intid| interrupt::enable_as(*intid, true));
        }
    }

    /// Nothing behind it does DMA any more, soon. Takes no lock.
    pub(super) fn turn_off(&self) {
        if let Some(switch) = self.switch {
            switch.off();
        }
    }

    /// Does something with it, if it works.
    fn with<R>(&self, work: impl FnOnce(&mut Working) -> Result<R, String>) -> Result<R, String> {
        match &mut *self.stage.lock() {
            Stage::Working(working) => work(working),
            Stage::Useless(why) => Err(why.clone()),
        }
    }

    /// Carries a procedure out, and waits for that. Others may have the SMMU meanwhile; it is abandoned, and that is said by `false`, when
    /// another one has begun to change the same stream.
    fn carry_out(&self, procedure: &mut Procedure) -> Result<bool, String> {
        let begun = el2::cpu::counter();
        let mut is_first = true;
        loop {
            let progress = self.with(|working| {
                let Working { smmu, driver, streams, .. } = working;
                let is_current = streams.is_current(procedure);
                Ok(is_current.then(|| smmu.advance(procedure, el2::cpu::counter(), driver)))
            });
            match progress? {
                None => return Ok(false),
                Some(Progress::Done) => break,
                Some(Progress::Failed(_)) if is_first && procedure.again() => is_first = false,
                Some(Progress::Failed(trouble)) => return Err(trouble.to_string()),
                Some(Progress::Waiting) => el2::cpu::relax(),
            }
        }
        if configure::rules().debug > 1 {
            let took = el2::cpu::counter().saturating_sub(begun);
            log::info!("smmu{}: {} steps in {} ticks", self.number, procedure.steps().len(), took.0);
        }
        Ok(true)
    }

    /// Makes it forget translations of `range` for the VM `vmid`, which have been taken out of its tables. Says whether it has; if not,
    /// it is closed. With the lock of a VM's tables held.
    pub(super) fn forget(&self, vmid: u16, range: Range<Ipa>, walks: Walks) -> bool {
        let limit = el2::cpu::counter().saturating_add(ticks(SHORT_PATIENCE));
        let Ok(mut procedure) = self.with(|working| Ok(working.smmu.invalidate(vmid, range, walks))) else {
            return false;
        };
        let mut is_first = true;
        loop {
            let now = el2::cpu::counter();
            let progress = self.with(|working| Ok(working.smmu.advance(&mut procedure, now, &mut working.driver)));
            match progress {
                Ok(Progress::Done) => return true,
                Ok(Progress::Waiting) if now < limit => el2::cpu::relax(),
                Ok(Progress::Waiting) => {
                    self.close("it did not forget translations in time");
                    return false;
                }
                // What was not taken may have been somebody else's command.
                Ok(Progress::Failed(_)) if is_first && procedure.again() => is_first = false,
                Ok(Progress::Failed(trouble)) => {
                    self.close(&trouble.to_string());
                    return false;
                }
                Err(_) => return false,
            }
        }
    }

    /// It is not used any more: nothing behind it does DMA, soon. What is told of that is told later.
    fn close(&self, why: &str) {
        self.turn_off();
        *self.stage.lock() = Stage::Useless(format!("{why}; it is closed"));
        self.has_news.store(true, Ordering::SeqCst);
    }

    pub(super) fn report(&self) -> SmmuInfo {
        let (mut events, mut lost, mut others, mut streams) = (0, 0, 0, Vec::new());
        let about = match &*self.stage.lock() {
            Stage::Useless(why) => format!("at {}, not used: {why}", self.at),
            Stage::Working(working) => {
                (events, lost) = (working.smmu.events.recorded(), working.lost());
                others = working.tally.others();
                streams = working.report();
                format!("at {}, {} streams", self.at, 1_u64 << working.smmu.geometry().bits())
            }
        };
        SmmuInfo { name: format!("smmu{}", self.number), about, events, lost, streams, others }
    }
}

impl Working {
    /// # Errors
    /// Why it cannot be used, and whether it is closed.
    fn begin(description: &machine::Smmu, highest: u32) -> Result<Self, String> {
        // There may be more behind, which is not used.
        let registers = Range::new(description.registers.start(), REGISTERS_LENGTH);
        let Some(registers) = registers.filter(|_| description.registers.length() >= REGISTERS_LENGTH) else {
            return Err(format!("its registers, {}, are too few. {LEFT_ALONE}", description.registers));
        };
        if !start::try_map_device(registers) {
            return Err(format!("its registers, {registers}, overlap something else. {LEFT_ALONE}"));
        }
        // SAFETY: an SMMUv3 by the device tree, mapped just now for good, and each is begun with once.
        let driver = unsafe { Smmuv3::new(&registers, description.is_coherent) };
        let mut driver = driver.filter(Smmuv3::answers).ok_or("it does not answer")?;
        let begun = begin_with(&mut driver, highest);
        match begun {
            Ok(smmu) => {
                let (streams, tally, lost) = (Streams::new(), Tally::default(), Count::default());
                Ok(Self { driver, smmu, streams, nested: Vec::new(), tally, unwritten: 0, lost })
            }
            Err(why) => {
                let deadline = el2::cpu::counter().saturating_add(ticks(PATIENCE));
                Err(match smmu::close(&mut driver, el2::cpu::counter, deadline) {
                    Ok(()) => format!("{why}. It is closed: no device behind it does DMA"),
                    Err(trouble) => format!("{why}. Nor can it be closed ({trouble}): DMA from behind it may pass"),
                })
            }
        }
    }

    /// How often events were lost.
    fn lost(&self) -> u64 {
        self.smmu.events.overflows().saturating_add(self.unwritten)
    }

    /// The streams that there is something to say of.
    fn report(&self) -> Vec<StreamInfo> {
        let events = |stream| self.tally.streams().find(|(other, _)| *other == stream).map_or(0, |(_, events)| events);
        let known = self.streams.known().map(|(stream, device, owner)| {
            // A line has 80 columns, and names are long: what matters comes before the VM's.
            let about = match owner {
                // It stays the VM's until its end.
                Some(Owner { name, .. }) if self.streams.is_closing(stream) => {
                    format!("{device}: cut off, VM `{name}`")
                }
                None => format!("{device}: refused"),
                Some(Owner { name, .. }) if self.nested.contains(&stream) => {
                    format!("{device}: behind VM `{name}`'s SMMU")
                }
                Some(Owner { name, .. }) if self.streams.is_passed(stream) => format!("{device}: VM `{name}`'s"),
                Some(Owner { name, vmid: 0 }) => format!("{device}: let through by {name}"),
                Some(Owner { name, .. }) => format!("{device}: confined by {name}"),
            };
            StreamInfo { stream, events: events(stream), about }
        });
        let unknown = self.tally.streams().filter(|(stream, _)| self.streams.who(*stream).is_none());
        let unknown = unknown.map(|(stream, events)| StreamInfo { stream, events, about: "nobody's: refused".into() });
        known.chain(unknown).collect()
    }
}

/// Gives it memory, and starts it.
fn begin_with(driver: &mut Smmuv3, highest: u32) -> Result<Smmu, String> {
    let features = driver.features().map_err(|unfit| unfit.to_string())?;
    let geometry = Geometry::for_machine(highest, &features);
    let command_bits = features.command_queue_bits.min(COMMAND_BITS);
    if command_bits == 0 {
        return Err("its command queue has room for one command (IDR1.CMDQS is 0)".into());
    }
    let layout = Layout {
        geometry,
        table: share(driver, geometry.bytes(), &features)?,
        command_queue: share(driver, PAGE_SIZE, &features)?,
        command_bits,
        event_queue: share(driver, PAGE_SIZE, &features)?,
        event_bits: features.event_queue_bits.min(EVENT_BITS),
        patience: ticks(PATIENCE),
    };
    let mut smmu = Smmu::new(features, layout);
    let mut procedure = smmu.start();
    loop {
        match smmu.advance(&mut procedure, el2::cpu::counter(), driver) {
            Progress::Done => return Ok(smmu),
            Progress::Failed(trouble) => return Err(format!("it does not start: {trouble}")),
            Progress::Waiting => el2::cpu::relax(),
        }
    }
}

/// Memory of so many bytes, a power of two, and aligned to that, for good.
fn share(driver: &mut Smmuv3, bytes: u64, features: &Features) -> Result<Pa, String> {
    let pages = bytes.div_ceil(PAGE_SIZE) as usize;
    let frames = frames::allocate(pages, pages, Frames::Kernel)
        .ok_or_else(|| format!("there are no {} KiB of memory for its tables", bytes >> 10))?;
    if (frames.range().end().0 - 1) >> features.address_bits != 0 {
        return Err(format!("it does not reach memory at {} (IDR5.OAS)", frames.start()));
    }
    let memory = frames.leak();
    // SAFETY: RAM that the frame allocator has given out and never gets back, mapped where it is.
    unsafe { driver.share(memory) };
    Ok(memory.start())
}
