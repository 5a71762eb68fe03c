//! `vdev pci-dummy`: a function of the PCI bus that is there, and nothing else.
//!
//! Answers for: being found. It has no registers and no interrupt; a guest finds it under the numbers that the configuration gives
//! it. Does not answer for: its configuration space (`pci`).

use crate::plug::report;
use alloc::boxed::Box;
use alloc::string::{String, ToString};
use pci::{Description, Endpoint, Function, Identity, Region};
use types::AccessSize;
use vdev::{
    AccessFault, Context, Control, ControlError, Factory, FactoryFlags, OptionError, OptionKind, OptionSpec, Options,
    Safety, Setup, Vdev, Wake,
};

const VENDOR: &str = "vendor";
const DEVICE: &str = "device";
const CLASS: &str = "class";

/// `vdev pci-dummy`.
pub(crate) static FACTORY: Factory = Factory {
    name: "pci-dummy",
    flags: FactoryFlags::LOC_PCI.union(FactoryFlags::INTR_FORBIDDEN),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: 0,
    help: "a function of the PCI bus that does nothing",
    about: "It keeps a place: where a device was, or as function 0 of one with others.\n\n    \
        vdev pci-dummy loc pci:3 vendor 0x1c05 device 0x00ff",
    ..Factory::new(create)
};

// QNX: which numbers it has there is not known.
static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(VENDOR, OptionKind::Number { min: 0, max: 0xfffe }, "its vendor ID").default("0x1c05"),
    OptionSpec::new(DEVICE, OptionKind::Number { min: 0, max: 0xffff }, "its device ID").default("0x00ff"),
    OptionSpec::new(CLASS, OptionKind::Number { min: 0, max: 0xff_ffff }, "its class code").default("0xff0000"),
];

struct Dummy {
    name: String,
    identity: Identity,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    let number = |name| options.number(name).unwrap_or_default();
    let id = |name| u16::try_from(number(name)).unwrap_or_default();
    let identity = Identity::new(id(VENDOR), id(DEVICE), u32::try_from(number(CLASS)).unwrap_or_default());
    let dummy = Dummy { name: setup.name.to_string(), identity };
    Endpoint::attach(setup, &Description::new(identity), |_, _| Ok(dummy))
}

impl Function for Dummy {
    fn read(&mut self, _: Region, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn write(&mut self, _: Region, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        let Identity { vendor, device, .. } = self.identity;
        match event {
            Control::Status(into) => report(into, &self.name, format_args!("{vendor:04x}:{device:04x}")),
            _ => Ok(()),
        }
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}
}

#[cfg(test)]
mod tests {
    use super::*;
    use pci::testkit::Slots;
    use vdev::DeviceId;
    use vdev::testkit::Wires;

    #[test]
    fn it_is_found_under_the_numbers_that_it_was_given() {
        let words = [("vendor", Some("0x1af4")), ("device", Some("0x1041")), ("class", Some("0x20000"))];
        let mut slots = Slots::new(&[(&FACTORY, &[]), (&FACTORY, &words)], true, &mut Wires::default()).unwrap();
        let [first, second] = [Slots::slot(1), Slots::slot(2)];
        assert_eq!((slots.config(first, 0), slots.config(first, 8)), (0x00ff_1c05, 0xff00_0000));
        assert_eq!((slots.config(second, 0), slots.config(second, 8)), (0x1041_1af4, 0x0200_0000));
    }

    #[test]
    fn it_has_nothing_but_a_configuration_space() {
        let mut slots = Slots::new(&[(&FACTORY, &[])], true, &mut Wires::default()).unwrap();
        let slot = Slots::slot(1);
        for at in (0x10..0x40).step_by(4) {
            slots.set_config(slot, at, u32::MAX);
            assert_eq!(slots.config(slot, at), if at == 0x3c { 0xff } else { 0 }, "{at:#x}");
        }
        let mut status = String::new();
        slots.control(DeviceId(1), Control::Status(&mut status)).unwrap();
        assert_eq!(status, "pci-dummy: 1c05:00ff\n");
    }
}
