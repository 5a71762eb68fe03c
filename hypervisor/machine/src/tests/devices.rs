use super::*;

fn all(blob: &[u8]) -> Vec<Device> {
    devices(blob).unwrap()
}

fn device<'a>(devices: &'a [Device], path: &str) -> &'a Device {
    devices.iter().find(|device| device.path == path).unwrap_or_else(|| panic!("no {path}"))
}

fn property<'a>(device: &'a Device, name: &str) -> Option<&'a [u8]> {
    device.properties.iter().find(|(known, _)| *known == name).map(|(_, value)| value.as_slice())
}

#[test]
fn a_device_of_qemu_has_what_is_about_itself() {
    for blob in [GICV3_2, GICV2_8] {
        let devices = all(blob);
        let clock = device(&devices, "/pl031@9010000");
        assert_eq!((clock.name.as_str(), &clock.registers[..]), ("pl031", &[range(0x901_0000, 0x1000)][..]));
        assert_eq!(clock.interrupts, [Some(Line { intid: IntId(34), flags: 4 })]);
        let apb = DeviceClock { name: Some("apb_pclk".into()), frequency: Some(24_000_000) };
        assert_eq!(clock.clocks, [apb]);
        assert_eq!(property(clock, "compatible"), Some(&b"arm,pl031\0arm,primecell\0"[..]));
        assert_eq!(property(clock, "clocks"), None, "it refers to another node");
        assert_eq!((clock.reaches_memory, clock.role), (false, None));
        let gpio = device(&devices, "/pl061@9030000");
        assert_eq!(gpio.interrupts, [Some(Line { intid: IntId(39), flags: 4 })]);
        assert_eq!(property(gpio, "#gpio-cells"), Some(&[0, 0, 0, 2][..]));
    }
}

#[test]
fn what_reaches_memory_is_known_by_its_node() {
    let devices = all(GICV3_2);
    for path in ["/fw-cfg@9020000", "/virtio_mmio@a000000", "/pcie@10000000"] {
        assert!(device(&devices, path).reaches_memory, "{path}");
    }
    let mut root = pi();
    for (at, property) in
        (0xfd00_0000_u32..).zip(["dma-coherent", "iommus", "iommu-map", "#dma-cells", "memory-region"])
    {
        root.add_child(node(&format!("x@{at:x}"), &[("reg", cells(&[0, at, 1])), (property, cells(&[1]))], vec![]));
    }
    root.add_child(node("none@fd000010", &[("reg", cells(&[0, 0xfd00_0010, 1])), ("dmas", cells(&[1]))], vec![]));
    let devices = all(&blob(root));
    assert_eq!(devices.iter().filter(|device| device.reaches_memory).count(), 5);
    assert!(!device(&devices, "/none@fd000010").reaches_memory, "another device does it for this one");
}

#[test]
fn what_is_the_hypervisors_by_nature_says_so() {
    let devices = all(GICV3_2);
    assert_eq!(device(&devices, "/intc@8000000").role, Some("the machine's interrupt controller"));
    assert_eq!(device(&devices, "/intc@8000000/its@8080000").role, Some("the machine's interrupt controller"));
    assert_eq!(device(&devices, "/pcie@10000000").role, Some("a PCI host bridge"));
    assert_eq!(device(&devices, "/flash@0").role, Some("memory of the machine's firmware"));
    assert_eq!(device(&devices, "/virtio_mmio@a000000").role, Some("a place for virtio devices"));
    let smmu = node(
        "smmu@9050000",
        &[("compatible", text("arm,smmu-v3")), ("reg", cells(&[0, 0x905_0000, 0x2_0000]))],
        vec![],
    );
    let mut root = pi();
    root.add_child(smmu);
    assert_eq!(device(&all(&blob(root)), "/smmu@9050000").role, Some("an SMMU"));
}

#[test]
fn memory_cpus_and_what_is_switched_off_are_no_devices() {
    let devices = all(&blob(pi()));
    for path in ["/memory@0", "/cpus/cpu@0", "/soc/serial@7e201400"] {
        assert!(devices.iter().all(|device| device.path != path), "{path}");
    }
}

