use super::*;
use alloc::string::String;
use types::Pa;

const CLOCK: &str = "pass loc 0x09010000,4K,rwn=0x1c170000 intr gic:40=34\n";

fn with_ram(text: &str) -> String {
    format!("{RAM}{text}")
}

fn refused(text: &str, words: &[&str]) {
    bad(&with_ram(text), words);
}

#[test]
fn a_passed_device_has_regions_and_interrupts() {
    let passed = good(&with_ram(&format!("{CLOCK}pass loc 0x09030000,8K,rn intr gic:39,u"))).description.passed;
    let [clock, gpio] = &passed[..] else { panic!("{passed:?}") };
    let [registers] = &clock.regions[..] else { panic!("{clock:?}") };
    assert_eq!(registers.guest, range(0x0901_0000, 4096));
    assert_eq!((registers.host.start(), registers.host.length(), registers.writable), (Pa(0x1c17_0000), 4096, true));
    let [interrupt] = &clock.interrupts[..] else { panic!("{clock:?}") };
    assert_eq!((interrupt.guest, interrupt.host, interrupt.edge), (IntId(40), IntId(34), false));
    assert_eq!(gpio.regions[0].host.start(), Pa(0x0903_0000), "identity");
    assert!(!gpio.regions[0].writable);
    assert_eq!((gpio.interrupts[0].host, gpio.interrupts[0].edge), (IntId(39), true));
}

#[test]
fn what_is_passed_is_whole_pages() {
    refused("pass loc 0x09010000,2K,rwn", &["is not whole pages", "multiples of 4K"]);
    refused("pass loc 0x09010800,4K,rwn", &["is not whole pages"]);
    refused("pass loc 0x09010000,4K,rwn=0x09010800", &["is not whole pages"]);
    refused("pass loc 0x09010000,0,rwn", &["is not whole pages"]);
    refused("pass loc 0xfffffffffffff000,8K,rwn", &["over the end of the address space"]);
    refused("pass loc 0x1000,8K,rwn=0xfffffffffffff000", &["over the end of the address space"]);
}

#[test]
fn what_is_not_carried_out_is_refused_by_name() {
    for letter in ["x", "c", "e", "s", "t"] {
        let text = format!("pass loc 0x09010000,4K,rwn{letter}");
        refused(&text, &[&format!("attribute `{letter}`: known, not supported yet")]);
    }
    refused("pass loc 0x09010000,4K,rwd", &["attribute `d`: no SMMU confines"]);
    refused("pass loc 0x09010000,4K,m", &["attribute `m`: RAM cannot be passed"]);
    refused("pass loc 0x09010000,4K,rw", &["do not say whether the device reaches memory"]);
    refused("pass loc 0x09010000,4K,wn", &["cannot be read"]);
    refused("pass loc pci:0:3.0", &["`pass loc pci:`: known, not supported yet"]);
    refused("data pass loc 0x09010000,4K,rwn", &["`data pass`: known, not supported yet"]);
    refused("pass", &["`pass` of nothing"]);
}

#[test]
fn what_is_passed_is_nowhere_else() {
    refused("pass loc 0x80001000,4K,rwn=0x09010000", &["`pass` at", "overlaps `ram`"]);
    refused("pass loc 0x08000000,4K,rwn=0x09010000", &["the interrupt controller's distributor"]);
    refused("vdev pl011 loc 0x09010000 intr gic:37 pass loc 0x09010000,4K,rwn", &["overlaps `vdev pl011`"]);
    refused(&format!("{CLOCK}pass loc 0x09011000,4K,rwn=0x1c170000"), &["of the machine is passed twice", "here too"]);
    refused(&format!("{CLOCK}pass intr gic:41=34"), &["interrupt 34 of the machine is passed twice"]);
    refused(&format!("{CLOCK}pass intr gic:40=35"), &["interrupt 40 of the guest has another source"]);
    refused("vdev pl011 loc 0x1c090000 intr gic:40 pass intr gic:40=35", &["has another source", "this one"]);
}

#[test]
fn a_passed_interrupt_is_shared_on_both_sides() {
    refused("pass intr gic:27=34", &["`gic:27` is no shared interrupt"]);
    refused("pass intr gic:40=30", &["30 is no shared interrupt of the machine"]);
    refused("pass intr gic:40=1020", &["1020 is no shared interrupt of the machine"]);
    refused("pass intr pic:40=34", &["there is no interrupt controller `pic`"]);
}

#[test]
fn what_places_itself_stays_clear_of_what_is_passed() {
    let description =
        good(&with_ram("pass loc 0x1d000000,64K,rwn=0x09010000 intr gic:64=34 vdev virtio-blk hostdev ram:1M"))
            .description;
    assert_ne!(description.vdevs[0].location, Some(Ipa(0x1d00_0000)));
    assert_ne!(description.vdevs[0].interrupt, Some(IntId(64)));
}

#[test]
fn there_is_an_end_to_what_is_passed() {
    let lines: String = (40..73).map(|line| format!("pass intr gic:{line}\n")).collect();
    refused(&lines, &["more than 32"]);
    let parts: String = (40..57).map(|line| format!("intr gic:{line} ")).collect();
    refused(&format!("pass {parts}"), &["16 parts of one"]);
}
