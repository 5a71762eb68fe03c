use super::*;
use alloc::{format, string::ToString, vec};
use dtoolkit::model::{DeviceTree, DeviceTreeNode, DeviceTreeProperty};
use types::{IntId, Mpidr};

mod damage;
mod devices;
mod messages;
mod pci;
mod smmu;

const GICV2_1: &[u8] = include_bytes!("tests/trees/qemu-gicv2-1cpu.dtb");
const GICV2_8: &[u8] = include_bytes!("tests/trees/qemu-gicv2-8cpus.dtb");
const GICV3_2: &[u8] = include_bytes!("tests/trees/qemu-gicv3-2cpus.dtb");
const INITRD: &[u8] = include_bytes!("tests/trees/qemu-gicv3-initrd.dtb");
const SECURE: &[u8] = include_bytes!("tests/trees/qemu-gicv3-secure.dtb");

fn range(start: u64, length: u64) -> Range<Pa> {
    Range::new(Pa(start), length).unwrap()
}

fn cells(cells: &[u32]) -> Vec<u8> {
    cells.iter().flat_map(|cell| cell.to_be_bytes()).collect()
}

fn text(text: &str) -> Vec<u8> {
    format!("{text}\0").into_bytes()
}

fn node(name: &str, properties: &[(&str, Vec<u8>)], children: Vec<DeviceTreeNode>) -> DeviceTreeNode {
    let mut node = DeviceTreeNode::new(name).unwrap();
    for (name, value) in properties {
        node.add_property(DeviceTreeProperty::new(*name, value.clone()).unwrap());
    }
    for child in children {
        node.add_child(child);
    }
    node
}

fn blob(root: DeviceTreeNode) -> Vec<u8> {
    let mut tree = DeviceTree::new();
    tree.root = root;
    tree.memory_reservations.push(dtoolkit::memreserve::MemoryReservation::new(0, 0x1000));
    tree.to_dtb()
}

/// A tree in the manner of a Raspberry Pi 4's: addresses of 32 bits behind `/soc`, an interrupt controller there, spin
/// tables, RAM in three banks, a console by its alias.
fn pi() -> DeviceTreeNode {
    let cpu = |n: u32| {
        let name = format!("cpu@{n}");
        node(
            &name,
            &[
                ("device_type", text("cpu")),
                ("reg", cells(&[n])),
                ("enable-method", text("spin-table")),
                ("cpu-release-addr", cells(&[0, 0xd8 + 8 * n])),
            ],
            vec![],
        )
    };
    let gic = node(
        "interrupt-controller@40041000",
        &[
            ("compatible", text("arm,gic-400")),
            ("interrupt-controller", vec![]),
            ("#interrupt-cells", cells(&[3])),
            ("reg", cells(&[0x4004_1000, 0x1000, 0x4004_2000, 0x2000, 0x4004_4000, 0x2000, 0x4004_6000, 0x2000])),
            ("interrupts", cells(&[1, 9, 0xf04])),
            ("phandle", cells(&[1])),
        ],
        vec![],
    );
    let uart = |name: &str, compatible: &str, address: u32, spi: u32| {
        let properties =
            [("compatible", text(compatible)), ("reg", cells(&[address, 0x40])), ("interrupts", cells(&[0, spi, 4]))];
        node(name, &properties, vec![])
    };
    let mut off = uart("serial@7e201400", "arm,pl011", 0x7e20_1400, 121);
    off.add_property(DeviceTreeProperty::new("status", "disabled").unwrap());
    let soc = node(
        "soc",
        &[
            ("compatible", text("simple-bus")),
            ("#address-cells", cells(&[1])),
            ("#size-cells", cells(&[1])),
            ("ranges", cells(&[0x7e00_0000, 0, 0xfe00_0000, 0x180_0000, 0x4000_0000, 0, 0xff80_0000, 0x80_0000])),
        ],
        vec![
            uart("serial@7e201000", "arm,pl011\0arm,primecell", 0x7e20_1000, 121),
            off,
            uart("serial@7e215040", "brcm,bcm2835-aux-uart", 0x7e21_5040, 93),
            gic,
        ],
    );
    node(
        "",
        &[
            ("#address-cells", cells(&[2])),
            ("#size-cells", cells(&[1])),
            ("interrupt-parent", cells(&[1])),
            ("model", text("Raspberry Pi 4 Model B Rev 1.4")),
        ],
        vec![
            node("aliases", &[("serial0", text("/soc/serial@7e215040"))], vec![]),
            node(
                "chosen",
                &[
                    ("stdout-path", text("serial0:115200n8")),
                    ("bootargs", text("quiet")),
                    ("linux,initrd-start", cells(&[0x2000_0000])),
                    ("linux,initrd-end", cells(&[0x2000_2400])),
                ],
                vec![],
            ),
            node(
                "memory@0",
                &[
                    ("device_type", text("memory")),
                    ("reg", cells(&[0, 0, 0x3b40_0000, 0, 0x4000_0000, 0xbc00_0000, 1, 0, 0x8000_0000, 0, 0, 0])),
                ],
                vec![],
            ),
            node(
                "reserved-memory",
                &[("#address-cells", cells(&[2])), ("#size-cells", cells(&[1])), ("ranges", vec![])],
                vec![
                    node("linux,cma", &[("size", cells(&[0x400_0000])), ("reusable", vec![])], vec![]),
                    node("nvram@0", &[("reg", cells(&[0, 0x3ef6_4700, 0x60])), ("no-map", vec![])], vec![]),
                ],
            ),
            node("cpus", &[("#address-cells", cells(&[1])), ("#size-cells", cells(&[0]))], (0..4).map(cpu).collect()),
            node(
                "timer",
                &[
                    ("compatible", text("arm,armv8-timer")),
                    ("interrupts", cells(&[1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08])),
                ],
                vec![],
            ),
            soc,
        ],
    )
}

