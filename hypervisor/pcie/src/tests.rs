use crate::{
    testkit::{Model, Simulated, Vices, host},
    virtual_functions::{self, VirtualError},
    *,
};
use std::{string::ToString, vec, vec::Vec};
use types::{Frequency, Pa, Ticks};

mod addresses;
mod groups;
mod lies;
mod resting;

const NVME: [u8; 3] = [1, 8, 2];
const NET: [u8; 3] = [2, 0, 0];

fn at(bus: u8, device: u8, function: u8) -> PciAddress {
    PciAddress::new(0, bus, device, function)
}

/// An endpoint with one BAR: of 16 KiB, 64 bits.
fn disk(number: u8) -> Simulated {
    let mut disk = Simulated::endpoint(number, 0x1b36, 0x0010, NVME);
    disk.add_bar(0x10, 4, 0x4000);
    disk
}

fn found(model: &Model) -> Hierarchy {
    let found = scan(model, &host(), 0);
    sound(&found);
    found
}

fn function(found: &Hierarchy, address: PciAddress) -> &Function {
    found.functions.iter().find(|function| function.address == address).unwrap_or_else(|| panic!("no {address}"))
}

/// What holds of every scan: all memory is in the host's windows, in those of the bridges above, aligned, and nobody else's page.
fn sound(found: &Hierarchy) {
    let host = host();
    let mut taken: Vec<(u64, u64)> = Vec::new();
    for function in &found.functions {
        let own = function.bars.iter().filter_map(|bar| Some((bar.place?, bar.room(), bar.size)));
        let sriov = function.capabilities.sriov.iter().flat_map(|sriov| {
            sriov.bars.iter().filter_map(|bar| Some((bar.place?, bar.room() * u64::from(sriov.total), bar.size)))
        });
        for (place, room, size) in own.chain(sriov) {
            let (first, end) = (place.bus, place.bus + room);
            assert_eq!(first % size.max(4096), 0);
            assert_eq!(place.cpu, Pa(first), "the model's host does not translate");
            assert!(
                host.windows.iter().any(|window| { window.bus <= first && end <= window.bus + window.cpu.length() })
            );
            assert!(taken.iter().all(|(start, other)| end <= *start || *other <= first), "{first:#x} is taken");
            taken.push((first, end));
            let mut above = function.above;
            while let Some(bridge) = above.map(|above| self::function(found, above)) {
                let windows = bridge.bridge.unwrap();
                let holds = |window: Option<Window>| {
                    window.is_some_and(|window| window.first <= first && end - 1 <= window.last)
                };
                assert!(
                    holds(windows.memory) || holds(windows.prefetchable),
                    "{:?} forwards {first:#x}",
                    bridge.address
                );
                above = bridge.above;
            }
        }
    }
}

#[test]
fn functions_are_found_with_what_they_say() {
    let mut card = Simulated::endpoint(0x10, 0x8086, 0x10d3, NET);
    card.add_bar(0x10, 0, 0x2_0000);
    card.add_bar(0x18, 1, 0x20);
    card.add_bar(0x1c, 0, 0x4000);
    card.set(0x2c, &[0x86, 0x80, 0x1f, 0xa0]);
    card.add(1, 8);
    let msi = card.add(5, 24);
    card.set(msi + 2, &[0x86, 0x01]);
    card.allow(msi + 2, &[0x71]);
    card.add_express(0, true);
    let msix = card.add(0x11, 12);
    card.set(msix + 2, &[4, 0, 3, 0, 0, 0, 3, 0x20, 0, 0]);
    card.allow(msix + 2, &[0, 0xc0]);
    let model = Model::new([Simulated::endpoint(0, 0x1b36, 8, [6, 0, 0]), card]);
    let found = found(&model);
    assert_eq!(found.troubles, []);
    let [bridge, card] = &found.functions[..] else { panic!("{found:?}") };
    assert_eq!((bridge.address, bridge.class.name(), bridge.bars.len()), (at(0, 0, 0), "host bridge", 0));
    assert_eq!((card.address, card.vendor, card.device), (at(0, 2, 0), 0x8086, 0x10d3));
    assert_eq!((card.subsystem, card.revision, card.pin), ((0x8086, 0xa01f), 1, Some(1)));
    assert_eq!((card.class.name(), card.class.to_string().as_str()), ("Ethernet", "020000"));
    let sizes: Vec<_> =
        card.bars.iter().map(|bar| (bar.index, bar.size, bar.kind.is_io(), bar.place.is_some())).collect();
    assert_eq!(sizes, [(0, 0x2_0000, false, true), (2, 0x20, true, false), (3, 0x4000, false, true)]);
    let capabilities = &card.capabilities;
    assert_eq!(capabilities.power.map(|power| power.offset), Some(0x40));
    assert_eq!(capabilities.msi, Some(Msi { offset: msi, vectors: 8, is_wide: true, has_masks: true }));
    let table = Part { bar: 3, offset: 0 };
    let pending = Part { bar: 3, offset: 0x2000 };
    assert_eq!(capabilities.msix, Some(Msix { offset: msix, vectors: 5, table, pending }));
    let express = capabilities.express.unwrap();
    assert_eq!((express.kind, express.has_flr, card.reset()), (PortKind::Endpoint, true, Reset::Function));
    assert_eq!((card.above, card.requester().0), (None, 0x10));
    // It answers where it has been put, and does nothing by itself.
    let command = Space::new(&model, card.address).half(4);
    assert_eq!(command, 0x402);
}

