use super::*;
use crate::assemble::Reach;
use ::vdev::WantedFunction;
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
    refused("pass loc 0x09010000,0,rwn", &["2:10: error: the region has no bytes", "multiples of 4K"]);
    refused("pass loc 0xfffffffffffff000,8K,rwn", &["over the end of the address space"]);
    refused("pass loc 0x1000,8K,rwn=0xfffffffffffff000", &["over the end of the address space"]);
}

#[test]
fn what_is_not_carried_out_is_refused_by_name() {
    for letter in ["x", "c", "e", "s", "t"] {
        let text = format!("pass loc 0x09010000,4K,rwn{letter}");
        refused(&text, &[&format!("attribute `{letter}`: known, not supported yet")]);
    }
    refused("pass loc 0x09010000,4K,m", &["attribute `m`: RAM cannot be passed"]);
    refused("pass loc 0x09010000,4K,rw", &["do not say whether the device reaches memory"]);
    refused("pass loc 0x09010000,4K,wn", &["cannot be read"]);
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

#[test]
fn a_function_is_a_device_of_the_guests_bus() {
    let text = "vdev virtio-blk loc pci:1 hostdev ram:1M\npass loc pci:0:2.0\npass loc pci:0:5.0=1:0.3 without-reset\n\
                pass loc pci:0x8086/0x10d3";
    let description = good(&with_ram(text)).description;
    let place = |bus, device, function| WantedFunction::Place { bus, device, function };
    let wanted = [place(0, 2, 0), place(1, 0, 3), WantedFunction::Kind { vendor: 0x8086, device: 0x10d3 }];
    assert_eq!(description.functions.iter().map(|function| function.wanted).collect::<Vec<_>>(), wanted);
    let of = |index: usize| &description.vdevs[description.functions[index].vdev];
    let slots: Vec<_> = (0..3).map(|index| of(index).slot.unwrap().to_string()).collect();
    assert_eq!(slots, ["2.0", "5.0", "3.0"], "the next ones that are free");
    assert_eq!([0, 1, 2].map(|index| of(index).name.as_str()), ["pass", "pass-2", "pass-3"]);
    let resets: Vec<_> = description.functions.iter().map(|function| function.without_reset).collect();
    assert_eq!(resets, [false, true, false]);
    let lines: Vec<_> = description.pci.as_ref().unwrap().lines().collect();
    assert!((0..3).all(|index| lines.contains(&of(index).interrupt.unwrap())));
}

#[test]
fn what_is_said_of_a_function_makes_sense() {
    refused("pass loc pci:1:3.0=0:2.0", &["2:10: error: the guest has no PCI bus 1"]);
    refused("pass loc pci:1/2=0:2.0", &["stands where the guest has the function"]);
    refused("pass loc pci:0:0.0=0:2.0", &["is its host bridge"]);
    refused("pass loc pci:0:2.0 intr gic:40", &["is passed alone"]);
    refused("pass loc pci:0:2.0 loc 0x09010000,4K,rwn", &["is passed alone"]);
    refused("pass loc pci:0:2.0 pass loc pci:0:7.0=0:2.0", &["pci:0:2.0 of the machine is passed twice", "here too"]);
    refused("pass loc pci:0:7.0=0:2.0 pass loc pci:0:7.0=0:3.0", &["`pass` is at pci:7.0 already"]);
    refused("vdev pci-dummy loc pci:7 pass loc pci:0:7.0=0:3.0", &["`vdev pci-dummy` is at pci:7.0 already"]);
    refused("pass loc pci:0:7.1=0:2.0", &["nobody finds pci:7.1"]);
    refused(&format!("{CLOCK} without-reset"), &["is about functions of PCI"]);
    refused(
        "safety qualified pass loc pci:0:2.0 without-reset",
        &["`without-reset`: nothing need bring the function to rest"],
    );
    good(&with_ram("safety qualified pass loc pci:0:2.0"));
    let many: String = (1..32).map(|device| format!("pass loc pci:1:{device}.0\n")).collect();
    good(&with_ram(&many));
    let reach = |text: &str| good(&with_ram(text)).description.functions[0].reach;
    assert_eq!(reach("pass loc pci:0:2.0"), Reach::Own);
    assert_eq!(reach("pass loc pci:0:2.0 uncontained"), Reach::Everything);
    refused(&format!("{many}{CLOCK}{CLOCK}"), &["more than 32 passed devices"]);
}

#[test]
fn what_a_device_reaches_is_said_of_each() {
    let reach = |text: &str| good(&with_ram(text)).description.passed[0].reach;
    assert_eq!(reach("pass loc 0x09010000,4K,rwn"), Reach::Nothing);
    assert_eq!(reach("pass loc 0x09010000,4K,rwd"), Reach::Own);
    assert_eq!(reach("pass loc 0x09010000,4K,rn loc 0x09020000,4K,rwd"), Reach::Own, "of one of its regions");
    assert_eq!(reach("pass loc 0x09010000,4K,rwd uncontained"), Reach::Everything);
    assert_eq!(reach("pass uncontained loc 0x09010000,4K,rwd"), Reach::Everything);
    refused("pass loc 0x09010000,4K,rwn uncontained", &["`uncontained`: this device does not reach memory by itself"]);
    refused("uncontained", &["uncontained"]);
    refused("safety qualified pass loc 0x09010000,4K,rwd uncontained", &["nothing brings the device to rest"]);
}
