//! A whole VM with devices on a PCI bus.

use super::*;
use crate::policy::Action;
use crate::testing::{load as load_exit, store as store_exit};
use vdev::PciSlot;

const ECAM: Ipa = Ipa(0x3f00_0000);
const WINDOW: u64 = 0x1000_0000;

fn function(name: &str, slot: (u8, u8), location: Option<Ipa>, interrupt: Option<u32>) -> VdevDescription {
    let factory = *::vdevs::CATALOGUE.iter().find(|factory| factory.name == name).unwrap();
    VdevDescription {
        factory,
        name: format!("{name}-{}", slot.0),
        location,
        slot: PciSlot::new(slot.0, slot.1),
        interrupt: interrupt.map(IntId),
        schedule: None,
        reports: true,
        options: Options::parse(factory.options, [], &PlainNumbers).unwrap(),
    }
}

/// Shared memory is the third function, and the fourth is another one of its device's.
fn with_bus() -> Description {
    let vdevs = vec![
        probe("first", 0x1c09_0000, 37),
        function("pci-host", (0, 0), Some(ECAM), None),
        function("shmem", (2, 0), None, Some(66)),
        function("pci-dummy", (2, 1), None, None),
    ];
    let pci = PciBus { windows: vec![Range::new(Ipa(WINDOW), 1 << 28).unwrap()], first_line: IntId(64) };
    Description { vdevs, pci: Some(pci), ..description() }
}

/// One property of the node of the bus, by cells.
fn cells(tree: &[u8], node: &str, property: &str) -> Option<Vec<u32>> {
    let tree = Fdt::new(tree).unwrap();
    let value = tree.root().child(node).unwrap().property(property)?.value().to_vec();
    Some(value.chunks(4).map(|cell| u32::from_be_bytes(cell.try_into().unwrap())).collect())
}

struct Guest {
    vm: Vm,
    vcpu: crate::vcpu::Vcpu,
}

impl Guest {
    fn new(description: &Description) -> Self {
        let mut assembled = assemble(description, &archive(), &host(), &mut Wires::default()).unwrap();
        assembled.vm.configure(Box::new(Ram::new(START, 4096)), Ticks(10)).unwrap();
        assembled.vm.start(START, 0, Ticks(20)).unwrap();
        let vcpu = assembled.vm.vcpu(VcpuId(0)).unwrap();
        Self { vm: assembled.vm, vcpu }
    }

    fn exit(&mut self, exit: &types::RawExit) {
        let next = crate::handle(&self.vm, &mut self.vcpu, exit, &mut FakeCpu::default(), &mut Effects::default());
        assert_eq!(next, Next::Resume);
    }

    fn read(&mut self, at: u64) -> u64 {
        self.exit(&load_exit(Ipa(at), AccessSize::Word, 1));
        self.vcpu.context.x[1]
    }

    fn write(&mut self, at: u64, value: u64) {
        self.vcpu.context.x[2] = value;
        self.exit(&store_exit(Ipa(at), AccessSize::Word, 2));
    }
}

const fn config(device: u64, function: u64, at: u64) -> u64 {
    ECAM.0 + (device << 15) + (function << 12) + at
}

#[test]
fn a_guest_reaches_functions_where_it_puts_them() {
    let mut guest = Guest::new(&with_bus());
    assert_eq!(guest.read(config(0, 0, 0)), 0x0002_1c05);
    assert_eq!(guest.read(config(1, 0, 0)), 0xffff_ffff, "nobody there");
    assert_eq!((guest.read(config(2, 0, 0)), guest.read(config(2, 1, 0))), (0x0001_1c05, 0x00ff_1c05));
    assert_eq!(guest.read(config(2, 0, 0xc)) >> 16, 0x80, "one of several functions");
    assert_eq!(guest.read(config(0, 0, 0xc)) >> 16, 0);
    assert_eq!(guest.read(WINDOW + 0x5000), 0xffff_ffff, "nobody there either");
    guest.write(config(2, 0, 0x10), WINDOW + 0x5000);
    guest.write(config(2, 0, 0x04), 2);
    assert_eq!(guest.read(WINDOW + 0x5000), 0x474d_5651, "the signature");
    assert_eq!(guest.read(WINDOW + 0x5010), 66, "its line");
    assert_eq!(guest.read(0x1c09_0008), 0xffff_ffff, "devices in memory are where they are");
    assert_eq!(guest.vm.device_at(Ipa(WINDOW + 0x5000)), "shmem-2");
}

