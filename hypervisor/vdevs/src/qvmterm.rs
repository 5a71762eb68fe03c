//! `vdev qvmterm`: the smallest device there is.
//!
//! Answers for: being told that the VM ends, and saying so. It is the vdev guide's example of a device that only has to
//! quiesce hardware: it has no registers, no interrupt and no node in the guest's device tree. Does not answer for: any
//! hardware. Where it logs, a real one would stop its hardware's DMA first and its interrupts second, before the VM's memory
//! is taken back.

use crate::plug;
use alloc::{
    boxed::Box,
    string::{String, ToString},
};
use types::AccessSize;
use vdev::{
    AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError, OptionKind,
    OptionSpec, Options, Setup, Vdev, Wake,
};

/// `vdev qvmterm`.
pub(crate) static FACTORY: Factory = Factory {
    name: "qvmterm",
    flags: FactoryFlags::LOC_FORBIDDEN.union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::empty(),
    options: OPTIONS,
    region_size: 0,
    help: "an example: says when the VM ends",
    about: "Shows where a device of real hardware would stop DMA, then interrupts.\n\n    \
        vdev qvmterm message good-bye",
    ..Factory::new(create)
};

const MESSAGE: &str = "message";

static OPTIONS: &[OptionSpec] = &[OptionSpec::new(MESSAGE, OptionKind::Text, "what it says when the VM ends")
    .default("here DMA would be stopped, then interrupts")];

struct Qvmterm {
    name: String,
    message: String,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let message = options.text(MESSAGE).unwrap_or_default().to_string();
    Ok(Box::new(Qvmterm { name: setup.name.to_string(), message }))
}

impl Vdev for Qvmterm {
    fn read(&mut self, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn write(&mut self, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn control(&mut self, event: Control<'_>, context: &mut Context<'_>) -> Result<(), ControlError> {
        match event {
            Control::Terminate => context.log(log::Level::Info, format_args!("the VM ends: {}", self.message)),
            Control::Status(report) => return plug::report(report, &self.name, format_args!("waits for the VM's end")),
            _ => {}
        }
        Ok(())
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, _: &mut Node) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::{Rig, Wires};

    #[test]
    fn it_is_told_of_the_end_and_is_nowhere_to_be_found() {
        let mut rig = Rig::new(&FACTORY, &[("message", Some("good-bye"))], &mut Wires::default()).unwrap();
        assert_eq!(rig.try_read(0, AccessSize::Word), Err(AccessFault::Nothing));
        assert_eq!(rig.status(), "device: waits for the VM's end\n");
        rig.control(Control::Terminate).unwrap();
        assert!(!rig.describe().contains("device"), "{}", rig.describe());
    }
}
