use super::*;
use crate::{Master, Smmu, Stream};
use types::RequesterId;

fn machine(root: DeviceTreeNode) -> (Vec<Smmu>, Vec<Master>) {
    let machine = read(root).unwrap();
    (machine.smmus, machine.masters)
}

fn smmu(name: &str, address: u32, phandle: u32) -> DeviceTreeNode {
    let properties = [
        ("compatible", text("arm,smmu-v3")),
        ("reg", cells(&[0, address, 0x2_0000])),
        ("#iommu-cells", cells(&[1])),
        ("phandle", cells(&[phandle])),
        ("interrupt-names", text("gerror\0eventq")),
        ("interrupts", cells(&[0, 40, 1, 0, 41, 1])),
    ];
    node(name, &properties, vec![])
}

/// The Pi's tree with two SMMUs at its root, and another IOMMU, and this.
fn with(nodes: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut root = pi();
    root.add_child(smmu("iommu@50000000", 0x5000_0000, 0x50));
    root.add_child(smmu("iommu@60000000", 0x6000_0000, 0x60));
    let properties = [("compatible", text("vendor,iommu")), ("#iommu-cells", cells(&[2])), ("phandle", cells(&[0x70]))];
    root.add_child(node("iommu@70000000", &properties, vec![]));
    for node in nodes {
        root.add_child(node);
    }
    root
}

fn device(properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let mut properties = properties.to_vec();
    properties.push(("reg", cells(&[0, 0x1000_0000, 0x1000])));
    node("device@10000000", &properties, vec![])
}

#[test]
fn qemus_is_found_with_what_is_behind_it() {
    let machine = Machine::from_device_tree(INITRD).unwrap();
    assert_eq!(
        machine.smmus,
        [Smmu {
            registers: range(0x0905_0000, 0x2_0000),
            eventq: Some(IntId(32 + 0x4a)),
            gerror: Some(IntId(32 + 0x4d)),
            cmdq_sync: Some(IntId(32 + 0x4c)),
            combined: None,
            is_coherent: true,
        }]
    );
    let [host] = &machine.masters[..] else { panic!("{:?}", machine.masters) };
    assert_eq!((host.path.as_str(), host.streams.len()), ("/pcie@10000000", 0));
    let functions = host.functions.as_ref().unwrap();
    for requester in [0, 8, 0x1234, 0xffff] {
        assert_eq!(functions.stream(RequesterId(requester)), Some(Stream { smmu: 0, id: requester.into() }));
    }
    assert_eq!((functions.highest(0), functions.highest(1)), (Some(0xffff), None));
}

#[test]
fn without_an_smmu_nothing_is_behind_one() {
    for tree in [GICV3_2, GICV2_1] {
        let machine = Machine::from_device_tree(tree).unwrap();
        assert_eq!((machine.smmus, machine.masters), (vec![], vec![]));
    }
}

#[test]
fn interrupts_go_by_their_names() {
    let (smmus, _) = machine(with(vec![]));
    let [first, second] = smmus[..] else { panic!("{smmus:?}") };
    assert_eq!((first.gerror, first.eventq), (Some(IntId(72)), Some(IntId(73))));
    assert_eq!((first.cmdq_sync, first.combined, first.is_coherent), (None, None, false));
    assert_eq!((first.registers, second.registers), (range(0x5000_0000, 0x2_0000), range(0x6000_0000, 0x2_0000)));
}

#[test]
fn a_device_has_the_streams_that_it_names() {
    // Of the second SMMU, of an IOMMU that is none, of the first.
    let iommus = cells(&[0x60, 7, 0x70, 1, 2, 0x50, 8]);
    let (_, masters) = machine(with(vec![device(&[("iommus", iommus)])]));
    assert_eq!(
        masters,
        [Master {
            path: "/device@10000000".into(),
            registers: Some(range(0x1000_0000, 0x1000)),
            streams: vec![Stream { smmu: 1, id: 7 }, Stream { smmu: 0, id: 8 }],
            functions: None,
        }]
    );
}

#[test]
fn what_is_no_sense_or_switched_off_is_behind_no_smmu() {
    for iommus in [&[0x50][..], &[0x99, 1], &[0x70, 1, 2], &[0x50, 1, 0x70, 1]] {
        assert_eq!(machine(with(vec![device(&[("iommus", cells(iommus))])])).1, [], "{iommus:x?}");
    }
    let off = device(&[("iommus", cells(&[0x50, 1])), ("status", text("disabled"))]);
    assert_eq!(machine(with(vec![off])).1, []);
    for map in [&[0, 0x50, 0][..], &[0, 0x99, 0, 1], &[0, 0x70, 0, 1]] {
        assert_eq!(machine(with(vec![device(&[("iommu-map", cells(map))])])).1, [], "{map:x?}");
    }
}

#[test]
fn functions_have_streams_by_spans_and_mask() {
    // Two buses at one SMMU, one at the other; functions 0 to 7 of a device are one stream.
    let map = cells(&[0, 0x50, 0x1000, 0x200, 0x300, 0x60, 0, 0x100]);
    let host = device(&[("iommu-map", map), ("iommu-map-mask", cells(&[0xfff8]))]);
    let (_, masters) = machine(with(vec![host]));
    let functions = masters[0].functions.as_ref().unwrap();
    let stream = |requester| functions.stream(RequesterId(requester)).map(|stream| (stream.smmu, stream.id));
    assert_eq!((stream(0), stream(7), stream(8)), (Some((0, 0x1000)), Some((0, 0x1000)), Some((0, 0x1008))));
    assert_eq!((stream(0x1ff), stream(0x200), stream(0x2ff)), (Some((0, 0x11f8)), None, None));
    assert_eq!((stream(0x300), stream(0x3ff), stream(0x400)), (Some((1, 0)), Some((1, 0xf8)), None));
    assert_eq!((functions.highest(0), functions.highest(1)), (Some(0x11ff), Some(0xff)));
}

#[test]
fn spans_that_run_over_the_end_are_no_streams() {
    let map = cells(&[0, 0x50, 0xffff_fff0, 0x100]);
    let (_, masters) = machine(with(vec![device(&[("iommu-map", map)])]));
    let functions = masters[0].functions.as_ref().unwrap();
    assert_eq!(functions.stream(RequesterId(0xf)), Some(Stream { smmu: 0, id: u32::MAX }));
    assert_eq!(functions.stream(RequesterId(0x10)), None);
    assert_eq!(functions.highest(0), Some(u32::MAX));
}
