//! One ITS of the machine.
//!
//! Answers for: memory for its tables, carrying procedures out, and giving it up when it does not do what it is told. Does not answer for:
//! which steps a procedure has (`its`), whose an LPI is (`messages`).

use super::ticks;
use crate::frames::{self, Frames, Owner};
use crate::start;
use crate::sync::{Lock, Rank};
use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use drivers::gicv3_its::Its as Driver;
use its::lpis::{self, Target};
use its::{
    Event, Features, Its, Kind, Layout, Procedure, Progress, QUEUE_BYTES, REGISTERS_LENGTH, TRANSLATER_OFFSET, Table,
    Trouble,
};
use types::{IntId, PAGE_SIZE, Pa, Range};

/// How long an ITS may take for a procedure, in microseconds.
const PATIENCE: u64 = 100_000;

/// One that has started.
struct Working {
    driver: Driver,
    its: Its,
    /// Who has events.
    devices: Vec<u32>,
    /// Why it is not used any more.
    trouble: Option<Trouble>,
}

enum Stage {
    Started(Box<Working>),
    /// It is never used; why.
    Useless(String),
}

/// An ITS of the machine.
pub(super) struct Unit {
    pub(super) number: usize,
    pub(super) at: Pa,
    stage: Lock<Stage>,
}

/// What all ITSs and redistributors share.
pub(super) struct Common<'a> {
    pub(super) configuration: Range<Pa>,
    pub(super) targets: &'a [Target],
    pub(super) is_past_caches: bool,
}

impl Unit {
    /// Turns an ITS off, whatever firmware has left to it, and then on again if there is something for it to do: `common`, or why there
    /// is not. `highest` is the last DeviceID that the device tree names.
    pub(super) fn begin(
        number: usize,
        description: &machine::Its,
        highest: u32,
        common: Result<&Common<'_>, String>,
    ) -> Self {
        let at = description.registers.start();
        let stage = match Working::begin(description, highest, common) {
            Ok(working) => Stage::Started(Box::new(working)),
            Err(why) => {
                log::warn!("its{number} at {at} is not used: {why}");
                Stage::Useless(why)
            }
        };
        Self { number, at, stage: Lock::new(Rank::Its, stage) }
    }

    /// What keeps it from being used, if something does.
    pub(super) fn flaw(&self) -> Option<String> {
        self.with(|_| Ok(())).err()
    }

    /// Where it is, and why it is not used, if it is not.
    pub(super) fn about(&self) -> String {
        let name = format!("its{} ", self.number);
        self.flaw().map_or_else(|| format!("at {}", self.at), |flaw| flaw.replacen(&name, "", 1))
    }

    /// Where devices store their EventIDs.
    pub(super) const fn translater(&self) -> Pa {
        Pa(self.at.0 + TRANSLATER_OFFSET)
    }

    /// Does something with it, if it works.
    fn with<R>(&self, work: impl FnOnce(&mut Working) -> Result<R, String>) -> Result<R, String> {
        let name = |why: &dyn fmt::Display| format!("its{} at {} is not used: {why}", self.number, self.at);
        match &mut *self.stage.lock() {
            Stage::Useless(why) => Err(name(why)),
            Stage::Started(working) => match working.trouble {
                Some(trouble) => Err(name(&trouble)),
                None => work(working),
            },
        }
    }

    /// It is not used any more. What has come to be pending still comes. Needs no memory.
    fn fail(&self, trouble: Trouble) {
        let mut stage = self.stage.lock();
        if let Stage::Started(working) = &mut *stage
            && working.trouble.is_none()
        {
            working.trouble = Some(trouble);
            working.driver.turn_off();
            log::error!(
                "its{} at {} has failed: {trouble}. No device behind it interrupts any more",
                self.number,
                self.at
            );
        }
    }

    /// Carries a procedure out, and waits for that. Others may have the ITS meanwhile.
    fn carry_out(&self, mut procedure: Procedure) -> Result<(), String> {
        loop {
            let progress = self.with(|working| {
                let Working { its, driver, .. } = working;
                Ok(its.advance(&mut procedure, el2::cpu::counter(), driver))
            });
            match progress? {
                Progress::Done => return Ok(()),
                Progress::Failed(trouble) => {
                    self.fail(trouble);
                    return Err(format!("its{} at {} has failed: {trouble}", self.number, self.at));
                }
                Progress::Waiting => el2::cpu::relax(),
            }
        }
    }

