//! `vdev pci-host`, and who is on its bus.
//!
//! Answers for: the host bridge, which is there as soon as a device is on the bus or somebody names it; slots, lines, and places for
//! configuration spaces and windows of which nothing is said. Does not answer for: which `vdev` may be on the bus (`vdevs`), nor for
//! the window above 4 GiB when nobody names one, which depends on the host (`assemble`).

use super::addresses::Claim;
use super::assign::{Taken, free_interrupts};
use super::vdevs::Vdevs;
use super::{Reader, span_of};
use crate::assemble::{PciBus, VdevDescription};
use alloc::format;
use alloc::string::ToString;
use alloc::vec::Vec;
use qvmconf::{PciFunction, Span, Statement};
use types::{IntId, Ipa, Range};
use vdev::{Factory, FactoryFlags, Options, PciSlot};

/// Configuration spaces are at a multiple of their size; windows are cut as bridges cut them (PCI-to-PCI Bridge Architecture
/// Specification 1.2, 3.2.5.8).
const GRANULE: u64 = 1 << 20;
/// The first address that does not fit 32 bits.
const END_OF_32_BITS: u64 = 1 << 32;
/// Where a place below that is looked for first: behind what is assigned to devices in memory.
const FIRST: u64 = 0x3000_0000;
/// The largest window below that is given to a bus of which nothing is said, and the smallest.
const WINDOW: u64 = 256 << 20;

/// What the configuration says of the bus.
pub(super) struct Bus {
    /// Which of the devices are on it, and where they want to be, and where that is said.
    pub(super) functions: Vec<(usize, Option<PciFunction>, Span)>,
    host: Option<Host>,
}

/// The host bridge that somebody has named.
struct Host {
    /// Which of the devices it is.
    index: usize,
    windows: Vec<Range<Ipa>>,
    first_line: Option<IntId>,
}

impl Bus {
    /// Nothing on it.
    pub(super) const NONE: Self = Self { functions: Vec::new(), host: None };

    /// Whether the device `index` is on it.
    pub(super) fn has(&self, index: usize) -> bool {
        self.functions.iter().any(|(function, ..)| *function == index)
    }

    /// Lines that the configuration gives it.
    pub(super) fn lines(&self) -> impl Iterator<Item = IntId> + use<> {
        let first = self.host.as_ref().and_then(|host| host.first_line);
        first.into_iter().flat_map(|first_line| PciBus { windows: Vec::new(), first_line }.lines())
    }
}

/// `vdev pci-host`, which becomes the device `index`.
pub(super) fn read_host(
    reader: &mut Reader<'_>,
    vdevs: &mut Vdevs,
    (index, span): (usize, Span),
    (statement, options): (&Statement, &Options),
    (location, line): (Option<Ipa>, Option<(IntId, Span)>),
) {
    if let Some(first) = vdevs.pci.host.as_ref().and_then(|host| vdevs.spans.get(host.index)) {
        return reader.conflict(span, "a second host bridge of the PCI bus", *first, "the first one");
    }
    if let Some(at) = location.filter(|at| !at.is_aligned(GRANULE)) {
        let span = statement.setting(qvmconf::words::Keyword::Loc).map_or(span, qvmconf::Setting::value_span);
        reader.error(span, format!("no configuration spaces can be at {at}"), "they are at a multiple of 1M");
    }
    if let Some((line, span)) =
        line.filter(|(line, _)| line.0.checked_add(PciBus::LINES).is_none_or(|end| end > IntId::END_SPI))
    {
        let message = format!("the PCI bus has four lines, and behind {} there are not so many", line.0);
        reader.error(span, message, "name the first of four, as in `intr gic:64`");
    }
    let windows = read_windows(reader, vdevs, options, span);
    vdevs.pci.host = Some(Host { index, windows, first_line: line.map(|(line, _)| line) });
}

fn read_windows(reader: &mut Reader<'_>, vdevs: &mut Vdevs, options: &Options, span: Span) -> Vec<Range<Ipa>> {
    let mut windows: Vec<(Range<Ipa>, Span)> = Vec::new();
    for (start, length, place) in options.regions("window") {
        let span = place.and_then(span_of).unwrap_or(span);
        let window = Range::new(start, length).filter(|window| !window.is_empty() && window.is_aligned(GRANULE));
        let Some(window) = window else {
            reader.error(span, "no window can be there", "START and SIZE are multiples of 1M");
            continue;
        };
        if is_low(&window) && window.end().0 > END_OF_32_BITS {
            reader.error(span, format!("the window {window} is across 4G"), "one below and one above can be named");
            continue;
        }
        if let Some((_, other)) = windows.iter().find(|(other, _)| is_low(other) == is_low(&window)) {
            let side = if is_low(&window) { "below" } else { "above" };
            reader.conflict(span, format!("a second window {side} 4G"), *other, "the first one");
            continue;
        }
        vdevs.claims.push(Claim { what: "a window of `vdev pci-host`".to_string(), range: window, span: Some(span) });
        windows.push((window, span));
    }
    windows.into_iter().map(|(window, _)| window).collect()
}

fn is_low(window: &Range<Ipa>) -> bool {
    window.start().0 < END_OF_32_BITS
}