#[test]
fn a_device_has_other_functions_only_if_it_says_so() {
    let mut first = disk(8);
    let (second, last) = (disk(9), disk(15));
    let single = found(&Model::new([first.clone(), second.clone(), last.clone()]));
    assert_eq!(single.functions.len(), 1);
    first.set(0x0e, &[0x80]);
    let several = found(&Model::new([first, second, last]));
    let addresses: Vec<_> = several.functions.iter().map(|function| function.address).collect();
    assert_eq!(addresses, [at(0, 1, 0), at(0, 1, 1), at(0, 1, 7)]);
}

#[test]
fn buses_without_numbers_get_them_on_the_way_down() {
    // Two bridges on the host's bus; behind the first a bridge and a disk.
    let model = Model::new([
        Simulated::bridge(0x08),
        Simulated::bridge(0x10),
        Simulated::bridge(0x08).behind(0),
        disk(0x10).behind(0),
        disk(0x18).behind(2),
        disk(0x20).behind(1),
    ]);
    let found = found(&model);
    assert_eq!(found.troubles, []);
    let numbers =
        |address| function(&found, address).bridge.map(|bridge| (bridge.primary, bridge.secondary, bridge.subordinate));
    assert_eq!(numbers(at(0, 1, 0)), Some((0, 1, 2)));
    assert_eq!(numbers(at(1, 1, 0)), Some((1, 2, 2)));
    assert_eq!(numbers(at(0, 2, 0)), Some((0, 3, 3)));
    for address in [at(1, 2, 0), at(2, 3, 0), at(3, 4, 0)] {
        assert!(function(&found, address).is_placed());
    }
    assert_eq!(function(&found, at(2, 3, 0)).above, Some(at(1, 1, 0)));
}

#[test]
fn sound_numbers_of_firmware_stay_and_others_do_not() {
    for (numbers, expected) in [([5, 9], [5, 9]), ([0, 0], [1, 1]), ([7, 3], [1, 1])] {
        let mut one = Simulated::bridge(0x08);
        one.set(0x19, &numbers);
        let mut other = Simulated::bridge(0x10);
        other.set(0x19, &[12, 12]);
        let found = found(&Model::new([one, other, disk(0).behind(0), disk(0).behind(1)]));
        let bridge = |device| function(&found, at(0, device, 0)).bridge.unwrap();
        assert_eq!([bridge(1).secondary, bridge(1).subordinate], expected);
        assert_eq!(found.functions.len(), 4, "whatever the numbers were, both disks are there");
    }
}

#[test]
fn behind_a_link_there_is_one_device() {
    let mut port = Simulated::root_port(8, true);
    port.set(0x0e, &[1]);
    let found = found(&Model::new([port, disk(0).behind(0), disk(8).behind(0)]));
    assert_eq!(found.functions.len(), 2);
}

#[test]
fn functions_of_ari_are_found_by_each_others_names() {
    let mut port = Simulated::root_port(8, true);
    let express = 0x40;
    port.set(express + 0x24, &[0x20]);
    let with_next = |number: u8, next: u8| {
        let mut function = disk(number);
        function.add_express(0, true);
        let ari = function.add_extended(0x0e, 8);
        function.set(ari + 5, &[next]);
        function.behind(0)
    };
    let model = Model::new([port.clone(), with_next(0, 9), with_next(9, 0x83), with_next(0x83, 9)]);
    let found = found(&model);
    let addresses: Vec<_> = found.functions.iter().skip(1).map(|function| function.address).collect();
    assert_eq!(addresses, [at(1, 0, 0), at(1, 1, 1), at(1, 16, 3)], "and the last does not lead back");
    assert_eq!(Space::new(&model, at(0, 1, 0)).half(express + 0x28) & 0x20, 0x20);
    assert_eq!(function(&found, at(1, 16, 3)).group, function(&found, at(1, 0, 0)).group);
    // The port cannot: then there is one.
    port.set(express + 0x24, &[0]);
    assert_eq!(self::found(&Model::new([port, with_next(0, 9), with_next(9, 0)])).functions.len(), 2);
}

