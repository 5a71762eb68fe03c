//! `vdev progress`: how far a guest has come.
//!
//! Answers for: a register in which the guest writes the number of the stage that it begins, a line in the host's log for
//! each with the time since the guest's start, and a warning if it does not move on in time. Does not answer for: doing
//! anything about that (`wdt-sp805` does).
//!
//! | offset | | |
//! |---|---|---|
//! | 0x00 | `MAGIC` | reads 0x53475250 (`PRGS`) |
//! | 0x04 | `STAGE` | the stage that the guest is in, as it has written it; 0 at its start |
//!
//! Writing the same stage again is a sign of life: it is not logged, and the time for it begins anew. The stages that
//! `stages` names are 1 and so on; with the last of them the guest has arrived, and its time is no longer watched.

use crate::plug::Plug;
use alloc::{
    boxed::Box,
    format,
    string::{String, ToString},
};
use types::{AccessSize, Ticks};
use vdev::{
    AccessFault, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, OptionKind, OptionSpec,
    Options, Safety, Setup, Timer, Trigger, Vdev, Wake,
};

const REGION_SIZE: u64 = 0x1000;
const MAGIC: u32 = 0x5347_5250;

/// `vdev progress`.
pub(crate) static FACTORY: Factory = Factory {
    name: "progress",
    flags: FactoryFlags::LOC_MEM.union(FactoryFlags::ASSIGN).union(FactoryFlags::INTR_FORBIDDEN),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    help: "logs how far the guest has come",
    about: "The guest stores the number of each stage that it begins at offset 4; with\n\
        `timeout` the log warns of one that falls silent before it comes to the last.\n\n    \
        vdev progress loc 0x1c0a0000 stages kernel,init timeout 30",
    ..Factory::new(create)
};

const STAGES: &str = "stages";
const TIMEOUT: &str = "timeout";

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(STAGES, OptionKind::Text, "names of the stages from 1 on: NAME,NAME..."),
    OptionSpec::new(
        TIMEOUT,
        OptionKind::Number { min: 1, max: 1_000_000 },
        "seconds in a stage, then there is a warning",
    ),
];

struct Progress {
    plug: Plug,
    /// NAME,NAME...; empty without names.
    names: String,
    /// Seconds in a stage, if they are watched.
    timeout: Option<u64>,
    timer: Timer,
    stage: u32,
    /// When the guest was started.
    start: Ticks,
    /// When the stage began.
    since: Ticks,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Ok(Box::new(Progress {
        plug: Plug::new(setup)?,
        names: options.text(STAGES).unwrap_or_default().to_string(),
        timeout: options.number(TIMEOUT),
        timer: Timer::new(0),
        stage: 0,
        start: Ticks(0),
        since: Ticks(0),
    }))
}

impl Progress {
    fn enter(&mut self, stage: u32, context: &mut Context<'_>) {
        if stage != self.stage {
            (self.stage, self.since) = (stage, context.now());
            let (text, milliseconds) = (self.shown(), self.milliseconds(self.since, context));
            context.log(log::Level::Info, format_args!("{text} after {milliseconds} ms"));
        }
        self.watch(context);
    }

    /// The time for the stage begins.
    fn watch(&mut self, context: &mut Context<'_>) {
        let arrived = self.name(self.stage).is_some() && self.name(self.stage.saturating_add(1)).is_none();
        match self.timeout {
            Some(seconds) if !arrived => {
                let ticks = seconds.saturating_mul(u64::from(context.clock().frequency().hertz()));
                self.timer.once(context.now().saturating_add(Ticks(ticks)), context);
            }
            _ => self.timer.stop(context),
        }
    }

    /// From the guest's start until `when`.
    fn milliseconds(&self, when: Ticks, context: &Context<'_>) -> u64 {
        context.clock().frequency().to_nanoseconds(when.saturating_sub(self.start)) / 1_000_000
    }