#[test]
fn registers_are_where_the_cpus_see_them() {
    let devices = all(&blob(pi()));
    let serial = device(&devices, "/soc/serial@7e201000");
    assert_eq!(serial.registers, [range(0xfe20_1000, 0x40)]);
    assert_eq!(serial.interrupts, [Some(Line { intid: IntId(153), flags: 4 })]);
    assert_eq!(serial.clocks, []);
}

#[test]
fn clocks_and_interrupts_of_others_have_their_place() {
    let mut root = pi();
    let known_as = |name: &str, property: &'static str, phandle: u32, extra: &[(&str, Vec<u8>)]| {
        let mut properties = vec![(property, cells(&[phandle]))];
        properties.extend(extra.iter().cloned());
        node(name, &properties, vec![])
    };
    let provider = |name: &str, phandle: u32, extra: &[(&str, Vec<u8>)]| known_as(name, "phandle", phandle, extra);
    let fixed =
        [("compatible", text("fixed-clock")), ("#clock-cells", cells(&[0])), ("clock-frequency", cells(&[48_000_000]))];
    // The name of old trees.
    root.add_child(known_as("osc", "linux,phandle", 0x20, &fixed));
    root.add_child(provider("cprman", 0x21, &[("#clock-cells", cells(&[1]))]));
    root.add_child(provider("gpio", 0x22, &[("#interrupt-cells", cells(&[2]))]));
    let properties = [
        ("reg", cells(&[0, 0xfd00_0000, 0x1000])),
        ("clocks", cells(&[0x21, 7, 0x20])),
        ("clock-names", b"core\0bus\0".to_vec()),
        ("interrupts-extended", cells(&[0x22, 3, 8, 1, 0, 9, 1])),
        ("interrupt-names", b"wake\0data\0".to_vec()),
    ];
    root.add_child(node("thing@fd000000", &properties, vec![]));
    let devices = all(&blob(root));
    let thing = device(&devices, "/thing@fd000000");
    let clock = |name: &str, frequency| DeviceClock { name: Some(name.into()), frequency };
    assert_eq!(thing.clocks, [clock("core", None), clock("bus", Some(48_000_000))]);
    assert_eq!(thing.interrupts, [None, Some(Line { intid: IntId(41), flags: 1 })]);
    assert_eq!(thing.interrupt_names, ["wake", "data"]);
}

#[test]
fn a_compact_tree_says_the_same() {
    for blob in [GICV3_2, GICV2_1] {
        // As QEMU hands it over: with room behind it that counts as the tree's.
        let mut large = blob.to_vec();
        large.resize(0x10_0000, 0);
        large[4..8].copy_from_slice(&0x10_0000_u32.to_be_bytes());
        let small = Tree::check(&large).unwrap().compact().unwrap();
        assert!(small.len() <= blob.len(), "{}", small.len());
        assert_eq!(all(&small), all(blob));
    }
}

#[test]
fn a_device_behind_an_smmu_has_its_streams() {
    let smmu = |at: u32, phandle| {
        let properties = [
            ("compatible", text("arm,smmu-v3")),
            ("reg", cells(&[0, at, 0x2_0000])),
            ("#iommu-cells", cells(&[1])),
            ("phandle", cells(&[phandle])),
        ];
        node(&format!("smmu@{at:x}"), &properties, vec![])
    };
    let mut root = pi();
    root.add_child(smmu(0x905_0000, 0x90));
    root.add_child(smmu(0x908_0000, 0x91));
    let behind = [("reg", cells(&[0, 0xfd00_0000, 0x1000])), ("iommus", cells(&[0x91, 7, 0x90, 9]))];
    root.add_child(node("dma@fd000000", &behind, vec![]));
    root.add_child(node("none@fd001000", &[("reg", cells(&[0, 0xfd00_1000, 0x1000]))], vec![]));
    let coherent = [("reg", cells(&[0, 0xfd00_2000, 0x1000])), ("dma-coherent", vec![])];
    root.add_child(node("coherent@fd002000", &coherent, vec![]));
    let devices = all(&blob(root));
    let dma = device(&devices, "/dma@fd000000");
    assert_eq!(dma.streams, [Stream { smmu: 1, id: 7 }, Stream { smmu: 0, id: 9 }]);
    assert!(dma.reaches_memory && !dma.is_coherent);
    assert_eq!(device(&devices, "/none@fd001000").streams, []);
    assert!(device(&devices, "/coherent@fd002000").is_coherent);
}
