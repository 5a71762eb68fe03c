use super::*;
use alloc::{string::ToString, vec};
use dtoolkit::fdt::Fdt;

fn range(start: u64, length: u64) -> Range<Ipa> {
    Range::new(Ipa(start), length).unwrap()
}

fn devices() -> Node {
    let mut devices = Node::new("");
    let virtio = Node::at("virtio_mmio", Ipa(0x1c0d_0000)).compatible(&["virtio,mmio"]);
    let pl011 = Node::at("serial", Ipa(0x1c09_0000))
        .compatible(&["arm,pl011", "arm,primecell"])
        .reg(&[range(0x1c09_0000, 0x1000)])
        .interrupt(IntId(37), vdev::Trigger::Level)
        .numbers("clocks", &[Node::APB_CLOCK, Node::APB_CLOCK])
        .texts("clock-names", &["uartclk", "apb_pclk"]);
    devices.add(virtio.reg(&[range(0x1c0d_0000, 0x200)]).interrupt(IntId(41), vdev::Trigger::Edge));
    devices.add(pl011);
    devices
}

const RAM: [(u64, u64); 2] = [(0x8000_0000, 0x800_0000), (0x1_0000_0000, 0x4000_0000)];

/// A VM with all that there can be, and these trees over its own.
fn generated(user: &[&[u8]]) -> Result<DeviceTree, TreeError> {
    let ram = RAM.map(|(start, length)| range(start, length));
    let gic = Frames {
        version: Version::V3,
        distributor: range(0x800_0000, 0x1_0000),
        interface: range(0x80a_0000, 0x4_0000),
        messages: None,
        its: Some(range(0x808_0000, 0x2_0000)),
    };
    let input = TreeInput {
        name: "linux",
        ram: &ram,
        vcpus: 2,
        gic,
        messages: Some((IntId(64), 32)),
        devices: devices(),
        passed: &[],
        cmdline: Some("console=ttyAMA0"),
        initrd: Some(range(0x87f0_0000, 0x1234)),
        monitors: true,
        seed: &[0, 1, 2, 3, 4, 5, 6, 7, 1, 2, 3, 4],
        user,
    };
    let blob = generate(&input)?;
    Ok(DeviceTree::from_fdt(&Fdt::new(&blob).unwrap()))
}

fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

fn value(tree: &DeviceTree, path: &str, property: &str) -> Option<Vec<u8>> {
    let node = tree.find_node(path)?;
    node.properties().find(|found| found.name() == property).map(|found| found.value().to_vec())
}

fn node(name: &str, properties: &[(&str, Vec<u8>)], children: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, value) in properties {
        set(&mut node, name, value.clone());
    }
    for child in children {
        node.add_child(child);
    }
    node
}

fn blob(properties: &[(&str, Vec<u8>)], children: Vec<DeviceTreeNode>) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root = node("", properties, children);
    tree.to_dtb()
}

fn refused(user: &[&[u8]]) -> (Option<usize>, String) {
    let error = generated(user).unwrap_err();
    (error.user, error.to_string())
}

#[test]
fn the_whole_tree_is_as_it_is_written_down() {
    let golden = include_str!("golden.dts");
    assert_eq!(generated(&[]).unwrap().to_string(), golden);
}

#[test]
fn the_hosts_own_reader_understands_it() {
    let tree = generated(&[]).unwrap();
    let machine = machine::Machine::from_device_tree(&tree.to_dtb());
    // It does, up to the one thing that a guest has not.
    let machine = machine.unwrap();
    assert_eq!(machine.cpus.len(), 2);
    assert_eq!(machine.memory.len(), 2);
    assert_eq!(machine.psci, Some(machine::Conduit::Hvc));
    assert_eq!(machine.consoles[0].intid, Some(IntId(37)));
    assert_eq!(machine.timer.virtual_, IntId(27));
    assert_eq!(machine.bootargs.as_deref(), Some("console=ttyAMA0"));
    assert_eq!(machine.initrd.map(|initrd| initrd.length()), Some(0x1234));
}

#[test]
fn vcpus_beyond_the_sixteenth_have_another_affinity_1() {
    let gic =
        Frames { version: Version::V3, distributor: range(0, 1), interface: range(0, 1), messages: None, its: None };
    let input = TreeInput {
        name: "wide",
        ram: &[],
        vcpus: 18,
        gic,
        messages: None,
        devices: Node::new(""),
        passed: &[],
        cmdline: None,
        initrd: None,
        monitors: true,
        seed: &[],
        user: &[],
    };
    let blob = generate(&input).unwrap();
    let tree = DeviceTree::from_fdt(&Fdt::new(&blob).unwrap());
    assert_eq!(tree.find_node("/cpus").unwrap().children().count(), 18);
    assert_eq!(value(&tree, "/cpus/cpu@101", "reg"), Some(cells(&[0x101])));
    let chosen = tree.find_node("/chosen").unwrap();
    assert_eq!(chosen.properties().count(), 0, "nothing to say, nothing said");
}

