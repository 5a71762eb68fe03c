//! Contradictions within a configuration.

use super::{Allow, Configuration};
use alloc::format;
use alloc::vec::Vec;
use qvmconf::{Diagnostic, Diagnostics, nearest};

/// Gives each `allow` to its device.
pub(super) fn resolve(configuration: &mut Configuration, allows: Vec<Allow>) {
    for Allow { name, what } in allows {
        let device = configuration.devices.iter_mut().find(|device| device.name == name.text);
        match (device, what) {
            (Some(device), Some(allowed)) => device.allowed.push(allowed),
            (Some(device), None) => device.bypass = Some(name.span),
            (None, _) => {
                let names = configuration.devices.iter().map(|device| device.name.as_str());
                let hint = match nearest(&name.text, names) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("name it: device SPEC {}", name.text),
                };
                let message = format!("there is no device `{}`", name.text);
                configuration.diagnostics.push(Diagnostic::error(name.span, message).hint(hint));
            }
        }
    }
}

/// Adds what contradicts itself.
pub(super) fn check(configuration: &mut Configuration) {
    let mut found = Diagnostics::new();
    places(configuration, &mut found);
    repetitions(configuration, &mut found);
    reservations(configuration, &mut found);
    bypasses(configuration, &mut found);
    configuration.diagnostics.extend(found);
}

/// One place has one device.
fn places(configuration: &Configuration, found: &mut Diagnostics) {
    for (index, device) in configuration.devices.iter().enumerate() {
        for (spec, span) in &device.places {
            let earlier = configuration.devices.iter().take(index);
            let mut others = earlier.flat_map(|other| other.places.iter().map(move |place| (other, place)));
            if let Some((other, (_, first))) = others.find(|(_, (other, _))| spec.overlaps(other)) {
                let message = format!("{spec} is `{}` already: it cannot be `{}`, too", other.name, device.name);
                found.push(Diagnostic::error(*span, message).note(*first, format!("`{}` is here", other.name)));
            }
        }
    }
}

/// Memory is allowed to a device once: twice could be with different permissions.
fn repetitions(configuration: &Configuration, found: &mut Diagnostics) {
    for device in &configuration.devices {
        for (index, allowed) in device.allowed.iter().enumerate() {
            let memory = &allowed.memory;
            let earlier = device.allowed.iter().take(index).map(|other| &other.memory);
            if let Some(first) = earlier.into_iter().find(|other| other.range.overlaps(&memory.range)) {
                let message = format!("`{}` may reach some of {} already", device.name, memory.range);
                found
                    .push(Diagnostic::error(memory.span, message).note(first.span, format!("{} is here", first.range)));
            }
        }
    }
}

/// What is reserved is allowed to nobody.
fn reservations(configuration: &Configuration, found: &mut Diagnostics) {
    for device in &configuration.devices {
        for allowed in &device.allowed {
            let memory = &allowed.memory;
            if let Some(reserved) = configuration.reserved.iter().find(|it| it.range.overlaps(&memory.range)) {
                let message = format!("`{}` may not reach {}: it is reserved", device.name, memory.range);
                let note = format!("{} is reserved here", reserved.range);
                found.push(Diagnostic::error(memory.span, message).note(reserved.span, note));
            }
        }
    }
}

/// Who is let through needs no ranges, and with `safety` nobody is.
fn bypasses(configuration: &Configuration, found: &mut Diagnostics) {
    for device in &configuration.devices {
        let Some(bypass) = device.bypass else { continue };
        let name = &device.name;
        if configuration.safety {
            let message = format!("`{name}` cannot be let through: `safety` forbids it");
            found.push(Diagnostic::error(bypass, message).hint(format!("allow {name} START,LENGTH")));
        }
        if let Some(allowed) = device.allowed.first() {
            let message = format!("`{name}` is let through, so a range says nothing");
            found.push(Diagnostic::error(allowed.memory.span, message).note(bypass, "let through here"));
        }
    }
}
