use super::*;
use alloc::string::String;
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use types::Pa;

const QEMU: &[u8] = include_bytes!("../../../../machine/src/tests/trees/qemu-gicv3-2cpus.dtb");

fn pages(guest: u64, host: u64) -> PassedRegion {
    PassedRegion {
        guest: Range::new(Ipa(guest), 4096).unwrap(),
        host: Range::new(Pa(host), 4096).unwrap(),
        writable: true,
        place: None,
    }
}

fn line(guest: u32, host: u32) -> PassedInterrupt {
    PassedInterrupt { guest: IntId(guest), host: IntId(host), edge: false, place: None }
}

fn passed(regions: &[PassedRegion], interrupts: &[PassedInterrupt]) -> PassedDevice {
    PassedDevice { place: None, reach: Reach::Nothing, regions: regions.to_vec(), interrupts: interrupts.to_vec() }
}

fn on(tree: &[u8], devices: Vec<PassedDevice>) -> Result<Vec<u8>, Vec<AssembleError>> {
    let description = Description { passed: devices, ..description() };
    let host = Host { tree: Some(tree), ..host() };
    assemble(&description, &archive(), &host, &mut Wires::default()).map(|assembled| assembled.tree)
}

fn messages(tree: &[u8], device: PassedDevice) -> Vec<String> {
    on(tree, vec![device]).unwrap_err().iter().map(ToString::to_string).collect()
}

fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

fn node(name: &str, properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(*name, value.clone()).unwrap());
    }
    node
}

/// As on a Raspberry Pi 4: addresses of 32 bits behind `/soc`, two serial ports on one interrupt, two devices in one page.
fn pi() -> Vec<u8> {
    let gic = [
        ("compatible", b"arm,gic-400\0".to_vec()),
        ("#interrupt-cells", cells(&[3])),
        ("reg", cells(&[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000])),
        ("phandle", cells(&[1])),
    ];
    let device = |name: &str, compatible: &[u8], at: u32, spi: u32| {
        let properties = [
            ("compatible", compatible.to_vec()),
            ("reg", cells(&[at, 0x100])),
            ("interrupts", cells(&[0, spi, 4])),
            ("clocks", cells(&[2, 19, 3])),
            ("clock-names", b"uartclk\0apb_pclk\0".to_vec()),
            ("pinctrl-0", cells(&[1])),
            ("phandle", cells(&[0x40 + spi + at % 7])),
        ];
        node(name, &properties)
    };
    let ranges = cells(&[0x7e00_0000, 0xfe00_0000, 0x180_0000, 0x4000_0000, 0xff80_0000, 0x80_0000]);
    let mut soc = node("soc", &[("#address-cells", cells(&[1])), ("#size-cells", cells(&[1])), ("ranges", ranges)]);
    soc.add_child(node("interrupt-controller@40041000", &gic));
    soc.add_child(device("serial@7e201000", b"arm,pl011\0arm,primecell\0", 0x7e20_1000, 121));
    soc.add_child(device("serial@7e203000", b"arm,pl011\0arm,primecell\0", 0x7e20_3000, 121));
    soc.add_child(device("pwm@7e20c000", b"brcm,bcm2835-pwm\0", 0x7e20_c000, 30));
    soc.add_child(device("pwm@7e20c800", b"brcm,bcm2835-pwm\0", 0x7e20_c800, 31));
    let mut tree = DeviceTree::new();
    tree.root.add_property(DeviceTreeProperty::new("#address-cells", cells(&[1])).unwrap());
    tree.root.add_property(DeviceTreeProperty::new("#size-cells", cells(&[1])).unwrap());
    tree.root.add_property(DeviceTreeProperty::new("interrupt-parent", cells(&[1])).unwrap());
    tree.root.add_child(node("cprman", &[("#clock-cells", cells(&[1])), ("phandle", cells(&[2]))]));
    let fixed = [
        ("compatible", b"fixed-clock\0".to_vec()),
        ("#clock-cells", cells(&[0])),
        ("clock-frequency", cells(&[54_000_000])),
        ("phandle", cells(&[3])),
    ];
    tree.root.add_child(node("osc", &fixed));
    tree.root.add_child(soc);
    tree.to_dtb()
}