fn read(root: DeviceTreeNode) -> Result<Machine, MachineError> {
    Machine::from_device_tree(&blob(root))
}

/// The Pi's tree with one property of one node set (or, with no value, taken out).
fn pi_with(path: &str, property: &str, value: Option<Vec<u8>>) -> DeviceTreeNode {
    let mut tree = DeviceTree::new();
    tree.root = pi();
    let changed = tree.find_node_mut(path).unwrap();
    match value {
        Some(value) => changed.add_property(DeviceTreeProperty::new(property, value).unwrap()),
        None => assert!(changed.remove_property(property).is_some()),
    }
    tree.root
}

/// Where early boot would print.
fn console_of(blob: &[u8]) -> Option<Console> {
    Early::of(blob)?.console()
}

#[test]
fn qemu_with_gicv3_is_read_completely() {
    let machine = Machine::from_device_tree(GICV3_2).unwrap();
    let pl011 = Console { kind: ConsoleKind::Pl011, registers: range(0x900_0000, 0x1000), intid: Some(IntId(33)) };
    let cpu = |n| Cpu { mpidr: Mpidr(n), enable: EnableMethod::Psci };
    assert_eq!(machine.model.as_deref(), Some("linux,dummy-virt"));
    assert_eq!(machine.memory, [range(0x4000_0000, 0x8000_0000)]);
    assert_eq!(machine.reserved, []);
    assert_eq!(machine.cpus, [cpu(0), cpu(1)]);
    assert_eq!(
        machine.gic,
        Gic::V3 {
            distributor: range(0x800_0000, 0x1_0000),
            redistributors: vec![range(0x80a_0000, 0xf6_0000)],
            stride: None,
            maintenance: Some(IntId(25)),
        }
    );
    assert_eq!(machine.timer, Timer { virtual_: IntId(27), physical: IntId(30), hypervisor: IntId(26) });
    assert_eq!(machine.consoles, [pl011]);
    assert_eq!(machine.psci, Some(Conduit::Smc));
    assert_eq!((machine.bootargs, machine.initrd), (None, None));
    assert_eq!(machine.seed.len(), 32 + 8);
}

#[test]
fn qemu_with_gicv2_has_all_four_register_frames() {
    for (tree, cpus) in [(GICV2_1, 1), (GICV2_8, 8)] {
        let machine = Machine::from_device_tree(tree).unwrap();
        assert_eq!(
            machine.gic,
            Gic::V2 {
                distributor: range(0x800_0000, 0x1_0000),
                cpu_interface: range(0x801_0000, 0x1_0000),
                hypervisor_interface: range(0x803_0000, 0x1_0000),
                virtual_cpu_interface: range(0x804_0000, 0x1_0000),
                maintenance: Some(IntId(25)),
            }
        );
        let affinities: Vec<Mpidr> = machine.cpus.iter().map(|cpu| cpu.mpidr).collect();
        assert_eq!(affinities, (0..cpus).map(Mpidr).collect::<Vec<_>>());
    }
}

#[test]
fn what_the_boot_loader_chose_is_found() {
    let machine = Machine::from_device_tree(INITRD).unwrap();
    assert_eq!(machine.bootargs.as_deref(), Some("hello world"));
    assert_eq!(machine.initrd, Some(range(0x4800_0000, 8)));
    assert_eq!(machine.memory, [range(0x4000_0000, 6 << 30)]);
}

