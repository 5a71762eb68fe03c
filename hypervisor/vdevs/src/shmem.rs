//! `vdev shmem`: memory that guests share with each other and with the host.
//!
//! Answers for: the two pages of registers by which a guest is attached to named regions and tells their other clients to look,
//! laid out as in the original, so that its guests' drivers work; which names a guest may use. Does not answer for: the memory,
//! and who else is attached to it (the host's, behind [`vdev::SharedMemory`]).
//!
//! The **factory page** is at `loc`, or without that the BAR 0 of a function of the PCI bus, 1c05:0001, whose pin is the interrupt:
//!
//! | offset | bytes | | |
//! |---|---|---|---|
//! | 0x00 | 8 | `signature` | reads 0x4d534732474d5651 |
//! | 0x08 | 8 | `shmem` | where the control page is of the region that was attached last |
//! | 0x10 | 4 | `vector` | the interrupt of all regions; all ones if there is none |
//! | 0x14 | 4 | `status` | what has become of the last store to `size` or `find`: see [`Status`] |
//! | 0x18 | 4 | `size` | pages of 4 KiB; a store attaches to the region `name`, which is made if there is none; reads what it has |
//! | 0x1c | 32 | `name` | of the region, up to a zero byte |
//! | 0x3c | 4 | `find` | a store of N puts name and size of the Nth region there is, of those this guest may have, into `name` and `size` |
//!
//! The **control page** of a region is in the device's window, with the region's memory right behind it:
//!
//! | offset | bytes | | |
//! |---|---|---|---|
//! | 0x0 | 4 | `status` | bits 15 to 0: clients that have told this one to look since it last read this; bits 31 to 16: clients there are |
//! | 0x4 | 4 | `idx` | which client this is |
//! | 0x8 | 4 | `notify` | a store tells these clients to look |
//! | 0xc | 4 | `detach` | a store ends it |
//!
//! The interrupt is level-triggered: it is asserted while a region has something that its `status` has not been read for: who
//! notified, and that clients have come or gone. Stores to `size` and `detach` are complete when it has been done. All access
//! sizes are taken, everywhere. A `size` of zero attaches to what there is and makes nothing; the original says nothing about it.

mod function;
mod pattern;
mod registers;
mod rules;

use crate::shmem::registers::{Control as ControlPage, Factory as FactoryPage, Status, Stored};
use crate::shmem::rules::Rules;
use alloc::{boxed::Box, format, string::String, string::ToString, vec::Vec};
use core::fmt::Write as _;
use log::Level;
use pci::Interrupts;
use types::{AccessSize, IntId, Ipa, PAGE_SIZE, Range};
use vdev::{
    AccessFault, AccessSizes, Attached, Context, Control, ControlError, DEVICE_REGIONS, Factory, FactoryFlags, Node,
    OptionError, OptionKind, OptionSpec, Options, RegionError, RegionName, RegionWishes, Safety, Setup, SharedMemory,
    Trigger, Vdev, Wake,
};

const REGION_SIZE: u64 = PAGE_SIZE;

/// `vdev shmem`.
pub(crate) static FACTORY: Factory = Factory {
    name: "shmem",
    flags: FactoryFlags::LOC_MEM.union(FactoryFlags::LOC_PCI),
    access_sizes: AccessSizes::all(),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    window_size: 16 << 30,
    help: "memory shared with other guests and with the host",
    about: "Named regions, and an interrupt when another client says so. What is in them the\n\
        others have written: trust none of it. `allow` or `deny`, not both.\n\n    \
        vdev shmem loc 0x1c0c0000 intr gic:44 create frames,4M allow frames",
    ..Factory::new(create)
};

const CREATE: &str = "create";
const LIMIT: &str = "limit";

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(CREATE, OptionKind::NamedSize, "a region that there is while the VM lives").repeatable(),
    OptionSpec::new(rules::ALLOW, OptionKind::Text, "the guest may use regions of such names, and no others")
        .repeatable(),
    OptionSpec::new(rules::DENY, OptionKind::Text, "the guest may use all regions but those of such names")
        .repeatable(),
    // QNX: there a guest can take all of the host's memory.
    OptionSpec::new(
        LIMIT,
        OptionKind::Size,
        "most memory of all regions that are made because the guest asks for them",
    )
    .default("64M"),
];

