//! Who is on the PCI bus, and where that is.

use super::{RAM, bad, errors, good, range};
use crate::assemble::Description;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use types::{IntId, Ipa};
use vdev::PciSlot;

/// Name, slot and interrupt of each device of a configuration behind some RAM.
fn slots(text: &str) -> Vec<(String, String, Option<u32>)> {
    let description = good(&format!("{RAM}{text}")).description;
    let slot = |slot: Option<PciSlot>| slot.map(|slot| slot.to_string()).unwrap_or_default();
    description.vdevs.iter().map(|it| (it.name.clone(), slot(it.slot), it.interrupt.map(|intid| intid.0))).collect()
}

fn bus(text: &str) -> Description {
    good(&format!("{RAM}{text}")).description
}

/// `expected` is `NAME SLOT INTERRUPT`, by device.
fn is(text: &str, expected: &[(&str, &str, Option<u32>)]) {
    let expected: Vec<_> =
        expected.iter().map(|(name, slot, intid)| (name.to_string(), slot.to_string(), *intid)).collect();
    assert_eq!(slots(text), expected, "{text}");
}

#[test]
fn a_function_brings_the_host_bridge_with_it() {
    is("vdev pci-dummy", &[("pci-dummy", "1.0", None), ("pci-host", "0.0", None)]);
    let description = bus("vdev pci-dummy");
    let host = &description.vdevs[1];
    let bus = description.pci.unwrap();
    assert_eq!(
        (host.location, bus.windows, bus.first_line),
        (Some(Ipa(0x4000_0000)), [range(0x3000_0000, 256 << 20)].into(), IntId(64))
    );
    assert!(good(RAM).description.pci.is_none() && good(RAM).description.vdevs.is_empty(), "only then");
    is("vdev pci-host", &[("pci-host", "0.0", None)]);
    is(
        "vdev pl031 name pci-host vdev pci-dummy",
        &[("pci-host", "", Some(64)), ("pci-dummy", "1.0", None), ("pci-host_", "0.0", None)],
    );
}

#[test]
fn slots_are_as_said_or_the_next_free_device() {
    is(
        "vdev pci-host intr gic:100\nvdev shmem vdev shmem loc pci:1 vdev shmem loc pci:\nvdev shmem loc pci:0:5.0\nvdev shmem loc pci:5.1",
        &[
            ("pci-host", "0.0", None),
            ("shmem", "2.0", Some(102)),
            ("shmem-2", "1.0", Some(101)),
            ("shmem-3", "3.0", Some(103)),
            ("shmem-4", "5.0", Some(101)),
            ("shmem-5", "5.1", Some(102)),
        ],
    );
}

#[test]
fn a_device_with_an_address_is_in_memory() {
    is("vdev shmem loc 0x1c050000 intr gic:43", &[("shmem", "", Some(43))]);
    assert!(bus("vdev shmem loc 0x1c050000").pci.is_none());
}

#[test]
fn two_in_one_slot_are_both_named() {
    let both = format!("{RAM}vdev pci-dummy loc pci:3\nvdev shmem\nloc pci:0:3.0");
    bad(&both, &["4:5: error: `vdev pci-dummy` is at pci:3.0 already", "2:20: note: this one"]);
    bad(&format!("{RAM}vdev pci-dummy loc pci:0"), &["2:20: error: `vdev pci-host` is at pci:0.0 already"]);
    bad(
        &format!("{RAM}vdev pci-dummy loc pci:3.1"),
        &["2:20: error: nobody finds pci:3.1: device 3 has no function 0"],
    );
    bad(&format!("{RAM}vdev pci-dummy loc pci:32"), &["there are 0 to 31"]);
    let many = "vdev pci-dummy\n".repeat(32);
    bad(&format!("{RAM}{many}"), &["33:1: error: more than 31 devices on the PCI bus"]);
    assert_eq!(bus(&"vdev pci-dummy\n".repeat(31)).vdevs.len(), 32);
}