fn guest(tree: &[u8]) -> DeviceTree {
    DeviceTree::from_fdt(&Fdt::new(tree).unwrap())
}

fn property(tree: &DeviceTree, path: &str, name: &str) -> Option<Vec<u8>> {
    let node = tree.find_node(path).unwrap_or_else(|| panic!("no {path}"));
    node.properties().find(|found| found.name() == name).map(|found| found.value().to_vec())
}

#[test]
fn a_passed_device_is_in_the_guests_tree_where_the_guest_has_it() {
    let device = passed(&[pages(0x1c17_0000, 0x901_0000)], &[line(40, 34)]);
    let tree = guest(&on(QEMU, vec![device]).unwrap());
    let value = |name| property(&tree, "/pl031@1c170000", name);
    assert_eq!(value("reg"), Some(cells(&[0, 0x1c17_0000, 0, 0x1000])));
    assert_eq!(value("interrupts"), Some(cells(&[0, 8, 4])));
    assert_eq!(value("compatible").as_deref(), Some(&b"arm,pl031\0arm,primecell\0"[..]));
    assert_eq!(value("clocks"), Some(cells(&[Node::APB_CLOCK])), "the guest's own");
    assert_eq!(value("clock-names").as_deref(), Some(&b"apb_pclk\0"[..]));
    assert_eq!(value("phandle"), None, "it would be another node's here");
}

#[test]
fn a_device_without_its_interrupt_has_none_in_the_guests_tree() {
    let tree = guest(&on(QEMU, vec![passed(&[pages(0x1c17_0000, 0x901_0000)], &[])]).unwrap());
    assert_eq!(property(&tree, "/pl031@1c170000", "interrupts"), None);
}

#[test]
fn behind_a_bus_a_device_is_where_the_cpus_see_it() {
    let both = [pages(0x1000_0000, 0xfe20_1000), pages(0x1000_1000, 0xfe20_3000)];
    let tree = guest(&on(&pi(), vec![passed(&both, &[line(50, 153)])]).unwrap());
    for (path, at) in [("/serial@10000000", 0x1000_0000), ("/serial@10001000", 0x1000_1000)] {
        assert_eq!(property(&tree, path, "reg"), Some(cells(&[0, at, 0, 0x100])));
        assert_eq!(property(&tree, path, "interrupts"), Some(cells(&[0, 18, 4])));
        assert_eq!(property(&tree, path, "clocks"), Some(cells(&[0x8100])), "the one that never changes");
        assert_eq!(property(&tree, path, "clock-names").as_deref(), Some(&b"apb_pclk\0"[..]));
        assert_eq!(property(&tree, path, "pinctrl-0"), None, "it refers to another node");
    }
    assert_eq!(property(&tree, "/clock-54000000", "clock-frequency"), Some(cells(&[54_000_000])));
    assert_eq!(property(&tree, "/clock-54000000", "phandle"), Some(cells(&[0x8100])));
}

#[test]
fn all_that_is_in_a_page_is_the_guests() {
    let device = passed(&[pages(0x1000_0000, 0xfe20_c000)], &[line(62, 62), line(63, 63)]);
    let tree = guest(&on(&pi(), vec![device]).unwrap());
    assert_eq!(property(&tree, "/pwm@10000000", "interrupts"), Some(cells(&[0, 30, 4])));
    assert_eq!(property(&tree, "/pwm@10000800", "interrupts"), Some(cells(&[0, 31, 4])));
}

#[test]
fn what_is_no_device_is_not_passed() {
    let nothing = messages(QEMU, passed(&[pages(0x1000_0000, 0x40_0000_0000)], &[]));
    assert_eq!(nothing, ["`pass`: the machine has no device at 0x4000000000-0x4000000fff"]);
    let ram = messages(QEMU, passed(&[pages(0x1000_0000, 0x5000_0000)], &[]));
    assert!(ram[0].contains("the machine has no device"), "{ram:?}");
    let hints = on(QEMU, vec![passed(&[pages(0x1000_0000, 0x5000_0000)], &[])]).unwrap_err();
    assert!(hints[0].hint.is_some_and(|hint| hint.contains("`ram` gives it")), "{hints:?}");
    let high = messages(QEMU, passed(&[pages(1 << 47, 0x901_0000)], &[]));
    assert!(high[0].contains("goes beyond"), "{high:?}");
}