struct Shmem {
    name: String,
    /// Where the factory page is, if that does not change.
    location: Option<Ipa>,
    interrupt: Option<IntId>,
    /// On the PCI bus, what its line is told by.
    pin: Option<Interrupts>,
    window: Range<Ipa>,
    rules: Rules,
    shared: Box<dyn SharedMemory>,
    page: FactoryPage,
    /// At most [`DEVICE_REGIONS`].
    regions: Vec<(RegionName, Attached)>,
    /// The region that the guest waits for.
    wanted: Option<RegionName>,
    asserted: bool,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    match setup.connector {
        Some(_) => function::attach(options, setup),
        None => Ok(Box::new(make(options, setup, None)?)),
    }
}

fn make(options: &Options, setup: &mut Setup<'_>, pin: Option<Interrupts>) -> Result<Shmem, OptionError> {
    let Some(window) = setup.window else {
        return Err(OptionError::general("it has nowhere to put regions".to_string()));
    };
    let mut wishes = RegionWishes { limit: options.size(LIMIT).unwrap_or(0) / PAGE_SIZE, create: Vec::new() };
    for (name, size, place) in options.named_sizes(CREATE) {
        let fail = |message| OptionError { option: Some(CREATE), place, message };
        let region = RegionName::new(name.as_bytes())
            .ok_or_else(|| fail(format!("`{name}` cannot name a region: 1 to 32 printing characters")))?;
        let pages = u32::try_from(size.div_ceil(PAGE_SIZE)).ok().filter(|pages| *pages > 0);
        let pages = pages.ok_or_else(|| fail(format!("`{name}` cannot have {size} bytes")))?;
        wishes.create.push((region, pages));
    }
    let (name, location, interrupt) = (setup.name.to_string(), setup.location, setup.interrupt);
    let rules = Rules::read(options)?;
    let shared = setup.shared_memory(wishes)?;
    let page = FactoryPage::new(interrupt);
    let regions = Vec::with_capacity(DEVICE_REGIONS);
    let (wanted, asserted) = (None, false);
    Ok(Shmem { name, location, interrupt, pin, window, rules, shared, page, regions, wanted, asserted })
}

impl Shmem {
    /// The guest has stored to `size`.
    fn attach(&mut self, pages: u32, context: &mut Context<'_>) {
        let Some(name) = RegionName::new(&self.page.name) else {
            return self.page.refuse(Status::IllegalName);
        };
        if !self.rules.allow(name.as_str()) {
            context.log(Level::Warn, format_args!("the guest may not have the region `{name}`"));
            return self.page.refuse(Status::NoPermission);
        }
        if self.shared.attach(name, pages) {
            self.wanted = Some(name);
            context.later();
        } else {
            // Another vCPU is at it.
            self.page.refuse(Status::UnknownFailure);
        }
    }

    fn answer(&mut self, context: &mut Context<'_>) {
        let Some((answer, name)) = self.shared.answer().zip(self.wanted.take()) else { return };
        match answer {
            Ok(attached) => {
                let Attached { client, pages, control, .. } = attached;
                self.regions.push((name, attached));
                self.page.attached(control, pages);
                let message = format_args!("region `{name}`: client {client}, {pages} pages behind {control}");
                context.log(Level::Debug, message);
            }
            Err(error) => {
                let (status, why) = match error {
                    RegionError::NoMemory => (Status::NoMemory, "no memory, or more than its `limit`"),
                    RegionError::TooManyClients => (Status::ClientMax, "too many clients"),
                    RegionError::Missing => (Status::DoesNotExist, "there is none"),
                    RegionError::Failed => (Status::UnknownFailure, "the host has failed"),
                };
                context.log(Level::Warn, format_args!("region `{name}`: {why}"));
                self.page.refuse(status);
            }
        }
    }

