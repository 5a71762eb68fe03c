//! `vdev quiesce`: brings a device of the machine to rest when its VM has ended.
//!
//! Answers for: the words in which a configuration says how, and telling what it has said. Does not answer for: carrying it out, which the
//! host does when no thread of the VM is left (`vdev::Resting`, the kernel), nor for PCI functions, which come to rest without being
//! told how. The guest sees nothing of it.

use crate::plug;
use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use types::{AccessSize, Ipa};
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, OptionKind,
    OptionSpec, Options, Rest, RestAction, Safety, Setup, Vdev, Wake, Way, rest_steps, rest_time,
};

/// `vdev quiesce`.
pub(crate) static FACTORY: Factory = Factory {
    name: "quiesce",
    flags: FactoryFlags::LOC_FORBIDDEN.union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::empty(),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: 0,
    help: "brings a passed device to rest when the VM has ended",
    about: "The host takes the steps in the order in which they are written, however the VM\n\
        ends: DMA first, interrupts second. Offsets are from the start of the region,\n\
        in bytes, SIZE is 1, 2, 4 or 8; LIMIT and TIME are microseconds. All together\n\
        they take a second at most, and there are up to 64. If a poll does not come\n\
        true, nobody gets the device before the machine is reset.\n\n    \
        pass loc 0x1c170000,4K,rwn=0x09010000 intr gic:41=34\n    \
        vdev quiesce region 0x1c170000 write 0x10,4,0 poll 0x18,4,1,0,1000",
    rest: Some(rest),
    ..Factory::new(create)
};

const REGION: &str = "region";

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(REGION, OptionKind::Address, "where a `loc` of the device's `pass` begins, with `w`").required(),
    OptionSpec::new(RestAction::WRITE, OptionKind::Numbers("OFFSET,SIZE,VALUE"), "stores VALUE").repeatable(),
    OptionSpec::new(
        RestAction::POLL,
        OptionKind::Numbers("OFFSET,SIZE,MASK,VALUE,LIMIT"),
        "loads until the bits of MASK are VALUE, for at most LIMIT",
    )
    .repeatable(),
    OptionSpec::new(RestAction::WAIT, OptionKind::Numbers("TIME"), "lets TIME pass").repeatable(),
];

struct Quiesce {
    name: String,
    region: Ipa,
    steps: usize,
    time: u64,
}

fn rest(options: &Options) -> Result<Rest, OptionError> {
    let steps = rest_steps(options)?;
    if steps.iter().all(|step| step.action.access().is_none()) {
        return Err(OptionError::general("nothing is done to the device: it needs a `write` or a `poll`".to_string()));
    }
    let region = options.address(REGION).unwrap_or_default();
    Ok(Rest { region, place: options.place(REGION), way: Way::Steps(steps) })
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let steps = rest_steps(options)?;
    let region = options.address(REGION).unwrap_or_default();
    Ok(Box::new(Quiesce { name: setup.name.to_string(), region, steps: steps.len(), time: rest_time(&steps) }))
}

impl Vdev for Quiesce {
    fn read(&mut self, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn write(&mut self, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Status(report) => {
                let Self { region, steps, time, .. } = self;
                plug::report(report, &self.name, format_args!("{steps} steps for {region}, at most {time} us"))
            }
            _ => Ok(()),
        }
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, _: &mut Node) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;
    use vdev::testkit::{PlainNumbers, Rig, Wires};
    use vdev::{Given, Place};

    const CLOCK: [(&str, Option<&str>); 4] = [
        ("region", Some("0x1c170000")),
        ("write", Some("0x10,4,0")),
        ("poll", Some("0x18,4,1,0,1000")),
        ("write", Some("0x1c,4,1")),
    ];

    fn options(words: &[(&'static str, Option<&'static str>)]) -> Options {
        let given = words.iter().map(|(name, argument)| Given { name, argument: *argument, place: Place::default() });
        Options::parse(OPTIONS, given, &PlainNumbers).unwrap()
    }

    #[test]
    fn its_steps_are_data_for_whoever_is_left() {
        let rest = rest(&options(&CLOCK)).unwrap();
        assert_eq!(rest.region, Ipa(0x1c17_0000));
        let Way::Steps(steps) = rest.way else { panic!("{rest:?}") };
        let shown: Vec<String> = steps.iter().map(|step| step.action.to_string()).collect();
        assert_eq!(shown, ["write 0x10,4,0x0", "poll 0x18,4,0x1,0x0,1000", "write 0x1c,4,0x1"]);
    }

    #[test]
    fn without_a_step_it_is_of_no_use() {
        let error = rest(&options(&CLOCK[..1])).unwrap_err();
        assert!(error.message.contains("nothing is done to the device"), "{error}");
        let waits = rest(&options(&[CLOCK[0], ("wait", Some("1000"))])).unwrap_err();
        assert!(waits.message.contains("nothing is done to the device"), "{waits}");
        assert!(Rig::new(&FACTORY, &CLOCK[1..], &mut Wires::default()).unwrap_err()[0].message.contains("missing"));
    }

    #[test]
    fn the_guest_sees_nothing_of_it() {
        let mut rig = Rig::new(&FACTORY, &CLOCK, &mut Wires::default()).unwrap();
        assert_eq!(rig.try_read(0, AccessSize::Word), Err(AccessFault::Nothing));
        assert_eq!(rig.status(), "device: 3 steps for 0x1c170000, at most 1000 us\n");
        rig.control(Control::Terminate).unwrap();
        assert!(!rig.describe().contains("device"), "{}", rig.describe());
    }
}