    fn name(&self, stage: u32) -> Option<&str> {
        let index = usize::try_from(stage).ok()?.checked_sub(1)?;
        self.names.split(',').nth(index).filter(|name| !name.is_empty())
    }

    fn shown(&self) -> String {
        match self.name(self.stage) {
            Some(name) => format!("stage {} ({name})", self.stage),
            None => format!("stage {}", self.stage),
        }
    }
}

impl Vdev for Progress {
    fn read(&mut self, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        match offset {
            0x00 => Ok(u64::from(MAGIC)),
            0x04 => Ok(u64::from(self.stage)),
            _ => Err(AccessFault::Unsupported),
        }
    }

    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        match offset {
            0x00 => {}
            0x04 => self.enter(u32::try_from(value).unwrap_or(u32::MAX), context),
            _ => return Err(AccessFault::Unsupported),
        }
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::GuestStarting | Control::Reset => {
                (self.stage, self.start, self.since) = (0, context.now(), context.now());
                self.watch(context);
            }
            Control::Status(report) => {
                let (text, milliseconds) = (self.shown(), self.milliseconds(self.since, context));
                return self.plug.report(report, format_args!("{text}, entered after {milliseconds} ms"));
            }
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, wake: Wake, context: &mut Context<'_>) {
        if self.timer.is(wake) && self.timer.expired(context) > 0 {
            let (text, seconds) = (self.shown(), self.timeout.unwrap_or_default());
            context.log(log::Level::Warn, format_args!("no sign of life for {seconds} s in {text}"));
        }
    }

    fn describe(&self, parent: &mut Node) {
        parent.add(self.plug.node("progress", &["bulkhead,progress"], REGION_SIZE, Trigger::Level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::{Rig, Wires};

    const SECOND: u64 = 1_000_000_000;

    fn progress(options: &[(&str, Option<&str>)]) -> Rig {
        let mut rig = Rig::new(&FACTORY, options, &mut Wires::default()).unwrap();
        rig.pass(5 * SECOND);
        rig.control(Control::GuestStarting).unwrap();
        rig
    }

    #[test]
    fn the_last_stage_and_its_time_are_shown() {
        let mut rig = progress(&[("stages", Some("kernel,init"))]);
        assert_eq!([rig.read(0), rig.read(4)], [u64::from(MAGIC), 0]);
        rig.pass(SECOND / 4);
        rig.write(4, 2);
        rig.pass(SECOND);
        rig.write(4, 2);
        assert_eq!((rig.read(4), rig.status()), (2, "device: stage 2 (init), entered after 250 ms\n".into()));
        rig.write(4, 3);
        assert_eq!(rig.status(), "device: stage 3, entered after 1250 ms\n");
        assert!(rig.describe().contains(r#"compatible = "bulkhead,progress";"#), "{}", rig.describe());
    }

    #[test]
    fn the_time_of_each_stage_is_watched_once_until_the_guest_has_arrived() {
        let mut rig = progress(&[("stages", Some("kernel,init")), ("timeout", Some("10"))]);
        assert_eq!(rig.pass(100 * SECOND), 1, "it does not say that again and again");
        rig.write(4, 1);
        assert_eq!(rig.pass(9 * SECOND), 0);
        rig.write(4, 1);
        assert_eq!((rig.pass(9 * SECOND), rig.pass(SECOND)), (0, 1), "a sign of life begins the time anew");
        rig.write(4, 2);
        assert_eq!(rig.pass(100 * SECOND), 0);
    }

    #[test]
    fn there_is_nothing_beyond_the_registers() {
        let mut rig = progress(&[]);
        rig.write(0, 1);
        assert_eq!((rig.read(0), rig.read(4)), (u64::from(MAGIC), 0));
        assert_eq!(rig.try_read(8, AccessSize::Word), Err(AccessFault::Unsupported));
        assert_eq!(rig.try_write(8, AccessSize::Word, 0), Err(AccessFault::Unsupported));
        rig.control(Control::Reset).unwrap();
        assert_eq!(rig.pass(1000 * SECOND), 0);
    }
}