    /// Gives `device` events 0 to `count` - 1, which become the LPIs from `first` on, in the memory that comes back.
    ///
    /// # Errors
    /// If the device has events already or cannot have them; or the ITS fails.
    pub(super) fn map(&self, device: u32, count: u32, first: IntId, collection: u16) -> Result<Frames, String> {
        let (bytes, lacking) = self.with(|working| {
            if !working.its.has(device) {
                return Err(format!("its{} has no room for DeviceID {device:#x}", self.number));
            }
            if working.devices.contains(&device) {
                return Err(format!("DeviceID {device:#x} of its{} has vectors already", self.number));
            }
            let bytes = working.its.events_bytes(count);
            let bytes =
                bytes.ok_or_else(|| format!("its{} has no room for {count} events of a device", self.number))?;
            working.devices.push(device);
            Ok((bytes, working.its.lacks_leaf(device)))
        })?;
        let mapped = self.map_with(device, (count, first, collection), bytes, lacking);
        if mapped.is_err() {
            self.forget(device);
        }
        mapped
    }

    fn map_with(
        &self,
        device: u32,
        (count, first, collection): (u32, IntId, u16),
        bytes: u64,
        lacking: Option<u64>,
    ) -> Result<Frames, String> {
        if let Some(bytes) = lacking {
            let page = allocate(bytes)?;
            let is_used = self.with(|working| {
                let Working { its, driver, .. } = working;
                Ok(its.give_leaf(device, page.start(), driver))
            })?;
            // Another device's may have been first: then it is given back.
            if is_used {
                page.leak();
            }
        }
        let table = allocate(bytes)?;
        let map = self.with(|working| Ok(working.its.map(device, table.start(), count, first, collection)))?;
        match self.carry_out(map) {
            Ok(()) => Ok(table),
            Err(why) => {
                // Nobody knows what it still writes there.
                let _lost = table.leak();
                Err(why)
            }
        }
    }

    /// Takes a device's events away. When this returns none of them comes any more, and their memory is nobody's.
    ///
    /// # Errors
    /// If the ITS has failed: nobody knows then.
    pub(super) fn unmap(&self, device: u32, count: u32) -> Result<(), String> {
        let unmap = self.with(|working| Ok(working.its.unmap(device, count)))?;
        self.carry_out(unmap)?;
        self.forget(device);
        Ok(())
    }

    fn forget(&self, device: u32) {
        // One that has failed is not asked again.
        let _ = self.with(|working| {
            working.devices.retain(|other| *other != device);
            Ok(())
        });
    }

    /// Gives the ITS a command without waiting, and without memory. Says whether it was taken.
    fn post(&self, post: impl FnOnce(&mut Its, &mut Driver) -> Result<bool, Trouble>) -> bool {
        let posted = match &mut *self.stage.lock() {
            Stage::Started(working) if working.trouble.is_none() => post(&mut working.its, &mut working.driver),
            _ => Ok(false),
        };
        posted.unwrap_or_else(|trouble| {
            self.fail(trouble);
            false
        })
    }

    /// Lets the event's LPI come, or not until it is let again. Says whether it is so, soon.
    pub(super) fn enable(&self, event: Event, lpi: IntId, is_enabled: bool) -> bool {
        self.post(|its, driver| its.enable((event, lpi), is_enabled, driver))
    }

    /// Sends the event's LPI to another CPU from now on. Says whether it is so, soon.
    pub(super) fn send_to(&self, event: Event, collection: u16) -> bool {
        self.post(|its, driver| its.send_to(event, collection, driver))
    }

    /// Has the event happen, as if its device had sent it.
    pub(super) fn raise(&self, event: Event) -> bool {
        self.post(|its, driver| its.raise(event, driver))
    }
}

