//! RAM, ROM, what is reserved, and what is at one address.

use super::*;

#[test]
fn memory_without_a_start_is_above_the_highest_before_it() {
    let memory = |text| {
        let Description { ram, rom, .. } = good(text).description;
        [ram, rom].concat()
    };
    assert_eq!(
        memory("ram 0x90000000,1M ram 0x80000000,1M ram 2M"),
        [range(0x9000_0000, 1 << 20), range(0x8000_0000, 1 << 20), range(0x9010_0000, 2 << 20)]
    );
    assert_eq!(memory("rom 0,64K ram 1M"), [range(0x1_0000, 1 << 20), range(0, 0x1_0000)]);
}

#[test]
fn memory_without_a_start_keeps_out_of_what_is_reserved() {
    let text = "ram 1M ram 1M reserve loc 0x80180000,4K reserve loc 0x80181000,100";
    assert_eq!(
        good(text).description.ram,
        [range(0x8000_0000, 1 << 20), range(0x8018_2000, 1 << 20)],
        "wherever the reservation stands, and behind its last page"
    );
}

#[test]
fn memory_is_made_of_whole_pages_and_does_not_wrap() {
    bad("ram 0x80000800,1M", &["1:5: error: ", "not whole pages", "multiples of 4K"]);
    bad("ram 0x80000000,1M rom 0x1000,100", &["not whole pages"]);
    bad("ram 0", &["a region of no bytes"]);
    bad("ram 0xfffffffffffff000,8K", &["0x2000 bytes from 0xfffffffffffff000 on run over the end"]);
    bad("ram 1M reserve loc 0xffffffffffffffff,2", &["run over the end"]);
    bad("ram 1M ram 0xffffffffffffffff", &["run over the end"]);
}

#[test]
fn there_are_limits_to_regions() {
    let many = |count| "ram 4K ".repeat(count);
    assert_eq!(good(&many(64)).description.ram.len(), 64);
    bad(&many(65), &["more than 64 regions"]);
    let reserves: String = (0..65).map(|n| format!("reserve loc {:#x},4K ", n << 12)).collect();
    bad(&format!("{RAM}{reserves}"), &["more than 64 reserved regions"]);
}

#[test]
fn memory_comes_before_what_is_loaded_into_it() {
    bad("load x\nram 1M", &["1:1: error: ", "`load` before any `ram` or `rom`"]);
    bad("ram 0x80000000,1M load 0x90000010,x ram 0x90000000,1M", &["`load` to 0x90000010 before the memory"]);
    good("ram 0x80000000,1M load 0x80000010,x ram 0x90000000,1M load y load 0x90000000,z");
}

#[test]
fn a_vm_without_ram_is_none() {
    bad("system a rom 4K", &["vms/guest.qvmconf: error: the VM has no `ram`", "hint: as in"]);
}

#[test]
fn two_things_at_one_address_are_both_named() {
    let uart = "vdev pl011 loc 0x1c090000 intr gic:37\n";
    bad(
        "ram 0x80000000,1M ram 0x800ff000,1M",
        &[
            "1:23: error: `ram` at 0x800ff000-0x801fefff overlaps `ram` at 0x80000000-0x800fffff",
            "1:5: note: the other one",
        ],
    );
    bad(&format!("{RAM}rom 0x80800000,4K"), &["2:5: error: `rom`", "overlaps `ram`"]);
    bad(&format!("{RAM}{uart}vdev pl011 loc 0x1c090800"), &["3:1: error: `vdev pl011` at 0x1c090800", "2:1: note"]);
    bad(
        &format!("{RAM}vdev pl011 loc 0x80fff000 name uart"),
        &["`vdev pl011 name uart` at 0x80fff000", "overlaps `ram`"],
    );
    bad(&format!("vdev pl011 loc 0x80fff000\n{RAM}"), &["2:5: error: `ram` at", "overlaps `vdev pl011`", "1:1: note"]);
    bad("ram 0x8000000,64K", &["1:5: error: ", "the interrupt controller's distributor", "overlaps", "vdev gic loc"]);
    bad(&format!("{RAM}vdev pl011 loc 0x080b0000"), &["the interrupt controller's redistributors"]);
    bad(&format!("{RAM}vdev gic loc 0x80ff0000"), &["2:1: error: the interrupt controller's distributor", "1:5: note"]);
    bad(&format!("{RAM}vdev gic loc 0x10000000 gicr 0x10000000"), &["redistributors at", "overlaps", "distributor at"]);
}

