//! The interrupt controller as a configuration sees it: `vdev gic`.
//!
//! Answers for: its options (the original's `vdev gic`). Does not answer for: anything else about it. Every VM has one,
//! whether the configuration names it or not; `vm` places it and describes it in the guest's device tree, and its registers
//! are `vgic`'s: the exit code takes accesses straight there, past the bus, because the controller is on the path of every
//! interrupt. So nothing is made here.

use alloc::{boxed::Box, string::ToString};
use vdev::{AccessSizes, Factory, FactoryFlags, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Vdev};

/// `vdev gic`.
pub(crate) static FACTORY: Factory = Factory {
    name: "gic",
    flags: FactoryFlags::PIC
        .union(FactoryFlags::IMPLICIT)
        .union(FactoryFlags::LOC_MEM)
        .union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::all(),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: 0,
    help: "the Arm Generic Interrupt Controller",
    about: "`loc` is its distributor (0x08000000). Name it before the devices that name it.\n\n    \
        vdev gic loc 0x10000000 gicr 0x10010000\n    vdev gic its 0x08080000 num-lpis 256\n    \
        vdev gic version 2 msi 0x08020000,64,32",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new(
        "version",
        OptionKind::Number { min: 2, max: 3 },
        "architecture the guest sees: must be the host's",
    ),
    OptionSpec::new("gicr", OptionKind::Address, "first redistributor, 128 KiB each (0x080a0000); implies version 3"),
    OptionSpec::new("gicc", OptionKind::Address, "CPU interface, 8 KiB (64 KiB behind `loc`); implies version 2"),
    OptionSpec::new(
        "its",
        OptionKind::Address,
        "interrupt translation service, 128 KiB; implies version 3, needs `num-lpis`",
    ),
    OptionSpec::new(
        "num-lpis",
        OptionKind::Number { min: 1, max: 8192 },
        "how many LPIs there are with `its`: 32 or the next power of two",
    ),
    OptionSpec::new("msi", OptionKind::Text, "frame for messages: ADDRESS,FIRST,COUNT; implies version 2"),
    OptionSpec::new("host-gicd", OptionKind::Address, "deprecated: the host's own is found by its device tree")
        .not_yet(),
    OptionSpec::new("host-gich", OptionKind::Address, "deprecated: the host's own is found by its device tree")
        .not_yet(),
    OptionSpec::new("host-gicv", OptionKind::Address, "deprecated: the host's own is found by its device tree")
        .not_yet(),
];

fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Err(OptionError::general("the interrupt controller is a part of the VM, not a device on its bus".to_string()))
}