#[test]
fn who_was_master_is_not_any_more_and_is_named() {
    let model = Model::new([disk(8), disk(16)]);
    model.with(0, |disk| disk.registers[4] = 6);
    let found = found(&model);
    assert_eq!(found.troubles, [Trouble { function: at(0, 1, 0), flaw: Flaw::WasMaster }]);
    assert!(found.troubles[0].to_string().contains("0000:00:01.0"));
    assert_eq!(Space::new(&model, at(0, 1, 0)).half(4) & 4, 0);
}

#[test]
fn what_need_not_ask_an_smmu_says_so_by_its_numbers() {
    let asks = |vendor, device| {
        let found = found(&Model::new([Simulated::endpoint(8, vendor, device, NET)]));
        function(&found, at(0, 1, 0)).asks_smmu()
    };
    // Virtio 1.3, 4.1.2: vendor 0x1af4, devices 0x1000 to 0x107f, transitional ones among them.
    for device in [0x1000, 0x1041, 0x107f] {
        assert!(!asks(0x1af4, device), "{device:#x}");
        assert!(asks(0x8086, device), "{device:#x}");
    }
    assert!(asks(0x1af4, 0x0fff) && asks(0x1af4, 0x1080) && asks(0x1b36, 0x0010));
}

#[test]
fn a_bridge_is_a_part_of_the_bus() {
    let found = found(&Model::new([Simulated::endpoint(0, 0x1b36, 8, [6, 0, 0]), disk(8), Simulated::bridge(0x18)]));
    let parts: Vec<_> = found.functions.iter().map(|function| (function.address, function.is_bridging())).collect();
    assert_eq!(parts, [(at(0, 0, 0), true), (at(0, 1, 0), false), (at(0, 3, 0), true)]);
}

#[test]
fn one_has_it_and_both_are_named() {
    let mut several = disk(8);
    several.set(0x0e, &[0x80]);
    let found = found(&Model::new([several, disk(9), disk(0x10), Simulated::bridge(0x18)]));
    let mut owners: Owners<u8> = Owners::default();
    owners.claim(&found.functions, 1, "VM `one`", &[at(0, 1, 0)]).unwrap();
    let mut refused = |owner, name: &str, wanted: &[PciAddress]| {
        let refusals = owners.claim(&found.functions, owner, name, wanted).unwrap_err();
        refusals.into_iter().map(|(_, why)| why).collect::<Vec<_>>()
    };
    assert_eq!(
        refused(2, "VM `two`", &[at(0, 2, 0), at(0, 1, 0)]),
        ["VM `two` cannot have PCI function 0000:00:01.0: VM `one` has it"]
    );
    let [group] = &refused(2, "VM `two`", &[at(0, 1, 1)])[..] else { panic!() };
    assert!(group.contains("VM `one` has 0000:00:01.0") && group.contains("kept apart"), "{group}");
    assert!(refused(2, "VM `two`", &[at(0, 3, 0)])[0].contains("the hypervisor has it"));
    assert!(refused(2, "VM `two`", &[at(0, 9, 0)])[0].contains("there is none"));
    assert!(refused(2, "VM `two`", &[at(0, 2, 0), at(0, 2, 0)])[0].contains("twice"));
    assert_eq!(owners.of(at(0, 2, 0)), None, "who cannot have all has nothing");
    owners.claim(&found.functions, 1, "VM `one`", &[at(0, 1, 1)]).unwrap();
    owners.claim(&found.functions, 2, "VM `two`", &[at(0, 2, 0)]).unwrap();
    assert_eq!(owners.only(at(0, 1, 0), [at(0, 1, 1), at(0, 3, 0)].into_iter()), Ok(()));
    assert_eq!(owners.only(at(0, 1, 0), [at(0, 2, 0)].into_iter()), Err((at(0, 2, 0), "VM `two`")));
    assert_eq!(owners.owned(1).collect::<Vec<_>>(), [at(0, 1, 0), at(0, 1, 1)]);
    owners.release(1);
    owners.claim(&found.functions, 2, "VM `two`", &[at(0, 1, 0)]).unwrap();
}

#[test]
fn pins_are_swapped_by_every_bridge_on_the_way() {
    let mut mute = disk(0x18);
    mute.set(0x3d, &[0]);
    let found = found(&Model::new([
        Simulated::bridge(0x10),
        Simulated::bridge(0x08).behind(0),
        disk(0x00).behind(1),
        disk(0x18).behind(1),
        disk(0x20),
        mute,
    ]));
    // INTA of device 3 is INTD of device 1, which is INTA of device 2; of device 0 INTA, then INTB.
    assert_eq!(pin_at_host(&found.functions, at(2, 3, 0)), Some((at(0, 2, 0), 1)));
    assert_eq!(pin_at_host(&found.functions, at(2, 0, 0)), Some((at(0, 2, 0), 2)));
    assert_eq!(pin_at_host(&found.functions, at(0, 4, 0)), Some((at(0, 4, 0), 1)));
    assert_eq!(pin_at_host(&found.functions, at(0, 3, 0)), None);
}
