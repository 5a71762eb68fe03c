//! `vdev gic`: where the interrupt controller is, and of which architecture.
//!
//! Answers for: its options. Does not answer for: which `vdev` is the controller (`vdevs`), what the host can give (`assemble`).

use super::vdevs::Vdevs;
use super::{Reader, span_of};
use crate::controller::{Controller, Its};
use alloc::format;
use alloc::string::{String, ToString};
use qvmconf::words::Keyword;
use qvmconf::{Diagnostic, Setting, Span, Statement};
use types::{IntId, Ipa, PAGE_SIZE};
use vdev::Options;
use vgic::{MessageFrame, Version, Vgic};

/// From a distributor to a CPU interface of which nothing is said.
const CPU_INTERFACE: u64 = 0x1_0000;

/// What its options say about the interrupt controller.
pub(super) fn place(
    reader: &mut Reader<'_>,
    vdevs: &mut Vdevs,
    statement: &Statement,
    location: Option<Ipa>,
    options: &Options,
) {
    vdevs.gic = Some(statement.span.to(statement.value_span()));
    let version = version(reader, statement, options);
    let distributor = location.unwrap_or(Controller::DEFAULT.distributor);
    let beside = distributor.checked_add(CPU_INTERFACE).unwrap_or(Controller::DEFAULT.cpu_interface);
    let controller = Controller {
        version,
        distributor,
        redistributors: options.address("gicr").unwrap_or(Controller::DEFAULT.redistributors),
        cpu_interface: options.address("gicc").unwrap_or(beside),
        messages: frame(reader, vdevs, statement, options),
        its: its(reader, statement, options),
    };
    vdevs.controller = controller;
    // IHI 0069, "GIC memory-mapped register access": frames of 64 KiB, at multiples of that. Those of a GICv2 are pages.
    let (frame, hint) = match version {
        Some(Version::V2) => (PAGE_SIZE, "its pages are at multiples of 4K"),
        _ => (Vgic::DISTRIBUTOR_SIZE, "its frames are at multiples of 64K"),
    };
    let location = statement.setting(Keyword::Loc).map(Setting::value_span);
    let place = |option| options.place(option).and_then(span_of);
    for (what, at, span, frame, hint) in [
        ("distributor", controller.distributor, location, frame, hint),
        ("redistributor", controller.redistributors, place("gicr"), Vgic::DISTRIBUTOR_SIZE, hint),
        ("CPU interface", controller.cpu_interface, place("gicc"), PAGE_SIZE, hint),
        ("ITS", controller.its.map_or(Ipa(0), |its| its.at), place("its"), Vgic::DISTRIBUTOR_SIZE, hint),
    ] {
        if !at.is_aligned(frame) {
            reader.error(span.unwrap_or(statement.span), format!("no {what} can be at {at}"), hint);
        }
    }
}

/// The architecture that they ask for, if they do.
fn version(reader: &mut Reader<'_>, statement: &Statement, options: &Options) -> Option<Version> {
    let first = |names: [&'static str; 2]| names.into_iter().find(|name| options.place(name).is_some());
    let (of_3, of_2) = (first(["gicr", "its"]), first(["gicc", "msi"]));
    let (wrong, other, because) = match (options.number("version"), of_3, of_2) {
        (Some(2), None, _) | (None, None, Some(_)) => return Some(Version::V2),
        (Some(3), _, None) | (None, Some(_), None) => return Some(Version::V3),
        (_, None, None) => return None,
        (Some(2), Some(wrong), _) => (wrong, Version::V2, "version"),
        (Some(_), _, Some(wrong)) => (wrong, Version::V3, "version"),
        (_, Some(wrong), because) => (wrong, Version::V2, because.unwrap_or("version")),
    };
    let span = |option| options.place(option).and_then(span_of).unwrap_or(statement.span);
    let message = format!("`{wrong}`: a {other} has none");
    let hint =
        "`gicr` and `its` are of version 3; `gicc` and `msi` are of version 2, since a GICv3 takes messages by itself";
    let diagnostic = Diagnostic::error(span(wrong), message).note(span(because), "it is one by this").hint(hint);
    reader.diagnostics.push(diagnostic);
    None
}

/// `its ADDRESS` and `num-lpis N`, which need one another.
fn its(reader: &mut Reader<'_>, statement: &Statement, options: &Options) -> Option<Its> {
    let span = |option| options.place(option).and_then(span_of).unwrap_or(statement.span);
    let hint = "as in `its 0x08080000 num-lpis 256`";
    match (options.address("its"), options.number("num-lpis")) {
        (None, None) => None,
        (Some(at), Some(lpis)) => Some(Its { at, lpis: u32::try_from(lpis).unwrap_or(u32::MAX) }),
        (Some(_), None) => {
            reader.error(span("its"), "`its` needs `num-lpis`: how many interrupts it translates", hint);
            None
        }
        (None, Some(_)) => {
            reader.error(span("num-lpis"), "`num-lpis`: there is no `its` that translates them", hint);
            None
        }
    }
}

/// `msi ADDRESS,FIRST,COUNT`: a frame for messages beside a GICv2.
fn frame(reader: &mut Reader<'_>, vdevs: &mut Vdevs, statement: &Statement, options: &Options) -> Option<MessageFrame> {
    let text = options.text("msi")?;
    let span = options.place("msi").and_then(span_of).unwrap_or(statement.span);
    vdevs.frame = Some(span);
    let frame = parse(text);
    if let Err(message) = &frame {
        reader.error(span, format!("`msi {text}`: {message}"), "ADDRESS,FIRST,COUNT, as in `msi 0x08020000,64,32`");
    }
    frame.ok()
}

fn parse(text: &str) -> Result<MessageFrame, String> {
    let mut parts = text.split(',');
    let (Some(address), Some(first), Some(count), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("three numbers are wanted".to_string());
    };
    let address = qvmconf::address(address).map_err(|error| error.to_string())?;
    let number = |text| {
        let number = qvmconf::number(text).map_err(|error| error.to_string())?;
        u32::try_from(number).map_err(|_| format!("{number} is too many"))
    };
    let (first, count) = (number(first)?, number(count)?);
    if !Ipa(address).is_aligned(PAGE_SIZE) {
        return Err(format!("no frame can be at {}: it is a page of 4K", Ipa(address)));
    }
    MessageFrame::new(Ipa(address), IntId(first), count).ok_or_else(|| {
        format!("these are not all shared interrupts, which go from 32 to {}", IntId::END_SPI.saturating_sub(1))
    })
}

/// The interrupts of messages are nobody else's: not a device's of the configuration, nor of one that is given one.
pub(super) fn keep_messages_apart(reader: &mut Reader<'_>, vdevs: &mut Vdevs, interrupts: &[(IntId, Span)]) {
    let (Some(frame), Some(place)) = (vdevs.controller.messages, vdevs.frame) else { return };
    for (intid, span) in interrupts.iter().filter(|(intid, _)| frame.has(*intid)) {
        reader.conflict(*span, format!("interrupt {} is one for messages", intid.0), place, "by this");
    }
    let (first, count) = frame.interrupts();
    vdevs.reserved.extend((first.0..).map(IntId).take(usize::try_from(count).unwrap_or(0)));
}
