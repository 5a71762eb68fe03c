use super::*;
use crate::testkit::Slots;
use alloc::string::{String, ToString};
use alloc::vec;
use dtoolkit::model::DeviceTree;
use vdev::testkit::Wires;

fn node(messages: Option<MessageTarget>) -> String {
    node_with(messages, Vec::new())
}

fn node_with(messages: Option<MessageTarget>, translated: Vec<PciSlot>) -> String {
    let window = |start, length| Range::new(Ipa(start), length).unwrap();
    let bridge = Bridge {
        ecam: Ipa(0x3f00_0000),
        windows: vec![window(0x1000_0000, 0x2eff_0000), window(0x80_0000_0000, 1 << 34)],
        first_line: IntId(64),
        messages,
        translated,
    };
    let mut root = Node::new("");
    root.add(bridge.node());
    let mut tree = DeviceTree::new();
    tree.root = root.into_model();
    tree.to_string()
}

fn has(tree: &str, property: &str) {
    assert!(tree.contains(property), "no {property} in\n{tree}");
}

#[test]
fn the_node_is_that_of_the_generic_host() {
    let tree = node(None);
    has(&tree, "pcie@3f000000 {");
    has(&tree, "compatible = \"pci-host-ecam-generic\";");
    has(&tree, "device_type = \"pci\";");
    has(&tree, "reg = <0x00 0x3f000000 0x00 0x100000>;");
    has(&tree, "bus-range = <0x00 0x00>;");
    has(
        &tree,
        "ranges = <0x2000000 0x00 0x10000000 0x00 0x10000000 0x00 0x2eff0000 \
         0x3000000 0x80 0x00 0x80 0x00 0x04 0x00>;",
    );
    has(&tree, "dma-coherent;");
    assert!(!tree.contains("msi-"), "{tree}");
}

/// The devicetree specification, 2.4.3: unit address, specifier, parent, its unit address, its specifier.
#[test]
fn pins_of_devices_next_to_each_other_are_on_different_lines() {
    let tree = node(None);
    has(&tree, "#interrupt-cells = <0x01>;");
    has(&tree, "interrupt-map-mask = <0x1800 0x00 0x00 0x07>;");
    let map = tree.split("interrupt-map = <").nth(1).and_then(|rest| rest.split('>').next()).unwrap();
    let cells: Vec<u32> =
        map.split_whitespace().map(|cell| u32::from_str_radix(cell.trim_start_matches("0x"), 16).unwrap()).collect();
    assert_eq!(cells.len(), 160);
    for entry in cells.chunks(10) {
        let (device, pin) = (u8::try_from(entry[0] >> 11).unwrap(), u8::try_from(entry[3]).unwrap());
        let line = u32::from((device + pin - 1) % 4);
        assert_eq!(entry[1..], [0, 0, pin.into(), 0x8001, 0, 0, 0, 32 + line, 4]);
        assert_eq!(Slots::line_of(PciSlot::new(device, pin - 1).unwrap()), IntId(64 + line), "as functions have it");
    }
}

#[test]
fn messages_go_to_a_parent_or_by_requesters_ids() {
    has(&node(Some(MessageTarget::Parent(0x8001))), "msi-parent = <0x8001>;");
    has(&node(Some(MessageTarget::Translated(0x8005))), "msi-map = <0x00 0x8005 0x00 0x10000>;");
}

#[test]
fn who_is_behind_the_smmu_is_named_and_nobody_else() {
    assert!(!node(None).contains("iommu"));
    let slot = |device, function| PciSlot::new(device, function).unwrap();
    let tree = node_with(None, vec![slot(1, 0), slot(3, 1)]);
    has(&tree, "iommu-map = <0x08 0x8005 0x08 0x01 0x19 0x8005 0x19 0x01>;");
}

#[test]
fn the_host_bridge_is_the_first_function() {
    let mut slots = Slots::new(&[], true, &mut Wires::default()).unwrap();
    assert_eq!(slots.config(PciSlot::HOST, 0), 0x0002_1c05);
    assert_eq!(slots.config(PciSlot::HOST, 8), 0x0600_0000);
    for at in [0x10, 0x34, 0x3c] {
        assert_eq!(slots.config(PciSlot::HOST, at), 0, "neither regions nor capabilities nor a pin");
    }
}

#[test]
fn where_nobody_is_reads_are_all_ones_and_writes_are_lost() {
    let mut slots = Slots::new(&[], true, &mut Wires::default()).unwrap();
    let nowhere = PciSlot::new(7, 3).unwrap();
    for at in [Slots::config_at(nowhere, 0), Slots::WINDOW_32, Slots::WINDOW_64] {
        for size in [AccessSize::Byte, AccessSize::Halfword, AccessSize::Word, AccessSize::Doubleword] {
            assert_eq!(slots.try_write(at, size, 0), Ok(()));
            assert_eq!(slots.try_read(at, size), Ok(size.mask()));
        }
    }
}