#[test]
fn what_is_the_hypervisors_is_not_passed() {
    let gic = messages(QEMU, passed(&[pages(0x1000_0000, 0x800_0000)], &[]));
    assert!(gic[0].contains("/intc@8000000 is the machine's interrupt controller"), "{gic:?}");
    let its = messages(QEMU, passed(&[pages(0x1000_0000, 0x808_0000)], &[]));
    assert!(its[0].contains("/intc@8000000/its@8080000 is the machine's interrupt controller"), "{its:?}");
    for reach in [Reach::Nothing, Reach::Own, Reach::Everything] {
        let virtio = messages(QEMU, reaching(reach, 0xa00_0000));
        assert_eq!(virtio.len(), 8, "all that are in the page");
        let why = "/virtio_mmio@a000000 is a place for virtio devices, which is the hypervisor's";
        assert!(virtio[0].contains(why), "{virtio:?}");
    }
}

fn reaching(reach: Reach, host: u64) -> PassedDevice {
    PassedDevice { reach, ..passed(&[pages(0x1000_0000, host)], &[]) }
}

#[test]
fn what_reaches_memory_is_not_passed_as_if_it_did_not_nor_without_an_smmu() {
    let said = messages(QEMU, reaching(Reach::Nothing, 0x902_0000));
    assert!(said[0].contains("/fw-cfg@9020000 reaches memory by itself") && !said[0].contains("SMMU"), "{said:?}");
    let said = messages(QEMU, reaching(Reach::Own, 0x902_0000));
    assert!(said[0].contains("/fw-cfg@9020000 reaches memory by itself, and no SMMU confines it"), "{said:?}");
    let said = messages(QEMU, reaching(Reach::Own, 0x901_0000));
    assert!(said[0].contains("/pl031@9010000 reaches memory by itself, and no SMMU"), "who says `d` is believed");
    for reach in [Reach::Own, Reach::Everything] {
        let said = messages(QEMU, reaching(reach, 0x40_1000_0000));
        assert!(said[0].contains("/pcie@10000000 is a PCI host bridge, which is the hypervisor's"), "{said:?}");
    }
    let tree = guest(&on(QEMU, vec![reaching(Reach::Everything, 0x902_0000)]).unwrap());
    assert_eq!(property(&tree, "/fw-cfg@10000000", "dma-coherent"), Some(vec![]), "as it is");
}

/// QEMU's tree with an SMMU in front of its clock, and another device in the clock's page.
fn with_smmu(coherent: bool) -> Vec<u8> {
    let mut tree = DeviceTree::from_fdt(&Fdt::new(QEMU).unwrap());
    tree.root.remove_property("dma-coherent");
    let smmu = [
        ("compatible", b"arm,smmu-v3\0".to_vec()),
        ("reg", cells(&[0, 0x0905_0000, 0, 0x2_0000])),
        ("#iommu-cells", cells(&[1])),
        ("phandle", cells(&[0x9999])),
    ];
    tree.root.add_child(node("smmuv3@9050000", &smmu));
    let clock = tree.root.child_mut("pl031@9010000").unwrap();
    clock.add_property(DeviceTreeProperty::new("iommus", cells(&[0x9999, 0x20, 0x9999, 0x21])).unwrap());
    if coherent {
        clock.add_property(DeviceTreeProperty::new("dma-coherent", Vec::<u8>::new()).unwrap());
    }
    let beside = [("compatible", b"beside\0".to_vec()), ("reg", cells(&[0, 0x0901_0800, 0, 0x100]))];
    tree.root.add_child(node("beside@9010800", &beside));
    tree.to_dtb()
}

#[test]
fn what_an_smmu_confines_is_passed_with_its_streams() {
    for coherent in [true, false] {
        let tree = with_smmu(coherent);
        let description = Description { passed: vec![reaching(Reach::Own, 0x901_0000)], ..description() };
        let host = Host { tree: Some(&tree), ..host() };
        let assembled = assemble(&description, &archive(), &host, &mut Wires::default()).unwrap();
        let [PassedStreams { device, streams, .. }] = &assembled.streams[..] else { panic!("{:?}", assembled.streams) };
        let ids: Vec<_> = streams.iter().map(|stream| (stream.smmu, stream.id)).collect();
        assert_eq!((device.as_str(), &ids[..]), ("/pl031@9010000", &[(0, 0x20), (0, 0x21)][..]));
        let guests = guest(&assembled.tree);
        assert_eq!(property(&guests, "/pl031@10000000", "iommus"), None, "it is the hypervisor's affair");
        assert_eq!(property(&guests, "/pl031@10000000", "dma-coherent").is_some(), coherent);
    }
}

