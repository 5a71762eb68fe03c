//! The host bridge as a configuration sees it: `vdev pci-host`.
//!
//! Answers for: its options. Does not answer for: anything else about it. There is one as soon as a device is on the PCI bus; `vm` finds
//! places for what is not said here, and makes it: it is `pci`'s ([`pci::HostBridge`]), and knows of all others on the bus. So nothing
//! is made here.

use alloc::{boxed::Box, string::ToString};
use vdev::{AccessSizes, Factory, FactoryFlags, OptionError, OptionKind, OptionSpec, Options, Safety, Setup, Vdev};

/// `vdev pci-host`. QNX: the bridge there has no name and no options; this is Linux' word for what it is.
pub(crate) static FACTORY: Factory = Factory {
    name: "pci-host",
    flags: FactoryFlags::PCI_HOST.union(FactoryFlags::LOC_MEM),
    access_sizes: AccessSizes::BYTE.union(AccessSizes::HALFWORD).union(AccessSizes::WORD),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: pci::ECAM_SIZE,
    help: "the PCI bus: its host bridge",
    about: "There is one once a device is on the bus, named or not: 1c05:0002 at 00:00.0.\n\
        `loc` is where the configuration spaces are (ECAM, bus 0). `intr` is the first\n\
        of four lines, which devices share; messages need none of them.\n\n    \
        vdev pci-host loc 0x3f000000 window 0x10000000,256M intr gic:64",
    ..Factory::new(create)
};

static OPTIONS: &[OptionSpec] = &[OptionSpec::new(
    "window",
    OptionKind::Region,
    "where the guest may put devices: one below 4G, one above; else found",
)
.repeatable()];

fn create(_: &Options, _: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    Err(OptionError::general("the host bridge is made with the bus".to_string()))
}