#[test]
fn secure_memory_and_devices_are_not_ours() {
    let machine = Machine::from_device_tree(SECURE).unwrap();
    assert_eq!(machine.memory, [range(0x4000_0000, 0x8000_0000)]);
    assert_eq!(machine.consoles.len(), 1);
    assert_eq!(machine.consoles[0].registers.start(), Pa(0x900_0000));
}

#[test]
fn a_raspberry_pi_is_translated_through_its_buses() {
    let machine = read(pi()).unwrap();
    assert_eq!(machine.model.as_deref(), Some("Raspberry Pi 4 Model B Rev 1.4"));
    // The first two banks of the three do not touch; an empty one counts for nothing.
    assert_eq!(
        machine.memory,
        [range(0, 0x3b40_0000), range(0x4000_0000, 0xbc00_0000), range(0x1_0000_0000, 0x8000_0000)]
    );
    assert_eq!(machine.reserved, [range(0, 0x1000), range(0x3ef6_4700, 0x60)]);
    assert_eq!(
        machine.gic,
        Gic::V2 {
            distributor: range(0xff84_1000, 0x1000),
            cpu_interface: range(0xff84_2000, 0x2000),
            hypervisor_interface: range(0xff84_4000, 0x2000),
            virtual_cpu_interface: range(0xff84_6000, 0x2000),
            maintenance: Some(IntId(25)),
        }
    );
    assert_eq!(machine.cpus[3], Cpu { mpidr: Mpidr(3), enable: EnableMethod::SpinTable(Pa(0xf0)) });
    assert_eq!(machine.psci, None);
    assert_eq!(machine.initrd, Some(range(0x2000_0000, 0x2400)));
}

#[test]
fn addresses_go_through_the_ranges_of_every_bus() {
    let uart = node("serial@40", &[("compatible", text("arm,pl011")), ("reg", cells(&[0x40, 0x40]))], vec![]);
    let aux = |ranges: &[u32]| {
        let properties = [("#address-cells", cells(&[1])), ("#size-cells", cells(&[1])), ("ranges", cells(ranges))];
        let mut tree = DeviceTree::new();
        tree.root = pi_with("/aliases", "serial0", Some(text("/soc/aux/serial@40")));
        tree.find_node_mut("/soc").unwrap().add_child(node("aux", &properties, vec![uart.clone()]));
        (
            read(tree.root.clone()).unwrap().consoles[0].registers,
            console_of(&blob(tree.root)).map(|found| found.registers),
        )
    };
    // 0x40 of the bus is 0x7e215040 of `/soc`, which the CPUs see at 0xfe215040.
    let there = range(0xfe21_5040, 0x40);
    assert_eq!(aux(&[0, 0x7e21_5000, 0x100]), (there, Some(there)));
    // The second window of `/soc`.
    let there = range(0xff80_0040, 0x40);
    assert_eq!(aux(&[0, 0x4000_0000, 0x100]), (there, Some(there)));
    // Half of it is outside of the bus's window; and a window that `/soc` does not pass on.
    for ranges in [[0, 0x7e21_5000, 0x60], [0, 0x2000_0000, 0x100]] {
        let (first, early) = aux(&ranges);
        assert!(first != there && early.is_none(), "{ranges:x?}");
    }
}

#[test]
fn cpus_wait_where_nobody_else_gets_memory() {
    let mut tree = DeviceTree::new();
    tree.root = pi_with("/cpus/cpu@1", "cpu-release-addr", Some(cells(&[0, 0x8_1ff8])));
    let off = tree.find_node_mut("/cpus/cpu@2").unwrap();
    off.add_property(DeviceTreeProperty::new("cpu-release-addr", cells(&[1, 0x4008])).unwrap());
    off.add_property(DeviceTreeProperty::new("status", "disabled").unwrap());
    let machine = read(tree.root).unwrap();
    let pages = [range(0, 0x1000), range(0x8_1000, 0x1000), range(0x3ef6_4700, 0x60), range(0x1_0000_4000, 0x1000)];
    assert_eq!(machine.reserved, pages, "one that is switched off is waiting as well");
    assert_eq!(machine.cpus[1].enable, EnableMethod::SpinTable(Pa(0x8_1ff8)));
}