impl Working {
    /// # Errors
    /// Why it cannot be used.
    fn begin(description: &machine::Its, highest: u32, common: Result<&Common<'_>, String>) -> Result<Self, String> {
        // There may be more behind, which is not used.
        let registers = Range::new(description.registers.start(), REGISTERS_LENGTH);
        let registers = registers.filter(|registers| description.registers.contains_range(registers));
        let registers = registers.ok_or("its registers are too few")?;
        if !registers.is_aligned(PAGE_SIZE) || !start::try_map_device(registers) {
            return Err("its registers overlap something else".into());
        }
        let is_coherent = description.is_coherent && common.as_ref().is_ok_and(|common| !common.is_past_caches);
        // SAFETY: what the device tree says of an ITS, mapped just now, and this is its only driver.
        let driver = unsafe { Driver::new(&registers, is_coherent) };
        let mut driver = driver.filter(Driver::answers).ok_or("it does not answer")?;
        let deadline = el2::cpu::counter().saturating_add(ticks(PATIENCE));
        its::close(&mut driver, el2::cpu::counter, deadline).map_err(|unfit| unfit.to_string())?;
        let common = common?;
        let features = Features::of(&mut driver).map_err(|unfit| unfit.to_string())?;
        let last = u32::try_from(common.targets.len()).unwrap_or(u32::MAX).saturating_sub(1);
        let highest = if features.device_bits < 32 { highest.min((1 << features.device_bits) - 1) } else { highest };
        let mut table = |kind, highest| match Table::of(kind, highest, &mut driver) {
            None => Ok(None),
            Some(table) => share(&mut driver, table.bytes().max(table.page_bytes())).map(|at| Some((table, at))),
        };
        let devices = table(Kind::Devices, highest)?;
        let collections = table(Kind::Collections, last)?;
        let layout = Layout {
            devices,
            collections,
            commands: share(&mut driver, QUEUE_BYTES)?,
            configuration: common.configuration.start(),
            targets: common.targets.to_vec(),
            patience: ticks(PATIENCE),
        };
        // SAFETY: the LPIs' configuration, which is the hypervisor's for good; each byte is written by the ITS's side whose LPI it is.
        unsafe { driver.memory().share(common.configuration) };
        let (mut its, mut procedure) = Its::start(features, layout, &mut driver).map_err(|unfit| unfit.to_string())?;
        loop {
            match its.advance(&mut procedure, el2::cpu::counter(), &mut driver) {
                Progress::Done => return Ok(Self { driver, its, devices: Vec::new(), trouble: None }),
                Progress::Failed(trouble) => {
                    driver.turn_off();
                    return Err(format!("it does not start: {trouble}"));
                }
                Progress::Waiting => el2::cpu::relax(),
            }
        }
    }
}

/// Memory of so many bytes, in whole pages, aligned to its size as a power of two, and all zero.
fn allocate(bytes: u64) -> Result<Frames, String> {
    let pages = bytes.div_ceil(PAGE_SIZE).max(1) as usize;
    frames::allocate(pages, pages.next_power_of_two(), Owner::Kernel)
        .map(cleared)
        .ok_or_else(|| format!("there are no {} KiB of memory for tables of an ITS", bytes.div_ceil(1 << 10)))
}

/// Makes memory all zero, in the caches and behind them: an ITS may read past them.
fn cleared(frames: Frames) -> Frames {
    let range = frames.range();
    // SAFETY: RAM that the frame allocator has given out, mapped where it is, and nobody else's.
    unsafe { el2::cache::zero_and_clean(range.start().0 as usize, range.length() as usize) };
    frames
}

/// As `allocate` gives it, shared with the ITS for good.
fn share(driver: &mut Driver, bytes: u64) -> Result<Pa, String> {
    let memory = allocate(bytes)?.leak();
    // SAFETY: RAM that the frame allocator has given out and never gets back, mapped where it is.
    unsafe { driver.memory().share(memory) };
    Ok(memory.start())
}

/// What LPIs need at the redistributors: their configuration, and a table for each CPU.
pub(super) fn tables(cpus: usize) -> Result<(Range<Pa>, Vec<Pa>), String> {
    let configuration = allocate(lpis::CONFIGURATION_BYTES)?.leak();
    let pending = (0..cpus).map(|_| {
        let frames = frames::allocate(1, (lpis::PENDING_ALIGNMENT / PAGE_SIZE) as usize, Owner::Kernel);
        frames
            .map(|frames| cleared(frames).leak().start())
            .ok_or_else(|| "there is no memory for tables of LPIs".into())
    });
    Ok((configuration, pending.collect::<Result<_, String>>()?))
}

const _: () = assert!(lpis::PENDING_BYTES <= PAGE_SIZE && QUEUE_BYTES == PAGE_SIZE);