/// PCI says what an access gets that nobody claims: the policy is for addresses that are not the bus's.
#[test]
fn the_policy_for_stray_accesses_ends_at_the_bus() {
    let policy = Unsupported { reference: Action::Abort, ..Unsupported::default() };
    let mut guest = Guest::new(&Description { policy, ..with_bus() });
    assert_eq!((guest.read(config(9, 0, 0)), guest.read(WINDOW)), (0xffff_ffff, 0xffff_ffff));
    let exit = load_exit(Ipa(WINDOW - 8), AccessSize::Word, 1);
    let next = crate::handle(&guest.vm, &mut guest.vcpu, &exit, &mut FakeCpu::default(), &mut Effects::default());
    assert_ne!(next, Next::Resume);
}

#[test]
fn the_tree_has_the_bus_and_who_takes_its_messages() {
    const NODE: &str = "pcie@3f000000";
    let built = |description: &Description, gic| {
        let host = Host { gic, ..host() };
        assemble(description, &archive(), &host, &mut Wires::default()).unwrap().tree
    };
    let tree = built(&with_bus(), vgic::Version::V3);
    assert_eq!(cells(&tree, NODE, "msi-parent"), Some(vec![Node::INTERRUPT_CONTROLLER]));
    assert_eq!(cells(&tree, "interrupt-controller@8000000", "mbi-ranges"), Some(vec![96, 32]), "behind its lines");
    // The upper window is found: 2 GiB at 8 GiB.
    let ranges = cells(&tree, NODE, "ranges").unwrap();
    assert_eq!(ranges[7..], [0x0300_0000, 2, 0, 2, 0, 0, 0x8000_0000]);

    let mut old = with_bus();
    let tree = built(&old, vgic::Version::V2);
    assert_eq!(cells(&tree, NODE, "msi-parent"), None);
    old.controller.messages = vgic::MessageFrame::new(Ipa(0x0802_0000), IntId(128), 32);
    let tree = built(&old, vgic::Version::V2);
    assert_eq!(cells(&tree, NODE, "msi-parent"), Some(vec![Node::MESSAGE_FRAME]));
    let fdt = Fdt::new(&tree).unwrap();
    let frame = fdt.root().child("interrupt-controller@8000000").unwrap().child("v2m@8020000").unwrap();
    assert_eq!(frame.property("phandle").unwrap().value(), Node::MESSAGE_FRAME.to_be_bytes());
}

#[test]
fn windows_that_are_too_small_for_all_functions_are_refused() {
    let mut small = with_bus();
    // A page below 4 GiB, which the shared memory's region has.
    small.pci.as_mut().unwrap().windows = vec![Range::new(Ipa(WINDOW), 4096).unwrap()];
    let build = |description: &Description| {
        let built = assemble(description, &archive(), &host(), &mut Wires::default());
        built.map(|_| ()).map_err(|errors| errors.into_iter().next().unwrap())
    };
    assert!(build(&small).is_ok());
    small.vdevs[3] = function("shmem", (2, 1), None, Some(67));
    let error = build(&small).unwrap_err();
    assert_eq!(error.subject, Subject::Vdev(3));
    assert!(error.message.contains("the windows of the PCI bus have no room for its"), "{error}");
    assert!(error.message.contains("`vdev pci-host window"), "{error}");
}

#[test]
fn a_window_beyond_the_hosts_addresses_is_refused_and_none_is_found_there() {
    let mut high = with_bus();
    high.pci.as_mut().unwrap().windows.push(Range::new(Ipa(1 << 44), 1 << 30).unwrap());
    let error = errors(&high).remove(0);
    assert_eq!(error.subject, Subject::Vdev(1));
    assert!(error.message.starts_with("`vdev pci-host` goes beyond 0x100000000000"), "{error}");
    // A host of 32 bits: PARange 0.
    let small = Host { id: host_id(&[(4, 0, 0x11), (7, 0, 0x1120)]), ..host() };
    let mut description = with_bus();
    description.vdevs.remove(2);
    let tree = assemble(&description, &archive(), &small, &mut Wires::default()).unwrap().tree;
    assert_eq!(cells(&tree, "pcie@3f000000", "ranges").unwrap().len(), 7, "one window");
}