#[test]
fn firmware_is_known_before_there_is_a_heap() {
    let has_psci = |blob: &[u8]| Early::of(blob).unwrap().has_psci();
    assert!(has_psci(GICV3_2) && !has_psci(&blob(pi())));
    for (version, method, there) in
        [("arm,psci-1.0", "smc", true), ("arm,psci-1.0", "hvc", false), ("arm,psci", "smc", false)]
    {
        let mut root = pi();
        root.add_child(node("psci", &[("compatible", text(version)), ("method", text(method))], vec![]));
        assert_eq!(has_psci(&blob(root.clone())), there, "{version} {method}");
        assert_eq!(read(root).unwrap().psci == Some(Conduit::Smc), there, "{version} {method}");
    }
}

#[test]
fn drivers_of_boards_find_their_devices() {
    let wanted: &[&[&str]] = &[&["nothing", "brcm,bcm2835-aux-uart"], &["nothing"], &["arm,pl011"]];
    let window =
        |start, spi| Some(DeviceWindow { registers: range(start, 0x40), intid: Some(IntId(IntId::FIRST_SPI + spi)) });
    let found = [window(0xfe21_5040, 93), None, window(0xfe20_1000, 121)];
    assert_eq!(Tree::check(&blob(pi())).unwrap().find_devices(wanted), found);
    let off = pi_with("/soc", "status", Some(text("disabled")));
    assert_eq!(Tree::check(&blob(off)).unwrap().find_devices(wanted), [None; 3]);
    assert!(Tree::check(b"no tree").is_err());
}

#[test]
fn stdout_path_goes_through_an_alias_and_comes_first() {
    let mini = Console { kind: ConsoleKind::MiniUart, registers: range(0xfe21_5040, 0x40), intid: Some(IntId(125)) };
    let pl011 = Console { kind: ConsoleKind::Pl011, registers: range(0xfe20_1000, 0x40), intid: Some(IntId(153)) };
    assert_eq!(read(pi()).unwrap().consoles, [mini, pl011]);
    assert_eq!(console_of(&blob(pi())), Some(Console { intid: None, ..mini }));
    let by_path = pi_with("/chosen", "stdout-path", Some(text("/soc/serial@7e201000:115200")));
    assert_eq!(read(by_path.clone()).unwrap().consoles, [pl011, mini]);
    assert_eq!(console_of(&blob(by_path)), Some(Console { intid: None, ..pl011 }));
}

#[test]
fn an_alias_of_itself_ends_nowhere() {
    let tree = pi_with("/aliases", "serial0", Some(text("serial0")));
    assert_eq!(console_of(&blob(tree.clone())), None);
    assert_eq!(read(tree).unwrap().consoles.len(), 2, "the ports are there, none of them chosen");
}

#[test]
fn early_boot_finds_console_and_memory() {
    let console = console_of(GICV3_2).unwrap();
    assert_eq!((console.kind, console.registers), (ConsoleKind::Pl011, range(0x900_0000, 0x1000)));
    assert_eq!(Early::of(GICV3_2).unwrap().memory_at(Pa(0x4020_0000)), Some(range(0x4000_0000, 0x8000_0000)));
    let pi = blob(pi());
    let pi = Early::of(&pi).unwrap();
    assert_eq!(pi.memory_at(Pa(0x8_0000)), Some(range(0, 0x3b40_0000)));
    assert_eq!(pi.memory_at(Pa(0x1_0000_0000)), Some(range(0x1_0000_0000, 0x8000_0000)));
    assert_eq!(pi.memory_at(Pa(0x3b40_0000)), None);
}

#[test]
fn what_early_boot_has_checked_need_not_be_checked_again() {
    for blob in [GICV2_1, GICV2_8, GICV3_2, INITRD, SECURE] {
        let tree = Tree::of(Early::of(blob).unwrap()).unwrap();
        assert_eq!(tree.machine(), Machine::from_device_tree(blob));
        assert_eq!(tree.compact(), Tree::check(blob).unwrap().compact());
    }
}

#[test]
fn a_tree_that_only_early_boot_can_read_is_refused() {
    // `dtoolkit` does not mind; what would read it from then on does.
    let deep = (0..MAX_DEPTH).fold(node("leaf", &[], vec![]), |below, _| node("bus", &[], vec![below]));
    let mut root = pi();
    root.add_child(deep);
    let blob = blob(root);
    assert!(matches!(Tree::of(Early::of(&blob).unwrap()), Err(MachineError::TooLarge)));
}

