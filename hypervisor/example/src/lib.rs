//! `vdev alarm`: an alarm clock for a guest. The example of `hypervisor/docs/vdev-guide.md`, which shows this very text.
//!
//! Answers for: two registers, a timer, an interrupt, and a bell at a back end. Does not answer for: the time of day
//! (`vdev pl031`), nor for a guest that does not hear it (`vdev wdt-sp805`).
//!
//! It is a crate of its own, as an integrator's would be: it needs nothing of `vdevs`, and no image has it whose board
//! does not name it.
//!
//! | offset | | |
//! |---|---|---|
//! | 0x0 | `TIME` | storing N has it ring in N milliseconds, 0 not at all; reads how many are left |
//! | 0x4 | `RINGS` | 1 from then on, with the interrupt asserted; storing 1 silences it |

#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

extern crate alloc;

pub mod hush;

use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use log::Level;
use types::{AccessSize, IntId, Ipa, Range};
use vdev::{
    AccessFault, CharDevice, Context, Control, ControlError, Factory, Node, OptionError, OptionKind, OptionSpec,
    Options, Setup, Taken, Timer, Trigger, Vdev, Wake,
};

/// `vdev alarm`.
pub static FACTORY: Factory = Factory {
    name: "alarm",
    options: OPTIONS,
    region_size: 0x1000,
    help: "an alarm clock, the example of the vdev guide",
    about: "The guest stores milliseconds at offset 0 and is interrupted when they are over.\n\
        Storing 1 at offset 4 silences it.\n\n    \
        vdev alarm loc 0x1c0d0000 intr gic:45 longest 3600000",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("longest", OptionKind::Number { min: 1, max: 86_400_000 }, "most milliseconds it can be set to")
        .default("60000"),
    OptionSpec::new("hostdev", OptionKind::HostDevice, "back end that gets a BEL when it rings"),
];

struct Alarm {
    name: String,
    location: Ipa,
    interrupt: Option<IntId>,
    longest: u64,
    bell: Option<Box<dyn CharDevice>>,
    timer: Timer,
    rings: bool,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let bell = match options.host_devices("hostdev").next() {
        Some(device) => Some(setup.character("hostdev", device)?),
        None => None,
    };
    if setup.interrupt.is_none() && bell.is_none() {
        return Err(OptionError::general("nobody would hear it: it needs an `intr` or a `hostdev`".to_string()));
    }
    Ok(Box::new(Alarm {
        name: setup.name.to_string(),
        // There is one, given or found, as the factory has registers.
        location: setup.location.unwrap_or_default(),
        interrupt: setup.interrupt,
        longest: options.number("longest").unwrap_or_default(),
        bell,
        timer: Timer::new(0),
        rings: false,
    }))
}

impl Alarm {
    fn set(&mut self, milliseconds: u64, context: &mut Context<'_>) {
        if milliseconds > self.longest {
            context.log(Level::Warn, format_args!("{milliseconds} ms is more than `longest {}`", self.longest));
        }
        let time = milliseconds.min(self.longest).saturating_mul(1000);
        match context.clock().frequency().microseconds(time) {
            _ if time == 0 => self.timer.stop(context),
            ticks => self.timer.once(context.now().saturating_add(ticks), context),
        }
    }

    fn left(&self, context: &Context<'_>) -> u64 {
        let ticks = self.timer.due().unwrap_or_default().saturating_sub(context.now());
        context.clock().frequency().to_nanoseconds(ticks).div_ceil(1_000_000)
    }

    fn ring(&mut self, rings: bool, context: &mut Context<'_>) {
        if rings != self.rings {
            self.rings = rings;
            context.set_line(rings);
        }
    }
}

impl Vdev for Alarm {
    fn read(&mut self, offset: u64, _: AccessSize, context: &mut Context<'_>) -> Result<u64, AccessFault> {
        match offset {
            0x0 => Ok(self.left(context)),
            0x4 => Ok(u64::from(self.rings)),
            _ => Err(AccessFault::Unsupported),
        }
    }

    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        match offset {
            0x0 => self.set(value, context),
            0x4 if value == 1 => self.ring(false, context),
            0x4 => {}
            _ => return Err(AccessFault::Unsupported),
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Reset | Control::Terminate => {
                self.timer.stop(context);
                self.ring(false, context);
            }
            Control::Status(report) => {
                let (rings, left) = (if self.rings { "rings" } else { "is silent" }, self.left(context));
                return writeln!(report, "{}: {rings}, {left} ms to go", self.name)
                    .map_err(|_| ControlError("the report is full".to_string()));
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        if self.timer.is(wake) && self.timer.expired(context) > 0 {
            context.log(Level::Info, format_args!("rings"));
            self.ring(true, context);
            if self.bell.as_mut().is_some_and(|bell| bell.write(b'\x07') == Taken::Ring) {
                context.output();
            }
        }
    }

    fn describe(&self, parent: &mut Node) {
        let registers = Range::between(self.location, Ipa(self.location.0.saturating_add(FACTORY.region_size)));
        let node = Node::at("alarm", self.location).compatible(&["example,alarm"]).reg(&[registers]);
        parent.add(match self.interrupt {
            Some(interrupt) => node.interrupt(interrupt, Trigger::Level),
            None => node,
        });
    }
}

#[cfg(test)]
mod tests;
