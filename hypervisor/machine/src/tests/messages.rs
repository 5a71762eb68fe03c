use super::*;
use crate::{Its, MessageSender, MessageTarget};
use types::RequesterId;

/// A GICv3 with two ITSs below it, another controller of messages, and these.
fn machine(nodes: Vec<DeviceTreeNode>) -> Machine {
    let mut root = pi();
    let its = |name: &str, address: u32, phandle: u32, more: &[(&str, Vec<u8>)]| {
        let mut properties = vec![
            ("compatible", text("arm,gic-v3-its")),
            ("reg", cells(&[0, address, 0x2_0000])),
            ("#msi-cells", cells(&[1])),
            ("phandle", cells(&[phandle])),
        ];
        properties.extend(more.iter().cloned());
        node(name, &properties, vec![])
    };
    let gic = [
        ("compatible", text("arm,gic-v3")),
        ("reg", cells(&[0, 0x5000_0000, 0x1_0000, 0, 0x5100_0000, 0x10_0000])),
        ("#interrupt-cells", cells(&[3])),
        ("#address-cells", cells(&[2])),
        ("#size-cells", cells(&[1])),
        ("ranges", vec![]),
        ("phandle", cells(&[0x40])),
    ];
    let below = vec![
        its("msi@52000000", 0x5200_0000, 0x50, &[]),
        its("msi@53000000", 0x5300_0000, 0x60, &[("dma-noncoherent", vec![])]),
        its("msi@54000000", 0x5400_0000, 0x61, &[("status", text("disabled"))]),
    ];
    root.add_child(node("gic@50000000", &gic, below));
    let timer = [
        ("compatible", text("arm,armv8-timer")),
        ("interrupts-extended", cells(&[0x40, 1, 13, 4, 0x40, 1, 14, 4, 0x40, 1, 11, 4, 0x40, 1, 10, 4])),
    ];
    root.remove_child("timer");
    root.add_child(node("timer", &timer, vec![]));
    let other = [("compatible", text("vendor,msi")), ("#msi-cells", cells(&[2])), ("phandle", cells(&[0x70]))];
    root.add_child(node("msi@70000000", &other, vec![]));
    for node in nodes {
        root.add_child(node);
    }
    read(root).unwrap()
}

fn device(properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let mut properties = properties.to_vec();
    properties.push(("reg", cells(&[0, 0x1000_0000, 0x1000])));
    node("device@10000000", &properties, vec![])
}

fn host(properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let mut properties = properties.to_vec();
    properties.push(("device_type", text("pci")));
    device(&properties)
}

fn senders(node: DeviceTreeNode) -> Vec<MessageSender> {
    machine(vec![node]).senders
}

#[test]
fn qemus_is_found_with_what_sends_to_it() {
    let machine = Machine::from_device_tree(INITRD).unwrap();
    assert_eq!(machine.its, [Its { registers: range(0x0808_0000, 0x2_0000), is_coherent: true }]);
    let [host] = &machine.senders[..] else { panic!("{:?}", machine.senders) };
    assert_eq!((host.path.as_str(), host.targets.len()), ("/pcie@10000000", 0));
    let functions = host.functions.as_ref().unwrap();
    for requester in [0, 8, 0x1234, 0xffff] {
        let target = MessageTarget { its: 0, device: requester.into() };
        assert_eq!(functions.target(RequesterId(requester)), Some(target));
    }
    assert_eq!((functions.highest(0), functions.highest(1)), (Some(0xffff), None));
}

#[test]
fn a_gicv2_has_none() {
    let machine = Machine::from_device_tree(GICV2_1).unwrap();
    assert_eq!((machine.its, machine.senders), (vec![], vec![]));
}

#[test]
fn each_that_is_on_is_found_and_says_whether_it_is_coherent() {
    let its = machine(vec![]).its;
    let expected = [(0x5200_0000, true), (0x5300_0000, false)];
    let expected = expected.map(|(at, is_coherent)| Its { registers: range(at, 0x2_0000), is_coherent });
    assert_eq!(its, expected);
}

#[test]
fn a_device_has_the_number_that_it_names() {
    // At the second ITS, at a controller that is none, at the first.
    let senders = senders(device(&[("msi-parent", cells(&[0x60, 7, 0x70, 1, 2, 0x50, 8]))]));
    assert_eq!(
        senders,
        [MessageSender {
            path: "/device@10000000".into(),
            registers: Some(range(0x1000_0000, 0x1000)),
            targets: vec![MessageTarget { its: 1, device: 7 }, MessageTarget { its: 0, device: 8 }],
            functions: None,
        }]
    );
}

#[test]
fn what_is_no_sense_or_switched_off_sends_nothing() {
    for parent in [&[0x50][..], &[0x99, 1], &[0x70, 1, 2], &[0x50, 1, 0x70, 1], &[0x61, 1]] {
        assert_eq!(senders(device(&[("msi-parent", cells(parent))])), [], "{parent:x?}");
    }
    assert_eq!(senders(device(&[("msi-parent", vec![0, 0, 0])])), []);
    assert_eq!(senders(device(&[("msi-parent", cells(&[0x50, 1])), ("status", text("disabled"))])), []);
    for map in [&[0, 0x50, 0][..], &[0, 0x99, 0, 1], &[0, 0x70, 0, 1]] {
        assert_eq!(senders(host(&[("msi-map", cells(map))])), [], "{map:x?}");
    }
    let mask = [("msi-map", cells(&[0, 0x50, 0, 1])), ("msi-map-mask", vec![1])];
    assert_eq!(senders(host(&mask)), []);
}

#[test]
fn functions_have_numbers_by_spans_and_mask() {
    let map = cells(&[0, 0x50, 0x1000, 0x200, 0x300, 0x60, 0, 0x100]);
    // A map counts before a parent.
    let properties = [("msi-map", map), ("msi-map-mask", cells(&[0xfff8])), ("msi-parent", cells(&[0x60, 0]))];
    let senders = senders(host(&properties));
    let functions = senders[0].functions.as_ref().unwrap();
    let target = |requester| functions.target(RequesterId(requester)).map(|target| (target.its, target.device));
    assert_eq!((target(0), target(7), target(8)), (Some((0, 0x1000)), Some((0, 0x1000)), Some((0, 0x1008))));
    assert_eq!((target(0x1ff), target(0x200), target(0x300)), (Some((0, 0x11f8)), None, Some((1, 0))));
    assert_eq!((functions.highest(0), functions.highest(1)), (Some(0x11ff), Some(0xff)));
    assert_eq!(senders[0].targets, []);
}

#[test]
fn functions_of_a_host_with_a_parent_are_who_they_are_on_their_bus() {
    let senders = senders(host(&[("msi-parent", cells(&[0x60, 0]))]));
    let functions = senders[0].functions.as_ref().unwrap();
    assert_eq!(functions.target(RequesterId(0x1208)), Some(MessageTarget { its: 1, device: 0x1208 }));
    assert_eq!(functions.highest(1), Some(0xffff));
}