#[test]
fn a_16550_says_how_its_registers_are_spaced() {
    let mut tree = DeviceTree::new();
    tree.root = pi_with("/soc/serial@7e201000", "compatible", Some(text("snps,dw-apb-uart")));
    let uart = tree.find_node_mut("/soc/serial@7e201000").unwrap();
    uart.add_property(DeviceTreeProperty::new("reg-shift", 2_u32).unwrap());
    uart.add_property(DeviceTreeProperty::new("reg-io-width", 4_u32).unwrap());
    let consoles = read(tree.root).unwrap().consoles;
    assert!(consoles.iter().any(|console| console.kind == ConsoleKind::Ns16550 { shift: 2, width: 4 }));
}

#[test]
fn cpus_that_are_switched_off_are_not_counted() {
    let machine = read(pi_with("/cpus/cpu@1", "status", Some(text("disabled")))).unwrap();
    let affinities: Vec<Mpidr> = machine.cpus.iter().map(|cpu| cpu.mpidr).collect();
    assert_eq!(affinities, [Mpidr(0), Mpidr(2), Mpidr(3)]);
}

#[test]
fn interrupts_of_the_timer_go_by_their_names_if_they_have_any() {
    let mut tree = DeviceTree::new();
    tree.root = pi_with("/timer", "interrupt-names", Some(text("virt\0hyp-phys\0phys")));
    let timer = tree.find_node_mut("/timer").unwrap();
    timer.add_property(DeviceTreeProperty::new("interrupts", cells(&[1, 11, 8, 1, 10, 8, 1, 14, 8])).unwrap());
    let timer = read(tree.root).unwrap().timer;
    assert_eq!(timer, Timer { virtual_: IntId(27), physical: IntId(30), hypervisor: IntId(26) });
}

#[test]
fn interrupts_extended_name_their_controller_each() {
    let mut tree = DeviceTree::new();
    tree.root = pi_with("/timer", "interrupts", None);
    let value = cells(&[1, 1, 13, 8, 1, 1, 14, 8, 1, 1, 11, 8, 1, 1, 10, 8]);
    let timer = tree.find_node_mut("/timer").unwrap();
    timer.add_property(DeviceTreeProperty::new("interrupts-extended", value).unwrap());
    let timer = read(tree.root).unwrap().timer;
    assert_eq!(timer, Timer { virtual_: IntId(27), physical: IntId(30), hypervisor: IntId(26) });
}

#[test]
fn the_clock_is_the_first_that_is_enabled() {
    assert_eq!(Machine::from_device_tree(GICV3_2).unwrap().calendar, Some(range(0x0901_0000, 0x1000)));
    assert_eq!(Machine::from_device_tree(&blob(pi())).unwrap().calendar, None);
}

#[test]
fn virtio_windows_are_found_lowest_first_with_their_interrupts() {
    let windows = Machine::from_device_tree(GICV3_2).unwrap().virtio;
    assert_eq!(windows.len(), 32);
    let first = VirtioWindow { registers: range(0x0a00_0000, 0x200), intid: Some(IntId(48)), is_coherent: true };
    assert_eq!(windows[0], first);
    assert_eq!((windows[31].registers, windows[31].intid), (range(0x0a00_3e00, 0x200), Some(IntId(79))));
    assert!(Machine::from_device_tree(&blob(pi())).unwrap().virtio.is_empty());
}

#[test]
fn a_virtio_window_is_coherent_if_it_or_a_bus_above_it_says_so() {
    let window = |name: &str, address: u32, coherent: bool| {
        let mut properties = vec![("compatible", text("virtio,mmio")), ("reg", cells(&[address, 0x200]))];
        properties.extend(coherent.then(|| ("dma-coherent", vec![])));
        node(name, &properties, vec![])
    };
    let bus = |name: &str, coherent: bool, child| {
        let mut properties = vec![("#address-cells", cells(&[1])), ("#size-cells", cells(&[1])), ("ranges", vec![])];
        properties.extend(coherent.then(|| ("dma-coherent", vec![])));
        node(name, &properties, vec![child])
    };
    let mut root = pi();
    root.add_child(bus("bus@1", false, window("virtio@30000000", 0x3000_0000, false)));
    root.add_child(bus("bus@2", false, window("virtio@20000000", 0x2000_0000, true)));
    root.add_child(bus("bus@3", true, window("virtio@10000000", 0x1000_0000, false)));
    let windows = Machine::from_device_tree(&blob(root)).unwrap().virtio;
    let coherent: Vec<(u64, bool)> =
        windows.iter().map(|window| (window.registers.start().0, window.is_coherent)).collect();
    assert_eq!(coherent, [(0x1000_0000, true), (0x2000_0000, true), (0x3000_0000, false)]);
}
