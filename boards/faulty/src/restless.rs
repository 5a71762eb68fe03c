//! `vdev restless`: is to bring a passed device to rest, and cannot.
//!
//! Answers for: saying so when its VM ends, or panicking over it, so that tests can see who gets the device then. Does not answer for:
//! the device.

use alloc::{boxed::Box, string::ToString};
use types::AccessSize;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, OptionKind,
    OptionSpec, Options, Rest, Vdev, Wake, Way,
};

pub(crate) static FACTORY: Factory = Factory {
    name: "restless",
    flags: FactoryFlags::LOC_FORBIDDEN.union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::empty(),
    options: OPTIONS,
    region_size: 0,
    help: "does not bring a passed device to rest, for tests",
    rest: Some(rest),
    ..Factory::new(|options, _| Ok(Box::new(Restless { panics: options.has("panics") })))
};

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("region", OptionKind::Address, "where the guest has the device").required(),
    OptionSpec::new("panics", OptionKind::Flag, "it does not even say so"),
];

struct Restless {
    panics: bool,
}

fn rest(options: &Options) -> Result<Rest, OptionError> {
    let region = options.address("region").unwrap_or_default();
    Ok(Rest { region, place: options.place("region"), way: Way::ByItself })
}

impl Vdev for Restless {
    fn read(&mut self, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn write(&mut self, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Terminate if self.panics => panic!("the device was told to"),
            Control::Terminate => Err(ControlError("the device goes on".to_string())),
            _ => Ok(()),
        }
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, _: &mut Node) {}
}