/// Makes the bus, if there is to be one: everybody gets a slot and a line, and the host bridge what nobody has said of it.
pub(super) fn settle(
    reader: &mut Reader<'_>,
    vdevs: &mut Vdevs,
    factories: &[&'static Factory],
    taken: &mut Taken,
) -> Option<PciBus> {
    let first_function = vdevs.pci.functions.first().map(|(_, _, span)| *span);
    if vdevs.pci.host.is_none() {
        let span = first_function?;
        let factory = factories.iter().find(|factory| factory.flags.contains(FactoryFlags::PCI_HOST));
        let Some(factory) = factory else {
            reader.error(
                span,
                "this hypervisor has no PCI bus",
                "give the device a place in memory, as in `loc 0x1c0d0000`",
            );
            return None;
        };
        vdevs.pci.host = Some(add_host(vdevs, factory, span));
    }
    let Host { index, windows, first_line } = vdevs.pci.host.take()?;
    let span = *vdevs.spans.get(index)?;
    let bus = find_room(reader, vdevs, taken, (index, windows, first_line), span)?;
    take_slots(reader, vdevs, index, &bus);
    Some(bus)
}

/// The host bridge that nobody has named: it stands where the first function does.
fn add_host(vdevs: &mut Vdevs, factory: &'static Factory, span: Span) -> Host {
    let taken = |name: &str| vdevs.list.iter().any(|vdev| vdev.name == name);
    let mut name = factory.name.to_string();
    while taken(&name) {
        name.push('_');
    }
    vdevs.list.push(VdevDescription {
        factory,
        name,
        location: None,
        slot: None,
        interrupt: None,
        schedule: None,
        reports: true,
        options: Options::default(),
    });
    vdevs.spans.push(span);
    Host { index: vdevs.list.len().saturating_sub(1), windows: Vec::new(), first_line: None }
}

/// What the configuration leaves open of the host bridge.
fn find_room(
    reader: &mut Reader<'_>,
    vdevs: &mut Vdevs,
    taken: &mut Taken,
    (index, mut windows, first_line): (usize, Vec<Range<Ipa>>, Option<IntId>),
    span: Span,
) -> Option<PciBus> {
    const HINT: &str = "say where, as in `vdev pci-host loc 0x3f000000 window 0x10000000,256M intr gic:64`";
    let host = vdevs.list.get_mut(index)?;
    if !windows.iter().any(is_low) {
        let sizes = core::iter::successors(Some(WINDOW), |size| Some(size / 2)).take_while(|size| *size >= GRANULE);
        windows.extend(sizes.into_iter().find_map(|size| find_below_4g(taken, size)));
    }
    if host.location.is_none() {
        host.location = find_below_4g(taken, host.factory.region_size).map(|place| place.start());
    }
    let first_line = first_line.or_else(|| free_interrupts(&taken.interrupts, PciBus::LINES));
    if host.location.is_none() || !windows.iter().any(is_low) {
        reader.error(span, "no free addresses below 4G for the PCI bus", HINT);
        return None;
    }
    let Some(first_line) = first_line else {
        reader.error(span, "no four free interrupts for the PCI bus", HINT);
        return None;
    };
    Some(PciBus { windows, first_line })
}

/// A free place for so many bytes, a power of two, at a multiple of them.
fn find_below_4g(taken: &mut Taken, size: u64) -> Option<Range<Ipa>> {
    let step = usize::try_from(size).ok()?;
    let from = |start: u64, end: u64| (start.next_multiple_of(size)..end).step_by(step);
    let mut places = from(FIRST, END_OF_32_BITS).chain(from(GRANULE, FIRST));
    let place = places.find_map(|start| Range::new(Ipa(start), size).filter(|place| taken.is_free(place)))?;
    taken.ranges.push(place);
    Some(place)
}

/// Slots and lines: first for those that say which, then for the others the devices that are left, in order.
fn take_slots(reader: &mut Reader<'_>, vdevs: &mut Vdevs, host: usize, bus: &PciBus) {
    let mut slots: Vec<(PciSlot, usize, Span)> = Vec::new();
    if let (Some(vdev), Some(span)) = (vdevs.list.get_mut(host), vdevs.spans.get(host)) {
        vdev.slot = Some(PciSlot::HOST);
        slots.push((PciSlot::HOST, host, *span));
    }
    let functions = core::mem::take(&mut vdevs.pci.functions);
    for (index, wanted, span) in &functions {
        let Some(slot) = wanted.and_then(|wanted| PciSlot::new(wanted.device, wanted.function)) else { continue };
        match slots.iter().find(|(taken, ..)| *taken == slot) {
            Some((_, other, place)) => {
                let other = vdevs.list.get(*other).map_or("", |vdev| vdev.factory.name);
                let kind = if other == ::pci::PASSED.name { "" } else { "vdev " };
                reader.conflict(*span, format!("`{kind}{other}` is at pci:{slot} already"), *place, "this one");
            }
            None => slots.push((slot, *index, *span)),
        }
    }
    for (index, _, span) in functions.iter().filter(|(_, wanted, _)| wanted.is_none()) {
        let is_free = |slot: &PciSlot| !slots.iter().any(|(taken, ..)| taken.device() == slot.device());
        let Some(slot) = (1..PciSlot::DEVICES).filter_map(|device| PciSlot::new(device, 0)).find(is_free) else {
            let message = format!("more than {} devices on the PCI bus", PciSlot::DEVICES.saturating_sub(1));
            reader.error(*span, message, "several can be functions of one, as in `loc pci:3.0` and `loc pci:3.1`");
            break;
        };
        slots.push((slot, *index, *span));
    }
    for (slot, index, span) in &slots {
        let has_first = slots.iter().any(|(other, ..)| other.device() == slot.device() && other.function() == 0);
        if !has_first {
            let message = format!("nobody finds pci:{slot}: device {} has no function 0", slot.device());
            reader.error(*span, message, "guests look there first");
        }
        let Some(vdev) = vdevs.list.get_mut(*index) else { continue };
        vdev.slot = Some(*slot);
        if *index != host && !vdev.factory.flags.contains(FactoryFlags::INTR_FORBIDDEN) {
            vdev.interrupt = Some(bus.line(*slot));
        }
    }
}