/// A function with a page of registers, which are its offsets.
struct Machines;

impl vdev::HostFunction for Machines {
    fn configuration(&self, at: u16, _: AccessSize, _: Option<u32>) -> u32 {
        if at == 8 { 0x0108_0200 } else { 0 }
    }
    fn registers(&self, _: u8, offset: u64, _: AccessSize, _: Option<u64>) -> Result<u64, vdev::AccessFault> {
        Ok(offset)
    }
    fn map(&self, _: Ipa, _: vdev::FunctionPart, _: bool) -> bool {
        false
    }
    fn message(&self, _: u16, _: vdev::GuestMessage) -> Option<(u64, u32)> {
        None
    }
    fn signal(&self, _: vdev::FunctionSignal) {}
}

fn with_function() -> Description {
    let mut description = with_bus();
    let vdev = description.vdevs.len();
    let mut passed = function("pci-dummy", (3, 0), None, Some(67));
    (passed.factory, passed.name) = (&::pci::PASSED, "pass".into());
    description.vdevs.push(passed);
    let wanted = vdev::WantedFunction::Place { bus: 0, device: 2, function: 0 };
    let place = Some(vdev::Place { source: 0, start: 3, end: 7 });
    description.functions.push(crate::assemble::PassedFunction {
        vdev,
        wanted,
        without_reset: false,
        reach: Reach::Own,
        place,
    });
    description
}

#[test]
fn a_function_of_the_machine_is_on_the_bus() {
    let mut wires = Wires::default();
    let bars = vec![vdev::FunctionBar { index: 0, size: 0x1000, is_64_bit: true }];
    let facts = vdev::FunctionFacts { vendor: 0x1b36, device: 0x10, bars, has_pin: true, ..Default::default() };
    wires.functions.push((facts, Arc::new(Machines)));
    let assembled = assemble(&with_function(), &archive(), &host(), &mut wires).unwrap();
    let services = assembled.vm.services(Ticks(0));
    let at = |register| Ipa(ECAM.0 + (3 << 15) + register);
    let read = |at| assembled.vm.bus.read(at, AccessSize::Word, &services, &mut Effects::default());
    let write = |at, value| assembled.vm.bus.write(at, AccessSize::Word, value, &services, &mut Effects::default());
    assert_eq!((read(at(0)), read(at(8))), (Ok(0x0010_1b36), Ok(0x0108_0200)));
    write(at(0x10), WINDOW).unwrap();
    write(at(4), 2).unwrap();
    assert_eq!(read(Ipa(WINDOW + 0x14)), Ok(0x14));
    assert!(assembled.vm.bus.listeners().iter().any(|(_, intid)| *intid == IntId(67)), "it hears of its pin's ends");
}

#[test]
fn a_function_that_is_not_there_is_named_where_it_is_wanted() {
    let errors = assemble(&with_function(), &archive(), &host(), &mut Wires::default()).unwrap_err();
    assert_eq!(errors[0].message, "`pass loc pci:0:2.0`: the machine has no function 0:2.0");
    assert_eq!(errors[0].place.map(|place| place.start), Some(3));
}

#[test]
fn functions_that_are_confined_are_behind_the_vms_own_smmu_and_no_others() {
    let tree = |description: &Description| {
        let mut wires = Wires::default();
        wires.functions.push((vdev::FunctionFacts::default(), Arc::new(Machines)));
        assemble(description, &archive(), &host(), &mut wires).unwrap().tree
    };
    let mut description = with_function();
    assert_eq!(cells(&tree(&description), "pcie@3f000000", "iommu-map"), None);
    assert_eq!((description.smmu(), description.translated().count()), (None, 0));
    let smmu = VdevDescription { slot: None, ..function("smmu", (0, 0), Some(Ipa(0x1d00_0000)), Some(80)) };
    description.vdevs.push(smmu);
    let map = [3 << 3, Node::SMMU, 3 << 3, 1].to_vec();
    assert_eq!(cells(&tree(&description), "pcie@3f000000", "iommu-map"), Some(map));
    assert_eq!(description.smmu(), Some(DeviceId(5)));
    assert_eq!(description.message_page(), Ipa(0x0800_0000), "GICD");
    description.functions[0].reach = Reach::Nothing;
    assert_eq!(cells(&tree(&description), "pcie@3f000000", "iommu-map"), None);
}