#[test]
fn an_smmu_is_made_use_of_where_there_is_one() {
    let tree = with_smmu(true);
    let said = messages(&tree, reaching(Reach::Everything, 0x901_0000));
    assert!(said[0].contains("/pl031@9010000 is behind an SMMU, which confines it"), "{said:?}");
    let said = messages(&tree, reaching(Reach::Nothing, 0x901_0000));
    assert!(said[0].contains("/pl031@9010000 reaches memory by itself"), "{said:?}");
}

#[test]
fn nothing_is_where_the_guest_has_nothing() {
    let description = Description { passed: vec![reaching(Reach::Own, 0x901_0000)], ..description() };
    let everything = description.everything(Ipa(1 << 40));
    let is_free = |at: u64| everything.iter().all(|range| !range.contains(Ipa(at)));
    assert!(is_free(0xff_c000_0000) && !is_free(0x1000_0000));
    assert!(description.ram.iter().all(|ram| !is_free(ram.start().0)));
    assert!(description.stolen_time().is_none_or(|page| !is_free(page.start().0)));
}

#[test]
fn half_a_device_is_not_passed() {
    let mut tree = DeviceTree::from_fdt(&Fdt::new(QEMU).unwrap());
    let large = [("compatible", b"big\0".to_vec()), ("reg", cells(&[0, 0x0b00_0000, 0, 0x2000]))];
    tree.root.add_child(node("big@b000000", &large));
    let said = messages(&tree.to_dtb(), passed(&[pages(0x1000_0000, 0xb00_1000)], &[]));
    assert!(said[0].contains("/big@b000000 has registers at 0xb000000-0xb001fff, and not all"), "{said:?}");
}

#[test]
fn an_interrupt_goes_with_its_devices() {
    let clock = [pages(0x1000_0000, 0x901_0000)];
    let said = messages(QEMU, passed(&clock, &[line(40, 33)]));
    assert!(said[0].contains("interrupt 33 is that of /pl011@9000000, which is not passed with it"), "{said:?}");
    let said = messages(QEMU, passed(&clock, &[line(40, 500)]));
    assert!(said[0].contains("interrupt 500 is no device's of the machine"), "{said:?}");
    let said = messages(QEMU, passed(&clock, &[PassedInterrupt { edge: true, ..line(40, 34) }]));
    assert!(said[0].contains("interrupt 34 of /pl031@9010000 is no edge"), "{said:?}");
    let one_of_two = messages(&pi(), passed(&[pages(0x1000_0000, 0xfe20_1000)], &[line(50, 153)]));
    assert!(one_of_two[0].contains("interrupt 153 is that of /soc/serial@7e203000"), "{one_of_two:?}");
}

#[test]
fn without_a_tree_nothing_is_passed() {
    let said = messages(&[], passed(&[pages(0x1000_0000, 0x901_0000)], &[]));
    assert!(said[0].starts_with("nothing can be passed: device tree:"), "{said:?}");
    assert!(on(&[], vec![]).is_ok(), "and nobody asks for one otherwise");
    let description = Description { passed: vec![passed(&[pages(0x1000_0000, 0x901_0000)], &[])], ..description() };
    assert!(
        assemble(&description, &archive(), &host(), &mut Wires::default()).is_ok(),
        "of a machine that is not known"
    );
}

#[test]
fn passed_interrupts_are_among_those_of_the_guest() {
    let description = Description { passed: vec![passed(&[], &[line(700, 34)])], ..description() };
    assert_eq!(description.intids(), 704);
    let at = |place| Description { passed: vec![passed(&[pages(place, 0x901_0000)], &[])], ..super::description() };
    assert_eq!(at(0x090a_0000).stolen_time().map(|page| page.start()), Some(Ipa(0x090b_0000)));
}
