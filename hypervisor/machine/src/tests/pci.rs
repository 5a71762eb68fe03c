use super::*;
use crate::{PciHost, PciSpace, PciWindow};

fn hosts(root: DeviceTreeNode) -> Vec<PciHost> {
    read(root).unwrap().pci
}

fn window(space: PciSpace, bus: u64, cpu: u64, length: u64) -> PciWindow {
    PciWindow { space, is_prefetchable: false, bus, cpu: range(cpu, length) }
}

#[test]
fn qemus_is_read_as_it_is() {
    for tree in [GICV3_2, INITRD] {
        let machine = Machine::from_device_tree(tree).unwrap();
        let [host] = &machine.pci[..] else { panic!("{:?}", machine.pci) };
        assert_eq!((host.path.as_str(), host.domain, host.is_coherent), ("/pcie@10000000", Some(0), true));
        assert_eq!(host.configuration, range(0x40_1000_0000, 256 << 20));
        assert_eq!((host.first_bus, host.last_bus), (0, 255));
        assert_eq!(
            host.windows,
            [
                window(PciSpace::Io, 0, 0x3eff_0000, 0x1_0000),
                window(PciSpace::Memory32, 0x1000_0000, 0x1000_0000, 0x2eff_0000),
                window(PciSpace::Memory64, 0x80_0000_0000, 0x80_0000_0000, 0x80_0000_0000),
            ]
        );
        // INTA to INTD of device 0 are SPIs 3 to 6; the next device begins one further.
        let line = |device, pin| host.interrupts.line(0, device, 0, pin).map(|line| line.intid.0 - 32);
        assert_eq!([1, 2, 3, 4].map(|pin| line(0, pin)), [Some(3), Some(4), Some(5), Some(6)]);
        assert_eq!([1, 2, 3, 4].map(|pin| line(3, pin)), [Some(6), Some(3), Some(4), Some(5)]);
        assert_eq!(line(4, 1), Some(3));
        assert_eq!((line(0, 0), line(0, 5)), (None, None));
        assert_eq!(host.interrupts.line(0, 3, 7, 1), host.interrupts.line(9, 7, 0, 1), "what the mask leaves counts");
    }
}

/// A host on the Pi's bus of 32-bit addresses would be another thing; this one is at the root, whose addresses have two cells.
fn host(name: &str, properties: &[(&str, Vec<u8>)]) -> DeviceTreeNode {
    let mut all = vec![
        ("compatible", text("pci-host-ecam-generic")),
        ("reg", cells(&[6, 0, 0x1000_0000])),
        ("#address-cells", cells(&[3])),
        ("#size-cells", cells(&[2])),
        ("#interrupt-cells", cells(&[1])),
    ];
    all.retain(|(name, _)| properties.iter().all(|(other, _)| other != name));
    all.extend(properties.iter().cloned());
    node(name, &all, vec![])
}

fn with(hosts: impl IntoIterator<Item = DeviceTreeNode>) -> Vec<PciHost> {
    let mut root = pi();
    hosts.into_iter().for_each(|host| root.add_child(host));
    self::hosts(root)
}

fn one(properties: &[(&str, Vec<u8>)]) -> PciHost {
    let mut hosts = with([host("pcie@600000000", properties)]);
    assert_eq!(hosts.len(), 1);
    hosts.remove(0)
}

#[test]
fn buses_are_as_many_as_there_is_configuration_space_for() {
    let buses = |reg: &[u32], range: &[u32]| {
        let hosts = with([host("pcie@600000000", &[("reg", cells(reg)), ("bus-range", cells(range))])]);
        hosts.first().map(|host| (host.first_bus, host.last_bus, host.configuration.length() >> 20))
    };
    assert_eq!(buses(&[6, 0, 0x1000_0000], &[0, 255]), Some((0, 255, 256)));
    assert_eq!(buses(&[6, 0, 0x0100_0000], &[0, 255]), Some((0, 15, 16)));
    assert_eq!(buses(&[6, 0, 0x1000_0000], &[16, 17]), Some((16, 17, 2)), "and the first is at the beginning");
    assert_eq!(buses(&[6, 0, 0x0020_0000], &[250, 255]), Some((250, 251, 2)));
    for (reg, range) in [
        (&[6, 0, 0xf_f000][..], &[0, 255][..]),
        (&[6, 0x800, 0x1000_0000], &[0, 255]),
        (&[6, 0, 0x1000_0000], &[2, 1]),
        (&[6, 0, 0x1000_0000], &[0, 256]),
        (&[6, 0, 0x1000_0000], &[0]),
        // RAM of the Pi.
        (&[0, 0, 0x1000_0000], &[0, 255]),
    ] {
        assert_eq!(buses(reg, range), None, "{reg:x?} {range:x?}");
    }
}

