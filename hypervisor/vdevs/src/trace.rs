//! `vdev trace`: what a guest writes here appears in traces, and in the log.
//!
//! Answers for: a page of registers, one for each of 512 kinds of event: the kind is where the guest writes, its value is what
//! it writes. So an event is one store, which vCPUs need not agree about. Does not answer for: recording it (the host's). The
//! original's guide to virtual devices has a `trace` as its first example.
//!
//! | offset | | |
//! |---|---|---|
//! | 8 × *n* | `EVENT`*n* | a write is event *n*, with the value written (32 or 64 bits) |
//! | 0 | | reads 1 while somebody records, else 0; all others read 0 |
//!
//! Every write is a line of the log at level `debug`, as far as the log's limits let it through.

use crate::plug::Plug;
use alloc::boxed::Box;
use types::AccessSize;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, Options,
    Safety, Setup, TraceSink, Trigger, Vdev, Wake,
};

const REGION_SIZE: u64 = 0x1000;
/// Bytes from one register to the next.
const STRIDE: u64 = 8;

/// `vdev trace`.
pub(crate) static FACTORY: Factory = Factory {
    name: "trace",
    flags: FactoryFlags::LOC_MEM.union(FactoryFlags::ASSIGN).union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::WORD.union(AccessSizes::DOUBLEWORD),
    safety: Safety::Qualified,
    region_size: REGION_SIZE,
    help: "takes events of the guest's into traces and the log",
    about: "A store to offset 8 x N is event N with that value, in traces and the log.\n\n    \
        vdev trace loc 0x1c0e0000",
    ..Factory::new(create)
};

struct Trace {
    plug: Plug,
    sink: &'static dyn TraceSink,
    events: u64,
}

fn create(_: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Ok(Box::new(Trace { plug: Plug::new(setup)?, sink: setup.backends.trace(), events: 0 }))
}

impl Vdev for Trace {
    fn read(&mut self, offset: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Ok(u64::from(offset == 0 && self.sink.is_on()))
    }

    fn write(&mut self, offset: u64, _: AccessSize, value: u64, context: &mut Context<'_>) -> Result<(), AccessFault> {
        if !offset.is_multiple_of(STRIDE) {
            return Err(AccessFault::Unsupported);
        }
        let number = u32::try_from(offset / STRIDE).unwrap_or(u32::MAX);
        self.events = self.events.saturating_add(1);
        self.sink.event(number, value);
        context.log(log::Level::Debug, format_args!("event {number}: {value:#x}"));
        Ok(())
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Reset => self.events = 0,
            Control::Status(report) => return self.plug.report(report, format_args!("{} events", self.events)),
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, parent: &mut Node) {
        parent.add(self.plug.node("trace", &["bulkhead,trace"], REGION_SIZE, Trigger::Level));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use vdev::testkit::{Rig, Wires};

    #[derive(Default)]
    struct Recorder(types::Lock<Vec<(u32, u64)>>);

    impl Recorder {
        fn take(&self) -> Vec<(u32, u64)> {
            core::mem::take(&mut self.0.lock())
        }
    }

    impl TraceSink for Recorder {
        fn is_on(&self) -> bool {
            true
        }

        fn event(&self, number: u32, value: u64) {
            self.0.lock().push((number, value));
        }
    }

    #[test]
    fn an_event_is_where_the_guest_writes_and_its_value_what_it_writes() {
        let recorder: &'static Recorder = Box::leak(Box::default());
        let mut wires = Wires::default();
        wires.trace = recorder;
        let mut rig = Rig::new(&FACTORY, &[], &mut wires).unwrap();
        assert_eq!(rig.read(0), 1, "somebody records");
        rig.write(0x10, 0xffff_ffff);
        assert_eq!(rig.try_write(0xff8, AccessSize::Doubleword, u64::MAX), Ok(()));
        assert_eq!(recorder.take(), [(2, 0xffff_ffff), (511, u64::MAX)]);
        assert_eq!((rig.read(8), rig.line()), (0, false));
        assert_eq!(rig.try_write(4, AccessSize::Word, 1), Err(AccessFault::Unsupported), "half of a register");
        assert_eq!(recorder.take(), []);
        assert_eq!(rig.status(), "device: 2 events\n");
    }

    #[test]
    fn while_nobody_records_it_reads_zero_and_takes_what_is_written() {
        let mut rig = Rig::new(&FACTORY, &[], &mut Wires::default()).unwrap();
        assert_eq!(rig.read(0), 0);
        rig.write(0, 1);
        assert!(rig.describe().contains("bulkhead,trace"), "{}", rig.describe());
    }
}