#[test]
fn a_plain_tree_adds_nodes_and_replaces_properties_by_name() {
    let user = blob(
        &[("model", b"Mine\0".to_vec())],
        vec![
            node("timer", &[("clock-frequency", cells(&[1000]))], vec![]),
            node("mine@1000", &[("reg", cells(&[0, 0x1000, 0, 16]))], vec![node("part", &[], vec![])]),
            node("cpus", &[], vec![node("cpu@1", &[("compatible", b"arm,cortex-a72\0".to_vec())], vec![])]),
        ],
    );
    let tree = generated(&[&user]).unwrap();
    assert_eq!(value(&tree, "/", "model").unwrap(), b"Mine\0");
    assert_eq!(value(&tree, "/timer", "clock-frequency"), Some(cells(&[1000])));
    assert_eq!(value(&tree, "/timer", "always-on"), Some(vec![]), "what it does not name stays");
    assert!(tree.find_node("/mine@1000/part").is_some());
    assert_eq!(value(&tree, "/cpus/cpu@1", "compatible").unwrap(), b"arm,cortex-a72\0");
    assert_eq!(value(&tree, "/cpus/cpu@0", "compatible").unwrap(), b"arm,armv8\0");
}

#[test]
fn later_trees_go_over_earlier_ones() {
    let user = |model: &str| blob(&[("model", model.as_bytes().to_vec())], vec![]);
    let tree = generated(&[&user("one\0"), &user("two\0")]).unwrap();
    assert_eq!(value(&tree, "/", "model").unwrap(), b"two\0");
}

#[test]
fn the_configuration_wins_over_a_tree_where_it_says_something() {
    let chosen = node(
        "chosen",
        &[
            ("bootargs", b"old\0".to_vec()),
            ("linux,initrd-start", cells(&[1])),
            ("stdout-path", b"/mine:9600\0".to_vec()),
        ],
        vec![],
    );
    let tree = generated(&[&blob(&[], vec![chosen])]).unwrap();
    assert_eq!(value(&tree, "/chosen", "bootargs").unwrap(), b"console=ttyAMA0\0");
    assert_eq!(value(&tree, "/chosen", "linux,initrd-start"), Some(cells(&[0, 0x87f0_0000])));
    assert_eq!(value(&tree, "/chosen", "stdout-path").unwrap(), b"/mine:9600\0");
}

#[test]
fn an_overlay_is_applied_by_path_and_by_symbol() {
    let overlay = blob(
        &[],
        vec![
            node(
                "fragment@0",
                &[("target-path", b"/\0".to_vec())],
                vec![node(
                    "__overlay__",
                    &[],
                    vec![
                        node("new@5000", &[("interrupt-parent", cells(&[u32::MAX])), ("phandle", cells(&[1]))], vec![]),
                        node("user", &[("uses", cells(&[1]))], vec![]),
                    ],
                )],
            ),
            node(
                "fragment@1",
                &[("target", cells(&[u32::MAX]))],
                vec![node("__overlay__", &[("status", b"disabled\0".to_vec())], vec![])],
            ),
            node(
                "__fixups__",
                &[
                    ("gic", b"/fragment@0/__overlay__/new@5000:interrupt-parent:0\0".to_vec()),
                    ("timer", b"/fragment@1:target:0\0".to_vec()),
                ],
                vec![],
            ),
            node(
                "__local_fixups__",
                &[],
                vec![node(
                    "fragment@0",
                    &[],
                    vec![node("__overlay__", &[], vec![node("user", &[("uses", cells(&[0]))], vec![])])],
                )],
            ),
        ],
    );
    let tree = generated(&[&overlay]).unwrap();
    assert_eq!(value(&tree, "/new@5000", "interrupt-parent"), Some(cells(&[Node::INTERRUPT_CONTROLLER])));
    let phandle = value(&tree, "/new@5000", "phandle").unwrap();
    assert_ne!(phandle, cells(&[1]), "moved out of the way");
    assert_eq!(value(&tree, "/user", "uses"), Some(phandle));
    assert_eq!(value(&tree, "/timer", "status").unwrap(), b"disabled\0");
}

