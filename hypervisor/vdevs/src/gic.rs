//! The interrupt controller as a configuration and a device tree see it: `vdev gic`.
//!
//! Answers for: its options (the original's `vdev gic`) and its node (Linux `arm,gic-v3` binding). Does not answer for: its
//! registers. They are `vgic`'s, and the exit code takes accesses to them straight there, past the bus: the controller is
//! on the path of every interrupt. So this device is not found at any address, and there is one in every VM, whether the
//! configuration names it or not.

use alloc::{boxed::Box, format, string::ToString};
use types::{AccessSize, Ipa, Range};
use vdev::{
    ABI, AccessFault, AccessSizes, Context, Control, ControlError, Factory, FactoryFlags, Node, OptionError,
    OptionKind, OptionSpec, Options, Safety, Setup, Vdev, Wake,
};

/// Where the distributor is unless `loc` says otherwise.
const DISTRIBUTOR: Ipa = Ipa(0x0800_0000);
/// Where the redistributors are unless `gicr` says otherwise.
const REDISTRIBUTORS: Ipa = Ipa(0x080a_0000);
/// IHI 0069, "The GICv3 register maps": one 64 KiB frame.
const DISTRIBUTOR_SIZE: u64 = 0x1_0000;
/// The same: an RD_base and an SGI_base frame of 64 KiB each, for each vCPU.
const REDISTRIBUTOR_SIZE: u64 = 0x2_0000;

/// `vdev gic`.
pub(crate) static FACTORY: Factory = Factory {
    name: "gic",
    abi: ABI,
    flags: FactoryFlags::PIC
        .union(FactoryFlags::IMPLICIT)
        .union(FactoryFlags::LOC_MEM)
        .union(FactoryFlags::INTR_FORBIDDEN),
    access_sizes: AccessSizes::all(),
    options: OPTIONS,
    safety: Safety::Qualified,
    region_size: 0,
    help: "the Arm Generic Interrupt Controller; `loc` is its distributor (0x08000000)",
    create,
};

const ANY: OptionKind = OptionKind::Number { min: 0, max: u64::MAX };

static OPTIONS: &[OptionSpec] = &[
    OptionSpec::new("version", OptionKind::Number { min: 2, max: 3 }, "architecture the guest sees: 3").default("3"),
    OptionSpec::new("gicr", OptionKind::Address, "first redistributor, 128 KiB each (0x080a0000); implies version 3"),
    OptionSpec::new("gicc", OptionKind::Address, "CPU interface of version 2").not_yet(),
    OptionSpec::new("its", OptionKind::Address, "interrupt translation service; implies version 3").not_yet(),
    OptionSpec::new("num-lpis", ANY, "how many message-signalled interrupts `its` translates").not_yet(),
    OptionSpec::new("msi", OptionKind::Text, "message-signalled interrupts of version 2: ADDRESS,BASE,COUNT").not_yet(),
    OptionSpec::new("host-gicd", OptionKind::Address, "deprecated: the host's own is found by its device tree")
        .not_yet(),
    OptionSpec::new("host-gich", OptionKind::Address, "deprecated: the host's own is found by its device tree")
        .not_yet(),
    OptionSpec::new("host-gicv", OptionKind::Address, "deprecated: the host's own is found by its device tree")
        .not_yet(),
];

#[derive(Debug)]
struct Gic {
    distributor: Range<Ipa>,
    redistributors: Range<Ipa>,
}

fn create(options: &Options, setup: &mut Setup<'_>) -> Result<Box<dyn Vdev>, OptionError> {
    if options.number("version") == Some(2) {
        return Err(options.error("version", "`version 2` is known, not supported yet".to_string()));
    }
    let redistributors = options.address("gicr").unwrap_or(REDISTRIBUTORS);
    let length = u64::try_from(setup.vcpus).ok().and_then(|vcpus| vcpus.checked_mul(REDISTRIBUTOR_SIZE));
    let redistributors = length.and_then(|length| Range::new(redistributors, length)).ok_or_else(|| {
        options.error("gicr", format!("no room for {} redistributors at {redistributors}", setup.vcpus))
    })?;
    let distributor = setup.location.unwrap_or(DISTRIBUTOR);
    let distributor = Range::new(distributor, DISTRIBUTOR_SIZE)
        .ok_or_else(|| OptionError::general(format!("no room for a distributor at {distributor}")))?;
    Ok(Box::new(Gic { distributor, redistributors }))
}

impl Vdev for Gic {
    fn read(&mut self, _: u64, _: AccessSize, _: &mut Context<'_>) -> Result<u64, AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn write(&mut self, _: u64, _: AccessSize, _: u64, _: &mut Context<'_>) -> Result<(), AccessFault> {
        Err(AccessFault::Unsupported)
    }

    fn control(&mut self, event: Control<'_>, _: &mut Context<'_>) -> Result<(), ControlError> {
        let Control::Status(report) = event else { return Ok(()) };
        writeln!(report, "distributor {}, redistributors {}", self.distributor.start(), self.redistributors.start())
            .map_err(|_| ControlError("the report is full".to_string()))
    }

    fn wake(&mut self, _: Wake, _: &mut Context<'_>) {}

    fn describe(&self, parent: &mut Node) {
        let node = Node::at("interrupt-controller", self.distributor.start())
            .compatible(&["arm,gic-v3"])
            .reg(&[self.distributor, self.redistributors])
            .flag("interrupt-controller")
            .number("#interrupt-cells", 3)
            .number("#address-cells", 2)
            .number("#size-cells", 2)
            .flag("ranges")
            .number("phandle", Node::INTERRUPT_CONTROLLER);
        parent.add(node);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vdev::testkit::{Rig, Wires};

    fn rig(words: &[(&str, Option<&str>)]) -> Result<Rig, alloc::string::String> {
        Rig::new(&FACTORY, words, &mut Wires::default()).map_err(|errors| errors[0].message.clone())
    }

    #[test]
    fn the_node_has_the_distributor_and_a_redistributor_for_each_vcpu() {
        let tree = rig(&[("gicr", Some("0x20000000"))]).unwrap().describe();
        assert!(tree.contains("interrupt-controller@1c090000"), "{tree}");
        assert!(tree.contains("<0x00 0x1c090000 0x00 0x10000 0x00 0x20000000 0x00 0x20000>"), "{tree}");
    }

    #[test]
    fn what_is_not_there_yet_is_said_so() {
        assert_eq!(rig(&[("version", Some("2"))]).unwrap_err(), "`version 2` is known, not supported yet");
        assert_eq!(rig(&[("its", Some("0"))]).unwrap_err(), "option `its` is known, not supported yet");
        assert_eq!(rig(&[("version", Some("4"))]).unwrap_err(), "`version 4`: must be from 2 to 3");
    }

    #[test]
    fn redistributors_must_fit_the_address_space() {
        let error = rig(&[("gicr", Some("0xffffffffffff0000"))]).unwrap_err();
        assert_eq!(error, "no room for 1 redistributors at 0xffffffffffff0000");
    }

    #[test]
    fn its_registers_are_not_on_the_bus() {
        let mut rig = rig(&[]).unwrap();
        assert_eq!(rig.try_read(0, AccessSize::Word), Err(AccessFault::Nothing));
        assert!(rig.status().contains("distributor 0x1c090000"));
    }
}