#[test]
fn the_pin_is_the_busses() {
    bad(
        &format!("{RAM}vdev shmem intr gic:40"),
        &["2:17: error: `vdev shmem` is on the PCI bus, and has its interrupt"],
    );
    bad(&format!("{RAM}vdev pci-dummy intr gic:40"), &["`vdev pci-dummy` raises no interrupt"]);
    bad(&format!("{RAM}vdev pci-host intr gic:1017"), &["2:20: error: the PCI bus has four lines, and behind 1017"]);
    assert_eq!(bus("vdev pci-host intr gic:1016").pci.unwrap().first_line, IntId(1016));
    let taken = bus("vdev pl011 loc 0x1c090000 intr gic:66 reserve intr gic:70 vdev pci-dummy").pci.unwrap();
    assert_eq!(taken.first_line, IntId(71), "four of which none is taken");
    let given = bus("vdev pci-host intr gic:64 vdev trace vdev pl031");
    assert_eq!(given.vdevs[2].interrupt, Some(IntId(68)), "nor are its lines anybody else's");
    let (_, said) = super::read(&format!("{RAM}vdev pci-host intr gic:64\nvdev pl011 intr gic:67"));
    assert!(said.contains("3:17: warning: `vdev pl011`: interrupt 67 is shared"), "{said}");
}

#[test]
fn what_the_bus_has_is_nobody_elses() {
    let named = "vdev pci-host loc 0x3f000000 window 0x10000000,256M window 0x8000000000,1G";
    let description = bus(named);
    assert_eq!(description.vdevs[0].location, Some(Ipa(0x3f00_0000)));
    assert_eq!(description.pci.unwrap().windows, [range(0x1000_0000, 256 << 20), range(0x80_0000_0000, 1 << 30)]);
    let with = |text: &str| format!("{RAM}{named}\n{text}");
    bad(
        &with("vdev pl011 loc 0x1c090000"),
        &["3:1: error: `vdev pl011` at", "overlaps a window of `vdev pci-host`", "2:37: note:"],
    );
    bad(&with("ram 0x3f080000,1M"), &["overlaps", "`vdev pci-host`", "note: the other one"]);
    bad(&with("rom 0x8000000000,4K"), &["overlaps", "a window of `vdev pci-host`"]);
    // What is found is out of the way of all that.
    let around = bus("ram 0x30000000,512M vdev pl011 loc 0x50000000 reserve loc 0x51000000,16M vdev pci-dummy");
    assert_eq!(around.vdevs[2].location, Some(Ipa(0x5010_0000)));
    assert_eq!(around.pci.unwrap().windows, [range(0x6000_0000, 256 << 20)]);
    // Less, where there is less.
    let full = good("ram 0x10000000,0xefe00000 vdev pci-dummy").description;
    assert_eq!(full.pci.unwrap().windows, [range(0x400_0000, 64 << 20)]);
    assert_eq!(full.vdevs[1].location, Some(Ipa(0xffe0_0000)));
}

#[test]
fn where_the_bus_cannot_be() {
    let host = |text: &str| format!("{RAM}vdev pci-host {text}");
    bad(&host("loc 0x3f080000"), &["2:19: error: no configuration spaces can be at 0x3f080000", "multiple of 1M"]);
    bad(&host("window 0x10080000,1M"), &["2:22: error: no window can be there", "multiples of 1M"]);
    bad(&host("window 0x10000000,0"), &["no window can be there"]);
    bad(&host("window 0x10000000"), &["expected START,SIZE"]);
    bad(&host("window 0xfff00000,2M"), &["is across 4G"]);
    bad(&host("window 0x10000000,1M\nwindow 0x20000000,1M"), &["3:8: error: a second window below 4G", "2:22: note:"]);
    bad(&host("\nvdev pci-host"), &["3:1: error: a second host bridge of the PCI bus", "2:1: note: the first one"]);
    let text = "ram 0,0x8000000 ram 0x8100000,0xf7f00000 vdev pci-dummy";
    assert!(errors(text).iter().any(|error| error.contains("no free addresses below 4G for the PCI bus")));
}