#[test]
fn an_overlay_that_does_not_fit_is_an_error() {
    let fragment = |target: &str| {
        let text = alloc::format!("{target}\0").into_bytes();
        blob(&[], vec![node("fragment@0", &[("target-path", text)], vec![node("__overlay__", &[], vec![])])])
    };
    let (user, message) = refused(&[&blob(&[], vec![]), &fragment("/nowhere")]);
    assert_eq!(user, Some(1));
    assert!(message.starts_with("device tree overlay: ") && message.contains("/nowhere"), "{message}");
    assert!(generated(&[&fragment("/timer")]).is_ok());
}

#[test]
fn cells_are_counted_in_one_way_only() {
    let user = blob(&[("#address-cells", cells(&[1]))], vec![]);
    let expected = "device tree: /: `#address-cells` or `#size-cells` is not that of the generated tree";
    assert_eq!(refused(&[&user]), (Some(0), expected.to_string()));
    let user = blob(&[], vec![node("cpus", &[("#size-cells", cells(&[1]))], vec![])]);
    assert!(refused(&[&user]).1.contains(" /cpus: "));
    let same = blob(&[("#address-cells", cells(&[2])), ("#size-cells", cells(&[2]))], vec![]);
    assert!(generated(&[&same]).is_ok());
}

#[test]
fn a_phandle_belongs_to_one_node() {
    let user = blob(&[], vec![node("mine", &[("phandle", cells(&[Node::APB_CLOCK]))], vec![])]);
    assert_eq!(refused(&[&user]), (None, "device tree: two nodes have the phandle 0x8002".to_string()));
    let user = blob(&[], vec![node("mine", &[("phandle", cells(&[1]))], vec![])]);
    assert!(generated(&[&user]).is_ok(), "a compiler's first phandle is free");
}

#[test]
fn a_tree_that_takes_the_interrupt_controller_away_is_refused() {
    let user = blob(&[("interrupt-parent", cells(&[77]))], vec![]);
    assert_eq!(generated(&[&user]).unwrap_err().problem, TreeProblem::NoInterruptController);
}

#[test]
fn malformed_trees_are_errors() {
    let whole = blob(&[], vec![node("mine", &[("value", vec![1, 2, 3])], vec![])]);
    for length in (0..whole.len()).step_by(if cfg!(miri) { 61 } else { 1 }) {
        assert_eq!(refused(&[&whole[..length]]).0, Some(0));
    }
    let mut tower = node("top", &[], vec![]);
    for _ in 0..100 {
        tower = node("floor", &[], vec![tower]);
    }
    assert!(refused(&[&blob(&[], vec![tower])]).1.contains("nested too deep"));
    assert!(refused(&[&vec![0; 1 << 20]]).1.contains("at most 262144"));
}

#[test]
fn overlays_cannot_pile_up_a_tower() {
    let floor = |depth: usize| {
        let path = alloc::format!("{}\0", "/floor".repeat(depth).as_str());
        let path = if depth == 0 { "/\0".into() } else { path };
        let overlay = node("__overlay__", &[], vec![node("floor", &[], vec![])]);
        blob(&[], vec![node("fragment@0", &[("target-path", path.into_bytes())], vec![overlay])])
    };
    let floors: Vec<Vec<u8>> = (0..machine::MAX_DEPTH).map(floor).collect();
    let user: Vec<&[u8]> = floors.iter().map(Vec::as_slice).collect();
    let error = generated(&user).unwrap_err();
    assert_eq!((error.user, error.problem), (Some(machine::MAX_DEPTH - 1), TreeProblem::TooDeep));
}

#[test]
fn damaged_trees_are_refused_or_merged_but_never_panic() {
    let plain = blob(
        &[("model", b"Mine\0".to_vec())],
        vec![node("cpus", &[], vec![node("cpu@1", &[("phandle", cells(&[3]))], vec![])])],
    );
    let overlay = blob(
        &[],
        vec![
            node(
                "fragment@0",
                &[("target", cells(&[u32::MAX]))],
                vec![node("__overlay__", &[("uses", cells(&[1])), ("phandle", cells(&[1]))], vec![])],
            ),
            node("__fixups__", &[("timer", b"/fragment@0:target:0\0".to_vec())], vec![]),
            node(
                "__local_fixups__",
                &[],
                vec![node("fragment@0", &[], vec![node("__overlay__", &[("uses", cells(&[0]))], vec![])])],
            ),
        ],
    );
    assert!(generated(&[&plain]).is_ok() && generated(&[&overlay]).is_ok());
    for whole in [plain, overlay] {
        for offset in (0..whole.len()).step_by(if cfg!(miri) { 211 } else { 1 }) {
            for flip in [0x01, 0x02, 0x80, 0xff] {
                let mut damaged = whole.clone();
                damaged[offset] ^= flip;
                let _ = generated(&[&damaged]);
            }
        }
    }
}