#[test]
fn windows_that_are_no_sense_are_not_there() {
    let windows = |ranges: &[u32]| one(&[("ranges", cells(ranges))]).windows;
    let good = [0x0200_0000, 0, 0xc000_0000, 6, 0x2000_0000, 0, 0x4000_0000];
    let expected = window(PciSpace::Memory32, 0xc000_0000, 0x6_2000_0000, 0x4000_0000);
    assert_eq!(windows(&good), [expected], "it is at another address for CPUs");
    let mut prefetchable = good;
    prefetchable[0] = 0x4300_0000;
    let expected = PciWindow { space: PciSpace::Memory64, is_prefetchable: true, ..expected };
    assert_eq!(windows(&prefetchable), [expected]);
    for (place, wrong) in [
        // Configuration space; beyond 32 bits; half a page on either side; nothing; RAM; configuration space of the host; round the end.
        (0, 0),
        (1, 1),
        (2, 0xc000_0800),
        (4, 0x2000_0800),
        (6, 0x800),
        (6, 0),
        (3, 0),
        (4, 0x0800_0000),
        (5, 0xffff_ffff),
    ] {
        let mut bad = good;
        bad[place] = wrong;
        assert_eq!(windows(&bad), [], "{place} {wrong:#x}");
        assert_eq!(windows(&[bad, good].concat()).len(), 1, "the next one is read");
    }
    // Two for the same addresses; an entry that ends too early; other cells.
    assert_eq!(windows(&[good, good].concat()).len(), 1);
    assert_eq!(windows(&good[..6]), []);
    assert_eq!(one(&[("ranges", cells(&good)), ("#size-cells", cells(&[1]))]).windows, []);
    let many: Vec<u32> = (0..99).flat_map(|n| [0x0200_0000, 0, 0x1000 * n, 7, 0x1000 * n, 0, 0x1000]).collect();
    assert_eq!(windows(&many).len(), 16, "and there is an end");
}

#[test]
fn maps_that_are_no_sense_lead_nowhere() {
    let line = |map: &[u32], mask: &[u32]| {
        let host = one(&[("interrupt-map", cells(map)), ("interrupt-map-mask", cells(mask))]);
        host.interrupts.line(0, 1, 0, 1).map(|line| line.intid.0)
    };
    // The Pi's controller, phandle 1, has no cells for addresses.
    let (map, mask) = ([0x800, 0, 0, 1, 1, 0, 7, 4], [0xf800, 0, 0, 7]);
    assert_eq!(line(&map, &mask), Some(39));
    assert_eq!(line(&[[0x1000, 0, 0, 1, 1, 0, 9, 4], map].concat(), &mask), Some(39));
    for (place, wrong) in [(0, 0x1000), (3, 2), (4, 99), (5, 1), (6, 2000)] {
        let mut bad = map;
        bad[place] = wrong;
        assert_eq!(line(&bad, &mask), None, "{place}");
    }
    assert_eq!(line(&map[..7], &mask), None);
    assert_eq!(line(&map, &mask[..3]), None);
    let endless: Vec<u32> = core::iter::repeat_n([0x1000, 0, 0, 1, 1, 0, 9, 4], 2000).flatten().collect();
    assert_eq!(line(&[&endless[..], &map].concat(), &mask), None, "there is an end");
}

#[test]
fn a_host_that_is_off_or_of_another_kind_is_none() {
    assert_eq!(with([host("pcie@600000000", &[("status", text("disabled"))])]), []);
    assert_eq!(with([host("pcie@600000000", &[("compatible", text("brcm,bcm2711-pcie"))])]), []);
    assert_eq!(read(pi()).unwrap().pci, []);
    let two = with([
        host("pcie@600000000", &[]),
        host("pcie@700000000", &[("reg", cells(&[7, 0, 0x1000_0000])), ("dma-coherent", vec![])]),
    ]);
    let shown: Vec<_> = two.iter().map(|host| (host.path.as_str(), host.domain, host.is_coherent)).collect();
    assert_eq!(shown, [("/pcie@600000000", None, false), ("/pcie@700000000", None, true)]);
}