    /// The guest has stored to `find`: which of the regions that it may have is that?
    fn find(&mut self, number: u32) {
        let all = (0..).map_while(|number| self.shared.region(number));
        let mut mine = all.filter(|(name, _)| self.rules.allow(name.as_str()));
        let found = usize::try_from(number).ok().and_then(|number| mine.nth(number));
        self.page.found(found);
    }

    /// The region whose control page this is.
    fn region(&self, page: u64) -> Option<Attached> {
        let at = self.window.start().checked_add(page)?;
        self.regions.iter().map(|(_, attached)| *attached).find(|attached| attached.control == at)
    }

    fn update_line(&mut self, context: &mut Context<'_>) {
        let news = self.shared.has_news();
        if news != self.asserted {
            self.asserted = news;
            match &self.pin {
                Some(pin) => pin.set_level(news, context),
                None => context.set_line(news),
            }
        }
    }

    fn leave(&mut self, slot: u8, context: &mut Context<'_>) {
        self.regions.retain(|(_, attached)| attached.slot != slot);
        self.shared.detach(slot);
        context.later();
    }

    /// What is behind the factory page is in the window: a page of it, and the offset in that.
    const fn in_window(offset: u64) -> Option<(u64, u64)> {
        match offset.checked_sub(REGION_SIZE) {
            Some(offset) => Some((offset & !(PAGE_SIZE - 1), offset & (PAGE_SIZE - 1))),
            None => None,
        }
    }
}

impl Vdev for Shmem {
    fn read(&mut self, offset: u64, size: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        let Some((page, offset)) = Self::in_window(offset) else { return self.page.read(offset, size) };
        let region = self.region(page).ok_or(AccessFault::Unsupported)?;
        let status = if ControlPage::reads_status(offset) { self.shared.look(region.slot) } else { 0 };
        self.update_line(context);
        ControlPage { status, index: region.client }.read(offset, size)
    }

    fn write(
        &mut self,
        offset: u64,
        size: AccessSize,
        value: u64,
        context: &mut Context<'_>,
    ) -> Result<(), AccessFault> {
        let Some((page, offset)) = Self::in_window(offset) else {
            match self.page.write(offset, size, value)? {
                Stored::Size(pages) => self.attach(pages, context),
                Stored::Find(number) => self.find(number),
                Stored::Nothing => {}
            }
            return Ok(());
        };
        let region = self.region(page).ok_or(AccessFault::Unsupported)?;
        if let Some(clients) = ControlPage::notify(offset, value)? {
            self.shared.notify(region.slot, clients);
            context.tell();
        }
        if ControlPage::detaches(offset, size) {
            self.leave(region.slot, context);
            self.update_line(context);
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Reset => {
                let slots: Vec<u8> = self.regions.iter().map(|(_, attached)| attached.slot).collect();
                slots.into_iter().for_each(|slot| self.leave(slot, context));
                self.page = FactoryPage::new(self.interrupt);
                self.update_line(context);
            }
            Control::Status(report) => {
                let mut lines = format!("{}: ", self.name);
                let _ = writeln!(lines, "attached to {} regions", self.regions.len());
                for (name, Attached { client, pages, control, .. }) in &self.regions {
                    let _ = writeln!(lines, "  `{name}`: client {client}, {pages} pages behind {control}");
                }
                return report.write_str(&lines).map_err(|_| ControlError("the report is full".to_string()));
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, _: Wake, context: &mut Context<'_>) {
        self.answer(context);
        self.update_line(context);
    }

    fn describe(&self, parent: &mut Node) {
        let Some(location) = self.location else { return };
        let factory = Range::between(location, Ipa(location.0.saturating_add(REGION_SIZE)));
        let mut node = Node::at("shmem", location).compatible(&["bulkhead,shmem"]).reg(&[factory, self.window]);
        if let Some(interrupt) = self.interrupt {
            node = node.interrupt(interrupt, Trigger::Level);
        }
        parent.add(node);
    }
}

#[cfg(test)]
mod tests;