#[test]
fn every_vcpu_has_a_redistributor_that_takes_room() {
    let text = |cpus: usize| format!("{RAM}vdev pl011 loc 0x080e0000 {}", "cpu ".repeat(cpus));
    good(&text(2));
    bad(&text(3), &["redistributors at 0x80a0000-0x80fffff"]);
}

#[test]
fn things_that_touch_are_not_at_one_address() {
    good("ram 0x80000000,1M rom 0x80100000,4K vdev pl011 loc 0x80101000 vdev pl011 loc 0x80102000");
}

#[test]
fn every_one_of_many_overlaps_is_reported() {
    let found =
        errors("ram 0x80000000,1M\nvdev pl011 loc 0x80000000\nvdev pl011 loc 0x80001000\nvdev pl011 loc 0x80002000");
    assert_eq!(found.iter().filter(|line| line.contains(" error: ")).count(), 3, "{found:#?}");
}

#[test]
fn what_the_configuration_places_itself_in_reserved_space_is_worth_a_warning() {
    let (configuration, said) = read(&format!("{RAM}reserve loc 0x1c000000,1M\nvdev pl011 loc 0x1c090000 intr gic:37"));
    assert!(configuration.is_some());
    assert!(said.contains("3:1: warning: `vdev pl011` at 0x1c090000-0x1c090fff is in 0x1c000000-0x1c0fffff"), "{said}");
    assert!(said.contains("2:13: note: reserved here"), "{said}");
    let (configuration, said) = read(&format!("{RAM}reserve intr gic:37\nvdev pl011 loc 0x1c090000 intr gic:37"));
    assert!(configuration.is_some() && said.contains("3:32: warning: interrupt 37 is reserved"), "{said}");
}

#[test]
fn what_nobody_placed_cannot_be_in_reserved_space() {
    bad(&format!("{RAM}reserve loc 0x08000000,4K"), &["2:13: error: ", "cannot be reserved", "vdev gic loc"]);
    bad(&format!("{RAM}reserve intr pic:37"), &["no interrupt controller `pic`"]);
    bad(&format!("{RAM}reserve cpu"), &["`reserve` of nothing"]);
}

#[test]
fn what_is_left_open_is_found_out_of_everybodys_way() {
    let vdevs = |text: &str| {
        let list = good(&format!("{RAM}{text}")).description.vdevs;
        list.iter().map(|vdev| (vdev.location.unwrap().0, vdev.interrupt.map(|intid| intid.0))).collect::<Vec<_>>()
    };
    assert_eq!(vdevs("vdev pl011 vdev pl011"), [(0x1d00_0000, Some(64)), (0x1d01_0000, Some(65))]);
    // One that says where it is and not which interrupt has none.
    assert_eq!(vdevs("vdev pl011 loc 0x1d000000 vdev pl011"), [(0x1d00_0000, None), (0x1d01_0000, Some(64))]);
    let reserved = "reserve loc 0x1d000000,0x20000 intr gic:64 vdev pl011 loc 0x1c090000 intr gic:65 vdev pl011";
    assert_eq!(vdevs(reserved), [(0x1c09_0000, Some(65)), (0x1d02_0000, Some(66))]);
    assert_eq!(vdevs("vdev trace"), [(0x1d00_0000, None)], "it has no interrupt");
    let gic = "vdev gic loc 0x1d000000 gicr 0x1d010000 vdev pl011";
    assert_eq!(vdevs(gic), [(0x1d03_0000, Some(64))]);
}
